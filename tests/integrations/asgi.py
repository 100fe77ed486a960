"""An ASGI server's side of one request, in the loop of the test: what an app sends, as it sends it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from multi_agent_scheduler.wire.sse import Decoder, Event


class Exchange:
    """One request to an app. ``async with`` runs it, and leaves at the end as a client does that hangs up."""

    def __init__(
        self,
        app: Any,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        self._app = app
        self._body = body
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        self._came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._decoder = Decoder()
        self._events: list[Event] = []
        self._seen = False
        self.raw = b""
        self.complete = False
        self.full: asyncio.Event | None = None
        """While it is there and not set, the client takes nothing."""
        self.broken = False
        """Sending raises, as some servers do when the client has gone."""

    async def __aenter__(self) -> Self:
        await self._came.put({"type": "http.request", "body": self._body, "more_body": False})
        self._running = asyncio.ensure_future(self._app(self._scope, self._came.get, self._send))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()
        await asyncio.wait({self._running})
        if kind is None and not self._seen:
            await self.done()

    async def leave(self) -> None:
        await self._came.put({"type": "http.disconnect"})

    async def done(self) -> None:
        """Wait for the app to return; raises what it raised."""
        self._seen = True
        await self._running

    async def _send(self, message: dict[str, Any]) -> None:
        if self.broken:
            raise OSError("the client has gone")
        await self._sent.put(message)
        if self.full is not None:
            await self.full.wait()

    async def head(self) -> tuple[int, dict[str, str]]:
        message = await self._message()
        assert message["type"] == "http.response.start"
        return message["status"], {name.decode(): value.decode() for name, value in message["headers"]}

    async def body(self) -> bytes:
        """The next part of the body."""
        message = await self._message()
        assert message["type"] == "http.response.body"
        self.complete = not message.get("more_body", False)
        data: bytes = message["body"]
        self.raw += data
        return data

    async def event(self) -> Event:
        while not self._events:
            assert not self.complete, "the body has ended"
            self._events += self._decoder.feed(await self.body())
        return self._events.pop(0)

    async def rest(self) -> list[Event]:
        """All events up to the end of the body."""
        while not self.complete:
            self._events += self._decoder.feed(await self.body())
        events, self._events = self._events, []
        return events

    async def whole(self) -> bytes:
        while not self.complete:
            await self.body()
        return self.raw

    async def _message(self) -> dict[str, Any]:
        getting = asyncio.ensure_future(self._sent.get())
        await asyncio.wait({getting, self._running}, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            await asyncio.sleep(0)
        if not getting.done():
            getting.cancel()
            self._running.result()
            raise AssertionError("the app returned without another message")
        return getting.result()


class Socket:
    """A WebSocket to an app. ``async with`` runs it, and hangs up at the end."""

    def __init__(self, app: Any, path: str, *, headers: Mapping[str, str] | None = None) -> None:
        self._app = app
        self._scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "subprotocols": [],
            "state": {},
        }
        self._came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._seen = False
        self.accepted = False
        self.broken = False
        """Sending raises, as servers do when the client has gone."""

    async def _send(self, message: dict[str, Any]) -> None:
        if self.broken:
            raise OSError("the client has gone")
        await self._sent.put(message)

    async def __aenter__(self) -> Self:
        await self._came.put({"type": "websocket.connect"})
        self._running = asyncio.ensure_future(self._app(self._scope, self._came.get, self._send))
        self.accepted = (await self._sent.get())["type"] == "websocket.accept"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._came.put({"type": "websocket.disconnect", "code": 1005})
        await asyncio.wait({self._running})
        if kind is None and not self._seen:
            await self.done()

    async def done(self) -> None:
        """Wait for the app to return; raises what it raised."""
        self._seen = True
        await self._running

    async def say(self, text: str) -> None:
        await self._came.put({"type": "websocket.receive", "text": text})

    async def say_bytes(self, data: bytes) -> None:
        await self._came.put({"type": "websocket.receive", "bytes": data})

    async def hear(self) -> Any:
        message = await self._sent.get()
        assert message["type"] == "websocket.send"
        return msgspec.json.decode(message["text"])
