"""The ASGI application: who asks, for which route, and what went wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from ..errors import ErrorInfo, SchedulerError, UnknownAgent
from ..metrics import Metrics
from . import access_log, faces, native, openapi, sockets, watching
from .access import REVOKED, Access, Caller
from .answering import add_headers
from .attendance import Attendance
from .exchange import Exchange
from .face import Answer
from .keys import Keys
from .problem import Problem, problem_of
from .relay import Message, Relay, Send
from .rendering import Renderings
from .routing import Route, Router, native_problem
from .settings import Settings

if TYPE_CHECKING:
    from ..scheduler import MultiAgentScheduler

__all__ = ["ROUTES", "Server"]

_log = logging.getLogger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
ROUTES: Final[Sequence[Route]] = (*native.ROUTES, *faces.ROUTES, *watching.ROUTES, *openapi.ROUTES)
_BUG: Final = "this is a bug of the server: its log has the details"

Receive = Callable[[], Awaitable[Message]]


class Server:
    """An ASGI application over one scheduler, and all that its handlers share."""

    def __init__(self, scheduler: MultiAgentScheduler, settings: Settings, keys: Keys, *, metrics: Metrics) -> None:
        self.scheduler = scheduler
        self.settings = settings
        self.keys = keys
        self.access = Access(keys, settings)
        self.metrics = metrics
        self.router = Router(ROUTES)
        self.renderings = Renderings()
        self.relays: dict[Relay, Caller] = {}
        """Everybody who reads a stream now, and as whom."""
        self.sockets: dict[asyncio.Timeout, Caller] = {}
        """What ends the WebSockets that are open, and whose they are."""
        self.waiting: set[asyncio.Future[Any]] = set()
        """The ends of streams that whole answers wait for."""
        self.attendance = Attendance(self._cancel)
        self.draining = False
        """The server is being stopped."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._cancelling: set[asyncio.Task[Any]] = set()
        self._beating: asyncio.TimerHandle | None = None
        self._readers = metrics.gauge("server.readers", description="Streams that are being read.")
        self._opened = False

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI 3: https://asgi.readthedocs.io/en/stable/specs/main.html."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(receive, send)
            return
        if not self._opened:
            await self._open()
        if kind == "http":
            exchange = Exchange(self, scope, receive, send)
            await self._told(exchange, self._answer(exchange))
        elif kind == "websocket":
            exchange = Exchange(self, {**scope, "method": "WEBSOCKET"}, receive, send)
            await self._told(exchange, sockets.connected(exchange, receive))
        else:
            raise ValueError(f"this application does not speak {kind}")

    # --- what handlers need ---------------------------------------------------------------------------------------

    def chosen(self, model: str) -> tuple[str, str | None]:
        """The agent that a client's ``model`` names, and the model to ask it for: ``agent`` or ``agent/model``.

        Raises UnknownAgent.
        """
        agents = self.scheduler.agents
        if model in agents:
            return model, None
        agent, slash, rest = model.partition("/")
        if slash and rest and agent in agents:
            return agent, rest
        raise UnknownAgent(
            f"there is no model {model!r}: name an agent, or agent/model; the agents are {', '.join(sorted(agents))}"
        )

    def one_at_a_time(self, name: str) -> asyncio.Lock:
        """A lock of this name; it is gone when nobody holds or awaits it."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    def enter(self, relay: Relay, caller: Caller) -> None:
        """One more reads a stream: until it leaves, silence is filled with heartbeats. One timer serves all."""
        self.relays[relay] = caller
        self._readers.inc()
        self.beat_later()

    def leave(self, relay: Relay) -> None:
        """It reads no more."""
        self.relays.pop(relay, None)
        self._readers.dec()

    def beat_later(self) -> None:
        """Look soon at those who are here, and again as long as there are some."""
        if self._beating is None and (self.relays or self.sockets) and not self.draining:
            self._beating = asyncio.get_running_loop().call_later(self.settings.heartbeat / 2, self._beat)

    async def drain(self) -> None:
        """End every reader: each is told that this is not the end, and can come back with its cursor."""
        self.draining = True
        info = ErrorInfo("overloaded_error", "the server is being stopped", retryable=True)
        for relay in list(self.relays):
            relay.break_off(info)
        self.attendance.close()
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        if self._cancelling:
            await asyncio.wait(self._cancelling)

    def give_up(self) -> None:
        """Wait for the ends of streams no more: who waits for a whole answer is told to come again."""
        for end in self.waiting:
            end.cancel()

    # --- a request ------------------------------------------------------------------------------------------------

    async def _told(self, exchange: Exchange, answering: Awaitable[None]) -> None:
        """Answer; metrics and the access log tell of it."""
        began = time.monotonic()
        said = exchange.header(b"x-request-id")
        exchange.request_id = said if _REQUEST_ID.fullmatch(said) else os.urandom(8).hex()
        try:
            await answering
            if exchange.reading is not None:
                await exchange.reading.over()
        except ConnectionError:
            exchange.status = 499  # as nginx calls a client that left before there was an answer
        finally:
            seconds = time.monotonic() - began
            labels = {"route": exchange.route, "method": exchange.method, "status": str(exchange.status)}
            self.metrics.counter("server.requests", labels, description="Requests that were answered.").inc()
            if self.settings.access_log:
                access_log.write(exchange, seconds)

    async def _answer(self, exchange: Exchange) -> None:
        tell: Callable[[Problem], Answer] = native_problem
        try:
            methods, exchange.parameters = self.router.find(exchange.path)
            route = methods.get("GET" if exchange.method == "HEAD" else exchange.method)
            any_route = route or next(iter(methods.values()))
            exchange.route, tell = any_route.path, any_route.problem
            exchange.answer_headers = self.access.cors(exchange.headers)
            if route is None:
                await self._no_route(exchange, methods)
                return
            if not route.public:
                self._admit(exchange, route)
            await route.handler(exchange)
        except ConnectionError:
            raise
        except Exception as error:
            if exchange.answered:
                raise
            problem = self._problem(error, exchange)
            await exchange.answer(add_headers(tell(problem), problem.headers))

    def _admit(self, exchange: Exchange, route: Route) -> None:
        token = exchange.query.get("token", "") if route.token else ""
        exchange.caller = self.access.caller(exchange.headers, token, exchange.parameters.get("stream_id", ""))
        self.access.check_origin(exchange.method, exchange.headers)

    async def _no_route(self, exchange: Exchange, methods: Mapping[str, Route]) -> None:
        allowed = ", ".join(sorted((*methods, *(("HEAD",) if "GET" in methods else ()), "OPTIONS")))
        if exchange.method != "OPTIONS":
            detail = f"{exchange.method[:20]} cannot be done here, but {allowed}"
            raise Problem(405, detail, headers=((b"allow", allowed.encode()),))
        headers: tuple[tuple[bytes, bytes], ...] = ((b"allow", allowed.encode()),)
        if exchange.header(b"origin"):
            headers += tuple(self.access.preflight(exchange.headers, allowed))
        await exchange.answer(Answer(204, headers=headers))

    def _problem(self, error: Exception, exchange: Exchange) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, SchedulerError):
            return problem_of(error)
        _log.error("request %s could not be answered", exchange.request_id, exc_info=error)
        return Problem(500, _BUG)

    # --- life -----------------------------------------------------------------------------------------------------

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._open()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.drain()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _open(self) -> None:
        """Once, at the start or, in an application that tells of none, at the first request."""
        await self.scheduler.open()
        if not self._opened:
            self._opened = True
            self.scheduler.set_meter(self.access.meter)

    def _beat(self) -> None:
        self._beating = None
        now, stands = asyncio.get_running_loop().time(), self.access.stands
        for relay, caller in list(self.relays.items()):
            if stands(caller):
                relay.beat(now, self.settings.stall_timeout)
            else:
                relay.break_off(REVOKED.info)
        for socket, caller in self.sockets.items():
            if not stands(caller):
                socket.reschedule(now)
        self.beat_later()

    def _cancel(self, stream_id: str, reason: str) -> None:
        task = asyncio.get_running_loop().create_task(self.scheduler.cancel(stream_id, reason))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelled)

    def _cancelled(self, task: asyncio.Task[Any]) -> None:
        self._cancelling.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, SchedulerError):
            _log.error("a stream whose reader left could not be stopped", exc_info=error)
