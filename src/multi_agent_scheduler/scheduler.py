"""The scheduler: tasks over agents, each one a stream that is written once and read by whoever wants to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self

from . import blocking
from .agents.base import Agent
from .agents.context import Context, Permit
from .agents.function import FunctionAgent
from .errors import InvalidConfiguration, InvalidRequest, StoreClosed, UnknownAgent, WrongLoop
from .events import STREAM_CANCELLED, STREAM_CHUNK, STREAM_COMPLETED, STREAM_FAILED, STREAM_STARTED, EventBus, get_event_bus
from .metrics import Metrics, get_metrics
from .records import Record, Text, numbered
from .runner import Run, Watcher
from .scheduling.admission import Admission, Ticket
from .store.base import Store
from .store.core import StreamInfo, StreamSpec
from .store.follow import Follower
from .store.memory import MemoryStore
from .task import Result, Task, Timeouts
from .views import chunks
from .views.text import TextView

__all__ = ["Handle", "MultiAgentScheduler", "Task", "Timeouts"]

_DRAIN_SECONDS: Final = 5.0  # how long the end of a stream waits for async event handlers


class MultiAgentScheduler:
    """Runs tasks over agents.

    ``agents`` maps names to agents (an async generator function is taken as one). ``routes`` maps task types to agent
    names; ``default_agent`` takes the types that it does not name, and is the first agent unless said otherwise.
    ``store`` is where streams are kept: ``"memory://"`` or a :class:`~multi_agent_scheduler.store.base.Store`.

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
        event_bus: EventBus | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.agents: dict[str, Agent] = _named(agents)
        self._routes = dict(routes or {})
        for task_type, name in self._routes.items():
            self._check_agent(name, f"routes[{task_type!r}]")
        if default_agent is not None:
            self._check_agent(default_agent, "default_agent")
        self._default = default_agent or next(iter(self.agents))
        self._store = _opened(store)
        self._bus = event_bus if event_bus is not None else get_event_bus()
        self._metrics = metrics if metrics is not None else get_metrics()
        self._names = {id(agent): name for name, agent in reversed(self.agents.items())}
        self._gate = _Gate()
        self._runs: dict[str, Run] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        self._bind()
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
            run.stop("the scheduler was closed")
        for run in runs:
            await run.wait()
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
        if name not in self.agents:
            raise UnknownAgent(f"{where}: unknown agent {name!r}; the agents are {', '.join(sorted(self.agents))}")

    # --- running --------------------------------------------------------------------------------------------------

    async def execute_task_stream(
        self, task: Task, agent_name: str | None = None, batch: int = 0
    ) -> AsyncIterator[dict[str, Any]]:
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
    ) -> Iterator[dict[str, Any]]:
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

    async def submit(self, task: Task, agent_name: str | None = None) -> Handle:
        """Start a task and return at once; it goes on whether anybody reads it or not."""
        return Handle(self, await self._begin(task, agent_name, 0))

    def streams(self) -> Sequence[StreamInfo]:
        """The streams that the store holds, oldest first."""
        return self._store.streams()

    async def follow(self, stream_id: str, after: int | None = None) -> AsyncIterator[Record]:
        """A stream's records behind seq ``after``, those that are there and those that come, up to the terminal.

        Leaving changes nothing for the stream. Raises StreamNotFound and CursorError.
        """
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

    async def _begin(self, task: Task, agent_name: str | None, batch: int) -> Run:
        self._bind()
        if not isinstance(task, Task):
            raise InvalidRequest(f"a task must be a Task, not {type(task).__name__}")
        task.check()
        if agent_name is None:
            agent_name = self.select_agent(task)
        else:
            self._check_agent(agent_name, f"task {task.id!r}")
        agent = self.agents[agent_name]
        request = agent.request(task.filled({}), **task.keywords)
        agent.check(request)
        stream_id = os.urandom(16).hex()
        run = Run(
            self._store,
            stream_id,
            agent=agent,
            agent_name=agent_name,
            request=request,
            context=_SchedulerContext(self._gate, self._names, task.timeouts),
            watcher=_Notices(self._bus, self._metrics, task, batch),
        )
        await self._store.submit([StreamSpec(stream_id, task.id)])
        self._runs[stream_id] = run
        run.start(self._forget)
        return run

    def _forget(self, run: Run) -> None:
        self._runs.pop(run.stream_id, None)

    async def _left(self, run: Run) -> None:
        """The only reader has gone: the run has ended, or is stopped."""
        if run.result is None:
            run.stop("its reader left")
            await run.wait()

    def _bind(self) -> None:
        if self._closed:
            raise StoreClosed("the scheduler is closed")
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and not self._loop.is_closed():
            raise WrongLoop("this scheduler belongs to another event loop: make one scheduler for each loop")
        self._loop = loop
        self._runs.clear()  # those of a loop that is no more
        self._gate = _Gate()


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
        first = self._run.stop(reason)
        await self._run.wait()
        return first

    def follow(self, after: int | None = None) -> AsyncIterator[Record]:
        """The task's records behind seq ``after``; see :meth:`MultiAgentScheduler.follow`."""
        return self._scheduler.follow(self.stream_id, after)


