"""Hedges and races: the first content wins, and the others are closed and accounted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from multi_agent_scheduler import Failover, Hedge, MultiAgentScheduler, Race, Retry, Task
from multi_agent_scheduler.errors import InvalidOption, InvalidRequest
from multi_agent_scheduler.records import Completed, Failed, Reset, Text, Unknown, Usage
from multi_agent_scheduler.request import Request
from multi_agent_scheduler.testing import ScriptedAgent, run_virtual

from .composing import CountingContext, ended, failure, kinds, log_of, result, run, started, text, turns


class Timed(ScriptedAgent):
    """Takes so many seconds to begin to answer: the first of ``waits`` in its first Call, and so on."""

    def __init__(self, *waits: float, name: str = "timed", script: tuple[Any, ...] = ("Hello",)) -> None:
        super().__init__(*script, name=name)
        self.waits = list(waits)

    async def _open(self, request: Request, ctx: Any) -> Any:
        wait = self.waits.pop(0) if self.waits else 0.0
        source = await super()._open(request, ctx)
        try:
            await asyncio.sleep(wait)
        except BaseException:
            await source.aclose()
            raise
        return source


def test_an_agent_that_speaks_in_time_is_the_only_one_asked() -> None:
    a, b = Timed(0.9, name="a"), Timed(name="b")
    assert text(run(log_of(Hedge(a, b, after=1)))) == "Hello"
    assert b.requests == []


def test_the_next_is_asked_when_the_first_takes_long_and_the_first_content_wins() -> None:
    a, b = Timed(5, name="a", script=("late",)), Timed(1, name="b", script=("Hel", "lo"))

    async def whole() -> float:
        log = await log_of(Hedge(a, b, after=2))
        assert text(log) == "Hello"
        assert [(call.agent, call.attempt) for call in started(log)] == [("a", 1), ("b", 2)]
        assert [call.outcome for call in ended(log)] == ["cancelled", "completed"]
        assert a.running == 0
        return asyncio.get_running_loop().time()

    assert run(whole()) == pytest.approx(3)


def test_the_first_may_still_win() -> None:
    a, b = Timed(3, name="a"), Timed(5, name="b", script=("late",))
    log = run(log_of(Hedge(a, b, after=2)))
    assert text(log) == "Hello"
    assert [call.outcome for call in ended(log)] == ["cancelled", "completed"]
    assert ended(log)[0].call == 2


def test_one_after_the_other_is_asked() -> None:
    a, b, c = Timed(90, name="a"), Timed(90, name="b"), Timed(1, name="c")
    log = run(log_of(Hedge(a, b, c, after=2)))
    assert [call.agent for call in started(log)] == ["a", "b", "c"]
    assert result(log).agent == "c"


def test_the_same_agent_can_be_asked_twice() -> None:
    a = Timed(90, 1, name="a")
    log = run(log_of(Hedge(a, after=2)))
    assert text(log) == "Hello" and len(started(log)) == 2
    assert Hedge(a, after=2).name == "a"


def test_who_waits_for_a_permit_is_not_asked_twice_but_another_is_asked_instead() -> None:
    busy = Timed(10, 0, name="busy")

    async def whole(hedge: Hedge) -> list[str]:
        ctx = CountingContext(slots=1)
        permit = await ctx.permit(busy, 1)
        asyncio.get_running_loop().call_later(50, permit.release)
        return [call.agent for call in started(await log_of_open(hedge, ctx))]

    async def log_of_open(hedge: Hedge, ctx: CountingContext) -> list[Any]:
        async with aclosing(hedge.batches(hedge.request("Hi"), ctx)) as batches:
            return [record async for batch in batches for record in batch]

    free = Timed(name="free")
    assert run(whole(Hedge(busy, free, after=2))) == ["free"]
    busy.waits = [1]
    assert run(whole(Hedge(busy, after=2))) == ["busy"]


def test_usage_of_the_loser_is_accounted_as_it_is_known() -> None:
    known = Usage(input_tokens=7, output_tokens=1)
    loser = ScriptedAgent(known, asyncio.Event(), name="loser")
    log = run(log_of(Hedge(loser, ScriptedAgent("Hi", Usage(input_tokens=2, output_tokens=3), name="b"), after=1)))
    (lost,) = [call for call in ended(log) if call.outcome == "cancelled"]
    assert lost.usage is not None and (lost.usage.input_tokens, lost.usage.call) == (7, 1)
    assert result(log).usage.input_tokens == 9  # type: ignore[union-attr]
    silent = ScriptedAgent(asyncio.Event(), name="silent")
    log = run(log_of(Hedge(silent, ScriptedAgent("Hi"), after=1)))
    assert ended(log)[0].usage.source == "unknown"  # type: ignore[union-attr]
    assert result(log).usage.source == "unknown"  # type: ignore[union-attr]


def test_what_losers_said_without_content_does_not_show() -> None:
    loser = ScriptedAgent(Unknown(raw=1), Text(""), asyncio.Event(), name="loser")
    log = run(log_of(Hedge(loser, ScriptedAgent(Unknown(raw=2), "Hi", name="b"), after=1)))
    assert [record.raw for record in log if isinstance(record, Unknown)] == [2]


def test_an_agent_that_fails_before_is_followed_at_once_if_another_is_there() -> None:
    async def whole() -> float:
        log = await log_of(Hedge(ScriptedAgent(failure(), name="a"), ScriptedAgent("Hi", name="b"), after=60))
        assert text(log) == "Hi"
        return asyncio.get_running_loop().time()

    assert run(whole()) == 0
    log = run(log_of(Hedge(ScriptedAgent(failure(), name="a"), after=60)))
    assert isinstance(log[-1], Failed) and len(started(log)) == 1


def test_failures_count_only_when_nobody_is_left() -> None:
    a, b = Timed(5, name="a"), ScriptedAgent(failure("rate_limit_error"), name="b")
    assert text(run(log_of(Hedge(a, b, after=2)))) == "Hello"
    a = ScriptedAgent(asyncio.Event(), name="a")
    log = run(log_of(Hedge(ScriptedAgent(failure(), name="c"), b, after=2)))
    assert log[-1].error.code == "rate_limit_error"  # type: ignore[union-attr]


def test_an_empty_answer_is_one_and_so_is_a_refusal() -> None:
    for reason in ("stop", "content_filter"):
        empty = ScriptedAgent(Completed(reason), name="empty")  # type: ignore[arg-type]
        log = run(log_of(Hedge(empty, ScriptedAgent("Hi"), after=1)))
        assert isinstance(log[-1], Completed) and log[-1].stop_reason == reason
        assert len(started(log)) == 1


def test_after_content_a_failure_stands() -> None:
    a, b = ScriptedAgent("Hel", failure(), name="a"), ScriptedAgent("never", name="b")
    log = run(log_of(Hedge(a, b, after=1)))
    assert isinstance(log[-1], Failed) and text(log) == "Hel"
    assert b.requests == []


def test_a_percentile_halves_the_slow_starts_with_one_request_in_twenty_more() -> None:
    """Three in a hundred take 2 s instead of about 20 ms."""

    async def whole() -> tuple[list[float], int]:
        requests = 2000
        waits = [2.0 if number % 33 == 16 else 0.02 + number * 7 % 13 / 10000 for number in range(requests * 2)]
        agent = Timed(*waits)
        hedge, loop, times = Hedge(agent, after="p95"), asyncio.get_running_loop(), []
        for _ in range(requests):
            began = loop.time()
            log = await log_of(hedge)
            assert text(log) == "Hello"
            times.append(loop.time() - began)
        return sorted(times), len(agent.requests) - requests

    times, extra = run(whole())
    assert times[int(len(times) * 0.99)] < 0.1
    assert 0 < extra <= 0.05 * len(times)


def test_a_provider_that_turns_slow_is_not_asked_twice_for_everything() -> None:
    async def whole() -> int:
        agent = Timed(*[0.02] * 40, *[2.0] * 400)
        hedge = Hedge(agent, after="p95")
        for _ in range(240):
            await log_of(hedge)
        return len(agent.requests) - 240

    assert run(whole()) <= 12


# --- races ------------------------------------------------------------------------------------------------------------


def test_a_race_asks_all_at_once_and_the_first_to_speak_gives_the_answer() -> None:
    a, b, c = Timed(3, name="a"), Timed(1, name="b", script=("Hi", " there")), ScriptedAgent(failure(), name="c")
    log = run(log_of(Race(a, b, c)))
    assert text(log) == "Hi there"
    assert {(call.agent, call.attempt) for call in started(log)} == {("a", 1), ("b", 2), ("c", 3)}
    assert {call.outcome for call in ended(log)} == {"failed", "cancelled", "completed"}
    assert a.running == b.running == 0


async def test_the_winner_streams_on_from_its_first_content() -> None:
    gate = asyncio.Event()
    slow = ScriptedAgent(asyncio.Event(), name="slow")
    race = Race(slow, ScriptedAgent("Hel", gate, "lo", name="b"))
    chunks: list[str] = []
    async for chunk in race.call_stream("Hi"):
        chunks.append(chunk)
        if chunk == "Hel":
            await turns(3)
            assert (slow.running, slow.closed) == (0, 1)  # while the winner is still speaking
            gate.set()
    assert chunks == ["Hel", "lo"]


async def test_if_all_lose_the_last_failure_is_the_outcome() -> None:
    log = await log_of(Race(ScriptedAgent(failure("server_error")), ScriptedAgent(failure("rate_limit_error"))))
    assert log[-1].error.code == "rate_limit_error"  # type: ignore[union-attr]


# --- closed, nested, in a scheduler -----------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [(), ("Hel",)], ids=["before content", "after it"])
async def test_a_reader_that_leaves_stops_them_all(said: tuple[str, ...]) -> None:
    a, b = (ScriptedAgent(*said, asyncio.Event(), name=name) for name in "ab")
    ctx, race = CountingContext(), Race(a, b)
    async with aclosing(race.batches(race.request("Hi"), ctx)) as batches:
        records = [*await anext(batches), *await anext(batches)]
        assert [record.text for record in records if isinstance(record, Text)] == [*said]
    assert a.running == b.running == 0 and ctx.held.total() == 0


async def test_stopping_while_all_are_silent() -> None:
    a, b = (ScriptedAgent(asyncio.Event(), name=name) for name in "ab")
    task = asyncio.ensure_future(Race(a, b).call("Hi"))
    await turns(10)
    assert a.running == b.running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert a.running == b.running == 0


def test_with_one_slot_nobody_waits_for_ever() -> None:
    agent = Timed(1, 1, name="a")
    assert text(run(log_of(Race(agent, agent), CountingContext(slots=1)))) == "Hello"


async def test_a_mistake_of_the_callers_is_raised_before_anything_runs() -> None:
    class Picky(ScriptedAgent):
        def _prepare(self, request: Request) -> Request:
            raise InvalidRequest("no such picture")

    good = ScriptedAgent("Hi")
    for agent in (Hedge(good, Picky(), after=1), Race(good, Picky()), Race(Picky())):
        with pytest.raises(InvalidRequest):
            await agent.call("Hi")
    assert good.requests == []


async def test_an_agent_that_breaks_down_or_is_cancelled_from_inside_has_lost() -> None:
    class Cancelled(ScriptedAgent):
        async def _open(self, request: Request, ctx: Any) -> Any:
            raise asyncio.CancelledError

    log = await log_of(Race(ScriptedAgent(ValueError("a bug")), Cancelled(), ScriptedAgent("Hi")))
    assert text(log) == "Hi"
    log = await log_of(Race(ScriptedAgent(ValueError("a bug")), Cancelled()))
    assert log[-1].error.code == "interrupted"  # type: ignore[union-attr]


async def test_a_hedge_of_retries_inside_a_failover() -> None:
    down, flaky = ScriptedAgent(failure(), name="down"), ScriptedAgent("Hel", failure(), name="flaky")
    good = ScriptedAgent("Hello", name="good")
    log = await log_of(Failover(Hedge(Retry(down, 2, base=0), Retry(flaky, 2, base=0), after=60), good, policy="reset"))
    assert text(log) == "Hello"
    (reset,) = [record for record in log if isinstance(record, Reset)]
    assert log[reset.from_seq - 1].text == "Hel"  # type: ignore[union-attr]
    assert [call.attempt for call in started(log)] == [1, 2, 3, 4]


async def test_resets_of_the_winner_are_in_the_positions_of_the_hedge() -> None:
    class Twice(ScriptedAgent):
        async def _open(self, request: Request, ctx: Any) -> Any:
            self.script = ("Hello",) if self.requests else (Unknown(raw=1), "Hel", failure())
            return await super()._open(request, ctx)

    log = await log_of(Race(ScriptedAgent(failure(), name="down"), Retry(Twice(), base=0, policy="reset")))
    (reset,) = [record for record in log if isinstance(record, Reset)]
    assert isinstance(log[reset.from_seq - 1], Unknown)
    assert text(log) == "Hello"


async def test_in_a_scheduler_the_loser_shows_in_the_log() -> None:
    slow = ScriptedAgent(asyncio.Event(), name="slow")
    async with MultiAgentScheduler({"race": Race(slow, ScriptedAgent("Hi", name="b"))}) as scheduler:
        done = await scheduler.execute_task(Task("t", "Hi"))
        log = [record async for record in scheduler.follow(str(done.stream_id))]
    assert done.text == "Hi" and slow.running == 0
    assert sorted(call.outcome for call in ended(log)) == ["cancelled", "completed"]
    assert kinds(log)[-1] == "completed"


@pytest.mark.parametrize("after", [-1, "95", "p100", None, True])
def test_a_delay_that_cannot_be_is_refused(after: Any) -> None:
    with pytest.raises(InvalidOption, match="after must be a number of seconds or a percentile"):
        Hedge(ScriptedAgent(), after=after)


def test_where_nearly_all_take_the_same_time_only_the_slow_are_asked_twice() -> None:
    asked = 0

    async def mock(_: str) -> AsyncIterator[str]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(2.0 if asked % 33 == 0 else 0.02)
        yield "a"

    async def main() -> list[float]:
        hedge = Hedge(mock, after="p95")
        return [(await hedge.call("Hi")).ttft or 0.0 for _ in range(1000)]

    times = sorted(run_virtual(main()))
    assert times[990] < 0.1
    assert asked <= 1050
