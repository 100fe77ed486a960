"""For the tests of agents of agents: scripts that fail, a context that counts permits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from multi_agent_scheduler.agents import Agent, Context, Permit
from multi_agent_scheduler.errors import AgentError, ErrorInfo, StreamReset, agent_error
from multi_agent_scheduler.records import (
    TERMINALS,
    CallEnded,
    CallStarted,
    Record,
    Reset,
    Text,
    numbered,
)
from multi_agent_scheduler.request import Prompt
from multi_agent_scheduler.task import Result, Timeouts
from multi_agent_scheduler.testing import VirtualClock, run_virtual
from multi_agent_scheduler.views.live import live
from multi_agent_scheduler.views.summary import summarise
from multi_agent_scheduler.views.text import TextView

T = TypeVar("T")


def failure(code: str = "server_error", *, retryable: bool = True, retry_after: float | None = None) -> AgentError:
    """What a provider's failure is in a script."""
    return agent_error(ErrorInfo(code, f"it failed: {code}", retryable=retryable, retry_after=retry_after))


class CountingContext(Context):
    """Knows which permits are held; at most ``slots`` of each agent, if given.

    ``held_when_asked`` is what was held each time that a permit was asked for; ``counts`` what was counted.
    """

    def __init__(self, *, slots: int | None = None, timeouts: Timeouts | None = None) -> None:
        super().__init__(timeouts=timeouts)
        self.held: Counter[str] = Counter()
        self.held_when_asked: list[int] = []
        self.counts: Counter[str] = Counter()
        self._slots = slots
        self._gates: dict[str, asyncio.Semaphore] = {}

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    def count(self, name: str) -> None:
        self.counts[name] += 1

    async def permit(self, agent: Agent, estimate: int) -> Permit:
        self.held_when_asked.append(self.held.total())
        gate = None
        if self._slots is not None:
            gate = self._gates.setdefault(agent.name, asyncio.Semaphore(self._slots))
            await gate.acquire()
        return _Held(self, agent.name, gate)


class _Held(Permit):
    def __init__(self, ctx: CountingContext, name: str, gate: asyncio.Semaphore | None) -> None:
        self._ctx, self._name, self._gate, self._open = ctx, name, gate, True
        ctx.held[name] += 1

    def answered(self, error: ErrorInfo | None, tokens: int | None) -> None:
        self.release()

    def release(self) -> None:
        if self._open:
            self._open = False
            self._ctx.held[self._name] -= 1
            if self._gate is not None:
                self._gate.release()


async def log_of(agent: Agent, ctx: Context | None = None, prompt: Prompt = "Hi", **options: Any) -> list[Record]:
    """The records of one run, numbered as a log has them, and checked for what holds of every log."""
    ctx = CountingContext() if ctx is None else ctx
    records: list[Record] = []
    async with aclosing(agent.batches(agent.request(prompt, **options), ctx)) as batches:
        async for batch in batches:
            assert batch, "an empty batch"
            records += batch
    records = list(numbered(records, 1))
    check(records)
    if isinstance(ctx, CountingContext):
        assert ctx.held.total() == 0
    return records


def check(records: Sequence[Record]) -> None:
    """One terminal, at the end; every Call ends once, under its number and in its branch; resets name the past; and the
    text that a reader was shown is the text that stands.
    """
    assert isinstance(records[-1], TERMINALS)
    assert not any(isinstance(record, TERMINALS) for record in records[:-1])
    started = [(record.call, record.branch) for record in records if isinstance(record, CallStarted)]
    ended = [(record.call, record.branch) for record in records if isinstance(record, CallEnded)]
    assert len(set(started)) == len(started)
    assert sorted(map(str, ended)) == sorted(map(str, started))
    for record in records:
        if isinstance(record, Reset):
            assert 1 <= record.from_seq <= record.seq
    stands = "".join(record.text for record in live(records) if isinstance(record, Text) and record.branch is None)
    assert summarise(records).text == stands
    view, shown = TextView(), ""
    try:
        for record in records:
            shown += view.feed([record])
    except StreamReset:
        assert any(isinstance(record, Reset) and record.branch is None for record in records)
    else:
        assert shown == stands


def text(records: Sequence[Record], branch: str | None = None) -> str:
    """The text of a branch that stands."""
    return "".join(record.text for record in live(records) if isinstance(record, Text) and record.branch == branch)


async def turns(number: int) -> None:
    """Let the loop run: whatever can happen without a time passing happens."""
    for _ in range(number):
        await asyncio.sleep(0)


def kinds(records: Sequence[Record]) -> list[str]:
    return [str(type(record).__struct_config__.tag) for record in records]


def started(records: Sequence[Record]) -> list[CallStarted]:
    return [record for record in records if isinstance(record, CallStarted)]


def ended(records: Sequence[Record]) -> list[CallEnded]:
    return [record for record in records if isinstance(record, CallEnded)]


def result(records: Sequence[Record]) -> Result:
    return summarise(records)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on virtual time, from 0; whatever is left running fails."""
    return run_virtual(main, clock=VirtualClock(0.0))
