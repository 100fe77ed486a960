"""OpenAI's responses: ``POST /v1/responses``, and coming back to one.

A response's id is ``resp_`` and the id of its stream; every stream of an owner can be read as a response, from any
event on (``starting_after``), also from a restarted server. Events are numbered in the order of the log, so that an
event has the same ``sequence_number`` for every reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from ...errors import ErrorInfo, InvalidRequest
from ...records import Record
from ...request import Request
from ...store.core import StreamInfo
from ...views.live import live
from ...wire import openai_responses
from ..answering import STREAM_HEADERS, relayed, respond, submitted
from ..exchange import Exchange
from ..face import Answer, Asked, Renderer
from ..problem import Problem
from ..relay import Opening
from ..routing import Route
from .openai_error import error_object
from .shapes import RESPONSES
from .spoken import Spoken, answering

__all__ = ["FACE", "ROUTES"]

_json: Final = msgspec.json.Encoder().encode
_PREFIX: Final = "resp_"
_STOP_SECONDS: Final = 5.0
_BACKGROUND: Final = "responses/background"  # the id of the task says what its stream was asked for

_ELSEWHERE: Final = ("previous_response_id", "conversation", "prompt")
_ECHOED: Final = (
    "instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "reasoning", "temperature", "text",
    "tool_choice", "tools", "top_p", "truncation", "user",
)  # fmt: skip


class _Told(msgspec.Struct, frozen=True):
    """What a response says of its request (as JSON, so that it can tell renderings apart), and which events are sent.

    ``after`` is the number of the last event that the reader has; ``opened``: the first events were sent already.
    """

    echo: bytes = b"{}"
    after: int = -1
    opened: bool = False


class _Renderer(Renderer):
    def __init__(self, asked: Asked, stream: StreamInfo) -> None:
        self._asked = asked
        self._stream = stream
        self._missing = asked.options.after + 1  # events that the reader has, and that are still to be passed over
        self._encoder: openai_responses.Encoder | None = None

    @property
    def prologue(self) -> bytes:
        """The first events, which need no record."""
        return self._behind(self._make().start())

    def feed(self, first: int, records: Sequence[Record]) -> bytes:  # noqa: ARG002 - it is fed from the start
        if self._encoder is None:
            self._encoder = self._make()
            if self._asked.options.opened:
                self._behind(self._encoder.start())
        return self._behind(self._encoder.encode(records))

    def broken(self, error: ErrorInfo) -> bytes:
        # The reference has the fields beside the type; OpenAI sends them inside of "error", which its clients raise.
        # Without a number: the last one that the reader has stays its place to come back to.
        told = error_object(error)["error"]
        event = {"type": "error", "code": told["code"], "message": told["message"], "param": None, "error": told}
        return b"event: error\ndata: %b\n\n" % _json(event)

    def _make(self) -> openai_responses.Encoder:
        return _encoder(self._asked, self._stream)

    def _behind(self, events: bytes) -> bytes:
        """The events but for those that the reader has; JSON has no line breaks, so that each ends at the next blank
        line."""
        start = 0
        while self._missing > 0 and start < len(events):
            start = events.index(b"\n\n", start) + 2
            self._missing -= 1
        return events[start:]


class Responses(Spoken):
    """A client that leaves stops its answer, unless it was asked for with ``background``."""

    name = "responses"
    shape = RESPONSES

    def parse(self, body: bytes) -> Asked:
        fields = self.fields(body)
        for name in _ELSEWHERE:
            if fields.pop(name, None) is not None:
                raise InvalidRequest(f"{name}: is not kept here; send the whole conversation as input")
        background = fields.pop("background", None)
        if background is not None and not isinstance(background, bool):
            raise InvalidRequest("background: must be true or false")
        if not fields.get("input"):
            raise InvalidRequest("input: is required: a text, or a list of at least one item")
        request, streaming = openai_responses.parse_request(fields)
        echo = {name: fields[name] for name in _ECHOED if fields.get(name) is not None}
        return self.asked(
            request,
            streaming,
            leaving="continue" if background else "cancel",
            options=_Told(_json({**echo, "background": bool(background), "store": True})),
            task_id=_BACKGROUND if background else None,
        )

    def renderer(self, asked: Asked, stream: StreamInfo) -> Renderer:
        return _Renderer(asked, stream)

    def body(self, asked: Asked, stream: StreamInfo, records: Sequence[Record]) -> dict[str, Any]:
        return _encoder(asked, stream).body(records)

    def error(self, error: ErrorInfo) -> dict[str, Any]:
        return error_object(error, missing="model_not_found")


def _encoder(asked: Asked, stream: StreamInfo) -> openai_responses.Encoder:
    return openai_responses.Encoder(
        id=_PREFIX + stream.stream_id,
        model=asked.model,
        created=int(stream.created),
        echo=msgspec.json.decode(asked.options.echo),
    )


FACE: Final = Responses()


# --- the routes -----------------------------------------------------------------------------------------------------


async def create(exchange: Exchange) -> None:
    """``POST /v1/responses``. What runs in the background is answered for at once."""
    asked = FACE.parse(await exchange.body())
    if asked.leaving != "continue":
        await respond(exchange, FACE, asked)
        return
    handle = await submitted(exchange, asked)
    info = exchange.server.scheduler.find(handle.stream_id, owner=exchange.owner)
    if asked.streaming:
        await _events(exchange, asked, info)
    else:
        await _object(exchange, asked, info)


async def retrieve(exchange: Exchange) -> None:
    """``GET /v1/responses/{response_id}``."""
    info = _found(exchange)
    asked = _again(exchange, info)
    if _flag(exchange, "stream"):
        await _events(exchange, asked, info)
    else:
        await _object(exchange, asked, info)


async def cancel(exchange: Exchange) -> None:
    """``POST /v1/responses/{response_id}/cancel``. The answer is the response as it ended, if it did so in time."""
    info = _found(exchange)
    scheduler, owner = exchange.server.scheduler, exchange.owner
    await scheduler.cancel(info.stream_id, "cancelled by its client", owner=owner)
    log = scheduler.log(info.stream_id, owner=owner)
    with suppress(TimeoutError):
        async with asyncio.timeout(_STOP_SECONDS):
            while not log.ended:
                await log.wait(scheduler.find(info.stream_id, owner=owner).seq)
    info = _found(exchange)
    await _object(exchange, _again(exchange, info), info)


def _found(exchange: Exchange) -> StreamInfo:
    response_id = exchange.parameters["response_id"]
    if not response_id.startswith(_PREFIX):
        raise Problem(404, "there is no such response")
    return exchange.server.scheduler.find(response_id.removeprefix(_PREFIX), owner=exchange.owner)


def _again(exchange: Exchange, info: StreamInfo) -> Asked:
    """A stream as a request for it would have said, as far as its log tells."""
    after = exchange.query.get("starting_after", "")
    if after and not (after.isascii() and after.isdigit() and len(after) < 16):
        raise Problem(400, "starting_after must be the sequence_number of an event")
    echo = _json({"background": info.task_id == _BACKGROUND, "store": True})
    return Asked(
        request=Request(messages=()),
        model=answering(exchange, info),
        streaming=True,
        leaving="continue",
        options=_Told(echo, int(after) if after else -1),
    )


def _flag(exchange: Exchange, name: str) -> bool:
    value = exchange.query.get(name, "false")
    if value not in ("true", "false"):
        raise Problem(400, f"{name} must be true or false")
    return value == "true"


async def _events(exchange: Exchange, asked: Asked, info: StreamInfo) -> None:
    """The events of a response, from those on that need no record: the client learns the id at once."""
    asked = msgspec.structs.replace(asked, options=msgspec.structs.replace(asked.options, opened=True))
    headers = [(b"content-type", FACE.content_type), *STREAM_HEADERS, *exchange.own_headers()]
    prologue = _Renderer(asked, info).prologue
    await relayed(
        exchange, info, (FACE.name, asked.model, asked.options), lambda: _Renderer(asked, info),
        Opening(headers, prologue), leaving=asked.leaving,
    )  # fmt: skip


async def _object(exchange: Exchange, asked: Asked, info: StreamInfo) -> None:
    """A response as it stands."""
    log = exchange.server.scheduler.log(info.stream_id, owner=exchange.owner)
    records = live(log.whole())
    await exchange.json({**FACE.body(asked, info, records), **({} if records else {"status": "queued"})})


def _problem(problem: Problem) -> Answer:
    """What is missing on these routes is the response, not the model."""
    return Answer(problem.status, _json(error_object(problem.info)))


ROUTES: Final = (
    Route(
        method="POST", path="/v1/responses", handler=create, problem=FACE.problem, streams=True,
        summary="A response, in OpenAI's protocol.", body=RESPONSES, answers={200: dict[str, Any]},
    ),
    Route(
        method="GET", path="/v1/responses/{response_id}", handler=retrieve, problem=_problem, streams=True,
        summary="A response as it stands, or its events.", answers={200: dict[str, Any], 410: None},
        query={
            "stream": "true for its events",
            "starting_after": "the sequence_number of the last event that the reader has",
        },
    ),
    Route(
        method="POST", path="/v1/responses/{response_id}/cancel", handler=cancel, problem=_problem,
        summary="Stop a response.", answers={200: dict[str, Any]},
    ),
)  # fmt: skip
