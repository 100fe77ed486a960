"""The native API: tasks and plans go in, streams come out."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from ..errors import StreamNotFound
from ..store.core import StreamInfo, StreamState
from ..task import Task
from . import cursor as cursors
from . import tokens
from .answering import STREAM_HEADERS, pacer_of, relayed
from .bodies import (
    AgentBody,
    Agents,
    CancelBody,
    Cancelled,
    PlanPage,
    StreamBody,
    StreamPage,
    StreamRow,
    Submitted,
    TasksBody,
    TokenBody,
)
from .events import NativeRenderer, ObjectRenderer
from .exchange import Exchange
from .face import Answer
from .objects import ObjectStep
from .problem import Problem
from .relay import Opening
from .routing import Field, Route
from .submitting import submit

__all__ = ["ROUTES"]

_PAGE: Final = 50
_LARGEST_PAGE: Final = 500
_STATES: Final[tuple[str, ...]] = ("queued", "running", "completed", "failed", "cancelled", "interrupted", "skipped")
_TOKEN_SECONDS: Final = 300
_VIEWS: Final = {"records": NativeRenderer, "object": ObjectRenderer}


# --- tasks ------------------------------------------------------------------------------------------------------


async def start(exchange: Exchange) -> None:
    """``POST /v1/tasks``. With an ``Idempotency-Key`` the same tasks get the same answer, and run once."""
    body = await exchange.decoded(TasksBody)
    await exchange.json(await submit(exchange, body.tasks, exchange.header(b"idempotency-key")), 202)


# --- one stream -------------------------------------------------------------------------------------------------


def _found(exchange: Exchange) -> StreamInfo:
    return exchange.server.scheduler.find(exchange.parameters["stream_id"], owner=exchange.owner)


async def read(exchange: Exchange) -> None:
    """``GET /v1/streams/{stream_id}``, as events or as JSON, as the client accepts."""
    info = _found(exchange)
    said = exchange.header(b"last-event-id") or exchange.query.get("after", "")
    after = cursors.parse(said, info) if said else 0
    view = exchange.query.get("view", "records")
    if view not in _VIEWS:
        raise Problem(400, f"view must be one of {', '.join(_VIEWS)}, not {view[:100]!r}")
    pacer_of(exchange, exchange.query.get("pace"))  # what is wrong is told, whichever form is asked for
    if "text/event-stream" in exchange.header(b"accept").lower():
        await _events(exchange, info, after, view)
    else:
        await _snapshot(exchange, info)


async def _events(exchange: Exchange, info: StreamInfo, after: int, view: str) -> None:
    if info.ended and after == info.seq:
        await exchange.answer(Answer(204))
        return
    renderer = partial(_VIEWS[view], info.stream_id, exchange.server.settings.retry)
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), *STREAM_HEADERS, *exchange.own_headers()]
    await relayed(
        exchange, info, f"native {view}", renderer, Opening(headers, renderer().prologue), after=after,
    )  # fmt: skip


async def _snapshot(exchange: Exchange, info: StreamInfo) -> None:
    shot = await exchange.server.scheduler.snapshot(info.stream_id, owner=exchange.owner)
    body = StreamBody(
        stream_id=shot.stream_id,
        task_id=shot.task_id,
        plan_id=shot.plan_id,
        state=shot.state,
        cursor=cursors.cursor(shot.stream_id, shot.seq),
        created=shot.created,
        ended_at=shot.ended_at,
        text=shot.text,
        reasoning=shot.reasoning,
        refusal=shot.refusal,
        tool_calls=shot.tool_calls,
        usage=shot.usage,
        stop_reason=shot.stop_reason,
        success=shot.success,
        error=shot.error,
        agent=shot.agent,
        model=shot.model,
        cached=shot.cached,
    )
    await exchange.json(body)


async def cancel(exchange: Exchange) -> None:
    """``POST /v1/streams/{stream_id}/cancel``: returns when the provider is closed."""
    info = _found(exchange)
    reason = "cancelled"
    if exchange.header(b"content-type"):
        reason = (await exchange.decoded(CancelBody)).reason
    first = await exchange.server.scheduler.cancel(info.stream_id, reason, owner=exchange.owner)
    state = exchange.server.scheduler.find(info.stream_id, owner=exchange.owner).state
    await exchange.json(Cancelled(info.stream_id, first, state))


async def token(exchange: Exchange) -> None:
    """``POST /v1/streams/{stream_id}/token``."""
    info = _found(exchange)
    seconds = exchange.number("seconds", _TOKEN_SECONDS, least=1, most=tokens.LONGEST)
    made, expiry = exchange.server.access.token(info.stream_id, exchange.owner, seconds)
    url = f"{exchange.scope.get('root_path', '')}/v1/streams/{info.stream_id}?token={made}"
    await exchange.json(TokenBody(made, expiry, url), 201)


# --- many streams -----------------------------------------------------------------------------------------------


async def streams(exchange: Exchange) -> None:
    """``GET /v1/streams``."""
    rows, following = _page(exchange, exchange.query.get("plan_id"))
    await exchange.json(StreamPage(rows, following))


async def plan(exchange: Exchange) -> None:
    """``GET /v1/plans/{plan_id}``. Raises StreamNotFound."""
    plan_id = exchange.parameters["plan_id"]
    if not exchange.server.scheduler.streams(owner=exchange.owner, plan_id=plan_id, limit=1):
        raise StreamNotFound(f"there is no plan {plan_id!r}")
    rows, following = _page(exchange, plan_id)
    await exchange.json(PlanPage(plan_id, rows, following))


def _page(exchange: Exchange, plan_id: str | None) -> tuple[list[StreamRow], str | None]:
    """The newest streams that the query asks for, newest first, and where the next page begins."""
    limit = exchange.number("limit", _PAGE, least=1, most=_LARGEST_PAGE)
    found = exchange.server.scheduler.streams(
        owner=exchange.owner, plan_id=plan_id, states=_states(exchange), before=exchange.query.get("before"),
        limit=limit + 1,
    )  # fmt: skip
    following = found[1].stream_id if len(found) > limit else None
    rows = [
        StreamRow(
            stream_id=info.stream_id,
            task_id=info.task_id,
            plan_id=info.plan_id,
            state=info.state,
            cursor=cursors.cursor(info.stream_id, info.seq),
            created=info.created,
            ended_at=info.ended_at,
        )
        for info in reversed(found[-limit:])
    ]
    return rows, following


def _states(exchange: Exchange) -> set[StreamState] | None:
    said = exchange.query.get("state")
    if said is None:
        return None
    asked: set[Any] = set(said.split(","))
    unknown = sorted(asked.difference(_STATES))
    if unknown:
        raise Problem(400, f"state: {unknown[0][:100]!r} is none of {', '.join(_STATES)}")
    return asked


async def agents(exchange: Exchange) -> None:
    """``GET /v1/agents``."""
    scheduler = exchange.server.scheduler
    default = scheduler.select_agent(Task("any", "any"))
    rows = [
        AgentBody(name, getattr(agent, "protocol", None), getattr(agent, "model", None), name == default)
        for name, agent in scheduler.agents.items()
    ]
    await exchange.json(Agents(rows))


_FILTERS: Final[dict[str, str | Field]] = {
    "state": Field(
        "only streams in these states, with commas between",
        {"type": "string", "pattern": f"^({'|'.join(_STATES)})(,({'|'.join(_STATES)}))*$"},
    ),
    "limit": Field(f"how many; {_PAGE} unless it is said", {"type": "integer", "minimum": 1, "maximum": _LARGEST_PAGE}),
    "before": "the id of a stream: only older ones. It is the `next` of the page before",
}
_STREAM: Final = "/v1/streams/{stream_id}"

ROUTES: Final = (
    Route(
        method="POST", path="/v1/tasks", handler=start, body=TasksBody, answers={202: Submitted},
        summary="Start tasks. They go on whether anybody reads them or not.",
        headers={"Idempotency-Key": "the same key and tasks get the same answer, and run once; other tasks a 422"},
    ),
    Route(
        method="GET", path="/v1/streams", handler=streams, answers={200: StreamPage},
        summary="The streams, newest first.", query={**_FILTERS, "plan_id": "only the streams of this plan"},
    ),
    Route(
        method="GET", path=_STREAM, handler=read, streams=True, token=True,
        events=ObjectStep, answers={200: StreamBody, 204: None, 410: None},
        summary="A stream: its events from a cursor on, or how it stands, as the client accepts.",
        query={
            "after": "the cursor behind which events begin, if there is no Last-Event-ID",
            "view": Field(
                "what the events are: each record (unless it is said), or with object what each commit changed in the "
                "JSON document that the text is, as ObjectStep",
                {"type": "string", "enum": [*_VIEWS]},
            ),
            "pace": Field(
                "no faster than this: 50/s, 50 tokens/s",
                {"type": "string", "pattern": "^[1-9][0-9]{0,5}( (chunks|tokens))?/(s|min)$"},
            ),
        },
        headers={"Last-Event-ID": "the cursor behind which events begin"},
    ),
    Route(
        method="POST", path=f"{_STREAM}/cancel", handler=cancel, answers={200: Cancelled}, optional_body=CancelBody,
        summary="Stop a stream. Answers when its provider is closed.",
    ),
    Route(
        method="POST", path=f"{_STREAM}/token", handler=token, answers={201: TokenBody},
        summary="A token that opens this stream for reading, for those who can send no header.",
        query={
            "seconds": Field(
                f"how long it is good for; {_TOKEN_SECONDS} unless it is said",
                {"type": "integer", "minimum": 1, "maximum": tokens.LONGEST},
            )
        },
    ),
    Route(
        method="GET", path="/v1/plans/{plan_id}", handler=plan, answers={200: PlanPage}, query=_FILTERS,
        summary="The streams of a plan, newest first.",
    ),
    Route(method="GET", path="/v1/agents", handler=agents, answers={200: Agents}, summary="Who can be asked."),
)  # fmt: skip
