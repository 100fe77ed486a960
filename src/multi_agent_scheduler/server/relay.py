"""One reader of one stream on one connection.

What the rendering gives is written into the transport at once, from within the call that brings it: no task is woken
for a chunk. That needs this project's own server process, which lends a :class:`Direct` way to a response's connection.
What has to wait, because the connection is full, a task sends in the ASGI way, and so it sends the first and the last
bytes; behind another server, or somebody's middleware, it sends everything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from typing import Any, Protocol, TypeAlias

from ..errors import ErrorInfo
from ..pacing import characters
from ..records import TERMINALS, Failed, Interrupted, Record, is_content
from ..views.pacing import Pacer
from .compression import Packer
from .face import Answer, Headers
from .rendering import Reader, Rendering

__all__ = ["Direct", "Message", "Opening", "Relay", "Send"]

_log = logging.getLogger(__name__)

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class Direct(Protocol):
    """A way around ASGI's ``send`` for the body of a response that has begun."""

    def write(self, data: bytes) -> bool:
        """Write some more of the body now; false, and nothing is written, if that would have to wait."""

    def abort(self) -> None:
        """Close the connection at once, whatever waits to be written."""


class Opening:
    """How a response begins: its headers, and ``prologue``, its first bytes; and what holds for all of it.

    With ``refusal`` the headers wait for the first content, and a stream that fails before it is answered with what
    ``refusal`` makes of its records. ``packer`` compresses, ``pacer`` says how fast the reader may read.
    """

    __slots__ = ("headers", "pacer", "packer", "prologue", "refusal")

    def __init__(
        self, headers: Headers, prologue: bytes = b"", refusal: Callable[[Sequence[Record]], Answer] | None = None
    ) -> None:
        self.headers = headers
        self.prologue = prologue
        self.refusal = refusal
        self.packer: Packer | None = None
        self.pacer: Pacer | None = None


