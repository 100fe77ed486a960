"""Agents that ask a provider over HTTP: settings, keys, TLS, proxies, and one exchange from request to outcome.

Foreign failures become this project's errors here and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias, TypedDict, Unpack

import msgspec

from .. import __about__
from ..errors import ErrorInfo, InvalidConfiguration, InvalidOption, agent_error
from ..records import Interrupted, Record
from ..request import Request
from ..task import Timeouts
from ..wire.decoder import StreamDecoder
from ..wire.failure import redact
from .address import Address, Tls
from .base import ErrorMode, LeafAgent, Source
from .connection import BadResponse, ConnectError, Connection, Cut, Origin, Pool, pool
from .context import Context

__all__ = ["Auth", "HttpAgent", "HttpSettings", "Secret"]

Auth: TypeAlias = Callable[[], Awaitable[str]]
"""An async callable that gives a token; asked before each request, so that a token may expire."""

_ERROR_BODY: Final = 64 * 1024  # bytes of an error answer that are looked at


class Secret:
    """A key that does not show itself: ``repr``, ``str``, logs and errors have stars."""

    __slots__ = ("_value",)

    def __init__(self, value: str, source: str) -> None:
        if not value.isascii() or not value.isprintable() or " " in value:
            raise InvalidConfiguration(
                f"the key from {source} is malformed: a key has no spaces, line ends or non-ASCII characters"
            )
        self._value = value

    def reveal(self) -> str:
        """The key itself, for a request's header."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"


class HttpSettings(TypedDict, total=False):
    """The keywords that every HTTP agent takes, beside ``api_key``, ``model`` and ``base_url``.

    ``auth``: an async callable that gives the token, instead of a key. ``headers``: more headers for every request.
    ``ca``: a file of CA certificates to trust instead of the system's. ``client_cert``: a PEM file, or (certificate,
    key) files. ``proxy``: a proxy's URL; the default is the environment's (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY,
    NO_PROXY), "" is none. ``max_concurrent``: Calls at once inside a scheduler. ``max_response_bytes``: of one answer.
    ``defaults``: options for every call.
    """

    name: str
    max_concurrent: int
    timeouts: Timeouts | None
    errors: ErrorMode
    auth: Auth | None
    headers: Mapping[str, str] | None
    ca: str | None
    client_cert: str | tuple[str, str] | None
    proxy: str | None
    max_response_bytes: int
    defaults: Mapping[str, Any] | None


class _Settings(msgspec.Struct, kw_only=True):
    name: str | None = None
    max_concurrent: int = 20
    timeouts: Timeouts | None = None
    errors: ErrorMode = "marker"
    auth: Auth | None = None
    headers: Mapping[str, str] | None = None
    ca: str | None = None
    client_cert: str | tuple[str, str] | None = None
    proxy: str | None = None
    max_response_bytes: int = 64 * 1024 * 1024
    defaults: Mapping[str, Any] | None = None


