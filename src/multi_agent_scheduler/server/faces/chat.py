"""OpenAI's chat completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from ...errors import ErrorInfo
from ...records import Record
from ...store.core import StreamInfo
from ...wire import openai_chat
from ..face import Asked, Renderer
from ..routing import Route
from .openai_error import error_object
from .shapes import CHAT
from .spoken import Spoken, Wire, check_count

__all__ = ["FACE", "ROUTES"]

_json: Final = msgspec.json.Encoder().encode


class Chat(Spoken):
    """A client that leaves stops its answer. ``options`` says whether the stream ends with the usage."""

    name = "chat"
    shape = CHAT

    def parse(self, body: bytes) -> Asked:
        fields = self.fields(body)
        check_count(fields.get("n"))
        request, streaming = openai_chat.parse_request(fields)
        return self.asked(request, streaming, options=openai_chat.wants_usage(fields))

    def renderer(self, asked: Asked, stream: StreamInfo) -> Renderer:
        return Wire(partial(_encoder, asked, stream), self._broken)

    def body(self, asked: Asked, stream: StreamInfo, records: Sequence[Record]) -> dict[str, Any]:
        return _encoder(asked, stream).body(records)

    def error(self, error: ErrorInfo) -> dict[str, Any]:
        return error_object(error, missing="model_not_found")

    def _broken(self, error: ErrorInfo) -> bytes:
        return b"data: %b\n\n" % _json(self.error(error))


def _encoder(asked: Asked, stream: StreamInfo) -> openai_chat.Encoder:
    return openai_chat.Encoder(
        id=f"chatcmpl-{stream.stream_id}",
        model=asked.model,
        created=int(stream.created),
        include_usage=asked.options,
    )


FACE: Final = Chat()

ROUTES: Final = (
    Route(
        method="POST", path="/v1/chat/completions", handler=FACE.answer, problem=FACE.problem, streams=True,
        summary="A chat completion, in OpenAI's protocol.", body=CHAT, answers={200: dict[str, Any]},
    ),
)  # fmt: skip
