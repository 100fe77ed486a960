"""After a crash every accepted task reaches exactly one terminal, and nobody is shown a word twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import (
    TERMINALS,
    CallEnded,
    CallStarted,
    Cancelled,
    Completed,
    Interrupted,
    Record,
    Reset,
    Text,
)
from multi_agent_scheduler.recovery import recovery
from multi_agent_scheduler.scheduler import MultiAgentScheduler
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.store.memory import MemoryStore
from multi_agent_scheduler.task import Task, Template
from multi_agent_scheduler.testing import ScriptedAgent
from multi_agent_scheduler.views.summary import summarise

STARTED = CallStarted(1, "a")


class Survivor(MemoryStore):
    """A store that outlives its scheduler: :meth:`crash` takes every lease away."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, bytes] = {}

    async def submit(self, specs: Sequence[StreamSpec]) -> None:
        await super().submit(specs)
        self.kept |= {spec.stream_id: spec.body for spec in specs}

    def body(self, stream_id: str) -> bytes:
        return self.kept[stream_id]

    def crash(self) -> None:
        for info in self.streams():
            if info.state == "running":
                self._core.expire(info.stream_id)


def scheduler(store: Survivor, **agents: Any) -> MultiAgentScheduler:
    return MultiAgentScheduler(agents, store=store, metrics=Metrics())


async def log_of(running: MultiAgentScheduler, stream_id: str) -> list[Record]:
    return [record async for record in running.follow(stream_id)]


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def test_a_log_without_content_runs_again_and_its_calls_are_ended() -> None:
    left = recovery([STARTED], "off")
    assert left.terminal is None
    (ended,) = left.prelude
    assert isinstance(ended, CallEnded)
    assert (ended.call, ended.outcome, left.calls) == (1, "interrupted", 1)
    assert recovery([], "off").prelude == []


def test_content_ends_or_is_reset_as_the_policy_says() -> None:
    log = [STARTED, Text("half")]
    off = recovery(log, "off")
    assert isinstance(off.terminal, Interrupted)
    reset = recovery(log, "reset")
    assert reset.terminal is None
    assert isinstance(reset.prelude[-1], Reset)
    assert reset.prelude[-1].from_seq == 1
    again = recovery([*log, *reset.prelude], "off")  # what was reset does not stand: nothing was shown
    assert again.terminal is None


@pytest.fixture
def store() -> Survivor:
    return Survivor()


async def test_a_task_that_had_not_begun_runs_after_the_crash(
    store: Survivor, caplog: pytest.LogCaptureFixture
) -> None:
    first = scheduler(store, a=ScriptedAgent(asyncio.Event()))
    handle = await first.submit(Task("t", "Hi", "creative", options={"max_tokens": 5}))
    await settle()
    store.crash()
    agent = ScriptedAgent("whole")
    second = scheduler(store, a=agent)
    assert await second.resume() == [handle.stream_id]
    await second.wait_idle()
    records = await log_of(second, handle.stream_id)
    assert [type(record).__name__ for record in records] == [
        "CallStarted", "CallEnded", "CallStarted", "Text", "CallEnded", "Completed",
    ]  # fmt: skip
    assert [record.seq for record in records] == list(range(1, 7))
    assert [record.call for record in records if isinstance(record, CallStarted)] == [1, 2]
    assert agent.requests[0].max_tokens == 5
    await leave(second)
    assert "could not be finished" in caplog.text  # the first run found its lease gone


async def leave(second: MultiAgentScheduler) -> None:
    """End the runs that a crash has left without a lease, and close the scheduler that came after it."""
    runs = [task for task in asyncio.all_tasks() if task.get_name().startswith("stream ")]
    for task in runs:
        task.cancel()
    if runs:
        await asyncio.wait(runs)
    await second.aclose()


async def test_a_single_task_with_content_ends_as_interrupted(
    store: Survivor, caplog: pytest.LogCaptureFixture
) -> None:
    first = scheduler(store, a=ScriptedAgent("half", asyncio.Event()))
    handle = await first.submit(Task("t", "Hi"))
    await settle()
    store.crash()
    second = scheduler(store, a=ScriptedAgent("never"))
    await second.resume()
    await second.wait_idle()
    result = summarise(await log_of(second, handle.stream_id))
    assert (result.text, result.state, result.success) == ("half", "interrupted", False)
    await leave(second)


