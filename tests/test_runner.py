"""A run: what it tells when, and what it holds until then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from multi_agent_scheduler.errors import ErrorInfo, StoreClosed
from multi_agent_scheduler.events import EventBus
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import Failed
from multi_agent_scheduler.scheduler import MultiAgentScheduler
from multi_agent_scheduler.store.memory import MemoryStore
from multi_agent_scheduler.task import Task, Template
from multi_agent_scheduler.testing import ScriptedAgent


class Slow(MemoryStore):
    """A durable store whose commits take until ``gate`` is open, and fail with ``failure``."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.failure: StoreClosed | None = None

    async def settled(self) -> None:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
async def store() -> Slow:
    return Slow()


def scheduler(store: Slow, **options: Any) -> tuple[MultiAgentScheduler, list[str]]:
    bus, heard = EventBus(), []
    bus.on("task.*", lambda event: heard.append(event.name))
    agents = {"a": ScriptedAgent("x")}
    return MultiAgentScheduler(agents, store=store, event_bus=bus, metrics=Metrics(), **options), heard


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_an_end_is_told_once_it_is_kept_and_before_the_last_dict(store: Slow) -> None:
    running, heard = scheduler(store)
    items: list[dict[str, Any]] = []

    async def read() -> None:
        async for item in running.execute_task_stream(Task("t", "Hi")):
            items.append({**item, "heard": list(heard)})  # noqa: PERF401 - as they come

    reader = asyncio.create_task(read())
    await settle()
    assert [item["done"] for item in items] == [False]
    assert heard == ["task.stream_started", "task.stream_chunk"]
    assert running._metrics.get_all_stats()["counters"].get("tasks.stream_completed", 0) == 0
    store.gate.set()
    await reader
    assert items[-1]["heard"] == ["task.stream_started", "task.stream_chunk", "task.stream_completed"]
    await running.aclose()


async def test_waiting_for_a_commit_holds_no_slot_and_no_child_back(store: Slow) -> None:
    running, heard = scheduler(store, max_running=1)
    handles = [await running.submit(Task(str(number), "Hi")) for number in range(3)]
    plan = await running.submit_plan([Task("a", "Hi"), Task("b", Template("${a}"), depends_on=["a"])])
    await settle()
    assert heard.count("task.stream_started") == 5
    assert "task.stream_completed" not in heard
    store.gate.set()
    assert all([(await handle.result()).success for handle in handles])
    assert (await plan.result()).success
    assert heard.count("task.stream_completed") == 5
    await running.aclose()


async def test_what_could_not_be_kept_is_not_told(store: Slow, caplog: pytest.LogCaptureFixture) -> None:
    running, heard = scheduler(store)
    store.failure = StoreClosed("the disk is full")
    store.gate.set()
    with pytest.raises(StoreClosed, match="the disk is full"):
        await running.execute_task(Task("t", "Hi"))
    with pytest.raises(StoreClosed, match="the disk is full"):
        await running.run([Task("t", "Hi")])
    assert "task.stream_completed" not in heard
    assert "could not be finished" in caplog.text
    await running.aclose()


async def test_a_skipped_task_is_counted_once_it_is_kept(store: Slow) -> None:
    running, _ = scheduler(store)
    running.agents["a"].script = (Failed(ErrorInfo("server_error", "gone")),)  # type: ignore[attr-defined]
    plan = await running.submit_plan([Task("a", "Hi"), Task("b", "Hi", depends_on=["a"])])
    await settle()
    assert running.find(plan.streams["b"]).state == "skipped"
    counters = running._metrics.get_all_stats()["counters"]
    assert (counters.get("tasks.stream_failed", 0), counters.get("tasks.stream_skipped", 0)) == (0, 0)
    store.gate.set()
    await plan.result()
    counters = running._metrics.get_all_stats()["counters"]
    assert (counters["tasks.stream_failed"], counters["tasks.stream_skipped"]) == (1, 1)
    await running.aclose()


async def test_thousands_that_are_stopped_leave_nothing() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent("x", gate)
    async with MultiAgentScheduler({"a": agent}, store=MemoryStore(keep_streams=10), metrics=Metrics()) as running:
        for _ in range(5):
            handles = [await running.submit(Task(str(number), "Hi")) for number in range(400)]
            await settle()
            assert all(await asyncio.gather(*(handle.cancel() for handle in handles)))
        assert (agent.running, len(running.streams())) == (0, 10)
        assert {task.get_name() for task in asyncio.all_tasks()} == {asyncio.current_task().get_name()}  # type: ignore[union-attr]
