"""What a decoder knows of one choice of an answer: its parts, its tool calls, how it ended."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, Literal

from ...records import Completed
from .finish import stop_reason

__all__ = ["Call", "Choice"]

_LABELS: Final = frozenset({"native_finish_reason", "content_filter_results", "channel"})


class Call:
    """A tool call under way."""

    __slots__ = ("id", "index", "kind", "name", "part", "written")

    def __init__(self, index: int, part: int, kind: Literal["function", "custom"]) -> None:
        self.index = index
        self.part = part
        self.kind = kind
        self.id = ""
        self.name = ""
        self.written = False  # some of its arguments came


class Choice:
    """One choice. ``branch`` is None for choice 0, the main text."""

    __slots__ = (
        "_calls",
        "_count",
        "_last",
        "_parts",
        "branch",
        "finish",
        "index",
        "reasoning",
        "refused",
        "stop_sequence",
        "told",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.branch = str(index) if index else None
        self.finish: str | None = None
        self.stop_sequence: str | None = None
        self.refused = False
        self.reasoning: Hashable = 0
        """The index of the reasoning block that reasoning without an index belongs to."""
        self.told: dict[Hashable, Any] = {}
        """What was said of things that providers repeat in every chunk."""
        self._parts: dict[Hashable, int] = {}
        self._calls: dict[Hashable, Call] = {}
        self._last: Call | None = None
        self._count = 0

    def part(self, key: Hashable) -> int:
        """The number of a part; parts are numbered in the order in which they first appear."""
        return self._parts.setdefault(key, len(self._parts))

    def call(self, key: int | str | None, id: str, name: str, kind: Literal["function", "custom"]) -> Call:  # noqa: A002
        """The call that a fragment belongs to.

        Most providers number the calls; Mistral does not, but sends each whole and with an id; Gemini's compatible
        endpoint gives every call the number 0. So an id or name that cannot be the known call's begins another.
        """
        known = self._calls.get(key) if key is not None else self._last
        if known is not None:
            other = bool(name and id and known.id and id != known.id)
            if key is None and name and not id:
                other = known.written
            elif key is None and id and id != known.id:
                other = True
            if not other:
                return known
        call = Call(self._count, self.part(("tool", self._count)), kind)
        self._count += 1
        if key is not None:
            self._calls[key] = call
        self._last = call
        return call

    def repeats(self, field: str, value: Any) -> bool:
        """Whether a field that providers repeat in every chunk says just what it said before."""
        if field not in _LABELS:
            return False
        before, self.told[field] = self.told.get(field), value
        return bool(before == value)

    def outcome(self) -> Completed:
        """How it ended; a refusal counts as content_filter, whatever OpenAI's word beside it."""
        word = self.finish or ""
        reason = stop_reason(word)
        if self.refused and reason == "stop":
            reason = "content_filter"
        return Completed(reason, raw_stop_reason=word, stop_sequence=self.stop_sequence)
