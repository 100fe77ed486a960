"""What a key may use: requests and tokens in a minute, and streams at once.

The fields that tell clients of it are those of draft-ietf-httpapi-ratelimit-headers-10: ``RateLimit-Policy`` says what
there is in a window, ``RateLimit`` what is left of it and in how many seconds that changes.
"""

from __future__ import annotations

import math

from ..scheduling.window import WINDOW, RequestWindow, TokenWindow
from .face import Headers
from .keys import KeyLimits
from .problem import Problem

__all__ = ["Quota"]


class Quota:
    """What one key uses. ``now`` is a time of any one clock, in seconds."""

    __slots__ = ("_requests", "_tokens", "limits", "reading")

    def __init__(self, limits: KeyLimits) -> None:
        self.limits = limits
        self.reading = 0
        """Streams that are being read."""
        self._requests = None if limits.requests_per_minute is None else RequestWindow(limits.requests_per_minute)
        self._tokens = None if limits.tokens_per_minute is None else TokenWindow(limits.tokens_per_minute)

    def take(self, now: float) -> None:
        """Count a request that starts something. Raises Problem 429, with ``Retry-After``, if there may be none now."""
        opens, what = now, ""
        if self._requests is not None:
            opens, what = self._requests.opens(now), f"{self._requests.limit} requests"
        if self._tokens is not None and (later := self._tokens.opens(1, now)) > opens:
            opens, what = later, f"{self._tokens.limit} tokens"
        if opens > now:
            wait = math.ceil(opens - now)
            raise Problem(
                429,
                f"this key may use {what} a minute: try again in {wait} s",
                headers=((b"retry-after", b"%d" % wait),),
            )
        if self._requests is not None:
            self._requests.take(now)

    def used(self, tokens: int, now: float) -> None:
        """Something that it started has used so many tokens."""
        if self._tokens is not None and tokens:
            self._tokens.reserve(tokens, now)

    def headers(self, now: float) -> Headers:
        """What there is and what is left; nothing for a key without such limits."""
        rows = []
        if (requests := self._requests) is not None:
            rows.append(("requests", requests.limit, requests.used(now), requests.opens(now)))
        if (tokens := self._tokens) is not None:
            rows.append(("tokens", tokens.limit, tokens.used(now), tokens.opens(1, now)))
        if not rows:
            return ()
        policy = ", ".join(f'"{name}";q={limit};w={WINDOW:.0f}' for name, limit, _, _ in rows)
        left = ", ".join(
            f'"{name}";r={max(0, limit - used)};t={math.ceil(opens - now) if opens > now else math.ceil(WINDOW)}'
            for name, limit, used, opens in rows
        )
        return ((b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode()))
