"""The event bus: notices about the life of streams. Never the data path: whoever needs the answer reads the stream.

A plain handler runs inside ``emit``, at once, in the order of registration. An async handler runs a little later, from
one queue for each event loop, one at a time and in order. A handler's failure is logged (logger
``multi_agent_scheduler.events``) and goes no further.

The queue is bounded. An event of :data:`BEST_EFFORT` is dropped once ``capacity`` calls wait, any other once eight
times as many do. What was dropped is counted in :attr:`EventBus.dropped`, and logged once until the queue is empty.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import re
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar, overload

import msgspec

from .errors import InvalidOption

__all__ = [
    "BEST_EFFORT",
    "STREAM_CANCELLED",
    "STREAM_CHUNK",
    "STREAM_COMPLETED",
    "STREAM_FAILED",
    "STREAM_STARTED",
    "Event",
    "EventBus",
    "Handler",
    "get_event_bus",
]

STREAM_STARTED: Final = "task.stream_started"
STREAM_CHUNK: Final = "task.stream_chunk"
STREAM_COMPLETED: Final = "task.stream_completed"
STREAM_FAILED: Final = "task.stream_failed"
STREAM_CANCELLED: Final = "task.stream_cancelled"

BEST_EFFORT: Final = frozenset({STREAM_CHUNK})
"""The events that are the first to be dropped when async handlers cannot keep up."""

_HARD_FACTOR: Final = 8
_CACHED_NAMES: Final = 1024
# Flags of a code object (the "inspect" module documents them, but importing it would cost more than this whole module).
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200

_log = logging.getLogger(__name__)


class Event(msgspec.Struct, frozen=True):
    """One notice: its name, its data, and when it was given out (seconds since 1970, UTC). Handlers share ``data``."""

    name: str
    data: dict[str, Any]
    time: float


Handler: TypeAlias = Callable[[Event], object]
"""A function of one event, plain or async; what a plain one returns is ignored (an awaitable is awaited)."""

_H = TypeVar("_H", bound=Handler)


class _Listener:
    """One registration."""

    __slots__ = ("active", "call", "is_async", "matches", "name", "once")

    def __init__(self, name: str, call: Handler, *, once: bool) -> None:
        self.name = name
        self.call = call
        self.once = once
        self.active = True
        self.is_async = bool(_code_flags(call) & _COROUTINE)
        parts = [re.escape(part) for part in name.split("*")]
        self.matches = re.compile(".*".join(parts), re.DOTALL).fullmatch


class EventBus:
    """Where events are given out and listened to.

    ``capacity`` is how many calls of async handlers may wait, in each event loop, before best-effort events are
    dropped. ``clock`` gives the time of events. A bus may be used from one event loop after the other, and from several
    at once; its async handlers run in the loop in which the event was given out.
    """

    def __init__(self, *, capacity: int = 1024, clock: Callable[[], float] = time.time) -> None:
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
            raise InvalidOption(f"capacity must be a whole number of at least 1, not {capacity!r}")
        self._capacity = capacity
        self._clock = clock
        self._listeners: tuple[_Listener, ...] = ()
        self._matching: dict[str, tuple[_Listener, ...]] = {}  # by event name; emptied whenever the listeners change
        self._queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = weakref.WeakKeyDictionary()
        self.dropped = 0
        """How many calls of async handlers were given up because they could not keep up, or had no loop to run in."""

    # --- listening ------------------------------------------------------------------------------------------------

    @overload
    def on(self, name: str) -> Callable[[_H], _H]: ...
    @overload
    def on(self, name: str, handler: _H) -> _H: ...
    def on(self, name: str, handler: _H | None = None) -> _H | Callable[[_H], _H]:
        """Call ``handler`` for each event of this name; ``*`` in the name stands for any characters (``task.*``).

        Returns the handler; without one, a decorator. Raises :class:`~multi_agent_scheduler.errors.InvalidOption` for a
        name that is no non-empty string and for a handler that cannot be called.
        """
        return self._add(name, handler, once=False)

    @overload
    def once(self, name: str) -> Callable[[_H], _H]: ...
    @overload
    def once(self, name: str, handler: _H) -> _H: ...
    def once(self, name: str, handler: _H | None = None) -> _H | Callable[[_H], _H]:
        """As :meth:`on`, for the next such event only."""
        return self._add(name, handler, once=True)

    def off(self, name: str, handler: Handler | None = None) -> bool:
        """Stop calling ``handler`` under this name, written as it was registered; without one, every handler.

        Returns whether there was one. Calls that wait in a queue are still made.
        """
        gone = [entry for entry in self._listeners if entry.name == name and (handler is None or entry.call == handler)]
        for entry in gone:
            self._remove(entry)
        return bool(gone)

    def has_listeners(self, name: str) -> bool:
        """Whether anybody would hear an event of this name; cheap enough to ask before each chunk."""
        return bool(self._hearing(name))

    def _add(self, name: str, handler: _H | None, *, once: bool) -> _H | Callable[[_H], _H]:
        if not isinstance(name, str) or not name:
            raise InvalidOption(f"an event's name must be a non-empty string, not {name!r}")
        if handler is None:
            return lambda decorated: self._register(name, decorated, once)
        return self._register(name, handler, once)

    def _register(self, name: str, handler: _H, once: bool) -> _H:
        if not callable(handler):
            raise InvalidOption(f"the handler of {name!r} must be a function of one event, not {handler!r}")
        if _code_flags(handler) & (_GENERATOR | _ASYNC_GENERATOR):
            raise InvalidOption(f"the handler of {name!r} must not yield: calling a generator runs nothing")
        self._listeners = (*self._listeners, _Listener(name, handler, once=once))
        self._matching = {}
        return handler

    def _remove(self, entry: _Listener) -> None:
        entry.active = False
        self._listeners = tuple(other for other in self._listeners if other is not entry)
        self._matching = {}

    def _hearing(self, name: str) -> tuple[_Listener, ...]:
        found = self._matching.get(name)
        if found is None:
            matching = self._matching
            found = tuple(entry for entry in self._listeners if entry.matches(name))
            if len(matching) >= _CACHED_NAMES:
                matching.clear()
            matching[name] = found
        return found

    # --- giving out -----------------------------------------------------------------------------------------------

    def emit(self, name: str, data: dict[str, Any] | None = None) -> None:
        """Give out one event. Plain handlers have run when it returns. Never raises because of a handler."""
        listeners = self._hearing(name)
        if not listeners:
            return
        event = Event(name, {} if data is None else data, self._clock())
        for entry in listeners:
            if not entry.active:  # an earlier handler of this very event switched it off
                continue
            if entry.once:
                self._remove(entry)
            if entry.is_async:
                self._later(_Call(entry.call, event))
                continue
            try:
                answer = entry.call(event)
            except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever it is, it is the handler's own
                _log.exception("handler %s of %s failed", _name(entry.call), name)
                continue
            if hasattr(type(answer), "__await__"):
                self._later(_Call(entry.call, event, answer))

    def _later(self, call: _Call) -> None:
        name = call.event.name
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.dropped += 1
            call.discard()
            _log.warning("async handler %s of %s was not called: no event loop runs here", _name(call.handler), name)
            return
        queue = self._queues.get(loop)
        if queue is None:
            for closed in [other for other in self._queues if other.is_closed()]:
                del self._queues[closed]
            queue = self._queues[loop] = _Queue()
        limit = self._capacity if name in BEST_EFFORT else self._capacity * _HARD_FACTOR
        if len(queue.waiting) < limit:
            queue.put(loop, call, self)
            return
        self.dropped += 1
        call.discard()
        if not queue.overflowed:
            queue.overflowed = True
            _log.warning("async handlers cannot keep up: %s dropped, with %d calls waiting", name, limit)

    # --- ending ---------------------------------------------------------------------------------------------------

    async def drain(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109 - passing it is an answer, not an error
        """Wait until the calls of async handlers that wait in this loop have been made; at most ``timeout`` seconds.

        Returns whether they were. A handler that outlasted one such wait is not waited for as long again: as long as it
        runs, this returns False at once. So it does inside an async handler, which would wait for itself.
        """
        queue = self._queues.get(asyncio.get_running_loop())
        if queue is None or queue.worker is None:
            return True
        if queue.worker is asyncio.current_task() or queue.is_stuck(timeout):
            return False
        return await queue.wait(timeout)

    async def aclose(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - as above
        """Drain, then stop the async handler that still runs in this loop and give up the waiting calls.

        The handlers stay registered, and the bus can be used again.
        """
        await self.drain(timeout)
        queue = self._queues.get(asyncio.get_running_loop())
        worker = queue.worker if queue is not None else None
        if worker is None or worker is asyncio.current_task():
            return
        worker.cancel()
        await asyncio.wait({worker})


class _Call:
    """A call of an async handler that waits; ``answer`` is the awaitable, where a plain handler has returned one."""

    __slots__ = ("answer", "event", "handler")

    def __init__(self, handler: Handler, event: Event, answer: object = None) -> None:
        self.handler = handler
        self.event = event
        self.answer = answer

    async def make(self) -> None:
        answer: Any = self.handler(self.event) if self.answer is None else self.answer
        if hasattr(type(answer), "__await__"):
            await answer

    def discard(self) -> None:
        close = getattr(self.answer, "close", None)
        if close is not None:  # a coroutine that is collected without having been awaited warns about it
            close()


class _Queue:
    """The waiting calls of async handlers in one loop, and the task that makes them while there are any."""

    def __init__(self) -> None:
        self.waiting: deque[_Call] = deque()
        self.worker: asyncio.Task[None] | None = None
        self.overflowed = False
        self._put = 0
        self._done = 0
        self._stuck = (-1, 0.0)  # the call that outlasted a drain, and that drain's timeout
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def is_stuck(self, timeout: float) -> bool:
        return self._stuck[0] == self._done and timeout <= self._stuck[1]

    def put(self, loop: asyncio.AbstractEventLoop, call: _Call, bus: EventBus) -> None:
        self.waiting.append(call)
        self._put += 1
        if self.worker is None:
            # An empty context: handlers of one task's events must not run in the context of another task.
            self.worker = loop.create_task(self._work(), name="event handlers", context=contextvars.Context())
            self.worker.add_done_callback(functools.partial(self._stopped, bus))

    async def wait(self, seconds: float) -> bool:
        future = asyncio.get_running_loop().create_future()
        waiter = (self._put, future)
        self._waiters.append(waiter)
        try:
            await asyncio.wait({future}, timeout=seconds)
        finally:
            if not future.done():
                self._waiters.remove(waiter)
        if not future.done():
            self._stuck = (self._done, seconds)
            _log.warning("async handlers were not done within %g s; %d more calls wait", seconds, len(self.waiting))
        return self._done >= waiter[0]

    async def _work(self) -> None:
        while self.waiting:
            call = self.waiting.popleft()
            try:
                await call.make()
            except (Exception, asyncio.CancelledError):
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                _log.exception("handler %s of %s failed", _name(call.handler), call.event.name)
            self._done += 1
            self._wake(self._done)
            if not self._done % 64:  # handlers that never wait must not keep the loop from everything else
                await asyncio.sleep(0)
        self.overflowed = False
        self.worker = None

    def _stopped(self, bus: EventBus, worker: asyncio.Task[None]) -> None:
        if worker is not self.worker:  # it ended because there was nothing more to do
            return
        lost = self._put - self._done
        bus.dropped += lost
        _log.warning("event handlers were stopped: %d calls were not made or not finished", lost)
        for call in self.waiting:
            call.discard()
        self.waiting.clear()
        self.worker = None
        self.overflowed = False
        self._stuck = (-1, 0.0)
        self._wake(self._put)
        self._put = self._done

    def _wake(self, done: int) -> None:
        while self._waiters and self._waiters[0][0] <= done:
            future = self._waiters.pop(0)[1]
            if not future.done():
                future.set_result(None)


def _code_flags(handler: Any) -> int:
    while isinstance(handler, functools.partial):
        handler = handler.func
    code = getattr(handler, "__code__", None)
    if code is None and callable(handler):
        code = getattr(type(handler).__call__, "__code__", None)
    return getattr(code, "co_flags", 0)


def _name(handler: Handler) -> str:
    return getattr(handler, "__qualname__", None) or type(handler).__name__


_default: EventBus | None = None


def get_event_bus() -> EventBus:
    """The default bus of this process: the one a scheduler uses unless it is given another."""
    global _default
    if _default is None:
        _default = EventBus()
    return _default
