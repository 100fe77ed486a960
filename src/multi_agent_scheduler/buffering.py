"""Fewer, larger pieces of a streamed text: for terminals, sockets and speech, where each write costs something."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from .errors import InvalidOption
from .views.buffering import Amount, Buffer, Lines, Sentences

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator

__all__ = ["buffered"]

_AHEAD: Final = 16


def buffered(
    stream: AsyncIterable[str],
    *,
    chunks: int | None = None,
    milliseconds: float | None = None,
    lines: bool = False,
    sentences: bool = False,
) -> AsyncGenerator[str, None]:
    """The same text in larger pieces; joined, they are what ``stream`` gave.

    ``chunks``: pieces of so many chunks. ``milliseconds``: whatever came within that time of a piece's first chunk.
    Both: whichever is first. ``lines``: line by line. ``sentences``: sentence by sentence (by rule of thumb: see
    :class:`~multi_agent_scheduler.views.buffering.Sentences`). What is left comes at the end.

    If the stream fails, what is held is given out before its error is raised. Leaving the iteration (``break``,
    ``aclose``, cancellation) closes the stream. With ``milliseconds`` the stream is read by a task of its own, at most
    16 chunks ahead of the reader; the task ends with the iteration.

    Raises :class:`~multi_agent_scheduler.errors.InvalidOption`, at once, for options that cannot be.
    """
    if not hasattr(type(stream), "__aiter__"):
        raise InvalidOption(f"buffered() reads an async iterator of text, not {type(stream).__name__}")
    buffer = _buffer(chunks, milliseconds, lines, sentences)
    return _at_once(aiter(stream), buffer) if milliseconds is None else _in_time(aiter(stream), buffer)


def _buffer(chunks: int | None, milliseconds: float | None, lines: bool, sentences: bool) -> Buffer:
    amount = chunks is not None or milliseconds is not None
    if amount + bool(lines) + bool(sentences) != 1:
        raise InvalidOption(
            "buffered() wants exactly one of lines=True, sentences=True, or an amount: chunks=, milliseconds= or both"
        )
    if lines:
        return Lines()
    if sentences:
        return Sentences()
    if chunks is not None and (isinstance(chunks, bool) or not isinstance(chunks, int) or chunks < 1):
        raise InvalidOption(f"chunks must be a whole number of at least 1, not {chunks!r}")
    if milliseconds is None:
        return Amount(chunks, None)
    number = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    if not number or not math.isfinite(milliseconds) or milliseconds <= 0:
        raise InvalidOption(f"milliseconds must be a number above 0, not {milliseconds!r}")
    return Amount(chunks, milliseconds / 1000)


async def _at_once(stream: AsyncIterator[str], buffer: Buffer) -> AsyncGenerator[str, None]:
    failure: Exception | None = None
    try:
        while True:
            try:
                chunk = await anext(stream)
            except StopAsyncIteration:
                break
            except Exception as error:  # noqa: BLE001 - it is raised below, after what is held
                failure = error
                break
            for piece in buffer.push(_text(chunk), 0.0):
                yield piece
        if rest := buffer.take():
            yield rest
        if failure is not None:
            raise failure
    finally:
        await _close(stream)


async def _in_time(stream: AsyncIterator[str], buffer: Buffer) -> AsyncGenerator[str, None]:
    loop = asyncio.get_running_loop()
    pump = _Pump(stream, loop)
    try:
        while True:
            if pump.chunks:
                for piece in buffer.push(_text(pump.next()), loop.time()):
                    yield piece
            elif pump.ended:
                break
            elif not await pump.news(buffer.due) and (piece := buffer.take()):
                yield piece
        if pump.cancelled:
            raise asyncio.CancelledError
        if rest := buffer.take():
            yield rest
        if pump.failure is not None:
            raise pump.failure
    finally:
        await pump.aclose()


class _Pump:
    """Reads a stream in one task from its first chunk to its end.

    A stream must not be read by many tasks in turn (time limits and cancel scopes inside it belong to one), and a read
    must not be given up because a time has passed: that would end the stream.
    """

    def __init__(self, stream: AsyncIterator[str], loop: asyncio.AbstractEventLoop) -> None:
        self.chunks: deque[str] = deque()
        self.ended = False
        self.cancelled = False
        self.failure: Exception | None = None
        self._stream = stream
        self._loop = loop
        self._news: asyncio.Future[bool] | None = None
        self._room: asyncio.Future[None] | None = None
        self._task = loop.create_task(self._read(), name="buffered stream")
        self._task.add_done_callback(self._done)

    def next(self) -> str:
        chunk = self.chunks.popleft()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return chunk

    async def news(self, due: float | None) -> bool:
        """Wait for a chunk or the end: True. False if it was ``due`` (on the loop's clock) before."""
        self._news = self._loop.create_future()
        timer = None if due is None else self._loop.call_at(due, self._tell, False)
        try:
            return await self._news
        finally:
            self._news = None
            if timer is not None:
                timer.cancel()

    async def aclose(self) -> None:
        """Stop reading and close the stream. Raises what closing it raises."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()
        await _close(self._stream)  # again, in case the task was cancelled before it began

    async def _read(self) -> None:
        try:
            async for chunk in self._stream:
                self.chunks.append(chunk)
                self._tell(True)
                if len(self.chunks) >= _AHEAD:
                    self._room = self._loop.create_future()
                    await self._room
        except Exception as error:  # noqa: BLE001 - the reader raises it, after what came before it
            self.failure = error
        finally:
            await _close(self._stream)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.ended = True
        self.cancelled = task.cancelled()
        self._tell(True)

    def _tell(self, news: bool) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(news)


def _text(chunk: Any) -> str:
    if not isinstance(chunk, str):
        raise InvalidOption(f"buffered() reads an async iterator of text; it gave {type(chunk).__name__}")
    return chunk


async def _close(stream: AsyncIterator[str]) -> None:
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()
