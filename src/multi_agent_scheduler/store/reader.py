"""The SQLite store's file as another process sees it, while its owner writes or when nobody does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from ..errors import StoreClosed, StoreError
from ..records import Record
from . import schema
from .archive import Archive
from .base import Batch, Log, Store
from .core import Lease, StreamInfo, StreamSpec, StreamState
from .growing import cut_batches
from .owner import cancel_at_owner, owner_of
from .pack import Stretch

__all__ = ["SQLiteReader"]

_LOOK_SECONDS: Final = 0.05  # how often it is looked whether something was committed


class SQLiteReader(Store):
    """Reads a database file that another process may be writing: lists streams, follows their logs, and asks the owner
    to stop them. Nothing is written; what would write raises StoreError.

    A reader sees what is committed within about 50 ms.
    """

    durable = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._archive: Archive | None = None

    async def open(self) -> None:
        """Raises StoreError if there is no such file, or it cannot be used."""
        if self._archive is None:
            if not schema.check(self.path):
                raise StoreError(f"{self.path}: there is no database of streams yet; something must run with it first")
            self._archive = Archive(self.path)
            ((form,),) = self._archive.query("PRAGMA user_version")
            if form != schema.FORMAT:
                await self.aclose()
                raise StoreError(
                    f"{self.path} has an older form: run something with it once, which brings it up to date"
                )

    async def aclose(self) -> None:
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    # --- reading --------------------------------------------------------------------------------------------------

    @property
    def disk(self) -> Archive:
        """The open file."""
        if self._archive is None:
            raise StoreClosed("the store is closed")
        return self._archive

    def info(self, stream_id: str) -> StreamInfo:
        with self.disk.moment() as archive:
            number, info = archive.info(stream_id)
            return info if info.ended else _with_journal(archive, {number: info})[number]

    def streams(
        self,
        *,
        plan_id: str | None = None,
        owner: str | None = None,
        states: Collection[StreamState] | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> Sequence[StreamInfo]:
        with self.disk.moment() as archive:
            found = archive.streams(plan_id=plan_id, owner=owner, states=states, before=before, limit=limit)
            live = _with_journal(archive, {number: info for number, info in found if not info.ended})
        return [live.get(number, info) for number, info in found]

    def log(self, stream_id: str) -> Log:
        return _ReadLog(self, stream_id, self.disk.info(stream_id)[0])

    def body(self, stream_id: str) -> bytes:
        return self.disk.body(stream_id) or b""

    def cancel(self, stream_id: str, reason: str) -> bool:
        """Have the owner stop a stream. Blocks; raises :class:`~.owner.NoOwner` where no process has the file open."""
        return cancel_at_owner(self.path, stream_id, reason)

    # --- what only the owner does ---------------------------------------------------------------------------------

    async def submit(self, specs: Sequence[StreamSpec]) -> None:  # noqa: ARG002
        raise self._refusal()

    async def claim(self, stream_id: str) -> Lease:  # noqa: ARG002
        raise self._refusal()

    def append(self, lease: Lease, records: Sequence[Record]) -> int:  # noqa: ARG002
        raise self._refusal()

    def finish(self, lease: Lease, records: Sequence[Record]) -> int:  # noqa: ARG002
        raise self._refusal()

    def expire(self, stream_id: str) -> None:  # noqa: ARG002
        raise self._refusal()

    async def room(self) -> None:
        return

    async def settled(self) -> None:
        return

    def _refusal(self) -> StoreError:
        pid = owner_of(self.path)
        owner = "" if pid is None else f"; process {pid} owns it"
        return StoreError(f"{self.path} is open for reading only{owner}")


def _with_journal(archive: Archive, infos: dict[int, StreamInfo]) -> dict[int, StreamInfo]:
    """The same, with the seq that the journal has for streams that have not ended."""
    if not infos:
        return infos
    for (data,) in archive.query("SELECT data FROM journal ORDER BY id"):
        for number, first, count, _, _ in schema.entries(data):
            info = infos.get(number)
            if info is not None:
                info.seq = max(info.seq, first + count - 1)
    return infos


class _ReadLog(Log):
    """A log that is read from disk alone."""

    def __init__(self, store: SQLiteReader, stream_id: str, number: int) -> None:
        self._store = store
        self._stream_id = stream_id
        self._number = number
        self._seen: tuple[int, int] = (0, 0)  # the journal up to this row has nothing behind this seq
        self._version = -1
        self._end: int | None = None  # seq of the terminal, once it is known
        self._watchers: dict[Callable[[], None], asyncio.Task[None]] = {}

    @property
    def ended(self) -> bool:
        if self._end is None:
            info = self._store.disk.info(self._stream_id)[1]
            if info.ended:
                self._end = info.seq
        return self._end is not None

    def read(self, after: int) -> Sequence[Record]:
        found = self._found(after, lambda archive: archive.read(self._number, self._stream_id, after))
        return found if isinstance(found, list) else found.records

    def batches(self, after: int) -> Sequence[Batch]:
        found = self._found(after, lambda archive: archive.stretch(self._number, self._stream_id, after))
        return cut_batches(found) if isinstance(found, Stretch) else ()

    def digest(self) -> Sequence[Record]:
        with self._store.disk.moment() as archive:
            return archive.digest(self._number, self._stream_id)

    def subscribe(self, notify: Callable[[], None]) -> None:
        self._watchers[notify] = asyncio.get_running_loop().create_task(self._watch(notify), name="a log is watched")

    def unsubscribe(self, notify: Callable[[], None]) -> None:
        task = self._watchers.pop(notify, None)
        if task is not None:
            task.cancel()

    async def wait(self, after: int) -> None:
        while not self.read(after) and not self.ended:
            await self._change()

    async def _watch(self, notify: Callable[[], None]) -> None:
        while not self.ended:
            await self._change()
            notify()

    async def _change(self) -> None:
        """Return when something was committed. May return early."""
        while True:
            ((version,),) = self._store.disk.query("PRAGMA data_version")
            if version != self._version:
                self._version = version
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _found(self, after: int, from_blocks: Callable[[Archive], list[Record] | Stretch]) -> list[Record] | Stretch:
        with self._store.disk.moment() as archive:
            info = archive.info(self._stream_id)[1]
            if after < info.seq:
                return from_blocks(archive)
            if info.ended:
                return []
            return self._in_journal(archive, after)

    def _in_journal(self, archive: Archive, after: int) -> Stretch | list[Record]:
        row, seq = self._seen
        records: list[Record] = []
        counts, times = [], []
        for row_id, data in archive.query(
            "SELECT id, data FROM journal WHERE id > ? ORDER BY id", row if after >= seq else 0
        ):
            row = row_id
            for number, first, count, at, raw in schema.entries(data):
                if number == self._number and first + count - 1 > after + len(records):
                    some = schema.records_of(raw)[max(0, after + len(records) + 1 - first) :]
                    records += some
                    counts.append(len(some))
                    times.append(at)
        if not records:
            self._seen = (row, after)
            return []
        return Stretch(records, counts, times)
