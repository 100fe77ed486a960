"""What the Responses API answers instead of an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multi_agent_scheduler.wire.openai_responses import decode_error


def error(**fields: Any) -> bytes:
    return json.dumps({"error": fields}).encode()


@pytest.mark.parametrize(
    ("status", "body", "code", "provider_code", "retryable"),
    [
        (401, error(type="invalid_request_error", code="invalid_api_key"), "authentication_error",
         "invalid_api_key", False),
        (401, error(type="invalid_request_error", code=None), "authentication_error", "invalid_request_error", False),
        (400, error(type="invalid_request_error", code=None), "invalid_request_error", "invalid_request_error", False),
        (400, error(type="invalid_request_error", code="unsupported_parameter"), "invalid_request_error",
         "unsupported_parameter", False),
        (404, error(type="invalid_request_error", code="model_not_found"), "not_found_error", "model_not_found", False),
        (429, error(type="tokens", code="rate_limit_exceeded"), "rate_limit_error", "rate_limit_exceeded", True),
        (429, error(type="insufficient_quota", code="insufficient_quota"), "insufficient_quota",
         "insufficient_quota", False),
        (429, error(code="429", message="slow down"), "rate_limit_error", None, True),
        (500, error(type="server_error", code=None), "server_error", "server_error", True),
        (503, b"", "overloaded_error", None, True),
        (502, b"<html>Bad gateway</html>", "server_error", None, True),
        (400, b"\xff\xfe", "invalid_request_error", None, False),
        (400, b'{"detail": "Unsupported"}', "invalid_request_error", None, False),
        (400, b'{"error": "just words"}', "invalid_request_error", None, False),
        (400, b'{"message": "flat", "code": "content_policy_violation"}', "content_filter",
         "content_policy_violation", False),
        (403, b"[1]", "permission_error", None, False),
        (418, b"null", "invalid_request_error", None, False),
    ],
)  # fmt: skip
def test_what_an_error_means(status: int, body: bytes, code: str, provider_code: str | None, retryable: bool) -> None:
    info = decode_error(status, {}, body)
    assert (info.code, info.provider_code, info.retryable, info.status) == (code, provider_code, retryable, status)
    assert info.message


def test_headers_tell_the_request_and_when_to_come_back() -> None:
    info = decode_error(429, {"x-request-id": "req_1", "retry-after-ms": "1500", "retry-after": "9"}, b"")
    assert (info.request_id, info.retry_after) == ("req_1", 1.5)
    assert decode_error(429, {"apim-request-id": "azure_1", "retry-after": "9"}, b"").request_id == "azure_1"
    assert decode_error(429, {"retry-after": "9"}, b"").retry_after == 9


def test_the_providers_words_are_kept_without_keys() -> None:
    info = decode_error(
        401, {}, error(message="Incorrect API key provided: sk-proj-abcdefgh1234", code="invalid_api_key")
    )
    assert info.detail is not None
    assert "Incorrect API key" in info.detail
    assert "abcdefgh" not in info.detail


@given(st.integers(300, 599), st.binary(max_size=80) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(["error", "code", "type", "message", "detail", "status"]), inner, max_size=3),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_body_is_some_error(status: int, body: bytes) -> None:
    info = decode_error(status, {}, body)
    assert info.code
    assert info.message
    assert info.status == status
