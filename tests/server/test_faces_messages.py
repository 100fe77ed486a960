"""Anthropic's Messages over HTTP, as the official client reads them."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import anthropic
import pytest

from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.records import Completed, Failed, Interrupted, Reasoning, Reset, Text, ToolCall, Usage
from multi_agent_scheduler.request import ImagePart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from multi_agent_scheduler.server import Settings
from multi_agent_scheduler.testing import ScriptedAgent
from tests.server.served import Served, serving

HI: Any = [{"role": "user", "content": "Hi"}]


def client(served: Served) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key="any", base_url=served.url, max_retries=0)


async def test_a_message_streams_and_comes_in_one_piece() -> None:
    agent = ScriptedAgent(
        Reasoning("hm", signature="sig"),
        Text("Hel", part=1),
        Text("lo", part=1),
        Usage(input_tokens=5, output_tokens=2),
        Completed("stop"),
    )
    async with serving({"a": agent}) as served, client(served) as sdk:
        async with sdk.messages.stream(model="a", max_tokens=9, messages=HI, system="Be kind") as stream:
            assert "".join([text async for text in stream.text_stream]) == "Hello"
            final = await stream.get_final_message()
            assert stream.request_id
        whole = await sdk.messages.create(model="a", max_tokens=9, messages=HI)
        assert whole._request_id
    for message in (final, whole):
        thinking, text = message.content
        assert thinking.type == "thinking" and thinking.thinking == "hm" and thinking.signature == "sig"
        assert text.type == "text" and text.text == "Hello"
        assert message.stop_reason == "end_turn" and message.model == "a" and message.id.startswith("msg_")
        assert message.usage.input_tokens == 5 and message.usage.output_tokens == 2
    assert agent.requests[0].max_tokens == 9
    assert agent.requests[0].messages[0].parts == (TextPart(text="Be kind"),)


async def test_tools_images_and_thinking_go_in_and_calls_come_out() -> None:
    agent = ScriptedAgent(ToolCall(0, id="c1", name="look", arguments='{"at":"x"}'), Completed("tool_calls"))
    agent.protocol = "anthropic"  # reasoning is only for whom it came from
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"png").decode()}
    messages: Any = [
        {"role": "user", "content": [
            {"type": "image", "source": source},
            {"type": "text", "text": "See", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "tool_use", "id": "c0", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c0", "content": "seen"}]},
    ]  # fmt: skip
    tool: Any = {"name": "look", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
    async with serving({"a": agent}) as served, client(served) as sdk:
        message = await sdk.messages.create(
            model="a",
            max_tokens=9,
            messages=messages,
            tools=[tool],
            thinking={"type": "enabled", "budget_tokens": 1024},
        )
    (call,) = message.content
    assert call.type == "tool_use" and call.input == {"at": "x"} and message.stop_reason == "tool_use"
    request = agent.requests[0]
    image, text = request.messages[0].parts
    assert isinstance(image, ImagePart) and (image.data, image.media_type) == (b"png", "image/png")
    assert isinstance(text, TextPart) and text.text == "See"
    thought, use = request.messages[1].parts
    assert isinstance(thought, ReasoningPart) and thought.signature == "sig"
    assert isinstance(use, ToolCallPart) and (use.id, use.name) == ("c0", "look")
    (result,) = request.messages[2].parts
    assert isinstance(result, ToolResultPart) and result.id == "c0"
    assert request.tools[0].name == "look"


async def test_an_agent_of_the_same_protocol_gets_its_fields() -> None:
    agent = ScriptedAgent("x")
    agent.protocol = "anthropic"
    content = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]
    body = {"model": "a", "max_tokens": 9, "messages": [{"role": "user", "content": content}], "top_k": 3}
    async with serving({"a": agent}) as served:
        assert (await served.post("/v1/messages", body)).status_code == 200
    (request,) = agent.requests
    assert request.extra == {"top_k": 3}
    assert request.messages[0].parts[0].extra == {"cache_control": {"type": "ephemeral"}}


async def test_an_unknown_model_is_not_found() -> None:
    async with serving({"a": ScriptedAgent("x")}) as served, client(served) as sdk:
        with pytest.raises(anthropic.NotFoundError, match="there is no model 'b'") as caught:
            await sdk.messages.create(model="b", max_tokens=9, messages=HI)
    assert caught.value.response.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("info", "status", "kind"),
    [
        (ErrorInfo("rate_limit_error", "slow", status=429), 429, "rate_limit_error"),
        (ErrorInfo("overloaded_error", "busy", status=503), 529, "overloaded_error"),
        (ErrorInfo("timeout_error", "late"), 504, "timeout_error"),
        (ErrorInfo("connection_error", "gone"), 502, "api_error"),
        (ErrorInfo("insufficient_quota", "broke", status=402), 429, "billing_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_answer_has_its_status(
    info: ErrorInfo, status: int, kind: str, stream: bool
) -> None:
    async with serving({"a": ScriptedAgent(agent_error(info))}) as served, client(served) as sdk:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await sdk.messages.create(model="a", max_tokens=9, messages=HI, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.body == {"type": "error", "error": {"type": kind, "message": info.message}}


async def test_a_failure_in_the_middle_is_an_error_event() -> None:
    agent = ScriptedAgent("half", Interrupted(ErrorInfo("interrupted", "it broke off")))
    async with serving({"a": agent}) as served, client(served) as sdk:
        async with sdk.messages.stream(model="a", max_tokens=9, messages=HI) as stream:
            assert await anext(aiter(stream.text_stream)) == "half"
            with pytest.raises(anthropic.APIStatusError, match="it broke off"):
                await stream.get_final_message()
        with pytest.raises(anthropic.InternalServerError, match="it broke off"):
            await sdk.messages.create(model="a", max_tokens=9, messages=HI)


async def test_a_reset_ends_a_reader_who_was_shown_what_is_void() -> None:
    agent = ScriptedAgent("wrong", Reset(2, "another attempt"), "right")
    async with serving({"a": agent}) as served, client(served) as sdk:
        async with sdk.messages.stream(model="a", max_tokens=9, messages=HI) as stream:
            with pytest.raises(anthropic.APIStatusError, match="void"):
                await stream.get_final_message()
        whole = await sdk.messages.create(model="a", max_tokens=9, messages=HI)
    assert [block.type == "text" and block.text for block in whole.content] == ["right"]


async def test_leaving_stops_the_answer() -> None:
    agent = ScriptedAgent("first", asyncio.Event())
    async with serving({"a": agent}) as served, client(served) as sdk:
        async with sdk.messages.stream(model="a", max_tokens=9, messages=HI) as stream:
            await anext(aiter(stream.text_stream))
        await asyncio.wait_for(served.scheduler.wait_idle(), 5)
        assert [info.state for info in served.scheduler.streams()] == ["cancelled"]


async def test_silence_is_filled_with_pings() -> None:
    gate = asyncio.Event()
    body = {"model": "a", "max_tokens": 9, "messages": HI, "stream": True}
    settings = Settings(heartbeat=0.02, access_log=False)
    async with (
        serving({"a": ScriptedAgent("x", gate)}, settings=settings) as served,
        served.http.stream("POST", "/v1/messages", json=body) as response,
    ):
        lines = []
        async for line in response.aiter_lines():
            lines.append(line)
            if line == "event: ping":
                gate.set()
    assert "event: ping" in lines and lines.index("event: ping") < lines.index("event: message_stop")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"messages": HI}, "model is missing"),
        ({"model": "a"}, "messages must be a list"),
        ({"model": "a", "messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"model": "a", "messages": HI, "api_base": "http://x"}, "'api_base' is not a field of this request"),
    ],
)
async def test_a_body_that_does_not_fit_is_told_in_the_protocols_shape(body: Any, told: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        answer = await served.post("/v1/messages", body)
    assert answer.status_code == 400
    assert answer.json()["type"] == "error" and answer.json()["error"]["type"] == "invalid_request_error"
    assert told in answer.json()["error"]["message"]


async def test_models_are_the_agents() -> None:
    async with serving({"a": ScriptedAgent("x"), "b": ScriptedAgent("x")}) as served, client(served) as sdk:
        assert [model.id async for model in sdk.models.list()] == ["a", "b"]
        assert (await sdk.models.retrieve("b")).display_name == "b"


async def test_refusals_and_failed_records_keep_their_words() -> None:
    failed = Failed(ErrorInfo("not_found_error", "unknown there", status=404))
    async with serving({"a": ScriptedAgent(failed)}) as served, client(served) as sdk:
        with pytest.raises(anthropic.NotFoundError, match="unknown there"):
            await sdk.messages.create(model="a", max_tokens=9, messages=HI)
