"""Each provider's agent: where it asks, how its key travels, what it sends, and recorded answers of the real ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from multi_agent_scheduler.agents import (
    PRESETS,
    ClaudeAgent,
    CompatibleAgent,
    GeminiAgent,
    OpenAIAgent,
)
from multi_agent_scheduler.agents.http import HttpAgent
from multi_agent_scheduler.agents.models import max_output_tokens
from multi_agent_scheduler.errors import InvalidConfiguration, InvalidOption, InvalidRequest, RateLimitError
from multi_agent_scheduler.records import TERMINALS, CallStarted, Completed
from multi_agent_scheduler.wire import anthropic, gemini, openai_chat, openai_responses
from tests.wire.replay import Recording, decode, recordings

from .asking import KEY, error_answer, texts
from .server import Provider, answer, chat

Make = Callable[..., HttpAgent]

AGENTS: Mapping[str, tuple[Make, str, str, dict[str, str]]] = {
    "chat": (OpenAIAgent, "/v1", "/v1/chat/completions", {"authorization": f"Bearer {KEY}"}),
    "responses": (
        lambda *args, **settings: OpenAIAgent(*args, api="responses", **settings),
        "/v1",
        "/v1/responses",
        {"authorization": f"Bearer {KEY}"},
    ),
    "messages": (ClaudeAgent, "", "/v1/messages", {"x-api-key": KEY, "anthropic-version": "2023-06-01"}),
    "generatecontent": (
        GeminiAgent,
        "",
        "/v1beta/models/m-1:streamGenerateContent?alt=sse",
        {"x-goog-api-key": KEY},
    ),
}


DECODERS = {
    "chat": openai_chat.Decoder,
    "responses": openai_responses.Decoder,
    "messages": anthropic.Decoder,
    "generatecontent": gemini.Decoder,
}


def short(api: str) -> Recording:
    """The shortest recording with some text and a good end."""

    def good(recording: Recording) -> bool:
        records = decode(DECODERS[api], [recording.body])
        return texts(records) != "" and isinstance(end := records[-1], Completed) and end.stop_reason == "stop"

    return min(filter(good, recordings(api)), key=lambda recording: len(recording.body))


@pytest.mark.parametrize("api", AGENTS)
async def test_a_recorded_answer_comes_through_the_network(api: str) -> None:
    make, under, target, headers = AGENTS[api]
    pieces = re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", short(api).body)
    async with Provider(answer(pieces)) as provider:
        agent = make(KEY, model="m-1", base_url=provider.url + under)
        async with agent:
            records = [record async for record in agent.stream("Hi", max_tokens=50)]
            text = "".join([piece async for piece in agent.call_stream("Hi")])
    assert isinstance(records[0], CallStarted)
    assert isinstance(records[-1], Completed)
    assert text == texts(records)
    request = provider.requests[0]
    assert (request.method, request.target) == ("POST", target)
    assert {name: request.headers.get(name) for name in headers} == headers
    assert not {"authorization", "x-api-key", "x-goog-api-key"} & (request.headers.keys() - headers.keys())


@pytest.mark.parametrize("api", AGENTS)
async def test_every_recording_of_every_provider_ends_in_one_terminal(api: str) -> None:
    make, under, _, _ = AGENTS[api]
    found = recordings(api)
    async with Provider(*(answer(recording.body) for recording in found)) as provider:
        agent = make(KEY, model="m-1", base_url=provider.url + under)
        async with agent:
            for recording in found:
                records = [record async for record in agent.stream("Hi")]
                assert isinstance(records[-1], TERMINALS), recording.file
                assert records[-2].__struct_config__.tag == "call_ended", recording.file
        assert len(provider.peers) == 1  # whatever was said, the connection could be used again


@pytest.mark.parametrize("api", AGENTS)
async def test_a_refusal_is_understood_in_every_protocol(api: str) -> None:
    make, under, _, _ = AGENTS[api]
    said = {"error": {"message": "slow down", "code": 429, "status": "RESOURCE_EXHAUSTED", "type": "rate_limit_error"}}
    async with Provider(error_answer(429, said, **{"retry-after": "3"})) as provider:
        agent = make(KEY, model="m-1", base_url=provider.url + under)
        async with agent:
            with pytest.raises(RateLimitError) as caught:
                await agent.call("Hi")
    assert (caught.value.status, caught.value.retry_after, caught.value.info.detail) == (429, 3.0, "slow down")


# --- Claude ---------------------------------------------------------------------------------------------------------


async def test_claudes_max_tokens_is_the_models_most_unless_given() -> None:
    async with Provider(error_answer(400, {})) as provider, ClaudeAgent(KEY, base_url=provider.url) as agent:
        for options in ({}, {"max_tokens": 7}, {"model": "claude-3-haiku-20240307"}, {"model": "unheard-of"}):
            with pytest.raises(Exception, match="refused"):
                await agent.call("Hi", **options)
    sent = [(request.json["model"], request.json["max_tokens"]) for request in provider.requests]
    assert sent == [
        ("claude-sonnet-5", 128_000),
        ("claude-sonnet-5", 7),
        ("claude-3-haiku-20240307", 4096),
        ("unheard-of", 8192),
    ]


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("claude-opus-4-20250514", 32_000),
        ("claude-opus-4-1-20250805", 32_000),
        ("claude-opus-4-5-20251101", 64_000),
        ("claude-haiku-4-5-20251001", 64_000),
        ("claude-3-5-sonnet-latest", 8192),
        ("", 8192),
    ],
)
def test_the_longest_name_that_fits_decides(model: str, most: int) -> None:
    assert max_output_tokens(model) == most


# --- Gemini ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-flash-latest", "/v1beta/models/gemini-flash-latest:streamGenerateContent?alt=sse"),
        ("models/gemini-pro", "/v1beta/models/gemini-pro:streamGenerateContent?alt=sse"),
        ("tunedModels/mine", "/v1beta/tunedModels/mine:streamGenerateContent?alt=sse"),
        (
            "evil?key=1 HTTP/1.1\r\nX: y",
            "/v1beta/evil%3Fkey%3D1%20HTTP/1.1%0D%0AX%3A%20y:streamGenerateContent?alt=sse",
        ),
    ],
)
async def test_geminis_model_is_part_of_the_path(model: str, path: str) -> None:
    async with Provider(error_answer(404, {})) as provider, GeminiAgent(KEY, base_url=provider.url) as agent:
        with pytest.raises(Exception, match="does not know this model"):
            await agent.call("Hi", model=model)
    assert provider.requests[0].target == path


# --- OpenAI-compatible endpoints ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_makes_an_agent(preset: str) -> None:
    known = PRESETS[preset]
    if known.base_url is None:
        with pytest.raises(InvalidConfiguration, match="needs base_url="):
            CompatibleAgent(KEY, preset=preset)
        agent = CompatibleAgent(KEY, preset=preset, base_url="https://name.example", model="m")
    else:
        agent = CompatibleAgent(KEY, preset=preset, model="m")
        assert agent.base_url == known.base_url
    agent.check(agent.request("Hi"))
    assert agent.name == preset
    without = CompatibleAgent(preset=preset, base_url="https://name.example")
    expected = f"no API key: pass api_key= or set {known.key_variable}" if known.needs_key else None
    assert without.key_missing == expected


@pytest.mark.parametrize(
    ("preset", "field", "usage"),
    [
        (None, "max_tokens", True),
        ("groq", "max_completion_tokens", True),
        ("mistral", "max_tokens", False),
        ("ollama", "max_tokens", True),
    ],
)
async def test_a_preset_knows_what_its_provider_takes(preset: str | None, field: str, usage: bool) -> None:
    async with Provider(answer(chat("x"))) as provider:
        agent = CompatibleAgent(KEY, preset=preset, model="m", base_url=f"{provider.url}/v1")
        async with agent:
            assert (await agent.call("Hi", max_tokens=9)).text == "x"
    body = provider.requests[0].json
    assert body[field] == 9
    assert ("stream_options" in body) is usage


async def test_no_key_is_sent_where_there_is_none() -> None:
    async with (
        Provider(answer(chat("x"))) as provider,
        CompatibleAgent(model="m", base_url=f"{provider.url}/v1") as agent,
    ):
        assert agent.key_missing is None
        assert (await agent.call("Hi")).text == "x"
    assert "authorization" not in provider.requests[0].headers


async def test_azure_has_its_deployment_in_the_path_and_its_own_header_for_the_key() -> None:
    async with Provider(answer(chat("x"))) as provider:
        for version, expected in ((None, "2024-10-21"), ("2025-01-01-preview", "2025-01-01-preview")):
            agent = CompatibleAgent(
                KEY, preset="azure", model="my deployment", base_url=provider.url, api_version=version
            )
            async with agent:
                assert (await agent.call("Hi")).text == "x"
            request = provider.requests[-1]
            assert request.target == f"/openai/deployments/my%20deployment/chat/completions?api-version={expected}"
            assert request.headers["api-key"] == KEY
            assert "authorization" not in request.headers


async def test_a_model_must_be_named_where_there_is_no_default() -> None:
    agent = CompatibleAgent(base_url="http://127.0.0.1:1/v1")
    with pytest.raises(InvalidConfiguration, match=r"^compatible: name a model, with model= here or in the call$"):
        await agent.call("Hi")


async def test_what_one_protocol_lacks_names_the_field() -> None:
    agent = OpenAIAgent(KEY, api="responses", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(InvalidRequest, match=r"^stop"):
        await agent.call("Hi", stop="END")


def test_agents_show_what_they_are_without_their_key() -> None:
    assert repr(ClaudeAgent(KEY)) == "ClaudeAgent(model='claude-sonnet-5', base_url='https://api.anthropic.com')"
    shown: Any = repr(CompatibleAgent(KEY, base_url="https://h/v1"))
    assert shown == "CompatibleAgent(model=None, base_url='https://h/v1')"


@pytest.mark.parametrize("model", ["../../files", "models/../x", ".."])
async def test_a_geminis_model_leads_to_no_other_address(model: str) -> None:
    async with GeminiAgent(KEY, base_url="http://127.0.0.1:1") as agent:
        with pytest.raises(InvalidOption, match=r"^model must be the name of a model, not "):
            await agent.call("Hi", model=model)
