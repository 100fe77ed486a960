"""The form of the SQLite store's file, and how files of earlier forms are brought up to it.

``streams`` has a row for each stream, numbered in the order in which they were submitted. Records are first written to
``journal``, one row for each commit, and later to ``blocks``: a block's id is ``number << 32 | seq`` of its last
record, so that one key finds a stream's blocks in order. The columns ``seq`` and ``size`` of a stream count what is in
its blocks; what the journal has beyond that comes after it, and what it has up to that is void. The log of a
stream that is ``trimmed`` has no blocks any more, but a row in ``digests``: a block of the records that are left of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from ..errors import StoreError
from ..records import Record
from .core import StreamInfo
from .engine import Database, DatabaseError, connect

__all__ = ["COLUMNS", "FORMAT", "SEQ_BITS", "Entry", "check", "entries", "info_of", "prepare"]

APPLICATION: Final = 0x4D41534C  # "MASL", in the file's header
FORMAT: Final = 2
"""The form that this version writes; kept as the file's user_version."""

SEQ_BITS: Final = 32

_STREAMS: Final = """
CREATE TABLE streams (
    number INTEGER PRIMARY KEY,
    stream_id TEXT NOT NULL UNIQUE,
    task_id TEXT NOT NULL,
    plan_id TEXT,
    owner TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'queued',
    epoch INTEGER NOT NULL DEFAULT 0,
    seq INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0,
    stop_reason TEXT,
    created REAL NOT NULL,
    ended_at REAL,
    body BLOB,
    trimmed INTEGER NOT NULL DEFAULT 0
)"""
_DIGESTS: Final = "CREATE TABLE digests (number INTEGER PRIMARY KEY, data BLOB NOT NULL)"
_WHOLE: Final = "CREATE INDEX streams_whole ON streams (ended_at) WHERE ended_at IS NOT NULL AND NOT trimmed"
_CREATE: Final = (
    _STREAMS,
    "CREATE INDEX streams_of_plan ON streams (plan_id) WHERE plan_id IS NOT NULL",
    "CREATE INDEX streams_of_owner ON streams (owner) WHERE owner != ''",
    "CREATE INDEX streams_live ON streams (number) WHERE ended_at IS NULL",
    "CREATE INDEX streams_ended ON streams (ended_at) WHERE ended_at IS NOT NULL",
    "CREATE TABLE journal (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE blocks (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    _WHOLE,
    _DIGESTS,
)
_MIGRATIONS: Final = {
    # 0 had neither owners nor a journal: every batch went into a block of its own.
    0: (
        "ALTER TABLE streams ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX streams_of_owner ON streams (owner) WHERE owner != ''",
        "CREATE TABLE journal (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    ),
    # 1 kept every log whole.
    1: ("ALTER TABLE streams ADD COLUMN trimmed INTEGER NOT NULL DEFAULT 0", _WHOLE, _DIGESTS),
}
"""What brings a file from one form to the next; all that are needed run in one transaction."""

COLUMNS: Final = (
    "number, stream_id, task_id, plan_id, owner, state, epoch, seq, size, stop_reason, created, ended_at, trimmed"
)
"""The columns of ``streams`` that :func:`info_of` takes."""

_MAGIC: Final = b"SQLite format 3\0"
_CHECKED_BYTES: Final = 64 * 1024 * 1024  # larger files are checked only where they are used: it would take too long

Entry = tuple[int, int, int, int, list[Record]]
"""A batch in the journal: number of the stream, seq of the first record, how many, time in milliseconds, records."""
_RawEntry = tuple[int, int, int, int, msgspec.Raw]

_entries: Final = msgspec.msgpack.Decoder(list[_RawEntry])
records_of: Final = msgspec.msgpack.Decoder(list[Record]).decode
"""The records of a journal's entry."""


def info_of(row: tuple[Any, ...]) -> StreamInfo:
    """What a row of :data:`COLUMNS` says."""
    info = StreamInfo(*row[1:])
    info.trimmed = bool(info.trimmed)  # a number in the file
    return info


def entries(data: bytes) -> list[_RawEntry]:
    """The batches of one row of the journal, their records not yet read. Raises StoreError if it is damaged."""
    try:
        return _entries.decode(data)
    except msgspec.DecodeError as error:
        raise StoreError(f"the journal is damaged: {error}") from None


def check(path: Path) -> bool:
    """Whether there is a database to be used; False where a new one may be made. Nothing is written.

    Raises StoreError, with what to do, for a file that this version cannot use.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise StoreError(f"{path} cannot be made: there is no folder {path.parent}; make it first")
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    if not head:
        return False
    if head != _MAGIC:
        raise StoreError(f"{path} is not a database of streams, nor of anything else: name another file")
    try:
        database = connect(path, "read")
        try:
            return _check_content(path, database)
        finally:
            database.close()
    except DatabaseError as error:
        raise StoreError(error.told(str(path))) from None


def _check_content(path: Path, database: Database) -> bool:
    ((application,),) = database.execute("PRAGMA application_id")
    ((form,),) = database.execute("PRAGMA user_version")
    ((tables,),) = database.execute("SELECT count(*) FROM sqlite_schema")
    if application == 0 and form == 0 and tables == 0:
        return False
    if application != APPLICATION:
        raise StoreError(f"{path} is the database of another program: name another file")
    if form > FORMAT:
        raise StoreError(
            f"{path} was written by a later version of this program (its form is {form}, known here is {FORMAT}): "
            "upgrade, or name another file"
        )
    if path.stat().st_size <= _CHECKED_BYTES:
        problems = [str(text) for (text,) in database.execute("PRAGMA quick_check(1)")]
        if problems != ["ok"]:
            raise StoreError(
                f"{path} is damaged ({'; '.join(problems)}): restore it from a backup, or save what can be read with "
                "`sqlite3 FILE .recover`"
            )
    return True


def prepare(database: Database, *, new: bool, power: bool) -> None:
    """Set a writing connection up; make the tables, or bring them up to this form. Raises DatabaseError."""
    if new:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _run(database, _CREATE)
        database.execute("PRAGMA journal_mode = WAL")
    else:
        ((form,),) = database.execute("PRAGMA user_version")
        if form < FORMAT:
            _run(database, [step for earlier in range(form, FORMAT) for step in _MIGRATIONS[earlier]])
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {'FULL' if power else 'NORMAL'}")


def _run(database: Database, steps: Any) -> None:
    database.execute("BEGIN IMMEDIATE")
    try:
        for step in steps:
            database.execute(step)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(f"PRAGMA user_version = {FORMAT}")
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
