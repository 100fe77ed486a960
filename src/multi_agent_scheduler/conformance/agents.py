"""What every agent must do, as tests."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Literal, NamedTuple, TypeAlias

from ..agents.base import Agent, Batch
from ..agents.context import Context, Permit
from ..errors import AgentError, CallerError, ErrorInfo
from ..records import (
    TERMINALS,
    CallEnded,
    CallStarted,
    Completed,
    Failed,
    Interrupted,
    Record,
    Reset,
    Usage,
    is_content,
)
from ..request import Request
from ..task import Timeouts
from ..views.summary import summarise

__all__ = ["AgentConformance", "Behaviour", "Subject"]

Behaviour: TypeAlias = Literal["answers", "fails", "breaks", "hangs", "silent"]
"""What the provider does with every request. ``answers``: says a text in two pieces or more, and completes. ``fails``:
fails before it has said anything. ``breaks``: fails when it has said something. ``hangs``: says something, and then
nothing more until it is closed. ``silent``: never says anything."""


class Subject(NamedTuple):
    """An agent on a provider that behaves as it was told to; ``serving`` is how many requests that is busy with now."""

    agent: Agent
    serving: Callable[[], int]


class AgentConformance(ABC):
    """Tests of any agent; inherit from it, and say how one is made::

        class TestMyAgent(AgentConformance):
            @asynccontextmanager
            async def subject(self, behaviour):
                async with MyProvider(behaviour) as provider, MyAgent(provider.url) as agent:
                    yield Subject(agent, lambda: provider.requests_open)

    Each test makes one subject, in an event loop of its own.
    """

    close_seconds: float = 0.1
    """Real or virtual seconds within which a provider must be let go once its stream is closed."""

    @abstractmethod
    def subject(self, behaviour: Behaviour) -> AbstractAsyncContextManager[Subject]:
        """An agent on a provider that behaves so."""

    def mistake(self, agent: Agent) -> Request | None:  # noqa: ARG002
        """A request that this agent cannot send, by the caller's mistake; None if there is no such request."""
        return None

    # --- endings --------------------------------------------------------------------------------------------------

    async def test_an_answer_ends_in_one_terminal(self) -> None:
        async with self.subject("answers") as it:
            records = await _run(it.agent)
            assert isinstance(records[-1], Completed), f"an answer must end as completed, not as {records[-1]}"
            assert summarise(records).text, "an answer must have a text"
            await self._let_go(it)

    async def test_a_failure_is_a_terminal_and_no_exception(self) -> None:
        async with self.subject("fails") as it:
            records = await _run(it.agent)
            assert isinstance(records[-1], Failed | Interrupted), f"a failure must not end as {records[-1]}"
            await self._let_go(it)

    async def test_what_came_before_a_failure_is_kept(self) -> None:
        async with self.subject("breaks") as it:
            records = await _run(it.agent)
            assert isinstance(records[-1], Failed | Interrupted), f"a failure must not end as {records[-1]}"
            assert any(map(is_content, records)), "what the provider said before it failed must be kept"
            await self._let_go(it)

    async def test_call_raises_a_failure_with_what_came(self) -> None:
        async with self.subject("breaks") as it:
            error = None
            try:
                await it.agent.call("Hi")
            except AgentError as caught:
                error = caught
            assert error is not None and error.partial is not None, "call() must raise the failure, with its partial"
            assert not error.partial.success

    async def test_a_silent_provider_is_given_up(self) -> None:
        async with self.subject("silent") as it:
            records = await _run(it.agent, Timeouts(first_content=0.05))
            _check_timeout(records)
            await self._let_go(it)

    async def test_a_provider_that_falls_silent_is_given_up(self) -> None:
        async with self.subject("hangs") as it:
            records = await _run(it.agent, Timeouts(between_content=0.05, first_content=5, total=10))
            _check_timeout(records)
            assert any(map(is_content, records))
            await self._let_go(it)

    # --- leaving --------------------------------------------------------------------------------------------------

    async def test_closing_the_stream_stops_the_provider_at_once(self) -> None:
        async with self.subject("hangs") as it:
            ctx = _Counting()
            batches = await _until_content(it.agent, ctx)
            await batches.aclose()
            ctx.check_none_held("after the stream was closed")
            await self._let_go(it)

    async def test_a_stream_that_is_closed_before_content_stops_the_provider(self) -> None:
        async with self.subject("silent") as it:
            ctx = _Counting()
            reading = asyncio.create_task(_read(it.agent, ctx))
            await _until(lambda: it.serving() > 0, 5.0, "the provider was never asked")
            await _cancelled(reading)
            ctx.check_none_held("after the reader was cancelled")
            await self._let_go(it)

    async def test_being_cancelled_passes_and_stops_the_provider(self) -> None:
        async with self.subject("hangs") as it:
            ctx, begun = _Counting(), asyncio.Event()
            reading = asyncio.create_task(_read(it.agent, ctx, begun))
            await begun.wait()
            await _cancelled(reading)
            ctx.check_none_held("after the reader was cancelled")
            await self._let_go(it)

    async def test_a_stream_that_was_not_begun_costs_nothing(self) -> None:
        async with self.subject("answers") as it:
            ctx = _Counting()
            batches = it.agent.batches(it.agent.request("Hi"), ctx)
            await batches.aclose()
            assert ctx.granted == 0 and it.serving() == 0, "nothing may be asked before the first batch is"

    # --- the caller's mistakes ------------------------------------------------------------------------------------

    async def test_a_mistake_is_raised_before_anything_runs(self) -> None:
        async with self.subject("answers") as it:
            request = self.mistake(it.agent)
            if request is None:
                return
            ctx = _Counting()
            raised: list[str] = []
            try:
                it.agent.check(request)
            except CallerError:
                raised.append("check")
            try:
                await anext(it.agent.batches(request, ctx))
            except CallerError:
                raised.append("batches")
            assert raised == ["check", "batches"], (
                f"check() and the first batch must raise a mistake, not only {raised}"
            )
            assert ctx.granted == 0 and it.serving() == 0, "a mistake must cost nothing"

    # --- many runs ------------------------------------------------------------------------------------------------

    async def test_many_runs_at_once_are_each_their_own(self) -> None:
        async with self.subject("answers") as it:
            runs = await asyncio.gather(*(_run(it.agent) for _ in range(10)))
            texts = {summarise(records).text for records in runs}
            assert len(texts) == 1, f"the same request was answered in {len(texts)} ways: {sorted(texts)}"
            await self._let_go(it)

    async def test_an_agent_can_be_used_again_after_it_was_closed(self) -> None:
        async with self.subject("answers") as it:
            await _run(it.agent)
            await it.agent.aclose()
            await _run(it.agent)

    async def test_an_agent_can_be_used_from_a_second_loop(self) -> None:
        async with self.subject("answers") as it:
            here = await _run(it.agent)

            async def there() -> list[Record]:
                try:
                    return await _run(it.agent)
                finally:
                    await it.agent.aclose()

            again = await asyncio.to_thread(asyncio.run, there())
            assert summarise(again).text == summarise(here).text
            await _run(it.agent)

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _let_go(self, it: Subject) -> None:
        await _until(lambda: it.serving() == 0, self.close_seconds, "the provider is still asked")


