"""The contract of every store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from ..errors import LogTrimmed
from ..records import Record
from .core import Lease, StreamInfo, StreamSpec, StreamState

__all__ = ["FRESH_SECONDS", "Batch", "Log", "Store", "trimmed"]

FRESH_SECONDS: Final = 600
"""A log that ended more recently is not trimmed for its size: who lost the connection comes back for it."""


class Batch(NamedTuple):
    """Records that came together; ``at`` is when, in seconds since 1970 (UTC), to the millisecond."""

    at: float
    records: Sequence[Record]


def trimmed(stream_id: str) -> LogTrimmed:
    """The error of whoever reads where a log was trimmed."""
    return LogTrimmed(
        f"the log of the stream {stream_id!r} was trimmed: its records are gone, but its snapshot still has the answer"
    )


class Log(ABC):
    """What a reader may see of one stream's log: only what is kept for good.

    Reading raises StreamNotFound where the stream has been removed meanwhile (nothing of what was read is void),
    LogTrimmed where there were records behind the cursor and they have been trimmed away, and StoreClosed where the
    store was closed or has stopped and the rest cannot be read any more.
    """

    __slots__ = ()

    @abstractmethod
    def read(self, after: int) -> Sequence[Record]:
        """Some records behind seq ``after``, in order, as many as are at hand; none if there are none yet."""

    @abstractmethod
    def batches(self, after: int) -> Sequence[Batch]:
        """The same records in the batches in which they came, each with its time.

        A batch of which ``after`` is in the middle is cut; a very large one may come as several of the same time.
        """

    def digest(self) -> Sequence[Record]:
        """What is left of a log that was trimmed (:func:`~multi_agent_scheduler.views.digest.digest`); nothing of one
        that was not. Raises StreamNotFound."""
        return ()

    def whole(self) -> Sequence[Record]:
        """All records that are shown now; of a log that was trimmed its digest, which says the same of the answer."""
        records: list[Record] = []
        try:
            while some := self.read(len(records)):
                records += some
        except LogTrimmed:
            return self.digest()
        return records

    @property
    @abstractmethod
    def ended(self) -> bool:
        """The terminal can be read."""

    @abstractmethod
    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` in the store's loop whenever there is more to read, until :meth:`unsubscribe`.

        Also when the store stops, so that the next read raises. It must not wait, and is not called for what can be
        read already.
        """

    @abstractmethod
    def unsubscribe(self, notify: Callable[[], None]) -> None:
        """Do not call ``notify`` any more; nothing if it was not subscribed."""

    @abstractmethod
    async def wait(self, after: int) -> None:
        """Return when there is something behind seq ``after``, or the log has ended. May return early.

        Raises StoreClosed once nothing more will come because the store was closed or has stopped.
        """


class Store(ABC):
    """Streams and their logs.

    ``append`` and ``finish`` return at once, and what they took is shown to readers when it is kept for good; a
    producer that sees :attr:`behind` waits for :meth:`room` before it reads on. What is kept is always a prefix of what
    was done: nothing is kept without all that was done before it.

    A durable store that cannot write any more stops: everything raises StoreClosed with the reason, those who wait get
    it too, and what was not kept is never shown.
    """

    behind: bool = False
    durable: bool = False
    """Whether streams outlive the process: whoever submits them says what is needed to run them again."""

    on_cancel: Callable[[str, str], bool] | None = None
    """Called in the store's loop with (stream id, reason) when another process asks to stop a stream; whoever runs
    streams sets it, stops the run, and says whether this was the first to ask. Without it the stop is remembered."""

    @abstractmethod
    async def open(self) -> None:
        """Make ready for use in the running loop; before anything else, and again in a later loop.

        Streams whose run died with an earlier process or loop are queued again. Raises StoreError if what is kept
        cannot be used; it is left untouched then.
        """

    @abstractmethod
    async def submit(self, specs: Sequence[StreamSpec]) -> None:
        """Accept streams, all or none; when this returns they will not be lost.

        Raises StreamExists for an id that is taken, StoreError and StoreClosed.
        """

    @abstractmethod
    def body(self, stream_id: str) -> bytes:
        """The body that a stream was submitted with; empty once it has ended. Raises StreamNotFound."""

    @abstractmethod
    async def claim(self, stream_id: str) -> Lease:
        """Begin to run a queued stream. Raises Fenced if somebody else has it, or it has ended, and StoreClosed.

        The lease's epoch is later than every one that was given before, in earlier processes, too.
        """

    async def begin(self, spec: StreamSpec) -> Lease:
        """Accept a stream and begin to run it: :meth:`submit` and :meth:`claim`, in one step where a store can do that.

        Raises as they do. Where the one who waits is cancelled the stream may have been accepted; it is queued then.
        """
        await self.submit([spec])
        return await self.claim(spec.stream_id)

    @abstractmethod
    def append(self, lease: Lease, records: Sequence[Record]) -> int:
        """Add records; gives the seq of the first. Raises Fenced, LogFull and StoreClosed: nothing was added then.

        Raises ValueError, TypeError or OverflowError for a record that cannot be kept, because it has something in it
        that is no plain data.
        """

    @abstractmethod
    def finish(self, lease: Lease, records: Sequence[Record]) -> int:
        """Add the last records, the terminal last of them, and end the stream. Raises as :meth:`append`, no LogFull."""

    @abstractmethod
    def expire(self, stream_id: str) -> None:
        """The holder of a stream's lease is gone: fence it off and queue the stream again. Raises Fenced if it is not
        running."""

    @abstractmethod
    async def room(self) -> None:
        """Return when the store has caught up."""

    @abstractmethod
    async def settled(self) -> None:
        """Return when everything that was done until now is kept for good; at once if the store was closed in order.

        Raises StoreClosed if it never will be.
        """

    @abstractmethod
    def cancel(self, stream_id: str, reason: str) -> bool:
        """Remember that a stream is to be stopped; true for the first who asks. Raises StreamNotFound."""

    @abstractmethod
    def info(self, stream_id: str) -> StreamInfo:
        """What is known of a stream; its state and its seq are those that a reader may see. Raises StreamNotFound."""

    @abstractmethod
    def streams(
        self,
        *,
        plan_id: str | None = None,
        owner: str | None = None,
        states: Collection[StreamState] | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> Sequence[StreamInfo]:
        """All streams, oldest first: of one plan, one owner, in some states, if asked so.

        With ``limit``, of those only the newest. ``before`` is a stream id: only those older than it, which is the page
        before; raises StreamNotFound if it is unknown.
        """

    @abstractmethod
    def log(self, stream_id: str) -> Log:
        """A stream's log, to be followed. Raises StreamNotFound."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close. What was accepted is kept if the store is durable; readers that wait for more get StoreClosed."""
