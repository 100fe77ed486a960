"""Answers of Google's that are not 200."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multi_agent_scheduler.wire.gemini import decode_error


def body(code: int, status: str, *details: Any, message: str = "said so") -> bytes:
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("status", "word", "code", "retryable"),
    [
        (400, "INVALID_ARGUMENT", "invalid_request_error", False),
        (400, "FAILED_PRECONDITION", "invalid_request_error", False),
        (401, "UNAUTHENTICATED", "authentication_error", False),
        (403, "PERMISSION_DENIED", "permission_error", False),
        (404, "NOT_FOUND", "not_found_error", False),
        (429, "RESOURCE_EXHAUSTED", "rate_limit_error", True),
        (499, "CANCELLED", "cancelled", False),
        (500, "INTERNAL", "server_error", True),
        (500, "UNKNOWN", "server_error", True),
        (503, "UNAVAILABLE", "overloaded_error", True),
        (504, "DEADLINE_EXCEEDED", "timeout_error", True),
    ],
)
def test_googles_statuses(status: int, word: str, code: str, retryable: bool) -> None:
    info = decode_error(status, {}, body(status, word))
    assert (info.code, info.status, info.provider_code, info.retryable) == (code, status, word, retryable)
    assert info.detail == "said so"


def test_a_bad_key_is_not_a_bad_request() -> None:
    reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    info = decode_error(400, {}, body(400, "INVALID_ARGUMENT", reason))
    assert (info.code, info.provider_code, info.retryable) == ("authentication_error", "API_KEY_INVALID", False)


@pytest.mark.parametrize(
    ("delay", "headers", "after"),
    [
        ("38s", {}, 38.0),
        ("1.5s", {"retry-after": "9"}, 1.5),
        ("soon", {"retry-after": "9"}, 9.0),
        (12, {}, None),
        (None, {"retry-after-ms": "250"}, 0.25),
    ],
)
def test_when_to_try_again(delay: Any, headers: dict[str, str], after: float | None) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure"}, {"retryDelay": delay}, "odd"]
    assert decode_error(429, headers, body(429, "RESOURCE_EXHAUSTED", *details)).retry_after == after


def test_an_error_in_a_list() -> None:
    info = decode_error(404, {}, b"[" + body(404, "NOT_FOUND") + b"]")
    assert (info.code, info.detail) == ("not_found_error", "said so")


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", None),
        (b"<html><title>502</title></html>", None),
        (b"upstream connect error", "upstream connect error"),
        (b'{"error": "plain"}', "plain"),
        (b'{"message": "bare", "code": 502}', "bare"),
        (b"[]", None),
        (b"null", None),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_bodies_of_other_shapes(content: bytes, detail: str | None) -> None:
    info = decode_error(502, {"x-request-id": "r1"}, content)
    assert (info.code, info.status, info.detail, info.request_id) == ("server_error", 502, detail, "r1")


def test_a_key_in_the_message_is_not_repeated() -> None:
    info = decode_error(400, {}, body(400, "INVALID_ARGUMENT", message="bad key AIzaSyA-1234567890abcdef"))
    assert "AIza" not in (info.detail or "")


KEYS = ["error", "code", "status", "message", "details", "retryDelay", "reason"]
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner),
)


@settings(deadline=None)
@given(st.integers(400, 599), st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_gives_an_error(status: int, content: bytes) -> None:
    assert decode_error(status, {}, content).status == status
