"""Gemini's body to a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from multi_agent_scheduler.errors import InvalidRequest
from multi_agent_scheduler.request import (
    ImagePart,
    Message,
    Request,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from multi_agent_scheduler.wire.gemini import build_request, parse_request

MODEL = "gemini-3-pro-preview"


def parse(body: Any) -> Request:
    return parse_request(json.loads(json.dumps(body)))[0]


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
        protocol="gemini",
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
