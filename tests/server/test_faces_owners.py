"""With keys, nobody reads, stops or resumes what somebody else asked for, in whichever protocol."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from multi_agent_scheduler.server import Keys
from multi_agent_scheduler.testing import ScriptedAgent
from tests.server.served import serving
from tests.wire.ui_messages import chunks

CHAT = "/v1/ai-sdk/chat"
POSTED: Any = {"id": "chat-1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
HI: Any = [{"role": "user", "content": "Hi"}]


async def test_a_key_is_needed_in_every_protocol(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    key = keys.create("alice")
    async with serving({"a": ScriptedAgent("x")}, keys=keys) as served:
        for given, works in (("wrong", False), (key, True)):
            async with (
                openai.AsyncOpenAI(api_key=given, base_url=f"{served.url}/v1", max_retries=0) as one,
                anthropic.AsyncAnthropic(api_key=given, base_url=served.url, max_retries=0) as other,
            ):
                if works:
                    assert (await one.chat.completions.create(model="a", messages=HI)).choices
                    assert (await other.messages.create(model="a", max_tokens=9, messages=HI)).content
                    continue
                with pytest.raises(openai.AuthenticationError) as refused:
                    await one.chat.completions.create(model="a", messages=HI)
                assert refused.value.code == "invalid_api_key"
                with pytest.raises(openai.AuthenticationError):
                    await one.responses.create(model="a", input="x")
                with pytest.raises(openai.AuthenticationError):
                    await one.models.list()
                with pytest.raises(anthropic.AuthenticationError):
                    await other.messages.create(model="a", max_tokens=9, messages=HI)
        for method, path in (("POST", CHAT), ("GET", f"{CHAT}/chat-1/stream"), ("POST", f"{CHAT}/chat-1/stop")):
            assert (await served.http.request(method, path, json=POSTED)).status_code == 401


async def test_a_response_of_somebody_else_is_one_that_does_not_exist(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    alice, bob = keys.create("alice"), keys.create("bob")
    gate = asyncio.Event()
    async with serving({"a": ScriptedAgent("secret", gate)}, keys=keys) as served:
        base = f"{served.url}/v1"
        async with (
            openai.AsyncOpenAI(api_key=alice, base_url=base, max_retries=0) as hers,
            openai.AsyncOpenAI(api_key=bob, base_url=base, max_retries=0) as his,
        ):
            begun = await hers.responses.create(model="a", input="x", background=True)
            unknown = begun.id[:-1] + ("0" if begun.id[-1] != "0" else "1")
            told = []
            for response_id in (begun.id, unknown):
                for asking in (
                    his.responses.retrieve(response_id),
                    his.responses.retrieve(response_id, stream=True),
                    his.responses.cancel(response_id),
                ):
                    with pytest.raises(openai.NotFoundError) as caught:
                        await asking
                    told.append(caught.value.message.replace(response_id.removeprefix("resp_"), "ID"))
            assert len(set(told)) == 1
            assert (await hers.responses.retrieve(begun.id)).status == "in_progress"
            gate.set()
            events = [event async for event in await hers.responses.retrieve(begun.id, stream=True)]
            assert events[-1].type == "response.completed"


async def test_two_owners_may_have_a_chat_of_the_same_name(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    alice, bob = ({"authorization": f"Bearer {keys.create(name)}"} for name in ("alice", "bob"))
    gate = asyncio.Event()
    async with serving({"a": ScriptedAgent("secret", gate)}, keys=keys) as served:
        async with served.http.stream("POST", CHAT, json=POSTED, headers=alice) as response:
            async for line in response.aiter_lines():
                if "text-delta" in line:
                    break
            assert (await served.http.get(f"{CHAT}/chat-1/stream", headers=bob)).status_code == 204
            assert (await served.http.post(f"{CHAT}/chat-1/stop", headers=bob)).status_code == 204
            assert [info.state for info in served.scheduler.streams()] == ["running"]
        async with served.http.stream("GET", f"{CHAT}/chat-1/stream", headers=alice) as response:
            gate.set()
            assert chunks(await response.aread())[-1]["finishReason"] == "stop"
