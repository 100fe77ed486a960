"""The guide's advice on failures, timeouts and stopping: what its reader sees when something goes wrong."""

# ruff: noqa: T201 - the guide's code prints

from __future__ import annotations

import asyncio
import json
import re
import socket
import urllib.request
from typing import Any

import pytest

from multi_agent_scheduler.agents import ClaudeAgent, LocalServer, OpenAIAgent
from multi_agent_scheduler.errors import (
    AgentError,
    AuthenticationError,
    ConnectionFailed,
    InvalidConfiguration,
    RequestRefused,
    UnknownAgent,
)
from multi_agent_scheduler.scheduler import MultiAgentScheduler, Task

from ..agents.server import Provider, answer, chat, chat_event, head
from ..agents.server import chunk as framed

# --- errors -----------------------------------------------------------------------------------------------------------


async def robust_streaming(agent: Any) -> str | None:
    """Handle streaming errors"""

    try:
        full_text = ""

        async for chunk in agent.call_stream("Generate text"):
            # Check for error markers
            if "[ERROR:" in chunk:
                print(f"\n⚠️ Error detected: {chunk}")
                break

            full_text += chunk
            print(chunk, end="", flush=True)

        return full_text

    except Exception as e:  # noqa: BLE001 - as the guide has it
        print(f"\n❌ Streaming failed: {e}")
        return None


async def careless_streaming(agent: Any) -> str | None:
    """The same by somebody who has never heard of the marker."""
    try:
        return "".join([chunk async for chunk in agent.call_stream("Generate text")])
    except Exception as e:  # noqa: BLE001 - as the guide has it
        print(f"❌ Streaming failed: {e}")
        return None


