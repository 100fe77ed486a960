"""The same on uvloop, whose transports are none of asyncio's classes: what differs there is tried again."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
import uvloop

from multi_agent_scheduler.agents import OpenAIAgent
from multi_agent_scheduler.errors import AgentTimeout, Interrupted
from multi_agent_scheduler.task import Timeouts

from .asking import KEY, asked
from .server import LAST, Provider, Script, answer, chat, chat_event, chunk, cut, eventually, flood, head

SPEAKING: Script = [head(), *(chunk(event) for event in chat("Hello")[:2]), asyncio.Event()]


def test_answers_come_and_connections_are_kept() -> None:
    async def main() -> None:
        async with asked(answer(chat("Hello", " world"))) as (provider, agent):
            for _ in range(3):
                assert [piece async for piece in agent.call_stream("Hi")] == ["Hello", " world"]
            assert len(provider.peers) == 1

    uvloop.run(main())


def test_a_stop_closes_the_socket_at_once() -> None:
    async def main() -> None:
        async with asked(SPEAKING) as (provider, agent):
            async for _ in agent.call_stream("Hi"):
                break
            async with asyncio.timeout(0.1):
                await provider.peers[0].closed.wait()

    uvloop.run(main())


def test_cuts_and_limits_are_what_they_are() -> None:
    async def main() -> None:
        async with asked([*SPEAKING[:-1], cut]) as (_, agent):
            with pytest.raises(Interrupted) as caught:
                await agent.call("Hi")
            assert caught.value.partial is not None
            assert caught.value.partial.text == "Hello"
        async with asked(SPEAKING, timeouts=Timeouts(between_content=0.02)) as (_, agent):
            with pytest.raises(AgentTimeout):
                await agent.call("Hi")

    uvloop.run(main())


def test_a_slow_reader_holds_the_provider_back() -> None:
    event = chunk(chat_event({"content": "x" * 60_000}))

    async def main() -> None:
        script: Script = [head(), flood(event, 500), *(chunk(event) for event in chat()[1:]), LAST]
        async with asked(script) as (provider, agent):
            stream = agent.call_stream("Hi")
            await anext(stream)
            await eventually(lambda: not provider.peers[0].writable.is_set())
            assert provider.peers[0].sent < 250 * len(event)
            assert len([piece async for piece in stream]) == 499

    uvloop.run(main())


def test_tls_and_the_end_of_the_loop(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def main() -> None:
        async with Provider(answer(chat("Hello")), tls=context) as provider:
            agent = OpenAIAgent(KEY, base_url=f"{provider.url}/v1", ca=str(tmp_path / "ca.pem"))
            assert (await agent.call("Hi")).text == "Hello"
            await agent.aclose()
            assert (await agent.call("Hi")).text == "Hello"
            # and no goodbye: the loop closes what is open

    uvloop.run(main())
