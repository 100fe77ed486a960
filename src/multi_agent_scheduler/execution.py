"""The streams that run in this process: accepted, resumed, stopped; and the slots in which they run."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from .errors import ErrorInfo, InvalidOption, PlanError, StreamExists
from .gate import Gate, SchedulerContext
from .notices import Notices
from .plans import Host, PlanRun
from .reading import Reading
from .records import Failed, Skipped
from .recovery import Policy, recovery
from .runner import Run, Watcher
from .scheduling.plan import Plan
from .scheduling.run_slots import RunSlots
from .store.core import StreamInfo, StreamSpec
from .submission import Submission, Terms, pack, unpack
from .task import Result, Task
from .views.summary import summarise

if TYPE_CHECKING:
    from .agents.context import Context
    from .events import EventBus
    from .metrics import Metrics
    from .request import Request
    from .roster import Roster
    from .store.base import Store
    from .telemetry import Telemetry

__all__ = ["Execution", "Notified"]

_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")


class Notified(msgspec.Struct, frozen=True):
    """Who is told of every run."""

    bus: EventBus
    metrics: Metrics
    telemetry: Telemetry | None = None

    def terms(self, terms: Terms) -> Terms:
        """The terms with the trace that is current where something is submitted, unless they have one."""
        if self.telemetry is None or terms.trace:
            return terms
        return msgspec.structs.replace(terms, trace=self.telemetry.current())

    def watcher(
        self,
        kept: Submission,
        after: Callable[[Result], None] | None,
        context: Context,
        request: Callable[[], Request],
    ) -> Watcher:
        notices = Notices(self.bus, self.metrics, kept.task, kept.batch, after)
        if self.telemetry is None:
            return notices
        return self.telemetry.watcher(notices, kept.task, context, request)


class Execution(Host):
    """What a scheduler runs in one event loop. At most ``max_running`` tasks run at once."""

    def __init__(
        self,
        store: Store,
        roster: Roster,
        gate: Gate,
        notified: Notified,
        *,
        max_running: int,
        clock: Callable[[], float],
    ) -> None:
        self.clock = clock
        self._store = store
        self._roster = roster
        self._gate = gate
        self._notified = notified
        self._reading = Reading(store)
        self._slots = RunSlots(max_running)
        self._runs: dict[str, Run] = {}
        self._plans: dict[str, PlanRun] = {}  # by plan id
        self._accepting: set[str] = set()  # streams that the store is being given
        self._to_skip: list[tuple[PlanRun, str, str]] = []
        self._skipping: asyncio.Task[None] | None = None

    # --- accepting ------------------------------------------------------------------------------------------------

    async def submit(self, kept: Submission, terms: Terms, stream_id: str | None = None) -> Run:
        """Accept a task and start it, or have it wait for a slot. Raises StreamExists if the id is taken."""
        task, terms = kept.task, self._notified.terms(terms)
        if task.depends_on:
            parents = ", ".join(map(repr, task.depends_on))
            raise PlanError(f"task {task.id!r} depends on {parents}: hand all of them to run() or stream()")
        stream_id = _new_id() if stream_id is None else _given_id("stream_id", stream_id)
        if stream_id in self._accepting:
            raise StreamExists(f"the stream {stream_id!r} exists already")
        self._accepting.add(stream_id)
        try:
            await self._store.submit([self._spec(stream_id, kept, terms, None)])
            run = self._made(kept, self._store.info(stream_id), terms, {}, None)
            self._enqueue(run, task)
        finally:
            self._accepting.discard(stream_id)
        return run

    async def submit_plan(
        self, tasks: Iterable[Task], terms: Terms, plan_id: str | None, stream_ids: Mapping[str, str] | None
    ) -> PlanRun:
        """Accept a plan; :meth:`PlanRun.start` starts it. Raises StreamExists if one of the ids is taken."""
        listed, terms = _listed(tasks), self._notified.terms(terms)
        plan = Plan(listed)
        agents = {task.id: self._roster.chosen(task) for task in listed}
        streams = _streams(listed, stream_ids)
        if plan_id is None:
            plan_id = _new_id()
        elif _given_id("plan_id", plan_id) in self._plans or self._store.streams(plan_id=plan_id, limit=1):
            raise StreamExists(f"the plan {plan_id!r} exists already")
        running = self._plans[plan_id] = PlanRun(self, plan_id, plan, streams, agents, terms)
        try:
            await self._store.submit(
                [self._spec(streams[it.id], Submission(it, agents[it.id]), terms, plan_id) for it in listed]
            )
        except BaseException:
            del self._plans[plan_id]
            raise
        return running

    def _spec(self, stream_id: str, kept: Submission, terms: Terms, plan_id: str | None) -> StreamSpec:
        body = pack(kept) if self._store.durable else b""
        return StreamSpec(stream_id, kept.task.id, plan_id, terms.owner, body)

    def resume(self) -> Sequence[str]:
        """Go on with the streams that the store has and nobody here runs; gives their ids."""
        left = [info for info in self._store.streams(states={"queued"}) if not self._is_here(info)]
        for plan_id in dict.fromkeys(info.plan_id for info in left if info.plan_id is not None):
            self._resume_plan(plan_id, self._store.streams(plan_id=plan_id))
        for info in left:
            if info.plan_id is None:
                kept = unpack(self._store.body(info.stream_id))
                self._enqueue(self._made(kept, info, Terms(info.owner), {}, None), kept.task)
        return [info.stream_id for info in left]

    def _is_here(self, info: StreamInfo) -> bool:
        return info.stream_id in self._runs or info.stream_id in self._accepting or info.plan_id in self._plans

    def _resume_plan(self, plan_id: str, infos: Sequence[StreamInfo]) -> None:
        kept = {info.task_id: unpack(self._store.body(info.stream_id)) for info in infos if not info.ended}
        found = {info.task_id: info for info in infos}
        # Of a task that has ended only the end matters; one whose stream is kept no more cannot have been a success.
        lost = {name for it in kept.values() for name in it.task.depends_on if name not in found}
        over = [Task(name, "") for name in (*found, *lost) if name not in kept]
        plan = Plan([*(it.task for it in kept.values()), *over])
        streams = {info.task_id: info.stream_id for info in infos}
        agents = {name: it.agent for name, it in kept.items()}
        running = self._plans[plan_id] = PlanRun(self, plan_id, plan, streams, agents, Terms(infos[0].owner))
        ended = {
            info.task_id: summarise(self._reading.whole(info), stream_id=info.stream_id) for info in infos if info.ended
        }
        running.restore({**ended, **{name: summarise(()) for name in lost}})
        running.start()

    # --- running --------------------------------------------------------------------------------------------------

    def begin(self, running: PlanRun, task_id: str, texts: Mapping[str, str]) -> None:
        task = running.plan.task(task_id)
        kept = Submission(task, running.agents[task_id])
        info = self._store.info(running.streams[task_id])
        run = self._made(kept, info, running.terms, texts, lambda result: running.ended(task_id, result))
        run.on_failure = running.broken
        self._enqueue(run, task)

    def _made(
        self,
        kept: Submission,
        info: StreamInfo,
        terms: Terms,
        texts: Mapping[str, str],
        after: Callable[[Result], None] | None,
    ) -> Run:
        """The run of an accepted stream; if an earlier process began it, its log and the policy say how it goes on."""
        task, roster = kept.task, self._roster
        known = kept.agent in roster.agents
        agent_name = kept.agent if known else roster.default
        agent = roster.agents[agent_name]
        context = SchedulerContext(
            self._gate,
            roster.names,
            task,
            terms,
            plan_id=info.plan_id,
            metrics=self._notified.metrics,
            clock=self.clock,
        )

        def request() -> Request:
            return agent.request(task.filled(texts), **task.keywords)

        run = Run(
            self._store,
            info.stream_id,
            agent=agent,
            agent_name=agent_name,
            request=request,
            context=context,
            watcher=self._notified.watcher(kept, after, context, request),
        )
        if info.seq or not known:
            policy: Policy = "off" if info.plan_id is None else "reset"
            left = recovery(self._reading.whole(info), policy)
            if not known:
                names = ", ".join(sorted(roster.agents))
                problem = f"the agent {kept.agent!r} that the task was given to is not here; the agents are {names}"
                left = msgspec.structs.replace(left, terminal=Failed(ErrorInfo("invalid_request_error", problem)))
            run.go_on(left)
        return run

    def _enqueue(self, run: Run, task: Task) -> None:
        self._runs[run.stream_id] = run
        if self._slots.ask(run.stream_id, task.priority, self.clock()):
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

    # --- stopping -------------------------------------------------------------------------------------------------

    def stop(self, stream_id: str, reason: str) -> bool:
        run = self._runs.get(stream_id)
        if run is None:
            return self._store.cancel(stream_id, reason)  # it has not begun: it will find the stop when it does
        first = run.stop(reason)
        if first and not run.started:  # all that it will do now is to write its terminal: that needs no slot
            self._slots.leave(stream_id)
            run.start(self._over)
        return first

    async def cancel(self, stream_id: str, reason: str) -> bool:
        """Stop a stream and wait until its run here, if there is one, has closed its provider."""
        run = self._runs.get(stream_id)
        first = self.stop(stream_id, reason)
        if run is not None:
            await run.wait()
        return first

    async def left(self, run: Run) -> None:
        """A run's only reader has gone: the run has ended, or is stopped."""
        if run.result is None and run.failure is None:
            await self.cancel(run.stream_id, "its reader left")

    async def left_plan(self, running: PlanRun) -> None:
        """The same for a plan."""
        if not running.done:
            running.stop("its reader left")
            await running.wait()

    async def wait_idle(self) -> None:
        """Return when nothing runs or waits to run."""
        while self._runs or self._skipping is not None:
            waiting = [run.over for run in self._runs.values()]
            await asyncio.wait([*waiting, *([self._skipping] if self._skipping is not None else [])])

    async def aclose(self) -> None:
        """Stop everything and wait until it has ended."""
        runs = list(self._runs.values())
        for run in runs:
            self.stop(run.stream_id, "the scheduler was closed")
        for run in runs:
            await run.wait()
        if self._skipping is not None:
            await self._skipping

    # --- skipping -------------------------------------------------------------------------------------------------

    def skip(self, running: PlanRun, task_id: str, reason: str) -> None:
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
                    task_type = run.plan.task(task_id).task_type
                    self._notified.metrics.stream_ended(task_type, "skipped", False, 0.0, None, None)
                    run.ended(task_id, result)
        finally:
            self._skipping = None

    def finished(self, running: PlanRun) -> None:
        self._plans.pop(running.plan_id, None)


