"""A scheduler that lets go of what has not ended, so that another goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from multi_agent_scheduler.errors import StoreClosed, Suspended
from multi_agent_scheduler.events import EventBus
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import Completed, Reset
from multi_agent_scheduler.scheduler import MultiAgentScheduler
from multi_agent_scheduler.store.memory import MemoryStore
from multi_agent_scheduler.task import Task, Template

pytest.importorskip("apsw", reason="needs apsw")


class Slow:
    """An agent that says a word and then waits for ever, until it is told to answer."""

    def __init__(self) -> None:
        self.said = asyncio.Event()
        self.closed = 0
        self.answers = False

    async def __call__(self, prompt: str, **_: Any) -> AsyncIterator[str]:
        try:
            yield "one "
            self.said.set()
            if not self.answers:
                await asyncio.Event().wait()
            yield "two"
        finally:
            self.closed += 1


async def quick(prompt: str, **_: Any) -> AsyncIterator[str]:
    yield f"<{prompt}>"


def scheduler(store: Any, slow: Slow, **options: Any) -> MultiAgentScheduler:
    return MultiAgentScheduler({"quick": quick, "slow": slow}, store=store, event_bus=EventBus(), **options)


PLAN = [
    Task("a", "A", agent="quick"),
    Task("b", "B", agent="slow", depends_on=["a"]),
    Task("c", Template("${a}${b}"), agent="quick", depends_on=["a", "b"]),
]


async def test_a_plan_is_let_go_of_and_finished_by_the_next(tmp_path: Path) -> None:
    store, slow, metrics = f"sqlite:///{tmp_path / 'mas.db'}", Slow(), Metrics()
    async with scheduler(store, slow, metrics=metrics) as first:
        handle = await first.submit_plan(PLAN)
        await slow.said.wait()
        await asyncio.wait_for(first.suspend(), 0.1)
        assert slow.closed == 1
        with pytest.raises(Suspended, match="was let go of before its end"):
            await handle.result()
        with pytest.raises(StoreClosed):
            await first.submit(Task("d", "D"))
        states = {info.task_id: info.state for info in first.streams()}
        assert states == {"a": "completed", "b": "queued", "c": "queued"}
        assert metrics.get_all_stats()["gauges"]["streams.active"] == 0
    slow.answers = True
    async with scheduler(store, slow) as second:
        assert len(await second.resume()) == 2
        await second.wait_idle()
        log = [record async for record in second.follow(handle.streams["b"])]
        assert sum(isinstance(record, Reset) for record in log) == 1
        assert isinstance(log[-1], Completed)
        assert (await second.snapshot(handle.streams["c"])).text == "<<A>one two>"


async def test_the_reader_of_a_plan_is_told(tmp_path: Path) -> None:
    slow = Slow()
    async with scheduler(f"sqlite:///{tmp_path / 'mas.db'}", slow) as first:

        async def read() -> None:
            async for _ in first.stream(PLAN):
                pass

        reading = asyncio.create_task(read())
        await slow.said.wait()
        await first.suspend()
        with pytest.raises(Suspended):
            await reading


async def test_what_waits_for_a_slot_does_not_begin(tmp_path: Path) -> None:
    store, slow = f"sqlite:///{tmp_path / 'mas.db'}", Slow()
    async with scheduler(store, slow, max_running=1) as first:
        handles = [await first.submit(Task(name, "x", agent="slow")) for name in "abc"]
        await slow.said.wait()
        waiting = [asyncio.create_task(handle.result()) for handle in handles]
        await asyncio.sleep(0)
        await first.suspend()
        for result in waiting:
            with pytest.raises(Suspended):
                await result
        assert slow.closed == 1
        assert {info.state for info in first.streams()} == {"queued"}


async def test_an_agent_that_takes_no_notice_is_closed_at_its_next_word() -> None:
    gate = asyncio.Event()

    async def stubborn(prompt: str, **_: Any) -> AsyncIterator[str]:
        while True:
            yield "x"
            try:
                await gate.wait()
            except asyncio.CancelledError:
                gate.set()

    async with MultiAgentScheduler({"a": stubborn}, store=MemoryStore(), event_bus=EventBus()) as first:
        handle = await first.submit(Task("t", "x"))
        async for record in handle.follow():
            if record.seq == 2:
                break
        await asyncio.wait_for(first.suspend(), 5)
        assert first.streams()[0].state == "queued"
        with pytest.raises(Suspended):
            await handle.result()


async def test_what_is_stopped_already_ends_as_cancelled(tmp_path: Path) -> None:
    slow = Slow()
    async with scheduler(f"sqlite:///{tmp_path / 'mas.db'}", slow) as first:
        handle = await first.submit(Task("t", "x", agent="slow"))
        await slow.said.wait()
        stop = asyncio.create_task(handle.cancel("enough"))
        await asyncio.sleep(0)
        await first.suspend()
        assert await stop
        assert (await handle.result()).state == "cancelled"


async def test_a_task_that_was_just_submitted_is_let_go_of_too(tmp_path: Path) -> None:
    store, slow = f"sqlite:///{tmp_path / 'mas.db'}", Slow()
    async with scheduler(store, slow) as first:
        submitting = asyncio.create_task(first.submit_plan(PLAN))
        await asyncio.sleep(0)
        await first.suspend()
        with pytest.raises(Suspended):
            await (await submitting).result()
    async with scheduler(store, slow) as second:
        assert {info.state for info in second.streams()} == {"queued"}
