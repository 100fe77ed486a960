"""Admission with waiting: the context that a scheduler hands to the agents that it runs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from weakref import WeakKeyDictionary

import msgspec

from .agents.base import Agent
from .agents.context import Context, Permit
from .errors import BudgetExceeded, ErrorInfo, RequestOverLimit
from .metrics import Metrics
from .scheduling.admission import Admission, Answer, Ticket
from .scheduling.budget import Account
from .scheduling.limits import Limits
from .scheduling.provider import ProviderState
from .submission import Terms
from .task import Task

__all__ = ["Gate", "SchedulerContext"]

_NO_LIMITS: Final = Limits()
_NOBODY: Final = Terms()

# What a Call's failure says about the provider; of the codes that are not here it says nothing.
_ANSWERS: Final[dict[str, Answer]] = {
    "rate_limit_error": "rate_limited",
    "overloaded_error": "server_error",
    "server_error": "server_error",
    "connection_error": "server_error",
    "timeout_error": "server_error",
}


class Gate:
    """The limits of a scheduler's agents and task types, and the Calls that wait for them. It belongs to one loop."""

    def __init__(
        self,
        limits: Mapping[str, Limits] | None = None,
        *,
        task_types: Mapping[str, int] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._admission = Admission(task_types=task_types, weights=weights)
        self._limits = dict(limits or {})
        self._slots: dict[str, int | None] = {}  # of the agents that have asked: their max_concurrent, as it was then
        self._places: WeakKeyDictionary[Agent, str] = WeakKeyDictionary()
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def place_of(self, agent: Agent, names: Mapping[int, str]) -> str:
        """What an agent's limits go by: its name in the scheduler (``names``, by identity), or one of its own.

        An agent has one place wherever it is used. Members of composites that the scheduler does not name may have the
        same name, each a ``ClaudeAgent()``, and are still limited each by itself.
        """
        place = names.get(id(agent)) or self._places.get(agent)
        if place is None:
            taken, number = {*names.values(), *self._places.values()}, 1
            place = agent.name
            while place in taken:
                number += 1
                place = f"{agent.name}#{number}"
            self._places[agent] = place
        return place

    async def admit(self, ticket: Ticket, slots: int | None, waits: Callable[[bool], None] | None = None) -> Permit:
        """Wait until the Call may be made; ``slots`` is the agent's own limit, where the scheduler's says none.

        ``waits`` is told when waiting begins (True), and when it is over, whatever came of it.
        Raises :class:`~multi_agent_scheduler.errors.RequestOverLimit` for a Call that its agent's limits never admit.
        """
        now = asyncio.get_running_loop().time()
        if self._slots.get(ticket.agent, -1) != slots:
            self._slots[ticket.agent] = slots
            limits = self._limits.get(ticket.agent, _NO_LIMITS)
            if limits.concurrency is None:
                limits = msgspec.structs.replace(limits, concurrency=slots)
            self.wake(self._admission.limit(ticket.agent, limits, now))
        self.wake(self._admission.ask(ticket, now))
        if ticket.state == "waiting":
            future = self._waiting[ticket] = asyncio.get_running_loop().create_future()
            try:
                if waits is not None:
                    waits(True)
                await future
            except BaseException:
                self.close(ticket)
                raise
            finally:
                self._waiting.pop(ticket, None)
                if waits is not None:
                    waits(False)
        if ticket.state == "refused":
            raise RequestOverLimit(ticket.refusal)
        return _Pass(self, ticket)

    def heard(self, ticket: Ticket, state: ProviderState) -> None:
        """The provider has said, in its answer to a Call, what it has left."""
        if ticket.state == "granted":
            self.wake(self._admission.heard(ticket, state, asyncio.get_running_loop().time()))

    def used(self, ticket: Ticket, tokens: int) -> None:
        """A Call has used so many tokens so far; it counts at once if it is more than was reserved."""
        if ticket.state == "granted" and tokens > ticket.estimate and ticket.reservation is not None:
            self.wake(self._admission.settle(ticket, tokens, asyncio.get_running_loop().time()))

    def answered(self, ticket: Ticket, error: ErrorInfo | None, tokens: int | None) -> None:
        """The provider is done with a Call: what came of it is learned from, and its slot comes back."""
        now = asyncio.get_running_loop().time()
        if ticket.state != "granted":
            return
        changed: list[Ticket] = []
        answer = "ok" if error is None else _ANSWERS.get(error.code)
        if answer is not None:
            after = None if error is None else error.retry_after
            changed = self._admission.feedback(ticket, answer, now, retry_after=after)
        self.wake(changed + self._admission.close(ticket, now, tokens))

    def close(self, ticket: Ticket) -> None:
        """The Call is over, or is not wanted any more. Closing again does nothing."""
        if ticket.state in ("granted", "waiting"):
            self.wake(self._admission.close(ticket, asyncio.get_running_loop().time()))

    def wake(self, changed: list[Ticket]) -> None:
        """Wake whoever waited for these tickets, and see to it that time is noticed when it matters."""
        for ticket in changed:
            future = self._waiting.get(ticket)
            if future is not None and not future.done():
                future.set_result(None)
        at = self._admission.next_time()
        if at == math.inf:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None or self._timer.when() > at:  # one that rings too early is set anew then
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(at, self._ring)

    def _ring(self) -> None:
        assert self._timer is not None
        due, self._timer = self._timer.when(), None
        # A loop may ring a hair early, by the resolution of its clock.
        self.wake(self._admission.tick(max(due, asyncio.get_running_loop().time())))


class _Pass(Permit):
    __slots__ = ("_gate", "_ticket")

    def __init__(self, gate: Gate, ticket: Ticket) -> None:
        self._gate = gate
        self._ticket = ticket

    def heard(self, state: ProviderState) -> None:
        self._gate.heard(self._ticket, state)

    def used(self, tokens: int) -> None:
        self._gate.used(self._ticket, tokens)

    def answered(self, error: ErrorInfo | None, tokens: int | None) -> None:
        self._gate.answered(self._ticket, error, tokens)

    def release(self) -> None:
        self._gate.close(self._ticket)


class SchedulerContext(Context):
    """The context of a run: Calls are admitted by the scheduler's limits, as the task's type and priority have it.

    An agent's limits are shared fairly between owners and, where there is no owner, between plans.
    """

    def __init__(
        self,
        gate: Gate,
        names: Mapping[int, str],
        task: Task,
        terms: Terms = _NOBODY,
        *,
        plan_id: str | None = None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(timeouts=task.timeouts, trace=terms.trace)
        self._clock = clock
        self.owner = terms.owner
        if plan_id is not None:
            self.policy = "reset"
        self._metrics = metrics
        self._gate = gate
        self._names = names
        self._task = task
        self._key = terms.owner or plan_id or ""
        self.accounts: Sequence[Account] = ()
        """Those that pay for the run's Calls."""
        self.aside: Callable[[bool], None] = _ignored
        """Told when the run begins to wait while no Call of it is under way, and when it goes on."""
        self._stands_aside = False
        self._tickets: list[Ticket] = []  # that were granted

    def clock(self) -> float:
        return self._clock()

    def count(self, name: str) -> None:
        if self._metrics is not None:
            self._metrics.counter(name).inc()

    def name_of(self, agent: Agent) -> str:
        return self._names.get(id(agent), agent.name)

    async def permit(self, agent: Agent, estimate: int) -> Permit:
        ticket = Ticket(
            self._gate.place_of(agent, self._names),
            task_type=self._task.task_type,
            key=self._key,
            priority=self._task.priority,
            estimate=estimate,
        )
        self._check_budgets()
        permit = await self._gate.admit(ticket, agent.max_concurrent, self.waits)
        self._tickets = [*self._under_way(), ticket]
        try:
            self._check_budgets()  # others may have used them up while this one waited
        except BudgetExceeded:
            permit.release()
            raise
        return permit

    def _under_way(self) -> list[Ticket]:
        return [ticket for ticket in self._tickets if ticket.state == "granted"]

    def waits(self, begins: bool) -> None:
        aside = begins and not self._under_way()
        if aside is not self._stands_aside and aside is begins:
            self._stands_aside = aside
            self.aside(aside)

    def _check_budgets(self) -> None:
        for account in self.accounts:
            reason = account.used_up()
            if reason is not None:
                raise BudgetExceeded(ErrorInfo("budget_exceeded", reason))


def _ignored(aside: bool) -> None:
    """Nobody has to know."""
