"""Limits of a minute, exactly: what is admitted in any window of 60 seconds, wherever it begins, stays within them."""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from typing import Final

__all__ = ["MARGIN", "WINDOW", "RequestWindow", "Reservation", "TokenWindow"]

WINDOW: Final = 60.0
"""Seconds."""

MARGIN: Final = 0.001
"""Seconds by which a window is taken longer, so that two Calls exactly a minute apart are never in one window."""

_SPAN: Final = WINDOW + MARGIN
_STEP: Final = 0.25  # use beyond an estimate is booked in steps of so many seconds: a booking a step, not one a chunk
_LOOKED_AT: Final = (
    64  # bookings that are added up to say when there will be room; behind them the answer is "not before"
)


class RequestWindow:
    """Requests of the last minute."""

    __slots__ = ("_leaves", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._leaves: deque[float] = deque()  # when each request leaves the window

    def used(self, now: float) -> int:
        """Requests that count now."""
        leaves = self._leaves
        while leaves and leaves[0] <= now:
            leaves.popleft()
        return len(leaves)

    def opens(self, now: float) -> float:
        """When one more request fits: ``now``, or later."""
        used = self.used(now)
        return now if used < self.limit else self._leaves[used - self.limit]

    def take(self, now: float) -> None:
        """A request is admitted."""
        self._leaves.append(now + _SPAN)


class _Booking:
    """Tokens that count until ``leaves``."""

    __slots__ = ("leaves", "tokens")

    def __init__(self, tokens: int, leaves: float) -> None:
        self.tokens = tokens
        self.leaves = leaves


class Reservation:
    """What one Call has booked: ``tokens`` in all, the first booking and the last of what went beyond it."""

    __slots__ = ("first", "over", "tokens")

    def __init__(self, first: _Booking) -> None:
        self.tokens = first.tokens
        self.first = first
        self.over: _Booking | None = None


class TokenWindow:
    """Tokens of the last minute: reserved by estimate when a Call is admitted, and settled by what it really used.

    Use beyond the estimate is debt: it counts for a minute from when it is known, and while it fills the window nothing
    is admitted.
    """

    __slots__ = ("_bookings", "_used", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._bookings: deque[_Booking] = deque()  # by the time at which they leave

    def used(self, now: float) -> int:
        """Tokens that count now; more than the limit while there is debt."""
        bookings = self._bookings
        while bookings and bookings[0].leaves <= now:
            self._used -= bookings.popleft().tokens
        return self._used

    def opens(self, tokens: int, now: float) -> float:
        """When a Call of so many tokens may fit: ``now``, or a time before which it does not; never: infinity."""
        over = self.used(now) + tokens - self.limit
        if over <= 0:
            return now
        if tokens > self.limit:
            return math.inf
        leaves = now
        for booking in islice(self._bookings, _LOOKED_AT):
            over -= booking.tokens
            leaves = booking.leaves
            if over <= 0:
                break
        return leaves

    def reserve(self, tokens: int, now: float) -> Reservation:
        """Tokens are admitted."""
        return Reservation(self._book(tokens, now))

    def settle(self, reservation: Reservation, tokens: int, now: float) -> None:
        """The Call has used so many tokens in all; may be said many times. What it did not use is free at once."""
        self.used(now)
        more = tokens - reservation.tokens
        reservation.tokens = tokens
        if more > 0:
            over = reservation.over
            if over is not None and over.leaves >= now + _SPAN:
                over.tokens += more
                self._used += more
            else:
                reservation.over = self._book(more, now + _STEP)
            return
        for booking in (reservation.over, reservation.first):
            if more and booking is not None and booking.leaves > now:
                back = min(-more, booking.tokens)
                booking.tokens -= back
                self._used -= back
                more += back

    def _book(self, tokens: int, now: float) -> _Booking:
        leaves = now + _SPAN
        if self._bookings and self._bookings[-1].leaves > leaves:
            leaves = self._bookings[-1].leaves  # in order, at the price of a step
        booking = _Booking(tokens, leaves)
        self._bookings.append(booking)
        self._used += tokens
        return booking
