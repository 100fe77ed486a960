"""What a provider refuses, and what comes instead of an answer: typed errors, with memory bounded."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from typing import Any

import pytest

from multi_agent_scheduler.errors import (
    AgentError,
    AgentTimeout,
    AuthenticationError,
    OverloadedError,
    RateLimitError,
    RequestRefused,
    ResponseTooLarge,
)
from multi_agent_scheduler.records import CallEnded, CallStarted, Text
from multi_agent_scheduler.records import Failed as FailedRecord

from .asking import asked, error_answer, failure, texts
from .server import (
    LAST,
    Script,
    answer,
    chat,
    chat_event,
    chunk,
    flood,
    head,
)

# --- what a provider refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "code", "retryable"),
    [
        (400, RequestRefused, "invalid_request_error", False),
        (401, AuthenticationError, "authentication_error", False),
        (403, AuthenticationError, "permission_error", False),
        (404, RequestRefused, "not_found_error", False),
        (413, RequestRefused, "request_too_large", False),
        (429, RateLimitError, "rate_limit_error", True),
        (500, Exception, "server_error", True),
        (503, OverloadedError, "overloaded_error", True),
        (504, AgentTimeout, "timeout_error", True),
    ],
)
@pytest.mark.parametrize(
    "body",
    [b"", b"<html>gateway</html>", b"\xff\xfe", {"error": {"message": "no"}}, b'{"error": '],
    ids=["nothing", "HTML", "no text", "JSON", "broken JSON"],
)
async def test_a_status_becomes_a_typed_error(
    status: int, kind: type[AgentError], code: str, retryable: bool, body: Any
) -> None:
    error, records = await failure(error_answer(status, body))
    assert isinstance(error, kind)
    assert (error.code, error.status, error.retryable) == (code, status, retryable)
    assert error.partial is not None
    assert (error.partial.text, error.partial.state) == ("", "failed")
    assert [type(record) for record in records] == [CallStarted, CallEnded, FailedRecord]


async def test_a_model_that_the_provider_refuses() -> None:
    said = {
        "error": {
            "message": "The model `m-1` does not exist",
            "type": "invalid_request_error",
            "code": "model_not_found",
        }
    }
    error, records = await failure(error_answer(404, said, **{"x-request-id": "req-9"}))
    assert isinstance(error, RequestRefused)
    assert (error.code, error.status, error.provider_code) == ("not_found_error", 404, "model_not_found")
    assert error.request_id == "req-9"
    assert str(error) == (
        "the provider does not know this model or address (the provider said: The model `m-1` does not exist)"
    )
    ended = records[-2]
    assert isinstance(ended, CallEnded)
    assert ended.request_id == "req-9"


async def test_a_rate_limit_says_when_to_come_back() -> None:
    error, _ = await failure(error_answer(429, {"error": {"message": "slow down"}}, **{"retry-after": "7"}))
    assert error.retry_after == 7.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Wed, 99 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after-ms": "1500"}, 1.5),
    ],
)
async def test_when_to_come_back_may_be_said_in_other_ways(headers: dict[str, str], seconds: float | None) -> None:
    error, _ = await failure(error_answer(503, {}, **headers))
    assert error.retry_after == seconds


async def test_an_error_body_that_does_not_end_is_not_waited_for_beyond_its_bound() -> None:
    script = [head(500), flood(chunk(b"x" * 10_000), 10_000), LAST]
    error, _ = await failure(script)
    assert error.status == 500


async def test_an_error_body_in_an_unknown_coding_still_has_its_status() -> None:
    error, _ = await failure(error_answer(401, b"????", **{"content-encoding": "br"}))
    assert (error.status, error.code) == (401, "authentication_error")


async def test_a_redirect_is_not_followed_and_says_where_it_led() -> None:
    error, _ = await failure(
        answer(status=308, headers={"Location": "https://elsewhere.example/v1?key=abcdefghij"}, framing="length")
    )
    assert (error.code, error.status) == ("invalid_request_error", 308)
    assert str(error) == (
        "the provider redirected the request (to https://elsewhere.example/v1); redirects are not followed: "
        "set base_url"
    )


async def test_a_refused_call_leaves_its_connection_for_the_next() -> None:
    async with asked(error_answer(429, {}), answer(chat("x"))) as (provider, agent):
        with pytest.raises(RateLimitError):
            await agent.call("Hi")
        assert (await agent.call("Hi")).text == "x"
        assert len(provider.peers) == 1


# --- bodies that are none --------------------------------------------------------------------------------------------

BAD_BODIES: dict[str, tuple[Script, str, str]] = {
    "an HTML page": (
        answer(b"<!doctype html><html>Sign in</html>", headers={"Content-Type": "text/html"}),
        "protocol_error",
        "the answer was a page of HTML or XML, not an event stream",
    ),
    "an error object": (
        answer(b'{"error": {"message": "overloaded", "type": "overloaded_error"}}'),
        "overloaded_error",
        "the provider is overloaded",
    ),
    "an error event": (
        answer([*chat("Hel")[:2], b'data: {"error": {"message": "boom", "type": "server_error"}}\n\n']),
        "server_error",
        "the provider failed",
    ),
    "nothing": (answer(b"", framing="length"), "protocol_error", "the answer was empty"),
    "other bytes than UTF-8": (
        answer([*chat("Hel")[:2], b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n', *chat()]),
        "protocol_error",
        "event 3 of the answer is not JSON",
    ),
    "a garbled event": (
        answer([*chat("Hel")[:2], b"data: {nonsense\n\n"]),
        "protocol_error",
        "event 3 of the answer is not",
    ),
    "a broken gzip": (
        answer(b"\x1f\x8b\x08nonsense" * 9, headers={"Content-Encoding": "gzip"}),
        "protocol_error",
        "the answer's compression is broken",
    ),
    "an unknown coding": (
        answer(b"\x8b\x03\x80", headers={"Content-Encoding": "br"}),
        "protocol_error",
        "the answer is compressed as 'br', which was not asked for",
    ),
    "no HTTP": ([b"\x15\x03\x01\x00\x02\x02P"], "protocol_error", "what came is not an HTTP answer"),
    "a head without end": (
        [b"HTTP/1.1 200 OK\r\n", flood(b"X-Header: abcdefgh\r\n" * 1000, 1000)],
        "protocol_error",
        "the head of the answer passed 131072 bytes",
    ),
    "another protocol": (
        [head(101, {"Upgrade": "h2c", "Connection": "Upgrade"})],
        "protocol_error",
        "switched protocols",
    ),
}


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_what_is_no_answer_is_a_failure_with_what_came_before(case: str) -> None:
    script, code, sentence = BAD_BODIES[case]
    error, records = await failure(script)
    assert error.code == code
    assert sentence in str(error)
    assert error.partial is not None
    assert error.partial.text == texts(records) == ("Hel" if "event" in case or "UTF-8" in case else "")
    assert isinstance(records[-1], FailedRecord)


async def test_a_line_of_a_gigabyte_does_not_fill_the_memory() -> None:
    million = b"x" * 1_000_000
    script = [head(), chunk(b"data: "), flood(chunk(million), 1000), LAST]
    tracemalloc.start()
    try:
        error, _ = await failure(script)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, ResponseTooLarge)
    assert peak < 80_000_000


async def test_an_answer_of_endless_events_is_stopped_at_its_bound() -> None:
    script = [head(), flood(chunk(chat_event({"content": "abcdefgh"}) * 100), 10_000), LAST]
    error, records = await failure(script, max_response_bytes=200_000)
    assert isinstance(error, ResponseTooLarge)
    assert str(error) == "the answer is larger than max_response_bytes allows (200000 bytes)"
    assert error.partial is not None
    assert 0 < len(error.partial.text) < 200_000
    assert texts(records).startswith("abcdefgh")


async def test_a_gzip_bomb_is_stopped_before_it_is_large() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = packer.compress(b": keep-alive\n" * 100_000)
    bomb += b"".join(packer.compress(b": keep-alive\n" * 100_000) for _ in range(50)) + packer.flush()
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    try:
        error, _ = await failure(answer(bomb, headers={"Content-Encoding": "gzip"}), max_response_bytes=2_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, ResponseTooLarge)
    assert peak < 20_000_000


async def test_a_small_read_of_a_great_many_events_leaves_the_loop_to_others() -> None:
    event = chat_event({"content": "a"})
    packed = gzip.compress(event * 4000 + b"".join(chat("b")))
    assert len(packed) < 64_000
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    async with asked(answer(packed, headers={"Content-Encoding": "gzip"}, framing="length")) as (_, agent):
        stream = agent.stream("Hi")
        assert isinstance(await anext(stream), CallStarted)
        assert isinstance(await anext(stream), Text)  # the read has been taken
        turn()
        before, said = turns, 0
        async for record in stream:
            said += isinstance(record, Text)
        assert said == 4000
        assert turns - before >= len(event) * 4000 // 65536


async def test_a_gzip_bomb_in_an_error_is_stopped_too() -> None:
    bomb = gzip.compress(b"x" * 50_000_000)
    error, _ = await failure(answer(bomb, status=500, headers={"Content-Encoding": "gzip"}))
    assert error.status == 500
