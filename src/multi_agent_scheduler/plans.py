"""One execution of a plan: tasks start the moment their last parent ends, and the whole is one live stream.

The decisions are :class:`~multi_agent_scheduler.scheduling.plan.Plan`'s; this is its shell.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import StreamReset
from .records import TERMINALS, Record, Usage
from .store.follow import Follower
from .task import Result
from .views import chunks
from .views.summary import total_usage
from .views.text import TextView

if TYPE_CHECKING:
    from .scheduling.budget import Account
    from .scheduling.plan import Plan, Skip
    from .store.base import Store
    from .submission import Terms

__all__ = ["Host", "Merge", "PlanResult", "PlanRun", "PlanView", "Span"]


class Span(msgspec.Struct, frozen=True, gc=False):
    """When a task of a plan ran: seconds since the plan began. ``first`` is its first content, None if it had none."""

    task_id: str
    agent: str | None
    state: str
    start: float
    first: float | None
    end: float


class PlanResult(Mapping[str, Result]):
    """What came of a plan: a mapping of task id to :class:`Result`, in the plan's order.

    ``usage`` is the sum over all tasks, and so is ``cost`` (in US dollars); ``timeline`` has one :class:`Span` for each
    task, in the order of their ends.
    ``success`` says whether every task succeeded; ``latency`` is in seconds.
    """

    def __init__(self, plan_id: str, results: dict[str, Result], timeline: Sequence[Span], latency: float) -> None:
        self.plan_id = plan_id
        self.timeline = timeline
        self.latency = latency
        self._results = results

    def __getitem__(self, task_id: str) -> Result:
        return self._results[task_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        states = {task_id: result.state for task_id, result in self._results.items()}
        return f"PlanResult({states if len(states) <= 20 else f'{len(states)} tasks'})"

    @property
    def success(self) -> bool:
        """Whether every task of the plan succeeded."""
        return all(result.success for result in self._results.values())

    @property
    def usage(self) -> Usage | None:
        """The tokens that all tasks used together; None if nothing is known. An answer from the cache used none."""
        known = [result.usage for result in self._results.values() if result.usage is not None]
        if known and all(usage.cached for usage in known):
            return Usage(input_tokens=0, output_tokens=0)
        return total_usage(known)

    @property
    def cost(self) -> float | None:
        """What all tasks cost together, in US dollars; None, not a part of it, if the cost of one is unknown."""
        costs = [result.cost for result in self._results.values()]
        return None if None in costs else sum(cost for cost in costs if cost is not None)


class Host(ABC):
    """What runs the tasks of plans. For each that begins or is skipped there is one call of :meth:`PlanRun.ended`, or
    one of :meth:`PlanRun.broken`."""

    clock: Callable[[], float]

    @abstractmethod
    def begin(self, running: PlanRun, task_id: str) -> None:
        """Run a task."""

    @abstractmethod
    def skip(self, running: PlanRun, task_id: str, reason: str) -> None:
        """Write the terminal of a task that will not run."""

    @abstractmethod
    def stop(self, stream_id: str, reason: str) -> bool:
        """Stop a task, whether it has begun or not; true for the first who asks, in time."""

    @abstractmethod
    def finished(self, running: PlanRun) -> None:
        """Every task of the plan has ended, or the plan cannot be finished."""

    @abstractmethod
    async def kept(self) -> None:
        """Return when everything until now is kept for good."""


class PlanRun:
    """One execution of a plan in this process: ``streams`` and ``agents`` are by task id, ``terms`` are all tasks'.

    ``account`` pays for all of it, if the plan has a budget.
    """

    def __init__(
        self,
        host: Host,
        plan_id: str,
        plan: Plan,
        streams: Mapping[str, str],
        agents: Mapping[str, str],
        terms: Terms,
        account: Account | None = None,
    ) -> None:
        self.account = account
        self.plan_id = plan_id
        self.plan = plan
        self.streams = streams
        self.agents = agents
        self.terms = terms
        self.results: dict[str, Result] = {}
        self._host = host
        self._began = host.clock()
        self._spans: list[Span] = []
        self._starts: dict[str, float] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._broke: list[Callable[[BaseException], None]] = []
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopped: str | None = None

    def listen(self, began: Callable[[str], None], broke: Callable[[BaseException], None]) -> None:
        """Call ``began`` with the id of each task that starts or is skipped from now on; ``broke`` if all is lost."""
        self._listeners.append(began)
        self._broke.append(broke)

    def restore(self, results: Mapping[str, Result]) -> None:
        """What an earlier run of the plan had finished; before :meth:`start`. Tasks without a stream count as well."""
        for task_id, result in results.items():
            if task_id in self.streams:
                self.results[task_id] = result
            change = self.plan.ended(task_id, result.state, success=result.success)
            for skip in change.skipped:
                if skip.id not in results:
                    self._skip(skip)

    def start(self) -> None:
        """Begin: everything that depends on nothing runs."""
        for task_id in self.plan.ready():
            self._start(task_id)
        self._check_done()

    def ended(self, task_id: str, result: Result) -> None:
        """A task's terminal is in its log."""
        if self._finished.done():  # the plan is broken: nothing more of it begins
            return
        now = self._now()
        start = self._starts.get(task_id, now)
        first = None if result.ttft is None else start + result.ttft
        self._spans.append(Span(task_id, result.agent, result.state, start, first, now))
        self.results[task_id] = result
        change = self.plan.ended(task_id, result.state, success=result.success)
        for skip in change.skipped:
            self._skip(skip)
        for ready in change.ready:
            self._start(ready)
        self._check_done()

    def broken(self, error: BaseException) -> None:
        """A task could not write its terminal (the store is closed, say): the plan cannot be finished."""
        if not self._finished.done():
            self._finished.set_exception(error)
            self._finished.exception()  # looked at: whoever waits raises it, and nobody has to
            self._host.finished(self)
            for broke in self._broke:
                broke(error)

    def stop(self, reason: str) -> bool:
        """Stop every task that runs; those that have not begun will not. True for the first who asks, in time."""
        if self._stopped is not None or self._finished.done():
            return False
        self._stopped = reason
        for task_id, stream_id in self.streams.items():
            if self.plan.state(task_id) not in ("ended", "skipped"):
                self._host.stop(stream_id, reason)
        return True

    async def wait(self) -> PlanResult:
        """The results, once every task has ended. Raises StoreError if the store gave up.

        Cancelling the one who waits changes nothing for the plan.
        """
        await asyncio.wait({self._finished})
        self._finished.result()
        await self._host.kept()
        results = {task_id: self.results[task_id] for task_id in self.streams}
        return PlanResult(self.plan_id, results, self._spans, self._latency)

    @property
    def done(self) -> bool:
        """Every task has ended."""
        return self._finished.done()

    def texts(self, task_id: str) -> Mapping[str, str]:
        """What the tasks wrote that a task depends on."""
        results = self.results
        return {parent: results[parent].text if parent in results else "" for parent in self.plan.parents(task_id)}

    def _start(self, task_id: str) -> None:
        self.plan.started(task_id)
        self._starts[task_id] = self._now()
        self._host.begin(self, task_id)
        for began in self._listeners:
            began(task_id)

    def _skip(self, skip: Skip) -> None:
        self._host.skip(self, skip.id, skip.reason)
        for began in self._listeners:
            began(skip.id)

    def _check_done(self) -> None:
        if self.plan.done and len(self.results) == len(self.streams) and not self._finished.done():
            self._latency = self._now()
            self._finished.set_result(None)
            self._host.finished(self)

    def _now(self) -> float:
        return self._host.clock() - self._began


