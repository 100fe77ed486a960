"""What an HTTP agent asks, what it makes of a good answer, and which mistakes are the caller's."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import Any

import pytest

from multi_agent_scheduler.errors import (
    InvalidOption,
    InvalidRequest,
    RateLimitError,
)
from multi_agent_scheduler.records import CallEnded, CallStarted, Completed, Usage
from multi_agent_scheduler.request import Request

from .asking import KEY, agent_for, asked, error_answer, texts
from .server import (
    answer,
    chat,
    cut,
)

# --- the good case ---------------------------------------------------------------------------------------------------


async def test_a_stream_is_numbered_records_from_call_started_to_the_terminal() -> None:
    async with asked(answer(chat("Hello", " world"), headers={"X-Request-Id": "req-7"})) as (_provider, agent):
        records = [record async for record in agent.stream("Hi")]
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    started, *middle, ended, terminal = records
    assert started == CallStarted(1, "openai", "m-1", "openai_chat", seq=1)
    assert texts(middle) == "Hello world"
    assert [record.call for record in middle if isinstance(record, Usage)] == [1]
    assert isinstance(ended, CallEnded)
    assert (ended.call, ended.outcome, ended.stop_reason) == (1, "completed", "stop")
    assert (ended.response_id, ended.request_id, ended.model) == ("chatcmpl-1", "req-7", "m-1")
    assert ended.usage is not None
    assert ended.usage.total_tokens == 5
    assert 0 <= (ended.ttft or -1) <= (ended.latency or -1)
    assert terminal == Completed("stop", "stop", seq=len(records))


async def test_call_stream_gives_each_text_as_it_comes_and_call_gives_all() -> None:
    gate = asyncio.Event()
    first, *rest = answer(chat("one", "two", "three"))
    async with asked([first, rest[0], rest[1], gate, *rest[2:]], answer(chat("one", "two"))) as (_provider, agent):
        pieces = []
        async for piece in agent.call_stream("Hi"):
            pieces.append(piece)
            gate.set()  # only the first can have been sent
        assert pieces == ["one", "two", "three"]
        result = await agent.call("Hi")
    assert (result.text, result.success, result.state, result.stop_reason) == ("onetwo", True, "completed", "stop")
    assert (result.agent, result.model) == ("openai", "m-1")
    assert str(result) == "onetwo"


async def test_the_request_has_what_a_provider_needs_and_nothing_twice() -> None:
    async with asked(answer(chat("x")), headers={"X-Team": "a", "User-Agent": "mine"}) as (provider, agent):
        await agent.call("Hi", max_tokens=5, extra={"user": "u"})
    (request,) = provider.requests
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    names = [line.partition(":")[0].lower() for line in request.lines]
    assert len(names) == len(set(names))
    assert request.headers["host"] == f"127.0.0.1:{provider.port}"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["content-type"] == "application/json"
    assert (request.headers["x-team"], request.headers["user-agent"]) == ("a", "mine")
    assert request.json == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "u",
    }


async def test_defaults_hold_unless_a_call_says_otherwise() -> None:
    async with asked(answer(chat("x")), defaults={"temperature": 0.5, "seed": 7}) as (provider, agent):
        await agent.call("Hi", temperature=1.0, model="m-2")
    body = provider.requests[0].json
    assert (body["temperature"], body["seed"], body["model"]) == (1.0, 7, "m-2")


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_every_framing_and_a_whole_json_answer_are_understood(framing: str) -> None:
    script: list[Any] = answer(chat("Hello"), framing=framing)
    if framing == "close":
        script.append(cut)
    async with asked(script) as (_provider, agent):
        assert (await agent.call("Hi")).text == "Hello"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "x-gzip", "two members"])
async def test_an_answer_that_is_compressed_though_nobody_asked_is_understood(coding: str) -> None:
    body = b"".join(chat("Hello", " world"))
    if coding == "deflate":
        packed = zlib.compress(body)
    elif coding == "two members":
        packed = gzip.compress(body[:100]) + gzip.compress(body[100:])
    else:
        packed = gzip.compress(body)
    headers = {"Content-Encoding": "gzip" if coding == "two members" else coding}
    pieces = [packed[at : at + 7] for at in range(0, len(packed), 7)]
    async with asked(answer(pieces, headers=headers)) as (_provider, agent):
        assert (await agent.call("Hi")).text == "Hello world"


async def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with asked([interim, *answer(chat("Hello"))]) as (_provider, agent):
        assert (await agent.call("Hi")).text == "Hello"


# --- the marker ------------------------------------------------------------------------------------------------------


async def test_the_marker_is_the_last_piece_and_only_where_it_is_wanted() -> None:
    script = error_answer(429, {"error": {"message": "provider's own words"}})
    marker = "\n[ERROR: rate_limit_error: the provider's rate limit is reached]"
    async with asked(script) as (provider, agent), agent_for(provider, errors="raise") as quiet:
        for reader, keywords, expected in (
            (agent, {}, [marker]),
            (agent, {"errors": "raise"}, []),
            (quiet, {}, []),
            (quiet, {"errors": "marker"}, [marker]),
        ):
            stream = reader.call_stream("Hi", **keywords)
            assert [await anext(stream) for _ in expected] == expected
            with pytest.raises(RateLimitError):
                await anext(stream)


async def test_a_model_that_writes_the_marker_has_written_text() -> None:
    async with asked(answer(chat("\n[ERROR: ", "server_error: no]"))) as (_provider, agent):
        result = await agent.call("Hi")
        pieces = [piece async for piece in agent.call_stream("Hi")]
    assert result.success
    assert "".join(pieces) == result.text == "\n[ERROR: server_error: no]"


# --- the caller's mistakes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "prompt", "options", "problem"),
    [
        (InvalidRequest, "", {}, "the prompt is empty"),
        (InvalidRequest, [], {}, "the prompt is empty"),
        (InvalidRequest, 5, {}, "a prompt is a string or a list of messages, not int"),
        (InvalidOption, "Hi", {"max_tokens": -1}, "max_tokens must be at least 1, not -1"),
        (InvalidOption, "Hi", {"max_token": 5}, "unknown option 'max_token'.*extra="),
        (InvalidOption, "Hi", {"timeouts": 5}, "timeouts must be a Timeouts, not 5"),
        (InvalidRequest, "half \ud83d", {}, "the user message has half a surrogate pair"),
        (InvalidOption, "Hi", {"stop": "\ud83d"}, "something in the request cannot be written as JSON: .*surrogates"),
        (
            InvalidOption,
            "Hi",
            {"extra": {"a": object()}},
            "something in the request cannot be written as JSON: .*object",
        ),
        (
            InvalidOption,
            "Hi",
            {"schema": {"a": object()}},
            "something in the request cannot be written as JSON: .*object",
        ),
    ],
)
async def test_a_callers_mistake_raises_before_anything_is_sent(
    kind: type[Exception], prompt: Any, options: dict[str, Any], problem: str
) -> None:
    async with asked(answer(chat("x"))) as (provider, agent):
        for face in (agent.stream, agent.call_stream):
            with pytest.raises(kind, match=problem):
                await anext(aiter(face(prompt, **options)))
        with pytest.raises(kind, match=problem):
            await agent.call(prompt, **options)
        assert not provider.peers


async def test_what_the_protocol_cannot_say_raises_before_the_first_record() -> None:
    async with asked(answer(chat("x")), api="responses") as (provider, agent):
        with pytest.raises(InvalidRequest, match="stop"):
            await anext(aiter(agent.stream("Hi", stop="END")))
        with pytest.raises(InvalidRequest, match="stop"):
            agent.check(agent.request("Hi", stop="END"))
        assert not provider.peers


async def test_an_unknown_error_mode_is_refused() -> None:
    async with asked(answer(chat("x"))) as (_provider, agent):
        with pytest.raises(InvalidOption, match=r"^errors must be 'marker' or 'raise', not 'ignore'$"):
            await anext(aiter(agent.call_stream("Hi", errors="ignore")))  # type: ignore[arg-type]


async def test_a_request_without_messages_is_refused_before_anything_is_sent() -> None:
    async with asked(answer(chat("x"))) as (provider, agent):
        with pytest.raises(InvalidRequest, match="the request has no messages: give it at least one"):
            agent.check(Request(messages=()))
        assert not provider.peers
