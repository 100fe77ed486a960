"""How many tasks run at once, and which one is next: pure, time is an argument.

Those that wait are in a line like that for an agent's Calls: a higher priority goes first, within a priority each key
gets an equal share, and nothing starves: of every ``EVERY`` slots one goes to the task that has waited longest, once
that has waited for ``PATIENCE`` seconds.
"""

from __future__ import annotations

from itertools import count

from .admission import EVERY, PATIENCE
from .line import Line, Share, Ticket

__all__ = ["RunSlots"]


class _Waiting(Ticket, eq=False):
    """A task that waits."""

    name: str = ""


class RunSlots:
    """``limit`` slots."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0
        self._numbers = count()
        self._waiting: dict[str, _Waiting] = {}
        self._shares: dict[int, Share] = {}
        self._line = Line(self._shares)
        self._passed = 0  # slots given since the one that had waited longest had its turn

    @property
    def free(self) -> bool:
        """Whether a task that asks now may start at once."""
        return self._running < self._limit

    def ask(self, name: str, priority: int, key: str, now: float) -> bool:
        """Whether a task may start at once; if not, it waits, and :meth:`release` will give its name.

        ``key`` is who gets a fair share: an owner, or a plan.
        """
        if self.free:
            self._running += 1
            return True
        task = _Waiting("", key=key, priority=priority, asked_at=now, number=next(self._numbers), name=name)
        self._waiting[name] = task
        self._line.add(task)
        return False

    def release(self, now: float) -> str | None:
        """A task has ended; the name of the one that starts in its place, if one waits."""
        if not self._waiting:
            self._running -= 1
            return None
        oldest = self._line.oldest()
        following = self._line.head()[3]
        if self._passed >= EVERY - 1 and now - oldest.asked_at >= PATIENCE:
            following = oldest
        self._passed = 0 if following is oldest else self._passed + 1
        assert isinstance(following, _Waiting)
        self._remove(following, granted=True)
        return following.name

    def leave(self, name: str) -> None:
        """A task that waits does so no longer: :meth:`release` will not give its name."""
        self._remove(self._waiting[name], granted=False)

    def _remove(self, task: _Waiting, *, granted: bool) -> None:
        del self._waiting[task.name]
        self._line.remove(task, granted=granted)
        if not self._waiting:
            self._shares.clear()  # what anybody had before is forgotten
