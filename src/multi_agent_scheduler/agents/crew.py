"""Agents that run at the same time: a task reads each of them, and one reader takes their batches as they come."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from ..errors import CallerError, StoreError
from ..records import TERMINALS
from ..request import Request
from .base import Agent, Batch
from .composite import Lane, broken, unfinished
from .context import Context

__all__ = ["Crew", "Feed"]

_log = logging.getLogger(__name__)

_AHEAD: Final = 16
"""Batches of one agent that wait for the reader before the agent is read no further."""

_MOMENT: Final = 0.05
"""Seconds for which an end waits for those that were stopped, at most: an agent may take no notice of it."""

_ENDS: Final = frozenset(TERMINALS)


class Feed:
    """One agent that is being read."""

    __slots__ = ("agent", "dropped", "ended", "lane", "room", "task", "waiting")

    def __init__(self, agent: Agent, lane: Lane) -> None:
        self.agent = agent
        self.lane = lane
        self.ended = False  # its terminal has been read
        self.dropped = False
        self.waiting = 0  # batches that the reader has not taken
        self.room: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None


class Crew:
    """Reads agents at the same time. Whoever makes one must await :meth:`aclose`, whatever happens.

    The last batch of every feed ends in a terminal, also if its agent gave none or broke down.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._loop = asyncio.get_running_loop()
        self._feeds: list[Feed] = []
        self._ready: deque[tuple[Feed, Batch]] = deque()
        self._error: CallerError | StoreError | None = None
        self._news: asyncio.Future[None] | None = None

    def start(self, agent: Agent, request: Request, lane: Lane) -> Feed:
        """Begin to read an agent."""
        feed = Feed(agent, lane)
        self._feeds.append(feed)
        feed.task = self._loop.create_task(self._read(feed, request), name=f"agent {agent.name}")
        feed.task.add_done_callback(_seen)
        return feed

    async def next(self, due: float | None = None) -> tuple[Feed, Batch] | None:
        """The next batch of any feed; None if it is ``due`` (on the loop's clock) before there is one.

        Raises what a feed may raise: a caller's mistake, or the store's failure.
        """
        while not self._ready:
            if self._error is not None:
                raise self._error
            if due is not None and self._loop.time() >= due:
                return None
            self._news = self._loop.create_future()
            timer = None if due is None else self._loop.call_at(due, self._tell)
            try:
                await self._news
            finally:
                self._news = None
                if timer is not None:
                    timer.cancel()
        feed, batch = self._ready.popleft()
        feed.waiting -= 1
        if feed.room is not None and not feed.room.done():
            feed.room.set_result(None)
        return feed, batch

    def drop(self, feed: Feed) -> list[Batch]:
        """Close an agent's run, at once and without waiting. Gives the batches of it that nobody has taken."""
        feed.dropped = True
        assert feed.task is not None
        feed.task.cancel()
        if not feed.waiting:
            return []
        left = [batch for one, batch in self._ready if one is feed]
        self._ready = deque(item for item in self._ready if item[0] is not feed)
        feed.waiting = 0
        return left

    async def gone(self) -> None:
        """Give those that were dropped a moment to go, so that their permits are back when the end is told."""
        tasks = [feed.task for feed in self._feeds if feed.dropped and feed.task is not None and not feed.task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=_MOMENT)

    async def aclose(self) -> None:
        """Close all that still run, and wait until they have gone."""
        for feed in self._feeds:
            if not feed.dropped:  # a second cancellation would disturb those that are closing already
                self.drop(feed)
        tasks = [feed.task for feed in self._feeds if feed.task is not None and not feed.task.done()]
        if tasks:
            await asyncio.wait(tasks)

    async def _read(self, feed: Feed, request: Request) -> None:
        stream = feed.agent.batches(request, self._ctx)
        try:
            async for batch in stream:
                feed.ended = type(batch[-1]) in _ENDS
                self._put(feed, batch)
                if feed.ended or feed.dropped:
                    return
                if feed.waiting >= _AHEAD:
                    feed.room = self._loop.create_future()
                    await feed.room
            self._end(feed, (unfinished(feed.agent),))
        except (CallerError, StoreError) as error:
            if not feed.dropped:
                self._error = self._error or error
                self._tell()
        except asyncio.CancelledError:
            if not feed.dropped:  # nobody here has cancelled it
                self._end(feed, (unfinished(feed.agent),))
            raise
        except Exception:  # noqa: BLE001 - whatever a broken agent raises must not leave its reader waiting
            self._end(feed, (broken(feed.agent),))
        finally:
            await stream.aclose()

    def _end(self, feed: Feed, batch: Batch) -> None:
        feed.ended = True
        self._put(feed, batch)

    def _put(self, feed: Feed, batch: Batch) -> None:
        if not feed.dropped:
            feed.waiting += 1
            self._ready.append((feed, batch))
            self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("%s: closing it failed", task.get_name(), exc_info=task.exception())
