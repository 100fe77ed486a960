"""No client can say where a model is asked, nor with whose key: in every protocol, at every place."""

from __future__ import annotations

from typing import Any, Final

import anthropic
import msgspec
import openai
import pytest
import websockets

from multi_agent_scheduler.testing import ScriptedAgent

from .served import serving, task

EVIL: Final = "http://evil.example/v1"
HI: Final[Any] = [{"role": "user", "content": "Hi"}]
PARTS: Final = [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]
BODIES: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": {"model": "a", "messages": HI},
    "/v1/responses": {"model": "a", "input": "Hi"},
    "/v1/messages": {"model": "a", "max_tokens": 5, "messages": HI},
    "/v1/ai-sdk/chat": {"model": "a", "id": "c", "messages": PARTS},
    "/v1/ai-sdk/object": {"model": "a", "prompt": "Hi"},
    "/v1/tasks": {"tasks": [task(agent="a")]},
}
NAMES: Final = ("base_url", "baseURL", "api_key", "apiKey", "headers")
OTHERS: Final = ("url", "endpoint", "api_base", "extra", "extra_body", "extra_headers", "options", "provider")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", NAMES)
async def test_the_names_that_clients_have_for_it_are_refused(path: str, name: str) -> None:
    agent = ScriptedAgent("{}")
    async with serving({"a": agent}) as served:
        answer = await served.post(path, {**BODIES[path], name: EVIL})
    assert answer.status_code == 400
    assert name in answer.text
    assert agent.requests == []


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", OTHERS)
async def test_any_other_is_refused_or_goes_nowhere(path: str, name: str) -> None:
    """The AI SDK's pages send what they like: what has no meaning here is left out. All others are told."""
    agent = ScriptedAgent("{}")
    async with serving({"a": agent}) as served:
        answer = await served.post(path, {**BODIES[path], name: {"base_url": EVIL, "url": EVIL}})
    if path.startswith("/v1/ai-sdk"):
        assert answer.status_code == 200
        assert EVIL not in repr(agent.requests[0])
        assert agent.requests[0].extra == {}
    else:
        assert answer.status_code == 400
        assert name in answer.text
        assert agent.requests == []


@pytest.mark.parametrize(
    "fields",
    [*({name: EVIL} for name in (*NAMES, *OTHERS)), *({"options": {name: EVIL}} for name in (*NAMES, *OTHERS)),
     {"options": {"extra": {"base_url": EVIL}}}, {"timeouts": {"base_url": EVIL}}],
)  # fmt: skip
async def test_a_task_has_no_place_for_it(fields: dict[str, Any]) -> None:
    agent = ScriptedAgent("{}")
    async with serving({"a": agent}) as served:
        answer = await served.post("/v1/tasks", {"tasks": [task(agent="a", **fields)]})
        assert answer.status_code == 400
        async with websockets.connect(served.url.replace("http", "ws") + "/v1/ws") as socket:
            await socket.send(msgspec.json.encode({"type": "submit", "tasks": [task(**fields)]}).decode())
            assert msgspec.json.decode(await socket.recv())["status"] == 400
    assert agent.requests == []


async def test_metadata_and_headers_say_nothing_to_an_agent() -> None:
    agent = ScriptedAgent("{}")
    headers = {"x-base-url": EVIL, "openai-base-url": EVIL, "x-forwarded-host": "evil.example", "x-stainless-url": EVIL}
    async with serving({"a": agent}) as served:
        streams = await served.submit(task(agent="a", metadata={"base_url": EVIL, "headers": {"a": EVIL}}))
        await served.events(streams["a"])
        for path, body in BODIES.items():
            assert (await served.post(path, body, headers=headers)).is_success
    assert len(agent.requests) == 1 + len(BODIES)
    assert "evil" not in repr(agent.requests)


async def test_the_official_clients_extra_body_is_refused() -> None:
    agent = ScriptedAgent("{}")
    async with (
        serving({"a": agent}) as served,
        openai.AsyncOpenAI(api_key="any", base_url=f"{served.url}/v1", max_retries=0) as sdk,
        anthropic.AsyncAnthropic(api_key="any", base_url=served.url, max_retries=0) as claude,
    ):
        for body in ({"base_url": EVIL}, {"extra": {"base_url": EVIL}}, {"options": {"base_url": EVIL}}):
            with pytest.raises(openai.BadRequestError, match="not a field"):
                await sdk.chat.completions.create(model="a", messages=HI, extra_body=body)
            with pytest.raises(openai.BadRequestError, match="not a field"):
                await sdk.responses.create(model="a", input="Hi", extra_body=body)
            with pytest.raises(anthropic.BadRequestError, match="not a field"):
                await claude.messages.create(model="a", max_tokens=5, messages=HI, extra_body=body)
    assert agent.requests == []


# --- one answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in BODIES if path != "/v1/tasks"])
@pytest.mark.parametrize("count", [-1, 0, 2, 1.5, "1", True, [1]])
async def test_a_request_gets_one_answer(path: str, count: Any) -> None:
    agent = ScriptedAgent("{}")
    async with serving({"a": agent}) as served:
        answer = await served.post(path, {**BODIES[path], "n": count})
    assert answer.status_code == 400
    assert agent.requests == []
    said = answer.text if path.startswith("/v1/ai-sdk") else answer.json()["error"]["message"]
    assert said.startswith("n must be 1") or "'n' is not a field" in said


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/ai-sdk/chat", "/v1/ai-sdk/object"])
async def test_one_may_be_said(path: str) -> None:
    async with serving({"a": ScriptedAgent("{}")}) as served:
        for count in (1, None):
            assert (await served.post(path, {**BODIES[path], "n": count})).status_code == 200
