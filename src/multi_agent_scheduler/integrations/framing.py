"""What a response sends as server-sent events, whichever framework sends it.

The items of a stream are text, the dicts of ``execute_task_stream``, or records. Text goes out as it is, the others as
JSON, in events without a name; then comes the end: ``event: complete`` behind text and dicts, as the streaming guide
has it, and ``event: end`` behind records, as on the server's own routes. A stream that breaks off ends with ``event:
failed`` and why. (Not ``error``: a browser's EventSource reports its own troubles by that name.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, get_args

import msgspec

from ..errors import AgentError, ErrorInfo, SchedulerError, StoreError
from ..records import Record, encode_record
from ..server import cursor as cursors
from ..server.conversation import told
from ..server.events import NativeRenderer
from ..wire.sse import encode

if TYPE_CHECKING:
    from ..scheduler import MultiAgentScheduler

__all__ = ["HEADERS", "HEAD_AFTER", "KEEP_ALIVE", "Followed", "Frames", "Items", "Once", "failure", "is_mistake"]

Items: TypeAlias = AsyncIterable[str] | AsyncIterable[dict[str, Any]] | AsyncIterable[Record]

HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Beside the content type: what keeps caches from storing a stream, and nginx from holding it back."""

HEAD_AFTER: Final = 0.1
"""Seconds. Until then the first event is waited for, so that what is wrong with a request has a status of its own."""

KEEP_ALIVE: Final = encode(None, comment="")
"""A comment, for when there is nothing to say: readers pass over it, and proxies see that the connection lives."""

_RETRY: Final = 2.0  # seconds that a browser waits before it connects again
_RECORDS: Final = frozenset(get_args(Record))
_json: Final = msgspec.json.Encoder()


class Frames(ABC):
    """What is sent, event by event. ``heartbeat`` is in seconds. Raises ValueError for one that cannot be."""

    opening: bytes
    """Sent before the first event."""

    def __init__(self, heartbeat: float) -> None:
        if isinstance(heartbeat, bool) or not isinstance(heartbeat, int | float) or not heartbeat > 0:
            raise ValueError(f"heartbeat must be a number of seconds above 0, not {heartbeat!r}")
        self.heartbeat = heartbeat

    @abstractmethod
    def begin(self, last_event_id: str | None) -> AsyncGenerator[bytes, None]:
        """The events for a reader who has seen those up to ``last_event_id``. None at all: it is to stay away (204)."""


class Once(Frames):
    """A stream that is there for one reader, once: one that comes back is told to stay away.

    Raises TypeError for what is no stream.
    """

    opening = encode(None, id="begun", retry=round(_RETRY * 1000))  # who connects again with this id has been here

    def __init__(self, items: Items, heartbeat: float) -> None:
        super().__init__(heartbeat)
        if not hasattr(items, "__aiter__"):
            raise TypeError(f"a stream is an asynchronous iterator, such as agent.call_stream(prompt), not {items!r}")
        self._items: AsyncIterator[Any] = aiter(items)

    async def begin(self, last_event_id: str | None) -> AsyncGenerator[bytes, None]:
        end = encode("done", event="complete")
        try:
            if last_event_id is not None:
                return
            async for item in self._items:
                if type(item) is str:
                    yield encode(item)
                elif type(item) in _RECORDS:
                    yield encode(encode_record(item))
                    end = encode("{}", event="end")
                elif isinstance(item, Mapping):
                    yield encode(_json.encode(item))
                else:
                    raise TypeError(f"events are made of text, of dicts or of records, not of {item!r}")
            yield end
        finally:
            close = getattr(self._items, "aclose", None)
            if close is not None:
                await close()


class Followed(Frames):
    """The log of a stream that goes on by itself, in the events of the server's native route."""

    opening = encode(None, retry=round(_RETRY * 1000))

    def __init__(self, scheduler: MultiAgentScheduler, stream_id: str, owner: str | None, heartbeat: float) -> None:
        super().__init__(heartbeat)
        self._scheduler = scheduler
        self._stream_id = stream_id
        self._owner = owner

    async def begin(self, last_event_id: str | None) -> AsyncGenerator[bytes, None]:
        await self._scheduler.open()
        info = self._scheduler.find(self._stream_id, owner=self._owner)
        after = cursors.parse(last_event_id, info) if last_event_id else 0
        if info.ended and after == info.seq:
            return
        log, renderer = self._scheduler.log(self._stream_id, owner=self._owner), NativeRenderer(self._stream_id, _RETRY)
        begun = False
        try:
            while True:
                while records := log.read(after):
                    yield renderer.feed(after + 1, records)
                    begun = True
                    after += len(records)
                if log.ended:
                    return
                await log.wait(after)
        except StoreError:
            if not begun:
                raise
            yield renderer.broken(ErrorInfo("interrupted", "the rest cannot be read at the moment", retryable=True))


def is_mistake(error: Exception) -> TypeGuard[SchedulerError]:
    """Whether it is not the stream that failed, but what was asked for that cannot be given."""
    return isinstance(error, SchedulerError) and not isinstance(error, AgentError)


def failure(error: Exception) -> bytes:
    """The event that says that no more comes, and why."""
    return encode(_json.encode(told(error)), event="failed")
