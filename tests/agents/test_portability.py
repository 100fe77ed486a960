"""What one protocol's client says is asked of agents of others, without what only that protocol knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from multi_agent_scheduler import MultiAgentScheduler, Task
from multi_agent_scheduler.agents import ClaudeAgent, Failover, FunctionAgent, OpenAIAgent
from multi_agent_scheduler.request import Message, ReasoningPart, TextPart
from multi_agent_scheduler.wire import openai_chat

from .asking import KEY, agent_for, error_answer
from .server import Provider, answer, chat

BODY = {
    "model": "x",
    "logit_bias": {"1": 2},
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}],
}


async def test_failover_to_another_provider_leaves_the_first_one_s_own_fields() -> None:
    down, up = error_answer(529, {"type": "error"}), answer(chat("Hello"))
    async with Provider(down) as one, Provider(up) as other:
        claude = ClaudeAgent(KEY, model="c", base_url=one.url)
        openai = agent_for(other, defaults={"extra": {"service_tier": "flex"}})
        sealed = ReasoningPart(text="hm", signature="SEAL", protocol="anthropic")
        history = [Message("user", (TextPart(text="Hi"),)), Message("assistant", (sealed, TextPart(text="Yes?")))]
        asked = [*history, Message("user", (TextPart(text="So?"),))]
        async with Failover(claude, openai) as agent:
            result = await agent.call(asked, extra={"top_k": 3}, protocol="anthropic")
    assert result.text == "Hello"
    assert one.requests[0].json["top_k"] == 3
    assert one.requests[0].json["messages"][1]["content"][0]["signature"] == "SEAL"
    body = other.requests[0].json
    assert "top_k" not in body and body["service_tier"] == "flex"
    assert body["messages"][1] == {"role": "assistant", "content": "Yes?"}


async def test_what_a_client_of_chat_completions_says_reaches_an_agent_of_its_protocol_whole() -> None:
    request, _ = openai_chat.parse_request(BODY)
    async with Provider(answer(chat("Hello"))) as provider, agent_for(provider, defaults={"seed": 3}) as agent:
        async with MultiAgentScheduler({"a": agent}) as scheduler:
            assert (await scheduler.execute_task(Task.of(request, "t"))).success
        body = provider.requests[0].json
    assert (body["logit_bias"], body["seed"]) == ({"1": 2}, 3)
    assert body["messages"] == BODY["messages"]


async def test_its_own_defaults_reach_an_agent_that_is_asked_in_another_protocol() -> None:
    request, _ = openai_chat.parse_request({**BODY, "temperature": 0.5})
    agent = OpenAIAgent(KEY, api="responses", defaults={"extra": {"store": False}, "temperature": 1.0})
    options = {"protocol": "openai_chat", "extra": request.extra, "temperature": 0.5}
    for made in (agent.request(request.messages, **options), agent.adopt(request)):
        assert (made.extra, made.temperature, made.protocol) == ({"store": False}, 0.5, "openai_responses")
        assert made.messages == (Message("user", (TextPart(text="Hi"),)),)


async def test_a_function_gets_the_options_and_nothing_of_the_protocol() -> None:
    seen: list[Any] = []

    async def echo(prompt: str, **options: Any) -> AsyncIterator[str]:
        seen.append(options)
        yield prompt

    request, _ = openai_chat.parse_request({**BODY, "temperature": 0.5})
    agent = FunctionAgent(echo)
    assert (
        await agent.call(request.messages, protocol="openai_chat", extra=request.extra, temperature=0.5)
    ).text == "Hi"
    assert (await Failover(agent).call(request.messages, protocol="openai_chat", extra=request.extra)).text == "Hi"
    assert (await agent.call("Hi", protocol="http")).text == "Hi"  # a keyword of the function's own
    assert seen == [{"temperature": 0.5}, {}, {"protocol": "http"}]
