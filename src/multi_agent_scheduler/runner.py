"""One task: its agent's batches into the store, until there is a terminal. The only loop there is.

Streaming, draining, following and resuming all read the log that this loop writes.

================= ================================================ ======================================
from              what happens                                     to
================= ================================================ ======================================
waiting           :meth:`Run.start`                                starting: the stream is being claimed
starting          claimed                                          running
running           :meth:`Run.stop`                                 stopping: the provider is being closed
waiting, starting :meth:`Run.stop`                                 (the same) the stop is in the store, and is found
waiting           :meth:`Run.suspend`                              broken
starting, running :meth:`Run.suspend`                              suspending: the provider is being closed
running, stopping the terminal is in the log                       ended: plans go on, the slot is free
ended             the terminal is kept for good                    over: events and metrics, then the last dict
suspending        the provider is closed, the stream queued again  broken
any               the store gives up, or the loop goes down        broken
================= ================================================ ======================================
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from .errors import CallerError, ErrorInfo, LogFull, StoreError, Suspended
from .records import TERMINALS, CallEnded, Cancelled, Failed, Interrupted, Record, Reset, Terminal
from .views.summary import Summary

if TYPE_CHECKING:
    from .agents.context import Context
    from .plans import PlanRun
    from .recovery import Recovery
    from .request import Request
    from .scheduling.budget import Price, Spending
    from .store.base import Store
    from .store.core import Lease
    from .task import Result

__all__ = ["Kit", "Run", "RunState", "Watcher"]

_log = logging.getLogger(__name__)

_ENDED: Final = "the run was ended from outside"
_NOTHING: Final = Summary()  # of a run that has not started

RunState: TypeAlias = Literal["waiting", "starting", "running", "stopping", "suspending", "ended", "over", "broken"]


class Watcher:
    """Who is told of a run's life: events and metrics. Every method is called from the run's task and must not wait."""

    def started(self, run: Run) -> None:
        """The run has been claimed."""

    def batch(self, run: Run, records: Sequence[Record], now: float) -> None:
        """A batch is in the log."""

    def ended(self, run: Run, result: Result) -> None:
        """The terminal is kept for good; nobody has been given the result yet."""

    def broken(self, run: Run) -> None:
        """The run is broken, or was suspended: it had been claimed, and there will be no result."""


class Kit(msgspec.Struct):
    """What a run needs once it starts.

    ``request`` makes the request, and may raise CallerError, which ends the stream as failed; ``batches`` asks it.
    ``left`` is what an earlier run of the stream left, ``spending`` begins to count what a request costs, if it has a
    budget; ``price_of`` is a model's price.
    """

    agent_name: str
    context: Context
    watcher: Watcher
    request: Callable[[], Request]
    batches: Callable[[Request, Context], AsyncGenerator[Sequence[Record], None]]
    price_of: Callable[[str | None], Price | None]
    left: Recovery | None = None
    spending: Callable[[Request], Spending] | None = None


class Run:
    """One execution of a task in this process; of a ``plan``, its task ``task_id``.

    ``equip`` makes its :class:`Kit` when it starts: until then it is next to nothing, and thousands may wait.
    """

    __slots__ = (
        "_equip", "_free", "_kit", "_lease", "_over", "_stop_sent", "_store", "_task", "began", "failure",
        "plan", "result", "state", "stream_id", "summary", "task_id",
    )  # fmt: skip

    def __init__(
        self,
        store: Store,
        stream_id: str,
        task_id: str,
        equip: Callable[[Run], Kit],
        *,
        began: float,
        plan: PlanRun | None = None,
    ) -> None:
        self.stream_id = stream_id
        self.task_id = task_id
        self.plan = plan
        self.began = began
        self.state: RunState = "waiting"
        self.result: Result | None = None
        """What came of it, from ``ended`` on; nobody is given it before the run is ``over``."""
        self.failure: BaseException | None = None
        """What broke it: the store, or a bug."""
        self._store = store
        self._equip = equip
        self._kit: Kit | None = None
        self._lease: Lease | None = None
        self._free: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop_sent = False
        self._over: asyncio.Future[None] | None = None
        self.summary = _NOTHING

    # --- from outside ---------------------------------------------------------------------------------------------

    def start(
        self, over: Callable[[Run], None], free: Callable[[], None] | None = None, lease: Lease | None = None
    ) -> None:
        """Begin to run. ``free`` is called as soon as it needs its slot no longer, ``over`` at the very end.

        ``lease`` is that of a stream which was claimed when it was accepted.
        """
        self.state = "starting"
        self._lease = lease
        self._free = free
        self._task = asyncio.get_running_loop().create_task(self._execute(), name=f"stream {self.stream_id}")

        def done(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if self.state != "over":
                self._broken(error, suspended=self.state == "suspending")
            over(self)
            self.over.set_result(None)

        self._task.add_done_callback(done)

    @property
    def over(self) -> asyncio.Future[None]:
        """Done once the run is over, or broken."""
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        return self._over

    @property
    def agent_name(self) -> str:
        """The name under which the scheduler knows its agent. It must have been started."""
        return self._equipped.agent_name

    def stop(self, reason: str) -> bool:
        """Stop the provider now; the terminal will be ``cancelled``. True for the first who asks, in time."""
        if self.state not in ("waiting", "starting", "running"):
            return False
        first = self._store.cancel(self.stream_id, reason)
        if first and self.state == "running" and self._task is not None:
            self.state = "stopping"
            self._stop_sent = True
            self._task.cancel()
        return first

    def suspend(self) -> None:
        """Let go of the stream before its end: close the provider, write no terminal, have the stream queued again."""
        if self.state == "waiting":
            self._broken(None, suspended=True)
            self.over.set_result(None)
        elif self.state in ("starting", "running") and self._task is not None:
            self.state = "suspending"
            self._task.cancel()

    async def wait(self) -> Result:
        """The result, once it is kept for good. Cancelling the one who waits changes nothing for the run.

        Raises what broke the run: StoreError, if the store gave up, and Suspended.
        """
        if self.state not in ("over", "broken"):
            await asyncio.wait({self.over})
        if self.failure is not None:
            raise self.failure
        assert self.result is not None
        return self.result

    # --- the loop -------------------------------------------------------------------------------------------------

    @property
    def _equipped(self) -> Kit:
        assert self._kit is not None
        return self._kit

    async def _execute(self) -> None:
        lease = self._lease or await self._store.claim(self.stream_id)
        if self.state == "suspending":  # and the store was quicker than the cancellation
            self._store.expire(self.stream_id)
            raise asyncio.CancelledError
        self._lease = lease
        kit = self._kit = self._equip(self)  # behind the claim: what an earlier run wrote can be read by now
        self.summary = Summary()
        self.state = "running"
        kit.watcher.started(self)
        try:
            await self._produce(kit)
        finally:
            if self.result is not None:
                await self._kept()
                kit.watcher.ended(self, self.result)
                self.state = "over"

    async def _produce(self, kit: Kit) -> None:
        """Write the log up to its terminal, whatever happens."""
        try:
            if not self._resumed(kit):
                await self._drain(kit)
        except asyncio.CancelledError:
            if self.state == "suspending":
                self._store.expire(self.stream_id)
                raise
            if self.state == "stopping":
                self._finish((), self._stopped())
            elif self.result is None:  # nobody asked to stop this stream: the loop is going down under it
                self._finish((), Interrupted(ErrorInfo("interrupted", _ENDED, retryable=True)))
            if not self._forgiven():
                raise
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

    def _resumed(self, kit: Kit) -> bool:
        """Go on where an earlier run died; true if that is the end of it, or a stop came before the start."""
        left, reason = kit.left, self._store.info(self.stream_id).stop_reason
        prelude: Sequence[Record] = () if left is None else left.prelude
        terminal = None if left is None else left.terminal
        if left is not None:
            self.summary.feed(left.history)
        if terminal is None and reason is not None:
            terminal = Cancelled(reason)
        if terminal is not None:
            self._finish(prelude, terminal)
            return True
        if prelude:
            assert self._lease is not None
            self._store.append(self._lease, prelude)
            self.summary.feed(prelude)
        return False

    async def _drain(self, kit: Kit) -> None:
        assert self._lease is not None
        store, lease, feed, clock, left = self._store, self._lease, self.summary.feed, kit.context.clock, kit.left
        before = 0 if left is None else len(left.history) + len(left.prelude)  # an agent counts from its own start
        request = kit.request()
        spending = None if kit.spending is None else kit.spending(request)
        async with aclosing(kit.batches(request, kit.context)) as batches:
            async for batch in batches:
                if before:
                    batch = _moved(batch, before)
                over_budget = None if spending is None else spending.feed(batch)
                terminal = batch[-1]
                if self.state == "suspending":  # the agent took no notice of being cancelled: leaving closes it
                    raise asyncio.CancelledError
                if isinstance(terminal, TERMINALS):
                    self._finish(batch[:-1], self._stopped() if self.state == "stopping" else terminal)
                    return
                store.append(lease, batch)
                now = clock()
                feed(batch, now)
                kit.watcher.batch(self, batch, now)
                if self.state == "stopping":  # the agent took no notice of being cancelled: leaving closes it
                    self._finish((), self._stopped())
                    return
                if over_budget is not None:
                    self._finish((), Failed(ErrorInfo("budget_exceeded", over_budget)))
                    return
                if store.behind:
                    await store.room()
        self._finish((), Interrupted(ErrorInfo("interrupted", "the agent ended without an outcome", retryable=True)))

    def _stopped(self) -> Cancelled:
        return Cancelled(self._store.info(self.stream_id).stop_reason or "")

    def _finish(self, records: Sequence[Record], terminal: Terminal) -> None:
        assert self._lease is not None
        kit = self._equipped
        self.summary.feed(records, kit.context.clock())
        outcome = terminal.__struct_config__.tag
        error = terminal.error if isinstance(terminal, Failed | Interrupted) else None
        ended = [CallEnded(call.call, outcome, error=error, branch=call.branch) for call in self.summary.open_calls]  # type: ignore[arg-type]
        self._store.finish(self._lease, [*records, *ended, terminal])
        now = kit.context.clock()
        self.summary.feed([*ended, terminal], now)
        result = self.result = self.summary.result(
            started_at=self.began,
            ended_at=now,
            stream_id=self.stream_id,
            agent=kit.agent_name,
            price_of=kit.price_of,
        )
        self.state = "ended"
        kit.watcher.batch(self, records, now)
        if self.plan is not None:
            self.plan.ended(self.task_id, result)
        self._give_back()

    def _give_back(self) -> None:
        free, self._free = self._free, None
        if free is not None:
            free()

    async def _kept(self) -> None:
        """Return when the ending is kept for good."""
        while self._store.durable:
            try:
                await self._store.settled()
                return
            except asyncio.CancelledError:
                if not self._forgiven():
                    raise

    def _forgiven(self) -> bool:
        """Whether nobody but :meth:`stop` has cancelled the run's task."""
        task = asyncio.current_task()
        assert task is not None
        if self._stop_sent:
            self._stop_sent = False
            task.uncancel()
        return not task.cancelling()

    def _broken(self, error: BaseException | None, *, suspended: bool = False) -> None:
        if error is not None:
            _log.error("stream %s could not be finished", self.stream_id, exc_info=error)
        elif suspended:
            error = Suspended(f"the stream {self.stream_id!r} was let go of before its end: resume() goes on with it")
        self.failure = error or StoreError(f"the stream {self.stream_id!r} ended without a result")
        self.state = "broken"
        if self._kit is not None:
            self._kit.watcher.broken(self)
        self._give_back()
        if self.plan is not None:
            self.plan.broken(self.failure)


def _moved(batch: Sequence[Record], by: int) -> Sequence[Record]:
    """The batch with the positions that its resets name moved on."""
    if not any(isinstance(record, Reset) for record in batch):
        return batch
    replace = msgspec.structs.replace
    return [replace(record, from_seq=record.from_seq + by) if isinstance(record, Reset) else record for record in batch]
