"""Streams in a FastAPI app, in every way there is. It runs with no key, on the embedded model:

    python examples/fastapi_app.py
    curl -N -X POST 'http://127.0.0.1:8000/chat/stream?prompt=Say+hello'      plain text
    curl -N 'http://127.0.0.1:8000/stream-sse?prompt=Say+hello'               server-sent events
    curl -N 'http://127.0.0.1:8000/tasks-sse?prompt=Say+hello'                a scheduler's dicts, as events

ws://127.0.0.1:8000/stream takes prompts over a WebSocket, and under /llm is the whole server: its tasks and streams,
and the protocols of OpenAI, Anthropic and the AI SDK. Needs FastAPI and uvicorn.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket
from fastapi.responses import Response, StreamingResponse

from multi_agent_scheduler import Agent, MultiAgentScheduler, Task
from multi_agent_scheduler.integrations.fastapi import mount, sse, websocket_stream
from options import chosen, serve


def make_app(agent: Agent) -> FastAPI:
    scheduler = MultiAgentScheduler({"agent": agent})

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with scheduler:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/chat/stream")
    async def chat_stream(prompt: str) -> Response:
        return StreamingResponse(agent.call_stream(prompt), media_type="text/plain")

    @app.get("/stream-sse")
    async def stream_sse(prompt: str) -> Response:
        return sse(agent.call_stream(prompt))

    @app.get("/tasks-sse")
    async def tasks_sse(prompt: str) -> Response:
        return sse(scheduler.execute_task_stream(Task("task", prompt)))

    @app.websocket("/stream")
    async def websocket(websocket: WebSocket) -> None:
        await websocket_stream(websocket, agent.call_stream)

    mount(app, scheduler, "/llm")
    return app


if __name__ == "__main__":
    agent, port = chosen("Streams in a FastAPI app.")
    serve(make_app(agent), port)