class _Notices(Watcher):
    """Events and metrics of one run."""

    def __init__(self, bus: EventBus, metrics: Metrics, task: Task, batch: int) -> None:
        self._bus = bus
        self._metrics = metrics
        self._task = task
        self._batch = batch
        self._gaps = metrics.histogram("stream.between_chunks_seconds")
        self._last: float | None = None

    def started(self, run: Run) -> None:
        self._metrics.stream_started(self._task.task_type)
        if self._bus.has_listeners(STREAM_STARTED):
            self._bus.emit(STREAM_STARTED, self._about(run))

    def batch(self, run: Run, records: Sequence[Record], now: float) -> None:
        texts = [record.text for record in records if type(record) is Text and record.branch is None and record.text]
        if not texts:
            return
        if self._last is not None:
            self._gaps.observe(now - self._last)
        self._last = now
        if self._bus.has_listeners(STREAM_CHUNK):
            for text in texts:
                self._bus.emit(STREAM_CHUNK, {"task_id": self._task.id, "stream_id": run.stream_id, "chunk": text})

    def ended(self, run: Run, result: Result) -> None:
        self._metrics.stream_ended(
            self._task.task_type, result.state, result.success, result.latency, result.ttft, result.usage
        )
        name = STREAM_FAILED
        if result.success:
            name = STREAM_COMPLETED
        elif result.state == "cancelled":
            name = STREAM_CANCELLED
        if self._bus.has_listeners(name):
            about = self._about(run)
            about |= {
                "success": result.success,
                "state": result.state,
                "error": None if result.error is None else str(result.error),
                "latency": result.latency,
                "ttft": result.ttft,
                "stop_reason": result.stop_reason,
                "usage": chunks.usage_dict(result.usage),
                "characters": len(result.text),
            }
            self._bus.emit(name, about)

    def _about(self, run: Run) -> dict[str, Any]:
        return {
            "task_id": self._task.id,
            "task_type": self._task.task_type,
            "agent": run.agent_name,
            "stream_id": run.stream_id,
            "batch": self._batch,
        }


class _Gate:
    """Admission with waiting: the slots of a scheduler's agents."""

    def __init__(self) -> None:
        self._admission = Admission()
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}

    async def admit(self, agent: str, slots: int | None) -> Permit:
        """Wait for one of the ``slots`` of the agent named so."""
        self._admission.limit(agent, slots)
        ticket = self._admission.ask(agent)
        if ticket.state != "granted":
            future = self._waiting[ticket] = asyncio.get_running_loop().create_future()
            try:
                await future
            except BaseException:
                self.close(ticket)
                raise
            finally:
                self._waiting.pop(ticket, None)
        return _Slot(self, ticket)

    def close(self, ticket: Ticket) -> None:
        following = self._admission.close(ticket)
        if following is not None:
            future = self._waiting[following]
            if not future.done():
                future.set_result(None)


class _Slot(Permit):
    __slots__ = ("_gate", "_ticket")

    def __init__(self, gate: _Gate, ticket: Ticket) -> None:
        self._gate = gate
        self._ticket = ticket

    def release(self) -> None:
        self._gate.close(self._ticket)


class _SchedulerContext(Context):
    """The context of a run: Calls are admitted by the scheduler's limits."""

    def __init__(self, gate: _Gate, names: Mapping[int, str], timeouts: Timeouts | None) -> None:
        super().__init__(timeouts=timeouts)
        self._gate = gate
        self._names = names

    def name_of(self, agent: Agent) -> str:
        return self._names.get(id(agent), agent.name)

    async def permit(self, agent: Agent, estimate: int) -> Permit:  # noqa: ARG002
        return await self._gate.admit(self.name_of(agent), agent.max_concurrent)


def _named(agents: Mapping[str, Agent | Callable[..., Any]]) -> dict[str, Agent]:
    if not isinstance(agents, Mapping) or not agents:
        raise InvalidConfiguration("agents must be a mapping of names to agents, with at least one")
    named: dict[str, Agent] = {}
    for name, agent in agents.items():
        if not isinstance(name, str) or not name:
            raise InvalidConfiguration(f"agents: a name must be a non-empty string, not {name!r}")
        if not isinstance(agent, Agent):
            if not callable(agent) or isinstance(agent, type):
                raise InvalidConfiguration(f"agents[{name!r}] must be an agent, not {agent!r}")
            agent = FunctionAgent(agent, name=name)
        named[name] = agent
    return named


def _opened(store: str | Store) -> Store:
    if isinstance(store, Store):
        return store
    if store == "memory://":
        return MemoryStore()
    raise InvalidConfiguration(f"store must be 'memory://' or a Store, not {store!r}")
