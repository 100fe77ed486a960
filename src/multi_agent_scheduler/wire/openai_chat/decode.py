"""The stream of a chat completion as records.

- The answer is finished when every choice that was seen has a ``finish_reason``; ``[DONE]`` alone finishes nothing. The
  outcome is given at ``[DONE]`` or at the end of the body, since usage comes after the finish reason.
- Choice 0 is the main text; choice n is the branch ``str(n)``, and its finish reason is kept as an ``Unknown``.
- Reasoning comes as ``reasoning_content`` (DeepSeek, xAI, Alibaba), ``reasoning`` (Groq, Together, vLLM),
  ``reasoning_details`` (OpenRouter, beside a ``reasoning`` that says the same) or thinking items of a list-valued
  ``content`` (Mistral). Encrypted reasoning is a part of its own.
- Sources come as ``annotations`` (OpenAI, OpenRouter), ``citations`` (Perplexity, xAI) and ``search_results``
  (Perplexity); the latter two are repeated in every chunk and told once.
- What has no record of its own is an ``Unknown`` whose ``raw`` is the chunk with just that left in it. Fields that
  state something about the chunk or the choice, and are repeated, are told when they change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import msgspec

from ...errors import ErrorInfo
from ...records import Citation, Failed, Interrupted, Reasoning, Record, Refusal, Text, ToolCall, Unknown
from .. import sse
from ..decoder import StreamDecoder
from .choice import Choice
from .failure import error_info
from .finish import FAILED, PROTOCOL
from .piece import Chunk, decode_chunk
from .usage import from_usage

__all__ = ["Decoder"]

# The fields of a chunk, a choice and a delta that need no record: read elsewhere, or mere envelope.
_ENVELOPE: Final = frozenset(
    {"id", "object", "created", "model", "system_fingerprint", "obfuscation", "choices", "usage"}
)
_CHUNK: Final = _ENVELOPE | {"error", "citations", "search_results", "x_groq"}
_PLAIN_CHOICE: Final = frozenset({"index", "delta", "finish_reason", "logprobs", "native_finish_reason"})
_CHOICE: Final = frozenset({"index", "delta", "message", "finish_reason", "error"})
_PLAIN_DELTA: Final = frozenset({"content", "role"})
_DELTA: Final = _PLAIN_DELTA | {
    "annotations",
    "function_call",
    "index",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "refusal",
    "tool_calls",
}
_CALL: Final = frozenset({"index", "id", "type", "function", "custom", "extra_content"})
_DETAIL: Final = frozenset({"type", "text", "summary", "data", "signature", "id", "index"})
_MISFITS: Final = 8  # of a provider that has something else to say each time, so many are tried
_NOTHING: Final[tuple[Any, ...]] = (None, "", [], {})


class Decoder(StreamDecoder):
    """Bytes of a chat completion, streamed or whole, to records; see the module's text."""

    protocol: ClassVar[str] = PROTOCOL

    def __init__(self, *, limit: int = sse.DEFAULT_LIMIT) -> None:
        super().__init__(limit=limit)
        self._choices: dict[int, Choice] = {}
        self._open = 0  # choices without a finish reason
        self._text_part: int | None = None  # of choice 0, once its text has begun
        self._reasoning_part: int | None = None  # the same for reasoning that has no index
        self._told: dict[str, Any] = {}  # what stood beside the choices
        self._misfits = 0  # chunks that were no mere pieces
        self._cited: dict[tuple[str, str], None] = {}  # an empty set would be three times the size
        self._broken: Any = None  # the error of a choice that broke off
        self._usage: Any = None

    # --- the base's questions ----------------------------------------------------------------------------------------

    def _one(self, event: sse.Event, out: list[Record]) -> None:
        if self._misfits < _MISFITS:
            try:
                chunk = decode_chunk(event.data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._misfits += 1
            else:
                if self._piece(chunk, out):
                    self._events += 1
                    return
        super()._one(event, out)

    def _piece(self, chunk: Chunk, out: list[Record]) -> bool:
        """The chunk that nearly all are; false if there is more to say of it than its text."""
        if (chunk.id and self.response_id is None) or (chunk.model and self.model is None):
            return False
        tier, provider, choice = chunk.service_tier, chunk.provider, chunk.choices[0]
        if (tier and tier != self._told.get("service_tier")) or (provider and provider != self._told.get("provider")):
            return False
        filtered = choice.content_filter_results
        if filtered and filtered != self._seen(0).told.get("content_filter_results"):
            return False
        text, reasoning = choice.delta.content, choice.delta.reasoning_content
        if text and not reasoning and self._text_part is not None:
            out.append(Text(text=text, part=self._text_part))
            return True
        if reasoning and not text and self._reasoning_part is not None:
            out.append(Reasoning(text=reasoning, part=self._reasoning_part))
            return True
        return False

    def _literal(self, data: bytes, out: list[Record]) -> bool:
        if data.strip() != b"[DONE]":
            return False
        self._end(out, self._completed or self._unfinished())
        return True

    def _body(self, payload: Any, out: list[Record]) -> None:
        if not isinstance(payload, dict):
            super()._body(payload, out)
            return
        if not isinstance(payload.get("choices"), list):
            if any(isinstance(payload.get(name), str | dict | list) for name in ("message", "detail", "code")):
                self._end(out, Failed(error_info(payload)))
            else:
                super()._body(payload, out)
            return
        self._event("message", payload, out)
        if not self.done:
            problem = ErrorInfo("interrupted", "the answer has no finish reason", retryable=True)
            self._end(out, self._completed or Interrupted(problem))

    def _error(self, error: Any) -> ErrorInfo:
        return error_info(error)

    # --- one chunk ---------------------------------------------------------------------------------------------------

    def _event(self, name: str, payload: dict[str, Any], out: list[Record]) -> None:
        if self.response_id is None and isinstance(payload.get("id"), str):
            self.response_id = payload["id"] or None
        if self.model is None and isinstance(payload.get("model"), str):
            self.model = payload["model"] or None
        choices = payload.get("choices")
        for choice in choices if isinstance(choices, list) else [choices]:
            if isinstance(choice, dict):
                self._choice(choice, out)
            elif choice is not None:
                out.append(_unknown({"choices": [choice]}))
        if payload.get("usage"):
            self._count(payload["usage"], out)
        error: Any = self._broken
        if not _ENVELOPE.issuperset(payload):
            error = self._around(name, payload, out) or error
        if error:
            self._end(out, Failed(error_info(error)))

    def _around(self, name: str, payload: dict[str, Any], out: list[Record]) -> Any:
        """What stands beside the choices; returns the error, if there is one."""
        groq = payload.get("x_groq")
        groq = groq if isinstance(groq, dict) else {}
        if groq.get("usage"):
            self._count(groq["usage"], out)
        for source in ("search_results", "citations"):
            if payload.get(source):
                self._sources(source, payload[source], out)
        error = payload.get("error") or groq.get("error")
        if isinstance(error, str):  # Hugging Face TGI puts the type beside it
            return {"message": error, "type": payload.get("error_type"), "code": payload.get("code")}
        if not error and "choices" not in payload and (name == "error" or payload.get("object") == "error"):
            return payload
        self._envelope(payload, out)
        return error

    def _envelope(self, payload: dict[str, Any], out: list[Record]) -> None:
        for key, value in payload.items():
            if key == "x_groq" and isinstance(value, dict):
                value = {name: item for name, item in value.items() if name not in ("usage", "error")}
            elif key in _CHUNK:
                continue
            if value not in _NOTHING and self._told.get(key) != value:
                self._told[key] = value
                out.append(_unknown({key: value}))

    def _count(self, usage: Any, out: list[Record]) -> None:
        if usage == self._usage:
            return
        self._usage = usage
        out.append(from_usage(usage) if isinstance(usage, dict) else _unknown({"usage": usage}))

    def _sources(self, field: str, sources: Any, out: list[Record]) -> None:
        for source in sources if isinstance(sources, list) else [sources]:
            fields: Mapping[str, Any] = source if isinstance(source, dict) else {"url": source}
            url = fields.get("url")
            if not isinstance(url, str):
                out.append(_unknown({field: [source]}))
                continue
            known = self._cited
            if (field, url) in known or (field == "citations" and ("search_results", url) in known):
                continue
            known[field, url] = None
            out.append(
                Citation(
                    part=self._seen(0).part("text"),
                    url=url,
                    title=_str(fields.get("title")),
                    text=_str(fields.get("snippet")),
                    raw=source,
                )
            )

    # --- one choice --------------------------------------------------------------------------------------------------

    def _seen(self, index: int) -> Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = Choice(index)
            self._open += 1
            self._completed = None
        return choice

    def _choice(self, raw: dict[str, Any], out: list[Record]) -> None:
        choice = self._seen(_number(raw.get("index")))
        delta = raw.get("delta")
        if delta is None:
            delta = raw.get("message")  # an answer that was not streamed
        if isinstance(delta, dict):
            self._delta(choice, delta, out)
        elif delta is not None:
            out.append(_of(choice, {"delta": delta}))
        if not _PLAIN_CHOICE.issuperset(raw) or raw.get("logprobs") or raw.get("native_finish_reason"):
            self._beside(choice, raw, out)
        finish = raw.get("finish_reason")
        if raw.get("error") or finish == FAILED:
            self._broken = self._broken or raw.get("error") or {"message": None}
        if finish:
            self._finish(choice, str(finish), out)

    def _beside(self, choice: Choice, raw: dict[str, Any], out: list[Record]) -> None:
        for key, value in raw.items():
            if key == "stop_reason" and isinstance(value, str):  # vLLM: the stop string that matched
                choice.stop_sequence = value
            elif key not in _CHOICE and value not in _NOTHING and not choice.repeats(key, value):
                out.append(_of(choice, {key: value}))

    def _finish(self, choice: Choice, word: str, out: list[Record]) -> None:
        if choice.finish is None:
            self._open -= 1
        if choice.branch is not None and choice.finish != word:
            out.append(_of(choice, {"delta": {}, "finish_reason": word}))
        choice.finish = word
        if not self._open:
            self._completed = self._choices[min(self._choices)].outcome()

    def _delta(self, choice: Choice, delta: dict[str, Any], out: list[Record]) -> None:
        if "reasoning_content" in delta or "reasoning" in delta or "reasoning_details" in delta:
            self._reasoning(choice, delta, out)
        content = delta.get("content")
        if type(content) is str:
            self._text(choice, content, out)
        elif isinstance(content, list | dict):
            for item in content if isinstance(content, list) else [content]:
                self._content(choice, item, out)
        elif content is not None:
            out.append(_of(choice, {"delta": {"content": content}}))
        if _PLAIN_DELTA.issuperset(delta):
            return
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._refusal(choice, refusal, out)
        calls = delta.get("tool_calls")
        if calls:
            for call in calls if isinstance(calls, list) else [calls]:
                self._call(choice, call, out)
        legacy = delta.get("function_call")
        if legacy:
            self._call(choice, {"index": "function_call", "function": legacy}, out)
        annotations = delta.get("annotations")
        if annotations:
            for note in annotations if isinstance(annotations, list) else [annotations]:
                self._annotation(choice, note, out)
        if _DELTA.issuperset(delta) and (refusal is None or isinstance(refusal, str)):
            return
        for key, value in delta.items():
            if value in _NOTHING or (key in _DELTA and (key != "refusal" or isinstance(value, str))):
                continue
            if not choice.repeats(key, value):
                out.append(_of(choice, {"delta": {key: value}}))

    # --- what a delta says -------------------------------------------------------------------------------------------

    def _text(self, choice: Choice, text: str, out: list[Record]) -> None:
        if text:
            part = choice.part("text")
            if choice.branch is None:
                self._text_part = part
            out.append(Text(text=text, part=part, branch=choice.branch))

    def _refusal(self, choice: Choice, text: str, out: list[Record]) -> None:
        choice.refused = True
        out.append(Refusal(text=text, part=choice.part("refusal"), branch=choice.branch))

    def _content(self, choice: Choice, item: Any, out: list[Record]) -> None:
        """An item of a list-valued content (Mistral; also answers that a gateway rewrote)."""
        if isinstance(item, str):
            self._text(choice, item, out)
            return
        kind = item.get("type") if isinstance(item, dict) else None
        rest = dict(item) if isinstance(item, dict) else {}
        if kind in ("text", "output_text") and isinstance(item.get("text"), str):
            self._text(choice, rest.pop("text"), out)
        elif kind == "refusal" and isinstance(item.get("refusal"), str):
            self._refusal(choice, rest.pop("refusal"), out)
        elif kind == "reference":
            out.append(Citation(part=choice.part("text"), branch=choice.branch, raw=item))
            return
        elif kind == "thinking":
            rest.pop("closed", None)
            thinking, signature = rest.pop("thinking", None), _str(rest.pop("signature", None)) or None
            rest["thinking"] = self._thinking(choice, thinking, signature, out)
        if not isinstance(item, dict) or any(value not in _NOTHING for key, value in rest.items() if key != "type"):
            out.append(_of(choice, {"delta": {"content": [rest or item]}}))

    def _thinking(self, choice: Choice, thinking: Any, signature: str | None, out: list[Record]) -> list[Any]:
        """The pieces of a thinking item; what is not text is given back."""
        strange = []
        said: list[str] = []
        for piece in thinking if isinstance(thinking, list) else [thinking]:
            text = piece.get("text") if isinstance(piece, dict) else piece
            if isinstance(text, str):
                said.append(text)
            elif piece is not None:
                strange.append(piece)
        text = "".join(said)
        if text or signature:
            part = choice.part(("reasoning", choice.reasoning))
            out.append(Reasoning(text=text, part=part, signature=signature, branch=choice.branch))
        return strange

    def _reasoning(self, choice: Choice, delta: dict[str, Any], out: list[Record]) -> None:
        said = ""
        details = delta.get("reasoning_details")
        if details:
            for detail in details if isinstance(details, list) else [details]:
                said += self._detail(choice, detail, out)
        for field in ("reasoning_content", "reasoning"):
            text = delta.get(field)
            if not text or text == said:
                continue
            if isinstance(text, str) and not said:
                said = text
                part = choice.part(("reasoning", choice.reasoning))
                if choice.branch is None:
                    self._reasoning_part = part
                out.append(Reasoning(text=text, part=part, branch=choice.branch))
            else:
                out.append(_of(choice, {"delta": {field: text}}))

    def _detail(self, choice: Choice, detail: Any, out: list[Record]) -> str:
        """One entry of OpenRouter's reasoning_details; returns the text that it says."""
        known = isinstance(detail, dict) and detail.get("type") in (
            "reasoning.text",
            "reasoning.summary",
            "reasoning.encrypted",
        )
        if not known:
            out.append(_of(choice, {"delta": {"reasoning_details": [detail]}}))
            return ""
        sealed = detail["type"] == "reasoning.encrypted"
        summary: Literal["summary"] | None = "summary" if detail["type"] == "reasoning.summary" else None
        index = detail.get("index")
        index = index if isinstance(index, int | str) else choice.reasoning
        key = ("sealed", index) if sealed else ("reasoning", index)
        if not sealed:
            choice.reasoning = index
            self._reasoning_part = None
        part = choice.part(key)
        rest = {name: value for name, value in detail.items() if name not in _DETAIL and value not in _NOTHING}
        if rest and choice.told.get(key) != rest:
            choice.told[key] = rest
            raw = {"type": detail["type"], "index": index, **rest}
            out.append(_of(choice, {"delta": {"reasoning_details": [raw]}}, part))
        text = "" if sealed else _str(detail.get("summary" if summary else "text")) or ""
        redacted = _str(detail.get("data")) if sealed else None
        signature, item = _str(detail.get("signature")), _str(detail.get("id"))
        if item and choice.told.get(("id", part)) == item:
            item = None
        if text or redacted or signature or item:
            if item:
                choice.told["id", part] = item
            out.append(
                Reasoning(
                    text=text,
                    part=part,
                    signature=signature or None,
                    redacted=redacted or None,
                    kind=summary,
                    id=item or None,
                    branch=choice.branch,
                )
            )
        return text

    def _call(self, choice: Choice, raw: Any, out: list[Record]) -> None:
        """A tool call or a fragment of one."""
        kind: Literal["function", "custom"] = "custom" if isinstance(raw, dict) and raw.get("custom") else "function"
        inner = raw.get(kind) if isinstance(raw, dict) else None
        if not isinstance(inner, dict):
            out.append(_of(choice, {"delta": {"tool_calls": [raw]}}))
            return
        key = raw.get("index")
        id_, name = _str(raw.get("id")) or "", _str(inner.get("name")) or ""
        arguments = inner.get("input" if kind == "custom" else "arguments")
        if arguments is not None and not isinstance(arguments, str):  # an object in place of its JSON text
            arguments = msgspec.json.encode(arguments).decode()
        call = choice.call(key if isinstance(key, int | str) else None, id_, name, kind)
        id_, name = "" if call.id else id_, "" if name == call.name else name
        call.id, call.name = call.id or id_, call.name or name
        call.written = call.written or bool(arguments)
        signature = _signature(raw.get("extra_content"))
        if id_ or name or arguments or signature:
            out.append(
                ToolCall(
                    index=call.index,
                    id=id_,
                    name=name,
                    arguments=arguments or "",
                    part=call.part,
                    kind=call.kind,
                    signature=signature,
                    branch=choice.branch,
                )
            )
        rest = {name: value for name, value in raw.items() if name not in _CALL and value not in _NOTHING}
        if raw.get("extra_content") and signature is None:
            rest["extra_content"] = raw["extra_content"]
        if rest:
            out.append(_of(choice, {"delta": {"tool_calls": [{"index": call.index, **rest}]}}, call.part))

    def _annotation(self, choice: Choice, note: Any, out: list[Record]) -> None:
        cited = note.get("url_citation") if isinstance(note, dict) else None
        if not isinstance(cited, dict):
            out.append(_of(choice, {"delta": {"annotations": [note]}}))
            return
        out.append(
            Citation(
                part=choice.part("text"),
                url=_str(cited.get("url")),
                title=_str(cited.get("title")) or None,
                text=_str(cited.get("content")) or None,
                start=_int(cited.get("start_index")),
                end=_int(cited.get("end_index")),
                raw=note,
                branch=choice.branch,
            )
        )


def _unknown(raw: dict[str, Any]) -> Unknown:
    return Unknown(raw, protocol=PROTOCOL)


def _of(choice: Choice, raw: dict[str, Any], part: int | None = None) -> Unknown:
    chunk = {"choices": [{"index": choice.index, **raw}]}
    return Unknown(chunk, protocol=PROTOCOL, part=part, branch=choice.branch)


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> int:
    """A choice's index; 0 where it is missing or no number."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31 else 0


def _signature(extra: Any) -> str | None:
    """Gemini's seal over a call, where its compatible endpoint puts it."""
    google = extra.get("google") if isinstance(extra, dict) else None
    return (_str(google.get("thought_signature")) or None) if isinstance(google, dict) else None
