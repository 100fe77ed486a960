"""Anthropic Messages: bytes to records."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import jiter
import pytest

from multi_agent_scheduler.records import (
    Citation,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from multi_agent_scheduler.wire.anthropic import Decoder
from tests.wire.anthropic_answers import (
    EVERY,
    FAILURES,
    PLAIN,
    START,
    STOP,
    blocks,
    delta,
    ending,
    expected_blocks,
    find,
    last_usage,
    sse,
    start,
    stop,
    text,
)
from tests.wire.replay import Recording, cuts, decode, respellings, splits

STOPS = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length", "refusal": "content_filter"}


def said(*events: object) -> list[Record]:
    """The records of these events, inside a message that ends well, without its usage and its outcome."""
    records = decode(Decoder, [sse(START, *events, ending("end_turn"), STOP)])
    assert isinstance(records[-1], Completed), records[-1]
    return [record for record in records[:-1] if not isinstance(record, Usage)]


def sized(block: dict[str, Any]) -> dict[str, Any]:
    """The block with its sealed data as the expectations have it: only its length."""
    data = block.get("data")
    return {**block, "data": {"len": len(data)}} if isinstance(data, str) else block


# --- recordings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", PLAIN, ids=str)
def test_a_recording_says_what_the_official_client_understood(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    expected = recording.expected
    ours = blocks(records)
    for mine, theirs in zip(ours, expected_blocks(expected["content"]), strict=True):
        if "kind" in mine:
            whole = jiter.from_json(mine["input"].encode(), partial_mode=True)  # one was cut by max_tokens
            if theirs["type"] != "mcp_tool_use":
                assert whole == theirs["input"]
            assert {**mine, "input": None} == {key: theirs[key] for key in mine} | {"input": None}
        else:
            assert sized(mine) == sized({key: theirs[key] for key in mine})
    end = records[-1]
    assert isinstance(end, Completed)
    assert end.raw_stop_reason == expected["stop_reason"]
    assert end.stop_reason == STOPS[expected["stop_reason"]]
    usage = last_usage(records)
    assert {key: usage.raw.get(key) for key in expected["usage"]} == expected["usage"]
    counts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert usage.input_tokens == sum(expected["usage"].get(key) or 0 for key in counts)
    assert usage.output_tokens == expected["usage"]["output_tokens"]


@pytest.mark.parametrize("recording", EVERY, ids=str)
def test_a_recording_is_the_same_wherever_the_network_cuts_it(recording: Recording) -> None:
    whole = decode(Decoder, [recording.body])
    bytewise = 0 if len(recording.body) < 12_000 else 1
    for pieces in itertools.islice(splits(recording.body), bytewise, None):
        assert decode(Decoder, pieces) == whole


@pytest.mark.parametrize("recording", EVERY, ids=str)
def test_line_ends_and_comments_do_not_matter(recording: Recording) -> None:
    whole = decode(Decoder, [recording.body])
    for body in respellings(recording.body):
        assert decode(Decoder, [body]) == whole


@pytest.mark.parametrize("recording", EVERY, ids=str)
def test_a_recording_cut_before_its_end_is_no_success_and_keeps_what_came(recording: Recording) -> None:
    whole = decode(Decoder, [recording.body])
    marker = re.search(rb'\{"type":\s*"message_stop"\s*\}', recording.body)
    assert marker is not None
    seen = 0
    for body in cuts(recording.body):
        if len(body) >= marker.end():
            continue
        *records, end = decode(Decoder, [body])
        assert isinstance(end, Interrupted | Failed)
        assert records == whole[: len(records)]
        seen += len(records)
    assert seen


def test_the_last_event_counts_without_its_blank_line() -> None:
    body = sse(
        START, start({"type": "text", "text": ""}), delta(type="text_delta", text="hi"), ending("end_turn"), STOP
    )
    assert isinstance(decode(Decoder, [body.rstrip()])[-1], Completed)
    assert isinstance(decode(Decoder, [body.rstrip()[:-1]])[-1], Interrupted)


def test_two_messages_in_one_body_are_the_first() -> None:
    recording = find("anthropic-messages-013.sse")
    records = decode(Decoder, [recording.body])
    assert text(records) == "Great! I found a weather tool. Let me get the current weather data for San Francisco."
    assert records[-1] == Completed(stop_reason="tool_calls", raw_stop_reason="tool_use")


def test_a_second_message_inside_the_first_is_an_interruption() -> None:
    """Half a tool call and a sealed thought must not be mixed with those of another attempt."""
    records = decode(Decoder, [find("anthropic-messages-017.sse").body])
    assert [record for record in records if not isinstance(record, Usage)][:-1] == [
        Reasoning(text="I will call the tool."),
        Reasoning(signature="sig-first"),
        ToolCall(index=0, id="toolu_first", name="test-tool", part=1),
        ToolCall(index=0, arguments='{"value":"Spark', part=1),
    ]
    end = records[-1]
    assert isinstance(end, Interrupted)
    assert end.error.message == "the provider began another answer before the first had ended"
    assert end.error.retryable


# --- failures -----------------------------------------------------------------------------------------------------


def test_an_error_event_is_a_failure_that_keeps_what_came() -> None:
    records = decode(Decoder, [FAILURES["anthropic-error-midstream.sse"].body])
    assert text(records) == "Hello"
    end = records[-1]
    assert isinstance(end, Failed)
    assert (end.error.code, end.error.retryable, end.error.request_id) == ("overloaded_error", True, "req_syn")


def test_a_stream_that_is_cut_in_its_text_is_interrupted() -> None:
    records = decode(Decoder, [FAILURES["anthropic-cut-in-text.sse"].body])
    assert text(records) == "Hel"
    assert isinstance(records[-1], Interrupted)


def test_a_stop_reason_without_message_stop_is_interrupted() -> None:
    body = sse(START, start({"type": "text", "text": "all of it"}), stop(), ending("end_turn"))
    *_, end = decode(Decoder, [body])
    assert isinstance(end, Interrupted)


def test_unknown_events_and_deltas_are_carried() -> None:
    records = decode(Decoder, [FAILURES["anthropic-unknown-event-and-delta.sse"].body])
    unknown = [record for record in records if isinstance(record, Unknown)]
    assert [record.raw["type"] for record in unknown] == [
        "brand_new_event",
        "content_block_start",  # of the text block, which had said nothing when the unknown delta came
        "content_block_delta",
    ]
    assert unknown[2].raw["delta"] == {"type": "future_delta", "z": 1}
    assert text(records) == "ok"
    assert isinstance(records[-1], Completed)


@pytest.mark.parametrize(
    "body",
    [
        b'event: error\ndata: {"error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
        b'data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
        b'data: {"error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
    ],
)
def test_an_error_in_any_dress_is_a_failure(body: bytes) -> None:
    (end,) = decode(Decoder, [body])
    assert isinstance(end, Failed)
    assert (end.error.code, end.error.detail) == ("overloaded_error", "Overloaded")


def test_a_marker_of_another_protocol_ends_nothing() -> None:
    text_block = (start({"type": "text", "text": "hi"}), stop())
    body = sse(START, *text_block) + b"data: [DONE]\n\n"
    assert isinstance(decode(Decoder, [body])[-1], Interrupted)
    body = sse(START, *text_block, ending("end_turn"), STOP) + b"data: [DONE]\n\n"
    assert isinstance(decode(Decoder, [body])[-1], Completed)


# --- stop reasons and usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop_sequence"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("content_filter", "content_filter"),  # not Anthropic's word, but of some that are compatible
        ("pause_turn", "pause"),
        ("tired", "other"),
        (None, "other"),
    ],
)
def test_stop_reasons(raw: str | None, reason: str) -> None:
    *_, end = decode(Decoder, [sse(START, ending(raw), STOP)])
    assert end == Completed(stop_reason=reason, raw_stop_reason=raw)


def test_the_stop_sequence_that_was_met_is_told() -> None:
    *_, end = decode(Decoder, [sse(START, ending("stop_sequence", stop_sequence="###"), STOP)])
    assert end == Completed(stop_reason="stop_sequence", raw_stop_reason="stop_sequence", stop_sequence="###")


def test_the_explanation_of_a_refusal_is_a_refusal() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "not that"}
    records = decode(Decoder, [sse(START, ending("refusal", stop_details=details), STOP)])
    assert records[1:3] == [
        Refusal(text="not that"),
        Unknown(
            raw={"type": "message_delta", "delta": {"stop_details": {"type": "refusal", "category": "cyber"}}},
            protocol="anthropic",
        ),
    ]
    assert isinstance(records[-1], Completed)
    assert records[-1].stop_reason == "content_filter"


def test_usage_is_cumulative_and_counts_caches_as_input() -> None:
    first = {"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 1}
    last = {"output_tokens": 50, "input_tokens": None, "output_tokens_details": {"thinking_tokens": 30}}
    message = {"type": "message_start", "message": {"id": "m", "usage": first}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": last}
    before, after, _ = decode(Decoder, [sse(message, end, STOP)])
    assert isinstance(before, Usage)
    assert (before.input_tokens, before.output_tokens, before.reasoning_tokens) == (130, 1, None)
    assert before.raw == first
    assert isinstance(after, Usage)
    assert (after.input_tokens, after.output_tokens, after.reasoning_tokens) == (130, 50, 30)
    assert (after.cache_read_tokens, after.cache_write_tokens) == (100, 20)
    assert after.raw == {**first, "output_tokens": 50, "output_tokens_details": {"thinking_tokens": 30}}


def test_odd_usage_survives() -> None:
    message = {"type": "message_start", "message": {"usage": {"input_tokens": "12", "output_tokens": 1.0}}}
    usage = decode(Decoder, [sse(message)])[0]
    assert isinstance(usage, Usage)
    assert (usage.input_tokens, usage.output_tokens) == (12, 1)
    for raw in (None, {}, [], "many"):
        message = {"type": "message_start", "message": {"usage": raw}}
        assert [type(record) for record in decode(Decoder, [sse(message)])] == [Interrupted]


def test_the_message_tells_its_id_and_model() -> None:
    decoder = Decoder()
    decoder.feed(sse(START))
    assert (decoder.response_id, decoder.model) == ("msg_1", "claude-x")


# --- blocks -------------------------------------------------------------------------------------------------------


def test_an_empty_block_is_carried_as_it_came() -> None:
    empty = start({"type": "text", "text": ""}, 1)
    records = said(start({"type": "text", "text": "a"}), stop(), empty, delta(1, type="text_delta", text=""), stop(1))
    assert records == [Text(text="a"), Unknown(raw=empty, protocol="anthropic", part=1)]


def test_a_tool_call_without_deltas_has_the_input_of_its_start() -> None:
    tool = {"type": "tool_use", "id": "t1", "name": "look", "input": {"city": "Paris"}}
    assert said(start(tool), stop()) == [
        ToolCall(index=0, id="t1", name="look"),
        ToolCall(index=0, arguments='{"city":"Paris"}'),
    ]
    assert said(start({**tool, "input": {}}), delta(type="input_json_delta", partial_json=""), stop())[1] == (
        ToolCall(index=0, arguments="{}")
    )
    assert said(start(tool), delta(type="input_json_delta", partial_json='{"city":1}'), stop())[1:] == [
        ToolCall(index=0, arguments='{"city":1}')
    ]


def test_tool_calls_of_client_and_server_are_counted_together() -> None:
    records = said(
        start({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}),
        stop(),
        start({"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]}, 1),
        stop(1),
        start({"type": "tool_use", "id": "t", "name": "look", "input": {}, "caller": {"type": "direct"}}, 2),
        stop(2),
    )
    assert records == [
        ToolCall(index=0, id="s", name="web_search", kind="server"),
        ToolCall(index=0, arguments='{"query":"x"}', kind="server"),
        ToolResult(id="s", name="web_search_tool_result", content=[{"url": "u"}], part=1),
        Unknown(
            raw=start({"type": "tool_use", "caller": {"type": "direct"}}, 2),
            protocol="anthropic",
            part=2,
        ),
        ToolCall(index=1, id="t", name="look", part=2),
        ToolCall(index=1, arguments="{}", part=2),
    ]


def test_a_failed_server_tool_is_told_as_failed() -> None:
    content = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    (record,) = said(start({"type": "web_search_tool_result", "tool_use_id": "s", "content": content}), stop())
    assert isinstance(record, ToolResult)
    assert record.is_error


def test_an_mcp_tool_keeps_its_server() -> None:
    tool = {"type": "mcp_tool_use", "id": "m", "name": "ask", "input": {}, "server_name": "wiki"}
    result = {"type": "mcp_tool_result", "tool_use_id": "m", "is_error": True, "content": [{"type": "text"}]}
    assert said(start(tool), stop(), start(result, 1), stop(1)) == [
        Unknown(raw=start({"type": "mcp_tool_use", "server_name": "wiki"}), protocol="anthropic", part=0),
        ToolCall(index=0, id="m", name="ask", kind="server"),
        ToolCall(index=0, arguments="{}", kind="server"),
        ToolResult(id="m", name="mcp_tool_result", content=[{"type": "text"}], is_error=True, part=1),
    ]


def test_thinking_and_its_seal() -> None:
    assert said(
        start({"type": "thinking", "thinking": "", "signature": ""}),
        delta(type="thinking_delta", thinking="hm", estimated_tokens=None),
        delta(type="signature_delta", signature="sig"),
        stop(),
        start({"type": "redacted_thinking", "data": "sealed"}, 1),
        stop(1),
    ) == [Reasoning(text="hm"), Reasoning(signature="sig"), Reasoning(redacted="sealed", part=1)]


def test_citations() -> None:
    web = {"type": "web_search_result_location", "url": "https://e.org", "title": "E", "cited_text": "c"}
    page = {
        "type": "page_location",
        "document_title": "D",
        "cited_text": "p",
        "start_page_number": 3,
        "end_page_number": 4,
    }
    assert said(
        start({"type": "text", "text": "", "citations": []}),
        delta(type="citations_delta", citation=web),
        delta(type="text_delta", text="so"),
        delta(type="citations_delta", citation=page),
        stop(),
    ) == [
        Citation(url="https://e.org", title="E", text="c", raw=web),
        Text(text="so"),
        Citation(title="D", text="p", start=3, end=4, raw=page),
    ]


def test_unknown_fields_of_known_things_are_carried() -> None:
    message = {"type": "message_start", "message": {"id": "m", "container": {"id": "c"}, "diagnostics": None}}
    records = decode(
        Decoder,
        [
            sse(
                message,
                start({"type": "text", "text": "", "mood": "gay"}),
                delta(type="text_delta", text="a", tone="low"),
                stop(),
                {**ending("end_turn"), "context_management": {"applied": 1}},
                {**STOP, "amazon-bedrock-invocationMetrics": {"lag": 1}},
            )
        ],
    )
    assert [record.raw for record in records if isinstance(record, Unknown)] == [
        {"type": "message_start", "message": {"container": {"id": "c"}}},
        start({"type": "text", "mood": "gay"}),
        delta(type="text_delta", tone="low"),
        {"type": "message_delta", "delta": {}, "context_management": {"applied": 1}},
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"lag": 1}},
    ]
    assert text(records) == "a"


def test_odd_shapes_are_carried_and_never_fatal() -> None:
    odd = [
        start(None),
        start({"type": "compaction", "content": None}, 1),
        delta(1, type="compaction_delta", content="short"),
        delta(7, type="input_json_delta", partial_json="{}"),
        delta(7, type="text_delta", text=["not", "text"]),
        delta(7),
        {"type": "content_block_delta", "index": 7},
        {"type": ["odd"], "x": 1},
        {"note": "no type"},
    ]
    records = said(*odd)
    assert [record.raw for record in records if isinstance(record, Unknown)] == odd
    assert len(records) == len(odd)


def test_a_missing_index_means_the_block_that_began_last() -> None:
    first, second = start({"type": "text", "text": "a"}), start({"type": "text", "text": ""}, 1)
    piece = delta(type="text_delta", text="b")
    del piece["index"]
    assert said(first, stop(), second, piece, stop(1)) == [Text(text="a"), Text(text="b", part=1)]
    assert said(first, stop(), second, {**piece, "index": "1"}, stop(1)) == [Text(text="a"), Text(text="b", part=1)]


# --- an answer that is no stream ---------------------------------------------------------------------


def test_a_whole_message_is_decoded_into_the_same_records() -> None:
    message = {
        "id": "msg_2",
        "type": "message",
        "role": "assistant",
        "model": "claude-y",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": "so", "citations": [{"type": "char_location", "cited_text": "c"}]},
            {"type": "tool_use", "id": "t", "name": "look", "input": {"a": [1]}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "container": {"id": "c"},
        "usage": {"input_tokens": 5, "output_tokens": 6},
    }
    decoder = Decoder()
    records = [*decoder.feed(json.dumps(message).encode()), *decoder.close()]
    assert records == [
        Reasoning(text="hm"),
        Reasoning(signature="sig"),
        Text(text="so", part=1),
        Citation(part=1, text="c", raw={"type": "char_location", "cited_text": "c"}),
        ToolCall(index=0, id="t", name="look", part=2),
        ToolCall(index=0, arguments='{"a":[1]}', part=2),
        Unknown(raw={"type": "message_delta", "delta": {"container": {"id": "c"}}}, protocol="anthropic"),
        Usage(input_tokens=5, output_tokens=6, raw={"input_tokens": 5, "output_tokens": 6}),
        Completed(stop_reason="tool_calls", raw_stop_reason="tool_use"),
    ]
    assert (decoder.response_id, decoder.model) == ("msg_2", "claude-y")


def test_json_that_is_no_message_is_a_failure() -> None:
    (end,) = decode(Decoder, [b'{"hello": "world"}'])
    assert isinstance(end, Failed)
    assert end.error.code == "protocol_error"
