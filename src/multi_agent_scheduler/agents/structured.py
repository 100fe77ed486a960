"""An agent whose answers are objects: asked for them in the way that it understands, and checked while they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from ..errors import ErrorInfo, InvalidOption, StreamReset, agent_error
from ..records import Completed, Failed
from ..request import Message, Prompt, Request, TextPart
from ..schema import Path, Schema, eased, json_schema, shown
from ..task import Result
from ..views.objects import ObjectView, Partial
from ..views.summary import Summary, summarise
from .base import Agent, Batch, LeafAgent
from .compatible import CompatibleAgent
from .composite import Composite, Lane, Output, relay
from .context import Context
from .function import FunctionAgent
from .http import HttpAgent

__all__ = ["Structured", "items", "items_path", "objects"]

Support: TypeAlias = Literal["words", "both", "schema"]

_SUPPORTS: Final = ("words", "both", "schema")
_REFUSING: Final = frozenset({"deepseek"})
"""Presets of servers that refuse a schema."""
_ANSWERED: Final = frozenset({"stop", "stop_sequence", "length"})


class Structured(Composite):
    """Answers that are objects: what ``agent`` says is checked against ``schema`` while it comes.

    ``schema`` is a Pydantic model, a dataclass, a TypedDict, a msgspec Struct, or a JSON Schema as a dict; without one
    it is the request's, and objects are plain data. An agent that can be held to a schema is sent it; one that cannot
    is asked for it in words, and the object is found in what it says, with prose or a code fence around it.

    An answer that does not fit is stopped where that shows. Then the agent is asked again, up to ``ask_again`` times,
    with its answer and what was wrong with it; what it had said is voided by a
    :class:`~multi_agent_scheduler.records.Reset` that says the same. If that does not help it has failed, with
    ``invalid_output``. An answer that is no attempt (a refusal, tool calls, a failure) is left as it is.
    """

    def __init__(
        self, agent: Agent | Callable[..., Any], schema: Any = None, *, ask_again: int = 0, name: str | None = None
    ) -> None:
        super().__init__((agent,), name)
        if name is None:
            self.name = self.agents[0].name
        if type(ask_again) is not int or ask_again < 0:
            raise InvalidOption(f"ask_again must be a whole number from 0, not {ask_again!r}")
        self._schema = None if schema is None else Schema.of(schema)
        self._ask_again = ask_again

    def request(self, prompt: Prompt, **options: Any) -> Request:
        """As the agent's own; a ``schema`` may be a type, and is for this agent to see to."""
        given = options.pop("schema", None)
        schema = self._schema or (None if given is None else Schema.of(given))
        if given is not None and schema is not None and json_schema(given) != schema.document:
            raise InvalidOption(f"{self.name}: a schema is given twice, here and with the call")
        request = self.agents[0].request(prompt, **options)
        if schema is None:
            return request
        name, strict = request.schema_name or schema.name, request.schema_strict
        if strict is None and schema.strict:
            strict = True
        return msgspec.structs.replace(request, schema=schema.document, schema_name=name, schema_strict=strict)

    def check(self, request: Request) -> None:
        super().check(_asked(self.agents[0], request, self._known(request)))

    def _known(self, request: Request) -> Schema:
        schema = self._schema or (None if request.schema is None else Schema.of(request.schema))
        if schema is None:
            raise InvalidOption(f"{self.name}: there is no schema: give one here, or with the call")
        return schema

    async def batches(self, request: Request, ctx: Context) -> AsyncGenerator[Batch, None]:
        schema, agent = self._known(request), self.agents[0]
        asked = _asked(agent, request, schema)
        output = Output(ctx)
        for left in range(self._ask_again, -1, -1):
            lane = Lane(output, "open", after=output.attempts)
            attempt = _Attempt(schema, lane, keep=left > 0)
            async with aclosing(relay(agent, asked, ctx, lane)) as batches:
                async for batch in batches:
                    if batch:
                        yield batch
                    if attempt.fails():
                        break
            problem = attempt.problem()
            last = lane.end()
            if problem is None or not left or problem.final:
                assert lane.terminal is not None or problem is not None
                terminal = lane.terminal if problem is None else Failed(ErrorInfo("invalid_output", problem.text))
                yield [*last, *([terminal] if terminal is not None else [])]
                return
            yield [*last, *lane.void(f"invalid_output: {problem.text}")]
            asked = _corrected(agent, asked, attempt.text, problem.text)

    # --- folds ----------------------------------------------------------------------------------------------------

    async def stream_object(self, prompt: Prompt, **options: Any) -> AsyncGenerator[Partial, None]:
        """The object of one run as it grows; options are those of :meth:`Agent.call`.

        Raises :class:`~multi_agent_scheduler.errors.AgentError` if there is no whole object in the end; its ``known``
        is what was known of it.
        """
        request, ctx = self._ask(prompt, options)
        summary, view = Summary(), ObjectView(self._known(request))
        began = ctx.clock()

        async def heard() -> AsyncGenerator[Batch, None]:
            async with aclosing(self.batches(request, ctx)) as batches:
                async for batch in batches:
                    summary.feed(batch, ctx.clock())
                    yield batch

        async def ended() -> Result:
            return summary.result(started_at=began, ended_at=ctx.clock())

        async with aclosing(objects(heard(), view, ended)) as partials:
            async for partial in partials:
                yield partial

    async def object(self, prompt: Prompt, **options: Any) -> Any:
        """The same, drained: the whole object, of the schema's type. Raises as :meth:`stream_object`."""
        async with aclosing(self.stream_object(prompt, **options)) as partials:
            async for partial in partials:
                last = partial
        return last.value


