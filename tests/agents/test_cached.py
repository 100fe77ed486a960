"""The cache: what is the same request, what is kept, and who joins what is under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from msgspec import structs

from multi_agent_scheduler import (
    Cache,
    Cached,
    Failover,
    ImagePart,
    Message,
    Metrics,
    MultiAgentScheduler,
    Retry,
    Task,
    TextPart,
    Tool,
    Vote,
)
from multi_agent_scheduler.agents import Agent, Context
from multi_agent_scheduler.errors import CallerError, InvalidConfiguration, InvalidOption, InvalidRequest, StoreError
from multi_agent_scheduler.records import (
    CallEnded,
    CallStarted,
    Completed,
    Failed,
    Reasoning,
    Record,
    Reset,
    Text,
    ToolCall,
    Unknown,
    Usage,
)
from multi_agent_scheduler.request import Request
from multi_agent_scheduler.task import Timeouts
from multi_agent_scheduler.testing import ScriptedAgent

from .composing import CountingContext, ended, failure, kinds, log_of, result, run, started, text, turns

RICH = (
    Reasoning("hm", signature="seal"),
    "Hel",
    [Text("lo"), ToolCall(0, "t1", "look", "{}"), Unknown(raw={"a": [1, b"x"]})],
    Usage(input_tokens=3, output_tokens=2, raw={"prompt_tokens": 3}),
    Completed("tool_calls", "tool_use"),
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def without_calls(log: list[Record]) -> list[Record]:
    """What was said, and what it took, whoever paid for it."""
    return [_paid(record) for record in log if not isinstance(record, CallStarted)]


def _paid(record: Record) -> Record:
    if isinstance(record, Usage):
        return structs.replace(record, cached=False)
    if isinstance(record, CallEnded) and record.usage is not None:
        return structs.replace(record, usage=structs.replace(record.usage, cached=False))
    return record


def usages(log: list[Record]) -> list[Usage]:
    """Those of the Calls, while they speak and at their ends."""
    said = [record.usage if isinstance(record, CallEnded) else record for record in log]
    return [usage for usage in said if isinstance(usage, Usage)]


# --- hits -----------------------------------------------------------------------------------------------------------


async def test_an_answer_is_given_again_by_the_very_same_records() -> None:
    agent = ScriptedAgent(*RICH)
    cached = Cached(agent)
    ctx = CountingContext()
    first, again = await log_of(cached, ctx), await log_of(cached, other := CountingContext())
    assert without_calls(again) == without_calls(first)
    assert [(call.call, call.cached) for call in started(first) + started(again)] == [(1, False), (1, True)]
    assert len(agent.requests) == 1
    assert (result(first).cached, result(again).cached) == (False, True)
    assert [usage.cached for usage in usages(first)] == [False, False]
    assert [usage.cached for usage in usages(again)] == [True, True]
    assert result(again).usage == structs.replace(result(first).usage, cached=True)
    assert (ctx.counts, other.counts) == ({"cache.misses": 1}, {"cache.hits": 1})
    assert (cached.cache.hits, cached.cache.misses) == (1, 1)
    assert other.held_when_asked == []


async def test_a_long_answer_comes_whole_and_in_order() -> None:
    cached = Cached(ScriptedAgent(*map(str, range(1000))))
    await log_of(cached)
    assert text(await log_of(cached)) == "".join(map(str, range(1000)))


async def test_every_way_of_asking_finds_it() -> None:
    agent = ScriptedAgent("Hel", "lo")
    cached = Cached(agent)
    assert (await cached.call("Hi")).cached is False
    assert [chunk async for chunk in cached.call_stream("Hi")] == ["Hel", "lo"]
    assert (await cached.call("Hi")).cached is True
    metrics = Metrics()
    async with MultiAgentScheduler({"cached": cached}, metrics=metrics) as scheduler:
        items = [item async for item in scheduler.execute_task_stream(Task("t", "Hi"))]
        assert (await scheduler.execute_task(Task("t", "Ho"))).cached is False
    assert items[-1]["cached"] is True
    counters: Any = metrics.get_all_stats()["counters"]
    assert (counters["cache.hits"], counters["cache.misses"]) == (1, 1)
    assert len(agent.requests) == 2


SAME: dict[str, Any] = {"prompt": "Hi", "temperature": 1.0, "extra": {"b": 1, "a": 2}, "tools": [Tool("t")]}


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "Ho"}, {"temperature": 0.5}, {"extra": {"b": 1}}, {"tools": [Tool("u")]}, {"max_tokens": 9},
        {"system": "Be brief"}, {"seed": 1}, {"stop": "x"}, {"model": "other"}, {"schema": {"type": "object"}},
        {"prompt": [Message("user", (TextPart("Hi"), ImagePart(url="https://x/y.png")))]},
        {"prompt": [Message("assistant", (TextPart("Hi"),))]}, {"extra": {"a": 2.5, "b": 1}},
    ],
)  # fmt: skip
async def test_every_part_of_a_request_counts(change: dict[str, Any]) -> None:
    agent = ScriptedAgent("Hello")
    cached = Cached(agent)
    await log_of(cached, **SAME)
    await log_of(cached, **{**SAME, **change})
    assert len(agent.requests) == 2
    await log_of(cached, **{**SAME, "extra": {"a": 2, "b": 1}})  # the order of a mapping is no difference
    assert len(agent.requests) == 2


async def test_what_belongs_to_one_owner_is_not_given_to_another() -> None:
    agent = ScriptedAgent("Hello")
    cached = Cached(agent)
    for owner in ("", "anna", "bert", "anna"):
        ctx = CountingContext()
        ctx.owner = owner
        await log_of(cached, ctx)
    assert len(agent.requests) == 3


async def test_agents_and_models_are_told_apart_in_a_shared_cache() -> None:
    cache = Cache()
    a, b = ScriptedAgent("A", model="m"), ScriptedAgent("B", model="m")
    assert text(await log_of(Cached(a, cache))) == "A"
    assert text(await log_of(Cached(b, cache))) == "B"
    assert text(await log_of(Cached(a, cache))) == "A" and len(a.requests) == 1
    a.model = "n"
    await log_of(Cached(a, cache))
    assert len(a.requests) == 2


async def test_the_models_inside_a_composite_count_too() -> None:
    a = ScriptedAgent("A", model="m")
    cached = Cached(Failover(ScriptedAgent(failure()), a))
    await log_of(cached)
    a.model = "n"
    await log_of(cached)
    assert len(a.requests) == 2


async def test_answers_can_be_shared_under_a_name() -> None:
    cache = Cache()
    assert text(await log_of(Cached(ScriptedAgent("A"), cache, identity="x"))) == "A"
    assert text(await log_of(Cached(ScriptedAgent("B"), cache, identity="x"))) == "A"


async def test_only_successes_are_kept() -> None:
    for last in (failure(), Completed("content_filter"), Completed("pause")):
        agent = ScriptedAgent("Hel", last)
        cached = Cached(agent)
        for _ in range(2):
            assert text(await log_of(cached)) == "Hel"
        assert len(agent.requests) == 2 and len(cached.cache) == 0


async def test_what_a_reader_left_half_read_is_not_kept() -> None:
    agent = ScriptedAgent("Hel", asyncio.Event())
    cached = Cached(agent)
    async for _ in cached.call_stream("Hi"):
        break
    await turns(3)
    assert (agent.running, len(cached.cache)) == (0, 0)


async def test_an_answer_ends_with_its_time() -> None:
    clock, agent = Clock(), ScriptedAgent("Hello")
    cached = Cached(agent, Cache(ttl=60, clock=clock))
    for now, asked in ((0, 1), (59.9, 1), (60, 2), (119, 2), (121, 3)):
        clock.now = now
        await log_of(cached)
        assert len(agent.requests) == asked


async def test_the_cache_is_bounded_in_bytes_and_forgets_what_was_used_longest_ago() -> None:
    agent = ScriptedAgent("x" * 1000)
    await log_of(one := Cached(agent))
    most = one.cache.size * 3 + 100
    cached = Cached(agent, Cache(max_bytes=most))
    for prompt in ("1", "2", "3", "1", "4"):
        await log_of(cached, prompt=prompt)
    assert len(cached.cache) == 3 and one.cache.size * 3 - 100 < cached.cache.size <= most
    asked = len(agent.requests)
    for prompt in ("1", "3", "4"):
        await log_of(cached, prompt=prompt)
    assert len(agent.requests) == asked
    await log_of(cached, prompt="2")
    assert len(agent.requests) == asked + 1
    cached.cache.clear()
    assert (len(cached.cache), cached.cache.size) == (0, 0)


async def test_what_is_larger_than_the_cache_pushes_nothing_out() -> None:
    cache = Cache(max_bytes=2000)
    small, large = Cached(ScriptedAgent("x"), cache), Cached(ScriptedAgent("x" * 5000), cache)
    await log_of(small)
    assert text(await log_of(large)) == "x" * 5000
    assert len(cache) == 1


async def test_what_cannot_be_compared_or_kept_is_asked_every_time() -> None:
    asked: list[object] = []

    async def echo(prompt: str, **options: object) -> AsyncIterator[str | Record]:
        asked.append(options)
        yield prompt
        if options.get("odd"):
            yield Unknown(raw=object())

    cached = Cached(echo)
    for options in ({"it": object()}, {"odd": True}):
        for _ in range(2):
            assert text(await log_of(cached, **options)) == "Hi"
    assert len(asked) == 4 and len(cached.cache) == 0


def test_the_original_pace() -> None:
    class Slow(ScriptedAgent):
        async def _open(self, request: Request, ctx: Any) -> Any:
            source = await super()._open(request, ctx)
            plain = source.next

            async def slowly() -> Any:
                await asyncio.sleep(2)
                return await plain()

            source.next = slowly  # type: ignore[method-assign]
            return source

    async def whole(pace: Any) -> list[float]:
        cached, times, loop = Cached(Slow("a", "b", "c"), pace=pace), list[float](), asyncio.get_running_loop()
        await log_of(cached)
        began = loop.time()
        async for _ in cached.call_stream("Hi"):
            times.append(loop.time() - began)
        return times

    assert run(whole("original")) == pytest.approx([2, 4, 6])
    assert run(whole("fast")) == [0, 0, 0]


async def test_calls_are_numbered_in_the_stream_that_they_are_told_again_in() -> None:
    cached = Cached(ScriptedAgent("A", Usage(output_tokens=1)))
    await log_of(cached)
    log = await log_of(Failover(ScriptedAgent(failure()), cached))
    assert [(call.call, call.attempt, call.cached) for call in started(log)] == [(1, 1, False), (2, 2, True)]
    assert [call.call for call in ended(log)] == [1, 2]
    assert [record.call for record in log if isinstance(record, Usage)] == [2]
    assert ended(log)[1].usage.call == 2  # type: ignore[union-attr]
    assert result(log).cached


async def test_ensembles_and_resets_are_kept_as_they_were() -> None:
    vote = Cached(Vote(ScriptedAgent("A", name="a"), ScriptedAgent("A", name="b")))
    first, again = await log_of(vote), await log_of(vote)
    assert without_calls(again) == without_calls(first) and result(again).cached

    class Twice(ScriptedAgent):
        async def _open(self, request: Request, ctx: Any) -> Any:
            self.script = ("Hello",) if self.requests else ("Hel", failure())
            return await super()._open(request, ctx)

    cached = Cached(Retry(Twice(), base=0, policy="reset"))
    await log_of(cached)
    again = await log_of(cached)
    assert text(again) == "Hello" and any(isinstance(record, Reset) for record in again)


# --- joining --------------------------------------------------------------------------------------------------------


class Joiners:
    """Some who ask the same at the same time."""

    def __init__(self, cached: Agent, number: int) -> None:
        self.contexts = [CountingContext() for _ in range(number)]
        self.tasks = [asyncio.ensure_future(log_of(cached, ctx)) for ctx in self.contexts]

    def count(self, name: str) -> int:
        return sum(ctx.counts[name] for ctx in self.contexts)


async def test_a_hundred_who_ask_the_same_are_one_call() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent(Unknown(raw=1), "Hel", gate, "lo", Usage(output_tokens=2))
    joiners = Joiners(Cached(agent), 100)
    await turns(10)
    gate.set()
    logs = await asyncio.gather(*joiners.tasks)
    assert len(agent.requests) == 1
    assert all(text(log) == "Hello" for log in logs)
    assert [without_calls(log) == without_calls(logs[0]) for log in logs] == [True] * 100
    assert sum(result(log).cached for log in logs) == 99
    assert (joiners.count("cache.hits"), joiners.count("cache.misses")) == (99, 1)
    assert agent.closed == 1


async def test_who_joins_late_gets_the_whole_and_then_what_comes() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent("Hel", gate, "lo")
    cached = Cached(agent)
    first = asyncio.ensure_future(log_of(cached))
    await turns(10)
    chunks: list[str] = []
    async for chunk in cached.call_stream("Hi"):
        chunks.append(chunk)
        gate.set()
    assert chunks == ["Hel", "lo"]
    assert text(await first) == "Hello" and len(agent.requests) == 1


async def test_who_leaves_does_not_take_the_others_with_him_and_the_last_stops_the_call() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent("Hel", gate, "lo")
    cached = Cached(agent)
    joiners = Joiners(cached, 3)
    await turns(10)
    joiners.tasks[0].cancel()  # the one whose Call it is
    await turns(5)
    assert agent.running == 1
    gate.set()
    assert [text(await task) for task in joiners.tasks[1:]] == ["Hello", "Hello"]
    assert len(agent.requests) == 1


async def test_when_the_last_has_left_the_call_is_stopped_and_the_next_asks_anew() -> None:
    agent = ScriptedAgent("Hel", asyncio.Event())
    cached = Cached(agent)
    joiners = Joiners(cached, 3)
    await turns(10)
    for task in joiners.tasks:
        task.cancel()
    await asyncio.wait(joiners.tasks)
    assert agent.running == 0
    assert all(ctx.held.total() == 0 for ctx in joiners.contexts)
    agent.script = ("Hello",)
    assert text(await log_of(cached)) == "Hello"


async def test_if_it_dies_before_content_one_joiner_asks_again() -> None:
    gate = asyncio.Event()

    class Twice(ScriptedAgent):
        async def _open(self, request: Request, ctx: Any) -> Any:
            self.script = ("Hello",) if self.requests else (Unknown(raw=1), gate, failure())
            return await super()._open(request, ctx)

    agent = Twice()
    joiners = Joiners(Cached(agent), 5)
    await turns(10)
    gate.set()
    first, *others = await asyncio.gather(*joiners.tasks)
    assert isinstance(first[-1], Failed)
    assert all(text(log) == "Hello" and "unknown" not in kinds(log) and len(started(log)) == 1 for log in others)
    assert len(agent.requests) == 2
    assert sum(result(log).cached for log in others) == 3
    assert (joiners.count("cache.hits"), joiners.count("cache.misses")) == (3, 2)


async def test_if_that_dies_too_it_is_not_asked_for_everybody() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent(gate, failure())
    joiners = Joiners(Cached(agent), 10)
    await turns(10)
    gate.set()
    logs = await asyncio.gather(*joiners.tasks)
    assert all(isinstance(log[-1], Failed) for log in logs)
    assert len(agent.requests) == 2


async def test_if_it_dies_after_content_all_have_what_came() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent("Hel", gate, failure())
    joiners = Joiners(Cached(agent), 3)
    await turns(10)
    gate.set()
    for log in await asyncio.gather(*joiners.tasks):
        assert isinstance(log[-1], Failed) and text(log) == "Hel"
    assert len(agent.requests) == 1


async def test_other_time_limits_are_another_request() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent(gate, "Hello")
    cached = Cached(agent)
    tasks = [
        asyncio.ensure_future(log_of(cached, CountingContext(timeouts=timeouts)))
        for timeouts in (None, Timeouts(total=60), Timeouts(total=60))
    ]
    await turns(10)
    gate.set()
    await asyncio.gather(*tasks)
    assert len(agent.requests) == 2


async def test_a_mistake_or_the_stores_failure_reaches_all_who_asked() -> None:
    class Picky(ScriptedAgent):
        def _prepare(self, request: Request) -> Request:
            raise InvalidRequest("no such picture")

    class Closed(CountingContext):
        async def permit(self, agent: Agent, estimate: int) -> Any:
            raise StoreError("closed")

    cached = Cached(Picky())
    assert [type(it) for it in await asyncio.gather(*Joiners(cached, 2).tasks, return_exceptions=True)] == [
        InvalidRequest, InvalidRequest,
    ]  # fmt: skip
    with pytest.raises(StoreError):
        await log_of(Cached(ScriptedAgent()), Closed())
    with pytest.raises(CallerError):
        await cached.call("Hi")


async def test_an_agent_that_breaks_down_has_failed() -> None:
    log = await log_of(Cached(ScriptedAgent("Hel", ValueError("a bug"))))
    assert isinstance(log[-1], Failed) and text(log) == "Hel"


async def test_a_reader_that_dawdles_stops_the_reading_unless_another_is_faster() -> None:
    given = 0

    async def many(prompt: str) -> AsyncIterator[str]:
        nonlocal given
        for _ in range(1000):
            given += 1
            yield "x"

    cached = Cached(many)
    slow = cached.batches(cached.request("Hi"), Context())
    await anext(slow)
    await turns(2000)
    assert given < 100
    assert text(await log_of(cached)) == "x" * 1000
    async with aclosing(slow):
        assert sum([len(batch) async for batch in slow]) >= 1000


def test_two_loops_share_what_is_kept_but_not_what_is_under_way() -> None:
    cache, agent = Cache(), ScriptedAgent("Hello")
    cached = Cached(agent, cache)

    async def hang() -> None:
        gate = asyncio.Event()
        agent.script = (gate, "Hello")
        task = asyncio.ensure_future(log_of(cached))
        await turns(10)
        agent.script = ("Hello",)
        await asyncio.to_thread(lambda: asyncio.run(log_of(cached)))
        gate.set()
        await task

    asyncio.run(hang())
    assert len(agent.requests) == 2
    assert result(asyncio.run(log_of(cached))).cached


# --- settings -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_when_it_is_made() -> None:
    with pytest.raises(InvalidOption, match="ttl must be a number of seconds above 0, not 0"):
        Cache(ttl=0)
    with pytest.raises(InvalidOption, match="max_bytes must be a whole number from 0, not -1"):
        Cache(max_bytes=-1)
    with pytest.raises(InvalidConfiguration, match="cache must be a Cache, not True"):
        Cached(ScriptedAgent(), True)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="pace must be 'fast' or 'original', not 'slow'"):
        Cached(ScriptedAgent(), pace="slow")  # type: ignore[arg-type]
    assert Cached(ScriptedAgent(name="a")).name == "a"
