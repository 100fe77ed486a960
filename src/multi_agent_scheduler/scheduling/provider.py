"""What a provider says about its own limits, and what follows: Calls that it would refuse are not made."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from .window import WINDOW

__all__ = ["LONGEST", "Allowance", "ProviderState", "Quota"]

LONGEST: Final = 3600.0
"""Seconds. Nobody is kept waiting longer for a reset: the provider's refusal says more than an hour of silence."""


class Quota(msgspec.Struct, frozen=True):
    """``left`` of something, and in how many seconds (``reset``) there will be ``limit`` again (None: not said)."""

    left: int
    reset: float
    limit: int | None = None


class ProviderState(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider's headers say about its requests and tokens; None: nothing that can be kept to."""

    requests: Quota | None = None
    tokens: Quota | None = None


class Allowance:
    """What the provider has left of something, less what has been granted since.

    When the reset has come there is the whole limit again, or, if that is not known, no end of it, until the provider
    is heard again. A quota that nothing more is heard of is taken to last a minute.
    """

    __slots__ = ("_limit", "_until", "left")

    def __init__(self) -> None:
        self.left = math.inf
        self._limit = math.inf
        self._until = math.inf

    def hear(self, quota: Quota, unseen: int, now: float) -> None:
        """The provider said so; it may not have seen ``unseen`` of what has been granted."""
        if quota.reset > LONGEST:
            self.left, self._until = math.inf, math.inf
            return
        self.left = quota.left - unseen
        self._limit = math.inf if quota.limit is None else quota.limit
        self._until = now + quota.reset

    def opens(self, need: int, now: float) -> float:
        """When there will be as much as needed: ``now``, or later. More than the whole limit is for the provider."""
        if now >= self._until:
            self.left = self._limit
            self._until = math.inf if self._limit == math.inf else now + WINDOW
        return now if self.left >= min(need, self._limit) else self._until