class _Problem(NamedTuple):
    """Why an answer does not do; ``final``: another would not either."""

    text: str
    final: bool = False


class _Attempt:
    """One answer, as it is heard in a lane; ``keep``: to be told to the agent if it does not do."""

    __slots__ = ("_fed", "_keep", "_lane", "_view")

    def __init__(self, schema: Schema, lane: Lane, *, keep: bool) -> None:
        self._view = ObjectView(schema)
        self._lane = lane
        self._keep = keep
        self._fed = 0
        lane.heard = []

    @property
    def text(self) -> str:
        """What was said."""
        return summarise(self._lane.heard or ()).text

    def fails(self) -> bool:
        """Whether what has been heard by now cannot become an answer that fits."""
        heard = self._lane.heard
        assert heard is not None
        self._view.feed(heard[self._fed :])
        if not self._keep:
            heard.clear()
        self._fed = len(heard)
        return self._view.problem is not None

    def problem(self) -> _Problem | None:
        """What is wrong with the answer, once it has ended or failed; None if nothing is, or it is no attempt."""
        terminal = self._lane.terminal
        if terminal is not None and not (isinstance(terminal, Completed) and terminal.stop_reason in _ANSWERED):
            return None
        if terminal is not None:
            self._view.close()
        problem = self._view.problem
        if problem is None:
            return None
        if isinstance(terminal, Completed) and terminal.stop_reason == "length":
            return _Problem(f"the answer reached its limit of tokens before it was whole ({problem})", final=True)
        return _Problem(str(problem))


def _support(agent: Agent) -> Support:
    """Whether an agent can be sent a schema, must be asked in words, or should have both, since nobody knows."""
    if isinstance(agent, Composite):
        return min((_support(member) for member in agent.agents), key=_SUPPORTS.index)
    if isinstance(agent, FunctionAgent):
        return "words"
    if isinstance(agent, CompatibleAgent):
        return "words" if agent.preset in _REFUSING else "both" if agent.preset is None else "schema"
    return "schema" if agent.enforces_schema or isinstance(agent, HttpAgent) else "both"


