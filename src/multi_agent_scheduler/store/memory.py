"""The library's default store: control state and logs in this process's memory, bounded."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ..errors import StoreClosed
from ..records import TERMINALS, Record, Text, terminal_name
from .base import Log, Store
from .core import Core, Lease, StreamInfo, StreamSpec

__all__ = ["MemoryStore"]

_BLOCK: Final = 256  # records packed into one block once they are no longer among the newest
_SMALL: Final = 16  # a log of so few records is not worth packing when it ends
_OVERHEAD: Final = 32  # bytes counted for each record beside its text

_packer: Final = msgspec.msgpack.Encoder()
_unpacker: Final = msgspec.msgpack.Decoder(list[Record])


class MemoryStore(Store):
    """``max_log_bytes`` caps one log; of the streams that have ended, the newest ``keep_streams`` and at most
    ``keep_bytes`` of logs are kept for later readers."""

    def __init__(
        self,
        *,
        max_log_bytes: int = 64 * 1024 * 1024,
        keep_streams: int = 1000,
        keep_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._core = Core(max_log_bytes=max_log_bytes)
        self._logs: dict[str, _MemoryLog] = {}
        self._bodies: dict[str, bytes] = {}
        self._finished: deque[str] = deque()
        self._finished_bytes = 0
        self._keep_streams = keep_streams
        self._keep_bytes = keep_bytes
        self._clock = clock
        self._closed = False

    async def open(self) -> None:
        self._check_open()

    async def submit(self, specs: Sequence[StreamSpec]) -> None:
        self._check_open()
        for spec, info in zip(specs, self._core.submit(specs, self._clock()), strict=True):
            self._logs[spec.stream_id] = _MemoryLog(info)
            self._bodies[spec.stream_id] = spec.body

    def body(self, stream_id: str) -> bytes:
        self._core.get(stream_id)
        return self._bodies.get(stream_id, b"")

    async def claim(self, stream_id: str) -> Lease:
        self._check_open()
        return self._core.claim(stream_id)

    def append(self, lease: Lease, records: Sequence[Record]) -> int:
        self._check_open()
        first = self._core.append(lease, len(records), _size(records))
        self._logs[lease.stream_id].append(records)
        return first

    def finish(self, lease: Lease, records: Sequence[Record]) -> int:
        self._check_open()
        terminal = records[-1]
        assert isinstance(terminal, TERMINALS)
        first = self._core.finish(lease, terminal_name(terminal), len(records), _size(records), self._clock())
        log = self._logs[lease.stream_id]
        log.append(records)
        log.pack()
        self._bodies.pop(lease.stream_id, None)  # it was for running the stream
        self._finished.append(lease.stream_id)
        self._finished_bytes += self._core.get(lease.stream_id).size
        self._retire()
        return first

    async def room(self) -> None:
        return

    def cancel(self, stream_id: str, reason: str) -> bool:
        return self._core.cancel(stream_id, reason)

    def info(self, stream_id: str) -> StreamInfo:
        return self._core.get(stream_id)

    def streams(self) -> Sequence[StreamInfo]:
        return list(self._core)

    def log(self, stream_id: str) -> Log:
        self._core.get(stream_id)
        return self._logs[stream_id]

    async def aclose(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed")

    def _retire(self) -> None:
        while len(self._finished) > self._keep_streams or self._finished_bytes > self._keep_bytes:
            oldest = self._finished.popleft()
            self._finished_bytes -= self._core.get(oldest).size
            self._core.forget(oldest)
            del self._logs[oldest]  # a reader that still follows it keeps the log itself alive


class _MemoryLog(Log):
    """The newest records as they are, older ones packed in blocks."""

    __slots__ = ("_blocks", "_info", "_listeners", "_tail", "_waiters")

    def __init__(self, info: StreamInfo) -> None:
        self._info = info
        self._blocks: list[tuple[int, bytes]] = []  # seq of the block's last record, its records
        self._tail: list[Record] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._listeners: tuple[Callable[[], None], ...] = ()

    @property
    def ended(self) -> bool:
        return self._info.ended

    def append(self, records: Sequence[Record]) -> None:
        self._tail += records
        if len(self._tail) >= 2 * _BLOCK:
            self._pack(_BLOCK)
        waiters = self._waiters
        if waiters:
            self._waiters = []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        for notify in self._listeners:
            notify()

    def subscribe(self, notify: Callable[[], None]) -> None:
        self._listeners = (*self._listeners, notify)

    def unsubscribe(self, notify: Callable[[], None]) -> None:
        self._listeners = tuple(other for other in self._listeners if other != notify)

    def pack(self) -> None:
        """Pack all of it: the log has ended."""
        if len(self._tail) > _SMALL:
            self._pack(len(self._tail))

    def read(self, after: int) -> Sequence[Record]:
        tail = self._tail
        behind = self._info.seq - after
        if behind <= len(tail):
            return tail[len(tail) - behind :] if behind > 0 else ()
        return self._packed(after)

    async def wait(self, after: int) -> None:
        if self._info.seq > after or self._info.ended:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if not waiter.done() or waiter.cancelled():
                self._waiters = [other for other in self._waiters if other is not waiter]

    def _packed(self, after: int) -> Sequence[Record]:
        low, high = 0, len(self._blocks)
        while low < high:  # the first block that ends behind ``after``
            middle = (low + high) // 2
            if self._blocks[middle][0] <= after:
                low = middle + 1
            else:
                high = middle
        last, block = self._blocks[low]
        records = _unpacker.decode(block)
        return records[len(records) - (last - after) :]

    def _pack(self, count: int) -> None:
        last = self._info.seq - len(self._tail) + count
        self._blocks.append((last, _packer.encode(self._tail[:count])))
        del self._tail[:count]


def _size(records: Sequence[Record]) -> int:
    size = 0
    for record in records:
        size += _OVERHEAD + (len(record.text) if type(record) is Text else len(_packer.encode(record)))
    return size
