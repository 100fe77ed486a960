"""Anthropic Messages: answers that are no 200, and input that is anything at all."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.records import TERMINALS, Record
from multi_agent_scheduler.wire.anthropic import Decoder, decode_error
from tests.wire.anthropic_answers import sse
from tests.wire.replay import decode


@pytest.mark.parametrize(
    ("status", "headers", "body", "code", "retryable", "request_id", "after"),
    [
        (529, {}, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}',
         "overloaded_error", True, "req_1", None),
        (429, {"retry-after": "7", "request-id": "req_2"}, b'{"type":"error","error":{"type":"rate_limit_error"}}',
         "rate_limit_error", True, "req_2", 7.0),
        (400, {"x-should-retry": "true"}, b'{"error":{"type":"invalid_request_error","message":"no"}}',
         "invalid_request_error", True, None, None),
        (500, {"x-should-retry": "false"}, b'{"error":{"type":"api_error"}}', "server_error", False, None, None),
        (403, {}, b'{"type":"error","error":{"type":"billing_error"}}', "insufficient_quota", False, None, None),
        (413, {}, b"<html>too large</html>", "request_too_large", False, None, None),
        (502, {}, b"", "server_error", True, None, None),
        (401, {}, b"\xff\xfe", "authentication_error", False, None, None),
        (503, {}, b'{"error":"busy"}', "overloaded_error", True, None, None),
        (404, {}, b"[1]", "not_found_error", False, None, None),
    ],
)  # fmt: skip
def test_an_answer_other_than_200(
    status: int, headers: dict[str, str], body: bytes, code: str, retryable: bool, request_id: str | None,
    after: float | None,
) -> None:  # fmt: skip
    info = decode_error(status, headers, body)
    assert (info.code, info.retryable, info.request_id, info.retry_after) == (code, retryable, request_id, after)
    assert info.status == status


def test_what_the_provider_said_of_an_error_is_kept_without_keys() -> None:
    body = b'{"error":{"type":"authentication_error","message":"invalid key sk-ant-api03-abcdefgh"}}'
    info = decode_error(401, {}, body)
    assert info.detail == "invalid key [redacted]"
    assert decode_error(503, {}, b'{"error":"busy"}').detail == "busy"


# --- anything at all ----------------------------------------------------------------------------------------------

KINDS = """
message_start content_block_start content_block_delta content_block_stop message_delta message_stop error ping text
thinking redacted_thinking tool_use server_tool_use mcp_tool_use web_search_tool_result text_delta thinking_delta
signature_delta input_json_delta citations_delta refusal end_turn
"""
FIELDS = """
type index delta content_block message usage text thinking signature partial_json citation input id name data content
stop_reason stop_details explanation input_tokens output_tokens tool_use_id error
"""
WORDS = st.sampled_from(re.findall(r"\w+", KINDS))
KEYS = st.sampled_from(re.findall(r"\w+", FIELDS))
SCALARS = st.none() | st.booleans() | st.integers(-2, 3) | st.floats(allow_nan=False) | st.text(max_size=3) | WORDS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
TYPED = st.builds(lambda kind, rest: {**rest, "type": kind}, WORDS, st.dictionaries(KEYS, VALUES, max_size=4))
EVENTS = st.builds(
    lambda kind, block, piece, rest: {"content_block": block, "delta": piece, **rest, "type": kind},
    WORDS,
    TYPED,
    TYPED,
    st.dictionaries(KEYS, VALUES, max_size=4),
) | st.dictionaries(KEYS, VALUES, max_size=5)


def has_one_outcome(records: list[Record]) -> bool:
    return [isinstance(record, TERMINALS) for record in records] == [False] * (len(records) - 1) + [True]


@given(st.lists(EVENTS, max_size=8))
def test_any_events_end_in_exactly_one_outcome_and_can_be_logged(events: list[dict[str, object]]) -> None:
    records = decode(Decoder, [sse(*events)])
    assert has_one_outcome(records)
    msgspec.json.encode(records)


@given(EVENTS)
def test_any_document_ends_in_exactly_one_outcome_and_can_be_logged(document: dict[str, object]) -> None:
    records = decode(Decoder, [msgspec.json.encode({"content": [document], **document})])
    assert has_one_outcome(records)
    msgspec.json.encode(records)


@given(st.lists(st.binary(max_size=40) | EVENTS.map(sse), max_size=8))
def test_any_bytes_end_in_exactly_one_outcome(pieces: list[bytes]) -> None:
    assert has_one_outcome(decode(Decoder, pieces))
