"""The connections of an event loop: making them, through a proxy or not, keeping them, closing them with the loop.

This is the only module that opens a socket.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final
from weakref import WeakSet

from .connection import READ_SIZE, BadResponse, ConnectError, Connection, Cut, Origin, Untrusted
from .moderation import Moderation

__all__ = ["Pool", "close_for", "pool"]

_IDLE_SECONDS: Final = 30.0  # shorter than the providers' own keep-alive, so that they seldom close first
_IDLE_PER_ORIGIN: Final = 256
_LINGER_SECONDS: Final = 1.0  # how long a finished answer's connection may take to end its message
_CLOSING_ROUNDS: Final = 20  # of the loop, at most, until aborted sockets are closed


class Pool:
    """The connections of one event loop. Closed with the loop, or when the last agent that uses it is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._moderation = Moderation(loop)
        self._idle: dict[Origin, list[tuple[float, Connection]]] = {}
        self._busy: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._users: WeakSet[object] = WeakSet()
        self._guard: AsyncGenerator[None, None] | None = None
        self._closed = False

    async def use(self, user: object) -> None:
        """Count an agent as a user of this pool until :meth:`leave`."""
        self._users.add(user)
        if self._guard is None:
            # asyncio.run() and friends finish the loop's asynchronous generators before they close it: this one
            # closes the sockets then, so that a script that never calls aclose() leaks nothing.
            self._guard = _closing(self)
            await self._guard.__anext__()

    async def leave(self, user: object) -> None:
        """An agent is done; the last one closes all connections."""
        self._users.discard(user)
        if not self._users:
            await self.aclose()

    def idle(self, origin: Origin) -> Connection | None:
        """A connection to ``origin`` that was used before and stands ready; None if there is none."""
        waiting = self._idle.get(origin)
        while waiting:
            _, connection = waiting.pop()
            if connection.reusable:
                connection.reset()
                self._busy.add(connection)
                return connection
            connection.close()
        return None

    async def connect(self, origin: Origin) -> Connection:
        """A new connection to ``origin``. Raises :class:`ConnectError`."""
        connection = await _connected(lambda: Connection(self.loop, self._buffer, self._moderation), origin)
        self._busy.add(connection)
        return connection

    def release(self, origin: Origin, connection: Connection) -> None:
        """Give a connection back: kept if its message is complete, given a moment to complete, closed otherwise."""
        connection.drop_body()
        if connection.complete or connection.lost:
            self._settled(origin, connection)
            return
        # The protocol's end marker came; the end of the HTTP message is usually one packet behind it.
        timer = self.loop.call_later(_LINGER_SECONDS, self.discard, connection)

        def settled(connection: Connection) -> None:
            timer.cancel()
            self._settled(origin, connection)

        connection.on_settled = settled

    def discard(self, connection: Connection) -> None:
        """Close a connection at once."""
        self._busy.discard(connection)
        connection.on_settled = None
        connection.close()

    async def aclose(self) -> None:
        """Close every connection, busy ones too, and wait until the sockets are closed."""
        connections = [connection for waiting in self._idle.values() for _, connection in waiting]
        connections += self._busy
        self._closed = True
        if _pools.get(self.loop) is self:
            del _pools[self.loop]
        self._idle.clear()
        self._busy.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._moderation.close()
        for connection in connections:
            connection.on_settled = None
            connection.close()
        for _ in range(_CLOSING_ROUNDS):
            if all(connection.lost for connection in connections):
                break
            await asyncio.sleep(0)
        guard, self._guard = self._guard, None
        if guard is not None:
            await guard.aclose()

    def _settled(self, origin: Origin, connection: Connection) -> None:
        self._busy.discard(connection)
        connection.drop_body()
        waiting = self._idle.setdefault(origin, [])
        if self._closed or not connection.reusable or len(waiting) >= _IDLE_PER_ORIGIN:
            connection.close()
            return
        waiting.append((self.loop.time(), connection))
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(_IDLE_SECONDS / 2, self._sweep)

    def _sweep(self) -> None:
        oldest = self.loop.time() - _IDLE_SECONDS
        self._sweeper = None
        for origin, waiting in list(self._idle.items()):
            fresh = [(since, connection) for since, connection in waiting if since > oldest and connection.reusable]
            for entry in waiting:
                if entry not in fresh:
                    entry[1].close()
            if fresh:
                self._idle[origin] = fresh
            else:
                del self._idle[origin]
        if self._idle:
            self._sweeper = self.loop.call_later(_IDLE_SECONDS / 2, self._sweep)


