"""One HTTP/1.1 connection, for answers that stream (RFC 9110, RFC 9112).

Why not a ready client: a chunk of an answer costs a third less than with the common clients, nothing that was received
is thrown away when a connection breaks, and a stop closes the socket at once (docs/decisions/0001-own-http-client.md).
The parsing is llhttp's (``httptools``); connecting, TLS and DNS are asyncio's.

Foreign errors leave this module as :class:`ConnectError` (nothing was received), :class:`Cut` (the answer ended early)
or :class:`BadResponse` (what came is not HTTP, or its head is too large).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from .moderation import Moderation

if TYPE_CHECKING:
    import ssl

__all__ = ["READ_SIZE", "BadResponse", "ConnectError", "Connection", "Cut", "Origin", "Proxy", "Untrusted"]

READ_SIZE: Final = 64 * 1024  # bytes that are read from a socket at once
_HEAD_LIMIT: Final = 128 * 1024  # bytes of a head, of trailers, of anything in an answer that is not its body
_ENOUGH: Final = 4 * 1024  # bytes that do not wait for more, however busy the loop is
_HIGH_WATER: Final = 256 * 1024  # bytes that wait for the reader before reading from the socket pauses


class ConnectError(Exception):
    """No connection, or it closed before anything came back."""


class Untrusted(ConnectError):
    """The server's certificate was not accepted: trying again would not help."""


class Cut(Exception):
    """The connection ended before the answer did. All that came before is given out first."""


class BadResponse(Exception):
    """The bytes are no HTTP response, or its head is too large."""


class Proxy(NamedTuple):
    """A proxy to go through; ``auth`` is the value of Proxy-Authorization."""

    host: str
    port: int
    auth: str | None = None

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"


