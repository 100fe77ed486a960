"""The streaming guide's simple WebSocket: a text frame is a prompt, and its answer comes in JSON messages.

``{"type": "chunk", "data": text}`` for each piece, then ``{"type": "complete"}``, or ``{"type": "error", "error":
{"code", "message"}}`` if it broke off. Then the next prompt may come. Closing the socket stops the answer under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

import msgspec

from ..errors import AgentError, ErrorInfo, SchedulerError, StreamReset
from .problem import Problem, problem_of

__all__ = ["Answers", "Receive", "Send", "converse", "told"]

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answers: TypeAlias = Callable[[str], AsyncIterable[str] | AsyncIterable[dict[str, Any]]]
"""What a prompt is answered with: text, or the dicts of ``execute_task_stream``."""

_BUSY: Final = ErrorInfo("invalid_request_error", "one prompt at a time: the answer to the one before has not ended")
_BINARY: Final = ErrorInfo("invalid_request_error", "a prompt is a text frame, not a binary one")
_json: Final = msgspec.json.Encoder()


async def converse(receive: Receive, send: Send, answers: Answers) -> None:
    """Answer prompts over an accepted WebSocket of an ASGI server until the client leaves.

    The stream of an answer is closed when the client leaves. An exception that is no error of this package is raised,
    behind the message that tells of it.
    """
    answering: asyncio.Task[None] | None = None
    listening = asyncio.ensure_future(receive())
    try:
        while True:
            await asyncio.wait(
                {listening} if answering is None else {listening, answering}, return_when=asyncio.FIRST_COMPLETED
            )
            if answering is not None and answering.done():
                done, answering = answering, None
                done.result()
            if not listening.done():
                continue
            message = listening.result()
            if message["type"] == "websocket.disconnect":
                return
            prompt = message.get("text")
            if prompt is None:
                await _tell(send, _BINARY)
            elif answering is not None:
                await _tell(send, _BUSY)
            else:
                answering = asyncio.ensure_future(_answer(send, answers(prompt)))
            listening = asyncio.ensure_future(receive())
    except _Gone:
        return
    finally:
        left = {task for task in (listening, answering) if task is not None}
        for task in left:
            task.cancel()
        await asyncio.wait(left)


async def _answer(send: Send, items: AsyncIterable[str] | AsyncIterable[dict[str, Any]]) -> None:
    stream: AsyncIterator[Any] = aiter(items)
    try:
        async for item in stream:
            if isinstance(item, Mapping):
                if item["done"]:
                    if item["error"] is not None:
                        code, _, sentence = item["error"].partition(": ")
                        return await _tell(send, ErrorInfo(code, sentence))
                    continue
                item = item["chunk"]
            await _say(send, {"type": "chunk", "data": item})
    except Exception as error:
        if isinstance(error, _Gone):
            raise
        await _tell(send, told(error))
        if not isinstance(error, SchedulerError | Problem):
            raise
    else:
        await _say(send, {"type": "complete"})
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


def told(error: Exception) -> ErrorInfo:
    """What a reader is told of an error: our code and sentence, never a provider's text nor the program's inside."""
    if isinstance(error, AgentError):
        return msgspec.structs.replace(error.info, detail=None, request_id=None)
    if isinstance(error, StreamReset):
        return ErrorInfo("stream_reset", str(error), retryable=True)
    if isinstance(error, Problem):
        return error.info
    if isinstance(error, SchedulerError):
        return problem_of(error).info
    return ErrorInfo("internal_error", "the stream broke off")


async def _tell(send: Send, error: ErrorInfo) -> None:
    await _say(send, {"type": "error", "error": {"code": error.code, "message": error.message}})


async def _say(send: Send, message: dict[str, Any]) -> None:
    try:
        await send({"type": "websocket.send", "text": _json.encode(message).decode()})
    except Exception as error:  # servers and frameworks have each their own for this
        raise _Gone from error


class _Gone(Exception):
    """The client has left: nothing can be sent."""
