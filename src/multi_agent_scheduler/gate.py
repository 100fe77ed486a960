"""Admission with waiting: the context that a scheduler hands to the agents that it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from .agents.base import Agent
from .agents.context import Context, Permit
from .scheduling.first_admission import Admission, Ticket
from .task import Timeouts

__all__ = ["Gate", "SchedulerContext"]


class Gate:
    """Admission with waiting: the slots of a scheduler's agents."""

    def __init__(self) -> None:
        self._admission = Admission()
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}

    async def admit(self, agent: str, slots: int | None) -> Permit:
        """Wait for one of the ``slots`` of the agent named so."""
        self._admission.limit(agent, slots)
        ticket = self._admission.ask(agent)
        if ticket.state != "granted":
            future = self._waiting[ticket] = asyncio.get_running_loop().create_future()
            try:
                await future
            except BaseException:
                self.close(ticket)
                raise
            finally:
                self._waiting.pop(ticket, None)
        return _Slot(self, ticket)

    def close(self, ticket: Ticket) -> None:
        following = self._admission.close(ticket)
        if following is not None:
            future = self._waiting[following]
            if not future.done():
                future.set_result(None)


class _Slot(Permit):
    __slots__ = ("_gate", "_ticket")

    def __init__(self, gate: Gate, ticket: Ticket) -> None:
        self._gate = gate
        self._ticket = ticket

    def release(self) -> None:
        self._gate.close(self._ticket)


class SchedulerContext(Context):
    """The context of a run: Calls are admitted by the scheduler's limits."""

    def __init__(self, gate: Gate, names: Mapping[int, str], timeouts: Timeouts | None) -> None:
        super().__init__(timeouts=timeouts)
        self._gate = gate
        self._names = names

    def name_of(self, agent: Agent) -> str:
        return self._names.get(id(agent), agent.name)

    async def permit(self, agent: Agent, estimate: int) -> Permit:  # noqa: ARG002
        return await self._gate.admit(self.name_of(agent), agent.max_concurrent)
