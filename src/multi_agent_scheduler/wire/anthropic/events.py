"""Records to the events of a Messages stream: the one fold from which both the stream and the whole message come."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ...errors import ErrorInfo, StreamReset
from ...records import (
    CallEnded,
    CallStarted,
    Cancelled,
    Citation,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Refusal,
    Reset,
    Skipped,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from . import usage as usages
from .vocabulary import ERROR_TYPES, is_tool_result, raw_stop_reason

__all__ = ["Events", "to_json"]

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode

# What the fields of a block hold before anything is said, where the block itself does not tell.
_EMPTY: Final[dict[str, dict[str, Any]]] = {
    "text": {"text": ""},
    "thinking": {"thinking": ""},
    "tool_use": {"id": "", "name": "", "input": {}},
    "server_tool_use": {"id": "", "name": "", "input": {}},
    "mcp_tool_use": {"id": "", "name": "", "input": {}},
}
_EMPTY_DELTA: Final[dict[str, dict[str, Any]]] = {
    "text_delta": {"text": ""},
    "thinking_delta": {"thinking": ""},
    "signature_delta": {"signature": ""},
    "input_json_delta": {"partial_json": ""},
}


class _Block:
    """A block that has begun. ``key`` is what it holds: ("text", part), ("thinking", part), ("tool", index) ..."""

    __slots__ = ("custom", "index", "key", "pieces")

    def __init__(self, key: tuple[str, int], index: int) -> None:
        self.key = key
        self.index = index
        self.custom = False  # a tool call whose arguments are free text
        self.pieces: list[str] = []  # the arguments so far

    def is_whole(self) -> bool:
        """Whether nothing more has to come: everything but a tool call whose arguments are no JSON value yet."""
        if self.key[0] != "tool":
            return True
        if self.custom:
            return False
        try:
            _decode("".join(self.pieces))
        except (ValueError, RecursionError):
            return False
        return True


class Events:
    """``add`` a record, get the events that it makes, as dicts. Blocks are numbered from 0 without gaps, in order.

    Where providers interleave the fragments of parallel tool calls, several tool blocks are open at once: a block is
    closed when its arguments are whole, or else at the end.
    """

    def __init__(self, *, id: str, model: str) -> None:  # noqa: A002 - the field's name
        self._id = id
        self._model = model
        self._out: list[dict[str, Any]] = []
        self._begun = False
        self.done = False
        self._count = 0
        self.current: _Block | None = None
        self._loose: dict[tuple[str, int], _Block] = {}  # tool blocks to which more may come
        self._past: dict[tuple[str, int], int] = {}  # tool blocks that were closed
        self._by_part: dict[int, _Block] = {}
        self.held: dict[int, dict[str, Any]] = {}  # starts whose block is told by the record that follows
        self._extra: dict[str, dict[str, Any]] = {}  # fields for message_start, message_delta and message_stop
        self._refusal = ""
        self._usage: dict[tuple[str | None, int], Usage] = {}

    def add(self, record: Record) -> list[dict[str, Any]]:
        """The events of one record. Raises :class:`~multi_agent_scheduler.errors.StreamReset`."""
        if self.done:
            return []
        self._out = []
        if isinstance(record, Usage):
            self._usage[record.branch, record.call] = record
            self._begin()
        elif record.branch is None:
            self._add(record)
        return self._out

    def _add(self, record: Record) -> None:
        match record:
            case Text(text=text, part=part):
                if text:
                    self._say(("text", part), part, {"type": "text_delta", "text": text})
            case Reasoning():
                self._reasoning(record)
            case ToolCall():
                self._tool(record)
            case Citation(part=part):
                self._say(("text", part), part, {"type": "citations_delta", "citation": _citation(record)})
            case ToolResult(part=part):
                self._release(part)
                self._open(("result", part), part, _result(record))
                self._close()
            case Refusal(text=text):
                self._begin()
                self._refusal += text
            case Unknown(protocol="anthropic", raw=dict(raw)):
                self._unknown(raw, record.part)
            case Reset():
                self._reset()
            case Completed():
                self._complete(record)
            case Failed(error=error) | Interrupted(error=error):
                self._fail(error)
            case Cancelled(reason=reason):
                self._fail(ErrorInfo("cancelled", f"the answer was stopped{': ' if reason else ''}{reason}"))
            case Skipped(reason=reason):
                self._fail(ErrorInfo("agent_error", f"the task was not run{': ' if reason else ''}{reason}"))
            case CallStarted() | CallEnded() | Unknown() | Usage():
                pass

    # --- the message ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        usage = usages.render(list(self._usage.values()))
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, **usage},
        }
        extra = self._extra.pop("message_start", {})
        message.update(extra.pop("message", {}))
        self._out.append({"type": "message_start", "message": message, **extra})

    def _reset(self) -> None:
        if self._count:
            raise StreamReset("what this reader was shown is void, and a Messages stream cannot take it back")
        self._refusal = ""
        self.held.clear()
        self._extra.clear()

    def _complete(self, end: Completed) -> None:
        self._release(None)
        self._begin()
        self._close()
        for block in sorted(self._loose.values(), key=lambda block: block.index):
            self._stop(block)
        self._loose.clear()
        raw = raw_stop_reason(end)
        delta: dict[str, Any] = {"stop_reason": raw, "stop_sequence": end.stop_sequence}
        extra = self._extra.pop("message_delta", {})
        delta.update(extra.pop("delta", {}))
        told = delta.get("stop_details")
        if self._refusal or (isinstance(told, dict) and told.get("type") == "refusal"):
            details = {"type": "refusal", "category": None, "explanation": self._refusal or None}
            delta["stop_details"] = {**details, **told} if isinstance(told, dict) else details
            if end.stop_reason == "stop":
                delta["stop_reason"] = "refusal"
        usage = usages.render(list(self._usage.values()))
        self._out.append({"type": "message_delta", "delta": delta, "usage": usage, **extra})
        self._out.append({"type": "message_stop", **self._extra.pop("message_stop", {})})
        self.done = True

    def _fail(self, error: ErrorInfo) -> None:
        told = {"type": ERROR_TYPES.get(error.code, "api_error"), "message": error.detail or error.message}
        event: dict[str, Any] = {"type": "error", "error": told}
        if error.request_id:
            event["request_id"] = error.request_id
        self._out.append(event)
        self.current = None
        self.done = True

    # --- blocks ---------------------------------------------------------------------------------------------------

    def _open(self, key: tuple[str, int], part: int, fields: dict[str, Any]) -> _Block:
        """Begin a block; what was held for its part joins its fields."""
        self._begin()
        self._close()
        held = self.held.pop(part, None)
        block = _Block(key, self._count)
        self._count += 1
        fields = fields if held is None else {**fields, **held}
        self._out.append({"type": "content_block_start", "index": block.index, "content_block": fields})
        self.current = self._by_part[part] = block
        return block

    def _close(self) -> None:
        block, self.current = self.current, None
        if block is None:
            return
        if block.is_whole():
            self._stop(block)
        else:
            self._loose[block.key] = block

    def _stop(self, block: _Block) -> None:
        if block.key[0] == "tool":
            self._past[block.key] = block.index
            if block.custom:
                tail = '"}' if block.pieces else '{"input":""}'
                self._delta(block.index, {"type": "input_json_delta", "partial_json": tail})
        self._out.append({"type": "content_block_stop", "index": block.index})

    def _delta(self, index: int, delta: dict[str, Any]) -> None:
        self._out.append({"type": "content_block_delta", "index": index, "delta": delta})

    def _say(self, key: tuple[str, int], part: int, delta: dict[str, Any]) -> None:
        """One delta in the block of this key, which is begun if it is not the current one."""
        self._release(part)
        block = self.current
        if block is None or block.key != key or part in self.held:
            fields = {"type": "text", "text": ""}
            if key[0] == "thinking":
                fields = {"type": "thinking", "thinking": "", "signature": ""}
            block = self._open(key, part, fields)
        self._delta(block.index, delta)

    def _reasoning(self, record: Reasoning) -> None:
        part = record.part
        if record.redacted:
            self._release(part)
            self._open(("redacted", part), part, {"type": "redacted_thinking", "data": record.redacted})
            self._close()
        if record.text:
            self._say(("thinking", part), part, {"type": "thinking_delta", "thinking": record.text})
        if record.signature:
            self._say(("thinking", part), part, {"type": "signature_delta", "signature": record.signature})

    def _tool(self, record: ToolCall) -> None:
        key = ("tool", record.index)
        self._release(record.part)
        block = self.current if self.current is not None and self.current.key == key else self._loose.get(key)
        if block is None:
            late = self._past.get(key)
            if late is not None and not record.id and not record.name:
                if record.arguments:  # its arguments were whole already: clients go by the index
                    self._delta(late, {"type": "input_json_delta", "partial_json": record.arguments})
                return
            kind = "server_tool_use" if record.kind == "server" else "tool_use"
            fields = {"type": kind, "id": record.id, "name": record.name, "input": {}}
            block = self._open(key, record.part, fields)
            block.custom = record.kind == "custom"
        if record.arguments:
            piece = record.arguments
            if block.custom:
                piece = ("" if block.pieces else '{"input":"') + to_json(piece)[1:-1].decode()
            block.pieces.append(piece)
            self._delta(block.index, {"type": "input_json_delta", "partial_json": piece})

    # --- what came from this protocol without a record of its own ----------------------------------------------------

    def _unknown(self, raw: dict[str, Any], part: int | None) -> None:
        kind = raw.get("type")
        if kind in ("message_start", "message_delta", "message_stop"):
            fields = {key: value for key, value in raw.items() if key != "type"}
            self._extra[kind] = _merged(self._extra.get(kind, {}), fields)
        elif kind == "content_block_start":
            self._unknown_start(raw, part or 0)
        elif kind == "content_block_delta":
            self._unknown_delta(raw, part or 0)
        elif kind == "content_block_stop":
            block = self._by_part.get(part or 0)
            if block is not None and block is self.current:
                self.current = None
                self._stop(block)
                self._out[-1] = {**raw, "index": block.index}
        elif isinstance(kind, str) and kind not in ("error", "ping"):
            self._release(None)
            self._begin()
            self._out.append(raw)

    def _unknown_start(self, raw: dict[str, Any], part: int) -> None:
        self._release(None)
        fields = raw.get("content_block")
        if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
            return
        kind = fields["type"]
        if kind in _EMPTY or kind == "redacted_thinking" or is_tool_result(kind):
            self.held[part] = fields
        else:
            self._open(("unknown", part), part, fields)

    def _unknown_delta(self, raw: dict[str, Any], part: int) -> None:
        self._release(None)
        block = self._by_part.get(part)
        delta = raw.get("delta")
        if block is not None and isinstance(delta, dict) and isinstance(delta.get("type"), str):
            delta = {**_EMPTY_DELTA.get(delta["type"], {}), **delta}
            self._out.append({**raw, "index": block.index, "delta": delta})

    def _release(self, part: int | None) -> None:
        """Begin the blocks that were held, but for the one of this part: nothing else told what they are."""
        for other in [held for held in self.held if held != part]:
            fields = self.held.pop(other)
            kind = fields["type"]
            self._open((kind, other), other, {**_EMPTY.get(kind, {}), **fields})


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    out = dict(old)
    for key, value in new.items():
        known = out.get(key)
        out[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return out


def _citation(record: Citation) -> Any:
    """The protocol's own object, or the nearest form for a source that another protocol named: a web search result."""
    raw = record.raw
    if isinstance(raw, dict) and ("cited_text" in raw or str(raw.get("type", "")).endswith("_location")):
        return raw
    return {
        "type": "web_search_result_location",
        "url": record.url or "",
        "title": record.title,
        "cited_text": record.text or "",
        "encrypted_index": "",
    }


def _result(record: ToolResult) -> dict[str, Any]:
    """A ``*_tool_result`` block; a result with another name, of a tool loop say, takes MCP's, which fits any tool."""
    kind = record.name if is_tool_result(record.name) else "mcp_tool_result"
    content = record.content
    if kind != record.name and not isinstance(content, str | list):
        content = "" if content is None else to_json(content).decode()
    block = {"type": kind, "tool_use_id": record.id, "content": content}
    inner = content.get("type") if isinstance(content, dict) else None
    implied = isinstance(inner, str) and inner.endswith("_tool_result_error")
    if kind == "mcp_tool_result" or (record.is_error and not implied):
        block["is_error"] = record.is_error
    return block


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8. A lone surrogate, which UTF-8 cannot carry, becomes U+FFFD."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_mended(value))


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value
