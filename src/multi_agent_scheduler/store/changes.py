"""What a commit of the SQLite store changes, beside adding to the journal. Made in the loop, applied by the writer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from ..errors import StreamExists
from .core import StreamInfo, StreamSpec
from .engine import CONSTRAINT, Database, DatabaseError
from .pack import Stretch, join, pack, split
from .schema import SEQ_BITS

__all__ = ["Change", "EmptyJournal", "Fold", "Pile", "Progress", "Submit"]

_BLOCK_BYTES: Final = 160_000  # as limits count them: about 4,400 chunks of 4 characters; read as a unit


# Each statement lets other threads run and then waits for its turn, so the rows of a commit go into as few as can be.
# So many rows to a statement, so that there are few different ones:
_ROWS: Final = (64, 16, 4, 1)
_INSERT_BLOCKS: Final = {
    count: f"INSERT INTO blocks VALUES {', '.join(['(?, ?)'] * count)}" for count in _ROWS
}  # fmt: skip
_INSERT_STREAMS: Final = {
    count: "INSERT INTO streams (number, stream_id, task_id, plan_id, owner, state, epoch, created, body) "
    f"VALUES {', '.join(['(?, ?, ?, ?, ?, ?, ?, ?, ?)'] * count)}"
    for count in _ROWS
}
_UPDATE_STREAMS: Final = {
    count: "UPDATE streams SET state = new.column2, epoch = new.column3, seq = new.column4, size = new.column5, "
    "stop_reason = new.column6, ended_at = new.column7, body = iif(new.column7 IS NULL, body, NULL) "
    f"FROM (VALUES {', '.join(['(?, ?, ?, ?, ?, ?, ?)'] * count)}) AS new WHERE number = new.column1"
    for count in _ROWS
}


_Row = TypeVar("_Row")


class Pile:
    """Rows that a commit has gathered."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.submits: list[Submit] = []  # of one stream each
        self.blocks: list[tuple[Any, ...]] = []
        self.streams: dict[int, tuple[Any, ...]] = {}

    def write(self) -> None:
        """Write them. Raises DatabaseError."""
        for some in _pieces(self.submits):
            try:
                self.insert([row for submit in some for row in submit.rows])
            except DatabaseError as error:
                if error.code != CONSTRAINT:
                    raise
                for submit in some:  # a statement that fails has done nothing: now each by itself
                    self._insert_one(submit)
        self._write(_INSERT_BLOCKS, self.blocks)
        self._write(_UPDATE_STREAMS, list(self.streams.values()))
        self.submits, self.blocks, self.streams = [], [], {}

    def insert(self, rows: list[tuple[Any, ...]]) -> None:
        """Insert rows of streams at once. Raises DatabaseError."""
        self._write(_INSERT_STREAMS, rows)

    def _insert_one(self, submit: Submit) -> None:
        try:
            self.insert(submit.rows)
        except DatabaseError as error:
            submit.refuse(self, error)

    def _write(self, statements: dict[int, str], rows: list[tuple[Any, ...]]) -> None:
        for some in _pieces(rows):
            self.database.execute(statements[len(some)], [it for row in some for it in row])


def _pieces(rows: list[_Row]) -> Iterator[list[_Row]]:
    """The rows in pieces of the sizes for which there are statements."""
    start = 0
    for count in _ROWS:
        while len(rows) - start >= count:
            yield rows[start : start + count]
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
    """New streams, all or none; ``claimed`` ones are running from the start, in their first epoch.

    ``refused`` says why it was none, once it is applied.
    """

    __slots__ = ("claimed", "done", "now", "numbers", "refused", "specs")

    def __init__(
        self, specs: Sequence[StreamSpec], first: int, now: float, done: asyncio.Future[None], *, claimed: bool = False
    ) -> None:
        self.specs = specs
        self.numbers = range(first, first + len(specs))
        self.now = now
        self.done = done
        self.claimed = claimed
        self.refused: StreamExists | None = None

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The streams' rows."""
        state, epoch = ("running", 1) if self.claimed else ("queued", 0)
        return [
            (number, spec.stream_id, spec.task_id, spec.plan_id, spec.owner, state, epoch, self.now, spec.body)
            for number, spec in zip(self.numbers, self.specs, strict=True)
        ]

    def apply(self, pile: Pile) -> None:
        if len(self.specs) == 1:
            pile.submits.append(self)
            return
        pile.database.execute("SAVEPOINT submitted")
        try:
            pile.insert(self.rows)
        except DatabaseError as error:
            pile.database.execute("ROLLBACK TO submitted")
            self.refuse(pile, error)
        pile.database.execute("RELEASE submitted")

    def refuse(self, pile: Pile, error: DatabaseError) -> None:
        """It could not be inserted: say which stream is there already, or raise the error if it is another one."""
        if error.code != CONSTRAINT:
            raise error
        query = "SELECT 1 FROM streams WHERE stream_id = ?"
        taken = next((it.stream_id for it in self.specs if pile.database.execute(query, (it.stream_id,))), "?")
        self.refused = StreamExists(f"the stream {taken!r} exists already")


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


class EmptyJournal(Change):
    """Empty the journal: everything in it is in blocks."""

    __slots__ = ()

    def apply(self, pile: Pile) -> None:
        pile.database.execute("DELETE FROM journal")
