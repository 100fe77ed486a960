"""Windows of a minute against the plainest of models: a list of what happened when."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.scheduling.window import MARGIN, WINDOW, RequestWindow, TokenWindow

MINUTE = WINDOW + MARGIN

gaps = st.lists(st.sampled_from([0.0, 0.1, 1.0, 7.0, 30.0, 59.999, 60.0, 61.0]), min_size=1, max_size=60)


@given(limit=st.integers(1, 5), gaps=gaps)
def test_a_request_fits_exactly_when_the_last_minute_has_room(limit: int, gaps: list[float]) -> None:
    window, now, taken = RequestWindow(limit), 0.0, list[float]()
    for gap in gaps:
        now += gap
        inside = [at for at in taken if at + MINUTE > now]
        opens = window.opens(now)
        assert (opens <= now) == (len(inside) < limit)
        if opens > now:
            assert opens == sorted(inside)[len(inside) - limit] + MINUTE
        else:
            window.take(now)
            taken.append(now)


def test_a_lower_limit_waits_until_enough_have_left() -> None:
    window = RequestWindow(3)
    for now in (0.0, 1.0, 2.0):
        window.take(now)
    window.limit = 1
    assert window.opens(3.0) == 2.0 + MINUTE


@given(data=st.data(), gaps=gaps)
def test_what_is_used_is_what_was_reserved_or_settled_in_the_last_minute(
    data: st.DataObject, gaps: list[float]
) -> None:
    window, now = TokenWindow(100), 0.0
    calls = []  # [reservation, booked: [when, tokens], debts: [[when, tokens], ...]]
    for gap in gaps:
        now += gap
        if calls and data.draw(st.booleans()):
            reservation, first, debts = data.draw(st.sampled_from(calls))
            tokens = data.draw(st.integers(0, 150))
            more = tokens - reservation.tokens
            window.settle(reservation, tokens, now)
            if more > 0:
                debts.append([now, more])
            elif debts:
                continue  # given back from both: checked below by itself
            elif first[0] + MINUTE > now:
                first[1] += more
        else:
            tokens = data.draw(st.integers(0, 60))
            if window.opens(tokens, now) <= now:
                calls.append((window.reserve(tokens, now), [now, tokens], []))
        used = window.used(now)
        assert used >= 0
        if all(not debts for _, _, debts in calls):
            assert used == sum(tokens for _, (at, tokens), _ in calls if at + MINUTE > now)


def test_what_was_booked_too_much_comes_back_from_the_debt_first_and_then_from_the_estimate() -> None:
    window = TokenWindow(100)
    call = window.reserve(40, 0.0)
    window.reserve(10, 0.0)
    window.settle(call, 70, 1.0)
    assert window.used(1.0) == 80
    window.settle(call, 55, 2.0)
    assert window.used(2.0) == 65
    window.settle(call, 15, 3.0)
    assert window.used(3.0) == 25
    window.settle(call, 15, 4.0)
    assert window.used(4.0) == 25


def test_what_has_left_the_window_gives_nothing_back() -> None:
    window = TokenWindow(100)
    call = window.reserve(40, 0.0)
    window.reserve(30, 50.0)
    window.settle(call, 0, 70.0)
    assert window.used(70.0) == 30


def test_debt_counts_for_a_minute_from_when_it_is_known_and_a_stream_books_it_in_steps() -> None:
    window = TokenWindow(100)
    call = window.reserve(10, 0.0)
    for at in range(1, 1001):  # a chunk each millisecond
        window.settle(call, 10 + at, at / 1000)
    assert len(window._bookings) <= 6
    assert window.used(59.0) == 1010
    for now in range(60_000, 61_500, 10):
        since = now - 60_000  # milliseconds: what was known since then must count, what is a step older must not
        assert (
            max(0, 1000 - since) <= window.used(now / 1000) <= min(1000, max(0, 1000 - since + 253)) + 10 * (since < 2)
        )


def test_when_there_will_be_room() -> None:
    window = TokenWindow(100)
    for at in range(5):
        window.reserve(20, float(at))
    assert window.opens(1, 5.0) == 0 + MINUTE
    assert window.opens(41, 5.0) == 2 + MINUTE
    assert window.opens(100, 5.0) == 4 + MINUTE
    assert window.opens(101, 5.0) == math.inf
    assert window.opens(0, 5.0) == 5.0


@pytest.mark.parametrize("size", [1, 1000])
def test_a_time_that_is_told_comes_nearer_until_there_is_room(size: int) -> None:
    window = TokenWindow(1000)
    for at in range(size):
        window.reserve(1000 // size, at / 1000)
    now, looks = 2.0, 0
    while (opens := window.opens(1000, now)) > now:
        now, looks = opens, looks + 1
    assert now == pytest.approx(MINUTE + (size - 1) / 1000)
    assert looks <= 1 + size // 64 + 1
