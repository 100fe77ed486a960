"""The scheduler: tasks over agents, each one a stream that is written once and read by whoever wants to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from . import blocking
from .accounts import Ledger
from .agents.base import Agent
from .agents.cached import Cache
from .errors import InvalidOption, StoreClosed, WrongLoop
from .events import EventBus, get_event_bus
from .execution import Execution
from .gate import Gate
from .handles import Handle, PlanHandle
from .metrics import Metrics, get_metrics
from .notices import Notified
from .pacing import Pace, paced, singly
from .plans import Merge, PlanResult, PlanView
from .reading import Reading, Snapshot
from .records import Record
from .roster import Roster
from .runner import Run
from .scheduling.budget import Account, Price
from .scheduling.limits import Limits
from .store import opened
from .store.base import Log, Store
from .store.core import StreamInfo, StreamState
from .store.follow import Follower
from .structured import ObjectTasks
from .submission import Submission, Terms, terms
from .task import Budget, Result, Task, Template, Timeouts
from .views import chunks
from .views.pacing import parse_pace
from .views.text import TextView

if TYPE_CHECKING:
    from .telemetry import Telemetry

__all__ = [
    "Handle",
    "Limits",
    "MultiAgentScheduler",
    "PlanHandle",
    "PlanResult",
    "Snapshot",
    "Task",
    "Template",
    "Timeouts",
]

_DRAIN_SECONDS: Final = 5.0  # how long the end of a stream waits for async event handlers


class MultiAgentScheduler(ObjectTasks):
    """Runs tasks over agents.

    ``agents`` maps names to agents (an async generator function is taken as one). ``routes`` maps task types to agent
    names; ``default_agent`` takes the types that it does not name, and is the first agent unless said otherwise.
    ``limits`` maps agent names to :class:`Limits` (Calls at once, requests and tokens in any minute),
    ``task_type_limits`` task types to the Calls that they may make at once. ``store`` is where streams are kept:
    ``"memory://"`` or a :class:`~multi_agent_scheduler.store.base.Store`. At most ``max_running`` tasks run at once;
    one that waits for its agent's limits, or to try again, leaves its place to tasks of other agents, so that a full
    agent holds up nobody else. Of those that wait, the next is found as among an agent's Calls: by priority, in fair
    shares of the owners and plans, and so that nothing starves. ``clock`` gives seconds, and only goes forward.
    ``telemetry`` (:class:`~multi_agent_scheduler.telemetry.Telemetry`) tells OpenTelemetry of tasks and Calls.

    What is run may have an ``owner``: its streams, its share of an agent's limits and its cached answers are that
    owner's. ``trace`` has fields that are sent to every provider (``{"traceparent": ...}``). Where a reader names an
    owner, the streams of others are not there for it.

    A scheduler belongs to the event loop in which it is first used; from another it raises
    :class:`~multi_agent_scheduler.errors.WrongLoop`. ``async with`` or :meth:`aclose` stops what still runs.
    """

    def __init__(
        self,
        agents: Mapping[str, Agent | Callable[..., Any]],
        *,
        store: str | Store = "memory://",
        routes: Mapping[str, str] | None = None,
        default_agent: str | None = None,
        limits: Mapping[str, Limits] | None = None,
        task_type_limits: Mapping[str, int] | None = None,
        max_running: int = 1000,
        event_bus: EventBus | None = None,
        metrics: Metrics | None = None,
        cache: Cache | None = None,
        budgets: Mapping[str, Budget] | None = None,
        prices: Mapping[str, Price] | None = None,
        paces: Mapping[str, Pace | str | float] | None = None,
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if isinstance(max_running, bool) or not isinstance(max_running, int) or max_running < 1:
            raise InvalidOption(f"max_running must be a whole number from 1, not {max_running!r}")
        self._roster = Roster(agents, routes=routes, default=default_agent, cache=cache)
        self.agents = self._roster.agents
        self._limits = dict(limits or {})
        for name, limit in self._limits.items():
            self._roster.check(name, "limits")
            if not isinstance(limit, Limits):
                raise InvalidOption(f"limits[{name!r}] must be Limits(...), not {limit!r}")
        self._type_limits = dict(task_type_limits or {})
        Gate(self._limits, task_types=self._type_limits)  # what is wrong with them is said now
        self._store = store if isinstance(store, Store) else opened(store)
        self._reading = Reading(self._store)
        self._bus = event_bus if event_bus is not None else get_event_bus()
        self._metrics = metrics if metrics is not None else get_metrics()
        self._telemetry = telemetry
        self._ledger = Ledger(budgets, prices)
        self._paces = {owner: parse_pace(pace) for owner, pace in (paces or {}).items()}
        self._max_running = max_running
        self._clock = _monotonic if clock is None else clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._execution: Execution | None = None
        self._opening: asyncio.Lock = asyncio.Lock()
        self._open = False
        self._closed = False

    async def open(self) -> None:
        """Open the store in this loop, which everything that runs or follows something does by itself."""
        await self._ready()

    async def __aenter__(self) -> Self:
        await self._ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop what runs, wait until it has ended, hand out the last events, and close the agents and the store."""
        self._closed = True
        if self._execution is not None:
            await self._execution.aclose()
        await self._bus.drain(_DRAIN_SECONDS)
        await self._roster.aclose()
        await self._store.aclose()

    async def suspend(self) -> None:
        """Let go of what has not ended, for a later process, and take nothing more; :meth:`aclose` is still to come.

        Providers are closed at once, no terminal is written, and in a durable store :meth:`resume` goes on by the rules
        that hold after a crash. Whoever waits for a task or reads a plan gets
        :class:`~multi_agent_scheduler.errors.Suspended`; what has ended stays so.
        """
        self._closed = True
        if self._execution is not None:
            await self._execution.suspend()

    def select_agent(self, task: Task) -> str:
        """The name of the agent for a task: its own ``agent``, its type's route, or the default agent."""
        return self._roster.select(task)

    # --- running --------------------------------------------------------------------------------------------------

    async def execute_task_stream(
        self,
        task: Task,
        agent_name: str | None = None,
        batch: int = 0,
        *,
        owner: str = "",
        trace: Mapping[str, str] | None = None,
        pace: Pace | str | float | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Run a task and give out its text as it arrives.

        Each piece is ``{'task_id', 'chunk', 'done': False}``; the last dict has ``done`` True, ``result``, ``latency``
        (seconds), ``success``, ``error`` and more. An agent's failure is in the last dict, never raised and never mixed
        into the text. The caller's mistakes raise :class:`~multi_agent_scheduler.errors.CallerError` before the first
        item. With ``pace`` ("50/s", "50 tokens/s") the pieces come no faster than that, whatever the agent does; the
        task itself is not slowed. Leaving early stops the task.
        """
        dicts = self._paced(self._dicts(task, agent_name, batch, terms(owner, trace)), owner, pace)
        async with aclosing(dicts) as groups:
            async for group in groups:
                for item in group:
                    yield item

    def execute_task_stream_sync(
        self,
        task: Task,
        agent_name: str | None = None,
        batch: int = 0,
        *,
        owner: str = "",
        trace: Mapping[str, str] | None = None,
        pace: Pace | str | float | None = None,
    ) -> Generator[dict[str, Any], None, None]:
        """:meth:`execute_task_stream` as a plain generator; a scheduler used so belongs to the background loop."""
        return blocking.flatten(
            lambda: self._paced(self._dicts(task, agent_name, batch, terms(owner, trace)), owner, pace)
        )

    async def execute_task(
        self,
        task: Task,
        agent_name: str | None = None,
        batch: int = 0,
        *,
        owner: str = "",
        trace: Mapping[str, str] | None = None,
    ) -> Result:
        """The same stream, drained. The result is returned, not raised, whatever came of the task.

        Cancelling the one who waits stops the task.
        """
        execution = await self._ready()
        run = await self._begin(execution, task, agent_name, batch, terms(owner, trace))
        try:
            return await run.wait()
        finally:
            await execution.left(run)

    def execute_task_sync(
        self,
        task: Task,
        agent_name: str | None = None,
        batch: int = 0,
        *,
        owner: str = "",
        trace: Mapping[str, str] | None = None,
    ) -> Result:
        """:meth:`execute_task` for code without an event loop."""
        return blocking.run(self.execute_task(task, agent_name, batch, owner=owner, trace=trace))

    async def stream(
        self,
        plan: Iterable[Task],
        *,
        owner: str = "",
        trace: Mapping[str, str] | None = None,
        budget: Budget | None = None,
        pace: Pace | str | float | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Run a plan and give out every task's pieces as they come.

        The dicts are those of :meth:`execute_task_stream`, each with ``stream_id`` and ``seq``; each task has its own
        last dict. A task starts the moment the last of its dependencies has ended. The order within each task holds;
        tasks come as they come. If a task's answer begins again after some of it was shown (its agent failed, and
        another took over from the start), it gives no further pieces, and its last dict has ``reset`` True: what was
        shown is void, and ``result`` is the answer. ``budget`` is what all tasks together may use; ``pace`` is that of
        the pieces together. Raises :class:`~multi_agent_scheduler.errors.CallerError` before anything runs. Leaving
        early stops the plan.
        """
        dicts = self._paced(self._plan_dicts(plan, terms(owner, trace), budget), owner, pace)
        async with aclosing(dicts) as groups:
            async for group in groups:
                for item in group:
                    yield item

    async def run(
        self,
        plan: Iterable[Task],
        *,
        owner: str = "",
        trace: Mapping[str, str] | None = None,
        budget: Budget | None = None,
    ) -> PlanResult:
        """The same, drained: the results by task id, with ``usage`` and ``timeline``."""
        execution = await self._ready()
        running = await execution.submit_plan(plan, terms(owner, trace), budget=budget)
        running.start()
        try:
            return await running.wait()
        finally:
            await execution.left_plan(running)

    async def submit(
        self,
        task: Task,
        agent_name: str | None = None,
        *,
        owner: str = "",
        stream_id: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> Handle:
        """Start a task and return at once; it goes on whether anybody reads it or not.

        With a ``stream_id`` of the caller's own a submission can be repeated: if there is that stream already, nothing
        is submitted and :class:`~multi_agent_scheduler.errors.StreamExists` is raised.
        """
        execution = await self._ready()
        run = await self._begin(execution, task, agent_name, 0, terms(owner, trace), stream_id)
        return Handle(execution, self._reading, run)

    async def submit_plan(
        self,
        tasks: Iterable[Task],
        *,
        owner: str = "",
        plan_id: str | None = None,
        stream_ids: Mapping[str, str] | None = None,
        budget: Budget | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> PlanHandle:
        """Start a plan and return at once; it goes on whether anybody reads it or not.

        ``plan_id`` and ``stream_ids`` (by task id) are the caller's own, if given: for an id that exists already
        nothing is submitted and :class:`~multi_agent_scheduler.errors.StreamExists` is raised.
        """
        execution = await self._ready()
        running = await execution.submit_plan(tasks, terms(owner, trace), plan_id, stream_ids, budget)
        running.start()
        return PlanHandle(running)

    async def resume(self) -> Sequence[str]:
        """Go on with what a crash left in a durable store; gives the ids of the streams, which run as if submitted.

        A stream without content runs again as if nothing had been. One with content ends as interrupted, with what came
        kept; in a plan it is reset, visibly, and runs again. :meth:`wait_idle` returns when all of it has ended.
        """
        execution = await self._ready()
        return await execution.resume()

    async def wait_idle(self) -> None:
        """Return when nothing runs or waits to run in this process."""
        if self._execution is not None:
            await self._execution.wait_idle()

    def set_budget(self, owner: str, budget: Budget) -> None:
        """Give an owner a budget, or another one; what its streams have used counts against it."""
        self._ledger.set_budget(owner, budget)

    def set_meter(self, meter: Callable[[str], Account | None]) -> None:
        """Charge each stream, while it runs, also to an account that ``meter`` makes for its owner, or to none."""
        self._ledger.set_meter(meter)

    def open_streams(self, owner: str = "") -> int:
        """How many streams of an owner this process runs, or has accepted to run."""
        return 0 if self._execution is None else self._execution.open_streams(owner)

    # --- streams --------------------------------------------------------------------------------------------------

    def find(self, stream_id: str, *, owner: str | None = None) -> StreamInfo:
        """What the store knows of a stream.

        Raises StreamNotFound, also for the stream of another ``owner``: whoever asks cannot tell the two apart.
        """
        return self._reading.find(stream_id, owner)

    def streams(
        self,
        *,
        owner: str | None = None,
        plan_id: str | None = None,
        states: Collection[StreamState] | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> Sequence[StreamInfo]:
        """The streams that the store holds, oldest first; of one owner, one plan, in some states, if asked so.

        With ``limit``, of those only the newest. ``before`` is a stream id: only those older than it, which is the page
        before; raises StreamNotFound if it is not there.
        """
        return self._reading.streams(owner=owner, plan_id=plan_id, states=states, before=before, limit=limit)

    async def follow(
        self,
        stream_id: str,
        after: int | None = None,
        *,
        owner: str | None = None,
        pace: Pace | str | float | None = None,
    ) -> AsyncGenerator[Record, None]:
        """A stream's records behind seq ``after``, those that are there and those that come, up to the terminal.

        With ``pace`` ("50/s", "50 tokens/s") no faster, for this reader alone. Leaving changes nothing for the stream.
        Raises StreamNotFound, CursorError, and LogTrimmed where the records behind ``after`` were trimmed away, because
        the stream ended long ago: :meth:`snapshot` still has its answer.
        """
        await self._ready()
        if pace is None and owner is not None:
            pace = self._paces.get(owner)
        async with aclosing(self._reading.follow(stream_id, after, owner, pace)) as records:
            async for record in records:
                yield record

    def log(self, stream_id: str, *, owner: str | None = None) -> Log:
        """A stream's log, for a reader that subscribes to it itself. Raises StreamNotFound."""
        return self._reading.log(stream_id, owner)

    async def snapshot(self, stream_id: str, *, owner: str | None = None) -> Snapshot:
        """What is shown of a stream by now, folded. Raises StreamNotFound."""
        await self._ready()
        return await self._reading.snapshot(stream_id, owner)

    async def cancel(self, stream_id: str, reason: str = "cancelled", *, owner: str | None = None) -> bool:
        """Stop a stream, and wait until its provider is closed if it runs here; the terminal will be ``cancelled``.

        False if it had ended, or somebody else has asked. Raises StreamNotFound.
        """
        execution = await self._ready()
        if self._reading.find(stream_id, owner).ended:
            return False
        return await execution.cancel(stream_id, reason)

    def _paced(
        self, groups: AsyncGenerator[Sequence[dict[str, Any]], None], owner: str, pace: Pace | str | float | None
    ) -> AsyncGenerator[Sequence[dict[str, Any]], None]:
        if pace is None:
            pace = self._paces.get(owner)
        return groups if pace is None else singly(paced(_items(groups), pace))

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _dicts(
        self, task: Task, agent_name: str | None, batch: int, on: Terms
    ) -> AsyncGenerator[Sequence[dict[str, Any]], None]:
        execution = await self._ready()
        run = await self._begin(execution, task, agent_name, batch, on)
        try:
            follower, view, task_id = Follower(self._store, run.stream_id), TextView(), task.id
            while records := await follower.next():
                texts = view.texts(records)
                if texts:
                    yield [chunks.chunk(task_id, text) for text in texts]
            result = await run.wait()
            await self._bus.drain(_DRAIN_SECONDS)
            yield (chunks.final(task, run.agent_name, result, batch=batch),)
        finally:
            await execution.left(run)

    async def _plan_dicts(
        self, tasks: Iterable[Task], on: Terms, budget: Budget | None
    ) -> AsyncGenerator[Sequence[dict[str, Any]], None]:
        execution = await self._ready()
        running = await execution.submit_plan(tasks, on, budget=budget)
        merge, view, left = Merge(self._store), PlanView(running), len(running.streams)
        running.listen(lambda task_id: merge.add(running.streams[task_id], task_id), merge.fail)
        running.start()
        try:
            while left:
                task_id, first, records = await merge.next()
                dicts = view.dicts(task_id, first, records)
                if dicts and dicts[-1]["done"]:
                    left -= 1
                    merge.drop(running.streams[task_id])
                    await execution.told(running.streams[task_id])
                    await self._bus.drain(_DRAIN_SECONDS)
                if dicts:
                    yield dicts
        finally:
            merge.close()
            await execution.left_plan(running)

    async def _begun(self, task: Task, agent_name: str | None, on: Terms) -> tuple[Execution, Run]:
        execution = await self._ready()
        return execution, await self._begin(execution, task, agent_name, 0, on)

    async def _begin(
        self, execution: Execution, task: Task, agent_name: str | None, batch: int, on: Terms,
        stream_id: str | None = None,
    ) -> Run:  # fmt: skip
        return await execution.submit(Submission(task, self._roster.chosen(task, agent_name), batch), on, stream_id)

    async def _ready(self) -> Execution:
        """What runs here in this loop, with the store open in it."""
        execution = self._bound()
        if not self._open:
            async with self._opening:
                if not self._open:
                    await self._store.open()
                    self._store.on_cancel = execution.stop
                    self._open = True
        return execution

    def _bound(self) -> Execution:
        if self._closed:
            raise StoreClosed("the scheduler is closed")
        loop = asyncio.get_running_loop()
        if self._execution is not None:
            if self._loop is loop:
                return self._execution
            if self._loop is not None and not self._loop.is_closed():
                raise WrongLoop("this scheduler belongs to another event loop: make one scheduler for each loop")
        self._loop = loop
        self._opening, self._open = asyncio.Lock(), False
        self._execution = Execution(
            self._store,
            self._roster,
            self._ledger,
            Gate(self._limits, task_types=self._type_limits),
            Notified(self._bus, self._metrics, self._telemetry),
            max_running=self._max_running,
            clock=self._clock,
        )
        return self._execution


def _monotonic() -> float:
    return time.monotonic()  # looked up now: a virtual loop puts its own in that place


async def _items(groups: AsyncGenerator[Sequence[dict[str, Any]], None]) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(groups):
        async for group in groups:
            for item in group:
                yield item
