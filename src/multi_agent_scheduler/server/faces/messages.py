"""Anthropic's Messages: ``POST /v1/messages``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from ...errors import ErrorInfo
from ...records import Record
from ...store.core import StreamInfo
from ...wire import anthropic
from ..exchange import Exchange
from ..face import Asked, Renderer
from ..routing import Route
from .failure import sentence, status_of
from .shapes import MESSAGES
from .spoken import Spoken, Wire

__all__ = ["FACE", "ROUTES"]

_json: Final = msgspec.json.Encoder().encode

# https://docs.anthropic.com/en/api/errors
_TYPES: Final = {
    "authentication_error": "authentication_error",
    "budget_exceeded": "billing_error",
    "content_filter": "invalid_request_error",
    "insufficient_quota": "billing_error",
    "invalid_request_error": "invalid_request_error",
    "not_found_error": "not_found_error",
    "overloaded_error": "overloaded_error",
    "permission_error": "permission_error",
    "rate_limit_error": "rate_limit_error",
    "request_too_large": "request_too_large",
    "timeout_error": "timeout_error",
}


class Messages(Spoken):
    """A client that leaves stops its answer."""

    name = "messages"
    shape = MESSAGES

    async def answer(self, exchange: Exchange) -> None:
        told = (b"request-id", exchange.request_id.encode())  # this protocol's own name for it
        exchange.answer_headers = (*exchange.answer_headers, told)
        await super().answer(exchange)

    def parse(self, body: bytes) -> Asked:
        return self.asked(*anthropic.parse_request(self.fields(body)))

    def renderer(self, asked: Asked, stream: StreamInfo) -> Renderer:
        return Wire(partial(_encoder, asked, stream), self._broken, b'event: ping\ndata: {"type":"ping"}\n\n')

    def body(self, asked: Asked, stream: StreamInfo, records: Sequence[Record]) -> dict[str, Any]:
        return _encoder(asked, stream).body(records)

    def status(self, error: ErrorInfo) -> int:
        return 529 if error.code == "overloaded_error" else status_of(error)

    def error(self, error: ErrorInfo) -> dict[str, Any]:
        return {"type": "error", "error": {"type": _TYPES.get(error.code, "api_error"), "message": sentence(error)}}

    def _broken(self, error: ErrorInfo) -> bytes:
        return b"event: error\ndata: %b\n\n" % _json(self.error(error))


def _encoder(asked: Asked, stream: StreamInfo) -> anthropic.Encoder:
    return anthropic.Encoder(id=f"msg_{stream.stream_id}", model=asked.model)


FACE: Final = Messages()

ROUTES: Final = (
    Route(
        method="POST", path="/v1/messages", handler=FACE.answer, problem=FACE.problem, streams=True,
        summary="A message, in Anthropic's protocol.", body=MESSAGES, answers={200: dict[str, Any]},
    ),
)  # fmt: skip
