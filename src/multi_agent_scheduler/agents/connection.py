"""HTTP/1.1 connections for answers that stream (RFC 9110, RFC 9112), and the pools that keep them.

Why not a ready client: a chunk of an answer costs a third of what the common clients spend on it, nothing that was
received is thrown away when a connection breaks, and a stop closes the socket at once (docs/decisions/0001). The
parsing is llhttp's (``httptools``); connecting, TLS and DNS are asyncio's.

This is the only module that opens a socket. Foreign errors leave it as :class:`ConnectError` (nothing was received),
:class:`Cut` (the body ended early) or :class:`BadResponse` (what came is not HTTP, or is too large).
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import InvalidConfiguration

if TYPE_CHECKING:
    import ssl

__all__ = ["BadResponse", "ConnectError", "Connection", "Cut", "Origin", "Pool", "Stalled", "pool"]

_HEAD_LIMIT: Final = 128 * 1024  # bytes of a response's head, trailers included
_HIGH_WATER: Final = 256 * 1024  # bytes of a body held before reading from the socket pauses
_READ_SIZE: Final = 64 * 1024
_IDLE_SECONDS: Final = 30.0  # shorter than the providers' own keep-alive, so that they seldom close first
_IDLE_PER_ORIGIN: Final = 256
_LINGER_SECONDS: Final = 1.0  # how long a finished answer's connection may take to end its message


class ConnectError(Exception):
    """No connection, or it closed before anything came back. ``reused`` says that an idle connection was tried."""


class Cut(Exception):
    """The connection ended before the message did. All that came before was given out."""


class BadResponse(Exception):
    """The bytes are no HTTP response, or its head is too large."""


class Stalled(Exception):
    """A waiting read was ended by :meth:`Connection.fail`."""


class Origin(NamedTuple):
    """Where a connection leads; connections are shared between requests of the same origin only."""

    scheme: str
    host: str
    port: int
    proxy: tuple[str, int, str | None] | None = None  # host, port, value of Proxy-Authorization
    tls: ssl.SSLContext | None = None

    @property
    def authority(self) -> str:
        """``host:port`` as a Host header or a CONNECT target wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Connection(asyncio.BufferedProtocol):
    """One connection; one exchange at a time: :meth:`send`, :meth:`head`, then :meth:`read` until it gives ``b""``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: memoryview) -> None:
        self._loop = loop
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._lost = False
        self._writable: asyncio.Future[None] | None = None
        self._on_idle: Callable[[Connection], None] | None = None
        self._reset()

    def _reset(self) -> None:
        import httptools

        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._head_done = False
        self._until_close = False
        self._complete = False
        self._keep_alive = False
        self._received = False
        self._chunks: list[bytes] = []
        self._held = 0
        self._paused = False
        self.status = 0

    # --- what asyncio calls ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._complete:  # bytes that nobody asked for: the connection is of no more use
            self.close()
            return
        self._received = True
        if not self._head_done:
            self._head_bytes += nbytes
            if self._head_bytes > _HEAD_LIMIT:
                self._break(BadResponse(f"the head of the answer passed {_HEAD_LIMIT} bytes"))
                return
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except Exception as error:  # noqa: BLE001 - httptools raises its own family, and what our callbacks raise
            self._break(error if isinstance(error, BadResponse) else BadResponse(f"not an HTTP response: {error}"))
            return
        if self._held > _HIGH_WATER and not self._paused and self._transport is not None:
            self._transport.pause_reading()
            self._paused = True
        if self._head_done:
            self._wake()

    def eof_received(self) -> bool:
        return False  # close our side too

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._keep_alive = False
        if not self._complete and self._error is None:
            if self._until_close and exc is None:
                self._complete = True
            elif not self._received:
                self._error = ConnectError(_reason(exc, "the server closed the connection without an answer"))
            else:
                self._error = Cut(_reason(exc, "the connection closed in the middle of the answer"))
        self._wake()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self._on_idle is not None:
            self._on_idle(self)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- what httptools calls -------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:  # trailers
            self._head_bytes += len(name) + len(value)
            if self._head_bytes > _HEAD_LIMIT:
                raise BadResponse(f"the trailers of the answer passed {_HEAD_LIMIT} bytes")
            return
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200 and self.status != 101:  # RFC 9110, 15.2: interim answers precede the real one
            return
        self._head_done = True
        framed = "content-length" in self._headers or "chunked" in self._headers.get("transfer-encoding", "").lower()
        self._until_close = not framed and self.status not in (204, 304)

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self._held += len(data)

    def on_message_complete(self) -> None:
        if not self._head_done:  # an interim answer ended
            self._headers.clear()
            return
        self._complete = True
        self._keep_alive = bool(self._parser.should_keep_alive()) and not self._until_close
        if self._on_idle is not None:
            self._on_idle(self)

    # --- what an agent calls --------------------------------------------------------------------------------------

    async def send(self, head: bytes, body: bytes) -> None:
        """Write a request; returns when the transport has taken it."""
        if self._transport is None or self._lost:
            raise ConnectError("the server closed the connection")
        self._transport.write(head + body if len(body) < _READ_SIZE else head)
        if len(body) >= _READ_SIZE:
            self._transport.write(body)
        if self._writable is not None:
            await self._writable

    async def head(self) -> Mapping[str, str]:
        """The headers of the answer, names in lower case; ``status`` is set. Raises as the module says."""
        while not self._head_done:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._headers

    async def read(self) -> bytes:
        """What came of the body since the last call, at least one byte; ``b""`` at its end."""
        while not self._chunks:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._held = 0
        if self._paused and self._transport is not None and not self._lost:
            self._transport.resume_reading()
            self._paused = False
        return data

    def fail(self, error: Exception) -> None:
        """End a read that is waiting (a time limit passed), and close."""
        self._break(error)

    def close(self) -> None:
        """Close the socket now. Safe to call at any time, from any state."""
        self._keep_alive = False
        if self._transport is not None and not self._lost:
            self._transport.abort()

    @property
    def complete(self) -> bool:
        """The whole message was received."""
        return self._complete

    @property
    def reusable(self) -> bool:
        """Another request may be sent on this connection."""
        return self._complete and self._keep_alive and not self._lost and not self._chunks

    async def _wait(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _break(self, error: Exception) -> None:
        if self._error is None and not self._complete:
            self._error = error
        self.close()
        self._wake()


def _reason(exc: Exception | None, otherwise: str) -> str:
    return otherwise if exc is None else f"{otherwise} ({exc.strerror if isinstance(exc, OSError) and exc.strerror else exc})"


class Pool:
    """The connections of one event loop. Closed with the loop, or when the last agent that uses it is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = self._loop = loop
        self._buffer = memoryview(bytearray(_READ_SIZE))  # shared: it is read out before the next socket is looked at
        self._idle: dict[Origin, list[tuple[float, Connection]]] = {}
        self._busy: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._users: set[int] = set()
        self._guard: AsyncGenerator[None, None] | None = None

    async def use(self, user: object) -> None:
        """Count an agent as a user of this pool until :meth:`leave`."""
        self._users.add(id(user))
        if self._guard is None:
            # asyncio.run() and friends finish the loop's asynchronous generators before they close it: this one
            # closes the sockets then, so that a script that never calls aclose() leaks nothing.
            self._guard = _closing(self)
            await self._guard.__anext__()

    async def leave(self, user: object) -> None:
        """An agent is done; the last one closes all connections."""
        self._users.discard(id(user))
        if not self._users:
            await self.aclose()

    async def acquire(self, origin: Origin, *, fresh: bool = False) -> tuple[Connection, bool]:
        """A connection to ``origin``, and whether it was used before. Raises :class:`ConnectError`."""
        idle = self._idle.get(origin)
        while idle and not fresh:
            _, connection = idle.pop()
            if connection.reusable:
                connection._on_idle = None
                connection._reset()
                self._busy.add(connection)
                return connection, True
        connection = await self._connect(origin)
        self._busy.add(connection)
        return connection, False

    def release(self, origin: Origin, connection: Connection) -> None:
        """Give a connection back: kept if its message is complete, given a moment to complete, closed otherwise."""
        self._busy.discard(connection)
        if connection.reusable:
            self._keep(origin, connection)
        elif connection.complete or connection._lost:
            connection.close()
        else:
            self._linger(origin, connection)

    def discard(self, connection: Connection) -> None:
        """Close a connection at once."""
        self._busy.discard(connection)
        connection.close()

    async def aclose(self) -> None:
        """Close every connection, busy ones too, and wait until the sockets are closed."""
        connections = [connection for idle in self._idle.values() for _, connection in idle]
        connections += self._busy
        _pools.pop(self._loop, None)
        self._idle.clear()
        self._busy.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in connections:
            connection._on_idle = None
            connection.close()
        if connections:
            await asyncio.sleep(0)  # abort() closes the sockets in the loop's next round
        guard, self._guard = self._guard, None
        if guard is not None and not guard.ag_running:
            await guard.aclose()

    def _keep(self, origin: Origin, connection: Connection) -> None:
        idle = self._idle.setdefault(origin, [])
        if len(idle) >= _IDLE_PER_ORIGIN:
            connection.close()
            return
        idle.append((self._loop.time(), connection))
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_IDLE_SECONDS / 2, self._sweep)

    def _linger(self, origin: Origin, connection: Connection) -> None:
        # The protocol's end marker came; the end of the HTTP message is usually one packet behind it.
        timer = self._loop.call_later(_LINGER_SECONDS, self.discard, connection)
        self._busy.add(connection)

        def settled(connection: Connection) -> None:
            connection._on_idle = None
            timer.cancel()
            self._busy.discard(connection)
            if connection.reusable:
                self._keep(origin, connection)
            else:
                connection.close()

        connection._chunks.clear()
        connection._on_idle = settled

    def _sweep(self) -> None:
        oldest = self._loop.time() - _IDLE_SECONDS
        self._sweeper = None
        for origin, idle in list(self._idle.items()):
            for since, connection in idle:
                if since <= oldest or not connection.reusable:
                    connection.close()
            idle[:] = [(since, connection) for since, connection in idle if since > oldest and connection.reusable]
            if not idle:
                del self._idle[origin]
        if self._idle:
            self._sweeper = self._loop.call_later(_IDLE_SECONDS / 2, self._sweep)

    async def _connect(self, origin: Origin) -> Connection:
        def make() -> Connection:
            return Connection(self._loop, self._buffer)

        host, port = (origin.proxy[0], origin.proxy[1]) if origin.proxy else (origin.host, origin.port)
        options: dict[str, Any] = {}
        if isinstance(self._loop, asyncio.BaseEventLoop) and not _is_address(host):
            options = {"happy_eyeballs_delay": 0.25, "interleave": 1}  # RFC 8305; uvloop has no such keywords
        if origin.tls is not None and origin.proxy is None:
            options |= {"ssl": origin.tls, "server_hostname": origin.host}
        try:
            _, connection = await self._loop.create_connection(make, host, port, **options)
        except OSError as error:  # ssl errors and getaddrinfo's are OSErrors too
            raise ConnectError(_explain(error, host, port)) from None
        except (UnicodeError, ValueError) as error:
            raise InvalidConfiguration(f"the host {host!r} cannot be connected to: {error}") from None
        if origin.proxy is not None and origin.tls is not None:
            await self._tunnel(origin, connection)
        return connection

    async def _tunnel(self, origin: Origin, connection: Connection) -> None:
        """Ask the proxy for a tunnel (RFC 9110, 9.3.6) and start TLS inside it."""
        assert origin.proxy is not None
        auth = f"Proxy-Authorization: {origin.proxy[2]}\r\n" if origin.proxy[2] else ""
        request = f"CONNECT {origin.authority} HTTP/1.1\r\nHost: {origin.authority}\r\n{auth}\r\n"
        try:
            await connection.send(request.encode("latin-1"), b"")
            await connection.head()
            if not 200 <= connection.status < 300:
                raise ConnectError(f"the proxy refused the tunnel with status {connection.status}")
            assert connection._transport is not None
            assert origin.tls is not None
            connection._reset()
            transport = await self._loop.start_tls(
                connection._transport, connection, origin.tls, server_hostname=origin.host
            )
            if transport is None:
                raise ConnectError("the proxy closed the tunnel")
            connection.connection_made(transport)
        except (OSError, Cut, BadResponse) as error:
            connection.close()
            raise ConnectError(f"no tunnel through the proxy {origin.proxy[0]}:{origin.proxy[1]}: {error}") from None
        except BaseException:
            connection.close()
            raise


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _explain(error: OSError, host: str, port: int) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host {host!r} could not be found"
    if type(error).__name__ == "SSLCertVerificationError":
        return f"the certificate of {host}:{port} was not accepted ({getattr(error, 'verify_message', error)})"
    text = error.strerror or str(error) or type(error).__name__
    return f"{host}:{port} did not accept the connection ({text})"


_pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pool] = weakref.WeakKeyDictionary()


def pool() -> Pool:
    """The pool of the running loop."""
    loop = asyncio.get_running_loop()
    found = _pools.get(loop)
    if found is None:
        found = _pools[loop] = Pool(loop)
    return found


async def _closing(pool: Pool) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        pool._guard = None
        await pool.aclose()
