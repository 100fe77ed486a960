"""Plans: dependencies, templates, skips, stops, and one live stream of them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from multi_agent_scheduler.agents import Cache, Failover, Retry
from multi_agent_scheduler.agents.function import FunctionAgent
from multi_agent_scheduler.errors import (
    DependencyCycle,
    DuplicateTask,
    ErrorInfo,
    InvalidOption,
    InvalidRequest,
    PlanError,
    StoreClosed,
    UnknownAgent,
    UnknownDependency,
    agent_error,
)
from multi_agent_scheduler.events import EventBus
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import Completed, Record, Reset, Usage
from multi_agent_scheduler.scheduler import MultiAgentScheduler
from multi_agent_scheduler.store.memory import MemoryStore
from multi_agent_scheduler.task import Task, Template
from multi_agent_scheduler.testing import ScriptedAgent


async def echo(prompt: str) -> AsyncIterator[str]:
    for word in prompt.split(" "):
        yield word + " "


async def fail(prompt: str) -> AsyncIterator[str]:
    yield f"half of {prompt}"
    raise RuntimeError


class Gates:
    """An agent whose answers wait until they are let go; it notes what began, in order."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self._gates: dict[str, asyncio.Event] = {}

    def gate(self, prompt: str) -> asyncio.Event:
        return self._gates.setdefault(prompt, asyncio.Event())

    async def answer(self, prompt: str) -> AsyncIterator[str]:
        self.began.append(prompt)
        await self.gate(prompt).wait()
        yield prompt


def scheduler(**agents: Any) -> MultiAgentScheduler:
    agents = agents or {"echo": FunctionAgent(echo), "fail": FunctionAgent(fail)}
    return MultiAgentScheduler(agents, metrics=Metrics(), event_bus=EventBus())


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_a_template_gets_what_its_dependencies_wrote() -> None:
    async with scheduler() as running:
        results = await running.run(
            [
                Task("draft", Template("Write from: ${facts}(end) for $$5"), depends_on=["facts"]),
                Task("facts", "bees hum ${draft} $$"),
            ]
        )
    assert list(results) == ["draft", "facts"]
    assert results["facts"].text == "bees hum ${draft} $$ "
    assert results["draft"].text == "Write from: bees hum ${draft} $$ (end) for $5 "
    assert results.success
    assert [span.task_id for span in results.timeline] == ["facts", "draft"]
    assert results.timeline[0].end <= results.timeline[1].start


async def test_a_task_starts_the_moment_its_last_parent_ends() -> None:
    gates = Gates()
    async with scheduler(a=FunctionAgent(gates.answer)) as running:
        plan = [
            Task("slow", "slow"),
            Task("quick", "quick"),
            Task("child of quick", "child", depends_on=["quick"]),
            Task("child of both", "both", depends_on=["quick", "slow"]),
        ]
        whole = asyncio.create_task(running.run(plan))
        await settle()
        assert gates.began == ["slow", "quick"]
        gates.gate("quick").set()
        await settle()
        assert gates.began == ["slow", "quick", "child"]  # no barrier: slow still runs
        for prompt in ("child", "slow", "both"):
            gates.gate(prompt).set()
        assert (await whole).success


async def test_what_depends_on_a_failure_is_skipped_unless_it_wants_to_see_it() -> None:
    async with scheduler() as running:
        results = await running.run(
            [
                Task("bad", "x", agent="fail"),
                Task("child", "y", depends_on=["bad"]),
                Task("grandchild", "z", depends_on=["child"]),
                Task("undertaker", Template("it said: ${bad}"), depends_on=["bad"], on_failure="run"),
                Task("stranger", "w"),
            ]
        )
    states = {task_id: result.state for task_id, result in results.items()}
    assert states == {
        "bad": "failed",
        "child": "skipped",
        "grandchild": "skipped",
        "undertaker": "completed",
        "stranger": "completed",
    }
    assert results["child"].error is not None
    assert "'bad', which it depends on, failed" in results["child"].error.message
    assert "through 'child'" in str(results["grandchild"].error)
    assert results["undertaker"].text == "it said: half of x "
    assert not results.success


