"""What the SQLite store keeps of streams that have ended, and for how long. Used by the thread that writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from ..errors import StoreError
from ..records import Record
from ..views.digest import digest
from . import schema
from .base import FRESH_SECONDS
from .engine import Database
from .pack import Stretch, measure, pack, unpack_records

__all__ = ["Keeping", "Retention"]

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0  # so often it is looked whether something is to go
_LONGEST_SECONDS: Final = 60.0  # so often at least, when there is nothing else to do
_STREAMS: Final = 32  # at most so many go, or are trimmed, in one step,
_BYTES: Final = 256 * 1024  # and logs of about so many bytes are trimmed: 7,000 chunks, or 10 ms
_SHARE: Final = 5  # while there is more to do, steps take a part in so many of the writer's time

# Whoever goes on with a plan needs the ends of all that has ended of it.
_REMOVABLE: Final = (
    "SELECT number FROM streams WHERE ended_at < ? AND (plan_id IS NULL OR plan_id NOT IN "
    "(SELECT plan_id FROM streams WHERE ended_at IS NULL AND plan_id IS NOT NULL)) ORDER BY ended_at LIMIT ?"
)
_WHOLE: Final = (
    "SELECT number, seq, size, ended_at FROM streams WHERE ended_at < ? AND NOT trimmed ORDER BY ended_at LIMIT ?"
)
_USED: Final = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)


class Keeping(NamedTuple):
    """What is kept of what has ended: ``logs`` and streams for so many ``seconds`` each, and what fits into a ``size``
    in bytes, which is that of the file without free pages. None: all, for ever."""

    logs: float | None = None
    seconds: float | None = None
    size: int | None = None


class Retention:
    """Trims logs and removes streams, those that ended first, a step at a time."""

    def __init__(self, keeping: Keeping, clock: Callable[[], float]) -> None:
        self._keeping = keeping
        self._clock = clock
        self._due_at = 0.0
        self._damaged: set[int] = set()
        """The streams whose logs cannot be read: they stay as they are."""

    @property
    def due(self) -> bool:
        """It is time for a step, however much there is to commit."""
        return self._keeping != Keeping() and time.monotonic() >= self._due_at

    @property
    def patience(self) -> float:
        """How many seconds a step is not needed if nothing happens: until something may have become too old."""
        ages = [age for age in (self._keeping.logs, self._keeping.seconds) if age is not None]
        return max(_LOOK_SECONDS, min(_LONGEST_SECONDS, min(ages) / 4)) if ages else 3600.0

    def step(self, database: Database) -> bool:
        """Trim or remove some; whether there may be more. Raises DatabaseError."""
        if self._keeping == Keeping():
            return False
        began = time.monotonic()
        logs, seconds, size = self._keeping
        more = (
            (seconds is not None and self._remove(database, self._clock() - seconds, _STREAMS))
            or (logs is not None and self._trim(database, self._clock() - logs))
            or (size is not None and self._shrink(database, size))
        )
        ended = time.monotonic()
        self._due_at = ended + (_SHARE * (ended - began) if more else _LOOK_SECONDS)
        return more

    def _shrink(self, database: Database, size: int) -> bool:
        ((used,),) = database.execute(_USED)
        if used <= size:
            return False
        return self._trim(database, self._clock() - FRESH_SECONDS) or self._remove(database, float("inf"), 1)

    def _remove(self, database: Database, before: float, count: int) -> bool:
        """Remove streams that ended before then; whether there were any."""
        found = database.execute(_REMOVABLE, (before, count))
        if found:
            database.execute("BEGIN IMMEDIATE")
            for (number,) in found:
                database.execute("DELETE FROM blocks WHERE id BETWEEN ? AND ?", _ids(number))
                database.execute("DELETE FROM digests WHERE number = ?", (number,))
                database.execute("DELETE FROM streams WHERE number = ?", (number,))
            database.execute("COMMIT")
        return bool(found)

    def _trim(self, database: Database, before: float) -> bool:
        """Trim logs that ended before then; whether there were any."""
        rows = database.execute(_WHOLE, (before, _STREAMS + len(self._damaged)))
        room = _BYTES
        digests: list[tuple[int, bytes, int]] = []
        for number, seq, size, ended_at in rows:
            if number in self._damaged:
                continue
            try:
                digests.append((number, *_digested(database, number, seq, ended_at)))
            except StoreError as error:
                _log.error("the log of the stream number %d is left as it is: %s", number, error)
                self._damaged.add(number)
            room -= size
            if room <= 0:
                break
        if digests:
            database.execute("BEGIN IMMEDIATE")
            for number, data, size in digests:
                database.execute("INSERT INTO digests VALUES (?, ?)", (number, data))
                database.execute("DELETE FROM blocks WHERE id BETWEEN ? AND ?", _ids(number))
                database.execute("UPDATE streams SET trimmed = 1, size = ? WHERE number = ?", (size, number))
            database.execute("COMMIT")
        return bool(digests)


def _ids(number: int) -> tuple[int, int]:
    """The first and the last id that a stream's blocks can have."""
    low = number << schema.SEQ_BITS
    return low, low | (1 << schema.SEQ_BITS) - 1


def _digested(database: Database, number: int, seq: int, ended_at: float) -> tuple[bytes, int]:
    """The digest of a stream's log as a block, and its size. Raises StoreError if the log is damaged."""
    blocks = database.execute("SELECT data FROM blocks WHERE id BETWEEN ? AND ? ORDER BY id", _ids(number))
    records: list[Record] = []
    for (data,) in blocks:
        records += unpack_records(data)
    if len(records) != seq:
        raise StoreError(f"its blocks have {len(records)} records, and not {seq}")
    left = digest(records)
    return pack(Stretch(left, [len(left)], [int(ended_at * 1000)]), press=True), measure(left)
