"""Requests to Gemini's body and back: any request, any body."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from multi_agent_scheduler.errors import InvalidRequest
from multi_agent_scheduler.request import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    Request,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
    UnknownPart,
)
from multi_agent_scheduler.wire.gemini import build_request, parse_request

MODEL = "gemini-3-pro-preview"


def parse(body: Any) -> Request:
    return parse_request(json.loads(json.dumps(body)))[0]


WORD = st.text(min_size=1, max_size=4)
SIGNATURE = st.none() | st.just("c2ln")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
OBJECT = st.dictionaries(st.text(max_size=3) | st.sampled_from(["output", "error"]), JSON, max_size=2)
COMPACT = OBJECT.map(lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False))
IMAGE = st.builds(
    ImagePart, data=st.binary(min_size=1, max_size=4), media_type=st.sampled_from(["image/png", "image/webp"])
) | st.builds(ImagePart, url=st.just("https://x/y.png"), media_type=st.none() | st.just("image/png"))
OWN = st.just(UnknownPart(raw={"executableCode": {"code": "1"}}, protocol="gemini"))
TEXT = st.builds(TextPart, text=st.text(max_size=5))
CALL = st.builds(ToolCallPart, id=WORD, name=WORD, arguments=COMPACT, signature=SIGNATURE)
THOUGHT = st.builds(ReasoningPart, text=WORD, signature=SIGNATURE) | st.just(ReasoningPart(signature="c2ln"))
RESULT = st.builds(
    ToolResultPart,
    id=WORD,
    name=WORD,
    content=st.builds(
        lambda text, images: ((TextPart(text=text),) if text else ()) + tuple(images),
        st.text(max_size=5) | COMPACT,
        st.lists(IMAGE | OWN, max_size=2),
    ),
    is_error=st.booleans(),
)


def turn(role: Any, parts: Any, size: int = 1) -> Any:
    return st.builds(Message, st.just(role), st.lists(parts, min_size=size, max_size=3).map(tuple))


@st.composite
def conversations(draw: Any) -> tuple[Message, ...]:
    user, assistant = turn("user", TEXT | IMAGE | OWN), turn("assistant", TEXT | THOUGHT | CALL)
    turns = draw(st.lists(user | assistant | turn("tool", RESULT), min_size=1))
    apart: list[Message] = []  # results of tools that follow each other are one turn for Gemini
    for message in turns:
        if not (apart and apart[-1].role == message.role == "tool"):
            apart.append(message)
    ids: set[str] = set()
    kept = []
    for message in apart:  # an id names one call
        parts: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolCallPart | ToolResultPart):
                if part.id in ids:
                    continue
                ids.add(part.id)
            parts.append(part)
        kept.append(Message(message.role, tuple(parts) or (TextPart(text="x"),)))
    system = draw(st.none() | turn("system", TEXT))
    roles = [Message("user", m.parts) if m.role == "tool" and isinstance(m.parts[0], TextPart) else m for m in kept]
    return (system, *roles) if system else tuple(roles)


REQUESTS = st.builds(
    Request,
    messages=conversations(),
    max_tokens=st.none() | st.integers(1, 9),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    stop=st.lists(WORD, max_size=2).map(tuple),
    seed=st.none() | st.integers(),
    tools=st.lists(
        st.builds(Tool, name=WORD, description=st.none() | WORD, parameters=st.none() | OBJECT)
        | st.just(Tool(name="googleSearch", raw={"googleSearch": {}})),
        max_size=3,
    ).map(tuple),
    tool_choice=st.sampled_from([None, "auto", "none", "required", "tool:f"]),
    schema=st.none() | OBJECT,
    reasoning_effort=st.sampled_from([None, "none", "low", "medium", "high"]),
    extra=st.sampled_from([{}, {"safetySettings": [1]}, {"generationConfig": {"topK": 3}}, {"toolConfig": {"a": 1}}]),
    protocol=st.just("gemini"),
)


@settings(max_examples=80, deadline=None)
@given(REQUESTS, st.sampled_from([MODEL, "gemini-2.5-flash"]))
def test_a_request_comes_back(request: Request, model: str) -> None:
    assert parse(build_request(request, model=model)) == request


FIELDS = [
    *("contents", "parts", "role", "text", "functionCall", "name", "args", "functionResponse", "response"),
    *(
        "tools",
        "functionDeclarations",
        "parameters",
        "generationConfig",
        "inlineData",
        "mimeType",
        "data",
        "toolConfig",
    ),
]
BODIES = st.recursive(
    JSON,
    lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner | st.lists(inner, max_size=2), max_size=3),
)


@settings(max_examples=80, deadline=None)
@given(BODIES)
def test_any_body_is_read_or_refused(body: Any) -> None:
    if isinstance(body, dict):
        body = {"contents": [{"parts": [{"text": "x"}]}], **body}
    try:
        request, _ = parse_request(body)
    except InvalidRequest:
        return
    assert request.messages
