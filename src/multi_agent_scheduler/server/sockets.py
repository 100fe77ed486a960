"""The WebSockets: ``/v1/ws``, many streams on one connection, and ``/stream``, the streaming guide's simple form.

A subscription is a reader of the rendering that all connections share: each commit is rendered once. What it is shown
is put into the connection's outbox, from which one task sends. A subscription that is far behind, because the client
takes nothing or has not acknowledged what it was sent, is shown no more, and reads on from the log later.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec

from ..errors import ErrorInfo, SchedulerError, StreamNotFound
from ..pacing import characters, paced
from ..records import TERMINALS, Record, encode_record
from ..task import Task
from ..views.pacing import Pacer
from . import cursor as cursors
from .access import REVOKED
from .answering import check_reading, check_running, check_whole, pacer_of
from .conversation import converse
from .dialogue import Action, Cancel, Dialogue, Follow, Open, Say, Start, Stop, Submit, Subscribe, problem_message
from .exchange import Exchange
from .face import Answer, Renderer
from .objects import ObjectSteps
from .problem import Problem, problem_of
from .relay import Message, Send
from .rendering import Reader, Rendering
from .routing import native_problem
from .submitting import submit

__all__ = ["connected"]

_log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[Message]]

_FAR_BEHIND: Final = 64 * 1024
"""Bytes of a subscription that may wait in the outbox."""
_FULL: Final = 256 * 1024
"""Bytes of all the subscriptions of a connection together that may wait in the outbox, and a little more: one page."""
_REPLIES: Final = 64
"""Messages that may wait in the outbox before a client's next message is looked at."""
_INTERNAL_ERROR: Final = 1011  # RFC 6455, 7.4.1
_POLICY_VIOLATION: Final = 1008
_SWITCHED: Final = 101  # RFC 6455, 4.2.2
_PRUNE: Final = 256
"""Submitted streams that are remembered before those that have ended are looked for."""


async def connected(exchange: Exchange, receive: Receive) -> None:
    """Somebody wants a WebSocket."""
    await receive()
    server = exchange.server
    talk = {"/v1/ws": _many_streams, "/stream": _simple}.get(exchange.path)
    try:
        if talk is None:
            raise Problem(404, "there is no WebSocket at this path, but at /v1/ws and /stream")
        exchange.route = exchange.path
        exchange.caller = server.access.caller(exchange.headers)
        server.access.check_origin(exchange.method, exchange.headers)
    except Problem as problem:
        await _refuse(exchange, native_problem(problem))
        return
    connections = server.metrics.gauge("server.sockets", description="WebSockets that are open.")
    connections.inc()
    try:
        await exchange.send({"type": "websocket.accept"})
        exchange.status = _SWITCHED
        async with _while_admitted(exchange) as stay:
            await talk(exchange, partial(_heard, exchange, receive, stay))
    finally:
        connections.dec()


@asynccontextmanager
async def _while_admitted(exchange: Exchange) -> AsyncGenerator[asyncio.Timeout, None]:
    """End what is done on a socket, and close it, when its key is revoked."""
    server = exchange.server
    try:
        async with asyncio.timeout(None) as stay:
            server.sockets[stay] = exchange.caller
            server.beat_later()
            try:
                yield stay
            finally:
                del server.sockets[stay]
    except TimeoutError:
        if not stay.expired():
            raise
        await exchange.send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": REVOKED.detail})


async def _heard(exchange: Exchange, receive: Receive, stay: asyncio.Timeout) -> Message:
    """The client's next message, if it is still to be heard."""
    message = await receive()
    if not exchange.server.access.stands(exchange.caller):
        loop = asyncio.get_running_loop()
        stay.reschedule(loop.time())
        await loop.create_future()  # until that has ended it
    return message


async def _refuse(exchange: Exchange, answer: Answer) -> None:
    send, exchange.status = exchange.send, answer.status
    if "websocket.http.response" not in exchange.scope.get("extensions", ()):
        await send({"type": "websocket.close"})
        return
    headers = [(b"content-type", answer.content_type), (b"content-length", b"%d" % len(answer.body)), *answer.headers]
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": answer.body})


