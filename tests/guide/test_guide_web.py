"""The guide's integrations with web frameworks: its apps behind a real uvicorn, read by real clients."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from multi_agent_scheduler.agents import ClaudeAgent, OpenAIAgent

from ..agents.server import Provider, chat_event, head
from ..agents.server import chunk as framed
from .conftest import FEW


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app behind uvicorn, in a thread with a loop of its own; gives host and port."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn")
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="websockets-sansio", timeout_graceful_shutdown=5)
    web = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=web.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"  # it listens already: who comes early waits
    finally:
        web.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture
def web_agent(key: str) -> ClaudeAgent:
    """An agent that is made in one place and used in the web server's loop, as in the guide's apps."""
    return ClaudeAgent(api_key=key, defaults={"max_tokens": FEW})


async def test_websocket_integration(web_agent: ClaudeAgent) -> None:
    fastapi = pytest.importorskip("fastapi", reason="needs fastapi")
    websockets = pytest.importorskip("websockets.asyncio.client", reason="needs websockets")
    app, agent = fastapi.FastAPI(), web_agent

    async def websocket_stream(websocket: Any) -> None:
        """Stream to WebSocket client"""
        await websocket.accept()

        # Get user prompt
        prompt = await websocket.receive_text()

        # Stream response
        async for chunk in agent.call_stream(prompt):
            await websocket.send_json({"type": "chunk", "data": chunk})

        await websocket.send_json({"type": "complete"})

    websocket_stream.__annotations__["websocket"] = fastapi.WebSocket  # which FastAPI goes by
    app.websocket("/stream")(websocket_stream)

    with serving(app) as place:
        async with websockets.connect(f"ws://{place}/stream", proxy=None) as client:
            await client.send("Say hello")
            messages = [json.loads(await client.recv())]
            while messages[-1]["type"] == "chunk":
                messages.append(json.loads(await client.recv()))

    *chunks, last = messages
    assert len(chunks) > 1
    assert {message["type"] for message in chunks} == {"chunk"}
    assert all(message["data"] for message in chunks)
    assert last == {"type": "complete"}


async def test_server_sent_events(web_agent: ClaudeAgent) -> None:
    fastapi = pytest.importorskip("fastapi", reason="needs fastapi")
    sse = pytest.importorskip("sse_starlette.sse", reason="needs sse-starlette")
    app, agent = fastapi.FastAPI(), web_agent

    async def stream_sse(request: Any) -> Any:
        """Stream via Server-Sent Events"""

        async def event_generator() -> AsyncIterator[dict[str, str]]:
            async for chunk in agent.call_stream("Generate content"):
                yield {"event": "message", "data": chunk}

            yield {"event": "complete", "data": "done"}

        return sse.EventSourceResponse(event_generator())

    stream_sse.__annotations__ = {"request": fastapi.Request}  # as above
    app.get("/stream-sse")(stream_sse)

    with serving(app) as place:
        kind, body = await asyncio.to_thread(_fetched, f"http://{place}/stream-sse")

    assert kind.startswith("text/event-stream")
    names = re.findall(r"^event: (.*?)\r?$", body, re.MULTILINE)
    assert len(names) > 2
    assert set(names[:-1]) == {"message"}
    assert names[-1] == "complete"
    assert body.split("event: complete")[1].strip() == "data: done"


async def test_fastapi_rest_endpoint(web_agent: ClaudeAgent) -> None:
    fastapi = pytest.importorskip("fastapi", reason="needs fastapi")
    responses = pytest.importorskip("fastapi.responses", reason="needs fastapi")
    app, agent = fastapi.FastAPI(), web_agent

    @app.post("/chat/stream")
    async def chat_stream(prompt: str) -> responses.StreamingResponse:
        """REST endpoint with streaming"""

        async def generate() -> AsyncIterator[str]:
            async for chunk in agent.call_stream(prompt):
                yield chunk

        return responses.StreamingResponse(generate(), media_type="text/plain")

    with serving(app) as place:
        kind, body = await asyncio.to_thread(_fetched, f"http://{place}/chat/stream?prompt=Say%20hello", "POST")

    assert kind.startswith("text/plain")
    assert body.strip()
    assert "[ERROR:" not in body


def _fetched(url: str, method: str = "GET") -> tuple[str, str]:
    request = urllib.request.Request(url, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=50) as response:
        return response.headers["content-type"], response.read().decode()


async def test_a_client_that_leaves_stops_the_provider() -> None:
    fastapi = pytest.importorskip("fastapi", reason="needs fastapi")
    responses = pytest.importorskip("fastapi.responses", reason="needs fastapi")
    sse = pytest.importorskip("sse_starlette.sse", reason="needs sse-starlette")
    async with Provider([head(), framed(chat_event({"content": "Once"})), asyncio.Event()]) as provider:
        app, agent = fastapi.FastAPI(), OpenAIAgent("key", base_url=provider.url)

        @app.get("/plain")
        async def plain() -> responses.StreamingResponse:
            return responses.StreamingResponse(agent.call_stream("Hi"), media_type="text/plain")

        @app.get("/events")
        async def events() -> Any:
            return sse.EventSourceResponse({"data": chunk} async for chunk in agent.call_stream("Hi"))

        with serving(app) as place:
            for number, path in enumerate(["/plain", "/events"]):
                await leave_after_first_chunk(place, path)
                await provider.peers[number].closed.wait()


async def leave_after_first_chunk(place: str, path: str) -> None:
    host, _, port = place.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
    await reader.readuntil(b"Once")
    writer.close()
    await writer.wait_closed()
