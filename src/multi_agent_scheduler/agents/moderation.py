"""Small pieces of answers wait for each other while their event loop is busy.

A chunk costs what reading it costs, and far more for what follows: tasks that wake, a commit, a write for each reader.
A loop that has time passes each on at once. When a loop has little left, a small piece waits for those behind it and
they go on together: the more there is to do, the less each costs. Network cards moderate their interrupts so. The first
piece of an answer, its end, and what is more than some chunks never wait (docs/decisions/0009-small-pieces-wait.md).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Moderation"]

_LOOK: Final = 0.05  # seconds between two looks at how busy the loop is

# Shares of a core that the loop's thread may use: above the one pieces wait longer, below the other less.
_BUSY: Final = 0.7
_CALM: Final = 0.5

_LEAST: Final = 0.005  # seconds; less would save nothing
_MOST: Final = 0.05

_TICK: Final = 0.002  # seconds: what is due within it goes together


class Moderation:
    """How long the small pieces of one event loop wait, and those that do.

    ``used`` gives the seconds of CPU that the loop's thread has used. All methods are called in the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, used: Callable[[], float] = time.thread_time) -> None:
        self._loop = loop
        self._used = used
        self._pause = 0.0
        self._held: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at = loop.time()
        self._used_then = used()

    def hold(self, wake: Callable[[], None]) -> bool:
        """Whether a small piece is to wait for others; if so, ``wake`` is called when it has."""
        now = self._loop.time()
        if now - self._looked_at >= _LOOK:
            self._look(now)
        if not self._pause:
            return False
        self._held.append((now + self._pause, wake))
        if self._timer is None:
            self._timer = self._loop.call_later(self._pause, self._ring)
        return True

    def close(self) -> None:
        """Nobody waits any more."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, now: float) -> None:
        used = self._used()
        share = (used - self._used_then) / (now - self._looked_at)
        self._looked_at, self._used_then = now, used
        pause = self._pause
        if share > _BUSY:
            self._pause = min(_MOST, max(_LEAST, pause * 2))
        elif share < _CALM:
            self._pause = pause / 2 if pause > _LEAST else 0.0

    def _ring(self) -> None:
        held, now = self._held, self._loop.time()
        while held and held[0][0] < now + _TICK:
            held.popleft()[1]()
        self._timer = self._loop.call_later(max(_TICK, held[0][0] - now), self._ring) if held else None
