"""HEAD: what GET would answer, without the body."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from multi_agent_scheduler.server import Settings
from multi_agent_scheduler.testing import ScriptedAgent

from .served import eventually, serving, task

CHANGING = {"date", "x-request-id"}


def kept(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in CHANGING}


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/readyz", "/v1/models", "/v1/models/a", "/v1/models/none", "/v1/agents", "/v1/streams",
     "/v1/streams/{}", "/v1/streams/none", "/v1/streams/{}?after=rubbish", "/v1/responses/resp_{}", "/openapi.json",
     "/docs"],
)  # fmt: skip
async def test_it_is_answered_as_get_is(path: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        stream_id = (await served.submit(task()))["a"]
        await served.events(stream_id)
        whole = await served.http.get(path.format(stream_id))
        head = await served.http.head(path.format(stream_id))
        assert (head.status_code, kept(head), head.content) == (whole.status_code, kept(whole), b"")
        assert int(head.headers["content-length"]) == len(whole.content) > 0


async def test_figures_have_a_head_too() -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        head = await served.http.head("/metrics")
        assert head.status_code == 200
        assert head.headers["content-type"].startswith("text/plain")


async def test_what_only_takes_post_has_no_head() -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        answer = await served.http.head("/v1/tasks")
        assert (answer.status_code, answer.headers["allow"], answer.content) == (405, "OPTIONS, POST", b"")


async def test_on_a_stream_it_reads_nothing() -> None:
    agent = ScriptedAgent("Hel", asyncio.Event())
    async with serving({"a": agent}, settings=Settings(access_log=False, grace=0.001)) as served:
        chat = {"id": "c", "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
        running = asyncio.create_task(served.post("/v1/ai-sdk/chat", chat))
        await eventually(lambda: agent.running == 1 and served.app.relays)
        (info,) = served.scheduler.streams()
        native, response = f"/v1/streams/{info.stream_id}", f"/v1/responses/resp_{info.stream_id}?stream=true"
        for path in (native, response, "/v1/ai-sdk/chat/c/stream"):
            head = await served.http.head(path, headers={"accept": "text/event-stream"})
            assert (head.status_code, head.content) == (200, b""), path
            assert head.headers["content-type"].startswith("text/event-stream")
            assert head.headers["x-accel-buffering"] == "no"
            assert len(served.app.relays) == 1
        assert served.scheduler.find(info.stream_id).state == "running"
        running.cancel()