async def test_a_skipped_task_has_a_stream_with_one_terminal() -> None:
    async with scheduler() as running:
        results = await running.run([Task("bad", "x", agent="fail"), Task("child", "y", depends_on=["bad"])])
        records = [record async for record in running.follow(str(results["child"].stream_id))]
    assert [type(record).__name__ for record in records] == ["Skipped"]
    assert records[0].seq == 1


async def test_a_plan_is_one_live_stream_of_the_guides_dicts() -> None:
    gates = Gates()
    async with scheduler(a=FunctionAgent(gates.answer), fail=FunctionAgent(fail)) as running:
        plan = [
            Task("one", "1"),
            Task("two", "2"),
            Task("bad", "3", agent="fail"),
            Task("after", "4", depends_on=["bad"]),
        ]
        items: list[dict[str, Any]] = []
        gates.gate("2").set()
        async for item in running.stream(plan):
            items.append(item)
            if item["task_id"] == "two" and item["done"]:
                assert not any(other["task_id"] == "one" for other in items)
                gates.gate("1").set()
    last = {item["task_id"]: item for item in items if item["done"]}
    assert {task_id: item["success"] for task_id, item in last.items()} == {
        "one": True, "two": True, "bad": False, "after": False,
    }  # fmt: skip
    assert last["after"]["state"] == "skipped"
    for task_id, final in last.items():
        mine = [item for item in items if item["task_id"] == task_id]
        assert mine[-1] is final
        assert "".join(item["chunk"] for item in mine[:-1]) == final["result"]
        assert {item["stream_id"] for item in mine} == {final["stream_id"]}
        seqs = [item["seq"] for item in mine]
        assert seqs == sorted(seqs)
        assert list(mine[0])[:3] == ["task_id", "chunk", "done"] or len(mine) == 1


async def test_leaving_the_stream_stops_the_plan() -> None:
    agent = ScriptedAgent("x", asyncio.Event())
    async with scheduler(a=agent) as running:
        stream = running.stream([Task("one", "1"), Task("two", "2", depends_on=["one"])])
        assert (await anext(stream))["chunk"] == "x"
        await stream.aclose()  # type: ignore[attr-defined]
        assert agent.closed == 1
        assert [info.state for info in running.streams()] == ["cancelled", "skipped"]


async def test_cancelling_the_one_who_waits_stops_the_plan() -> None:
    agent = ScriptedAgent("x", asyncio.Event())
    async with scheduler(a=agent) as running:
        whole = asyncio.create_task(running.run([Task("one", "1"), Task("two", "2", depends_on=["one"])]))
        await settle()
        whole.cancel()
        with pytest.raises(asyncio.CancelledError):
            await whole
        assert agent.closed == 1


async def test_usage_is_the_sum_of_all_tasks() -> None:
    script: list[Record] = [Usage(input_tokens=3, output_tokens=4), Completed("stop")]
    async with scheduler(a=ScriptedAgent("x", script)) as running:
        results = await running.run([Task("one", "1"), Task("two", "2")])
    assert results.usage is not None
    assert (results.usage.input_tokens, results.usage.output_tokens) == (6, 8)


async def test_a_higher_priority_runs_first() -> None:
    gates = Gates()
    running = MultiAgentScheduler({"a": FunctionAgent(gates.answer)}, max_running=1, metrics=Metrics())
    plan = [
        Task("first", "first"),
        Task("low", "low"),
        Task("high", "high", priority=5),
        Task("middle", "middle", priority=1),
    ]
    for task in plan:
        gates.gate(task.id).set()
    assert (await running.run(plan)).success
    assert gates.began == ["first", "high", "middle", "low"]
    await running.aclose()


