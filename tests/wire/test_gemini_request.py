"""Requests to Gemini's body and back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from multi_agent_scheduler.wire.gemini import build_request, parse_request

MODEL = "gemini-3-pro-preview"
HELLO = Message("user", (TextPart(text="hello"),))


def build(*messages: Message, model: str = MODEL, **options: Any) -> dict[str, Any]:
    return build_request(Request(messages=messages or (HELLO,), **options), model=model)


def parse(body: Any) -> Request:
    return parse_request(json.loads(json.dumps(body)))[0]


# --- building ---------------------------------------------------------------------------------------------------------


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


# --- parsing ----------------------------------------------------------------------------------------------------------

CLIENT_BODY: dict[str, Any] = {
    "system_instruction": {"role": "user", "parts": [{"text": "be brief"}]},
    "contents": [
        {"role": "user", "parts": [{"text": "hi"}, {"inline_data": {"mime_type": "image/png", "data": "-_8"}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "s"}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": [1, 2]}}}]},
        {"parts": [{"text": "so?"}]},
    ],
    "tools": [
        {
            "function_declarations": [
                {
                    "name": "f",
                    "description": "d",
                    "parameters": {
                        "type": "OBJECT",
                        "properties": {
                            "type": {"type": "STRING", "nullable": True, "enum": ["a"], "max_length": "5"},
                            "l": {"type": "ARRAY", "items": {"type": "INTEGER"}},
                            "u": {"any_of": [{"type": "STRING"}, {"type": "NUMBER"}], "nullable": True},
                        },
                        "required": ["type"],
                    },
                }
            ]
        },
        {"google_search": {}},
    ],
    "generation_config": {
        "max_output_tokens": 5,
        "topK": 40,
        "stop_sequences": ["x"],
        "response_mime_type": "application/json",
        "response_schema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
        "thinking_config": {"thinking_budget": -1},
    },
    "tool_config": {"function_calling_config": {"mode": "VALIDATED"}},
    "safety_settings": [{"category": "C", "threshold": "BLOCK_NONE"}],
    "cached_content": "cachedContents/x",
}


def test_a_body_in_snake_case() -> None:
    request, stream = parse_request(CLIENT_BODY, model="m", stream=False)
    assert not stream
    assert request == Request(
        model="m",
        messages=(
            Message("system", (TextPart(text="be brief"),)),
            Message("user", (TextPart(text="hi"), ImagePart(data=b"\xfb\xff", media_type="image/png"))),
            Message("assistant", (ToolCallPart(id="call_0", name="f", arguments='{"x":1}', signature="s"),)),
            Message("tool", (ToolResultPart(id="call_0", name="f", content=(TextPart(text='{"result":[1,2]}'),)),)),
            Message("user", (TextPart(text="so?"),)),
        ),
        tools=(
            Tool(
                name="f",
                description="d",
                parameters={
                    "type": "object",
                    "properties": {
                        "type": {"type": ["string", "null"], "enum": ["a", None], "maxLength": 5},
                        "l": {"type": "array", "items": {"type": "integer"}},
                        "u": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]},
                    },
                    "required": ["type"],
                },
            ),
            Tool(name="googleSearch", raw={"googleSearch": {}}),
        ),
        max_tokens=5,
        stop=("x",),
        schema={"type": "object", "properties": {"a": {"type": "string"}}},
        extra={
            "generationConfig": {"topK": 40, "thinkingConfig": {"thinkingBudget": -1}},
            "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}},
            "safetySettings": [{"category": "C", "threshold": "BLOCK_NONE"}],
            "cachedContent": "cachedContents/x",
        },
    )


def test_results_without_ids_go_to_the_calls_of_their_name_in_order() -> None:
    calls = [{"functionCall": {"name": name, "args": {"n": n}}} for n, name in enumerate(["f", "g", "f"])]
    answers = [{"functionResponse": {"name": name, "response": {"output": name}}} for name in ["g", "f", "f", "h"]]
    given_id = [{"functionCall": {"name": "f", "id": "call_1"}}, {"functionResponse": {"name": "f", "id": "call_1"}}]
    request = parse(
        {
            "contents": [
                {"role": "model", "parts": calls},
                {"role": "user", "parts": answers},
                {"role": "model", "parts": given_id[:1]},
                {"role": "function", "parts": given_id[1:]},
            ]
        }
    )
    ids = [[part.id for part in message.parts if hasattr(part, "id")] for message in request.messages]
    assert ids == [["call_0", "call_2", "call_3"], ["call_2", "call_0", "call_3", "call_4"], ["call_1"], ["call_1"]]
    assert [message.role for message in request.messages] == ["assistant", "tool", "assistant", "tool"]


@pytest.mark.parametrize(
    "part",
    [
        {"text": "x"},
        {"text": ""},
        {"text": "x", "thoughtSignature": "s"},
        {"text": "", "thoughtSignature": "s"},
        {"text": "x", "thought": True},
        {"text": "x", "thought": True, "thoughtSignature": "s"},
        {"text": "x", "partMetadata": {"k": 1}},
        {"functionCall": {"id": "i", "name": "f", "args": {"b": [1, {"c": None}], "a": "é"}}, "thoughtSignature": "s"},
        {"functionCall": {"id": "i", "name": "f", "args": {}, "newer": 1}},
        {"functionResponse": {"id": "i", "name": "f", "response": {"output": "x"}}},
        {"functionResponse": {"id": "i", "name": "f", "response": {"output": {"x": 1}}}},
        {"functionResponse": {"id": "i", "name": "f", "response": {"output": "x", "more": 1}}},
        {"functionResponse": {"id": "i", "name": "f", "response": {"error": "x"}}},
        {"functionResponse": {"id": "i", "name": "f", "response": {"error": {"code": 5}}}},
        {"functionResponse": {"id": "i", "name": "f", "response": {}}},
        {"functionResponse": {"id": "i", "name": "f", "response": {"result": 1}, "scheduling": "SILENT"}},
        {
            "functionResponse": {
                "id": "i",
                "name": "f",
                "response": {"a": 1},
                "parts": [
                    {"inlineData": {"mimeType": "image/png", "data": "aGk=", "displayName": "n"}},
                    {"inlineData": {"mimeType": "application/pdf", "data": "aGk="}},
                    {"new": 1},
                ],
            }
        },
        {"inlineData": {"mimeType": "image/png", "data": "aGk="}, "mediaResolution": {"level": "LOW"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "aGk="}},
        {"fileData": {"fileUri": "gs://x"}},
        {"fileData": {"fileUri": "gs://x", "mimeType": "image/png"}},
        {"fileData": {"fileUri": "gs://x", "mimeType": "video/mp4"}, "videoMetadata": {"fps": 1}},
        {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s"},
        {"toolCall": {"toolType": "T", "args": {"snake_case": 1}}},
    ],
)
def test_a_part_goes_back_as_it_came(part: Any) -> None:
    body = {"contents": [{"role": "model", "parts": [part]}]}
    assert build_request(parse(body), model=MODEL) == body


@pytest.mark.parametrize(
    "fields",
    [
        {"generationConfig": {"temperature": 1, "candidateCount": 2, "responseModalities": ["TEXT"]}},
        {"generationConfig": {"responseMimeType": "application/json"}},
        {"generationConfig": {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["a"]}}},
        {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}}},
        {"generationConfig": {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 77}}},
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGH"}}},
        {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f", "g"]}}},
        {"toolConfig": {"functionCallingConfig": {"mode": "AUTO"}, "retrievalConfig": {"languageCode": "en"}}},
        {"toolConfig": {"functionCallingConfig": {"mode": "AUTO", "streamFunctionCallArguments": True}}},
        {
            "tools": [
                {"functionDeclarations": [{"name": "f", "behavior": "BLOCKING", "parameters": {"type": "OBJECT"}}]}
            ]
        },
        {"tools": [{"codeExecution": {}}, {"functionDeclarations": [{"name": "f"}]}, {"urlContext": {}}]},
        {"labels": {"my_label": "x"}, "safetySettings": []},
    ],
)
def test_fields_go_back_as_they_came(fields: Any) -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "x"}]}], **fields}
    assert build_request(parse(body), model=MODEL) == body


def content(*parts: Any, role: Any = "user") -> dict[str, Any]:
    return {"contents": [{"role": role, "parts": list(parts)}]}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([], "body must be an object, not a list"),
        ({}, "contents must have at least one"),
        ({"contents": {}}, "contents must be a list, not an object"),
        ({"contents": ["x"]}, r"contents\[0\] must be an object, not a string"),
        (content(role="robot"), r"contents\[0\]\.role"),
        (content(role=7), r"contents\[0\]\.role"),
        ({"contents": [{"parts": "x"}]}, r"contents\[0\]\.parts must be a list"),
        (content("x"), r"contents\[0\]\.parts\[0\] must be an object"),
        (content({"text": 1}), r"contents\[0\]\.parts\[0\]\.text must be a string, not a number"),
        (content({"text": "x", "thoughtSignature": 1}), r"parts\[0\]\.thoughtSignature"),
        (content({"functionCall": 1}), r"parts\[0\]\.functionCall must be an object"),
        (content({"functionCall": {}}), r"functionCall\.name"),
        (content({"functionCall": {"name": "f", "args": []}}), r"functionCall\.args must be an object"),
        (content({"functionCall": {"name": "f", "id": 1}}), r"functionCall\.id"),
        (content({"functionResponse": {"response": {}}}), r"functionResponse\.name"),
        (content({"functionResponse": {"name": "f", "response": "x"}}), r"functionResponse\.response"),
        (content({"functionResponse": {"name": "f", "parts": 1}}), r"functionResponse\.parts must be a list"),
        (content({"inlineData": {"data": "aGk="}}), r"inlineData must have a mimeType"),
        (content({"inlineData": {"mimeType": "image/png", "data": "?"}}), r"inlineData\.data is not base64"),
        (content({"fileData": {}}), r"fileData\.fileUri"),
        ({**content({"text": "x"}), "systemInstruction": 1}, "systemInstruction must be an object"),
        (
            {**content({"text": "x"}), "systemInstruction": {"parts": [{"fileData": {"fileUri": "x"}}]}},
            r"systemInstruction\.parts\[0\]",
        ),
        ({**content({"text": "x"}), "tools": {}}, "tools must be a list"),
        ({**content({"text": "x"}), "tools": [1]}, r"tools\[0\] must be an object"),
        (
            {**content({"text": "x"}), "tools": [{"functionDeclarations": [{}]}]},
            r"tools\[0\]\.functionDeclarations\[0\]\.name",
        ),
        (
            {**content({"text": "x"}), "tools": [{"functionDeclarations": [{"name": "f", "parameters": 1}]}]},
            r"functionDeclarations\[0\]\.parameters",
        ),
        ({**content({"text": "x"}), "generationConfig": []}, "generationConfig must be an object"),
        (
            {**content({"text": "x"}), "generationConfig": {"maxOutputTokens": "5"}},
            r"generationConfig\.maxOutputTokens must be a number, not a string",
        ),
        (
            {**content({"text": "x"}), "generationConfig": {"seed": 1.5}},
            r"generationConfig\.seed must be a whole number",
        ),
        (
            {**content({"text": "x"}), "generationConfig": {"temperature": True}},
            r"generationConfig\.temperature must be a number, not a boolean",
        ),
        (
            {**content({"text": "x"}), "generationConfig": {"stopSequences": [1]}},
            r"generationConfig\.stopSequences\[0\]",
        ),
        (
            {
                **content({"text": "x"}),
                "generationConfig": {"responseMimeType": "application/json", "responseSchema": "x"},
            },
            r"generationConfig\.responseSchema",
        ),
        ({**content({"text": "x"}), "toolConfig": {"functionCallingConfig": 1}}, r"toolConfig\.functionCallingConfig"),
        ({**content({"text": "x"}), "model": 1}, "model must be a string"),
    ],
)
def test_what_cannot_be_read_is_named(body: Any, path: str) -> None:
    with pytest.raises(InvalidRequest, match=path):
        parse_request(body)


def test_a_model_in_the_body_and_one_in_the_url() -> None:
    body = {"model": "models/gemini-x", **content({"text": "x"})}
    assert parse_request(body)[0].model == "gemini-x"
    assert parse_request(body, model="gemini-y")[0].model == "gemini-y"
    assert parse_request(body)[1] is True


# --- round trips ------------------------------------------------------------------------------------------------------

WORD = st.text(min_size=1, max_size=4)
SIGNATURE = st.none() | st.just("c2ln")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
OBJECT = st.dictionaries(st.text(max_size=3) | st.sampled_from(["output", "error"]), JSON, max_size=2)
COMPACT = OBJECT.map(lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False))
IMAGE = st.builds(
    ImagePart, data=st.binary(min_size=1, max_size=4), media_type=st.sampled_from(["image/png", "image/webp"])
) | st.builds(ImagePart, url=st.just("https://x/y.png"), media_type=st.none() | st.just("image/png"))
OWN = st.just(UnknownPart(raw={"executableCode": {"code": "1"}}, protocol="gemini"))
TEXT = st.builds(TextPart, text=st.text(max_size=5))
CALL = st.builds(ToolCallPart, id=WORD, name=WORD, arguments=COMPACT, signature=SIGNATURE)
THOUGHT = st.builds(ReasoningPart, text=WORD, signature=SIGNATURE) | st.just(ReasoningPart(signature="c2ln"))
RESULT = st.builds(
    ToolResultPart,
    id=WORD,
    name=WORD,
    content=st.builds(
        lambda text, images: ((TextPart(text=text),) if text else ()) + tuple(images),
        st.text(max_size=5) | COMPACT,
        st.lists(IMAGE | OWN, max_size=2),
    ),
    is_error=st.booleans(),
)


def turn(role: Any, parts: Any, size: int = 1) -> Any:
    return st.builds(Message, st.just(role), st.lists(parts, min_size=size, max_size=3).map(tuple))


@st.composite
def conversations(draw: Any) -> tuple[Message, ...]:
    user, assistant = turn("user", TEXT | IMAGE | OWN), turn("assistant", TEXT | THOUGHT | CALL)
    turns = draw(st.lists(user | assistant | turn("tool", RESULT), min_size=1))
    apart: list[Message] = []  # results of tools that follow each other are one turn for Gemini
    for message in turns:
        if not (apart and apart[-1].role == message.role == "tool"):
            apart.append(message)
    ids: set[str] = set()
    kept = []
    for message in apart:  # an id names one call
        parts: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolCallPart | ToolResultPart):
                if part.id in ids:
                    continue
                ids.add(part.id)
            parts.append(part)
        kept.append(Message(message.role, tuple(parts) or (TextPart(text="x"),)))
    system = draw(st.none() | turn("system", TEXT))
    roles = [Message("user", m.parts) if m.role == "tool" and isinstance(m.parts[0], TextPart) else m for m in kept]
    return (system, *roles) if system else tuple(roles)


REQUESTS = st.builds(
    Request,
    messages=conversations(),
    max_tokens=st.none() | st.integers(1, 9),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    stop=st.lists(WORD, max_size=2).map(tuple),
    seed=st.none() | st.integers(),
    tools=st.lists(
        st.builds(Tool, name=WORD, description=st.none() | WORD, parameters=st.none() | OBJECT)
        | st.just(Tool(name="googleSearch", raw={"googleSearch": {}})),
        max_size=3,
    ).map(tuple),
    tool_choice=st.sampled_from([None, "auto", "none", "required", "tool:f"]),
    schema=st.none() | OBJECT,
    reasoning_effort=st.sampled_from([None, "none", "low", "medium", "high"]),
    extra=st.sampled_from([{}, {"safetySettings": [1]}, {"generationConfig": {"topK": 3}}, {"toolConfig": {"a": 1}}]),
)


@settings(max_examples=150, deadline=None)
@given(REQUESTS, st.sampled_from([MODEL, "gemini-2.5-flash"]))
def test_a_request_comes_back(request: Request, model: str) -> None:
    assert parse(build_request(request, model=model)) == request


FIELDS = [
    *("contents", "parts", "role", "text", "functionCall", "name", "args", "functionResponse", "response"),
    *(
        "tools",
        "functionDeclarations",
        "parameters",
        "generationConfig",
        "inlineData",
        "mimeType",
        "data",
        "toolConfig",
    ),
]
BODIES = st.recursive(
    JSON,
    lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner | st.lists(inner, max_size=2), max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(BODIES)
def test_any_body_is_read_or_refused(body: Any) -> None:
    if isinstance(body, dict):
        body = {"contents": [{"parts": [{"text": "x"}]}], **body}
    try:
        request, _ = parse_request(body)
    except InvalidRequest:
        return
    assert request.messages