class HttpAgent(LeafAgent):
    """The base of the agents that speak to a provider over HTTP."""

    default_name: ClassVar[str]
    default_model: ClassVar[str | None] = None
    default_base_url: ClassVar[str | None] = None
    key_variable: ClassVar[str | None] = None
    base_url_variable: ClassVar[str | None] = None
    needs_key: ClassVar[bool] = True

    def __init__(
        self,
        api_key: str | None = None,
        *,
        model: str | None = None,
        base_url: str | None = None,
        **settings: Unpack[HttpSettings],
    ) -> None:
        try:
            chosen = _Settings(**settings)
        except TypeError as error:
            raise InvalidOption(f"{type(self).__name__}: {error}") from None
        if isinstance(chosen.max_concurrent, bool) or not isinstance(chosen.max_concurrent, int) or chosen.max_concurrent < 1:
            raise InvalidOption(f"max_concurrent must be a whole number from 1, not {chosen.max_concurrent!r}")
        if chosen.errors not in ("marker", "raise"):
            raise InvalidOption(f"errors must be 'marker' or 'raise', not {chosen.errors!r}")
        self.name = chosen.name or self.default_name
        self.model = model or self.default_model
        self.max_concurrent = chosen.max_concurrent
        self.timeouts = chosen.timeouts
        self.errors = chosen.errors
        self._settings = chosen
        self._key = self._find_key(api_key)
        self.base_url = self._find_base_url(base_url)
        self._address = Address.parse(self.base_url, f"{type(self).__name__}: base_url")
        self._tls = Tls(ca=chosen.ca, client_cert=chosen.client_cert)
        self._headers = _checked_headers(chosen.headers or {})
        self._pools: set[Pool] = set()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r}, base_url={self._address.shown!r})"

    # --- what a protocol's agent says -----------------------------------------------------------------------------

    @abstractmethod
    def _exchange(self, request: Request) -> tuple[str, dict[str, Any], StreamDecoder]:
        """The path below base_url, the body, and the decoder for the answer. Raises CallerError for what cannot be sent."""

    def _key_headers(self, key: str) -> Mapping[str, str]:
        """The headers that carry an API key. A token from ``auth`` is always sent as a bearer token."""
        return {"authorization": f"Bearer {key}"}

    @abstractmethod
    def _decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        """What a non-200 answer means."""

    def _extra_headers(self, request: Request) -> Mapping[str, str]:  # noqa: ARG002
        """More headers of the protocol."""
        return {}

    # --- the public part ------------------------------------------------------------------------------------------

    @property
    def key_missing(self) -> str | None:
        """What is missing before this agent can be used, as a sentence; None if nothing is."""
        if not self.needs_key or self._key is not None or self._settings.auth is not None:
            return None
        variable = f" or set {self.key_variable}" if self.key_variable else ""
        return f"no API key: pass api_key={variable}"

    def request(self, prompt: Any, **options: Any) -> Request:
        defaults = self._settings.defaults
        return super().request(prompt, **({**defaults, **options} if defaults else options))

    async def aclose(self) -> None:
        pools, self._pools = self._pools, set()
        running = asyncio.get_running_loop()
        for used in pools:
            if used.loop is running:
                await used.leave(self)

    # --- one exchange ---------------------------------------------------------------------------------------------

    def _model(self, request: Request) -> str | None:
        return request.model or self.model

    async def _open(self, request: Request, ctx: Context) -> Source:
        missing = self.key_missing
        if missing is not None:
            raise agent_error(ErrorInfo("authentication_error", missing))
        path, body, decoder = self._exchange(request)
        payload = msgspec.json.encode(body)
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "accept-encoding": "identity",  # small pieces gain nothing, and a bomb cannot be sent by accident
            "user-agent": f"multi-agent-scheduler/{__about__.VERSION}",
            **await self._credentials(),
            **self._extra_headers(request),
            **ctx.trace,
            **self._headers,
        }
        origin, target = self._address.route(path, self._settings.proxy, self._tls)
        head = _head(target, origin, headers, len(payload))
        limits = self._limits(ctx)
        used = pool()
        if used not in self._pools:
            await used.use(self)
            self._pools.add(used)
        connection = await _exchanged(used, origin, head, payload, limits.connect)
        source = HttpSource(used, origin, connection, decoder, self._settings.max_response_bytes)
        try:
            await source.begin(self._decode_error)
        except BaseException:
            await source.aclose()
            raise
        return source

    async def _credentials(self) -> Mapping[str, str]:
        if self._settings.auth is not None:
            token = Secret(await self._settings.auth(), "auth()").reveal()
            return {"authorization": f"Bearer {token}"}
        return self._key_headers(self._key.reveal()) if self._key is not None else {}

    def _find_key(self, given: str | None) -> Secret | None:
        if given is not None and not isinstance(given, str):
            raise InvalidConfiguration(f"{type(self).__name__}: api_key must be a string, not {type(given).__name__}")
        if given:
            return Secret(given, "api_key")
        value = os.environ.get(self.key_variable, "") if self.key_variable else ""
        return Secret(value, str(self.key_variable)) if value else None

    def _find_base_url(self, given: str | None) -> str:
        url = given or (os.environ.get(self.base_url_variable) if self.base_url_variable else None) or self.default_base_url
        if not url:
            raise InvalidConfiguration(f"{type(self).__name__} needs base_url=, the address of the endpoint")
        return url


