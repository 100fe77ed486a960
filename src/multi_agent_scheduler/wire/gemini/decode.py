"""Gemini's streamed answers to records.

The body is a series of GenerateContentResponse objects, each with new parts. What is decided here:

- **The end.** A candidate's ``finishReason`` (of every candidate seen), or ``promptFeedback.blockReason``, finishes
  the answer; usage may follow, and nothing marks the end of the body, so the outcome comes with
  :meth:`Decoder.close`. A reason that means a broken answer (``MALFORMED_FUNCTION_CALL`` ...) completes it as
  "other": not a success, what came is kept.
- **Parts.** Pieces of text that follow each other are one part, so are thoughts; anything else is a part of its own.
- **Signatures.** A ``thoughtSignature`` on a thought or a function call is in its record. One on plain text, or on an
  empty text part, is a :class:`Reasoning` with no text, after the text, in a part of its own: it goes back as
  ``{"text": "", "thoughtSignature": ...}`` at that place, which is also how Gemini streams it. The part that had one is
  closed: what follows is never joined to it (Google asks for that).
- **Function calls** without an id get ``call_<response id>_<index>``. Those whose arguments are streamed are given as
  fragments. STOP after a function call is "tool_calls".
- **Tools that Google runs** (executableCode, codeExecutionResult, toolCall, toolResponse) are :class:`Unknown` records,
  whole: they must go back as they came, with their signatures.
- **Unknown**, with ``part``: ``raw`` is an item of ``content.parts``. Without: ``raw`` is a fragment of the response
  object (``{"candidates": [{"groundingMetadata": ...}]}``). What repeats unchanged, and safety ratings that say
  "negligible", are left out. Citations are made from groundingMetadata and citationMetadata, which are also carried
  whole.
- **Candidates** other than the first have their index as ``branch``; their finishReason is carried as Unknown.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

import msgspec

from ...errors import ErrorInfo
from ...records import Completed, Failed, Reasoning, Record, Terminal, Text, ToolCall, Unknown
from .. import sse
from ..decoder import StreamDecoder
from . import citations
from .arguments import PartialArguments, parse_path
from .failure import error_info
from .finish import PROTOCOL, UNSPECIFIED, blocked, completed
from .usage import count, read_usage

__all__ = ["Decoder"]

_encode: Final = msgspec.json.Encoder().encode
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,48}")
_EVENT: Final = frozenset({"candidates", "usageMetadata", "modelVersion", "responseId", "createTime"})
_CANDIDATE: Final = frozenset({"content", "finishReason", "index"})
_CONTENT: Final = frozenset({"parts", "role"})
_TEXT: Final = frozenset({"text", "thought", "thoughtSignature"})
_CALL_PART: Final = frozenset({"functionCall", "thoughtSignature", "thought"})
_BODY: Final = frozenset({"candidates", "promptFeedback", "usageMetadata"})
_CALL: Final = frozenset({"name", "id", "args", "partialArgs", "willContinue"})
_HARMLESS: Final = ("NEGLIGIBLE", "HARM_PROBABILITY_UNSPECIFIED", "HARM_SEVERITY_NEGLIGIBLE", None)


class _Candidate:
    """Where one candidate stands. ``kind`` is what its last part can be extended with: text, thought or nothing."""

    __slots__ = ("branch", "call_part", "calls", "finish", "index", "kind", "open", "part", "seen", "text_part")

    def __init__(self, index: int) -> None:
        self.index = index
        self.branch = str(index) if index else None
        self.part = -1
        self.kind = ""
        self.text_part = 0
        self.calls = 0
        self.call_part = 0
        self.open: PartialArguments | None = None  # the call whose arguments are still coming
        self.finish: str | None = None
        self.seen: dict[str, Any] = {}  # the metadata given last, to leave out what repeats

    def own_part(self) -> int:
        """The number of a part that nothing else joins."""
        self.part += 1
        self.kind = ""
        return self.part


class Decoder(StreamDecoder):
    """Bytes of ``streamGenerateContent?alt=sse`` to records; takes a whole JSON answer, or a list of them, as well."""

    protocol: ClassVar[str] = PROTOCOL

    def __init__(self, *, limit: int = sse.DEFAULT_LIMIT) -> None:
        super().__init__(limit=limit)
        self._main = _Candidate(0)
        self._others: dict[int, _Candidate] = {}
        self._started = False  # the main candidate was seen
        self._usage: dict[str, Any] | None = None
        self._untold = False  # the usage has changed since it was told
        self._seen: dict[str, Any] = {}
        self._blocked: Completed | None = None

    def feed(self, data: bytes) -> list[Record]:
        out = super().feed(data)
        if self._untold and not self.done:
            self._tell(out)
        return out

    def _end(self, out: list[Record], outcome: Terminal) -> None:
        if self._untold:
            self._tell(out)
        super()._end(out, outcome)

    def _tell(self, out: list[Record]) -> None:
        """The usage so far: Google repeats it in nearly every event, and the last of a read says it all."""
        assert self._usage is not None
        self._untold = False
        out.append(read_usage(self._usage))

    def _event(self, name: str, payload: dict[str, Any], out: list[Record]) -> None:  # noqa: ARG002 - no names here
        error = payload.get("error")
        if error:
            self._end(out, Failed(self._error(error)))
            return
        if self.response_id is None or self.model is None:
            self._name(payload)
        try:
            candidates = payload.get("candidates")
            if type(candidates) is list:
                for candidate in candidates:
                    self._candidate(candidate, out)
            elif candidates:
                out.append(Unknown(raw={"candidates": candidates}, protocol=PROTOCOL))
            if not payload.keys() <= _EVENT:
                self._rest(payload, out)
            usage = payload.get("usageMetadata")
            if usage and usage != self._usage:
                self._spent(usage, out)
        except RecursionError:  # nested as deep as the JSON parser allows, and a little too deep to write again
            raise ValueError("nested too deeply") from None

    def _body(self, payload: Any, out: list[Record]) -> None:
        if not isinstance(payload, dict) or payload.keys().isdisjoint(_BODY):
            super()._body(payload, out)
            return
        self._events += 1
        self._event("message", payload, out)

    def _document(self, payload: Any, out: list[Record]) -> None:
        """Without ``alt=sse`` a streamed answer is one JSON list of the same objects."""
        for item in payload if isinstance(payload, list) and payload else (payload,):
            if not self.done:
                super()._document(item, out)

    def _error(self, error: Any) -> ErrorInfo:
        return error_info(error)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _name(self, payload: dict[str, Any]) -> None:
        response_id, model = payload.get("responseId"), payload.get("modelVersion")
        if self.response_id is None and isinstance(response_id, str) and response_id:
            self.response_id = response_id
        if self.model is None and isinstance(model, str) and model:
            self.model = model

    def _candidate(self, candidate: Any, out: list[Record]) -> None:
        if type(candidate) is not dict:
            out.append(Unknown(raw={"candidates": [candidate]}, protocol=PROTOCOL))
            return
        index = candidate.get("index")
        if index:
            state = self._other(count(index) or 0)
        else:
            state = self._main
            self._started = True
        content = candidate.get("content")
        if content:
            self._content(state, content, out)
        if not candidate.keys() <= _CANDIDATE:
            self._metadata(state, candidate, out)
        reason = candidate.get("finishReason")
        if reason:
            self._finish(state, reason, out)
        elif state.finish is None:
            self._completed = self._blocked  # a candidate that began after others had finished

    def _other(self, index: int) -> _Candidate:
        if index <= 0:
            self._started = True
            return self._main
        state = self._others.get(index)
        if state is None:
            state = self._others[index] = _Candidate(index)
        return state

    def _content(self, state: _Candidate, content: Any, out: list[Record]) -> None:
        parts = content.get("parts", ()) if type(content) is dict else None
        if type(parts) is not list and parts != ():
            self._fragment(state, "content", content, out)
            return
        for part in parts:
            if type(part) is dict and len(part) == 1 and type(part.get("text")) is str:
                text = part["text"]
                if text:
                    if state.kind != "text":
                        state.part += 1
                        state.kind = "text"
                        state.text_part = state.part
                    out.append(Text(text=text, part=state.part, branch=state.branch))
            else:
                self._part(state, part, out)
        if not content.keys() <= _CONTENT:
            self._fragment(state, "content", {key: content[key] for key in content if key not in _CONTENT}, out)

    def _part(self, state: _Candidate, part: Any, out: list[Record]) -> None:
        if type(part) is not dict:
            out.append(Unknown(raw=part, protocol=PROTOCOL, part=state.own_part(), branch=state.branch))
            return
        signature = part.get("thoughtSignature")
        signature = signature if isinstance(signature, str) and signature else None
        text, call = part.get("text"), part.get("functionCall")
        if type(call) is dict and self._function_call(state, call, signature, out):
            rest = {key: value for key, value in part.items() if key not in _CALL_PART}
            inner = {key: value for key, value in call.items() if key not in _CALL}
            if inner:
                rest["functionCall"] = inner
        elif type(text) is str and (text or part.keys() <= _TEXT):
            show = self._thought if part.get("thought") else self._signed_text
            show(state, text, signature, out)
            rest = {key: value for key, value in part.items() if key not in _TEXT}
        elif signature and part.keys() <= _TEXT and text is None:
            self._signed_text(state, "", signature, out)
            rest = None
        else:
            rest = part
        if rest:
            out.append(Unknown(raw=rest, protocol=PROTOCOL, part=state.own_part(), branch=state.branch))

    def _thought(self, state: _Candidate, text: str, signature: str | None, out: list[Record]) -> None:
        if not text and not signature:
            return
        if state.kind != "thought":
            state.part += 1
            state.kind = "thought"
        out.append(Reasoning(text=text, part=state.part, signature=signature, branch=state.branch))
        if signature:
            state.kind = ""

    def _signed_text(self, state: _Candidate, text: str, signature: str | None, out: list[Record]) -> None:
        if text:
            if state.kind != "text":
                state.part += 1
                state.kind = "text"
                state.text_part = state.part
            out.append(Text(text=text, part=state.part, branch=state.branch))
        if signature:
            out.append(Reasoning(part=state.own_part(), signature=signature, branch=state.branch))

    def _function_call(self, state: _Candidate, call: dict[str, Any], signature: str | None, out: list[Record]) -> bool:
        """A call or a piece of one; false if it is neither."""
        name, identity = call.get("name"), call.get("id")
        if name and not isinstance(name, str):
            return False
        pieces = call.get("partialArgs")
        if pieces is not None and type(pieces) is not list:
            return False
        more = call.get("willContinue") is True
        if not name:
            return self._continued(state, call, more, signature, out)
        self._close_call(state, out)
        index = state.calls
        state.calls += 1
        arguments = ""
        part = state.call_part = state.own_part()
        if more or pieces:
            state.open = PartialArguments()
            arguments = self._pieces(state, call, out) + ("" if more else self._closing(state))
        else:
            given = call.get("args")
            arguments = given if isinstance(given, str) and given else _encode(given).decode() if given else "{}"
        out.append(
            ToolCall(
                index=index,
                id=identity if isinstance(identity, str) and identity else self._call_id(state, index),
                name=name,
                arguments=arguments,
                part=part,
                signature=signature,
                branch=state.branch,
            )
        )
        return True

    def _continued(
        self, state: _Candidate, call: dict[str, Any], more: bool, signature: str | None, out: list[Record]
    ) -> bool:
        if state.open is None:
            return not call and not signature  # an empty call says nothing; anything else is not understood
        arguments = self._pieces(state, call, out) + ("" if more else self._closing(state))
        if arguments or signature:
            out.append(self._fragment_of_call(state, arguments, signature))
        return True

    def _pieces(self, state: _Candidate, call: dict[str, Any], out: list[Record]) -> str:
        """The text that the pieces of arguments add; a piece that cannot be placed is carried as it is."""
        assert state.open is not None
        text = ""
        given = call.get("args")
        for name, value in given.items() if isinstance(given, dict) else ():
            text += state.open.put([name], value) or ""
        for piece in call.get("partialArgs") or ():
            path = parse_path(piece.get("jsonPath")) if type(piece) is dict else None
            value = next((piece[name] for name in ("stringValue", "numberValue", "boolValue") if name in piece), None)
            added = state.open.put(path, value) if path else None
            if added is None:
                raw = {"functionCall": {"partialArgs": [piece], "willContinue": True}}
                out.append(Unknown(raw=raw, protocol=PROTOCOL, part=state.part, branch=state.branch))
            text += added or ""
        return text

    def _closing(self, state: _Candidate) -> str:
        text = state.open.close() if state.open is not None else ""
        state.open = None
        return text

    def _close_call(self, state: _Candidate, out: list[Record]) -> None:
        if state.open is not None:
            out.append(self._fragment_of_call(state, self._closing(state), None))

    def _fragment_of_call(self, state: _Candidate, arguments: str, signature: str | None) -> ToolCall:
        return ToolCall(
            index=state.calls - 1,
            arguments=arguments,
            part=state.call_part,
            signature=signature,
            branch=state.branch,
        )

    def _call_id(self, state: _Candidate, index: int) -> str:
        names = ["call", str(index)]
        if state.index:
            names.insert(1, str(state.index))
        if self.response_id is not None and _PLAIN_ID.fullmatch(self.response_id):
            names.insert(1, self.response_id)
        return "_".join(names)

    def _finish(self, state: _Candidate, reason: Any, out: list[Record]) -> None:
        word = reason if isinstance(reason, str) else str(reason)
        if word in UNSPECIFIED:
            return
        if word == "STOP":
            self._close_call(state, out)  # any other reason may have cut the arguments off: they stay as they are
        if state.branch is not None and state.finish is None:
            raw = {"candidates": [{"finishReason": word, "index": state.index}]}
            out.append(Unknown(raw=raw, protocol=PROTOCOL, branch=state.branch))
        state.finish = word
        every = [self._main] if self._started else []
        every += [self._others[index] for index in sorted(self._others)]
        if all(one.finish is not None for one in every):
            first = every[0]
            self._completed = self._blocked or completed(first.finish or "", called=first.calls > 0)

    def _metadata(self, state: _Candidate, candidate: dict[str, Any], out: list[Record]) -> None:
        for key, value in candidate.items():
            if key in _CANDIDATE or not value or state.seen.get(key) == value:
                continue
            state.seen[key] = value
            if key == "safetyRatings" and _harmless(value):
                continue
            if key == "groundingMetadata":
                out += citations.grounded(value, state.text_part, state.branch)
            elif key == "citationMetadata":
                out += citations.cited(value, state.text_part, state.branch)
            self._fragment(state, key, value, out)

    def _fragment(self, state: _Candidate, key: str, value: Any, out: list[Record]) -> None:
        fields = {key: value, "index": state.index} if state.index else {key: value}
        out.append(Unknown(raw={"candidates": [fields]}, protocol=PROTOCOL, branch=state.branch))

    def _rest(self, payload: dict[str, Any], out: list[Record]) -> None:
        for key, value in payload.items():
            if key in _EVENT or not value:
                continue
            if key == "promptFeedback" and self._feedback(value):
                continue
            if self._seen.get(key) != value:
                self._seen[key] = value
                out.append(Unknown(raw={key: value}, protocol=PROTOCOL))

    def _feedback(self, feedback: Any) -> bool:
        """What was said of the prompt; true if the outcome says it all."""
        if type(feedback) is not dict:
            return False
        reason = feedback.get("blockReason")
        if isinstance(reason, str) and reason and reason not in UNSPECIFIED:
            self._completed = self._blocked = blocked(reason)
            if len(feedback) == 1:
                return True
        return feedback.keys() <= {"blockReason", "safetyRatings"} and _harmless(feedback.get("safetyRatings"))

    def _spent(self, raw: Any, out: list[Record]) -> None:
        if type(raw) is dict:
            self._usage = raw
            self._untold = True
        elif self._seen.get("usageMetadata") != raw:
            self._seen["usageMetadata"] = raw
            out.append(Unknown(raw={"usageMetadata": raw}, protocol=PROTOCOL))


def _harmless(ratings: Any) -> bool:
    """Whether safety ratings only say that nothing was found."""
    if not isinstance(ratings, list):
        return not ratings
    return all(
        isinstance(rating, dict)
        and not rating.get("blocked")
        and rating.get("probability") in _HARMLESS
        and rating.get("severity") in _HARMLESS
        for rating in ratings
    )