async def _simple(exchange: Exchange, receive: Receive) -> None:
    """Prompts for the default agent; a client that leaves stops the answer."""
    quota, scheduler = exchange.caller.quota, exchange.server.scheduler

    async def answer(prompt: str) -> AsyncGenerator[dict[str, Any], None]:
        check_reading(exchange)
        exchange.spend()
        check_running(exchange, 1)
        items = scheduler.execute_task_stream(Task("stream", prompt), owner=exchange.owner, trace=exchange.trace)
        if quota.limits.pace is not None:
            items = paced(items, quota.limits.pace)
        quota.reading += 1
        try:
            async with aclosing(items):
                async for item in items:
                    yield item
        finally:
            quota.reading -= 1

    async def send(message: Message) -> None:
        await exchange.send(message)
        exchange.written += len(message["text"].encode())

    await converse(receive, send, answer)


async def _many_streams(exchange: Exchange, receive: Receive) -> None:
    connection, send = _Connection(exchange), exchange.send
    sending = asyncio.ensure_future(connection.send_all(send))
    listening = asyncio.ensure_future(connection.listen(receive))
    try:
        await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, listening):
            task.cancel()
        await asyncio.gather(sending, listening, return_exceptions=True)
        connection.leave()
    for task in (sending, listening):
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, OSError):  # with that a server says that the client has gone
            _log.error("a WebSocket broke down", exc_info=error)
            await send({"type": "websocket.close", "code": _INTERNAL_ERROR})
            return


class _Renderer(Renderer):
    """A message for each record, one a line: the record as JSON, with its stream and its cursor."""

    stateful = False

    def __init__(self, stream_id: str) -> None:
        self._stream_id = stream_id
        self._start = b'{"stream_id":%b,"cursor":"' % msgspec.json.encode(stream_id)
        self._tag = f'-{cursors.tag(stream_id)}",'.encode()

    def feed(self, first: int, records: Sequence[Record]) -> bytes:
        start, tag = self._start, self._tag
        return b"\n".join(
            b'%b%d%b%b,"seq":%d}' % (start, seq, tag, encode_record(record)[1:-1], seq)
            for seq, record in enumerate(records, first)
        )

    def broken(self, error: ErrorInfo) -> bytes:
        return problem_message(Problem(error.status or 503, error.message, code=error.code), stream_id=self._stream_id)


class _ObjectRenderer(_Renderer):
    """A message for each commit that changes the object: the :class:`~.objects.ObjectStep`, with stream and cursor."""

    stateful = True

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id)
        self._steps = ObjectSteps()

    def feed(self, first: int, records: Sequence[Record]) -> bytes:
        step = self._steps.feed(first, records)
        if not step:
            return b""
        return b"%b%d%b%b" % (self._start, first + len(records) - 1, self._tag, step[1:])


_VIEWS: Final = {"records": _Renderer, "object": _ObjectRenderer}


class _Subscription(Reader):
    """A stream that a connection is shown."""

    __slots__ = ("_connection", "_pacer", "backlog", "behind", "ended", "rendering", "stream_id", "timer", "waiting")

    def __init__(
        self, connection: _Connection, stream_id: str, rendering: Rendering, after: int, pacer: Pacer | None
    ) -> None:
        super().__init__(after)
        self._connection = connection
        self._pacer = pacer
        if pacer is not None:
            self.most = 1
        self.timer: asyncio.TimerHandle | None = None
        """What waits is too early for the pace of this reader."""
        self.stream_id = stream_id
        self.rendering = rendering
        self.waiting: deque[tuple[int, bytes]] = deque()
        """Messages for which there is no room in the client's window, each with the last seq that it covers."""
        self.backlog = 0
        """Bytes that are in the outbox."""
        self.behind = False
        """It is shown no more until there is room."""
        self.ended = False

    @property
    def ready(self) -> bool:
        return not self.behind and not self._connection.full

    def show(self, records: Sequence[Record], data: bytes) -> None:
        self.seq += len(records)
        self.ended = isinstance(records[-1], TERMINALS)
        if data:
            messages = data.split(b"\n")
            self.waiting.extend(zip(range(self.seq - len(messages) + 1, self.seq + 1), messages, strict=True))
        if self._pacer is not None:
            loop = asyncio.get_running_loop()
            now = loop.time()
            due = self._pacer.due(characters(records[0]), now)
            if due > now:
                self.behind, self.timer = True, loop.call_at(due, self._due)
        self._connection.pour(self)

    def _due(self) -> None:
        self.timer = None
        self._connection.pour(self)

    def break_off(self, error: ErrorInfo) -> None:
        self._connection.break_off(self, error)


