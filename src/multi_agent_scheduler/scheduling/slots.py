"""How many Calls at once: a limit, and below it what the provider's answers have shown it to bear (AIMD).

Additive increase, multiplicative decrease is TCP's rule for a shared line of unknown width (RFC 5681).
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["GROWTH_PAUSE", "Slots"]

GROWTH_PAUSE: Final = 10.0
"""Seconds for which the number does not grow after a provider has failed (5xx)."""


class Slots:
    """The slots of one agent. ``limit`` None is no limit, until the provider says that it was too much.

    A rate limit answer halves what is allowed, once for all the Calls that were under way together; each success adds
    ``1 / allowed``, one slot for each round of Calls, up to the limit.
    """

    __slots__ = ("_cut_at", "_grows_from", "allowed", "limit", "used")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.used = 0
        self.allowed: float = math.inf if limit is None else limit
        self._cut_at = -math.inf
        self._grows_from = -math.inf

    def resize(self, limit: int | None) -> None:
        """Set another limit. What has been learned about the provider stays, where it was learned."""
        learned = self.allowed < (math.inf if self.limit is None else self.limit)
        self.limit = limit
        top = math.inf if limit is None else limit
        self.allowed = min(self.allowed, top) if learned else top

    @property
    def free(self) -> bool:
        """One more Call may begin."""
        return self.allowed == math.inf or self.used < int(self.allowed)

    def cut(self, granted_at: float, now: float) -> None:
        """A Call that began at ``granted_at`` met the provider's rate limit."""
        if granted_at <= self._cut_at:
            return  # it was under way when the cut was made that its like had called for
        self._cut_at = now
        before = max(self.used, 1) if self.allowed == math.inf else self.allowed
        self.allowed = max(1.0, before / 2)

    def stall(self, now: float) -> None:
        """The provider failed: no growth for a while."""
        self._grows_from = now + GROWTH_PAUSE

    def grow(self, now: float) -> None:
        """A Call succeeded."""
        if now < self._grows_from or self.allowed == math.inf:
            return
        self.allowed += 1 / self.allowed
        if self.limit is not None and self.allowed > self.limit:
            self.allowed = self.limit
