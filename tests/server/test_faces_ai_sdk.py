"""The AI SDK's chat over HTTP: what a page posts, gets, comes back for and stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.records import Completed, Interrupted, Reset, Text, ToolCall, Usage
from multi_agent_scheduler.server import Settings
from multi_agent_scheduler.testing import ScriptedAgent
from tests.server.served import Served, serving
from tests.wire.ui_messages import Page, chunks

CHAT = "/v1/ai-sdk/chat"
HI = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}


def posted(*messages: Any, chat: str = "chat-1", **fields: Any) -> dict[str, Any]:
    return {"id": chat, "messages": list(messages or [HI]), "trigger": "submit-message", **fields}


def texts(page: Page) -> list[str]:
    return [part["text"] for part in page.parts if part["type"] == "text"]


async def first_text(response: httpx.Response) -> AsyncIterator[str]:
    """The lines of a stream behind the first text."""
    lines = response.aiter_lines()
    async for line in lines:
        if "text-delta" in line:
            break
    return lines


async def test_a_chat_streams() -> None:
    agent = ScriptedAgent("Hel", "lo", Usage(input_tokens=5, output_tokens=2))
    async with serving({"a": agent}) as served:
        answer = await served.post(CHAT, posted(model="a", system="Be kind"))
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert answer.headers["content-type"].startswith("text/event-stream")
    got = chunks(answer.content)
    assert texts(Page(got)) == ["Hello"]
    assert got[0]["messageId"].startswith("msg_") and got[0]["messageMetadata"] == {"model": "a"}
    assert got[-1]["messageMetadata"]["usage"]["totalTokens"] == 7
    assert [message.role for message in agent.requests[0].messages] == ["system", "user"]


async def test_without_a_model_the_scheduler_chooses() -> None:
    first, second = ScriptedAgent("first"), ScriptedAgent("second")
    async with serving({"a": first, "b": second}) as served:
        answer = await served.post(CHAT, posted())
        other = await served.post(CHAT, posted(model="b/x"))
    assert texts(Page(chunks(answer.content))) == ["first"]
    assert texts(Page(chunks(other.content))) == ["second"] and second.requests[0].model == "x"


async def test_a_tool_runs_in_the_page_and_the_message_goes_on() -> None:
    agent = ScriptedAgent(ToolCall(0, id="c1", name="look", arguments='{"at":"x"}'), Completed("tool_calls"))
    async with serving({"a": agent}) as served:
        got = chunks((await served.post(CHAT, posted(tools={"look": {"inputSchema": {"type": "object"}}}))).content)
        page = Page(got)
        call = next(part for part in page.parts if part["type"] == "tool-look")
        assert call["state"] == "input-available" and page.reason == "tool-calls"
        call.update(state="output-available", output={"seen": True})
        message = {**page.message, "id": got[0]["messageId"]}
        agent.script = ("Seen",)
        again = chunks((await served.post(CHAT, posted(HI, message))).content)
    assert again[0]["messageId"] == message["id"]
    assert [part.role for part in agent.requests[1].messages] == ["user", "assistant", "tool"]
    assert agent.requests[0].tools[0].name == "look"


async def test_a_page_that_is_loaded_again_gets_the_answer_under_way_from_its_start() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent("Hel", gate, "lo")
    async with serving({"a": agent}) as served:
        async with served.http.stream("POST", CHAT, json=posted(model="a")) as response:
            await first_text(response)
        async with served.http.stream("GET", f"{CHAT}/chat-1/stream") as response:
            assert response.status_code == 200
            gate.set()
            got = chunks(await response.aread())
        await served.scheduler.wait_idle()
        over = await served.http.get(f"{CHAT}/chat-1/stream")
        other = await served.http.get(f"{CHAT}/chat-2/stream")
    assert texts(Page(got)) == ["Hello"] and got[0]["messageMetadata"] == {"model": "a"}
    assert over.status_code == other.status_code == 204 and over.content == b""
    assert len(agent.requests) == 1


async def test_a_message_that_goes_on_keeps_its_id_for_a_page_that_comes_back() -> None:
    gate = asyncio.Event()
    done = {"type": "tool-f", "toolCallId": "c1", "state": "output-available", "input": {}, "output": 1}
    message = {"id": "msg 1/ü", "role": "assistant", "parts": [done]}
    async with serving({"a": ScriptedAgent("Hel", gate, "lo")}) as served:
        async with served.http.stream("POST", CHAT, json=posted(HI, message, chat="my chat?")) as response:
            await first_text(response)
        async with served.http.stream("GET", f"{CHAT}/my%20chat%3F/stream") as response:
            gate.set()
            got = chunks(await response.aread())
    assert got[0]["messageId"] == "msg 1/ü"


async def test_stopping_is_a_request_of_its_own() -> None:
    agent = ScriptedAgent("half", asyncio.Event())
    async with serving({"a": agent}) as served:
        async with served.http.stream("POST", CHAT, json=posted()) as response:
            lines = await first_text(response)
            assert (await served.http.post(f"{CHAT}/chat-2/stop")).status_code == 204
            assert agent.closed == 0
            assert (await served.http.post(f"{CHAT}/chat-1/stop")).status_code == 204
            rest = [line async for line in lines if line]
        assert (await served.http.post(f"{CHAT}/chat-1/stop")).status_code == 204
    assert agent.closed == 1
    assert rest[-2:] == ['data: {"type":"abort","reason":"stopped by the user"}', "data: [DONE]"]


async def test_an_answer_that_nobody_comes_back_for_is_stopped_after_the_grace() -> None:
    agent = ScriptedAgent("half", asyncio.Event())
    async with serving({"a": agent}, settings=Settings(grace=0.05, access_log=False)) as served:
        async with served.http.stream("POST", CHAT, json=posted()) as response:
            await first_text(response)
        await asyncio.wait_for(served.scheduler.wait_idle(), 5)
        assert [info.state for info in served.scheduler.streams()] == ["cancelled"]


async def test_a_chat_of_before_a_restart_is_found(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'streams.db'}"
    async with serving({"a": ScriptedAgent("x")}, store=store) as served:
        assert (await served.post(CHAT, posted())).status_code == 200
    async with serving({"a": ScriptedAgent("x")}, store=store) as served:
        assert (await served.http.get(f"{CHAT}/chat-1/stream")).status_code == 204
        (info,) = served.scheduler.streams()
        assert info.task_id == "ai-sdk/chat-1"


async def test_failures_before_and_in_the_answer() -> None:
    early = ScriptedAgent(agent_error(ErrorInfo("rate_limit_error", "slow down", status=429, retry_after=3)))
    late = ScriptedAgent("half", Interrupted(ErrorInfo("interrupted", "it broke off", detail="secret words")))
    async with serving({"early": early, "late": late}) as served:
        refused = await served.post(CHAT, posted(model="early"))
        broken = await served.post(CHAT, posted(model="late"))
    assert (refused.status_code, refused.text) == (429, "slow down") and refused.headers["retry-after"] == "3"
    page = Page(chunks(broken.content))
    assert page.error == "it broke off" and texts(page) == ["half"]


async def test_a_reset_is_shown() -> None:
    agent = ScriptedAgent(Text("wrong"), Reset(2, "another attempt"), Text("right"))
    async with serving({"a": agent}) as served:
        page = Page(chunks((await served.post(CHAT, posted())).content))
    assert [part["data"] for part in page.parts if part["type"] == "data-reset"] == [
        {"void": 1, "reason": "another attempt"}
    ]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"id": "c"}, "messages must be a list of at least one message"),
        (posted(model="b"), "there is no model 'b'"),
        (posted(chat=""), "id must have 1 to 200 characters"),
        (posted(chat="x" * 201), "id must have 1 to 200 characters"),
        (posted(HI, {"id": "x" * 201, "role": "assistant", "parts": []}), "the last message's id must have"),
    ],
)
async def test_a_body_that_does_not_fit_is_told_in_a_sentence(body: Any, told: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        answer = await served.post(CHAT, body)
    assert answer.status_code in (400, 404) and told in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


async def _nested(served: Served, path: str, depth: int) -> int:
    deep: Any = "x"
    for _ in range(depth):
        deep = {"a": deep}
    parts = [{"type": "tool-f", "toolCallId": "c", "state": "output-available", "input": deep, "output": deep}]
    content: Any = [{"type": "tool_use", "id": "c", "name": "f", "input": deep}]
    body = {
        "model": "a",
        "id": "c",
        "input": "x",
        "metadata": deep,
        "messages": [{"id": "m", "role": "assistant", "parts": parts, "content": content}, HI | {"content": "x"}],
        "tools": {"f": {"inputSchema": deep}} if "ai-sdk" in path else [],
    }
    return (await served.post(path, body)).status_code


async def test_a_tool_whose_schema_would_keep_a_model_here_busy_is_refused() -> None:
    deep: Any = {}
    for _ in range(70):
        deep = {"items": deep}
    agent = ScriptedAgent("x")
    async with serving({"a": agent}) as served:
        for schema, said in ((deep, "nested deeper than 64"), ({"enum": [*range(1001)]}, "more than 1000 values")):
            answer = await served.post(CHAT, posted(tools={"look": {"inputSchema": schema}}))
            assert answer.status_code == 400 and said in answer.text
    assert agent.requests == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", CHAT])
async def test_no_depth_of_json_breaks_the_server(path: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'streams.db'}"
    async with serving({"a": ScriptedAgent("x")}, store=store) as served:
        statuses = [await _nested(served, path, depth) for depth in (10, 100, 300, 450, 490, 700, 900)]
    assert set(statuses) <= {200, 400}
