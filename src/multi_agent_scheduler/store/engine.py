"""The SQLite library behind the SQLite store: apsw, or the standard library's where it is new enough.

Nothing else knows which of them it is. Their errors become :class:`DatabaseError` here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from ..errors import StoreError

__all__ = ["MINIMUM", "Database", "DatabaseError", "connect"]

MINIMUM: Final = (3, 51, 3)
"""Earlier versions can damage a database in WAL mode when a checkpoint meets a writer (sqlite.org/wal.html, "The
WAL-Reset Bug")."""

BUSY_MILLISECONDS: Final = 5000

Mode: TypeAlias = Literal["create", "write", "read"]

# https://sqlite.org/rescode.html
READONLY: Final = 8
IOERR: Final = 10
CORRUPT: Final = 11
FULL: Final = 13
CANTOPEN: Final = 14
CONSTRAINT: Final = 19
NOTADB: Final = 26
_BUSY: Final = 5
_LOCKED: Final = 6
_PERM: Final = 3

_REMEDIES: Final = {
    _PERM: "it may not be used: look at its permissions and those of its folder",
    _BUSY: "another program has it locked: end that program",
    _LOCKED: "another program has it locked: end that program",
    READONLY: "it is read-only: make it and its folder writable, or name another file",
    IOERR: "the disk failed: look at the system's log",
    CORRUPT: "it is damaged: restore it from a backup, or save what can be read with `sqlite3 FILE .recover`",
    FULL: "the disk is full: free some space and start again",
    CANTOPEN: "it cannot be opened: look at its permissions and those of its folder",
    NOTADB: "it is not a database: name another file",
}


class DatabaseError(Exception):
    """An error of the library. ``code`` is SQLite's primary result code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    def told(self, path: str) -> str:
        """What is wrong with the file, and what to do."""
        remedy = _REMEDIES.get(self.code)
        return f"{path}: {remedy} (SQLite says: {self})" if remedy else f"{path}: SQLite says: {self}"


class Database(ABC):
    """One connection. It may move between threads, but is used by one at a time; statements run to their end."""

    @abstractmethod
    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement; gives its rows. Raises DatabaseError."""

    @abstractmethod
    def executemany(self, statement: str, values: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each of the values. Raises DatabaseError."""

    @abstractmethod
    def close(self) -> None:
        """Close; nothing if it is closed."""


def connect(path: Path, mode: Mode) -> Database:
    """Open a database file. Raises StoreError where no library is good enough, DatabaseError for the rest."""
    try:
        return _connect_apsw(path, mode)
    except ImportError:
        return _connect_standard(path, mode)


def _connect_apsw(path: Path, mode: Mode) -> Database:
    import apsw

    if tuple(map(int, apsw.sqlite_lib_version().split("."))) < MINIMUM:
        raise _too_old("apsw", apsw.sqlite_lib_version())
    flags = {
        "create": apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE,
        "write": apsw.SQLITE_OPEN_READWRITE,
        "read": apsw.SQLITE_OPEN_READONLY,
    }
    try:
        return _Apsw(apsw.Connection(str(path), flags=flags[mode]), apsw.Error)
    except apsw.Error as error:
        raise _translated(error) from None


def _connect_standard(path: Path, mode: Mode, minimum: tuple[int, ...] = MINIMUM) -> Database:
    import sqlite3

    if sqlite3.sqlite_version_info < minimum:
        raise _too_old("this Python", sqlite3.sqlite_version)
    uri = f"{path.absolute().as_uri()}?mode={ {'create': 'rwc', 'write': 'rw', 'read': 'ro'}[mode] }"
    try:
        return _Standard(sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False), sqlite3.Error)
    except sqlite3.Error as error:
        raise _translated(error) from None


def _too_old(who: str, version: str) -> StoreError:
    needed = ".".join(map(str, MINIMUM))
    return StoreError(
        f"the SQLite store needs SQLite {needed} or later, and {who} has {version}: "
        "install it with pip install 'multi-agent-scheduler[sqlite]'"
    )


def _translated(error: Any) -> DatabaseError:
    code = getattr(error, "extendedresult", None) or getattr(error, "sqlite_errorcode", None) or 1
    return DatabaseError(str(error), code & 0xFF)


class _Apsw(Database):
    def __init__(self, connection: Any, error: type[Exception]) -> None:
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        self._connection = connection
        self._error = error

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            found: list[tuple[Any, ...]] = self._connection.execute(statement, values).fetchall()
        except self._error as error:
            raise _translated(error) from None
        return found

    def executemany(self, statement: str, values: Iterable[Sequence[Any]]) -> None:
        try:
            self._connection.executemany(statement, values)
        except self._error as error:
            raise _translated(error) from None

    def close(self) -> None:
        self._connection.close()


class _Standard(_Apsw):
    def __init__(self, connection: Any, error: type[Exception]) -> None:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        self._connection = connection
        self._error = error
