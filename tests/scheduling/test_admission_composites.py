"""Limits under load, composites too: kept in every window of a minute, and used. On a clock that nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from multi_agent_scheduler import MultiAgentScheduler, Task
from multi_agent_scheduler.agents import ClaudeAgent, Failover, FunctionAgent, Hedge, Retry, Vote
from multi_agent_scheduler.agents.base import Agent
from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.gate import Gate
from multi_agent_scheduler.records import Record, Text, Usage
from multi_agent_scheduler.scheduling.limits import Limits
from multi_agent_scheduler.testing import run_virtual

RPM = 60
MINUTES = 4
PROMPT = "x" * 400
TOKENS = 101  # what PROMPT is estimated at


class Provider:
    """An agent's function, with the time of each of its Calls. Every ``fails``-th Call fails."""

    def __init__(self, seconds: float, fails: int | None = None) -> None:
        self.seconds = seconds
        self.fails = fails
        self.calls: list[float] = []

    async def __call__(self, prompt: str) -> AsyncIterator[Record]:
        self.calls.append(asyncio.get_running_loop().time())
        if self.fails is not None and len(self.calls) % self.fails == 0:
            raise agent_error(ErrorInfo("server_error", "no", retryable=True))
        await asyncio.sleep(self.seconds)
        yield Text(text="so")
        yield Usage(input_tokens=TOKENS, output_tokens=0)

    def agent(self, name: str) -> Agent:
        return FunctionAgent(lambda prompt: self(prompt), name=name)

    def most_in_a_minute(self) -> int:
        return max(sum(start <= at < start + 60 for at in self.calls) for start in self.calls)

    def within(self, minutes: int) -> int:
        """Calls of the first so many minutes."""
        return sum(at < self.calls[0] + 60 * minutes for at in self.calls)


def loaded(providers: dict[str, Provider], make: Callable[..., Agent], limits: Limits, tasks: int) -> None:
    """Run so many tasks at once over a composite of the providers, each with these limits."""

    async def run() -> None:
        agents = {name: provider.agent(name) for name, provider in providers.items()}
        everybody = {**agents, "all": make(*agents.values())}
        async with MultiAgentScheduler(everybody, limits=dict.fromkeys(agents, limits)) as scheduler:
            await asyncio.gather(
                *(scheduler.execute_task(Task(f"t{number}", PROMPT), "all") for number in range(tasks))
            )

    run_virtual(run())


# The last is how many tasks there are for each request of the limit: with a hedge, others take a part of them over.
COMPOSITES: list[tuple[Callable[..., Agent], dict[str, Provider], int]] = [
    (Failover, {"a": Provider(0.5, fails=3), "b": Provider(2.0)}, 1),
    (lambda a: Retry(a, 3, base=0.1), {"a": Provider(0.5, fails=3)}, 1),
    (lambda a, b: Hedge(a, b, after=1.0), {"a": Provider(3.0), "b": Provider(0.5)}, 2),
    (Vote, {"a": Provider(0.5), "b": Provider(1.5), "c": Provider(4.0)}, 1),
]
IDS = ["failover", "retry", "hedge", "vote"]


@pytest.mark.parametrize(("make", "providers", "share"), COMPOSITES, ids=IDS)
def test_a_limit_of_requests_is_kept_and_used(
    make: Callable[..., Agent], providers: dict[str, Provider], share: int
) -> None:
    for provider in providers.values():
        provider.calls.clear()
    loaded(providers, make, Limits(requests_per_minute=RPM), tasks=share * MINUTES * RPM + 20)
    first = providers["a"]
    for provider in providers.values():
        assert provider.most_in_a_minute() <= RPM
    assert first.within(MINUTES) >= 0.95 * RPM * MINUTES


@pytest.mark.parametrize(("make", "providers", "share"), COMPOSITES, ids=IDS)
def test_a_limit_of_tokens_is_kept_and_used_where_estimates_are_exact(
    make: Callable[..., Agent], providers: dict[str, Provider], share: int
) -> None:
    for provider in providers.values():
        provider.calls.clear()
    loaded(providers, make, Limits(tokens_per_minute=TOKENS * RPM), tasks=share * MINUTES * RPM + 20)
    for provider in providers.values():
        assert provider.most_in_a_minute() <= RPM
    assert providers["a"].within(MINUTES) >= 0.95 * RPM * MINUTES


def test_a_reader_that_dawdles_holds_no_permit() -> None:
    async def run() -> None:
        agent = Provider(0.5).agent("a")
        async with MultiAgentScheduler({"a": agent}, limits={"a": Limits(concurrency=1)}) as scheduler:
            slow = scheduler.execute_task_stream(Task("slow", PROMPT))
            assert (await anext(slow))["chunk"] == "so"
            assert (await asyncio.wait_for(scheduler.execute_task(Task("next", PROMPT)), 5)).success
            assert (await anext(slow))["done"]
            await slow.aclose()

    run_virtual(run())


async def test_members_that_have_no_name_of_their_own_are_limited_each_by_itself() -> None:
    gate = Gate()
    first, second, named = ClaudeAgent("k"), ClaudeAgent("k"), ClaudeAgent("k")
    names: dict[int, Any] = {id(named): "claude"}
    assert gate.place_of(named, names) == "claude"
    assert gate.place_of(first, names) == gate.place_of(first, names) == "claude#2"
    assert gate.place_of(second, names) == "claude#3"
    assert gate.place_of(FunctionAgent(Provider(1), name="other"), names) == "other"


def test_two_composites_of_agents_with_one_name_do_not_wait_for_each_other() -> None:
    async def run() -> None:
        slow, fast = Provider(100.0), Provider(1.0)
        one, other = slow.agent("x"), fast.agent("x")
        one.max_concurrent = other.max_concurrent = 1
        agents = {"one": Retry(one), "other": Retry(other)}
        async with MultiAgentScheduler(agents) as scheduler:
            waiting = asyncio.ensure_future(scheduler.execute_task(Task("t", PROMPT), "one"))
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            assert (await scheduler.execute_task(Task("u", PROMPT), "other")).success
            assert asyncio.get_running_loop().time() - began < 5
            assert (await waiting).success

    run_virtual(run())
