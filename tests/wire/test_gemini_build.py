"""Requests to Gemini's body."""

from __future__ import annotations

import base64
import json
from typing import Any

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
)
from multi_agent_scheduler.wire.gemini import build_request, parse_request

MODEL = "gemini-3-pro-preview"
HELLO = Message("user", (TextPart(text="hello"),))


def build(*messages: Message, model: str = MODEL, **options: Any) -> dict[str, Any]:
    return build_request(Request(messages=messages or (HELLO,), **options), model=model)


def parse(body: Any) -> Request:
    return parse_request(json.loads(json.dumps(body)))[0]


def test_a_plain_request() -> None:
    assert build() == {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


def test_every_option_has_its_place() -> None:
    body = build(
        Message("system", (TextPart(text="be brief"),)),
        HELLO,
        max_tokens=10,
        temperature=0.0,
        top_p=0.5,
        stop=("END",),
        seed=7,
        schema={"type": "object"},
        schema_name="s",
        schema_strict=True,
        reasoning_effort="low",
        tool_choice="required",
    )
    assert body == {
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        "generationConfig": {
            "maxOutputTokens": 10,
            "temperature": 0.0,
            "topP": 0.5,
            "stopSequences": ["END"],
            "seed": 7,
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
            "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True},
        },
    }


def test_a_conversation_with_tools() -> None:
    body = build(
        HELLO,
        Message(
            "assistant",
            (
                ReasoningPart(text="I think", signature="s0"),
                TextPart(text="wait"),
                ReasoningPart(signature="s1"),
                ToolCallPart(id="a", name="f", arguments='{"x": 1}', signature="s2"),
                ToolCallPart(id="b", name="g"),
            ),
        ),
        Message("tool", (ToolResultPart(id="b", content=(TextPart(text="sunny"),)),)),
        Message("tool", (ToolResultPart(id="a", content=(TextPart(text='{"t":20}'),), is_error=False),)),
        Message("user", (TextPart(text="and?"),)),
    )
    assert body["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "I think", "thought": True, "thoughtSignature": "s0"},
                {"text": "wait"},
                {"text": "", "thoughtSignature": "s1"},
                {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}, "thoughtSignature": "s2"},
                {"functionCall": {"id": "b", "name": "g", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "b", "name": "g", "response": {"output": "sunny"}}},
                {"functionResponse": {"id": "a", "name": "f", "response": {"t": 20}}},
            ],
        },
        {"role": "user", "parts": [{"text": "and?"}]},
    ]


@pytest.mark.parametrize(
    ("text", "response"),
    [
        ('{"a":1}', {"a": 1}),
        ('{"a": 1}', {"output": '{"a": 1}'}),
        ('{"output":"x"}', {"output": '{"output":"x"}'}),
        ("{cut", {"output": "{cut"}),
        ("[1]", {"output": "[1]"}),
        ("", {"output": ""}),
    ],
)
def test_results_that_look_like_json(text: str, response: Any) -> None:
    message = Message("tool", (ToolResultPart(id="a", name="f", content=(TextPart(text=text),)),))
    body = build(message)
    assert body["contents"][0]["parts"][0]["functionResponse"]["response"] == response
    assert "".join(part.text for part in parse(body).messages[0].parts[0].content) == text


def test_a_result_beside_a_text_is_a_turn_of_the_user() -> None:
    answer = {"functionResponse": {"id": "a", "name": "f", "response": {"output": "x"}}}
    body = {"contents": [{"role": "user", "parts": [answer, {"text": "and?"}]}]}
    assert parse(body).messages[0].role == "user"
    assert build_request(parse(body), model=MODEL) == body


def test_a_failed_tool_and_one_that_answers_with_an_image() -> None:
    image = ImagePart(data=b"\x89PNG", media_type="image/png")
    (content,) = build(
        Message(
            "tool",
            (
                ToolResultPart(id="a", name="f", content=(TextPart(text="no such city"),), is_error=True),
                ToolResultPart(id="b", name="g", content=(TextPart(text="see"), image)),
            ),
        )
    )["contents"]
    failed, shown = (part["functionResponse"] for part in content["parts"])
    assert failed["response"] == {"error": "no such city"}
    assert shown["response"] == {"output": "see"}
    assert shown["parts"] == [{"inlineData": {"mimeType": "image/png", "data": base64.b64encode(b"\x89PNG").decode()}}]


@pytest.mark.parametrize(
    ("image", "part"),
    [
        (ImagePart(data=b"hi", media_type="image/gif"), {"inlineData": {"mimeType": "image/gif", "data": "aGk="}}),
        (ImagePart(url="data:image/png;base64,aGk="), {"inlineData": {"mimeType": "image/png", "data": "aGk="}}),
        (
            ImagePart(url="gs://b/x.png", media_type="image/png"),
            {"fileData": {"fileUri": "gs://b/x.png", "mimeType": "image/png"}},
        ),
        (ImagePart(url="https://x/y"), {"fileData": {"fileUri": "https://x/y"}}),
    ],
)
def test_images(image: ImagePart, part: Any) -> None:
    assert build(Message("user", (image,)))["contents"][0]["parts"] == [part]


