"""The native API: tasks and plans go in, streams come out, one record an event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from ..errors import ErrorInfo, InvalidRequest, UnknownAgent
from ..records import TERMINALS, Record, Text, Usage, encode_record
from ..store.core import StreamInfo
from ..task import Task, Template, Timeouts
from . import cursor as cursors
from .answering import STREAM_HEADERS, relayed
from .exchange import Exchange
from .face import Answer, Renderer
from .problem import Problem
from .relay import Opening
from .routing import Route

__all__ = ["ROUTES", "NativeRenderer"]

_json: Final = msgspec.json.encode


class NativeRenderer(Renderer):
    """Unnamed events: ``id`` is the cursor, ``data`` the record as JSON with its ``seq``; ``end`` after the terminal.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    stateful = False

    def __init__(self, stream_id: str, retry: float) -> None:
        self._tag = f"-{cursors.tag(stream_id)}\ndata: ".encode()
        self._text = self._tag + b'{"type":"text","text":'
        self._retry = b"retry: %d\n\n" % round(retry * 1000)

    def feed(self, first: int, records: Sequence[Record]) -> bytes:
        frames = []
        seq = first
        for record in records:
            if type(record) is Text and record.branch is None and not record.part:
                frames.append(b'id: %d%b%b,"seq":%d}\n\n' % (seq, self._text, _json(record.text), seq))
            else:
                frames.append(b'id: %d%b%b,"seq":%d}\n\n' % (seq, self._tag, encode_record(record)[:-1], seq))
            seq += 1
        if isinstance(records[-1], TERMINALS):
            frames.append(b"event: end\ndata: {}\n\n")
        return b"".join(frames)

    def broken(self, error: ErrorInfo) -> bytes:  # noqa: ARG002 - who comes back gets the rest
        return b": not the end: connect again with the last id\n" + self._retry

    @property
    def prologue(self) -> bytes:
        """The first bytes of every response."""
        return self._retry


# --- what goes in and out ---------------------------------------------------------------------------------------


class TaskBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task of a plan: ``prompt`` is sent as it is, ``template`` has ``${ID}`` where another task's text goes."""

    id: str
    prompt: str | list[dict[str, Any]] | None = None
    template: str | None = None
    task_type: str = "general"
    agent: str | None = None
    depends_on: list[str] = []
    priority: int = 0
    on_failure: Literal["skip", "run"] = "skip"
    timeouts: Timeouts | None = None
    schema: dict[str, Any] | None = None
    options: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


class TasksBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plan: at least one task."""

    tasks: list[TaskBody]


class Submitted(msgspec.Struct, frozen=True):
    """``streams`` maps each task's id to the id of its stream."""

    plan_id: str
    streams: dict[str, str]


class StreamBody(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as it stands. ``cursor`` is where its events go on behind what is here."""

    stream_id: str
    task_id: str
    plan_id: str | None
    state: str
    cursor: str
    text: str
    reasoning: str
    usage: Usage | None
    stop_reason: str | None
    error: ErrorInfo | None
    created: float
    ended_at: float | None


# --- the routes -------------------------------------------------------------------------------------------------


async def submit(exchange: Exchange) -> None:
    """``POST /v1/tasks``."""
    body = await exchange.decoded(TasksBody)
    tasks = [_task(task) for task in body.tasks]
    try:
        handle = await exchange.server.scheduler.submit_plan(tasks, owner=exchange.owner)
    except UnknownAgent as error:
        raise Problem(400, str(error)) from None
    await exchange.json(Submitted(handle.plan_id, dict(handle.streams)), 202)


def _task(body: TaskBody) -> Task:
    if (body.prompt is None) == (body.template is None):
        raise InvalidRequest(f"task {body.id!r}: one of prompt (sent as it is) and template (with ${{ID}}) is needed")
    if "extra" in body.options:
        raise InvalidRequest(f"task {body.id!r}: extra is not taken from a client")
    prompt: Any = body.prompt if body.template is None else Template(body.template)
    return Task(
        body.id,
        prompt,
        body.task_type,
        agent=body.agent,
        depends_on=tuple(body.depends_on),
        priority=body.priority,
        on_failure=body.on_failure,
        timeouts=body.timeouts,
        schema=body.schema,
        options=body.options,
        metadata=body.metadata,
    )


async def read(exchange: Exchange) -> None:
    """``GET /v1/streams/{stream_id}``, as events or as JSON, as the client accepts."""
    info = exchange.server.scheduler.find(exchange.parameters["stream_id"], owner=exchange.owner)
    if "text/event-stream" in exchange.header(b"accept"):
        await _events(exchange, info)
    else:
        await _snapshot(exchange, info)


async def _events(exchange: Exchange, info: StreamInfo) -> None:
    said = exchange.header(b"last-event-id") or exchange.query.get("after", "")
    after = cursors.parse(said, info) if said else 0
    if info.ended and after == info.seq:
        await exchange.answer(_NOTHING_MORE)
        return
    retry = exchange.server.settings.retry
    renderer = NativeRenderer(info.stream_id, retry)
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), *STREAM_HEADERS, *exchange.own_headers()]
    await relayed(
        exchange, info, "native", lambda: NativeRenderer(info.stream_id, retry), Opening(headers, renderer.prologue),
        after=after,
    )  # fmt: skip


async def _snapshot(exchange: Exchange, info: StreamInfo) -> None:
    shot = await exchange.server.scheduler.snapshot(info.stream_id, owner=exchange.owner)
    body = StreamBody(
        stream_id=shot.stream_id,
        task_id=shot.task_id,
        plan_id=shot.plan_id,
        state=shot.state,
        cursor=cursors.cursor(shot.stream_id, shot.seq),
        text=shot.text,
        reasoning=shot.reasoning,
        usage=shot.usage,
        stop_reason=shot.stop_reason,
        error=shot.error,
        created=shot.created,
        ended_at=shot.ended_at,
    )
    await exchange.json(body)


_NOTHING_MORE: Final = Answer(204)

ROUTES: Final = (
    Route(
        method="POST", path="/v1/tasks", handler=submit, summary="Start tasks; they go on whoever reads them.",
        body=TasksBody, answers={202: Submitted},
    ),
    Route(
        method="GET", path="/v1/streams/{stream_id}", handler=read, streams=True, answers={200: StreamBody, 204: None},
        summary="A stream: its events from a cursor on, or how it stands.",
        query={"after": "the cursor behind which events begin; the header Last-Event-ID goes before it"},
    ),
)  # fmt: skip
