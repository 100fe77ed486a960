"""How many tasks run at once, and which one is next: pure, time is an argument.

Those that wait are in a line like that for an agent's Calls: a higher priority goes first, within a priority each key
gets an equal share, and nothing starves: of every ``EVERY`` slots one goes to the task that has waited longest, once
that has waited for ``PATIENCE`` seconds.

A task that has started and waits for its agent's limits lends its slot, so that an agent that is full holds up nobody
else's tasks. What it lends goes to tasks of agents for which none waits: those of a full agent stay in the line, and a
started task costs memory only where it can get on.
"""

from __future__ import annotations

from collections import Counter
from itertools import count

from .admission import EVERY, PATIENCE
from .line import Line, Share, Ticket

__all__ = ["RunSlots"]


class _Waiting(Ticket, eq=False):
    """A task that waits."""

    name: str = ""


class RunSlots:
    """``limit`` slots. A task that gets on again takes its slot back at once, and some more than the limit may run."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0
        self._lending: Counter[str] = Counter()  # how many have lent their slots, by agent
        self._numbers = count()
        self._waiting: dict[str, _Waiting] = {}
        self._shares: dict[int, Share] = {}
        self._lines: dict[str, Line] = {}  # by agent; none is empty
        self._passed = 0  # slots given since the one that had waited longest had its turn

    def free(self, agent: str) -> bool:
        """Whether a task for ``agent`` that asks now may start at once."""
        return self._running < self._limit and (agent not in self._lending or self._started < self._limit)

    @property
    def _started(self) -> int:
        return self._running + self._lending.total()

    def ask(self, name: str, agent: str, priority: int, key: str, now: float) -> bool:
        """Whether a task may start at once; if not, it waits, and one of the other methods will give its name.

        ``key`` is who gets a fair share: an owner, or a plan.
        """
        if self.free(agent):
            self._running += 1
            return True
        task = _Waiting(agent, key=key, priority=priority, asked_at=now, number=next(self._numbers), name=name)
        self._waiting[name] = task
        line = self._lines.get(agent)
        if line is None:
            line = self._lines[agent] = Line(self._shares)
        line.add(task)
        return False

    def release(self, now: float) -> list[str]:
        """A task has ended; the names of those that start now."""
        self._running -= 1
        return self._start(now)

    def lend(self, agent: str, now: float) -> list[str]:
        """A task waits for ``agent``, to which it was given; the names of those that start now."""
        self._running -= 1
        self._lending[agent] += 1
        return self._start(now)

    def take_back(self, agent: str, now: float) -> list[str]:
        """A task that had lent its slot waits no longer; the names of those that start now."""
        self._running += 1
        self._lending[agent] -= 1
        if not self._lending[agent]:
            del self._lending[agent]
        return self._start(now)

    def leave(self, name: str) -> None:
        """A task that waits does so no longer: its name will not be given."""
        self._remove(self._waiting[name], granted=False)

    def _start(self, now: float) -> list[str]:
        names = []
        while self._waiting and (lines := [line for agent, line in self._lines.items() if self.free(agent)]):
            task = self._following(lines, now)
            self._remove(task, granted=True)
            self._running += 1
            names.append(task.name)
        return names

    def _following(self, lines: list[Line], now: float) -> _Waiting:
        oldest = min([line.oldest() for line in lines], key=_number)
        following = min([line.head() for line in lines])[-1]
        if self._passed >= EVERY - 1 and now - oldest.asked_at >= PATIENCE:
            following = oldest
        self._passed = 0 if following is oldest else self._passed + 1
        assert isinstance(following, _Waiting)
        return following

    def _remove(self, task: _Waiting, *, granted: bool) -> None:
        del self._waiting[task.name]
        line = self._lines[task.agent]
        line.remove(task, granted=granted)
        if not line:
            del self._lines[task.agent]
        if not self._waiting:
            self._shares.clear()  # what anybody had before is forgotten


def _number(task: Ticket) -> int:
    return task.number