class _Connection:
    """One client: its subscriptions, what it has submitted, and what is to be sent to it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._server = exchange.server
        self._dialogue = Dialogue(max_subscriptions=self._server.settings.max_streams)
        self._subscriptions: dict[str, _Subscription] = {}
        self._submitted: set[str] = set()
        self._prune_at = _PRUNE
        self._outbox: deque[tuple[bytes, _Subscription | None]] = deque()
        self._backlog = 0  # bytes of subscriptions that are in the outbox
        self.full = False
        """So much waits in the outbox that no subscription is shown more until half of it was sent."""
        self._more = asyncio.Event()
        self._less = asyncio.Event()

    async def listen(self, receive: Receive) -> None:
        """Do what the client asks for, message by message, until it leaves."""
        while (message := await receive())["type"] != "websocket.disconnect":
            for action in self._dialogue.receive(message.get("text")):
                await self._do(action)
            while len(self._outbox) > _REPLIES:
                self._less.clear()
                await self._less.wait()

    async def send_all(self, send: Send) -> None:
        """Send what is in the outbox."""
        outbox = self._outbox
        while True:
            while outbox:
                message, subscription = outbox.popleft()
                await send({"type": "websocket.send", "text": message.decode()})
                self._exchange.written += len(message)
                if subscription is not None:
                    subscription.backlog -= len(message)
                    self._backlog -= len(message)
                    if subscription.behind:
                        self._go_on(subscription)
                    if self.full and self._backlog <= _FULL // 2:
                        self._all_go_on()
            self._less.set()
            self._more.clear()
            await self._more.wait()

    def leave(self) -> None:
        """The client has gone: what it submitted here goes on for a while, in case it comes back."""
        for subscription in list(self._subscriptions.values()):
            self._end(subscription)
        grace = self._server.settings.grace
        for stream_id in self._submitted:
            self._server.attendance.leave(stream_id, grace, ended=self._has_ended(stream_id))

    # --- what is asked for ----------------------------------------------------------------------------------------

    async def _do(self, action: Action) -> None:
        following: Sequence[Action] = ()
        match action:
            case Say(message=message):
                self._say(message, None)
            case Stop(stream_id=stream_id):
                self._end(self._subscriptions[stream_id])
            case Open(stream_id=stream_id):
                subscription = self._subscriptions[stream_id]
                self.pour(subscription)
                self._go_on(subscription)
            case Start(message=submit):
                following = await self._tried(self._submit(submit), submit.id)
            case Follow(message=subscribe):
                for reply in await self._tried(self._subscribe(subscribe), subscribe.id, subscribe.stream_id):
                    await self._do(reply)
                self._begin(subscribe.stream_id)
            case Cancel():
                following = await self._tried(self._cancel(action), action.id)
        for another in following:
            await self._do(another)

    async def _tried(
        self, asked: Awaitable[Sequence[Action]], asked_as: str | int | None, stream_id: str | None = None
    ) -> Sequence[Action]:
        try:
            return await asked
        except Problem as error:
            problem = error
        except SchedulerError as error:
            problem = problem_of(error)
        return self._dialogue.refused(asked_as, problem, stream_id)

    async def _submit(self, message: Submit) -> Sequence[Action]:
        answer = await submit(self._exchange, message.tasks, message.idempotency_key or "")
        if not message.detach:
            self._prune()
            for stream_id in set(answer.streams.values()) - self._submitted:
                self._submitted.add(stream_id)
                self._server.attendance.enter(stream_id)
        return self._dialogue.submitted(message, answer.plan_id, answer.streams)

    async def _subscribe(self, message: Subscribe) -> Sequence[Action]:
        server, exchange, stream_id = self._server, self._exchange, message.stream_id
        info = server.scheduler.find(stream_id, owner=exchange.owner)
        after = cursors.parse(message.after, info) if message.after else 0
        check_whole(exchange, info, after)
        pacer = pacer_of(exchange, message.pace)
        check_reading(exchange)
        log = server.scheduler.log(stream_id, owner=exchange.owner)
        make = partial(_VIEWS[message.view], stream_id)
        rendering = server.renderings.of((stream_id, "ws", message.view), lambda: log, make, after=after)
        subscription = _Subscription(self, stream_id, rendering, after, pacer)
        subscription.ended = info.ended and after == info.seq
        self._subscriptions[stream_id] = subscription
        exchange.caller.quota.reading += 1
        server.attendance.enter(stream_id)
        return self._dialogue.subscribed(message, after, cursors.cursor(stream_id, after))

    async def _cancel(self, message: Cancel) -> Sequence[Action]:
        owner = self._exchange.owner
        first = await self._server.scheduler.cancel(message.stream_id, message.reason, owner=owner)
        return self._dialogue.cancelled(message, first)

    # --- showing --------------------------------------------------------------------------------------------------

    def pour(self, subscription: _Subscription) -> None:
        """Put what waits into the outbox, as far as its time has come and the client's window goes."""
        if subscription.timer is not None:
            return
        stream_id, waiting = subscription.stream_id, subscription.waiting
        while waiting and self._dialogue.room(stream_id) > 0:
            seq, message = waiting.popleft()
            self._dialogue.sent(stream_id, seq)
            subscription.backlog += len(message)
            self._backlog += len(message)
            self._say(message, subscription)
        if waiting or subscription.backlog > _FAR_BEHIND:
            subscription.behind = True
        if self._backlog > _FULL:
            self.full = True
        if subscription.ended and not waiting:
            self._finish(subscription)

    def break_off(self, subscription: _Subscription, error: ErrorInfo) -> None:
        """There will be no more of it, though the stream has not ended."""
        message = subscription.rendering.renderer_of(subscription).broken(error)
        self._end(subscription)
        self._dialogue.ended(subscription.stream_id)
        self._say(message, None)

    def _begin(self, stream_id: str) -> None:
        subscription = self._subscriptions.get(stream_id)
        if subscription is None:  # it was refused
            return
        if subscription.ended:
            self._finish(subscription)
        else:
            subscription.rendering.join(subscription)

    def _go_on(self, subscription: _Subscription) -> None:
        """Some of it was sent, or acknowledged: show more if it was held up, and is no more."""
        if subscription.behind and not (subscription.waiting or subscription.backlog):
            subscription.behind = False
            subscription.rendering.grew()

    def _all_go_on(self) -> None:
        """There is room again: show more of each, until there is none; who was shown some is due behind the others."""
        self.full = False
        for stream_id, subscription in list(self._subscriptions.items()):
            if self.full:
                return
            if subscription.ready and stream_id in self._subscriptions:
                self._subscriptions[stream_id] = self._subscriptions.pop(stream_id)
                subscription.rendering.grew()

    def _finish(self, subscription: _Subscription) -> None:
        self._end(subscription)
        self._dialogue.ended(subscription.stream_id)
        self._say(msgspec.json.encode({"type": "end", "stream_id": subscription.stream_id}), None)

    def _end(self, subscription: _Subscription) -> None:
        stream_id = subscription.stream_id
        subscription.rendering.leave(subscription)
        subscription.behind = False
        if subscription.timer is not None:
            subscription.timer.cancel()
        del self._subscriptions[stream_id]
        self._exchange.caller.quota.reading -= 1
        self._server.attendance.leave(stream_id, "continue", ended=subscription.ended)

    def _say(self, message: bytes, subscription: _Subscription | None) -> None:
        self._outbox.append((message, subscription))
        self._more.set()

    # --- what was submitted ---------------------------------------------------------------------------------------

    def _prune(self) -> None:
        """Forget what has ended, now and then."""
        if len(self._submitted) < self._prune_at:
            return
        for stream_id in [stream_id for stream_id in self._submitted if self._has_ended(stream_id)]:
            self._submitted.discard(stream_id)
            self._server.attendance.leave(stream_id, "continue", ended=True)
        self._prune_at = max(_PRUNE, 2 * len(self._submitted))

    def _has_ended(self, stream_id: str) -> bool:
        try:
            return self._server.scheduler.find(stream_id).ended
        except StreamNotFound:  # it had, and was removed since
            return True
