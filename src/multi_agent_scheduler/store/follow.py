"""Reading a stream's log from a cursor, while it grows and after it has ended. Every reader reads through this."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import CursorError
from ..records import Record
from .base import Store, trimmed

__all__ = ["Follower"]


class Follower:
    """Where one reader stands in a stream. Its leaving changes nothing for anybody else."""

    __slots__ = ("_log", "seq")

    def __init__(self, store: Store, stream_id: str, after: int | None = None) -> None:
        """Start behind seq ``after``.

        Raises StreamNotFound, CursorError for a cursor that cannot be, and LogTrimmed where the records behind it were
        trimmed away.
        """
        info = store.info(stream_id)
        seq = 0 if after is None else after
        if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq <= info.seq:
            raise CursorError(f"the cursor {after!r} is not in the stream {stream_id!r}, which reaches {info.seq}")
        if info.trimmed and seq < info.seq:
            raise trimmed(stream_id)
        self._log = store.log(stream_id)
        self.seq = seq

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` whenever there may be more at hand; see :meth:`Log.subscribe`."""
        self._log.subscribe(notify)

    def unsubscribe(self, notify: Callable[[], None]) -> None:
        """Do not call ``notify`` any more."""
        self._log.unsubscribe(notify)

    def at_hand(self) -> Sequence[Record]:
        """What :meth:`next` would give, if there is anything now; none means: not yet, or the end."""
        records = self._log.read(self.seq)
        self.seq += len(records)
        return records

    async def next(self) -> Sequence[Record]:
        """The next records, at least one, as soon as there are any; none at all behind the terminal.

        They are not numbered: the first has seq ``self.seq + 1`` as it stood before the call. Raises what
        :class:`Log` raises.
        """
        log = self._log
        while True:
            records = log.read(self.seq)
            if records:
                self.seq += len(records)
                return records
            if log.ended:
                return ()
            await log.wait(self.seq)
