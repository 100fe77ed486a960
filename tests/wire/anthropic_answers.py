"""What the tests of the Anthropic protocol share: recordings, blocks, hand-made answers, and the SDK as a judge."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import anthropic
import httpx2

from multi_agent_scheduler.records import Citation, Reasoning, Record, Text, ToolCall, Usage
from tests.wire.replay import Recording, recordings

# What the official SDK makes of these is its own confusion: two whole messages in one body, and a second message
# spliced into the first. Each has its own test.
CONFUSED = {"anthropic-messages-013.sse", "anthropic-messages-017.sse"}

EVERY = recordings("messages")
PLAIN = [recording for recording in EVERY if recording.file not in CONFUSED]
FAILURES = {recording.file: recording for recording in recordings("messages", folders=("synthetic",))}


def find(file: str) -> Recording:
    return next(recording for recording in EVERY if recording.file == file)


def text(records: Iterable[Record]) -> str:
    return "".join(record.text for record in records if isinstance(record, Text))


def blocks(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Text, thinking and tool calls, a block for each part, in order."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for record in records:
        match record:
            case Text():
                block = found.setdefault(("text", record.part), {"type": "text", "text": ""})
                block["text"] += record.text
            case Citation():
                block = found.setdefault(("text", record.part), {"type": "text", "text": ""})
                block.setdefault("citations", []).append(record.raw)
            case Reasoning(redacted=str(data)):
                found["redacted", record.part] = {"type": "redacted_thinking", "data": data}
            case Reasoning():
                block = found.setdefault(
                    ("thinking", record.part), {"type": "thinking", "thinking": "", "signature": 0}
                )
                block["thinking"] += record.text
                block["signature"] += len(record.signature or "")
            case ToolCall():
                block = found.setdefault(
                    ("tool", record.part), {"kind": record.kind, "input": "", "index": record.index}
                )
                block["input"] += record.arguments
                block.update({key: value for key, value in (("id", record.id), ("name", record.name)) if value})
    return list(found.values())


def expected_blocks(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks of the SDK's message in the same form. It never fills in the input of MCP tools."""
    found = []
    index = 0
    for block in content:
        kind = block["type"]
        if kind == "text" and (block["text"] or block.get("citations")):
            found.append({key: value for key, value in block.items() if value is not None})
        elif kind == "thinking" and (block["thinking"] or block.get("signature")):
            signature = block.get("signature")
            size = signature["len"] if isinstance(signature, dict) else len(signature or "")
            found.append({"type": kind, "thinking": block["thinking"], "signature": size})
        elif kind == "redacted_thinking":
            found.append({"type": kind, "data": block["data"]})
        elif kind.endswith("tool_use"):
            found.append({"kind": "function" if kind == "tool_use" else "server", "index": index, **block})
            index += 1
    return found


def last_usage(records: Iterable[Record]) -> Usage:
    return [record for record in records if isinstance(record, Usage)][-1]


def client(body: bytes, *, kind: str = "text/event-stream", sent: list[Any] | None = None) -> anthropic.Anthropic:
    """The official client, whose provider answers with this body whatever it is asked."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if sent is not None:
            sent.append(json.loads(request.content))
        return httpx2.Response(200, headers={"content-type": kind}, content=body)

    http = anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(answer))
    return anthropic.Anthropic(api_key="none", base_url="http://127.0.0.1:9", max_retries=0, http_client=http)


ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def accumulated(body: bytes) -> dict[str, Any]:
    """The final message as the official SDK builds it from a stream."""
    with client(body) as api, api.messages.stream(**ASK) as stream:
        return stream.get_final_message().to_dict(warnings=False)  # of beta blocks, which it lets through


# --- hand-made answers ----

START = {"type": "message_start", "message": {"id": "msg_1", "model": "claude-x", "usage": {"input_tokens": 3}}}
STOP = {"type": "message_stop"}


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def start(block: object, index: int = 0) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int = 0, **fields: object) -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def stop(index: int = 0) -> dict[str, object]:
    return {"type": "content_block_stop", "index": index}


def ending(reason: object, **fields: object) -> dict[str, object]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, **fields}, "usage": {"output_tokens": 7}}
