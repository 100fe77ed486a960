"""Time for tests: a clock that goes when it is told to, and a loop that tells it to when everybody waits.

A minute's limit, a back-off or a silent provider is tested in no time, and the same way each time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

__all__ = ["VirtualClock", "VirtualLoop", "run_virtual"]

T = TypeVar("T")

_TURNS: Final = 5  # of the loop, which what was told to close may take to go


class VirtualClock:
    """Seconds that pass only when :meth:`advance` is called; call the clock to read it.

    It goes wherever a ``clock`` is taken: ``MemoryStore(clock=clock)``, ``Cache(clock=clock)``.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ValueError for less than none."""
        if not seconds >= 0:
            raise ValueError(f"a clock goes forward: seconds must be 0 or more, not {seconds!r}")
        self._now += seconds


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on a :class:`VirtualClock`: when all of its tasks wait for a time, that time has come.

    While it runs, ``time.monotonic()`` of its thread is the clock, too, so that what is measured agrees with what was
    waited for. It has no sockets. Functions that run in threads (``asyncio.to_thread``) take no time. If nothing can
    ever happen any more because every task waits for another, it raises RuntimeError.
    """

    stuck_seconds: float = 1.0
    """So many real seconds a thread of somebody else's may take to wake a loop in which nothing would happen."""

    def __init__(self, clock: VirtualClock | None = None) -> None:
        super().__init__()
        self.clock = VirtualClock() if clock is None else clock
        self._clock_resolution = 1e-9
        self._selector = _Jump(self)
        self._woken = threading.Event()
        self._in_threads = 0

    def time(self) -> float:
        return self.clock()

    def run_forever(self) -> None:
        real, mine, clock = time.monotonic, threading.get_ident(), self.clock

        def monotonic() -> float:
            return clock() if threading.get_ident() == mine else real()

        time.monotonic = monotonic
        try:
            super().run_forever()
        finally:
            time.monotonic = real

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = super().run_in_executor(executor, func, *args)
        self._in_threads += 1
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _: asyncio.Future[Any]) -> None:
        self._in_threads -= 1

    def _wait(self, seconds: float | None) -> None:
        """Nothing can be done for so long; None: until somebody outside does something."""
        if self._in_threads:
            self._woken.wait()
        elif seconds is not None:
            self.clock.advance(seconds)
        elif not self._woken.wait(self.stuck_seconds):
            names = sorted(task.get_name() for task in asyncio.all_tasks(self))
            raise RuntimeError(f"nothing can ever happen in this loop any more; these tasks wait: {', '.join(names)}")
        self._woken.clear()

    def _write_to_self(self) -> None:
        self._woken.set()

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no sockets, so there are no events."""


class _Jump:
    """What the loop asks for events, in the place of a selector."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None or timeout > 0:
            self._loop._wait(timeout)
        return []


def run_virtual(main: Coroutine[Any, Any, T], *, clock: VirtualClock | None = None) -> T:
    """Run a coroutine to its end in a :class:`VirtualLoop`, and give what it returns.

    Raises RuntimeError if it leaves a task running.
    """

    async def whole() -> T:
        result = await main
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            raise RuntimeError(f"left running: {', '.join(sorted(task.get_name() for task in left))}")
        return result

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(whole())
