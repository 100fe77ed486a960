"""What ``useChat`` posts, as a request."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import InvalidRequest
from multi_agent_scheduler.records import CallStarted, Completed, Reasoning, Reset, Text, ToolCall, ToolResult
from multi_agent_scheduler.request import (
    ImagePart,
    Message,
    ReasoningPart,
    Request,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from multi_agent_scheduler.wire.ai_sdk import parse_request
from multi_agent_scheduler.wire.portable import portable
from tests.wire.ui_messages import Page, said

HI = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
PNG = b"\x89PNG\r\n"


def asked(*messages: Any, **settings: Any) -> Request:
    return parse_request({"id": "chat-1", "messages": list(messages), "trigger": "submit-message", **settings}).request


def assistant(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"id": "a1", "role": "assistant", "parts": [{"type": "step-start"}, *parts]}


def turn(*parts: dict[str, Any]) -> tuple[Message, ...]:
    """The messages of an assistant's turn with these parts."""
    return asked(HI, assistant(*parts)).messages[1:]


def test_what_the_transport_posts_for_a_first_message() -> None:
    chat = parse_request({"id": "chat-1", "messages": [HI], "trigger": "submit-message", "messageId": None})
    assert chat.chat_id == "chat-1" and chat.continues is None
    assert chat.request == Request(messages=(Message("user", (TextPart(text="Hi"),)),), protocol="ai_sdk")


def test_an_answer_that_goes_on_keeps_its_message() -> None:
    done = {"type": "tool-f", "toolCallId": "c1", "state": "output-available", "input": {}, "output": 1}
    assert parse_request({"id": "c", "messages": [HI, assistant(done)]}).continues == "a1"


def test_settings_by_the_names_of_the_sdk() -> None:
    request = asked(
        HI,
        model="claude",
        system="Be brief",
        maxOutputTokens=9,
        temperature=0.5,
        topP=1,
        stopSequences=["END"],
        seed=7,
        tools={"look": {"description": "Looks", "inputSchema": {"type": "object"}}},
        toolChoice={"type": "tool", "toolName": "look"},
        session="the page's own",
    )
    assert request == Request(
        messages=(Message("system", (TextPart(text="Be brief"),)), Message("user", (TextPart(text="Hi"),))),
        model="claude",
        max_tokens=9,
        temperature=0.5,
        top_p=1,
        stop=("END",),
        seed=7,
        tools=(Tool("look", "Looks", {"type": "object"}),),
        tool_choice="tool:look",
        protocol="ai_sdk",
    )


@pytest.mark.parametrize("word", ["auto", "none", "required"])
def test_tool_choice_in_a_word(word: str) -> None:
    assert asked(HI, toolChoice=word).tool_choice == word


def test_images_by_address_and_by_data() -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    parts = [
        {"type": "file", "mediaType": "image/jpeg", "url": "https://x.example/a.jpg", "filename": "a.jpg"},
        {"type": "file", "mediaType": "image/png", "url": url},
        {"type": "file", "mediaType": "image", "url": url},
        {"type": "file", "mediaType": "image/svg+xml", "url": "data:image/svg+xml,%3Csvg/%3E"},
    ]
    assert asked({"role": "user", "parts": parts}).messages[0].parts == (
        ImagePart(url="https://x.example/a.jpg"),
        ImagePart(data=PNG, media_type="image/png"),
        ImagePart(data=PNG, media_type="image/png"),
        ImagePart(data=b"<svg/>", media_type="image/svg+xml"),
    )


