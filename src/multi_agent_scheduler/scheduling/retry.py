"""What to do when a Call has failed, and when to ask a second agent: decisions only, chance and time are arguments.

The commit point is a Call's first content. Before it, another attempt costs nobody anything. After it a reader has seen
text that another attempt would not go on from, so the policy decides:

============ ==============================================================================================
``off``      the outcome stands, and what was received is kept
``continue`` another attempt goes on from the text so far, if there is an agent that can continue a prefix
``reset``    another attempt begins from nothing, after a record that voids what went before
============ ==============================================================================================
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Final, Literal, TypeAlias

import msgspec

from ..errors import ErrorInfo, InvalidOption

__all__ = ["CommitPolicy", "Decision", "Hedging", "RecentTimes", "RetryRules", "backoff", "decide"]

CommitPolicy: TypeAlias = Literal["off", "continue", "reset"]

_HERE_ONLY: Final = frozenset({"cancelled", "response_too_large", "budget_exceeded"})
"""Failures of which another agent would change nothing: they are the caller's will or the caller's limits."""

_ENOUGH: Final = 20  # times that must be known before a percentile says anything
_CREDIT: Final = 10.0  # hedges that may be saved up
_LATE: Final = 1.1  # of a percentile: where most take the same time, those are not late that take as long


class RetryRules(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how patiently. Seconds throughout.

    ``attempts`` are those of one agent, the first included. The wait before attempt n + 1 is drawn between 0 and
    ``base * 2 ** (n - 1)``, at most ``longest_wait``. A provider's Retry-After is waited for instead, unless it is
    longer than ``longest_retry_after``: then this agent is given up. Raises
    :class:`~multi_agent_scheduler.errors.InvalidOption`.
    """

    attempts: int = 3
    policy: CommitPolicy = "off"
    base: float = 0.5
    longest_wait: float = 30.0
    longest_retry_after: float = 120.0

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or self.attempts < 1:
            raise InvalidOption(f"attempts must be a whole number above 0, not {self.attempts!r}")
        if self.policy not in ("off", "continue", "reset"):
            raise InvalidOption(f"policy must be 'off', 'continue' or 'reset', not {self.policy!r}")
        for name in ("base", "longest_wait", "longest_retry_after"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InvalidOption(f"{name} must be a number of seconds from 0 up, not {value!r}")


class Decision(msgspec.Struct, frozen=True):
    """What to do now.

    ``retry``: ask the same agent again ``after`` so many seconds. ``next``: ask the next agent, at once. ``give_up``
    (before content) and ``interrupted`` (after it): the outcome stands. ``start`` says how another attempt begins:
    ``fresh``, after a ``reset`` record, or to ``continue`` the text so far.
    """

    action: Literal["retry", "next", "give_up", "interrupted"]
    after: float = 0.0
    start: Literal["fresh", "reset", "continue"] = "fresh"


def decide(
    rules: RetryRules,
    error: ErrorInfo,
    *,
    attempt: int,
    chance: float,
    content: bool = False,
    others: bool = False,
    can_continue: bool = False,
) -> Decision:
    """What to do about a Call that failed or was interrupted.

    ``attempt`` counts this agent's attempts from 1; ``chance`` is a random number from 0 to 1. ``content``: the commit
    point was passed. ``others``: there is an agent that has not been asked yet. ``can_continue``: whoever is asked next
    can go on from a prefix, and what was received is one that can be gone on from (no half tool call, no signed
    reasoning).
    """
    stop: Literal["give_up", "interrupted"] = "interrupted" if content else "give_up"
    start: Literal["fresh", "reset", "continue"] = "fresh"
    if error.code in _HERE_ONLY:
        return Decision(stop)
    if content:
        if rules.policy == "off" or (rules.policy == "continue" and not can_continue):
            return Decision(stop)
        start = rules.policy
    if error.retryable and attempt < rules.attempts:
        after = backoff(rules, attempt, chance, error.retry_after)
        if after is not None:
            return Decision("retry", after, start)
    if others:
        return Decision("next", 0.0, start)
    return Decision(stop)


def backoff(rules: RetryRules, attempt: int, chance: float, retry_after: float | None = None) -> float | None:
    """Seconds to wait after attempt number ``attempt``, with full jitter; None for a Retry-After that is too long.

    Full jitter: M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015). After a Retry-After the
    jitter comes on top, so that those who were told the same time do not all come back together.
    """
    if retry_after is not None:
        return None if retry_after > rules.longest_retry_after else retry_after + chance * rules.base
    try:
        ceiling = rules.base * 2.0 ** (attempt - 1)
    except OverflowError:
        ceiling = math.inf
    return chance * min(rules.longest_wait, ceiling)


class RecentTimes:
    """The last ``size`` times, and their percentiles. Exact, without chance, and of bounded size."""

    __slots__ = ("_order", "_sorted")

    def __init__(self, size: int = 256) -> None:
        self._order: deque[float] = deque(maxlen=size)
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._order)

    def add(self, seconds: float) -> None:
        """One more time; the oldest is forgotten."""
        if len(self._order) == self._order.maxlen:
            del self._sorted[bisect_left(self._sorted, self._order[0])]
        self._order.append(seconds)
        insort(self._sorted, seconds)

    def percentile(self, percent: float) -> float | None:
        """The smallest time that at least ``percent`` of a hundred do not exceed (nearest rank); None without times."""
        if not self._sorted:
            return None
        return self._sorted[max(0, math.ceil(percent / 100 * len(self._sorted)) - 1)]


class Hedging:
    """When to ask a second agent as well, because the first takes long to say anything.

    ``after`` is a number of seconds, or a percentile of the recent times to first content (``"p95"``): then nothing is
    hedged until some are known, and never more than the rest of the hundred (one request in twenty), so that a provider
    that turns slow as a whole is not asked twice for everything. Raises InvalidOption.
    """

    __slots__ = ("_credit", "_percent", "_seconds", "_times")

    def __init__(self, after: float | str) -> None:
        self._seconds: float | None = None
        self._percent: float | None = None
        self._times = RecentTimes()
        self._credit = 0.0
        if isinstance(after, str):
            number = after[1:]
            percent = int(number) if after[:1] == "p" and number.isascii() and number.isdecimal() else 0
            if 0 < percent < 100:
                self._percent = percent
                return
        elif isinstance(after, int | float) and not isinstance(after, bool) and 0 <= after < math.inf:
            self._seconds = after
            return
        raise InvalidOption(f"after must be a number of seconds or a percentile such as 'p95', not {after!r}")

    def began(self) -> float | None:
        """A request begins: seconds after which to :meth:`spend`, unless there was content; None: not this time."""
        if self._percent is None:
            return self._seconds
        self._credit = min(_CREDIT, self._credit + 1 - self._percent / 100)
        usual = self._times.percentile(self._percent) if len(self._times) >= _ENOUGH else None
        return None if usual is None else usual * _LATE

    def spend(self) -> bool:
        """The time has passed without content: whether a second agent may be asked."""
        if self._percent is None:
            return True
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def first_content(self, seconds: float) -> None:
        """The first content of a request came so many seconds after it began, whoever sent it."""
        self._times.add(seconds)
