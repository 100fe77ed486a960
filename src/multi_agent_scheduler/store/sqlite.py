"""The durable store: one SQLite file, written by one thread, read from disk.

The control state is :class:`~.core.Core`, of the streams that have not ended; those that have are on disk alone. An
append goes to three places: into the log's tail in memory, at once; into the journal with the next commit, which shows
it to readers; and later, with its neighbours, into a block (``Fold``), with which it leaves memory. When the journal
has grown, everything is folded and the journal emptied.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from ..errors import InvalidOption, StoreClosed, StoreError, StreamExists, WrongLoop
from ..records import TERMINALS, CallStarted, Record, terminal_name
from .archive import Archive
from .base import Log, Store
from .changes import EmptyJournal, Submit
from .core import Core, Fenced, Lease, StreamInfo, StreamSpec, StreamState
from .owner import OwnerServer
from .pack import measure
from .retention import Keeping
from .stored_log import StoredLog
from .writer import Work, Writer

__all__ = ["SQLiteStore"]

_JOURNAL_BYTES: Final = 4 * 1024 * 1024  # the journal is emptied when it has grown so much
_LEISURE_SECONDS: Final = 0.005  # that a Call has begun waits so long for something to be committed with
_BEHIND_BYTES: Final = 2 * 1024 * 1024  # more than so much waiting to be committed is too much


class SQLiteStore(Store):
    """Streams in the database file ``path``, which is made if need be; only one store at a time has it.

    ``durability`` says what survives: "process" the end of the process, however it dies (kill -9), "power" also that of
    the machine, at the price of a wait for the disk with each commit. ``max_log_bytes`` caps one log.

    ``keep_logs`` seconds after a stream has ended its log is trimmed: the records go, and what they said stays (text,
    reasoning, tool calls, usage, error ...), for snapshots, plans and budgets. ``keep_seconds`` after it has ended a
    stream is removed. While the file's content is more than ``keep_bytes``, the oldest give way: first the logs of
    streams that ended more than ten minutes ago are trimmed, then streams are removed. None keeps them. Streams of a
    plan are removed when all of it has ended.
    """

    durable = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: str = "process",
        max_log_bytes: int = 64 * 1024 * 1024,
        keep_logs: float | None = None,
        keep_seconds: float | None = None,
        keep_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if durability not in ("process", "power"):
            raise InvalidOption(f"durability must be 'process' or 'power', not {durability!r}")
        keeping = Keeping(keep_logs, keep_seconds, keep_bytes)
        for name, value in zip(("keep_logs", "keep_seconds", "keep_bytes"), keeping, strict=True):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
                raise InvalidOption(f"{name} must be a number from 0, not {value!r}")
        self.path = Path(path)
        self._power = durability == "power"
        self._keeping = keeping
        self._max_log_bytes = max_log_bytes
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: Writer | None = None
        self._archive: Archive | None = None
        self._server: OwnerServer | None = None
        self._reset(StoreClosed("the store is not open: its open() was not awaited"))

    def _reset(self, closed: StoreError | None) -> None:
        self._closed = closed
        """Why it cannot be used; None while it can."""
        self._all_kept = False  # it was closed in order
        self._core = Core(max_log_bytes=self._max_log_bytes)
        self._logs: dict[str, StoredLog] = {}
        self._submitting: set[str] = set()
        self._next_number = 1
        self._work: Work | None = None
        self._urgent = False  # it is handed over when this turn of the loop ends
        self._in_flight = 0  # pieces of work that the writer has
        self._queued = 0  # bytes
        self._journal_size = 0
        self._pending: set[asyncio.Future[None]] = set()
        self._rooms: list[asyncio.Future[None]] = []
        self.behind = False

    # --- opening and closing --------------------------------------------------------------------------------------

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._closed is None:
            if self._loop is loop:
                return
            if self._loop is not None and not self._loop.is_closed():
                raise WrongLoop(
                    "this store belongs to another event loop: open another store there, or one after the other"
                )
            await loop.run_in_executor(None, self._abandon)
        self._loop = loop
        self._writer = Writer(
            self.path, loop=loop, clock=self._clock, keeping=self._keeping, power=self._power,
            committed=self._committed, stopped=self._stopped,
        )  # fmt: skip
        recovered = await self._writer.open()
        try:
            self._archive = Archive(self.path)
        except StoreError:
            await loop.run_in_executor(None, self._writer.abandon)
            raise
        self._reset(None)
        self._next_number = recovered.next_number
        self._journal_size = recovered.journal_size
        numbered: dict[int, StoredLog] = {}
        for number, info in recovered.streams:
            self._core.restore(info)
            numbered[number] = self._logs[info.stream_id] = StoredLog(number, info, self._archive)
        for number, at, records in recovered.batches:
            size = measure(records)
            self._core.restore_records(numbered[number].info, len(records), size)
            numbered[number].restore(records, at, size)
        bound = self._writer.ownership.bind()
        if bound is not None:
            self._server = OwnerServer(self._cancel_from_outside)
            await self._server.start(bound)

    async def aclose(self) -> None:
        if self._closed is not None or self._writer is None:
            await self._release()
            return
        work = self._begun()
        self._fold_all(work)
        work.closing = True
        closed = self._waiting()
        work.waiters.append(closed)
        self._hand_over()
        self._close(StoreClosed("the store is closed"))
        if self._archive is not None:
            self._archive.close()  # the last to close the file must be the writer, which cleans up beside it
        try:
            await closed
            self._all_kept = True
        except StoreError:
            pass  # it stopped first: those who wait were told, and there is nothing left to close
        finally:
            await self._release()

    def _abandon(self) -> None:
        """Let go of the file as a crash would: what is not committed is lost. The loop is closed, or about to be."""
        if self._writer is not None:
            self._writer.abandon()
        if self._archive is not None:
            self._archive.close()
        if self._server is not None:
            self._server.close()
        self._close(StoreClosed("the store was abandoned"))

    def _close(self, reason: StoreError) -> None:
        if self._closed is None:
            self._closed = reason
            for log in self._logs.values():
                log.fail(reason)

    async def _release(self) -> None:
        if self._server is not None:
            await self._server.aclose()
            self._server = None
        if self._archive is not None:
            self._archive.close()

    # --- streams --------------------------------------------------------------------------------------------------

    async def submit(self, specs: Sequence[StreamSpec]) -> None:
        await self._submit(specs, claimed=False)

    async def begin(self, spec: StreamSpec) -> Lease:
        await self._submit([spec], claimed=True)
        return Lease(spec.stream_id, self._core.get(spec.stream_id).epoch)

    async def _submit(self, specs: Sequence[StreamSpec], *, claimed: bool) -> None:
        self._check_open()
        ids = {spec.stream_id for spec in specs}
        taken = next((it for it in ids if it in self._core or it in self._submitting), None)
        if taken is not None or len(ids) < len(specs):
            raise StreamExists(f"the stream {taken!r} exists already" if taken else "a stream is submitted twice")
        self._submitting |= ids
        done = self._waiting()
        submit = Submit(specs, self._next_number, self._clock(), done, claimed=claimed)
        self._next_number += len(specs)
        work = self._begun()
        work.changes.append(submit)
        work.submits.append(submit)
        self._grown(work, sum(len(spec.body) for spec in specs))
        await done

    def body(self, stream_id: str) -> bytes:
        found = self._disk.body(stream_id)
        return b"" if found is None else found

    async def claim(self, stream_id: str) -> Lease:
        self._check_open()
        self._check_live(stream_id, "claimed")
        lease = self._core.claim(stream_id)
        self._changed(stream_id)
        claimed = self._waiting()
        self._begun().waiters.append(claimed)
        try:
            await claimed  # an epoch that was forgotten in a crash would be given twice
        except asyncio.CancelledError:
            info = self._core.get(stream_id)
            if self._closed is None and info.state == "running" and info.epoch == lease.epoch:
                self.expire(stream_id)
            raise
        return lease

    def expire(self, stream_id: str) -> None:
        self._check_open()
        self._check_live(stream_id, "expired")
        self._core.expire(stream_id)
        self._changed(stream_id)

    def cancel(self, stream_id: str, reason: str) -> bool:
        self._check_open()
        if stream_id not in self._core:
            self._disk.info(stream_id)
            return False
        first = self._core.cancel(stream_id, reason)
        if first:
            self._changed(stream_id)
        return first

    def append(self, lease: Lease, records: Sequence[Record]) -> int:
        if self._closed is not None:
            self._check_open()
        size = measure(records)
        if lease.stream_id not in self._core:
            self._check_live(lease.stream_id, "appended to")
        first = self._core.append(lease, len(records), size)
        if not records:
            return first
        log = self._logs[lease.stream_id]
        work = self._work if self._urgent else None
        if work is None:
            alone = len(records) == 1 and type(records[0]) is CallStarted
            work = self._begun_leisurely() if alone else self._begun()
        log.add(records, work.at, size)
        work.entries.append((log.number, first, len(records), work.at, records))
        work.shown[log] = log.tail.last
        self._journal_size += size
        if log.is_long:
            log.fold(work)
        if self._journal_size >= _JOURNAL_BYTES:
            self._fold_all(work)
        self._grown(work, size)
        return first

    def finish(self, lease: Lease, records: Sequence[Record]) -> int:
        self._check_open()
        terminal = records[-1]
        assert isinstance(terminal, TERMINALS)
        size = measure(records)
        self._check_live(lease.stream_id, "finished")
        now = self._clock()
        first = self._core.finish(lease, terminal_name(terminal), len(records), size, now)
        log, work = self._logs[lease.stream_id], self._begun()
        log.add(records, work.at, size)
        log.fold(work, final=True)
        work.shown[log] = log.tail.last
        self._grown(work, size)
        return first

    async def room(self) -> None:
        while self.behind:
            self._check_open()
            room = self._waiting()
            self._rooms.append(room)
            await room

    async def settled(self) -> None:
        if self._all_kept:
            return
        self._check_open()
        if self._work is not None or self._in_flight:
            settled = self._waiting()
            self._begun().waiters.append(settled)
            await settled

    # --- reading --------------------------------------------------------------------------------------------------

    def info(self, stream_id: str) -> StreamInfo:
        log = self._logs.get(stream_id)
        return self._disk.info(stream_id)[1] if log is None else log.visible()

    def streams(
        self,
        *,
        plan_id: str | None = None,
        owner: str | None = None,
        states: Collection[StreamState] | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> Sequence[StreamInfo]:
        found = self._disk.streams(plan_id=plan_id, owner=owner, states=states, before=before, limit=limit)
        return [self._logs[info.stream_id].visible() if info.stream_id in self._logs else info for _, info in found]

    def log(self, stream_id: str) -> Log:
        log = self._logs.get(stream_id)
        if log is not None:
            return log
        number, info = self._disk.info(stream_id)
        return StoredLog(number, info, self._disk)

    # --- inside ---------------------------------------------------------------------------------------------------

    @property
    def _disk(self) -> Archive:
        if self._closed is not None or self._archive is None:
            self._check_open()
        assert self._archive is not None
        return self._archive

    def _check_open(self) -> None:
        if self._closed is not None:
            raise type(self._closed)(*self._closed.args)

    def _check_live(self, stream_id: str, what: str) -> None:
        """Only streams that have not ended are in the core."""
        if stream_id not in self._core:
            state = self._disk.info(stream_id)[1].state
            raise Fenced(f"the stream {stream_id!r} cannot be {what}: it is {state}")

    def _waiting(self) -> asyncio.Future[None]:
        assert self._loop is not None
        future: asyncio.Future[None] = self._loop.create_future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _changed(self, stream_id: str) -> None:
        self._begun().changes.append(self._logs[stream_id].progress())

    def _begun(self) -> Work:
        """The work of this turn of the loop; it is handed over when the turn ends."""
        if not self._urgent:
            assert self._loop is not None
            self._urgent = True
            self._loop.call_soon(self._hand_over)
        if self._work is None:
            self._work = Work(int(self._clock() * 1000))
        return self._work

    def _begun_leisurely(self) -> Work:
        """Work that goes with what follows, soon: that a provider is asked is no news worth a commit of its own."""
        if self._work is None:
            assert self._loop is not None
            self._work = Work(int(self._clock() * 1000))
            self._loop.call_later(_LEISURE_SECONDS, self._hand_over)
        return self._work

    def _grown(self, work: Work, size: int) -> None:
        work.size += size
        self._queued += size
        if self._queued > _BEHIND_BYTES:
            self.behind = True

    def _hand_over(self) -> None:
        self._urgent = False
        if self._work is not None and self._writer is not None:
            work, self._work = self._work, None
            self._in_flight += 1
            self._writer.put(work)

    def _fold_all(self, work: Work) -> None:
        for log in self._logs.values():
            if log.unfolded:
                log.fold(work)
        work.changes.append(EmptyJournal())
        self._journal_size = 0

    def _committed(self, works: list[Work]) -> None:
        """In the loop, after each commit: show what was committed, and tell those who wait for it."""
        for work in works:
            self._in_flight -= 1
            self._queued -= work.size
            for submit in work.submits:
                self._submitted(submit)
            for log, last in work.shown.items():
                log.show(last)
                if log.ended:
                    self._ended(log)
            for log, last in work.folded:
                log.folded_through(last)
            for waiter in work.waiters:
                if not waiter.done():
                    waiter.set_result(None)
        if self.behind and self._queued < _BEHIND_BYTES / 2:
            self.behind = False
            rooms, self._rooms = self._rooms, []
            for room in rooms:
                if not room.done():
                    room.set_result(None)

    def _submitted(self, submit: Submit) -> None:
        self._submitting.difference_update(spec.stream_id for spec in submit.specs)
        if submit.refused is None:
            assert self._archive is not None
            infos = self._core.submit(submit.specs, submit.now)
            for number, info in zip(submit.numbers, infos, strict=True):
                self._logs[info.stream_id] = StoredLog(number, info, self._archive)
                if submit.claimed:
                    self._core.claim(info.stream_id)
                    if submit.done.done():  # nobody waits to run it any more
                        self.expire(info.stream_id)
        if submit.done.done():  # nobody waits any more
            return
        if submit.refused is None:
            submit.done.set_result(None)
        else:
            submit.done.set_exception(submit.refused)

    def _ended(self, log: StoredLog) -> None:
        """From now on it is on disk alone; who reads it has the log itself."""
        stream_id = log.info.stream_id
        del self._logs[stream_id]
        self._core.forget(stream_id)
        if self._journal_size and not any(other.unfolded for other in self._logs.values()):
            self._fold_all(self._begun())

    def _stopped(self, reason: StoreError) -> None:
        """In the loop, when the writer has failed: nothing more is kept, and nothing more is shown."""
        self._close(reason)
        for future in list(self._pending):
            if not future.done():
                future.set_exception(type(reason)(*reason.args))
        if self._server is not None and self._loop is not None:
            self._loop.create_task(self._release(), name="a store that has stopped")

    async def _cancel_from_outside(self, stream_id: str, reason: str) -> bool:
        self.info(stream_id)  # raises StreamNotFound
        first = (self.on_cancel or self.cancel)(stream_id, reason)
        await self.settled()
        return first
