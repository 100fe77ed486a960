"""The Responses API, written: what is read back, and what the response object holds."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo, StreamReset
from multi_agent_scheduler.records import (
    CallEnded,
    CallStarted,
    Cancelled,
    Citation,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Refusal,
    Reset,
    Skipped,
    Terminal,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from multi_agent_scheduler.wire.openai_responses import Decoder, Encoder, body
from tests.wire.replay import Recording, decode, recordings

RECORDINGS = recordings("responses")
recorded = pytest.mark.parametrize("recording", RECORDINGS, ids=str)
STOP = Completed(stop_reason="stop", raw_stop_reason="completed")
CALLS = Completed(stop_reason="tool_calls", raw_stop_reason="completed")
PROTOCOL = "openai_responses"


def encoder(**options: Any) -> Encoder:
    return Encoder(id="resp_9", model="gpt-test", created=1_700_000_000, **options)


def write(*records: Record) -> bytes:
    """The stream of these records, given one by one."""
    writer = encoder()
    return b"".join(writer.encode([record]) for record in records)


def events(data: bytes) -> list[dict[str, Any]]:
    """The events, with the framing and the numbering checked."""
    found = []
    for block in data.decode().removesuffix("\n\n").split("\n\n"):
        name, payload = block.split("\n")
        event = json.loads(payload.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == len(found)
        found.append(event)
    return found


def kinds(data: bytes) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events(data)]


def object_of(*records: Record) -> dict[str, Any]:
    return body(records, id="resp_9", model="gpt-test", created=1_700_000_000)


# --- there and back -----------------------------------------------------------------------------------------------


@recorded
def test_a_recorded_answer_survives_being_written_and_read_again(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    assert decode(Decoder, [write(*records)]) == records
    assert encoder().encode(records) == write(*records)


@recorded
def test_the_response_object_says_what_the_stream_said(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    made = object_of(*records)
    assert made == events(write(*records))[-1]["response"]
    assert (made["id"], made["model"], made["created_at"], made["object"]) == (
        "resp_9",
        "gpt-test",
        1_700_000_000,
        "response",
    )
    expected = recording.expected
    assert made["status"] == expected["status"]
    assert made["usage"] == expected["usage"]
    texts = [part["text"] for item in made["output"] if item["type"] == "message" for part in item["content"]]
    assert "".join(texts) == expected["text"]
    calls = [item for item in made["output"] if item["type"] == "function_call"]
    assert [{key: call[key] for key in ("call_id", "name", "arguments")} for call in calls] == expected[
        "function_calls"
    ]
    again = decode(Decoder, [json.dumps(made).encode()])
    assert [type(record) for record in again[-2:]] == [type(record) for record in records[-2:]]


@recorded
def test_every_event_belongs_to_an_item_that_was_added(recording: Recording) -> None:
    added: set[int] = set()
    closed: dict[int, int] = {}
    for event in events(write(*decode(Decoder, [recording.body]))):
        if event["type"] == "response.output_item.added":
            assert event["output_index"] == len(added)
            added.add(event["output_index"])
        elif "output_index" in event:
            assert event["output_index"] in added
        if event["type"] == "response.output_item.done":
            closed[event["output_index"]] = closed.get(event["output_index"], 0) + 1
    assert closed == dict.fromkeys(added, 1)


_text = st.text(min_size=1, max_size=6)
_id = st.text("abc", min_size=1, max_size=3)
_json = st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | st.text(max_size=3), max_size=2)


@st.composite
def _answers(draw: st.DrawFn) -> list[Record]:
    """Answers as this protocol can express them: one item after another, parts numbered as they come."""
    out: list[Record] = []
    calls = 0
    waiting = spoke = refused = False
    ids: set[str] = set()
    blocks = draw(
        st.lists(
            st.sampled_from(["text", "refusal", "summary", "reasoning", "seal", "function", "custom", "item"]),
            max_size=6,
        )
    )
    for part, block in enumerate(blocks):
        texts = draw(st.lists(_text, min_size=1, max_size=3))
        item_id = f"{block}_{len(ids)}"
        ids.add(item_id)
        seal = draw(st.none() | _text)
        if block == "text":
            spoke = True
            out += [Text(text=text, part=part) for text in texts]
            if draw(st.booleans()):
                note = {"type": "url_citation", "url": "https://e.org", "title": "t", "start_index": 0, "end_index": 1}
                out.append(Citation(part=part, url="https://e.org", title="t", start=0, end=1, raw=note))
            if draw(st.booleans()):
                raw = {"type": "response.output_text.delta", "logprobs": [draw(_json)]}
                out.append(Unknown(raw=raw, protocol=PROTOCOL, part=part))
        elif block == "refusal":
            refused = True
            out += [Refusal(text=text, part=part) for text in texts]
        elif block in ("summary", "reasoning"):
            kind = "summary" if block == "summary" else None
            out += [Reasoning(text=text, part=part, kind=kind, id=item_id) for text in texts]  # type: ignore[arg-type]
            if seal is not None:
                out.append(Reasoning(signature=seal, part=part, kind=kind, id=item_id))  # type: ignore[arg-type]
        elif block == "seal":
            out.append(Reasoning(signature=seal, part=part, id=item_id))
        elif block in ("function", "custom"):
            waiting = True
            kind_ = block
            call = ToolCall(index=calls, id=f"call_{calls}", name=draw(_id), part=part, kind=kind_)  # type: ignore[arg-type]
            out.append(call)
            out += [ToolCall(index=calls, arguments=text, part=part, kind=kind_) for text in texts]  # type: ignore[arg-type]
            calls += 1
        else:
            raw = {"id": item_id, "type": "web_search_call", "status": "completed", "action": draw(_json)}
            if draw(st.booleans()):
                begun = {"type": "response.output_item.added", "item": {**raw, "status": "in_progress"}}
                out.append(Unknown(raw=begun, protocol=PROTOCOL, part=part))
                delta = {"type": "response.web_search_call.delta", "item_id": item_id, "delta": texts[0]}
                out.append(Unknown(raw=delta, protocol=PROTOCOL, part=part))
            out.append(Unknown(raw=raw, protocol=PROTOCOL, part=part))
    if draw(st.booleans()):
        tokens = draw(st.integers(0, 99))
        raw_usage = {"input_tokens": tokens, "output_tokens": 2, "total_tokens": tokens + 2}
        out.append(Usage(input_tokens=tokens, output_tokens=2, raw=raw_usage))
    reason = "tool_calls" if waiting else "content_filter" if refused and not spoke else "stop"
    whole = Completed(stop_reason=reason, raw_stop_reason="completed")  # type: ignore[arg-type]
    cut = Completed(stop_reason="length", raw_stop_reason="max_output_tokens")
    filtered = Completed(stop_reason="content_filter", raw_stop_reason="content_filter")
    out.append(draw(st.sampled_from([whole, cut] if refused and not spoke else [whole, cut, filtered])))
    return out


@given(_answers(), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_any_answer_survives_being_written_and_read_again(records: list[Record], random: Any) -> None:
    data = write(*records)
    assert decode(Decoder, [data]) == records
    cut = random.randrange(len(records) + 1)
    writer = encoder()
    assert writer.encode(records[:cut]) + writer.encode(records[cut:]) == data
    assert events(data)[-1]["response"] == object_of(*records)


_part = st.integers(0, 2)
_count = st.none() | st.integers(0, 9)
_kinds = [
    "message", "reasoning", "function_call", "x", "response", "response.output_text.delta", "response.a.b", "",
    "response.refusal.done", "response.content_part.done", "response.completed", "response.x_call.delta",
]  # fmt: skip
_raw = st.fixed_dictionaries(
    {"type": st.sampled_from(_kinds)},
    optional={"id": _id, "name": _id, "part": _json, "delta": _text, "item_id": _id},
)
any_record = st.one_of(
    st.builds(Text, text=st.text(max_size=3), part=_part),
    st.builds(Refusal, text=st.text(max_size=3), part=_part),
    st.builds(
        Reasoning,
        text=st.text(max_size=3),
        part=_part,
        kind=st.sampled_from([None, "summary"]),
        id=st.none() | _id,
        signature=st.none() | _text,
        redacted=st.none() | _text,
    ),
    st.builds(
        ToolCall,
        index=st.integers(0, 2),
        id=st.text(max_size=1),
        name=st.text(max_size=2),
        arguments=st.sampled_from(["", "{", "}", "{}", "x"]),
        part=_part,
        kind=st.sampled_from(["function", "custom", "server"]),
        signature=st.none() | _text,
    ),
    st.builds(ToolResult, id=st.text(max_size=1), content=st.none() | st.text() | _json | st.lists(_json), part=_part),
    st.builds(Citation, part=_part, url=st.none() | _text, title=st.none() | _text, raw=st.none() | _json),
    st.builds(Usage, input_tokens=_count, output_tokens=_count, raw=st.none() | _json),
    st.builds(Unknown, raw=_json | _raw, protocol=st.sampled_from([PROTOCOL, "anthropic"]), part=st.none() | _part),
)


@given(st.lists(any_record, max_size=10))
@settings(max_examples=120, deadline=None)
def testany_records_at_all_give_a_sound_stream(records: list[Record]) -> None:
    data = write(*records, STOP)
    found = events(data)
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    assert [event["type"] for event in found].count("response.completed") == 1
    read = decode(Decoder, [data])
    assert isinstance(read[-1], Completed)
    for kind in (Text, Refusal):
        given_ = "".join(record.text for record in records if isinstance(record, kind))
        assert "".join(record.text for record in read if isinstance(record, kind)) == given_
    added = [event["output_index"] for event in found if event["type"] == "response.output_item.added"]
    assert len(set(added)) == len(added)
    finished = {event["output_index"] for event in found if event["type"] == "response.output_item.done"}
    assert finished <= set(added)


# --- the events ---------------------------------------------------------------------------------------------------


def test_the_whole_life_of_a_text() -> None:
    data = write(Text(text="Hi "), Text(text="you"), STOP)
    assert kinds(data) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    _, _, added, part, first, _, done, part_done, item_done, completed = events(data)
    item_id = added["item"]["id"]
    assert added["item"] == {
        "id": item_id,
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }
    assert part["part"] == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    assert (first["delta"], first["item_id"], first["output_index"], first["content_index"]) == ("Hi ", item_id, 0, 0)
    assert done["text"] == part_done["part"]["text"] == item_done["item"]["content"][0]["text"] == "Hi you"
    assert completed["response"]["output"] == [item_done["item"]]
    assert completed["response"]["status"] == item_done["item"]["status"] == "completed"


def test_reasoning_calls_and_text_are_items_of_their_own() -> None:
    data = write(
        Reasoning(text="hm", kind="summary", id="rs_1"),
        Reasoning(text="so", part=1, kind="summary", id="rs_1"),
        Reasoning(signature="seal", part=1, kind="summary", id="rs_1"),
        Text(text="Let me see.", part=2),
        ToolCall(index=0, id="call_1", name="add", part=3),
        ToolCall(index=0, arguments='{"a":1}', part=3),
        ToolCall(index=1, id="call_2", name="run", part=4, kind="custom"),
        ToolCall(index=1, arguments="ls", part=4, kind="custom"),
        CALLS,
    )
    reasoning, message, function, custom = events(data)[-1]["response"]["output"]
    assert reasoning == {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "hm"}, {"type": "summary_text", "text": "so"}],
        "encrypted_content": "seal",
    }
    assert message["content"][0]["text"] == "Let me see."
    assert (function["type"], function["call_id"], function["arguments"]) == ("function_call", "call_1", '{"a":1}')
    assert (custom["type"], custom["call_id"], custom["input"]) == ("custom_tool_call", "call_2", "ls")
    order = kinds(data)
    assert order.index("function_call_arguments.done") < order.index("custom_tool_call_input.delta")


def test_arguments_that_come_interleaved_stay_with_their_calls() -> None:
    made = object_of(
        ToolCall(index=0, id="a", name="f"),
        ToolCall(index=0, arguments='{"x":'),
        ToolCall(index=1, id="b", name="g", part=1),
        ToolCall(index=1, arguments="{}", part=1),
        ToolCall(index=0, arguments="1}"),
        CALLS,
    )
    assert [(item["call_id"], item["arguments"]) for item in made["output"]] == [("a", '{"x":1}'), ("b", "{}")]


def test_a_call_without_arguments_gets_an_empty_object() -> None:
    assert object_of(ToolCall(index=0, id="a", name="f"), CALLS)["output"][0]["arguments"] == "{}"


def test_a_text_that_goes_on_after_another_item_keeps_its_order() -> None:
    made = object_of(Text(text="a"), ToolCall(index=0, id="a", name="f", part=1), Text(text="b"), CALLS)
    assert [item["type"] for item in made["output"]] == ["message", "function_call", "message"]
    assert [item["content"][0]["text"] for item in made["output"] if item["type"] == "message"] == ["a", "b"]


def test_a_seal_that_comes_late_sends_its_item_once_more() -> None:
    data = write(Reasoning(text="hm", id="rs_1"), Text(text="a", part=1), Reasoning(signature="s", id="rs_1"), STOP)
    assert kinds(data).count("output_item.done") == 3
    assert events(data)[-1]["response"]["output"][0]["encrypted_content"] == "s"
    assert Reasoning(signature="s", id="rs_1") in decode(Decoder, [data])


def test_seals_of_other_providers_travel_in_fields_of_our_own() -> None:
    records = [
        Reasoning(text="hm", id="x"),
        Reasoning(signature="seal", id="x"),
        Reasoning(redacted="secret", part=1, id="y"),
        ToolCall(index=0, id="call_1", name="f", part=2),
        ToolCall(index=0, arguments="{}", part=2),
        ToolCall(index=0, part=2, signature="thought"),
        CALLS,
    ]
    made = object_of(*records)
    assert made["output"][1]["redacted"] == "secret"
    assert made["output"][2]["signature"] == "thought"
    assert decode(Decoder, [write(*records)]) == records


def test_a_tool_that_ran_at_another_provider_is_shown_as_done_there() -> None:
    (item,) = object_of(
        ToolCall(index=0, id="srv_1", name="web_search", kind="server"),
        ToolCall(index=0, arguments='{"q":"x"}', kind="server"),
        ToolResult(id="srv_1", content=[{"url": "https://e.org"}], part=1),
        STOP,
    )["output"]
    assert (item["type"], item["name"], item["arguments"]) == ("mcp_call", "web_search", '{"q":"x"}')
    assert json.loads(item["output"]) == [{"url": "https://e.org"}]


def test_results_of_tools_are_items() -> None:
    records = [
        ToolCall(index=0, id="call_1", name="f"),
        ToolCall(index=0, arguments="{}"),
        ToolResult(id="call_1", content="42", part=1),
        Text(text="It is 42.", part=2),
        STOP,
    ]
    assert [item["type"] for item in object_of(*records)["output"]] == [
        "function_call",
        "function_call_output",
        "message",
    ]
    assert decode(Decoder, [write(*records)]) == records


def test_a_result_in_another_protocols_shape_is_json_text() -> None:
    own = [{"type": "input_text", "text": "a"}]
    other = [{"type": "text", "text": "a"}]
    made = object_of(ToolResult(id="1", content=own), ToolResult(id="2", content=other, part=1), STOP)
    assert [item["output"] for item in made["output"]] == [own, json.dumps(other, separators=(",", ":"))]


def test_citations_of_other_protocols_become_annotations() -> None:
    made = object_of(
        Text(text="a"),
        Citation(url="https://e.org", title="E", start=0, end=1, raw={"type": "web_search_result_location"}),
        Citation(title="Book", text="quoted", raw={"type": "char_location"}),
        STOP,
    )
    assert made["output"][0]["content"][0]["annotations"] == [
        {"type": "url_citation", "url": "https://e.org", "title": "E", "start_index": 0, "end_index": 1},
        {"type": "file_citation", "file_id": "", "filename": "Book", "index": 0},
    ]


def test_a_message_header_is_on_the_item_from_its_beginning() -> None:
    header = Unknown(raw={"type": "message", "id": "msg_7", "phase": "commentary"}, protocol=PROTOCOL, part=0)
    added = events(write(header, Text(text="a"), STOP))[2]
    assert (added["item"]["id"], added["item"]["phase"]) == ("msg_7", "commentary")


@pytest.mark.parametrize(
    "record",
    [
        CallStarted(call=1, agent="a"),
        CallEnded(call=1, outcome="completed"),
        Text(text="not the main text", branch="b"),
        Text(text=""),
        Reasoning(),
        Usage(input_tokens=1),
        Reset(from_seq=1, reason="nothing was shown yet"),
        Unknown(raw={"type": "content_block_delta"}, protocol="anthropic"),
        Unknown(raw={"type": "response.completed", "response": {}}, protocol=PROTOCOL),
        Unknown(raw={"no": "type"}, protocol=PROTOCOL),
        Unknown(raw="text", protocol=PROTOCOL),
    ],
    ids=lambda record: type(record).__name__,
)
def test_what_has_no_place_here_shows_nothing(record: Record) -> None:
    assert encoder().encode([record]) == b""


def test_a_reset_after_content_cannot_be_shown() -> None:
    writer = encoder()
    writer.encode([Text(text="a")])
    with pytest.raises(StreamReset, match="failover"):
        writer.encode([Reset(from_seq=1, reason="failover")])


def test_the_stream_can_be_opened_before_the_first_record() -> None:
    writer = encoder()
    assert kinds(writer.start()) == ["created", "in_progress"]
    assert writer.start() == b""
    assert b"response.created" not in writer.encode([Text(text="a")])


def test_nothing_is_shown_after_the_end() -> None:
    writer = encoder()
    assert writer.encode([STOP, Text(text="late")]) == write(STOP)
    assert writer.encode([Text(text="later")]) == b""
    assert writer.done


def test_the_request_is_echoed() -> None:
    echo = {"instructions": "Be brief.", "temperature": 0.5, "metadata": {"k": "v"}}
    made = Encoder(id="resp_9", model="m", created=1, echo=echo).body([Text(text="a"), STOP])
    assert {key: made[key] for key in echo} == echo
    assert made["parallel_tool_calls"] is True
    assert made["tool_choice"] == "auto"


# --- endings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terminal", "status", "reason"),
    [
        (Completed(stop_reason="stop", raw_stop_reason="end_turn"), "completed", None),
        (Completed(stop_reason="stop_sequence", stop_sequence="END"), "completed", None),
        (Completed(stop_reason="tool_calls"), "completed", None),
        (Completed(stop_reason="length", raw_stop_reason="max_tokens"), "incomplete", "max_tokens"),
        (Completed(stop_reason="length", raw_stop_reason="MAX_TOKENS"), "incomplete", "max_output_tokens"),
        (Completed(stop_reason="content_filter", raw_stop_reason="SAFETY"), "incomplete", "content_filter"),
        (Completed(stop_reason="pause", raw_stop_reason="pause_turn"), "incomplete", "pause_turn"),
        (Completed(stop_reason="other"), "incomplete", "other"),
    ],
)
def test_how_a_completed_answer_is_written(terminal: Completed, status: str, reason: str | None) -> None:
    data = write(Text(text="a"), terminal)
    last = events(data)[-1]
    assert last["type"] == f"response.{status}"
    assert last["response"]["status"] == status
    assert (last["response"]["incomplete_details"] or {}).get("reason") == reason
    assert last["response"]["output"][0]["status"] == status


def test_a_refusal_alone_is_a_completed_response() -> None:
    terminal = Completed(stop_reason="content_filter", raw_stop_reason="completed")
    data = write(Refusal(text="No."), terminal)
    assert events(data)[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]
    assert decode(Decoder, [data]) == [Refusal(text="No."), terminal]


@pytest.mark.parametrize(
    ("terminal", "code"),
    [
        (Failed(ErrorInfo("rate_limit_error", "the provider's rate limit is reached")), "rate_limit_exceeded"),
        (Failed(ErrorInfo("overloaded_error", "the provider is overloaded")), "overloaded_error"),
        (Failed(ErrorInfo("authentication_error", "the key was refused", detail="sk-secret")), "authentication_error"),
        (Interrupted(ErrorInfo("interrupted", "the answer ended early")), "server_error"),
        (Skipped("a parent failed"), "server_error"),
        (Skipped(), "server_error"),
    ],
)
def test_a_failure_is_written_in_the_stream(terminal: Terminal, code: str) -> None:
    data = write(Text(text="Hel"), terminal)
    last = events(data)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == code
    assert last["response"]["error"]["message"]
    assert b"sk-secret" not in data
    text, failed = decode(Decoder, [data])
    assert text == Text(text="Hel")
    assert isinstance(failed, Failed)
    if isinstance(terminal, Failed):
        assert failed.error.code == terminal.error.code


def test_a_failure_before_the_first_word_is_a_stream_too() -> None:
    assert kinds(write(Failed(ErrorInfo("server_error", "it failed")))) == ["created", "in_progress", "failed"]


def test_a_cancelled_answer_is_cancelled() -> None:
    data = write(Text(text="Hel"), Cancelled("on request"))
    assert events(data)[-1]["type"] == "response.cancelled"
    assert isinstance(decode(Decoder, [data])[-1], Cancelled)


# --- usage --------------------------------------------------------------------------------------------------------


def test_usage_of_another_protocol_is_written_in_this_ones_shape() -> None:
    usage = Usage(
        input_tokens=10,
        output_tokens=5,
        reasoning_tokens=2,
        cache_read_tokens=4,
        cache_write_tokens=3,
        raw={"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": 4},
    )
    data = write(Text(text="a"), usage, STOP)
    made = events(data)[-1]["response"]["usage"]
    assert made == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }
    assert decode(Decoder, [data])[-2] == msgspec.structs.replace(usage, raw=made)


def test_usage_of_several_calls_adds_up_and_a_later_record_of_one_replaces_it() -> None:
    made = object_of(
        Usage(call=1, input_tokens=10, output_tokens=1),
        Usage(call=1, input_tokens=10, output_tokens=3),
        Usage(call=2, input_tokens=20, output_tokens=4),
        STOP,
    )
    assert (made["usage"]["input_tokens"], made["usage"]["output_tokens"], made["usage"]["total_tokens"]) == (30, 7, 37)


def test_unknown_usage_is_null() -> None:
    assert object_of(Usage(source="unknown"), STOP)["usage"] is None