def _reaches_claude(agent: Agent) -> bool:
    """Whether it is Claude, whose structured outputs take no limits of numbers, lengths and such, or may ask it."""
    if isinstance(agent, Composite):
        return any(map(_reaches_claude, agent.members))
    return isinstance(agent, LeafAgent) and agent.protocol == "anthropic"


def _asked(agent: Agent, request: Request, schema: Schema) -> Request:
    """The request as the agent understands it."""
    support = _support(agent)
    if _reaches_claude(agent):
        request = msgspec.structs.replace(request, schema=eased(schema.document))
    if support == "schema":
        return request
    document = msgspec.json.encode(schema.document).decode()
    wish = f"\n\nReply with one JSON document that fits this JSON Schema, and with nothing else:\n{document}"
    if support == "words":
        request = msgspec.structs.replace(request, schema=None, schema_name=None, schema_strict=None)
    return _with_words(request, wish)


def _corrected(agent: Agent, request: Request, text: str, problem: str) -> Request:
    """The request again, with the answer that was given to it and what is wrong with that."""
    wish = (
        f"That is not what was asked for: {problem}. Reply with the whole JSON document again, and with nothing else."
    )
    if _support(agent) == "words":  # a function is called with the last message alone
        return _with_words(request, f"\n\nYou replied:\n{text}\n\n{wish}")
    said = (Message("assistant", (TextPart(text),)),) if text else ()
    return msgspec.structs.replace(request, messages=(*request.messages, *said, Message("user", (TextPart(wish),))))


def _with_words(request: Request, words: str) -> Request:
    *before, last = request.messages
    if last.role != "user":
        return msgspec.structs.replace(
            request, messages=(*request.messages, Message("user", (TextPart(words.lstrip()),)))
        )
    *parts, end = last.parts or (TextPart(""),)
    if isinstance(end, TextPart):
        parts = [*parts, msgspec.structs.replace(end, text=end.text + words)]
    else:
        parts = [*parts, end, TextPart(words.lstrip())]
    return msgspec.structs.replace(request, messages=(*before, msgspec.structs.replace(last, parts=tuple(parts))))


# --- reading --------------------------------------------------------------------------------------------------------


async def objects(
    batches: AsyncGenerator[Batch, None], view: ObjectView, ended: Callable[[], Awaitable[Result]]
) -> AsyncGenerator[Partial, None]:
    """The partials of a stream, which is closed with them; ``ended`` gives its result behind the last batch.

    Raises :class:`~multi_agent_scheduler.errors.AgentError` if there is no whole object in the end; its ``known`` is
    what was known of it.
    """
    async with aclosing(batches):
        async for batch in batches:
            partial = view.feed(batch)
            if partial is not None:
                yield partial
    result = await ended()
    error = result.error
    if error is None:
        partial = view.close()
        if partial is not None:
            yield partial
        if view.problem is not None:
            error = ErrorInfo("invalid_output", str(view.problem))
    if error is not None:
        raised = agent_error(error, partial=result)
        raised.known = view.value
        raise raised


async def items(partials: AsyncIterator[Partial], place: Path) -> AsyncGenerator[Any, None]:
    """The items of the array at a path, each when it is whole and fits.

    An item that was given out cannot be taken back: if the object begins anew after the first,
    :class:`~multi_agent_scheduler.errors.StreamReset` is raised.
    """
    given = False
    async for partial in partials:
        if partial.restarted is not None and given:
            raise StreamReset(
                f"the answer began again ({partial.restarted}) after some of its items had been given out"
            )
        for item in partial.items(place):
            given = True
            yield item


def items_path(schema: Schema, path: str | Path) -> Path:
    """The path as a tuple (``"a.b"`` is a path too, and "" that of the whole answer), if an array can be there.

    Raises :class:`~multi_agent_scheduler.errors.InvalidOption` if the schema has none.
    """
    steps: Path = path if isinstance(path, tuple) else tuple(path.split(".")) if path else ()
    if not schema.may_have_array(steps):
        raise InvalidOption(f"path: there is no array at {shown(steps)} in the schema")
    return steps
