"""What the logs of this process have in common: the newest records in memory, and readers that wait for more."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence

from ..errors import StoreError
from ..records import Record
from .base import Batch, Log
from .pack import Stretch

__all__ = ["GrowingLog", "Tail", "cut_batches"]


class Tail:
    """The newest records of a log, in the batches in which they came, up to seq ``last``."""

    __slots__ = ("counts", "last", "records", "times")

    def __init__(self, last: int = 0) -> None:
        self.last = last
        self.records: list[Record] = []
        self.counts: list[int] = []
        self.times: list[int] = []  # milliseconds

    def add(self, records: Sequence[Record], time: int) -> None:
        """One batch more; ``time`` in milliseconds."""
        self.records += records
        self.counts.append(len(records))
        self.times.append(time)
        self.last += len(records)

    def since(self, after: int, up_to: int) -> list[Record] | None:
        """The records behind ``after``, up to ``up_to``; None if some of them are not here any more."""
        records = self.records
        before = self.last - len(records)
        if after < before:
            return None
        return records[after - before : up_to - before]

    def stretch(self, after: int, up_to: int) -> Stretch | None:
        """The same with the batches; a batch at either end may be cut."""
        records = self.since(after, up_to)
        if records is None:
            return None
        skip = after - (self.last - len(self.records))
        counts, times, left = [], [], len(records)
        for count, time in zip(self.counts, self.times, strict=True):
            if skip >= count:
                skip -= count
                continue
            if not left:
                break
            count = min(count - skip, left)
            counts.append(count)
            times.append(time)
            left -= count
            skip = 0
        return Stretch(records, counts, times)

    def drop(self, up_to: int) -> None:
        """Forget whole batches that end at or before seq ``up_to``."""
        count = up_to - (self.last - len(self.records))
        batches = dropped = 0
        for size in self.counts:
            if dropped + size > count:
                break
            dropped += size
            batches += 1
        if batches:
            del self.records[:dropped], self.counts[:batches], self.times[:batches]


def cut_batches(stretch: Stretch, skip: int = 0) -> list[Batch]:
    """The batches of a stretch, without its first ``skip`` records."""
    batches = []
    position = 0
    for count, time in zip(stretch.counts, stretch.times, strict=True):
        start, position = max(position, skip), position + count
        if start < position:
            batches.append(Batch(time / 1000, stretch.records[start:position]))
    return batches


class GrowingLog(Log):
    """A log with readers that wait for it to grow."""

    __slots__ = ("_listeners", "_waiters", "failure")

    def __init__(self) -> None:
        self.failure: StoreError | None = None
        """Why nothing more will come, though the log has not ended."""
        self._waiters: list[asyncio.Future[None]] = []
        self._listeners: tuple[Callable[[], None], ...] = ()

    @property
    @abstractmethod
    def shown(self) -> int:
        """The seq of the last record that can be read."""

    def subscribe(self, notify: Callable[[], None]) -> None:
        self._listeners = (*self._listeners, notify)

    def unsubscribe(self, notify: Callable[[], None]) -> None:
        self._listeners = tuple(other for other in self._listeners if other != notify)

    async def wait(self, after: int) -> None:
        if self.shown > after or self.ended:
            return
        self.check()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if not waiter.done() or waiter.cancelled():
                self._waiters = [other for other in self._waiters if other is not waiter]

    def wake(self) -> None:
        """There is more to read."""
        waiters = self._waiters
        if waiters:
            self._waiters = []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        for notify in self._listeners:
            notify()

    def fail(self, failure: StoreError) -> None:
        """Nothing more will come: those who wait for it are told why."""
        if not self.ended:
            self.failure = failure
            self.wake()

    def check(self) -> None:
        """Raise the failure, if there is one."""
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args)
