"""Contenders that only move bytes: the raw baseline, asyncio's streams, aiohttp, httptools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = ["Aiohttp", "AiohttpJson", "Contender", "Httptools", "Raw", "RawBuffered", "RawStreams"]

_PAYLOADS: Final[dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True},
    "/v1/responses": {"model": "m", "input": "hello", "stream": True},
    "/v1/messages": {
        "model": "m",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
    },
}


class Contender:
    """One way to read a stream. ``start`` and ``close`` bracket each round and are not measured."""

    unit = "characters"
    """What :meth:`stream` returns the number of: characters of the answer, or bytes of it."""

    async def start(self, root: str, streams: int) -> None:
        """Make the client for the provider at ``root`` (a URL), for that many streams at once."""
        raise NotImplementedError

    def chunks(self) -> AsyncIterator[Any]:
        """One answer, chunk by chunk; what has a length counts."""
        raise NotImplementedError

    async def stream(self) -> int:
        """One whole answer."""
        total = 0
        async for chunk in self.chunks():
            total += len(chunk)
        return total

    async def close(self) -> None:
        """Close the client."""


class _Plain(Contender):
    unit = "bytes"

    def __init__(self, path: str = "/v1/chat/completions") -> None:
        self._path = path
        self._body = json.dumps(_PAYLOADS[path]).encode()

    async def start(self, root: str, streams: int) -> None:  # noqa: ARG002
        url = urlsplit(root)
        self._host, self._port = url.hostname, url.port
        head = f"POST {url.path}{self._path} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-type: application/json\r\n"
        self._request = f"{head}content-length: {len(self._body)}\r\n\r\n".encode() + self._body


class _Counting(asyncio.BaseProtocol):
    def __init__(self, request: bytes, done: asyncio.Future[int]) -> None:
        self._request = request
        self._done = done
        self._bytes = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def count(self, data: bytes) -> None:
        self._bytes += len(data)
        if data.endswith(b"0\r\n\r\n"):
            self._transport.close()
            self._done.set_result(self._bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("cut"))


class _Counter(_Counting, asyncio.Protocol):
    data_received = _Counting.count


class _BufferedCounter(_Counting, asyncio.BufferedProtocol):
    _space = memoryview(bytearray(65536))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._space

    def buffer_updated(self, nbytes: int) -> None:
        self.count(bytes(self._space[:nbytes]))


class Raw(_Plain):
    """The floor: a protocol that sends the request and counts the bytes that come, all of them, unparsed."""

    counter: type[_Counting] = _Counter

    async def stream(self) -> int:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        await loop.create_connection(lambda: self.counter(self._request, done), self._host, self._port)
        return await done


class RawBuffered(Raw):
    """As raw, but read into a buffer that is there already: asyncio's own loop allocates 256 KiB for each read."""

    counter = _BufferedCounter


class RawStreams(_Plain):
    """As raw, but read with ``await reader.read()``: what waiting in a coroutine costs by itself."""

    async def chunks(self) -> AsyncIterator[bytes]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(self._request)
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data = await reader.read(65536)
            if not data:
                raise ConnectionError("cut")
            yield data
        writer.close()

    async def stream(self) -> int:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(self._request)
        data, total = b"", 0
        while not data.endswith(b"0\r\n\r\n"):
            data = await reader.read(65536)
            if not data:
                raise ConnectionError("cut")
            total += len(data)
        writer.close()
        return total


class Aiohttp(_Plain):
    """Bare aiohttp: ``readany`` in a loop, bytes counted."""

    async def start(self, root: str, streams: int) -> None:
        import aiohttp

        await super().start(root, streams)
        self._url = root + self._path
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)

    def _post(self) -> Any:
        return self._session.post(self._url, data=self._body, headers={"content-type": "application/json"})

    async def chunks(self) -> AsyncIterator[bytes]:
        async with self._post() as response:
            while data := await response.content.readany():
                yield data

    async def stream(self) -> int:
        total = 0
        async with self._post() as response:
            read = response.content.readany
            while data := await read():
                total += len(data)
        return total

    async def close(self) -> None:
        await self._session.close()


class AiohttpJson(Aiohttp):
    """aiohttp and the least that gives text: lines, untyped JSON, the delta's content; no errors, no bounds."""

    unit = "characters"

    async def chunks(self) -> AsyncIterator[str]:
        import msgspec

        decode = msgspec.json.Decoder().decode
        rest = b""
        async with self._post() as response:
            read = response.content.readany
            while data := await read():
                lines = (rest + data).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    if line.startswith(b"data: {"):
                        for choice in decode(line[6:])["choices"]:
                            if text := choice["delta"].get("content"):
                                yield text

    stream = Contender.stream


class _Parsed(asyncio.Protocol):
    def __init__(self, request: bytes, loop: asyncio.AbstractEventLoop) -> None:
        import httptools

        self._request = request
        self._loop = loop
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # the parser looks its callbacks up when it is made
        self._feed = httptools.HttpResponseParser(self).feed_data
        self._waiter: asyncio.Future[None] | None = None
        self._done = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._feed(data)
        self._wake()

    def on_message_complete(self) -> None:
        self._done = True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._done = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def read(self) -> bytes:
        while not self._pieces and not self._done:
            self._waiter = self._loop.create_future()
            await self._waiter
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


class Httptools(_Plain):
    """The smallest client over llhttp: a protocol, its parser and one future."""

    async def stream(self) -> int:
        loop = asyncio.get_running_loop()
        _, reader = await loop.create_connection(lambda: _Parsed(self._request, loop), self._host, self._port)
        total = 0
        while data := await reader.read():
            total += len(data)
        reader.transport.close()
        return total
