"""The streams that run in this process: accepted, resumed, stopped; and the slots in which they run."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from .agents.base import prompt_tokens
from .errors import ErrorInfo, InvalidOption, PlanError, StreamExists, Suspended
from .gate import Gate, SchedulerContext
from .notices import Notified, SkipNotices
from .plans import Host, PlanRun
from .reading import Reading
from .records import Failed, Skipped
from .recovery import Policy, Recovery, recovery
from .runner import Kit, Run
from .scheduling.budget import Account
from .scheduling.plan import Plan
from .scheduling.run_slots import RunSlots
from .store.core import Lease, StreamInfo, StreamSpec
from .submission import Submission, Terms, pack, unpack
from .task import Budget, Task
from .views.summary import summarise

if TYPE_CHECKING:
    from .accounts import Ledger
    from .request import Request
    from .roster import Roster
    from .scheduling.budget import Spending
    from .store.base import Store

__all__ = ["Execution"]

_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")


class Execution(Host):
    """What a scheduler runs in one event loop. At most ``max_running`` tasks run at once."""

    def __init__(
        self,
        store: Store,
        roster: Roster,
        ledger: Ledger,
        gate: Gate,
        notified: Notified,
        *,
        max_running: int,
        clock: Callable[[], float],
    ) -> None:
        self.clock = clock
        self._store = store
        self._roster = roster
        self._ledger = ledger
        self._gate = gate
        self._notified = notified
        self._reading = Reading(store)
        self._slots = RunSlots(max_running)
        self._runs: dict[str, Run] = {}
        self._plans: dict[str, PlanRun] = {}  # by plan id
        self._owners: dict[str, str] = {}  # by stream, from before it is accepted until it has ended
        self._open: Counter[str] = Counter()  # how many those are, by owner
        self._suspended = False

    # --- accepting ------------------------------------------------------------------------------------------------

    async def submit(self, kept: Submission, terms: Terms, stream_id: str | None = None) -> Run:
        """Accept a task and start it, or have it wait for a slot. Raises StreamExists if the id is taken."""
        task, terms = kept.task, self._notified.terms(terms)
        if task.depends_on:
            parents = ", ".join(map(repr, task.depends_on))
            raise PlanError(f"task {task.id!r} depends on {parents}: hand all of them to run() or stream()")
        stream_id = _new_id() if stream_id is None else _given_id("stream_id", stream_id)
        self._check_budgets(task, kept.agent, self._accounts(task, terms, None))
        self._take(terms.owner, (stream_id,))
        try:
            await self._ledger.recall(terms.owner, self._store)
            spec = self._spec(stream_id, kept, terms, None)
            lease = await self._begun(spec, kept, terms) if self._slots.free(kept.agent) else None
            if lease is None:
                await self._store.submit([spec])
            run = self._run(stream_id, task, lambda run: self._kit(run, kept, terms))
            if lease is None:
                self._enqueue(run, kept, terms.owner)
            elif self._suspended:
                self._store.expire(stream_id)
                run.suspend()
                self._over(run)
            else:
                run.start(self._over, self._free, lease)
        except BaseException:
            self._let_go((stream_id,))
            raise
        return run

    async def _begun(self, spec: StreamSpec, kept: Submission, terms: Terms) -> Lease:
        """Take a slot that is free, and have the stream accepted and claimed in one step."""
        self._slots.ask(spec.stream_id, kept.agent, kept.task.priority, terms.owner, self.clock())
        try:
            return await self._store.begin(spec)
        except BaseException:
            self._free()
            raise

    async def submit_plan(
        self,
        tasks: Iterable[Task],
        terms: Terms,
        plan_id: str | None = None,
        stream_ids: Mapping[str, str] | None = None,
        budget: Budget | None = None,
    ) -> PlanRun:
        """Accept a plan; :meth:`PlanRun.start` starts it. Raises StreamExists if one of the ids is taken."""
        listed, terms = _listed(tasks), self._notified.terms(terms)
        plan = Plan(listed)
        agents = {task.id: self._roster.chosen_of_many(task) for task in listed}
        streams = _streams(listed, stream_ids)
        account = _account(budget)
        for task in listed:
            self._check_budgets(task, agents[task.id], self._accounts(task, terms, account))
        if plan_id is None:
            plan_id = _new_id()
        elif _given_id("plan_id", plan_id) in self._plans or self._store.streams(plan_id=plan_id, limit=1):
            raise StreamExists(f"the plan {plan_id!r} exists already")
        self._take(terms.owner, streams.values())
        running = self._plans[plan_id] = PlanRun(self, plan_id, plan, streams, agents, terms, account)
        try:
            await self._ledger.recall(terms.owner, self._store)
            await self._store.submit(
                [
                    self._spec(streams[task.id], Submission(task, agents[task.id], 0, budget), terms, plan_id)
                    for task in listed
                ]
            )
        except BaseException:
            self.finished(running)
            raise
        return running

    def open_streams(self, owner: str) -> int:
        return self._open[owner]

    def _take(self, owner: str, stream_ids: Collection[str]) -> None:
        """They are this process's to run. Raises StreamExists, before anything is awaited, if one is already."""
        taken = next((stream_id for stream_id in stream_ids if stream_id in self._owners), None)
        if taken is not None:
            raise StreamExists(f"the stream {taken!r} exists already")
        self._owners.update(dict.fromkeys(stream_ids, owner))
        self._open[owner] += len(stream_ids)

    def _let_go(self, stream_ids: Iterable[str]) -> None:
        for stream_id in stream_ids:
            owner = self._owners.pop(stream_id, None)
            if owner is not None:
                self._open[owner] -= 1
                if not self._open[owner]:
                    del self._open[owner]

    def _spec(self, stream_id: str, kept: Submission, terms: Terms, plan_id: str | None) -> StreamSpec:
        body = pack(kept) if self._store.durable else b""
        return StreamSpec(stream_id, kept.task.id, plan_id, terms.owner, body)

    def _accounts(self, task: Task, terms: Terms, plan: Account | None) -> list[Account]:
        """Those that pay for a task."""
        own = None if task.budget is None else Account(f"task {task.id!r}", task.budget)
        owners = self._ledger.account(terms.owner)
        return [account for account in (own, plan, owners) if account is not None]

    def _check_budgets(self, task: Task, agent_name: str, accounts: Sequence[Account]) -> None:
        if any(account.budget.cost is not None for account in accounts):
            self._ledger.check(accounts, self._roster.models(task, agent_name))

    # --- resuming -------------------------------------------------------------------------------------------------

    async def resume(self) -> Sequence[str]:
        """Go on with the streams that the store has and nobody here runs; gives their ids."""
        for owner in {info.owner for info in self._store.streams(states={"queued"})}:
            await self._ledger.recall(owner, self._store)
        left = [info for info in self._store.streams(states={"queued"}) if info.stream_id not in self._owners]
        for info in left:
            self._take(info.owner, (info.stream_id,))
        for plan_id in dict.fromkeys(info.plan_id for info in left if info.plan_id is not None):
            self._resume_plan(plan_id, self._store.streams(plan_id=plan_id))
        for info in left:
            if info.plan_id is None:
                self._resume(info)
        return [info.stream_id for info in left]

    def _resume(self, info: StreamInfo) -> None:
        kept, terms = unpack(self._store.body(info.stream_id)), Terms(info.owner)
        self._enqueue(self._run(info.stream_id, kept.task, lambda run: self._kit(run, kept, terms)), kept, info.owner)

    def _resume_plan(self, plan_id: str, infos: Sequence[StreamInfo]) -> None:
        kept = {info.task_id: unpack(self._store.body(info.stream_id)) for info in infos if not info.ended}
        found = {info.task_id: info for info in infos}
        # Of a task that has ended only the end matters. A store keeps what belongs to an unfinished plan; where a
        # parent's stream is missing all the same, nobody knows what it said, and it does not count as a success.
        lost = {name for it in kept.values() for name in it.task.depends_on if name not in found}
        over = [Task(name, "") for name in (*found, *lost) if name not in kept]
        plan = Plan([*(it.task for it in kept.values()), *over])
        streams = {info.task_id: info.stream_id for info in infos}
        agents = {name: it.agent for name, it in kept.items()}
        account = _account(next((it.plan_budget for it in kept.values()), None))
        running = self._plans[plan_id] = PlanRun(self, plan_id, plan, streams, agents, Terms(infos[0].owner), account)
        results = {}
        for info in infos:
            if info.ended:
                log = self._reading.whole(info)
                results[info.task_id] = summarise(log, stream_id=info.stream_id, price_of=self._ledger.price_of)
                if account is not None:
                    self._ledger.spending((account,), history=log)
        running.restore({**results, **{name: summarise(()) for name in lost}})
        running.start()

    # --- running --------------------------------------------------------------------------------------------------

    def begin(self, running: PlanRun, task_id: str) -> None:
        task = running.plan.task(task_id)
        run = self._run(running.streams[task_id], task, self._planned, running)
        self._enqueue(run, Submission(task, running.agents[task_id]), running.terms.owner or running.plan_id)

    def _run(self, stream_id: str, task: Task, equip: Callable[[Run], Kit], plan: PlanRun | None = None) -> Run:
        run = Run(self._store, stream_id, task.id, equip, began=self.clock(), plan=plan)
        self._runs[stream_id] = run
        return run

    def _planned(self, run: Run) -> Kit:
        assert run.plan is not None
        return self._kit(run, Submission(run.plan.plan.task(run.task_id), run.plan.agents[run.task_id]), run.plan.terms)

    def _kit(self, run: Run, kept: Submission, terms: Terms) -> Kit:
        """What a run needs; if an earlier process began it, its log and the policy say how it goes on."""
        task, roster, ledger, plan = kept.task, self._roster, self._ledger, run.plan
        known = kept.agent in roster.agents
        agent_name = kept.agent if known else roster.default
        agent = roster.running(agent_name, task)
        context = SchedulerContext(
            self._gate,
            roster.names,
            task,
            terms,
            plan_id=None if plan is None else plan.plan_id,
            metrics=self._notified.metrics,
            clock=self.clock,
        )
        left = self._left(run, None if known else kept.agent)
        if left is not None:
            context.count_from(left.calls)
        context.aside = partial(self._aside, kept.agent)
        accounts = context.accounts = self._accounts(task, terms, None if plan is None else plan.account)
        meter = ledger.meter(terms.owner)
        if meter is not None:
            accounts.append(meter)

        def request() -> Request:
            return agent.request(task.filled({} if plan is None else plan.texts(task.id)), **task.keywords)

        def spending(request: Request) -> Spending:
            return ledger.spending(
                accounts, input_tokens=prompt_tokens(request), history=() if left is None else left.history
            )

        return Kit(
            agent_name,
            context,
            self._notified.watcher(kept, context, request),
            request,
            agent.batches,
            ledger.price_of,
            left,
            spending if accounts else None,
        )

    def _left(self, run: Run, missing: str | None) -> Recovery | None:
        """What an earlier process has left of a stream; ``missing`` is its agent if that is not here."""
        info = self._store.info(run.stream_id)
        if not info.seq and missing is None:
            return None
        policy: Policy = "off" if run.plan is None else "reset"
        left = recovery(self._reading.whole(info), policy, info.stop_reason)
        if missing is not None and info.stop_reason is None:
            names = ", ".join(sorted(self._roster.agents))
            problem = f"the agent {missing!r} that the task was given to is not here; the agents are {names}"
            left = msgspec.structs.replace(left, terminal=Failed(ErrorInfo("invalid_request_error", problem)))
        return left

    def _enqueue(self, run: Run, kept: Submission, key: str) -> None:
        """Start a run, or have it wait for a slot, of which each ``key`` gets a fair share."""
        if self._suspended:
            run.suspend()
            self._over(run)
        elif self._slots.ask(run.stream_id, kept.agent, kept.task.priority, key, self.clock()):
            run.start(self._over, self._free)

    def _free(self) -> None:
        """A run needs its slot no longer."""
        self._start(self._slots.release(self.clock()))

    def _aside(self, agent: str, waits: bool) -> None:
        """A run begins to wait for its agent, or gets on."""
        slots = self._slots
        self._start(slots.lend(agent, self.clock()) if waits else slots.take_back(agent, self.clock()))

    def _start(self, stream_ids: Iterable[str]) -> None:
        for stream_id in stream_ids:
            self._runs[stream_id].start(self._over, self._free)

    def _over(self, run: Run) -> None:
        del self._runs[run.stream_id]
        self._let_go((run.stream_id,))

    def skip(self, running: PlanRun, task_id: str, reason: str) -> None:
        task = running.plan.task(task_id)

        def equip(_: Run) -> Kit:
            context = SchedulerContext(self._gate, self._roster.names, task, running.terms, clock=self.clock)
            watcher = SkipNotices(self._notified.metrics, task.task_type)
            agent = self._roster.agents[self._roster.default]  # any will do: it is not asked
            return Kit(
                running.agents[task_id],
                context,
                watcher,
                lambda: agent.request(""),
                agent.batches,
                self._ledger.price_of,
                Recovery((), (), Skipped(reason), 0),
            )

        self._run(running.streams[task_id], task, equip, running).start(self._over)

    def finished(self, running: PlanRun) -> None:
        self._plans.pop(running.plan_id, None)
        self._let_go(running.streams.values())

    async def kept(self) -> None:
        if self._store.durable:
            await self._store.settled()

    # --- stopping -------------------------------------------------------------------------------------------------

    def stop(self, stream_id: str, reason: str) -> bool:
        run = self._runs.get(stream_id)
        if run is None:
            return self._store.cancel(stream_id, reason)  # it has not begun: it will find the stop when it does
        first = run.stop(reason)
        if first and run.state == "waiting":  # all that it will do now is to write its terminal: that needs no slot
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
        """A run's only reader has gone: the run is over, or is stopped."""
        if run.state not in ("over", "broken"):
            await self.cancel(run.stream_id, "its reader left")

    async def left_plan(self, running: PlanRun) -> None:
        """The same for a plan."""
        if not running.done:
            running.stop("its reader left")
            await running.wait()

    async def told(self, stream_id: str) -> None:
        """Return when events and metrics have told of the end of a stream whose terminal is in its log."""
        run = self._runs.get(stream_id)
        if run is not None:
            await run.wait()

    async def wait_idle(self) -> None:
        """Return when nothing runs or waits to run."""
        while self._runs:
            await asyncio.wait([run.over for run in self._runs.values()])

    async def suspend(self) -> None:
        """Let go of everything, as a crash would, and wait until all providers are closed."""
        self._suspended = True
        for running in list(self._plans.values()):
            running.broken(Suspended(f"the plan {running.plan_id!r} was let go of before its end"))
        for run in list(self._runs.values()):
            if run.state == "waiting":
                self._slots.leave(run.stream_id)
                self._over(run)
            run.suspend()
        await self.wait_idle()

    async def aclose(self) -> None:
        """Stop everything and wait until it has ended."""
        for stream_id in list(self._runs):
            self.stop(stream_id, "the scheduler was closed")
        await self.wait_idle()


def _account(budget: Budget | None) -> Account | None:
    if budget is not None and not isinstance(budget, Budget):
        raise InvalidOption(f"budget must be a Budget, not {budget!r}")
    return None if budget is None else Account("the plan", budget)


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
