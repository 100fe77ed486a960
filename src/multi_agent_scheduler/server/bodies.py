"""What goes into the native API and comes out of it, as JSON. The OpenAPI document is made from these types."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from ..errors import ErrorInfo, InvalidRequest, UnknownDependency
from ..records import Usage
from ..store.core import StreamState
from ..task import Task, Template, Timeouts, ToolCallResult
from .schemas import check_schema, check_size

__all__ = [
    "AgentBody",
    "Agents",
    "CancelBody",
    "Cancelled",
    "OptionsBody",
    "PlanPage",
    "StreamBody",
    "StreamPage",
    "StreamRow",
    "Submitted",
    "TaskBody",
    "TasksBody",
    "TimeoutsBody",
    "TokenBody",
    "ToolBody",
]


_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
# JSON does not tell 5.0 from 5, and a schema's integer is both.
_MOST: Final = 2**53
_PLACES: Final = {"pattern": r"^([^$]|\$\$|\$\{[^{}$\n]+\})*$"}
_SAID: Final = {"type": "string", "pattern": r"[^\s\x1c-\x1f]"}
_MORE: Final = {"extra": {"type": ["object", "null"]}, "protocol": {"type": "string"}}


def _part(kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"type": {"const": kind}, **{name: {"type": "string"} | more for name, more in fields.items()}}
        | _MORE,
        "required": ["type", *fields],
    }


def _message(roles: list[str], text: dict[str, Any]) -> dict[str, Any]:
    parts = [
        _part("text", text=text),
        _part("image", url={}),
        _part("tool_call", id={}, name={}, arguments={}),
        _part("tool_result", id={}),
        _part("refusal", text={}),
    ]
    content = [{"type": "string"} | text, {"type": "array", "minItems": 1, "items": {"anyOf": parts}}]
    return {
        "type": "object",
        "properties": {"role": {"enum": roles}, "name": {"type": ["string", "null"]}, "content": {"anyOf": content}},
        "required": ["role", "content"],
        "additionalProperties": {"type": "null"},
    }


# What a prompt may be is told to clients here, and checked with every other prompt (request.py).
_MESSAGE: Final = {"anyOf": [_message(["user"], _SAID), _message(["system", "assistant", "tool"], {})]}
_EITHER: Final[dict[str, Any]] = {
    "oneOf": [
        {"required": ["prompt"], "properties": {"prompt": {"not": {"type": "null"}}, "template": {"type": "null"}}},
        {"required": ["template"], "properties": {"prompt": {"type": "null"}, "template": {"type": "string"}}},
    ],
    "anyOf": [
        {"properties": {"ask_again": {"type": "null"}}},
        {"required": ["schema"], "properties": {"schema": {"type": "object"}}},
    ],
}
_Prompt: TypeAlias = Annotated[str, msgspec.Meta(extra_json_schema=_SAID)]
_Messages: TypeAlias = Annotated[
    list[Annotated[dict[str, Any], msgspec.Meta(extra_json_schema=_MESSAGE)]],
    msgspec.Meta(extra_json_schema={"minItems": 1}),
]
_Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


class TimeoutsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time limits in seconds; one that is null, or is not there, stays as the server has it."""

    queue: _Seconds | None = None
    connect: _Seconds | None = None
    first_content: _Seconds | None = None
    between_content: _Seconds | None = None
    total: _Seconds | None = None


