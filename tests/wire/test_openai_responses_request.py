"""The Responses API's request bodies, read; and what is left of them there and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from multi_agent_scheduler.errors import InvalidRequest
from multi_agent_scheduler.request import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    Request,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
    UnknownPart,
)
from multi_agent_scheduler.wire.openai_responses import build_request, parse_request

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def again(body: dict[str, Any]) -> dict[str, Any]:
    """What goes out to a provider for what a client sent."""
    request, stream = parse_request(body)
    return build_request(request, model=request.model or "", stream=stream)


# --- reading ------------------------------------------------------------------------------------------------------


def test_a_string_is_a_user_message() -> None:
    request, stream = parse_request({"model": "m", "input": "Hi", "stream": True})
    assert request == Request(
        messages=(Message("user", (TextPart(text="Hi"),)),), model="m", protocol="openai_responses"
    )
    assert stream is True
    assert parse_request({"input": "Hi"})[1] is False


def test_unknown_fields_at_the_top_are_extra() -> None:
    body = {
        "input": [],
        "previous_response_id": "resp_1",
        "background": True,
        "store": True,
        "include": ["x"],
        "new": 1,
    }
    request, _ = parse_request(body)
    assert request.extra == {key: value for key, value in body.items() if key != "input"}


def test_input_may_be_missing_where_something_else_says_it() -> None:
    assert parse_request({"previous_response_id": "resp_1"})[0].messages == ()


def test_what_an_assistant_did_in_a_row_is_one_message() -> None:
    request, _ = parse_request(
        {
            "input": [
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "seal"},
                {"role": "assistant", "content": "Adding."},
                {"type": "function_call", "call_id": "1", "name": "add", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": ""},
                {"role": "assistant", "content": "Done."},
                {"role": "assistant", "content": "Really."},
                {"role": "developer", "content": "Stop."},
            ]
        }
    )
    assert request.messages == (
        Message(
            "assistant",
            (ReasoningPart(signature="seal", id="rs_1"), TextPart(text="Adding."), ToolCallPart(id="1", name="add")),
        ),
        Message("tool", (ToolResultPart(id="1"),)),
        Message("assistant", (TextPart(text="Done."),)),
        Message("assistant", (TextPart(text="Really."),)),
        Message("system", (TextPart(text="Stop.", extra={"message": {"role": "developer"}}),)),
    )


def test_items_and_parts_of_unknown_types_are_kept() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    approval = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    file = {"type": "input_file", "file_id": "file_1"}
    request, _ = parse_request({"input": [search, approval, {"role": "user", "content": [file]}]})
    kept = [UnknownPart(raw=raw, protocol="openai_responses") for raw in (search, approval, file)]
    assert [message.parts for message in request.messages] == [(part,) for part in kept]
    assert [message.role for message in request.messages] == ["assistant", "tool", "user"]


def test_seals_in_our_own_fields_are_read() -> None:
    request, _ = parse_request(
        {
            "input": [
                {"type": "reasoning", "id": "rs_1", "summary": [], "redacted": "secret"},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}", "signature": "thought"},
            ]
        }
    )
    assert request.messages[0].parts == (
        ReasoningPart(redacted="secret", id="rs_1"),
        ToolCallPart(id="1", name="f", signature="thought"),
    )


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([], "the body"),
        ({}, "input: is required"),
        ({"input": 5}, "input: must be a string, or a list"),
        ({"input": ["a"]}, "input[0]: must be an object"),
        ({"input": [{}]}, "input[0].type"),
        ({"input": [{"role": "king", "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": ["a"]}]}, "input[0].content[0]: must be an object"),
        ({"input": [{"role": "user", "content": [{}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text: is required"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": 5}]}]},
            "input[0].content[0].text: must",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": {"url": "x"}}]}]},
            "input[0].content[0].image_url: must be a string",
        ),
        (
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,%%%"}]}
                ]
            },
            "input[0].content[0].image_url: is not valid base64",
        ),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id: is required"),
        (
            {"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": {}}]},
            "input[0].arguments: must",
        ),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": 5}]}, "input[0].output"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": [5]}]}, "input[0].output[0]"),
        ({"input": [{"type": "reasoning", "summary": [{}]}]}, "input[0].summary[0].text"),
        ({"input": [{"type": "reasoning", "summary": {}}]}, "input[0].summary"),
        ({"input": [{"type": "reasoning", "id": 5}]}, "input[0].id"),
        ({"input": "a", "model": 5}, "model: must be a string"),
        ({"input": "a", "max_output_tokens": True}, "max_output_tokens: must be a whole number"),
        ({"input": "a", "temperature": "hot"}, "temperature: must be a number"),
        ({"input": "a", "stream": "yes"}, "stream: must be true or false"),
        ({"input": "a", "instructions": []}, "instructions: must be a string"),
        ({"input": "a", "tools": {}}, "tools: must be a list"),
        ({"input": "a", "tools": [{"type": "function"}]}, "tools[0].name: is required"),
        ({"input": "a", "tools": [{"name": "f"}]}, "tools[0].type: is required"),
        (
            {"input": "a", "tools": [{"type": "function", "name": "f", "parameters": []}]},
            "tools[0].parameters: must be an",
        ),
        ({"input": "a", "tool_choice": "sometimes"}, "tool_choice: must be auto, none, required or an object"),
        ({"input": "a", "text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"input": "a", "reasoning": "low"}, "reasoning: must be an object"),
        ({"input": "a", "reasoning": {"effort": 1}}, "reasoning.effort"),
    ],
)
def test_a_wrong_type_is_named_by_its_path(body: Any, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(body)
    assert str(caught.value).startswith(path)


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "call_id", "name", "arguments", "output", "summary", "format"]
            ),
            inner
            | st.sampled_from(
                ["message", "user", "function_call", "reasoning", "input_text", "input_image", "json_schema"]
            ),
            max_size=4,
        )
    ),
    max_leaves=12,
)


_fields = ("model", "tools", "tool_choice", "text", "reasoning", "stream", "instructions")
_input = st.lists(_anything, max_size=3) | _anything


@given(st.fixed_dictionaries({"input": _input}, optional=dict.fromkeys(_fields, _anything)))
@settings(max_examples=80, deadline=None)
def test_any_body_is_understood_or_refused(body: dict[str, Any]) -> None:
    try:
        request, stream = parse_request(body)
    except InvalidRequest:
        return
    assert isinstance(stream, bool)
    msgspec.convert(msgspec.to_builtins(request, builtin_types=(bytes,)), Request)


# --- there and back -----------------------------------------------------------------------------------------------

CLIENT_BODY: dict[str, Any] = {
    "model": "gpt-5.5",
    "instructions": "Be brief.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Mind the gap."}]},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0K", "detail": "high"},
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
                {"type": "input_image", "file_id": "file_2", "detail": "auto"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
            ],
        },
        {"type": "item_reference", "id": "msg_0"},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "So"}, {"type": "summary_text", "text": "it is"}],
            "content": [{"type": "reasoning_text", "text": "hm"}],
            "encrypted_content": "seal",
            "status": "completed",
        },
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "phase": "commentary",
            "content": [
                {
                    "type": "output_text",
                    "text": "A cat, says the web.",
                    "annotations": [{"type": "url_citation", "url": "https://e.org", "start_index": 0, "end_index": 5}],
                },
                {"type": "refusal", "refusal": "No more."},
            ],
        },
        {"type": "message", "id": "msg_2", "role": "assistant", "content": [{"type": "output_text", "text": "Now:"}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "cat"}},
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "add",
            "arguments": '{"a":1}',
            "status": "completed",
            "namespace": "maths",
        },
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "sh", "input": "ls"},
        {"type": "function_call_output", "call_id": "call_1", "output": "2", "id": "fco_1", "name": "add"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "a"}] * 2},
        {"type": "custom_tool_call_output", "call_id": "of an earlier response", "output": "b"},
        {"type": "computer_call_output", "call_id": "call_3", "output": {"type": "computer_screenshot"}},
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        {"type": "message", "id": "msg_3", "role": "user", "content": [{"type": "input_text", "text": "Go on."}]},
    ],
    "tools": [
        {"type": "function", "name": "add", "description": "adds", "parameters": SCHEMA, "strict": True},
        {"type": "function", "name": "sub", "parameters": SCHEMA, "strict": False, "defer_loading": True},
        {"type": "custom", "name": "sh", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        {"type": "web_search", "search_context_size": "low"},
        {"type": "mcp", "server_label": "wiki", "server_url": "https://e.org/mcp", "require_approval": "never"},
    ],
    "tool_choice": {"type": "custom", "name": "sh"},
    "parallel_tool_calls": True,
    "max_output_tokens": 100,
    "temperature": 0.2,
    "top_p": 0.9,
    "text": {
        "verbosity": "low",
        "format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True, "description": "a pair"},
    },
    "reasoning": {"effort": "high", "summary": "auto"},
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "include": ["reasoning.encrypted_content"],
    "store": False,
    "metadata": {"a": "b"},
    "previous_response_id": "resp_0",
    "background": False,
    "service_tier": "flex",
    "truncation": "auto",
    "user": "u",
    "max_tool_calls": 3,
}


def test_every_field_of_a_clients_body_reaches_the_provider() -> None:
    sent = again(CLIENT_BODY)
    for index, (item, wanted) in enumerate(zip(sent["input"], CLIENT_BODY["input"], strict=True)):
        assert item == wanted, index
    assert sent == CLIENT_BODY


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}},
        {"tool_choice": {"type": "web_search"}},
        {"tool_choice": {"type": "custom", "name": "not listed"}},
        {"tool_choice": "required"},
        {"text": {"format": {"type": "json_object"}}},
        {"text": {"verbosity": "high"}},
        {"text": {"format": {"type": "json_schema", "name": "answer", "schema": {}}}},
        {"reasoning": {"summary": "auto"}},
        {"reasoning": {"effort": "low"}},
        {"input": [{"type": "message", "role": "assistant", "content": [], "id": "msg_1"}]},
        {"input": [{"type": "message", "role": "user", "content": []}]},
        {"input": [{"type": "message", "role": "user", "id": "m", "content": [{"type": "input_audio", "data": "x"}]}]},
        {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "seal"}]},
        {
            "input": [
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "reasoning", "id": "rs_2", "summary": []},
            ]
        },
        {
            "input": [
                {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "a"}] * 2}
            ]
        },
    ],
)
def test_bodies_that_are_passed_on_unchanged(fields: dict[str, Any]) -> None:
    body = {"model": "m", "stream": False, "input": [], "previous_response_id": "resp_0", **fields}
    assert again(body) == body


_text = st.text(min_size=1, max_size=5)
_name = st.text("abcdef_", min_size=1, max_size=5)
_extra = st.none() | st.fixed_dictionaries({}, optional={"x": st.integers()}).filter(bool)
_texts = st.builds(TextPart, text=st.text(max_size=5), extra=_extra)
_images = st.builds(ImagePart, url=st.just("https://e.org/a.png"), extra=_extra) | st.builds(
    ImagePart, data=st.binary(min_size=1, max_size=4), media_type=st.sampled_from(["image/png", "image/svg+xml"])
)
_schema = st.just(SCHEMA)


@st.composite
def _assistant(draw: st.DrawFn) -> Message:
    """Reasoning, then words, then calls: as this API gives them."""
    parts: list[Part] = []
    for number in range(draw(st.integers(0, 2))):
        item_id = f"rs_{number}"
        texts = draw(st.lists(_text, max_size=2))
        kind = draw(st.sampled_from(["summary", None]))
        found: list[ReasoningPart] = [ReasoningPart(text=text, kind=kind, id=item_id) for text in texts]  # type: ignore[arg-type]
        seal = draw(_text if not texts else st.none() | _text)
        last = found.pop() if found else ReasoningPart(id=item_id)
        parts += [*found, msgspec.structs.replace(last, signature=seal)]
    parts += draw(st.lists(_texts | st.builds(RefusalPart, text=_text), max_size=2))
    for kind_ in draw(st.lists(st.sampled_from(["function", "custom"]), min_size=0 if parts else 1, max_size=2)):
        call_id = f"{kind_}_{len(parts)}"
        parts.append(ToolCallPart(id=call_id, name=draw(_name), arguments=draw(_text), kind=kind_, extra=draw(_extra)))  # type: ignore[arg-type]
    return Message("assistant", tuple(parts))


@st.composite
def _requests(draw: st.DrawFn) -> Request:
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message("system", (TextPart(text=draw(_text)),)))
    for role in draw(st.lists(st.sampled_from(["user", "assistant", "system"]), min_size=1, max_size=4)):
        if role == "assistant":
            if messages and messages[-1].role == "assistant":
                continue
            message = draw(_assistant())
            messages.append(message)
            for part in message.parts:
                if isinstance(part, ToolCallPart) and draw(st.booleans()):
                    content = draw(st.lists(_texts | _images, max_size=2))
                    if [type(entry) for entry in content] == [TextPart] and not content[0].extra:
                        content = [TextPart(text=draw(_text))]  # an empty string is no content at all
                    messages.append(Message("tool", (ToolResultPart(id=part.id, content=tuple(content)),)))
        elif role == "user" or messages:
            messages.append(Message(role, tuple(draw(st.lists(_texts | _images, min_size=1, max_size=3)))))  # type: ignore[arg-type]
    tools = [
        Tool(name, draw(st.none() | _text), SCHEMA, draw(st.none() | st.booleans()))
        for name in draw(st.sets(_name, max_size=2))
    ]
    schema = draw(st.none() | _schema)
    choices = ["auto", "none", "required", *(f"tool:{tool.name}" for tool in tools)]
    return Request(
        messages=tuple(messages),
        model="m",
        max_tokens=draw(st.none() | st.integers(1, 9)),
        temperature=draw(st.none() | st.floats(0, 2)),
        top_p=draw(st.none() | st.floats(0, 1)),
        tools=tuple(tools),
        tool_choice=draw(st.none() | st.sampled_from(choices)),
        parallel_tool_calls=draw(st.none() | st.booleans()),
        schema=schema,
        schema_name=draw(st.none() | st.just("pair")) if schema is not None else None,
        schema_strict=draw(st.none() | st.booleans()) if schema is not None else None,
        reasoning_effort=draw(st.none() | st.sampled_from(["low", "high"])),
        extra=draw(
            st.dictionaries(st.sampled_from(["store", "include", "metadata", "new"]), st.integers(), max_size=2)
        ),
    )


@given(_requests(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_request_survives_being_written_and_read(request: Request, stream: bool) -> None:
    request = replace(request, protocol="openai_responses")
    assert parse_request(build_request(request, model="m", stream=stream)) == (request, stream)
