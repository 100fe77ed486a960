"""Chunks of a chat completion, written by hand."""

from __future__ import annotations

import json
from typing import Any

from multi_agent_scheduler.records import Record
from multi_agent_scheduler.wire import sse
from multi_agent_scheduler.wire.openai_chat import Decoder
from tests.wire.replay import decode


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return sse.encode(json.dumps({"id": "c1", "model": "m", "choices": [choice], **more}))


def run(*frames: bytes) -> list[Record]:
    return decode(Decoder, [b"".join(frames)])


DONE = b"data: [DONE]\n\n"
END = chunk(finish="stop") + DONE