class Origin(NamedTuple):
    """Where a connection leads; connections are shared between requests of the same origin only."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None
    tls: ssl.SSLContext | None = None

    @property
    def authority(self) -> str:
        """``host:port``, as the target of a CONNECT wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Connection(asyncio.BufferedProtocol):
    """One connection; one exchange at a time.

    :meth:`send` a request, wait for its :meth:`head`, then :meth:`take` what came of the body, waiting for an
    :meth:`arrival` whenever there is nothing yet. An owner may :meth:`close` at any time. ``buffer`` is where reads
    go; connections of one loop can share one, because each read is taken out of it before the next. ``moderation`` is
    the loop's.
    """

    __slots__ = (
        "_aside",
        "_buffer",
        "_chunks",
        "_complete",
        "_error",
        "_head_done",
        "_headers",
        "_held",
        "_keep_alive",
        "_loop",
        "_lost",
        "_moderation",
        "_parser",
        "_paused",
        "_received",
        "_transport",
        "_until_close",
        "_waiter",
        "_waits",
        "_write_paused",
        "on_body",
        "on_settled",
        "patient",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: memoryview, moderation: Moderation) -> None:
        self._loop = loop
        self._moderation = moderation
        self._waits = False  # what came waits for more
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._lost = False
        self._write_paused = False
        self._chunks: list[bytes] = []
        self.on_body = self._chunks.append  # called by the parser for each piece of the body
        self.on_settled: Callable[[Connection], None] | None = None
        """Called once the message is complete or the connection lost, for an owner that no longer reads."""
        self._renew()

    def reset(self) -> None:
        """Forget the last exchange, before the next :meth:`send`."""
        self._headers: dict[str, str] = {}
        self._chunks.clear()
        self._held = 0
        self._aside = 0  # bytes that came since the last of the body: head, framing, trailers
        self._head_done = False
        self._until_close = False
        self._complete = False
        self._keep_alive = False
        self._received = False
        self._paused = False
        self.patient = False
        """Its reader can wait a little for more: it has had the first content of the answer."""
        self.status = 0

    def _renew(self) -> None:
        import httptools

        self.reset()
        self._parser: Any = httptools.HttpResponseParser(self)

    # --- what asyncio calls ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are of no class of asyncio's
        opened = transport.get_extra_info("socket")
        if opened is not None and opened.family in (socket.AF_INET, socket.AF_INET6):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._complete or self._parser is None:  # bytes that nobody asked for: the connection is of no more use
            self.close()
            return
        self._received = True
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except Exception as error:  # noqa: BLE001 - the parser's own family, and what our callbacks raise inside it
            self._break(_garbled(error))
            return
        if self._chunks:
            self._held += nbytes
            self._aside = 0
            if self._held > _HIGH_WATER and not self._paused and self._transport is not None:
                self._transport.pause_reading()
                self._paused = True
        else:
            self._aside += nbytes
            if self._aside > _HEAD_LIMIT:
                where = "the framing of the answer" if self._head_done else "the head of the answer"
                self._break(BadResponse(f"{where} passed {_HEAD_LIMIT} bytes"))
                return
        if self._head_done and not self._waits_for_more():
            self._wake()

    def _waits_for_more(self) -> bool:
        """Whether a small piece is given out with those behind it, because the loop is busy."""
        if self._complete or self._held >= _ENOUGH or not self.patient:
            return False
        if not self._waits and self._waiter is not None:
            self._waits = self._moderation.hold(self._waited)
        return self._waits

    def _waited(self) -> None:
        self._waits = False
        self._wake()

    def eof_received(self) -> bool:
        self._ended(None)
        return False  # close our side too

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self._lost = True
        self._parser = None  # it holds methods of this object: no cycle is left for the collector
        self._settle()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake()

    # --- what the parser calls ------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:  # trailers say nothing that is needed
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        if self._complete:
            raise BadResponse("a second answer followed the first")
        self.status = self._parser.get_status_code()
        if self.status < 200:  # RFC 9110, 15.2: interim answers precede the real one
            if self.status == 101:
                raise BadResponse("the server switched protocols, which it was not asked to do")
            return
        coding = self._headers.get("transfer-encoding", "").lower()
        if coding not in ("", "chunked"):
            raise BadResponse("the answer has a transfer coding that was not asked for")
        self._head_done = True
        framed = coding or "content-length" in self._headers
        self._until_close = not framed and self.status not in (204, 304)

    def on_message_complete(self) -> None:
        if not self._head_done:  # an interim answer ended
            self._headers.clear()
            return
        self._complete = True
        self._keep_alive = bool(self._parser.should_keep_alive()) and not self._until_close
        self._settle()

    # --- what an owner calls --------------------------------------------------------------------------------------

    async def send(self, head: bytes, body: bytes) -> None:
        """Write a request; returns when the transport has taken it, or as soon as an answer to what it took is there.

        Raises :class:`ConnectError` if the server closed first.
        """
        transport = self._transport
        if transport is None or self._lost or transport.is_closing():
            raise ConnectError("the server closed the connection")
        if len(body) < READ_SIZE:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        while self._write_paused and not (self._head_done or self._error or self._lost):
            await self.arrival()

    async def head(self) -> Mapping[str, str]:
        """The headers of the answer, names in lower case; ``status`` is set then. Raises as the module says.

        They are given out once: an answer may take long, and nothing more is asked of them.
        """
        while not self._head_done:
            if self._error is not None:
                raise self._error
            await self.arrival()
        headers, self._headers = self._headers, {}
        return headers

    def take(self) -> bytes | None:
        """What came of the body since the last call; ``b""`` is its end, None that nothing is there yet.

        Raises as the module says, but only after all that came has been taken.
        """
        chunks = self._chunks
        if chunks:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self._held = 0
            if self._paused:
                self._paused = False
                if self._transport is not None and not self._lost:
                    self._transport.resume_reading()
            return data
        if self._complete:
            return b""
        if self._error is not None:
            raise self._error
        return None

    def arrival(self) -> asyncio.Future[None]:
        """Done when something has happened: the caller then looks again. One waits at a time."""
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def fail(self, error: Exception) -> None:
        """End the exchange from outside, for a time limit: what waits raises ``error``, and the socket is closed."""
        self._break(error)

    def close(self) -> None:
        """Close the socket now. Safe to call at any time, from any state."""
        self._keep_alive = False
        transport = self._transport
        if transport is None or self._lost:
            return
        opened = transport.get_extra_info("socket")
        if opened is not None and opened.fileno() >= 0:
            # abort() closes in the loop's next round, and a process that was forked off may hold the socket open:
            # this ends the connection at once, and for all of them. (uvloop's sockets have no shutdown of their own.)
            plain = socket.socket(fileno=opened.fileno())
            with suppress(OSError):  # not connected any more
                plain.shutdown(socket.SHUT_RDWR)
            plain.detach()
        transport.abort()

    def drop_body(self) -> None:
        """Throw away what came and was not taken."""
        self._chunks.clear()
        self._held = 0

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Go on inside TLS, after a proxy opened a tunnel. Raises OSError."""
        assert self._transport is not None
        transport = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        if transport is None:
            raise ConnectionResetError("the proxy closed the tunnel")
        self._transport = transport
        self._renew()  # a parser that saw the answer to CONNECT would take all that follows for its body

    @property
    def lost(self) -> bool:
        """The socket is closed."""
        return self._lost

    @property
    def complete(self) -> bool:
        """The whole message was received."""
        return self._complete

    @property
    def reusable(self) -> bool:
        """Another request may be sent on this connection."""
        return (
            self._complete
            and self._keep_alive
            and not (self._lost or self._chunks or self._write_paused)
            and self._transport is not None
            and not self._transport.is_closing()
        )

    # --- inside ---------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _settle(self) -> None:
        settled = self.on_settled
        if settled is not None:
            self.on_settled = None
            settled(self)

    def _ended(self, exc: Exception | None) -> None:
        self._keep_alive = False
        if not self._complete and self._error is None:
            if self._head_done and self._until_close and exc is None:
                self._complete = True
            elif not self._received:
                self._error = ConnectError(_reason(exc, "the server closed the connection without an answer"))
            else:
                self._error = Cut(_reason(exc, "the connection closed in the middle of the answer"))
        self._wake()

    def _break(self, error: Exception) -> None:
        if self._error is None and not self._complete:
            self._error = error
        self.close()
        self._wake()


def _garbled(error: Exception) -> BadResponse:
    inner = error.__context__  # the parser wraps what a callback raised
    if isinstance(inner, BadResponse):
        return inner
    return BadResponse(f"what came is not an HTTP answer ({error})")


def _reason(exc: Exception | None, otherwise: str) -> str:
    if exc is None:
        return otherwise
    said = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or type(exc).__name__
    return f"{otherwise} ({said})"
