"""Agents that fail in every way that providers do, as a seed draws it, and tell what they see."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, TypeAlias

from multi_agent_scheduler.agents import (
    Agent,
    Cache,
    Cached,
    Context,
    Failover,
    Fuse,
    Hedge,
    Judge,
    Permit,
    Race,
    Retry,
    Vote,
)
from multi_agent_scheduler.agents.base import Batch, LeafAgent, Source
from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.records import Completed, Interrupted, Reasoning, Record, Text, ToolCall, Usage
from multi_agent_scheduler.request import Request
from tests.simulation.truth import Permits

Step: TypeAlias = tuple[float | None, list[Record] | Exception]
"""Seconds to wait (None: for ever), and then what comes."""

DELAYS = (0.0, 0.0, 0.0, 0.01, 0.3, 2.0)


def failure(code: str, *, retryable: bool = True, retry_after: float | None = None) -> Exception:
    return agent_error(ErrorInfo(code, "simulated", retryable=retryable, retry_after=retry_after))


def content(chance: random.Random) -> list[Record]:
    match chance.randrange(12):
        case 0:
            return [Reasoning("hm ")]
        case 1:
            return [Usage(input_tokens=chance.randint(0, 20), output_tokens=chance.randint(0, 200))]
        case 2:
            return [ToolCall(0, "id", "look", '{"a": 1}')]
        case 3:
            return [Text("a "), Text("b "), Usage(input_tokens=1, output_tokens=chance.randint(0, 9))]
    return [Text(chance.choice(("1", "yes", "no", "more words ")))]


def script(chance: random.Random) -> list[Step]:
    """One answer: some content, and then an end."""
    steps: list[Step] = [(chance.choice(DELAYS), content(chance)) for _ in range(chance.choice((0, 1, 1, 2, 3)))]
    delay = chance.choice(DELAYS)
    match chance.randrange(24):
        case 0 | 1:
            steps.append((delay, failure("rate_limit_error", retry_after=chance.choice((None, 0.5, 5.0, 90.0)))))
        case 2 | 3:
            steps.append((delay, failure(chance.choice(("server_error", "overloaded_error", "connection_error")))))
        case 4 | 5:
            steps.append((delay, [Interrupted(ErrorInfo("interrupted", "cut", retryable=True))]))
        case 6 | 7:
            steps.append((None, []))
        case 8:
            steps.append((delay, [Completed("content_filter")]))
        case 9:
            steps.append((delay, ValueError("a bug in the agent")))
        case 10:
            steps.append((delay, failure("invalid_request_error", retryable=False)))
        case _:
            steps.append((delay, [Completed("stop")]))
    return steps


class Provider(LeafAgent):
    """``asked`` is called with each prompt that comes; ``sources`` are the answers that are being given."""

    protocol = "simulated"

    def __init__(
        self, name: str, chance: random.Random, permits: Permits, asked: Callable[[str, str], None],
        concurrency: int | None,
    ) -> None:  # fmt: skip
        self.name = name
        self.max_concurrent = concurrency
        self.sources: list[_Answer] = []
        self._chance = chance
        self._permits = permits
        self._asked = asked

    def batches(self, request: Request, ctx: Context) -> AsyncGenerator[Batch, None]:
        return super().batches(request, _Watched(ctx, self._permits))  # type: ignore[arg-type]

    async def _open(self, request: Request, ctx: Context) -> Source:
        self._asked(self.name, request.prompt)
        if self._chance.randrange(6) == 0:
            await asyncio.sleep(0.05)
            if self._chance.randrange(2):
                raise failure("connection_error")
        answer = _Answer(self, request.prompt, script(self._chance))
        self.sources.append(answer)
        return answer


class _Answer(Source):
    def __init__(self, provider: Provider, prompt: str, steps: list[Step]) -> None:
        self.prompt = prompt
        self._provider = provider
        self._steps = iter(steps)
        self._waiting: asyncio.Future[None] | None = None

    async def next(self) -> Sequence[Record]:
        delay, what = next(self._steps)
        if delay != 0.0:
            loop = asyncio.get_running_loop()
            waiting = self._waiting = loop.create_future()
            timer = None if delay is None else loop.call_later(delay, _wake, waiting)
            try:
                await waiting
            finally:
                self._waiting = None
                if timer is not None:
                    timer.cancel()
        if isinstance(what, Exception):
            raise what
        return what

    def fail(self, info: ErrorInfo) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(agent_error(info))

    async def aclose(self) -> None:
        self._provider.sources.remove(self)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Watched:
    """A context whose permits are counted."""

    def __init__(self, ctx: Context, permits: Permits) -> None:
        self._ctx = ctx
        self._permits = permits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    async def permit(self, agent: Agent, estimate: int) -> Permit:
        permit = await self._ctx.permit(agent, estimate)
        return _Counted(permit, self._permits, self._ctx.name_of(agent), estimate)


class _Counted(Permit):
    __slots__ = ("_estimate", "_grant", "_name", "_open", "_permit", "_permits")

    def __init__(self, permit: Permit, permits: Permits, name: str, estimate: int) -> None:
        self._permit, self._permits, self._name, self._open = permit, permits, name, True
        self._estimate = estimate
        self._grant = permits.grant(name, estimate, asyncio.get_running_loop().time())

    def used(self, tokens: int) -> None:
        self._heard(max(self._estimate, tokens))  # as the newest report says, and never less than was reserved
        self._permit.used(tokens)

    def answered(self, error: ErrorInfo | None, tokens: int | None) -> None:
        if tokens is not None:
            self._heard(tokens)
        self._return()
        self._permit.answered(error, tokens)

    def release(self) -> None:
        self._return()
        self._permit.release()

    def _heard(self, tokens: int) -> None:
        self._grant.heard(tokens, asyncio.get_running_loop().time())

    def _return(self) -> None:
        if self._open:
            self._open = False
            self._permits.release(self._name)


def composite(chance: random.Random, one: Agent, two: Agent, cache: Cache) -> Agent:
    """Some agent over these two."""
    policy = chance.choice(("off", "continue", "reset"))
    match chance.randrange(10):
        case 0:
            return Retry(one, attempts=chance.randint(2, 3), policy=policy, chance=chance.random)
        case 1:
            return Failover(one, two, policy=policy)
        case 2:
            return Hedge(one, two, after=0.2)
        case 3:
            return Hedge(one, after=0.2)
        case 4:
            return Race(one, two)
        case 5:
            return Vote(one, two, one, quorum=chance.randint(1, 2))
        case 6:
            return Judge(one, two, judge=one, mode=chance.choice(("choice", "text")))
        case 7:
            return Fuse(one, two, synthesiser=two)
        case 8:
            return Cached(one, cache, pace=chance.choice(("fast", "original")))
        case _:
            inner = Failover(Hedge(one, after=0.1), two, policy=policy)
            return Cached(Retry(inner, attempts=2, policy=policy, chance=chance.random), cache)
