"""What a Call must pass: its agent's slots, windows and pauses, and its task type's slots."""

from __future__ import annotations

import math

from .limits import Limits
from .line import Line, Share, Ticket
from .provider import Allowance, ProviderState
from .slots import Slots
from .window import RequestWindow, TokenWindow

__all__ = ["AgentGate", "TypeGate"]


class TypeGate:
    """The slots of one task type, for all agents together."""

    __slots__ = ("agents", "held", "name", "passed", "slots", "used")

    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self.slots = slots
        self.used = 0
        self.agents: dict[str, AgentGate] = {}  # those that have had tickets of this type
        self.passed = 0  # grants since the one that had waited longest had its turn
        self.held: Ticket | None = None  # for whom the next slot is kept until its agent has one too

    @property
    def free(self) -> bool:
        """One more Call may begin, beside the one for whom a slot is kept."""
        return self.used + (self.held is not None) < self.slots

    def oldest(self) -> Ticket | None:
        """The ticket of this type that has waited longest."""
        lines = [agent.lines[self.name] for agent in self.agents.values()]
        return min((line.oldest() for line in lines if line), key=_number, default=None)


def _number(ticket: Ticket) -> int:
    return ticket.number


class AgentGate:
    """One agent: its limits, what its provider has said, and who waits for it.

    ``lines`` has a line for each task type that has a limit of its own, and one (None) for all others.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.slots = Slots(limits.concurrency)
        self.requests: RequestWindow | None = None
        self.tokens: TokenWindow | None = None
        self.lines: dict[str | None, Line] = {}
        self.waiting = 0
        self.passed = 0  # grants since the one that had waited longest had its turn
        self.wake = math.inf  # when whoever is next may go, if time alone decides
        self.paused = -math.inf
        self._shares: dict[int, Share] = {}
        self._grants = 0
        self._tokens_granted = 0
        self._heard = 0  # the grant of the newest Call whose headers have been seen
        self._requests_left = Allowance()
        self._tokens_left = Allowance()
        self.resize(limits)

    def resize(self, limits: Limits) -> None:
        """Set other limits. What has been admitted in the last minute still counts, where it was counted."""
        self.limits = limits
        self.slots.resize(limits.concurrency)
        if limits.requests_per_minute is None:
            self.requests = None
        elif self.requests is None:
            self.requests = RequestWindow(limits.requests_per_minute)
        else:
            self.requests.limit = limits.requests_per_minute
        if limits.tokens_per_minute is None:
            self.tokens = None
        elif self.tokens is None:
            self.tokens = TokenWindow(limits.tokens_per_minute)
        else:
            self.tokens.limit = limits.tokens_per_minute

    def too_large(self, estimate: int) -> str | None:
        """Why a Call of so many tokens can never be made; None if it can."""
        limit = self.limits.tokens_per_minute
        if limit is None or estimate <= limit:
            return None
        return (
            f"agent {self.name!r}: a Call of about {estimate} tokens can never be made within its limit of "
            f"{limit} tokens per minute; ask for fewer (a smaller max_tokens, a shorter prompt) or raise the limit"
        )

    def opens(self, tokens: int, now: float) -> float:
        """When a Call of so many tokens may begin: ``now``, later, or infinity if that takes the return of a slot."""
        if not self.slots.free:
            return math.inf
        at = self.kept_out(tokens, now)
        if self.requests is not None:
            at = max(at, self.requests.opens(now))
        if self.tokens is not None:
            at = max(at, self.tokens.opens(tokens, now))
        return at

    def kept_out(self, tokens: int, now: float) -> float:
        """Until when the provider does not want such a Call, by what it has said; ``now`` if it does not mind."""
        return max(now, self.paused, self._requests_left.opens(1, now), self._tokens_left.opens(tokens, now))

    def take(self, ticket: Ticket, now: float) -> None:
        """A Call begins: everything that it takes is taken."""
        self.slots.used += 1
        self._grants += 1
        self._tokens_granted += ticket.estimate
        self._requests_left.left -= 1
        self._tokens_left.left -= ticket.estimate
        ticket.grant, ticket.granted_tokens = self._grants, self._tokens_granted
        if self.requests is not None:
            self.requests.take(now)
        if self.tokens is not None:
            ticket.reservation = self.tokens.reserve(ticket.estimate, now)

    def heard(self, ticket: Ticket, state: ProviderState, now: float) -> None:
        """The provider said in its answer to this Call what it has left; it may not have seen later ones."""
        if ticket.grant < self._heard:
            return  # an older answer that took longer
        self._heard = ticket.grant
        if state.requests is not None:
            self._requests_left.hear(state.requests, self._grants - ticket.grant, now)
        if state.tokens is not None:
            self._tokens_left.hear(state.tokens, self._tokens_granted - ticket.granted_tokens, now)

    def add(self, ticket: Ticket, line: str | None) -> None:
        """A ticket begins to wait in the line of its task type."""
        waiting = self.lines.get(line)
        if waiting is None:
            waiting = self.lines[line] = Line(self._shares)
        waiting.add(ticket)
        self.waiting += 1

    def remove(self, ticket: Ticket, line: str | None, *, granted: bool) -> None:
        """A ticket waits no more."""
        self.lines[line].remove(ticket, granted=granted)
        self.waiting -= 1
        if not self.waiting:
            self._shares.clear()  # nobody waits: what anybody had before is forgotten
            self.passed = 0
            self.wake = math.inf
