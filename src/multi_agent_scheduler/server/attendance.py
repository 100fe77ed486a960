"""Streams that go on only as long as somebody reads them, or for a while longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .face import Leaving

__all__ = ["Attendance"]

_REASON = "its reader left"


class Attendance:
    """Counts the readers of streams; calls ``cancel(stream_id, reason)`` where the last one's leaving means that."""

    def __init__(self, cancel: Callable[[str, str], object]) -> None:
        self._cancel = cancel
        self._readers: dict[str, int] = {}
        self._waiting: dict[str, asyncio.TimerHandle] = {}

    def enter(self, stream_id: str) -> None:
        """One more reads it; a grace that had begun is over."""
        self._readers[stream_id] = self._readers.get(stream_id, 0) + 1
        timer = self._waiting.pop(stream_id, None)
        if timer is not None:
            timer.cancel()

    def leave(self, stream_id: str, leaving: Leaving, *, ended: bool) -> None:
        """One reads it no more. Nothing follows if the stream has ``ended``, or others read it."""
        left = self._readers.get(stream_id, 1) - 1
        if left:
            self._readers[stream_id] = left
            return
        self._readers.pop(stream_id, None)
        if ended or leaving == "continue":
            return
        if leaving == "cancel":
            self._cancel(stream_id, _REASON)
            return
        loop = asyncio.get_running_loop()
        self._waiting[stream_id] = loop.call_later(leaving, self._over, stream_id)

    def close(self) -> None:
        """Wait for nobody any more: what is in its grace goes on."""
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()

    def _over(self, stream_id: str) -> None:
        self._waiting.pop(stream_id, None)
        self._cancel(stream_id, _REASON)
