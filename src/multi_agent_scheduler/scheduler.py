"""The scheduler: tasks over agents, each one a stream that is written once and read by whoever wants to."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from . import blocking
from .agents.base import Agent
from .agents.function import FunctionAgent
from .errors import (
    ErrorInfo,
    InvalidConfiguration,
    InvalidOption,
    InvalidRequest,
    PlanError,
    StoreClosed,
    UnknownAgent,
    WrongLoop,
)
from .events import EventBus, get_event_bus
from .gate import Gate, SchedulerContext
from .metrics import Metrics, get_metrics
from .notices import Notices
from .plans import Merge, PlanResult, PlanRun, PlanView
from .records import Failed, Record, Skipped, numbered
from .recovery import Policy, recovery
from .runner import Run
from .scheduling.limits import Limits
from .scheduling.plan import Plan
from .scheduling.run_slots import RunSlots
from .store import opened
from .store.base import Store
from .store.core import StreamInfo, StreamSpec
from .store.follow import Follower
from .submission import Submission, pack, unpack
from .task import Result, Task, Template, Timeouts
from .views import chunks
from .views.summary import summarise
from .views.text import TextView

__all__ = ["Handle", "Limits", "MultiAgentScheduler", "PlanResult", "Task", "Template", "Timeouts"]

_DRAIN_SECONDS: Final = 5.0  # how long the end of a stream waits for async event handlers


class MultiAgentScheduler:
    """Runs tasks over agents.

    ``agents`` maps names to agents (an async generator function is taken as one). ``routes`` maps task types to agent
    names; ``default_agent`` takes the types that it does not name, and is the first agent unless said otherwise.
    ``limits`` maps agent names to :class:`Limits` (Calls at once, requests and tokens in any minute),
    ``task_type_limits`` task types to the Calls that they may make at once. ``store`` is where streams are kept:
    ``"memory://"`` or a :class:`~multi_agent_scheduler.store.base.Store`. At most
    ``max_running`` tasks run at once; of those that wait, the one with the highest priority is next, and each level of
    priority is worth half a minute of waiting.

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
    ) -> None:
        if isinstance(max_running, bool) or not isinstance(max_running, int) or max_running < 1:
            raise InvalidOption(f"max_running must be a whole number from 1, not {max_running!r}")
        self.agents: dict[str, Agent] = _named(agents)
        if routes is not None and not isinstance(routes, Mapping):
            raise InvalidConfiguration(f"routes must map task types to names of agents, not {routes!r}")
        self._routes = dict(routes or {})
        for task_type, name in self._routes.items():
            self._check_agent(name, f"routes[{task_type!r}]")
        if default_agent is not None:
            self._check_agent(default_agent, "default_agent")
        self._limits = dict(limits or {})
        for name, limit in self._limits.items():
            self._check_agent(name, "limits")
            if not isinstance(limit, Limits):
                raise InvalidOption(f"limits[{name!r}] must be Limits(...), not {limit!r}")
        self._type_limits = dict(task_type_limits or {})
        self._default = default_agent or next(iter(self.agents))
        self._store = store if isinstance(store, Store) else opened(store)
        self._bus = event_bus if event_bus is not None else get_event_bus()
        self._metrics = metrics if metrics is not None else get_metrics()
        self._names = {id(agent): name for name, agent in reversed(self.agents.items())}
        self._gate = Gate(self._limits, task_types=self._type_limits)
        self._max_running = max_running
        self._slots = RunSlots(max_running)
        self._runs: dict[str, Run] = {}
        self._clock = time.monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Lock = asyncio.Lock()
        self._open = False
        self._to_skip: list[tuple[PlanRun, str, str]] = []
        self._skipping: asyncio.Task[None] | None = None
        self._closed = False

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
        runs = list(self._runs.values())
        for run in runs:
            self._stop(run.stream_id, "the scheduler was closed")
        for run in runs:
            await run.wait()
        if self._skipping is not None:
            await self._skipping
        await self._bus.drain(_DRAIN_SECONDS)
        for agent in self.agents.values():
            await agent.aclose()
        await self._store.aclose()

    # --- choosing -------------------------------------------------------------------------------------------------

    def select_agent(self, task: Task) -> str:
        """The name of the agent for a task: its own ``agent``, its type's route, or the default agent."""
        if task.agent is not None:
            self._check_agent(task.agent, f"task {task.id!r}: agent")
            return task.agent
        return self._routes.get(task.task_type, self._default)

    def _check_agent(self, name: str, where: str) -> None:
        if not isinstance(name, str) or name not in self.agents:
            raise UnknownAgent(f"{where}: unknown agent {name!r}; the agents are {', '.join(sorted(self.agents))}")

    # --- running --------------------------------------------------------------------------------------------------

    async def execute_task_stream(
        self, task: Task, agent_name: str | None = None, batch: int = 0
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Run a task and give out its text as it arrives.

        Each piece is ``{'task_id', 'chunk', 'done': False}``; the last dict has ``done`` True, ``result``, ``latency``
        (seconds), ``success``, ``error`` and more. An agent's failure is in the last dict, never raised and never mixed
        into the text. The caller's mistakes raise :class:`~multi_agent_scheduler.errors.CallerError` before the first
        item. Leaving early stops the task.
        """
        async with aclosing(self._dicts(task, agent_name, batch)) as groups:
            async for group in groups:
                for item in group:
                    yield item

    def execute_task_stream_sync(
        self, task: Task, agent_name: str | None = None, batch: int = 0
    ) -> Generator[dict[str, Any], None, None]:
        """:meth:`execute_task_stream` as a plain generator; a scheduler used so belongs to the background loop."""
        return blocking.flatten(lambda: self._dicts(task, agent_name, batch))

    async def execute_task(self, task: Task, agent_name: str | None = None, batch: int = 0) -> Result:
        """The same stream, drained. The result is returned, not raised, whatever came of the task.

        Cancelling the one who waits stops the task.
        """
        run = await self._begin(task, agent_name, batch)
        try:
            return await run.wait()
        finally:
            await self._left(run)

    def execute_task_sync(self, task: Task, agent_name: str | None = None, batch: int = 0) -> Result:
        """:meth:`execute_task` for code without an event loop."""
        return blocking.run(self.execute_task(task, agent_name, batch))

    async def stream(self, plan: Iterable[Task]) -> AsyncGenerator[dict[str, Any], None]:
        """Run a plan and give out every task's pieces as they come.

        The dicts are those of :meth:`execute_task_stream`, each with ``stream_id`` and ``seq``; each task has its own
        last dict. A task starts the moment the last of its dependencies has ended. The order within each task holds;
        tasks come as they come. Raises :class:`~multi_agent_scheduler.errors.CallerError` before anything runs.
        Leaving early stops the plan.
        """
        async with aclosing(self._plan_dicts(plan)) as groups:
            async for group in groups:
                for item in group:
                    yield item

    async def run(self, plan: Iterable[Task]) -> PlanResult:
        """The same, drained: the results by task id, with ``usage`` and ``timeline``."""
        running = await self._begin_plan(plan)
        running.start()
        try:
            results = await running.wait()
            if self._store.durable:
                await self._store.settled()
            return results
        finally:
            await self._left_plan(running)

    async def submit(self, task: Task, agent_name: str | None = None) -> Handle:
        """Start a task and return at once; it goes on whether anybody reads it or not."""
        return Handle(self, await self._begin(task, agent_name, 0))

    async def resume(self) -> Sequence[str]:
        """Go on with what a crash left in a durable store; gives the ids of the streams, which run as if submitted.

        A stream without content runs again as if nothing had been. One with content ends as interrupted, with what came
        kept; in a plan it is reset, visibly, and runs again. :meth:`wait_idle` returns when all of it has ended.
        """
        await self._ready()
        queued = self._store.streams(states={"queued"})
        left = [info for info in queued if info.stream_id not in self._runs]
        for plan_id in dict.fromkeys(info.plan_id for info in left if info.plan_id is not None):
            self._resume_plan(plan_id, self._store.streams(plan_id=plan_id))
        for info in left:
            if info.plan_id is None:
                kept = unpack(self._store.body(info.stream_id))
                notices = Notices(self._bus, self._metrics, kept.task, kept.batch)
                self._enqueue(self._remade(kept, info, notices, {}, "off"), kept.task)
        return [info.stream_id for info in left]

    async def wait_idle(self) -> None:
        """Return when nothing runs or waits to run in this process."""
        while self._runs or self._skipping is not None:
            waiting = [run.over for run in self._runs.values()]
            await asyncio.wait([*waiting, *([self._skipping] if self._skipping is not None else [])])

    def streams(self) -> Sequence[StreamInfo]:
        """The streams that the store holds, oldest first."""
        return self._store.streams()

    async def follow(self, stream_id: str, after: int | None = None) -> AsyncGenerator[Record, None]:
        """A stream's records behind seq ``after``, those that are there and those that come, up to the terminal.

        Leaving changes nothing for the stream. Raises StreamNotFound and CursorError.
        """
        await self._ready()
        follower = Follower(self._store, stream_id, after)
        while True:
            first = follower.seq + 1
            records = await follower.next()
            if not records:
                return
            for record in numbered(records, first):
                yield record

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _dicts(
        self, task: Task, agent_name: str | None, batch: int
    ) -> AsyncGenerator[Sequence[dict[str, Any]], None]:
        run = await self._begin(task, agent_name, batch)
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
            await self._left(run)

    async def _plan_dicts(self, tasks: Iterable[Task]) -> AsyncGenerator[Sequence[dict[str, Any]], None]:
        running = await self._begin_plan(tasks)
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
                    await self._bus.drain(_DRAIN_SECONDS)
                if dicts:
                    yield dicts
        finally:
            merge.close()
            await self._left_plan(running)

    async def _begin(self, task: Task, agent_name: str | None, batch: int) -> Run:
        await self._ready()
        if not isinstance(task, Task):
            raise InvalidRequest(f"a task must be a Task, not {type(task).__name__}")
        if task.depends_on:
            parents = ", ".join(map(repr, task.depends_on))
            raise PlanError(f"task {task.id!r} depends on {parents}: hand all of them to run() or stream()")
        agent_name = self._checked(task, agent_name)
        stream_id = os.urandom(16).hex()
        await self._store.submit([self._spec(stream_id, task, agent_name, batch)])
        run = self._made(task, agent_name, stream_id, Notices(self._bus, self._metrics, task, batch), {}, "")
        self._enqueue(run, task)
        return run

    def _spec(self, stream_id: str, task: Task, agent_name: str, batch: int, plan_id: str | None = None) -> StreamSpec:
        body = pack(Submission(task, agent_name, batch)) if self._store.durable else b""
        return StreamSpec(stream_id, task.id, plan_id, body=body)

    async def _begin_plan(self, tasks: Iterable[Task]) -> PlanRun:
        await self._ready()
        listed = list(tasks) if isinstance(tasks, Iterable) else [tasks]
        if isinstance(tasks, Task):
            raise PlanError("a plan is a list of tasks: put the one task into a list, or use execute_task()")
        wrong = next((task for task in listed if not isinstance(task, Task)), None)
        if wrong is not None or not listed:
            found = "" if wrong is None else f", not {wrong!r}"
            raise PlanError(f"a plan is a list of tasks, at least one{found}")
        plan = Plan(listed)
        names = {task.id: self._checked(task, None) for task in listed}
        plan_id = os.urandom(16).hex()
        streams = {task.id: os.urandom(16).hex() for task in listed}
        specs = [self._spec(streams[task.id], task, names[task.id], 0, plan_id) for task in listed]
        await self._store.submit(specs)

        def start(running: PlanRun, task_id: str, texts: Mapping[str, str]) -> None:
            task = plan.task(task_id)
            notices = Notices(self._bus, self._metrics, task, 0, lambda result: running.ended(task_id, result))
            run = self._made(task, names[task_id], streams[task_id], notices, texts, plan_id)
            run.on_failure = running.broken
            self._enqueue(run, task)

        return PlanRun(
            plan_id, plan, streams, self._clock, start_task=start, skip_task=self._skip, stop_task=self._stop
        )

    def _resume_plan(self, plan_id: str, infos: Sequence[StreamInfo]) -> None:
        kept = {info.task_id: unpack(self._store.body(info.stream_id)) for info in infos if not info.ended}
        found = {info.task_id: info for info in infos}
        # Of a task that has ended only the end matters; one whose stream is kept no more cannot have been a success.
        lost = {name for it in kept.values() for name in it.task.depends_on if name not in found}
        plan = Plan(
            [*(it.task for it in kept.values()), *(Task(name, "") for name in (*found, *lost) if name not in kept)]
        )
        streams = {info.task_id: info.stream_id for info in infos}

        def start(running: PlanRun, task_id: str, texts: Mapping[str, str]) -> None:
            it = kept[task_id]
            notices = Notices(
                self._bus, self._metrics, it.task, it.batch, lambda result: running.ended(task_id, result)
            )
            run = self._remade(it, found[task_id], notices, texts, "reset")
            run.on_failure = running.broken
            self._enqueue(run, it.task)

        running = PlanRun(
            plan_id, plan, streams, self._clock, start_task=start, skip_task=self._skip, stop_task=self._stop
        )
        ended = {info.task_id: summarise(self._log_of(info), stream_id=info.stream_id) for info in infos if info.ended}
        running.restore({**ended, **{name: summarise(()) for name in lost}})
        running.start()

    def _remade(
        self, kept: Submission, info: StreamInfo, notices: Notices, texts: Mapping[str, str], policy: Policy
    ) -> Run:
        """The run that goes on with a stream from an earlier process."""
        known = kept.agent in self.agents
        run = self._made(
            kept.task, kept.agent if known else self._default, info.stream_id, notices, texts, info.plan_id or ""
        )
        left = recovery(self._log_of(info), policy)
        if not known:
            names = ", ".join(sorted(self.agents))
            problem = f"the agent {kept.agent!r} that the task was given to is not here; the agents are {names}"
            left = msgspec.structs.replace(left, terminal=Failed(ErrorInfo("invalid_request_error", problem)))
        run.go_on(left)
        return run

    def _log_of(self, info: StreamInfo) -> list[Record]:
        follower = Follower(self._store, info.stream_id)
        records: list[Record] = []
        while some := follower.at_hand():
            records += some
        return records

    def _checked(self, task: Task, agent_name: str | None) -> str:
        """The name of the agent for a task that can be run. Raises CallerError."""
        task.check()
        if agent_name is None:
            agent_name = self.select_agent(task)
        else:
            self._check_agent(agent_name, f"task {task.id!r}")
        agent = self.agents[agent_name]
        if isinstance(task.prompt, Template):  # its text is not known yet
            agent.request("a prompt", **task.keywords)
        else:
            agent.check(agent.request(task.prompt, **task.keywords))
        return agent_name

    def _made(
        self, task: Task, agent_name: str, stream_id: str, notices: Notices, texts: Mapping[str, str], key: str
    ) -> Run:
        """A run of a task; ``key`` is who shares its agent's limits fairly with others: its plan, if it has one."""
        agent = self.agents[agent_name]
        return Run(
            self._store,
            stream_id,
            agent=agent,
            agent_name=agent_name,
            request=lambda: agent.request(task.filled(texts), **task.keywords),
            context=SchedulerContext(self._gate, self._names, task.timeouts, task=task, key=key, metrics=self._metrics),
            watcher=notices,
        )

    def _enqueue(self, run: Run, task: Task) -> None:
        self._runs[run.stream_id] = run
        if self._slots.ask(run.stream_id, task.priority, self._clock()):
            run.start(self._over)
        else:
            run.waits_for_slot = True

    def _over(self, run: Run) -> None:
        self._runs.pop(run.stream_id, None)
        if run.failure is not None and run.on_failure is not None:
            run.on_failure(run.failure)
        if run.waits_for_slot:  # it was stopped before its turn came, and had no slot to give back
            return
        following = self._slots.release()
        if following is not None:
            self._runs[following].waits_for_slot = False
            self._runs[following].start(self._over)

    def _stop(self, stream_id: str, reason: str) -> bool:
        run = self._runs.get(stream_id)
        if run is None:
            return self._store.cancel(stream_id, reason)  # it has not begun: it will find the stop when it does
        first = run.stop(reason)
        if first and not run.started:  # all that it will do now is to write its terminal: that needs no slot
            self._slots.leave(stream_id)
            run.start(self._over)
        return first

    def _skip(self, running: PlanRun, task_id: str, reason: str) -> None:
        self._to_skip.append((running, task_id, reason))
        if self._skipping is None:
            self._skipping = asyncio.get_running_loop().create_task(self._write_skips(), name="skipped tasks")

    async def _write_skips(self) -> None:
        try:
            while self._to_skip:
                some, self._to_skip = self._to_skip, []
                leases = await asyncio.gather(*(self._store.claim(run.streams[task_id]) for run, task_id, _ in some))
                for lease, (run, task_id, reason) in zip(leases, some, strict=True):
                    terminal = Skipped(reason)
                    self._store.finish(lease, [terminal])
                    result = summarise([terminal], stream_id=lease.stream_id)
                    self._metrics.stream_ended(run.plan.task(task_id).task_type, "skipped", False, 0.0, None, None)
                    run.ended(task_id, result)
        finally:
            self._skipping = None

    async def _left_plan(self, running: PlanRun) -> None:
        if not running.done:
            running.stop("its reader left")
            await running.wait()

    async def _left(self, run: Run) -> None:
        """The only reader has gone: the run has ended, or is stopped."""
        if run.result is None and run.failure is None:
            self._stop(run.stream_id, "its reader left")
            await run.wait()

    async def _ready(self) -> None:
        """Belong to this loop, and have the store open in it."""
        self._bind()
        if not self._open:
            async with self._opening:
                if not self._open:
                    await self._store.open()
                    self._store.on_cancel = self._stop
                    self._open = True

    def _bind(self) -> None:
        if self._closed:
            raise StoreClosed("the scheduler is closed")
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and not self._loop.is_closed():
            raise WrongLoop("this scheduler belongs to another event loop: make one scheduler for each loop")
        self._loop = loop
        self._opening, self._open = asyncio.Lock(), False
        self._runs.clear()  # those of a loop that is no more
        self._slots = RunSlots(self._max_running)
        self._gate = Gate(self._limits, task_types=self._type_limits)


class Handle:
    """A submitted task."""

    def __init__(self, scheduler: MultiAgentScheduler, run: Run) -> None:
        self._scheduler = scheduler
        self._run = run
        self.stream_id = run.stream_id

    async def result(self) -> Result:
        """The result, once there is one; not raised, whatever it is."""
        return await self._run.wait()

    async def cancel(self, reason: str = "cancelled") -> bool:
        """Stop the task and wait until its provider is closed; False if it had ended or was stopped already."""
        if self._run.result is not None:
            return False
        first = self._scheduler._stop(self.stream_id, reason)
        await self._run.wait()
        return first

    def follow(self, after: int | None = None) -> AsyncGenerator[Record, None]:
        """The task's records behind seq ``after``; see :meth:`MultiAgentScheduler.follow`."""
        return self._scheduler.follow(self.stream_id, after)


def _named(agents: Mapping[str, Agent | Callable[..., Any]]) -> dict[str, Agent]:
    if not isinstance(agents, Mapping) or not agents:
        raise InvalidConfiguration("agents must be a mapping of names to agents, with at least one")
    named: dict[str, Agent] = {}
    for name, agent in agents.items():
        if not isinstance(name, str) or not name:
            raise InvalidConfiguration(f"agents: a name must be a non-empty string, not {name!r}")
        if not isinstance(agent, Agent):
            if isinstance(agent, type) and issubclass(agent, Agent):
                raise InvalidConfiguration(f"agents[{name!r}] must be an agent, not its class: {agent.__name__}(...)")
            if not callable(agent) or isinstance(agent, type):
                raise InvalidConfiguration(f"agents[{name!r}] must be an agent, not {agent!r}")
            agent = FunctionAgent(agent, name=name)
        named[name] = agent
    return named