def _new_id() -> str:
    return os.urandom(16).hex()


def _given_id(name: str, value: object) -> str:
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise InvalidOption(f"{name} must be 1 to 128 letters, digits and any of '-._~', not {value!r}")
    return value


def _listed(tasks: Iterable[Task]) -> list[Task]:
    if isinstance(tasks, Task):
        raise PlanError("a plan is a list of tasks: put the one task into a list, or use execute_task()")
    listed = list(tasks) if isinstance(tasks, Iterable) else [tasks]
    wrong = next((task for task in listed if not isinstance(task, Task)), None)
    if wrong is not None or not listed:
        found = "" if wrong is None else f", not {wrong!r}"
        raise PlanError(f"a plan is a list of tasks, at least one{found}")
    return listed


def _streams(tasks: Sequence[Task], given: Mapping[str, str] | None) -> dict[str, str]:
    """The stream ids by task id: those that are given, and new ones for the others."""
    if given is None:
        return {task.id: _new_id() for task in tasks}
    if not isinstance(given, Mapping):
        raise InvalidOption(f"stream_ids must map task ids to stream ids, not {given!r}")
    unknown = given.keys() - {task.id for task in tasks}
    if unknown:
        raise InvalidOption(f"stream_ids names the task {min(unknown)!r}, which the plan does not have")
    streams = {
        task.id: _given_id(f"stream_ids[{task.id!r}]", given[task.id]) if task.id in given else _new_id()
        for task in tasks
    }
    if len(set(streams.values())) < len(streams):
        raise InvalidOption("stream_ids has the same stream for two tasks")
    return streams
