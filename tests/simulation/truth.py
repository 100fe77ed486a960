"""What should be true of every stream, permit and reader, kept beside the scheduler and compared with what it does."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from multi_agent_scheduler.records import (
    TERMINALS,
    CallEnded,
    CallStarted,
    Cancelled,
    Record,
    Reset,
    Skipped,
    terminal_name,
)
from multi_agent_scheduler.scheduling.limits import Limits
from multi_agent_scheduler.store.base import Store
from multi_agent_scheduler.store.core import Lease, StreamSpec
from multi_agent_scheduler.store.follow import Follower
from multi_agent_scheduler.store.memory import MemoryStore
from multi_agent_scheduler.task import Result, Task, Template
from multi_agent_scheduler.views.summary import Summary, summarise
from tests.simulation.store import SimulatedStore

WINDOW = 60.0


class Stream:
    """One stream as it was written."""

    def __init__(self, stream_id: str, task_id: str, plan_id: str | None) -> None:
        self.stream_id = stream_id
        self.task_id = task_id
        self.plan_id = plan_id
        self.records: list[Record] = []
        self.epochs: set[int] = set()  # that were ever given
        self.epoch = 0  # the last of them
        self.fence = 0  # epochs up to this one may append no more
        self.stop: str | None = None
        self.committed = False  # what is there has content, and whoever goes on with it must not add to that
        self.shown = 0  # a reader, or whoever waited for the end, was told of so many records

    @property
    def terminal(self) -> Record | None:
        last = self.records[-1] if self.records else None
        return last if isinstance(last, TERMINALS) else None

    @property
    def result(self) -> Result:
        return summarise(self.records, stream_id=self.stream_id)


class Truth:
    """Raises AssertionError as soon as anything is done that must not be."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = tasks
        self.streams: dict[str, Stream] = {}
        self.violation: AssertionError | None = None
        """The first one, which may have been raised where it was taken for a failure of somebody's."""

    @contextmanager
    def noted(self) -> Iterator[None]:
        """What is asserted in here counts, whoever may catch the error."""
        try:
            yield
        except AssertionError as error:
            self.violation = self.violation or error
            raise

    # --- what the store is told -----------------------------------------------------------------------------------

    def submitted(self, specs: Sequence[StreamSpec]) -> None:
        for spec in specs:
            assert spec.stream_id not in self.streams, f"the stream of {spec.task_id} was accepted twice"
            self.streams[spec.stream_id] = Stream(spec.stream_id, spec.task_id, spec.plan_id)

    def claimed(self, lease: Lease) -> None:
        stream = self.streams[lease.stream_id]
        assert lease.epoch not in stream.epochs, f"{stream.task_id}: an epoch was given twice"
        stream.epochs.add(lease.epoch)
        if lease.epoch <= stream.fence:
            return  # it was taken away again while it was being given, and others may even have ended the stream
        assert stream.terminal is None, f"{stream.task_id} was claimed behind its end"
        assert stream.epoch <= stream.fence, f"{stream.task_id} was claimed while its lease was live"
        stream.epoch = lease.epoch
        stream.committed = _has_content(stream.records)

    def fenced(self, stream_id: str, epoch: int) -> None:
        self.streams[stream_id].fence = epoch

    def appended(self, lease: Lease, first: int, records: Sequence[Record]) -> None:
        stream = self.streams[lease.stream_id]
        name = stream.task_id
        assert lease.epoch == stream.epoch > stream.fence, f"{name}: an append of a lease that is not live"
        assert stream.terminal is None, f"{name}: an append behind the terminal"
        assert first == len(stream.records) + 1, f"{name}: seq {first} behind {len(stream.records)}"
        assert not any(isinstance(record, TERMINALS) for record in records[:-1]), f"{name}: a second terminal"
        self._check_order(stream, records)
        if stream.committed:
            stream.committed = False
            reset = any(isinstance(record, Reset) for record in records)
            assert reset or isinstance(records[-1], TERMINALS), f"{name}: two attempts were spliced"
        stream.records += records
        terminal = stream.terminal
        if terminal is not None and stream.stop is not None:
            # Or what it depends on was stopped, too.
            assert isinstance(terminal, Skipped) or terminal == Cancelled(stream.stop), (
                f"{name}: a stop was forgotten: {terminal}"
            )

    def _check_order(self, stream: Stream, records: Sequence[Record]) -> None:
        """A task begins when all that it depends on has ended; it is skipped if one of that was no success.

        Those that are skipped for one reason are so in any order.
        """
        task = self.tasks[stream.task_id]
        if not task.depends_on or stream.records or isinstance(records[-1], Cancelled):
            return
        parents = [self.stream_of(parent, stream.plan_id) for parent in task.depends_on]
        unsuccessful = [it for it in parents if it.terminal is not None and not it.result.success]
        if isinstance(records[-1], Skipped):
            waiting = [it for it in parents if it.terminal is None]  # to be skipped in the same step, perhaps
            assert unsuccessful or waiting, f"{task.id} was skipped though all that it depends on succeeded"
            assert task.on_failure == "skip", f"{task.id} was skipped though it was to run"
            return
        assert all(it.terminal is not None for it in parents), f"{task.id} began before its parents had ended"
        assert not unsuccessful or task.on_failure == "run", f"{task.id} ran after a failure"

    # --- what readers and those who wait are told -----------------------------------------------------------------

    def stream_of(self, task_id: str, plan_id: str | None) -> Stream:
        return next(it for it in self.streams.values() if it.task_id == task_id and it.plan_id == plan_id)

    def shown(self, stream_id: str, cursor: int, record: Record) -> None:
        """A reader was given the record behind its cursor."""
        stream = self.streams[stream_id]
        assert record.seq == cursor + 1, f"{stream.task_id}: seq {record.seq} was shown behind {cursor}"
        assert cursor < len(stream.records), f"{stream.task_id}: what was never written was shown"
        written = msgspec.structs.replace(stream.records[cursor], seq=record.seq)
        assert written == record, f"{stream.task_id}: {record} was shown, and {written} written"
        stream.shown = max(stream.shown, cursor + 1)

    def resulted(self, result: Result) -> None:
        """Who waited for a task was given its result: what the log says, and kept from now on."""
        stream = self.streams[str(result.stream_id)]
        assert stream.terminal is not None, f"{stream.task_id}: a result without an end"
        replayed = stream.result
        for name in (
            "text", "state", "success", "error", "stop_reason", "reasoning", "refusal", "tool_calls", "usage", "cached",
        ):  # fmt: skip
            live, again = getattr(result, name), getattr(replayed, name)
            assert live == again, f"{stream.task_id}: {name} was {live!r} live, and is {again!r} in the log"
        stream.shown = len(stream.records)

    def prompt(self, task_id: str, plan_id: str | None) -> str:
        """What the task's provider must be asked."""
        task = self.tasks[task_id]
        if not isinstance(task.prompt, Template):
            return str(task.prompt)
        return task.prompt.substitute({it: self.stream_of(it, plan_id).result.text for it in task.depends_on})

    # --- a crash --------------------------------------------------------------------------------------------------

    def crashing(self, store: Store) -> None:
        """What every reader could be shown at this moment counts as shown."""
        for stream in self.streams.values():
            stream.shown = max(stream.shown, store.info(stream.stream_id).seq)

    def recovered(self, store: Store) -> None:
        """A new process has opened the store: what was acknowledged is there, and nothing that was never written."""
        for info in store.streams():
            if info.stream_id not in self.streams:  # it was being accepted when the process died
                self.streams[info.stream_id] = Stream(info.stream_id, info.task_id, info.plan_id)
        for stream in self.streams.values():
            info = store.info(stream.stream_id)
            kept = self.gone(store, stream.stream_id) if info.trimmed else log_of(store, stream.stream_id)
            assert len(kept) >= stream.shown, f"{stream.task_id}: what was shown is lost"
            assert kept == stream.records[: len(kept)], f"{stream.task_id}: what is kept was never written"
            assert info.stop_reason in (None, stream.stop)
            stream.records, stream.stop = kept, info.stop_reason
            assert info.state == (terminal_name(stream.terminal) if stream.terminal else "queued")  # type: ignore[arg-type]
            stream.epoch = stream.fence = max(stream.epoch, info.epoch)

    def gone(self, store: Store, stream_id: str) -> list[Record]:
        """A log was trimmed: its stream has ended, and all that it said is kept. Gives what was written."""
        stream, info = self.streams[stream_id], store.info(stream_id)
        assert info.trimmed and stream.terminal is not None, f"{stream.task_id} was trimmed before its end"
        assert info.seq == len(stream.records)
        assert summarise(store.log(stream_id).digest()) == summarise(stream.records), f"{stream.task_id}: its digest"
        return stream.records

    def ended(self, store: Store) -> None:
        """Nothing runs any more: every stream has ended, and the store shows it as it was written."""
        for info in store.streams():
            assert info.stream_id in self.streams, f"nobody submitted {info.task_id}"
        for stream in self.streams.values():
            assert stream.terminal is not None, f"{stream.task_id} was accepted and has not ended"
            info = store.info(stream.stream_id)
            kept = self.gone(store, stream.stream_id) if info.trimmed else log_of(store, stream.stream_id)
            assert kept == stream.records, f"{stream.task_id}: the log is not what was written"
            assert (info.state, info.seq) == (terminal_name(stream.terminal), len(stream.records))  # type: ignore[arg-type]
            begun = [record.call for record in stream.records if isinstance(record, CallStarted)]
            over = [record.call for record in stream.records if isinstance(record, CallEnded)]
            assert sorted(begun) == sorted(over), f"{stream.task_id}: the Calls {begun} began, and {over} ended"
            assert len(set(begun)) == len(begun), f"{stream.task_id}: a Call's number was given twice"
            if isinstance(stream.terminal, Skipped):
                parents = [self.stream_of(it, stream.plan_id) for it in self.tasks[stream.task_id].depends_on]
                assert any(not it.result.success for it in parents), f"{stream.task_id} was skipped for nothing"


