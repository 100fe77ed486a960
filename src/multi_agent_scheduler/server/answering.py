"""Answering through a face: what was asked becomes a task, and its log the response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from ..records import Record
from ..store.base import Log, trimmed
from ..store.core import StreamInfo
from ..task import Task
from ..views.pacing import Pacer, parse_pace
from .compression import packer
from .exchange import Exchange
from .face import Answer, Asked, Face, Headers, Leaving, Renderer
from .problem import Problem
from .relay import Opening, Relay

if TYPE_CHECKING:
    from ..handles import Handle

__all__ = ["STREAM_HEADERS", "relayed", "respond", "stream", "submitted", "whole"]

STREAM_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx passes on what comes as it comes
)
_SOON: Final = ((b"retry-after", b"1"),)


async def respond(exchange: Exchange, face: Face, asked: Asked) -> None:
    """Run what was asked, and answer with it, streamed or whole.

    Raises CallerError and Problem before anything is sent.
    """
    handle = await submitted(exchange, asked)
    if asked.streaming:
        info = exchange.server.scheduler.find(handle.stream_id, owner=exchange.owner)
        await stream(exchange, face, asked, info)
    else:
        await whole(exchange, face, asked, handle)


async def submitted(exchange: Exchange, asked: Asked) -> Handle:
    """Start what was asked. Raises CallerError and Problem."""
    server = exchange.server
    if asked.streaming:
        check_reading(exchange)
        pacer_of(exchange, exchange.query.get("pace"))  # what is wrong with it is said before anything runs
    exchange.spend()
    agent, model = server.chosen(asked.model)
    request = msgspec.structs.replace(asked.request, model=model)
    task = Task.of(request, asked.task_id or exchange.request_id, agent=agent, metadata=asked.metadata)
    check_running(exchange, 1)
    return await server.scheduler.submit(task, owner=exchange.owner, trace=exchange.trace)


async def stream(exchange: Exchange, face: Face, asked: Asked, info: StreamInfo) -> None:
    """Answer with a stream from its start, new or old; see :func:`relayed`.

    The headers wait for the first content: a stream that fails before is answered as a whole, with its own status.
    """
    headers = [(b"content-type", face.content_type), *STREAM_HEADERS, *face.headers, *exchange.own_headers()]

    def refusal(records: Sequence[Record]) -> Answer:
        answer = face.whole(asked, info, records)
        return msgspec.structs.replace(answer, headers=(*answer.headers, *exchange.own_headers()))

    await relayed(
        exchange, info, (face.name, asked.model, asked.options), lambda: face.renderer(asked, info),
        Opening(headers, refusal=refusal), leaving=asked.leaving,
    )  # fmt: skip


async def relayed(
    exchange: Exchange, info: StreamInfo, spelling: Hashable, make: Callable[[], Renderer], opening: Opening,
    *, after: int = 0, leaving: Leaving = "continue",
) -> None:  # fmt: skip
    """Make the client a stream's reader; whoever handles the request waits for ``exchange.reading`` then.

    Readers of one stream with the same ``spelling`` share what is rendered: it must name all that makes it differ.
    Raises Problem before anything is sent.
    """
    server, stream_id = exchange.server, info.stream_id
    check_whole(exchange, info, after)
    log = server.scheduler.log(stream_id, owner=exchange.owner)
    pacer = pacer_of(exchange, exchange.query.get("pace"))
    if exchange.method == "HEAD":  # that is no reader
        _compress(exchange, opening)
        await exchange.answer_head(opening.headers)
        return
    server.attendance.enter(stream_id)
    try:
        check_reading(exchange)
        opening.pacer = pacer
        _compress(exchange, opening)
        rendering = server.renderings.of((stream_id, spelling), lambda: log, make, after=after)
        relay = Relay(rendering, exchange.send, opening, after=after, direct=exchange.direct)
    except BaseException:
        server.attendance.leave(stream_id, leaving, ended=log.ended)
        raise
    exchange.answered = True
    exchange.reading = Reading(exchange, relay, stream_id, log, leaving)


class Reading:
    """What is left of a request once its client reads a stream: nothing else of it waits in memory."""

    __slots__ = ("_exchange", "_leaving", "_log", "_relay", "_stream_id")

    def __init__(self, exchange: Exchange, relay: Relay, stream_id: str, log: Log, leaving: Leaving) -> None:
        self._exchange = exchange
        self._relay = relay
        self._stream_id = stream_id
        self._log = log
        self._leaving = leaving
        exchange.server.enter(relay, exchange.caller)
        exchange.caller.quota.reading += 1

    async def over(self) -> None:
        """Start to read; return when the response is complete or the client has left."""
        relay, exchange = self._relay, self._exchange
        try:
            relay.start()
            if exchange.direct is not None:  # our own server, whose receive() returns at the end of the response, too
                await exchange.gone()
            else:
                await _until(relay.over, exchange)
        finally:
            exchange.caller.quota.reading -= 1
            exchange.server.leave(relay)
            relay.leave()
            exchange.status, exchange.written = relay.status, relay.written
            exchange.server.attendance.leave(self._stream_id, self._leaving, ended=self._log.ended)


def pacer_of(exchange: Exchange, asked: str | None) -> Pacer | None:
    """What holds this reader to a pace: the one that is asked for, or that of its key if that is slower."""
    key = exchange.caller.quota.limits.pace
    pace = None if asked is None else parse_pace(asked)
    if key is not None:
        allowed = parse_pace(key)
        if pace is None or pace.unit != allowed.unit or pace.per_second > allowed.per_second:
            pace = allowed
    return None if pace is None else Pacer(pace)


def _compress(exchange: Exchange, opening: Opening) -> None:
    if exchange.server.settings.compression:
        opening.packer = packer(exchange.header(b"accept-encoding"))
        opening.headers = (*opening.headers, (b"vary", b"accept-encoding"))
        if opening.packer is not None:
            opening.headers = (*opening.headers, (b"content-encoding", opening.packer.encoding))


def check_reading(exchange: Exchange) -> None:
    """Raise Problem 429 if this key reads as many streams as it may."""
    most = _most_streams(exchange)
    if exchange.caller.quota.reading >= most:
        raise Problem(429, f"no more than {most} streams can be read at once", headers=_SOON)


def check_whole(exchange: Exchange, info: StreamInfo, after: int) -> None:
    """Raise Problem 410 if the records behind seq ``after`` were trimmed away; it links to the stream as JSON."""
    if info.trimmed and after < info.seq:
        place = quote(f"{exchange.scope.get('root_path', '')}/v1/streams/{info.stream_id}")
        link = f'<{place}>; rel="alternate"; type="application/json"'
        raise Problem(410, str(trimmed(info.stream_id)), snapshot=place, headers=((b"link", link.encode()),))


def check_running(exchange: Exchange, more: int) -> None:
    """Raise Problem 429 if so many streams more are more than this owner may have running, 400 if they always would be.

    They count from when they are submitted, so nothing may be awaited between this and that.
    """
    most = _most_streams(exchange)
    if more > most:
        raise Problem(400, f"a plan of {more} tasks is too large: no more than {most} streams can run at once")
    running = exchange.server.scheduler.open_streams(exchange.owner)
    if running + more > most:
        detail = f"no more than {most} streams can run at once, and {running} do: wait for some, or cancel them"
        raise Problem(429, detail, headers=_SOON)


def _most_streams(exchange: Exchange) -> int:
    return exchange.caller.quota.limits.streams or exchange.server.settings.max_streams


async def _until(over: asyncio.Future[None], exchange: Exchange) -> None:
    """Return when the response is complete or the client has left."""
    gone = asyncio.ensure_future(exchange.gone())
    try:
        await asyncio.wait({gone, over}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        await asyncio.wait({gone})


async def whole(exchange: Exchange, face: Face, asked: Asked, handle: Handle) -> None:
    """Answer with all of a stream when it has ended. A client that leaves before is a reader that leaves."""
    server, stream_id = exchange.server, handle.stream_id
    log = server.scheduler.log(stream_id, owner=exchange.owner)
    server.attendance.enter(stream_id)
    result, gone = asyncio.ensure_future(handle.result()), asyncio.ensure_future(exchange.gone())
    try:
        server.waiting.add(result)
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            return
        if result.cancelled():
            raise Problem(503, "the server is being stopped", headers=_SOON)
        result.result()
        info = server.scheduler.find(stream_id, owner=exchange.owner)
        await exchange.answer(face.whole(asked, info, log.whole()))
    finally:
        server.waiting.discard(result)
        for waiting in (result, gone):
            waiting.cancel()
        await asyncio.wait({result, gone})
        server.attendance.leave(stream_id, asked.leaving, ended=log.ended)


def add_headers(answer: Answer, headers: Headers) -> Answer:
    """The same answer with more headers."""
    return msgspec.structs.replace(answer, headers=(*answer.headers, *headers))
