"""Records as a UI message stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never

import msgspec

from ...errors import ErrorInfo
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
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from .tool_part import ToolPart
from .vocabulary import NAMESPACE, RESET

__all__ = ["HEADERS", "Encoder"]

HEADERS: Final = ((b"x-vercel-ai-ui-message-stream", b"v1"),)
"""What the answer's head has beside the fields of any event stream."""

# FinishReason of version 6; "interrupted", which only version 7 has, is never said: an interrupted stream is an error.
_FINISH: Final[dict[StopReason, str]] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
    "pause": "other",
    "other": "other",
}
_DONE: Final = b"data: [DONE]\n\n"
_UNKNOWN_MEDIA: Final = "application/octet-stream"  # RFC 2046, 4.5.1; the SDK wants a type, and records have none

_json: Final = msgspec.json.Encoder().encode


class _Block:
    """A text or a reasoning that is open. ``key`` is the record type and the part that it takes."""

    __slots__ = ("head", "key", "kind", "name", "text_part")

    def __init__(self, kind: str, name: str, key: tuple[type[Record], int]) -> None:
        self.kind = kind  # "text" or "reasoning"
        self.name = name
        self.key = key
        self.text_part = key[1] if key[0] is Text else None
        self.head = b'data: {"type":"%b-delta","id":"%b","delta":' % (kind.encode(), name.encode())


