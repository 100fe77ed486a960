"""Time limits: which one passed, what was kept, and that keep-alives and slow readers do not count."""

from __future__ import annotations

import asyncio
import socket

import pytest

from multi_agent_scheduler.agents import OpenAIAgent
from multi_agent_scheduler.errors import (
    AgentTimeout,
)
from multi_agent_scheduler.task import Timeouts

from .asking import KEY, asked, failure, texts
from .server import (
    LAST,
    Peer,
    Script,
    chat,
    chat_event,
    chunk,
    head,
)

# --- time limits -----------------------------------------------------------------------------------------------------

SHORT = 0.05


@pytest.mark.parametrize("keep_alive", [False, True])
async def test_no_content_in_time(keep_alive: bool) -> None:
    async def comments(peer: Peer) -> None:
        while not peer.closed.is_set():
            peer.transport.write(chunk(b": still here\n\n") + chunk(chat_event({"content": ""})))
            await asyncio.sleep(SHORT / 10)

    script: Script = [head(), comments] if keep_alive else [head(), asyncio.Event()]
    error, _ = await failure(script, timeouts=Timeouts(first_content=SHORT))
    assert isinstance(error, AgentTimeout)
    assert str(error) == "no content within the first_content limit of 0.05 s"
    assert error.retryable


async def test_no_head_in_time() -> None:
    error, _ = await failure([asyncio.Event()], timeouts=Timeouts(first_content=SHORT))
    assert str(error) == "no content within the first_content limit of 0.05 s"


async def test_no_further_content_in_time_though_comments_come() -> None:
    async def comments(peer: Peer) -> None:
        while not peer.closed.is_set():
            peer.transport.write(chunk(b": still here\n\n"))
            await asyncio.sleep(SHORT / 10)

    script = [head(), *(chunk(event) for event in chat("Hello")[:2]), comments]
    error, records = await failure(script, timeouts=Timeouts(between_content=SHORT))
    assert str(error) == "no further content within the between_content limit of 0.05 s"
    assert error.partial is not None
    assert (error.partial.text, error.partial.state) == ("Hello", "failed")
    assert texts(records) == "Hello"


async def test_content_that_keeps_coming_meets_no_limit_but_the_total() -> None:
    async def talk(peer: Peer) -> None:
        while not peer.closed.is_set():
            peer.transport.write(chunk(chat_event({"content": "x"})))
            await asyncio.sleep(SHORT / 10)

    error, _ = await failure([head(), talk], timeouts=Timeouts(between_content=SHORT, total=3 * SHORT))
    assert str(error) == "not finished within the total limit of 0.15 s"
    assert error.partial is not None
    assert len(error.partial.text) > 3


async def test_the_limits_of_a_call_go_over_those_of_the_agent() -> None:
    async with asked([head(), asyncio.Event()], timeouts=Timeouts(first_content=60.0)) as (_provider, agent):
        with pytest.raises(AgentTimeout, match=r"first_content limit of 0\.05 s"):
            await agent.call("Hi", timeouts=Timeouts(first_content=SHORT))


async def test_a_reader_that_dawdles_does_not_use_up_the_limit() -> None:
    gate = asyncio.Event()
    rest = [chunk(event) for event in chat("Hello", " world")]
    async with asked([head(), *rest[:2], gate, *rest[2:], LAST], timeouts=Timeouts(between_content=SHORT)) as (
        _provider,
        agent,
    ):
        pieces = []
        async for piece in agent.call_stream("Hi"):
            pieces.append(piece)
            await asyncio.sleep(2 * SHORT)  # this is the reader's dawdling, not a wait for something
            gate.set()
    assert pieces == ["Hello", " world"]


async def test_a_limit_that_passes_closes_the_socket() -> None:
    async with asked([head(), asyncio.Event()], timeouts=Timeouts(first_content=SHORT)) as (provider, agent):
        with pytest.raises(AgentTimeout):
            await agent.call("Hi")
        async with asyncio.timeout(5):
            await provider.peers[0].closed.wait()


async def test_a_connection_that_is_not_made_in_time() -> None:
    # A listener whose queue is full takes no more connections, and says nothing.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            async with OpenAIAgent(
                KEY, base_url=f"http://127.0.0.1:{port}/v1", timeouts=Timeouts(connect=SHORT)
            ) as agent:
                with pytest.raises(AgentTimeout, match=r"^no connection within the connect limit of 0.05 s$") as caught:
                    await agent.call("Hi")
        finally:
            for filler in fillers:
                filler.close()
    assert caught.value.retryable
