"""One request and its answer: reading within bounds, and answering."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from ..scheduling.budget import Budget
from .access import NOBODY, REVOKED
from .face import Answer, Headers
from .problem import Problem
from .relay import Direct, Message, Send

if TYPE_CHECKING:
    from .answering import Reading
    from .app import Server

__all__ = ["DIRECT", "Exchange", "path_of"]

_T = TypeVar("_T")

DIRECT: Final = "multi_agent_scheduler.direct"
"""The ASGI extension that holds a :class:`~.relay.Direct`."""

_PARAMETERS: Final = 100
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE_CHARACTERS: Final = 512
_json: Final = msgspec.json.Encoder()


class Exchange:
    """A request, and the way to answer it. ``server`` is all that the handlers share."""

    __slots__ = (
        "_query",
        "_receive",
        "answer_headers",
        "answered",
        "caller",
        "direct",
        "headers",
        "method",
        "parameters",
        "path",
        "reading",
        "request_id",
        "route",
        "scope",
        "send",
        "server",
        "status",
        "written",
    )

    def __init__(
        self, server: Server, scope: Mapping[str, Any], receive: Callable[[], Awaitable[Message]], send: Send
    ) -> None:
        self.server = server
        self.scope = scope
        self.send = send
        self._receive = receive
        self.method: str = scope["method"]
        self.path = path_of(scope)
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._query: dict[str, str] | None = None
        self.direct: Direct | None = scope.get("extensions", {}).get(DIRECT)
        """The short way to the connection, where this is this project's own server process."""
        self.parameters: dict[str, str] = {}
        """What the path's places hold."""
        self.route = ""
        """The path of the route that was found."""
        self.caller = NOBODY
        self.answer_headers: Headers = ()
        """Sent with every answer."""
        self.request_id = ""
        self.status = 0
        self.written = 0
        self.answered = False
        self.reading: Reading | None = None
        """What is still to be waited for."""

    def header(self, name: bytes) -> str:
        """A field of the request, by its name in lower case; empty if there is none."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def owner(self) -> str:
        """Whose request it is: every look-up of a stream names it."""
        return self.caller.owner

    @property
    def trace(self) -> dict[str, str] | None:
        """The fields that tell which trace the request belongs to (W3C Trace Context), for the providers that it leads
        to; None if there are none, or nonsense."""
        parent = self.header(b"traceparent")
        if not _TRACEPARENT.fullmatch(parent):
            return None
        state = self.header(b"tracestate")
        if not state or len(state) > _TRACESTATE_CHARACTERS or not (state.isascii() and state.isprintable()):
            return {"traceparent": parent}
        return {"traceparent": parent, "tracestate": state}

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; of one that is given twice, the last. Raises Problem 400 for too many."""
        if self._query is None:
            said = self.scope.get("query_string", b"").decode("latin-1")
            try:
                self._query = dict(parse_qsl(said, keep_blank_values=True, max_num_fields=_PARAMETERS))
            except ValueError:
                raise Problem(400, f"the query has more than {_PARAMETERS} parameters") from None
        return self._query

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number of the query. Raises Problem 400 for what is none, or out of range."""
        said = self.query.get(name)
        if said is None:
            return default
        number = int(said[:20]) if said.isascii() and said.isdigit() else -1
        if not least <= number <= most:
            raise Problem(400, f"{name} must be a whole number from {least} to {most}, not {said[:100]!r}")
        return number

    def spend(self) -> None:
        """Count a request that starts something. Raises Problem 429 if the key may start no more now, and 401 if it was
        revoked while the request came."""
        if not self.server.access.stands(self.caller):
            raise Problem(401, REVOKED.detail)
        key = self.caller.key
        if key is not None and key.limits.cost is not None:
            self.server.scheduler.set_budget(key.owner, Budget(cost=key.limits.cost))
        self.caller.quota.take(asyncio.get_running_loop().time())

    # --- reading --------------------------------------------------------------------------------------------------

    async def body(self) -> bytes:
        """The whole body. Raises Problem: 413 if it is too large, 408 if it does not come, 415 if it is no JSON."""
        kind = self.header(b"content-type").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            said = f"not {kind[:100]!r}" if kind else "and the request has no content-type"
            raise Problem(415, f"the body must be application/json, {said}")
        settings = self.server.settings
        length = self.header(b"content-length")
        if length.isascii() and length.isdigit() and int(length[:20]) > settings.max_body:
            raise Problem(413, f"the body is larger than {settings.max_body} bytes")
        try:
            async with asyncio.timeout(settings.body_timeout):
                return await self._body(settings.max_body)
        except TimeoutError:
            closing = ((b"connection", b"close"),)
            raise Problem(408, f"the body did not come within {settings.body_timeout:g} s", headers=closing) from None

    async def _body(self, limit: int) -> bytes:
        message = await self._receive()
        first = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body") and len(first) <= limit:
            return bytes(first)
        pieces, size = [first], len(first)
        while message["type"] == "http.request" and message.get("more_body"):
            message = await self._receive()
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > limit:
                raise Problem(413, f"the body is larger than {limit} bytes", headers=((b"connection", b"close"),))
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client left before its request was complete")
        return b"".join(pieces)

    async def decoded(self, kind: type[_T]) -> _T:
        """The body as a ``kind``. Raises Problem, naming the place in the JSON."""
        return decoded(await self.body(), kind)

    async def gone(self) -> None:
        """Return when the client has left, or the response is complete."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # --- answering ------------------------------------------------------------------------------------------------

    async def answer(self, answer: Answer) -> None:
        """Send a whole response; to a HEAD without its body."""
        headers = [(b"content-type", answer.content_type), *answer.headers, *self.own_headers()]
        if answer.status == 204:
            del headers[0]
        else:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await self._whole(answer.status, headers, b"" if self.method == "HEAD" else answer.body)

    async def answer_head(self, headers: Headers) -> None:
        """Send what a response begins with, and nothing of it: it has no end that could be told beforehand."""
        await self._whole(200, headers, b"")

    async def _whole(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self.answered, self.written = status, True, len(body)
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await self.send({"type": "http.response.body", "body": body})

    async def json(self, value: Any, status: int = 200, headers: Headers = ()) -> None:
        """Send a value as JSON."""
        await self.answer(Answer(status, _json.encode(value), headers=((b"cache-control", b"no-store"), *headers)))

    def own_headers(self) -> Headers:
        """The fields that every answer to this request has."""
        quota = self.caller.quota.headers(asyncio.get_running_loop().time())
        return ((b"x-request-id", self.request_id.encode("ascii")), *self.answer_headers, *quota)


def path_of(scope: Mapping[str, Any]) -> str:
    """The path within this application, wherever it is mounted: an ASGI path includes the ``root_path``."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def decoded(body: bytes, kind: type[_T]) -> _T:
    """JSON as a ``kind``. Raises Problem for what is no JSON, is nested too deep, or does not fit."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Problem(400, f"the body does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, f"the body is no valid JSON: {error}") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deep") from None
