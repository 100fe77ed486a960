"""Admission, whatever happens in whatever order: the promises of its docstring, checked by brute force."""

from __future__ import annotations

import math
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from multi_agent_scheduler.errors import RequestOverLimit
from multi_agent_scheduler.scheduling.admission import EVERY, PATIENCE, Admission, Ticket
from multi_agent_scheduler.scheduling.limits import Limits
from multi_agent_scheduler.scheduling.provider import ProviderState, Quota

LIMITS: Final = {
    "a": Limits(concurrency=2, requests_per_minute=4, tokens_per_minute=100),
    "b": Limits(concurrency=1),
    "c": Limits(tokens_per_minute=60),
    "d": Limits(),
    "e": Limits(concurrency=3, requests_per_minute=2),
}
TYPES: Final = {"t": 1, "u": 2}

seconds = st.one_of(st.just(0.0), st.floats(0.001, 2.0), st.sampled_from([5.0, 15.0, 30.0, 60.0]))


class Calls(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(LIMITS, task_types=TYPES, weights={"gold": 2.0})
        self.now = 1000.0
        self.tickets: list[Ticket] = []
        self.known: dict[int, int] = {}  # what a granted Call has used, by its number: its estimate until it is known
        self.granted: list[Ticket] = []
        self.paused: dict[str, float] = {}
        self.told: set[str] = set()  # agents whose provider has said what it has left
        self.answered: set[int] = set()

    def note(self, changed: list[Ticket]) -> None:
        """Every grant was allowed at the moment when it was made, by what was known then."""
        assert len({ticket.number for ticket in changed}) == len(changed)
        for ticket in changed:
            if ticket.state == "refused":
                assert ticket.refusal and ticket.deadline <= self.now
                continue
            assert ticket.state == "granted" and ticket.granted_at == self.now < ticket.deadline
            assert ticket not in self.granted
            assert self.now >= self.paused.get(ticket.agent, 0.0)
            self.granted.append(ticket)
            self.known[ticket.number] = ticket.estimate
            minute = [t for t in self.granted if t.agent == ticket.agent and t.granted_at >= self.now - 60.0]
            limits = LIMITS[ticket.agent]
            assert limits.requests_per_minute is None or len(minute) <= limits.requests_per_minute
            used = sum(self.known[t.number] for t in minute)
            assert limits.tokens_per_minute is None or used <= limits.tokens_per_minute

    def running(self) -> list[Ticket]:
        return [ticket for ticket in self.tickets if ticket.state == "granted"]

    def waiting(self) -> list[Ticket]:
        return [ticket for ticket in self.tickets if ticket.state == "waiting"]

    @rule(
        agent=st.sampled_from(sorted(LIMITS)),
        task_type=st.sampled_from(["t", "u", "v", "w"]),
        key=st.sampled_from(["gold", "k1", "k2"]),
        priority=st.integers(0, 2),
        estimate=st.integers(0, 70),
        within=st.one_of(st.just(math.inf), st.floats(-1.0, 100.0)),
    )
    def ask(self, within: float, **fields: Any) -> None:
        ticket = Ticket(**fields, deadline=self.now + within)
        limit = LIMITS[ticket.agent].tokens_per_minute
        try:
            changed = self.admission.ask(ticket, self.now)
        except RequestOverLimit:
            assert limit is not None and ticket.estimate > limit
            return
        assert limit is None or ticket.estimate <= limit
        self.tickets.append(ticket)
        self.note(changed)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), tokens=st.one_of(st.none(), st.integers(0, 120)))
    def close(self, data: st.DataObject, tokens: int | None) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        if ticket.state == "granted" and tokens is not None:
            self.known[ticket.number] = tokens
        self.note(self.admission.close(ticket, self.now, tokens))

    @precondition(lambda self: self.granted)
    @rule(data=st.data(), more=st.integers(1, 120))
    def use_beyond_the_estimate(self, data: st.DataObject, more: int) -> None:
        ticket = data.draw(st.sampled_from(self.granted))
        tokens = self.known[ticket.number] = self.known[ticket.number] + more
        self.note(self.admission.settle(ticket, tokens, self.now))

    @precondition(lambda self: any(t.number not in self.answered for t in self.granted))
    @rule(
        data=st.data(),
        answer=st.sampled_from(["ok", "ok", "rate_limited", "server_error"]),
        after=st.one_of(st.none(), st.floats(0.0, 90.0)),
        left=st.one_of(st.none(), st.integers(0, 5)),
        limit=st.one_of(st.none(), st.integers(1, 5)),
    )
    def answer(
        self, data: st.DataObject, answer: Any, after: float | None, left: int | None, limit: int | None
    ) -> None:
        ticket = data.draw(st.sampled_from([t for t in self.granted if t.number not in self.answered]))
        self.answered.add(ticket.number)
        after = after if answer == "rate_limited" else None
        if left is not None:
            self.told.add(ticket.agent)
            state = ProviderState(requests=Quota(left, 10.0, limit), tokens=Quota(left * 20, 5.0))
            self.note(self.admission.heard(ticket, state, self.now))
        if after is not None:
            self.paused[ticket.agent] = max(self.paused.get(ticket.agent, 0.0), self.now + after)
        self.note(self.admission.feedback(ticket, answer, self.now, retry_after=after))

    @rule(passed=seconds)
    def time_passes(self, passed: float) -> None:
        """As a shell does it: a tick at each time that was named, and nothing at any other."""
        until = self.now + passed
        while (at := self.admission.next_time()) <= until:
            assert at >= self.now
            self.now = at
            before = len(self.granted), len(self.waiting())
            self.note(self.admission.tick(self.now))
            assert (len(self.granted), len(self.waiting())) != before or self.admission.next_time() > at
        self.now = until
        self.note(self.admission.tick(until))

    @invariant()
    def slots_are_counted_and_kept(self) -> None:
        running = self.running()
        for agent, limits in LIMITS.items():
            here = [ticket for ticket in running if ticket.agent == agent]
            assert self.admission.used(agent) == len(here)
            assert limits.concurrency is None or len(here) <= limits.concurrency
        for task_type, slots in TYPES.items():
            assert sum(ticket.task_type == task_type for ticket in running) <= slots
        waiting = self.waiting()
        assert self.admission.waiting() == len(waiting)
        assert all(ticket.deadline > self.now for ticket in waiting)

    @invariant()
    def nothing_waits_that_could_go(self) -> None:
        """A slot is empty only if a window or a pause keeps out whoever is next, or if it is kept for the oldest."""
        running = self.running()
        for agent, limits in LIMITS.items():
            if self.now < self.paused.get(agent, 0.0) or agent in self.told:
                continue
            if self.admission.used(agent) >= int(min(self.admission.allowed(agent), 1e9)):
                continue
            near = [t for t in self.granted if t.agent == agent and t.granted_at >= self.now - 60.002]
            if limits.requests_per_minute is not None and len(near) >= limits.requests_per_minute:
                continue
            waiting = [ticket for ticket in self.waiting() if ticket.agent == agent]
            for ticket in waiting:
                if limits.tokens_per_minute is not None:
                    break  # next in line may be a large one; the liveness check at the end has those
                if ticket.task_type in TYPES:
                    kept = any(
                        t.task_type == ticket.task_type and self.now - t.asked_at >= PATIENCE for t in self.waiting()
                    )
                    used = sum(t.task_type == ticket.task_type for t in running)
                    assert kept or used >= TYPES[ticket.task_type]
                else:
                    raise AssertionError(f"{ticket} could go")

    def teardown(self) -> None:
        """Everybody gets a turn in the end, and everything comes back."""
        for _ in range(10_000):
            for ticket in self.running():
                self.note(self.admission.close(ticket, self.now))
            if not self.waiting():
                break
            if not self.running():
                at = self.admission.next_time()
                assert self.now <= at < math.inf, "somebody waits for ever"
                self.now = at
                self.note(self.admission.tick(at))
        for ticket in self.running():
            self.note(self.admission.close(ticket, self.now))
        assert self.admission.waiting() == 0
        assert all(self.admission.used(agent) == 0 for agent in LIMITS)
        assert all(ticket.state in ("closed", "refused") for ticket in self.tickets)
        assert self.admission.next_time() == math.inf


