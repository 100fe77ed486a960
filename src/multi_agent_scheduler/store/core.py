"""The pure control state of a store: which streams there are, who may append to them, and how they ended.

No clock, no asyncio, no bytes: a transition is a method call that either happens whole or raises and changes nothing.

======== ======================= ==========================================================
from     transition              to
======== ======================= ==========================================================
(none)   submit                  queued
queued   claim                   running, with the next epoch
queued   cancel                  queued, with the stop remembered
running  append (live epoch)     running
running  cancel                  running, with the stop remembered
running  expire                  queued: its epoch may append no more, the next claim goes on
running  finish (live epoch)     completed | failed | cancelled | interrupted | skipped
any end  trim                    the same: its records are gone, a digest of them stays
any end  forget                  (none)
======== ======================= ==========================================================

A stop never ends a stream by itself: whoever holds the lease writes the terminal, so that there is exactly one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, TypeAlias

import msgspec

from ..errors import LogFull, StoreError, StreamExists, StreamNotFound
from ..task import State

__all__ = ["Core", "Fenced", "Lease", "StreamInfo", "StreamSpec", "StreamState"]

StreamState: TypeAlias = Literal["queued", "running"] | State


class Fenced(StoreError):
    """An append or a finish by somebody whose lease is not the live one any more. Nothing was written."""


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The right to append to a stream; at most one epoch of a stream is live."""

    stream_id: str
    epoch: int


class StreamSpec(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A stream to be accepted. ``body`` is what its runner needs to run it, now or after a crash; the store keeps it.

    ``plan_id`` is the same for the streams of one plan; ``owner`` is whose stream it is ("" is nobody's in particular).
    """

    stream_id: str
    task_id: str
    plan_id: str | None = None
    owner: str = ""
    body: bytes = b""


class StreamInfo(msgspec.Struct, gc=False):
    """What the store knows of a stream, beside its log. ``seq`` is that of its last record, ``size`` in bytes.

    ``created`` and ``ended_at`` are seconds since 1970 (UTC).
    """

    stream_id: str
    task_id: str
    plan_id: str | None = None
    owner: str = ""
    state: StreamState = "queued"
    epoch: int = 0
    seq: int = 0
    size: int = 0
    stop_reason: str | None = None
    """Why somebody asked to stop it; None if nobody did."""
    created: float = 0.0
    ended_at: float | None = None
    trimmed: bool = False
    """Its records are gone; a digest of them stays, and ``size`` is that of the digest."""

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

    def __contains__(self, stream_id: str) -> bool:
        return stream_id in self._streams

    def get(self, stream_id: str) -> StreamInfo:
        """Raises :class:`StreamNotFound`."""
        info = self._streams.get(stream_id)
        if info is None:
            raise StreamNotFound(f"there is no stream {stream_id!r}")
        return info

    def submit(self, specs: Sequence[StreamSpec], now: float) -> list[StreamInfo]:
        """New streams, queued: all of them, or none. Raises :class:`StreamExists` if an id is taken."""
        ids = {spec.stream_id for spec in specs}
        taken = next((spec.stream_id for spec in specs if spec.stream_id in self._streams), None)
        if taken is not None or len(ids) < len(specs):
            raise StreamExists(f"the stream {taken!r} exists already" if taken else "a stream is submitted twice")
        infos = [StreamInfo(spec.stream_id, spec.task_id, spec.plan_id, spec.owner, created=now) for spec in specs]
        self._streams.update((info.stream_id, info) for info in infos)
        return infos

    def newest(
        self,
        *,
        plan_id: str | None = None,
        owner: str | None = None,
        states: Collection[StreamState] | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> list[StreamInfo]:
        """The newest streams that fit, at most ``limit``, oldest first; see :meth:`Store.streams`."""
        passed = before is None or self.get(before) is None
        found: list[StreamInfo] = []
        for info in reversed(self._streams.values()):
            if limit is not None and len(found) >= limit:
                break
            if not passed:
                passed = info.stream_id == before
            elif (
                (plan_id is None or info.plan_id == plan_id)
                and (owner is None or info.owner == owner)
                and (states is None or info.state in states)
            ):
                found.append(info)
        found.reverse()
        return found

    def restore(self, info: StreamInfo) -> None:
        """Put back a stream that was read from where it was kept."""
        self._streams[info.stream_id] = info

    def restore_records(self, info: StreamInfo, count: int, size: int) -> None:
        """Count records of a restored stream that its info did not have."""
        self._take(info, count, size)

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

    def expire(self, stream_id: str) -> None:
        """The lease's holder is gone: the stream may be claimed again. Raises :class:`Fenced` if it is not running."""
        info = self.get(stream_id)
        if info.state != "running":
            raise Fenced(f"the stream {stream_id!r} has no lease to expire: it is {info.state}")
        info.state = "queued"

    def finish(self, lease: Lease, state: State, count: int, size: int, now: float) -> int:
        """Take the last batch and end the stream; gives the seq of the batch's first record. Raises Fenced."""
        info = self._held(lease)
        info.state = state
        info.ended_at = now
        return self._take(info, count, size)

    def cancel(self, stream_id: str, reason: str) -> bool:
        """Ask to stop a stream; true if this is the first to ask and it has not ended."""
        info = self.get(stream_id)
        if info.ended or info.stop_reason is not None:
            return False
        info.stop_reason = reason
        return True

    def trim(self, stream_id: str, size: int) -> None:
        """The log of a stream that has ended gives way to a digest of ``size`` bytes. Raises :class:`StoreError` if it
        has not ended."""
        info = self._over(stream_id, "trimmed")
        info.trimmed, info.size = True, size

    def forget(self, stream_id: str) -> None:
        """Drop a stream that has ended. Raises :class:`StoreError` if it has not."""
        self._over(stream_id, "dropped")
        del self._streams[stream_id]

    def _over(self, stream_id: str, what: str) -> StreamInfo:
        info = self.get(stream_id)
        if not info.ended:
            raise StoreError(f"the stream {stream_id!r} cannot be {what}: it is {info.state}")
        return info

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
