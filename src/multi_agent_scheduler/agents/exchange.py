"""One exchange with a provider: a request goes out, and an answer is turned into records as it comes.

Failures of the connection become this project's errors here and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from ..errors import AgentError, ErrorInfo, agent_error
from ..records import Failed, Interrupted, Record, is_content
from ..scheduling.provider import ProviderState
from ..wire.decoder import StreamDecoder
from ..wire.quota import provider_state
from ..wire.redaction import redact, scrubbed, without
from .base import Source
from .call import Deadline
from .connection import BadResponse, ConnectError, Connection, Cut, Origin, Untrusted
from .credentials import Secret
from .pool import Pool

__all__ = ["Exchange", "HttpSource", "answered", "head_of"]

_ERROR_BODY: Final = 64 * 1024  # bytes of an error answer that are looked at
_PIECE: Final = 64 * 1024  # bytes that are decompressed at once


class Exchange(msgspec.Struct, kw_only=True):
    """Everything about a request that is known before it is sent."""

    origin: Origin
    target: str
    payload: bytes
    decoder: StreamDecoder
    decode_error: Callable[[int, Mapping[str, str], bytes], ErrorInfo]
    limit: int
    """The most bytes that the answer's body may have, before and after decompression."""
    secrets: tuple[Secret, ...] = ()
    """What must not appear in an error, whoever wrote it."""
    heard: ProviderState | None = None
    """What the provider says of its limits, once its answer has begun."""

    @property
    def shown(self) -> str:
        """Where it goes, for people: without a query, which may hold a key."""
        path = self.target.partition("?")[0]
        return f"{self.origin.scheme}://{self.origin.authority}{path}" if path[0] == "/" else path

    @property
    def keys(self) -> list[str]:
        """The secrets themselves."""
        return [secret.reveal() for secret in self.secrets]