TestCalls = Calls.TestCase


# --- nothing starves ---


@given(data=st.data(), concurrency=st.integers(1, 3))
def test_a_ticket_that_has_waited_long_is_granted_within_the_bound(data: st.DataObject, concurrency: int) -> None:
    admission = Admission({"a": Limits(concurrency=concurrency)})
    now, running, waiting = 0.0, list[Ticket](), list[Ticket]()
    due: dict[int, tuple[int, int]] = {}  # ticket: (grants when its patience ended, how many before it)
    grants = 0
    for _ in range(data.draw(st.integers(40, 80))):
        now += 1.0
        for key in data.draw(st.lists(st.sampled_from("xyz"), max_size=3)):
            ticket = Ticket("a", key=key, priority=data.draw(st.sampled_from([0, 1, 9, 9])))
            waiting.append(ticket)
            running += admission.ask(ticket, now)
        while running and data.draw(st.booleans()):
            running += admission.close(running.pop(0), now)
        for ticket in [ticket for ticket in waiting if ticket.state == "granted"]:
            waiting.remove(ticket)
            grants += 1
            if ticket.number in due:
                since, older = due[ticket.number]
                assert grants - since <= EVERY * (older + 1) + 4  # 4: those that were granted in the same moment
        for place, ticket in enumerate(waiting):
            if now - ticket.asked_at >= PATIENCE:
                due.setdefault(ticket.number, (grants, place))


@given(data=st.data())
def test_of_keys_that_always_wait_each_gets_its_share_whatever_their_calls_cost(data: st.DataObject) -> None:
    costs = data.draw(st.lists(st.integers(1, 50), min_size=2, max_size=4))
    admission = Admission({"a": Limits(concurrency=1, tokens_per_minute=10**9)})
    [running] = admission.ask(Ticket("a"), 0.0)
    for key, cost in enumerate(costs):
        for _ in range(data.draw(st.integers(10, 400 // cost + 10)) + 400 // cost):
            admission.ask(Ticket("a", key=str(key), estimate=cost), 0.0)
    spent = [0] * len(costs)
    for _ in range(sum(400 // cost for cost in costs) // 2):
        [running] = admission.close(running, 0.0)
        spent[int(running.key)] += running.estimate
        if max(spent) >= 400 - max(costs):
            break
    assert max(spent) - min(spent) <= 2 * max(costs)
