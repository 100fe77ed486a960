"""Answers that are none: statuses and error objects of chat completions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo
from multi_agent_scheduler.wire.openai_chat import decode_error


class TestDecodeError:
    def error(self, status: int, body: Any, **headers: str) -> ErrorInfo:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return decode_error(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)

    def test_openai(self) -> None:
        body = {"error": {"message": "Rate limit", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
        info = self.error(429, body, x_request_id="req_1", retry_after="2")
        assert info == ErrorInfo(
            "rate_limit_error",
            "the provider's rate limit is reached",
            status=429,
            provider_code="rate_limit_exceeded",
            detail="Rate limit",
            request_id="req_1",
            retry_after=2.0,
            retryable=True,
        )

    @pytest.mark.parametrize(
        ("status", "body", "code", "retryable"),
        [
            (
                401,
                {"error": {"code": "invalid_api_key", "type": "invalid_request_error"}},
                "authentication_error",
                False,
            ),
            (429, {"error": {"code": "insufficient_quota", "type": "insufficient_quota"}}, "insufficient_quota", False),
            (404, {"error": {"code": "model_not_found"}}, "not_found_error", False),
            (400, {"error": {"code": "content_filter", "innererror": {}}}, "content_filter", False),
            (422, {"detail": [{"loc": ["body"], "msg": "bad"}]}, "invalid_request_error", False),
            (503, {"error": "Model is loading", "estimated_time": 20.0}, "overloaded_error", True),
            (502, b"<html>Bad Gateway</html>", "server_error", True),
            (500, b"", "server_error", True),
            (500, b"\xff\xfe", "server_error", True),
            (418, [], "invalid_request_error", False),
            (400, [{"error": {"message": "m", "status": "INVALID_ARGUMENT"}}], "invalid_request_error", False),
            (524, b"null", "server_error", True),
        ],
    )
    def test_shapes(self, status: int, body: Any, code: str, retryable: bool) -> None:
        info = self.error(status, body)
        assert (info.code, info.status, info.retryable) == (code, status, retryable)

    def test_details(self) -> None:
        assert self.error(400, {"error": {"message": "no sk-abcdefghijk"}}).detail == "no [redacted]"
        assert self.error(422, {"detail": [{"msg": "bad"}]}).detail == '[{"msg":"bad"}]'
        assert self.error(500, b"<html>secret</html>").detail is None
        assert self.error(500, b"upstream connect error").detail == "upstream connect error"

    def test_openais_own_advice_on_retrying(self) -> None:
        assert self.error(500, b"", x_should_retry="false").retryable is False
        assert self.error(409, b"", x_should_retry="true").retryable is True

    @given(
        st.integers(100, 599),
        st.binary() | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()),
    )
    def test_anything_at_all(self, status: int, body: bytes) -> None:
        assert decode_error(status, {}, body).code


NOW = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("after", "date", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:50:07 GMT", NOW, 30.0),
        ("Sun, 06 Nov 1994 08:49:07 GMT", NOW, 0.0),
        ("Sun, 06 Nov 1994 08:50:07 GMT", None, None),
        ("Sun, 06 Nov 1994 08:50:07 GMT", "now, or so", None),
        ("Sun, 99 Nov 99999 99:99:99 GMT", NOW, None),
        ("soon", NOW, None),
    ],
)
def test_a_date_to_retry_after_is_counted_from_the_date_of_the_answer(
    after: str, date: str | None, seconds: float | None
) -> None:
    headers = {"retry-after": after} if date is None else {"retry-after": after, "date": date}
    assert decode_error(429, headers, b"").retry_after == seconds