async def test_a_plan_goes_on_where_it_was(store: Survivor, caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()
    first = scheduler(store, done=ScriptedAgent("facts"), half=ScriptedAgent("half", gate), later=ScriptedAgent("x"))
    plan = [
        Task("facts", "1", agent="done"),
        Task("draft", Template("from ${facts}"), agent="half", depends_on=["facts"]),
        Task("end", Template("${facts} and ${draft}"), agent="later", depends_on=["facts", "draft"]),
    ]
    whole = asyncio.create_task(first.run(plan))
    await settle()
    streams = {info.task_id: info.stream_id for info in store.streams()}
    reader = [record async for record in until_text(first, streams["draft"])]
    store.crash()
    later = ScriptedAgent("the end")
    second = scheduler(store, done=ScriptedAgent("never"), half=ScriptedAgent("whole"), later=later)
    assert set(await second.resume()) == {streams["draft"], streams["end"]}
    await second.wait_idle()
    rest = [record async for record in second.follow(streams["draft"], after=reader[-1].seq)]
    draft = [*reader, *rest]
    assert [record.seq for record in draft] == list(range(1, len(draft) + 1))
    assert [record for record in draft if isinstance(record, Reset)] != []
    assert summarise(draft).text == "whole"
    assert sum(isinstance(record, TERMINALS) for record in draft) == 1
    assert later.requests[0].prompt == "facts and whole"
    gate.set()
    whole.cancel()
    with pytest.raises(BaseException):  # noqa: B017, PT011 - the old process's end is of no interest
        await whole
    await leave(second)


async def until_text(running: MultiAgentScheduler, stream_id: str) -> Any:
    async for record in running.follow(stream_id):
        yield record
        if isinstance(record, Text):
            return


async def test_a_stop_from_before_the_crash_still_counts(store: Survivor, caplog: pytest.LogCaptureFixture) -> None:
    first = scheduler(store, a=ScriptedAgent(asyncio.Event()))
    handle = await first.submit(Task("t", "Hi"))
    await settle()
    store.crash()
    store.cancel(handle.stream_id, "not needed")
    agent = ScriptedAgent("never")
    second = scheduler(store, a=agent)
    await second.resume()
    await second.wait_idle()
    assert store.info(handle.stream_id).state == "cancelled"
    assert agent.requests == []
    await leave(second)


@pytest.mark.parametrize("plan", [False, True])
async def test_a_stop_counts_after_a_crash_in_the_middle_and_what_was_said_stays(store: Survivor, plan: bool) -> None:
    first = scheduler(store, a=ScriptedAgent("half of ", asyncio.Event()))
    task = Task("t", "Hi")
    stream_id = (await first.submit_plan([task])).streams["t"] if plan else (await first.submit(task)).stream_id
    async for _ in until_text(first, stream_id):
        pass
    store.crash()
    assert store.cancel(stream_id, "not needed")
    agent = ScriptedAgent("never")
    second = scheduler(store, a=agent)
    await second.resume()
    await second.wait_idle()
    log = await log_of(second, stream_id)
    assert isinstance(log[-1], Cancelled)
    assert (log[-1].reason, summarise(log).text) == ("not needed", "half of ")
    assert agent.requests == []
    await leave(second)


async def test_a_task_whose_agent_is_gone_fails_by_name(store: Survivor) -> None:
    await store.submit([await spec("s", Task("t", "Hi"), "gone")])
    second = scheduler(store, a=ScriptedAgent("never"))
    await second.resume()
    await second.wait_idle()
    result = summarise(await log_of(second, "s"))
    assert result.state == "failed"
    assert "the agent 'gone'" in str(result.error)
    await second.aclose()


async def spec(stream_id: str, task: Task, agent: str) -> StreamSpec:
    from multi_agent_scheduler.submission import Submission, pack

    return StreamSpec(stream_id, task.id, body=pack(Submission(task, agent)))


async def test_resets_of_an_agent_count_from_where_its_run_began(store: Survivor) -> None:
    await store.submit([await spec("s", Task("t", "Hi"), "a")])
    store._core.expire(store._core.claim("s").stream_id)
    lease = await store.claim("s")
    store.append(lease, [STARTED])
    store.crash()
    second = scheduler(store, a=ScriptedAgent("wrong", [Reset(2, "another try"), Text("right")], [Completed("stop")]))
    await second.resume()
    await second.wait_idle()
    records = await log_of(second, "s")
    (reset,) = (record for record in records if isinstance(record, Reset))
    wrong = next(record for record in records if isinstance(record, Text))
    assert reset.from_seq == wrong.seq
    assert summarise(records).text == "right"
    await second.aclose()
