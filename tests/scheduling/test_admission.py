"""Who may make a Call now: each rule by itself. Time is an argument, so minutes pass at once."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import CallerError, InvalidOption, RequestOverLimit
from multi_agent_scheduler.scheduling.admission import EVERY, PATIENCE, Admission, Ticket
from multi_agent_scheduler.scheduling.limits import Limits
from multi_agent_scheduler.scheduling.provider import LONGEST, ProviderState, Quota


def one(**limits: int) -> Admission:
    """The admission of one agent, a."""
    return Admission({"a": Limits(**limits)})


def ask(admission: Admission, now: float = 0.0, agent: str = "a", **fields: Any) -> Ticket:
    ticket = Ticket(agent, **fields)
    changed = admission.ask(ticket, now)
    assert (ticket in changed) == (ticket.state != "waiting")
    return ticket


def drain(admission: Admission, running: list[Ticket], now: float = 0.0) -> list[Ticket]:
    """Close what runs, oldest first, and what was granted by that; all, in the order of their turns."""
    order = list(running)
    for ticket in order:
        order += admission.close(ticket, now)
    return order


# --- slots ---


def test_a_slot_is_granted_at_once_while_there_is_one_and_comes_back_once() -> None:
    admission = one(concurrency=1)
    first, second, third = ask(admission), ask(admission), ask(admission)
    assert [first.state, second.state, third.state] == ["granted", "waiting", "waiting"]
    assert ask(admission, agent="b").state == "granted"  # one without limits
    assert admission.close(second, 0.0) == []  # gave up waiting
    assert admission.close(first, 0.0) == [third]
    assert admission.close(first, 0.0) == admission.close(second, 0.0) == []
    assert (admission.used("a"), admission.waiting("a"), admission.waiting()) == (1, 0, 0)


def test_a_ticket_asks_once() -> None:
    admission = one(concurrency=1)
    ticket = ask(admission)
    with pytest.raises(ValueError, match="a granted ticket cannot ask again"):
        admission.ask(ticket, 0.0)


def test_a_task_type_has_slots_of_its_own_over_all_agents_and_does_not_block_the_others() -> None:
    admission = Admission({"a": Limits(concurrency=2)}, task_types={"video": 1})
    first = ask(admission, task_type="video")
    other_agent = ask(admission, agent="b", task_type="video")
    blocked = ask(admission, task_type="video")
    assert (other_agent.state, blocked.state) == ("waiting", "waiting")
    passing = ask(admission, task_type="text")  # behind the blocked one, but its type is not full
    assert passing.state == "granted"
    assert admission.close(first, 0.0) == [other_agent]
    assert admission.close(other_agent, 0.0) == [blocked]


def test_a_slot_of_a_full_agent_and_one_of_a_task_type_go_to_the_best_ticket_of_both() -> None:
    admission = Admission({"a": Limits(concurrency=1)}, task_types={"video": 1})
    running = ask(admission, task_type="video")
    video, urgent = ask(admission, task_type="video"), ask(admission, task_type="text", priority=9)
    elsewhere = ask(admission, agent="b", task_type="video")
    assert admission.close(running, 0.0) == [urgent, elsewhere]
    assert video.state == "waiting"


def test_limits_can_be_changed_while_calls_run() -> None:
    admission = one(concurrency=1)
    running = [ask(admission)]
    waiting = [ask(admission) for _ in range(3)]
    assert admission.limit("a", Limits(concurrency=3), 0.0) == waiting[:2]
    assert admission.limit("a", Limits(concurrency=1), 0.0) == []
    assert admission.close(running[0], 0.0) == admission.close(waiting[0], 0.0) == []  # two were too many
    assert admission.close(waiting[1], 0.0) == [waiting[2]]


# --- order ---


def test_a_higher_priority_goes_first_and_the_older_of_two_equals() -> None:
    admission = one(concurrency=1)
    running = ask(admission)
    asked = [ask(admission, priority=priority) for priority in (0, 5, 1, 5, 0)]
    assert [asked.index(ticket) for ticket in drain(admission, [running])[1:]] == [1, 3, 2, 0, 4]


def test_a_flood_of_one_key_does_not_keep_another_waiting() -> None:
    admission = one(concurrency=1)
    running = [ask(admission, key="flood")]
    for _ in range(100):
        ask(admission, key="flood")
    for _ in range(20):  # the other key comes late
        running += admission.close(running[-1], 0.0)
    for _ in range(10):
        ask(admission, key="late")
    turns = [ticket.key for ticket in drain(admission, running[-1:])[1:]]
    assert turns[:20].count("late") == 10
    assert all(set(turns[at : at + 2]) == {"late", "flood"} for at in range(0, 20, 2))


def test_shares_are_by_tokens_where_tokens_are_limited_and_by_weight() -> None:
    admission = Admission({"a": Limits(concurrency=1, tokens_per_minute=10**9)}, weights={"gold": 2})
    running = [ask(admission)]
    for _ in range(300):
        ask(admission, key="large", estimate=400)
        ask(admission, key="small", estimate=100)
        ask(admission, key="gold", estimate=100)
    spent: Counter[str] = Counter()
    for ticket in drain(admission, running)[1:]:
        spent[ticket.key] += ticket.estimate
        if ticket.key == "gold" and spent["gold"] == 20_000:
            break
    assert spent["large"] == pytest.approx(10_000, abs=400)
    assert spent["small"] == pytest.approx(10_000, abs=100)


def test_a_key_has_one_share_however_many_limited_task_types_it_asks_for() -> None:
    admission = Admission({"a": Limits(concurrency=1)}, task_types={"x": 5, "y": 5})
    running = [ask(admission)]
    for _ in range(60):
        for task_type in ("x", "y", "z"):
            ask(admission, key="many", task_type=task_type)
        ask(admission, key="one", task_type="x")
    turns = Counter(ticket.key for ticket in drain(admission, running)[1:81])
    assert turns["one"] == pytest.approx(40, abs=2)


def test_keys_that_come_once_leave_nothing_behind_though_somebody_always_waits() -> None:
    admission = one(concurrency=1)
    running = ask(admission)
    ask(admission)
    for at in range(3000):
        ask(admission, key=f"k{at}")
        [running] = admission.close(running, 0.0)
    shares = admission._agents["a"]._shares
    assert len(shares[0].ends) < 500
    for _ in range(2):
        [running] = admission.close(running, 0.0) or [running]
    assert (admission.waiting(), shares) == (0, {})


def test_a_low_priority_does_not_starve_under_a_stream_of_high_ones() -> None:
    admission = one(concurrency=1)
    running, now = ask(admission), 0.0
    low = [ask(admission, priority=0) for _ in range(3)]
    turns = []
    while any(ticket.state == "waiting" for ticket in low):
        ask(admission, now, priority=10)
        now += 1.0
        [running] = admission.close(running, now)
        turns.append(running)
        assert now < 100
    places = [turns.index(ticket) for ticket in low]
    assert places[0] >= PATIENCE - 1  # until then priority is strict
    assert places[2] <= PATIENCE + 3 * EVERY
    assert places[1] - places[0] == places[2] - places[1] == EVERY  # and no more than their share after that


def test_a_ticket_that_needs_two_full_things_gets_them_though_they_are_never_free_together() -> None:
    admission = Admission({"a": Limits(concurrency=1), "b": Limits(concurrency=1)}, task_types={"t": 1})
    on_a, on_b, now = ask(admission), ask(admission, agent="b", task_type="t"), 0.0
    starving = ask(admission, task_type="t")
    for _ in range(100):
        ask(admission, now, priority=5)
        ask(admission, now, agent="b", task_type="t", priority=5)
        now += 1.0
        for ticket in admission.close(on_a, now):
            on_a = ticket if ticket.agent == "a" else on_a
            on_b = ticket if ticket.agent == "b" else on_b
        if starving.state == "granted":
            break
        now += 1.0
        for ticket in admission.close(on_b, now):
            on_a = ticket if ticket.agent == "a" else on_a
            on_b = ticket if ticket.agent == "b" else on_b
        if starving.state == "granted":
            break
    assert starving.state == "granted"
    assert now <= PATIENCE + 4 * EVERY


def test_a_slot_that_is_kept_for_one_is_free_again_when_that_one_goes_or_its_agent_is_paused() -> None:
    for leaves in (True, False):
        admission = Admission({"a": Limits(concurrency=1)}, task_types={"t": 1})
        busy = ask(admission)
        running, now = [ask(admission, agent="b", task_type="t")], 0.0
        oldest = ask(admission, task_type="t")
        while running:
            ask(admission, now, agent="b", task_type="t")
            now += 2.0
            running = admission.close(running[0], now)
        assert admission.waiting("b") == 1  # the slot is kept for the oldest
        if leaves:
            [granted] = admission.close(oldest, now)
        else:
            [granted] = admission.feedback(busy, "rate_limited", now, retry_after=3600.0)
        assert granted.agent == "b"


# --- requests and tokens of a minute ---


def test_requests_of_any_minute_stay_within_the_limit() -> None:
    admission = one(requests_per_minute=2)
    for now in (0.0, 10.0):
        admission.close(ask(admission, now), now)
    waiting = [ask(admission, 20.0) for _ in range(2)]
    assert admission.next_time() == pytest.approx(60.0, abs=0.01)
    assert admission.tick(59.99) == []
    assert admission.tick(admission.next_time()) == [waiting[0]]
    assert admission.next_time() == pytest.approx(70.0, abs=0.01)
    assert admission.tick(admission.next_time()) == [waiting[1]]
    assert admission.next_time() == math.inf


def test_tokens_are_reserved_by_estimate_and_what_was_not_used_is_free_at_once() -> None:
    admission = one(tokens_per_minute=100)
    first = ask(admission, estimate=70)
    second = ask(admission, 1.0, estimate=50)
    assert second.state == "waiting"
    assert admission.close(first, 2.0, tokens=40) == [second]
    third = ask(admission, 3.0, estimate=20)
    assert third.state == "waiting"
    assert admission.settle(first, 30, 4.0) == [third]  # usage may also be known later


def test_use_beyond_the_estimate_is_a_debt_that_keeps_others_out() -> None:
    admission = one(tokens_per_minute=100)
    first = ask(admission, estimate=10)
    assert admission.settle(first, 60, 20.0) == []  # while it streams
    assert ask(admission, 20.0, estimate=40).state == "granted"
    late = ask(admission, 21.0, estimate=1)
    admission.settle(first, 300, 30.0)
    admission.close(first, 31.0)
    assert admission.next_time() > 80  # more than the limit until what was used from 20 on leaves
    assert admission.tick(80.0) == []
    while late.state == "waiting":
        admission.tick(admission.next_time())
    assert 90 < late.granted_at < 91


def test_a_small_call_does_not_pass_a_large_one_that_is_next() -> None:
    admission = one(tokens_per_minute=100)
    admission.close(ask(admission, 0.0, estimate=60), 0.0)
    large = ask(admission, 1.0, estimate=80)
    small = ask(admission, 2.0, estimate=1)
    assert small.state == "waiting"
    assert admission.tick(60.1) == [large, small]


def test_a_call_larger_than_the_bucket_fails_at_once() -> None:
    admission = one(tokens_per_minute=100)
    ticket = Ticket("a", estimate=101)
    with pytest.raises(RequestOverLimit) as caught:
        admission.ask(ticket, 0.0)
    assert str(caught.value) == (
        "agent 'a': a Call of about 101 tokens can never be made within its limit of 100 tokens per minute; "
        "ask for fewer (a smaller max_tokens, a shorter prompt) or raise the limit"
    )
    assert isinstance(caught.value, CallerError)
    assert admission.waiting() == 0
    assert admission.close(ticket, 0.0) == []
    ask(admission, estimate=100)
    waiting = ask(admission, estimate=90)
    assert admission.limit("a", Limits(tokens_per_minute=50), 1.0) == [waiting]
    assert waiting.state == "refused" and "limit of 50 tokens" in waiting.refusal


@pytest.mark.parametrize("name", ["concurrency", "requests_per_minute", "tokens_per_minute"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "5"])
def test_a_limit_is_a_whole_number_above_zero(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=f"limits: {name} must be a whole number above 0, or None, not "):
        Limits(**{name: value})


def test_limits_of_task_types_and_weights_are_checked_too() -> None:
    with pytest.raises(InvalidOption, match="the limit of task type 'x' must be a whole number above 0, not 0"):
        Admission(task_types={"x": 0})
    with pytest.raises(InvalidOption, match="the weight of key 'k' must be a number above 0, not 0"):
        Admission(weights={"k": 0})


# --- deadlines ---


def test_a_ticket_past_its_deadline_is_refused_and_lets_those_behind_it_in() -> None:
    admission = one(tokens_per_minute=100)
    ask(admission, estimate=50)
    large = ask(admission, estimate=80, deadline=5.0)
    small = ask(admission, estimate=50)
    assert admission.next_time() == 5.0
    assert admission.tick(4.9) == []
    assert admission.tick(5.0) == [large, small]
    assert (large.state, small.state) == ("refused", "granted")
    assert large.refusal == "agent 'a' had no place for the Call before its deadline, after 5 s"
    assert admission.close(large, 6.0) == []
    assert ask(admission, 7.0, deadline=7.0).state == "refused"


# --- what providers say ---


def test_a_rate_limit_answer_halves_what_runs_at_once_and_success_brings_it_back_step_by_step() -> None:
    admission = one(concurrency=8)
    running = [ask(admission) for _ in range(8)]
    for ticket in running:  # a burst of refusals is one sign, not eight
        admission.feedback(ticket, "rate_limited", 1.0)
        admission.close(ticket, 1.0)
    assert admission.allowed("a") == 4
    running = [ask(admission, 2.0) for _ in range(8)]
    assert admission.used("a") == 4
    admission.feedback(running[0], "rate_limited", 3.0)
    assert admission.allowed("a") == 2
    for ticket in drain(admission, running[:4], 4.0):
        admission.feedback(ticket, "ok", 5.0)
    assert 4 < admission.allowed("a") < 5  # 8 successes
    for _ in range(60):
        ticket = ask(admission, 6.0)
        admission.feedback(ticket, "ok", 6.0)
        admission.close(ticket, 6.0)
    assert admission.allowed("a") == 8


def test_without_a_limit_a_rate_limit_answer_makes_one_and_there_is_always_one_slot() -> None:
    admission = Admission()
    running = [ask(admission) for _ in range(6)]
    admission.feedback(running[0], "rate_limited", 1.0)
    assert admission.allowed("a") == 3
    assert ask(admission, 1.0).state == "waiting"
    for now in range(2, 9):
        waiting = drain(admission, running, now)[-1]
        running = [waiting if waiting.state == "granted" else ask(admission, now)]
        admission.feedback(running[0], "rate_limited", now)
    assert admission.allowed("a") == 1


def test_a_server_error_pauses_growth_and_cuts_nothing() -> None:
    admission = one(concurrency=4)
    admission.feedback(ask(admission), "rate_limited", 1.0)
    admission.feedback(ask(admission, 2.0), "server_error", 2.0)
    admission.feedback(ask(admission, 3.0), "ok", 3.0)
    assert admission.allowed("a") == 2
    admission.feedback(ask(admission, 20.0), "ok", 20.0)
    assert admission.allowed("a") == 2.5


def test_retry_after_keeps_everybody_out_until_then() -> None:
    admission = Admission()
    ticket = ask(admission)
    admission.feedback(ticket, "rate_limited", 1.0, retry_after=30.0)
    admission.close(ticket, 1.0)
    waiting = ask(admission, 2.0)
    assert (waiting.state, admission.next_time()) == ("waiting", 31.0)
    assert ask(admission, 2.0, agent="b").state == "granted"
    assert admission.tick(31.0) == [waiting]


def test_what_the_provider_has_left_is_kept_to_until_its_reset() -> None:
    admission = Admission()
    first, second = ask(admission), ask(admission)
    admission.heard(first, ProviderState(requests=Quota(3, 20.0)), 1.0)
    running = [ask(admission, 1.0) for _ in range(2)]  # the second may not have been counted by the provider
    assert [ticket.state for ticket in running] == ["granted", "granted"]
    third = ask(admission, 1.0)
    assert (third.state, admission.next_time()) == ("waiting", 21.0)
    # A newer answer counts, an older one that comes later does not.
    assert admission.heard(running[1], ProviderState(requests=Quota(1, 10.0)), 2.0) == [third]
    admission.heard(second, ProviderState(requests=Quota(50, 10.0)), 3.0)
    last = ask(admission, 3.0)
    assert last.state == "waiting"
    assert admission.tick(12.0) == [last]


def test_tokens_that_the_provider_has_left_are_kept_to_as_well() -> None:
    admission = Admission()
    first = ask(admission, estimate=10)
    admission.heard(first, ProviderState(tokens=Quota(100, 6.0)), 0.0)
    assert ask(admission, 1.0, estimate=80).state == "granted"
    waiting = ask(admission, 1.0, estimate=30)
    assert (waiting.state, admission.next_time()) == ("waiting", 6.0)
    assert admission.tick(6.0) == [waiting]


def test_after_the_reset_there_is_the_limit_that_the_provider_named_and_no_more() -> None:
    admission = Admission()
    admission.heard(ask(admission), ProviderState(requests=Quota(0, 10.0, 3)), 0.0)
    waiting = [ask(admission, 1.0) for _ in range(5)]
    assert {ticket.state for ticket in waiting} == {"waiting"}
    assert admission.tick(10.0) == waiting[:3]
    assert admission.next_time() == 70.0  # nothing more was heard: a minute, then again as many
    assert admission.tick(70.0) == waiting[3:]


def test_a_call_larger_than_the_provider_s_limit_is_the_provider_s_to_refuse() -> None:
    admission = Admission()
    admission.heard(ask(admission), ProviderState(tokens=Quota(50, 10.0, 100)), 0.0)
    large = ask(admission, 1.0, estimate=1000)
    assert large.state == "waiting"
    assert admission.tick(10.0) == [large]


def test_a_reset_that_is_hours_away_keeps_nobody_waiting() -> None:
    admission = Admission()
    admission.heard(ask(admission), ProviderState(requests=Quota(0, LONGEST + 1)), 0.0)
    assert ask(admission, 1.0).state == "granted"


@given(
    left=st.integers(0, 50), reset=st.floats(0, 90), limit=st.none() | st.integers(1, 50), own=st.integers(1, 20),
    latency=st.floats(0, 5),
)  # fmt: skip
def test_what_a_provider_says_never_widens_a_limit_of_ours(
    left: int, reset: float, limit: int | None, own: int, latency: float
) -> None:
    """A hundred Calls at once, and a provider that always says the same: none is granted too early, none is lost."""
    admission = one(requests_per_minute=own)
    now, due, granted = 0.0, list[tuple[float, Ticket]](), list[float]()
    tickets = [Ticket("a") for _ in range(100)]
    changed = [ticket for new in tickets for ticket in admission.ask(new, now)]
    while len(granted) < 100:
        granted += [now] * len(changed)
        due += [(now + latency, ticket) for ticket in changed]
        assert sum(at > now - 60 for at in granted) <= own
        answered = due[0] if due and due[0][0] <= admission.next_time() else None
        if answered is None:
            now = admission.next_time()
            assert now < math.inf, "somebody waits for ever"
            changed = admission.tick(now)
        else:
            del due[0]
            now = max(now, answered[0])
            state = ProviderState(requests=Quota(left, reset, limit))
            changed = admission.heard(answered[1], state, now) + admission.close(answered[1], now)


# --- under load ---


def simulate(limits: Limits, minutes: int, estimate: int) -> tuple[int, int]:
    """Calls of varying length for ``minutes``, always some waiting; requests and tokens admitted."""
    admission = Admission({"a": limits})
    now, asked = 0.0, 0
    ends: list[tuple[float, Ticket]] = []
    granted: list[Ticket] = []

    def note(changed: list[Ticket]) -> None:
        for ticket in changed:
            granted.append(ticket)
            ends.append((now + 1 + ticket.number % 7, ticket))

    while now < minutes * 60:
        while admission.waiting() < 50:
            asked += 1
            note(admission.ask(Ticket("a", key=f"k{asked % 3}", estimate=estimate + asked % 5), now))
        soonest = min(ends, default=(math.inf, None), key=lambda end: end[0])
        at = admission.next_time()
        if soonest[0] <= at and soonest[1] is not None:
            now = soonest[0]
            ends.remove(soonest)  # type: ignore[arg-type]
            note(admission.close(soonest[1], now, tokens=soonest[1].estimate))
        else:
            now = at
            note(admission.tick(now))
    granted = [ticket for ticket in granted if ticket.granted_at < minutes * 60]
    times = [ticket.granted_at for ticket in granted]
    for at in times:
        inside = [ticket for ticket in granted if at - 60 <= ticket.granted_at <= at]
        assert limits.requests_per_minute is None or len(inside) <= limits.requests_per_minute
        assert limits.tokens_per_minute is None or sum(t.estimate for t in inside) <= limits.tokens_per_minute
    return len(granted), sum(ticket.estimate for ticket in granted)


def test_under_load_the_limits_are_used_and_kept() -> None:
    requests, _ = simulate(Limits(concurrency=50, requests_per_minute=60), 5, 10)
    assert 0.95 * 60 * 5 <= requests <= 60 * 5
    _, tokens = simulate(Limits(concurrency=50, tokens_per_minute=10_000), 5, 200)
    assert 0.95 * 10_000 * 5 <= tokens <= 10_000 * 5


def test_what_gave_up_leaves_nothing_behind() -> None:
    admission = Admission({"a": Limits(concurrency=1)}, task_types={"t": 1})
    ask(admission)
    for at in range(3000):
        ticket = ask(admission, key=f"k{at}", priority=at % 7, deadline=at + 1e6, task_type="t" if at % 2 else "u")
        admission.close(ticket, 0.0)
    gate = admission._agents["a"]
    held = len(admission._deadlines) + sum(
        len(level._heap) + len(level.keys) for line in gate.lines.values() for level in line._levels.values()
    )
    assert admission.waiting() == 0
    assert held < 100
