"""Records as the Messages API says them: a stream of events, or one message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from ...records import Record, Text
from .. import sse
from . import usage as usages
from .events import Events, to_json
from .vocabulary import TOOL_USES, input_object

__all__ = ["Encoder", "body"]

_NAMES: Final = {
    name: b"event: " + name.encode() + b"\ndata: "
    for name in (
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "error",
    )
}
_decode: Final = msgspec.json.Decoder().decode


class Encoder:
    """The stream of one answer. ``id`` and ``model`` are what the message says of itself; ``created`` has no field.

    ``encode`` takes the records in batches as they come; feed it the log from its start. What comes out is understood
    by the official SDKs at every point. Where the protocol has no word for a record:

    - A ``Refusal`` goes into ``stop_details`` at the end, with stop reason ``refusal``; a failure after it hides it.
    - A custom tool's free text is the field ``input`` of its input object.
    - A result of a tool that is not the provider's own is an ``mcp_tool_result``.
    - A source that another protocol cited is a ``web_search_result_location``.
    - Ids and kinds of reasoning items and signatures of tool calls are left out; reasoning of any provider is a
      thinking block. Branches are left out, all but their usage, which is added to the total.
    - Unknown token counts are 0, since the protocol demands numbers.
    - A cancelled, interrupted or skipped stream ends, as a failed one, in an ``error`` event: only ``message_stop`` is
      an end that clients take for success. The error's message is the provider's, without keys, or ours where it gave
      none.

    A :class:`~multi_agent_scheduler.records.Reset` after content raises
    :class:`~multi_agent_scheduler.errors.StreamReset`.
    """

    def __init__(self, *, id: str, model: str, created: int = 0) -> None:  # noqa: A002, ARG002 - as every protocol's
        self._id = id
        self._model = model
        self._events = Events(id=id, model=model)

    def encode(self, records: Sequence[Record]) -> bytes:
        """The bytes of these records, the end of the stream included; empty if they show nothing."""
        frames: list[bytes] = []
        events = self._events
        key: tuple[str, int] | None = None
        head = b""
        for record in records:
            if type(record) is Text and record.branch is None:
                block = events.current
                if block is not None and block.key == ("text", record.part) and record.text and not events.held:
                    if key != block.key:
                        key = block.key
                        head = (
                            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
                            b'"delta":{"type":"text_delta","text":' % block.index
                        )
                    frames.append(head + to_json(record.text) + b"}}\n\n")
                    continue
            frames += [_frame(event) for event in events.add(record)]
            key = None
        return b"".join(frames)

    def body(self, records: Iterable[Record]) -> dict[str, Any]:
        """The whole message for these records; see :func:`body`. What was encoded before has no part in it."""
        return body(records, id=self._id, model=self._model)


def _frame(event: dict[str, Any]) -> bytes:
    name = event["type"]
    head = _NAMES.get(name)
    if head is not None:
        return head + to_json(event) + b"\n\n"
    return sse.encode(to_json(event), event=name if name.isprintable() else "unknown")


def body(records: Iterable[Record], *, id: str, model: str) -> dict[str, Any]:  # noqa: A002 - the field's name
    """The message object of a finished stream, or the error object (``{"type": "error", ...}``) if it did not complete.

    Events that are unknown and belong to no block have no place in it. Arguments that are no JSON object, because they
    broke off, are the text under ``INVALID_JSON``.
    """
    events = Events(id=id, model=model)
    message: dict[str, Any] = {}
    blocks: list[dict[str, Any]] = []
    pieces: list[list[str]] = []
    for record in records:
        for event in events.add(record):
            kind = event["type"]
            if kind == "content_block_delta":
                _extend(blocks[event["index"]], pieces[event["index"]], event["delta"])
            elif kind == "content_block_start":
                blocks.append(dict(event["content_block"]))
                pieces.append([])
            elif kind == "message_start":
                message = event["message"]
            elif kind == "message_delta":
                rest = {key: value for key, value in event.items() if key not in ("type", "delta", "usage")}
                message = {**message, **event["delta"], **rest, "usage": usages.merge(message["usage"], event["usage"])}
            elif kind == "error":
                return event
    for block, said in zip(blocks, pieces, strict=True):
        text = "".join(said)
        if block["type"] in TOOL_USES:
            block["input"] = input_object(text, _decode) if text else block.get("input", {})
        elif text:
            field = "thinking" if block["type"] == "thinking" else "text"
            block[field] = f"{block.get(field, '')}{text}"
    return {**message, "content": blocks} if message else message


_PIECE: Final = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def _extend(block: dict[str, Any], said: list[str], delta: dict[str, Any]) -> None:
    kind = delta["type"]
    field = _PIECE.get(kind)
    piece = delta.get(field) if field is not None else None
    if isinstance(piece, str):
        said.append(piece)
        delta = {key: value for key, value in delta.items() if key != field}
    if kind == "citations_delta" and "citation" in delta:
        block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        delta = {key: value for key, value in delta.items() if key != "citation"}
    block.update((key, value) for key, value in delta.items() if key != "type")
