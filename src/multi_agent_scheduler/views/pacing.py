"""When to give out what, so that a text that comes in bursts flows: the decisions behind ``paced``."""

from __future__ import annotations

import math
import re
from typing import Final, Literal, TypeAlias

import msgspec

from ..errors import InvalidOption

__all__ = ["Pace", "Pacer", "Unit", "parse_pace"]

Unit: TypeAlias = Literal["chunks", "tokens"]

_CHARACTERS: Final = 4  # of a token, by the usual rule of thumb
_FORM: Final = r"(\d+(?:\.\d*)?|\.\d+) *(?:(chunk|token)s?)? *(?:/ *(s|sec|second|min|minute))?"


class Pace(msgspec.Struct, frozen=True):
    """At most so many chunks, or tokens, in a second."""

    per_second: float
    unit: Unit = "chunks"


def parse_pace(pace: Pace | str | float) -> Pace:
    """``"50/s"`` and 50 are fifty chunks a second; ``"50 tokens/s"``, ``"3000 tokens/min"``. Raises InvalidOption."""
    if isinstance(pace, Pace):
        found = pace
    elif isinstance(pace, str):
        form = re.fullmatch(_FORM, pace.strip().lower())
        if form is None:
            raise InvalidOption(f"a pace is written as '50/s' or '50 tokens/s', not {pace!r}")
        number, unit, time = form.groups()
        per_second = float(number) / (60 if (time or "s").startswith("m") else 1)
        found = Pace(per_second, "tokens" if unit == "token" else "chunks")
    elif isinstance(pace, int | float) and not isinstance(pace, bool):
        found = Pace(float(pace))
    else:
        raise InvalidOption(f"a pace is written as '50/s' or '50 tokens/s', not {pace!r}")
    if not 0 < found.per_second < math.inf:
        raise InvalidOption(f"a pace must be above 0 and finite, not {pace!r}")
    return found


class Pacer:
    """Spaces what comes. It is not hurried by waiting: time in which nothing came is not made up for by a burst.

    A chunk is followed by its share of time: one chunk's, or that of the tokens that it is thought to have (one for
    four characters, and at least one). It is not cut. What has no text does not wait.
    """

    __slots__ = ("_next", "_per_second", "_tokens")

    def __init__(self, pace: Pace) -> None:
        self._per_second = pace.per_second
        self._tokens = pace.unit == "tokens"
        self._next = -math.inf

    def due(self, characters: int, now: float) -> float:
        """When to give out a piece with so many characters that is there at ``now``, in seconds on any clock."""
        if not characters:
            return now
        due = max(now, self._next)
        weight = max(1.0, characters / _CHARACTERS) if self._tokens else 1.0
        self._next = due + weight / self._per_second
        return due
