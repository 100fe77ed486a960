"""What scheduling itself costs: plans of tasks that do nothing, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from multi_agent_scheduler import MultiAgentScheduler, Task
from multi_agent_scheduler.agents.base import Agent, Batch
from multi_agent_scheduler.agents.context import Context
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import Completed
from multi_agent_scheduler.request import Request
from multi_agent_scheduler.testing import VirtualClock, run_virtual

from .figures import Budget, Report, Row, median
from .rounds import ROOT, Setting, turns

__all__ = ["graph", "scheduling"]

_SIZES: Final = (50_000, 100_000)
_SHAPES: Final = ("chain", "fan-out", "random")
_STOPPED: Final = 10_000  # streams that are cancelled


class _Nothing(Agent):
    """Ends at once."""

    name = "nothing"

    async def batches(self, request: Request, ctx: Context) -> AsyncGenerator[Batch, None]:  # noqa: ARG002
        yield (Completed("stop"),)


class _Sleeper(Agent):
    """Takes as many seconds as the prompt says."""

    name = "sleeper"

    async def batches(self, request: Request, ctx: Context) -> AsyncGenerator[Batch, None]:  # noqa: ARG002
        await asyncio.sleep(float(request.prompt))
        yield (Completed("stop"),)


async def _endless(prompt: str) -> AsyncGenerator[str, None]:
    yield prompt
    await asyncio.Event().wait()


def graph(shape: str, size: int) -> list[tuple[int, ...]]:
    """The parents of each task; the graph of "random" has two for each, drawn from those before it."""
    chance = random.Random(1)
    if shape == "flat":
        return [()] * size
    if shape == "chain":
        return [(), *((at - 1,) for at in range(1, size))]
    if shape == "fan-out":
        return [(), *(((0,),) * (size - 1))]
    return [tuple({chance.randrange(at) for _ in range(2)}) if at else () for at in range(size)]


def _plan(parents: Sequence[tuple[int, ...]], prompts: Sequence[str]) -> list[Task]:
    return [Task(str(at), prompts[at], depends_on=tuple(map(str, above))) for at, above in enumerate(parents)]


async def _cpu(shape: str, size: int) -> float:
    tasks = _plan(graph(shape, size), ["x"] * size)
    async with MultiAgentScheduler({"nothing": _Nothing()}, metrics=Metrics()) as scheduler:
        began = time.process_time()
        results = await scheduler.run(tasks)
        used = time.process_time() - began
    if not results.success:
        raise RuntimeError(f"the plan {shape} of {size} tasks did not succeed")
    return used


async def _stopped() -> dict[str, float]:
    """Twice as many streams as needed, so that what grows with their number shows in the second half."""
    found = []
    async with MultiAgentScheduler({"a": _endless}, metrics=Metrics()) as scheduler:
        for _ in range(2):
            for _ in range(_STOPPED // 500):
                handles = [await scheduler.submit(Task(str(at), "Hi")) for at in range(500)]
                for _ in range(20):
                    await asyncio.sleep(0)
                await asyncio.gather(*(handle.cancel() for handle in handles))
            found.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        left = len(asyncio.all_tasks()) - 1
    return {"left": float(left), "kib": float(found[1] - found[0])}


def _makespan() -> float:
    """The time that a plan of 300 tasks takes without limits, over its critical path."""
    chance = random.Random(2)
    parents = graph("random", 300)
    seconds = [round(chance.uniform(0.1, 5.0), 3) for _ in parents]
    ends: list[float] = []
    for above, own in zip(parents, seconds, strict=True):
        ends.append(own + max((ends[parent] for parent in above), default=0.0))
    clock = VirtualClock()

    async def whole() -> float:
        async with MultiAgentScheduler({"s": _Sleeper()}, metrics=Metrics(), clock=clock) as scheduler:
            return (await scheduler.run(_plan(parents, list(map(str, seconds))))).latency

    return run_virtual(whole(), clock=clock) / max(ends)


def _apart(*arguments: str) -> Any:
    """The same, measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scheduling", *arguments], cwd=ROOT, capture_output=True, check=True
    )
    return json.loads(done.stdout)


def scheduling(setting: Setting) -> Report:
    """CPU of a task that does nothing, alone and in large plans; makespan; and what cancelled streams leave."""
    names = ["flat 10000", *(f"{shape} {size}" for shape in _SHAPES for size in _SIZES)]
    found = turns(names, setting.rounds, lambda name: float(_apart(*name.split())))
    rows, budgets = [], []
    for name in names:
        shape, size = name.split()
        rows.append(Row(f"{shape}, {int(size):,} tasks", {"us a task": median(found[name]) / int(size) * 1e6}))
    budgets.append(Budget("us of CPU for a task that does nothing", median(found["flat 10000"]) / 10_000 * 1e6, 150))
    small, large = _SIZES
    for shape in _SHAPES:
        pairs = zip(found[f"{shape} {large}"], found[f"{shape} {small}"], strict=True)
        budgets.append(
            Budget(f"{shape}: {large:,} tasks / {small:,}", median([one / other for one, other in pairs]), 2.2)
        )
    budgets.append(Budget("makespan / critical path", _makespan(), 1.02))
    stopped = _apart("stopped")
    budgets.append(Budget(f"KiB that {_STOPPED:,} more cancelled streams add", stopped["kib"], 1024))
    budgets.append(Budget("asyncio tasks that cancelled streams leave", stopped["left"], 0))
    title = f"Scheduling: plans over an agent that does nothing, {setting.rounds} rounds of a new process each"
    return Report(title, {"us a task": ".0f"}, rows, budgets, [])


if __name__ == "__main__":
    if sys.argv[1] == "stopped":
        print(json.dumps(asyncio.run(_stopped())))
    else:
        print(asyncio.run(_cpu(sys.argv[1], int(sys.argv[2]))))
