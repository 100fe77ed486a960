"""Gemini's events, written and read: what the tests of its wire share."""

from __future__ import annotations

import json
from typing import Any

from multi_agent_scheduler.records import Reasoning, Record, Text, ToolCall
from multi_agent_scheduler.wire.gemini import Decoder
from tests.wire.replay import Recording, decode


def events(*payloads: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(payload).encode() + b"\r\n\r\n" for payload in payloads)


def answer(*parts: Any, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    candidate = {"content": {"parts": list(parts), "role": "model"}, **fields}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate]}


def records_of(*payloads: Any) -> list[Record]:
    return decode(Decoder, [events(*payloads)])


def text_of(records: list[Record]) -> str:
    return "".join(record.text for record in records if isinstance(record, Text) and record.branch is None)


def reasoning_of(records: list[Record]) -> str:
    return "".join(record.text for record in records if isinstance(record, Reasoning))


def calls_of(records: list[Record]) -> list[tuple[str, Any]]:
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for record in records:
        if isinstance(record, ToolCall):
            names.setdefault(record.index, record.name)
            arguments[record.index] = arguments.get(record.index, "") + record.arguments
    return [(names[index], json.loads(arguments[index])) for index in names]


def expected_calls(recording: Recording) -> list[tuple[str, Any]]:
    if recording.file == "google-generatecontent-002.sse":  # arguments in pieces: the recording's list has the pieces
        return [("getWeather", {"location": "Boston"}), ("getWeather", {"location": "San Francisco"})]
    return [(call["name"], call.get("args", {})) for call in recording.expected["function_calls"]]
