"""What follows a failure: again, the next agent, or the end; and when a second agent is asked as well."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo, InvalidOption
from multi_agent_scheduler.scheduling.retry import Decision, Hedging, RecentTimes, RetryRules, backoff, decide

BUSY = ErrorInfo("overloaded_error", "busy", retryable=True)
REFUSED = ErrorInfo("authentication_error", "no")


def limited(retry_after: float) -> ErrorInfo:
    return ErrorInfo("rate_limit_error", "slow down", retryable=True, retry_after=retry_after)


@pytest.mark.parametrize(
    ("error", "known", "decision"),
    [
        # before content: another attempt is free
        (BUSY, {}, Decision("retry", 0.25)),
        (BUSY, {"attempt": 2}, Decision("retry", 0.5)),
        (BUSY, {"attempt": 3}, Decision("give_up")),
        (BUSY, {"attempt": 3, "others": True}, Decision("next")),
        (REFUSED, {}, Decision("give_up")),
        (REFUSED, {"others": True}, Decision("next")),
        # what the provider says is kept to, if it can be waited for
        (limited(7.0), {}, Decision("retry", 7.25)),
        (limited(0.0), {}, Decision("retry", 0.25)),
        (limited(3600.0), {}, Decision("give_up")),
        (limited(3600.0), {"others": True}, Decision("next")),
        # the caller's own doing
        (ErrorInfo("cancelled", "stopped"), {"others": True}, Decision("give_up")),
        (ErrorInfo("response_too_large", "full"), {"others": True, "content": True}, Decision("interrupted")),
        (ErrorInfo("budget_exceeded", "spent"), {"others": True}, Decision("give_up")),
        # behind the commit point
        (BUSY, {"content": True, "others": True}, Decision("interrupted")),
        (BUSY, {"content": True, "policy": "reset"}, Decision("retry", 0.25, "reset")),
        (REFUSED, {"content": True, "policy": "reset", "others": True}, Decision("next", 0.0, "reset")),
        (REFUSED, {"content": True, "policy": "reset"}, Decision("interrupted")),
        (BUSY, {"content": True, "policy": "continue", "can_continue": True}, Decision("retry", 0.25, "continue")),
        (BUSY, {"content": True, "policy": "continue", "others": True}, Decision("interrupted")),
        (BUSY, {"policy": "continue", "can_continue": True}, Decision("retry", 0.25)),
    ],
)
def test_what_follows_a_failure(error: ErrorInfo, known: dict[str, Any], decision: Decision) -> None:
    rules = RetryRules(policy=known.pop("policy", "off"))
    assert decide(rules, error, **{"attempt": 1, "chance": 0.5, **known}) == decision


@given(attempt=st.integers(1, 5000), chance=st.floats(0, 1))
def test_the_wait_doubles_up_to_its_bound_and_is_drawn_from_all_of_it(attempt: int, chance: float) -> None:
    rules = RetryRules(base=0.5, longest_wait=20.0)
    assert backoff(rules, attempt, chance) == chance * min(20.0, 0.5 * 2.0 ** min(attempt - 1, 50))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attempts": 0}, "attempts must be a whole number above 0, not 0"),
        ({"policy": "on"}, "policy must be 'off', 'continue' or 'reset', not 'on'"),
        ({"base": -1}, "base must be a number of seconds from 0 up, not -1"),
        ({"longest_wait": float("nan")}, "longest_wait must be a number of seconds from 0 up, not nan"),
    ],
)
def test_rules_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        RetryRules(**fields)
    assert str(caught.value) == message


# --- percentiles and hedging ---


@given(times=st.lists(st.floats(0, 100), min_size=1, max_size=60), percent=st.integers(1, 99))
def test_a_percentile_is_that_of_the_last_times_and_of_no_others(times: list[float], percent: int) -> None:
    recent = RecentTimes(size=20)
    for seconds in times:
        recent.add(seconds)
    last = sorted(times[-20:])
    found = recent.percentile(percent)
    assert found in last and len(recent) == len(last)
    assert sum(seconds <= found for seconds in last) * 100 >= percent * len(last)
    below = [seconds for seconds in last if seconds < found]
    assert len(below) * 100 < percent * len(last)


def test_hedging_after_seconds_needs_no_history_and_has_no_share() -> None:
    hedging = Hedging(0.5)
    assert [hedging.began() for _ in range(3)] == [0.5] * 3
    assert all(hedging.spend() for _ in range(3))


def test_hedging_by_percentile_waits_until_something_is_known() -> None:
    hedging = Hedging("p95")
    for at in range(20):
        assert hedging.began() is None
        hedging.first_content(at / 100)
    assert hedging.began() == pytest.approx(0.18 * 1.1)


@pytest.mark.parametrize("after", ["95", "p0", "p100", "p", "p9.5", "median", "p-5", -1, True, float("inf"), None])
def test_a_time_to_hedge_after_that_makes_no_sense_is_refused(after: Any) -> None:
    with pytest.raises(InvalidOption, match="after must be a number of seconds or a percentile such as 'p95', not "):
        Hedging(after)


@pytest.mark.parametrize("seed", range(5))
def test_three_percent_slow_starts_are_hidden_with_five_percent_more_requests(seed: int) -> None:
    chance = random.Random(seed)

    def start() -> float:
        return 2.0 if chance.random() < 0.03 else chance.uniform(0.015, 0.025)

    hedging, times, extra = Hedging("p95"), list[float](), 0
    for _ in range(3000):
        after, first = hedging.began(), start()
        if after is not None and first > after and hedging.spend():
            extra += 1
            first = min(first, after + start())
        hedging.first_content(first)
        times.append(first)
    assert extra <= 0.05 * 3000
    assert sorted(times)[int(0.99 * 3000)] <= 1.0


def test_a_provider_that_is_slow_as_a_whole_is_not_asked_twice_for_everything() -> None:
    hedging, extra = Hedging("p90"), 0
    for at in range(1000):
        after = hedging.began()
        seconds = 0.02 if at < 200 else 2.0 + at
        if after is not None and seconds > after:
            extra += hedging.spend()
        hedging.first_content(seconds)
    assert extra <= 100
