"""Chat completions over HTTP, as the official client reads them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.records import Completed, Failed, Interrupted, Reasoning, Reset, Text, ToolCall, Usage
from multi_agent_scheduler.request import ImagePart, TextPart, ToolCallPart, ToolResultPart
from multi_agent_scheduler.testing import ScriptedAgent
from tests.server.served import Served, serving

HI: Any = [{"role": "user", "content": "Hi"}]
USAGE = Usage(input_tokens=5, output_tokens=2, reasoning_tokens=1)


def client(served: Served) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="any", base_url=f"{served.url}/v1", max_retries=0)


async def test_a_completion_streams() -> None:
    agent = ScriptedAgent(Reasoning("hm"), "Hel", "lo", USAGE, Completed("stop"))
    async with serving({"a": agent}) as served, client(served) as sdk:
        stream = await sdk.chat.completions.create(
            model="a", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 7
    assert {chunk.id[:9] for chunk in chunks} == {"chatcmpl-"} and {chunk.model for chunk in chunks} == {"a"}
    assert "hm" in [getattr(chunk.choices[0].delta, "reasoning_content", None) for chunk in chunks if chunk.choices]


async def test_usage_is_streamed_only_where_it_is_wanted() -> None:
    async with serving({"a": ScriptedAgent("x", USAGE)}) as served, client(served) as sdk:
        chunks = [chunk async for chunk in await sdk.chat.completions.create(model="a", messages=HI, stream=True)]
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_completion_in_one_piece() -> None:
    agent = ScriptedAgent("Hello", USAGE, Completed("length"))
    async with serving({"a": agent}) as served, client(served) as sdk:
        answer = await sdk.chat.completions.create(model="a", messages=HI, max_tokens=2, temperature=0.5)
        assert answer._request_id
    assert answer.choices[0].message.content == "Hello" and answer.choices[0].finish_reason == "length"
    assert answer.usage is not None and answer.usage.prompt_tokens == 5
    (request,) = agent.requests
    assert request.max_tokens == 2 and request.temperature == 0.5 and request.model is None


async def test_the_agent_gets_the_model_behind_the_slash() -> None:
    agent = ScriptedAgent("x")
    async with serving({"a": agent}) as served, client(served) as sdk:
        answer = await sdk.chat.completions.create(model="a/vendor/big-1", messages=HI)
    assert answer.model == "a/vendor/big-1"
    assert agent.requests[0].model == "vendor/big-1"


async def test_tools_and_images_go_in_and_calls_come_out() -> None:
    agent = ScriptedAgent(
        ToolCall(0, id="c1", name="look", arguments='{"at":'),
        ToolCall(0, arguments='"x"}'),
        Completed("tool_calls"),
    )
    image = "data:image/png;base64," + base64.b64encode(b"png").decode()
    messages: Any = [
        {"role": "user", "content": [
            {"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": image}}]},
        {"role": "assistant", "tool_calls": [
            {"id": "c0", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c0", "content": "seen"},
    ]  # fmt: skip
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    async with serving({"a": agent}) as served, client(served) as sdk:
        whole = await sdk.chat.completions.create(model="a", messages=messages, tools=[tool])
        async with sdk.chat.completions.stream(model="a", messages=messages, tools=[tool]) as stream:
            final = await stream.get_final_completion()
    for answer in (whole, final):
        (call,) = answer.choices[0].message.tool_calls or ()
        assert call.id == "c1" and call.type == "function" and call.function.arguments == '{"at":"x"}'
        assert answer.choices[0].finish_reason == "tool_calls"
    request = agent.requests[0]
    assert request.messages[0].parts == (TextPart(text="See"), ImagePart(data=b"png", media_type="image/png"))
    assert request.messages[1].parts == (ToolCallPart(id="c0", name="look"),)
    assert isinstance(request.messages[2].parts[0], ToolResultPart)
    assert request.tools[0].name == "look"


async def test_an_unknown_model_is_not_found() -> None:
    async with serving({"a": ScriptedAgent("x")}) as served, client(served) as sdk:
        with pytest.raises(openai.NotFoundError) as caught:
            await sdk.chat.completions.create(model="b", messages=HI, stream=True)
    assert caught.value.code == "model_not_found" and caught.value.param == "model"
    assert "there is no model 'b'" in caught.value.message


@pytest.mark.parametrize(
    ("info", "kind", "code"),
    [
        (ErrorInfo("rate_limit_error", "slow", status=429, retry_after=7.2), openai.RateLimitError,
         "rate_limit_exceeded"),
        (ErrorInfo("invalid_request_error", "bad", status=400, provider_code="too_long"), openai.BadRequestError,
         "too_long"),
        (ErrorInfo("authentication_error", "no key", status=401), openai.InternalServerError, "invalid_api_key"),
        (ErrorInfo("overloaded_error", "busy"), openai.InternalServerError, "overloaded_error"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_answer_has_its_status(
    info: ErrorInfo, kind: type[openai.APIStatusError], code: str, stream: bool
) -> None:
    async with serving({"a": ScriptedAgent(agent_error(info))}) as served, client(served) as sdk:
        with pytest.raises(kind) as caught:
            await sdk.chat.completions.create(model="a", messages=HI, stream=stream)
    assert caught.value.code == code and info.message in caught.value.message
    if info.retry_after is not None:
        assert caught.value.response.headers["retry-after"] == "8"
    assert caught.value.response.headers["x-should-retry"] == "false"


async def test_a_failure_in_the_middle_is_an_error_in_the_stream() -> None:
    agent = ScriptedAgent("half", Interrupted(ErrorInfo("interrupted", "it broke off")))
    async with serving({"a": agent}) as served, client(served) as sdk:
        stream = await sdk.chat.completions.create(model="a", messages=HI, stream=True)
        assert (await anext(stream)).choices[0].delta.content == "half"
        with pytest.raises(openai.APIError, match="it broke off"):
            await anext(stream)
        with pytest.raises(openai.InternalServerError, match="it broke off"):
            await sdk.chat.completions.create(model="a", messages=HI)


async def test_a_reset_ends_a_reader_who_was_shown_what_is_void() -> None:
    agent = ScriptedAgent("wrong", Reset(2, "another attempt"), "right")
    async with serving({"a": agent}) as served, client(served) as sdk:
        stream = await sdk.chat.completions.create(model="a", messages=HI, stream=True)
        await anext(stream)
        with pytest.raises(openai.APIError, match="void"):
            await anext(stream)
        whole = await sdk.chat.completions.create(model="a", messages=HI)
    assert whole.choices[0].message.content == "right"


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_stops_the_answer(stream: bool) -> None:
    never = asyncio.Event()
    agent = ScriptedAgent("first", never)
    async with serving({"a": agent}) as served:
        body = {"model": "a", "messages": HI, "stream": stream}
        if stream:
            async with served.http.stream("POST", "/v1/chat/completions", json=body) as response:
                assert "first" in await anext(response.aiter_text())
        else:
            with pytest.raises(httpx.ReadTimeout):
                await served.http.post("/v1/chat/completions", json=body, timeout=0.2)
        await asyncio.wait_for(served.scheduler.wait_idle(), 5)
        (info,) = served.scheduler.streams()
        assert info.state == "cancelled" and agent.closed == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "no valid JSON"),
        (b"[]", "does not fit"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "model is missing"),
        (b'{"model": "a", "messages": []}', "messages must be a list of at least one message"),
        (b'{"model": "a", "messages": [{"role": "user", "content": 1}]}', "messages[0].content"),
        (b'{"model": "a", "messages": [{"role": "user", "content": "\\ud83d"}]}', "no valid JSON"),
        (b'{"messages": ' + b"[" * 100_000, "too deep"),
        (b'{"model": "a", "base_url": "http://evil.example", "messages": [{"role": "user", "content": "x"}]}',
         "'base_url' is not a field of this request"),
    ],
)  # fmt: skip
async def test_a_body_that_does_not_fit_is_told_in_the_protocols_shape(body: bytes, told: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        answer = await served.http.post(
            "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and told in error["message"]


async def test_an_agent_of_the_same_protocol_gets_its_fields() -> None:
    agent = ScriptedAgent("x")
    agent.protocol = "openai_chat"
    body = {"model": "a", "messages": HI, "n": 1, "user": "u"}
    async with serving({"a": agent}) as served:
        assert (await served.post("/v1/chat/completions", body)).status_code == 200
    assert agent.requests[0].extra == {"n": 1, "user": "u"}


async def test_models_are_the_agents() -> None:
    agents = {"a": ScriptedAgent("x"), "b": ScriptedAgent("x")}
    async with serving(agents) as served, client(served) as sdk:
        assert [model.id async for model in sdk.models.list()] == ["a", "b"]
        assert (await sdk.models.retrieve("a")).id == "a"
        assert (await served.http.get("/v1/models/a/big")).json()["id"] == "a/big"
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("c")


async def test_a_stream_says_that_it_must_not_be_buffered_or_kept() -> None:
    async with serving({"a": ScriptedAgent(Text("x"))}) as served:
        answer = await served.post("/v1/chat/completions", {"model": "a", "messages": HI, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store" and answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-request-id"]
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_failed_record_has_the_providers_status() -> None:
    failed = Failed(ErrorInfo("not_found_error", "the provider does not know it", status=404, detail="no gpt-9"))
    async with serving({"a": ScriptedAgent(failed)}) as served, client(served) as sdk:
        with pytest.raises(openai.NotFoundError, match="the provider said: no gpt-9"):
            await sdk.chat.completions.create(model="a", messages=HI)


async def test_a_plain_function_answers_in_every_protocol_whatever_it_demands() -> None:
    async def echo(prompt: str) -> AsyncIterator[str]:
        yield prompt.upper()

    hi = {"role": "user", "content": "hi"}
    bodies = {
        "/v1/chat/completions": {"messages": [hi], "max_tokens": 9, "temperature": 0, "user": "u"},
        "/v1/responses": {"input": "hi", "max_output_tokens": 9, "metadata": {"a": "b"}},
        "/v1/messages": {"messages": [hi], "max_tokens": 9, "metadata": {"user_id": "u"}},
        "/v1/ai-sdk/chat": {
            "id": "c",
            "messages": [{"role": "user", "parts": [{"type": "text", "text": "hi"}]}],
            "maxOutputTokens": 9,
        },
    }
    async with serving({"echo": echo}) as served:
        for path, body in bodies.items():
            answer = await served.post(path, {"model": "echo", **body})
            assert answer.status_code == 200 and '"HI"' in answer.text
