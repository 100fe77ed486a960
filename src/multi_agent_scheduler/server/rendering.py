"""A stream rendered once for all its readers.

A log wakes its :class:`Rendering` after each commit. What is new is rendered once, and the same bytes go to every
reader that stands at that place and can take them. One that cannot, because its connection is full, is left behind, and
reads on from the log by itself when it is drained: nothing is queued for it.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Final

from ..errors import AgentError, ErrorInfo, LogTrimmed, StoreError, StreamReset
from ..records import Record
from ..store.base import Log
from ..store.pack import measure
from .face import Renderer

__all__ = ["Reader", "Rendering", "Renderings"]

_log = logging.getLogger(__name__)

_TURN: Final = 256 * 1024  # bytes; whoever has rendered so many lets others have a turn of the loop
_PAGE: Final = 32 * 1024  # bytes of records, and how many records, that are rendered at once: who stalls holds them
_PAGE_RECORDS: Final = 128


class Reader(ABC):
    """One who reads a rendering."""

    __slots__ = ("most", "own", "seq")

    def __init__(self, after: int) -> None:
        self.seq = after
        """The last record that it was shown."""
        self.own: Own | None = None
        """Its own renderer, where it stands at another place than the others."""
        self.most: int | None = None
        """How many records it takes at once; with a number it never reads together with others."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """It can be shown something now."""

    @abstractmethod
    def show(self, records: Sequence[Record], data: bytes) -> None:
        """Take the records behind ``seq``, and their bytes. Called only while it is ready; must not wait or raise."""

    @abstractmethod
    def break_off(self, error: ErrorInfo) -> None:
        """There will be no more, though the stream has not ended for this reader. Must not wait or raise."""


class Own:
    """A renderer for one reader alone. It stands at ``seq``, which may be before the reader's place."""

    __slots__ = ("ahead", "lasting", "renderer", "seq")

    def __init__(self, renderer: Renderer, reader: Reader) -> None:
        self.renderer = renderer
        self.seq = 0 if renderer.stateful else reader.seq
        self.ahead: Sequence[Record] = ()
        """Records that were read with those before them, and are not rendered yet."""
        self.lasting = reader.most is not None or (renderer.stateful and reader.seq > 0)
        """The reader keeps it: it goes its own way, or the renderer had to be fed all of the log before this place."""