async def test_a_prompt_that_is_empty_once_it_is_filled_fails_its_task_alone() -> None:
    async with scheduler(a=ScriptedAgent(name="a")) as running:
        results = await running.run([Task("one", "1"), Task("two", Template("${one}"), depends_on=["one"])])
    assert results["one"].state == "completed"
    assert results["two"].state == "failed"
    assert "the prompt is empty" in str(results["two"].error)


async def test_a_broken_plan_is_refused_before_anything_runs() -> None:
    agent = ScriptedAgent("x", name="a")
    async with scheduler(a=agent) as running:
        for plan, error, message in [
            ([Task("a", "1", depends_on=["b"])], UnknownDependency, "'a' depends on 'b'"),
            ([Task("a", "1", depends_on=["a"])], DependencyCycle, "a -> a"),
            ([Task("a", "1", depends_on=["b"]), Task("b", "1", depends_on=["a"])], DependencyCycle, "a -> b -> a"),
            ([Task("a", "1"), Task("a", "2")], DuplicateTask, "two tasks have the id 'a'"),
            ([Task("a", "1"), Task("b", Template("${a}"))], InvalidRequest, "'a' is not among its dependencies"),
            ([Task("a", "1", agent="nobody")], UnknownAgent, "unknown agent 'nobody'"),
            ([Task("a", " ")], InvalidRequest, "the prompt is empty"),
            ([Task("a", "1", priority=-1)], InvalidRequest, "priority must be a whole number"),
            ([], PlanError, "at least one"),
            (["a"], PlanError, "not 'a'"),
            (Task("a", "1"), PlanError, "put the one task into a list"),
        ]:
            with pytest.raises(error, match=message):
                await running.run(plan)  # type: ignore[arg-type]
        with pytest.raises(PlanError, match="'a' depends on 'b': hand all of them"):
            await running.execute_task(Task("a", "1", depends_on=["b"]))
        assert agent.requests == []
        assert running.streams() == []


async def test_a_reset_after_output_ends_the_pieces_of_its_task_alone() -> None:
    gate = asyncio.Event()
    agents = {"a": ScriptedAgent("wrong", gate, Reset(1, "again"), "ri", "ght"), "b": ScriptedAgent(gate, "fi", "ne")}
    async with scheduler(**agents) as running:
        items = []
        async for item in running.stream([Task("one", "1", agent="a"), Task("two", "1", agent="b")]):
            items.append(item)
            gate.set()
        shown = [(item["task_id"], item["chunk"]) for item in items if not item["done"]]
        assert sorted(shown) == [("one", "wrong"), ("two", "fi"), ("two", "ne")]
        last = {it["task_id"]: it for it in items if it["done"]}
        assert (last["one"]["success"], last["one"]["result"], last["one"]["reset"]) == (True, "right", True)
        assert (last["two"]["success"], last["two"]["result"], "reset" in last["two"]) == (True, "fine", False)