class Merge:
    """A reader of many streams at once: whichever grows is read next; each stream's own order holds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._grown: deque[_Part] = deque()
        self._parts: dict[str, _Part] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None

    def add(self, stream_id: str, name: str, after: int = 0) -> None:
        """Read this stream too, from behind seq ``after``; ``name`` comes back with its records."""
        part = _Part(self, name, Follower(self._store, stream_id, after))
        self._parts[stream_id] = part
        part.follower.subscribe(part.grew)
        part.grew()

    async def next(self) -> tuple[str, int, Sequence[Record]]:
        """The name of a stream that has grown, the seq of its first new record, and its new records."""
        while True:
            if self._error is not None:
                raise self._error
            while self._grown:
                part = self._grown.popleft()
                part.waiting = False
                first = part.follower.seq + 1
                records = part.follower.at_hand()
                if records:
                    part.grew()  # there may be more: its turn comes again behind the others
                    return part.name, first, records
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            await waiter

    def fail(self, error: BaseException) -> None:
        """End the reading: :meth:`next` raises ``error`` from now on."""
        self._error = error
        self._wake()

    def drop(self, stream_id: str) -> None:
        """Do not read this stream any more."""
        part = self._parts.pop(stream_id)
        part.follower.unsubscribe(part.grew)

    def close(self) -> None:
        """Leave all streams."""
        for stream_id in list(self._parts):
            self.drop(stream_id)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class _Part:
    __slots__ = ("_merge", "follower", "name", "waiting")

    def __init__(self, merge: Merge, name: str, follower: Follower) -> None:
        self._merge = merge
        self.name = name
        self.follower = follower
        self.waiting = False

    def grew(self) -> None:
        if not self.waiting:
            self.waiting = True
            self._merge._grown.append(self)
            self._merge._wake()


class PlanView:
    """The guide's dicts for a whole plan, each with ``stream_id`` and ``seq``.

    A task whose answer begins again after some of it was shown gives no further pieces, so that two answers are never
    spliced; its last dict has ``reset`` True and the whole answer in ``result``.
    """

    def __init__(self, run: PlanRun) -> None:
        self._run = run
        self._views: dict[str, TextView | None] = {}  # None: it was reset

    def dicts(self, task_id: str, first: int, records: Sequence[Record]) -> list[dict[str, Any]]:
        """The dicts for some records of one task's stream; the task's last dict comes with its terminal."""
        run, stream_id = self._run, self._run.streams[task_id]
        made: list[dict[str, Any]] = []
        for seq, record in enumerate(records, first):
            texts = self._texts(task_id, record)
            made += [{**chunks.chunk(task_id, text), "stream_id": stream_id, "seq": seq} for text in texts]
        if isinstance(records[-1], TERMINALS):
            result = run.results[task_id]
            last = chunks.final(run.plan.task(task_id), result.agent or "", result)
            last["seq"] = first + len(records) - 1
            if self._views.pop(task_id, None) is None:
                last["reset"] = True
            made.append(last)
        return made

    def _texts(self, task_id: str, record: Record) -> list[str]:
        if task_id not in self._views:
            self._views[task_id] = TextView()
        view = self._views[task_id]
        try:
            return [] if view is None else view.texts((record,))
        except StreamReset:
            self._views[task_id] = None
            return []