def test_tools_and_googles_own_tools_keep_their_order() -> None:
    search = Tool(name="googleSearch", raw={"googleSearch": {}})
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "number"}}}
    body = build(tools=(Tool(name="f", description="does f", parameters=schema, strict=True), Tool(name="g"), search))
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f", "description": "does f", "parametersJsonSchema": schema},
                {"name": "g"},
            ]
        },
        {"googleSearch": {}},
    ]


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("tool:f", {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_tool_choices(choice: str, config: Any) -> None:
    body = build(tool_choice=choice)
    assert body["toolConfig"] == {"functionCallingConfig": config}
    assert parse(body).tool_choice == choice


@pytest.mark.parametrize(
    ("effort", "model", "config"),
    [
        ("high", "gemini-3-flash-preview", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("minimal", "models/gemini-3.1-pro", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("medium", "gemini-2.5-flash", {"thinkingBudget": 8192, "includeThoughts": True}),
        ("low", "gemini-2.5-pro", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("none", "gemini-2.5-flash", {"thinkingBudget": 0}),
        ("low", "gemini-flash-latest", {"thinkingLevel": "LOW", "includeThoughts": True}),
    ],
)
def test_reasoning_effort(effort: str, model: str, config: Any) -> None:
    body = build(model=model, reasoning_effort=effort)
    assert body["generationConfig"]["thinkingConfig"] == config
    assert parse(body).reasoning_effort == effort


def test_extra_goes_over_the_body_key_by_key() -> None:
    body = build(
        max_tokens=5,
        reasoning_effort="low",
        extra={
            "generationConfig": {"topK": 40, "maxOutputTokens": 9, "thinkingConfig": {"includeThoughts": False}},
            "safetySettings": [],
        },
    )
    assert body["safetySettings"] == []
    assert body["generationConfig"] == {
        "topK": 40,
        "maxOutputTokens": 9,
        "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": False},
    }


def test_extra_of_a_part_goes_into_the_part() -> None:
    parts = (
        TextPart(text="x", extra={"videoMetadata": {"fps": 1}}),
        ToolCallPart(id="a", name="f", extra={"functionCall": {"mood": 1}}),
    )
    assert build(Message("assistant", parts))["contents"][0]["parts"] == [
        {"text": "x", "videoMetadata": {"fps": 1}},
        {"functionCall": {"id": "a", "name": "f", "args": {}, "mood": 1}},
    ]


def test_a_refusal_of_an_earlier_turn_is_text() -> None:
    assert build(Message("assistant", (RefusalPart(text="no"),)))["contents"][0]["parts"] == [{"text": "no"}]


SYSTEM = Message("system", (TextPart(text="s"),))


@pytest.mark.parametrize(
    ("messages", "options", "field"),
    [
        ((HELLO, SYSTEM), {}, r"messages\[1\]\.role"),
        ((Message("system", (ImagePart(url="x"),)), HELLO), {}, r"messages\[0\]\.parts\[0\].*not image"),
        ((Message("user", (TextPart(text="x"),), name="bob"),), {}, r"messages\[0\]\.name"),
        ((Message("user", (ImagePart(data=b"x"),)),), {}, r"messages\[0\]\.parts\[0\]\.media_type"),
        ((Message("user", (ImagePart(),)),), {}, r"messages\[0\]\.parts\[0\]: an image needs"),
        ((Message("user", (ImagePart(url="data:,x"),)),), {}, r"parts\[0\]\.url"),
        ((Message("assistant", (ToolCallPart(id="a", name="f", arguments="{cut"),)),), {}, r"parts\[0\]\.arguments"),
        ((Message("assistant", (ToolCallPart(id="a", name="f", arguments="[]"),)),), {}, r"parts\[0\]\.arguments"),
        ((Message("assistant", (ToolCallPart(id="a", name="f", kind="custom"),)),), {}, r"parts\[0\]\.kind"),
        ((Message("assistant", (ReasoningPart(redacted="x"),)),), {}, r"parts\[0\]\.redacted"),
        ((Message("assistant", (UnknownPart(raw={}, protocol="anthropic"),)),), {}, "'anthropic'"),
        ((Message("tool", (ToolResultPart(id="a"),)),), {}, r"messages\[0\]\.parts\[0\]\.name"),
        (
            (Message("tool", (ToolResultPart(id="a", name="f", content=(UnknownPart(raw={}, protocol="x"),)),)),),
            {},
            r"parts\[0\]\.content\[0\]",
        ),
        ((HELLO,), {"parallel_tool_calls": False}, "parallel_tool_calls"),
        ((HELLO,), {"tool_choice": "maybe"}, "tool_choice"),
        ((HELLO,), {"tool_choice": "tool:"}, "tool_choice"),
        ((HELLO,), {"reasoning_effort": "very"}, "reasoning_effort"),
    ],
)
def test_what_gemini_has_no_form_for_is_named(messages: Any, options: Any, field: str) -> None:
    with pytest.raises(InvalidRequest, match=field):
        build(*messages, **options)
