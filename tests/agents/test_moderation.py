"""When small pieces of answers wait for each other: only while the loop is busy, and the longer the busier it is."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

import pytest

from multi_agent_scheduler.agents.context import Context
from multi_agent_scheduler.agents.moderation import Moderation
from multi_agent_scheduler.agents.pool import pool

from .asking import asked, texts
from .server import LAST, Peer, chat, chunk, head


class Loop:
    """A loop by its clock and timers, which uses a ``share`` of a core."""

    def __init__(self) -> None:
        self.now = 100.0
        self.share = 0.0
        self.used = 5.0
        self._timers: list[tuple[float, int, Callable[[], None], Handle]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        handle = Handle()
        heapq.heappush(self._timers, (self.now + delay, len(self._timers), callback, handle))
        return handle

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, callback, handle = heapq.heappop(self._timers)
            self._advance(at)
            if not handle.cancelled:
                callback()
        self._advance(end)

    def _advance(self, to: float) -> None:
        self.used += self.share * (to - self.now)
        self.now = to


class Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def loop() -> Loop:
    return Loop()


def moderated(loop: Loop) -> Moderation:
    faked: Any = loop
    return Moderation(faked, lambda: loop.used)


def wait_of(loop: Loop, moderation: Moderation) -> float:
    """How long a piece waits now, in seconds."""
    rang: list[float] = []
    if not moderation.hold(lambda: rang.append(loop.now)):
        return 0.0
    began = loop.now
    loop.run(0.5)
    return rang[0] - began


def settle(loop: Loop, moderation: Moderation, seconds: float = 2.0) -> list[float]:
    """Pieces come a hundred times a second; how long each waited."""
    waits: list[float] = []

    def held(at: float) -> None:
        waits.append(loop.now - at)

    for _ in range(round(seconds * 100)):
        at = loop.now
        if not moderation.hold(lambda at=at: held(at)):  # type: ignore[misc]
            waits.append(0.0)
        loop.run(0.01)
    return waits


@pytest.mark.parametrize("share", [0.0, 0.3, 0.69])
def test_nothing_waits_while_the_loop_has_time(loop: Loop, share: float) -> None:
    loop.share = share
    assert set(settle(loop, moderated(loop))) == {0.0}


def test_pieces_wait_longer_while_the_loop_is_busy(loop: Loop) -> None:
    loop.share = 0.75
    waits = settle(loop, moderated(loop))
    assert waits[0] == 0.0
    assert waits[-1] == pytest.approx(0.05, abs=0.003)
    assert max(waits) <= 0.05 + 1e-9


def test_waiting_ends_with_the_load(loop: Loop) -> None:
    moderation = moderated(loop)
    loop.share = 0.98
    settle(loop, moderation)
    loop.share = 0.6  # it may be so because pieces wait
    assert settle(loop, moderation)[-1] == pytest.approx(0.05, abs=0.003)
    loop.share = 0.2
    assert settle(loop, moderation)[-1] == 0.0


def test_a_long_silence_makes_the_next_piece_go_at_once(loop: Loop) -> None:
    moderation = moderated(loop)
    loop.share = 0.75
    settle(loop, moderation, 0.06)
    assert wait_of(loop, moderation) > 0
    loop.share = 0.0
    loop.run(60)
    assert wait_of(loop, moderation) == 0.0


def test_pieces_go_in_the_order_in_which_they_came(loop: Loop) -> None:
    moderation = moderated(loop)
    loop.share = 0.98
    settle(loop, moderation)
    rang: list[int] = []
    for number in range(50):
        assert moderation.hold(lambda number=number: rang.append(number))  # type: ignore[misc]
        loop.run(0.001)
    loop.run(1)
    assert rang == list(range(50))


async def test_nobody_is_woken_once_it_is_closed(loop: Loop) -> None:
    moderation = moderated(loop)
    loop.share = 0.98
    settle(loop, moderation)
    woken: list[bool] = []
    assert moderation.hold(lambda: woken.append(True))
    moderation.close()
    loop.run(1)
    assert not woken


async def test_an_answer_is_whole_in_a_busy_loop_and_comes_in_fewer_pieces() -> None:
    words = [f"word{number} " for number in range(120)]

    async def breath(_peer: Peer) -> None:
        await asyncio.sleep(0.002)  # so that each word is a read of its own, and they take longer than a look

    steps = (step for event in chat(*words) for step in (chunk(event), breath))
    async with asked([head(), *steps, LAST]) as (_provider, agent):
        loop = asyncio.get_running_loop()
        pool()._moderation = Moderation(loop, loop.time)  # all of the time is used
        batches = [batch async for batch in agent.batches(agent.request("Hi"), Context())]
    assert "".join(texts(list(batch)) for batch in batches) == "".join(words)
    assert len(batches) < 80
