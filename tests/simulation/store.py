"""A durable store without a disk: the real control state and logs over a journal that commits when the seed says so.

It keeps the promises of a store that survives a crash, in one thread and on virtual time: what was done is shown once
it is committed, and a crash keeps any prefix of what was not.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

import msgspec

from multi_agent_scheduler.errors import StoreClosed, StreamNotFound
from multi_agent_scheduler.records import TERMINALS, Record, terminal_name
from multi_agent_scheduler.store.base import Batch, Log, Store, trimmed
from multi_agent_scheduler.store.core import Core, Lease, StreamInfo, StreamSpec, StreamState
from multi_agent_scheduler.store.growing import GrowingLog, Tail, cut_batches
from multi_agent_scheduler.store.pack import measure
from multi_agent_scheduler.views.digest import digest

MAX_LOG_BYTES = 64 * 1024 * 1024
BEHIND = 6  # changes that wait to be committed; with more the store is behind


class Disk:
    """What outlives a process: the streams as they were last committed, and their batches."""

    def __init__(self) -> None:
        self.infos: dict[str, StreamInfo] = {}
        self.bodies: dict[str, bytes] = {}
        self.batches: dict[str, list[tuple[Sequence[Record], int]]] = {}
        self.digests: dict[str, Sequence[Record]] = {}  # of those whose logs were trimmed


Change: TypeAlias = Callable[[Disk], None]


class SimulatedStore(Store):
    """``chance`` decides how long each commit takes, and what of the last changes a crash keeps.

    Logs are trimmed ``keep_logs`` seconds after their end, when the store is opened or another stream ends.
    """

    durable = True

    def __init__(
        self, disk: Disk, chance: random.Random, clock: Callable[[], float], keep_logs: float = math.inf
    ) -> None:
        self._disk = disk
        self._chance = chance
        self._clock = clock
        self._keep_logs = keep_logs
        self._closed: StoreClosed | None = StoreClosed("the store is not open")
        self._opened = self._all_kept = False

    async def open(self) -> None:
        if self._opened:
            self._check_open()
            return
        self._opened, self._closed = True, None
        self._core = Core(max_log_bytes=MAX_LOG_BYTES)
        self._logs: dict[str, SimulatedLog] = {}
        self._changes: list[Change] = []
        self._told: list[Callable[[], None]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.behind = False
        for stream_id, kept in self._disk.infos.items():
            info = msgspec.structs.replace(kept)
            if info.state == "running":
                info.state = "queued"
            self._core.restore(info)
            log = self._logs[stream_id] = SimulatedLog(info)
            for records, time in self._disk.batches[stream_id]:
                log.tail.add(records, time)
            if info.trimmed:
                log.trim(self._disk.digests[stream_id])
            log.show(log.tail.last)
        self._trim()

    def crash(self) -> None:
        """The process dies: of what is not committed a prefix may have been, and nobody is told."""
        if self._closed is None:
            del self._changes[self._chance.randint(0, len(self._changes)) :]
            self._apply()
            self._close(StoreClosed("the process died"))

    async def aclose(self) -> None:
        if self._closed is None:
            self._commit()
            self._close(StoreClosed("the store is closed"))

    # --- streams --------------------------------------------------------------------------------------------------

    async def submit(self, specs: Sequence[StreamSpec]) -> None:
        self._check_open()
        infos = self._core.submit(specs, self._clock())
        kept = [(msgspec.structs.replace(info), spec.body) for info, spec in zip(infos, specs, strict=True)]

        def change(disk: Disk) -> None:
            for info, body in kept:
                disk.infos[info.stream_id] = info
                disk.bodies[info.stream_id] = body
                disk.batches[info.stream_id] = []

        def tell() -> None:
            self._logs.update((info.stream_id, SimulatedLog(info)) for info in infos)

        self._change(change, tell)
        await self.settled()

    def body(self, stream_id: str) -> bytes:
        self._check_open()
        return b"" if self._core.get(stream_id).ended else self._disk.bodies[stream_id]

    async def claim(self, stream_id: str) -> Lease:
        self._check_open()
        lease = self._core.claim(stream_id)
        self._progress(stream_id)
        try:
            await self.settled()
        except asyncio.CancelledError:
            info = self._core.get(stream_id)
            if self._closed is None and info.state == "running" and info.epoch == lease.epoch:
                self.expire(stream_id)
            raise
        return lease

    def expire(self, stream_id: str) -> None:
        self._check_open()
        self._core.expire(stream_id)
        self._progress(stream_id)

    def cancel(self, stream_id: str, reason: str) -> bool:
        self._check_open()
        first = self._core.cancel(stream_id, reason)
        if first:
            self._progress(stream_id)
        return first

    def append(self, lease: Lease, records: Sequence[Record]) -> int:
        self._check_open()
        size = measure(records)
        first = self._core.append(lease, len(records), size)
        if records:
            self._write(lease.stream_id, records)
        return first

    def finish(self, lease: Lease, records: Sequence[Record]) -> int:
        self._check_open()
        assert isinstance(records[-1], TERMINALS)
        size, name = measure(records), terminal_name(records[-1])
        first = self._core.finish(lease, name, len(records), size, self._clock())
        self._write(lease.stream_id, records)
        self._trim()
        return first

    async def room(self) -> None:
        while self.behind:
            await self.settled()

    async def settled(self) -> None:
        if self._all_kept:
            return
        self._check_open()
        if self._changes:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(done)
            await done

    # --- reading --------------------------------------------------------------------------------------------------

    def info(self, stream_id: str) -> StreamInfo:
        self._check_open()
        return self._log(stream_id).visible()

    def streams(
        self,
        *,
        plan_id: str | None = None,
        owner: str | None = None,
        states: Collection[StreamState] | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> Sequence[StreamInfo]:
        self._check_open()
        found = self._core.newest(plan_id=plan_id, owner=owner, before=before)
        shown = [self._logs[info.stream_id].visible() for info in found if info.stream_id in self._logs]
        fitting = [info for info in shown if states is None or info.state in states]
        return fitting if limit is None else fitting[len(fitting) - min(limit, len(fitting)) :]

    def log(self, stream_id: str) -> Log:
        self._check_open()
        return self._log(stream_id)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _log(self, stream_id: str) -> SimulatedLog:
        """A stream is there once it has been committed."""
        log = self._logs.get(stream_id)
        if log is None:
            raise StreamNotFound(f"there is no stream {stream_id!r}")
        return log

    def _check_open(self) -> None:
        if self._closed is not None:
            raise StoreClosed(*self._closed.args)

    def _close(self, reason: StoreClosed) -> None:
        self._all_kept = not self._changes and not self._waiting
        self._closed = reason
        if self._timer is not None:
            self._timer.cancel()
        for future in self._waiting:
            if not future.done():
                future.set_exception(StoreClosed(*reason.args))
        for log in self._logs.values():
            log.fail(reason)

    def _write(self, stream_id: str, records: Sequence[Record]) -> None:
        log, now, copy = self._logs[stream_id], int(self._clock() * 1000), list(records)
        log.tail.add(copy, now)
        last, info = log.tail.last, msgspec.structs.replace(log.info)

        def change(disk: Disk) -> None:
            disk.batches[stream_id].append((copy, now))
            disk.infos[stream_id] = info

        self._change(change, lambda: log.show(last))

    def _trim(self) -> None:
        now = self._clock()
        for log in self._logs.values():
            info = log.info
            if log.ended and not info.trimmed and now - (info.ended_at or now) > self._keep_logs:
                self._trim_one(log)

    def _trim_one(self, log: SimulatedLog) -> None:
        stream_id, left = log.info.stream_id, digest(log.whole())
        info = msgspec.structs.replace(log.info, trimmed=True, size=measure(left))

        def change(disk: Disk) -> None:
            disk.infos[stream_id], disk.digests[stream_id], disk.batches[stream_id] = info, left, []

        def tell() -> None:
            self._core.trim(stream_id, info.size)
            log.trim(left)

        self._change(change, tell)

    def _progress(self, stream_id: str) -> None:
        info = msgspec.structs.replace(self._core.get(stream_id))

        def change(disk: Disk) -> None:
            disk.infos[stream_id] = info

        self._change(change, None)

    def _change(self, change: Change, tell: Callable[[], None] | None) -> None:
        self._changes.append(change)
        if tell is not None:
            self._told.append(tell)
        self.behind = len(self._changes) > BEHIND
        if self._timer is None:
            delay = self._chance.choice((0.0, 0.0, 0.001, 0.02))
            self._timer = asyncio.get_running_loop().call_later(delay, self._commit)

    def _apply(self) -> None:
        changes, self._changes = self._changes, []
        for change in changes:
            change(self._disk)

    def _commit(self) -> None:
        self._timer = None
        self._apply()
        self.behind = False
        told, self._told = self._told, []
        waiting, self._waiting = self._waiting, []
        for tell in told:
            tell()
        for future in waiting:
            if not future.done():
                future.set_result(None)


class SimulatedLog(GrowingLog):
    """A log in memory, of which only what is committed is shown."""

    __slots__ = ("_left", "_shown", "info", "tail")

    def __init__(self, info: StreamInfo) -> None:
        super().__init__()
        self.info = info
        self.tail = Tail()
        self._left: Sequence[Record] = ()  # what is left of it, once it is trimmed
        self._shown = 0

    @property
    def shown(self) -> int:
        return self._shown

    @property
    def ended(self) -> bool:
        return self.info.ended and self._shown >= self.info.seq

    def show(self, last: int) -> None:
        """Everything up to ``last`` is committed."""
        self._shown = last
        self.wake()

    def trim(self, left: Sequence[Record]) -> None:
        """Its records are gone."""
        self._left, self.tail = left, Tail(self.info.seq)

    def visible(self) -> StreamInfo:
        """The stream as a reader may see it."""
        info = msgspec.structs.replace(self.info, seq=self._shown)
        if info.ended and not self.ended:
            info.state, info.ended_at = "running", None
        return info

    def read(self, after: int) -> Sequence[Record]:
        if after >= self._shown:
            if not self.ended:
                self.check()
            return ()
        records = self.tail.since(after, self._shown)
        if records is None:
            raise trimmed(self.info.stream_id)
        return records

    def digest(self) -> Sequence[Record]:
        return self._left

    def batches(self, after: int) -> Sequence[Batch]:
        if after >= self._shown:
            self.read(after)
            return ()
        found = self.tail.stretch(after, self._shown)
        if found is None:
            raise trimmed(self.info.stream_id)
        return cut_batches(found)