def test_system_messages_are_their_texts() -> None:
    system = {"id": "s", "role": "system", "parts": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind"}]}
    assert asked(system, HI).messages[0] == Message("system", (TextPart(text="Be kind"),))
    assert [message.role for message in asked({**system, "parts": []}, HI).messages] == ["user"]


def test_tool_calls_with_an_outcome_are_followed_by_it() -> None:
    call = {"type": "tool-look", "input": {"a": 1}}
    assert turn(
        {"type": "text", "text": "Looking"},
        {**call, "toolCallId": "c1", "state": "output-available", "output": {"found": True}},
        {"type": "dynamic-tool", "toolName": "nap", "toolCallId": "c2", "state": "output-error", "input": {},
         "errorText": "no bed"},
        {**call, "toolCallId": "c3", "state": "output-denied", "approval": {"id": "x", "reason": "not now"}},
        {"type": "step-start"},
        {"type": "text", "text": "Done", "state": "done"},
    ) == (
        Message(
            "assistant",
            (
                TextPart(text="Looking"),
                ToolCallPart(id="c1", name="look", arguments='{"a":1}'),
                ToolCallPart(id="c2", name="nap", arguments="{}"),
                ToolCallPart(id="c3", name="look", arguments='{"a":1}'),
            ),
        ),
        Message(
            "tool",
            (
                ToolResultPart(id="c1", name="look", content=(TextPart(text='{"found":true}'),)),
                ToolResultPart(id="c2", name="nap", content=(TextPart(text="no bed"),), is_error=True),
                ToolResultPart(id="c3", name="look", content=(TextPart(text="not now"),), is_error=True),
            ),
        ),
        Message("assistant", (TextPart(text="Done"),)),
    )  # fmt: skip


def test_what_is_only_for_the_page_is_left_out() -> None:
    call = {"type": "tool-f", "toolCallId": "c"}
    assert turn(
        {"type": "text", "text": ""},
        {"type": "source-url", "sourceId": "1", "url": "https://x.example"},
        {"type": "data-weather", "data": {}},
        {"type": "file", "mediaType": "image/png", "url": "https://x.example/a.png"},
        {"type": "something-new"},
        {**call, "state": "input-streaming", "rawInput": "{"},
        {**call, "state": "output-available", "input": {}, "output": 1, "providerExecuted": True},
    ) == ()  # fmt: skip


def test_what_a_reset_voided_is_left_out() -> None:
    page = Page(said(Text("kept"), Text("wrong", part=1), Reset(2, "x"), Text("right", part=2), Completed("stop")))
    assert [message.parts for message in asked(HI, page.message).messages[1:]] == [
        (TextPart(text="kept"),),
        (TextPart(text="right"),),
    ]


def test_an_answer_comes_back_as_it_was_sealed() -> None:
    page = Page(
        said(
            CallStarted(1, "a", protocol="anthropic"),
            Reasoning("hm", signature="sig", id="rs_1", kind="summary"),
            Reasoning(redacted="blob", part=1),
            Text("Well", part=2),
            ToolCall(0, id="c1", name="f", arguments='{"a": 1}', signature="thought"),
            ToolCall(1, id="c2", name="sh", arguments="ls", kind="custom"),
            ToolResult("c1", content="one"),
            Completed("tool_calls"),
        )
    )
    assert asked(HI, json.loads(json.dumps(page.message))).messages[1:] == (
        Message(
            "assistant",
            (
                ReasoningPart(text="hm", signature="sig", id="rs_1", kind="summary", protocol="anthropic"),
                ReasoningPart(redacted="blob", protocol="anthropic"),
                TextPart(text="Well"),
                ToolCallPart(id="c1", name="f", arguments='{"a":1}', signature="thought", protocol="anthropic"),
                ToolCallPart(id="c2", name="sh", arguments="ls", kind="custom"),
            ),
        ),
        Message("tool", (ToolResultPart(id="c1", name="f", content=(TextPart(text="one"),)),)),
    )


def test_a_seal_goes_back_to_the_protocol_that_it_is_from_and_no_other() -> None:
    page = Page(
        said(
            CallStarted(1, "a", protocol="anthropic"), Reasoning("hm", signature="sig"), Text("Well"), Completed("stop")
        )
    )
    request = asked(HI, page.message, HI)
    assert any(isinstance(part, ReasoningPart) for part in portable(request, "anthropic").messages[1].parts)
    assert portable(request, "gemini").messages[1].parts == (TextPart(text="Well"),)


def test_arguments_that_are_no_json_come_back_as_they_were() -> None:
    (message, _) = turn(
        {"type": "tool-f", "toolCallId": "c1", "state": "output-error", "rawInput": '{"a', "errorText": "no JSON"}
    )
    assert message.parts == (ToolCallPart(id="c1", name="f", arguments='{"a'),)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([], "the body must be an object, not a list"),
        ({"id": "c"}, "messages must be a list of at least one message"),
        ({"id": "c", "messages": []}, "messages must be a list of at least one message"),
        ({"messages": [HI]}, "id is missing"),
        ({"id": 1, "messages": [HI]}, "id must be a string, not a number"),
        ({"id": "c", "messages": [HI], "trigger": "x"},
         "trigger must be submit-message or regenerate-message, not 'x'"),
        ({"id": "c", "messages": [1]}, "messages[0] must be an object, not a number"),
        ({"id": "c", "messages": [{"role": "user"}]}, "messages[0].parts is missing"),
        ({"id": "c", "messages": [{"role": "user", "parts": []}]}, "messages[0].parts has no text and no image"),
        ({"id": "c", "messages": [{"role": "tool", "parts": []}]},
         "messages[0].role must be system, user or assistant, not 'tool'"),
        ({"id": "c", "messages": [{"role": "user", "parts": [{"text": "x"}]}]}, "messages[0].parts[0].type is missing"),
        ({"id": "c", "messages": [{"role": "user", "parts": [{"type": "text", "text": 1}]}]},
         "messages[0].parts[0].text must be a string, not a number"),
        ({"id": "c", "messages": [assistant({"type": "text", "text": ""})]},
         "messages has nothing to answer: at least one message must be the user's"),
        ({"id": "c", "messages": [HI], "tools": {"f": 1}}, "tools.f must be an object, not a number"),
        ({"id": "c", "messages": [HI], "toolChoice": {"type": "x"}},
         "toolChoice must be auto, none, required or {type: 'tool', toolName: NAME}"),
        ({"id": "c", "messages": [HI], "toolChoice": "x"}, "toolChoice must be an object, not a string"),
        ({"id": "c", "messages": [HI], "stopSequences": [1]}, "stopSequences must be a list of strings"),
        ({"id": "c", "messages": [HI], "maxOutputTokens": 0}, "maxOutputTokens must be at least 1, not 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_place(body: Any, told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(body)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("media_type", "url", "told"),
    [
        ("application/pdf", "data:,x", "mediaType: only images can be sent, not 'application/pdf'"),
        ("image/png", "file:///etc/passwd", "url must be an http(s) address or a data URL"),
        ("image/png", "data:image/png", "url must be an http(s) address or a data URL"),
        ("image/png", "data:image/png;base64,@@@", "url must hold base64"),
    ],
)
def test_files_that_cannot_be_sent(media_type: str, url: str, told: str) -> None:
    part = {"type": "file", "mediaType": media_type, "url": url}
    with pytest.raises(InvalidRequest) as caught:
        asked({"role": "user", "parts": [part]})
    assert str(caught.value) == f"messages[0].parts[0].{told}"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "void"]), inner, max_size=3),
    max_leaves=4,
)
_kinds = ["text", "reasoning", "file", "step-start", "data-reset", "tool-f", "dynamic-tool", "source-url"]
_fields = {
    name: _json | st.sampled_from(["x", "output-available", "output-error", "data:,x", "image/png"])
    for name in ("text", "state", "data", "url", "mediaType", "input", "output", "toolName", "toolCallId",
                 "callProviderMetadata", "providerMetadata", "approval", "errorText", "rawInput")
}  # fmt: skip
_parts = st.fixed_dictionaries({"type": st.sampled_from(_kinds) | _json}, optional=_fields)
_messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]) | _json, "parts": st.lists(_parts, max_size=4) | _json}
)
_settings = dict.fromkeys(("model", "system", "tools", "toolChoice", "stopSequences", "seed", "trigger"), _json)
_bodies = st.fixed_dictionaries(
    {"id": st.just("c"), "messages": st.lists(_messages, min_size=1, max_size=3) | _json}, optional=_settings
)


@given(_bodies | _json)
def test_any_body_is_read_or_refused(body: Any) -> None:
    with contextlib.suppress(InvalidRequest):
        assert parse_request(body).request.messages
