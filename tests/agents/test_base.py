"""The Call that every leaf makes: permit, number, usage, time limits; and the folds over its batches."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from multi_agent_scheduler.agents.base import Agent, LeafAgent, Source, estimate_tokens
from multi_agent_scheduler.agents.context import Context, Permit
from multi_agent_scheduler.errors import (
    AgentError,
    AgentTimeout,
    ContentFiltered,
    ErrorInfo,
    InvalidRequest,
    StreamReset,
    agent_error,
)
from multi_agent_scheduler.records import (
    CallEnded,
    CallStarted,
    Completed,
    Failed,
    Reasoning,
    Record,
    Refusal,
    Reset,
    Text,
    ToolCall,
    Unknown,
    Usage,
)
from multi_agent_scheduler.request import Request, build
from multi_agent_scheduler.task import Timeouts

Step = Sequence[Record] | asyncio.Event | Exception


class Played(Source):
    """Gives batches, waits for events, raises errors."""

    model = "m-2"
    response_id = "r-1"
    request_id = "q-1"

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = list(steps)
        self._failure: asyncio.Future[ErrorInfo] | None = None
        self.closed = 0

    async def next(self) -> Sequence[Record]:
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, asyncio.Event):
            self._failure = asyncio.get_running_loop().create_future()
            opened = asyncio.ensure_future(step.wait())
            try:
                await asyncio.wait({opened, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                opened.cancel()
            if self._failure.done():
                raise agent_error(self._failure.result())
            return []
        return list(step)

    def fail(self, info: ErrorInfo) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(info)

    async def aclose(self) -> None:
        self.closed += 1


class Leaf(LeafAgent):
    name = "leaf"
    protocol = "played"

    def __init__(self, *steps: Step, opening: Exception | asyncio.Event | None = None, **limits: float) -> None:
        self.timeouts = Timeouts(**limits)
        self.source = Played(steps)
        self._opening = opening

    async def _open(self, prepared: Request, ctx: Context) -> Source:
        if isinstance(self._opening, Exception):
            raise self._opening
        if self._opening is not None:
            await self._opening.wait()
        return self.source


class Counted(Permit):
    __slots__ = ("answers", "counts", "released")

    def __init__(self) -> None:
        self.released = 0
        self.counts: list[int] = []
        self.answers: list[tuple[ErrorInfo | None, int | None]] = []

    def answered(self, error: ErrorInfo | None, tokens: int | None) -> None:
        self.answers.append((error, tokens))
        self.released += 1

    def used(self, tokens: int) -> None:
        self.counts.append(tokens)

    def release(self) -> None:
        self.released += 1


class Strict(Context):
    """Gives one permit, or none, and counts what becomes of it."""

    def __init__(self, gate: asyncio.Event | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.permits: list[Counted] = []
        self.estimates: list[int] = []
        self._gate = gate

    async def permit(self, agent: Agent, estimate: int) -> Permit:
        self.estimates.append(estimate)
        if self._gate is not None:
            await self._gate.wait()
        permit = Counted()
        self.permits.append(permit)
        return permit


HI = build("Hi", {})
DONE = Completed("stop")


async def run(agent: Agent, ctx: Context | None = None) -> list[Record]:
    async with aclosing(agent.batches(HI, ctx or Context())) as batches:
        return [record async for batch in batches for record in batch]


# --- one Call -------------------------------------------------------------------------------------------------------


async def test_calls_of_one_context_are_numbered_and_usage_says_whose_it_is() -> None:
    ctx = Context()
    for number in (1, 2):
        records = await run(Leaf([Text("a")], [Usage(output_tokens=1)], [Usage(output_tokens=2), DONE]), ctx)
        started, text, first, second, ended, terminal = records
        assert started == CallStarted(number, "leaf", None, "played")
        assert text == Text("a")
        assert (first, second) == (Usage(output_tokens=1, call=number), Usage(output_tokens=2, call=number))
        assert isinstance(ended, CallEnded)
        assert (ended.call, ended.outcome, ended.usage) == (number, "completed", second)
        assert (ended.model, ended.response_id, ended.request_id) == ("m-2", "r-1", "q-1")
        assert terminal == DONE


@pytest.mark.parametrize(
    ("record", "content"),
    [
        (Text("x"), True),
        (Text(""), False),
        (Reasoning("x"), True),
        (Reasoning(signature="seal"), False),
        (Reasoning(redacted="sealed"), True),
        (Refusal("no"), True),
        (ToolCall(0, id="1", name="f"), True),
        (Unknown({"x": 1}), False),
        (Usage(output_tokens=1), False),
    ],
)
async def test_the_time_to_the_first_content_is_that_and_no_other(record: Record, content: bool) -> None:
    records = await run(Leaf([record], [DONE]))
    ended = records[-2]
    assert isinstance(ended, CallEnded)
    assert (ended.ttft is not None) is content
    assert ended.latency is not None


@pytest.mark.parametrize(
    ("agent", "outcome"),
    [
        (Leaf([Text("a"), DONE]), "completed"),
        (Leaf([Failed(ErrorInfo("server_error", "no"))]), "failed"),
        (Leaf([Text("a")], agent_error(ErrorInfo("interrupted", "cut"))), "interrupted"),
        (Leaf(agent_error(ErrorInfo("server_error", "no"))), "failed"),
        (Leaf(opening=agent_error(ErrorInfo("not_found_error", "no", request_id="q-9"))), "failed"),
    ],
)
async def test_a_permit_is_released_and_a_source_closed_whatever_happens(agent: Leaf, outcome: str) -> None:
    ctx = Strict()
    records = await run(agent, ctx)
    ended, terminal = records[-2:]
    assert isinstance(ended, CallEnded)
    assert ended.outcome == outcome == terminal.__struct_config__.tag
    (permit,) = ctx.permits
    assert permit.released >= 1
    assert agent.source.closed == (0 if agent._opening else 1)


async def test_a_permit_is_free_while_the_reader_dawdles_over_the_end() -> None:
    ctx, agent = Strict(), Leaf([Text("a")], [DONE])
    async with aclosing(agent.batches(HI, ctx)) as batches:
        await anext(batches)
        await anext(batches)
        assert ctx.permits[0].released == 0
        last = await anext(batches)
        assert last[-1] == DONE
        assert ctx.permits[0].released == 1


@pytest.mark.parametrize("batches_read", [1, 2])
async def test_a_reader_that_leaves_releases_and_closes(batches_read: int) -> None:
    ctx, agent = Strict(), Leaf([Text("a")], asyncio.Event())
    batches = agent.batches(HI, ctx)
    for _ in range(batches_read):
        await anext(batches)
    await batches.aclose()
    assert ctx.permits[0].released == 1
    assert agent.source.closed == (batches_read > 1)


async def test_a_bug_in_an_agent_is_raised_and_releases_all_the_same() -> None:
    ctx, agent = Strict(), Leaf([Text("a")], ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await run(agent, ctx)
    assert ctx.permits[0].released == 1
    assert agent.source.closed == 1


async def test_a_callers_mistake_takes_no_permit() -> None:
    class Refuses(Leaf):
        def _prepare(self, request: Request) -> Any:
            raise InvalidRequest("tools: not here")

    ctx = Strict()
    with pytest.raises(InvalidRequest, match=r"^tools: not here$"):
        await run(Refuses([DONE]), ctx)
    with pytest.raises(InvalidRequest, match=r"^tools: not here$"):
        Refuses().check(HI)
    assert not ctx.permits


# --- time limits ----------------------------------------------------------------------------------------------------


async def test_no_permit_in_time_is_a_failure_without_a_call() -> None:
    ctx = Strict(gate=asyncio.Event())
    records = await run(Leaf([DONE], queue=0.01), ctx)
    assert records == [Failed(ErrorInfo("timeout_error", "no permit within the queue limit of 0.01 s", retryable=True))]
    assert not ctx.permits


async def test_waiting_for_a_permit_counts_towards_the_total_only() -> None:
    gate = asyncio.Event()
    ctx = Strict(gate=gate)
    asyncio.get_running_loop().call_later(0.05, gate.set)
    records = await run(Leaf([Text("a")], [DONE], first_content=0.04), ctx)
    assert records[-1] == DONE
    gate.clear()
    asyncio.get_running_loop().call_later(0.05, gate.set)
    records = await run(Leaf(asyncio.Event(), total=0.02), ctx)
    assert records[-1] == Failed(
        ErrorInfo("timeout_error", "not finished within the total limit of 0.02 s", retryable=True)
    )


async def test_an_opening_that_takes_too_long_is_cancelled() -> None:
    agent = Leaf([DONE], opening=asyncio.Event(), first_content=0.01)
    with pytest.raises(AgentTimeout, match=r"^no content within the first_content limit of 0\.01 s$"):
        await agent.call("Hi")


async def test_the_earlier_of_two_limits_is_the_one_that_is_named() -> None:
    for limits, named in (({"first_content": 0.01, "total": 5}, "first_content"), ({"total": 0.01}, "total")):
        with pytest.raises(AgentTimeout, match=f"the {named} limit"):
            await Leaf(asyncio.Event(), **limits).call("Hi")


async def test_infinity_switches_a_limit_off() -> None:
    gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.03, gate.set)
    agent = Leaf([Text("a")], gate, [DONE], between_content=0.01)
    result = await agent.call("Hi", timeouts=Timeouts(between_content=math.inf))
    assert result.text == "a"


@pytest.mark.parametrize("shown", [Text("a"), Unknown({"x": 1})], ids=["content", "no content"])
async def test_a_reader_that_dawdles_uses_up_no_limit_but_the_total(shown: Record) -> None:
    gate = asyncio.Event()
    agent = Leaf([shown], gate, [Text("b"), DONE], first_content=0.04, between_content=0.04)
    got: list[Record] = []
    async with aclosing(agent.batches(HI, Context())) as batches:
        async for batch in batches:
            got += batch
            if shown in batch:
                await asyncio.sleep(0.06)  # the reader's own business, longer than the limit
                asyncio.get_running_loop().call_soon(gate.set)
    assert got[-1] == DONE


# --- folds ----------------------------------------------------------------------------------------------------------


async def test_what_is_refused_is_no_success_but_a_complete_answer() -> None:
    agent = Leaf([Text("I"), Refusal("cannot")], [Completed("content_filter", "refusal")])
    with pytest.raises(ContentFiltered) as caught:
        await agent.call("Hi")
    assert caught.value.partial is not None
    assert (caught.value.partial.text, caught.value.partial.state) == ("I", "completed")
    assert caught.value.partial.refusal == "cannot"
    assert (caught.value.partial.success, caught.value.partial.stop_reason) == (False, "content_filter")


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "stop_sequence"])
async def test_the_good_stop_reasons_raise_nothing(reason: Any) -> None:
    result = await Leaf([Text("a"), Completed(reason)]).call("Hi")
    assert (result.success, result.stop_reason) == (True, reason)


async def test_text_that_was_shown_cannot_be_taken_back() -> None:
    agent = Leaf([Text("a")], [Reset(1, "another attempt")], [Text("b"), DONE])
    stream = agent.call_stream("Hi")
    assert await anext(stream) == "a"
    with pytest.raises(StreamReset):
        await anext(stream)
    assert agent.source.closed == 1
    assert (await Leaf([Text("a")], [Reset(1, "another attempt")], [Text("b"), DONE]).call("Hi")).text == "b"


async def test_a_result_has_its_times() -> None:
    gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, gate.set)
    result = await Leaf([Text("a")], gate, [DONE]).call("Hi")
    assert result.ttft is not None
    assert 0 <= result.ttft < 0.02 <= result.latency < 5


async def test_an_agents_error_passes_through_its_own_loop_once() -> None:
    agent = Leaf([Text("a")], agent_error(ErrorInfo("overloaded_error", "busy", retryable=True)))
    with pytest.raises(AgentError) as caught:
        await agent.call("Hi")
    assert str(caught.value) == "busy"
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("prompt", "options", "tokens"),
    [
        ("", {}, None),
        ("four", {}, 2),
        ("x" * 400, {}, 101),
        ("x" * 400, {"max_tokens": 1000}, 1101),
        ("x" * 400, {"extra": {"max_tokens": 1000}}, 1101),
        ("x" * 400, {"extra": {"max_tokens": "many"}}, 101),
        ([{"role": "user", "content": "x" * 40}, {"role": "assistant", "content": "y" * 40}], {}, 22),
    ],
)
def test_an_estimate_is_a_token_for_four_characters_and_all_that_may_be_written(
    prompt: Any, options: dict[str, Any], tokens: int | None
) -> None:
    if tokens is None:
        assert estimate_tokens(Request(messages=())) == 1
    else:
        assert estimate_tokens(build(prompt, options)) == tokens


async def test_a_permit_is_asked_for_with_the_estimate_and_told_what_was_used() -> None:
    ctx, error = Strict(), ErrorInfo("rate_limit_error", "slow down", retry_after=3.0, retryable=True)
    counted = Usage(input_tokens=2, output_tokens=1), Usage(input_tokens=2, output_tokens=5)
    await run(Leaf([counted[0]], [Text("a"), counted[1]], [DONE]), ctx)
    await run(Leaf(agent_error(error)), ctx)
    assert ctx.estimates == [estimate_tokens(HI)] * 2
    first, second = ctx.permits
    assert (first.counts, first.answers) == ([3, 7], [(None, 7)])
    assert (second.counts, second.answers) == ([], [(error, None)])


async def test_a_permit_is_told_what_is_said_where_the_provider_counts_nothing() -> None:
    ctx = Strict()
    await run(Leaf([Text("x" * 400)], [Text("y")], [Reasoning("z" * 399)], [DONE]), ctx)
    await run(Leaf([Text("x" * 4)], [DONE]), ctx)
    prompt = estimate_tokens(HI)
    assert ctx.permits[0].counts == [prompt + 100, prompt + 200, prompt + 200]
    assert ctx.permits[1].counts == [prompt + 1]
