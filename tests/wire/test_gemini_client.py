"""Google's own client against what we write, where it is installed (google-genai is no dependency of the tests)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

genai = pytest.importorskip("google.genai")
httpx = pytest.importorskip("httpx")

from google.genai import errors, types  # noqa: E402 - only where the client is installed

from multi_agent_scheduler.errors import ErrorInfo  # noqa: E402
from multi_agent_scheduler.records import (  # noqa: E402
    Citation,
    Completed,
    Failed,
    Reasoning,
    Record,
    Text,
    ToolCall,
    Usage,
)
from multi_agent_scheduler.wire.gemini import Decoder, Encoder, build_request, parse_request  # noqa: E402
from tests.wire.gemini_answers import calls_of, expected_calls, text_of  # noqa: E402
from tests.wire.replay import Recording, decode, recordings  # noqa: E402

RECORDINGS = recordings("generatecontent")
every = pytest.mark.parametrize("recording", RECORDINGS, ids=str)


def client(answer: bytes, kind: str, seen: Callable[[Any], None] = lambda request: None) -> Any:
    def handle(request: Any) -> Any:
        seen(request)
        return httpx.Response(200, content=answer, headers={"content-type": kind})

    options = types.HttpOptions(httpx_client=httpx.Client(transport=httpx.MockTransport(handle)))
    return genai.Client(api_key="test", http_options=options)


def chunks_of(records: list[Record]) -> list[Any]:
    encoder = Encoder(id="r1", model="gemini-test", created=1_700_000_000)
    body = b"".join(encoder.encode([record]) for record in records)
    stream = client(body, "text/event-stream").models.generate_content_stream(model="gemini-test", contents="hi")
    return list(stream)


def parts_of(chunks: list[Any]) -> list[Any]:
    contents = [chunk.candidates[0].content for chunk in chunks if chunk.candidates]
    return [part for content in contents if content is not None for part in content.parts or ()]


@every
def test_googles_client_reads_our_stream(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    chunks = chunks_of(records)
    parts = parts_of(chunks)
    assert "".join(p.text for p in parts if p.text and not p.thought) == recording.expected["text"]
    assert "".join(p.text for p in parts if p.text and p.thought) == recording.expected["thought"]
    calls = [(p.function_call.name, p.function_call.args) for p in parts if p.function_call]
    assert calls == expected_calls(recording)
    assert chunks[-1].candidates[0].finish_reason == recording.expected["finish_reason"]
    usage = chunks[-1].usage_metadata
    assert usage.prompt_token_count == recording.expected["usage"]["promptTokenCount"]
    assert usage.total_token_count == recording.expected["usage"]["totalTokenCount"]
    assert {c.response_id for c in chunks} == {"r1"}
    assert {c.model_version for c in chunks} == {"gemini-test"}


@every
def test_googles_client_reads_our_whole_answer(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    body = json.dumps(Encoder(id="r1", model="m").body(records)).encode()
    answer = client(body, "application/json").models.generate_content(model="m", contents="hi")
    parts = answer.candidates[0].content.parts
    assert "".join(p.text for p in parts if p.text and not p.thought) == text_of(records)
    assert [(c.name, c.args) for c in answer.function_calls or ()] == calls_of(records)
    assert answer.usage_metadata.total_token_count == recording.expected["usage"]["totalTokenCount"]


def test_another_providers_stream_in_googles_client() -> None:
    chunks = chunks_of(
        [
            Reasoning(text="hm", signature="c2lnbmVk"),
            Text(text="It is ", part=1),
            Citation(url="https://a", title="A", raw={"type": "url_citation"}),
            ToolCall(index=0, id="toolu_1", name="f", part=2),
            ToolCall(index=0, arguments='{"x": [1, ', part=2),
            ToolCall(index=0, arguments="2]}", part=2),
            Usage(input_tokens=3, output_tokens=5, reasoning_tokens=1, raw={"input_tokens": 3}),
            Completed("tool_calls", raw_stop_reason="tool_use"),
        ]
    )
    parts = parts_of(chunks)
    assert [(p.text, p.thought, p.thought_signature) for p in parts[:2]] == [
        ("hm", True, b"signed"),
        ("It is ", None, None),
    ]
    assert (parts[2].function_call.id, parts[2].function_call.args) == ("toolu_1", {"x": [1, 2]})
    grounding = next(c.candidates[0].grounding_metadata for c in chunks if c.candidates[0].grounding_metadata)
    assert grounding.grounding_chunks[0].web.uri == "https://a"
    assert chunks[-1].candidates[0].finish_reason == "STOP"
    assert chunks[-1].usage_metadata.candidates_token_count == 4


def test_a_failure_in_mid_stream_is_raised_by_googles_client() -> None:
    failure = Failed(ErrorInfo("overloaded_error", "the provider is overloaded", status=503))
    with pytest.raises(errors.ServerError, match="503 UNAVAILABLE"):
        chunks_of([Text(text="a"), failure])


def test_a_blocked_prompt_in_googles_client() -> None:
    (chunk,) = chunks_of([Completed("content_filter", raw_stop_reason="PROHIBITED_CONTENT")])
    assert chunk.prompt_feedback.block_reason == "PROHIBITED_CONTENT"


def camel(value: Any) -> Any:
    if isinstance(value, list):
        return [camel(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {re.sub("_([a-z])", lambda m: m[1].upper(), key): camel(inner) for key, inner in value.items()}


def test_what_googles_client_sends_is_read_and_built_again() -> None:
    sent: list[Any] = []
    fake = client(b"{}", "application/json", lambda request: sent.append(json.loads(request.content)))
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    fake.models.generate_content(
        model="gemini-3-pro-preview",
        contents=[
            types.Content(
                role="user",
                parts=[
                    types.Part.from_text(text="hi"),
                    types.Part.from_bytes(data=b"\x89\xff\xfe", mime_type="image/png"),
                ],
            ),
            types.Content(
                role="model",
                parts=[
                    types.Part(text="well", thought=True),
                    types.Part(
                        function_call=types.FunctionCall(id="1", name="f", args={"x": 1}), thought_signature=b"sig"
                    ),
                ],
            ),
            types.Content(
                role="user",
                parts=[
                    types.Part(function_response=types.FunctionResponse(id="1", name="f", response={"result": "ok"}))
                ],
            ),
        ],
        config=types.GenerateContentConfig(
            system_instruction="be brief",
            temperature=0.5,
            max_output_tokens=7,
            top_k=4,
            stop_sequences=["x"],
            seed=3,
            response_mime_type="application/json",
            response_json_schema=schema,
            safety_settings=[types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE")],
            tools=[
                types.Tool(
                    function_declarations=[types.FunctionDeclaration(name="f", parameters_json_schema=schema)],
                ),
                types.Tool(google_search=types.GoogleSearch()),
            ],
            tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="AUTO")),
            thinking_config=types.ThinkingConfig(thinking_level="LOW", include_thoughts=True),
        ),
    )
    body = camel(sent[0])  # the client mixes the two spellings
    request, _ = parse_request(sent[0], model="gemini-3-pro-preview", stream=False)
    assert (request.reasoning_effort, request.schema, request.tool_choice) == ("low", schema, "auto")
    again = build_request(request, model="gemini-3-pro-preview")
    body["systemInstruction"].pop("role", None)  # the client says "user", which means nothing there
    inline = body["contents"][0]["parts"][1]["inlineData"]
    inline["data"] = inline["data"].replace("-", "+").replace("_", "/")  # both alphabets are allowed
    assert again == body
