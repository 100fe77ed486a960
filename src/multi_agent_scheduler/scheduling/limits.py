"""What an agent may be asked to do at once and in a minute."""

from __future__ import annotations

import msgspec

from ..errors import InvalidOption

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of one agent; None is no limit.

    ``concurrency``: Calls at the same time. ``requests_per_minute`` and ``tokens_per_minute``: what is admitted in any
    window of 60 seconds, wherever it begins. Raises :class:`~multi_agent_scheduler.errors.InvalidOption`.
    """

    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise InvalidOption(f"limits: {name} must be a whole number above 0, or None, not {value!r}")
