"""Reading what a store holds. Every look-up of a stream by its id goes through :meth:`Reading.find`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Final

import msgspec

from .errors import ErrorInfo, LogTrimmed, StreamNotFound
from .pacing import Pace, paced
from .records import Record, StopReason, Usage, numbered
from .store.base import Log, Store
from .store.core import StreamInfo, StreamState
from .store.follow import Follower
from .task import Result, ToolCallResult
from .views.summary import Summary

__all__ = ["Reading", "Snapshot"]

_PAGE: Final = 20_000
"""Records of a log that are folded before others have their turn: a few milliseconds."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as it stands: what its records up to ``seq`` say. The rest is as in a
    :class:`~multi_agent_scheduler.task.Result`.

    ``state`` is ``queued``, ``running``, or the terminal's name. ``success`` and ``error`` are None until it has ended,
    and ``error`` is None for a success. ``created`` and ``ended_at`` are seconds since 1970 (UTC).
    """

    stream_id: str
    task_id: str
    plan_id: str | None
    owner: str
    state: StreamState
    seq: int
    created: float
    ended_at: float | None
    text: str
    success: bool | None
    error: ErrorInfo | None
    stop_reason: StopReason | None
    reasoning: str
    refusal: str
    tool_calls: tuple[ToolCallResult, ...]
    usage: Usage | None
    agent: str | None
    model: str | None
    cached: bool


class Reading:
    """The readers of a store's streams. ``owner`` None is everybody's; with an owner, what belongs to another is not
    there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, stream_id: str, owner: str | None) -> StreamInfo:
        """Raises StreamNotFound, in the same words for a stream that is another's as for one that is nobody's."""
        info = self._store.info(stream_id)
        if owner is not None and info.owner != owner:
            raise StreamNotFound(f"there is no stream {stream_id!r}")
        return info

    def streams(
        self,
        *,
        owner: str | None,
        plan_id: str | None,
        states: Collection[StreamState] | None,
        before: str | None,
        limit: int | None,
    ) -> Sequence[StreamInfo]:
        """The newest streams that fit, oldest first; see :meth:`Store.streams`."""
        if before is not None:
            self.find(before, owner)
        return self._store.streams(owner=owner, plan_id=plan_id, states=states, before=before, limit=limit)

    def log(self, stream_id: str, owner: str | None) -> Log:
        """For a reader that subscribes to it itself."""
        self.find(stream_id, owner)
        return self._store.log(stream_id)

    def follow(
        self, stream_id: str, after: int | None, owner: str | None, pace: Pace | str | float | None
    ) -> AsyncGenerator[Record, None]:
        """The records behind seq ``after``, up to the terminal."""
        records = self._follow(stream_id, after, owner)
        return records if pace is None else paced(records, pace)

    async def _follow(self, stream_id: str, after: int | None, owner: str | None) -> AsyncGenerator[Record, None]:
        self.find(stream_id, owner)
        follower = Follower(self._store, stream_id, after)
        while True:
            first = follower.seq + 1
            records = await follower.next()
            if not records:
                return
            for record in numbered(records, first):
                yield record

    def whole(self, info: StreamInfo) -> Sequence[Record]:
        """All records that are shown now, or what is left of a log that was trimmed; see :meth:`Log.whole`."""
        return self._store.log(info.stream_id).whole()

    async def snapshot(self, stream_id: str, owner: str | None) -> Snapshot:
        """The fold of what is shown now. Raises StreamNotFound."""
        info = msgspec.structs.replace(self.find(stream_id, owner))  # as it stands: it may go on meanwhile
        log = self._store.log(stream_id)
        try:
            summary = await _folded(log, info.seq)
        except LogTrimmed:  # before, or between two pages
            summary = Summary()
            summary.feed(log.digest())
        return _snapshot(info, summary.result())


async def _folded(log: Log, up_to: int) -> Summary:
    """The fold of a log's records up to a seq, a page at a time. Raises LogTrimmed."""
    summary, seq, turn = Summary(), 0, _PAGE
    while seq < up_to:
        records = log.read(seq)[: up_to - seq]
        summary.feed(records)
        seq += len(records)
        if seq >= turn:
            turn = seq + _PAGE
            await asyncio.sleep(0)
    return summary


def _snapshot(info: StreamInfo, result: Result) -> Snapshot:
    return Snapshot(
        stream_id=info.stream_id,
        task_id=info.task_id,
        plan_id=info.plan_id,
        owner=info.owner,
        state=info.state,
        seq=info.seq,
        created=info.created,
        ended_at=info.ended_at,
        text=result.text,
        success=result.success if info.ended else None,
        error=result.error if info.ended else None,
        stop_reason=result.stop_reason,
        reasoning=result.reasoning,
        refusal=result.refusal,
        tool_calls=result.tool_calls,
        usage=result.usage,
        agent=result.agent,
        model=result.model,
        cached=result.cached,
    )
