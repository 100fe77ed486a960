"""What an agent is, and the Call that every leaf agent makes.

The primitive is :meth:`Agent.batches`; ``stream``, ``call_stream`` and ``call`` are folds of it that need no store and
run at the reader's pace.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

from .. import blocking
from ..errors import AgentError, ErrorInfo, InvalidOption, agent_error
from ..pacing import Pace, paced, singly
from ..records import TERMINALS, CallStarted, Failed, Record, numbered
from ..request import Message, Prompt, Request, TextPart, build, with_defaults
from ..scheduling.budget import CHARACTERS_PER_TOKEN
from ..scheduling.provider import ProviderState
from ..task import DEFAULT_TIMEOUTS, Result, Timeouts
from ..views.summary import Summary
from ..views.text import TextView
from ..wire.portable import portable
from .call import Call, Deadline, Watch, outcome
from .context import Context, Permit

__all__ = ["Agent", "BaseAgent", "Batch", "ErrorMode", "LeafAgent", "Source", "estimate_tokens", "prompt_tokens"]

Batch: TypeAlias = Sequence[Record]
ErrorMode: TypeAlias = Literal["marker", "raise"]

_ENDS: Final = frozenset(TERMINALS)


class Agent(ABC):
    """Turns a request into records.

    ``name`` labels its Calls; ``errors`` is the default of :meth:`call_stream`'s keyword. An agent can be used from any
    event loop. ``async with agent`` or :meth:`aclose` closes its connections; a loop that ends through ``asyncio.run``
    closes them too.
    """

    name: str
    errors: ErrorMode = "marker"
    max_concurrent: int | None = None
    continues_prefix: bool = False
    """Whether it goes on with a last message of the assistant's as if it had written that itself."""
    enforces_schema: bool = False
    """Whether what it writes is kept to a request's schema while it is being written."""

    @abstractmethod
    def batches(self, request: Request, ctx: Context) -> AsyncGenerator[Batch, None]:
        """The records of one run, in batches: one for each read, the last record of all being the one terminal.

        An agent's failure is a terminal, never an exception. Closing the generator stops the provider. The caller's
        mistakes raise :class:`~multi_agent_scheduler.errors.CallerError` before the first batch.
        """

    def check(self, request: Request) -> None:  # noqa: B027 - an agent may have nothing to refuse
        """Raise what :meth:`batches` raises for a request that this agent cannot send; for use before anything runs."""

    def adopt(self, request: Request) -> Request:
        """The request with this agent's own defaults where it says nothing: what an agent of agents asks this one."""
        return request

    async def aclose(self) -> None:  # noqa: B027 - an agent may hold nothing open
        """Close what this agent holds open in the running loop. It may be used again afterwards."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- folds ----------------------------------------------------------------------------------------------------

    async def stream(self, prompt: Prompt, **options: Any) -> AsyncGenerator[Record, None]:
        """The records of one run, numbered from 1, the terminal last. Does not raise for the agent's failures.

        Options are those of :meth:`call`. The caller's mistakes raise
        :class:`~multi_agent_scheduler.errors.CallerError` before the first record.
        """
        request, ctx = self._ask(prompt, options)
        seq = 1
        async with aclosing(self.batches(request, ctx)) as batches:
            async for batch in batches:
                for record in numbered(batch, seq):
                    yield record
                seq += len(batch)

    async def call_stream(
        self,
        prompt: Prompt,
        *,
        errors: ErrorMode | None = None,
        pace: Pace | str | float | None = None,
        **options: Any,
    ) -> AsyncGenerator[str, None]:
        """The text of one run, piece by piece as it arrives; with ``pace`` ("50/s", "50 tokens/s") no faster.

        If the agent fails, the last piece is ``\\n[ERROR: <code>: <sentence>]`` and then the typed
        :class:`~multi_agent_scheduler.errors.AgentError` is raised; ``errors="raise"`` leaves the marker out. Leaving
        the loop early stops the provider. Options are those of :meth:`call`.
        """
        if pace is not None:
            async with aclosing(paced(self.call_stream(prompt, errors=errors, **options), pace)) as pieces:
                async for text in pieces:
                    yield text
            return
        told = _Told(self, prompt, errors, options)
        async with aclosing(told.batches) as batches:
            async for batch in batches:
                for text in told.texts(batch):
                    yield text
        for text in told.last_words():
            yield text
        told.raise_failure()

    async def call(self, prompt: Prompt, **options: Any) -> Result:
        """One run, drained: the whole :class:`~multi_agent_scheduler.task.Result`.

        Options: ``model``, ``max_tokens``, ``temperature``, ``top_p``, ``stop``, ``seed``, ``system``, ``tools``,
        ``tool_choice``, ``schema``, ``timeouts``, and ``extra`` for what only one provider knows. Raises
        :class:`~multi_agent_scheduler.errors.AgentError` if the agent fails; its ``partial`` is the result so far.
        """
        request, ctx = self._ask(prompt, options)
        summary = Summary()
        started = ctx.clock()
        async with aclosing(self.batches(request, ctx)) as batches:
            async for batch in batches:
                summary.feed(batch, ctx.clock())
        result = summary.result(started_at=started, ended_at=ctx.clock())
        if result.error is not None:
            raise agent_error(result.error, partial=result)
        return result

    def call_stream_sync(
        self,
        prompt: Prompt,
        *,
        errors: ErrorMode | None = None,
        pace: Pace | str | float | None = None,
        **options: Any,
    ) -> Generator[str, None, None]:
        """:meth:`call_stream` as a plain generator, for code that has no event loop of its own.

        Closing the generator, or dropping it, stops the provider.
        """
        if pace is not None:
            return blocking.flatten(lambda: singly(self.call_stream(prompt, errors=errors, pace=pace, **options)))
        return blocking.flatten(lambda: self._texts(prompt, errors, options))

    async def _texts(
        self, prompt: Prompt, errors: ErrorMode | None, options: dict[str, Any]
    ) -> AsyncGenerator[list[str], None]:
        told = _Told(self, prompt, errors, options)
        async with aclosing(told.batches) as batches:
            async for batch in batches:
                if texts := told.texts(batch):
                    yield texts
        yield told.last_words()
        told.raise_failure()

    def _ask(self, prompt: Prompt, options: dict[str, Any]) -> tuple[Request, Context]:
        timeouts = options.pop("timeouts", None)
        if timeouts is not None and not isinstance(timeouts, Timeouts):
            raise InvalidOption(f"timeouts must be a Timeouts, not {timeouts!r}")
        return self.request(prompt, **options), Context(timeouts=timeouts)

    def request(self, prompt: Prompt, **options: Any) -> Request:
        """The canonical request for a prompt and options, checked: raises what :meth:`call` raises for mistakes."""
        return build(prompt, options)


class _Told:
    """One run as it is told in text: the pieces of each batch, then the marker and the error of a failure."""

    __slots__ = ("_clock", "_marked", "_result", "_started", "_summary", "_view", "batches")

    def __init__(self, agent: Agent, prompt: Prompt, errors: ErrorMode | None, options: dict[str, Any]) -> None:
        mode = agent.errors if errors is None else errors
        if mode not in ("marker", "raise"):
            raise InvalidOption(f"errors must be 'marker' or 'raise', not {mode!r}")
        request, ctx = agent._ask(prompt, options)
        self._marked = mode == "marker"
        self._clock = ctx.clock
        self._started = ctx.clock()
        self._view = TextView()
        self._summary = Summary()
        self._result: Result | None = None
        self.batches = agent.batches(request, ctx)

    def texts(self, batch: Batch) -> list[str]:
        self._summary.feed(batch, self._clock())
        return self._view.texts(batch)

    def last_words(self) -> list[str]:
        """The marker, if the run failed and it is wanted."""
        self._result = self._summary.result(started_at=self._started, ended_at=self._clock())
        error = self._result.error
        return [f"\n[ERROR: {error.code}: {error.message}]"] if error is not None and self._marked else []

    def raise_failure(self) -> None:
        if self._result is not None and self._result.error is not None:
            raise agent_error(self._result.error, partial=self._result)


BaseAgent = Agent
"""What the streaming guide calls it."""


class Source(ABC):
    """One answer being received: what a leaf agent's :meth:`LeafAgent._open` gives."""

    response_id: str | None = None
    request_id: str | None = None
    model: str | None = None

    @abstractmethod
    async def next(self) -> Sequence[Record]:
        """The records of the next read; the outcome is the last record of the last batch. Raises AgentError."""

    @abstractmethod
    def fail(self, info: ErrorInfo) -> None:
        """End a :meth:`next` that is waiting: it raises the error for ``info``."""

    @abstractmethod
    async def aclose(self) -> None:
        """Stop the provider, at once; called once, whatever happened."""


