"""An agent inside a scheduler keeps to what its provider says is left, and goes on when there is more."""

from __future__ import annotations

import asyncio
import math

from multi_agent_scheduler import MultiAgentScheduler, Task
from multi_agent_scheduler.agents import ClaudeAgent

from .asking import agent_for, error_answer
from .server import Peer, Provider, answer, chat

WINDOW = 0.1


class Limited:
    """A provider's script that answers so many requests in a window, and refuses all others."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = limit
        self.ends = 0.0
        self.refused = 0

    async def __call__(self, peer: Peer) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self.ends:
            self.left, self.ends = self.limit, now + WINDOW
        said = {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(max(0, self.left - 1)),
            "x-ratelimit-reset-requests": f"{math.ceil((self.ends - now) * 1000)}ms",
        }
        self.left -= 1
        if self.left < 0:
            self.refused += 1
            steps = error_answer(429, {"error": {"type": "requests"}}, **said)
        else:
            steps = answer(chat("Hi"), headers=said)
        peer.transport.write(b"".join(steps))


async def test_what_the_provider_would_refuse_is_not_sent_until_there_is_more() -> None:
    limited = Limited(4)
    async with Provider([limited]) as provider, agent_for(provider, max_concurrent=3) as agent:
        async with MultiAgentScheduler({"a": agent}) as scheduler:
            tasks = [scheduler.execute_task(Task(f"t{number}", "Hi"), "a") for number in range(12)]
            results = await asyncio.gather(*tasks)
        assert [result.text for result in results] == ["Hi"] * 12
        assert limited.refused == 0
        assert len(provider.requests) == 12


async def test_what_a_refusal_says_counts_too() -> None:
    limited = Limited(1)
    async with Provider([limited]) as provider, agent_for(provider, max_concurrent=3) as agent:
        async with MultiAgentScheduler({"a": agent}) as scheduler:
            first = [scheduler.execute_task(Task(f"t{number}", "Hi"), "a") for number in range(3)]
            assert sum(result.success for result in await asyncio.gather(*first)) == 1  # nobody had said anything
            second = [scheduler.execute_task(Task(f"u{number}", "Hi"), "a") for number in range(3)]
            assert all(result.success for result in await asyncio.gather(*second))
        assert limited.refused == 2


async def test_one_agent_s_provider_keeps_no_other_agent_waiting() -> None:
    empty = {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2999-01-01T00:00:00Z",
    }
    soon = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "2026-01-01T00:10:00Z"}
    date = {"date": "Thu, 01 Jan 2026 00:00:00 GMT"}
    busy = error_answer(529, {"type": "error"}, **soon, **date)
    silent = error_answer(529, {"type": "error"}, **empty, **date)
    async with Provider(busy) as one, Provider(silent) as other:
        claude = ClaudeAgent("sk-test-0123456789", base_url=one.url)
        fable = ClaudeAgent("sk-test-0123456789", base_url=other.url)
        async with claude, fable, MultiAgentScheduler({"a": claude, "b": fable}) as scheduler:
            for agent in ("a", "b", "b"):  # what would keep it waiting for ages is for the provider to say
                assert not (await scheduler.execute_task(Task("t", "Hi"), agent)).success
            waiting = asyncio.ensure_future(scheduler.execute_task(Task("t", "Hi"), "a"))
            assert not (await scheduler.execute_task(Task("t", "Hi"), "b")).success
            assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert len(one.requests) == 1
