"""The ASGI application: who asks, for which route, and what went wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..errors import ErrorInfo, SchedulerError, UnknownAgent
from . import faces, native
from .answering import add_headers
from .attendance import Attendance
from .exchange import Exchange
from .face import Answer
from .problem import Problem, problem_of
from .relay import Message, Relay, Send
from .rendering import Renderings
from .routing import Route, Router, native_problem
from .settings import Settings

if TYPE_CHECKING:
    from ..scheduler import MultiAgentScheduler

__all__ = ["Server"]

_log = logging.getLogger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_ROUTES: Final[Sequence[Route]] = (*native.ROUTES, *faces.ROUTES)

Receive = Callable[[], Awaitable[Message]]


class Server:
    """An ASGI application over one scheduler, and all that its handlers share."""

    def __init__(self, scheduler: MultiAgentScheduler, settings: Settings) -> None:
        self.scheduler = scheduler
        self.settings = settings
        self.router = Router(_ROUTES)
        self.renderings = Renderings()
        self.relays: set[Relay] = set()
        """Everybody who reads a stream now."""
        self.attendance = Attendance(self._cancel)
        self._cancelling: set[asyncio.Task[Any]] = set()
        self._beating: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI 3: https://asgi.readthedocs.io/en/stable/specs/main.html."""
        if scope["type"] == "http":
            await self._http(Exchange(self, scope, receive, send))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise ValueError(f"this application does not speak {scope['type']}")

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
        raise UnknownAgent(f"there is no model {model!r}: name an agent, or agent/model; {', '.join(sorted(agents))}")

    def follow_heartbeats(self, relay: Relay) -> None:
        """From now on it writes a heartbeat whenever it was silent for too long. One timer serves all of them."""
        self.relays.add(relay)
        if self._beating is None:
            self._beating = asyncio.get_running_loop().call_later(self.settings.heartbeat / 2, self._beat)

    async def drain(self) -> None:
        """End every reader: each is told that this is not the end, and can come back with its cursor."""
        info = ErrorInfo("overloaded_error", "the server is being stopped", retryable=True)
        for relay in list(self.relays):
            relay.break_off(info)
        self.attendance.close()
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        if self._cancelling:
            await asyncio.wait(self._cancelling)

    # --- a request ------------------------------------------------------------------------------------------------

    async def _http(self, exchange: Exchange) -> None:
        said = exchange.header(b"x-request-id")
        exchange.request_id = said if _REQUEST_ID.fullmatch(said) else os.urandom(8).hex()
        tell: Callable[[Problem], Answer] = native_problem
        try:
            methods, exchange.parameters = self.router.find(exchange.path)
            route = methods.get(exchange.method)
            tell = next(iter(methods.values())).problem if route is None else route.problem
            if route is None:
                allowed = ", ".join(sorted(methods))
                detail = f"{exchange.method} cannot be done here, but {allowed}"
                raise Problem(405, detail, headers=((b"allow", allowed.encode()),))
            await route.handler(exchange)
        except ConnectionError:
            return  # nobody is there to be told
        except Exception as error:
            problem = self._problem(error, exchange)
            if exchange.answered:
                raise
            await exchange.answer(add_headers(tell(problem), problem.headers))

    def _problem(self, error: Exception, exchange: Exchange) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, SchedulerError):
            return problem_of(error)
        _log.error("request %s could not be answered", exchange.request_id, exc_info=error)
        return Problem(500, "this is a bug of the server: its log has the details")

    # --- life -----------------------------------------------------------------------------------------------------

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.drain()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _beat(self) -> None:
        self._beating = None
        for relay in list(self.relays):
            relay.beat()
        if self.relays:
            self._beating = asyncio.get_running_loop().call_later(self.settings.heartbeat / 2, self._beat)

    def _cancel(self, stream_id: str, reason: str) -> None:
        task = asyncio.get_running_loop().create_task(self.scheduler.cancel(stream_id, reason))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelled)

    def _cancelled(self, task: asyncio.Task[Any]) -> None:
        self._cancelling.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, SchedulerError):
            _log.error("a stream whose reader left could not be stopped", exc_info=error)
