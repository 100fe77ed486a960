"""The Responses API, read: the same thing said in many ways, odd shapes, and every ending."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multi_agent_scheduler.records import (
    TERMINALS,
    Cancelled,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Refusal,
    Text,
    ToolResult,
    Unknown,
    Usage,
)
from multi_agent_scheduler.wire.openai_responses import Decoder
from tests.wire.openai_responses_answers import (
    added,
    calls_of,
    completed,
    done,
    message,
    read,
    said,
    stream,
    text_delta,
)
from tests.wire.replay import decode, recordings

RECORDINGS = recordings("responses")


# --- the same thing said several times ---------------------------------------------------------------------------


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add", "arguments": '{"a":1}'}
WHOLE = [
    pytest.param([text_delta("Hi "), text_delta("you")], id="deltas only"),
    pytest.param(
        [{"type": "response.output_text.done", "item_id": "msg_1", "output_index": 0, "text": "Hi you"}],
        id="text.done only",
    ),
    pytest.param(
        [
            {
                "type": "response.content_part.done",
                "item_id": "msg_1",
                "output_index": 0,
                "content_index": 0,
                "part": message("Hi you")["content"][0],
            }
        ],
        id="content_part.done only",
    ),
    pytest.param([done(message("Hi you"))], id="output_item.done only"),
    pytest.param([done(message("Hi you", content="Hi you"))], id="content as a string"),
    pytest.param([], id="the final response only"),
    pytest.param([text_delta("Hi ")], id="half of the deltas"),
    pytest.param([text_delta("Hi you"), done(message("Hi you"))], id="deltas and the item"),
    pytest.param([text_delta("Hi ", item_id="x1"), text_delta("you", item_id="x2")], id="an id for each event"),
    pytest.param([text_delta("Hi you", output_index="0", content_index="0")], id="indexes as strings"),
    pytest.param([{"type": "response.output_text.delta", "delta": "Hi you"}], id="no place at all"),
    pytest.param([text_delta([{"text": "Hi "}, "you"])], id="a list as the delta"),
    pytest.param([text_delta({"text": "Hi you"})], id="an object as the delta"),
]


@pytest.mark.parametrize("events", WHOLE)
def test_a_text_is_said_once_however_it_is_sent(events: list[dict[str, Any]]) -> None:
    records = read(*events, completed(output=[message("Hi you")]))
    assert said(records) == "Hi you"
    assert {record.part for record in records if isinstance(record, Text)} == {0}
    assert records[-1] == Completed(stop_reason="stop", raw_stop_reason="completed")
    assert not [record for record in records if isinstance(record, Unknown)]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([], id="final response only"),
        pytest.param([done(CALL)], id="item only"),
        pytest.param([added({**CALL, "arguments": ""}), done(CALL)], id="added and done"),
        pytest.param([added(CALL), done(CALL)], id="whole when added"),
        pytest.param(
            [
                added({**CALL, "arguments": ""}),
                {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": '{"a":1}'},
            ],
            id="arguments.done",
        ),
        pytest.param(
            [
                added({**CALL, "arguments": ""}),
                {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a"'},
                {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": ":1}"},
            ],
            id="deltas",
        ),
        pytest.param([done({**CALL, "arguments": {"a": 1}})], id="arguments as an object"),
        pytest.param(
            [
                added({**CALL, "arguments": ""}),
                {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a":1}'},
                done({**CALL, "arguments": '{"a": 1}'}),
            ],
            id="spelled anew in the item",
        ),
    ],
)
def test_a_call_is_made_once_however_it_is_sent(events: list[dict[str, Any]]) -> None:
    records = read(*events, completed(output=[CALL]))
    assert calls_of(records) == [{"call_id": "call_1", "name": "add", "arguments": '{"a":1}', "kind": "function"}]
    assert records[-1] == Completed(stop_reason="tool_calls", raw_stop_reason="completed")
    assert not [record for record in records if isinstance(record, Unknown)]


def test_fragments_of_a_call_without_a_name_are_kept_until_the_call_comes_whole() -> None:
    fragment = {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "fc_1", "delta": '{"a"'}
    unknown, *rest = read(fragment, completed(output=[CALL]))
    assert unknown == Unknown(
        raw={k: v for k, v in fragment.items() if k != "output_index"}, protocol="openai_responses", part=0
    )
    assert calls_of(rest)[0]["arguments"] == '{"a":1}'


def test_a_full_text_that_contradicts_its_deltas_is_kept_beside_them() -> None:
    records = read(text_delta("Hello"), done(message("Goodbye")), completed(output=[message("Goodbye")]))
    assert records == [
        Text(text="Hello"),
        Unknown(raw={"type": "response.output_text.done", "text": "Goodbye"}, protocol="openai_responses", part=0),
        Completed(stop_reason="stop", raw_stop_reason="completed"),
    ]


def test_two_items_at_one_place_are_told_apart_by_their_ids() -> None:
    call = {**CALL, "arguments": ""}
    records = read(
        added(message("", content=[])), text_delta("Look: "), done(message("Look: ")),
        added(call),
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 0, "delta": "{}"},
        completed(),
    )  # fmt: skip
    assert said(records) == "Look: "
    assert calls_of(records)[0]["arguments"] == "{}"


def test_content_parts_and_summary_parts_are_parts_of_their_own() -> None:
    def summary(index: int, text: str) -> dict[str, Any]:
        place = {"item_id": "rs_1", "output_index": 0, "summary_index": index}
        return {"type": "response.reasoning_summary_text.delta", **place, "delta": text}

    records = read(
        summary(0, "a"),
        summary(1, "b"),
        done({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "seal"}),
        text_delta("c", output_index=1),
        text_delta("d", output_index=1, content_index=1),
        {"type": "response.refusal.delta", "item_id": "msg_1", "output_index": 1, "content_index": 2, "delta": "e"},
        completed(),
    )
    assert records[:-1] == [
        Reasoning(text="a", part=0, kind="summary", id="rs_1"),
        Reasoning(text="b", part=1, kind="summary", id="rs_1"),
        Reasoning(signature="seal", part=1, kind="summary", id="rs_1"),
        Text(text="c", part=2),
        Text(text="d", part=3),
        Refusal(text="e", part=4),
    ]


# --- endings ------------------------------------------------------------------------------------------------------


def test_a_refusal_alone_is_content_filter() -> None:
    delta = {"type": "response.refusal.delta", "item_id": "m", "output_index": 0, "content_index": 0, "delta": "No."}
    assert read(delta, completed()) == [
        Refusal(text="No."),
        Completed(stop_reason="content_filter", raw_stop_reason="completed"),
    ]


@pytest.mark.parametrize(
    ("response", "ending"),
    [
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            ("content_filter", "content_filter"),
        ),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_tokens"}}, ("length", "max_tokens")),
        ({"status": "incomplete", "incomplete_details": {"reason": "steered"}}, ("other", "steered")),
        ({"status": "incomplete", "incomplete_details": None}, ("length", "incomplete")),
        ({"status": "in_progress"}, ("stop", "completed")),
        ({}, ("stop", "completed")),
    ],
)
def test_the_status_in_a_completed_event_counts(response: dict[str, Any], ending: tuple[str, str]) -> None:
    last = read({"type": "response.completed", "response": response})[-1]
    assert isinstance(last, Completed)
    assert (last.stop_reason, last.raw_stop_reason) == ending


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"type": "computer_call", "id": "c", "call_id": "1"}, "tool_calls"),
        ({"type": "mcp_approval_request", "id": "m"}, "tool_calls"),
        ({"type": "web_search_call", "id": "w"}, "stop"),
        ({"type": "tool_search_call", "id": "t", "call_id": "1", "execution": "client"}, "tool_calls"),
        ({"type": "tool_search_call", "id": "t", "call_id": "1", "execution": "server"}, "stop"),
    ],
)
def test_what_waits_for_the_client_is_tool_calls(item: dict[str, Any], reason: str) -> None:
    records = read(completed(output=[item]))
    assert records[0] == Unknown(raw=item, protocol="openai_responses", part=0)
    assert records[-1] == Completed(stop_reason=reason, raw_stop_reason="completed")  # type: ignore[arg-type]


def test_a_call_that_was_answered_inside_the_stream_waits_for_nobody() -> None:
    output = {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "2"}
    records = read(done(CALL), done(output, 1), completed(output=[CALL, output]))
    assert ToolResult(id="call_1", content="2", part=1) in records
    assert records[-1] == Completed(stop_reason="stop", raw_stop_reason="completed")


@pytest.mark.parametrize(
    ("event", "code", "retryable"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, "rate_limit_error", True),
        ({"type": "error", "error": {"type": "invalid_request_error", "code": "context_length_exceeded"}},
         "invalid_request_error", False),
        ({"type": "error", "error": {"type": "invalid_request_error", "code": "invalid_api_key"}},
         "authentication_error", False),
        ({"type": "error", "code": 429, "message": "slow"}, "rate_limit_error", True),
        ({"type": "error"}, "server_error", True),
        ({"type": "response.error", "error": {"code": "server_error"}}, "server_error", True),
        ({"type": "response.error", "code": "rate_limit_exceeded"}, "rate_limit_error", True),
        ({"error": {"message": "from a proxy", "code": 503}}, "overloaded_error", True),
        ({"error": "just words"}, "server_error", True),
        ({"type": "response.failed", "response": {"status": "failed", "error": {"code": "invalid_image_format"}}},
         "invalid_request_error", False),
        ({"type": "response.failed", "response": {"error": {"code": "image_content_policy_violation"}}},
         "content_filter", False),
        ({"type": "response.failed", "response": {"error": {"code": "vector_store_timeout"}}}, "timeout_error", True),
        ({"type": "response.failed", "response": {"error": None}}, "server_error", True),
        ({"type": "response.failed"}, "server_error", True),
        ({"type": "response.completed", "response": {"status": "failed", "error": {"code": "server_error"}}},
         "server_error", True),
    ],
)  # fmt: skip
def test_an_error_in_the_stream_is_a_failure_that_keeps_what_came(
    event: dict[str, Any], code: str, retryable: bool
) -> None:
    text, failed = read(text_delta("Hel"), event, text_delta("ignored"))
    assert text == Text(text="Hel")
    assert isinstance(failed, Failed)
    assert (failed.error.code, failed.error.retryable) == (code, retryable)


def test_a_named_error_event_without_a_type_is_a_failure() -> None:
    (failed,) = decode(Decoder, [b'event: error\ndata: {"message": "gone", "code": "server_error"}\n\n'])
    assert isinstance(failed, Failed)
    assert failed.error.detail == "gone"


def test_a_failed_response_keeps_usage_and_unstreamed_text() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    response = {"status": "failed", "error": {"code": "server_error"}, "output": [message("Hal")], "usage": usage}
    text, cost, failed = read({"type": "response.failed", "response": response})
    assert text == Text(text="Hal")
    assert isinstance(cost, Usage)
    assert isinstance(failed, Failed)


def test_a_cancelled_response_is_cancelled() -> None:
    records = read(text_delta("Hel"), {"type": "response.cancelled", "response": {"status": "cancelled"}})
    assert records == [Text(text="Hel"), Cancelled("the response was cancelled at the provider")]


def test_the_done_marker_alone_finishes_nothing() -> None:
    assert isinstance(decode(Decoder, [stream(text_delta("a")) + b"data: [DONE]\n\n"])[-1], Interrupted)


def test_whatever_follows_the_end_is_ignored() -> None:
    decoder = Decoder()
    records = decoder.feed(stream(completed(), text_delta("late")) + b"data: [DONE]\n\n")
    assert records == [Completed(stop_reason="stop", raw_stop_reason="completed")]
    assert decoder.feed(stream(text_delta("later"))) == decoder.close() == []


# --- what has no record -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.brand_new.delta", "delta": "x"},
        {"type": "response.audio.delta", "delta": "UklGRg=="},
        {"type": "codex.rate_limits", "plan": "pro"},
        {"type": "response.brand_new"},
        {"answer": 42},
        {"type": "response.output_item.done", "item": "no object"},
        {"type": "response.output_text.annotation.added", "annotation": "no object"},
    ],
)
def test_unknown_events_are_kept_as_they_came(event: dict[str, Any]) -> None:
    records = read({**event, "sequence_number": 7, "obfuscation": "xyz"}, completed())
    assert records[0] == Unknown(raw=event, protocol="openai_responses")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "keepalive"},
        {"type": "ping"},
        {},
        {"type": "response.web_search_call.searching", "item_id": "ws_1", "output_index": 0},
        {"type": "response.queued", "response": {"id": "resp_1", "status": "queued"}},
        {"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}},
        text_delta(""),
        text_delta(None),
    ],
)
def test_what_says_nothing_gives_no_record(event: dict[str, Any]) -> None:
    assert read({**event, "sequence_number": 7}, completed()) == [
        Completed(stop_reason="stop", raw_stop_reason="completed")
    ]


def test_unknown_fields_of_known_events_are_kept() -> None:
    records = read(text_delta("a", logprobs=[{"token": "a"}]), text_delta("b", annotations_new=[1]), completed())
    assert records[:-1] == [
        Text(text="a"),
        Unknown(
            raw={"type": "response.output_text.delta", "logprobs": [{"token": "a"}]},
            protocol="openai_responses",
            part=0,
        ),
        Text(text="b"),
        Unknown(
            raw={"type": "response.output_text.delta", "annotations_new": [1]}, protocol="openai_responses", part=0
        ),
    ]


def test_unknown_fields_of_items_are_kept_once() -> None:
    item = message("Hi", phase="commentary")
    records = read(added({**item, "content": []}), text_delta("Hi"), done(item), completed(output=[item]))
    header = {"type": "message", "id": "msg_1", "phase": "commentary"}
    assert records[:-1] == [Unknown(raw=header, protocol="openai_responses", part=0), Text(text="Hi")]


def test_unknown_content_parts_are_kept_once() -> None:
    part = {"type": "output_image", "image_url": "https://example.com/a.png"}
    item = message("", content=[part])
    event = {
        "type": "response.content_part.done",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "part": part,
    }
    records = read(event, done(item), completed(output=[item]))
    raw = {"type": "response.content_part.done", "part": part}
    assert records[:-1] == [Unknown(raw=raw, protocol="openai_responses", part=0)]


def test_unknown_fields_of_the_response_are_kept() -> None:
    filters = [{"blocked": False, "source_type": "prompt"}]
    records = read(completed(content_filters=filters, temperature=1.0, tool_usage={"web_search": {"num_requests": 0}}))
    assert records[:-1] == [Unknown(raw={"type": "response", "content_filters": filters}, protocol="openai_responses")]


def test_the_end_of_a_hosted_tools_deltas_is_kept_where_there_were_none() -> None:
    code = {"type": "response.code_interpreter_call_code.done", "item_id": "ci_1", "code": "1+1"}
    assert read(code, completed())[0] == Unknown(raw=code, protocol="openai_responses", part=0)


# --- usage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (None, None),
        ({}, None),
        ("none", None),
        ({"input_tokens": "12", "output_tokens": 3.0}, Usage(input_tokens=12, output_tokens=3)),
        ({"input_tokens": None, "output_tokens": -1, "input_tokens_details": None}, Usage()),
        (
            {
                "input_tokens": 9,
                "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
                "output_tokens": 5,
                "output_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(input_tokens=9, output_tokens=5, reasoning_tokens=3, cache_read_tokens=4, cache_write_tokens=2),
        ),
    ],
)
def test_usage(raw: Any, usage: Usage | None) -> None:
    found = [record for record in read(completed(usage=raw)) if isinstance(record, Usage)]
    assert found == ([] if usage is None else [msgspec.structs.replace(usage, raw=raw)])


# --- answers that are no stream -------------------------------------------------------------------------------------


def test_a_response_that_is_still_running_is_no_success() -> None:
    (ending,) = decode(Decoder, [json.dumps({"object": "response", "id": "resp_1", "status": "queued"}).encode()])
    assert isinstance(ending, Interrupted)
    assert "queued" in ending.error.message


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"choices": []}', b"<html>", b"", b"{", b'{"output": 5, "output": [3]}']
)
def test_another_document_is_a_failure_or_empty(body: bytes) -> None:
    records = decode(Decoder, [body])
    assert len(records) == 1
    assert isinstance(records[0], Failed | Completed)
    assert isinstance(records[0], Completed) == (b"output" in body)


# --- anything at all ----------------------------------------------------------------------------------------------

_KINDS = sorted(
    {
        event["type"]
        for recording in RECORDINGS
        for event in (json.loads(line[6:]) for line in recording.body.splitlines() if line.startswith(b"data: {"))
    }
    | {"error", "response.failed", "response.cancelled", "response.refusal.delta", "response.refusal.done"}
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "type", "id", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_place = st.integers(0, 2) | st.sampled_from(["0", "1", "a"]) | _json
_item = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["message", "reasoning", "function_call", "custom_tool_call", "web_search_call", "new"])
        | _json
    },
    optional={
        name: st.text(max_size=3) | _json
        for name in (
            "id",
            "call_id",
            "name",
            "arguments",
            "input",
            "content",
            "summary",
            "encrypted_content",
            "phase",
            "output",
        )
    },
)
_event = st.fixed_dictionaries(
    {"type": st.sampled_from(_KINDS)},
    optional={
        "output_index": _place,
        "content_index": _place,
        "summary_index": _place,
        "item_id": st.sampled_from(["a", "b"]) | _json,
        "delta": st.text(max_size=4) | _json,
        "text": st.text(max_size=4) | _json,
        "arguments": st.text(max_size=4) | _json,
        "item": _item | _json,
        "part": st.fixed_dictionaries({"type": st.sampled_from(["output_text", "refusal", "new"]), "text": _json})
        | _json,
        "annotation": _json,
        "logprobs": _json,
        "response": st.fixed_dictionaries({}, optional={"output": st.lists(_item, max_size=3) | _json, "usage": _json})
        | _json,
        "error": _json,
    },
)


@given(st.lists(_event | st.dictionaries(st.text(max_size=4), _json, max_size=3), max_size=12), st.booleans())
@settings(max_examples=80, deadline=None)
def test_any_events_end_in_exactly_one_outcome(events: list[dict[str, Any]], finish: bool) -> None:
    body = stream(*events, *([completed()] if finish else []))
    records = decode(Decoder, [body])
    assert isinstance(records[-1], TERMINALS)
    assert sum(isinstance(record, TERMINALS) for record in records) == 1
    calls_of(records)
    half = len(body) // 2
    assert decode(Decoder, [body[:half], body[half:]]) == records


@given(st.lists(st.binary(max_size=60), max_size=6))
@settings(max_examples=100, deadline=None)
def test_any_bytes_end_in_exactly_one_outcome(pieces: list[bytes]) -> None:
    records = decode(Decoder, pieces)
    assert sum(isinstance(record, TERMINALS) for record in records) == 1
    assert isinstance(records[-1], TERMINALS)