class HttpSource(Source):
    """One answer over one connection."""

    def __init__(
        self, used: Pool, origin: Origin, connection: Connection, decoder: StreamDecoder, limit: int
    ) -> None:
        self._pool = used
        self._origin = origin
        self._connection = connection
        self._decoder = decoder
        self._left = limit
        self._unzip: Any = None
        self._failure: ErrorInfo | None = None

    @property
    def response_id(self) -> str | None:  # type: ignore[override]
        return self._decoder.response_id

    @property
    def model(self) -> str | None:  # type: ignore[override]
        return self._decoder.model

    async def begin(self, decode_error: Callable[[int, Mapping[str, str], bytes], ErrorInfo]) -> None:
        """Look at the head of the answer; raises AgentError unless the body can be decoded."""
        headers = await self._connection.head()
        request_id = headers.get("x-request-id") or headers.get("request-id") or headers.get("x-goog-request-id")
        self.request_id = redact(request_id) if request_id else None
        status = self._connection.status
        if 300 <= status < 400:
            where = redact(headers.get("location", "nowhere"))
            problem = f"the provider redirected the request (to {where}); redirects are not followed: set base_url"
            raise agent_error(ErrorInfo("invalid_request_error", problem, status=status, request_id=self.request_id))
        self._choose_coding(headers.get("content-encoding", "").strip().lower())
        if status != 200:
            body = await self._error_body()
            info = decode_error(status, headers, body)
            raise agent_error(info if info.request_id else msgspec.structs.replace(info, request_id=self.request_id))

    def _choose_coding(self, coding: str) -> None:
        if coding in ("", "identity"):
            return
        if coding not in ("gzip", "x-gzip", "deflate"):
            problem = f"the answer is compressed as {redact(coding)!r}, which was not asked for"
            raise agent_error(ErrorInfo("protocol_error", problem, status=self._connection.status))
        self._unzip = zlib.decompressobj(zlib.MAX_WBITS | 32)

    async def _error_body(self) -> bytes:
        body = bytearray()
        try:
            while len(body) < _ERROR_BODY:
                data = await self._connection.read()
                if not data:
                    break
                for piece in self._plain(data):
                    body += piece
                    if len(body) >= _ERROR_BODY:
                        break
        except (Cut, BadResponse, zlib.error):
            pass  # the status tells enough
        return bytes(body[:_ERROR_BODY])

    async def next(self) -> Sequence[Record]:
        decoder = self._decoder
        try:
            data = await self._connection.read()
        except (Cut, ConnectError, BadResponse) as error:
            return self._cut(str(error))
        if self._failure is not None:
            raise agent_error(self._failure)
        if not data:
            return decoder.close()
        self._left -= len(data)
        if self._left < 0:
            raise agent_error(_too_large())
        if self._unzip is None:
            return decoder.feed(data)
        return self._decompressed(data)

    def _decompressed(self, data: bytes) -> Sequence[Record]:
        records: list[Record] = []
        try:
            for piece in self._plain(data):
                self._left -= len(piece)
                if self._left < 0:
                    raise agent_error(_too_large())
                records += self._decoder.feed(piece)
                if self._decoder.done:
                    break
        except zlib.error:
            raise agent_error(ErrorInfo("protocol_error", "the answer's compression is broken")) from None
        return records

    def _plain(self, data: bytes) -> Any:
        """The body's bytes without its content coding, in pieces of at most 64 KiB."""
        if self._unzip is None:
            yield data
            return
        while data:
            piece = self._unzip.decompress(data, 65536)
            if piece:
                yield piece
            data = self._unzip.unconsumed_tail
            if not piece and not data:
                return

    def _cut(self, reason: str) -> Sequence[Record]:
        if self._failure is not None:
            raise agent_error(self._failure)
        records = self._decoder.close()
        if records and isinstance(records[-1], Interrupted):
            info = records[-1].error
            records[-1] = Interrupted(msgspec.structs.replace(info, message=f"{info.message}: {reason}"))
        return records

    def fail(self, info: ErrorInfo) -> None:
        self._failure = info
        self._connection.fail(Cut(info.message))

    async def aclose(self) -> None:
        if self._decoder.done and self._failure is None:
            self._pool.release(self._origin, self._connection)
        else:
            self._pool.discard(self._connection)


def _too_large() -> ErrorInfo:
    return ErrorInfo("response_too_large", "the answer is larger than max_response_bytes allows")


async def _exchanged(
    used: Pool, origin: Origin, head: bytes, payload: bytes, connect: float | None
) -> Connection:
    """A connection on which the request was sent and an answer has begun.

    An idle connection that the server closes just as it is used is replaced once by a fresh one: nothing had come
    back, so nothing was lost (RFC 9112, 9.3.1).
    """
    connection, reused = await _acquired(used, origin, connect, fresh=False)
    while True:
        try:
            await connection.send(head, payload)
            await connection.head()
        except ConnectError as error:
            used.discard(connection)
            if not reused:
                raise agent_error(ErrorInfo("connection_error", str(error), retryable=True)) from None
            connection, reused = await _acquired(used, origin, connect, fresh=True)
        except Cut as error:
            used.discard(connection)
            raise agent_error(ErrorInfo("interrupted", str(error), retryable=True)) from None
        except BadResponse as error:
            used.discard(connection)
            raise agent_error(ErrorInfo("protocol_error", redact(str(error)))) from None
        except BaseException:
            used.discard(connection)
            raise
        else:
            return connection


async def _acquired(used: Pool, origin: Origin, connect: float | None, *, fresh: bool) -> tuple[Connection, bool]:
    deadline = asyncio.timeout(connect)
    try:
        async with deadline:
            return await used.acquire(origin, fresh=fresh)
    except ConnectError as error:
        raise agent_error(ErrorInfo("connection_error", redact(str(error)), retryable=True)) from None
    except TimeoutError:
        if not deadline.expired():
            raise
        problem = f"no connection within the connect limit of {connect:g} s"
        raise agent_error(ErrorInfo("timeout_error", problem, retryable=True)) from None


def _head(target: str, origin: Origin, headers: Mapping[str, str], length: int) -> bytes:
    default = 443 if origin.scheme == "https" else 80
    host = origin.authority if origin.port != default else origin.authority.rpartition(":")[0]
    lines = [f"POST {target} HTTP/1.1", f"host: {host}", f"content-length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if origin.proxy is not None and origin.scheme == "http" and origin.proxy[2]:
        lines.append(f"proxy-authorization: {origin.proxy[2]}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not name or not _TOKEN.issuperset(name):
            raise InvalidConfiguration(f"headers: {name!r} is not the name of a header")
        if name.lower() in _FRAMING:
            raise InvalidConfiguration(f"headers: {name} is set by the connection itself")
        if not isinstance(value, str) or any(char in value for char in "\r\n\0"):
            raise InvalidConfiguration(f"headers: the value of {name} must be a string on one line")
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise InvalidConfiguration(f"headers: the value of {name} has characters outside Latin-1") from None
        checked[name.lower()] = value
    return checked
