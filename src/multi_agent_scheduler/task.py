"""What to do: tasks, their time limits, and what comes of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from .errors import ErrorInfo, InvalidOption, InvalidRequest, InvalidTemplate
from .records import StopReason, TerminalName, Usage
from .request import Prompt, Request
from .schema import Schema, json_schema

__all__ = ["DEFAULT_TIMEOUTS", "Budget", "Result", "State", "Task", "Template", "Timeouts"]

State: TypeAlias = TerminalName
"""How a task ended: its terminal's name."""


class Timeouts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Limits in seconds; None leaves a limit as it was in the agent's or the default.

    ``queue``: waiting for a permit. ``connect``: until the connection stands. ``first_content``: from the request to
    the first content. ``between_content``: from one content to the next; keep-alives and empty frames do not count as
    content, and a reader that dawdles does not use it up. ``total``: all of it. ``math.inf`` switches a limit off.
    """

    queue: float | None = None
    connect: float | None = None
    first_content: float | None = None
    between_content: float | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value <= 0:
                raise InvalidOption(f"timeouts: {name} must be a number of seconds above 0, not {value!r}")

    def over(self, base: Timeouts) -> Timeouts:
        """These limits, and those of ``base`` where these say nothing."""
        mine = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not None}
        return msgspec.structs.replace(base, **mine) if mine else base


DEFAULT_TIMEOUTS = Timeouts(queue=math.inf, connect=10.0, first_content=300.0, between_content=120.0, total=math.inf)


# A dollar doubled, a name in braces, or a dollar that is neither.
_PLACE: Final = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>[^{}$\n]+)\}|(?P<malformed>))")


class Template(msgspec.Struct, frozen=True):
    """A prompt with places for what other tasks wrote: ``Template("Shorten this: ${draft}")``.

    ``${ID}`` is where the text of the task ``ID`` goes, which must be among the ``depends_on`` of the task that has the
    template; ``$$`` is a dollar sign. What is put in is never looked at again: a dollar that a model wrote is a dollar.
    Raises :class:`~multi_agent_scheduler.errors.InvalidTemplate`, with the position, for anything else behind a dollar.
    """

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InvalidTemplate(f"a template must be a string, not {type(self.text).__name__}")
        if "$" not in self.text:
            return
        for place in _PLACE.finditer(self.text):
            if place["malformed"] is not None:
                self._refuse(place.start())

    def _refuse(self, position: int) -> None:
        before = self.text[:position]
        where = f"position {position} (line {before.count(chr(10)) + 1}, column {position - before.rfind(chr(10))})"
        raise InvalidTemplate(
            f"template: the '$' at {where} begins no place: write ${{TASK}} for a task's text, $$ for a dollar sign",
            position,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The ids of the tasks that it names, each once, in order."""
        if "$" not in self.text:
            return ()
        return tuple(dict.fromkeys(place["name"] for place in _PLACE.finditer(self.text) if place["name"] is not None))

    def substitute(self, texts: Mapping[str, str]) -> str:
        """The text with every place filled from ``texts`` (task id to text), in one pass; raises InvalidTemplate."""
        if "$" not in self.text:
            return self.text

        def fill(place: re.Match[str]) -> str:
            name = place["name"]
            if name is None:
                return "$"
            if name not in texts:
                raise InvalidTemplate(f"template: there is no text for ${{{name}}}", place.start())
            return texts[name]

        return _PLACE.sub(fill, self.text)


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The most that may be used; None is no limit. ``tokens`` are input and output, ``cost`` is in US dollars."""

    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        tokens, cost = self.tokens, self.cost
        if tokens is not None and (type(tokens) is not int or tokens < 1):
            raise InvalidOption(f"budget: tokens must be a whole number above 0, not {tokens!r}")
        if cost is not None and (type(cost) not in (int, float) or not 0 < cost < math.inf):
            raise InvalidOption(f"budget: cost must be a number of US dollars above 0, not {cost!r}")


class _TaskOptions(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    agent: str | None = None
    depends_on: Sequence[str] = ()
    priority: int = 0
    on_failure: Literal["skip", "run"] = "skip"
    timeouts: Timeouts | None = None
    budget: Budget | None = None
    schema: Any = None
    ask_again: int | None = None
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Task(_TaskOptions, frozen=True, omit_defaults=True):
    """One thing to do.

    ``prompt`` is a string or messages, sent as it is, or a :class:`Template`. ``task_type`` picks the agent where none
    is named and labels the metrics. ``options`` are the keywords of ``Agent.call`` (``max_tokens``, ``system`` ...);
    ``schema`` is a JSON Schema that the answer must fit. ``budget`` is what all of its Calls together may use.

    In a plan the task starts the moment the last of ``depends_on`` has ended; if one of them did not succeed it is
    skipped, or with ``on_failure="run"`` runs all the same. A higher ``priority`` runs first. A task is checked when it
    is handed to a scheduler, before anything runs.
    """

    id: str
    prompt: Prompt | Template
    task_type: str = "general"

    def __post_init__(self) -> None:
        if type(self.depends_on) is list:
            msgspec.structs.force_setattr(self, "depends_on", tuple(self.depends_on))

    @classmethod
    def of(cls, request: Request, id: str, task_type: str = "general", **fields: Any) -> Task:  # noqa: A002
        """The task that asks exactly this request: its messages, tools and every option. ``fields`` are the others of a
        task (``agent``, ``priority``, ``timeouts``, ``metadata`` ...)."""
        options = {name: value for name, value in _said(request) if name not in ("messages", "schema")}
        return cls(id, request.messages, task_type, schema=request.schema, options=options, **fields)

    @property
    def keywords(self) -> Mapping[str, Any]:
        """The keywords for ``Agent.request``: ``options``, and ``schema`` if there is one."""
        return self.options if self.schema is None else {**self.options, "schema": json_schema(self.schema)}

    def filled(self, texts: Mapping[str, str]) -> Prompt:
        """The prompt to send; ``texts`` has what the tasks wrote that a template may name. Raises InvalidTemplate."""
        if isinstance(self.prompt, Template):
            return self.prompt.substitute(texts)
        return self.prompt

    def check(self) -> None:
        """Raise :class:`~multi_agent_scheduler.errors.InvalidRequest` if this task cannot be run; names the field."""
        if not isinstance(self.id, str) or not self.id:
            raise InvalidRequest(f"a task's id must be a non-empty string, not {self.id!r}")
        if not isinstance(self.task_type, str) or not self.task_type:
            self._refuse(f"task_type must be a non-empty string, not {self.task_type!r}")
        depends_on = self.depends_on
        if type(depends_on) is not tuple or not all(isinstance(parent, str) and parent for parent in depends_on):
            self._refuse(f"depends_on must be a list of task ids, not {depends_on!r}")
        if type(self.priority) is not int or self.priority < 0:
            self._refuse(f"priority must be a whole number from 0 up (higher runs first), not {self.priority!r}")
        if self.on_failure not in ("skip", "run"):
            self._refuse(f"on_failure must be 'skip' or 'run', not {self.on_failure!r}")
        if self.timeouts is not None and not isinstance(self.timeouts, Timeouts):
            self._refuse(f"timeouts must be a Timeouts, not {self.timeouts!r}")
        if self.budget is not None and not isinstance(self.budget, Budget):
            self._refuse(f"budget must be a Budget, not {self.budget!r}")
        if not isinstance(self.options, dict | Mapping) or not all(isinstance(name, str) for name in self.options):
            self._refuse(f"options must be a dict of keywords, not {self.options!r}")
        if not isinstance(self.metadata, dict | Mapping) or not all(isinstance(name, str) for name in self.metadata):
            self._refuse(f"metadata must be a dict with strings for keys, not {self.metadata!r}")
        if self.agent is not None and (not isinstance(self.agent, str) or not self.agent):
            self._refuse(f"agent must be the name of an agent, or None, not {self.agent!r}")
        if not isinstance(self.prompt, str | Template | Sequence) or isinstance(self.prompt, bytes | bytearray):
            self._refuse(f"prompt must be a string, a list of messages or a Template, not {self.prompt!r}")
        if "timeouts" in self.options:
            self._refuse("timeouts is a field of a task, not an option")
        if self.schema is not None:
            if self.ask_again is not None or not isinstance(self.schema, dict):
                try:
                    Schema.of(self.schema)
                except InvalidRequest as error:
                    self._refuse(str(error))
            if self.options.get("schema") is not None:
                self._refuse("schema is given twice: as a field and in options")
        if self.ask_again is not None:
            if type(self.ask_again) is not int or self.ask_again < 0:
                self._refuse(f"ask_again must be a whole number from 0, or None, not {self.ask_again!r}")
            if self.schema is None:
                self._refuse("ask_again is for answers that do not fit a schema, but there is none")
        if isinstance(self.prompt, Template):
            self._check_names(self.prompt)

    def _check_names(self, template: Template) -> None:
        for name in template.names:
            if name not in self.depends_on:
                self._refuse(
                    f"its template names ${{{name}}}, but {name!r} is not among its dependencies: add it to depends_on"
                )

    def _refuse(self, what: str) -> None:
        raise InvalidRequest(f"task {self.id!r}: {what}")


def _said(request: Request) -> Iterator[tuple[str, Any]]:
    for name in request.__struct_fields__:
        value = getattr(request, name)
        if value is not None and value != () and value != {}:
            yield name, value


class Result(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What came of a task or a call: a fold of its records.

    ``state`` is the terminal's name; ``success`` is narrower: completed with a stop reason of stop, stop_sequence,
    length or tool_calls. ``text`` is whatever was received, also after a failure. ``latency`` and ``ttft`` (time to
    first content) are seconds. ``cost`` is that of all Calls in US dollars, None if that of one is not known (an answer
    from the cache costs nothing); a call without a scheduler has none.
    """

    text: str
    state: State
    success: bool
    error: ErrorInfo | None = None
    stop_reason: StopReason | None = None
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCallResult, ...] = ()
    usage: Usage | None = None
    latency: float = 0.0
    ttft: float | None = None
    agent: str | None = None
    model: str | None = None
    stream_id: str | None = None
    cached: bool = False
    cost: float | None = None

    def __str__(self) -> str:
        return self.text


class ToolCallResult(msgspec.Struct, frozen=True):
    """One finished tool call; ``arguments`` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str
    kind: Literal["function", "custom", "server"] = "function"