async def test_a_large_plan_runs() -> None:
    async def nothing(prompt: str) -> AsyncIterator[str]:
        yield prompt[:1]

    running = MultiAgentScheduler({"a": FunctionAgent(nothing)}, max_running=50, metrics=Metrics())
    plan = [Task("0", "x"), *(Task(str(n), "x", depends_on=[str(n // 2)]) for n in range(1, 2000))]
    results = await running.run(plan)
    assert len(results) == 2000
    assert results.success
    await running.aclose()


async def test_a_store_that_gives_up_ends_the_plan_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    gate = asyncio.Event()
    for live in (False, True):
        running = MultiAgentScheduler({"a": ScriptedAgent("x", gate, "y")}, store=store, metrics=Metrics())

        async def read(running: MultiAgentScheduler = running, live: bool = live) -> None:
            plan = [Task("one", "1"), Task("two", "2", depends_on=["one"])]
            if live:
                async for _ in running.stream(plan):
                    pass
            else:
                await running.run(plan)

        reading = asyncio.create_task(read())
        await settle()
        await store.aclose()
        gate.set()
        with pytest.raises(StoreClosed):
            await reading
        store, gate = MemoryStore(), asyncio.Event()
    assert "could not be finished" in caplog.text


async def test_a_task_that_waits_for_its_turn_can_be_stopped_at_once() -> None:
    busy = ScriptedAgent("x", asyncio.Event())
    async with MultiAgentScheduler({"a": busy}, max_running=1, metrics=Metrics()) as running:
        first = await running.submit(Task("first", "1"))
        second = await running.submit(Task("second", "2"))
        third = await running.submit(Task("third", "3"))
        assert await second.cancel("not needed")
        assert (await second.result()).state == "cancelled"
        assert await first.cancel()
        await settle()
        assert busy.running == 1  # the third has its turn now
        assert await third.cancel()
        assert len(busy.requests) == 2


@pytest.mark.parametrize("kind", ["failover", "retry"])
async def test_an_answer_that_breaks_off_in_a_plan_is_begun_anew_and_elsewhere_it_stands(kind: str) -> None:
    asked: list[str] = []

    async def breaks_once(prompt: str) -> AsyncIterator[str]:
        asked.append(prompt)
        yield "half"
        if len(asked) == 1:
            raise agent_error(ErrorInfo("overloaded_error", "overloaded", retryable=True))
        yield " and half"

    agent = Failover(breaks_once, breaks_once) if kind == "failover" else Retry(breaks_once, base=0)
    async with scheduler(a=agent) as running:
        result = (await running.run([Task("one", "x")]))["one"]
        records = [record async for record in running.follow(str(result.stream_id))]
        assert result.text == "half and half" and any(isinstance(record, Reset) for record in records)
        asked.clear()
        alone = await running.execute_task(Task("one", "x"))
        assert (alone.state, alone.text, len(asked)) == ("failed", "half", 1)


async def test_a_policy_that_was_chosen_holds_in_plans() -> None:
    async with scheduler(a=Failover(fail, echo, policy="off")) as running:
        result = (await running.run([Task("one", "x")]))["one"]
        assert (result.state, result.text) == ("failed", "half of x")


async def test_a_mistake_in_a_task_of_many_is_told_with_its_name() -> None:
    async with scheduler(a=ScriptedAgent("x")) as running:
        plan = [Task("one", "x"), Task("two", "y", options={"max_tokens": "lots"})]
        with pytest.raises(InvalidOption, match="task 'two': max_tokens must be a whole number, not 'lots'"):
            await running.run(plan)
        with pytest.raises(InvalidRequest, match=r"task 'two': messages\[0\]"):
            await running.run([Task("one", "x"), Task("two", [{"role": "user"}])])


async def test_what_the_cache_answers_is_not_used_again() -> None:
    metrics = Metrics()
    usage = Usage(input_tokens=30, output_tokens=20)
    agent = ScriptedAgent("one", usage, "two", Completed("stop"))
    async with MultiAgentScheduler({"it": agent}, cache=Cache(), metrics=metrics, event_bus=EventBus()) as s:
        made = await s.run([Task("a", "same")])
        assert made.usage is not None
        assert (made.usage.total_tokens, made.usage.cached) == (50, False)
        mixed = await s.run([Task("hit", "same"), Task("new", "other")])
        assert (mixed["hit"].cached, mixed["new"].cached) == (True, False)
        assert mixed["hit"].usage is not None
        assert (mixed["hit"].usage.total_tokens, mixed["hit"].usage.cached) == (50, True)
        assert mixed.usage is not None
        assert (mixed.usage.total_tokens, mixed.usage.cached) == (50, False)
        hits = await s.run([Task("x", "same"), Task("y", "other")])
        assert hits.usage is not None
        assert (hits.usage.total_tokens, hits.cost) == (0, 0.0)
    assert metrics.get_all_stats()["histograms"]["stream.output_tokens"]["count"] == 2
