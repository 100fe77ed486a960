"""Streams for code that has no event loop: plain generators over one shared background loop.

One daemon thread a process runs the loop; it is started on first use and made anew after a fork. Items cross over in
batches, as they come; a consumer that falls behind holds the producer back. At the interpreter's exit what still runs
is stopped, and its sockets are closed.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, Generic, TypeVar

__all__ = ["flatten", "run", "shut_down"]

T = TypeVar("T")

_AHEAD: Final = 64  # batches that the producer may be ahead of the consumer
_STOP_SECONDS: Final = 2.0  # how long a closing generator, or the exit, waits for the provider's socket to be closed


class _LoopThread:
    """The background loop and its thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="multi-agent-scheduler-loop", daemon=True)
        self._thread.start()
        ready.wait()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs in the loop's own thread."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """Cancel what runs, close what is open, end the thread."""
        if self.is_current_thread or not self._thread.is_alive():
            return
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_STOP_SECONDS)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(ready.set)
        try:
            self.loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


_current: _LoopThread | None = None
_forked: list[_LoopThread] = []
_lock = threading.Lock()


def _thread() -> _LoopThread:
    global _current
    with _lock:
        if _current is None:
            _current = _LoopThread()
        return _current


def _after_fork() -> None:
    global _lock, _current
    _lock = threading.Lock()
    if _current is not None:
        # Its thread did not survive the fork, but its poller is shared with the parent, which must not be disturbed:
        # the object is kept, so that nothing closes or unregisters anything.
        _forked.append(_current)
        _current = None


def shut_down() -> None:
    """Stop what still runs on the background loop and end its thread. Runs at the interpreter's exit by itself."""
    global _current
    with _lock:
        thread, _current = _current, None
    if thread is not None:
        thread.stop()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(shut_down)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, run on the background loop; a KeyboardInterrupt cancels it."""
    thread = _thread()
    if thread.is_current_thread:
        coroutine.close()
        raise RuntimeError("the background loop cannot wait for itself: use the asynchronous form")
    future = asyncio.run_coroutine_threadsafe(coroutine, thread.loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def flatten(make: Callable[[], AsyncGenerator[Sequence[T], None]]) -> Generator[T, None, None]:
    """The items of the batches that ``make()`` gives, as a plain generator.

    Nothing runs before the first ``next``. Closing the generator, or dropping it, closes the asynchronous one and waits
    for that, at most two seconds. A generator that was begun before a fork cannot be gone on with in the child: there
    it raises RuntimeError.
    """
    bridge: _Bridge[T] = _Bridge(make, _thread())
    try:
        while (batch := bridge.get()) is not None:
            yield from batch
    finally:
        bridge.stop()


class _Raised(Exception):
    """Carries an exception over to the consumer's thread."""


class _Bridge(Generic[T]):
    """A producer on the background loop and a consumer in a thread, with a bounded queue of batches between them."""

    def __init__(self, make: Callable[[], AsyncGenerator[Sequence[T], None]], thread: _LoopThread) -> None:
        if thread.is_current_thread:
            raise RuntimeError("the background loop cannot wait for itself: use the asynchronous form")
        self._batches: queue.SimpleQueue[Sequence[T] | _Raised | None] = queue.SimpleQueue()
        self._make = make
        self._thread = thread
        self._room = asyncio.Event()
        self._held_back = False
        self._ended = threading.Event()
        self._task: asyncio.Task[None] | None = None
        thread.loop.call_soon_threadsafe(self._start)

    def get(self) -> Sequence[T] | None:
        """The next batch, waiting for it; None at the end. Raises what the producer raised."""
        if self._thread.pid != os.getpid():
            raise RuntimeError(
                "this generator was begun before a fork: only the process that began it can go on with it"
            )
        batch = self._batches.get()
        if self._held_back and self._batches.qsize() <= _AHEAD // 2:
            self._held_back = False
            with suppress(RuntimeError):  # the loop is closed: nobody is held back any more
                self._thread.loop.call_soon_threadsafe(self._room.set)
        if isinstance(batch, _Raised):
            raise batch.args[0]
        return batch

    def stop(self) -> None:
        """Stop the producer and wait until it has closed what it held open."""
        if self._thread.pid != os.getpid():
            return
        if self._ended.is_set():
            return
        with suppress(RuntimeError):  # the loop is closed: everything has ended
            self._thread.loop.call_soon_threadsafe(self._cancel)
            if not self._thread.is_current_thread:  # there the collector is dropping a generator: nobody can wait
                self._ended.wait(_STOP_SECONDS)

    # --- on the loop ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._task = self._thread.loop.create_task(self._produce())
        self._task.add_done_callback(self._finish)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        # A consumer may still be waiting: a thread that was not the one that stopped it, or the exit ended the loop.
        self._batches.put(None if error is None else _Raised(error))
        self._ended.set()

    async def _produce(self) -> None:
        async with aclosing(self._make()) as batches:
            async for batch in batches:
                self._batches.put(batch)
                if self._batches.qsize() >= _AHEAD:
                    self._room.clear()
                    self._held_back = True
                    if self._batches.qsize() >= _AHEAD:
                        await self._room.wait()
