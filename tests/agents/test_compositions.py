"""Agents of agents of any shape, over agents that fail anywhere: what holds whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler import (
    Cache,
    Cached,
    Failover,
    Fuse,
    Hedge,
    Judge,
    MultiAgentScheduler,
    Race,
    Retry,
    Task,
    Vote,
)
from multi_agent_scheduler.agents import Agent
from multi_agent_scheduler.records import (
    TERMINALS,
    Completed,
    Interrupted,
    Reasoning,
    Record,
    Text,
    ToolCall,
    Unknown,
    Usage,
)
from multi_agent_scheduler.request import Request
from multi_agent_scheduler.task import Result
from multi_agent_scheduler.testing import ScriptedAgent

from .asking import agent_for
from .composing import CountingContext, check, failure, log_of, run, started, text
from .server import Provider, chat, chunk, eventually, head

Tree: TypeAlias = Callable[["House"], Agent]


class Playing(ScriptedAgent):
    """Plays its scripts in turn, and takes a time before each step; numbers are seconds to wait."""

    def __init__(self, scripts: list[list[Any]], name: str) -> None:
        super().__init__(name=name)
        self.scripts = scripts
        self.continues_prefix = len(scripts[0]) % 2 == 0

    async def _open(self, request: Request, ctx: Any) -> Any:
        steps = list(self.scripts[len(self.requests) % len(self.scripts)])
        self.script = tuple(step() if callable(step) else step for step in steps if not isinstance(step, float))
        source = await super()._open(request, ctx)
        waits = [0.0]
        for step in steps:
            if isinstance(step, float):
                waits[-1] += step
            else:
                waits.append(0.0)
        plain = source.next

        async def slowly() -> Any:
            if waits:
                await asyncio.sleep(waits.pop(0))
            return await plain()

        source.next = slowly  # type: ignore[method-assign]
        return source


class House:
    """The agents of one tree."""

    def __init__(self) -> None:
        self.players: list[Playing] = []

    def player(self, scripts: list[list[Any]]) -> Agent:
        self.players.append(Playing(scripts, f"p{len(self.players)}"))
        return self.players[-1]

    def quiet(self) -> None:
        assert [player.running for player in self.players] == [0] * len(self.players)


STEPS = st.one_of(
    st.sampled_from(["a", "b ", "2", "", "1"]),
    st.builds(Reasoning, st.sampled_from(["hm", ""]), signature=st.sampled_from([None, "seal"])),
    st.builds(ToolCall, st.just(0), st.just("t"), st.just("look"), st.sampled_from(["{}", '{"a'])),
    st.just(Unknown(raw=1)),
    st.builds(Usage, output_tokens=st.integers(0, 9)),
    st.just([Text("c"), Unknown(raw=2), Text("d")]),
    st.sampled_from([0.0, 0.5, 3.0]),
)
ENDS = st.sampled_from(
    [
        failure,
        partial(failure, "rate_limit_error", retry_after=2),
        partial(failure, "invalid_request_error", retryable=False),
        partial(failure, "content_filter"),
        partial(ValueError, "a bug"),
        Interrupted(failure("interrupted").info),
        Completed("stop"),
        Completed("content_filter"),
        Completed("length"),
    ]
)
SCRIPTS = st.lists(st.tuples(st.lists(STEPS, max_size=4), ENDS).map(lambda it: [*it[0], it[1]]), min_size=1, max_size=3)
POLICIES = st.sampled_from(["off", "continue", "reset"])


def _players() -> st.SearchStrategy[Tree]:
    return SCRIPTS.map(lambda scripts: lambda house: house.player(scripts))


def _trees(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    some = st.lists(children, min_size=1, max_size=3)

    def many(kind: Callable[..., Agent], **options: Any) -> st.SearchStrategy[Tree]:
        return st.tuples(some, st.fixed_dictionaries(options)).map(
            lambda it: lambda house: kind(*[child(house) for child in it[0]], **it[1])
        )

    def judged(kind: Callable[..., Agent], role: str, **options: Any) -> st.SearchStrategy[Tree]:
        return st.tuples(some, children, st.fixed_dictionaries(options)).map(
            lambda it: lambda house: kind(*[child(house) for child in it[0]], **{role: it[1](house)}, **it[2])
        )

    return st.one_of(
        many(Failover, policy=POLICIES, refusals=st.booleans()),
        many(Hedge, after=st.sampled_from([0.0, 1.0, 10.0])),
        many(Race),
        many(Vote, quorum=st.just(1)),
        many(Vote),
        judged(Judge, "judge", mode=st.sampled_from(["choice", "text"])),
        judged(Fuse, "synthesiser"),
        st.tuples(children, POLICIES).map(lambda it: lambda house: Retry(it[0](house), 2, base=1, policy=it[1])),
        children.map(lambda child: lambda house: Cached(child(house), Cache())),
    )


TREES = _trees(st.recursive(_players(), _trees, max_leaves=4))


@given(TREES, st.sampled_from([None, 1]))
def test_every_log_is_one_that_can_be_read(tree: Tree, slots: int | None) -> None:
    async def whole() -> None:
        house = House()
        agent = tree(house)
        ctx = CountingContext(slots=slots)
        for _ in range(2):  # the second time some of it comes from a cache
            log = await log_of(agent, ctx)
            house.quiet()
            assert all(record.attempt >= 1 for record in started(log))

    run(whole())


@given(TREES, st.integers(0, 12), st.booleans())
def test_whoever_leaves_leaves_nothing_behind(tree: Tree, batches: int, cancelled: bool) -> None:
    async def read(agent: Agent, ctx: CountingContext) -> None:
        async with aclosing(agent.batches(agent.request("Hi"), ctx)) as stream:
            for _ in range(batches):
                if await anext(stream, None) is None:
                    return
            if cancelled:
                await asyncio.sleep(1000)

    async def whole() -> None:
        house, ctx = House(), CountingContext(slots=1)
        task = asyncio.ensure_future(read(tree(house), ctx))
        if cancelled:
            await asyncio.sleep(1.2)
            task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0)
        house.quiet()
        assert ctx.held.total() == 0

    run(whole())


@given(TREES)
def test_in_a_scheduler_it_is_such_a_log_too(tree: Tree) -> None:
    async def whole() -> tuple[Result, list[Record]]:
        async with MultiAgentScheduler({"it": tree(House())}) as scheduler:
            done = await scheduler.execute_task(Task("t", "Hi"))
            return done, [record async for record in scheduler.follow(str(done.stream_id))]

    done, log = run(whole())
    check(log)
    assert done.text == text(log)


def _one_after_the_other(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.one_of(
        st.tuples(st.lists(children, min_size=1, max_size=3), POLICIES).map(
            lambda it: lambda house: Failover(*[child(house) for child in it[0]], policy=it[1])
        ),
        st.tuples(children, POLICIES).map(lambda it: lambda house: Retry(it[0](house), 2, base=1, policy=it[1])),
    )


SEQUENTIAL = _one_after_the_other(st.recursive(_players(), _one_after_the_other, max_leaves=4))


@given(SEQUENTIAL)
def test_no_permit_is_held_while_another_is_waited_for(tree: Tree) -> None:
    async def whole() -> None:
        ctx = CountingContext()
        await log_of(tree(House()), ctx)
        assert set(ctx.held_when_asked) == {0}

    run(whole())


@given(SEQUENTIAL)
def test_attempts_are_numbered_one_after_the_other(tree: Tree) -> None:
    log = run(log_of(tree(House())))
    attempts = [call.attempt for call in started(log)]
    assert attempts == list(range(1, len(attempts) + 1))


@pytest.mark.parametrize("judge", ["1", "2"])
async def test_a_judge_over_failovers(judge: str) -> None:
    down = ScriptedAgent(failure(), name="down")
    candidates = [Failover(down, ScriptedAgent(answer, name=answer), name=f"f{answer}") for answer in "AB"]
    log = await log_of(Judge(*candidates, judge=Failover(down, ScriptedAgent(judge, name="j"))))
    assert text(log) == "AB"[int(judge) - 1]
    assert [(call.branch, call.attempt) for call in started(log)].count(("judge", 2)) == 1


def test_all_of_it_at_once_stays_within_one_slot_for_each_agent() -> None:
    async def whole() -> None:
        agents = [Playing([["a", 1.0, Completed("stop")]], name) for name in "abc"]
        ctx = CountingContext(slots=1)
        tree = Failover(Hedge(*agents, after=0.5), Vote(*agents, quorum=2), Race(*agents))
        await asyncio.gather(*(log_of_shared(tree, ctx) for _ in range(20)))
        assert ctx.held.total() == 0

    async def log_of_shared(agent: Agent, ctx: CountingContext) -> None:
        async with aclosing(agent.batches(agent.request("Hi"), ctx)) as batches:
            last = [batch async for batch in batches][-1]
        assert isinstance(last[-1], Completed)

    run(whole())


async def test_the_sockets_of_losers_and_of_a_reader_that_leaves_are_closed_within_a_tenth_of_a_second() -> None:
    start = asyncio.Event()
    silent = [head(), asyncio.Event()]
    speaking = [head(), start, *map(chunk, chat("Hel")[:2]), asyncio.Event()]
    async with Provider(silent) as slow, Provider(speaking) as quick, agent_for(slow) as a, agent_for(quick) as b:
        stream = Race(a, Failover(ScriptedAgent(failure(), name="down"), b)).call_stream("Hi")
        async with aclosing(stream):
            first = asyncio.ensure_future(anext(stream))
            await eventually(lambda: slow.requests)
            start.set()
            assert await first == "Hel"
            await asyncio.wait_for(slow.peers[0].closed.wait(), 0.1)
            assert not quick.peers[0].closed.is_set()
        await asyncio.wait_for(quick.peers[0].closed.wait(), 0.1)


@pytest.mark.parametrize("kind", [Vote, Fuse, Race, Hedge])
def test_who_was_stopped_has_let_go_when_the_end_is_told(kind: type[Agent]) -> None:
    """A stop takes a turn of the loop, and the end of the one who decides it comes in the turn before."""

    async def told() -> None:
        ctx, silent = CountingContext(), ScriptedAgent(asyncio.Event(), name="silent")
        first = ScriptedAgent(asyncio.Event(), failure(retryable=False), name="first")
        if kind in (Race, Hedge):
            first = ScriptedAgent(asyncio.Event(), [Text("first"), Completed("stop")], name="first")
        gate = first.script[0]
        assert isinstance(gate, asyncio.Event)
        more: dict[Any, Any] = {
            Fuse: {"synthesiser": ScriptedAgent("x", name="synthesiser"), "quorum": 2},
            Hedge: {"after": 0.001},
            Vote: {"quorum": 2},
        }
        agent: Agent = kind(first, silent, **more.get(kind, {}))  # type: ignore[call-arg]
        asyncio.get_running_loop().call_later(0.1, gate.set)
        async with aclosing(agent.batches(agent.request("Hi"), ctx)) as batches:
            async for batch in batches:
                if isinstance(batch[-1], TERMINALS):
                    assert not ctx.held.total()
        assert silent.requests
        assert not silent.running

    run(told())
