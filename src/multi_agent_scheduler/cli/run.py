"""``mas run``: a plan from a file, over the configured agents."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

from ..agents.base import Agent
from ..events import STREAM_STARTED, Event, EventBus
from ..planfile import read_plan
from ..scheduler import MultiAgentScheduler
from ..scheduling.plan import Plan
from ..store import Store
from ..task import Task
from ..telemetry import Telemetry
from . import board, choice, graph, place
from .board import Board, TaskLane
from .stopping import Stopping
from .terminal import complain, one_line, printable

__all__ = ["ACTIVE", "PATIENCE", "run", "stop_all"]

ACTIVE: Final = ("queued", "running")
PATIENCE: Final = 5.0  # seconds that tasks have, after a stop, to end in order


def run(parsed: argparse.Namespace) -> int:
    """Exit code 0 if every task succeeded, 1 if not, 2 for a wrong plan, 130 after Ctrl-C."""
    tasks = read_plan(Path(parsed.plan))
    Plan(tasks)  # what is wrong with it is said before anything is opened
    agents = choice.team(choice.available(parsed.config), tasks, parsed.agent)
    store = place.to_write(parsed.store, parsed.config)
    return asyncio.run(_run(tasks, agents, store))


async def _run(tasks: Sequence[Task], agents: Mapping[str, Agent], store: Store) -> int:
    shown, bus, began = board.fitting(), EventBus(), time.monotonic()
    lanes = _lanes(tasks)
    patience, loop = asyncio.timeout(None), asyncio.get_running_loop()
    with Stopping(restore=shown.restore) as stopping:
        async with MultiAgentScheduler(
            agents, store=store, event_bus=bus, telemetry=Telemetry.from_environment()
        ) as scheduler:
            others = {info.stream_id for info in store.streams(states=ACTIVE)}
            if others:
                complain(f"tasks of earlier runs have not ended ({len(others)}): mas resume goes on with them")

            def stop(reason: str) -> None:
                stop_all(store, reason, others)
                patience.reschedule(loop.time() + PATIENCE)

            def started(event: Event) -> None:
                lane = lanes[event.data["task_id"]]
                lane.running, lane.began, lane.protocol = True, time.monotonic(), event.data["agent"]
                shown.started(lane, event.data["stream_id"])
                if stopping.signal is not None:  # it came when there was nothing to stop yet
                    loop.call_soon(stopping.then, stop)

            stopping.then(stop)
            bus.on(STREAM_STARTED, started)
            shown.draw(tasks)
            shown.begin(list(lanes.values()))
            try:
                async with patience:
                    await _play(scheduler, tasks, lanes, shown)
            except TimeoutError:
                stopping.leave()
            finally:
                shown.end()
        _sum_up(list(lanes.values()), shown, time.monotonic() - began)
        if stopping.signal is not None:
            stopping.leave()
    return 0 if all(lane.succeeded for lane in lanes.values()) else 1


def _lanes(tasks: Sequence[Task]) -> dict[str, TaskLane]:
    """A lane for each task, in the order of the graph if it is drawn."""
    rows = graph.tree(tasks) if len(tasks) <= graph.MOST else ()
    lanes = {row.task_id: TaskLane(one_line(row.task_id), "", "", branch=row.branch, others=row.note) for row in rows}
    for task in tasks:
        lane = lanes.setdefault(task.id, TaskLane(one_line(task.id), "", ""))
        lane.protocol = task.agent or ""
    for task in tasks:
        lanes[task.id].parents = [lanes[parent] for parent in task.depends_on]
    return lanes


async def _play(
    scheduler: MultiAgentScheduler, tasks: Sequence[Task], lanes: Mapping[str, TaskLane], shown: Board
) -> None:
    async with aclosing(scheduler.stream(tasks)) as items:
        async for item in items:
            lane = lanes[item["task_id"]]
            if item["done"]:
                lane.final = item
            else:
                lane.add(printable(item["chunk"]), time.monotonic())
            shown.update(lane)


def _sum_up(lanes: Sequence[TaskLane], shown: Board, seconds: float) -> None:
    shown.table(lanes)
    succeeded = sum(lane.succeeded for lane in lanes)
    shown.note(f"{succeeded} of {len(lanes)} succeeded in {seconds:.2f} s.")


def stop_all(store: Store, reason: str, others: Collection[str] = ()) -> None:
    """Stop every stream of a store that has not ended, but for ``others``."""
    for info in store.streams(states=ACTIVE):
        if info.stream_id not in others:
            (store.on_cancel or store.cancel)(info.stream_id, reason)
