"""The server as a process: uvicorn, with the bounds that it leaves open, and an orderly end.

uvicorn has no limit on the head of a request, nor on the time that it takes; a connection that never asks for anything
would stay for good, and one that takes nothing of its answer as well. :func:`http_protocol` adds that, and lends the
application a short way to the connection.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

from ..errors import InvalidConfiguration
from .exchange import DIRECT

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from .app import Server
    from .settings import Settings

__all__ = ["Process", "bound", "loop_factory"]

_FLUSH: Final = 0.01  # seconds: how long the last bytes of connections may take, and how often that is looked at
_FLUSHES: Final = 25
_LAST: Final = 0.2  # seconds that a request has to end in, whose connection is closed
_PING: Final = 15.0  # seconds between pings on a WebSocket, and how long the answer may take:
_PONG: Final = 10.0  # a client that is no more there is noticed within their sum

_REFUSALS: Final = {
    408: b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    503: b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
}


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InvalidConfiguration where that cannot be, with the reason."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise InvalidConfiguration(f"cannot listen on {host!r}: {error}") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise InvalidConfiguration(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    listener.setblocking(False)
    return listener


class Process:
    """A server at work on a listening socket, in the running loop."""

    def __init__(self, app: Server, listener: socket.socket) -> None:
        import uvicorn

        settings = app.settings
        config = uvicorn.Config(
            app,
            http=http_protocol(settings),
            ws=socket_protocol(),
            ws_max_size=settings.max_message,
            ws_ping_interval=_PING,
            ws_ping_timeout=_PONG,
            ws_per_message_deflate=settings.compression,
            timeout_keep_alive=max(1, round(settings.keep_alive)),
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._listener = listener
        self._started, self._stop = asyncio.Event(), asyncio.Event()
        self._uvicorn = _server(config, app, self._started, self._stop)

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port that it listens on."""
        name = self._listener.getsockname()
        return name[0], name[1]

    def stop(self) -> None:
        """Take no more requests, end the readers, and return from :meth:`run`."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until :meth:`stop`."""
        await self._uvicorn._serve([self._listener])  # serve() itself would take the signals

    async def started(self) -> None:
        """Return once requests are taken."""
        await self._started.wait()


def _server(config: uvicorn.Config, app: Server, started: asyncio.Event, stop: asyncio.Event) -> uvicorn.Server:
    from uvicorn import Server as Uvicorn

    class Draining(Uvicorn):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

        async def main_loop(self) -> None:
            stopping = asyncio.ensure_future(stop.wait())
            while not stopping.done():
                await self.on_tick(0)  # the date in the headers
                await asyncio.wait({stopping}, timeout=1.0)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for listener in (*self.servers, *(sockets or ())):
                listener.close()
            state = self.server_state
            for connection in list(state.connections):
                connection.shutdown()  # at once where nothing is being answered
            await app.drain()
            if state.tasks:
                await asyncio.wait(state.tasks, timeout=app.settings.drain)
            app.give_up()
            for _ in range(_FLUSHES):
                if not state.connections:
                    break
                await asyncio.sleep(_FLUSH)
            for connection in list(state.connections):  # they take nothing: their last bytes are lost
                connection.transport.abort()
            if state.tasks:  # who is told that the client has gone ends by itself
                await asyncio.wait(state.tasks, timeout=_LAST)
            for task in list(state.tasks):
                task.cancel()
            if state.tasks:
                await asyncio.wait(state.tasks, timeout=_LAST)
            await self.lifespan.shutdown()

    return Draining(config)