class Encoder:
    """``encode`` the batches of one stream, from its start and in order; the batch with the terminal ends the stream.

    ``id`` is the message's; a client that continues a message (it posted tool results) wants the id that the message
    has. ``model``, if it is known, is told as the message's metadata, as is ``usage`` at the end.

    - Refusals are texts. Sources with an http(s) address are ``source-url``, each told once; others with a title are
      ``source-document``.
    - A tool call becomes available when its arguments are whole JSON and something else begins, when its result comes,
      or at the end of a completed answer; one that did not become JSON by then is a ``tool-input-error``. A call of an
      answer that failed stays open, so that no page runs it.
    - A failed, interrupted or skipped stream ends in ``error`` with our sentence (never the provider's text); a
      cancelled one in ``abort``.
    - Branches, but for their usage, and items of other protocols without a record are left out.
    """

    def __init__(self, *, id: str, model: str, created: int = 0) -> None:  # noqa: A002, ARG002 - as every protocol's
        self._start: dict[str, Any] = {"type": "start", "messageId": id}
        if model:
            self._start["messageMetadata"] = {"model": model}
        self._frames: list[bytes] = []
        self._begun = False
        self.done = False
        self._position = 0
        self._parts: list[int] = []  # the position at which each part of the message began that stands
        self._names = 0
        self._block: _Block | None = None
        self._protocol: str | None = None  # of the Call that runs
        self._seal: dict[str, Any] = {}  # what the open reasoning's end tells
        self._tools: dict[int, ToolPart] = {}  # by the records' index
        self._told: set[tuple[str | None, str | None]] = set()  # sources
        self._usage: dict[tuple[str | None, int], Usage] = {}

    def start(self) -> bytes:
        """What opens the stream, so that a client sees it accepted before the first record; b"" later on."""
        self._begin()
        return self._flush()

    def encode(self, records: Sequence[Record]) -> bytes:
        """The bytes of these records; b"" if there is nothing to show, as behind the terminal."""
        self._begin()
        frames = self._frames
        for record in records:
            if self.done:
                break
            self._position += 1
            block = self._block
            if (
                block is not None
                and type(record) is Text
                and record.branch is None
                and block.key == (Text, record.part)
            ):
                if record.text:
                    frames.append(b"%b%b}\n\n" % (block.head, _json(record.text)))
            else:
                self._record(record)
        return self._flush()

    # --- records ------------------------------------------------------------------------------------------------------

    def _record(self, record: Record) -> None:
        if isinstance(record, Usage):
            self._usage[record.branch, record.call] = record
            return
        if record.branch is not None:
            return
        match record:
            case Text(text=text, part=part) | Refusal(text=text, part=part):
                if text:
                    self._say("text", (type(record), part), text)
            case Reasoning():
                self._reason(record)
            case ToolCall():
                self._call(record)
            case ToolResult():
                self._result(record)
            case Citation():
                self._cite(record)
            case Reset(from_seq=from_seq, reason=reason):
                self._reset(from_seq, reason)
            case Completed():
                self._complete(record)
            case Failed(error=error) | Interrupted(error=error):
                self._fail(error)
            case Skipped(reason=reason):
                self._fail(ErrorInfo("skipped", reason or "a task that this one depends on did not succeed"))
            case Cancelled(reason=reason):
                self._close()
                self._send({"type": "abort", **({"reason": reason} if reason else {})})
                self._end()
            case CallStarted(protocol=protocol):
                self._protocol = protocol
            case CallEnded() | Unknown():
                pass
            case _:
                assert_never(record)

    def _say(self, kind: str, key: tuple[type[Record], int], text: str) -> None:
        block = self._block
        if block is None or block.key != key:
            block = self._open(kind, key)
        self._frames.append(b"%b%b}\n\n" % (block.head, _json(text)))

    def _reason(self, record: Reasoning) -> None:
        key = (Reasoning, record.part)
        told = {name: getattr(record, name) for name in ("signature", "redacted", "kind", "id")}
        seal = {name: value for name, value in told.items() if value is not None}
        if not record.text and not seal:
            return
        if self._block is None or self._block.key != key:
            self._open("reasoning", key)
            if self._protocol is not None:
                self._seal["protocol"] = self._protocol
        self._seal.update(seal)
        if record.text:
            self._say("reasoning", key, record.text)

    def _call(self, record: ToolCall) -> None:
        tool = self._tools.get(record.index)
        if tool is None:
            self._close()
            tool = self._tool(record)
        elif self._block is not None:
            self._close()
        for chunk in tool.feed(record):
            self._send(chunk)

    def _tool(self, record: ToolCall) -> ToolPart:
        self._settle()
        tool = self._tools[record.index] = ToolPart(record, self._protocol)
        self._parts.append(self._position)
        self._send(tool.start())
        return tool

    def _result(self, record: ToolResult) -> None:
        self._close()
        tool = next((tool for tool in self._tools.values() if tool.id == record.id), None)
        if tool is None:  # a client takes no result without its call
            index = min(self._tools, default=0) - 1
            tool = self._tool(ToolCall(index, id=record.id, name=record.name, kind="server"))
        for chunk in [*tool.finish(), tool.output(record)]:
            self._send(chunk)

    def _cite(self, record: Citation) -> None:
        url, title = record.url, record.title
        if (url, title) in self._told or not (url or title):
            return
        self._told.add((url, title))
        source: dict[str, Any] = {"sourceId": f"source-{len(self._told)}"}
        if url is not None and url.lower().startswith(("https://", "http://")):  # a page makes a link of it
            source = {"type": "source-url", **source, "url": url, **({"title": title} if title else {})}
        else:
            source = {"type": "source-document", **source, "mediaType": _UNKNOWN_MEDIA, "title": title or url}
        self._parts.append(self._position)
        self._send(source)

    def _reset(self, from_seq: int, reason: str) -> None:
        void = sum(begun >= from_seq for begun in self._parts)
        if not void:
            return
        self._close()
        del self._parts[-void:]
        self._tools.clear()
        self._told.clear()
        self._send({"type": "finish-step"})
        self._send({"type": RESET, "data": {"void": void, "reason": reason}})
        self._send({"type": "start-step"})

    # --- blocks -------------------------------------------------------------------------------------------------------

    def _open(self, kind: str, key: tuple[type[Record], int]) -> _Block:
        self._close()
        self._settle()
        self._names += 1
        block = self._block = _Block(kind, str(self._names), key)
        self._parts.append(self._position)
        self._send({"type": f"{kind}-start", "id": block.name})
        return block

    def _close(self) -> None:
        block, self._block = self._block, None
        if block is None:
            return
        end: dict[str, Any] = {"type": f"{block.kind}-end", "id": block.name}
        if self._seal:
            end["providerMetadata"] = {NAMESPACE: self._seal}
            self._seal = {}
        self._send(end)

    def _settle(self) -> None:
        """Something else begins: calls whose arguments are whole are available."""
        for tool in self._tools.values():
            if tool.is_whole():
                for chunk in tool.finish():
                    self._send(chunk)

    # --- the message --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._send(self._start)
            self._send({"type": "start-step"})

    def _complete(self, end: Completed) -> None:
        self._close()
        for tool in self._tools.values():
            for chunk in tool.finish():
                self._send(chunk)
        self._finish(_FINISH[end.stop_reason])

    def _fail(self, error: ErrorInfo) -> None:
        self._close()
        self._send({"type": "error", "errorText": error.message})
        self._finish("error")

    def _finish(self, reason: str) -> None:
        self._send({"type": "finish-step"})
        finish: dict[str, Any] = {"type": "finish", "finishReason": reason}
        usage = _usage(list(self._usage.values()))
        if usage:
            finish["messageMetadata"] = {"usage": usage}
        self._send(finish)
        self._end()

    def _end(self) -> None:
        self._frames.append(_DONE)
        self.done = True

    def _send(self, chunk: dict[str, Any]) -> None:
        self._frames.append(b"data: %b\n\n" % _json(chunk))

    def _flush(self) -> bytes:
        data = b"".join(self._frames)
        self._frames.clear()
        return data


def _usage(usages: Sequence[Usage]) -> dict[str, Any]:
    """The sum over Calls in the SDK's words (``LanguageModelUsage``); what nobody told is not there."""

    def total(field: str) -> int | None:
        known = [value for usage in usages if (value := getattr(usage, field)) is not None]
        return sum(known) if known else None

    def told(**counts: Any) -> dict[str, Any]:
        return {name: count for name, count in counts.items() if count not in (None, {})}

    given, written = total("input_tokens"), total("output_tokens")
    return told(
        inputTokens=given,
        inputTokenDetails=told(
            cacheReadTokens=total("cache_read_tokens"), cacheWriteTokens=total("cache_write_tokens")
        ),
        outputTokens=written,
        outputTokenDetails=told(reasoningTokens=total("reasoning_tokens")),
        totalTokens=None if given is None or written is None else given + written,
    )
