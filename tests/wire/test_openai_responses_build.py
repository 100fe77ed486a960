"""The Responses API's request bodies, written."""

from __future__ import annotations

import base64
from typing import Any

import pytest

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
    build,
)
from multi_agent_scheduler.wire.openai_responses import build_request

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def made(prompt: Any = "Hi", **options: Any) -> dict[str, Any]:
    return build_request(build(prompt, options), model="gpt-test")


def turn(role: Any, *parts: Part) -> Request:
    return Request(messages=(Message(role, parts),))


def test_a_prompt_is_a_message_and_nothing_is_stored_by_our_choice() -> None:
    assert made() == {
        "model": "gpt-test",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        "stream": True,
    }


def test_options_have_the_names_of_the_api() -> None:
    body = made(
        system="Be brief.",
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        parallel_tool_calls=False,
        reasoning_effort="low",
        schema=SCHEMA,
        schema_name="pair",
        schema_strict=True,
        tools=[Tool("add", "adds", SCHEMA, True), Tool("now"), Tool("web", raw={"type": "web_search"})],
        tool_choice="tool:add",
        extra={"store": False, "reasoning": {"summary": "auto"}, "text": {"verbosity": "low"}},
    )
    assert body["instructions"] == "Be brief."
    assert len(body["input"]) == 1
    assert (body["max_output_tokens"], body["temperature"], body["top_p"]) == (9, 0.5, 0.9)
    assert body["parallel_tool_calls"] is False
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    form = {"type": "json_schema", "name": "pair", "schema": SCHEMA, "strict": True}
    assert body["text"] == {"format": form, "verbosity": "low"}
    assert body["tools"] == [
        {"type": "function", "name": "add", "description": "adds", "parameters": SCHEMA, "strict": True},
        {"type": "function", "name": "now", "parameters": {"type": "object", "properties": {}}},
        {"type": "web_search"},
    ]
    assert body["tool_choice"] == {"type": "function", "name": "add"}
    assert body["store"] is False


def test_extra_has_the_last_word() -> None:
    assert made(max_tokens=9, extra={"max_output_tokens": 20, "model": "other"})["max_output_tokens"] == 20
    assert made(extra={"model": "other"})["model"] == "other"


def test_a_schema_without_a_name_gets_one() -> None:
    assert made(schema=SCHEMA)["text"]["format"]["name"] == "answer"


def test_a_conversation_with_tools_becomes_items() -> None:
    request = Request(
        messages=(
            Message("system", (TextPart(text="Be brief."),)),
            Message("user", (TextPart(text="1+1?"), ImagePart(data=b"\x89PNG", media_type="image/png"))),
            Message(
                "assistant",
                (
                    ReasoningPart(text="Let me", kind="summary", id="rs_1"),
                    ReasoningPart(text="add", kind="summary", signature="seal", id="rs_1"),
                    TextPart(text="Adding."),
                    ToolCallPart(id="call_1", name="add", arguments='{"a":1}'),
                    ToolCallPart(id="call_2", name="sh", arguments="ls", kind="custom"),
                ),
            ),
            Message("tool", (ToolResultPart(id="call_1", content=(TextPart(text="2"),), is_error=True, name="add"),)),
            Message("tool", (ToolResultPart(id="call_2", content=(TextPart(text="a"), TextPart(text="b"))),)),
            Message("assistant", (RefusalPart(text="No."),)),
            Message("system", (TextPart(text="Be nice."),)),
        )
    )
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
    assert build_request(request, model="m", stream=False) == {
        "model": "m",
        "instructions": "Be brief.",
        "stream": False,
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "1+1?"}, {"type": "input_image", "image_url": url}],
            },
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "Let me"}, {"type": "summary_text", "text": "add"}],
                "encrypted_content": "seal",
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Adding."}]},
            {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a":1}'},
            {"type": "custom_tool_call", "call_id": "call_2", "name": "sh", "input": "ls"},
            {"type": "function_call_output", "call_id": "call_1", "output": "2"},
            {
                "type": "custom_tool_call_output",
                "call_id": "call_2",
                "output": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be nice."}]},
        ],
    }


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (Request(messages=(), stop=("END",)), "stop: the Responses API has no such field"),
        (Request(messages=(), seed=0), "seed: the Responses API has no such field"),
        (Request(messages=(), tool_choice="sometimes"), "tool_choice: must be auto"),
        (Request(messages=(Message("user", (TextPart(text="a"),), name="Ann"),)), r"messages\[0\]\.name: .* no names"),
        (turn("user", ImagePart()), r"messages\[0\]\.parts\[0\]: an image needs a url"),
        (turn("user", ImagePart(data=b"x")), r"messages\[0\]\.parts\[0\]\.media_type: "),
        (turn("assistant", ImagePart(url="https://e.org")), r"messages\[0\]\.parts\[0\]: a ImagePart cannot be part"),
        (turn("user", RefusalPart(text="no")), r"parts\[0\]: a RefusalPart cannot be part of a message of the user"),
        (turn("assistant", ToolCallPart(id="1", name="s", kind="server")), r"parts\[0\]\.kind: a call that ran"),
        (turn("assistant", ReasoningPart(redacted="x")), r"parts\[0\]\.redacted: "),
        (turn("user", UnknownPart(raw={}, protocol="anthropic")), r"parts\[0\]: a part of the anthropic protocol"),
        (
            turn("tool", ToolResultPart(id="1", content=(UnknownPart(raw={}, protocol="gemini"),))),
            r"messages\[0\]\.parts\[0\]\.content\[0\]: a part of the gemini protocol",
        ),
    ],
)
def test_what_the_api_cannot_express_is_named(request_: Request, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        build_request(request_, model="m")


def test_extra_fields_of_parts_and_tools_go_where_they_belong() -> None:
    request = Request(
        messages=(
            Message("user", (ImagePart(url="https://e.org/a.png", extra={"detail": "high"}),)),
            Message("assistant", (TextPart(text="a", extra={"message": {"id": "msg_1", "phase": "commentary"}}),)),
            Message("assistant", (ToolCallPart(id="1", name="f", extra={"id": "fc_1"}),)),
        ),
        tools=(Tool("f", parameters=SCHEMA, extra={"defer_loading": True}),),
    )
    body = build_request(request, model="m")
    image, text, call = body["input"]
    assert image["content"] == [{"type": "input_image", "image_url": "https://e.org/a.png", "detail": "high"}]
    assert (text["id"], text["phase"]) == ("msg_1", "commentary")
    assert text["content"] == [{"type": "output_text", "text": "a"}]
    assert call["id"] == "fc_1"
    assert body["tools"][0]["defer_loading"] is True
