"""What a key may use: requests and tokens in a minute, and streams at once.

The fields that tell clients of it are those of draft-ietf-httpapi-ratelimit-headers-10: ``RateLimit-Policy`` says what
there is in a window, ``RateLimit`` what is left of it and in how many seconds that changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..scheduling.budget import Account, Budget
from ..scheduling.window import WINDOW, RequestWindow, Reservation, TokenWindow
from .face import Headers
from .keys import KeyLimits
from .problem import Problem

__all__ = ["Meter", "Quota"]


class Quota:
    """What one key uses. ``now`` is a time of any one clock, in seconds."""

    __slots__ = ("_requests", "_tokens", "limits", "reading")

    def __init__(self, limits: KeyLimits) -> None:
        self.limits = limits
        self.reading = 0
        """Streams that are being read."""
        self._requests = RequestWindow(limits.requests_per_minute or 0)
        self._tokens = TokenWindow(limits.tokens_per_minute or 0)

    def hold_to(self, limits: KeyLimits) -> None:
        """From now on these are the limits; what was used of those before counts."""
        if limits != self.limits:
            self.limits = limits
            self._requests.limit = limits.requests_per_minute or 0
            self._tokens.limit = limits.tokens_per_minute or 0

    def take(self, now: float) -> None:
        """Count a request that starts something. Raises Problem 429, with ``Retry-After``, if there may be none now."""
        opens, what = now, ""
        if self._requests.limit:
            opens, what = self._requests.opens(now), f"{self._requests.limit} requests"
        if self._tokens.limit and (later := self._tokens.opens(1, now)) > opens:
            opens, what = later, f"{self._tokens.limit} tokens"
        if opens > now:
            wait = math.ceil(opens - now)
            raise Problem(
                429,
                f"this key may use {what} a minute: try again in {wait} s",
                headers=((b"retry-after", b"%d" % wait),),
            )
        if self._requests.limit:
            self._requests.take(now)

    def begin(self, now: float) -> Reservation:
        """Something begins that will use tokens."""
        return self._tokens.reserve(0, now)

    def used(self, reservation: Reservation, tokens: int, now: float) -> None:
        """It has used so many tokens in all: reported, or estimated while nobody has reported them."""
        self._tokens.settle(reservation, tokens, now)

    def headers(self, now: float) -> Headers:
        """What there is and what is left; nothing for a key without such limits."""
        rows = []
        if (requests := self._requests).limit:
            rows.append(("requests", requests.limit, requests.used(now), requests.opens(now)))
        if (tokens := self._tokens).limit:
            rows.append(("tokens", tokens.limit, tokens.used(now), tokens.opens(1, now)))
        if not rows:
            return ()
        policy = ", ".join(f'"{name}";q={limit};w={WINDOW:.0f}' for name, limit, _, _ in rows)
        left = ", ".join(
            f'"{name}";r={max(0, limit - used)};t={math.ceil(opens - now) if opens > now else math.ceil(WINDOW)}'
            for name, limit, used, opens in rows
        )
        return ((b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode()))


class Meter(Account):
    """One stream of an owner: its tokens count while it runs, for each of the ``quotas``. What was begun goes on, but
    nothing more begins while there is no room. ``clock`` gives the time in seconds."""

    __slots__ = ("_clock", "_uses")

    def __init__(self, owner: str, quotas: Sequence[Quota], clock: Callable[[], float]) -> None:
        super().__init__(f"owner {owner!r}", Budget())
        self._clock = clock
        self._uses = [(quota, quota.begin(clock())) for quota in quotas]

    def charge(self, tokens: int, cost: float, unpriced: int) -> None:
        super().charge(tokens, cost, unpriced)
        if tokens:
            now = self._clock()
            for quota, reservation in self._uses:
                quota.used(reservation, self.tokens, now)
