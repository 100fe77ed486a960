"""A streamed (or whole) answer of the Messages API to records.

Source: https://docs.anthropic.com/en/api/messages-streaming. The finish marker is ``message_stop``.
"""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar, Final

import msgspec

from ...errors import ErrorInfo
from ...records import (
    Citation,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
)
from .. import sse
from ..decoder import StreamDecoder
from . import usage as usages
from .failure import error_info
from .vocabulary import PROTOCOL, TOOL_USES, is_tool_result, leftover, stop_reason

__all__ = ["Decoder"]

_MESSAGE: Final = frozenset({"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"})
_MESSAGE_DELTA: Final = frozenset({"stop_reason", "stop_sequence", "stop_details"})
_CLOSING: Final = ("stop_reason", "stop_sequence", "stop_details", "container")
# Of a block or a delta: the fields that its record holds.
_FIELDS: Final[dict[str, frozenset[str]]] = {
    "text": frozenset({"type", "text", "citations"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error"}),
    "text_delta": frozenset({"type", "text"}),
    "thinking_delta": frozenset({"type", "thinking"}),
    "signature_delta": frozenset({"type", "signature"}),
    "input_json_delta": frozenset({"type", "partial_json"}),
    "citations_delta": frozenset({"type", "citation"}),
}
# Padding against traffic analysis and the like: not said by the model, of no use to anyone.
_BLOCK_EVENT: Final = frozenset({"type", "index", "content_block", "delta", "obfuscation", "p"})
_MESSAGE_EVENT: Final = frozenset({"type", "message", "delta", "usage", "obfuscation", "p"})
_LARGEST_PART: Final = 1 << 31


class _Tool:
    """A tool call whose block is open."""

    __slots__ = ("index", "input", "kind", "spoken")

    def __init__(self, index: int, kind: Any, given: Any) -> None:
        self.index = index
        self.kind = kind
        self.input = given
        self.spoken = False  # a fragment of the arguments came


class Decoder(StreamDecoder):
    """Bytes of one answer to records; see the base for the contract.

    A second ``message_start`` with another id, after content and before the first message's end, is a gateway that
    began anew in mid-stream: the outcome is *interrupted*, and nothing of the second message is mixed in. The same
    ``message_start`` again is ignored. Whatever follows ``message_stop`` is ignored.
    """

    protocol: ClassVar[str] = PROTOCOL

    def __init__(self, *, limit: int = sse.DEFAULT_LIMIT) -> None:
        super().__init__(limit=limit)
        self._quiet: dict[int, dict[str, Any]] = {}  # blocks that began and have said nothing, as their start event
        self._tools: dict[int, _Tool] = {}
        self._tool_count = 0
        self._part = -1  # the block that began last
        self._usage: dict[str, Any] = {}
        self._stop_reason: Any = None
        self._stop_sequence: str | None = None

    def close(self) -> list[Record]:
        """The body ended. A last event that came whole, but without the blank line after it, counts."""
        out: list[Record] = []
        if not self.done and self._plain is None:
            with contextlib.suppress(sse.TooLong):
                for event in self._sse.feed(b"\n\n"):
                    if _is_object(event.data):  # or else it was torn: the stream was cut off
                        self._one(event, out)
        return out + super().close()

    # --- events -----------------------------------------------------------------------------------------------

    def _event(self, name: str, payload: dict[str, Any], out: list[Record]) -> None:
        kind = payload.get("type")
        if kind == "content_block_delta":
            delta = payload.get("delta")
            part = payload.get("index")
            # The common case first: a piece of text, in a block that has spoken before, and nothing besides.
            if not self._quiet and type(delta) is dict and len(delta) == 2 and len(payload) == 3 and type(part) is int:
                text = delta.get("text")
                if type(text) is str and text and delta.get("type") == "text_delta":
                    out.append(Text(text=text, part=part))
                    return
            self._delta(payload, delta, out)
            return
        if type(kind) is not str:
            if name == "message":
                self._nameless(payload, out)
                return
            kind = name
            payload = {**payload, "type": name}
        if kind == "content_block_start":
            self._start(payload, out)
        elif kind == "content_block_stop":
            self._stop(payload, out)
        elif kind == "message_start":
            self._message_start(payload, out)
        elif kind == "content_block_delta":
            self._delta(payload, payload.get("delta"), out)
        elif kind == "message_delta":
            self._message_delta(payload, out)
        elif kind == "message_stop":
            self._message_stop(payload, out)
        elif kind == "error":
            self._end(out, Failed(error_info(payload)))
        elif kind != "ping":
            self._unknown(payload, out)

    def _literal(self, data: bytes, out: list[Record]) -> bool:  # noqa: ARG002 - nothing to say
        return data.strip() == b"[DONE]"  # some gateways close every stream with OpenAI's marker; it ends nothing here

    def _nameless(self, payload: dict[str, Any], out: list[Record]) -> None:
        if payload.get("error"):
            self._end(out, Failed(error_info(payload)))
        else:
            self._unknown(payload, out)

    def _unknown(self, raw: Any, out: list[Record], part: int | None = None) -> None:
        out.append(Unknown(raw=raw, protocol=PROTOCOL, part=part))

    # --- the message ------------------------------------------------------------------------------------------

    def _message_start(self, payload: dict[str, Any], out: list[Record]) -> None:
        message = payload.get("message")
        if type(message) is not dict:
            self._unknown(payload, out)
            return
        own = message.get("id")
        own = own if isinstance(own, str) else None
        if self._part >= 0:
            if own != self.response_id:
                problem = "the provider began another answer before the first had ended"
                self._end(out, Interrupted(ErrorInfo("interrupted", problem, retryable=True)))
            return
        self._head(message, own)
        extra = leftover(message, _MESSAGE)
        rest = leftover(payload, _MESSAGE_EVENT)
        if extra or rest:
            self._unknown({"type": "message_start", "message": extra, **rest}, out)
        self._note_usage(message.get("usage"), out, always=False)
        content = message.get("content")
        if type(content) is list and content:
            self._content(content, out)

    def _head(self, message: dict[str, Any], own: str | None) -> None:
        self.response_id = own
        model = message.get("model")
        if isinstance(model, str) and model:
            self.model = model
        if message.get("stop_reason") is not None:
            self._stop_reason = message["stop_reason"]

    def _content(self, content: list[Any], out: list[Record]) -> None:
        """Whole blocks, as an answer that is no stream has them."""
        for part, block in enumerate(content):
            event = {"type": "content_block_start", "index": part, "content_block": block}
            self._start(event, out)
            self._finish(part, out)

    def _message_delta(self, payload: dict[str, Any], out: list[Record]) -> None:
        delta = payload.get("delta")
        if type(delta) is not dict:
            delta = {}
        extra = leftover(delta, _MESSAGE_DELTA)
        details = self._note_stop(delta, out)
        if details:
            extra["stop_details"] = details
        rest = leftover(payload, _MESSAGE_EVENT)
        if extra or rest:
            self._unknown({"type": "message_delta", "delta": extra, **rest}, out)
        self._note_usage(payload.get("usage"), out, always=True)

    def _note_stop(self, fields: dict[str, Any], out: list[Record]) -> Any:
        """Remember why it stopped; what is left of ``stop_details`` once a refusal's explanation is taken out."""
        if fields.get("stop_reason") is not None:
            self._stop_reason = fields["stop_reason"]
        sequence = fields.get("stop_sequence")
        if isinstance(sequence, str):
            self._stop_sequence = sequence
        details = fields.get("stop_details")
        if not isinstance(details, dict) or details.get("type") != "refusal":
            return details
        explanation = details.get("explanation")
        if isinstance(explanation, str) and explanation:
            out.append(Refusal(text=explanation))
        elif explanation is not None:
            return details
        rest = leftover(details, frozenset({"type", "explanation"}))
        return {"type": "refusal", **rest} if rest else None

    def _note_usage(self, raw: Any, out: list[Record], *, always: bool) -> None:
        if type(raw) is not dict or not raw:
            return
        merged = usages.merge(self._usage, raw)
        if always or merged != self._usage:
            out.append(usages.record(merged))
        self._usage = merged

    def _message_stop(self, payload: dict[str, Any], out: list[Record]) -> None:
        for part in sorted({*self._quiet, *self._tools}):
            self._finish(part, out)
        rest = leftover(payload, _MESSAGE_EVENT)
        if rest:
            self._unknown({"type": "message_stop", **rest}, out)
        raw = self._stop_reason
        raw = raw if raw is None or isinstance(raw, str) else str(raw)
        end = Completed(stop_reason=stop_reason(raw), raw_stop_reason=raw, stop_sequence=self._stop_sequence)
        self._end(out, end)

    # --- blocks -----------------------------------------------------------------------------------------------

    def _number(self, payload: dict[str, Any], default: int) -> int:
        part = payload.get("index")
        if isinstance(part, str) and part.isascii() and part.isdigit() and len(part) < 10:
            part = int(part)
        if isinstance(part, int) and 0 <= part < _LARGEST_PART:
            return int(part)
        return max(default, 0)

    def _start(self, payload: dict[str, Any], out: list[Record]) -> None:
        part = self._number(payload, self._part + 1)
        self._finish(part, out)  # a block that never stopped
        self._part = part
        block = payload.get("content_block")
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            self._unknown(payload, out, part)
            return
        kind = block["type"]
        if kind == "text":
            self._start_text(part, payload, block, out)
        elif kind == "thinking":
            self._start_thinking(part, payload, block, out)
        elif kind == "redacted_thinking" and isinstance(block.get("data"), str) and block["data"]:
            self._extra(part, block, kind, out)
            out.append(Reasoning(redacted=block["data"], part=part))
        elif kind in TOOL_USES:
            self._start_tool(part, block, kind, out)
        elif is_tool_result(kind):
            self._start_result(part, block, kind, out)
        else:
            self._unknown(payload, out, part)

    def _extra(self, part: int, block: dict[str, Any], kind: str, out: list[Record], *, must: bool = False) -> bool:
        """What a block has besides the fields of its record, ahead of the record."""
        extra = leftover(block, _FIELDS[kind])
        if extra or must:
            extra = {"type": block["type"], **extra}
            self._unknown({"type": "content_block_start", "index": part, "content_block": extra}, out, part)
            return True
        return False

    def _start_text(self, part: int, payload: dict[str, Any], block: dict[str, Any], out: list[Record]) -> None:
        text = block.get("text")
        if text is not None and not isinstance(text, str):
            self._unknown(payload, out, part)
            return
        before = len(out)
        self._extra(part, block, "text", out)
        if text:
            out.append(Text(text=text, part=part))
        citations = block.get("citations")
        for citation in citations if isinstance(citations, list) else ():
            if isinstance(citation, dict):
                self._cite(part, citation, out)
        if len(out) == before:
            self._quiet[part] = payload

    def _start_thinking(self, part: int, payload: dict[str, Any], block: dict[str, Any], out: list[Record]) -> None:
        before = len(out)
        self._extra(part, block, "thinking", out)
        thinking, signature = block.get("thinking"), block.get("signature")
        if isinstance(thinking, str) and thinking:
            out.append(Reasoning(text=thinking, part=part))
        if isinstance(signature, str) and signature:
            out.append(Reasoning(signature=signature, part=part))
        if len(out) == before:
            self._quiet[part] = payload

    def _start_tool(self, part: int, block: dict[str, Any], kind: str, out: list[Record]) -> None:
        tool = _Tool(self._tool_count, "function" if kind == "tool_use" else "server", block.get("input"))
        self._tool_count += 1
        self._tools[part] = tool
        self._extra(part, block, "tool_use", out, must=kind == "mcp_tool_use")
        own, name = _word(block.get("id")), _word(block.get("name"))
        out.append(ToolCall(index=tool.index, id=own, name=name, part=part, kind=tool.kind))

    def _start_result(self, part: int, block: dict[str, Any], kind: str, out: list[Record]) -> None:
        self._extra(part, block, "tool_result", out)
        content = block.get("content")
        inner = content.get("type") if isinstance(content, dict) else None
        failed = block.get("is_error") is True or (isinstance(inner, str) and inner.endswith("_tool_result_error"))
        own = _word(block.get("tool_use_id"))
        out.append(ToolResult(id=own, content=content, name=kind, is_error=failed, part=part))

    def _stop(self, payload: dict[str, Any], out: list[Record]) -> None:
        part = self._number(payload, self._part)
        self._finish(part, out)
        rest = leftover(payload, _BLOCK_EVENT)
        if rest:
            self._unknown({"type": "content_block_stop", "index": part, **rest}, out, part)

    def _finish(self, part: int, out: list[Record]) -> None:
        """A block ended: say what it never said itself."""
        start = self._quiet.pop(part, None)
        if start is not None:
            self._unknown(start, out, part)
        tool = self._tools.pop(part, None)
        if tool is not None and not tool.spoken:
            # The input came whole with the start, or there is none: arguments are JSON in either case.
            given = tool.input
            arguments = given if isinstance(given, str) and given else msgspec.json.encode(given or {}).decode()
            out.append(ToolCall(index=tool.index, arguments=arguments, part=part, kind=tool.kind))

    # --- deltas -----------------------------------------------------------------------------------------------

    def _delta(self, payload: dict[str, Any], delta: Any, out: list[Record]) -> None:
        part = self._number(payload, self._part)
        kind = delta.get("type") if type(delta) is dict else None
        if type(kind) is not str or kind not in _FIELDS or not kind.endswith("_delta"):
            self._announce(part, out)
            self._unknown(payload, out, part)
            return
        extra = leftover(delta, _FIELDS[kind])
        rest = leftover(payload, _BLOCK_EVENT)
        if extra or rest:
            self._announce(part, out)
            event = {"type": "content_block_delta", "index": part, "delta": {"type": kind, **extra}, **rest}
            self._unknown(event, out, part)
        if kind == "citations_delta":
            value = delta.get("citation")
            if isinstance(value, dict) and value:
                self._quiet.pop(part, None)
                self._cite(part, value, out)
            elif value is not None:
                self._announce(part, out)
                self._unknown(payload, out, part)
            return
        tool = self._tools.get(part)
        (field,) = _FIELDS[kind] - {"type"}
        value = delta.get(field)
        if not value and (value is None or isinstance(value, str)):
            return
        if not isinstance(value, str) or (kind == "input_json_delta") != (tool is not None):
            self._announce(part, out)  # not text; or arguments of no tool call, or text inside one
            self._unknown(payload, out, part)
        else:
            self._quiet.pop(part, None)
            if kind == "text_delta":
                out.append(Text(text=value, part=part))
            elif kind == "thinking_delta":
                out.append(Reasoning(text=value, part=part))
            elif kind == "signature_delta":
                out.append(Reasoning(signature=value, part=part))
            elif tool is not None:
                tool.spoken = True
                out.append(ToolCall(index=tool.index, arguments=value, part=part, kind=tool.kind))

    def _announce(self, part: int, out: list[Record]) -> None:
        """Before an unknown delta of a block that has said nothing yet: which block it is."""
        start = self._quiet.pop(part, None)
        if start is not None:
            self._unknown(start, out, part)

    def _cite(self, part: int, raw: dict[str, Any], out: list[Record]) -> None:
        span = next(
            (
                (raw.get(f"start_{unit}"), raw.get(f"end_{unit}"))
                for unit in ("char_index", "page_number", "block_index")
                if f"start_{unit}" in raw
            ),
            (None, None),
        )
        url = raw.get("url") or raw.get("source")
        title = raw.get("title") or raw.get("document_title")
        cited = raw.get("cited_text")
        out.append(
            Citation(
                part=part,
                url=url if isinstance(url, str) else None,
                title=title if isinstance(title, str) else None,
                text=cited if isinstance(cited, str) else None,
                start=span[0] if isinstance(span[0], int) else None,
                end=span[1] if isinstance(span[1], int) else None,
                raw=raw,
            )
        )

    # --- an answer that is no stream ------------------------------------------------------------------------------

    def _document(self, payload: Any, out: list[Record]) -> None:
        if isinstance(payload, dict) and (payload.get("error") or payload.get("type") == "error"):
            self._end(out, Failed(error_info(payload)))
        else:
            super()._document(payload, out)

    def _body(self, payload: Any, out: list[Record]) -> None:
        content = payload.get("content") if isinstance(payload, dict) else None
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list):
            super()._body(payload, out)
            return
        start = {key: value for key, value in payload.items() if key not in _CLOSING and key != "usage"}
        self._message_start({"message": {**start, "content": content}}, out)
        self._message_delta({"delta": {key: payload.get(key) for key in _CLOSING}, "usage": payload.get("usage")}, out)
        self._message_stop({}, out)


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(data), dict)
    except (ValueError, RecursionError):
        return False


def _word(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
