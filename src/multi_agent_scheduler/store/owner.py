"""Who owns a SQLite store's file, and how other processes reach it.

Beside the database lies a lock file, ``FILE-owner``: the process that holds its lock is the only one that writes. The
system lets go of the lock when that process dies, however it dies. The file says, as JSON, the owner's ``pid`` and the
path of the local ``socket`` at which it listens (null if it has none). Over the socket go lines of JSON: a request
``{"do": "cancel", "stream_id": ..., "reason": ...}`` or ``{"do": "ping"}``, and one answer for each.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from ..errors import StoreError, StreamNotFound

__all__ = ["NoOwner", "OwnerServer", "Ownership", "ask_owner", "cancel_at_owner", "owner_of"]

_PATIENCE_SECONDS: Final = 0.1  # an owner that has only just begun, or is about to end, gets so long
_LONGEST_ADDRESS: Final = 100  # bytes; systems take 104 or 108
_LINE_BYTES: Final = 64 * 1024
_ANSWER_SECONDS: Final = 10.0


class NoOwner(StoreError):
    """No process owns the store (or it cannot be reached): open the store to change it."""


class _Owner(msgspec.Struct):
    pid: int | None = None
    socket: str | None = None


class _Request(msgspec.Struct):
    do: str
    stream_id: str = ""
    reason: str = "cancelled"


class _Answer(msgspec.Struct, omit_defaults=True):
    first: bool = False
    pid: int = 0
    error: str | None = None
    kind: str | None = None


_request: Final = msgspec.json.Decoder(_Request)
_answer: Final = msgspec.json.Decoder(_Answer)
_encode: Final = msgspec.json.encode


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + "-owner")


class Ownership:
    """The right to write to a database file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._socket: Path | None = None
        self._folder: Path | None = None

    def take(self) -> None:
        """Take it, also from a process that died. Raises StoreError, naming the owner, if another process has it."""
        lock = _lock_file(self._path)
        if not lock.parent.is_dir():
            raise StoreError(f"{self._path} cannot be made: there is no folder {lock.parent}; make it first")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"{lock} cannot be written: {error.strerror}; the store must be in a writable folder"
            ) from None
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(_PATIENCE_SECONDS / 10)
                    continue
                os.close(descriptor)
                raise self._taken() from None
        self._descriptor = descriptor
        before = _read(lock)
        if before.socket is not None:  # of one that died
            _remove(Path(before.socket), self._path)
        self._write(_Owner(os.getpid()))

    def bind(self) -> socket.socket | None:
        """A listening address for this owner, told in the lock file; None where no local socket can be made."""
        address = self._path.absolute().with_name(self._path.name + "-socket")
        if len(os.fsencode(address)) > _LONGEST_ADDRESS:
            self._folder = Path(tempfile.mkdtemp(prefix="mas-"))  # for its owner only
            address = self._folder / "socket"
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with suppress(FileNotFoundError):
                address.unlink()
            bound.bind(os.fspath(address))
            address.chmod(0o600)  # before it listens: until then nobody can connect
        except OSError:
            bound.close()
            return None
        bound.setblocking(False)
        self._socket = address
        self._write(_Owner(os.getpid(), os.fspath(address)))
        return bound

    def release(self) -> None:
        """Let go of it; nothing if it is not held."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.unlink()
            self._socket = None
        if self._folder is not None:
            with suppress(OSError):
                self._folder.rmdir()
            self._folder = None
        if self._descriptor is not None:
            self._write(_Owner())
            os.close(self._descriptor)  # and with it the lock
            self._descriptor = None

    def _write(self, owner: _Owner) -> None:
        if self._descriptor is not None:
            data = _encode(owner)
            os.pwrite(self._descriptor, data, 0)
            os.ftruncate(self._descriptor, len(data))

    def _taken(self) -> StoreError:
        pid = owner_of(self._path)
        if pid == os.getpid():
            return StoreError(f"{self._path} is open in this process already: close that store or scheduler first")
        who = "another process" if pid is None else f"process {pid}"
        return StoreError(
            f"{self._path} is in use by {who}: end it first. Its streams can be listed, watched and cancelled from here"
        )


def _read(lock: Path) -> _Owner:
    try:
        return msgspec.json.decode(lock.read_bytes(), type=_Owner)
    except (OSError, msgspec.DecodeError):
        return _Owner()


def _remove(address: Path, path: Path) -> None:
    """Remove what a dead owner's socket has left, if it is where this program puts such."""
    if address == path.absolute().with_name(path.name + "-socket"):
        with suppress(OSError):
            address.unlink()
    elif address.name == "socket" and address.parent.name.startswith("mas-"):
        with suppress(OSError):
            address.unlink()
            address.parent.rmdir()


def owner_of(path: Path) -> int | None:
    """The pid that the lock file names; None if it names none. The process may have died."""
    return _read(_lock_file(path)).pid


class OwnerServer:
    """Answers other processes. ``cancel`` stops a stream and says whether this was the first to ask."""

    def __init__(self, cancel: Callable[[str, str], Awaitable[bool]]) -> None:
        self._cancel = cancel
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, bound: socket.socket) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._connected, sock=bound, limit=_LINE_BYTES)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def aclose(self) -> None:
        """Stop listening, and let go of who is connected."""
        self.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while line := await reader.readline():
                writer.write(_encode(await self._answered(line)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # it has gone, or its line is too long
            pass
        except asyncio.CancelledError:
            pass  # the store closes; asyncio would complain of a handler that was cancelled
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answered(self, line: bytes) -> _Answer:
        try:
            request = _request.decode(line)
            if request.do == "ping":
                return _Answer(pid=os.getpid())
            if request.do == "cancel":
                return _Answer(first=await self._cancel(request.stream_id, request.reason))
            return _Answer(error=f"{request.do!r} is unknown here", kind="StoreError")
        except msgspec.DecodeError as error:
            return _Answer(error=f"this is no request: {error}", kind="StoreError")
        except StoreError as error:
            return _Answer(error=str(error), kind=type(error).__name__)


def cancel_at_owner(path: str | os.PathLike[str], stream_id: str, reason: str = "cancelled") -> bool:
    """Have the owner of a database file stop a stream; true for the first who asks, when the stop is kept for good.

    Blocks; at most about ten seconds. Raises NoOwner, StreamNotFound and StoreError.
    """
    return ask_owner(path, {"do": "cancel", "stream_id": stream_id, "reason": reason}).first


def ask_owner(path: str | os.PathLike[str], request: dict[str, Any]) -> _Answer:
    """Send one request to the owner of a database file. Raises NoOwner and StoreError."""
    address = _read(_lock_file(Path(path))).socket
    if address is None:
        raise NoOwner(f"no process has {path} open")
    line = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        try:
            connection.connect(address)
            connection.sendall(_encode(request) + b"\n")
            while not line.endswith(b"\n"):
                data = connection.recv(_LINE_BYTES)
                if not data:
                    raise NoOwner(f"the process that had {path} open has ended")
                line += data
        except TimeoutError:
            raise StoreError(f"the process that has {path} open does not answer") from None
        except OSError:
            raise NoOwner(f"no process has {path} open") from None
    answer = _answer.decode(line)
    if answer.error is not None:
        raise StreamNotFound(answer.error) if answer.kind == "StreamNotFound" else StoreError(answer.error)
    return answer
