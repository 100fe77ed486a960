"""A fast provider on the loopback, in a process of its own: ``python -m benchmarks.server`` prints its address.

A request says what it wants in its path, its query or its model's name, so that every client can be steered::

    POST /n200/d20/t1/v1/chat/completions   200 chunks, 20 ms apart, at the ticks of a clock of 1 ms
    POST /v1/messages?chunks=200&delay=20&tick=0
    {"model": "n200-d20-t1", ...}

A delay of 0 is a burst. Paced, every chunk is one ``send``, and the streams' phases are spread evenly over the delay.
The tick (1 ms unless said) is the grain of the server's clock: event loops keep time in milliseconds, so what a server
sends to a hundred streams leaves in small groups. With a tick of 0 each chunk leaves at a time of its own, which is
the dearest for a client: it falls asleep and wakes for every one of them. With ``-stamps`` in the model's name every
25th chunk says when it was sent, which is how the lag behind a gateway is measured.

One thread with one heap of due times sends all streams; the event loop only accepts connections and reads requests. A
delay of an hour makes a stream that says one token and stays open.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import os
import re
import resource
import sys
import threading
import time
from itertools import count

from .provider import PROTOCOLS, STAMP_EVERY, render, stamped

__all__ = ["main"]

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKS = re.compile(rb"(?:[/\"]n|[?&]chunks=)(\d+)")
_DELAY = re.compile(rb"(?:[/-]d|[?&]delay=)(\d+(?:\.\d+)?)")
_TICK = re.compile(rb"(?:[/-]t|[?&]tick=)(\d+(?:\.\d+)?)")
_BLOCK = 64 * 1024
_SPREAD = 0.6180339887498949  # the golden ratio spreads any number of phases evenly


class Stream:
    """One answer under way: the writes that are left."""

    __slots__ = ("delay", "due", "fd", "next", "rest", "stamps", "tick", "writes")

    def __init__(self, fd: int, writes: tuple[bytes, ...], delay: float, tick: float, *, stamps: bool) -> None:
        self.stamps = stamps
        self.fd = fd
        self.writes = writes
        self.delay = delay
        self.tick = tick
        self.due = 0.0
        self.next = 1
        self.rest = b""

    def after(self, seconds: float) -> float:
        """Move the next chunk's time on; gives the tick that it is sent at."""
        self.due += seconds
        return math.ceil(self.due / self.tick) * self.tick if self.tick else self.due


class Pacer(threading.Thread):
    """Sends each stream's next chunk when it is due."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._due: list[tuple[float, int, Stream]] = []
        self._numbers = count()
        self._wake = threading.Condition()

    def add(self, stream: Stream) -> None:
        """The first chunk has been sent; the second is due after half to one and a half delays, then each after one."""
        with self._wake:
            number = next(self._numbers)
            stream.due = time.monotonic()
            heapq.heappush(self._due, (stream.after(stream.delay * (0.5 + number * _SPREAD % 1.0)), number, stream))
            self._wake.notify()

    def drop(self, stream: Stream) -> None:
        """The connection is gone; its descriptor may be another's from now on."""
        with self._wake:
            stream.fd = -1

    def run(self) -> None:
        while True:
            with self._wake:
                while not self._due:
                    self._wake.wait()
                due, number, stream = self._due[0]
                wait = due - time.monotonic()
                if wait <= 0:
                    if self._send(stream):
                        heapq.heapreplace(self._due, (stream.after(stream.delay), number, stream))
                    else:
                        heapq.heappop(self._due)
            if wait > 0:
                time.sleep(min(wait, 0.001))  # short, for a stream that is added meanwhile may be due earlier

    def _send(self, stream: Stream) -> bool:
        """Whether more is to come. What a full socket does not take is sent with the next chunk."""
        if stream.fd < 0:
            return False
        data = stream.rest
        if stream.next < len(stream.writes):
            write = stream.writes[stream.next]
            stream.next += 1
            data += stamped(write) if stream.stamps and not stream.next % STAMP_EVERY else write
        try:
            sent = os.write(stream.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        stream.rest = data[sent:]
        return bool(stream.rest) or stream.next < len(stream.writes)


class Provider(asyncio.Protocol):
    """One connection: requests one after another, each answered before the next is read."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._buffer = b""
        self._stream: Stream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._stream is not None:
            self._pacer.drop(self._stream)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = _LENGTH.search(head)
        if length is not None and len(body) < int(length[1]):
            return
        self._buffer = b""
        self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        ending = next((known for known in PROTOCOLS if path.partition(b"?")[0].endswith(known.encode())), None)
        if ending is None:
            self._transport.write(_NOT_FOUND)
            return
        chunks = _CHUNKS.search(path) or _CHUNKS.search(body)
        delay = _DELAY.search(path) or _DELAY.search(body)
        tick = _TICK.search(path) or _TICK.search(body)
        number = int(chunks[1]) if chunks else 100
        seconds = float(delay[1]) / 1000 if delay else 0.0
        stamps = b"-stamps" in body
        writes = render(ending, max(number, 1), stamps=stamps)
        if seconds and len(writes) > 1:
            self._transport.write(_HEAD + writes[0])
            fd = self._transport.get_extra_info("socket").fileno()
            self._stream = Stream(fd, writes, seconds, float(tick[1]) / 1000 if tick else 0.001, stamps=stamps)
            self._pacer.add(self._stream)
        else:
            whole = _HEAD + b"".join(writes)
            for start in range(0, len(whole), _BLOCK):
                self._transport.write(whole[start : start + _BLOCK])


async def serve() -> None:
    """Serve on a free port of the loopback until stdin closes; the port is printed first."""
    loop = asyncio.get_running_loop()
    pacer = Pacer()
    pacer.start()
    server = await loop.create_server(lambda: Provider(pacer), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    """``python -m benchmarks.server [CPU]``: pinned to a CPU, if one is given."""
    if len(sys.argv) > 1 and int(sys.argv[1]) >= 0:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve())


if __name__ == "__main__":
    main()
