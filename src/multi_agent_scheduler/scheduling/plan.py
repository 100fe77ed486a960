"""The plan: which tasks may start now, as a pure state machine over their dependencies.

There are no levels and no barriers: a task is ready the moment the last task that it depends on has ended. Everything
together costs time and memory in proportion to the tasks and their dependencies, and nothing recurses.

========= =========================================== ===========================================
from      what happens                                to
========= =========================================== ===========================================
waiting   the last parent ended well                  ready
waiting   a parent did not succeed, on_failure=skip   skipped (and so on, down the plan)
waiting   the last parent ended, on_failure=run       ready
ready     :meth:`Plan.started`                        running
any       :meth:`Plan.ended`                          ended
skipped   :meth:`Plan.ended`: that is written         ended, and ready what runs all the same
========= =========================================== ===========================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from ..errors import DependencyCycle, DuplicateTask, UnknownDependency
from ..task import State, Task

__all__ = ["Change", "Plan", "Skip", "TaskState"]

TaskState: TypeAlias = Literal["waiting", "ready", "running", "skipped", "ended"]

_SHOWN: Final = 12  # tasks of a long cycle that its message names; the error has them all
_COMPARED: Final = 20_000  # ids that are looked at for one that was perhaps meant


class Skip(msgspec.Struct, frozen=True, gc=False):
    """A task that will not run: ``failed`` is the task whose end was the cause, ``reason`` a sentence for its log."""

    id: str
    reason: str
    failed: str


class Change(msgspec.Struct, frozen=True):
    """What the end of a task set free: ids that are ready now, and tasks that are skipped, parents before children."""

    ready: Sequence[str] = ()
    skipped: Sequence[Skip] = ()


_NOTHING: Final = Change()

_WORDS: Final[dict[str, str]] = {
    "completed": "did not succeed",
    "failed": "failed",
    "cancelled": "was cancelled",
    "interrupted": "was interrupted",
    "skipped": "was skipped",
}


class Plan:
    """Tasks that depend on each other. Ids and states only: what runs them is somebody else's affair.

    Raises :class:`~multi_agent_scheduler.errors.CallerError` for a task that is wrong in itself and, in this order, its
    subclasses DuplicateTask, UnknownDependency and DependencyCycle.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks: list[Task] = list(tasks)
        self._index = index = _indexed(self._tasks)
        # Tasks are numbers inside. One list for all parents and one for all children, each task's behind the other's:
        # a list for each task would be a hundred thousand objects for the garbage collector to walk.
        self._parents: list[int] = []
        self._parents_from: list[int] = [0]
        self._waits: list[int] = []
        for task in self._tasks:
            above = _parents(task, index)
            self._parents += above
            self._parents_from.append(len(self._parents))
            self._waits.append(len(above))
        self._children, self._children_from = self._reversed()
        self._check_cycles()
        self._states: list[TaskState] = ["waiting" if waits else "ready" for waits in self._waits]
        # Ids in the order in which they became ready; a dict, so that the one that starts is taken out at once.
        self._ready = dict.fromkeys(
            task.id for task, state in zip(self._tasks, self._states, strict=True) if state == "ready"
        )
        self._open = len(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def done(self) -> bool:
        """Every task has ended or was skipped."""
        return self._open == 0

    def ready(self) -> Sequence[str]:
        """The ids of all tasks that may start now and have not, in the order in which they became ready."""
        return list(self._ready)

    def state(self, task_id: str) -> TaskState:
        """Where a task stands."""
        return self._states[self._index[task_id]]

    def task(self, task_id: str) -> Task:
        """The task with this id."""
        return self._tasks[self._index[task_id]]

    def parents(self, task_id: str) -> Sequence[str]:
        """The ids that a task depends on, each once."""
        return [self._tasks[parent].id for parent in self._above(self._index[task_id])]

    def children(self, task_id: str) -> Sequence[str]:
        """The ids of the tasks that depend on this one."""
        return [self._tasks[child].id for child in self._below(self._index[task_id])]

    def started(self, task_id: str) -> None:
        """A ready task runs. Raises ValueError for one that is not ready."""
        at = self._index[task_id]
        if self._states[at] != "ready":
            raise ValueError(f"task {task_id!r} is {self._states[at]}, not ready: it cannot start")
        del self._ready[task_id]
        self._states[at] = "running"

    def ended(self, task_id: str, state: State, *, success: bool | None = None) -> Change:
        """A task ended, as the terminal ``state`` says; what becomes ready or is skipped by that.

        ``success`` is the result's: a task that completed with refused or blocked content is no success; None takes
        every completed task for one. A task may also end before it started, in any order (it was cancelled, or an
        earlier run of the plan had ended it). The end of a skipped task frees what is to run all the same: no task
        starts before those that it depends on have ended. The end of one that has ended already changes nothing.
        """
        at = self._index[task_id]
        if self._states[at] == "ended":
            return _NOTHING
        if self._states[at] == "skipped":
            self._states[at] = "ended"
            freed: list[str] = []
            for child in self._below(at):
                if self._tasks[child].on_failure == "run":
                    self._release(child, freed)
            return Change(ready=freed)
        self._ready.pop(task_id, None)
        self._states[at] = "ended"
        self._open -= 1
        children = self._below(at)
        if not children:
            return _NOTHING
        ready: list[str] = []
        if success or (success is None and state == "completed"):
            for child in children:
                self._release(child, ready)
            return Change(ready=ready)
        skipped: list[Skip] = []
        self._pass_on(at, f"{task_id!r}, which it depends on, {_WORDS[state]}", ready, skipped)
        return Change(ready=ready, skipped=skipped)

    def _release(self, child: int, ready: list[str]) -> None:
        """One parent of ``child`` is over; it is ready if that was the last."""
        self._waits[child] -= 1
        if self._waits[child] == 0 and self._states[child] == "waiting":
            self._states[child] = "ready"
            task_id = self._tasks[child].id
            self._ready[task_id] = None
            ready.append(task_id)

    def _pass_on(self, at: int, reason: str, ready: list[str], skipped: list[Skip]) -> None:
        """Skip what depends on a task that did not succeed, and what depends on that."""
        failed = self._tasks[at].id
        below = f"{failed!r}, which it depends on through {{}}, {reason.rpartition('on, ')[2]}"
        over = [at]
        for parent in over:  # grows as it goes: breadth first, so that parents come before children
            for child in self._below(parent):
                task = self._tasks[child]
                if task.on_failure == "run":
                    if parent == at:
                        self._release(child, ready)
                    continue
                self._waits[child] -= 1
                if self._states[child] == "waiting":
                    self._states[child] = "skipped"
                    self._open -= 1
                    over.append(child)
                    why = reason if parent == at else below.format(repr(self._tasks[parent].id))
                    skipped.append(Skip(task.id, why, failed))

    def _above(self, at: int) -> Sequence[int]:
        return self._parents[self._parents_from[at] : self._parents_from[at + 1]]

    def _below(self, at: int) -> Sequence[int]:
        return self._children[self._children_from[at] : self._children_from[at + 1]]

    def _reversed(self) -> tuple[list[int], list[int]]:
        """All children, in the order of the plan, and where each task's begin (a counting sort by parent)."""
        starts = [0] * (len(self._tasks) + 1)
        for parent in self._parents:
            starts[parent + 1] += 1
        for at in range(len(self._tasks)):
            starts[at + 1] += starts[at]
        places = starts.copy()
        children = [0] * len(self._parents)
        for child, waits in enumerate(self._waits):
            if waits:
                for parent in self._above(child):
                    children[places[parent]] = child
                    places[parent] += 1
        return children, starts

    def _check_cycles(self) -> None:
        waits = self._waits.copy()
        free = [at for at, count in enumerate(waits) if not count]
        for at in free:  # grows as it goes
            for child in self._below(at):
                waits[child] -= 1
                if not waits[child]:
                    free.append(child)
        if len(free) < len(waits):
            cycle = tuple(self._tasks[at].id for at in self._cycle(waits))
            names = cycle if len(cycle) <= _SHOWN else (*cycle[:_SHOWN], f"({len(cycle) - _SHOWN} more)")
            raise DependencyCycle(f"the tasks wait for each other: {' -> '.join([*names, cycle[0]])}", cycle)

    def _cycle(self, waits: Sequence[int]) -> list[int]:
        """One cycle. Whoever still waits has a parent that waits: going up from one of them must come round."""
        at = next(at for at, count in enumerate(waits) if count)
        path: list[int] = []
        place: dict[int, int] = {}
        while at not in place:
            place[at] = len(path)
            path.append(at)
            at = next(parent for parent in self._above(at) if waits[parent])
        cycle = path[place[at] :]
        first = cycle.index(min(cycle))  # told from the task that the plan names first
        return cycle[first:] + cycle[:first]


def _indexed(tasks: Sequence[Task]) -> dict[str, int]:
    index: dict[str, int] = {}
    for at, task in enumerate(tasks):
        task.check()
        first = index.setdefault(task.id, at)
        if first != at:
            raise DuplicateTask(f"two tasks have the id {task.id!r}: the plan's tasks {first + 1} and {at + 1}")
    return index


def _parents(task: Task, index: dict[str, int]) -> Sequence[int]:
    names = task.depends_on
    if not names:
        return ()
    try:
        if len(names) == 1:
            return (index[names[0]],)
        return [index[name] for name in dict.fromkeys(names)]
    except KeyError:
        unknown = next(name for name in names if name not in index)
        raise UnknownDependency(
            f"task {task.id!r} depends on {unknown!r}, which the plan does not have{_meant(unknown, index)}"
        ) from None


def _meant(unknown: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    reach = max(2, len(unknown) // 3)
    alike = [name for name in known if abs(len(name) - len(unknown)) <= reach][:_COMPARED]
    found = get_close_matches(unknown, alike, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in found)}?" if found else ""