async def test_error_handling_of_a_stream_that_succeeds(agent: ClaudeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    text = await robust_streaming(agent)
    assert text
    assert capsys.readouterr().out == text


def refused_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


async def test_an_invalid_key(server: LocalServer, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "the provider did not accept the key"
    agents = [
        ClaudeAgent(api_key="sk-wrong", base_url=server.base_url),
        OpenAIAgent(api_key="sk-wrong", base_url=f"{server.base_url}/v1"),
        OpenAIAgent(api_key="sk-wrong", base_url=f"{server.base_url}/v1", api="responses"),
    ]
    for agent in agents:
        async with agent:
            assert await robust_streaming(agent) == ""
            assert capsys.readouterr().out == f"\n⚠️ Error detected: \n[ERROR: authentication_error: {sentence}]\n"

            assert await careless_streaming(agent) is None
            printed = capsys.readouterr().out
            assert printed.startswith(f"❌ Streaming failed: {sentence}")
            assert "sk-wrong" not in printed

            with pytest.raises(AuthenticationError) as raised:
                await agent.call("Hi")
            assert (raised.value.status, raised.value.retryable) == (401, False)


async def test_no_key_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    agent = ClaudeAgent()
    assert await careless_streaming(agent) is None
    assert capsys.readouterr().out == "❌ Streaming failed: no API key: pass api_key= or set ANTHROPIC_API_KEY\n"


async def test_a_provider_that_cannot_be_reached(capsys: pytest.CaptureFixture[str]) -> None:
    async with ClaudeAgent(api_key="key", base_url=f"http://127.0.0.1:{refused_port()}") as agent:
        assert await robust_streaming(agent) == ""
        assert "[ERROR: connection_error: " in capsys.readouterr().out
        with pytest.raises(ConnectionFailed) as raised:
            await agent.call("Hi")
        assert raised.value.retryable

        async with MultiAgentScheduler(agents={"claude": agent}) as scheduler:
            items = [item async for item in scheduler.execute_task_stream(Task("t", "Hi"), "claude")]
    (final,) = items  # no text, so no chunk: an error is never put into one
    assert final["success"] is False
    assert final["error"].startswith("connection_error: ")
    assert final["result"] == ""


@pytest.mark.parametrize(
    ("base_url", "complaint"),
    [
        ("no url", "it has white space inside"),
        ("api.anthropic.com", "must be a URL such as https://host/v1"),
        ("ftp://host", "must be a URL such as https://host/v1"),
        ("http://host:port", "is no URL"),
    ],
)
async def test_a_base_url_that_is_no_url(base_url: str, complaint: str) -> None:
    with pytest.raises(InvalidConfiguration, match=re.escape(complaint)):
        ClaudeAgent(api_key="key", base_url=base_url)


async def test_a_base_url_with_a_path_that_the_provider_does_not_know(server: LocalServer) -> None:
    async with ClaudeAgent(api_key=server.api_key, base_url=f"{server.base_url}/nowhere") as agent:
        with pytest.raises(RequestRefused) as raised:
            await agent.call("Hi")
    assert raised.value.code == "not_found_error"


async def test_a_stream_that_dies_half_way_keeps_what_came(capsys: pytest.CaptureFixture[str]) -> None:
    body = [chat_event({"content": "Half a"}), chat_event({"content": " sentence"})]
    async with Provider(answer(body)) as provider, OpenAIAgent("key", base_url=provider.url) as agent:
        assert await robust_streaming(agent) == "Half a sentence"
        assert "Error detected: \n[ERROR: interrupted: " in capsys.readouterr().out
        with pytest.raises(AgentError) as raised:
            await agent.call("Hi")
        assert raised.value.partial is not None
        assert raised.value.partial.text == "Half a sentence"


async def test_a_model_that_writes_the_marker_has_written_text() -> None:
    said = ["[ERROR: ", "is what it says]"]
    async with Provider(answer(chat(*said))) as provider, OpenAIAgent("key", base_url=provider.url) as agent:
        assert [chunk async for chunk in agent.call_stream("Hi")] == said


async def test_an_agent_that_is_not_there(scheduler: MultiAgentScheduler) -> None:
    with pytest.raises(UnknownAgent, match=r"'gpt'.*the agents are claude"):
        [_ async for _ in scheduler.execute_task_stream(Task("t", "Hi"), "gpt")]


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_timeout_management(capsys: pytest.CaptureFixture[str]) -> None:
    async with Provider([head(), framed(chat_event({"content": "Once upon"})), asyncio.Event()]) as provider:
        agent = OpenAIAgent("key", base_url=provider.url)

        async def stream_with_timeout() -> None:
            """Add timeout to streaming"""

            async def stream_task() -> None:
                async for chunk in agent.call_stream("Long task"):
                    print(chunk, end="")

            try:
                await asyncio.wait_for(stream_task(), timeout=0.5)
            except asyncio.TimeoutError:  # noqa: UP041 - as the guide has it
                print("\n⏱️ Stream timeout after 0.5s")

        await stream_with_timeout()
        assert capsys.readouterr().out == "Once upon\n⏱️ Stream timeout after 0.5s\n"  # no marker
        await provider.peers[0].closed.wait()  # the connection is gone, and with it the provider's work


async def test_asyncio_timeout_stops_the_provider() -> None:
    async with Provider([head(), framed(chat_event({"content": "Once upon"})), asyncio.Event()]) as provider:
        agent, came = OpenAIAgent("key", base_url=provider.url), []

        async def stream_with_timeout() -> None:
            async with asyncio.timeout(60) as limit:  # Python 3.11+
                async for chunk in agent.call_stream("Test"):
                    came.append(chunk)
                    limit.reschedule(0)  # the time is up while the next chunk is waited for

        with pytest.raises(TimeoutError):
            await stream_with_timeout()
        assert came == ["Once upon"]
        await provider.peers[0].closed.wait()


async def test_leaving_early_stops_the_model(server: LocalServer, key: str) -> None:
    """The benefit "interruptible", and the embedded model's own word for it: no slot of it works any more."""
    async with ClaudeAgent(api_key=key) as agent:  # without a limit it would write about a thousand tokens
        pieces = 0
        async for _ in agent.call_stream("Write an essay about the history of the world"):
            pieces += 1
            if pieces == 1:
                assert await asyncio.to_thread(working, server) == 1
            if pieces == 3:
                break
        async with asyncio.timeout(4):  # which is less than the rest of its answer would take
            while await asyncio.to_thread(working, server):
                pass


def working(server: LocalServer) -> int:
    """How many of the model's slots are generating."""
    request = urllib.request.Request(f"{server.base_url}/slots", headers={"authorization": f"Bearer {server.api_key}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=50) as response:
        return sum(slot["is_processing"] for slot in json.load(response))
