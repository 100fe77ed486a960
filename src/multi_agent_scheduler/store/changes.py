"""What a commit of the SQLite store changes, beside adding to the journal. Made in the loop, applied by the writer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from ..errors import StoreError
from .core import StreamSpec
from .engine import CONSTRAINT, Database, DatabaseError
from .pack import Stretch, join, pack, split
from .schema import SEQ_BITS

__all__ = ["Change", "Fold", "Statement", "Submit", "Trim"]

_BLOCK_BYTES: Final = 160_000  # as limits count them: about 4,400 chunks of 4 characters; read as a unit


class Change(ABC):
    """One change of a commit."""

    __slots__ = ()

    @abstractmethod
    def apply(self, database: Database) -> None:
        """Do it, inside a transaction. Raises DatabaseError."""


class Statement(Change):
    """A plain statement."""

    __slots__ = ("_statement", "_values")

    def __init__(self, statement: str, *values: Any) -> None:
        self._statement = statement
        self._values = values

    def apply(self, database: Database) -> None:
        database.execute(self._statement, self._values)


class Submit(Change):
    """New streams, all or none. ``refused`` says why it was none, once it is applied."""

    __slots__ = ("done", "now", "numbers", "refused", "specs")

    def __init__(self, specs: Sequence[StreamSpec], first: int, now: float, done: asyncio.Future[None]) -> None:
        self.specs = specs
        self.numbers = range(first, first + len(specs))
        self.now = now
        self.done = done
        self.refused: StoreError | None = None

    def apply(self, database: Database) -> None:
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
            self.refused = StoreError(f"the stream {self._taken(database)!r} exists already")
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

    def apply(self, database: Database) -> None:
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
            where = (low | self._since, low | self._after)
            smaller = database.execute("SELECT data FROM blocks WHERE id > ? AND id <= ? ORDER BY id", where)
            database.execute("DELETE FROM blocks WHERE id > ? AND id <= ?", where)
            first = blocks[:1] or [(low | self._after, b"")]
            merged = join([*(data for (data,) in smaller), *(data for _, data in blocks[:1])], press=True)
            blocks[:1] = [(first[0][0], merged)]
        database.executemany("INSERT INTO blocks VALUES (?, ?)", blocks)


class Trim(Change):
    """Empty the journal: everything in it is in blocks."""

    __slots__ = ()

    def apply(self, database: Database) -> None:
        database.execute("DELETE FROM journal")
