"""Budgets and the cache of a scheduler: what is used is counted once, and nothing is used beyond what may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from multi_agent_scheduler.agents import Failover, FunctionAgent, Hedge
from multi_agent_scheduler.agents.cached import Cache
from multi_agent_scheduler.errors import BudgetExceeded, ErrorInfo, InvalidOption, InvalidRequest, agent_error
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import CallEnded, CallStarted, Completed, Failed, Text, Usage
from multi_agent_scheduler.scheduler import Limits, MultiAgentScheduler
from multi_agent_scheduler.scheduling.budget import Price
from multi_agent_scheduler.task import Budget, Task, Template
from multi_agent_scheduler.testing import ScriptedAgent

PRICES = {"m": Price(input=1_000_000.0, output=1_000_000.0)}  # a dollar a token
USED = Usage(input_tokens=3, output_tokens=2)
WORDS = ["word " * 4] * 50  # five tokens each, as they are estimated


def one(agent: Any, **options: Any) -> MultiAgentScheduler:
    return MultiAgentScheduler({"a": agent}, metrics=Metrics(), **options)


async def test_an_overrun_is_cut_within_the_batch_and_what_came_is_kept() -> None:
    agent = ScriptedAgent(*WORDS)
    async with one(agent) as scheduler:
        result = await scheduler.execute_task(Task("t", "Hi", budget=Budget(tokens=23)))
        assert (result.state, result.text) == ("failed", "word " * 4 * 5)
        assert result.error is not None
        assert str(result.error) == "budget_exceeded: task 't' has used 26 tokens, more than its budget of 23"
        assert isinstance(agent_error(result.error), BudgetExceeded)
        assert (agent.running, agent.closed) == (0, 1)
        records = [record async for record in scheduler.follow(str(result.stream_id))]
    assert [type(record) for record in records[-2:]] == [CallEnded, Failed]
    assert isinstance(records[-2], CallEnded) and records[-2].outcome == "failed"


async def test_what_is_complete_stays_complete() -> None:
    last = [Text("ok"), Usage(input_tokens=30, output_tokens=20), Completed("stop")]
    async with one(ScriptedAgent(last)) as scheduler:
        assert (await scheduler.execute_task(Task("t", "Hi", budget=Budget(tokens=10)))).success


async def test_a_plan_that_has_used_its_budget_begins_no_further_call() -> None:
    agent = ScriptedAgent("ok", USED)
    plan = [Task("a", "Hi"), Task("b", "Hi", depends_on=["a"]), Task("c", "Hi", depends_on=["b"])]
    async with one(agent) as scheduler:
        results = await scheduler.run(plan, budget=Budget(tokens=10))
        states = {name: (result.state, len(agent.requests)) for name, result in results.items()}
        assert states == {"a": ("completed", 2), "b": ("completed", 2), "c": ("failed", 2)}
        assert str(results["c"].error) == "budget_exceeded: the plan has used up its budget of 10 tokens"
        items = [item async for item in scheduler.stream(plan, budget=Budget(tokens=5))]
        ends = {item["task_id"]: item["state"] for item in items if item["done"]}
        assert ends == {"a": "completed", "b": "failed", "c": "skipped"}


async def test_an_owner_has_one_budget_for_everything_and_nobody_else_pays() -> None:
    async with one(ScriptedAgent("ok", USED), budgets={"ann": Budget(tokens=9)}) as scheduler:
        states = [(await scheduler.execute_task(Task("t", "Hi"), owner="ann")).state for _ in range(3)]
        assert states == ["completed", "failed", "failed"]
        assert (await scheduler.execute_task(Task("t", "Hi"), owner="bob")).success


async def test_costs_are_known_or_they_are_none() -> None:
    agents = {"m": ScriptedAgent("ok", USED, model="m"), "x": ScriptedAgent("ok", USED, model="x")}
    async with MultiAgentScheduler(agents, metrics=Metrics(), prices=PRICES) as scheduler:
        assert (await scheduler.execute_task(Task("t", "Hi"))).cost == 5.0
        assert (await scheduler.execute_task(Task("t", "Hi"), "x")).cost is None
        assert (await scheduler.run([Task("a", "Hi"), Task("b", "Hi")])).cost == 10.0
        assert (await scheduler.run([Task("a", "Hi"), Task("b", "Hi", agent="x")])).cost is None


async def test_losers_and_superseded_calls_are_paid_for() -> None:
    broken = ScriptedAgent("half", USED, agent_error(ErrorInfo("server_error", "gone")), name="broken", model="m")
    agent = Failover(broken, ScriptedAgent("whole", USED, name="good", model="m"), policy="reset")
    async with one(agent, prices=PRICES) as scheduler:
        results = await scheduler.run([Task("t", "Hi")])
        assert results["t"].text == "whole"
        assert results.cost == 10.0


async def test_a_cost_that_cannot_be_known_is_refused_before_anything_runs() -> None:
    agent = Hedge(ScriptedAgent("ok", model="m"), ScriptedAgent("ok", model="x"), after=1.0)
    async with one(agent, prices=PRICES, budgets={"ann": Budget(cost=1.0)}) as scheduler:
        for asked in (
            scheduler.execute_task(Task("t", "Hi", budget=Budget(cost=1.0))),
            scheduler.run([Task("t", Template("Hi"))], budget=Budget(cost=1.0)),
            scheduler.execute_task(Task("t", "Hi"), owner="ann"),
        ):
            with pytest.raises(InvalidOption, match="the price of model 'x' is not known"):
                await asked
        assert scheduler.streams() == []


async def test_a_budget_of_money_is_kept() -> None:
    async with one(ScriptedAgent(*WORDS, model="m"), prices=PRICES) as scheduler:
        result = await scheduler.execute_task(Task("t", "Hi", budget=Budget(cost=20.0)))
    assert result.state == "failed"
    assert result.error is not None and "more than its budget of $20.00" in result.error.message


async def test_what_a_failover_may_not_begin_ends_it() -> None:
    used_up = ScriptedAgent("x", USED, agent_error(ErrorInfo("server_error", "gone")), name="first")
    second = ScriptedAgent("y", name="second")
    async with one(Failover(used_up, second, policy="reset")) as scheduler:
        result = await scheduler.execute_task(Task("t", "Hi", budget=Budget(tokens=5)))
    assert result.error is not None and result.error.code == "budget_exceeded"
    assert second.requests == []


@pytest.mark.parametrize("wrong", [{"budgets": {"a": 5}}, {"budgets": 5}, {"prices": {"m": 1.0}}, {"cache": {}}])
def test_what_is_no_budget_price_or_cache_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        one(ScriptedAgent("x"), **wrong)


async def test_a_tasks_budget_must_be_one() -> None:
    async with one(ScriptedAgent("x")) as scheduler:
        with pytest.raises(InvalidRequest, match="budget must be a Budget"):
            await scheduler.execute_task(Task("t", "Hi", budget=5))  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="budget must be a Budget"):
            await scheduler.run([Task("t", "Hi")], budget=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="tokens must be a whole number"):
        Budget(tokens=0)


async def test_what_was_used_before_a_restart_counts(tmp_path: Path) -> None:
    pytest.importorskip("apsw", reason="needs apsw")
    options: dict[str, Any] = {"store": f"sqlite:///{tmp_path / 'mas.db'}", "budgets": {"ann": Budget(tokens=10)}}
    async with one(ScriptedAgent("ok", USED), **options) as scheduler:
        assert (await scheduler.execute_task(Task("t", "Hi"), owner="ann")).success
    async with one(ScriptedAgent("ok", USED), **options) as scheduler:
        states = [(await scheduler.execute_task(Task("t", "Hi"), owner="ann")).state for _ in range(2)]
    assert states == ["completed", "failed"]


# --- the cache ----------------------------------------------------------------------------------------------------


async def test_a_hundred_that_ask_the_same_are_one_call() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent("one ", gate, "two", USED, model="m")
    cache = Cache()
    async with one(agent, cache=cache, prices=PRICES) as scheduler:
        handles = [await scheduler.submit(Task(str(n), "Hi")) for n in range(100)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert await handles[50].cancel("enough") is True
        gate.set()
        results = [await handle.result() for handle in handles]
        assert len(agent.requests) == 1
        left = [result for at, result in enumerate(results) if at != 50]
        assert {result.text for result in left} == {"one two"}
        assert sorted(result.cached for result in left) == [False, *[True] * 98]
        assert sum(result.cost or 0 for result in left) == 5.0
        assert results[50].state == "cancelled"
        counters = scheduler._metrics.get_all_stats()["counters"]
        assert (counters["cache.hits"], counters["cache.misses"]) == (99, 1)


async def test_a_hit_says_so_and_costs_nothing_of_a_budget() -> None:
    async with one(FunctionAgent(_echo, name="inner"), cache=Cache(), limits={"a": Limits(concurrency=1)}) as scheduler:
        first = [item async for item in scheduler.execute_task_stream(Task("t", "Hi there", budget=Budget(tokens=50)))]
        again = [item async for item in scheduler.execute_task_stream(Task("t", "Hi there", budget=Budget(tokens=1)))]
        assert "cached" not in first[-1] and again[-1]["cached"] is True
        assert again[-1]["result"] == first[-1]["result"] == "Hi there"
        records = [record async for record in scheduler.follow(again[-1]["stream_id"])]
    assert isinstance(records[0], CallStarted)
    assert (records[0].cached, records[0].agent) == (True, "a")


async def test_what_one_owner_was_told_is_not_another_s() -> None:
    agent = ScriptedAgent("x")
    async with one(agent, cache=Cache()) as scheduler:
        for owner in ("ann", "bob", "ann"):
            await scheduler.execute_task(Task("t", "Hi"), owner=owner)
    assert len(agent.requests) == 2


async def _echo(prompt: str, **options: Any) -> AsyncIterator[str]:
    yield prompt[:2]
    yield prompt[2:]
