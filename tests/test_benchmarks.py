"""The benchmarks' own parts: a provider that says what it should, and figures that mean what they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from benchmarks.figures import Budget, Report, Row, interval, median, ratios, shown
from benchmarks.provider import PROTOCOLS, render, text_of
from benchmarks.rounds import Broken, Client, turns
from benchmarks.server import Pacer, Provider

from multi_agent_scheduler import ClaudeAgent, OpenAIAgent


@pytest.fixture(scope="module")
def pacer() -> Pacer:
    started = Pacer()
    started.start()
    return started


@pytest.fixture
async def root(pacer: Pacer) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(lambda: Provider(pacer), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def read(agent: Any) -> list[str]:
    async with agent:
        return [chunk async for chunk in agent.call_stream("hello", errors="raise")]


@pytest.mark.parametrize("pace", ["n50/d0", "n50/d1/t1", "n50/d1/t0"])
@pytest.mark.parametrize("protocol", ["chat", "responses", "messages"])
async def test_every_protocol_and_pace_is_read_to_the_same_text(root: str, protocol: Any, pace: str) -> None:
    if protocol == "messages":
        agent: Any = ClaudeAgent(api_key="x", base_url=f"{root}/{pace}")
    else:
        agent = OpenAIAgent(api_key="x", base_url=f"{root}/{pace}/v1", api=protocol)
    assert "".join(await read(agent)) == text_of(50)


async def test_a_models_name_says_how_much(root: str) -> None:
    chunks = await read(OpenAIAgent(api_key="x", base_url=f"{root}/v1", model="n7-d1"))
    assert chunks == [*_tokens(7)]


async def test_a_connection_is_used_again(root: str) -> None:
    async with OpenAIAgent(api_key="x", base_url=f"{root}/n3/d1/v1") as agent:
        for _ in range(3):
            assert (await agent.call("hello")).text == text_of(3)


@pytest.mark.parametrize("ending", PROTOCOLS)
def test_every_write_is_one_token(ending: str) -> None:
    writes = render(ending, 40)
    assert len(writes) == 40
    assert all(write.count(b"\r\n\r\n") <= 1 for write in writes)
    sizes = [len(write) for write in writes[1:-1]]
    if ending == "/chat/completions":
        assert 250 <= median(sizes) <= 320


def _tokens(count: int) -> list[str]:
    return [text_of(number + 1)[len(text_of(number)) :] for number in range(count)]


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([2.0, 30.0], [1.0, 10.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_an_interval_holds_the_median_and_narrows_with_the_samples() -> None:
    few = [1.0, 1.1, 0.9, 1.3, 0.8]
    low, high = interval(few)
    assert 0.8 <= low <= median(few) <= high <= 1.3
    closer = interval(few * 40)
    assert closer[1] - closer[0] < high - low
    assert interval([2.0] * 9) == (2.0, 2.0)


def test_a_missed_budget_is_shown_as_missed() -> None:
    report = Report(
        "Title",
        {"us": ".1f", "x": ".2f"},
        [Row("one", {"us": 1.25, "x": None}), Row("another", {"us": 20.0, "x": 16.0}, "noted")],
        [Budget("one / another", 0.5, 0.5), Budget("other", 2.0, 1.5)],
        ["SKIPPED  third"],
    )
    lines = shown(report).splitlines()
    assert lines[0] == "Title"
    assert lines[2].split() == ["one", "1.2", "-"]
    assert lines[3].split() == ["another", "20.0", "16.00", "noted"]
    assert lines[4].split()[0] == "met"
    assert lines[5].split()[0] == "MISSED"
    assert lines[6].strip() == "SKIPPED  third"
    assert [budget["met"] for budget in report.plain()["budgets"]] == [True, False]


def test_a_contender_that_breaks_is_said_and_left_out() -> None:
    notes: list[str] = []

    def act(name: str) -> str:
        if name == "bad":
            raise Broken("it broke")
        return name

    assert turns(["good", "bad"], 3, act, notes) == {"good": ["good"] * 3}
    assert notes == ["FAILED  bad: it broke"]
    with pytest.raises(Broken):
        turns(["bad"], 1, act)


def test_a_client_that_cannot_connect_is_broken() -> None:
    with Client("raw") as client, pytest.raises(Broken, match="ConnectionRefused"):
        client.ask("stream", "http://127.0.0.1:1", 1)
