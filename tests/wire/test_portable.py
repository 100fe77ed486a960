"""A request of one protocol's client, for an agent of another: what only the first knows is taken out, nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from multi_agent_scheduler.errors import InvalidRequest
from multi_agent_scheduler.request import (
    ImagePart,
    Message,
    ReasoningPart,
    Request,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
    UnknownPart,
    build,
)
from multi_agent_scheduler.wire import anthropic, gemini, openai_chat, openai_responses
from multi_agent_scheduler.wire.portable import PROTOCOLS, portable

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}

# A conversation in each protocol's own words. Whatever begins with FOREIGN is that protocol's alone.
BODIES: dict[str, dict[str, Any]] = {
    "anthropic": {
        "model": "m",
        "max_tokens": 100,
        "top_k": "FOREIGN top_k",
        "metadata": {"user_id": "FOREIGN user"},
        "system": [{"type": "text", "text": "Be brief", "cache_control": {"type": "FOREIGN"}}],
        "tools": [
            {"name": "weather", "description": "Tells", "input_schema": SCHEMA, "cache_control": {"type": "FOREIGN"}},
            {"type": "FOREIGN_web_search", "name": "FOREIGN web_search"},
        ],
        "messages": [
            {"role": "user", "content": "Is it warm?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "FOREIGN thought", "signature": "FOREIGN seal"},
                    {"type": "redacted_thinking", "data": "FOREIGN data"},
                    {"type": "server_tool_use", "id": "FOREIGN id", "name": "FOREIGN web_search", "input": {}},
                    {"type": "web_search_tool_result", "tool_use_id": "FOREIGN id", "content": []},
                    {"type": "text", "text": "I look", "citations": ["FOREIGN citation"]},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Bern"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c1",
                        "cache_control": {"type": "FOREIGN"},
                        "content": [{"type": "text", "text": "20 degrees", "FOREIGN": 1}],
                    },
                    {"type": "text", "text": "And?", "cache_control": {"type": "FOREIGN"}},
                ],
            },
        ],
    },
    "openai_chat": {
        "model": "m",
        "max_tokens": 100,
        "logit_bias": {"FOREIGN": 1},
        "user": "FOREIGN user",
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "Tells", "parameters": SCHEMA, "FOREIGN": 1},
            },
        ],
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "Is it warm?", "FOREIGN": True},
            {
                "role": "assistant",
                "content": "I look",
                "reasoning_details": [{"type": "reasoning.text", "text": "FOREIGN thought", "signature": "FOREIGN"}],
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Bern"}'},
                        "extra_content": {"google": {"thought_signature": "FOREIGN seal"}},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "20 degrees"},
            {"role": "user", "content": [{"type": "text", "text": "And?", "FOREIGN": 1}]},
        ],
    },
    "openai_responses": {
        "model": "m",
        "max_output_tokens": 100,
        "store": "FOREIGN store",
        "include": ["FOREIGN include"],
        "instructions": "Be brief",
        "tools": [
            {"type": "function", "name": "weather", "description": "Tells", "parameters": SCHEMA, "FOREIGN": 1},
            {"type": "FOREIGN_search"},
        ],
        "input": [
            {"type": "message", "role": "user", "content": "Is it warm?", "id": "FOREIGN id"},
            {"type": "reasoning", "id": "FOREIGN", "summary": [], "encrypted_content": "FOREIGN seal"},
            {"type": "FOREIGN_search_call", "id": "FOREIGN"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "I look", "annotations": ["FOREIGN"]}],
            },
            {
                "type": "function_call",
                "id": "FOREIGN",
                "call_id": "c1",
                "name": "weather",
                "arguments": '{"city":"Bern"}',
            },
            {"type": "function_call_output", "id": "FOREIGN", "call_id": "c1", "output": "20 degrees"},
            {"role": "user", "content": "And?"},
        ],
    },
    "gemini": {
        "safetySettings": ["FOREIGN"],
        "systemInstruction": {"parts": [{"text": "Be brief"}]},
        "generationConfig": {"maxOutputTokens": 100, "topK": "FOREIGN"},
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "weather", "description": "Tells", "parametersJsonSchema": SCHEMA, "behavior": "FOREIGN"}
                ]
            },
            {"googleSearch": {"FOREIGN": 1}},
        ],
        "contents": [
            {"role": "user", "parts": [{"text": "Is it warm?"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "FOREIGN thought", "thought": True, "thoughtSignature": "FOREIGN"},
                    {"executableCode": {"code": "FOREIGN"}},
                    {"text": "I look", "thoughtSignature": "FOREIGN"},
                    {
                        "functionCall": {"id": "c1", "name": "weather", "args": {"city": "Bern"}},
                        "thoughtSignature": "FOREIGN seal",
                    },
                ],
            },
            {
                "role": "user",
                "parts": [{"functionResponse": {"id": "c1", "name": "weather", "response": {"output": "20 degrees"}}}],
            },
            {"role": "user", "parts": [{"text": "And?"}]},
        ],
    },
}
WIRES = {
    "anthropic": anthropic,
    "gemini": gemini,
    "openai_chat": openai_chat,
    "openai_responses": openai_responses,
}
PARSE: dict[str, Callable[..., tuple[Request, bool]]] = {name: wire.parse_request for name, wire in WIRES.items()}
BUILD: dict[str, Callable[..., dict[str, Any]]] = {name: wire.build_request for name, wire in WIRES.items()}


def asked(source: str, target: str) -> Request:
    """What every one of the conversations is, for a protocol that knows no more than it says."""
    name = "weather" if source == "gemini" else ""  # it alone names what a result is of
    return Request(
        protocol=target,
        max_tokens=100,
        messages=(
            Message("system", (TextPart(text="Be brief"),)),
            Message("user", (TextPart(text="Is it warm?"),)),
            Message(
                "assistant",
                (TextPart(text="I look"), ToolCallPart(id="c1", name="weather", arguments='{"city":"Bern"}')),
            ),
            Message("tool", (ToolResultPart(id="c1", content=(TextPart(text="20 degrees"),), name=name),)),
            Message("user", (TextPart(text="And?"),)),
        ),
        tools=(Tool("weather", "Tells", SCHEMA),),
    )


PAIRS = [(source, target) for source in BODIES for target in WIRES if source != target]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_conversation_goes_to_another_protocol_and_leaves_what_is_foreign(source: str, target: str) -> None:
    request, _ = PARSE[source](BODIES[source])
    carried = portable(request, target)
    body = BUILD[target](carried, model="m")
    assert "FOREIGN" not in json.dumps(body)
    assert body == BUILD[target](asked(source, target), model="m")
    assert portable(carried, target) is carried


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_at_home_nothing_is_taken_out(protocol: str) -> None:
    request, _ = PARSE[protocol](BODIES[protocol])
    assert portable(request, protocol) is request
    assert portable(request, None) is request
    assert json.dumps(BUILD[protocol](request, model="m")).count("FOREIGN") > 3


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_part_says_itself_whose_it_is(source: str, target: str) -> None:
    """A history that the caller has put together: each part goes to its own provider whole, and to others bare."""
    sealed = ReasoningPart(text="mine", signature="SEAL", protocol=source)
    call = ToolCallPart(id="c1", name="f", signature="SEAL", extra={"x": 1}, protocol=source)
    said = TextPart(text="so", extra={"x": 1}, protocol=source)
    request = build(
        [Message("user", (TextPart(text="Hi"),)), Message("assistant", (sealed, said, call))], {"extra": {"y": 1}}
    )
    assert portable(request, source) is request
    carried = portable(request, target)
    assert carried.messages[1].parts == (TextPart(text="so"), ToolCallPart(id="c1", name="f"))
    assert carried.extra == {"y": 1}  # said for whoever gets it


def test_tools_of_free_text_become_what_the_protocol_has() -> None:
    request = Request(
        protocol="openai_chat",
        messages=(Message("assistant", (ToolCallPart(id="c", name="run", arguments="ls -l", kind="custom"),)),),
        tools=(Tool("run", raw={"type": "custom", "custom": {"name": "run", "description": "Runs", "format": {}}}),),
        tool_choice="tool:run",
    )
    responses = portable(request, "openai_responses")
    assert responses.tools == (Tool("run", raw={"type": "custom", "name": "run", "description": "Runs"}),)
    assert responses.messages == request.messages
    back = portable(responses, "openai_chat")
    assert back.tools[0].raw == {"type": "custom", "custom": {"name": "run", "description": "Runs"}}
    for target in ("anthropic", "gemini"):
        carried = portable(request, target)
        assert carried.tools[0].raw is None
        assert carried.tools[0].parameters == {
            "type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"],
        }  # fmt: skip
        assert carried.messages[0].parts == (ToolCallPart(id="c", name="run", arguments='{"input":"ls -l"}'),)
        assert carried.tool_choice == "tool:run"
        BUILD[target](carried, model="m")


@pytest.mark.parametrize(("choice", "left"), [("tool:web", None), ("required", None), ("auto", None)])
def test_a_choice_of_a_tool_that_is_dropped_is_dropped_too(choice: str, left: str | None) -> None:
    web = Tool("web", raw={"type": "web_search"})
    request = Request(messages=(), tools=(web,), tool_choice=choice, protocol="openai_responses")
    carried = portable(request, "anthropic")
    assert (carried.tools, carried.tool_choice) == ((), left)
    both = Request(messages=(), tools=(web, Tool("f")), tool_choice=choice, protocol="openai_responses")
    assert portable(both, "anthropic").tool_choice == (None if choice == "tool:web" else choice)


@pytest.mark.parametrize("target", sorted(PROTOCOLS - {"anthropic"}))
def test_what_a_user_says_in_a_foreign_form_is_refused_and_not_dropped(target: str) -> None:
    document = UnknownPart(raw={"type": "document", "source": {}}, protocol="anthropic")
    request = Request(messages=(Message("user", (TextPart(text="Read"), document)),), protocol="anthropic")
    with pytest.raises(InvalidRequest, match=r"messages\[0\]\.parts\[1\]|anthropic"):
        BUILD[target](portable(request, target), model="m")


def test_a_conversation_that_is_kept_elsewhere_cannot_be_carried() -> None:
    request, _ = openai_responses.parse_request({"model": "m", "previous_response_id": "resp_1", "input": "Hi"})
    with pytest.raises(InvalidRequest, match="previous_response_id: what it stands for is kept at OpenAI, and gemini"):
        portable(request, "gemini")


def test_images_are_carried() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}}
    request, _ = openai_chat.parse_request({"model": "m", "messages": [{"role": "user", "content": [picture]}]})
    assert portable(request, "anthropic").messages[0].parts == (ImagePart(url="https://a/b.png"),)
