"""The library's default store: control state and logs in this process's memory, bounded."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from typing import Final

from ..errors import StoreClosed
from ..records import TERMINALS, Record, terminal_name
from ..views.digest import digest
from .base import FRESH_SECONDS, Batch, Log, Store, trimmed
from .core import Core, Lease, StreamInfo, StreamSpec, StreamState
from .growing import GrowingLog, Tail, cut_batches
from .pack import Stretch, measure, pack, unpack, unpack_records

__all__ = ["MemoryStore"]

_BLOCK: Final = 256  # records packed into one block once they are no longer among the newest
_SMALL: Final = 16  # a log of so few records is not worth packing when it ends
_TRIMS: Final = 2  # at most so many logs are trimmed when a stream ends: it is a wait for everybody


class MemoryStore(Store):
    """``max_log_bytes`` caps one log; of the streams that have ended, the newest ``keep_streams`` and at most
    ``keep_bytes`` of logs are kept for later readers.

    Where that is too much, logs are trimmed that ended more than ten minutes ago, before streams are removed: the
    records go, and what they said stays for snapshots. With ``keep_logs`` all are trimmed so many seconds after their
    end. Both happens when another stream ends.
    """

    def __init__(
        self,
        *,
        max_log_bytes: int = 64 * 1024 * 1024,
        keep_streams: int = 1000,
        keep_bytes: int = 64 * 1024 * 1024,
        keep_logs: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._core = Core(max_log_bytes=max_log_bytes)
        self._logs: dict[str, _MemoryLog] = {}
        self._bodies: dict[str, bytes] = {}
        self._finished: deque[str] = deque()  # those with their logs, in the order in which they ended
        self._trimmed: dict[str, _TrimmedLog] = {}  # those without, which all ended before them
        self._finished_bytes = 0
        self._keep_streams = keep_streams
        self._keep_bytes = keep_bytes
        self._keep_logs = keep_logs
        self._clock = clock
        self._closed = False

    async def open(self) -> None:
        self._check_open()
        for info in self._core:
            if info.state == "running":
                self._core.expire(info.stream_id)

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
        first = self._core.append(lease, len(records), measure(records))
        if records:
            self._logs[lease.stream_id].append(records, self._now())
        return first

    def finish(self, lease: Lease, records: Sequence[Record]) -> int:
        self._check_open()
        terminal = records[-1]
        assert isinstance(terminal, TERMINALS)
        first = self._core.finish(lease, terminal_name(terminal), len(records), measure(records), self._clock())
        log = self._logs[lease.stream_id]
        log.append(records, self._now())
        log.pack()
        self._bodies.pop(lease.stream_id, None)  # it was for running the stream
        self._finished.append(lease.stream_id)
        self._finished_bytes += self._core.get(lease.stream_id).size
        self._retire()
        return first

    def expire(self, stream_id: str) -> None:
        self._check_open()
        self._core.expire(stream_id)

    async def room(self) -> None:
        return

    async def settled(self) -> None:
        return

    def cancel(self, stream_id: str, reason: str) -> bool:
        return self._core.cancel(stream_id, reason)

    def info(self, stream_id: str) -> StreamInfo:
        return self._core.get(stream_id)

    def streams(
        self,
        *,
        plan_id: str | None = None,
        owner: str | None = None,
        states: Collection[StreamState] | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> Sequence[StreamInfo]:
        return self._core.newest(plan_id=plan_id, owner=owner, states=states, before=before, limit=limit)

    def log(self, stream_id: str) -> Log:
        self._core.get(stream_id)
        return self._trimmed.get(stream_id) or self._logs[stream_id]

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            for log in self._logs.values():
                log.fail(StoreClosed("the store is closed"))

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed")

    def _retire(self) -> None:
        now, trims = self._clock(), 0
        while True:
            too_large = self._finished_bytes > self._keep_bytes
            if trims < _TRIMS and self._is_old(now, large=too_large):
                self._trim_oldest()
                trims += 1
            elif too_large or len(self._finished) + len(self._trimmed) > self._keep_streams:
                self._remove_oldest()
            else:
                return

    def _is_old(self, now: float, *, large: bool) -> bool:
        """The oldest log that is whole is to be trimmed."""
        if not self._finished:
            return False
        ended_at = self._core.get(self._finished[0]).ended_at
        assert ended_at is not None
        age = now - ended_at
        return (large and age > FRESH_SECONDS) or (self._keep_logs is not None and age > self._keep_logs)

    def _trim_oldest(self) -> None:
        stream_id = self._finished.popleft()
        info = self._core.get(stream_id)
        log = _TrimmedLog(info, digest(self._logs.pop(stream_id).whole()))  # who still follows it has the old one
        self._finished_bytes += log.size - info.size
        self._core.trim(stream_id, log.size)
        self._trimmed[stream_id] = log

    def _remove_oldest(self) -> None:
        if self._trimmed:
            stream_id = next(iter(self._trimmed))
            del self._trimmed[stream_id]
        else:
            stream_id = self._finished.popleft()
            del self._logs[stream_id]  # a reader that still follows it keeps the log itself alive
        self._finished_bytes -= self._core.get(stream_id).size
        self._core.forget(stream_id)


class _MemoryLog(GrowingLog):
    """The newest records as they are, older ones packed in blocks."""

    __slots__ = ("_blocks", "_info", "_tail")

    def __init__(self, info: StreamInfo) -> None:
        super().__init__()
        self._info = info
        self._blocks: list[tuple[int, bytes]] = []  # seq of the block's last record, its records
        self._tail = Tail()

    @property
    def shown(self) -> int:
        return self._tail.last

    @property
    def ended(self) -> bool:
        return self._info.ended

    def append(self, records: Sequence[Record], time: int) -> None:
        tail = self._tail
        tail.add(records, time)
        if len(tail.records) >= 2 * _BLOCK:
            self._pack(_BLOCK)
        self.wake()

    def pack(self) -> None:
        """Pack all of it: the log has ended."""
        if len(self._tail.records) > _SMALL:
            self._pack(len(self._tail.records))

    def read(self, after: int) -> Sequence[Record]:
        if after >= self._tail.last:
            if not self.ended:
                self.check()
            return ()
        found = self._tail.since(after, self._tail.last)
        if found is not None:
            return found
        last, block = self._block(after)
        records = unpack_records(block)
        return records[len(records) - (last - after) :]

    def batches(self, after: int) -> Sequence[Batch]:
        if after >= self._tail.last:
            self.read(after)  # raises what there is to raise
            return ()
        found = self._tail.stretch(after, self._tail.last)
        if found is not None:
            return cut_batches(found)
        last, block = self._block(after)
        stretch = unpack(block)
        return cut_batches(stretch, len(stretch.records) - (last - after))

    def _block(self, after: int) -> tuple[int, bytes]:
        """The first block that ends behind ``after``."""
        return self._blocks[bisect_right(self._blocks, after, key=itemgetter(0))]

    def _pack(self, count: int) -> None:
        tail = self._tail
        taken = batches = 0
        for size in tail.counts:
            if taken >= count:
                break
            taken += size
            batches += 1
        block = pack(Stretch(tail.records[:taken], tail.counts[:batches], tail.times[:batches]))
        last = tail.last - len(tail.records) + taken
        self._blocks.append((last, block))
        tail.drop(last)


class _TrimmedLog(GrowingLog):
    """What is left of a log."""

    __slots__ = ("_digest", "_info", "size")

    def __init__(self, info: StreamInfo, records: Sequence[Record]) -> None:
        super().__init__()
        self._info = info
        self._digest = pack(Stretch(records, [len(records)], [0]))
        self.size = measure(records)

    @property
    def shown(self) -> int:
        return self._info.seq

    @property
    def ended(self) -> bool:
        return True

    def digest(self) -> Sequence[Record]:
        return unpack_records(self._digest)

    def read(self, after: int) -> Sequence[Record]:
        if after < self._info.seq:
            raise trimmed(self._info.stream_id)
        return ()

    def batches(self, after: int) -> Sequence[Batch]:
        self.read(after)
        return ()
