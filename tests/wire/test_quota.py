"""What a provider says about its limits, in the headers of each family."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multi_agent_scheduler.scheduling.provider import ProviderState, Quota
from multi_agent_scheduler.wire.quota import provider_state

NOON = 1_795_348_800.0
"""2026-11-22T12:00:00Z, in seconds since 1970."""


def state(requests: Quota | None = None, tokens: Quota | None = None) -> ProviderState:
    return ProviderState(requests=requests, tokens=tokens)


def anthropic(kind: str, limit: str, remaining: str, reset: str) -> dict[str, str]:
    name = f"anthropic-ratelimit-{kind}"
    return {f"{name}-limit": limit, f"{name}-remaining": remaining, f"{name}-reset": reset}


def openai(kind: str, limit: str, remaining: str, reset: str) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": limit,
        f"x-ratelimit-remaining-{kind}": remaining,
        f"x-ratelimit-reset-{kind}": reset,
    }


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (anthropic("requests", "50", "49", "2026-11-22T12:00:01Z"), state(Quota(49, 1.0, 50))),
        (anthropic("requests", "50", "0", "2026-11-22T14:00:30.5+02:00"), state(Quota(0, 30.5, 50))),
        (anthropic("requests", "50", "0", "2026-11-22T11:59:00Z"), state(Quota(0, 0.0, 50))),
        (
            anthropic("tokens", "100000", "90000", "2026-11-22T12:00:06Z")
            | anthropic("input-tokens", "80000", "79000", "2026-11-22T12:00:01Z")
            | anthropic("output-tokens", "20000", "11000", "2026-11-22T12:00:27Z"),
            state(tokens=Quota(11000, 27.0, 20000)),
        ),
        (
            openai("requests", "60", "59", "1s") | openai("tokens", "150000", "149984", "6m0s"),
            state(Quota(59, 1.0, 60), Quota(149984, 360.0, 150000)),
        ),
        (openai("requests", "14400", "14370", "2m59.56s"), state(Quota(14370, 179.56, 14400))),
        (openai("tokens", "18000", "17997", "7.66s"), state(tokens=Quota(17997, 7.66, 18000))),
        (openai("requests", "10", "9", "6ms"), state(Quota(9, 0.006, 10))),
        (openai("requests", "200", "0", "1d2h3m4s"), state(Quota(0, 93784.0, 200))),
        (openai("requests", "200", "3", "12"), state(Quota(3, 12.0, 200))),
        ({"ratelimit": '"default";r=50;t=30'}, state(Quota(50, 30.0))),
        (
            {
                "ratelimit": '"burst";r=9;t=5, "day";r=3;t=4000',
                "ratelimit-policy": '"burst";q=10;w=10,"day";q=100;w=86400',
            },
            state(Quota(3, 4000.0, 100)),
        ),
        (
            {
                "ratelimit": '"r";r=9;t=5, "t";r=1200;t=20,"b";r=0;t=60',
                "ratelimit-policy": '"r";q=10;w=10, "t";q=5000;qu="tokens";w=60, "b";q=99;qu="content-bytes"',
            },
            state(Quota(9, 5.0, 10), Quota(1200, 20.0, 5000)),
        ),
        ({"ratelimit": '"a \\"b\\", c"; pk=:cHNzdA==: ;r=1;t=2'}, state(Quota(1, 2.0))),
    ],
)
def test_what_is_said(headers: dict[str, str], said: ProviderState) -> None:
    assert provider_state(headers, NOON) == said


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/event-stream"},
        anthropic("requests", "50", "many", "2026-11-22T12:00:01Z"),
        anthropic("requests", "50", "-1", "2026-11-22T12:00:01Z"),
        anthropic("requests", "50", "1", "soon"),
        anthropic("requests", "50", "1", "2026-13-22T12:00:01Z"),
        anthropic("requests", "50", "1", "2026-11-22T25:00:01Z"),
        openai("requests", "0", "0", "1m"),  # how some say that they have no limit
        openai("requests", "60", "5", ""),
        openai("requests", "60", "5", "1m30"),
        openai("requests", "60", "5", "-1s"),
        openai("requests", "60", "5, 5", "1s"),
        openai("requests", "60", "\u0665", "1s"),  # a digit, but none of HTTP's
        openai("requests", "60", "9" * 5000, "1s"),
        {"ratelimit": "limit=100, remaining=50, reset=50"},  # of an older draft
        {"ratelimit": '"default";r=50'},
        {"ratelimit": '"default";r=50;t=30 nonsense'},
        {"ratelimit": '"' + "\\" * 10_000},
    ],
)
def test_nonsense_is_as_if_it_were_not_there(headers: dict[str, str]) -> None:
    assert provider_state(headers, NOON) is None


def test_a_time_is_taken_by_the_answer_s_own_clock() -> None:
    headers = anthropic("requests", "50", "0", "2026-11-22T12:00:10Z") | {"date": "Sun, 22 Nov 2026 12:00:00 GMT"}
    assert provider_state(headers, NOON - 5000) == state(Quota(0, 10.0, 50))


NAMES = [
    *(name for kind in ("requests", "tokens", "input-tokens") for name in anthropic(kind, "", "", "")),
    *(name for kind in ("requests", "tokens") for name in openai(kind, "", "", "")),
    "ratelimit", "ratelimit-policy", "date",
]  # fmt: skip
VALUES = st.text(max_size=30) | st.from_regex(
    r'\A([0-9]{0,5}|[0-9]{1,3}(ms|[dhms])|"[a-z]?";r=[0-9]{0,3};t=[0-9]{0,3})\Z'
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
@example({"ratelimit": '""' + ";a" * 2000 + "!"})
@example({"anthropic-ratelimit-requests-remaining": "1", "anthropic-ratelimit-requests-reset": "0000-01-01T00:00:00Z"})
def test_whatever_comes_it_is_a_state_that_can_be_kept_to(headers: dict[str, str]) -> None:
    said = provider_state(headers, NOON)
    for quota in () if said is None else (said.requests, said.tokens):
        if quota is not None:
            assert quota.left >= 0
            assert 0 <= quota.reset < math.inf
            assert quota.limit is None or quota.limit > 0


@given(seconds=st.integers(0, 4_000_000_000), offset=st.integers(-840, 840))
def test_times_of_every_zone_are_understood(seconds: int, offset: int) -> None:
    from datetime import UTC, datetime, timedelta, timezone

    moment = datetime.fromtimestamp(seconds, UTC).astimezone(timezone(timedelta(minutes=offset)))
    headers = anthropic("requests", "9", "1", moment.isoformat())
    assert provider_state(headers, 0.0) == state(Quota(1, float(seconds), 9))
