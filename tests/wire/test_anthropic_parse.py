"""Anthropic Messages: bodies to requests, and there and back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import InvalidRequest
from multi_agent_scheduler.request import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    Request,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
    UnknownPart,
)
from multi_agent_scheduler.wire.anthropic import build_request, parse_request
from tests.wire.anthropic_answers import PLAIN, client

HI = Message("user", (TextPart(text="hi"),))


def parse(body: dict[str, Any]) -> Request:
    return parse_request({"messages": [{"role": "user", "content": "hi"}], **body})[0]


# --- parsing ------------------------------------------------------------------------------------------------------

BODY: dict[str, Any] = {
    "model": "claude-x",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "t"}],
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "look"}, {"type": "document", "source": {"type": "file"}}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "thinking", "thinking": "of a gateway that signs nothing"},
                {"type": "redacted_thinking", "data": "sealed"},
                {"type": "text", "text": "so", "citations": [{"type": "char_location", "cited_text": "c"}]},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                {"type": "mcp_tool_use", "id": "m", "name": "ask", "input": {}, "server_name": "wiki"},
                {"type": "mcp_tool_result", "tool_use_id": "m", "is_error": False, "content": []},
                {"type": "tool_use", "id": "t", "name": "look", "input": {"a": [1]}, "caller": {"type": "direct"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [
                        {"type": "text", "text": "x"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                        {"type": "search_result", "title": "r"},
                    ],
                    "cache_control": {"type": "ephemeral"},
                },
                {"type": "tool_result", "tool_use_id": "u", "content": "no", "is_error": True},
                {"type": "text", "text": "and?"},
                {"type": "image", "source": {"type": "url", "url": "https://e.org/i.png"}},
                {"type": "image", "source": {"type": "file", "file_id": "f"}},
            ],
        },
        {"role": "system", "content": "from here on"},
        {"role": "assistant", "content": "The answer is ("},
    ],
    "temperature": 1,
    "top_p": 0.5,
    "top_k": 40,
    "stop_sequences": ["#"],
    "stream": True,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "metadata": {"user_id": "u"},
    "tools": [
        {"name": "look", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
        {"type": "custom", "name": "now", "description": "d", "input_schema": {}, "strict": False},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
        {"type": "mcp_toolset", "mcp_server_name": "wiki"},
    ],
    "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "service_tier": "auto",
}


def test_a_clients_body_keeps_every_field() -> None:
    request, stream = parse_request(BODY)
    assert stream
    assert request.model is not None
    assert build_request(request, model=request.model, stream=stream) == BODY


def test_what_is_made_of_a_clients_body() -> None:
    request, _ = parse_request(BODY)
    assert [message.role for message in request.messages] == [
        "system", "user", "assistant", "tool", "user", "system", "assistant",
    ]  # fmt: skip
    assert request.prompt == "and?"
    assert (request.max_tokens, request.temperature, request.top_p, request.stop) == (100, 1, 0.5, ("#",))
    assert (request.tool_choice, request.parallel_tool_calls) == ("tool:look", False)
    assert (request.schema, request.reasoning_effort) == ({"type": "object"}, "low")
    assert request.extra.keys() == {"top_k", "thinking", "metadata", "service_tier"}
    assert request.messages[2].parts[-1] == ToolCallPart(
        id="t", name="look", arguments='{"a":[1]}', extra={"caller": {"type": "direct"}}
    )
    assert [tool.name for tool in request.tools] == ["look", "now", "web_search", "mcp_toolset"]


def test_what_has_no_field_of_ours_survives_beside_what_has() -> None:
    config = {"effort": "low", "format": {"type": "grammar", "rules": "x"}}
    choice = {"type": "auto", "mode": "keen"}
    request = parse({"output_config": config, "tool_choice": choice})
    assert (request.reasoning_effort, request.tool_choice) == ("low", "auto")
    body = build_request(request, model="m")
    assert (body["output_config"], body["tool_choice"]) == (config, choice)


def test_nulls_are_absent_and_no_stream_is_no_stream() -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": None, "temperature": None, "tools": None}
    assert parse_request(body) == (Request(messages=(HI,), protocol="anthropic"), False)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"messages": None}, "messages must be a list, not null"),
        ({"messages": []}, "messages must have at least one message"),
        ({"messages": ["hi"]}, r"messages\[0\] must be an object, not a string"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\]\.role must be user, assistant or system"),
        (
            {"messages": [{"role": "user", "content": 3}]},
            r"messages\[0\]\.content must be a string or a list of content",
        ),
        ({"messages": [{"role": "user", "content": [3]}]}, r"messages\[0\]\.content\[0\] must be an object"),
        ({"messages": [{"role": "user", "content": [{}]}]}, r"messages\[0\]\.content\[0\]\.type must be a string"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            r"content\[0\]\.text must be a string, not null",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": 1}}]}]},
            r"messages\[0\]\.content\[0\]\.source\.url must be a string, not a whole number",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "?"}}]}]},
            r"messages\[0\]\.content\[0\]\.source\.data must be base64",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": "{}"}]}
                ]
            },
            r"messages\[0\]\.content\[0\]\.input must be an object, not a string",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [1]}]}]},
            r"messages\[0\]\.content\[0\]\.content\[0\] must be an object",
        ),
        ({"max_tokens": "9"}, "max_tokens must be a whole number, not a string"),
        ({"max_tokens": True}, "max_tokens must be a whole number, not a boolean"),
        ({"temperature": "hot"}, "temperature must be a number, not a string"),
        ({"stream": 1}, "stream must be true or false"),
        ({"stop_sequences": "x"}, "stop_sequences must be a list"),
        ({"stop_sequences": ["x", 1]}, r"stop_sequences\[1\] must be a string"),
        ({"tools": [{"name": "x"}]}, r"tools\[0\]\.input_schema must be an object, not null"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type must be auto, any, none or tool, not 'maybe'"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name must be a string"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema must be an object"),
        ({"system": 3}, "system must be a string or a list"),
    ],
)
def test_a_wrong_type_is_named_by_its_path(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        parse(change)


def test_what_the_official_client_sends_comes_back_the_same() -> None:
    sent: list[Any] = []
    with (
        client(PLAIN[0].body, sent=sent) as api,
        api.messages.stream(
            model="claude-x",
            max_tokens=64,
            system=[{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            messages=[
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {"a": 1}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "ok"}]},
            ],
            tools=[{"name": "look", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}],
            tool_choice={"type": "auto"},
            output_config={"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
            thinking={"type": "adaptive"},
        ) as stream,
    ):
        stream.until_done()
    (body,) = sent
    request, wants_stream = parse_request(body)
    assert build_request(request, model="claude-x", stream=wants_stream) == body


# --- properties ---------------------------------------------------------------------------------------------------

WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
EXTRA = st.none() | st.just({"cache_control": {"type": "ephemeral"}})
OBJECT = st.dictionaries(WORD, st.integers(-9, 9) | WORD | st.none(), max_size=2)
TEXT = st.builds(TextPart, text=WORD, extra=EXTRA)
IMAGE = st.builds(ImagePart, url=WORD.map("https://e.org/".__add__), extra=EXTRA) | st.builds(
    ImagePart, data=st.binary(min_size=1, max_size=5), media_type=st.just("image/png"), extra=EXTRA
)
ODD = st.builds(UnknownPart, raw=OBJECT.map(lambda raw: {**raw, "type": "document"}), protocol=st.just("anthropic"))
ARGUMENTS = OBJECT.map(lambda value: msgspec.json.encode(value).decode())
SAID = st.one_of(
    TEXT,
    ODD,
    st.builds(
        ToolCallPart, id=WORD, name=WORD, arguments=ARGUMENTS, kind=st.sampled_from(["function", "server"]), extra=EXTRA
    ),
    st.builds(ReasoningPart, text=WORD, signature=WORD),
    st.builds(ReasoningPart, redacted=WORD),
)
RESULT: st.SearchStrategy[Part] = st.builds(
    ToolResultPart,
    id=WORD,
    content=st.lists(TEXT | IMAGE | ODD, max_size=2).map(tuple),
    is_error=st.booleans(),
    extra=EXTRA,
)
SYSTEM = st.builds(Message, role=st.just("system"), parts=st.lists(TEXT, min_size=1, max_size=2).map(tuple))


def turn(role: str, parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    return st.builds(Message, role=st.just(role), parts=st.lists(parts, min_size=1, max_size=3).map(tuple))


CONVERSATION = st.lists(
    st.one_of(
        turn("user", TEXT | IMAGE | ODD).map(lambda message: (message,)),
        turn("assistant", SAID).map(lambda message: (message,)),
        turn("tool", RESULT).map(lambda message: (message, HI)),
    ),
    min_size=1,
    max_size=3,
).map(lambda groups: tuple(message for group in groups for message in group))
TOOLS = st.lists(
    st.builds(
        Tool, name=WORD, description=st.none() | WORD, parameters=OBJECT, strict=st.none() | st.booleans(), extra=EXTRA
    ),
    min_size=1,
    max_size=2,
).map(tuple)
REQUESTS = st.builds(
    Request,
    messages=st.builds(lambda system, rest: system + rest, st.just(()) | SYSTEM.map(lambda one: (one,)), CONVERSATION),
    model=st.just("m"),
    max_tokens=st.integers(1, 9),
    temperature=st.none() | st.floats(0, 1),
    top_p=st.none() | st.floats(0, 1),
    stop=st.lists(WORD, max_size=2).map(tuple),
    tools=TOOLS,
    tool_choice=st.sampled_from(["auto", "required", "tool:x"]),
    parallel_tool_calls=st.none() | st.booleans(),
    schema=st.none() | OBJECT,
    reasoning_effort=st.none() | st.sampled_from(["low", "max"]),
    extra=st.just({}) | st.just({"top_k": 1}),
    protocol=st.just("anthropic"),
)


@given(REQUESTS, st.booleans())
def test_a_request_comes_back_the_same(request: Request, stream: bool) -> None:
    body = json.loads(json.dumps(build_request(request, model="m", stream=stream)))
    assert parse_request(body) == (request, stream)
