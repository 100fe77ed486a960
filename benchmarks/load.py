"""Load for a gateway, from a process of its own: ``python -m benchmarks.load CPU`` reads commands as JSON lines.

``load``
    ``streams`` chat completions, begun evenly over ``ramp`` seconds, each read to its end; gives the lags of the stamps
    that the provider puts into every 25th chunk, the seconds to the first chunk, and how many streams were whole.
``first``
    ``count`` streams one after another over one connection each; gives the seconds to the first chunk.
``hold``
    ``streams`` that said something are kept open until the next command.
``get``
    one GET of ``path``, read to its end; gives its bytes and seconds.
``follow``
    GETs of each of ``paths`` at once, read to their ends; gives their bytes.

One thread with ``epoll`` and plain sockets: an event loop would need more of the core than the provider beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import socket
import sys
import time
from typing import Any, Final

from .provider import STAMP_EVERY

__all__ = ["main"]

_STAMP: Final = re.compile(rb"@(\d{16})")
_PATIENCE: Final = 60.0
_BLOCK: Final = 256 * 1024

Answer = dict[str, Any]


class Reader:
    """One connection: a request sent, an answer read."""

    __slots__ = ("bytes", "done", "first", "lags", "request", "sent", "socket", "status", "tail")

    def __init__(self, port: int, request: bytes) -> None:
        self.request = request
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.socket.connect(("127.0.0.1", port))
        self.sent = time.monotonic()
        self.first: float | None = None
        self.status = 0
        self.bytes = 0
        self.lags: list[float] = []
        self.tail = b""
        self.done = False

    def write(self) -> None:
        """The connection stands: say what is wanted."""
        self.socket.sendall(self.request)  # far less than a socket's buffer

    def read(self) -> bool:
        """What has come; false once nothing more will."""
        try:
            data = self.socket.recv(_BLOCK)
        except BlockingIOError:
            return True
        except ConnectionError:
            data = b""
        if not data:
            return False
        if not self.status:
            self.status = int(data[9:12])
        self.bytes += len(data)
        if self.first is None and (b"content" in data or b'"text"' in data) and b"data:" in data:
            self.first = time.monotonic()
        if b"@" in data or b"@" in self.tail:
            now = time.monotonic_ns() // 1000
            known = len(_STAMP.findall(self.tail))
            found = _STAMP.findall(self.tail + data)[known:]
            self.lags += [(now - int(stamp)) / 1e6 for stamp in found]
        self.tail = data[-32:] if len(data) >= 32 else (self.tail + data)[-32:]
        if self.tail.endswith(b"0\r\n\r\n"):
            self.done = True
        return not self.done


class Load:
    """The connections that are open, and the readiness of their sockets."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._open: dict[int, Reader] = {}

    def add(self, reader: Reader) -> None:
        fd = reader.socket.fileno()
        self._open[fd] = reader
        self._poll.register(fd, select.EPOLLOUT)

    def turn(self, wait: float) -> None:
        """Wait for what comes, at most so long, and take it."""
        for fd, event in self._poll.poll(max(wait, 0.0)):
            reader = self._open[fd]
            if event & select.EPOLLOUT:
                reader.write()
                self._poll.modify(fd, select.EPOLLIN)
            elif not reader.read():
                self.drop(reader)

    def drop(self, reader: Reader) -> None:
        fd = reader.socket.fileno()
        self._poll.unregister(fd)
        del self._open[fd]
        reader.socket.close()

    def finish(self, seconds: float) -> None:
        """Until all have ended, or so long."""
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end:
            self.turn(end - time.monotonic())

    def close(self) -> None:
        for reader in list(self._open.values()):
            self.drop(reader)


def request(command: dict[str, Any], path: str, body: dict[str, Any] | None = None) -> bytes:
    """An HTTP/1.1 request as plain clients send it."""
    host = f"127.0.0.1:{command['port']}"
    if body is None:
        head = f"GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\nauthorization: Bearer none\r\n\r\n"
        return head.encode()
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nauthorization: Bearer none\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def _asked(command: dict[str, Any]) -> bytes:
    body = {
        "model": command["model"],
        "stream": True,
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    }
    return request(command, command["path"], body)


def _load(command: dict[str, Any], load: Load) -> Answer:
    count, ramp = command["streams"], command["ramp"]
    data = _asked(command)
    readers: list[Reader] = []
    began = time.monotonic()
    while len(readers) < count:
        due = began + ramp * len(readers) / count
        wait = due - time.monotonic()
        if wait > 0:
            load.turn(wait)
            continue
        reader = Reader(command["port"], data)
        readers.append(reader)
        load.add(reader)
    load.finish(_PATIENCE)
    load.close()
    stamps = command["chunks"] // STAMP_EVERY
    whole = sum(reader.done and reader.status == 200 and len(reader.lags) == stamps for reader in readers)
    return {
        "lags": [lag for reader in readers for lag in reader.lags],
        "first": [reader.first - reader.sent for reader in readers if reader.first is not None],
        "whole": whole,
        "bytes": sum(reader.bytes for reader in readers),
        "statuses": sorted({reader.status for reader in readers}),
    }


def _first(command: dict[str, Any], load: Load) -> Answer:
    found = []
    for _ in range(command["count"]):
        reader = Reader(command["port"], _asked(command))
        load.add(reader)
        load.finish(_PATIENCE)
        found.append(None if reader.first is None else reader.first - reader.sent)
    return {"seconds": found}


def _hold(command: dict[str, Any], load: Load) -> Answer:
    readers = [Reader(command["port"], _asked(command)) for _ in range(command["streams"])]
    for reader in readers:
        load.add(reader)
    end = time.monotonic() + _PATIENCE
    while any(reader.first is None for reader in readers) and time.monotonic() < end:
        load.turn(0.1)
    return {"open": sum(reader.first is not None for reader in readers)}


def _get(command: dict[str, Any], load: Load) -> Answer:
    began = time.monotonic()
    readers = [Reader(command["port"], request(command, path)) for path in command["paths"]]
    for reader in readers:
        load.add(reader)
    load.finish(_PATIENCE)
    whole = sum(reader.done and reader.status == 200 for reader in readers)
    return {"bytes": sum(reader.bytes for reader in readers), "seconds": time.monotonic() - began, "whole": whole}


def main() -> None:
    """``python -m benchmarks.load [CPU]``: pinned to a CPU, if one is given."""
    if len(sys.argv) > 1 and int(sys.argv[1]) >= 0:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    load = Load()
    actions = {"load": _load, "first": _first, "hold": _hold, "get": _get}
    for line in sys.stdin:
        command = json.loads(line)
        load.close()  # what the last command held
        try:
            answer = actions[command["do"]](command, load)
        except (OSError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
