"""What hedging does to the slowest first chunks, and how many requests it costs."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final

from multi_agent_scheduler.agents import CompatibleAgent, Hedge
from multi_agent_scheduler.agents.base import Agent

from .figures import Budget, Report, Row, median
from .provider import render
from .rounds import Setting

__all__ = ["hedge"]

_USUAL: Final = 0.02
"""Seconds to the first chunk, as a rule."""
_SLOW: Final = 2.0
_SHARE: Final = 0.03  # of the requests begin slowly
_REQUESTS: Final = 1500  # in a round
_AT_ONCE: Final = 20
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Service:
    """A provider in this process. ``requests`` are those that came."""

    def __init__(self, seed: int) -> None:
        self.requests = 0
        self._chance = random.Random(seed)
        self._answer = _HEAD + b"".join(render("/chat/completions", 4))

    async def listen(self, stack: AsyncExitStack) -> str:
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", 0)
        stack.callback(server.close)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    def asked(self, transport: asyncio.Transport) -> None:
        self.requests += 1
        seconds = _SLOW if self._chance.random() < _SHARE else _USUAL
        asyncio.get_running_loop().call_later(seconds, self._say, transport)

    def _say(self, transport: asyncio.Transport) -> None:
        if not transport.is_closing():
            transport.write(self._answer)


class _Connection(asyncio.Protocol):
    def __init__(self, service: _Service) -> None:
        self._service = service
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if found and length is not None and len(body) >= int(length[1]):
            self._buffer = b""
            self._service.asked(self._transport)


def hedge(setting: Setting) -> Report:
    """Time to the first chunk with and without Hedge, at a provider of which 3 % of the starts are slow."""
    plain: list[float] = []
    hedged: list[float] = []
    extra: list[float] = []
    for number in range(setting.rounds):
        times, _ = asyncio.run(_round(number, hedging=False))
        plain += times
        times, requests = asyncio.run(_round(number, hedging=True))
        hedged += times
        extra.append(requests / _REQUESTS - 1)
        setting.say(f"round {number + 1}: {requests} requests for {_REQUESTS}")
    rows = [
        Row(
            name, {"p50 ms": _percentile(times, 50), "p95 ms": _percentile(times, 95), "p99 ms": _percentile(times, 99)}
        )
        for name, times in (("alone", plain), ("Hedge, after p95", hedged))
    ]
    rows[1].figures["extra"] = median(extra)
    ratio = _percentile(hedged, 99) / _percentile(plain, 99)
    budgets = [Budget("p99 with Hedge / alone", ratio, 0.5), Budget("extra requests", median(extra), 0.05)]
    title = (
        f"Hedging: {setting.rounds} rounds of {_REQUESTS} requests, {_AT_ONCE} at once, 3 % of the starts slow (2 s)"
    )
    return Report(title, {"p50 ms": ".1f", "p95 ms": ".1f", "p99 ms": ".1f", "extra": "+.1%"}, rows, budgets, [])


async def _round(seed: int, *, hedging: bool) -> tuple[list[float], int]:
    """The times to the first chunk, and how many requests were made."""
    async with AsyncExitStack() as stack:
        service = _Service(seed)
        url = await service.listen(stack)
        members = [CompatibleAgent("k", base_url=url, model="m", name=name) for name in ("a", "b")]
        agent: Agent = Hedge(*members, after="p95") if hedging else members[0]
        await stack.enter_async_context(agent)
        times: list[float] = []
        left = iter(range(_REQUESTS))

        async def ask() -> None:
            for _ in left:
                began = time.perf_counter()
                async with aclosing(agent.call_stream("Hi")) as pieces:
                    first = True
                    async for _piece in pieces:
                        if first:
                            times.append(time.perf_counter() - began)
                            first = False

        await asyncio.gather(*(ask() for _ in range(_AT_ONCE)))
        return times, service.requests


def _percentile(times: Sequence[float], percent: int) -> float:
    """In milliseconds."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1e3
