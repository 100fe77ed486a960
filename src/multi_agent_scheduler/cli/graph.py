"""A plan's graph as an indented tree: a task stands under the first that it waits for, which it names no more; of any
others it says so. Each task has one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ..task import Task
from .terminal import one_line

__all__ = ["MOST", "Row", "overview", "tree"]

MOST: Final = 40  # tasks of a plan that is drawn
_MOST_NAMED: Final = 3  # further parents that are named
_LINES: Final = ("\u2502 ", "\u251c ", "\u2514 ")  # on, branch, last branch
_ASCII: Final = ("| ", "|-", "`-")


class Row(NamedTuple):
    """One task's line: ``branch`` is drawn before its id, ``others`` are the parents under which it does not stand."""

    task_id: str
    branch: str
    others: Sequence[str]

    def __str__(self) -> str:
        return f"{self.branch}{one_line(self.task_id)}{self.note and f'  ({self.note})'}"

    @property
    def note(self) -> str:
        """The other parents in words; empty if there are none."""
        if not self.others:
            return ""
        more = len(self.others) - _MOST_NAMED
        named = ", ".join(map(one_line, self.others[:_MOST_NAMED]))
        return f"after {named}{f' and {more} more' if more > 0 else ''} too"


def tree(tasks: Sequence[Task], *, ascii_only: bool = False) -> Iterator[Row]:
    """A row for each task of a valid plan, in the order of the tree; siblings as they come in the plan."""
    on, branch, last = _ASCII if ascii_only else _LINES
    children: dict[str | None, list[Task]] = {}
    for task in tasks:
        children.setdefault(task.depends_on[0] if task.depends_on else None, []).append(task)
    roots = children.get(None, [])
    waiting = [(task, "", "") for task in reversed(roots)]
    while waiting:
        task, before, here = waiting.pop()
        yield Row(task.id, before + here, task.depends_on[1:])
        below = children.get(task.id, [])
        inner = before + (on if here == branch else " " * len(here))
        waiting += [(child, inner, branch if child is not below[-1] else last) for child in reversed(below)]


def overview(tasks: Sequence[Task], *, ascii_only: bool = False) -> list[str]:
    """What is said of a plan before it runs: its graph, its size if that is too large to draw, nothing if no task waits
    for another."""
    if not any(task.depends_on for task in tasks):
        return []
    if len(tasks) > MOST:
        waiting = sum(bool(task.depends_on) for task in tasks)
        return [f"{len(tasks)} tasks, {waiting} of which wait for others"]
    return [str(row) for row in tree(tasks, ascii_only=ascii_only)]
