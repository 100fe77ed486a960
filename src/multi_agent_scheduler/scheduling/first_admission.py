"""Who may make a Call now: a pure state machine; waiting is its shell's affair.

Each agent has a number of slots. A request for a slot is granted at once or queued; a slot that comes free goes to the
request that has waited longest.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Admission", "Ticket"]


class Ticket:
    """One request for a slot of ``agent``: ``waiting``, ``granted`` or ``closed``."""

    __slots__ = ("agent", "state")

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.state = "waiting"


class Admission:
    """The slots of all agents. ``None`` slots is no limit."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}
        self._waiting: dict[str, deque[Ticket]] = {}
        self._slots: dict[str, int | None] = {}

    def limit(self, agent: str, slots: int | None) -> None:
        """Set an agent's slots. Fewer than are taken now: none is granted until enough have come back."""
        self._slots[agent] = slots

    def ask(self, agent: str) -> Ticket:
        """Ask for a slot. The ticket must be given to :meth:`close`, granted or not."""
        ticket = Ticket(agent)
        slots = self._slots.get(agent)
        used = self._used.get(agent, 0)
        if slots is None or (used < slots and not self._waiting.get(agent)):
            self._used[agent] = used + 1
            ticket.state = "granted"
        else:
            self._waiting.setdefault(agent, deque()).append(ticket)
        return ticket

    def close(self, ticket: Ticket) -> Ticket | None:
        """Give a slot back, or give up waiting; closing again does nothing. Gives the ticket that got the slot."""
        state, ticket.state = ticket.state, "closed"
        if state != "granted":
            return None  # one that waited is skipped when its turn comes
        agent = ticket.agent
        self._used[agent] -= 1
        waiting, slots = self._waiting.get(agent), self._slots.get(agent)
        while waiting and (slots is None or self._used[agent] < slots):
            following = waiting.popleft()
            if following.state == "waiting":
                following.state = "granted"
                self._used[agent] += 1
                return following
        return None

    def used(self, agent: str) -> int:
        """The slots that are taken now."""
        return self._used.get(agent, 0)
