"""Streams in a FastAPI app, or any other Starlette app::

    @app.get("/stream")
    async def stream(prompt: str) -> Response:
        return sse(agent.call_stream(prompt))

Only Starlette is imported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..errors import SchedulerError
from ..server import Keys, Server, Settings, make_app
from ..server.conversation import Answers, converse
from ..server.problem import problem_of
from .framing import HEAD_AFTER, HEADERS, KEEP_ALIVE, Followed, Frames, Items, Once, failure, is_mistake

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send
    from starlette.websockets import WebSocket

    from ..scheduler import MultiAgentScheduler

__all__ = ["EventStream", "mount", "sse", "sse_follow", "websocket_stream"]


def sse(items: Items, *, heartbeat: float = 15.0, headers: Mapping[str, str] | None = None) -> EventStream:
    """A response that sends a stream as server-sent events: text, ``execute_task_stream``'s dicts, or records.

    A reader that leaves closes the stream at once, and so stops its provider; a browser that comes back after that, or
    after the end, gets 204, which tells it to stay away: nothing is asked of a model twice. (What a reader may come
    back to is a submitted task: :func:`sse_follow`.) A comment every ``heartbeat`` seconds keeps the connection alive.

    What the caller did wrong is an HTTPException of the status that fits; a stream that breaks off ends with
    ``event: failed``. Any other exception is raised as well, behind that event, for the server to log.
    """
    return EventStream(Once(items, heartbeat), headers)


def sse_follow(
    scheduler: MultiAgentScheduler,
    stream_id: str,
    *,
    owner: str | None = None,
    heartbeat: float = 15.0,
    headers: Mapping[str, str] | None = None,
) -> EventStream:
    """A response that sends a submitted task's records from its log, from where its reader stood (``Last-Event-ID``).

    The events are those of the server's ``GET /v1/streams/{id}``; any number of readers may come, leave and come back,
    and change nothing for the task. One that has seen the end gets 204. With ``owner`` the streams of others are not
    there (404); a cursor that cannot be is 400.
    """
    return EventStream(Followed(scheduler, stream_id, owner, heartbeat), headers)


def mount(
    app: Starlette,
    scheduler: MultiAgentScheduler,
    path: str = "/llm",
    *,
    settings: Settings | None = None,
    keys: Keys | None = None,
) -> Server:
    """Put the whole server under a path of an app: ``/llm/v1/tasks``, ``/llm/v1/chat/completions``, ``/llm/v1/ws`` ...

    Without ``keys`` it answers those who call the app by a name of ``settings.hosts``, which are this machine's own
    unless said otherwise. The scheduler is to be closed by the app (``async with scheduler`` in its lifespan).
    """
    server = make_app(scheduler, settings=settings, keys=keys)
    app.mount(path, server)
    return server


async def websocket_stream(websocket: WebSocket, answers: Answers, *, origins: Collection[str] = ()) -> None:
    """Answer prompts over a WebSocket until its client leaves: the streaming guide's form of it.

    ``answers`` gives the stream for a prompt: ``agent.call_stream``, or a function that calls ``execute_task_stream``.
    Each text frame is a prompt; its answer is ``{"type": "chunk", "data": text}`` for each piece and then ``{"type":
    "complete"}``, or ``{"type": "error", "error": {"code", "message"}}`` if it broke off. A client that leaves closes
    the stream at once, and so stops its provider.

    A browser lets every page open a WebSocket to anywhere, so pages are refused (403) but for those of the app's own
    host and of ``origins`` (``"https://app.example"``, or ``"*"`` for any).
    """
    origin = websocket.headers.get("origin")
    own = origin is None or urlsplit(origin).netloc.lower() == websocket.headers.get("host", "").lower()
    if not own and origin not in origins and "*" not in origins:
        await websocket.close()
        return
    await websocket.accept()
    await converse(websocket.receive, websocket.send, answers)


class EventStream(Response):
    """What :func:`sse` and :func:`sse_follow` give. It can be sent once."""

    media_type = "text/event-stream"

    def __init__(self, frames: Frames, headers: Mapping[str, str] | None = None) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**HEADERS, **(headers or {})})
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = _Out(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await out.write(b"", more=False)
            return
        back = dict(scope["headers"]).get(b"last-event-id")
        telling = asyncio.ensure_future(self._tell(out, None if back is None else back.decode("latin-1")))
        leaving, beating = asyncio.ensure_future(_left(receive)), asyncio.ensure_future(self._beat(out))
        try:
            await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (telling, leaving, beating):
                task.cancel()
            await asyncio.gather(telling, leaving, beating, return_exceptions=True)
        error = None if telling.cancelled() else telling.exception()
        if error is not None and error is not out.broken:  # that is a reader who has gone, as some servers say it
            raise error

    async def _tell(self, out: _Out, last_event_id: str | None) -> None:
        try:
            async with aclosing(self._frames.begin(last_event_id)) as frames:
                async for frame in frames:
                    await out.write(frame if out.begun else self._frames.opening + frame)
            await out.finish()
        except Exception as error:  # noqa: BLE001 - raised again, if it is not ours, once the reader knows
            if error is not out.broken:
                await self._fail(out, error)

    async def _beat(self, out: _Out) -> None:
        await asyncio.sleep(HEAD_AFTER)
        while True:
            if not out.busy:  # else the reader has not taken yet what it was sent
                await out.write(KEEP_ALIVE if out.begun else self._frames.opening + KEEP_ALIVE)
            await asyncio.sleep(self._frames.heartbeat)

    async def _fail(self, out: _Out, error: Exception) -> None:
        if not out.begun and is_mistake(error):
            problem = problem_of(error)
            raise HTTPException(problem.status, problem.detail) from error
        await out.write(failure(error))
        await out.finish()
        if not isinstance(error, SchedulerError):
            raise error


class _Out:
    """The response as it is sent: its head goes with the first bytes, whoever has some."""

    __slots__ = ("_head", "_lock", "_send", "begun", "broken")

    def __init__(self, send: Send, head: dict[str, Any]) -> None:
        self._send = send
        self._head = head
        self._lock = asyncio.Lock()
        self.begun = False
        self.broken: OSError | None = None

    @property
    def busy(self) -> bool:
        return self._lock.locked()

    async def write(self, data: bytes, *, more: bool = True) -> None:
        async with self._lock:
            try:
                if not self.begun:
                    self.begun = True
                    await self._send(self._head)
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
            except OSError as error:
                self.broken = error
                raise

    async def finish(self) -> None:
        if not self.begun:
            self._head = {"type": "http.response.start", "status": 204, "headers": []}
        await self.write(b"", more=False)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
