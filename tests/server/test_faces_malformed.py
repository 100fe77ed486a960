"""Bodies with something wrong in them, in every protocol: each is understood or refused, none breaks the server."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anthropic
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import InvalidRequest
from multi_agent_scheduler.server.face import Face
from multi_agent_scheduler.server.faces import ai_sdk, chat, messages, responses
from multi_agent_scheduler.server.problem import Problem
from multi_agent_scheduler.testing import ScriptedAgent
from tests.server.served import serving

IMAGE: Final = "data:image/png;base64,cG5n"
SCHEMA: Final = {"type": "object"}
ODD: Final = (
    None, True, 0, -1, 2**63, 2**70, 1.5, 1e308, "", "x", "tool:x", "\x00", "a\r\nb: c", "é😀", "long" * 1000, [], {},
    [[]], [{}], {"a": 1}, {"type": "x"}, ["x"], ["long" * 1000], {"type": "text", "text": "x"},
)  # fmt: skip
WHOLE: Final[dict[str, tuple[Face, dict[str, Any]]]] = {
    "/v1/chat/completions": (chat.FACE, {
        "model": "a",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [
                {"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": IMAGE}}]},
            {"role": "assistant", "content": "y", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "z"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "max_tokens": 5, "temperature": 1, "stop": ["x"], "seed": 1, "n": 1,
        "stream_options": {"include_usage": True},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    }),
    "/v1/responses": (responses.FACE, {
        "model": "a", "instructions": "i",
        "input": [
            {"role": "user", "content": [
                {"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": IMAGE}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "z"},
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}]},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}], "tool_choice": "auto",
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}, "reasoning": {"effort": "low"},
        "metadata": {"a": "b"}, "background": False, "max_output_tokens": 5, "truncation": "auto",
    }),
    "/v1/messages": (messages.FACE, {
        "model": "a", "max_tokens": 5, "system": [{"type": "text", "text": "s"}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "x"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "cG5n"}}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "z"}]}]},
        ],
        "tools": [{"name": "f", "input_schema": SCHEMA}], "tool_choice": {"type": "auto"}, "stop_sequences": ["x"],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    }),
    "/v1/ai-sdk/chat": (ai_sdk.FACE, {
        "id": "c", "model": "a", "trigger": "submit-message", "messageId": "x", "system": "s", "stopSequences": ["x"],
        "messages": [
            {"id": "m", "role": "user", "parts": [
                {"type": "text", "text": "x"}, {"type": "file", "mediaType": "image/png", "url": IMAGE}]},
            {"id": "m2", "role": "assistant", "parts": [
                {"type": "step-start"},
                {"type": "reasoning", "text": "t", "providerMetadata": {"multiAgentScheduler": {"signature": "s"}}},
                {"type": "tool-f", "toolCallId": "c", "state": "output-available", "input": {}, "output": {}},
                {"type": "data-reset", "data": {"void": 1}}]},
        ],
        "tools": {"f": {"description": "d", "inputSchema": SCHEMA}}, "toolChoice": "auto",
    }),
}  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: what it stands in, and by which key."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(inside):
        yield value, key
        yield from places(item)


def spoiled(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    body = copy.deepcopy(body)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        container, key = chance.choice(list(places(body)) or [(body, "model")])
        what = chance.random()
        if what < 0.15:
            container.pop(key, None) if isinstance(container, dict) else container.pop(key)
        elif what < 0.3 and isinstance(container, dict):
            name = chance.choice(("type", "id", "name", "extra", "content", "protocol", "text"))
            container[name] = copy.deepcopy(chance.choice(ODD))
        else:
            container[key] = copy.deepcopy(chance.choice(ODD))
    return body


@pytest.mark.parametrize("path", WHOLE)
@given(chance=st.randoms(use_true_random=False))
def test_a_spoiled_body_is_read_or_refused(path: str, chance: random.Random) -> None:
    face, body = WHOLE[path]
    data = json.dumps(spoiled(body, chance)).encode()
    with contextlib.suppress(InvalidRequest, Problem):
        assert face.parse(data).request.messages


@pytest.mark.parametrize("path", WHOLE)
async def test_no_spoiled_body_breaks_the_server(path: str, tmp_path: Path) -> None:
    _, body = WHOLE[path]
    chance = random.Random(7)
    async with serving({"a": ScriptedAgent("x")}, store=f"sqlite:///{tmp_path / 'streams.db'}") as served:
        assert (await served.post(path, body)).status_code == 200
        for _ in range(80):
            sent = spoiled(body, chance)
            answer = await served.post(path, sent)
            assert answer.status_code in (200, 400, 404) and 0 < len(answer.content) < 5000, (answer.text, sent)


def sendable(kind: Any) -> set[str]:
    """The fields that a client's type for a request has, its bases' with them."""
    bases = getattr(kind, "__orig_bases__", ())
    return set(getattr(kind, "__annotations__", ())).union(*(sendable(base) for base in bases))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/chat/completions", openai.types.chat.completion_create_params.CompletionCreateParamsBase),
        ("/v1/responses", openai.types.responses.response_create_params.ResponseCreateParamsBase),
        ("/v1/messages", anthropic.types.message_create_params.MessageCreateParamsBase),
        ("/v1/messages", anthropic.types.beta.message_create_params.MessageCreateParamsBase),
    ],
)
def test_every_field_that_an_official_client_can_send_is_known(path: str, kind: Any) -> None:
    face, body = WHOLE[path]
    names = sendable(kind) - {"betas"}  # that one is a header
    strange = {name for name in names - body.keys() if "is not a field" in refusal(face, {**body, name: {"a": 1}})}
    assert len(names) > 15
    assert strange <= {"access_programs", "billing_policy", "fallback_credit_token", "user_profile_id", "workspace_id"}


def refusal(face: Face, body: dict[str, Any]) -> str:
    """Why a body is refused; empty if it is not."""
    try:
        face.parse(json.dumps(body).encode())
    except InvalidRequest as refused:
        return str(refused)
    return ""
