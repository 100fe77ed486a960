"""Who may make a Call now: a pure state machine. Waiting, and the clock, are its shell's affair.

Every Call passes here with a :class:`Ticket`, retries and the candidates of ensembles too.

======== ============================================================= ==========
from     what happens                                                  to
======== ============================================================= ==========
new      :meth:`Admission.ask`                                         waiting, or at once granted
waiting  its turn, with a slot, a request and its tokens free          granted
waiting  its deadline passed                                           refused
waiting  :meth:`Admission.close`: its asker gave up                    closed
granted  :meth:`Admission.close`: the Call is over                     closed
======== ============================================================= ==========

*Order.* A higher priority goes first; within a priority each key gets an equal share of an agent (of its tokens, where
it has a limit of tokens; of its Calls otherwise). Nobody passes whoever is next because it is smaller; only tickets
whose task type is full are passed by.

*Nothing starves.* Of every ``EVERY`` grants of an agent, one goes to the ticket that has waited longest, once that has
waited for ``PATIENCE`` seconds. So a ticket that has waited so long, with m older ones before it, is among the next
``EVERY * (m + 1)`` grants that its agent gives to task types that are not full; the same holds among the tickets of a
task type that is limited itself, for as long as their agents are not paused.

*Limits.* Slots are given back once, whatever happens. In any 60 seconds no more requests and tokens are admitted than
the limits say (tokens as estimated, or as used once that is known). A Call that could never be admitted is an error at
once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from heapq import heapify, heappop, heappush
from typing import Final, Literal, TypeAlias

from ..errors import InvalidOption, RequestOverLimit
from .gate import AgentGate, TypeGate
from .limits import Limits
from .line import Line, Ticket
from .provider import ProviderState

__all__ = ["EVERY", "PATIENCE", "Admission", "Answer", "Ticket"]

Answer: TypeAlias = Literal["ok", "rate_limited", "server_error"]
"""What a provider made of a Call: it answered; 429 or its like; 5xx or its like."""

PATIENCE: Final = 10.0
"""Seconds after which a ticket may not be passed by for ever."""

EVERY: Final = 8
"""Of so many grants one goes to the ticket that has waited longest."""

_NO_LIMITS: Final = Limits()
_SLACK: Final = 64


class Admission:
    """The limits of all agents and task types, and the tickets that wait for them.

    ``limits`` maps agents to their limits, ``task_types`` task types to their number of Calls at the same time, over
    all agents; ``weights`` gives a key more than one share. What is not named has no limit and one share.

    ``now`` is in seconds on a clock that only goes forward. Methods give the tickets that they made granted or refused,
    other askers' among them; whoever drives the machine wakes those, and calls :meth:`tick` at :meth:`next_time`.
    """

    def __init__(
        self,
        limits: Mapping[str, Limits] | None = None,
        *,
        task_types: Mapping[str, int] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._agents = {name: AgentGate(name, limit) for name, limit in (limits or {}).items()}
        self._types: dict[str, TypeGate] = {}
        for name, slots in (task_types or {}).items():
            if type(slots) is not int or slots < 1:
                raise InvalidOption(f"the limit of task type {name!r} must be a whole number above 0, not {slots!r}")
            self._types[name] = TypeGate(name, slots)
        for key, weight in (weights or {}).items():
            if not (isinstance(weight, int | float) and 0 < weight < math.inf):
                raise InvalidOption(f"the weight of key {key!r} must be a number above 0, not {weight!r}")
        self._weights = dict(weights or {})
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._asked = 0
        self._waiting = 0

    # --- what happens -----------------------------------------------------------------------------------------------

    def ask(self, ticket: Ticket, now: float) -> list[Ticket]:
        """Ask for the right to make a Call; the ticket is new.

        Raises :class:`~multi_agent_scheduler.errors.RequestOverLimit`, changing nothing, if it would wait for ever.
        """
        agent = self._agent(ticket.agent)
        reason = agent.too_large(ticket.estimate)
        if reason is not None:
            raise RequestOverLimit(reason)
        if ticket.state != "new":
            raise ValueError(f"a {ticket.state} ticket cannot ask again")
        changed = self._expired(now)
        self._asked += 1
        ticket.number = self._asked
        ticket.asked_at = now
        kind = self._types.get(ticket.task_type) if self._types else None
        if ticket.deadline <= now:
            _refuse(ticket)
            changed.append(ticket)
            return changed
        if not agent.waiting and (kind is None or kind.free) and agent.opens(ticket.estimate, now) <= now:
            self._begin(agent, kind, ticket, now)
            changed.append(ticket)
            return changed
        self._enqueue(agent, kind, ticket)
        self._pump((agent,), now, changed)
        return changed

    def close(self, ticket: Ticket, now: float, tokens: int | None = None) -> list[Ticket]:
        """The Call is over, or is not wanted any more. Closing again, or a refused ticket, does nothing.

        ``tokens`` is what it used in all; None leaves the estimate standing.
        """
        changed = self._expired(now)
        state, agent = ticket.state, self._agent(ticket.agent)
        if state not in ("granted", "waiting"):
            return changed
        kind = self._types.get(ticket.task_type)
        ticket.state = "closed"
        if state == "waiting":
            self._withdraw(agent, kind, ticket)
        else:
            agent.slots.used -= 1
            if kind is not None:
                kind.used -= 1
            if tokens is not None:
                self._settle(agent, ticket, tokens, now)
        self._freed(agent, kind, now, changed)
        return changed

    def settle(self, ticket: Ticket, tokens: int, now: float) -> list[Ticket]:
        """A Call has used so many tokens in all, as far as is known: while it runs (use beyond the estimate counts at
        once; say less than the estimate only at the end), or after it was closed. The last word counts.
        """
        changed = self._expired(now)
        agent = self._agent(ticket.agent)
        self._settle(agent, ticket, tokens, now)
        self._pump((agent,), now, changed)
        return changed

    def feedback(
        self,
        ticket: Ticket,
        answer: Answer,
        now: float,
        *,
        retry_after: float | None = None,
    ) -> list[Ticket]:
        """What the provider made of a granted Call: say it once, before or after :meth:`close`.

        After a rate limit nothing is granted for ``retry_after`` seconds, and fewer Calls run at once.
        """
        changed = self._expired(now)
        agent = self._agent(ticket.agent)
        if answer == "ok":
            agent.slots.grow(now)
        elif answer == "rate_limited":
            agent.slots.cut(ticket.granted_at, now)
        else:
            agent.slots.stall(now)
        if retry_after is not None and now + retry_after > agent.paused:
            agent.paused = now + retry_after
        self._narrowed(agent, now, changed)
        return changed

    def heard(self, ticket: Ticket, state: ProviderState, now: float) -> list[Ticket]:
        """What the provider said in its answer to a granted Call that it has left: kept to until the reset it names."""
        changed = self._expired(now)
        agent = self._agent(ticket.agent)
        agent.heard(ticket, state, now)
        self._narrowed(agent, now, changed)
        return changed

    def limit(self, agent: str, limits: Limits, now: float) -> list[Ticket]:
        """Set an agent's limits. Where more is taken than they allow, nothing is granted until enough has come back."""
        gate = self._agent(agent)
        changed = self._expired(now)
        if gate.limits == limits:
            return changed
        gate.resize(limits)
        for line in gate.lines.values():
            for ticket in line.tickets():
                reason = gate.too_large(ticket.estimate)
                if reason is not None:
                    self._withdraw(gate, self._types.get(ticket.task_type), ticket)
                    ticket.state, ticket.refusal = "refused", reason
                    changed.append(ticket)
        self._pump((gate,), now, changed)
        return changed

    def tick(self, now: float) -> list[Ticket]:
        """Time has passed: what it has brought."""
        changed = self._expired(now)
        self._pump([agent for agent in self._agents.values() if agent.wake <= now], now, changed)
        return changed

    def next_time(self) -> float:
        """When to call :meth:`tick`; infinity if time alone changes nothing."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].state != "waiting":
            heappop(deadlines)
        at = deadlines[0][0] if deadlines else math.inf
        for agent in self._agents.values():
            if agent.wake < at:
                at = agent.wake
        return at

    # --- what is seen -----------------------------------------------------------------------------------------------

    def used(self, agent: str) -> int:
        """The Calls of an agent that are under way."""
        gate = self._agents.get(agent)
        return 0 if gate is None else gate.slots.used

    def waiting(self, agent: str | None = None) -> int:
        """The tickets that wait for an agent, or for any."""
        if agent is None:
            return self._waiting
        gate = self._agents.get(agent)
        return 0 if gate is None else gate.waiting

    def allowed(self, agent: str) -> float:
        """How many Calls of an agent may run at once, by its limit and its provider's answers; may be infinity."""
        gate = self._agents.get(agent)
        return math.inf if gate is None else gate.slots.allowed

    # --- inside -----------------------------------------------------------------------------------------------------

    def _agent(self, name: str) -> AgentGate:
        gate = self._agents.get(name)
        if gate is None:
            gate = self._agents[name] = AgentGate(name, _NO_LIMITS)
        return gate

    def _line(self, ticket: Ticket) -> str | None:
        return ticket.task_type if ticket.task_type in self._types else None

    def _enqueue(self, agent: AgentGate, kind: TypeGate | None, ticket: Ticket) -> None:
        ticket.state = "waiting"
        cost = max(1, ticket.estimate) if agent.tokens is not None else 1
        ticket.cost = cost / self._weights.get(ticket.key, 1)
        agent.add(ticket, self._line(ticket))
        if kind is not None:
            kind.agents[agent.name] = agent
        self._waiting += 1
        if ticket.deadline != math.inf:
            deadlines = self._deadlines
            heappush(deadlines, (ticket.deadline, ticket.number, ticket))
            if len(deadlines) > _SLACK + 2 * self._waiting:
                deadlines[:] = [entry for entry in deadlines if entry[2].state == "waiting"]
                heapify(deadlines)

    def _withdraw(self, agent: AgentGate, kind: TypeGate | None, ticket: Ticket) -> None:
        """A ticket gives up its place."""
        agent.remove(ticket, self._line(ticket), granted=False)
        self._waiting -= 1
        if kind is not None and kind.held is ticket:
            kind.held = None

    def _begin(self, agent: AgentGate, kind: TypeGate | None, ticket: Ticket, now: float) -> None:
        ticket.state = "granted"
        ticket.granted_at = now
        agent.take(ticket, now)
        if kind is not None:
            kind.used += 1
            kind.passed += 1

    def _expired(self, now: float) -> list[Ticket]:
        """Refuse what has passed its deadline, and let those in that it kept waiting."""
        changed: list[Ticket] = []
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            ticket = heappop(deadlines)[2]
            if ticket.state == "waiting":
                agent, kind = self._agent(ticket.agent), self._types.get(ticket.task_type)
                self._withdraw(agent, kind, ticket)
                _refuse(ticket)
                changed.append(ticket)
                self._freed(agent, kind, now, changed)
        return changed

    def _settle(self, agent: AgentGate, ticket: Ticket, tokens: int, now: float) -> None:
        if ticket.reservation is not None and agent.tokens is not None:
            agent.tokens.settle(ticket.reservation, tokens, now)

    def _freed(self, agent: AgentGate, kind: TypeGate | None, now: float, changed: list[Ticket]) -> None:
        """Something of the agent, or of the task type with it, may be free."""
        if kind is None:
            self._pump((agent,), now, changed)
            return
        while kind.free and kind.passed >= EVERY - 1 and kind.held is None:
            oldest = kind.oldest()
            if oldest is None or now - oldest.asked_at < PATIENCE:
                break
            its = self._agent(oldest.agent)
            if its.opens(oldest.estimate, now) > now:
                if its.kept_out(oldest.estimate, now) <= now:
                    kind.held = oldest
                break
            self._grant(oldest, now)
            changed.append(oldest)
        self._pump({agent.name: agent, **kind.agents}.values(), now, changed)

    def _narrowed(self, agent: AgentGate, now: float, changed: list[Ticket]) -> None:
        """The agent's provider has spoken: it may want no Calls for a while, or want them again."""
        for kind in self._types.values():
            if (
                kind.held is not None
                and kind.held.agent == agent.name
                and agent.kept_out(kind.held.estimate, now) > now
            ):
                kind.held = None  # it may take long: the slot is for others meanwhile
                self._freed(agent, kind, now, changed)
        self._pump((agent,), now, changed)

    def _pump(self, agents: Collection[AgentGate], now: float, changed: list[Ticket]) -> None:
        """Grant what may be granted, best first, until nothing more can be. All agents that compete are given."""
        while True:
            best: Ticket | None = None
            for agent in agents:
                if agent.waiting:
                    ticket = self._next(agent, now)
                    if ticket is not None and (best is None or _rank(ticket) < _rank(best)):
                        best = ticket
            if best is None:
                return
            self._grant(best, now)
            changed.append(best)

    def _next(self, agent: AgentGate, now: float) -> Ticket | None:
        """Whose turn it is at an agent, if it may go now; otherwise the agent's ``wake`` is set."""
        agent.wake = math.inf
        if not agent.slots.free:
            return None
        for kind in self._types.values():
            if kind.held is not None and kind.held.agent == agent.name and kind.used < kind.slots:
                return self._timed(agent, kind.held, now)
        lines = self._open_lines(agent)
        if not lines:
            return None
        if agent.passed >= EVERY - 1:
            oldest = min([line.oldest() for line in lines], key=_number)
            if now - oldest.asked_at >= PATIENCE:
                return self._timed(agent, oldest, now)
        return self._timed(agent, min([line.head() for line in lines])[-1], now)

    def _timed(self, agent: AgentGate, ticket: Ticket, now: float) -> Ticket | None:
        at = agent.opens(ticket.estimate, now)
        if at <= now:
            return ticket
        agent.wake = at
        return None

    def _open_lines(self, agent: AgentGate) -> list[Line]:
        """The lines of an agent in which somebody waits who is not kept back by a task type's limit."""
        if not self._types:
            return list(agent.lines.values())
        return [line for name, line in agent.lines.items() if line and (name is None or self._types[name].free)]

    def _grant(self, ticket: Ticket, now: float) -> None:
        """A waiting ticket's turn has come."""
        agent, kind = self._agents[ticket.agent], self._types.get(ticket.task_type)
        first = all(line.oldest().number >= ticket.number for line in self._open_lines(agent))
        agent.passed = 0 if first else agent.passed + 1
        oldest = kind is not None and kind.oldest() is ticket
        agent.remove(ticket, self._line(ticket), granted=True)
        self._waiting -= 1
        self._begin(agent, kind, ticket, now)
        if kind is not None:
            if oldest:
                kind.passed = 0
            if kind.held is ticket:
                kind.held = None


def _rank(ticket: Ticket) -> tuple[int, int]:
    return -ticket.priority, ticket.number


def _number(ticket: Ticket) -> int:
    return ticket.number


def _refuse(ticket: Ticket) -> None:
    ticket.state = "refused"
    waited = max(0.0, ticket.deadline - ticket.asked_at)
    ticket.refusal = f"agent {ticket.agent!r} had no place for the Call before its deadline, after {waited:.3g} s"