def _has_content(records: Sequence[Record]) -> bool:
    summary = Summary()
    summary.feed(records)
    return summary.has_content


def log_of(store: Store, stream_id: str) -> list[Record]:
    """What a stream shows now."""
    follower = Follower(store, stream_id)
    records: list[Record] = []
    while some := follower.at_hand():
        records += some
    return records


class _Audited(Store):
    """Tells the truth of each transition that succeeded."""

    truth: Truth

    async def submit(self, specs: Sequence[StreamSpec]) -> None:
        await super().submit(specs)  # type: ignore[safe-super]
        self._tell(self.truth.submitted, specs)

    async def claim(self, stream_id: str) -> Lease:
        lease = await super().claim(stream_id)  # type: ignore[safe-super]
        self._tell(self.truth.claimed, lease)
        return lease

    def append(self, lease: Lease, records: Sequence[Record]) -> int:
        first = super().append(lease, records)  # type: ignore[safe-super]
        self._tell(self.truth.appended, lease, first, records)
        return first

    def finish(self, lease: Lease, records: Sequence[Record]) -> int:
        first = super().finish(lease, records)  # type: ignore[safe-super]
        self._tell(self.truth.appended, lease, first, records)
        return first

    def expire(self, stream_id: str) -> None:
        super().expire(stream_id)  # type: ignore[safe-super]
        self._tell(self.truth.fenced, stream_id, self.info(stream_id).epoch)

    def cancel(self, stream_id: str, reason: str) -> bool:
        first = super().cancel(stream_id, reason)  # type: ignore[safe-super]
        if first:
            self.truth.streams[stream_id].stop = reason
        return first

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        with self.truth.noted():
            what(*arguments)


