"""Anthropic Messages: requests to bodies."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from multi_agent_scheduler.errors import InvalidRequest
from multi_agent_scheduler.request import (
    ImagePart,
    Message,
    ReasoningPart,
    RefusalPart,
    Request,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
    UnknownPart,
    build,
)
from multi_agent_scheduler.wire.anthropic import build_request

PNG = b"\x89PNG\r\n\x1a\nrest"
HI = Message("user", (TextPart(text="hi"),))


def turns(*messages: Message) -> list[dict[str, Any]]:
    body = build_request(Request(messages=messages), model="m")
    return list(body["messages"])


# --- building -----------------------------------------------------------------------------------------------------


def test_a_prompt_is_one_short_turn() -> None:
    assert build_request(build("hi", {}), model="claude-x") == {
        "model": "claude-x",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }
    assert "stream" not in build_request(build("hi", {}), model="m", stream=False)


def test_every_option_has_its_place() -> None:
    request = Request(
        messages=(Message("system", (TextPart(text="be brief"),)), HI),
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        stop=("#", "!"),
        tools=(
            Tool(
                "look", description="looks", parameters={"type": "object"}, strict=True, extra={"defer_loading": True}
            ),
            Tool("now"),
            Tool("web_search", raw={"type": "web_search_20250305", "name": "web_search"}),
        ),
        tool_choice="required",
        parallel_tool_calls=False,
        schema={"type": "object"},
        reasoning_effort="high",
        extra={"top_k": 3, "metadata": {"user_id": "u"}},
    )
    assert build_request(request, model="m", stream=False, max_tokens=1) == {
        "model": "m",
        "max_tokens": 9,
        "system": "be brief",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["#", "!"],
        "tools": [
            {
                "name": "look",
                "description": "looks",
                "input_schema": {"type": "object"},
                "strict": True,
                "defer_loading": True,
            },
            {"name": "now", "input_schema": {"type": "object", "properties": {}}},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "top_k": 3,
        "metadata": {"user_id": "u"},
    }


def test_extra_has_the_last_word() -> None:
    request = Request(messages=(HI,), temperature=0.5, extra={"temperature": 1, "max_tokens": 2})
    body = build_request(request, model="m")
    assert (body["temperature"], body["max_tokens"]) == (1, 2)


def test_the_default_limit_leaves_room_for_thinking() -> None:
    request = Request(messages=(HI,), extra={"thinking": {"type": "enabled", "budget_tokens": 5000}})
    assert build_request(request, model="m", max_tokens=100)["max_tokens"] == 5100


@pytest.mark.parametrize(
    ("choice", "parallel", "made"),
    [
        ("auto", None, {"type": "auto"}),
        ("none", True, {"type": "none"}),
        ("tool:look", True, {"type": "tool", "name": "look", "disable_parallel_tool_use": False}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (None, None, None),
    ],
)
def test_tool_choice(choice: str | None, parallel: bool | None, made: dict[str, Any] | None) -> None:
    request = Request(messages=(HI,), tools=(Tool("look"),), tool_choice=choice, parallel_tool_calls=parallel)
    assert build_request(request, model="m").get("tool_choice") == made


@pytest.mark.parametrize(
    ("effort", "made"),
    [
        ("max", {"output_config": {"effort": "max"}}),
        ("minimal", {"output_config": {"effort": "low"}}),
        ("none", {"thinking": {"type": "disabled"}}),
    ],
)
def test_reasoning_effort(effort: str, made: dict[str, Any]) -> None:
    body = build_request(Request(messages=(HI,), reasoning_effort=effort), model="m")
    assert {key: body[key] for key in made} == made


def test_leading_system_messages_are_hoisted_and_later_ones_stay() -> None:
    cached = TextPart(text="long", extra={"cache_control": {"type": "ephemeral"}})
    request = Request(
        messages=(
            Message("system", (TextPart(text="one"),)),
            Message("system", (cached,)),
            HI,
            Message("system", (TextPart(text="from here on"),)),
        )
    )
    body = build_request(request, model="m")
    assert body["system"] == [
        {"type": "text", "text": "one"},
        {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}},
    ]
    assert body["messages"] == [{"role": "user", "content": "hi"}, {"role": "system", "content": "from here on"}]


def test_tool_results_and_what_follows_are_one_user_turn() -> None:
    results = (ToolResultPart(id="a", content=(TextPart(text="1"),)), ToolResultPart(id="b", is_error=True))
    assert turns(
        HI,
        Message(
            "assistant",
            (
                TextPart(text=""),
                ToolCallPart(id="a", name="x", arguments='{"q":1}'),
                ToolCallPart(id="b", name="y", arguments=""),
            ),
        ),
        Message("tool", (results[0],), name="x"),
        Message("tool", (results[1],)),
        HI,
        HI,
    )[1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "a", "name": "x", "input": {"q": 1}},
                {"type": "tool_use", "id": "b", "name": "y", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                {"type": "tool_result", "tool_use_id": "b", "is_error": True},
                {"type": "text", "text": "hi"},
            ],
        },
        {"role": "user", "content": "hi"},
    ]


def test_reasoning_goes_back_with_its_seal_or_not_at_all() -> None:
    kept = (ReasoningPart(text="hm", signature="sig"), ReasoningPart(redacted="sealed"))
    foreign = (ReasoningPart(text="unsigned"), ReasoningPart(text="s", signature="enc", id="rs_1", kind="summary"))
    assert turns(HI, Message("assistant", (*foreign, *kept, TextPart(text="so"))), Message("assistant", foreign), HI)[
        1:
    ] == [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "sealed"},
                {"type": "text", "text": "so"},
            ],
        },
        {"role": "user", "content": "hi"},
    ]


def test_arguments_that_are_no_object_are_wrapped() -> None:
    calls = (
        ToolCallPart(id="a", name="x", arguments='{"half'),
        ToolCallPart(id="b", name="x", arguments="[1]"),
        ToolCallPart(id="c", name="x", arguments="free text", kind="custom"),
    )
    _, turn = turns(HI, Message("assistant", calls))
    assert [block["input"] for block in turn["content"]] == [
        {"INVALID_JSON": '{"half'},
        {"INVALID_JSON": "[1]"},
        {"input": "free text"},
    ]


@pytest.mark.parametrize(
    ("image", "source"),
    [
        (ImagePart(url="https://e.org/a.png"), {"type": "url", "url": "https://e.org/a.png"}),
        (ImagePart(url="data:image/gif;base64,R0lG"), {"type": "base64", "media_type": "image/gif", "data": "R0lG"}),
        (
            ImagePart(data=PNG),
            {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()},
        ),
        (ImagePart(data=b"x", media_type="image/webp"), {"type": "base64", "media_type": "image/webp", "data": "eA=="}),
    ],
)
def test_images(image: ImagePart, source: dict[str, str]) -> None:
    assert turns(Message("user", (image,))) == [{"role": "user", "content": [{"type": "image", "source": source}]}]


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (Request(messages=(HI,), seed=1), "seed: "),
        (
            Request(messages=(HI,), tool_choice="any"),
            "tool_choice must be auto, none, required or tool:NAME, not 'any'",
        ),
        (Request(messages=(msgspec.structs.replace(HI, name="ann"),)), r"messages\[0\]\.name: "),
        (Request(messages=(Message("system", (TextPart(text="x"),)),)), "messages: "),
        (Request(messages=(Message("user", (ImagePart(),)),)), r"messages\[0\]\.parts\[0\]: an image needs"),
        (Request(messages=(Message("user", (ImagePart(data=b"?"),)),)), r"messages\[0\]\.parts\[0\]\.media_type: "),
        (Request(messages=(Message("user", (ImagePart(url="data:x"),)),)), r"messages\[0\]\.parts\[0\]\.url: "),
        (Request(messages=(HI, Message("tool", (TextPart(text="x"),)))), r"messages\[1\]\.parts\[0\]: a tool message"),
        (Request(messages=(HI, Message("assistant", (ToolResultPart(id="a"),)))), r"messages\[1\]\.parts\[0\]: "),
        (Request(messages=(Message("user", (UnknownPart(raw={}, protocol="openai_chat"),)),)), "openai_chat"),
    ],
)
def test_what_the_protocol_cannot_say(request_: Request, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        build_request(request_, model="m")


def test_a_refusal_of_an_earlier_turn_is_text() -> None:
    assert turns(HI, Message("assistant", (RefusalPart(text="no"),)))[1] == {"role": "assistant", "content": "no"}
