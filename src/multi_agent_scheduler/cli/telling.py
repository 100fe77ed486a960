"""What ``mas run`` tells of a plan, and how: for people, as records while they come, or as one document at the end."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final, Protocol

import msgspec

from ..errors import StoreError
from ..events import STREAM_STARTED, Event, EventBus
from ..handles import PlanHandle
from ..plans import Merge, PlanResult
from ..records import TERMINALS, encode_record, numbered
from ..scheduler import MultiAgentScheduler
from ..store import Store
from ..task import Task
from ..views.summary import outcome
from . import board, graph
from .board import Board, TaskLane
from .terminal import Output, one_line, printable

__all__ = ["FORMATS", "Telling", "telling"]

FORMATS: Final = ("text", "records", "json")


class Telling(Protocol):
    """One way to tell of a plan; for one run."""

    def restore(self) -> None:
        """Leave the terminal as it was, in a signal handler."""

    async def play(self, scheduler: MultiAgentScheduler, tasks: Sequence[Task]) -> None:
        """Run the plan to its end and tell of it. Raises StoreError if it will not be finished."""

    def sum_up(self, seconds: float) -> tuple[int, int]:
        """Tell the end, also of a plan that was not finished; gives how many tasks have ended, and succeeded."""


def telling(form: str, tasks: Sequence[Task], store: Store, bus: EventBus) -> Telling:
    """One of :data:`FORMATS`, for a plan that a scheduler with this store and bus is going to run."""
    if form == "records":
        return RecordLines(store)
    if form == "json":
        return Document()
    return Boarded(tasks, bus)


class Boarded:
    """On a board: live lines on a terminal, plain ones anywhere else, and a table at the end."""

    def __init__(self, tasks: Sequence[Task], bus: EventBus) -> None:
        self._lanes = _lanes(tasks)
        self._shown: Board = board.fitting()
        bus.on(STREAM_STARTED, self._started)

    def restore(self) -> None:
        self._shown.restore()

    async def play(self, scheduler: MultiAgentScheduler, tasks: Sequence[Task]) -> None:
        lanes, shown = self._lanes, self._shown
        shown.draw(tasks)
        shown.begin(list(lanes.values()))
        try:
            async with aclosing(scheduler.stream(tasks)) as items:
                async for item in items:
                    lane = lanes[item["task_id"]]
                    if item["done"]:
                        lane.final = item
                    else:
                        lane.add(printable(item["chunk"]), time.monotonic())
                    shown.update(lane)
        finally:
            shown.end()

    def sum_up(self, seconds: float) -> tuple[int, int]:
        lanes = list(self._lanes.values())
        ended = sum(lane.final is not None for lane in lanes)
        succeeded = sum(lane.succeeded for lane in lanes)
        self._shown.table(lanes)
        costs = [lane.final["cost"] for lane in lanes if lane.final is not None and "cost" in lane.final]
        cost = f", for {board.dollars(sum(costs))}" if costs and len(costs) == ended else ""
        self._shown.note(f"{succeeded} of {len(lanes)} succeeded in {seconds:.2f} s{cost}.")
        return ended, succeeded

    def _started(self, event: Event) -> None:
        lane = self._lanes[event.data["task_id"]]
        lane.running, lane.began, lane.protocol = True, time.monotonic(), event.data["agent"]
        self._shown.started(lane, event.data["stream_id"])


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


class RecordLines:
    """Each record of each task as a line of JSON with ``task_id`` and ``stream_id``, as they come."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._output = Output()
        self._ended = self._succeeded = self._count = 0

    def restore(self) -> None:
        pass

    async def play(self, scheduler: MultiAgentScheduler, tasks: Sequence[Task]) -> None:
        handle = await scheduler.submit_plan(tasks)
        merge, self._count = Merge(self._store), len(handle.streams)
        for task_id, stream_id in handle.streams.items():
            merge.add(stream_id, task_id)
        watch = asyncio.create_task(_give_up(handle, merge))
        try:
            while self._ended < self._count:
                task_id, first, records = await merge.next()
                beginning = msgspec.json.encode({"task_id": task_id, "stream_id": handle.streams[task_id]})[:-1] + b","
                lines = [beginning + encode_record(record)[1:] for record in numbered(records, first)]
                await self._output.line(b"\n".join(lines))
                last = records[-1]
                if isinstance(last, TERMINALS):
                    self._ended += 1
                    self._succeeded += outcome(last)[1]
        finally:
            merge.close()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    def sum_up(self, seconds: float) -> tuple[int, int]:
        _tell_count(self._succeeded, self._count, seconds)
        return self._ended, self._succeeded


async def _give_up(handle: PlanHandle, merge: Merge) -> None:
    """End the reading of a plan that cannot be finished."""
    try:
        await handle.result()
    except StoreError as error:
        merge.fail(error)


class Document:
    """One JSON document at the end: the results by task id, usage, cost and timeline."""

    def __init__(self) -> None:
        self._output = Output()
        self._count = 0
        self._result: PlanResult | None = None

    def restore(self) -> None:
        pass

    async def play(self, scheduler: MultiAgentScheduler, tasks: Sequence[Task]) -> None:
        self._count = len(tasks)
        result = self._result = await scheduler.run(tasks)
        document = {
            "plan_id": result.plan_id,
            "success": result.success,
            "latency": result.latency,
            "usage": result.usage,
            "cost": result.cost,
            "tasks": dict(result),
            "timeline": result.timeline,
        }
        await self._output.line(msgspec.json.format(msgspec.json.encode(document)))

    def sum_up(self, seconds: float) -> tuple[int, int]:
        results = [] if self._result is None else list(self._result.values())
        succeeded = sum(result.success for result in results)
        _tell_count(succeeded, self._count, seconds)
        return len(results), succeeded


def _tell_count(succeeded: int, count: int, seconds: float) -> None:
    print(f"{succeeded} of {count} succeeded in {seconds:.2f} s.", file=sys.stderr)  # noqa: T201
