"""Keys never show: in no repr, no log, no error, whatever a provider makes of them. And headers cannot be forged."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import traceback
from collections.abc import Mapping
from typing import Any

import pytest

from multi_agent_scheduler.agents import ClaudeAgent, CompatibleAgent, GeminiAgent, OpenAIAgent
from multi_agent_scheduler.agents.http import HttpAgent
from multi_agent_scheduler.errors import AgentError, AuthenticationError, InvalidConfiguration, InvalidOption
from multi_agent_scheduler.records import encode_record

from .asking import asked, error_answer
from .server import answer, chat, chat_event

HIDDEN = "qZ7-unguessable/KEY+42"
"""A key that no pattern would find."""

KINDS: Mapping[str, type[HttpAgent]] = {
    "claude": ClaudeAgent,
    "openai": OpenAIAgent,
    "gemini": GeminiAgent,
}


# --- where keys come from -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "variable", "header", "value"),
    [
        (ClaudeAgent, "ANTHROPIC_API_KEY", "x-api-key", "{}"),
        (OpenAIAgent, "OPENAI_API_KEY", "authorization", "Bearer {}"),
        (GeminiAgent, "GEMINI_API_KEY", "x-goog-api-key", "{}"),
    ],
)
def test_a_key_is_the_arguments_or_the_environments(
    monkeypatch: pytest.MonkeyPatch, kind: type[HttpAgent], variable: str, header: str, value: str
) -> None:
    assert kind().key_missing == f"no API key: pass api_key= or set {variable}"
    monkeypatch.setenv(variable, HIDDEN)
    assert kind().key_missing is None
    assert kind()._key_headers(HIDDEN) == {header: value.format(HIDDEN)}
    assert kind("given")._key is not None
    assert kind("given")._key.reveal() == "given"
    assert kind("")._key.reveal() == HIDDEN


@pytest.mark.parametrize(
    ("kind", "variable", "default"),
    [
        (ClaudeAgent, "ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
        (OpenAIAgent, "OPENAI_BASE_URL", "https://api.openai.com/v1"),
        (GeminiAgent, "GOOGLE_GEMINI_BASE_URL", "https://generativelanguage.googleapis.com"),
    ],
)
def test_the_address_is_the_arguments_or_the_environments(
    monkeypatch: pytest.MonkeyPatch, kind: type[HttpAgent], variable: str, default: str
) -> None:
    assert kind("k").base_url == default
    monkeypatch.setenv(variable, "http://127.0.0.1:8080/x")
    assert kind("k").base_url == "http://127.0.0.1:8080/x"
    assert kind("k", base_url="http://h/y").base_url == "http://h/y"
    monkeypatch.setenv(variable, "nonsense")
    with pytest.raises(InvalidConfiguration, match=rf"^{kind.__name__}: base_url must be a URL"):
        kind("k")


async def test_a_missing_key_is_named_with_its_variable_before_anything_is_sent() -> None:
    async with asked(answer(chat("x"))) as (provider, _):
        agent = OpenAIAgent(base_url=f"{provider.url}/v1")
        with pytest.raises(AuthenticationError, match=r"^no API key: pass api_key= or set OPENAI_API_KEY$"):
            await agent.call("Hi")
        stream = agent.call_stream("Hi")
        assert await anext(stream) == (
            "\n[ERROR: authentication_error: no API key: pass api_key= or set OPENAI_API_KEY]"
        )
        with pytest.raises(AuthenticationError):
            await anext(stream)
        assert not provider.peers


@pytest.mark.parametrize("key", ["two words", "line\nend", "sk-größe", " sk-space", "sk-\x00nul"])
def test_a_malformed_key_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    problem = "is malformed: a key has no spaces, line ends or characters outside ASCII"
    with pytest.raises(InvalidConfiguration, match=rf"^OpenAIAgent: api_key {problem}$"):
        OpenAIAgent(key)
    if "\x00" not in key:
        monkeypatch.setenv("ANTHROPIC_API_KEY", key)
        with pytest.raises(InvalidConfiguration, match=rf"^ClaudeAgent: the key in ANTHROPIC_API_KEY {problem}$"):
            ClaudeAgent()
    with pytest.raises(InvalidConfiguration, match=r"^OpenAIAgent: api_key must be a string, not int$"):
        OpenAIAgent(5)  # type: ignore[arg-type]


# --- where keys must not show ---------------------------------------------------------------------------------------


def everything_of(thing: object, depth: int = 4) -> str:
    """The repr of a thing and of all that it holds."""
    shown = [repr(thing), str(thing)]
    if depth and hasattr(thing, "__dict__"):
        shown += [repr(vars(thing)), *(everything_of(value, depth - 1) for value in vars(thing).values())]
    return "\n".join(shown)


@pytest.mark.parametrize("kind", KINDS.values())
def test_no_repr_shows_a_key(kind: type[HttpAgent]) -> None:
    agent = kind(
        HIDDEN,
        headers={"X-Api-Token": HIDDEN, "X-Team": "a"},
        base_url=f"https://h/v1?key={HIDDEN}",
        proxy=f"http://me:{HIDDEN.replace('/', '')}@proxy:1",
    )
    assert HIDDEN not in repr(agent)
    for name, value in vars(agent).items():
        if name not in ("base_url", "_address"):  # the address is the caller's own word, key in its query and all
            assert HIDDEN not in everything_of(value), name
            assert HIDDEN.replace("/", "") not in everything_of(value), name
    assert agent.shown_url == "https://h/v1"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(agent._key)


@pytest.mark.parametrize(
    "script",
    [
        error_answer(401, {"error": {"message": f"Incorrect API key provided: {HIDDEN}.", "code": HIDDEN}}),
        error_answer(500, f"oops {HIDDEN}".encode(), **{"x-request-id": f"req {HIDDEN}"}),
        answer([chat_event({"content": "Hel"}), b'data: {"error": {"message": "bad key %b"}}\n\n' % HIDDEN.encode()]),
        answer(json.dumps({"error": {"message": f"bad key {HIDDEN}"}}).encode()),
        answer(status=302, headers={"Location": f"https://h/{HIDDEN}"}, framing="length"),
        answer(b"x", headers={"Content-Encoding": HIDDEN}),
        [f"HTTP/1.1 {HIDDEN}\r\n\r\n".encode()],
    ],
    ids=["status", "request id", "error event", "error body", "redirect", "coding", "no HTTP"],
)
async def test_a_key_that_the_provider_repeats_is_shown_nowhere(
    script: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with asked(script) as (provider, _):
        agent = OpenAIAgent(HIDDEN, base_url=f"{provider.url}/v1")
        with pytest.raises(AgentError) as caught:
            await agent.call("Hi")
        records = [encode_record(record).decode() async for record in agent.stream("Hi")]
        stream = agent.call_stream("Hi")
        pieces = []
        try:
            async for piece in stream:
                pieces.append(piece)  # noqa: PERF401 - what came before the exception counts
        except AgentError as error:
            pieces += traceback.format_exception(error)
    shown = [str(caught.value), repr(caught.value), repr(caught.value.info), *records, *pieces, caplog.text]
    assert HIDDEN not in "\n".join(shown)
    assert provider.requests[0].headers["authorization"] == f"Bearer {HIDDEN}"


@pytest.mark.parametrize(
    ("key", "said", "shown"),
    [
        (HIDDEN, "x" * 490 + HIDDEN, "x" * 490 + "[redacted]"),  # cut after 10 characters of it
        ("sk-proj-abcdef/+=tail", "no: sk-proj-abcdef/+=tail.", "no: [redacted]."),  # its begin looks like a key
    ],
)
async def test_not_even_a_part_of_a_repeated_key_is_left(key: str, said: str, shown: str) -> None:
    async with asked(error_answer(401, {"error": {"message": said}})) as (provider, _):
        with pytest.raises(AuthenticationError) as raised:
            await OpenAIAgent(key, base_url=f"{provider.url}/v1").call("Hi")
    assert raised.value.info.detail == shown


async def test_a_key_repeated_as_the_id_of_a_good_answer_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with asked(answer(chat("x"), headers={"x-request-id": f"for {HIDDEN}"})) as (provider, _):
        agent = OpenAIAgent(HIDDEN, base_url=f"{provider.url}/v1")
        records = [encode_record(record).decode() async for record in agent.stream("Hi")]
    assert '"request_id":"for [redacted]"' in records[-2]
    assert HIDDEN not in "\n".join([*records, caplog.text])


async def test_the_log_has_the_address_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with asked(answer(chat("x"), headers={"x-request-id": "req-3"})) as (provider, _):
        agent = OpenAIAgent(HIDDEN, base_url=f"{provider.url}/v1?key={HIDDEN}", headers={"X-Token": HIDDEN})
        await agent.call("Hi")
        assert provider.requests[0].target == f"/v1/chat/completions?key={HIDDEN}"
    assert f"an answer from {provider.url}/v1/chat/completions begins, request id req-3" in caplog.text
    assert HIDDEN not in caplog.text


async def test_a_key_in_a_header_of_the_callers_is_hidden_in_errors_too() -> None:
    script = error_answer(401, {"error": {"message": f"bad token {HIDDEN}"}})
    async with asked(script, headers={"X-Auth-Token": f"Token {HIDDEN}"}) as (_, agent):
        with pytest.raises(AuthenticationError) as caught:
            await agent.call("Hi")
    assert caught.value.info.detail == "bad token [redacted]"


# --- tokens ---------------------------------------------------------------------------------------------------------


async def test_a_token_is_asked_for_before_each_request() -> None:
    tokens = iter(["first-token", "second-token"])

    async def auth() -> str:
        await asyncio.sleep(0)
        return next(tokens)

    async with asked(answer(chat("x"))) as (provider, _):
        agent = ClaudeAgent(auth=auth, base_url=provider.url)
        assert agent.key_missing is None
        for _ in range(2):
            with pytest.raises(AgentError):  # the answer is not Anthropic's
                await agent.call("Hi")
        await agent.aclose()
    assert [request.headers["authorization"] for request in provider.requests] == [
        "Bearer first-token",
        "Bearer second-token",
    ]
    assert "x-api-key" not in provider.requests[0].headers


@pytest.mark.parametrize(
    ("gives", "problem"),
    [
        (RuntimeError(f"no\n{HIDDEN} here"), "auth() raised RuntimeError: no [redacted] here"),
        ("two words", "the token from auth() is malformed: a key has no spaces, line ends or characters outside ASCII"),
        (RuntimeError(), "auth() raised RuntimeError"),
        (None, "the token from auth() must be a string, not NoneType"),
    ],
)
async def test_a_token_that_cannot_be_had_is_a_failure(gives: Any, problem: str) -> None:
    async def auth() -> str:
        if isinstance(gives, Exception):
            raise gives
        result: str = gives
        return result

    async with asked(answer(chat("x")), auth=auth) as (provider, agent):
        with pytest.raises(AuthenticationError) as caught:
            await agent.call("Hi")
        assert str(caught.value) == problem
        assert not provider.peers


# --- headers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"X-A": "b\r\nEvil: yes"}, "headers: the value of X-A must be a string on one line"),
        ({"X-A": "b\nEvil: yes"}, "headers: the value of X-A must be a string on one line"),
        ({"X-A": "b\0"}, "headers: the value of X-A must be a string on one line"),
        ({"X-A": 5}, "headers: the value of X-A must be a string on one line"),
        ({"X-A": "日本"}, "headers: the value of X-A has characters outside Latin-1"),
        ({"X A": "b"}, "headers: 'X A' is not the name of a header"),
        ({"X-A:": "b"}, "headers: 'X-A:' is not the name of a header"),
        ({"": "b"}, "headers: '' is not the name of a header"),
        ({"X\r\nEvil": "b"}, r"headers: 'X\\r\\nEvil' is not the name of a header"),
        ({"Content-Length": "5"}, "headers: Content-Length is set by the connection itself"),
        ({"transfer-encoding": "chunked"}, "headers: transfer-encoding is set by the connection itself"),
        ({"Host": "other"}, "headers: Host is set by the connection itself"),
        ({"Expect": "100-continue"}, "headers: Expect is set by the connection itself"),
        ([("X-A", "b")], "headers must be a mapping of names to values, not list"),
    ],
)
def test_a_header_that_would_forge_another_is_refused(headers: Any, problem: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"^{problem}$"):
        OpenAIAgent("k", headers=headers)


async def test_a_callers_header_replaces_the_agents_own() -> None:
    async with asked(answer(chat("x")), headers={"Authorization": "Basic abc", "Accept": "*/*"}) as (provider, agent):
        await agent.call("Hi")
    assert provider.requests[0].headers["authorization"] == "Basic abc"
    assert provider.requests[0].headers["accept"] == "*/*"


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind", "problem"),
    [
        (
            {"temperature": 1},
            InvalidOption,
            "OpenAIAgent: unknown keyword 'temperature'; the keywords are api_key, auth, ",
        ),
        ({"max_concurrent": 0}, InvalidOption, "max_concurrent must be a whole number from 1, not 0"),
        ({"max_concurrent": True}, InvalidOption, "max_concurrent must be a whole number from 1, not True"),
        ({"max_response_bytes": 0.5}, InvalidOption, r"max_response_bytes must be a whole number from 1, not 0\.5"),
        ({"errors": "ignore"}, InvalidOption, "errors must be 'marker' or 'raise', not 'ignore'"),
        ({"timeouts": 5}, InvalidOption, "timeouts must be a Timeouts, not 5"),
        ({"auth": "token"}, InvalidOption, "auth must be an async callable that gives a token, not a str"),
        (
            {"defaults": {"temp": 1}},
            InvalidOption,
            "defaults: unknown option 'temp'; the options are extra, max_tokens, ",
        ),
        ({"defaults": 5}, InvalidOption, "defaults must be a mapping of options, not 5"),
        ({"api": "assistants"}, InvalidOption, "api must be 'chat' or 'responses', not 'assistants'"),
        ({"model": 5}, InvalidConfiguration, "OpenAIAgent: model must be a string, not int"),
        (
            {"proxy": "socks5://p"},
            InvalidConfiguration,
            "OpenAIAgent: proxy must be a URL such as http://host:3128, not ",
        ),
        (
            {"base_url": "nowhere"},
            InvalidConfiguration,
            "OpenAIAgent: base_url must be a URL such as https://host/v1, not ",
        ),
    ],
)
def test_settings_are_checked_when_an_agent_is_made(settings: Any, kind: type[Exception], problem: str) -> None:
    with pytest.raises(kind, match=f"^{problem}"):
        OpenAIAgent("k", **settings)


def test_a_compatible_endpoint_needs_an_address_or_a_preset() -> None:
    with pytest.raises(InvalidConfiguration, match=r"^CompatibleAgent needs base_url=, the address of the endpoint$"):
        CompatibleAgent()
    with pytest.raises(
        InvalidConfiguration, match=r"^unknown preset 'openia'; the presets are azure, deepseek, groq, "
    ):
        CompatibleAgent(preset="openia")
