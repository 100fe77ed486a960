"""An agent that is full holds up its own tasks and nobody else's, on a virtual clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from multi_agent_scheduler import Cached, EventBus, Limits, MultiAgentScheduler, Retry, Task
from multi_agent_scheduler.agents.base import Agent
from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.task import Timeouts
from multi_agent_scheduler.testing import run_virtual

PATIENT = Timeouts(queue=None, total=None)


async def minute(prompt: str) -> AsyncIterator[str]:
    await asyncio.sleep(60)
    yield prompt


async def at_once(prompt: str) -> AsyncIterator[str]:
    yield prompt


def scheduler(agents: Mapping[str, Any], limits: Mapping[str, Limits], **options: Any) -> MultiAgentScheduler:
    return MultiAgentScheduler(agents, limits=limits, event_bus=EventBus(), metrics=Metrics(), **options)


@pytest.mark.parametrize("limits", [Limits(concurrency=2), Limits(requests_per_minute=2)])
@pytest.mark.parametrize("max_running", [1000, 10])
def test_a_task_for_a_free_agent_starts_at_once_behind_thousands_that_wait(limits: Limits, max_running: int) -> None:
    async def main() -> None:
        async with scheduler({"a": minute, "b": at_once}, {"a": limits}, max_running=max_running) as running:
            for number in range(3000):
                await running.submit(Task(f"a{number}", "x", agent="a", timeouts=PATIENT, priority=9))
            await asyncio.sleep(90)
            began = time.monotonic()
            plan = [Task(f"b{number}", "x", agent="b") for number in range(50)]
            assert (await running.run(plan)).success
            assert (await running.execute_task(Task("b", "x", agent="b"))).success
            assert time.monotonic() == began

    run_virtual(main())


def test_tasks_of_one_plan_get_on_beside_those_of_an_agent_that_is_full() -> None:
    async def main() -> float:
        async with scheduler({"a": minute, "b": at_once}, {"a": Limits(concurrency=4)}, max_running=10) as running:
            plan = [Task(f"a{number}", "x", agent="a", timeouts=PATIENT) for number in range(40)]
            plan += [Task(f"b{number}", "x", agent="b") for number in range(40)]
            ended = {}
            began = time.monotonic()
            async for item in running.stream(plan):
                if item["done"]:
                    assert item["success"]
                    ended[item["task_id"]] = time.monotonic() - began
            assert max(ended[f"b{number}"] for number in range(40)) == 0
            return max(ended.values())

    assert run_virtual(main()) == 600  # and the full agent is kept busy all the time


def test_tasks_that_wait_to_try_again_hold_up_nobody_either() -> None:
    async def main() -> None:
        async def refuses(_: str) -> AsyncIterator[str]:
            raise agent_error(ErrorInfo("rate_limit_error", "slow down", retryable=True, retry_after=60.0))
            yield ""

        agents: dict[str, Agent | Any] = {"a": Retry(refuses, base=0), "b": at_once}
        async with scheduler(agents, {}, max_running=10) as running:
            for number in range(100):
                await running.submit(Task(f"a{number}", "x", agent="a", timeouts=PATIENT))
            await asyncio.sleep(1)
            began = time.monotonic()
            assert (await running.execute_task(Task("b", "x", agent="b"))).success
            assert time.monotonic() == began

    run_virtual(main())


def test_tasks_that_have_joined_a_request_under_way_hold_up_nobody_either() -> None:
    async def main() -> None:
        agents = {"a": Cached(minute), "b": at_once}
        async with scheduler(agents, {}, max_running=10) as running:
            joined = [await running.submit(Task(f"a{number}", "the same", agent="a")) for number in range(100)]
            await asyncio.sleep(1)
            began = time.monotonic()
            assert (await running.execute_task(Task("b", "x", agent="b"))).success
            assert time.monotonic() == began
            results = [await handle.result() for handle in joined]
            assert {result.text for result in results} == {"the same"}
            assert sum(not result.cached for result in results) == 1
            assert time.monotonic() == began + 59

    run_virtual(main())


def test_no_more_tasks_than_allowed_are_started_for_an_agent_that_is_full() -> None:
    calls = 0

    async def main() -> None:
        asked = asyncio.Event()

        async def counted(prompt: str) -> AsyncIterator[str]:
            nonlocal calls
            calls += 1
            await asked.wait()
            yield prompt

        async with scheduler({"a": counted}, {"a": Limits(concurrency=1)}, max_running=5) as running:
            plan = [Task(f"a{number}", "x", agent="a") for number in range(50)]
            result = asyncio.create_task(running.run(plan))
            await asyncio.sleep(1)
            assert calls == 1
            started = [task for task in asyncio.all_tasks() if task.get_name().startswith("stream ")]
            assert len(started) == 5
            asked.set()
            assert (await result).success

    run_virtual(main())
    assert calls == 50
