"""Streams at a steady pace, of texts, dicts and records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from multi_agent_scheduler import MultiAgentScheduler, Task, paced
from multi_agent_scheduler.errors import InvalidOption, ServerError
from multi_agent_scheduler.records import Reasoning, ToolCall, Usage
from multi_agent_scheduler.testing import ScriptedAgent

from .agents.composing import failure, run

BURST = [f"piece {number} " for number in range(5)]


async def timed(stream: AsyncIterator[Any]) -> tuple[list[Any], list[float]]:
    items, times = [], []
    async for item in stream:
        items.append(item)
        times.append(round(asyncio.get_running_loop().time(), 6))
    return items, times


def test_a_burst_of_text_flows() -> None:
    items, times = run(timed(ScriptedAgent(*BURST).call_stream("Hi", pace="10/s")))
    assert items == BURST
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_without_a_pace_nothing_waits() -> None:
    assert run(timed(ScriptedAgent(*BURST).call_stream("Hi")))[1] == [0] * 5


def test_tokens() -> None:
    _, times = run(timed(ScriptedAgent("x" * 40, "y" * 4, "z").call_stream("Hi", pace="10 tokens/s")))
    assert times == pytest.approx([0, 1.0, 1.1])


def test_dicts_and_the_last_one_does_not_wait() -> None:
    async def whole() -> tuple[list[Any], list[float]]:
        async with MultiAgentScheduler({"a": ScriptedAgent(*BURST)}) as scheduler:
            began = asyncio.get_running_loop().time()
            items, times = await timed(paced(scheduler.execute_task_stream(Task("t", "Hi")), 10))
            return items, [time - began for time in times]

    items, times = run(whole())
    assert [item["chunk"] for item in items[:-1]] == BURST and items[-1]["done"]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4], abs=0.01)


def test_records_of_every_kind_of_text() -> None:
    script = [Reasoning("hm"), "a", ToolCall(0, "t", "look", "{}"), Usage(output_tokens=1), "b"]
    items, times = run(timed(paced(ScriptedAgent(*script).stream("Hi"), "1/s")))
    assert times == pytest.approx([0, 0, 1, 2, 2, 3, 3, 3])
    assert [item.seq for item in items] == list(range(1, 9))


def test_only_the_reader_is_slow_and_never_the_log() -> None:
    async def whole() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        async with MultiAgentScheduler({"a": ScriptedAgent(*BURST)}) as scheduler:
            handle = await scheduler.submit(Task("t", "Hi"))
            reading = asyncio.ensure_future(timed(paced(handle.follow(), "1/s")))
            await handle.result()
            done = loop.time()
            await reading
            return done, loop.time()

    done, read = run(whole())
    assert (done, read) == (pytest.approx(0, abs=0.1), pytest.approx(4, abs=0.1))


def test_a_failure_comes_in_its_place() -> None:
    async def whole() -> list[str]:
        stream = ScriptedAgent("a", "b", failure()).call_stream("Hi", pace="1/s", errors="raise")
        pieces = [await anext(stream), await anext(stream)]
        with pytest.raises(ServerError):
            await anext(stream)
        return pieces

    assert run(whole()) == ["a", "b"]


async def test_leaving_closes_the_stream() -> None:
    agent = ScriptedAgent("a", "b", asyncio.Event())
    async with aclosing(agent.call_stream("Hi", pace="1000/s")) as stream:
        assert await anext(stream) == "a"
        assert agent.running == 1
    assert agent.running == 0


async def test_stopping_while_it_waits() -> None:
    agent = ScriptedAgent("a", "b")
    stream = agent.call_stream("Hi", pace="0.01/s")
    assert await anext(stream) == "a"
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert agent.running == 0


async def test_what_cannot_be_is_refused_at_once() -> None:
    agent = ScriptedAgent("a")
    with pytest.raises(InvalidOption, match="a pace is written as '50/s'"):
        paced(agent.call_stream("Hi"), "quick")
    with pytest.raises(InvalidOption, match=r"paced\(\) reads an async iterator, not list"):
        paced([], "50/s")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="a pace is written"):
        await anext(agent.call_stream("Hi", pace="quick"))
    assert agent.requests == []


def test_a_scheduler_paces_its_readers_and_never_the_task() -> None:
    async def whole() -> list[float]:
        async with MultiAgentScheduler({"a": ScriptedAgent(*BURST)}, paces={"ann": "10/s"}) as scheduler:
            now = asyncio.get_running_loop().time
            latencies, spans = [], []
            for asked in (
                scheduler.execute_task_stream(Task("t", "Hi"), pace="10/s"),
                scheduler.execute_task_stream(Task("t", "Hi"), owner="ann"),
                scheduler.stream([Task("t", "Hi")], pace="10/s"),
                scheduler.stream([Task("t", "Hi")], owner="ann"),
            ):
                began = now()
                items = [item async for item in asked]
                assert [item["chunk"] for item in items[:-1]] == BURST
                spans.append(now() - began)
                latencies.append(items[-1]["latency"])
            assert max(latencies) < 0.3
            stream = scheduler.streams()[-1].stream_id
            began = now()
            assert len([record async for record in scheduler.follow(stream, owner="ann")]) == len(BURST) + 3
            return [*spans, now() - began]

    assert run(whole()) == pytest.approx([0.4] * 5)


def test_a_reader_that_leaves_is_not_delayed() -> None:
    async def whole() -> float:
        agent = ScriptedAgent(*BURST, asyncio.Event())
        async with MultiAgentScheduler({"a": agent}) as scheduler:
            async with aclosing(scheduler.execute_task_stream(Task("t", "Hi"), pace="1/min")) as items:
                assert (await anext(items))["chunk"] == BURST[0]
            return asyncio.get_running_loop().time()

    assert run(whole()) == 0


def test_the_plain_generators_are_paced_too() -> None:
    began = time.monotonic()
    assert list(ScriptedAgent(*BURST).call_stream_sync("Hi", pace="200/s")) == BURST
    scheduler = MultiAgentScheduler({"a": ScriptedAgent(*BURST)})
    assert len(list(scheduler.execute_task_stream_sync(Task("t", "Hi"), pace="200/s"))) == len(BURST) + 1
    assert time.monotonic() - began >= 2 * 4 / 200


def test_a_pace_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(InvalidOption, match="a pace is written"):
        MultiAgentScheduler({"a": ScriptedAgent("x")}, paces={"ann": "fast"})
