"""The gate: Calls wait for their turn, are woken when it comes, and leave nothing behind when they give up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from multi_agent_scheduler.agents.context import Permit
from multi_agent_scheduler.agents.function import FunctionAgent
from multi_agent_scheduler.errors import ErrorInfo, RequestOverLimit
from multi_agent_scheduler.gate import Gate, SchedulerContext
from multi_agent_scheduler.records import Text, Usage
from multi_agent_scheduler.scheduler import MultiAgentScheduler
from multi_agent_scheduler.scheduling.admission import Ticket
from multi_agent_scheduler.scheduling.limits import Limits
from multi_agent_scheduler.task import Task

BUSY = ErrorInfo("rate_limit_error", "slow down", retryable=True, retry_after=30.0)


class Hours:
    """The loop's clock, which a test can put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        real, self.ahead = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: real() + self.ahead)

    async def pass_by(self, seconds: float) -> None:
        self.ahead += seconds
        await turns()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def admit(gate: Gate, slots: int | None = None, **fields: Any) -> asyncio.Task[Permit]:
    return asyncio.ensure_future(gate.admit(Ticket("a", **fields), slots))


async def test_calls_wait_for_a_slot_and_the_more_urgent_goes_first() -> None:
    gate = Gate()
    first = await admit(gate, 1)
    low, high = admit(gate, 1), admit(gate, 1, priority=5)
    await turns()
    assert not low.done() and not high.done()
    first.release()
    await turns()
    assert high.done() and not low.done()
    (await high).release()
    (await high).release()  # a second release does nothing
    (await low).release()


async def test_who_gives_up_waiting_leaves_the_slot_to_the_next_even_in_the_moment_of_the_grant() -> None:
    gate = Gate()
    first = await admit(gate, 1)
    second, third, fourth = admit(gate, 1), admit(gate, 1), admit(gate, 1)
    await turns()
    second.cancel()
    await turns()
    first.release()  # third is granted,
    third.cancel()  # and does not want it any more
    (await fourth).release()
    for gone in (second, third):
        with pytest.raises(asyncio.CancelledError):
            await gone
    assert gate._admission.used("a") == gate._admission.waiting() == 0


async def test_a_minutes_requests_are_let_in_when_the_minute_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    hours, gate = Hours(monkeypatch), Gate({"a": Limits(requests_per_minute=2)})
    for _ in range(2):
        (await admit(gate)).release()
    third = admit(gate)
    await turns()
    await hours.pass_by(59.0)
    assert not third.done()
    await hours.pass_by(1.1)
    (await third).release()
    assert gate._timer is None  # nothing is left to ring for


async def test_a_rate_limit_keeps_everybody_out_for_as_long_as_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hours, gate = Hours(monkeypatch), Gate()
    (await admit(gate, 4)).answered(BUSY, None)
    second = admit(gate, 4)
    await turns()
    await hours.pass_by(29.5)
    assert not second.done()
    await hours.pass_by(1.0)
    (await second).answered(None, 10)
    assert gate._admission.allowed("a") == 2.5


async def test_tokens_are_settled_by_what_was_used() -> None:
    gate = Gate({"a": Limits(tokens_per_minute=100)})
    first = await admit(gate, estimate=60)
    second = admit(gate, estimate=60)
    await turns()
    first.used(20)  # so far: what is not used yet is not given back
    await turns()
    assert not second.done()
    first.answered(None, 40)
    (await second).used(90)
    third = admit(gate, estimate=1)
    await turns()
    assert not third.done()  # 130 of 100
    third.cancel()
    await turns()


async def test_a_call_that_can_never_be_made_fails_at_once() -> None:
    gate = Gate({"a": Limits(tokens_per_minute=100)})
    with pytest.raises(RequestOverLimit, match="about 101 tokens can never be made within its limit of 100"):
        await admit(gate, estimate=101)


async def test_the_calls_of_a_task_carry_its_type_and_priority() -> None:
    gate = Gate(task_types={"video": 1})
    agent = FunctionAgent(lambda prompt: words(prompt), name="f")

    def ask(**fields: Any) -> Awaitable[Permit]:
        context = SchedulerContext(gate, {}, Task("t", "?", **fields))
        return asyncio.ensure_future(context.permit(agent, 1))

    first = await ask(task_type="video")
    low, high, other = ask(task_type="video"), ask(task_type="video", priority=1), await ask(task_type="text")
    first.release()
    (await high).release()
    (await low).release()
    other.release()


async def words(prompt: str) -> AsyncIterator[Any]:
    yield Text(text=prompt)
    yield Usage(input_tokens=3, output_tokens=4)


async def test_the_usage_that_an_agent_reports_settles_its_call() -> None:
    async with MultiAgentScheduler({"a": words}, limits={"a": Limits(tokens_per_minute=1000)}) as scheduler:
        result = await scheduler.execute_task(Task("t", "x" * 400))
        assert result.success
        assert scheduler._execution is not None
        window = scheduler._execution._gate._admission._agents["a"].tokens
        assert window is not None and window.used(asyncio.get_running_loop().time()) == 7


async def test_what_a_function_is_asked_to_write_is_reserved() -> None:
    async def written(prompt: str, max_tokens: int) -> AsyncIterator[str]:
        yield "x" * max_tokens

    async with MultiAgentScheduler({"a": written}, limits={"a": Limits(tokens_per_minute=1000)}) as scheduler:
        result = await scheduler.execute_task(Task("t", "Hi", options={"max_tokens": 2000}))
        assert result.error is not None and "can never be made within its limit of 1000 tokens" in result.error.message
        assert (await scheduler.execute_task(Task("t", "Hi", options={"max_tokens": 900}))).success


async def test_what_nobody_counts_is_debt_while_it_is_being_said(monkeypatch: pytest.MonkeyPatch) -> None:
    hours, go_on = Hours(monkeypatch), asyncio.Event()

    async def talks(prompt: str) -> AsyncIterator[str]:
        yield "x" * 4000
        await go_on.wait()

    async with MultiAgentScheduler({"a": talks}, limits={"a": Limits(tokens_per_minute=1000)}) as scheduler:
        first = await scheduler.submit(Task("first", "Hi"))
        async for record in first.follow():
            if isinstance(record, Text):
                break
        second = await scheduler.submit(Task("second", "Hi"))
        await turns(50)
        assert scheduler.streams()[1].seq == 0  # it waits
        go_on.set()
        await first.result()
        await turns(50)
        assert scheduler.streams()[1].seq == 0
        await hours.pass_by(61)
        assert (await second.result()).success
