"""What is in the hands of whoever submitted a task or a plan."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING

from .records import Record

if TYPE_CHECKING:
    from .execution import Execution
    from .plans import PlanResult, PlanRun
    from .reading import Reading
    from .runner import Run
    from .task import Result

__all__ = ["Handle", "PlanHandle"]


class Handle:
    """A submitted task."""

    def __init__(self, execution: Execution, reading: Reading, run: Run) -> None:
        self._execution = execution
        self._reading = reading
        self._run = run
        self.stream_id = run.stream_id

    async def result(self) -> Result:
        """The result, once there is one; not raised, whatever it is."""
        return await self._run.wait()

    async def cancel(self, reason: str = "cancelled") -> bool:
        """Stop the task and wait until its provider is closed; False if it had ended or was stopped already."""
        return await self._execution.cancel(self.stream_id, reason)

    def follow(self, after: int | None = None) -> AsyncGenerator[Record, None]:
        """The task's records behind seq ``after``; see :meth:`MultiAgentScheduler.follow`."""
        return self._reading.follow(self.stream_id, after, None, None)


class PlanHandle:
    """A submitted plan: ``streams`` maps its tasks' ids to the ids of their streams."""

    def __init__(self, running: PlanRun) -> None:
        self._running = running
        self.plan_id = running.plan_id
        self.streams: Mapping[str, str] = dict(running.streams)

    async def result(self) -> PlanResult:
        """The results by task id, once every task has ended. Raises StoreError if the store gave up."""
        return await self._running.wait()

    async def cancel(self, reason: str = "cancelled") -> bool:
        """Stop the plan: what runs is stopped, the rest does not begin. Returns when every task has ended; False if
        that had happened already, or somebody else has stopped it."""
        first = self._running.stop(reason)
        await self._running.wait()
        return first
