"""Events of the Responses API, made by hand, and what clients do with the records."""

from __future__ import annotations

import json
from typing import Any

from multi_agent_scheduler.records import (
    Record,
    Text,
    ToolCall,
)
from multi_agent_scheduler.wire.openai_responses import Decoder
from tests.wire.replay import decode


def read(*events: dict[str, Any]) -> list[Record]:
    """The records of a stream of these events."""
    return decode(Decoder, [stream(*events)])


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def said(records: list[Record]) -> str:
    return "".join(record.text for record in records if isinstance(record, Text))


def calls_of(records: list[Record]) -> list[dict[str, Any]]:
    """The tool calls put together, as a client does it."""
    calls: dict[int, dict[str, Any]] = {}
    for record in records:
        if isinstance(record, ToolCall):
            if record.index not in calls:
                assert record.id
                assert record.name
                calls[record.index] = {"call_id": record.id, "name": record.name, "arguments": "", "kind": record.kind}
            calls[record.index]["arguments"] += record.arguments
            assert record.kind == calls[record.index]["kind"]
    assert list(calls) == list(range(len(calls)))
    return list(calls.values())


def completed(**fields: Any) -> dict[str, Any]:
    return {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", **fields}}


def added(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def text_delta(text: Any, **fields: Any) -> dict[str, Any]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return {"type": "response.output_text.delta", **place, "delta": text, **fields}


def message(text: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content, **fields}
