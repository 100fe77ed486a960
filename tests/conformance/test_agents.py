"""Every agent of the project passes the tests that it gives to authors of agents; one that is wrong does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from multi_agent_scheduler import (
    Cached,
    ClaudeAgent,
    CompatibleAgent,
    Failover,
    FunctionAgent,
    Fuse,
    GeminiAgent,
    Hedge,
    Judge,
    OpenAIAgent,
    Race,
    Retry,
    Vote,
)
from multi_agent_scheduler.agents import Agent, Context
from multi_agent_scheduler.agents.base import Batch
from multi_agent_scheduler.conformance import AgentConformance, Behaviour, Subject
from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.records import CallEnded, CallStarted, Completed, Failed, Record, Text, Usage
from multi_agent_scheduler.request import Request
from multi_agent_scheduler.testing import ScriptedAgent
from tests.agents.server import LAST, Peer, Provider, answer, chat, chunk, cut, head

OVERLOADED = ErrorInfo("overloaded_error", "too much", retryable=True)


def scripted(behaviour: Behaviour, name: str = "scripted") -> ScriptedAgent:
    scripts: dict[Behaviour, tuple[Any, ...]] = {
        "answers": ("1", " is it", Usage(input_tokens=2, output_tokens=3)),
        "fails": (agent_error(OVERLOADED),),
        "breaks": ("half", agent_error(OVERLOADED)),
        "hangs": ("half", asyncio.Event()),
        "silent": (asyncio.Event(),),
    }
    return ScriptedAgent(*scripts[behaviour], name=name)


class TestScriptedAgent(AgentConformance):
    @asynccontextmanager
    async def subject(self, behaviour: Behaviour) -> AsyncIterator[Subject]:
        agent = scripted(behaviour)
        yield Subject(agent, lambda: agent.running)


class TestFunctionAgent(AgentConformance):
    @asynccontextmanager
    async def subject(self, behaviour: Behaviour) -> AsyncIterator[Subject]:
        running: list[str] = []

        async def fn(prompt: str) -> AsyncGenerator[str, None]:
            running.append(prompt)
            try:
                if behaviour not in ("fails", "silent"):
                    yield "one "
                    await asyncio.sleep(0)
                if behaviour in ("fails", "breaks"):
                    raise OSError("the backend is gone")
                if behaviour in ("hangs", "silent"):
                    await asyncio.Event().wait()
                yield "two"
            finally:
                running.remove(prompt)

        yield Subject(FunctionAgent(fn), lambda: len(running))

    def mistake(self, agent: Agent) -> Request | None:
        return agent.request("Hi", nonsense=1)


# --- agents of agents ---------------------------------------------------------------------------------------------


class Composed(AgentConformance):
    """Over two scripted agents that behave alike."""

    @staticmethod
    def composed(one: Agent, two: Agent) -> Agent:
        raise NotImplementedError

    @asynccontextmanager
    async def subject(self, behaviour: Behaviour) -> AsyncIterator[Subject]:
        players = [scripted(behaviour, "one"), scripted(behaviour, "two")]
        yield Subject(self.composed(*players), lambda: sum(player.running for player in players))


def _suite(name: str, made: Callable[[Agent, Agent], Agent]) -> type[AgentConformance]:
    return type(name, (Composed,), {"composed": staticmethod(made), "__module__": __name__})


TestRetry = _suite("TestRetry", lambda one, two: Retry(one, attempts=2, base=0))
TestRetryReset = _suite("TestRetryReset", lambda one, two: Retry(one, attempts=2, base=0, policy="reset"))
TestFailover = _suite("TestFailover", Failover)
TestFailoverReset = _suite("TestFailoverReset", lambda one, two: Failover(one, two, policy="reset"))
TestHedge = _suite("TestHedge", lambda one, two: Hedge(one, two, after=0.01))
TestRace = _suite("TestRace", Race)
TestVote = _suite("TestVote", lambda one, two: Vote(one, two, quorum=2))
TestJudge = _suite("TestJudge", lambda one, two: Judge(one, two, judge=ScriptedAgent("1")))
TestFuse = _suite("TestFuse", lambda one, two: Fuse(one, two, synthesiser=ScriptedAgent("Both", " say so")))
TestCached = _suite("TestCached", lambda one, two: Cached(one))
TestNested = _suite("TestNested", lambda one, two: Cached(Retry(Failover(Hedge(one, after=1), two), base=0)))


# --- agents over HTTP ---------------------------------------------------------------------------------------------


class OverHTTP(AgentConformance):
    """Over a server on the loopback."""

    close_seconds = 1.0  # the machine may be busy with something else

    first: bytes
    """What the server says up to the first content."""
    rest: Sequence[bytes]

    @staticmethod
    def made(url: str) -> Agent:
        raise NotImplementedError

    @asynccontextmanager
    async def subject(self, behaviour: Behaviour) -> AsyncIterator[Subject]:
        serving: list[Peer] = []

        async def serve(peer: Peer) -> None:
            serving.append(peer)

        async def served(peer: Peer) -> None:
            serving.remove(peer)

        async def hang(peer: Peer) -> None:
            try:
                await peer.closed.wait()
            finally:
                serving.remove(peer)

        first, rest = chunk(self.first), [chunk(piece) for piece in self.rest]
        error = json.dumps({"error": {"type": "overloaded_error", "message": "too much"}}).encode()
        scripts: dict[Behaviour, list[Any]] = {
            "answers": [serve, head(), first, *rest, served, LAST],
            "fails": [serve, served, *answer(error, status=529, framing="length")],
            "breaks": [serve, head(), first, served, cut],
            "hangs": [serve, head(), first, hang],
            "silent": [serve, head(), hang],
        }
        async with Provider(scripts[behaviour]) as provider, self.made(provider.url) as agent:
            yield Subject(agent, lambda: len(serving))

    def mistake(self, agent: Agent) -> Request | None:
        return msgspec.structs.replace(agent.request("Hi"), tool_choice="nonsense")


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


class TestOpenAIAgent(OverHTTP):
    _events = chat("one ", "two")
    first, rest = b"".join(_events[:2]), _events[2:]

    @staticmethod
    def made(url: str) -> Agent:
        return OpenAIAgent("sk-test", model="m", base_url=f"{url}/v1")


class TestCompatibleAgent(TestOpenAIAgent):
    @staticmethod
    def made(url: str) -> Agent:
        return CompatibleAgent(base_url=f"{url}/v1", model="m")


class TestClaudeAgent(OverHTTP):
    first = b"".join(
        [
            _event("message_start", message={"id": "msg", "model": "m", "usage": {"input_tokens": 3}}),
            _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            _event("content_block_delta", index=0, delta={"type": "text_delta", "text": "one "}),
        ]
    )
    rest = (
        _event("content_block_delta", index=0, delta={"type": "text_delta", "text": "two"}),
        _event("content_block_stop", index=0),
        _event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
        _event("message_stop"),
    )

    @staticmethod
    def made(url: str) -> Agent:
        return ClaudeAgent("sk-test", model="m", base_url=url)


def _gemini(text: str, **fields: Any) -> bytes:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **fields}
    return f"data: {json.dumps({'candidates': [candidate]})}\n\n".encode()


class TestGeminiAgent(OverHTTP):
    first, rest = _gemini("one "), (_gemini("two", finishReason="STOP"),)

    @staticmethod
    def made(url: str) -> Agent:
        return GeminiAgent("key-test", model="m", base_url=url)


# --- the suite itself ---------------------------------------------------------------------------------------------


class Wrong(Agent):
    """An agent that forgets something."""

    name = "wrong"

    def __init__(self, forgets: str) -> None:
        self.forgets = forgets
        self.running = 0

    async def batches(self, request: Request, ctx: Context) -> AsyncGenerator[Batch, None]:
        forgets = self.forgets
        if forgets == "mistakes":
            yield [Text("")]
        permit = await ctx.permit(self, 1) if forgets != "the permit" else None
        call = ctx.next_call()
        self.running += 1
        try:
            yield [CallStarted(call, self.name)]
            yield [Text("half")]
            if forgets == "cancellation":
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
            if forgets == "that failures are no exceptions":
                raise agent_error(OVERLOADED)
            failed = Failed(OVERLOADED)
            if forgets != "the end of the Call":
                yield [CallEnded(call, "failed", usage=Usage(call=call + 1) if forgets == "numbers" else None)]
            if permit is not None and forgets != "the permit's return":
                permit.release()
            if forgets == "to be one":
                yield [Completed("stop")]
            if forgets != "its end":
                yield [failed]
        finally:
            if forgets != "to close":
                self.running -= 1


@pytest.mark.parametrize(
    ("forgets", "test", "told"),
    [
        ("the permit", "what_came_before_a_failure_is_kept", "1 Calls were made with 0 permits"),
        ("the permit's return", "what_came_before_a_failure_is_kept", "permits were not given back while the terminal"),
        ("the end of the Call", "what_came_before_a_failure_is_kept", r"the Calls \[1\] have not ended"),
        ("numbers", "what_came_before_a_failure_is_kept", "usage must have its number"),
        ("to be one", "what_came_before_a_failure_is_kept", "a batch came behind the terminal"),
        ("its end", "what_came_before_a_failure_is_kept", "the last record must be the terminal"),
        ("to close", "what_came_before_a_failure_is_kept", "the provider is still asked, after 0.1 s"),
        ("that failures are no exceptions", "what_came_before_a_failure_is_kept", "too much"),
        ("cancellation", "being_cancelled_passes_and_stops_the_provider", "CancelledError must pass"),
        ("mistakes", "a_mistake_is_raised_before_anything_runs", r"must raise a mistake, not only \[\]"),
        ("that failures are no exceptions", "an_answer_ends_in_one_terminal", "too much"),
        ("nothing", "an_answer_ends_in_one_terminal", "an answer must end as completed"),
    ],
)
async def test_an_agent_that_is_wrong_is_told_so(forgets: str, test: str, told: str) -> None:
    class Suite(AgentConformance):
        @asynccontextmanager
        async def subject(self, behaviour: Behaviour) -> AsyncIterator[Subject]:
            agent = Wrong(forgets)
            yield Subject(agent, lambda: agent.running)

        def mistake(self, agent: Agent) -> Request | None:
            return agent.request("Hi")

    with pytest.raises((AssertionError, type(agent_error(OVERLOADED))), match=told):
        await getattr(Suite(), f"test_{test}")()


async def test_the_records_of_a_right_agent_pass() -> None:
    class Right(TestScriptedAgent):
        @asynccontextmanager
        async def subject(self, behaviour: Behaviour) -> AsyncIterator[Subject]:
            script: list[Record] = [Text("a"), Text("b")]
            agent = ScriptedAgent(script)
            yield Subject(agent, lambda: agent.running)

    await Right().test_an_answer_ends_in_one_terminal()
