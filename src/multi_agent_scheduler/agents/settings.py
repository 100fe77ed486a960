"""The settings that agents of every kind have, checked when an agent is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidOption
from ..request import OPTIONS
from ..task import Timeouts

__all__ = ["check_count", "check_settings", "check_unknown"]


def check_settings(
    *, errors: object, timeouts: object, max_concurrent: object, defaults: Mapping[str, Any] | None = None
) -> None:
    """Raise :class:`~multi_agent_scheduler.errors.InvalidOption` for a value that cannot be; the text names it."""
    if errors not in ("marker", "raise"):
        raise InvalidOption(f"errors must be 'marker' or 'raise', not {errors!r}")
    if timeouts is not None and not isinstance(timeouts, Timeouts):
        raise InvalidOption(f"timeouts must be a Timeouts, not {timeouts!r}")
    if max_concurrent is not None:
        check_count("max_concurrent", max_concurrent)
    if defaults is not None:
        if not isinstance(defaults, Mapping):
            raise InvalidOption(f"defaults must be a mapping of options, not {defaults!r}")
        wrong = min(map(str, defaults.keys() - OPTIONS), default=None)
        if wrong is not None:
            raise InvalidOption(f"defaults: unknown option {wrong!r}; the options are {', '.join(sorted(OPTIONS))}")


def check_count(name: str, value: object) -> None:
    """Raise unless the value is a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption(f"{name} must be a whole number from 1, not {value!r}")


def check_unknown(kind: str, given: Mapping[str, Any], known: set[str]) -> None:
    """Raise for a keyword that this kind of agent does not take."""
    unknown = given.keys() - known
    if unknown:
        raise InvalidOption(f"{kind}: unknown keyword {min(unknown)!r}; the keywords are {', '.join(sorted(known))}")
