"""The contract of every store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from ..records import Record
from .core import Lease, StreamInfo, StreamSpec

__all__ = ["Log", "Store"]


class Log(ABC):
    """What a reader may see of one stream's log: only what is kept for good."""

    @abstractmethod
    def read(self, after: int) -> Sequence[Record]:
        """Some records behind seq ``after``, in order, as many as are at hand; none if there are none yet."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """The terminal can be read."""

    @abstractmethod
    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` in the store's loop whenever there is more to read, until :meth:`unsubscribe`.

        It must not wait, and is not called for what can be read already.
        """

    @abstractmethod
    def unsubscribe(self, notify: Callable[[], None]) -> None:
        """Do not call ``notify`` any more; nothing if it was not subscribed."""

    @abstractmethod
    async def wait(self, after: int) -> None:
        """Return when there is something behind seq ``after``, or the log has ended. May return early."""


class Store(ABC):
    """Streams and their logs.

    ``append`` and ``finish`` return at once, and what they took is shown to readers when it is kept for good; a
    producer that sees :attr:`behind` waits for :meth:`room` before it reads on.
    """

    behind: bool = False
    durable: bool = False
    """Whether streams outlive the process: whoever submits them says what is needed to run them again."""

    @abstractmethod
    async def open(self) -> None:
        """Make ready for use in the running loop; called once, before anything else.

        Streams whose run died with an earlier process are queued again. Raises StoreError if what is kept cannot be
        used; it is left untouched then.
        """

    @abstractmethod
    async def submit(self, specs: Sequence[StreamSpec]) -> None:
        """Accept streams, all or none; when this returns they will not be lost. Raises StoreError and StoreClosed."""

    @abstractmethod
    def body(self, stream_id: str) -> bytes:
        """The body that a stream was submitted with. Raises StreamNotFound."""

    @abstractmethod
    async def claim(self, stream_id: str) -> Lease:
        """Begin to run a queued stream. Raises Fenced if somebody else has it, or it has ended."""

    @abstractmethod
    def append(self, lease: Lease, records: Sequence[Record]) -> int:
        """Add records; gives the seq of the first. Raises Fenced, LogFull and StoreClosed: nothing was added then."""

    @abstractmethod
    def finish(self, lease: Lease, records: Sequence[Record]) -> int:
        """Add the last records, the terminal last of them, and end the stream. Raises Fenced and StoreClosed."""

    @abstractmethod
    async def room(self) -> None:
        """Return when the store has caught up."""

    @abstractmethod
    def cancel(self, stream_id: str, reason: str) -> bool:
        """Remember that a stream is to be stopped; true for the first who asks. Raises StreamNotFound."""

    @abstractmethod
    def info(self, stream_id: str) -> StreamInfo:
        """What is known of a stream. Raises StreamNotFound."""

    @abstractmethod
    def streams(self) -> Sequence[StreamInfo]:
        """All streams, oldest first."""

    @abstractmethod
    def log(self, stream_id: str) -> Log:
        """A stream's log, to be followed. Raises StreamNotFound."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close. What was accepted is kept if the store is durable."""
