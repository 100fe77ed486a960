"""Streams for code that has no event loop: plain generators over one shared background loop.

One daemon thread a process runs the loop; it is started on first use and made anew after a fork. Items cross over in
batches, as they come; a consumer that falls behind holds the producer back.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final, Generic, TypeVar

__all__ = ["flatten", "run"]

T = TypeVar("T")

_AHEAD: Final = 64  # batches that the producer may be ahead of the consumer
_STOP_SECONDS: Final = 2.0  # how long closing a generator waits for the provider's socket to be closed
_THREAD_NAME: Final = "multi-agent-scheduler-loop"


class _LoopThread:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name=_THREAD_NAME, daemon=True
        )
        self._thread.start()
        ready.wait()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(ready.set)
        self.loop.run_forever()


_current: _LoopThread | None = None
_lock = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    global _current
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = _LoopThread()
        return _current.loop


def _after_fork() -> None:
    global _lock, _current
    _lock = threading.Lock()
    _current = None  # the thread did not survive the fork


os.register_at_fork(after_in_child=_after_fork)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, run on the background loop; a KeyboardInterrupt cancels it."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def flatten(make: Callable[[], AsyncGenerator[Sequence[T], None]]) -> Iterator[T]:
    """The items of the batches that ``make()`` gives, as a plain generator.

    Nothing runs before the first ``next``. Closing the generator, or dropping it, closes the asynchronous one.
    """
    bridge: _Bridge[T] = _Bridge(make, _loop())
    try:
        while (batch := bridge.get()) is not None:
            yield from batch
    finally:
        bridge.stop()


class _Raised(Exception):
    """Carries an exception over to the consumer's thread."""


class _Bridge(Generic[T]):
    """A producer on the background loop and a consumer in a thread, with a bounded queue of batches between them."""

    def __init__(self, make: Callable[[], AsyncGenerator[Sequence[T], None]], loop: asyncio.AbstractEventLoop) -> None:
        self._batches: queue.SimpleQueue[Sequence[T] | _Raised | None] = queue.SimpleQueue()
        self._loop = loop
        self._room = asyncio.Event()
        self._held_back = False
        self._ended = threading.Event()
        self._future = asyncio.run_coroutine_threadsafe(self._produce(make), loop)

    def get(self) -> Sequence[T] | None:
        """The next batch, waiting for it; None at the end. Raises what the producer raised."""
        batch = self._batches.get()
        if self._held_back and self._batches.qsize() <= _AHEAD // 2:
            self._held_back = False
            self._loop.call_soon_threadsafe(self._room.set)
        if isinstance(batch, _Raised):
            raise batch.args[0]
        return batch

    def stop(self) -> None:
        """Stop the producer and wait until it has closed what it held open."""
        self._future.cancel()
        if self._loop.is_running() and threading.current_thread().name != _THREAD_NAME:
            self._ended.wait(_STOP_SECONDS)

    async def _produce(self, make: Callable[[], AsyncGenerator[Sequence[T], None]]) -> None:
        try:
            async with aclosing(make()) as batches:
                async for batch in batches:
                    self._batches.put(batch)
                    if self._batches.qsize() >= _AHEAD:
                        self._room.clear()
                        self._held_back = True
                        if self._batches.qsize() >= _AHEAD:
                            await self._room.wait()
            self._batches.put(None)
        except Exception as error:  # noqa: BLE001 - it is raised again in the consumer's thread
            self._batches.put(_Raised(error))
        finally:
            self._ended.set()