_pools: dict[asyncio.AbstractEventLoop, Pool] = {}


def pool() -> Pool:
    """The pool of the running loop."""
    loop = asyncio.get_running_loop()
    found = _pools.get(loop)
    if found is None:
        for other in [other for other in list(_pools) if other.is_closed()]:
            _pools.pop(other, None)  # closed by hand, without its generators being finished
        found = _pools[loop] = Pool(loop)
    return found


async def close_for(user: object) -> None:
    """An agent is done with the running loop's connections."""
    found = _pools.get(asyncio.get_running_loop())
    if found is not None:
        await found.leave(user)


async def _closing(pool: Pool) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        if pool._guard is not None:
            pool._guard = None
            await pool.aclose()


# --- connecting -----------------------------------------------------------------------------------------------------


async def _connected(make: Callable[[], Connection], origin: Origin) -> Connection:
    loop = asyncio.get_running_loop()
    host, port = (origin.proxy.host, origin.proxy.port) if origin.proxy else (origin.host, origin.port)
    options: dict[str, Any] = {}
    if isinstance(loop, asyncio.BaseEventLoop) and not _is_address(host):
        options = {"happy_eyeballs_delay": 0.25, "interleave": 1}  # RFC 8305; uvloop has no such keywords
    if origin.tls is not None and origin.proxy is None:
        options |= {"ssl": origin.tls, "server_hostname": origin.host}
    try:
        _, connection = await loop.create_connection(make, host, port, **options)
    except OSError as error:  # ssl's errors and getaddrinfo's are OSErrors too
        raise _explained(error, host, port, proxy=origin.proxy is not None) from None
    except (UnicodeError, ValueError) as error:
        raise ConnectError(f"the host {host!r} cannot be looked up ({error})") from None
    if origin.proxy is not None and origin.tls is not None:
        await _tunnel(origin, connection)
    return connection


async def _tunnel(origin: Origin, connection: Connection) -> None:
    """Ask the proxy for a tunnel (RFC 9110, 9.3.6) and start TLS inside it."""
    assert origin.proxy is not None
    assert origin.tls is not None
    auth = f"Proxy-Authorization: {origin.proxy.auth}\r\n" if origin.proxy.auth else ""
    request = f"CONNECT {origin.authority} HTTP/1.1\r\nHost: {origin.authority}\r\n{auth}\r\n"
    where = f"no tunnel through the proxy {origin.proxy.host}:{origin.proxy.port}"
    try:
        await connection.send(request.encode("latin-1"), b"")
        await connection.head()
        if not 200 <= connection.status < 300:
            raise ConnectError(f"it answered with status {connection.status}")
        await connection.start_tls(origin.tls, origin.host)
    except (ConnectError, Cut, BadResponse) as error:
        connection.close()
        raise ConnectError(f"{where}: {error}") from None
    except OSError as error:
        connection.close()
        raise _explained(error, origin.host, origin.port, proxy=False) from None
    except BaseException:
        connection.close()
        raise


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _explained(error: OSError, host: str, port: int, *, proxy: bool) -> ConnectError:
    what = "the proxy " if proxy else ""
    if isinstance(error, socket.gaierror):
        return ConnectError(f"{what or 'the host '}{host!r} could not be found")
    if type(error).__name__ == "SSLCertVerificationError":
        said = getattr(error, "verify_message", None) or str(error)
        return Untrusted(f"the certificate of {host}:{port} was not accepted ({said})")
    if type(error).__name__.startswith("SSL"):
        return ConnectError(f"no TLS connection with {host}:{port} ({getattr(error, 'reason', None) or error})")
    # asyncio's own texts repeat the address; several addresses that failed in different ways are one text of it.
    numbers = [error.errno] if error.errno else [int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error))]
    said = ", ".join(dict.fromkeys(map(os.strerror, numbers))) or str(error) or type(error).__name__
    return ConnectError(f"{what}{host}:{port} did not accept the connection ({said})")
