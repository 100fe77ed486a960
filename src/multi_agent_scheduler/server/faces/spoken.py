"""What the faces of the wire protocols have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from ...errors import ErrorInfo, InvalidRequest, LogTrimmed
from ...records import CallStarted, Record
from ...request import Request
from ...store.core import StreamInfo
from ...views.live import live
from ..answering import respond
from ..exchange import Exchange, decoded
from ..face import Answer, Asked, Face, Renderer
from ..problem import Problem
from ..schemas import check_sizes
from .failure import failure_of, headers_of, status_of
from .shapes import Shape

__all__ = ["Spoken", "Wire", "answering", "check_count", "check_numbers", "json_object"]

_json: Final = msgspec.json.Encoder().encode


class _Encoder(Protocol):
    def encode(self, records: Sequence[Record], /) -> bytes: ...


class Wire(Renderer):
    """A wire package's encoder as a renderer; it is made when there is something to render."""

    def __init__(
        self, make: Callable[[], _Encoder], broken: Callable[[ErrorInfo], bytes], heartbeat: bytes | None = None
    ) -> None:
        self._make = make
        self._encoder: _Encoder | None = None
        self._broken = broken
        if heartbeat is not None:
            self.heartbeat = heartbeat

    def feed(self, first: int, records: Sequence[Record]) -> bytes:  # noqa: ARG002 - it is fed from the start
        if self._encoder is None:
            self._encoder = self._make()
        return self._encoder.encode(records)

    def broken(self, error: ErrorInfo) -> bytes:
        return self._broken(error)


class Spoken(Face):
    """A face over a wire package."""

    shape: Shape
    """The JSON Schema of a request."""

    async def answer(self, exchange: Exchange) -> None:
        """Handle a POST: run what is asked, and answer with it."""
        await respond(exchange, self, self.parse(await exchange.body()))

    def fields(self, body: bytes) -> dict[str, Any]:
        """A request's body. Raises Problem if it is no JSON object, InvalidRequest for what the protocol does not have.

        So no client can reach what only the server is to say: where a model is asked, and with which key.
        """
        fields = json_object(body)
        strange = next((name for name in fields if name not in self.shape["properties"]), None)
        if strange is not None:
            raise InvalidRequest(f"{strange[:100]!r} is not a field of this request")
        return fields

    def asked(self, request: Request, streaming: bool, **more: Any) -> Asked:
        """What is asked. ``more`` are the other fields of :class:`Asked`. Raises InvalidRequest."""
        extra = {name: value for name, value in request.extra.items() if value is not None}
        model = request.model
        if not model:
            raise InvalidRequest("model is missing: name an agent, or agent/model; /v1/models lists them")
        check_numbers(request)
        check_sizes(request)
        request = msgspec.structs.replace(request, extra=extra)
        return Asked(request=request, model=model, streaming=streaming, **more)

    def whole(self, asked: Asked, stream: StreamInfo, records: Sequence[Record]) -> Answer:
        standing = live(records)
        error = failure_of(standing[-1])
        if error is None:
            return Answer(200, _json(self.body(asked, stream, standing)))
        return Answer(self.status(error), _json(self.error(error)), headers=headers_of(error))

    def problem(self, problem: Problem) -> Answer:
        return Answer(problem.status, _json(self.error(problem.info)))

    def status(self, error: ErrorInfo) -> int:
        """The status of a failure's answer."""
        return status_of(error)

    @abstractmethod
    def body(self, asked: Asked, stream: StreamInfo, records: Sequence[Record]) -> Any:
        """The answer's object, from the records of a stream that completed; nothing in them is void."""

    @abstractmethod
    def error(self, error: ErrorInfo) -> Any:
        """The protocol's error object."""


def answering(exchange: Exchange, stream: StreamInfo) -> str:
    """Who answers in a stream that is asked for again: the agent, and model, of its first Call, which begins its log.

    Empty while there is none.
    """
    log = exchange.server.scheduler.log(stream.stream_id, owner=exchange.owner)
    try:
        records = log.read(0)
    except LogTrimmed:
        records = log.digest()
    first = next(iter(records), None)
    if not isinstance(first, CallStarted):
        return ""
    return first.agent if first.model is None else f"{first.agent}/{first.model}"


def check_numbers(request: Request) -> None:
    """Raise InvalidRequest for a number that means nothing to a model, and that a store may not be able to keep."""
    for name, least, most in _NUMBERS:
        value = getattr(request, name)
        if value is not None and not least <= value <= most:
            raise InvalidRequest(f"{name} must be from {least} to {most}")


_NUMBERS: Final = (
    ("max_tokens", 1, 2**53), ("seed", -(2**63), 2**63 - 1), ("temperature", 0, 10**9), ("top_p", 0, 10**9),
)  # fmt: skip


def check_count(count: Any) -> None:
    """Raise InvalidRequest for ``n``, how many answers are wanted, if that is not one."""
    if count is not None and (isinstance(count, bool) or count != 1):
        raise InvalidRequest("n must be 1: a request gets one answer; ask again for another")


def json_object(body: bytes) -> dict[str, Any]:
    """A request's body. Raises Problem if it is no JSON object."""
    return decoded(body, dict[str, Any])