class ToolBody(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tool that the model may call; ``parameters`` is a JSON Schema."""

    name: _Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class OptionsBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a model is asked; what is null, or is not there, is for the agent to say. ``tool_choice`` is ``auto``,
    ``none``, ``required``, or ``tool:NAME``."""

    max_tokens: Annotated[float, msgspec.Meta(multiple_of=1, ge=1, le=_MOST)] | None = None
    model: str | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    seed: Annotated[float, msgspec.Meta(multiple_of=1, ge=-_MOST, le=_MOST)] | None = None
    stop: _Name | list[_Name] | None = None
    system: str | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    tool_choice: str | None = None
    tools: list[ToolBody] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None

    def keywords(self) -> dict[str, Any]:
        """Those that are said, as the keywords of a call. Raises InvalidRequest for a tool that is too large."""
        for tool in self.tools or ():
            if tool.parameters is not None:
                check_size(tool.parameters)
        said: dict[str, Any] = msgspec.to_builtins(self)
        return said | {name: int(said[name]) for name in ("max_tokens", "seed") if name in said}


class TaskBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task of a plan: ``prompt`` is sent as it is, ``template`` has ``${ID}`` where another task's text goes.

    With a ``schema``, a JSON Schema without regular expressions, the answer must be a document that fits: it is checked
    while it comes, and the agent is asked again up to ``ask_again`` times (0 unless it is said). If that does not help,
    the task fails with ``invalid_output``.
    """

    id: _Name
    prompt: _Prompt | _Messages | None = None
    template: Annotated[str, msgspec.Meta(extra_json_schema=_PLACES)] | None = None
    task_type: _Name = "general"
    agent: _Name | None = None
    depends_on: list[_Name] = []
    priority: Annotated[float, msgspec.Meta(multiple_of=1, ge=0, le=_MOST)] = 0
    on_failure: Literal["skip", "run"] = "skip"
    timeouts: TimeoutsBody | None = None
    schema: dict[str, Any] | None = None
    ask_again: Annotated[float, msgspec.Meta(multiple_of=1, ge=0, le=10)] | None = None
    options: OptionsBody = OptionsBody()
    metadata: dict[str, Any] = {}

    def task(self) -> Task:
        """The task. Raises InvalidRequest for what a client may not say."""
        if (self.prompt is None) == (self.template is None):
            raise InvalidRequest(
                f"task {self.id!r}: one of prompt (sent as it is) and template (with ${{ID}}) is needed"
            )
        ask_again = None if self.ask_again is None else int(self.ask_again)
        if self.schema is not None:
            try:
                check_schema(self.schema)
            except InvalidRequest as error:
                raise InvalidRequest(f"task {self.id!r}: {error}") from None
            ask_again = ask_again or 0
        prompt: Any = self.prompt
        if self.template is not None:
            prompt = Template(self.template)
            for name in prompt.names:
                if name not in self.depends_on:
                    raise UnknownDependency(f"task {self.id!r}: its template names {name!r}: add it to depends_on")
        return Task(
            self.id,
            prompt,
            self.task_type,
            agent=self.agent,
            depends_on=tuple(self.depends_on),
            priority=int(self.priority),
            on_failure=self.on_failure,
            timeouts=None if self.timeouts is None else Timeouts(**msgspec.structs.asdict(self.timeouts)),
            schema=self.schema,
            ask_again=ask_again,
            options=self.options.keywords(),
            metadata=self.metadata,
        )


class TasksBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plan: at least one task."""

    tasks: Annotated[
        list[Annotated[TaskBody, msgspec.Meta(extra_json_schema=_EITHER)]],
        msgspec.Meta(extra_json_schema={"minItems": 1}),
    ]


class Submitted(msgspec.Struct, frozen=True):
    """``streams`` maps each task's id to the id of its stream."""

    plan_id: str
    streams: dict[str, str]


class StreamRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stream. ``cursor`` is where its events go on behind what there is; times are seconds since 1970 (UTC)."""

    stream_id: str
    task_id: str
    plan_id: str | None
    state: StreamState
    cursor: str
    created: float
    ended_at: float | None


class StreamBody(StreamRow, frozen=True, kw_only=True):
    """A stream as it stands: what its records up to ``cursor`` say. ``success`` is null until it has ended."""

    text: str
    reasoning: str
    refusal: str
    tool_calls: tuple[ToolCallResult, ...]
    usage: Usage | None
    stop_reason: str | None
    success: bool | None
    error: ErrorInfo | None
    agent: str | None
    model: str | None
    cached: bool


class StreamPage(msgspec.Struct, frozen=True):
    """Streams, newest first. ``next`` is the ``before`` of the page that follows; null on the last page."""

    streams: list[StreamRow]
    next: str | None


class PlanPage(msgspec.Struct, frozen=True):
    """The streams of a plan, newest first. ``next`` is the ``before`` of the page that follows; null on the last."""

    plan_id: str
    streams: list[StreamRow]
    next: str | None


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why the stream is stopped: its log says so."""

    reason: str = "cancelled"


class Cancelled(msgspec.Struct, frozen=True):
    """``cancelled`` is false if the stream had ended, or was stopped already."""

    stream_id: str
    cancelled: bool
    state: StreamState


class TokenBody(msgspec.Struct, frozen=True):
    """``url`` is the path of the stream with the token; ``expires_at`` is in seconds since 1970 (UTC)."""

    token: str
    expires_at: int
    url: str


class AgentBody(msgspec.Struct, frozen=True):
    """An agent; one of several agents has no ``protocol`` of its own. ``default`` is who gets tasks that name none."""

    name: str
    protocol: str | None
    model: str | None
    default: bool


class Agents(msgspec.Struct, frozen=True):
    """The agents of this server."""

    agents: list[AgentBody]
