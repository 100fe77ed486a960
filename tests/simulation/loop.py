"""An event loop whose order and time come from a seed."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from multi_agent_scheduler.testing import VirtualClock, VirtualLoop

TURNS = 50_000
"""A schedule that takes more turns of the loop than this goes round in circles."""


class SeededLoop(VirtualLoop):
    """Whatever is ready at the same time runs in an order that ``chance`` draws. ``tasks`` are all that were made."""

    stuck_seconds = 0.0  # there are no other threads

    def __init__(self, chance: random.Random) -> None:
        super().__init__(VirtualClock())
        self._chance = chance
        self._turns = 0
        self.tasks: list[asyncio.Task[Any]] = []

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task = super().create_task(coro, **options)
        self.tasks.append(task)
        return task

    @property
    def running(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended, in the order in which they were made."""
        self.tasks = [task for task in self.tasks if not task.done()]
        return self.tasks

    def _run_once(self) -> None:
        self._turns += 1
        if self._turns > TURNS:
            self._turns = -TURNS  # so that what is cancelled for it can end
            raise RuntimeError(f"the loop goes round in circles: {[task.get_name() for task in self.running]}")
        if len(self._ready) > 1:
            ready = list(self._ready)
            self._chance.shuffle(ready)
            self._ready.clear()
            self._ready.extend(ready)
        super()._run_once()