class Relay(Reader):
    """Writes what it is shown."""

    __slots__ = (
        "_busy",
        "_direct",
        "_held",
        "_held_records",
        "_opened",
        "_opening",
        "_pacer",
        "_rendering",
        "_send",
        "_since",
        "_task",
        "_timer",
        "over",
        "quiet",
        "status",
        "written",
    )

    def __init__(
        self, rendering: Rendering, send: Send, opening: Opening, *, after: int = 0, direct: Direct | None = None
    ) -> None:
        super().__init__(after)
        self._rendering = rendering
        self._send = send
        self._opening = opening
        self._direct = direct
        self._pacer = opening.pacer
        self._timer: asyncio.TimerHandle | None = None  # the time for what came too early
        if self._pacer is not None:
            self.most = 1
        self._opened = False
        self._held: list[bytes] = []
        self._held_records: list[Record] = []
        self._busy = False
        self._task: asyncio.Task[None] | None = None
        self._since: float | None = None  # when it was first seen to take nothing
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the response is complete, or nobody reads it any more."""
        self.quiet = True
        """Nothing was written since somebody set this."""
        self.status = 200
        self.written = 0

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to read."""
        if self._opening.refusal is None:
            self._write(self._opening.prologue)
        self._rendering.join(self)

    def leave(self) -> None:
        """Nobody reads it any more; whatever waits to be written is dropped."""
        if self._task is not None:
            self._task.cancel()
        self._end()

    def beat(self, now: float, patience: float) -> None:
        """Write a heartbeat if there was nothing to write since the last one was due; leave if nothing could be written
        for ``patience`` seconds."""
        if self._busy:
            if self._since is None:
                self._since = now
            elif now - self._since > patience:
                self._cut()
            return
        self._since = None
        if self.quiet and self.ready:
            self._open()
            self._write(self._rendering.renderer_of(self).heartbeat)
        self.quiet = True

    # --- reading --------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return not self._busy and self._timer is None and not self.over.done()

    def show(self, records: Sequence[Record], data: bytes) -> None:
        self.seq += len(records)
        ended = isinstance(records[-1], TERMINALS)
        if not self._opened and self._opening.refusal is not None and not self._begun(records, data):
            return
        if ended or data:
            wait = 0.0 if self._pacer is None else self._early(records[0])
            if wait > 0:
                self._timer = asyncio.get_running_loop().call_later(wait, self._due, data, ended)
            else:
                self._write(data, last=ended)

    def _early(self, record: Record) -> float:
        """By how many seconds a record comes too early for the pace of this reader."""
        length = characters(record)
        if not length or self._pacer is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        return self._pacer.due(length, now) - now

    def _due(self, data: bytes, ended: bool) -> None:
        self._timer = None
        self._write(data, last=ended)
        if self.ready:
            self._rendering.grew()

    def break_off(self, error: ErrorInfo) -> None:
        if self.over.done():
            return
        self._rendering.leave(self)
        if self._timer is not None:  # what came too early was not shown: who comes back gets it
            self._timer.cancel()
            self._timer = None
        if self._busy:  # it is full, and would not see the last word: that it is cut is what tells it
            self._cut()
            return
        refusal = self._opening.refusal
        if not self._opened and refusal is not None:
            self._run(self._answered(refusal((*self._held_records, Interrupted(error)))))
            return
        renderer = self._rendering.renderer_of(self)
        if renderer.cuts:
            self._cut()
        else:
            self._write(renderer.broken(error), last=True)

    def _begun(self, records: Sequence[Record], data: bytes) -> bool:
        """Hold back what comes before the first content; true once the answer has begun, and this is to be written."""
        refusal = self._opening.refusal
        assert refusal is not None
        terminal = records[-1]
        if isinstance(terminal, TERMINALS):
            if isinstance(terminal, Failed | Interrupted) and not any(map(is_content, records)):
                self._run(self._answered(refusal((*self._held_records, *records))))
                return False
        elif not any(map(is_content, records)):
            self._held.append(data)
            self._held_records += records
            return False
        self._open()
        return True

    def _open(self) -> None:
        if not self._opened:
            self._held.insert(0, self._opening.prologue)
            self._held_records.clear()

    # --- writing --------------------------------------------------------------------------------------------------

    def _write(self, data: bytes, *, last: bool = False) -> None:
        if self._opened and not last and self._direct is not None:
            packer = self._opening.packer
            if packer is not None:
                data = packer.pack(data, last=False)
            if self._direct.write(data):
                self.quiet = False
                self.written += len(data)
            else:
                self._run(self._sent(data, last=False))
            return
        if self._held:
            data = b"".join((*self._held, data))
            self._held.clear()
        self._run(self._packed(data, last=last))

    def _run(self, sending: Coroutine[Any, Any, None]) -> None:
        self._busy = True
        self._task = asyncio.get_running_loop().create_task(sending)
        self._task.add_done_callback(self._drained)

    def _drained(self, task: asyncio.Task[None]) -> None:
        self._task = self._since = None
        self._busy = False
        if task.cancelled():
            self._end()
        elif (error := task.exception()) is not None:
            self._lost(error)
        elif not self.over.done():
            self._rendering.grew()

    async def _packed(self, data: bytes, *, last: bool) -> None:
        """Send what is not packed yet, behind the headers."""
        if not self._opened:
            self._opened = True
            headers = list(self._opening.headers)
            await self._send({"type": "http.response.start", "status": self.status, "headers": headers})
        packer = self._opening.packer
        await self._sent(data if packer is None else packer.pack(data, last=last), last=last)

    async def _sent(self, data: bytes, *, last: bool) -> None:
        self.quiet = False
        if data or last:
            self.written += len(data)
            await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        if last:
            self._end()

    async def _answered(self, answer: Answer) -> None:
        self._opened = True
        self.status = answer.status
        headers = [
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
        ]
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        self.written += len(answer.body)
        await self._send({"type": "http.response.body", "body": answer.body})
        self._end()

    def _lost(self, error: BaseException) -> None:
        if not isinstance(error, OSError):  # that one says only that the reader has gone
            _log.error("an answer could not be written", exc_info=error)
        self._cut()

    def _cut(self) -> None:
        """End in the middle: a connection that is closed so tells its reader that this was not the end."""
        self.leave()
        if self._direct is not None:
            self._direct.abort()

    def _end(self) -> None:
        self._rendering.leave(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.over.done():
            self.over.set_result(None)
