"""Who is next: a line of waiting tickets, by priority, and within a priority by fair shares of the keys.

Fair shares are self-clocked fair queueing (S. J. Golestani, "A self-clocked fair queueing scheme", INFOCOM 1994): a
key's next ticket has a tag, its start plus its cost, and the smallest tag is next. It starts where the key's last one
ended, or at the tag that was served last if the key had nothing waiting. Everything is O(log n).
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Literal

import msgspec

from .window import Reservation

__all__ = ["Line", "Share", "Ticket"]

_SLACK: Final = 64  # entries that may be stale before the structure that holds them is rebuilt


class Ticket(msgspec.Struct, eq=False):
    """One Call that wants to be made; its asker keeps it and gives it to ``Admission.close`` whatever becomes of it.

    ``key`` is who gets a fair share (a tenant, a plan); a higher ``priority`` goes first; ``estimate`` is in tokens;
    ``deadline`` is a time on the admission's clock. ``state`` is set by the admission: a ``refused`` ticket has the
    sentence why in ``refusal``.
    """

    agent: str
    task_type: str = "general"
    key: str = ""
    priority: int = 0
    estimate: int = 0
    deadline: float = float("inf")
    state: Literal["new", "waiting", "granted", "refused", "closed"] = "new"
    refusal: str = ""
    asked_at: float = 0.0
    granted_at: float = 0.0
    # The admission's own.
    number: int = 0  # of its asking
    cost: float = 1.0  # of its key's share
    grant: int = 0  # of its granting, among those of the agent
    granted_tokens: int = 0  # that the agent had been granted with it
    reservation: Reservation | None = None


class Share:
    """The fair shares at one agent and priority: the tag that was served last, and where each key's last one ended."""

    __slots__ = ("ends", "served")

    def __init__(self) -> None:
        self.served = 0.0
        self.ends: dict[str, float] = {}

    def start(self, key: str, earliest: float) -> float:
        return max(earliest, self.ends.get(key, 0.0))

    def end(self, key: str, tag: float, keys: int) -> None:
        self.ends[key] = tag
        if len(self.ends) > _SLACK + 2 * keys:  # those that ended in the past say nothing
            self.ends = {name: end for name, end in self.ends.items() if end >= self.served}


class _Key:
    """The tickets of one key at one priority, in the order of asking; ``entry`` is its live one in the level's heap."""

    __slots__ = ("entry", "name", "start", "tickets")

    def __init__(self, name: str, start: float) -> None:
        self.name = name
        self.start = start
        self.tickets: OrderedDict[int, Ticket] = OrderedDict()
        self.entry: tuple[float, int, _Key] | None = None


class _Level:
    """The keys that wait at one priority."""

    __slots__ = ("_heap", "_share", "keys")

    def __init__(self, share: Share) -> None:
        self.keys: dict[str, _Key] = {}
        self._share = share
        self._heap: list[tuple[float, int, _Key]] = []

    def add(self, ticket: Ticket) -> None:
        key = self.keys.get(ticket.key)
        if key is None:
            key = self.keys[ticket.key] = _Key(ticket.key, self._share.served)
            key.tickets[ticket.number] = ticket
            heappush(self._heap, self._entry(key))
        else:
            key.tickets[ticket.number] = ticket

    def _entry(self, key: _Key) -> tuple[float, int, _Key]:
        first = next(iter(key.tickets.values()))
        key.entry = entry = (self._share.start(key.name, key.start) + first.cost, first.number, key)
        return entry

    def head(self) -> tuple[float, Ticket]:
        """The tag and ticket of whose turn it is; there is one."""
        heap = self._heap
        while True:
            entry = heap[0]
            key = entry[2]
            if key.entry is not entry:
                heappop(heap)
                continue
            first = next(iter(key.tickets.values()))
            if self._share.start(key.name, key.start) + first.cost > entry[0]:
                heapreplace(heap, self._entry(key))  # the key had a turn elsewhere
                continue
            return entry[0], first

    def remove(self, ticket: Ticket, granted: bool) -> None:
        key = self.keys[ticket.key]
        first = key.entry is not None and key.entry[1] == ticket.number
        if granted:
            tag = self._share.start(key.name, key.start) + ticket.cost
            if self.head()[1] is ticket:
                self._share.served = max(tag, self._share.served)
            self._share.end(key.name, tag, len(self.keys))
            key.start = tag
        del key.tickets[ticket.number]
        if not key.tickets:
            del self.keys[ticket.key]
            key.entry = None
        elif first:
            heappush(self._heap, self._entry(key))
        if len(self._heap) > _SLACK + 2 * len(self.keys):
            self._heap = [key.entry for key in self.keys.values() if key.entry is not None]
            heapify(self._heap)


class Line:
    """Tickets that wait for one agent, all of them either free to go or kept back by one task type's limit.

    ``shares`` are the agent's: its lines have them in common, so that a key has one share of the agent.
    """

    __slots__ = ("_ages", "_levels", "_order", "_shares")

    def __init__(self, shares: dict[int, Share]) -> None:
        self._shares = shares
        self._levels: dict[int, _Level] = {}
        self._order: list[int] = []  # the priorities of the levels, negated: a heap
        self._ages: OrderedDict[int, Ticket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ages)

    def add(self, ticket: Ticket) -> None:
        """A ticket begins to wait."""
        self._ages[ticket.number] = ticket
        level = self._levels.get(ticket.priority)
        if level is None:
            share = self._shares.get(ticket.priority)
            if share is None:
                share = self._shares[ticket.priority] = Share()
            level = self._levels[ticket.priority] = _Level(share)
            heappush(self._order, -ticket.priority)
        level.add(ticket)

    def remove(self, ticket: Ticket, *, granted: bool) -> None:
        """A ticket waits no more. Only a :meth:`head` or :meth:`oldest` ticket may be granted."""
        del self._ages[ticket.number]
        self._levels[ticket.priority].remove(ticket, granted)
        if not self._ages:
            self._levels.clear()
            self._order.clear()

    def oldest(self) -> Ticket:
        """The ticket that has waited longest; there is one."""
        return next(iter(self._ages.values()))

    def head(self) -> tuple[int, float, int, Ticket]:
        """The ticket whose turn it is, behind what to compare it by with other lines' of the agent; there is one."""
        while True:
            level = self._levels[-self._order[0]]
            if level.keys:
                tag, ticket = level.head()
                return self._order[0], tag, ticket.number, ticket
            del self._levels[-heappop(self._order)]

    def tickets(self) -> list[Ticket]:
        """All that wait, oldest first."""
        return list(self._ages.values())
