"""Prompts and options as callers write them: what is taken, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest

from multi_agent_scheduler.errors import InvalidOption, InvalidRequest
from multi_agent_scheduler.request import ImagePart, Message, TextPart, Tool, build


def test_a_string_is_what_the_user_says() -> None:
    assert build("Hi", {}).messages == (Message("user", (TextPart("Hi"),)),)


def test_the_system_prompt_comes_first() -> None:
    request = build([{"role": "user", "content": "Hi"}], {"system": "Be brief."})
    assert [message.role for message in request.messages] == ["system", "user"]


@pytest.mark.parametrize(
    "content",
    [
        "See",
        ["See"],
        [{"type": "text", "text": "See"}],
        [TextPart("See")],
    ],
)
def test_the_forms_of_content(content: Any) -> None:
    assert build([{"role": "user", "content": content}], {}).messages[0].parts == (TextPart("See"),)


def test_an_image_in_openais_form() -> None:
    link = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    request = build([{"role": "user", "content": [link]}], {})
    assert request.messages[0].parts == (ImagePart(url="https://example.com/a.png"),)


def test_tools_in_everybodys_form() -> None:
    parameters = {"type": "object"}
    request = build(
        "Hi",
        {
            "tools": [
                Tool("one", "first", parameters),
                {"name": "one", "description": "first", "input_schema": parameters},
                {"type": "function", "function": {"name": "one", "description": "first", "parameters": parameters}},
            ]
        },
    )
    assert request.tools == (Tool("one", "first", parameters),) * 3


def test_none_is_not_said() -> None:
    assert build("Hi", {"max_tokens": None, "system": None}) == build("Hi", {})


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("", "the prompt is empty: give the agent something to answer"),
        (" \n", "the prompt is empty: give the agent something to answer"),
        ([], "the prompt is empty: give at least one message"),
        ([Message("user", ())], "messages[0] is empty: give it a text, or leave it out"),
        (
            [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": []}],
            "messages[1] is empty: give it a text, or leave it out",
        ),
        ([{"role": "user", "content": " "}], "messages[0] is empty: give it a text, or leave it out"),
        (None, "a prompt is a string or a list of messages, not NoneType"),
        (b"Hi", "a prompt is a string or a list of messages, not bytes"),
        ({"role": "user", "content": "Hi"}, "a prompt is a string or a list of messages, not dict"),
        (["Hi"], "messages[0] must be a Message or a dict with role and content, not 'Hi'"),
        ([{"role": "user"}], "messages[0].content must be a string or a list of parts, not None"),
        (
            [{"role": "human", "content": "Hi"}],
            "messages[0].role must be one of 'system', 'user', 'assistant', 'tool', not 'human'",
        ),
        (
            "a\ud83d",
            "the user message has half a surrogate pair ('\\ud83d') at position 1: it is not text that can be sent",
        ),
        (
            [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}],
            "messages[0]: unknown field 'tool_calls'; the fields are role, content and name, and calls of tools and "
            "their results are parts of the content: ToolCallPart, ToolResultPart",
        ),
    ],
)
def test_what_is_no_prompt(prompt: Any, complaint: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        build(prompt, {})
    assert str(raised.value) == complaint


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("max_tokens", 0, "max_tokens must be at least 1, not 0"),
        ("max_tokens", 1.5, "max_tokens must be a whole number, not 1.5"),
        ("max_tokens", True, "max_tokens must be a whole number, not True"),
        ("temperature", "hot", "temperature must be a number, not 'hot'"),
        ("temperature", float("nan"), "temperature must be a number, not nan"),
        ("temperature", -(10**400), f"temperature must be at least 0, not -{10**400}"),
        ("top_p", -1, "top_p must be at least 0, not -1"),
        ("seed", 1.5, "seed must be a whole number, not 1.5"),
        ("stop", 5, "stop must be a non-empty string or a list of them, not 5"),
        ("stop", [""], "stop must be a non-empty string or a list of them, not ['']"),
        ("system", 5, "system must be a string, not int"),
        ("model", 5, "model must be a string, not 5"),
        ("tools", 5, "tools must be a list, not int"),
        ("tool_choice", 5, "tool_choice must be 'auto', 'none', 'required' or 'tool:NAME', not 5"),
        ("parallel_tool_calls", "no", "parallel_tool_calls must be True or False, not 'no'"),
        ("schema", "string", "schema must be a JSON Schema as a dict, not 'string'"),
        ("schema_strict", 1, "schema_strict must be True or False, not 1"),
        ("reasoning_effort", 5, "reasoning_effort must be a string, such as 'low', not 5"),
        ("extra", "x", "extra must be a dict, not 'x'"),
    ],
)
def test_what_is_no_option(name: str, value: Any, complaint: str) -> None:
    with pytest.raises(InvalidOption) as raised:
        build("Hi", {name: value})
    assert str(raised.value) == complaint


def test_an_option_that_nobody_knows_is_told_where_it_may_belong() -> None:
    with pytest.raises(InvalidOption, match=r"unknown option 'top_k'; .*goes into extra=\{'top_k': \.\.\.\}"):
        build("Hi", {"top_k": 5})


def test_half_a_surrogate_pair_in_the_system_prompt_is_refused_by_name() -> None:
    with pytest.raises(
        InvalidRequest, match=r"^the system message has half a surrogate pair \('\\udc00'\) at position 0"
    ):
        build("Hi", {"system": "\udc00"})


def test_fields_of_a_message_that_say_nothing_do_no_harm() -> None:
    message = {"role": "user", "content": "Hi", "tool_calls": None, "refusal": None}
    assert build([message], {}) == build("Hi", {})