def head_of(exchange: Exchange, headers: Mapping[str, str]) -> bytes:
    """The head of the request. ``headers`` have been checked; the framing is added here."""
    origin = exchange.origin
    host = origin.authority
    if origin.port == (443 if origin.scheme == "https" else 80):
        host = host.rpartition(":")[0]
    lines = [f"POST {exchange.target} HTTP/1.1", f"host: {host}", f"content-length: {len(exchange.payload)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if origin.proxy is not None and origin.scheme == "http" and origin.proxy.auth:
        lines.append(f"proxy-authorization: {origin.proxy.auth}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def answered(used: Pool, exchange: Exchange, head: bytes, connect: float) -> HttpSource:
    """Send the request and wait for the head of the answer; raises :class:`AgentError` unless there is one to decode.

    An idle connection that the server closes just as it is used is replaced once by a fresh one: nothing had come
    back, so nothing was lost (RFC 9112, 9.3.1). ``connect`` is the limit for a new connection, in seconds.
    """
    try:
        connection, headers = await _begun(used, exchange, head, connect)
        exchange.payload = b""  # it may be large, and the answer may take long
        source = HttpSource(used, connection, exchange)
        try:
            await source.begin(headers)
        except BaseException:
            await source.aclose()
            raise
    except AgentError as error:
        raise agent_error(scrubbed(error.info, exchange.keys)) from None
    return source


async def _begun(used: Pool, exchange: Exchange, head: bytes, connect: float) -> tuple[Connection, Mapping[str, str]]:
    connection = used.idle(exchange.origin)
    while True:
        reused = connection is not None
        if connection is None:
            connection = await _connected(used, exchange.origin, connect)
        try:
            await connection.send(head, exchange.payload)
            return connection, await connection.head()
        except ConnectError as error:
            used.discard(connection)
            if not reused:
                raise agent_error(ErrorInfo("connection_error", redact(str(error)), retryable=True)) from None
            connection = None
        except Cut as error:
            used.discard(connection)
            raise agent_error(ErrorInfo("interrupted", redact(str(error)), retryable=True)) from None
        except BadResponse as error:
            used.discard(connection)
            raise agent_error(ErrorInfo("protocol_error", redact(str(error)))) from None
        except BaseException:
            used.discard(connection)
            raise


async def _connected(used: Pool, origin: Origin, connect: float) -> Connection:
    try:
        with Deadline("connect", connect):
            return await used.connect(origin)
    except ConnectError as error:
        again = not isinstance(error, Untrusted)
        raise agent_error(ErrorInfo("connection_error", redact(str(error)), retryable=again)) from None


class HttpSource(Source):
    """One answer over one connection."""

    def __init__(self, used: Pool, connection: Connection, exchange: Exchange) -> None:
        self._pool = used
        self._connection = connection
        self._exchange = exchange
        self._decoder = exchange.decoder
        self._left = exchange.limit  # bytes that the body may still have
        self._left_plain = exchange.limit  # and the same after decompression
        self._unzip: Any = None
        self._pieces: Iterator[bytes] | None = None  # what is left to decompress of the last read
        self._failure: ErrorInfo | None = None

    @property
    def response_id(self) -> str | None:  # type: ignore[override]
        return self._decoder.response_id

    @property
    def model(self) -> str | None:  # type: ignore[override]
        return self._decoder.model

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Look at the head of the answer; raises AgentError unless the body can be decoded."""
        status = self._connection.status
        self._exchange.heard = provider_state(headers, time.time())
        request_id = headers.get("x-request-id") or headers.get("request-id") or headers.get("x-goog-request-id")
        self.request_id = without(redact(request_id), self._exchange.keys) if request_id else None
        if 300 <= status < 400:
            where = redact(headers.get("location", "nowhere").partition("?")[0])
            problem = f"the provider redirected the request (to {where}); redirects are not followed: set base_url"
            raise agent_error(ErrorInfo("invalid_request_error", problem, status=status, request_id=self.request_id))
        coding = headers.get("content-encoding", "").strip().lower()
        known = coding in ("", "identity", "gzip", "x-gzip", "deflate")
        if coding not in ("", "identity") and known:
            self._unzip = zlib.decompressobj(zlib.MAX_WBITS | 32)
        if status != 200:
            body = await self._error_body() if known else b""
            info = self._exchange.decode_error(status, _dated(headers), body)
            raise agent_error(info if info.request_id else msgspec.structs.replace(info, request_id=self.request_id))
        if not known:
            problem = f"the answer is compressed as {redact(coding)!r}, which was not asked for"
            raise agent_error(ErrorInfo("protocol_error", problem, status=status, request_id=self.request_id))

    async def _error_body(self) -> bytes:
        body = bytearray()
        try:
            while len(body) < _ERROR_BODY and (data := await self._read()):
                for piece in self._plain(data):
                    body += piece
                    if len(body) >= _ERROR_BODY:
                        break
        except (Cut, BadResponse, zlib.error):
            pass  # the status tells enough
        return bytes(body[:_ERROR_BODY])

    async def _read(self) -> bytes:
        connection = self._connection
        data = connection.take()
        while data is None:
            await connection.arrival()
            data = connection.take()
        return data

    async def next(self) -> Sequence[Record]:
        # The loop of _read() is written out: this runs once for every chunk of every stream.
        connection, decoder = self._connection, self._decoder
        if self._pieces is not None:
            await asyncio.sleep(0)  # others first: a small read may be a great deal of events
            return self._decompressed()
        try:
            data = connection.take()
            while data is None:
                await connection.arrival()
                data = connection.take()
        except (Cut, ConnectError, BadResponse) as error:
            return self._cut(str(error))
        self._left -= len(data)
        if self._left < 0:
            raise agent_error(_too_large(self._exchange.limit))
        if self._unzip is not None and data:
            self._pieces = self._plain(data)
            return self._decompressed()
        records = decoder.feed(data) if data else decoder.close()
        if not connection.patient and any(map(is_content, records)):
            connection.patient = True
        if decoder.done:
            self._scrub(records)
        return records

    def _decompressed(self) -> list[Record]:
        """The records of the next piece: one at a time, so that what a read holds cannot block the loop for long."""
        assert self._pieces is not None
        records: list[Record] = []
        try:
            piece = next(self._pieces, None)
        except zlib.error:
            piece = None
            records.append(Failed(ErrorInfo("protocol_error", "the answer's compression is broken")))
        if piece is None:
            self._pieces = None
        else:
            self._left_plain -= len(piece)
            if self._left_plain < 0:
                records.append(Failed(_too_large(self._exchange.limit)))
            else:
                records = self._decoder.feed(piece)
        self._scrub(records)
        return records

    def _plain(self, data: bytes) -> Iterator[bytes]:
        """The body's bytes without its content coding, in pieces of at most 64 KiB."""
        if self._unzip is None:
            yield data
            return
        while data:
            piece = self._unzip.decompress(data, _PIECE)
            if piece:
                yield piece
            if self._unzip.eof:  # RFC 1952, 2.2: another member may follow
                data = self._unzip.unused_data
                self._unzip = zlib.decompressobj(zlib.MAX_WBITS | 32)
            else:
                data = self._unzip.unconsumed_tail
                if not piece and not data:
                    return

    def _cut(self, reason: str) -> Sequence[Record]:
        """The connection is gone: the outcome, unless the answer had been complete."""
        if self._failure is not None:
            raise agent_error(self._failure)
        records = self._decoder.close()
        if records:
            last = records[-1]
            # A body that is empty or broken JSON is so because it was cut.
            if isinstance(last, Interrupted) or (isinstance(last, Failed) and last.error.code == "protocol_error"):
                problem = f"the answer ended before its finish marker: {redact(reason)}"
                records[-1] = Interrupted(ErrorInfo("interrupted", problem, retryable=True))
        self._scrub(records)
        return records

    def _scrub(self, records: list[Record]) -> None:
        if records and isinstance(last := records[-1], Failed | Interrupted):
            error = scrubbed(last.error, self._exchange.keys)
            if error is not last.error:
                records[-1] = msgspec.structs.replace(last, error=error)

    def fail(self, info: ErrorInfo) -> None:
        self._failure = info
        self._connection.fail(Cut(info.message))

    async def aclose(self) -> None:
        connection = self._connection
        if self._failure is None and (self._decoder.done or connection.complete):
            self._pool.release(self._exchange.origin, connection)
        else:
            self._pool.discard(connection)


def _dated(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers with a date, by which a Retry-After that is one is read (RFC 9110, 6.6.1 and 10.2.3)."""
    if "date" in headers or "retry-after" not in headers:
        return headers
    from email.utils import formatdate  # slow to import, seldom needed

    return {**headers, "date": formatdate(time.time(), usegmt=True)}


def _too_large(limit: int) -> ErrorInfo:
    return ErrorInfo("response_too_large", f"the answer is larger than max_response_bytes allows ({limit} bytes)")
