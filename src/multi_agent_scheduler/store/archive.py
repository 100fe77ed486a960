"""Reading the SQLite store's file: its streams and their blocks, a page at a time. Nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import StoreClosed, StoreError, StreamNotFound
from ..records import Record
from .base import trimmed
from .core import StreamInfo, StreamState
from .engine import Database, DatabaseError, connect
from .pack import Stretch, unpack, unpack_records
from .schema import COLUMNS, SEQ_BITS, info_of

__all__ = ["Archive"]


class Archive:
    """A read-only connection. Each call sees what is committed when it is made.

    A stream comes as its number, which names its blocks, and its info; of one that has not ended, the info counts what
    is in blocks. Everything raises StoreError where the file cannot be read, StoreClosed after :meth:`close`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: Database | None
        try:
            self._database = connect(path, "read")
        except DatabaseError as error:
            raise StoreError(error.told(str(path))) from None

    def close(self) -> None:
        """Close; nothing if it is closed."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        if self._database is None:
            raise StoreClosed("the store is closed")
        try:
            return self._database.execute(statement, values)
        except DatabaseError as error:
            raise StoreError(error.told(str(self._path))) from None

    @contextmanager
    def moment(self) -> Iterator[Archive]:
        """What is read inside is of one moment."""
        self.query("BEGIN")
        try:
            yield self
        finally:
            self.query("COMMIT")

    # --- streams --------------------------------------------------------------------------------------------------

    def info(self, stream_id: str) -> tuple[int, StreamInfo]:
        """One stream. Raises StreamNotFound."""
        found = self.query(f"SELECT {COLUMNS} FROM streams WHERE stream_id = ?", stream_id)
        if not found:
            raise StreamNotFound(f"there is no stream {stream_id!r}")
        return found[0][0], info_of(found[0])

    def body(self, stream_id: str) -> bytes | None:
        """The body of a stream, if it still has one. Raises StreamNotFound."""
        found = self.query("SELECT body FROM streams WHERE stream_id = ?", stream_id)
        if not found:
            raise StreamNotFound(f"there is no stream {stream_id!r}")
        body: bytes | None = found[0][0]
        return body

    def streams(
        self,
        *,
        plan_id: str | None = None,
        owner: str | None = None,
        states: Collection[StreamState] | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> list[tuple[int, StreamInfo]]:
        """What :meth:`Store.streams` gives."""
        conditions: list[str] = []
        values: list[Any] = []
        if plan_id is not None:
            conditions.append("plan_id = ?")
            values.append(plan_id)
        if owner is not None:
            conditions.append("owner = ?" if owner else "owner = ''")
            values += [owner] if owner else []
        if states is not None:
            wanted = sorted(states)
            conditions.append(f"state IN ({', '.join('?' * len(wanted))})")
            values += wanted
            if set(wanted) <= {"queued", "running"}:
                conditions.append("ended_at IS NULL")  # those have an index of their own
        if before is not None:
            conditions.append("number < ?")
            values.append(self.info(before)[0])
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = self.query(
            f"SELECT {COLUMNS} FROM streams{where} ORDER BY number DESC LIMIT ?",
            *values,
            -1 if limit is None else limit,
        )
        return [(row[0], info_of(row)) for row in reversed(rows)]

    # --- logs -----------------------------------------------------------------------------------------------------

    def read(self, number: int, stream_id: str, after: int) -> list[Record]:
        """The records behind seq ``after`` of the block that has the next.

        Raises StreamNotFound, or LogTrimmed, if there is none.
        """
        last, block = self._block(number, stream_id, after)
        records = unpack_records(block)
        return records[len(records) - (last - after) :]

    def stretch(self, number: int, stream_id: str, after: int) -> Stretch:
        """The same with their batches."""
        last, block = self._block(number, stream_id, after)
        stretch = unpack(block)
        skip = len(stretch.records) - (last - after)
        if not skip:
            return stretch
        counts, times = [], []
        for count, time in zip(stretch.counts, stretch.times, strict=True):
            if skip < count:
                counts.append(count - skip)
                times.append(time)
            skip = max(0, skip - count)
        return Stretch(stretch.records[len(stretch.records) - (last - after) :], counts, times)

    def digest(self, number: int, stream_id: str) -> list[Record]:
        """What is left of a log that was trimmed; nothing if it was not. Raises StreamNotFound."""
        found = self.query("SELECT data FROM digests WHERE number = ?", number)
        if not found:
            self.info(stream_id)
            return []
        return unpack_records(found[0][0])

    def _block(self, number: int, stream_id: str, after: int) -> tuple[int, bytes]:
        found = self.block(number, after)
        if found is None:
            if self.query("SELECT 1 FROM streams WHERE number = ? AND trimmed", number):
                raise trimmed(stream_id)
            raise StreamNotFound(f"the stream {stream_id!r} has been removed: it was too old, or too much was kept")
        return found

    def block(self, number: int, after: int) -> tuple[int, bytes] | None:
        """The first block that ends behind seq ``after``, if there is one: seq of its last record, bytes."""
        low = number << SEQ_BITS
        found = self.query(
            "SELECT id, data FROM blocks WHERE id > ? AND id < ? ORDER BY id LIMIT 1",
            low | after,
            low + (1 << SEQ_BITS),
        )
        return (found[0][0] - low, found[0][1]) if found else None
