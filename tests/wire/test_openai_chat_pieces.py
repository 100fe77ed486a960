"""Chunks that are a piece of the text and nothing else take a shorter way: it says what the long one says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.records import Reasoning, Record, Text, Unknown
from multi_agent_scheduler.wire import sse
from multi_agent_scheduler.wire.openai_chat import Decoder
from tests.wire.chat_frames import DONE, chunk, run

ODD = st.sampled_from([None, "", "x", "stop", 0, 1, True, 1.5, [], ["x"], {}, {"a": 1}])


def having(names: list[str], **usual: Any) -> st.SearchStrategy[dict[str, Any]]:
    odd = st.dictionaries(st.sampled_from(names), ODD, max_size=1)
    return odd.map(lambda values: {**usual, **values})


DELTAS = st.one_of(
    having(["role", "refusal", "reasoning", "tool_calls", "audio", "reasoning_content"], content="Hi"),
    having(["role", "content", "reasoning_details", "function_call"], reasoning_content="Hm"),
    having(["content"]),
)
CHOICES = st.builds(
    lambda choice, delta: {**choice, "delta": delta},
    having(["index", "finish_reason", "logprobs", "content_filter_results", "stop_reason", "token_ids", "x"], index=0),
    DELTAS,
)
CHUNKS = st.builds(
    lambda chunk, choices: {**chunk, "choices": choices},
    having(["id", "model", "created", "service_tier", "provider", "usage", "error", "x_groq", "citations", "x"], id="1")
    | having(["service_tier", "obfuscation"], service_tier="default", provider="P", model="m"),
    st.lists(CHOICES, min_size=1, max_size=1) | st.lists(CHOICES, max_size=2) | ODD,
)


def told(chunks: list[dict[str, Any]]) -> tuple[list[Record], str | None, str | None]:
    decoder, records = Decoder(), []
    for value in chunks:
        records += decoder.feed(sse.encode(json.dumps(value)))
    return records + decoder.feed(DONE), decoder.response_id, decoder.model


@given(st.lists(CHUNKS, max_size=8))
def test_the_short_way_says_what_the_long_way_says(chunks: list[dict[str, Any]]) -> None:
    assert told(chunks) == told([{**value, "padding": None} for value in chunks])


@pytest.mark.parametrize(
    "more",
    [
        {},
        {
            "object": "chat.completion.chunk",
            "created": 1.5,
            "system_fingerprint": "f",
            "obfuscation": "a",
            "usage": None,
        },
        {"service_tier": "default"},
        {"provider": "Groq"},
    ],
)
def test_pieces_of_text_and_of_reasoning(more: dict[str, Any]) -> None:
    said = [{"reasoning_content": "a"}, {"reasoning_content": "b"}, {"content": "c", "role": "assistant"}]
    said += [{"content": "d", "refusal": None, "tool_calls": None}, {"content": ""}, {"content": "e"}]
    records = run(*(chunk(delta, **more) for delta in said), chunk(finish="stop", **more), DONE)
    assert [(type(it), it.text) for it in records if isinstance(it, Text | Reasoning)] == [
        (Reasoning, "a"), (Reasoning, "b"), (Text, "c"), (Text, "d"), (Text, "e"),
    ]  # fmt: skip
    kept = {name: value for name, value in more.items() if name in ("service_tier", "provider")}
    assert [it.raw for it in records if isinstance(it, Unknown)] == [{name: value} for name, value in kept.items()]
