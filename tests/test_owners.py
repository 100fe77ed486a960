"""Whose a stream is: look-ups, ids of the caller's own, and what is sent along on somebody's behalf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from multi_agent_scheduler.agents.base import Source
from multi_agent_scheduler.agents.context import Context
from multi_agent_scheduler.errors import InvalidOption, PlanError, StreamExists, StreamNotFound
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import CallStarted, Completed
from multi_agent_scheduler.request import Request
from multi_agent_scheduler.scheduler import MultiAgentScheduler
from multi_agent_scheduler.task import Task, Template
from multi_agent_scheduler.testing import ScriptedAgent


class Asked(ScriptedAgent):
    """Notes in whose name and trace it was asked."""

    def __init__(self, *script: Any) -> None:
        super().__init__(*script)
        self.contexts: list[Context] = []

    async def _open(self, request: Request, ctx: Context) -> Source:
        self.contexts.append(ctx)
        return await super()._open(request, ctx)


@pytest.fixture(params=["memory://", "sqlite"])
async def running(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MultiAgentScheduler]:
    store = request.param
    if store == "sqlite":
        pytest.importorskip("apsw", reason="needs apsw")
        store = f"sqlite:///{tmp_path / 'mas.db'}"
    agents = {"a": ScriptedAgent("one ", "two"), "slow": ScriptedAgent("one ", asyncio.Event())}
    async with MultiAgentScheduler(agents, store=store, metrics=Metrics()) as scheduler:
        yield scheduler


async def test_a_stream_of_another_owner_is_not_there_and_cannot_be_told_from_one_that_never_was(
    running: MultiAgentScheduler,
) -> None:
    handle = await running.submit(Task("t", "Hi"), owner="ann")
    await handle.result()
    mine, nobody = handle.stream_id, "0" * 32
    assert running.find(mine, owner="ann").owner == "ann"
    assert running.find(mine).task_id == "t"

    async def follow(stream_id: str) -> None:
        async for _ in running.follow(stream_id, owner="bob"):
            raise AssertionError("a record of another's stream")

    async def told(asked: Any) -> str:
        try:
            found = asked()
            if asyncio.iscoroutine(found):
                await found
        except StreamNotFound as error:
            return str(error)
        raise AssertionError("another's stream was found")

    for look in (
        lambda it: running.find(it, owner="bob"),
        lambda it: running.log(it, owner="bob"),
        lambda it: running.snapshot(it, owner="bob"),
        lambda it: running.cancel(it, owner="bob"),
        lambda it: running.streams(before=it, owner="bob"),
        follow,
    ):
        assert (await told(lambda look=look: look(mine))).replace(mine, nobody) == await told(
            lambda look=look: look(nobody)
        )
    assert running.streams(owner="bob") == []


async def test_lists_are_by_owner_plan_state_and_page(running: MultiAgentScheduler) -> None:
    handles = [await running.submit(Task(str(n), "Hi"), owner="ann") for n in range(3)]
    for handle in handles:
        await handle.result()
    plan = await running.submit_plan([Task("p", "Hi")], owner="bob")
    await plan.result()
    assert [info.task_id for info in running.streams(owner="ann")] == ["0", "1", "2"]
    assert [info.task_id for info in running.streams(plan_id=plan.plan_id)] == ["p"]
    assert [info.task_id for info in running.streams(owner="ann", limit=2)] == ["1", "2"]
    before = handles[1].stream_id
    assert [info.task_id for info in running.streams(owner="ann", before=before, limit=2)] == ["0"]
    assert running.streams(states={"running"}) == []


async def test_an_id_that_is_taken_submits_nothing(running: MultiAgentScheduler) -> None:
    first = await running.submit(Task("t", "Hi"), stream_id="mine-1")
    assert first.stream_id == "mine-1"
    with pytest.raises(StreamExists, match="the stream 'mine-1' exists already"):
        await running.submit(Task("t", "Hi"), stream_id="mine-1")
    plan = await running.submit_plan([Task("a", "Hi"), Task("b", "Hi")], plan_id="p", stream_ids={"a": "mine-2"})
    assert plan.plan_id == "p" and plan.streams["a"] == "mine-2" and len(plan.streams["b"]) == 32
    with pytest.raises(StreamExists, match="the plan 'p' exists already"):
        await running.submit_plan([Task("c", "Hi")], plan_id="p")
    await plan.result()
    with pytest.raises(StreamExists, match="the plan 'p' exists already"):
        await running.submit_plan([Task("c", "Hi")], plan_id="p")
    with pytest.raises(StreamExists, match="the stream 'mine-1' exists already"):
        await running.submit_plan([Task("new", "Hi"), Task("old", "Hi")], stream_ids={"old": "mine-1"})
    await first.result()
    await running.wait_idle()
    assert sorted(info.task_id for info in running.streams()) == ["a", "b", "t"]


async def test_of_two_that_come_at_once_one_is_taken(running: MultiAgentScheduler) -> None:
    results = await asyncio.gather(
        *(running.submit(Task("t", "Hi"), stream_id="same") for _ in range(5)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Handle", *["StreamExists"] * 4]
    await running.wait_idle()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"plan_id": "a/b"}, "plan_id must be 1 to 128 letters"),
        ({"plan_id": ""}, "plan_id must be 1 to 128"),
        ({"stream_ids": {"a": 5}}, r"stream_ids\['a'\] must be 1 to 128"),
        ({"stream_ids": {"z": "x"}}, "names the task 'z', which the plan does not have"),
        ({"stream_ids": {"a": "x", "b": "x"}}, "the same stream for two tasks"),
        ({"stream_ids": ["x"]}, "stream_ids must map"),
        ({"owner": 5}, "owner must be a string"),
        ({"trace": {"a b": "c"}}, "'a b' cannot be the name of a header field"),
        ({"trace": {"traceparent": "x\r\nEvil: 1"}}, r"trace\['traceparent'\] must be printable ASCII"),
    ],
)
async def test_what_cannot_be_is_named(asked: dict[str, Any], message: str) -> None:
    async with MultiAgentScheduler({"a": ScriptedAgent("x")}, metrics=Metrics()) as scheduler:
        with pytest.raises(InvalidOption, match=message):
            await scheduler.submit_plan([Task("a", "Hi"), Task("b", "Hi")], **asked)
        with pytest.raises(PlanError, match="at least one"):
            await scheduler.submit_plan([])
        assert scheduler.streams() == []


async def test_a_submitted_plan_goes_on_without_readers_and_is_stopped_as_a_whole(
    running: MultiAgentScheduler,
) -> None:
    plan = await running.submit_plan([Task("a", "Hi"), Task("b", Template("${a}!"), depends_on=["a"])])
    results = await plan.result()
    assert results.success and list(results) == ["a", "b"]
    assert await plan.cancel() is False
    stopped = await running.submit_plan([Task("a", "Hi", agent="slow"), Task("b", Template("${a}!"), depends_on=["a"])])
    await asyncio.sleep(0)
    assert await stopped.cancel("enough") is True
    assert {name: result.state for name, result in (await stopped.result()).items()} == {
        "a": "cancelled",
        "b": "skipped",
    }


async def test_a_stop_waits_until_the_provider_is_closed(running: MultiAgentScheduler) -> None:
    slow = running.agents["slow"]
    assert isinstance(slow, ScriptedAgent)
    handle = await running.submit(Task("t", "Hi", agent="slow"), owner="ann")
    async for record in running.follow(handle.stream_id, owner="ann"):
        if record.seq == 2:
            break
    assert slow.running == 1
    assert await running.cancel(handle.stream_id, "enough", owner="ann") is True
    assert slow.running == 0
    assert await running.cancel(handle.stream_id, owner="ann") is False
    assert (await handle.result()).state == "cancelled"


async def test_a_snapshot_is_the_stream_as_it_stands(running: MultiAgentScheduler) -> None:
    handle = await running.submit(Task("t", "Hi", agent="slow"), owner="ann")
    async for record in running.follow(handle.stream_id):
        if record.seq == 2:
            break
    shown = await running.snapshot(handle.stream_id, owner="ann")
    assert (shown.state, shown.text, shown.seq, shown.success, shown.error) == ("running", "one ", 2, None, None)
    assert (shown.task_id, shown.plan_id, shown.owner, shown.ended_at) == ("t", None, "ann", None)
    await handle.cancel("enough")
    shown = await running.snapshot(handle.stream_id)
    assert (shown.state, shown.text, shown.seq, shown.success) == ("cancelled", "one ", 4, False)
    assert str(shown.error) == "cancelled: enough"
    assert shown.ended_at is not None


async def test_a_reader_may_be_paced(running: MultiAgentScheduler) -> None:
    handle = await running.submit(Task("t", "Hi"))
    records = [record async for record in running.follow(handle.stream_id, pace="10000/s")]
    assert isinstance(records[0], CallStarted) and isinstance(records[-1], Completed)
    with pytest.raises(InvalidOption, match="a pace is written"):
        _ = [record async for record in running.follow(handle.stream_id, pace="fast")]


async def test_calls_carry_their_owner_and_trace() -> None:
    agent = Asked("x")
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    async with MultiAgentScheduler({"a": agent}, metrics=Metrics()) as scheduler:
        await scheduler.execute_task(Task("t", "Hi"), owner="ann", trace=trace)
        await scheduler.run([Task("t", "Hi")], owner="bob")
        _ = [item async for item in scheduler.stream([Task("t", "Hi")], trace=trace)]
        _ = [item async for item in scheduler.execute_task_stream(Task("t", "Hi"), owner="eve", trace=trace)]
    assert [ctx.owner for ctx in agent.contexts] == ["ann", "bob", "", "eve"]
    assert [dict(ctx.trace) for ctx in agent.contexts] == [trace, {}, trace, trace]


async def test_resuming_leaves_alone_what_runs_here(running: MultiAgentScheduler) -> None:
    plan = await running.submit_plan(
        [Task("a", "Hi", agent="slow"), Task("b", Template("${a}!"), depends_on=["a"], on_failure="run", agent="a")]
    )
    assert await running.resume() == []
    await plan.cancel()
