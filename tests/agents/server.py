"""A provider on the loopback that plays scripts, in the loop of the test.

A script is a sequence of steps: bytes are sent, an :class:`asyncio.Event` is waited for (so that no test sleeps), and a
function is called with the :class:`Peer`: :func:`cut`, :func:`reset`, :func:`flood` and whatever a test needs. The
scripts answer the requests in order, one each; the connection stays open after a script that does not cut it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, cast

__all__ = [
    "Peer",
    "Provider",
    "Received",
    "answer",
    "chat",
    "chat_event",
    "chunk",
    "cut",
    "eventually",
    "flood",
    "head",
    "reset",
]

Step: TypeAlias = "bytes | asyncio.Event | Callable[[Peer], Awaitable[None]]"
Script: TypeAlias = Sequence[Step]

LAST: Final = b"0\r\n\r\n"
"""The last chunk of a chunked body."""


# --- what is said ---------------------------------------------------------------------------------------------------


def head(status: int = 200, headers: Mapping[str, str] | None = None, *, reason: str = "Whatever") -> bytes:
    """The head of an answer; a chunked event stream unless ``headers`` says otherwise."""
    lines = [f"HTTP/1.1 {status} {reason}"]
    if headers is None:
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"}
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(
    body: bytes | Iterable[bytes] = b"", *, status: int = 200, headers: Mapping[str, str] | None = None,
    framing: str = "chunked",
) -> list[bytes]:  # fmt: skip
    """A whole answer as steps: the head, then each piece of the body. ``framing``: chunked, length or close."""
    pieces = [body] if isinstance(body, bytes) else list(body)
    said = {"Content-Type": "text/event-stream", **(headers or {})}
    if framing == "chunked":
        said["Transfer-Encoding"] = "chunked"
        return [head(status, said), *(chunk(piece) for piece in pieces if piece), LAST]
    if framing == "length":
        said["Content-Length"] = str(sum(map(len, pieces)))
    return [head(status, said), *pieces]


def chat_event(delta: Mapping[str, Any] | None = None, **fields: Any) -> bytes:
    """One event of an OpenAI chat stream."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": fields.pop("finish_reason", None)}
    payload = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice], **fields}
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def chat(*texts: str, usage: bool = True) -> list[bytes]:
    """An OpenAI chat stream that says these texts: one event for each, and those around them."""
    events = [chat_event({"role": "assistant", "content": ""})]
    events += [chat_event({"content": text}) for text in texts]
    events.append(chat_event(finish_reason="stop"))
    if usage:
        counts = {"prompt_tokens": 3, "completion_tokens": len(texts), "total_tokens": 3 + len(texts)}
        events.append(chat_event(choices=[], usage=counts))
    return [*events, b"data: [DONE]\n\n"]


async def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Let the loop turn until something holds that no event tells of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


# --- steps ----------------------------------------------------------------------------------------------------------


async def cut(peer: Peer) -> None:
    """End the connection as a closing server does (FIN), once all has been sent."""
    peer.transport.close()


async def reset(peer: Peer) -> None:
    """End the connection as a dying server does (RST)."""
    opened = peer.transport.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.transport.abort()


def flood(piece: bytes, times: int) -> Callable[[Peer], Awaitable[None]]:
    """Send a piece many times over, as fast as it is taken and no faster."""

    async def send(peer: Peer) -> None:
        for _ in range(times):
            if peer.closed.is_set():
                return
            peer.transport.write(piece)
            peer.sent += len(piece)
            await peer.writable.wait()

    return send


# --- the provider ---------------------------------------------------------------------------------------------------


class Received:
    """One request."""

    def __init__(self, raw_head: bytes, body: bytes, peer: Peer) -> None:
        first, *rest = raw_head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ", 2)
        self.lines = rest
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        self.body = body
        self.peer = peer

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Peer(asyncio.Protocol):
    """One connection of a client."""

    transport: asyncio.Transport

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.closed = asyncio.Event()
        """The client's end of the connection is closed, or ours is."""
        self.writable = asyncio.Event()
        self.writable.set()
        self.sent = 0
        self._buffer = b""
        self._plays: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(64 * 1024)
        self.provider.peers.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self.writable.set()
        if self._plays is not None:
            self._plays.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (request := self._request()) is not None:
            self.provider.requests.append(request)
            self.provider.arrived.set()
            self._plays = asyncio.get_running_loop().create_task(self._play(self.provider.next_script()))

    def _request(self) -> Received | None:
        raw_head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        length = 0
        for line in raw_head.split(b"\r\n")[1:]:
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        return Received(raw_head, rest[:length], self)

    async def _play(self, script: Script) -> None:
        for step in script:
            if isinstance(step, bytes):
                self.transport.write(step)
            elif isinstance(step, asyncio.Event):
                await step.wait()
            else:
                await step(self)


class Provider:
    """The server: ``async with Provider(script, ...) as provider``. The last script answers all further requests."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.scripts = deque(scripts)
        self.requests: list[Received] = []
        self.peers: list[Peer] = []
        self.arrived = asyncio.Event()
        """A request has come."""
        self.tls = tls
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def next_script(self) -> Script:
        return self.scripts.popleft() if len(self.scripts) > 1 else self.scripts[0]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Peer(self), "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for peer in self.peers:
            peer.transport.abort()
        for peer in self.peers:
            await peer.closed.wait()
