"""Texts that a sender cut between the halves of a surrogate pair."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.records import Completed, Interrupted, Text, ToolCall
from multi_agent_scheduler.wire import anthropic, gemini, openai_chat, openai_responses
from multi_agent_scheduler.wire.decoder import StreamDecoder
from multi_agent_scheduler.wire.surrogates import Halves

from .replay import decode


def units(text: str, sizes: list[int]) -> list[str]:
    """The text in pieces of so many UTF-16 units, as JavaScript's ``slice`` makes them; the last size is repeated."""
    raw = text.encode("utf-16-le")
    pieces, at, turn = [], 0, 0
    while at < len(raw):
        size = 2 * sizes[min(turn, len(sizes) - 1)]
        pieces.append(raw[at : at + size].decode("utf-16-le", "surrogatepass"))
        at, turn = at + size, turn + 1
    return pieces


def frames(*payloads: object, named: bool = False) -> bytes:
    out = ""
    for payload in payloads:
        if named:
            assert isinstance(payload, dict)
            out += f"event: {payload['type']}\n"
        out += f"data: {json.dumps(payload)}\n\n"
    return out.encode()


def chat(pieces: list[str]) -> bytes:
    chunks = [{"id": "c", "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    return frames(*chunks, {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


def responses(pieces: list[str]) -> bytes:
    place = {"item_id": "m", "output_index": 0, "content_index": 0}
    text = "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    return frames(
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": piece} for piece in pieces),
        {"type": "response.output_text.done", **place, "text": text},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [item]}},
        named=True,
    )


def messages(pieces: list[str]) -> bytes:
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return frames(
        {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": {}}},
        start,
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
        named=True,
    )


def generate(pieces: list[str]) -> bytes:
    candidates = [{"content": {"role": "model", "parts": [{"text": piece}]}, "index": 0} for piece in pieces]
    return frames(
        *({"candidates": [candidate]} for candidate in candidates),
        {"candidates": [{"index": 0, "finishReason": "STOP"}]},
    )


PROTOCOLS = {
    "chat": (openai_chat.Decoder, chat),
    "responses": (openai_responses.Decoder, responses),
    "messages": (anthropic.Decoder, messages),
    "generatecontent": (gemini.Decoder, generate),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(
    text=st.text("a😀🤔\u200d👩é", min_size=1, max_size=30), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=9)
)
def test_an_emoji_cut_in_two_by_a_sender_that_counts_utf16_is_whole(protocol: str, text: str, sizes: list[int]) -> None:
    make, body = PROTOCOLS[protocol]
    records = decode(make, [body(units(text, sizes))])
    assert "".join(record.text for record in records if isinstance(record, Text)) == text
    assert isinstance(records[-1], Completed)


def test_the_arguments_of_a_tool_call_are_joined_too() -> None:
    calls = [
        [{"index": 0, "id": "t", "type": "function", "function": {"name": "say", "arguments": '{"it": "\ud83d'}}],
        [{"index": 0, "function": {"arguments": '\ude00"}'}}],
    ]
    chunks = [{"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": call}}]} for call in calls]
    end = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    records = decode(openai_chat.Decoder, [frames(*chunks, end)])
    assert "".join(record.arguments for record in records if isinstance(record, ToolCall)) == '{"it": "😀"}'


def test_a_text_that_is_there_twice_in_an_event_is_joined_twice() -> None:
    halves = Halves()
    assert halves.mend(rb'{"delta": "a\ud83d", "token": "a\uD83D"}') == b'{"delta": "a", "token": "a"}'
    assert (
        halves.mend(rb'{"token": "\uDE00", "delta": "\ude00b"}')
        == rb'{"token": "\uD83D\uDE00", "delta": "\uD83D\ude00b"}'
    )


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (rb'["a\ud83db"]', rb'["a\ufffdb"]'),
        (rb'["\ude00"]', rb'["\ufffd"]'),
        (rb'["a\ude00"]', rb'["a\ufffd"]'),
        (rb'["\"\ude00"]', rb'["\"\ufffd"]'),
        (rb'["\ud83d\ud83d\ude00"]', rb'["\ufffd\ud83d\ude00"]'),
        (rb'["\ude00\ud83d"]', rb'["\ufffd"]'),
        (rb'["\\ud83d\ud83dx"]', rb'["\\ud83d\ufffdx"]'),
    ],
)
def test_a_half_that_stands_alone_is_replaced(text: bytes, mended: bytes) -> None:
    assert Halves().mend(text) == mended


@pytest.mark.parametrize("text", [rb'["\ud83d\ude00"', rb'["\\ud83d"', b'["a', b"\xff", rb'["\uzzzz"]'])
def test_what_is_wrong_in_another_way_is_left_alone(text: bytes) -> None:
    assert Halves().mend(text) is None


def test_a_garbled_event_with_halves_in_it_is_still_garbled() -> None:
    records = decode(openai_chat.Decoder, [rb'data: {"choices": "\ud83d' + b"\n\n"])
    assert re.search("not JSON", str(records[-1]))


@pytest.mark.parametrize("make", [make for make, _ in PROTOCOLS.values()])
def test_a_cut_inside_the_first_event_is_a_broken_off_answer_not_an_empty_one(make: type[StreamDecoder]) -> None:
    assert isinstance(decode(make, [b'data: {"id": "abc", "cho'])[-1], Interrupted)