class AuditedMemory(_Audited, MemoryStore):
    """The memory store, audited."""


class AuditedDisk(_Audited, SimulatedStore):
    """The simulated durable store, audited."""


class Grant:
    """A permit that was given ``at`` some time, and what its Call is known to use."""

    __slots__ = ("_before", "_heard_at", "at", "tokens")

    def __init__(self, at: float, tokens: int) -> None:
        self.at = at
        self.tokens = self._before = tokens
        self._heard_at = at

    def heard(self, tokens: int, now: float) -> None:
        """It uses so many, it says now."""
        self._before = min(self._before, self.tokens) if self._heard_at == now else self.tokens
        self._heard_at = now
        self.tokens = tokens

    def known(self, now: float) -> int:
        """What was known when a permit was given of which its owner is told ``now``.

        That was decided a little before: in this instant, but perhaps before something else that was heard in it.
        """
        return min(self._before, self.tokens) if self._heard_at == now else self.tokens


class Permits:
    """Which permits are held, and what was admitted in the last minute, as one who knows the limits counts it."""

    def __init__(self, limits: Mapping[str, Limits], truth: Truth) -> None:
        self._limits = limits
        self._truth = truth
        self.held: dict[str, int] = defaultdict(int)
        self._granted: dict[str, deque[Grant]] = defaultdict(deque)

    def grant(self, name: str, estimate: int, now: float) -> Grant:
        """A permit was given; what is returned stands for it."""
        self.held[name] += 1
        grant = Grant(now, estimate)
        with self._truth.noted():
            self._check(name, grant, now)
        return grant

    def _check(self, name: str, grant: Grant, now: float) -> None:
        limits = self._limits[name]
        most = limits.concurrency
        assert most is None or self.held[name] <= most, f"{self.held[name]} Calls of {name} at once, and {most} may be"
        minute = self._granted[name]
        while minute and minute[0].at < now - WINDOW:
            minute.popleft()
        minute.append(grant)
        most = limits.requests_per_minute
        assert most is None or len(minute) <= most, f"{len(minute)} Calls of {name} in a minute, and {most} may be"
        most, used = limits.tokens_per_minute, sum(it.known(now) for it in minute)
        assert most is None or used <= most, f"{used} tokens of {name} in a minute, and {most} may be"

    def release(self, name: str) -> None:
        self.held[name] -= 1
