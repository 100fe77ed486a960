"""Pacing as decisions: when a piece is due, and how a pace is written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import InvalidOption
from multi_agent_scheduler.views.pacing import Pace, Pacer, parse_pace


@pytest.mark.parametrize(
    ("written", "pace"),
    [
        ("50/s", Pace(50)), (50, Pace(50)), (2.5, Pace(2.5)), (" 50 / s ", Pace(50)), ("50", Pace(50)),
        ("50 chunks/s", Pace(50)), ("1 chunk/s", Pace(1)), ("50 tokens/s", Pace(50, "tokens")),
        ("50 Tokens/second", Pace(50, "tokens")), ("3000 tokens/min", Pace(50, "tokens")), ("60/minute", Pace(1)),
        (".5/s", Pace(0.5)), ("0.5 token/s", Pace(0.5, "tokens")), (Pace(7), Pace(7)),
    ],
)  # fmt: skip
def test_how_a_pace_is_written(written: Any, pace: Pace) -> None:
    assert parse_pace(written) == pace


@pytest.mark.parametrize(
    "written",
    ["", "fast", "-1/s", "0/s", 0, -3, True, None, "1e3/s", "50/h", "50 words/s", float("inf"), float("nan"), "/s"],
)
def test_what_is_no_pace(written: Any) -> None:
    with pytest.raises(InvalidOption, match="a pace "):
        parse_pace(written)


def test_a_burst_is_spread_out() -> None:
    pacer = Pacer(Pace(10))
    assert [pacer.due(3, 0.0) for _ in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_tokens_take_their_time_by_their_length() -> None:
    pacer = Pacer(Pace(10, "tokens"))
    assert [pacer.due(length, 0.0) for length in (40, 2, 4)] == pytest.approx([0, 1.0, 1.1])


def test_what_is_slower_is_not_delayed_and_a_pause_is_not_made_up_for() -> None:
    pacer = Pacer(Pace(10))
    assert [pacer.due(1, now) for now in (0, 1, 2, 60, 60, 60)] == pytest.approx([0, 1, 2, 60, 60.1, 60.2])


def test_what_has_no_text_does_not_wait() -> None:
    pacer = Pacer(Pace(1))
    assert [pacer.due(1, 0.0), pacer.due(0, 0.0), pacer.due(1, 0.0)] == [0, 0, 1]


ARRIVALS = st.lists(st.tuples(st.floats(0, 2), st.integers(0, 50)), max_size=40)


@given(ARRIVALS, st.sampled_from([Pace(5), Pace(0.5), Pace(20, "tokens")]))
def test_it_is_never_faster_than_its_pace_and_never_early(arrivals: list[tuple[float, int]], pace: Pace) -> None:
    pacer, now, given_out = Pacer(pace), 0.0, list[tuple[float, float]]()
    for gap, characters in arrivals:
        now += gap
        due = pacer.due(characters, now)
        assert due >= now
        if characters:
            weight = max(1.0, characters / 4) if pace.unit == "tokens" else 1.0
            for earlier, took in given_out[-1:]:
                assert due == pytest.approx(max(now, earlier + took))
            given_out.append((due, weight / pace.per_second))
    for first in range(len(given_out)):
        for last in range(first, len(given_out)):
            time_taken = given_out[last][0] - given_out[first][0]
            assert time_taken >= sum(took for _, took in given_out[first:last]) - 1e-6
