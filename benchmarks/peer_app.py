"""What a user would write instead of a gateway: FastAPI, sse-starlette and the openai SDK, as their guides show.

``python -m uvicorn benchmarks.peer_app:app``; the provider's address is in ``OPENAI_BASE_URL``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from openai import AsyncOpenAI
from sse_starlette.sse import EventSourceResponse

app = FastAPI()
client = AsyncOpenAI(api_key="none", max_retries=0)


@app.post("/v1/chat/completions")
async def chat(request: Request) -> EventSourceResponse:
    body: dict[str, Any] = await request.json()

    async def chunks() -> AsyncIterator[str]:
        stream = await client.chat.completions.create(
            model=body["model"], messages=body["messages"], stream=True, timeout=600
        )
        async for chunk in stream:
            yield chunk.model_dump_json()
        yield "[DONE]"

    return EventSourceResponse(chunks())
