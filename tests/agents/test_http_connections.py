"""Connections of agents: cut at any byte, shared, replaced, refused; closed at once by every kind of stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from multi_agent_scheduler.agents import OpenAIAgent
from multi_agent_scheduler.errors import (
    ConnectionFailed,
    Interrupted,
)
from multi_agent_scheduler.records import Completed, Text
from multi_agent_scheduler.records import Failed as FailedRecord
from multi_agent_scheduler.records import Interrupted as InterruptedRecord

from .asking import KEY, agent_for, asked, failure, texts
from .server import (
    LAST,
    Peer,
    Provider,
    Script,
    answer,
    chat,
    chat_event,
    chunk,
    cut,
    eventually,
    flood,
    head,
    reset,
)

# --- cuts ------------------------------------------------------------------------------------------------------------

HOLA = "Grüße, 世界"


@pytest.mark.parametrize("how", [cut, reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_a_connection_cut_at_any_byte_is_never_a_success(
    how: Callable[[Peer], Awaitable[None]], framing: str
) -> None:
    raw = b"".join(answer(chat(HOLA[:3], HOLA[3:], usage=False), framing=framing))
    marker = raw.index(b'"finish_reason": "stop"')
    done = raw.index(b"\n\n", marker) + 2
    scripts = [[raw[:at], how] for at in range(len(raw))]
    async with asked(*scripts) as (_provider, agent):
        for at in range(len(raw)):
            records = [record async for record in agent.stream("Hi")]
            terminal = records[-1]
            assert HOLA.startswith(texts(records)), at
            if at < done:
                assert isinstance(terminal, InterruptedRecord | FailedRecord), at
                assert terminal.error.retryable, at
                assert terminal.error.code == ("interrupted" if at else "connection_error"), at
            else:  # the finish marker came: what is missing is only the end of the message
                assert isinstance(terminal, Completed), at
                assert texts(records) == HOLA


async def test_a_cut_answer_is_kept_and_its_error_says_what_happened() -> None:
    gate = asyncio.Event()
    script = [head(), *(chunk(event) for event in chat("Hello", " wor", "ld")[:3]), gate, reset]
    async with asked(script) as (_provider, agent):
        pieces = []

        async def read() -> None:
            async for piece in agent.call_stream("Hi"):
                pieces.append(piece)
                if len(pieces) == 2:
                    gate.set()

        with pytest.raises(Interrupted) as caught:
            await read()
    sentence = (
        "the answer ended before its finish marker: the connection closed in the middle of the answer "
        "(Connection reset by peer)"
    )
    assert pieces == ["Hello", " wor", f"\n[ERROR: interrupted: {sentence}]"]
    assert str(caught.value) == sentence
    assert caught.value.partial is not None
    assert (caught.value.partial.text, caught.value.partial.state) == ("Hello wor", "interrupted")
    assert caught.value.retryable


async def test_an_answer_that_ends_in_good_order_before_its_finish_marker_is_interrupted() -> None:
    error, _ = await failure(answer(chat("Hello", " world")[:2]))
    assert isinstance(error, Interrupted)
    assert str(error) == "the answer ended before its finish marker"
    assert error.partial is not None
    assert error.partial.text == "Hello"


# --- connections -----------------------------------------------------------------------------------------------------


async def test_calls_one_after_the_other_share_a_connection() -> None:
    async with Provider(answer(chat("x"))) as provider:
        async with agent_for(provider) as one, agent_for(provider) as other:
            for agent in (one, one, other):
                await agent.call("Hi")
            assert len(provider.peers) == 1
        async with asyncio.timeout(5):
            await provider.peers[0].closed.wait()


async def test_calls_at_once_have_connections_of_their_own() -> None:
    gate = asyncio.Event()
    async with asked([gate, *answer(chat("x"))]) as (provider, agent):
        calls = [asyncio.ensure_future(agent.call("Hi")) for _ in range(5)]
        await eventually(lambda: len(provider.requests) == 5)
        gate.set()
        assert [result.text for result in await asyncio.gather(*calls)] == ["x"] * 5
        assert len(provider.peers) == 5


@pytest.mark.parametrize("how", [cut, reset], ids=["FIN", "RST"])
async def test_an_idle_connection_that_closes_just_then_is_replaced_once(
    how: Callable[[Peer], Awaitable[None]],
) -> None:
    async with asked(answer(chat("first")), [how], answer(chat("second"))) as (provider, agent):
        assert (await agent.call("Hi")).text == "first"
        assert (await agent.call("Hi")).text == "second"
        assert [request.peer for request in provider.requests] == [
            provider.peers[0],
            provider.peers[0],
            provider.peers[1],
        ]


async def test_a_fresh_connection_that_closes_at_once_is_not_tried_again() -> None:
    async with asked([cut]) as (provider, agent):
        with pytest.raises(ConnectionFailed, match=r"^the server closed the connection without an answer$"):
            await agent.call("Hi")
        assert len(provider.requests) == 1


async def test_a_request_of_which_something_came_back_is_never_sent_twice() -> None:
    async with asked(answer(chat("first")), [b"HTTP/1.1 200", cut], answer(chat("no"))) as (provider, agent):
        await agent.call("Hi")
        with pytest.raises(Interrupted):
            await agent.call("Hi")
        assert len(provider.requests) == 2


async def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        async with OpenAIAgent(KEY, base_url=f"http://127.0.0.1:{port}/v1") as agent:
            with pytest.raises(ConnectionFailed) as caught:
                await agent.call("Hi")
    assert (caught.value.code, caught.value.retryable) == ("connection_error", True)
    assert str(caught.value) == f"127.0.0.1:{port} did not accept the connection (Connection refused)"


async def test_a_host_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    async with OpenAIAgent(KEY, base_url="https://api.example.test/v1") as agent:
        with pytest.raises(ConnectionFailed, match=r"^the host 'api\.example\.test' could not be found$"):
            await agent.call("Hi")


# --- stopping --------------------------------------------------------------------------------------------------------


async def closed_in_time(peer: Peer) -> None:
    async with asyncio.timeout(0.1):  # the promise: a stop reaches the provider's socket within 100 ms
        await peer.closed.wait()


SPEAKING: Script = [head(), *(chunk(event) for event in chat("Hello")[:2]), asyncio.Event()]


async def test_leaving_the_loop_closes_the_socket() -> None:
    async with asked(SPEAKING) as (provider, agent):
        async for piece in agent.call_stream("Hi"):
            assert piece == "Hello"
            break
        await closed_in_time(provider.peers[0])


async def test_closing_the_stream_closes_the_socket() -> None:
    async with asked(SPEAKING) as (provider, agent):
        stream = agent.stream("Hi")
        async with aclosing(stream) as records:  # type: ignore[type-var]
            async for record in records:
                if isinstance(record, Text):
                    break
        await closed_in_time(provider.peers[0])


@pytest.mark.parametrize(
    "script", [[asyncio.Event()], [head(), asyncio.Event()], SPEAKING], ids=["no head", "no content", "content"]
)
async def test_cancelling_closes_the_socket_wherever_it_waits(script: Script) -> None:
    async with asked(script) as (provider, agent):
        call = asyncio.ensure_future(agent.call("Hi"))
        await provider.arrived.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await closed_in_time(provider.peers[0])


async def test_cancelling_while_the_connection_is_made_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, waiting = asyncio.get_running_loop(), asyncio.Event()

    async def slow(*args: Any, **kwargs: Any) -> Any:
        waiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(loop, "getaddrinfo", slow)
    async with OpenAIAgent(KEY, base_url="http://provider.test/v1") as agent:
        call = asyncio.ensure_future(agent.call("Hi"))
        await waiting.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_closing_the_agent_closes_what_runs() -> None:
    async with Provider(SPEAKING) as provider:
        agent = agent_for(provider)
        stream: AsyncIterator[str] = agent.call_stream("Hi", errors="raise")
        assert await anext(stream) == "Hello"
        await agent.aclose()
        await closed_in_time(provider.peers[0])
        with pytest.raises(Interrupted):
            await anext(stream)


async def test_an_agent_can_be_used_again_after_it_was_closed() -> None:
    async with Provider(answer(chat("x"))) as provider:
        agent = agent_for(provider)
        for _ in range(2):
            assert (await agent.call("Hi")).text == "x"
            await agent.aclose()
        await agent.aclose()


async def test_a_slow_reader_holds_the_provider_back() -> None:
    event = chunk(chat_event({"content": "x" * 60_000}))
    times = 500
    async with asked([head(), flood(event, times), *(chunk(event) for event in chat()[1:]), LAST]) as (provider, agent):
        stream = agent.call_stream("Hi")
        assert await anext(stream) == "x" * 60_000
        peer = provider.peers[0]
        await eventually(lambda: not peer.writable.is_set())
        for _ in range(100):
            await asyncio.sleep(0)
        assert peer.sent < times * len(event) // 2
        assert len([piece async for piece in stream]) == times - 1
