"""What goes into the native API and comes out of it, as JSON. The OpenAPI document is made from these types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from ..errors import ErrorInfo, InvalidRequest
from ..records import Usage
from ..store.core import StreamState
from ..task import Task, Template, Timeouts, ToolCallResult
from .schemas import check_schema

__all__ = [
    "AgentBody",
    "Agents",
    "CancelBody",
    "Cancelled",
    "PlanPage",
    "StreamBody",
    "StreamPage",
    "StreamRow",
    "Submitted",
    "TaskBody",
    "TasksBody",
    "TimeoutsBody",
    "TokenBody",
]


_Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


class TimeoutsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time limits in seconds; one that is null, or is not there, stays as the server has it."""

    queue: _Seconds | None = None
    connect: _Seconds | None = None
    first_content: _Seconds | None = None
    between_content: _Seconds | None = None
    total: _Seconds | None = None


class TaskBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task of a plan: ``prompt`` is sent as it is, ``template`` has ``${ID}`` where another task's text goes.

    With a ``schema``, a JSON Schema without regular expressions, the answer must be a document that fits: it is checked
    while it comes, and the agent is asked again up to ``ask_again`` times (0 unless it is said). If that does not help,
    the task fails with ``invalid_output``.
    """

    id: str
    prompt: str | list[dict[str, Any]] | None = None
    template: str | None = None
    task_type: str = "general"
    agent: str | None = None
    depends_on: list[str] = []
    priority: int = 0
    on_failure: Literal["skip", "run"] = "skip"
    timeouts: TimeoutsBody | None = None
    schema: dict[str, Any] | None = None
    ask_again: Annotated[int, msgspec.Meta(ge=0, le=10)] | None = None
    options: dict[str, Any] = {}
    metadata: dict[str, Any] = {}

    def task(self) -> Task:
        """The task. Raises InvalidRequest for what a client may not say."""
        if (self.prompt is None) == (self.template is None):
            raise InvalidRequest(
                f"task {self.id!r}: one of prompt (sent as it is) and template (with ${{ID}}) is needed"
            )
        if "extra" in self.options:
            raise InvalidRequest(f"task {self.id!r}: extra is not taken from a client")
        ask_again = self.ask_again
        if self.schema is not None:
            try:
                check_schema(self.schema)
            except InvalidRequest as error:
                raise InvalidRequest(f"task {self.id!r}: {error}") from None
            ask_again = ask_again or 0
        prompt: Any = self.prompt if self.template is None else Template(self.template)
        return Task(
            self.id,
            prompt,
            self.task_type,
            agent=self.agent,
            depends_on=tuple(self.depends_on),
            priority=self.priority,
            on_failure=self.on_failure,
            timeouts=None if self.timeouts is None else Timeouts(**msgspec.structs.asdict(self.timeouts)),
            schema=self.schema,
            ask_again=ask_again,
            options=self.options,
            metadata=self.metadata,
        )


class TasksBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plan: at least one task."""

    tasks: list[TaskBody]


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
