"""Failover and retries: what shows of failed attempts, and what follows content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from multi_agent_scheduler import Failover, FunctionAgent, MultiAgentScheduler, Retry, Task
from multi_agent_scheduler.errors import (
    InvalidConfiguration,
    InvalidOption,
    InvalidRequest,
    RateLimitError,
    ServerError,
    StreamReset,
)
from multi_agent_scheduler.records import (
    CallEnded,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Reset,
    Text,
    ToolCall,
    Unknown,
    Usage,
)
from multi_agent_scheduler.request import Message, Request, TextPart
from multi_agent_scheduler.task import Timeouts
from multi_agent_scheduler.testing import ScriptedAgent

from .composing import CountingContext, ended, failure, kinds, log_of, result, run, started, text, turns


def agents(*scripts: tuple[object, ...]) -> list[ScriptedAgent]:
    return [ScriptedAgent(*script, name="abcdef"[index]) for index, script in enumerate(scripts)]  # type: ignore[arg-type]


async def test_the_next_agent_answers_and_nothing_shows_of_the_first_but_its_call() -> None:
    a, b = agents((Unknown(raw=1), Text(""), failure()), ("Hel", "lo"))
    log = await log_of(Failover(a, b))
    assert kinds(log) == ["call_started", "call_ended", "call_started", "text", "text", "call_ended", "completed"]
    assert [(call.agent, call.attempt) for call in started(log)] == [("a", 1), ("b", 2)]
    assert [call.outcome for call in ended(log)] == ["failed", "completed"]
    assert result(log).success and result(log).agent == "b"


async def test_an_agent_that_answers_is_the_only_one_asked() -> None:
    a, b = agents(("Hello",), ("never",))
    log = await log_of(Failover(a, b))
    assert text(log) == "Hello"
    assert b.requests == []


async def test_what_an_only_agent_says_is_passed_on_as_it_is() -> None:
    script = [Unknown(raw=1), Usage(input_tokens=3), "Hel", [Text("lo"), Usage(output_tokens=1), Completed("length")]]
    (alone,) = agents(tuple(script))
    plain = await log_of(alone)
    for wrapped in (Failover(alone), Retry(alone)):
        log = await log_of(wrapped)
        assert sorted(kinds(log)) == sorted(kinds(plain))
        assert result(log).usage == result(plain).usage
        assert (result(log).text, result(log).stop_reason) == ("Hello", "length")


async def test_if_all_fail_the_last_failure_is_the_outcome() -> None:
    log = await log_of(Failover(*agents((failure(),), (Unknown(raw=1), failure("rate_limit_error")))))
    assert log[-1].error.code == "rate_limit_error"  # type: ignore[union-attr]
    assert "unknown" in kinds(log)  # nothing was tried after it: what it sent is kept
    with pytest.raises(RateLimitError):
        await Failover(*agents((failure(),), (failure("rate_limit_error"),))).call("Hi")


@pytest.mark.parametrize("policy", ["off", "continue"])
async def test_after_content_the_outcome_stands_and_the_text_is_kept(policy: str) -> None:
    a, b = agents(("Hel", failure()), ("never",))
    log = await log_of(Failover(a, b, policy=policy))  # type: ignore[arg-type]
    assert isinstance(log[-1], Failed) and text(log) == "Hel"
    assert b.requests == []


async def test_reasoning_is_content() -> None:
    a, b = agents((Reasoning("hm"), failure()), ("never",))
    assert isinstance((await log_of(Failover(a, b)))[-1], Failed)


async def test_a_reset_voids_what_was_said_and_the_next_begins_anew() -> None:
    a, b = agents(("Hel", "l", Interrupted(failure().info)), ("Hello",))
    log = await log_of(Failover(a, b, policy="reset"))
    assert kinds(log) == [
        "call_started", "text", "text", "call_ended", "reset", "call_started", "text", "call_ended", "completed",
    ]  # fmt: skip
    assert log[4] == Reset(2, "server_error: it failed: server_error", seq=5)
    assert text(log) == "Hello"


async def test_a_reader_of_plain_text_is_told_of_a_reset() -> None:
    a, b = agents(("Hel", failure()), ("Hello",))
    with pytest.raises(StreamReset):
        async for _ in Failover(a, b, policy="reset").call_stream("Hi"):
            pass


async def test_the_text_is_gone_on_from_where_the_next_agent_can() -> None:
    a, b = agents(("The quick ", "brown", failure()), (" fox",))
    b.continues_prefix = True
    log = await log_of(Failover(a, b, policy="continue"), prompt="Go", max_tokens=100)
    assert text(log) == "The quick brown fox"
    assert "reset" not in kinds(log)
    (asked,) = b.requests
    assert asked.messages == (Message("user", (TextPart("Go"),)), Message("assistant", (TextPart("The quick brown"),)))
    assert asked.max_tokens == 100 - len("The quick brown") // 4


async def test_two_who_go_on_get_all_of_the_text() -> None:
    a, b, c = agents(("One, ", failure()), ("two, ", failure()), ("three",))
    b.continues_prefix = c.continues_prefix = True
    log = await log_of(Failover(a, b, c, policy="continue"))
    assert text(log) == "One, two, three"
    assert c.requests[0].messages[-1] == Message("assistant", (TextPart("One, two, "),))


async def test_a_beginning_that_the_caller_gave_is_lengthened() -> None:
    a, b = agents(("two, ", failure()), ("three",))
    b.continues_prefix = True
    prompt = [{"role": "user", "content": "Count"}, {"role": "assistant", "content": "One, "}]
    await log_of(Failover(a, b, policy="continue"), prompt=prompt)
    assert b.requests[0].messages[-1] == Message("assistant", (TextPart("One, two, "),))


async def test_one_who_goes_on_and_fails_at_once_leaves_the_text_as_it_was() -> None:
    a, b, c = agents(("One", failure()), (failure(),), (", two",))
    b.continues_prefix = c.continues_prefix = True
    assert text(await log_of(Failover(a, b, c, policy="continue"))) == "One, two"
    c.continues_prefix = False
    log = await log_of(Failover(a, b, c, policy="continue"))
    assert text(log) == "One" and isinstance(log[-1], Failed)


@pytest.mark.parametrize(
    "said",
    [
        ("Let me look. ", ToolCall(0, "t1", "look", '{"wh')),
        (ToolCall(0, "t1", "look", "{}"), "So"),
        (Reasoning("hm", signature="seal"), "So"),
        (Reasoning(signature="seal"), "So"),
        (Reasoning(redacted="xyz"), "So"),
        (Reasoning("hm"),),
    ],
    ids=["half a tool call", "a tool call", "signed", "a seal of its own", "redacted", "no text yet"],
)
async def test_no_agent_goes_on_from_there(said: tuple[Record | str, ...]) -> None:
    a, b = agents((*said, failure()), ("never",))
    b.continues_prefix = True
    assert isinstance((await log_of(Failover(a, b, policy="continue")))[-1], Failed)
    assert b.requests == []


async def test_half_a_json_object_is_not_gone_on_from() -> None:
    a, b = agents(('{"a":', failure()), ("1}",))
    b.continues_prefix = True
    assert isinstance((await log_of(Failover(a, b, policy="continue"), schema={"type": "object"}))[-1], Failed)


@pytest.mark.parametrize("refusal", [Completed("content_filter"), failure("content_filter")])
async def test_a_refusal_stands_unless_it_is_said_to_be_a_failure(refusal: Completed | Exception) -> None:
    a, b = agents((refusal,), ("Hello",))
    assert result(await log_of(Failover(a, b))).error.code == "content_filter"  # type: ignore[union-attr]
    assert b.requests == []
    assert text(await log_of(Failover(a, b, refusals=True))) == "Hello"


@pytest.mark.parametrize("code", ["cancelled", "response_too_large", "budget_exceeded"])
async def test_what_passed_the_callers_own_limits_is_not_tried_elsewhere(code: str) -> None:
    a, b = agents((failure(code),), ("never",))
    assert isinstance((await log_of(Failover(a, b)))[-1], Failed)
    assert b.requests == []


async def test_an_agent_that_breaks_down_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    a, b = agents((ValueError("a bug"),), ("Hello",))
    log = await log_of(Failover(a, b))
    assert text(log) == "Hello"
    assert ended(log)[0].outcome == "failed" and ended(log)[0].error.code == "internal_error"  # type: ignore[union-attr]
    assert "a bug" in caplog.text


class Picky(ScriptedAgent):
    """Cannot send anything."""

    def _prepare(self, request: Request) -> Request:
        raise InvalidRequest("no such picture")


async def test_a_callers_mistake_is_raised_before_anything_runs_whoever_would_meet_it() -> None:
    (a,) = agents((failure(),))
    for mistaken in (Failover(Picky(), a), Failover(a, Picky()), Retry(Picky())):
        with pytest.raises(InvalidRequest, match="no such picture"):
            await mistaken.call("Hi")
    assert a.requests == []


class LatePicky(Picky):
    def check(self, request: Request) -> None:
        """Finds nothing."""


async def test_a_mistake_that_shows_too_late_is_a_failure_and_not_tried_elsewhere() -> None:
    a, _, c = agents((failure(),), (), ("never",))
    log = await log_of(Failover(a, LatePicky(), c))
    assert isinstance(log[-1], Failed)
    assert (log[-1].error.code, log[-1].error.message) == ("invalid_request_error", "no such picture")
    assert c.requests == []


# --- retries --------------------------------------------------------------------------------------------------------


class Flaky(ScriptedAgent):
    """Plays one script in its first Call, the next in its second, and so on."""

    def __init__(self, *scripts: tuple[object, ...], name: str = "flaky") -> None:
        super().__init__(name=name)
        self.scripts = list(scripts)
        self.asked_at: list[float] = []

    async def _open(self, request: Request, ctx: object) -> object:  # type: ignore[override]
        self.asked_at.append(asyncio.get_running_loop().time())
        self.script = self.scripts.pop(0)  # type: ignore[assignment]
        return await super()._open(request, ctx)  # type: ignore[arg-type]


def test_a_failure_that_may_pass_is_tried_again_with_growing_waits() -> None:
    agent = Flaky((failure(),), (failure(),), (failure(),), ("Hello",))
    log = run(log_of(Retry(agent, 4, base=1.0, chance=lambda: 1.0)))
    assert text(log) == "Hello"
    assert [call.attempt for call in started(log)] == [1, 2, 3, 4]
    assert agent.asked_at == pytest.approx([0, 1, 3, 7])


def test_no_permit_is_held_while_waiting() -> None:
    ctx = CountingContext(slots=1)
    run(log_of(Retry(Flaky((failure(),), (failure(),), ("Hello",)), 3), ctx))
    assert ctx.held_when_asked == [0, 0, 0]


def test_retry_after_is_waited_for_unless_it_is_too_long() -> None:
    agent = Flaky((failure("rate_limit_error", retry_after=40),), ("Hello",))
    assert text(run(log_of(Retry(agent, chance=lambda: 0.0)))) == "Hello"
    assert agent.asked_at == pytest.approx([0, 40])
    agent = Flaky((failure("rate_limit_error", retry_after=40),), ("never",))
    log = run(log_of(Retry(agent, longest_retry_after=30)))
    assert isinstance(log[-1], Failed) and log[-1].error.retry_after == 40


async def test_what_cannot_pass_is_not_tried_again() -> None:
    agent = Flaky((failure("authentication_error", retryable=False),), ("never",))
    log = await log_of(Retry(agent, base=0))
    assert isinstance(log[-1], Failed) and len(started(log)) == 1


async def test_the_attempts_are_those_in_all() -> None:
    agent = Flaky(*[(failure(),)] * 5)
    assert len(started(await log_of(Retry(agent, 3, base=0)))) == 3


async def test_a_retry_after_content_follows_the_policy() -> None:
    assert text(await log_of(Retry(Flaky(("a", failure()), ("b",)), base=0))) == "a"
    assert text(await log_of(Retry(Flaky(("a", failure()), ("b",)), base=0, policy="reset"))) == "b"
    agent = Flaky(("a", failure()), ("b",))
    agent.continues_prefix = True
    assert text(await log_of(Retry(agent, base=0, policy="continue"))) == "ab"


def test_the_total_limit_is_on_all_attempts_together() -> None:
    agent = Flaky((failure(),), (failure(),), ("late",))
    log = run(log_of(Retry(agent, base=10, chance=lambda: 1.0), CountingContext(timeouts=Timeouts(total=15))))
    assert len(started(log)) == 2  # the third would begin after 30 s
    hang = asyncio.Event()
    agent = Flaky((failure(),), (hang, "late"))

    async def whole() -> float:
        log = await log_of(Retry(agent, base=10, chance=lambda: 1.0), CountingContext(timeouts=Timeouts(total=15)))
        assert "total limit of 15 s" in log[-1].error.message  # type: ignore[union-attr]
        return asyncio.get_running_loop().time()

    assert run(whole()) == pytest.approx(15)


# --- nested, closed, in a scheduler -----------------------------------------------------------------------------------


async def test_attempts_are_counted_through_nested_agents() -> None:
    flaky, good = Flaky((failure(),), (failure(),)), ScriptedAgent("Hello", name="good")
    log = await log_of(Failover(Retry(flaky, 2, base=0), good))
    assert [(call.agent, call.attempt) for call in started(log)] == [("flaky", 1), ("flaky", 2), ("good", 3)]


async def test_a_reset_of_an_inner_agent_is_in_the_positions_of_the_outer() -> None:
    down = ScriptedAgent(failure(), name="down")
    flaky = Flaky((Unknown(raw=1), "Hel", failure()), ("Hello",))
    log = await log_of(Failover(down, Retry(flaky, base=0, policy="reset")))
    (reset,) = [record for record in log if isinstance(record, Reset)]
    assert isinstance(log[reset.from_seq - 1], Unknown)
    assert text(log) == "Hello"


@pytest.mark.parametrize("gated", [1, 2], ids=["the first", "the second"])
async def test_a_reader_that_leaves_stops_the_agent_that_is_asked(gated: int) -> None:
    gate = asyncio.Event()
    a, b = agents(("Hel", gate) if gated == 1 else (failure(),), ("Hel", gate))
    failover = Failover(a, b)
    ctx = CountingContext()
    async with aclosing(failover.batches(failover.request("Hi"), ctx)) as batches:
        async for batch in batches:
            if isinstance(batch[0], Text):
                break
    assert a.running == b.running == 0
    assert ctx.held.total() == 0


async def test_stopping_while_it_waits_for_the_next_attempt() -> None:
    agent = Flaky((failure(),), ("never",))
    task = asyncio.ensure_future(Retry(agent, base=60, chance=lambda: 1.0).call("Hi"))
    await turns(20)
    assert agent.closed == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(agent.requests) == 1


async def test_in_a_scheduler_the_calls_show_in_the_log() -> None:
    a, b = agents((failure(),), ("Hello",))
    async with MultiAgentScheduler({"both": Failover(a, b)}) as scheduler:
        items = [item async for item in scheduler.execute_task_stream(Task("t", "Hi"))]
        assert [item["chunk"] for item in items[:-1]] == ["Hello"]
        log = [record async for record in scheduler.follow(items[-1]["stream_id"])]
    assert [record.call for record in log if isinstance(record, CallEnded)] == [1, 2]


async def test_the_four_ways_to_ask_agree() -> None:
    a, b = agents((failure(),), ("Hel", "lo"))
    failover = Failover(a, b)
    assert (await failover.call("Hi")).text == "Hello"
    assert [chunk async for chunk in failover.call_stream("Hi")] == ["Hel", "lo"]
    assert text([record async for record in failover.stream("Hi")]) == "Hello"


# --- settings ---------------------------------------------------------------------------------------------------------


async def test_a_function_is_an_agent_here_too_and_gets_the_options_that_it_has() -> None:
    asked: list[object] = []

    async def echo(prompt: str, **options: object) -> AsyncIterator[str]:
        asked.append(options)
        yield prompt

    (down,) = agents((failure(),))
    assert text(await log_of(Failover(down, echo), temperature=0.5, extra={"style": "dry"})) == "Hi"
    assert text(await log_of(Retry(echo), style="dry")) == "Hi"
    assert asked == [{"temperature": 0.5, "style": "dry"}, {"style": "dry"}]


async def test_every_agent_is_asked_with_its_own_defaults() -> None:
    class Terse(ScriptedAgent):
        def adopt(self, request: Request) -> Request:
            return Request(messages=request.messages, max_tokens=7)

    down, terse = agents((failure(),))[0], Terse("Hi")
    await log_of(Failover(down, terse))
    assert (down.requests[0].max_tokens, terse.requests[0].max_tokens) == (None, 7)


async def test_it_says_what_it_is_made_of_and_closes_that() -> None:
    class Open(ScriptedAgent):
        closings = 0

        async def aclose(self) -> None:
            self.closings += 1

    a = Open(name="a")
    async with Failover(a, Retry(a), name="both") as both:
        assert both.name == "both" and Retry(a).name == "a"
    assert a.closings == 2  # once for each that has it
    assert repr(Failover(FunctionAgent(nothing))) == "Failover(FunctionAgent(nothing))"


async def nothing(prompt: str) -> AsyncIterator[str]:
    yield prompt


async def test_what_cannot_be_is_refused_when_it_is_made() -> None:
    with pytest.raises(InvalidConfiguration, match="Failover needs at least one agent"):
        Failover()
    with pytest.raises(InvalidConfiguration, match="Failover is made of agents, not 'claude'"):
        Failover("claude")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="policy must be 'off', 'continue' or 'reset', not 'on'"):
        Failover(ScriptedAgent(), policy="on")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="attempts must be a whole number above 0, not 0"):
        Retry(ScriptedAgent(), 0)
    with pytest.raises(InvalidConfiguration, match="name must be a non-empty string"):
        Failover(ScriptedAgent(), name="")


def test_continuing_is_up_to_all_agents() -> None:
    can, cannot = ScriptedAgent(), ScriptedAgent()
    can.continues_prefix = True
    assert Failover(can, Retry(can)).continues_prefix
    assert not Failover(can, cannot).continues_prefix


async def test_errors_are_raised_as_the_agents_would() -> None:
    agent = ScriptedAgent(failure())
    agent.errors = "raise"
    pieces: list[str] = []
    stream = Retry(agent, 1).call_stream("Hi")
    with pytest.raises(ServerError):
        pieces.append(await anext(stream))
    assert pieces == []
