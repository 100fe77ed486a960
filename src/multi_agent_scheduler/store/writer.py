"""The one thread that writes the SQLite store's file: group commits, and tidying up when there is nothing to do.

Work comes through a queue. An idle writer commits at once; what comes while it commits, or rests for a moment when it
is busy, goes into the next commit together. A commit has at most one row in the journal, whatever it holds. What was
done is told in the store's loop, by one call for each commit. The first failure ends the writer: nothing is committed
after it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

import msgspec

from ..errors import StoreClosed, StoreError
from ..records import Record
from . import schema
from .changes import Change, Pile, Submit
from .core import StreamInfo
from .engine import BUSY_MILLISECONDS, Database, DatabaseError, connect
from .owner import Ownership
from .retention import Keeping, Retention

__all__ = ["Recovered", "Work", "Writer"]

_IDLE_SECONDS: Final = 0.25  # after so long without work the file is tidied up
# A commit of so many batches tells that many streams are at work. Then the next one, if nobody waits for it but
# readers, comes so much later: with 200 streams of 50 chunks a second that leaves a third to a half of the commits.
_BUSY_BATCHES: Final = 4
_REST_SECONDS: Final = 0.002
_SLACK_PAGES: Final = 64  # free pages that are left in the file, to be used again
_VACUUM_PAGES: Final = 512  # at most so many are given back between two commits
# SQLite's write-ahead log is brought into the file when it has so many pages. Most commits rewrite the same few pages,
# so that a rarer checkpoint costs no more than a frequent one; each waits for the disk, and all commits wait for it.
_CHECKPOINT_PAGES: Final = 4000
_LOG_LIMIT_BYTES: Final = 4 * 1024 * 1024  # what SQLite's write-ahead log is cut to when it starts anew

_encoder: Final = msgspec.msgpack.Encoder()


class Work:
    """What goes into one commit, and what is to be told afterwards."""

    __slots__ = ("at", "changes", "closing", "entries", "folded", "shown", "size", "submits", "waiters")

    def __init__(self, at: int) -> None:
        self.at = at  # when it began, in milliseconds since 1970
        self.entries: list[tuple[int, int, int, int, Sequence[Record]]] = []
        self.changes: list[Change] = []
        self.submits: list[Submit] = []
        self.shown: dict[Any, int] = {}  # log: seq of the last record that will be kept
        self.folded: list[tuple[Any, int]] = []  # log, seq of the last record that will be in a block
        self.waiters: list[asyncio.Future[None]] = []
        self.size = 0
        self.closing = False

    @property
    def pressing(self) -> bool:
        """Somebody waits for it, or it is more than records."""
        return bool(self.changes or self.waiters or self.closing)


class Recovered(NamedTuple):
    """What an earlier process left: the next stream's number, the streams that have not ended, and what the journal has
    beyond their blocks."""

    next_number: int
    streams: list[tuple[int, StreamInfo]]
    batches: list[tuple[int, int, list[Record]]]
    """Number of the stream, time in milliseconds, records; in order."""
    journal_size: int


class Writer:
    """``committed`` and ``stopped`` are called in ``loop``."""

    def __init__(
        self, path: Path, *, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], keeping: Keeping, power: bool,
        committed: Callable[[list[Work]], None], stopped: Callable[[StoreError], None],
    ) -> None:  # fmt: skip
        self.path = path
        self.ownership = Ownership(path)
        self._loop = loop
        self._retention = Retention(keeping, clock)
        self._power = power
        self._committed = committed
        self._stopped = stopped
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._journal_id = 0
        self._rested_at = 0.0

    # --- in the loop ----------------------------------------------------------------------------------------------

    async def open(self) -> Recovered:
        """Take the file and read what is not finished. Raises StoreError; then nothing was changed."""
        opened: asyncio.Future[Recovered] = self._loop.create_future()
        # A daemon: a program that ends without closing must not hang; what was shown is committed.
        self._thread = threading.Thread(target=self._run, args=(opened,), name=f"writer of {self.path}", daemon=True)
        self._thread.start()
        return await opened

    def put(self, work: Work) -> None:
        """Have something committed."""
        self._queue.put(work)

    def abandon(self) -> None:
        """End as a crash would: nothing more is committed, nothing is tidied up. Returns when the file is let go."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    # --- in the thread --------------------------------------------------------------------------------------------

    def _run(self, opened: asyncio.Future[Recovered]) -> None:
        database: Database | None = None
        try:
            self.ownership.take()
            database, recovered = self._open()
        except BaseException as error:  # noqa: BLE001 - it is raised where the store was opened
            self._let_go(database)
            self._tell(_settle, opened, None, self._explained(error))
            return
        self._tell(_settle, opened, recovered, None)
        closing: list[Work] = []
        try:
            closing = self._serve(database)
        except BaseException as error:  # noqa: BLE001 - everybody who uses the store is told
            self._let_go(database)
            self._tell(self._stopped, self._explained(error))
            return
        self._let_go(database)
        if closing:
            self._tell(self._committed, closing)

    def _open(self) -> tuple[Database, Recovered]:
        there = schema.check(self.path)
        if not there:
            self.path.touch(mode=0o600)
        database = connect(self.path, "write")
        try:
            schema.prepare(database, new=not there, power=self._power)
            database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            database.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT_BYTES}")
            return database, self._recover(database)
        except BaseException:
            database.close()
            raise

    def _recover(self, database: Database) -> Recovered:
        database.execute("UPDATE streams SET state = 'queued' WHERE state = 'running' AND ended_at IS NULL")
        ((newest,),) = database.execute("SELECT max(number) FROM streams")
        rows = database.execute(f"SELECT {schema.COLUMNS} FROM streams WHERE ended_at IS NULL ORDER BY number")
        live = {row[0]: schema.info_of(row) for row in rows}
        batches, size = [], 0
        for row_id, data in database.execute("SELECT id, data FROM journal ORDER BY id"):
            self._journal_id = row_id
            size += len(data)
            for number, first, _, at, raw in schema.entries(data):
                info = live.get(number)
                if info is not None and first > info.seq:
                    batches.append((number, at, schema.records_of(raw)))
        # Ids never come twice, so that readers in other processes may remember how far they have read.
        self._journal_id = max(self._journal_id, int(time.time() * 1000))
        return Recovered((newest or 0) + 1, list(live.items()), batches, size)

    def _serve(self, database: Database) -> list[Work]:
        """Commit until it is closed (what the closing has to tell is the answer) or abandoned."""
        queue, patience = self._queue, float(_IDLE_SECONDS)
        while True:
            try:
                work = queue.get(timeout=patience)
            except Empty:
                patience = 0.0 if self._tidy(database) else self._retention.patience
                continue
            if work is not None and not work.pressing:
                self._rest()
            works = [] if work is None else [work]
            while work is not None:
                try:
                    work = queue.get_nowait()
                except Empty:
                    break
                if work is not None:
                    works.append(work)
            if work is None:
                return []
            self._commit(database, works)
            busy = sum(len(work.entries) for work in works) >= _BUSY_BATCHES
            self._rested_at = time.monotonic() + _REST_SECONDS if busy else 0.0
            patience = _IDLE_SECONDS
            if works[-1].closing:
                while self._tidy(database):
                    pass
                return works
            self._tell(self._committed, works)
            if self._retention.due:
                self._retention.step(database)

    def _rest(self) -> None:
        """Let more come together, where commits would follow each other too closely."""
        wait = self._rested_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)

    def _commit(self, database: Database, works: list[Work]) -> None:
        entries = [entry for work in works for entry in work.entries]
        changes = [change for work in works for change in work.changes]
        if not changes:
            if entries:  # one statement is a transaction by itself
                self._journal(database, entries)
            return
        database.execute("BEGIN IMMEDIATE")
        try:
            pile = Pile(database)
            for change in changes:
                change.apply(pile)
            pile.write()
            if entries:
                self._journal(database, entries)
            database.execute("COMMIT")
        except BaseException:
            with suppress(DatabaseError):  # SQLite has rolled back by itself after some errors
                database.execute("ROLLBACK")
            raise

    def _journal(self, database: Database, entries: list[Any]) -> None:
        self._journal_id += 1
        database.execute("INSERT INTO journal VALUES (?, ?)", (self._journal_id, _encoder.encode(entries)))

    # --- tidying up -----------------------------------------------------------------------------------------------

    def _tidy(self, database: Database) -> bool:
        """One step of what can be done while nobody waits; whether there may be more to do."""
        if self._retention.step(database):
            return True
        ((free,),) = database.execute("PRAGMA freelist_count")
        if free > _SLACK_PAGES:
            database.execute(f"PRAGMA incremental_vacuum({min(_VACUUM_PAGES, free)})")
            return True
        database.execute("PRAGMA busy_timeout = 0")  # if a reader is in the way: another time
        with suppress(DatabaseError):  # nothing is lost: what was committed is in SQLite's write-ahead log
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        return False

    # --- telling --------------------------------------------------------------------------------------------------

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(what, *arguments)

    def _let_go(self, database: Database | None) -> None:
        if database is not None:
            database.close()
        self.ownership.release()

    def _explained(self, error: BaseException) -> StoreError:
        if isinstance(error, DatabaseError):
            return StoreClosed(error.told(str(self.path)))
        if isinstance(error, StoreError):
            return error
        if isinstance(error, OSError):
            return StoreClosed(f"{self.path}: {error.strerror or error}")
        return StoreClosed(f"{self.path}: writing broke down: {error!r}")


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