class Rendering:
    """One stream in one spelling, and those who read it so. ``unused`` is called when the last of them has left."""

    def __init__(self, log: Log, make: Callable[[], Renderer], *, after: int, unused: Callable[[], None]) -> None:
        self._log = log
        self._make = make
        self._unused = unused
        self._renderer = make()
        self._seq = 0 if self._renderer.stateful else after
        self._readers: dict[Reader, None] = {}  # in the order in which they are due
        self._later: asyncio.Handle | None = None

    def join(self, reader: Reader) -> None:
        """Show this reader everything behind its ``seq``, what is there and what comes, until it leaves."""
        if reader.most is not None:
            reader.own = Own(self._make(), reader)
        self._readers[reader] = None
        if len(self._readers) == 1:
            self._log.subscribe(self.grew)
        self.grew()

    def leave(self, reader: Reader) -> None:
        """Show it no more."""
        if reader not in self._readers:
            return
        del self._readers[reader]
        if not self._readers:
            self._log.unsubscribe(self.grew)
            if self._later is not None:
                self._later.cancel()
            self._unused()

    def renderer_of(self, reader: Reader) -> Renderer:
        """The renderer that stands where this reader stands, or near it: it has fallen behind."""
        return self._renderer if reader.own is None else reader.own.renderer

    def grew(self) -> None:
        """There may be more to read, or a reader may be ready again: show them what there is. Never raises."""
        try:
            seq, alone = self._seq, False
            for reader in self._readers:
                if reader.own is not None or reader.seq != seq:
                    alone = True
            if alone and self._later is None:  # else they have their turn soon
                self._read_each(seq)
            self._read_together()
        except Exception as error:  # noqa: BLE001 - who wakes us must not suffer for it, and readers must not hang
            info = _failure(error)
            for reader in tuple(self._readers):
                reader.break_off(info)

    def _read_together(self) -> None:
        fed = 0
        ahead: Sequence[Record] = ()  # it is not kept for who takes no more: it would be a block for each of them
        while fed < _TURN:
            seq = self._seq
            readers = [reader for reader in self._readers if reader.ready and reader.own is None and reader.seq == seq]
            if not readers:
                return
            ahead = ahead or self._log.read(seq)
            if not ahead:
                return
            records, ahead = _page(ahead)
            data = self._renderer.feed(seq + 1, records)
            self._seq = seq + len(records)
            for reader in readers:
                reader.show(records, data)
            fed += len(data) * len(readers)
        self._go_on_later()

    def _read_each(self, seq: int) -> None:
        """Those who stand elsewhere than ``seq`` read on, each for itself; all together no more than is rendered
        in a turn. Who had one is due again behind the others."""
        fed = 0
        for reader in tuple(self._readers):
            if reader.ready and (reader.own is not None or reader.seq != seq):
                fed += self._read_alone(reader, _TURN - fed)
                if reader in self._readers:
                    del self._readers[reader]
                    self._readers[reader] = None
                if fed >= _TURN:
                    self._go_on_later()
                    return

    def _read_alone(self, reader: Reader, most: int) -> int:
        """Show a reader what it has not seen, until that is ``most`` bytes; gives how many it was."""
        own = reader.own
        if own is None:
            own = reader.own = Own(self._make(), reader)
        fed = 0
        while reader.ready and fed < most:
            records = own.ahead or self._log.read(own.seq)
            if not records:
                break
            missing = reader.seq - own.seq  # what it was shown before: the renderer alone needs it
            records, own.ahead = _page(records, missing if missing > 0 else reader.most)
            data = own.renderer.feed(own.seq + 1, records)
            own.seq += len(records)
            if missing <= 0:
                reader.show(records, data)
            fed += len(data)
        own.ahead = () if reader.most is None else own.ahead[:_PAGE_RECORDS]  # else each slow reader holds a block
        if fed < most and own.seq == reader.seq and not own.lasting:
            self._rejoin(reader, own)
        return fed

    def _rejoin(self, reader: Reader, own: Own) -> None:
        """It has caught up: it goes on with the others, or they with it if there are none."""
        if own.seq != self._seq and all(other.own is not None for other in self._readers):
            self._renderer, self._seq = own.renderer, own.seq
        if own.seq == self._seq:
            reader.own = None

    def _go_on_later(self) -> None:
        if self._later is None:
            self._later = asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._later = None
        self.grew()


def _page(records: Sequence[Record], most: int | None = None) -> tuple[Sequence[Record], Sequence[Record]]:
    """The first records, as many as are rendered at once but no more than ``most``, and the others."""
    count = min(len(records), most or _PAGE_RECORDS, _PAGE_RECORDS)
    while count > 1 and measure(records[:count]) > _PAGE:
        count //= 2
    return records[:count], records[count:]


def _failure(error: Exception) -> ErrorInfo:
    """Why a stream cannot be shown any further."""
    if isinstance(error, AgentError):
        return error.info
    if isinstance(error, StreamReset):
        return ErrorInfo("stream_reset", str(error), retryable=True)
    if isinstance(error, LogTrimmed):
        return ErrorInfo("not_found_error", str(error), status=410)
    if isinstance(error, StoreError):
        return ErrorInfo("interrupted", "the rest of the stream cannot be read at the moment", retryable=True)
    _log.error("a stream could not be rendered", exc_info=error)
    return ErrorInfo("internal_error", "this is a bug of the server: its log has the details")


class Renderings:
    """The renderings that somebody reads."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Rendering] = {}

    def of(self, key: Hashable, log: Callable[[], Log], make: Callable[[], Renderer], *, after: int = 0) -> Rendering:
        """The rendering of this key (a stream, a face, and whatever makes its bytes differ), made if need be."""
        found = self._known.get(key)
        if found is None:
            found = Rendering(log(), make, after=after, unused=lambda: self._forget(key))
            self._known[key] = found
        return found

    def _forget(self, key: Hashable) -> None:
        self._known.pop(key, None)
