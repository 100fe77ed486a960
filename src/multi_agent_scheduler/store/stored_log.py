"""One log of the SQLite store, as its owner has it: the newest records in memory, everything else on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..records import Record
from .archive import Archive
from .base import Batch
from .changes import Fold, Progress
from .core import StreamInfo
from .growing import GrowingLog, Tail, cut_batches
from .writer import Work

__all__ = ["StoredLog"]

_FOLD_RECORDS: Final = 512  # a log's tail goes into a block when it has so many records,
_FOLD_BYTES: Final = 64 * 1024  # or so many bytes
_MERGE_RECORDS: Final = 4096  # small blocks become a larger one when they have so many records,
_MERGE_BYTES: Final = 128 * 1024  # or so many bytes


class StoredLog(GrowingLog):
    """A log: its newest records in memory while it grows, everything else on disk."""

    __slots__ = (
        "_archive",
        "_fragments",
        "_in_blocks",
        "_merged",
        "_shown",
        "info",
        "number",
        "tail",
        "unfolded",
        "unfolded_size",
    )

    def __init__(self, number: int, info: StreamInfo, archive: Archive) -> None:
        super().__init__()
        self.number = number
        self.info = info  # the core's own while the stream lives
        self.tail = Tail(info.seq)
        self.unfolded = 0  # records of the tail for which there is no block yet
        self.unfolded_size = 0
        self._shown = info.seq
        self._in_blocks = (info.seq, info.size)
        self._archive = archive
        # What came in small blocks since the last large one: from which seq, how many bytes.
        self._merged = info.seq
        self._fragments = 0

    @property
    def is_long(self) -> bool:
        """The tail is to go into a block."""
        return self.unfolded >= _FOLD_RECORDS or self.unfolded_size >= _FOLD_BYTES

    # --- growing --------------------------------------------------------------------------------------------------

    def add(self, records: Sequence[Record], at: int, size: int) -> None:
        """Records that are not to be shown yet."""
        self.tail.add(records, at)
        self.unfolded += len(records)
        self.unfolded_size += size

    def restore(self, records: Sequence[Record], at: int, size: int) -> None:
        """Records from the journal of an earlier process."""
        self.add(records, at, size)
        self._shown = self.tail.last

    def fold(self, work: Work, *, final: bool = False) -> None:
        """Put into blocks what is in none yet, and make larger ones of small ones when it is time, or at the end."""
        last = self.tail.last
        after = last - self.unfolded
        stretch = self.tail.stretch(after, last)
        assert stretch is not None
        self._fragments += self.unfolded_size
        merge = final or last - self._merged >= _MERGE_RECORDS or self._fragments >= _MERGE_BYTES
        work.changes.append(Fold(self.number, after, stretch, self.unfolded_size, self._merged if merge else None))
        self._in_blocks = (last, self.info.size)
        work.changes.append(self.progress())
        work.folded.append((self, last))
        self.unfolded = self.unfolded_size = 0
        if merge:
            self._merged, self._fragments = last, 0

    def progress(self) -> Progress:
        """Where the stream has got to."""
        return Progress(self.number, self.info, *self._in_blocks)

    def show(self, last: int) -> None:
        """Everything up to ``last`` is kept for good."""
        self._shown = last
        self.wake()

    def folded_through(self, last: int) -> None:
        """Everything up to ``last`` can be read from blocks."""
        if not self.ended:  # at the end the tail stays for those who are about to read it
            self.tail.drop(last)

    # --- reading --------------------------------------------------------------------------------------------------

    @property
    def shown(self) -> int:
        return self._shown

    @property
    def ended(self) -> bool:
        return self.info.ended and self._shown >= self.info.seq

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
        found = self.tail.since(after, self._shown)
        return self._archive.read(self.number, self.info.stream_id, after) if found is None else found

    def digest(self) -> Sequence[Record]:
        return self._archive.digest(self.number, self.info.stream_id)

    def batches(self, after: int) -> Sequence[Batch]:
        if after >= self._shown:
            self.read(after)  # raises what there is to raise
            return ()
        found = self.tail.stretch(after, self._shown)
        if found is None:
            found = self._archive.stretch(self.number, self.info.stream_id, after)
        return cut_batches(found)
