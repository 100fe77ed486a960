"""Where the command line keeps its streams: the store that is named, or a file in the user's data folder."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from ..errors import InvalidConfiguration, InvalidRequest, StoreError, StreamNotFound
from ..store import SQLiteStore, Store, opened
from ..store.core import StreamInfo
from ..store.engine import MINIMUM
from ..store.owner import owner_of
from ..store.reader import SQLiteReader
from . import choice
from .terminal import complain

__all__ = ["check_there", "durable", "found", "is_run", "reading", "to_write"]

_SHORTEST: Final = 6  # characters of an id that may stand for all of it


def to_write(given: str | None, file: str | None = None) -> Store:
    """What is named, or ``MAS_STORE``, or what the configuration (``file``, if it is given) says: the store for a
    command that runs something. Without a library for files it is in memory, and a note says so."""
    url = _named(given, file)
    if url:
        return opened(url)
    if not _files_can_be_kept():
        complain("streams are kept in memory only, and end with this process: pip install apsw keeps them in a file")
        return opened("memory://")
    folder = _data_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SQLiteStore(folder / "mas.db")


def durable(given: str | None, file: str | None = None) -> SQLiteStore:
    """The store for a command that is about what other processes did. Raises InvalidConfiguration for one in memory."""
    url = _named(given, file)
    store = opened(url) if url else SQLiteStore(_data_folder() / "mas.db")
    if not isinstance(store, SQLiteStore):
        raise InvalidConfiguration(f"{url} is seen by its own process alone: name a store sqlite:///FILE")
    return store


def check_there(path: Path) -> None:
    """Raise StoreError if there is no such file of streams yet."""
    if not path.exists():
        raise StoreError(f"{path}: there is no such store yet; mas run makes it")


@asynccontextmanager
async def reading(given: str | None) -> AsyncIterator[SQLiteReader]:
    """The store, open for reading, whoever writes to it. Raises StoreError if there is no such file."""
    reader = SQLiteReader(durable(given).path)
    check_there(reader.path)
    await reader.open()
    try:
        yield reader
    finally:
        await reader.aclose()


def found(reader: SQLiteReader, beginning: str) -> StreamInfo:
    """The stream of this id, or the only one whose id begins so. Raises StreamNotFound and InvalidRequest."""
    try:
        return reader.info(beginning)
    except StreamNotFound:
        if len(beginning) < _SHORTEST:
            problem = f"{beginning!r} is no stream's id: give all of it, or at least its first {_SHORTEST} characters"
            raise InvalidRequest(problem) from None
    fitting = [info for info in reader.streams() if info.stream_id.startswith(beginning)]
    if not fitting:
        raise StreamNotFound(f"there is no stream {beginning!r} in {reader.path}: mas streams lists them")
    if len(fitting) > 1:
        raise InvalidRequest(f"{len(fitting)} streams begin with {beginning!r}: give more of the id")
    return fitting[0]


def is_run(path: Path) -> bool:
    """Whether a process has the store open to run its streams."""
    pid = owner_of(path)
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _named(given: str | None, file: str | None) -> str | None:
    """The URL that somebody has given: with the command, in ``MAS_STORE``, or in the configuration."""
    return given or os.environ.get("MAS_STORE") or choice.configuration(file).store


def _files_can_be_kept() -> bool:
    return importlib.util.find_spec("apsw") is not None or sqlite3.sqlite_version_info >= MINIMUM


def _data_folder() -> Path:
    named = os.environ.get("XDG_DATA_HOME")
    # A relative one counts as none (XDG Base Directory Specification 0.8).
    base = Path(named) if named and Path(named).is_absolute() else Path.home() / ".local" / "share"
    return base / "multi-agent-scheduler"
