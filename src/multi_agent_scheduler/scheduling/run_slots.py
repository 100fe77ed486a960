"""How many tasks run at once, and which one is next: pure, time is an argument.

A task that waits is the next by priority, but each level of priority is worth :data:`LEVEL_SECONDS` of waiting and no
more, so that nothing starves: a task of priority p overtakes one that came up to p times that long before it.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Final

__all__ = ["LEVEL_SECONDS", "RunSlots"]

LEVEL_SECONDS: Final = 30.0


class RunSlots:
    """``limit`` slots."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0
        self._order = count()
        self._waiting: list[tuple[float, int, str]] = []
        self._gone: set[str] = set()

    @property
    def free(self) -> bool:
        """Whether a task that asks now may start at once."""
        return self._running < self._limit

    def ask(self, name: str, priority: int, now: float) -> bool:
        """Whether a task may start at once; if not, it waits, and :meth:`release` will give its name."""
        if self.free:
            self._running += 1
            return True
        heappush(self._waiting, (now - priority * LEVEL_SECONDS, next(self._order), name))
        return False

    def release(self) -> str | None:
        """A task has ended; the name of the one that starts in its place, if one waits."""
        while self._waiting:
            name = heappop(self._waiting)[2]
            if name not in self._gone:
                return name
            self._gone.remove(name)
        self._running -= 1
        return None

    def leave(self, name: str) -> None:
        """A task that waits does so no longer: :meth:`release` will not give its name."""
        self._gone.add(name)
