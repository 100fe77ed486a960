"""The pure control state of a store: which streams there are, who may append to them, and how they ended.

No clock, no asyncio, no bytes: a transition is a method call that either happens whole or raises and changes nothing.

======== ======================= ==========================================
from     transition              to
======== ======================= ==========================================
(none)   submit                  queued
queued   claim                   running, with the next epoch
queued   cancel                  cancelled (the caller writes the terminal)
running  append (live epoch)     running
running  cancel                  running, with the stop remembered
running  finish (live epoch)     completed | failed | cancelled | interrupted
any end  (nothing)
======== ======================= ==========================================
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from ..errors import LogFull, StoreError, StreamNotFound
from ..task import State

__all__ = ["Core", "Fenced", "Lease", "StreamInfo", "StreamState"]

StreamState: TypeAlias = Literal["queued", "running"] | State


class Fenced(StoreError):
    """An append or a finish by somebody whose lease is not the live one any more. Nothing was written."""


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The right to append to a stream; at most one epoch of a stream is live."""

    stream_id: str
    epoch: int


class StreamInfo(msgspec.Struct):
    """What the store knows of a stream, beside its log. ``seq`` is that of its last record, ``size`` in bytes."""

    stream_id: str
    task_id: str
    state: StreamState = "queued"
    epoch: int = 0
    seq: int = 0
    size: int = 0
    stop_reason: str | None = None
    """Why somebody asked to stop it; None if nobody did."""

    @property
    def ended(self) -> bool:
        """The log has its terminal; nothing will be appended."""
        return self.state != "queued" and self.state != "running"


class Core:
    """The control state. ``max_log_bytes`` caps each log; the last batch of a stream is always taken."""

    def __init__(self, *, max_log_bytes: int) -> None:
        self._streams: dict[str, StreamInfo] = {}
        self._max_log_bytes = max_log_bytes

    def __iter__(self) -> Iterator[StreamInfo]:
        return iter(self._streams.values())

    def get(self, stream_id: str) -> StreamInfo:
        """Raises :class:`StreamNotFound`."""
        info = self._streams.get(stream_id)
        if info is None:
            raise StreamNotFound(f"there is no stream {stream_id!r}")
        return info

    def submit(self, stream_id: str, task_id: str) -> StreamInfo:
        """A new stream, queued. Raises :class:`StoreError` if the id is taken."""
        if stream_id in self._streams:
            raise StoreError(f"the stream {stream_id!r} exists already")
        info = self._streams[stream_id] = StreamInfo(stream_id, task_id)
        return info

    def claim(self, stream_id: str) -> Lease:
        """Start to run a queued stream. Raises :class:`Fenced` if it is not queued."""
        info = self.get(stream_id)
        if info.state != "queued":
            raise Fenced(f"the stream {stream_id!r} cannot be claimed: it is {info.state}")
        info.state = "running"
        info.epoch += 1
        return Lease(stream_id, info.epoch)

    def append(self, lease: Lease, count: int, size: int) -> int:
        """Take ``count`` records of ``size`` bytes; gives the seq of the first. Raises Fenced and LogFull."""
        info = self._held(lease)
        if info.size + size > self._max_log_bytes:
            raise LogFull(f"the log of the stream {lease.stream_id!r} reached its cap of {self._max_log_bytes} bytes")
        return self._take(info, count, size)

    def finish(self, lease: Lease, state: State, count: int, size: int) -> int:
        """Take the last batch and end the stream; gives the seq of the batch's first record. Raises Fenced."""
        info = self._held(lease)
        info.state = state
        return self._take(info, count, size)

    def cancel(self, stream_id: str, reason: str) -> bool:
        """Ask to stop a stream; true if this is the first to ask and it has not ended."""
        info = self.get(stream_id)
        if info.ended or info.stop_reason is not None:
            return False
        info.stop_reason = reason
        return True

    def forget(self, stream_id: str) -> None:
        """Drop a stream that has ended. Raises :class:`StoreError` if it has not."""
        info = self.get(stream_id)
        if not info.ended:
            raise StoreError(f"the stream {stream_id!r} cannot be dropped: it is {info.state}")
        del self._streams[stream_id]

    def _held(self, lease: Lease) -> StreamInfo:
        info = self.get(lease.stream_id)
        if info.state != "running" or info.epoch != lease.epoch:
            raise Fenced(
                f"the lease of epoch {lease.epoch} on the stream {lease.stream_id!r} is not live: "
                f"the stream is {info.state}, its epoch {info.epoch}"
            )
        return info

    def _take(self, info: StreamInfo, count: int, size: int) -> int:
        first = info.seq + 1
        info.seq += count
        info.size += size
        return first
