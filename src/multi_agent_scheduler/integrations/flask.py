"""Streams in a Flask app, under any WSGI server::

    @app.route("/stream")
    def stream() -> Response:
        return sse(agent.call_stream(request.args["prompt"]))

The stream runs on the background loop that the package's other synchronous forms use; what crosses to the worker's
thread is bytes. A scheduler that is used this way belongs to that loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from flask import Response, abort, request

from ..blocking import flatten
from ..errors import SchedulerError
from ..server.problem import problem_of
from .framing import HEAD_AFTER, HEADERS, KEEP_ALIVE, Followed, Frames, Items, Once, failure, is_mistake

if TYPE_CHECKING:
    from ..scheduler import MultiAgentScheduler

__all__ = ["sse", "sse_follow"]


def sse(items: Items, *, heartbeat: float = 15.0, headers: Mapping[str, str] | None = None) -> Response:
    """A response that sends a stream as server-sent events: text, ``execute_task_stream``'s dicts, or records.

    To be called in a view. ``items`` is the asynchronous form, such as ``agent.call_stream(prompt)``. A reader that
    leaves closes it, and so stops its provider: a WSGI server learns of that when it writes, so within ``heartbeat``
    seconds, since that often there is at least a comment. A browser that comes back after that, or after the end, gets
    204, which tells it to stay away: nothing is asked of a model twice. (What a reader may come back to is a submitted
    task: :func:`sse_follow`.)

    What the caller did wrong is an HTTPException of the status that fits; a stream that breaks off ends with
    ``event: failed``. Any other exception is raised as well, behind that event, for the server to log.
    """
    return _response(Once(items, heartbeat), headers)


def sse_follow(
    scheduler: MultiAgentScheduler,
    stream_id: str,
    *,
    owner: str | None = None,
    heartbeat: float = 15.0,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response that sends a submitted task's records from its log, from where its reader stood (``Last-Event-ID``).

    To be called in a view; the task is submitted with ``blocking.run(scheduler.submit(task))``. The events are those of
    the server's ``GET /v1/streams/{id}``; any number of readers may come, leave and come back, and change nothing for
    the task. One that has seen the end gets 204. With ``owner`` the streams of others are not there (404); a cursor
    that cannot be is 400.
    """
    return _response(Followed(scheduler, stream_id, owner, heartbeat), headers)


def _response(frames: Frames, headers: Mapping[str, str] | None) -> Response:
    response = Response(mimetype="text/event-stream", headers={**HEADERS, **(headers or {})})
    if request.method == "HEAD":
        return response
    back = request.headers.get("Last-Event-ID")
    body = flatten(lambda: _body(frames, back))
    try:
        first = next(body, None)
    except SchedulerError as error:
        problem = problem_of(error)
        abort(problem.status, problem.detail)
    if first is None:
        return Response(status=204)
    response.response = chain((first,), body)
    response.call_on_close(body.close)
    return response


async def _body(frames: Frames, last_event_id: str | None) -> AsyncGenerator[Sequence[bytes], None]:
    """The body, with comments where there is nothing; raises what the caller did wrong if that shows at once."""
    opening, wait = frames.opening, HEAD_AFTER
    events = frames.begin(last_event_id)
    coming = asyncio.ensure_future(_next(events))
    try:
        while True:
            if not (await asyncio.wait({coming}, timeout=wait))[0]:
                frame = KEEP_ALIVE
            else:
                if (event := coming.result()) is None:
                    return
                frame, coming = event, asyncio.ensure_future(_next(events))
            yield [opening + frame]
            opening, wait = b"", frames.heartbeat
    except Exception as error:
        if opening and is_mistake(error):
            raise
        yield [opening + failure(error)]
        if not isinstance(error, SchedulerError):
            raise
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await events.aclose()


async def _next(events: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(events, None)
