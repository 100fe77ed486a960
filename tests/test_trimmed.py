"""A scheduler whose store has trimmed logs, or removes streams: plans go on, budgets count, and readers are told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from multi_agent_scheduler.errors import LogTrimmed
from multi_agent_scheduler.records import Usage
from multi_agent_scheduler.scheduler import MultiAgentScheduler
from multi_agent_scheduler.store.base import Log
from multi_agent_scheduler.store.sqlite import SQLiteStore
from multi_agent_scheduler.task import Budget, Task, Template
from multi_agent_scheduler.testing import ScriptedAgent
from tests.store.files import until, using


async def trimmed(path: Path, *task_ids: str) -> None:
    """Trim the logs of all streams that have ended, these tasks' among them."""
    async with using(path, keep_logs=0) as store:
        await until(lambda: {info.task_id for info in store.streams() if info.trimmed} >= set(task_ids))


async def test_a_plan_goes_on_with_what_trimmed_parents_said(tmp_path: Path) -> None:
    url, hanging = f"sqlite:///{tmp_path}/a.db", ScriptedAgent(asyncio.Event())
    first = ScriptedAgent("The ", "facts", Usage(input_tokens=3, output_tokens=2))
    plan = [
        Task("facts", "Find", agent="first"),
        Task("page", Template("Use ${facts}!"), agent="second", depends_on=["facts"]),
    ]
    async with MultiAgentScheduler({"first": first, "second": hanging}, store=url) as scheduler:
        await scheduler.submit_plan(plan, budget=Budget(tokens=1000))
        await until(lambda: bool(hanging.requests))
        await scheduler.suspend()
    await trimmed(tmp_path / "a.db", "facts")
    second = ScriptedAgent("A page")
    async with MultiAgentScheduler({"first": first, "second": second}, store=url) as scheduler:
        assert len(await scheduler.resume()) == 1
        await scheduler.wait_idle()
        texts = [(await scheduler.snapshot(info.stream_id)).text for info in scheduler.streams()]
        assert texts == ["The facts", "A page"]
        facts = scheduler.streams()[0]
        with pytest.raises(LogTrimmed, match="was trimmed: its records are gone, but its snapshot"):
            await anext(scheduler.follow(facts.stream_id))
        assert [record async for record in scheduler.follow(facts.stream_id, facts.seq)] == []
    (request,) = second.requests
    assert request.messages[-1].parts[0].text == "Use The facts!"  # type: ignore[union-attr]
    assert len(first.requests) == 1


@pytest.mark.parametrize("reported", [True, False])
async def test_what_trimmed_streams_used_counts_against_their_owners_budget(tmp_path: Path, reported: bool) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    said: list[Any] = ["word " * 4] * 4 + ([Usage(input_tokens=30, output_tokens=20)] if reported else [])
    async with MultiAgentScheduler({"a": ScriptedAgent(*said)}, store=url) as scheduler:
        assert (await scheduler.execute_task(Task("t", "Hi"), owner="ann")).success
    before = await used(url)
    await trimmed(tmp_path / "a.db", "t")
    assert await used(url) == before


async def test_a_stream_that_is_removed_while_its_owners_account_is_made_up_does_not_count(tmp_path: Path) -> None:
    now, budgets = [1000.0], {"ann": Budget(tokens=100)}
    async with MultiAgentScheduler(
        {"a": ScriptedAgent("x", Usage(output_tokens=60))}, store=SQLiteStore(tmp_path / "a.db", clock=lambda: now[0])
    ) as scheduler:
        for name in ("old", "new"):
            assert (await scheduler.execute_task(Task(name, "Hi"), owner="ann")).success
            now[0] += 1000
    store = _Removing(tmp_path / "a.db", keep_seconds=1500, clock=lambda: now[0])
    async with MultiAgentScheduler({"a": ScriptedAgent("y")}, store=store, budgets=budgets) as scheduler:
        assert (await scheduler.execute_task(Task("next", "Hi"), owner="ann")).success
        assert [info.task_id for info in store.streams()] == ["new", "next"]


class _Removing(SQLiteStore):
    """What is old enough is removed when it is about to be read."""

    def log(self, stream_id: str) -> Log:
        deadline = time.monotonic() + 20
        while self.info(stream_id).task_id == "old":
            assert time.monotonic() < deadline
            time.sleep(0.01)  # the writer's thread removes it
        return super().log(stream_id)


async def used(url: str) -> str:
    """What the error of an owner whose budget is used up says."""
    async with MultiAgentScheduler(
        {"a": ScriptedAgent("x")}, store=url, budgets={"ann": Budget(tokens=9)}
    ) as scheduler:
        result = await scheduler.execute_task(Task("next", "Hi"), owner="ann")
        assert result.error is not None and result.error.code == "budget_exceeded"
        return result.error.message