async def _run(agent: Agent, timeouts: Timeouts | None = None) -> list[Record]:
    """The records of one run, checked for what holds of every run."""
    ctx = _Counting(timeouts)
    records = await _read(agent, ctx)
    _check(records)
    made = [record for record in records if isinstance(record, CallStarted) and not record.cached]
    assert ctx.granted >= len(made), f"{len(made)} Calls were made with {ctx.granted} permits"
    ctx.check_none_held("after the end")
    return records


async def _read(agent: Agent, ctx: _Counting, begun: asyncio.Event | None = None) -> list[Record]:
    records: list[Record] = []
    async with aclosing(agent.batches(agent.request("Hi"), ctx)) as batches:
        async for batch in batches:
            assert batch, "a batch must have a record"
            assert not (records and isinstance(records[-1], TERMINALS)), "a batch came behind the terminal"
            records += batch
            if isinstance(batch[-1], TERMINALS):
                ctx.check_none_held("while the terminal was given out")
            if begun is not None and any(map(is_content, batch)):
                begun.set()
    return records


async def _until_content(agent: Agent, ctx: Context) -> AsyncGenerator[Batch, None]:
    batches = agent.batches(agent.request("Hi"), ctx)
    async with asyncio.timeout(10):
        async for batch in batches:
            if any(map(is_content, batch)):
                return batches
    raise AssertionError("the stream has ended without content")


async def _until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, f"{otherwise}, after {seconds:g} s"
        await asyncio.sleep(seconds / 100)


async def _cancelled(reading: asyncio.Task[list[Record]]) -> None:
    reading.cancel()
    await asyncio.wait({reading})
    assert reading.cancelled(), "CancelledError must pass"


def _check(records: list[Record]) -> None:
    assert records and isinstance(records[-1], TERMINALS), "the last record must be the terminal"
    assert not any(isinstance(record, TERMINALS) for record in records[:-1]), "there must be one terminal"
    begun: dict[int, str | None] = {}
    ended: set[int] = set()
    for position, record in enumerate(records, 1):
        match record:
            case CallStarted(call=call):
                assert call >= 1 and call not in begun, f"the number {call} was given to two Calls"
                begun[call] = record.branch
            case CallEnded(call=call):
                assert call in begun and call not in ended, f"call_ended {call} does not end a Call that is open"
                assert record.branch == begun[call], f"Call {call} began in one branch and ended in another"
                assert record.usage is None or record.usage.call == call, "a Call's usage must have its number"
                ended.add(call)
            case Usage(call=call):
                assert call in begun and call not in ended, f"usage of Call {call}, which is not open"
            case Reset(from_seq=first):
                assert 1 <= first <= position, f"a reset at {position} must not name {first}"
    assert begun.keys() == ended, f"the Calls {sorted(begun.keys() - ended)} have not ended"


def _check_timeout(records: list[Record]) -> None:
    """What it was is in the terminal, or, of an agent of agents that says more, in its Calls."""
    terminal = records[-1]
    assert isinstance(terminal, Failed | Interrupted), f"a provider that is silent must not end as {terminal}"
    errors = [terminal.error, *(it.error for it in records if isinstance(it, CallEnded) and it.error is not None)]
    assert any(error.code == "timeout_error" for error in errors), f"a time limit passed, and {terminal} says it not"


class _Counting(Context):
    """Counts permits."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        super().__init__(timeouts=timeouts)
        self.granted = 0
        self.held = 0

    async def permit(self, agent: Agent, estimate: int) -> Permit:
        assert estimate >= 0, f"{agent.name} estimates {estimate} tokens"
        self.granted += 1
        self.held += 1
        return _Held(self)

    def check_none_held(self, when: str) -> None:
        assert self.held == 0, f"{self.held} of {self.granted} permits were not given back {when}"


class _Held(Permit):
    __slots__ = ("_ctx", "_open")

    def __init__(self, ctx: _Counting) -> None:
        self._ctx = ctx
        self._open = True

    def answered(self, error: ErrorInfo | None, tokens: int | None) -> None:  # noqa: ARG002
        self.release()

    def release(self) -> None:
        if self._open:
            self._open = False
            self._ctx.held -= 1
