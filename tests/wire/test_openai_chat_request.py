"""Requests for chat completions, both ways."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

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
from multi_agent_scheduler.wire.openai_chat import build_request, parse_request, wants_usage

PNG = b"\x89PNG\r\n"
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


def user(*parts: Any) -> Request:
    return Request(messages=(Message("user", parts),))


def assistant(*parts: Any) -> Request:
    return Request(messages=(Message("assistant", parts),))


def message(request: Request, **options: Any) -> Any:
    (made,) = build_request(request, model="m", **options)["messages"]
    return made


class TestBuild:
    def test_a_plain_prompt(self) -> None:
        request = build("Hi", {"system": "Be kind", "max_tokens": 5, "stop": "END", "extra": {"user": "u"}})
        assert build_request(request, model="m") == {
            "model": "m",
            "messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}],
            "max_tokens": 5,
            "stop": ["END"],
            "stream": True,
            "stream_options": {"include_usage": True},
            "user": "u",
        }

    def test_what_differs_between_providers(self) -> None:
        request = build("Hi", {"system": "Be kind", "max_tokens": 5})
        body = build_request(
            request,
            model="m",
            stream=True,
            token_field="max_completion_tokens",
            include_usage=False,
            system_role="developer",
        )
        assert body == {
            "model": "m",
            "messages": [{"role": "developer", "content": "Be kind"}, {"role": "user", "content": "Hi"}],
            "max_completion_tokens": 5,
            "stream": True,
        }
        assert build_request(request, model="m", stream=False).keys() == {"model", "messages", "max_tokens"}

    def test_extra_is_merged_last(self) -> None:
        request = build("Hi", {"temperature": 1.0, "extra": {"temperature": 0.5, "stream_options": {"x": 1}}})
        body = build_request(request, model="m")
        assert body["temperature"] == 0.5
        assert body["stream_options"] == {"include_usage": True, "x": 1}

    def test_tools_and_structured_output(self) -> None:
        tool = Tool("f", "does f", {"type": "object"}, strict=True)
        raw = {"type": "custom", "custom": {"name": "sql"}}
        schema = {"type": "object"}
        options = {
            "tools": [tool, Tool("sql", raw=raw)],
            "tool_choice": "tool:f",
            "schema": schema,
            "schema_strict": True,
        }
        body = build_request(build("Hi", options), model="m")
        function = {"name": "f", "description": "does f", "parameters": {"type": "object"}, "strict": True}
        assert body["tools"] == [{"type": "function", "function": function}, raw]
        assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
        assert body["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        }
        body = build_request(build("Hi", {**options, "tool_choice": "tool:sql"}), model="m")
        assert body["tool_choice"] == {"type": "custom", "custom": {"name": "sql"}}

    def test_images(self) -> None:
        assert message(
            user(
                TextPart(text="look"),
                ImagePart(url="http://a/b.png", extra={"detail": "low", "cache_control": {"type": "ephemeral"}}),
                ImagePart(data=PNG, media_type="image/png"),
            )
        )["content"] == [
            {"type": "text", "text": "look"},
            {
                "type": "image_url",
                "image_url": {"url": "http://a/b.png", "detail": "low"},
                "cache_control": {"type": "ephemeral"},
            },
            {"type": "image_url", "image_url": {"url": PNG_URL}},
        ]

    def test_calls_and_results(self) -> None:
        request = Request(
            messages=(
                Message("assistant", (ToolCallPart(id="a", name="f", arguments="{}"), ToolCallPart(id="b", name="g"))),
                Message("tool", (ToolResultPart(id="a", content=(TextPart(text="1"),)), ToolResultPart(id="b"))),
                Message("user", (ToolResultPart(id="c", content=(TextPart(text="2"),)), TextPart(text="go on"))),
            )
        )
        calls = [
            {"id": i, "type": "function", "function": {"name": n, "arguments": "{}"}}
            for i, n in (("a", "f"), ("b", "g"))
        ]
        assert build_request(request, model="m")["messages"] == [
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "tool", "tool_call_id": "b", "content": []},
            {"role": "tool", "tool_call_id": "c", "content": "2"},
            {"role": "user", "content": "go on"},
        ]

    def test_reasoning_of_earlier_turns(self) -> None:
        request = assistant(
            ReasoningPart(text="hm", signature="S"),
            ReasoningPart(redacted="R", id="r1", extra={"format": "f"}),
            TextPart(text="A"),
            ToolCallPart(id="a", name="f", signature="T"),
        )
        plain = message(request)
        assert plain.keys() == {"role", "content", "tool_calls"}
        assert message(request, reasoning_field="reasoning_content") == {**plain, "reasoning_content": "hm"}
        assert message(request, reasoning_field="reasoning") == {**plain, "reasoning": "hm"}
        assert message(request, reasoning_field="reasoning_details")["reasoning_details"] == [
            {"type": "reasoning.text", "text": "hm", "signature": "S", "index": 0},
            {"type": "reasoning.encrypted", "data": "R", "id": "r1", "index": 1, "format": "f"},
        ]
        sealed = message(request, reasoning_field="extra_content")
        assert sealed["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "T"}}

    @pytest.mark.parametrize(
        ("request_", "place"),
        [
            (user(ImagePart()), r"messages\[0\].parts\[0\]"),
            (user(ImagePart(url="a", data=b"b")), r"messages\[0\].parts\[0\]"),
            (user(TextPart(text=""), ImagePart(data=b"b")), r"messages\[0\].parts\[1\].media_type"),
            (user(ToolCallPart(id="a", name="f")), r"messages\[0\].parts\[0\]: only an assistant"),
            (assistant(ImagePart(url="a")), r"messages\[0\].parts\[0\].*an image part"),
            (assistant(ToolCallPart(id="a", name="f", kind="server")), r"messages\[0\].parts\[0\].kind"),
            (assistant(ToolCallPart(id="", name="f"), ToolCallPart(id="", name="g")), r"messages\[0\].parts\[1\].id"),
            (user(UnknownPart(raw={}, protocol="gemini")), r"messages\[0\].parts\[0\].*gemini"),
            (user(UnknownPart(raw=1)), r"messages\[0\].parts\[0\].raw"),
            (assistant(ToolResultPart(id="a")), r"messages\[0\].parts\[0\].*tool message"),
            (user(ToolResultPart(id="a", content=(ImagePart(url="b"),))), r"messages\[0\].parts\[0\].content\[0\]"),
            (Request(messages=(Message("tool", (TextPart(text="x"),)),)), r"messages\[0\].parts\[0\].*tool results"),
            (Request(messages=(), tool_choice="maybe"), "tool_choice"),
            (Request(messages=(), tool_choice="tool:"), "tool_choice"),
        ],
    )
    def test_what_cannot_be_said_is_refused_by_name(self, request_: Request, place: str) -> None:
        with pytest.raises(InvalidRequest, match=place):
            build_request(request_, model="m")


CLIENT_BODY: dict[str, Any] = {
    "model": "gpt-5",
    "messages": [
        {"role": "developer", "content": "Be brief", "name": "boss"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "high"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"file_id": "f1"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Let me see.",
            "refusal": None,
            "annotations": [],
            "audio": {"id": "audio_1"},
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "sql", "input": "select 1"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "a cat", "cache_control": {"type": "ephemeral"}},
        {
            "role": "tool",
            "tool_call_id": "c2",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {"role": "assistant", "content": None, "function_call": {"name": "old", "arguments": "{}"}},
        {"role": "function", "name": "old", "content": "done"},
        {"role": "assistant", "content": None, "refusal": "I cannot."},
        {"role": "user", "content": ""},
    ],
    "max_completion_tokens": 100,
    "temperature": 0.5,
    "top_p": 1,
    "stop": ["a", "b"],
    "seed": 7,
    "tools": [
        {
            "type": "function",
            "function": {"name": "look", "description": "d", "parameters": {"type": "object"}, "strict": True},
        },
        {"type": "function", "function": {"name": "cached"}, "cache_control": {"type": "ephemeral"}},
        {"type": "custom", "custom": {"name": "sql", "format": {"type": "text"}}},
        {"type": "web_search"},
    ],
    "tool_choice": {"type": "custom", "custom": {"name": "sql"}},
    "parallel_tool_calls": False,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "pet", "schema": {"type": "object"}, "strict": False},
    },
    "reasoning_effort": "low",
    "stream": True,
    "stream_options": {"include_usage": True},
    "n": 2,
    "logprobs": True,
    "metadata": {"a": "b"},
    "user": "u1",
    "service_tier": "flex",
    "prediction": {"type": "content", "content": "x"},
}


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None and k != "annotations"}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


class TestParse:
    def test_a_clients_body_comes_back_whole(self) -> None:
        request, stream = parse_request(CLIENT_BODY)
        assert stream is True
        assert request.model == "gpt-5"
        again = build_request(request, model="gpt-5", token_field="max_completion_tokens", system_role="developer")
        assert without_nulls(again) == without_nulls(CLIENT_BODY)

    def test_what_it_means(self) -> None:
        request, _ = parse_request(CLIENT_BODY)
        assert request.messages[0] == Message("system", (TextPart(text="Be brief"),), "boss")
        assert request.messages[1].parts[1] == ImagePart(data=PNG, media_type="image/png", extra={"detail": "high"})
        assert request.messages[1].parts[3] == UnknownPart(
            raw={"type": "file", "file": {"file_id": "f1"}}, protocol="openai_chat"
        )
        assert request.messages[2].parts[-1] == UnknownPart(raw={"audio": {"id": "audio_1"}}, protocol="openai_chat")
        assert request.messages[2].parts[2] == ToolCallPart(id="c2", name="sql", arguments="select 1", kind="custom")
        assert request.messages[4].parts[0] == ToolResultPart(id="c2", content=(TextPart(text="a"), TextPart(text="b")))
        assert request.messages[7].parts == (RefusalPart(text="I cannot."),)
        assert request.max_tokens == 100
        assert request.tools[0] == Tool("look", "d", {"type": "object"}, strict=True)
        assert request.tools[3] == Tool("web_search", raw={"type": "web_search"})
        assert request.tool_choice == "tool:sql"
        assert (request.schema, request.schema_name, request.schema_strict) == ({"type": "object"}, "pet", False)
        assert request.extra.keys() == {"n", "logprobs", "metadata", "user", "service_tier", "prediction"}

    @pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
    def test_reasoning_that_a_client_sends_back(self, field: str) -> None:
        turn = {"role": "assistant", "content": "A", field: "hm"}
        request, _ = parse_request({"messages": [turn]})
        assert request.messages[0].parts == (ReasoningPart(text="hm"), TextPart(text="A"))
        assert message(request, reasoning_field=field) == turn

    def test_reasoning_details_that_a_client_sends_back(self) -> None:
        details = [
            {"type": "reasoning.text", "text": "hm", "signature": "S", "index": 0, "format": "f"},
            {"type": "reasoning.summary", "summary": "s", "id": "r", "index": 1},
            {"type": "reasoning.encrypted", "data": "E", "id": "r", "index": 1},
        ]
        turn = {"role": "assistant", "content": "A", "reasoning": "hms", "reasoning_details": details}
        request, _ = parse_request({"messages": [turn]})
        assert message(request, reasoning_field="reasoning_details")["reasoning_details"] == details

    def test_what_may_be_said_in_two_ways(self) -> None:
        base = {"messages": [{"role": "user", "content": "Hi"}]}
        assert parse_request({**base, "stop": "x"})[0].stop == ("x",)
        assert parse_request({**base, "max_tokens": 3})[0].max_tokens == 3
        both = parse_request({**base, "max_tokens": 3, "max_completion_tokens": 5})[0]
        assert (both.max_tokens, both.extra) == (5, {"max_tokens": 3})
        assert parse_request({**base, "tool_choice": "any"})[0].tool_choice == "required"
        allowed = {"type": "allowed_tools", "allowed_tools": {}}
        assert parse_request({**base, "tool_choice": allowed})[0].extra == {"tool_choice": allowed}
        assert parse_request({**base, "response_format": {"type": "json_object"}})[0].extra == {
            "response_format": {"type": "json_object"}
        }
        assert parse_request({**base, "stream": None, "user": None, "tools": None}) == (
            Request(messages=(Message("user", (TextPart(text="Hi"),)),), protocol="openai_chat"),
            False,
        )
        image = {"type": "image_url", "image_url": "http://a"}
        turn = {"role": "user", "content": [image]}
        assert parse_request({"messages": [turn]})[0].messages[0].parts == (ImagePart(url="http://a"),)

    def test_whether_usage_was_asked_for(self) -> None:
        assert wants_usage({"stream_options": {"include_usage": True}})
        assert not wants_usage({"stream_options": {"include_usage": 1}})
        assert not wants_usage({"stream_options": None})
        assert not wants_usage({})

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"messages": None}, "messages"),
            ({"messages": []}, "messages"),
            ({"messages": "Hi"}, "messages must be a list"),
            ({"messages": ["Hi"]}, r"messages\[0\] must be an object, not a string"),
            ({"messages": [{"content": "Hi"}]}, r"messages\[0\].role is missing"),
            ({"messages": [{"role": "robot", "content": "Hi"}]}, r"messages\[0\].role"),
            ({"messages": [{"role": "user"}]}, r"messages\[0\].content is missing"),
            ({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\].content"),
            ({"messages": [{"role": "user", "content": ["x"]}]}, r"messages\[0\].content\[0\] must be an object"),
            ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, r"messages\[0\].content\[0\].type"),
            ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, r"messages\[0\].content\[0\].text"),
            (
                {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 5}}]}]},
                r"messages\[0\].content\[0\].image_url.url must be a string, not a number",
            ),
            (
                {
                    "messages": [
                        {"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,%"}]}
                    ]
                },
                r"messages\[0\].content\[0\].image_url is not valid base64",
            ),
            (
                {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]},
                r"messages\[0\].content\[0\].image_url.url",
            ),
            ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\].tool_call_id is missing"),
            (
                {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {}}]}]},
                r"messages\[0\].tool_calls\[0\].function.name is missing",
            ),
            (
                {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "x"}]}]},
                r"messages\[0\].tool_calls\[0\].type",
            ),
            ({"max_tokens": "5"}, "max_tokens must be a whole number, not a string"),
            ({"max_tokens": 0}, "max_tokens must be at least 1"),
            ({"temperature": True}, "temperature must be a number, not true"),
            ({"top_p": float("nan")}, "top_p"),
            ({"stop": [1]}, "stop"),
            ({"stream": "yes"}, "stream must be true or false, not a string"),
            ({"stream_options": 1}, "stream_options"),
            ({"model": 5}, "model"),
            ({"tools": [{"function": {"name": "f"}}]}, r"tools\[0\].type is missing"),
            (
                {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
                r"tools\[0\].function.parameters",
            ),
            ({"tool_choice": "maybe"}, "tool_choice"),
            ({"tool_choice": {"type": "function"}}, "tool_choice.function is missing"),
            ({"response_format": {"type": "json_schema"}}, "response_format.json_schema is missing"),
            (
                {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
                "json_schema.schema is missing",
            ),
        ],
    )
    def test_mistakes_are_told_with_their_place(self, change: dict[str, Any], place: str) -> None:
        with pytest.raises(InvalidRequest, match=place):
            parse_request({"messages": [{"role": "user", "content": "Hi"}], **change})


def test_what_openais_client_sends_is_understood() -> None:
    """The body that the official client really writes, through and back."""
    sent: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(400, json={"error": {"message": "enough"}})

    client = openai.OpenAI(
        api_key="x",
        base_url="http://test/v1",
        max_retries=0,
        http_client=httpx.Client(transport=httpx.MockTransport(answer)),
    )
    options = {key: value for key, value in CLIENT_BODY.items() if key != "stream"}
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**options, stream=True)
    request, stream = parse_request(sent[0])
    again = build_request(request, model="gpt-5", token_field="max_completion_tokens", system_role="developer")
    assert stream is True
    assert without_nulls(again) == without_nulls(sent[0])


TEXT = st.text(max_size=5)
NAME = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
JSON = st.recursive(
    st.booleans() | st.integers(-9, 9) | TEXT, lambda x: st.lists(x, max_size=2) | st.dictionaries(NAME, x, max_size=2)
)
EXTRA = st.none() | st.fixed_dictionaries({"cache_control": st.just({"type": "ephemeral"})})
TEXTS = st.builds(TextPart, text=TEXT, extra=EXTRA)
IMAGES = st.builds(
    ImagePart, url=NAME.map("http://a/".__add__), extra=st.none() | st.just({"detail": "low"})
) | st.builds(ImagePart, data=st.binary(max_size=5), media_type=st.just("image/png"), extra=EXTRA)
UNKNOWN = st.builds(
    UnknownPart, raw=st.fixed_dictionaries({"type": st.just("file"), "file": JSON}), protocol=st.just("openai_chat")
)
FIELDS = st.builds(UnknownPart, raw=st.fixed_dictionaries({"prefix": st.booleans()}), protocol=st.just("openai_chat"))
CALLS = st.builds(
    ToolCallPart,
    id=NAME,
    name=NAME,
    arguments=TEXT,
    kind=st.sampled_from(["function", "custom"]),
    signature=st.none() | NAME,
    extra=EXTRA,
)
RESULTS = st.builds(ToolResultPart, id=NAME, name=st.just("") | NAME, content=st.tuples(TEXTS | UNKNOWN), extra=EXTRA)
LEGACY = st.builds(ToolCallPart, id=st.just(""), name=NAME, arguments=TEXT)
NAMES = st.none() | NAME


def turn(role: Any, *groups: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    return st.builds(
        lambda parts, name: Message(role, tuple(part for group in parts for part in group), name),
        st.tuples(*groups),
        NAMES,
    )


MESSAGES = st.one_of(
    turn("system", st.lists(TEXTS, min_size=1, max_size=2)),
    turn("user", st.lists(TEXTS | IMAGES | UNKNOWN, min_size=1, max_size=3), st.lists(FIELDS, max_size=1)),
    turn(
        "assistant",
        st.lists(TEXTS, max_size=2),
        st.lists(st.builds(RefusalPart, text=TEXT), max_size=1),
        st.lists(CALLS, max_size=2) | st.lists(LEGACY, max_size=1),
        st.lists(FIELDS, max_size=1),
    ),
    st.builds(lambda result: Message("tool", (result,)), RESULTS),
)
TOOLS = st.builds(
    Tool, name=NAME, description=st.none() | TEXT, parameters=st.none() | st.dictionaries(NAME, JSON, max_size=2)
)
SCHEMA = st.dictionaries(NAME, JSON, max_size=2)
NUMBER = st.none() | st.floats(0, 2)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    schema = draw(st.none() | SCHEMA)
    return Request(
        messages=tuple(draw(st.lists(MESSAGES, min_size=1, max_size=4))),
        model="m",
        max_tokens=draw(st.none() | st.integers(1, 9)),
        temperature=draw(NUMBER),
        top_p=draw(NUMBER),
        stop=tuple(draw(st.lists(TEXT, max_size=2))),
        seed=draw(st.none() | st.integers()),
        tools=tuple(draw(st.lists(TOOLS, max_size=2))),
        tool_choice=draw(st.none() | st.sampled_from(["auto", "none", "required", "tool:f"])),
        parallel_tool_calls=draw(st.none() | st.booleans()),
        schema=schema,
        schema_name=draw(NAMES.filter(lambda name: name != "answer")) if schema is not None else None,
        schema_strict=draw(st.none() | st.booleans()) if schema is not None else None,
        reasoning_effort=draw(st.none() | st.just("low")),
        extra=draw(st.dictionaries(NAME.map("x_".__add__), JSON, max_size=2)),
    )


@given(requests(), st.booleans(), st.sampled_from(["max_tokens", "max_completion_tokens"]))
def test_a_request_comes_back_as_it_was(request: Request, stream: bool, token_field: str) -> None:
    body = build_request(request, model="m", stream=stream, token_field=token_field, reasoning_field="extra_content")
    assert parse_request(json.loads(json.dumps(body))) == (replace(request, protocol="openai_chat"), stream)


@given(
    st.lists(
        st.builds(ReasoningPart, text=TEXT, signature=NAMES, kind=st.sampled_from([None, "summary"]), id=NAMES),
        max_size=3,
    )
)
def test_reasoning_details_come_back_as_they_were(parts: list[ReasoningPart]) -> None:
    request = assistant(*parts, TextPart(text="A"))
    body = build_request(request, model="m", reasoning_field="reasoning_details")
    assert parse_request(body)[0].messages == request.messages


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["user", "text", "function"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "type",
                    "text",
                    "image_url",
                    "url",
                    "tool_calls",
                    "function",
                    "name",
                    "id",
                    "tool_call_id",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["messages", "tools", "tool_choice", "stop", "response_format", "seed", "x"]), ODD),
    ODD,
)
def test_any_body_is_understood_or_refused(body: dict[str, Any], turns: Any) -> None:
    for candidate in (body, {"messages": [{"role": "user", "content": turns}]}, {**body, "messages": [turns]}):
        with suppress(InvalidRequest):
            request, _ = parse_request(candidate)
            build_request(request, model="m")
