"""A server with scripted agents on a free port of this machine, in the test's own loop, as ``mas serve`` runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from multi_agent_scheduler import EventBus, Metrics, MultiAgentScheduler
from multi_agent_scheduler.server import Keys, Server, Settings, make_app
from multi_agent_scheduler.server.process import Process, bound
from multi_agent_scheduler.store import Store
from multi_agent_scheduler.wire import sse

__all__ = ["Served", "events_of", "eventually", "serving", "task"]


class Served(msgspec.Struct):
    """``http`` is a plain client of it."""

    url: str
    scheduler: MultiAgentScheduler
    app: Server
    http: httpx.AsyncClient
    process: Process

    async def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return await self.http.post(path, json=body, **more)

    async def submit(self, *tasks: Mapping[str, Any], **more: Any) -> dict[str, str]:
        """Start tasks; gives the stream ids by task id."""
        answer = await self.post("/v1/tasks", {"tasks": tasks}, **more)
        assert answer.status_code == 202, answer.text
        streams: dict[str, str] = answer.json()["streams"]
        return streams

    async def events(self, stream_id: str, after: str = "", **headers: str) -> httpx.Response:
        """All of a stream's events, once it has ended."""
        told = {"accept": "text/event-stream", **headers}
        if after:
            told["last-event-id"] = after
        return await self.http.get(f"/v1/streams/{stream_id}", headers=told)


def task(name: str = "a", prompt: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"id": name, "prompt": prompt, **fields}


def events_of(chunks: bytes | Iterable[bytes]) -> list[sse.Event]:
    """The events in an answer's bytes."""
    decoder = sse.Decoder()
    return [event for chunk in ([chunks] if isinstance(chunks, bytes) else chunks) for event in decoder.feed(chunk)]


async def eventually(fact: Callable[[], object]) -> None:
    """Let the loop turn until something holds that is about to."""
    for _ in range(10_000):
        if fact():
            return
        await asyncio.sleep(0)
    pytest.fail("it never came to hold")


@asynccontextmanager
async def serving(
    agents: dict[str, Any],
    *,
    settings: Settings | None = None,
    store: str | Store = "memory://",
    keys: Keys | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    """``options`` are the scheduler's."""
    bus, metrics = EventBus(), Metrics()
    settings = settings or Settings(access_log=False)
    async with MultiAgentScheduler(agents, store=store, event_bus=bus, metrics=metrics, **options) as scheduler:
        app = make_app(scheduler, settings=settings, keys=keys, metrics=metrics)
        process = Process(app, bound("127.0.0.1", 0))
        running = asyncio.create_task(process.run())
        await process.started()
        url = "http://{}:{}".format(*process.address)
        try:
            async with httpx.AsyncClient(base_url=url, timeout=10) as http:
                yield Served(url, scheduler, app, http, process)
        finally:
            process.stop()
            await running
