"""One task: its agent's batches into the store, until there is a terminal. The only loop there is.

Streaming, draining, following and resuming all read the log that this loop writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from .errors import CallerError, ErrorInfo, LogFull, StoreError
from .records import TERMINALS, CallEnded, Cancelled, Failed, Interrupted, Record, Reset, Terminal
from .store.core import Lease
from .task import Result
from .views.summary import Summary

if TYPE_CHECKING:
    from .agents.base import Agent
    from .agents.context import Context
    from .recovery import Recovery
    from .request import Request
    from .store.base import Store

__all__ = ["Run", "Watcher"]

_log = logging.getLogger(__name__)

_ENDED: Final = "the run was ended from outside"


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
        self._left: Recovery | None = None
        self.waits_for_slot = False
        self.on_failure: Callable[[BaseException], None] | None = None
        """Called with what broke the run if it ends without a result."""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._store = store
        self._agent = agent
        self._request = request
        self._context = context
        self._watcher = watcher
        self._lease: Lease | None = None
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def go_on(self, left: Recovery) -> None:
        """Go on with what an earlier run left; before :meth:`start`."""
        self._left = left
        self._context.count_from(left.calls)

    def start(self, done: Callable[[Run], None]) -> None:
        """Begin to run; ``done`` is called at the end."""
        self._task = asyncio.get_running_loop().create_task(self._execute(), name=f"stream {self.stream_id}")

        def over(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None and self.result is None:
                _log.error("stream %s could not be finished", self.stream_id, exc_info=error)
            done(self)
            if not self.over.done():
                self.over.set_result(None)

        self._task.add_done_callback(over)

    @property
    def started(self) -> bool:
        """Whether :meth:`start` was called."""
        return self._task is not None

    @property
    def failure(self) -> BaseException | None:
        """What broke the run, if it is over and has no result: the store, or a bug."""
        task = self._task
        if self.result is not None or task is None or not task.done() or task.cancelled():
            return None
        return task.exception()

    def stop(self, reason: str) -> bool:
        """Stop the provider now; the terminal will be ``cancelled``. True for the first who asks, in time."""
        if self.result is not None:
            return False
        first = self._store.cancel(self.stream_id, reason)
        if first and self._lease is not None and self._task is not None:
            self._stopping = True
            self._task.cancel()
        return first

    async def wait(self) -> Result:
        """The result, once the terminal is in the log. Cancelling the one who waits changes nothing for the run."""
        if not self.over.done():
            await asyncio.wait({self.over})
        if self.result is not None and self._store.durable:
            await self._store.settled()  # what is not kept has not happened
        if self.result is None:
            raise self.failure or StoreError(f"the stream {self.stream_id!r} ended without a result")
        return self.result

    async def _execute(self) -> None:
        self._lease = await self._store.claim(self.stream_id)
        self._watcher.started(self)
        reason = self._store.info(self.stream_id).stop_reason
        if reason is not None:  # the stop came before the start
            self._recover()
            self._finish((), Cancelled(reason))
            return
        try:
            if not self._recover():
                await self._drain()
        except asyncio.CancelledError:
            self._cancelled()
        except LogFull as error:
            self._finish((), Failed(ErrorInfo("response_too_large", str(error))))
        except CallerError as error:
            self._finish((), Failed(ErrorInfo("invalid_request_error", str(error))))
        except StoreError:
            raise  # nothing more can be written
        except (Exception, GeneratorExit):  # noqa: BLE001 - a bug in an agent must end its stream, not hang its readers
            _log.exception("the agent %s broke down in stream %s", self.agent_name, self.stream_id)
            self._finish((), Failed(ErrorInfo("internal_error", "the agent broke down; the log has the details")))
        except BaseException:  # KeyboardInterrupt, SystemExit: the program is going down
            self._finish((), Interrupted(ErrorInfo("interrupted", _ENDED, retryable=True)))
            raise

    def _recover(self) -> bool:
        """Go on where an earlier run died; true if that is the end of it."""
        left = self._left
        if left is None or self._lease is None:
            return False
        self.summary.feed(left.history)
        if left.terminal is not None:
            self._finish(left.prelude, left.terminal)
            return True
        if left.prelude:
            self._store.append(self._lease, left.prelude)
            self.summary.feed(left.prelude)
        return False

    async def _drain(self) -> None:
        assert self._lease is not None
        store, lease, feed, clock = self._store, self._lease, self.summary.feed, self._context.clock
        left = self._left
        before = 0 if left is None else len(left.history) + len(left.prelude)  # an agent counts from its own start
        async with aclosing(self._agent.batches(self._request(), self._context)) as batches:
            async for batch in batches:
                if before:
                    batch = _moved(batch, before)
                terminal = batch[-1]
                if isinstance(terminal, TERMINALS):
                    self._finish(batch[:-1], self._stopped() if self._stopping else terminal)
                    return
                store.append(lease, batch)
                now = clock()
                feed(batch, now)
                self._watcher.batch(self, batch, now)
                if self._stopping:  # the agent took no notice of being cancelled: leaving closes it
                    self._finish((), self._stopped())
                    return
                if store.behind:
                    await store.room()
        self._finish((), Interrupted(ErrorInfo("interrupted", "the agent ended without an outcome", retryable=True)))

    def _stopped(self) -> Cancelled:
        return Cancelled(self._store.info(self.stream_id).stop_reason or "")

    def _cancelled(self) -> None:
        if self._store.info(self.stream_id).stop_reason is not None:
            self._finish((), self._stopped())
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            return
        # Nobody asked to stop this stream: the loop is going down under it.
        self._finish((), Interrupted(ErrorInfo("interrupted", _ENDED, retryable=True)))
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


def _moved(batch: Sequence[Record], by: int) -> Sequence[Record]:
    """The batch with the positions that its resets name moved on."""
    if not any(isinstance(record, Reset) for record in batch):
        return batch
    replace = msgspec.structs.replace
    return [replace(record, from_seq=record.from_seq + by) if isinstance(record, Reset) else record for record in batch]
