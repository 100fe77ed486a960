"""The AI SDK's chat: ``useChat`` with ``api: "/v1/ai-sdk/chat"``.

A page whose connection breaks, or that is loaded again, asks ``GET {api}/{chat id}/stream`` for the answer under way
(the SDK's ``resume``), which it gets from its start: nothing is lost, and nothing runs twice. Its ``stop()`` only
closes the connection, so that stopping the answer itself is a request of its own, ``POST {api}/{chat id}/stop``.

Which chat a stream belongs to is said by the id of its task, so that it is known after a restart, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from ...errors import ErrorInfo, InvalidRequest
from ...records import Record
from ...request import Request
from ...store.core import StreamInfo
from ...task import Task
from ...wire import ai_sdk
from ..answering import respond, stream
from ..exchange import Exchange
from ..face import Answer, Asked, Face, Headers, Renderer
from ..problem import Problem
from ..routing import Route
from ..schemas import check_sizes
from .failure import failure_of, headers_of, sentence, status_of
from .shapes import PAGE, SERVERS_OWN
from .spoken import Wire, answering, check_count, check_numbers, json_object

__all__ = ["FACE", "ROUTES", "check_settings"]

_json: Final = msgspec.json.Encoder().encode
_PREFIX: Final = "ai-sdk/"
_LONGEST_ID: Final = 200
_TEXT: Final = b"text/plain; charset=utf-8"


class AISDK(Face):
    """Streams only. ``options`` is the id of the message that the stream continues; None makes a new one.

    A refusal is a sentence: the client's error has the body for its message.
    """

    name = "ai_sdk"
    headers: Headers = ai_sdk.HEADERS

    def parse(self, body: bytes) -> Asked:
        fields = json_object(body)
        check_settings(fields)
        chat = ai_sdk.parse_request(fields)
        check_numbers(chat.request)
        for name, value in (("id", chat.chat_id), ("the last message's id", chat.continues)):
            if value is not None and not 0 < len(value) <= _LONGEST_ID:
                raise InvalidRequest(f"{name} must have 1 to {_LONGEST_ID} characters")
        check_sizes(chat.request)
        return Asked(
            request=chat.request,
            model=chat.request.model or "",
            streaming=True,
            options=chat.continues,
            task_id=_task_id(chat.chat_id, chat.continues),
        )

    def renderer(self, asked: Asked, stream: StreamInfo) -> Renderer:
        message_id = asked.options or f"msg_{stream.stream_id}"
        return Wire(partial(ai_sdk.Encoder, id=message_id, model=asked.model), self._broken)

    def whole(self, asked: Asked, stream: StreamInfo, records: Sequence[Record]) -> Answer:  # noqa: ARG002
        """Of a stream that failed before it said anything, which is all that is not streamed here."""
        error = failure_of(records[-1]) or ErrorInfo("agent_error", "the agent gave no answer")
        return Answer(status_of(error), sentence(error).encode(), _TEXT, headers_of(error))

    def problem(self, problem: Problem) -> Answer:
        return Answer(problem.status, problem.detail.encode(), _TEXT)

    def _broken(self, error: ErrorInfo) -> bytes:
        return b"data: %b\n\ndata: [DONE]\n\n" % _json({"type": "error", "errorText": error.message})


FACE: Final = AISDK()


def check_settings(fields: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for settings of the SDK's that this server keeps to itself.

    What else a page sends that has no meaning here is left out.
    """
    check_count(fields.get("n"))
    for name in SERVERS_OWN:
        if fields.get(name) is not None:
            raise InvalidRequest(f"{name}: where a model is asked, and with which key, is for the server to say")


def _task_id(chat_id: str, continues: str | None) -> str:
    """``ai-sdk/CHAT`` or ``ai-sdk/CHAT/MESSAGE``, percent-encoded."""
    return _PREFIX + "/".join(quote(part, safe="") for part in (chat_id, continues) if part is not None)


def _under_way(exchange: Exchange) -> list[StreamInfo]:
    """The streams of this path's chat that have not ended, oldest first."""
    place = _task_id(exchange.parameters["chat_id"], None)
    streams = exchange.server.scheduler.streams(owner=exchange.owner, states={"queued", "running"})
    return [info for info in streams if info.task_id == place or info.task_id.startswith(f"{place}/")]


async def chat(exchange: Exchange) -> None:
    """``POST /v1/ai-sdk/chat``. Without a model the scheduler's choice answers."""
    asked = FACE.parse(await exchange.body())
    server = exchange.server
    model = asked.model or server.scheduler.select_agent(Task("chat", ""))
    await respond(exchange, FACE, msgspec.structs.replace(asked, model=model, leaving=server.settings.grace))


async def resume(exchange: Exchange) -> None:
    """``GET /v1/ai-sdk/chat/{chat_id}/stream``."""
    streams = _under_way(exchange)
    if not streams:
        await exchange.answer(Answer(204))
        return
    info, server = streams[-1], exchange.server
    _, _, continues = info.task_id.removeprefix(_PREFIX).partition("/")
    asked = Asked(
        request=Request(messages=()),
        model=answering(exchange, info),
        streaming=True,
        leaving=server.settings.grace,
        options=unquote(continues) or None,
    )
    await stream(exchange, FACE, asked, info)


async def stop(exchange: Exchange) -> None:
    """``POST /v1/ai-sdk/chat/{chat_id}/stop``."""
    for info in _under_way(exchange):
        await exchange.server.scheduler.cancel(info.stream_id, "stopped by the user", owner=exchange.owner)
    await exchange.answer(Answer(204))


def _route(method: str, path: str, handler: Any, summary: str, **more: Any) -> Route:
    return Route(method=method, path=path, handler=handler, problem=FACE.problem, summary=summary, **more)


ROUTES: Final = (
    _route(
        "POST", "/v1/ai-sdk/chat", chat, "A chat's next answer, for the AI SDK's useChat.",
        body=PAGE, streams=True,
    ),
    _route(
        "GET", "/v1/ai-sdk/chat/{chat_id}/stream", resume, "The answer under way from its start; 204 if there is none.",
        answers={204: None}, streams=True,
    ),
    _route("POST", "/v1/ai-sdk/chat/{chat_id}/stop", stop, "Stop the answer under way.", answers={204: None}),
)  # fmt: skip