class LeafAgent(Agent):
    """An agent that asks one provider: one Call a run, with a permit, time limits and usage of its own."""

    protocol: str | None = None
    timeouts: Timeouts | None = None
    defaults: Mapping[str, Any] = {}
    """Options for every call that does not say them."""

    def request(self, prompt: Prompt, **options: Any) -> Request:
        if options.get("protocol") not in (None, self.protocol):  # their extra is another's, the defaults' is ours
            return self.adopt(super().request(prompt, **options))
        return super().request(prompt, **{**self.defaults, **options})

    def adopt(self, request: Request) -> Request:
        return with_defaults(portable(request, self.protocol), self.defaults)

    def _prepare(self, request: Request) -> Any:
        """What :meth:`_open` is given: the request, or what it becomes. Raises CallerError for what cannot be sent."""
        return request

    @abstractmethod
    async def _open(self, prepared: Any, ctx: Context) -> Source:
        """Send the request; returns when the provider has begun to answer. Raises AgentError."""

    def _heard(self, prepared: Any) -> ProviderState | None:  # noqa: ARG002
        """What the provider has said of its own limits in its answer to this request."""
        return None

    def check(self, request: Request) -> None:
        self._prepare(portable(request, self.protocol))

    def _model(self, request: Request) -> str | None:
        """The model that a request will reach."""
        return request.model

    def _limits(self, ctx: Context) -> Timeouts:
        limits = DEFAULT_TIMEOUTS if self.timeouts is None else self.timeouts.over(DEFAULT_TIMEOUTS)
        return limits if ctx.timeouts is None else ctx.timeouts.over(limits)

    async def batches(self, request: Request, ctx: Context) -> AsyncGenerator[Batch, None]:
        prepared = self._prepare(portable(request, self.protocol))
        limits = self._limits(ctx)
        whole = ctx.timeouts is not None and ctx.timeouts.total is not None  # the limit is on all Calls of the run
        began = ctx.begin() if whole else ctx.clock()
        permit = await self._permit(request, ctx, limits)
        if isinstance(permit, ErrorInfo):
            yield (Failed(permit),)
            return
        started = CallStarted(ctx.next_call(), ctx.name_of(self), self._model(request), self.protocol)
        call = Call(started, ctx, permit, prompt_tokens(request))
        watch: Watch | None = None
        source: Source | None = None
        try:
            yield (call.started,)
            try:
                watch = Watch(limits, ctx.clock() - began)
                try:
                    source = await self._opened(prepared, ctx, limits, watch)
                finally:
                    if (heard := self._heard(prepared)) is not None:
                        permit.heard(heard)
                while True:
                    watch.arm(source)
                    batch = await source.next()
                    watch.disarm()
                    if not batch:
                        continue
                    content = call.seen(batch)
                    if type(batch[-1]) in _ENDS:
                        break
                    if content:
                        watch.content()
                        yield batch
                    else:
                        shown = ctx.clock()
                        yield batch
                        watch.excuse(ctx.clock() - shown)
            except AgentError as error:
                batch = (outcome(error.info),)
            finally:
                if watch is not None:
                    watch.cancel()
            last = call.ended(batch, source)  # it gives the permit back: a reader that dawdles over it holds nothing
            yield last
        finally:
            permit.release()
            if source is not None:
                await source.aclose()

    async def _permit(self, request: Request, ctx: Context, limits: Timeouts) -> Permit | ErrorInfo:
        assert limits.queue is not None
        try:
            with Deadline("queue", limits.queue):
                return await ctx.permit(self, estimate_tokens(request))
        except AgentError as error:
            return error.info

    async def _opened(self, prepared: Any, ctx: Context, limits: Timeouts, watch: Watch) -> Source:
        wait, name = watch.first_wait()
        with Deadline(name, wait, getattr(limits, name)):
            return await self._open(prepared, ctx)


def estimate_tokens(request: Request) -> int:
    """A rough count of the tokens that a request will use: those of its prompt, and all of ``max_tokens``, which may be
    in ``extra``: there are the keywords of functions."""
    most = request.extra.get("max_tokens") if request.max_tokens is None else request.max_tokens
    return prompt_tokens(request) + (most if type(most) is int and most > 0 else 0)


def prompt_tokens(request: Request) -> int:
    """About how many tokens the prompt of a request has: one for four characters."""
    characters = 0
    for message in request.messages:
        characters += 4 + _characters(message)
    return max(1, characters // CHARACTERS_PER_TOKEN)


def _characters(message: Message) -> int:
    total = 0
    for part in message.parts:
        if type(part) is TextPart:
            total += len(part.text)
            continue
        text = getattr(part, "text", None) or getattr(part, "arguments", None)
        total += len(text) if isinstance(text, str) else 0
    return total
