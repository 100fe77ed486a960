"""The pure parts together, in any order of steps: control state, admission, recovery and the fold of the log."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from multi_agent_scheduler.errors import StreamExists
from multi_agent_scheduler.records import (
    TERMINALS,
    CallEnded,
    CallStarted,
    Cancelled,
    Completed,
    Record,
    Reset,
    Text,
    terminal_name,
)
from multi_agent_scheduler.recovery import recovery
from multi_agent_scheduler.scheduling.admission import Admission, Ticket
from multi_agent_scheduler.scheduling.limits import Limits
from multi_agent_scheduler.store.core import Core, Fenced, Lease, StreamSpec
from multi_agent_scheduler.views.summary import Summary, summarise

LIMITS = Limits(concurrency=2, requests_per_minute=5)
NAMES = st.sampled_from(["a", "b", "c"])


class Running:
    """A worker that holds a stream's lease."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.summary = Summary()
        self.calls = 0
        self.ticket: Ticket | None = None


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.core = Core(max_log_bytes=1 << 30)
        self.admission = Admission({"agent": LIMITS})
        self.logs: dict[str, list[Record]] = {}
        self.kept: dict[str, Any] = {}  # of each stream, what a crash leaves
        self.workers: dict[str, Running] = {}
        self.dead: list[Lease] = []
        self.grants: list[float] = []

    @initialize(claimed=st.sets(NAMES, min_size=2), permitted=st.sets(NAMES, min_size=2))
    def begin(self, claimed: set[str], permitted: set[str]) -> None:
        """In the middle of things, so that not each example has to get there."""
        for name in ("a", "b", "c"):
            self.core.submit([StreamSpec(name, name)], self.now)
            self.logs[name] = []
        self.commit()
        for name in sorted(claimed):
            self.claim(name)
        for name in sorted(permitted & claimed):
            self.permit(name)
            self.append(name, 1)

    # --- steps ----------------------------------------------------------------------------------------------------

    @rule(name=NAMES)
    def submit_again(self, name: str) -> None:
        try:
            self.core.submit([StreamSpec("d", "d"), StreamSpec(name, name)], self.now)
        except StreamExists:
            assert "d" not in self.core, "all are accepted, or none"
            return
        raise AssertionError(f"{name} was accepted twice")

    @rule(name=NAMES)
    def claim(self, name: str) -> None:
        """Claim a stream and go on with what is there, as its commit point says."""
        if self.core.get(name).state != "queued":
            try:
                self.core.claim(name)
            except Fenced:
                return
            raise AssertionError(f"{name} was given to two")
        worker = self.workers[name] = Running(self.core.claim(name))
        stop = self.core.get(name).stop_reason
        left = recovery(self.logs[name], "off" if name == "a" else "reset", stop)
        worker.summary.feed(left.history)
        worker.calls = left.calls
        committed = worker.summary.has_content
        if left.terminal is not None:
            self.finish_with(worker, [*left.prelude, left.terminal])
        elif left.prelude:
            self.write(worker, left.prelude)
        if name in self.workers:  # it runs again: what it had said is void
            assert not (committed and worker.summary.has_content), "two attempts would be spliced"
            assert not worker.summary.open_calls

    @rule(name=NAMES)
    def permit(self, name: str) -> None:
        worker = self.workers.get(name)
        if worker is not None and worker.ticket is None:
            worker.ticket = Ticket("agent", estimate=1)
            self.note(self.admission.ask(worker.ticket, self.now))

    @rule(name=NAMES, count=st.integers(1, 3))
    def append(self, name: str, count: int) -> None:
        worker = self.workers.get(name)
        if worker is None or worker.ticket is None or worker.ticket.state != "granted":
            return
        if not worker.summary.open_calls:
            worker.calls += 1
            self.write(worker, [CallStarted(worker.calls, "agent")])
        self.write(worker, [Text(f"{number} ") for number in range(count)])

    @rule(name=NAMES)
    def end_of_a_call(self, name: str) -> None:
        worker = self.workers.get(name)
        if worker is not None and worker.summary.open_calls:
            self.write(worker, [CallEnded(worker.calls, "failed"), Reset(1, "another attempt")])
            self.give_back(worker)

    @rule(seconds=st.sampled_from([0.0, 0.5, 30.0, 61.0]))
    def stall(self, seconds: float) -> None:
        """Nothing comes for a while."""
        until = self.now + seconds
        while (at := self.admission.next_time()) <= until:
            self.now = at
            self.note(self.admission.tick(at))
        self.now = until

    @rule(name=NAMES)
    def expire(self, name: str) -> None:
        """Its worker is taken for dead: what it holds is taken from it, and it may write no more."""
        worker = self.workers.pop(name, None)
        if worker is not None:
            self.core.expire(name)
            self.bury(worker)

    @rule(name=NAMES)
    def cancel(self, name: str) -> None:
        info = self.core.get(name)
        first = info.stop_reason is None and not info.ended
        assert self.core.cancel(name, "enough") == first
        assert info.ended or info.stop_reason == "enough"

    @rule(name=NAMES)
    def finish(self, name: str) -> None:
        worker = self.workers.get(name)
        if worker is not None:
            stop = self.core.get(name).stop_reason
            self.finish_with(worker, [Completed("stop") if stop is None else Cancelled(stop)])

    @rule()
    def commit(self) -> None:
        """All that was done so far survives a crash."""
        self.kept = {info.stream_id: msgspec.structs.replace(info) for info in self.core}

    @precondition(lambda self: self.workers)
    @rule()
    def crash(self) -> None:
        """The process dies, and another makes its state of what was kept; all that was there goes."""
        for worker in self.workers.values():
            self.bury(worker)
        self.workers.clear()
        epochs = {info.stream_id: info.epoch for info in self.core}
        self.core, self.admission, self.grants = Core(max_log_bytes=1 << 30), Admission({"agent": LIMITS}), []
        for name, info in self.kept.items():
            restored = msgspec.structs.replace(info)
            restored.epoch = epochs[name]  # a claim is kept before it is given
            if restored.state == "running":
                restored.state = "queued"
            self.core.restore(restored)
            del self.logs[name][restored.seq :]

    def teardown(self) -> None:
        """Whatever was accepted is brought to its end."""
        for name in list(self.workers):
            self.finish(name)
        for info in list(self.core):
            self.claim(info.stream_id)
            if info.stream_id in self.workers:
                self.finish(info.stream_id)
            assert info.ended
        assert self.admission.used("agent") == self.admission.waiting() == 0

    # --- what is done ---------------------------------------------------------------------------------------------

    def write(self, worker: Running, records: Any) -> None:
        log = self.logs[worker.lease.stream_id]
        assert self.core.append(worker.lease, len(records), 1) == len(log) + 1
        log += records
        worker.summary.feed(records)

    def finish_with(self, worker: Running, records: list[Record]) -> None:
        name, terminal = worker.lease.stream_id, records[-1]
        assert isinstance(terminal, TERMINALS)
        worker.summary.feed(records[:-1])
        ended = [CallEnded(call.call, terminal_name(terminal)) for call in worker.summary.open_calls]
        last = [*records[:-1], *ended, terminal]
        first = self.core.finish(worker.lease, terminal_name(terminal), len(last), 1, self.now)
        assert first == len(self.logs[name]) + 1
        self.logs[name] += last
        worker.summary.feed([*ended, terminal])
        assert worker.summary.result() == summarise(self.logs[name]), "the live result is not that of the log"
        del self.workers[name]
        self.bury(worker)

    def bury(self, worker: Running) -> None:
        self.dead.append(worker.lease)
        self.give_back(worker)

    def give_back(self, worker: Running) -> None:
        if worker.ticket is not None:
            ticket, worker.ticket = worker.ticket, None
            self.note(self.admission.close(ticket, self.now))

    def note(self, changed: list[Ticket]) -> None:
        for ticket in changed:
            assert ticket.state == "granted"
            self.grants = [at for at in self.grants if at >= self.now - 60.0] + [self.now]
            assert len(self.grants) <= 5, "more requests in a minute than may be"

    # --- what holds -----------------------------------------------------------------------------------------------

    @invariant()
    def permits_are_within_limits(self) -> None:
        held = [it.ticket for it in self.workers.values() if it.ticket is not None and it.ticket.state == "granted"]
        assert self.admission.used("agent") == len(held) <= 2

    @invariant()
    def one_worker_a_stream_and_one_terminal_a_log(self) -> None:
        for info in self.core:
            log = self.logs[info.stream_id]
            assert info.seq == len(log)
            ends = [isinstance(record, TERMINALS) for record in log]
            assert sum(ends) == info.ended and not any(ends[:-1])
            assert (info.state == "running") == (info.stream_id in self.workers)
            calls = [record.call for record in log if isinstance(record, CallStarted)]
            assert len(set(calls)) == len(calls)

    @invariant()
    def who_has_lost_a_lease_writes_no_more(self) -> None:
        for lease in self.dead[-4:]:
            for write in (
                partial(self.core.append, lease, 1, 1),
                partial(self.core.finish, lease, "completed", 1, 1, self.now),
            ):
                try:
                    write()
                except Fenced:
                    continue
                raise AssertionError(f"the dead lease {lease} was taken")

    @invariant()
    def a_stop_is_kept(self) -> None:
        for info in self.core:
            if info.ended and info.stop_reason is not None:
                assert info.state == "cancelled"


TestMachine = Machine.TestCase
