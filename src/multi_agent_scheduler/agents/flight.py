"""One request that is under way, and all who read its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Final

from ..errors import CallerError, StoreError
from ..records import Failed, Interrupted, Terminal, is_content
from ..request import Request
from .base import Agent, Batch
from .composite import Lane, Output, broken, mistaken, unfinished
from .context import Context

__all__ = ["Flight"]

_log = logging.getLogger(__name__)

_AHEAD: Final = 64
"""Batches that the fastest reader may be behind before the agent is read no further."""


class Flight:
    """Reads an agent in a task of its own, for as long as there is a reader.

    ``batches`` is what has come so far and ``times`` when, in seconds from the start; the last batch of all ends in
    the ``terminal``. ``landed`` is called once, as soon as it is over: by itself, or because the last reader has left.
    """

    def __init__(self, agent: Agent, request: Request, ctx: Context, landed: Callable[[Flight], None]) -> None:
        self.batches: list[Batch] = []
        self.times: list[float] = []
        self.content = False
        self._lane = Lane(Output(ctx), "open")  # ends the Calls of an agent that breaks down
        self._agent = agent
        self._landed = landed
        self._over = False
        self._error: CallerError | StoreError | None = None
        self._taken: dict[object, int] = {}  # by each reader
        self._waiting: list[asyncio.Future[None]] = []
        self._room: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._task = self._loop.create_task(self._read(request, ctx), name=f"agent {agent.name}")
        self._task.add_done_callback(_seen)

    @property
    def terminal(self) -> Terminal | None:
        return self._lane.terminal

    @property
    def died(self) -> bool:
        """It failed before anything was said: asking again would show nobody two beginnings."""
        return not self.content and isinstance(self.terminal, Failed | Interrupted)

    async def read(self) -> AsyncGenerator[Batch, None]:
        """All batches, from the first. When the last reader leaves the agent is stopped, and has gone on return."""
        reader, taken = object(), 0
        self._taken[reader] = 0
        try:
            while True:
                while taken < len(self.batches):
                    batch = self.batches[taken]
                    taken += 1
                    self._taken[reader] = taken
                    self._make_room()
                    yield batch
                if self._error is not None:
                    raise self._error
                if self._over:
                    return
                news = self._loop.create_future()
                self._waiting.append(news)
                await news
        finally:
            del self._taken[reader]
            self._make_room()
            if not self._taken:
                await self._left()

    async def _left(self) -> None:
        if not self._over:
            self._end()
            self._task.cancel()
        if not self._task.done():
            await asyncio.wait({self._task})

    async def _read(self, request: Request, ctx: Context) -> None:
        stream = self._agent.batches(request, ctx)
        try:
            async for batch in stream:
                self._take(batch)
                if self._over:
                    return
                if self._behind():
                    self._room = self._loop.create_future()
                    await self._room
            self._take((unfinished(self._agent),))
        except CallerError as error:
            if self.batches:
                self._take((mistaken(error),))
            else:
                self._fail(error)
        except StoreError as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._take((unfinished(self._agent),))  # unless the last reader has left, nobody here has cancelled it
            raise
        except Exception:  # noqa: BLE001 - whatever a broken agent raises must not leave its readers waiting
            self._take((broken(self._agent),))
        finally:
            await stream.aclose()

    def _take(self, batch: Batch) -> None:
        if self._over:
            return
        batch = self._lane.take(batch)
        terminal = self._lane.terminal
        if terminal is not None:
            batch = [*batch, *self._lane.end(), terminal]
        self.batches.append(batch)
        self.times.append(self._loop.time() - self._began)
        if not self.content and any(map(is_content, batch)):
            self.content = True
        if terminal is not None:
            self._end()
        else:
            self._tell()

    def _fail(self, error: CallerError | StoreError) -> None:
        self._error = error
        self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._landed(self)
            self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for news in waiting:
            if not news.done():
                news.set_result(None)

    def _behind(self) -> bool:
        return len(self.batches) - max(self._taken.values(), default=0) >= _AHEAD

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done() and not self._behind():
            self._room.set_result(None)


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("%s: closing it failed", task.get_name(), exc_info=task.exception())
