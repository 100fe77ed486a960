"""What a commit of the SQLite store changes, beside adding to the journal. Made in the loop, applied by the writer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from ..errors import StreamExists
from .core import StreamInfo, StreamSpec
from .engine import CONSTRAINT, Database, DatabaseError
from .pack import Stretch, join, pack, split
from .schema import SEQ_BITS

__all__ = ["Change", "Fold", "Pile", "Progress", "Submit", "Trim"]

_BLOCK_BYTES: Final = 160_000  # as limits count them: about 4,400 chunks of 4 characters; read as a unit


# Each statement lets other threads run and then waits for its turn, so the rows of a commit go into as few as can be.
# So many rows to a statement, so that there are few different ones:
_ROWS: Final = (64, 16, 4, 1)
_INSERT_BLOCKS: Final = {
    count: f"INSERT INTO blocks VALUES {', '.join(['(?, ?)'] * count)}" for count in _ROWS
}  # fmt: skip
_UPDATE_STREAMS: Final = {
    count: "UPDATE streams SET state = new.column2, epoch = new.column3, seq = new.column4, size = new.column5, "
    "stop_reason = new.column6, ended_at = new.column7, body = iif(new.column7 IS NULL, body, NULL) "
    f"FROM (VALUES {', '.join(['(?, ?, ?, ?, ?, ?, ?)'] * count)}) AS new WHERE number = new.column1"
    for count in _ROWS
}


class Pile:
    """Rows that a commit has gathered."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.blocks: list[tuple[Any, ...]] = []
        self.streams: dict[int, tuple[Any, ...]] = {}

    def write(self) -> None:
        """Write them. Raises DatabaseError."""
        self._write(_INSERT_BLOCKS, self.blocks)
        self._write(_UPDATE_STREAMS, list(self.streams.values()))
        self.blocks, self.streams = [], {}

    def _write(self, statements: dict[int, str], rows: list[tuple[Any, ...]]) -> None:
        start = 0
        for count in _ROWS:
            while len(rows) - start >= count:
                self.database.execute(statements[count], [it for row in rows[start : start + count] for it in row])
                start += count


class Change(ABC):
    """One change of a commit."""

    __slots__ = ()

    @abstractmethod
    def apply(self, pile: Pile) -> None:
        """Do it, inside a transaction, or put it on the pile. Raises DatabaseError."""


class Progress(Change):
    """Where a stream has got to: the number and the columns that change in its life. The last of a commit holds."""

    __slots__ = ("_row",)

    def __init__(self, number: int, info: StreamInfo, seq: int, size: int) -> None:
        """``seq`` and ``size`` are those of what is in its blocks."""
        self._row = (number, info.state, info.epoch, seq, size, info.stop_reason, info.ended_at)

    def apply(self, pile: Pile) -> None:
        pile.streams[self._row[0]] = self._row


class Submit(Change):
    """New streams, all or none. ``refused`` says why it was none, once it is applied."""

    __slots__ = ("done", "now", "numbers", "refused", "specs")

    def __init__(self, specs: Sequence[StreamSpec], first: int, now: float, done: asyncio.Future[None]) -> None:
        self.specs = specs
        self.numbers = range(first, first + len(specs))
        self.now = now
        self.done = done
        self.refused: StreamExists | None = None

    def apply(self, pile: Pile) -> None:
        database = pile.database
        rows = [
            (number, spec.stream_id, spec.task_id, spec.plan_id, spec.owner, self.now, spec.body)
            for number, spec in zip(self.numbers, self.specs, strict=True)
        ]
        database.execute("SAVEPOINT submitted")
        try:
            database.executemany(
                "INSERT INTO streams (number, stream_id, task_id, plan_id, owner, created, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
        except DatabaseError as error:
            if error.code != CONSTRAINT:
                raise
            database.execute("ROLLBACK TO submitted")
            self.refused = StreamExists(f"the stream {self._taken(database)!r} exists already")
        database.execute("RELEASE submitted")

    def _taken(self, database: Database) -> str:
        query = "SELECT 1 FROM streams WHERE stream_id = ?"
        return next((spec.stream_id for spec in self.specs if database.execute(query, (spec.stream_id,))), "?")


class Fold(Change):
    """Records of one stream go from the journal into blocks: ``stretch``, of about ``size`` bytes, behind ``after``.

    With ``since`` the smaller blocks behind that seq are merged with them.
    """

    __slots__ = ("_after", "_number", "_since", "_size", "_stretch")

    def __init__(self, number: int, after: int, stretch: Stretch, size: int, since: int | None) -> None:
        self._number = number
        self._after = after
        self._stretch = stretch
        self._size = size
        self._since = since

    def apply(self, pile: Pile) -> None:
        low = self._number << SEQ_BITS
        final = self._since is not None
        blocks: list[tuple[int, bytes]] = []
        seq = self._after
        if self._stretch.records:
            parts = split(self._stretch, _BLOCK_BYTES) if self._size > _BLOCK_BYTES else (self._stretch,)
            for part in parts:
                seq += len(part.records)
                blocks.append((low | seq, pack(part, press=final)))
        if self._since is not None and self._since < self._after:
            pile.write()  # they may be there
            database, where = pile.database, (low | self._since, low | self._after)
            smaller = database.execute("SELECT data FROM blocks WHERE id > ? AND id <= ? ORDER BY id", where)
            database.execute("DELETE FROM blocks WHERE id > ? AND id <= ?", where)
            first = blocks[:1] or [(low | self._after, b"")]
            merged = join([*(data for (data,) in smaller), *(data for _, data in blocks[:1])], press=True)
            blocks[:1] = [(first[0][0], merged)]
        pile.blocks += blocks


class Trim(Change):
    """Empty the journal: everything in it is in blocks."""

    __slots__ = ()

    def apply(self, pile: Pile) -> None:
        pile.database.execute("DELETE FROM journal")
