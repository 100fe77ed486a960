"""How an agent reaches the rest: permits, call numbers, the clock, time limits, the trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..task import Timeouts

if TYPE_CHECKING:
    from ..errors import ErrorInfo
    from ..scheduling.provider import ProviderState
    from ..scheduling.retry import CommitPolicy
    from .base import Agent

__all__ = ["Context", "Permit"]


class Permit:
    """The right to make one Call. :meth:`release` gives it back; a second release does nothing."""

    __slots__ = ()

    def heard(self, state: ProviderState) -> None:
        """The provider has said what it has left; comes at the beginning of its answer."""

    def used(self, tokens: int) -> None:
        """So many tokens have been used so far, input and output together: as the provider has reported, and a token
        for four characters that have come since."""

    def answered(self, error: ErrorInfo | None, tokens: int | None) -> None:
        """The provider is done: the error that it ended with, and all tokens if it said so. Gives the permit back."""

    def release(self) -> None:
        """Give the permit back."""


_FREE = Permit()


class Context:
    """What an agent runs in. This one is trivial: every Call is admitted at once.

    A scheduler hands its own kind to the agents that it runs; that one admits Calls through priority and limits. Agents
    that call other agents pass their context on, so that all Calls of a stream are counted and admitted in one place.
    """

    policy: CommitPolicy = "off"
    """What is done about a failure after content by an agent of agents that was not told."""

    def __init__(self, *, timeouts: Timeouts | None = None, trace: Mapping[str, str] | None = None) -> None:
        self.timeouts = timeouts
        self.trace = trace or {}
        self.owner = ""
        """Whose run this is: what belongs to one owner (a cached answer, say) is never given to another."""
        self._calls = 0
        self._began: float | None = None

    def begin(self) -> float:
        """When the run began, on :meth:`clock`: the first to ask begins it. The total limit counts from then."""
        if self._began is None:
            self._began = self.clock()
        return self._began

    def count(self, name: str) -> None:
        """Something happened that is counted ("cache.hits", "cache.misses"); a scheduler's context has metrics."""

    def count_from(self, calls: int) -> None:
        """The stream has had so many Calls already."""
        self._calls = calls

    def next_call(self) -> int:
        """The number of the next Call of this stream, from 1."""
        self._calls += 1
        return self._calls

    def clock(self) -> float:
        """Seconds on a clock that only goes forward."""
        return time.monotonic()

    def name_of(self, agent: Agent) -> str:
        """The name under which the one that runs this knows the agent."""
        return agent.name

    def waits(self, begins: bool) -> None:
        """The run begins to wait for something that it does not do itself (True), or does so no longer (False)."""

    async def rest(self, seconds: float) -> None:
        """Wait before another attempt."""
        self.waits(True)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.waits(False)

    async def permit(self, agent: Agent, estimate: int) -> Permit:  # noqa: ARG002
        """Wait until the agent may make one Call of about ``estimate`` tokens. The caller must release the permit.

        Waiting longer than the queue limit is the caller's to stop. Raises AgentError if the Call may not be made.
        """
        return _FREE