def http_protocol(settings: Settings) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol within bounds: the size of a request's head, its time, how many connections there are,
    and how long one may take nothing."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Bounded(HttpToolsProtocol):
        # Beside the many attributes that it inherits, in a dict, these would make that three times as large.
        __slots__ = ("_deadline", "_head", "_in_head", "_unsent", "_upgraded", "_watch")

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.pipeline: Any = _Pipeline()
            self._deadline: asyncio.TimerHandle | None = None
            self._in_head = False
            self._head = 0  # bytes of the head that is being read
            self._upgraded = False
            self._watch: asyncio.TimerHandle | None = None
            self._unsent = 0  # bytes, when the watch began

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.flow._is_writable_event = _event(is_set=True)
            if len(self.connections) > settings.max_connections:
                self._refuse(503)
            else:
                self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_came()
            self._unwatch()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._deadline is not None:  # a head is awaited, or being read
                self._head += len(data)
            super().data_received(data)
            if self._upgraded or self.transport.is_closing():
                return
            if self._in_head and self._head > settings.max_header:
                self._refuse(431)
            elif self._deadline is None and self.timeout_keep_alive_task is None and self._is_idle():
                self._await_head()  # there was something, but no request

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head = True
            if self._deadline is None:
                self._await_head()

        def on_headers_complete(self) -> None:
            self._head_came()
            before = self.cycle
            super().on_headers_complete()
            if self.cycle is not before:
                self.cycle.message_event = _event()
            way: Any = _Way(self.transport, self.flow, self.cycle)
            self.scope["extensions"] = {DIRECT: way}

        def handle_websocket_upgrade(self) -> None:
            self._upgraded = True
            super().handle_websocket_upgrade()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch_writing()

        def resume_writing(self) -> None:
            self._unwatch()
            super().resume_writing()

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            if self._watch is None and self.transport.get_write_buffer_size():  # closing waits for the last bytes
                self._watch_writing()

        def _watch_writing(self) -> None:
            self._unsent = self.transport.get_write_buffer_size()
            self._watch = self.loop.call_later(settings.stall_timeout, self._stalled)

        def _unwatch(self) -> None:
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None

        def _stalled(self) -> None:
            self._watch = None
            if self.transport.get_write_buffer_size() < self._unsent:  # it is slow, but takes some
                self._watch_writing()
            else:
                self.transport.abort()

        def _is_idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _await_head(self) -> None:
            self._deadline = self.loop.call_later(settings.header_timeout, self._too_slow)

        def _head_came(self) -> None:
            self._in_head, self._head = False, 0
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _too_slow(self) -> None:
            self._deadline = None
            if self._in_head and self._is_idle():
                self._refuse(408)
            else:
                self.transport.close()

        def _refuse(self, status: int) -> None:
            self._head_came()
            self.transport.write(_REFUSALS[status])
            self.transport.close()

    return Bounded


def socket_protocol() -> type[asyncio.Protocol]:
    """uvicorn's WebSocket protocol, which takes a handshake that is refused with a document of our own for none at all,
    and writes an error into the log."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    class Answered(WebSocketsSansIOProtocol):
        async def send(self, message: Any) -> None:
            await super().send(message)
            if message["type"] == "websocket.http.response.body":
                self.handshake_complete = True

    return Answered


class _Pipeline(list[Any]):
    """The requests that wait for an answer that is being given, as a deque of uvicorn's: mostly none."""

    __slots__ = ()

    def appendleft(self, request: Any) -> None:
        self.insert(0, request)


def _event(*, is_set: bool = False) -> Any:
    """An asyncio.Event in a tenth of the memory: that has room for 64 who wait, where at most one ever does."""
    return _Event(is_set)


class _Event:
    __slots__ = ("_is_set", "_waiters")

    def __init__(self, is_set: bool) -> None:
        self._is_set = is_set
        self._waiters: tuple[asyncio.Future[None], ...] = ()

    def set(self) -> None:
        self._is_set = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> None:
        if self._is_set:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters += (waiter,)
        try:
            await waiter
        finally:
            self._waiters = tuple(other for other in self._waiters if other is not waiter)


class _Way:
    """The :class:`~.relay.Direct` way to one response: as uvicorn's own ``send`` does it, without the coroutine."""

    __slots__ = ("_cycle", "_flow", "_transport", "abort")

    def __init__(self, transport: asyncio.Transport, flow: FlowControl, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._flow = flow
        self._cycle = cycle
        self.abort = transport.abort

    def write(self, data: bytes) -> bool:
        if self._flow.write_paused or not self._cycle.chunked_encoding:
            return False
        if data and not self._cycle.disconnected:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where it is installed; None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Any = uvloop.new_event_loop
    return factory  # type: ignore[no-any-return]
