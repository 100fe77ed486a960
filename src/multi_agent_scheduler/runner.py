"""One task: its agent's batches into the store, until there is a terminal. The only loop there is.

Streaming, draining, following and resuming all read the log that this loop writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from .errors import CallerError, ErrorInfo, LogFull, StoreError
from .records import TERMINALS, CallEnded, Cancelled, Failed, Interrupted, Record, Terminal
from .store.core import Lease
from .task import Result
from .views.summary import Summary

if TYPE_CHECKING:
    from .agents.base import Agent
    from .agents.context import Context
    from .request import Request
    from .store.base import Store

__all__ = ["Run", "Watcher"]

_log = logging.getLogger(__name__)


class Watcher:
    """Who is told of a run's life: events and metrics. Every method is called from the run's task and must not wait."""

    def started(self, run: Run) -> None:
        """The run has been claimed."""

    def batch(self, run: Run, records: Sequence[Record], now: float) -> None:
        """A batch is in the log."""

    def ended(self, run: Run, result: Result) -> None:
        """The terminal is in the log; no reader has seen it yet."""


class Run:
    """One execution of a task in this process. Made by the scheduler, which starts :meth:`execute` in a task."""

    def __init__(
        self, store: Store, stream_id: str, *, agent: Agent, agent_name: str, request: Callable[[], Request],
        context: Context, watcher: Watcher,
    ) -> None:  # fmt: skip
        """``request`` is called once the run begins; a CallerError of it ends the stream as failed."""
        self.stream_id = stream_id
        self.agent_name = agent_name
        self.began = context.clock()
        self.summary = Summary()
        self.result: Result | None = None
        self._store = store
        self._agent = agent
        self._request = request
        self._context = context
        self._watcher = watcher
        self._lease: Lease | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, done: Callable[[Run], None]) -> None:
        """Begin to run; ``done`` is called at the end."""
        self._task = asyncio.get_running_loop().create_task(self._execute(), name=f"stream {self.stream_id}")
        self._task.add_done_callback(lambda _: done(self))

    def stop(self, reason: str) -> bool:
        """Stop the provider now; the terminal will be ``cancelled``. True for the first who asks, in time."""
        first = self._store.cancel(self.stream_id, reason)
        if first and self._lease is not None and self._task is not None:
            self._task.cancel()
        return first

    async def wait(self) -> Result:
        """The result, once the terminal is in the log. Cancelling the one who waits changes nothing for the run."""
        assert self._task is not None
        if not self._task.done():
            await asyncio.wait({self._task})
        if self.result is None:
            self._task.result()  # what broke the run, if anything did: the store, or a bug
            raise StoreError(f"the stream {self.stream_id!r} ended without a result")
        return self.result

    async def _execute(self) -> None:
        self._lease = await self._store.claim(self.stream_id)
        self._watcher.started(self)
        reason = self._store.info(self.stream_id).stop_reason
        if reason is not None:  # the stop came before the start
            self._finish((), Cancelled(reason))
            return
        try:
            await self._drain()
        except asyncio.CancelledError:
            self._cancelled()
        except LogFull as error:
            self._finish((), Failed(ErrorInfo("response_too_large", str(error))))
        except CallerError as error:
            self._finish((), Failed(ErrorInfo("invalid_request_error", str(error))))
        except StoreError:
            raise  # nothing more can be written
        except Exception:  # noqa: BLE001 - a bug in an agent must end its stream, not hang its readers
            _log.exception("the agent %s broke down in stream %s", self.agent_name, self.stream_id)
            self._finish((), Failed(ErrorInfo("internal_error", "the agent broke down; the log has the details")))

    async def _drain(self) -> None:
        assert self._lease is not None
        store, lease, feed, clock = self._store, self._lease, self.summary.feed, self._context.clock
        async with aclosing(self._agent.batches(self._request(), self._context)) as batches:
            async for batch in batches:
                terminal = batch[-1]
                if isinstance(terminal, TERMINALS):
                    self._finish(batch[:-1], terminal)
                    return
                store.append(lease, batch)
                now = clock()
                feed(batch, now)
                self._watcher.batch(self, batch, now)
                if store.behind:
                    await store.room()
        self._finish((), Interrupted(ErrorInfo("interrupted", "the agent ended without an outcome", retryable=True)))

    def _cancelled(self) -> None:
        reason = self._store.info(self.stream_id).stop_reason
        if reason is not None:
            self._finish((), Cancelled(reason))
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            return
        # Nobody asked to stop this stream: the loop is going down under it.
        self._finish((), Interrupted(ErrorInfo("interrupted", "the run was ended from outside", retryable=True)))
        raise asyncio.CancelledError

    def _finish(self, records: Sequence[Record], terminal: Terminal) -> None:
        assert self._lease is not None
        self.summary.feed(records, self._context.clock())
        outcome = terminal.__struct_config__.tag
        error = terminal.error if isinstance(terminal, Failed | Interrupted) else None
        ended = [CallEnded(call.call, outcome, error=error, branch=call.branch) for call in self.summary.open_calls]  # type: ignore[arg-type]
        last = [*records, *ended, terminal]
        self._store.finish(self._lease, last)
        now = self._context.clock()
        self.summary.feed([*ended, terminal], now)
        self.result = self.summary.result(
            started_at=self.began, ended_at=now, stream_id=self.stream_id, agent=self.agent_name
        )
        self._watcher.batch(self, records, now)
        self._watcher.ended(self, self.result)
