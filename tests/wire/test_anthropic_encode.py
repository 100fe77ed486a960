"""Anthropic Messages: records to the stream and to the whole message, as the official SDK reads them."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import msgspec
import pytest
from hypothesis import given
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
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from multi_agent_scheduler.wire.anthropic import Decoder, Encoder, body
from tests.wire.anthropic_answers import (
    ASK,
    EVERY,
    FAILURES,
    PLAIN,
    accumulated,
    blocks,
    client,
    expected_blocks,
    find,
    start,
    text,
)
from tests.wire.replay import Recording, decode

ENDED = Completed(stop_reason="stop", raw_stop_reason="end_turn")


def encode(*records: Record) -> bytes:
    return Encoder(id="msg_1", model="claude-x").encode(records)


def again(*records: Record) -> list[Record]:
    return decode(Decoder, [encode(*records)])


def content(*records: Record) -> list[Any]:
    """The content of the message that the official SDK makes of these records, which end well."""
    return accumulated(encode(*records, ENDED))["content"]


# --- recordings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", [*EVERY, *FAILURES.values()], ids=str)
def test_a_recording_comes_back_the_same(recording: Recording) -> None:
    """All of it; but an interruption becomes an error event, which is read as a failure."""
    records = decode(Decoder, [recording.body])
    back = again(*records)
    assert back[:-1] == records[:-1]
    if isinstance(records[-1], Interrupted):
        assert isinstance(back[-1], Failed)
        assert back[-1].error.detail == records[-1].error.message
    else:
        assert back[-1] == records[-1]


@pytest.mark.parametrize("recording", PLAIN, ids=str)
def test_the_official_client_reads_ours_as_it_reads_the_providers(recording: Recording) -> None:
    ours = accumulated(encode(*decode(Decoder, [recording.body])))
    theirs = accumulated(recording.body)
    usage, reported = ours.pop("usage"), theirs.pop("usage")
    assert {key: usage[key] for key in reported} == reported
    for key in ("id", "model"):
        assert ours.pop(key) != theirs.pop(key)
    for block in ours["content"]:
        if block["type"] == "text" and block.get("citations") is None:
            block.pop("citations", None)
    for block in theirs["content"]:
        if block["type"] == "text" and not block.get("citations"):
            block.pop("citations", None)  # an empty list at the start says nothing
    assert ours == theirs


@pytest.mark.parametrize("recording", PLAIN, ids=str)
def test_batches_make_no_difference(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    encoder = Encoder(id="msg_1", model="claude-x")
    assert b"".join(encoder.encode([record]) for record in records) == encode(*records)
    assert encoder.encode([Text(text="more")]) == b""


@pytest.mark.parametrize("recording", PLAIN, ids=str)
def test_the_whole_message_says_what_the_stream_says(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    message = Encoder(id="msg_1", model="claude-x").body(records)
    assert message["stop_reason"] == recording.expected["stop_reason"]
    expected = recording.expected["usage"]
    assert {key: message["usage"][key] for key in expected} == expected
    kinds = [block["type"] for block in message["content"]]
    assert kinds == [block["type"] for block in recording.expected["content"]]
    back = decode(Decoder, [json.dumps(message).encode()])
    for ours, streamed in zip(blocks(back), blocks(records), strict=True):
        if "kind" in ours and "INVALID_JSON" not in ours["input"]:
            assert json.loads(ours.pop("input")) == json.loads(streamed.pop("input"))
        elif "kind" in ours:
            assert json.loads(ours.pop("input")) == {"INVALID_JSON": streamed.pop("input")}
        assert ours == streamed
    assert back[-1] == records[-1]


def test_the_official_client_reads_the_whole_message() -> None:
    recording = find("anthropic-messages-065.sse")
    message = body(decode(Decoder, [recording.body]), id="msg_1", model="claude-x")
    with client(json.dumps(message).encode(), kind="application/json") as api:
        read = api.messages.create(**ASK).to_dict()
    streamed = accumulated(recording.body)
    assert expected_blocks(read["content"]) == expected_blocks(streamed["content"])
    assert read["stop_reason"] == "end_turn"


# --- what other protocols say -------------------------------------------------------------------------------------


def test_parts_of_any_numbering_become_blocks_in_order() -> None:
    assert content(
        Reasoning(text="hm", part=4),
        Reasoning(signature="sig", part=4),
        Text(text="a"),
        Text(text="b"),
        Text(text="c", part=9),
        ToolCall(index=0, id="t", name="look", arguments='{"a":'),
        ToolCall(index=0, arguments="1}"),
        Text(text="d", part=9),
    ) == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "text", "text": "ab"},
        {"type": "text", "text": "c"},
        {"type": "tool_use", "id": "t", "name": "look", "input": {"a": 1}},
        {"type": "text", "text": "d"},
    ]


def test_interleaved_fragments_of_parallel_calls_stay_whole() -> None:
    records = (
        ToolCall(index=0, id="t0", name="a"),
        ToolCall(index=1, id="t1", name="b"),
        ToolCall(index=0, arguments='{"x"'),
        ToolCall(index=1, arguments='{"y"'),
        ToolCall(index=0, arguments=":0}"),
        ToolCall(index=1, arguments=":1}"),
    )
    calls = [
        {"type": "tool_use", "id": "t0", "name": "a", "input": {"x": 0}},
        {"type": "tool_use", "id": "t1", "name": "b", "input": {"y": 1}},
    ]
    assert content(*records) == calls
    assert body([*records, ENDED], id="m", model="m")["content"] == calls
    events = [json.loads(line[6:]) for line in encode(*records, ENDED).splitlines() if line.startswith(b"data: ")]
    assert sorted(event["index"] for event in events if event["type"] == "content_block_stop") == [0, 1]


def test_one_block_is_closed_before_the_next_begins() -> None:
    """Simple clients keep one block in mind."""
    records = (ToolCall(index=0, id="t0", name="a", arguments="{}"), ToolCall(index=1, id="t1", name="b"), ENDED)
    events = [json.loads(line[6:]) for line in encode(*records).splitlines() if line.startswith(b"data: ")]
    assert [(event["type"], event.get("index")) for event in events][1:-2] == [
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_stop", 1),
    ]


def test_a_custom_tools_free_text_is_one_field() -> None:
    assert content(
        ToolCall(index=0, id="t", name="sh", kind="custom", arguments='ls "x'),
        ToolCall(index=0, kind="custom", arguments='\n" \\'),
        ToolCall(index=1, id="u", name="sh", kind="custom"),
    ) == [
        {"type": "tool_use", "id": "t", "name": "sh", "input": {"input": 'ls "x\n" \\'}},
        {"type": "tool_use", "id": "u", "name": "sh", "input": {"input": ""}},
    ]


def test_a_refusal_is_told_in_the_stop_details() -> None:
    message = accumulated(encode(Refusal(text="I "), Refusal(text="won't"), ENDED))
    assert message["stop_reason"] == "refusal"
    assert message["stop_details"] == {"type": "refusal", "category": None, "explanation": "I won't"}
    assert message["content"] == []


def test_a_source_of_another_protocol_is_a_web_search_result() -> None:
    cited = Citation(url="https://e.org", title="E", raw={"type": "url_citation", "url": "https://e.org"})
    (block,) = content(Text(text="so"), cited)
    (citation,) = block["citations"]
    assert (citation["type"], citation["url"], citation["title"]) == (
        "web_search_result_location",
        "https://e.org",
        "E",
    )


def test_a_tool_loops_result_is_an_mcp_result() -> None:
    (block,) = body([ToolResult(id="t", name="look", content={"deg": 3}), ENDED], id="m", model="m")["content"]
    assert block == {"type": "mcp_tool_result", "tool_use_id": "t", "content": '{"deg":3}', "is_error": False}


def test_counts_of_another_protocol_are_told_in_this_ones_words() -> None:
    usage = Usage(
        input_tokens=100, output_tokens=9, reasoning_tokens=4, cache_read_tokens=60, raw={"prompt_tokens": 100}
    )
    message = accumulated(encode(Text(text="a"), usage, ENDED))
    told = message["usage"]
    assert (told["input_tokens"], told["cache_read_input_tokens"], told["output_tokens"]) == (40, 60, 9)
    assert told["output_tokens_details"] == {"thinking_tokens": 4}
    assert (again(Text(text="a"), usage, ENDED)[-2]) == Usage(
        input_tokens=100, output_tokens=9, reasoning_tokens=4, cache_read_tokens=60,
        raw={"input_tokens": 40, "cache_read_input_tokens": 60, "output_tokens": 9,
             "output_tokens_details": {"thinking_tokens": 4}},
    )  # fmt: skip


def test_every_call_of_a_task_is_counted() -> None:
    message = body(
        [
            Usage(call=1, input_tokens=10, output_tokens=1, raw={"input_tokens": 10, "output_tokens": 1}),
            Usage(call=1, input_tokens=10, output_tokens=3),
            Usage(call=2, input_tokens=20, output_tokens=5, branch="b"),
            Text(text="a"),
            ENDED,
        ],
        id="m",
        model="m",
    )
    assert message["usage"] == {"input_tokens": 30, "output_tokens": 8}


def test_what_the_protocol_cannot_show_is_left_out() -> None:
    assert encode(CallStarted(call=1, agent="a"), CallEnded(call=1, outcome="completed")) == b""
    assert (
        encode(Text(text="", part=0), Unknown(raw={"type": "x"}, protocol="openai"), Reset(from_seq=1, reason="r"))
        == b""
    )
    assert encode(Text(text="candidate", branch="b")) == b""


def test_text_that_is_no_unicode_is_mended() -> None:
    assert text(again(Text(text="a\ud83d"), Text(text="\udc00b"), ENDED)) == "a\ufffd\ufffdb"


def test_an_unknown_event_cannot_forge_others() -> None:
    raw = {"type": "x\nevent: message_stop", "y": 1}
    assert again(Unknown(raw=raw, protocol="anthropic"), ENDED)[1] == Unknown(raw=raw, protocol="anthropic")


def test_an_mcp_call_keeps_its_kind_and_server() -> None:
    told = Unknown(raw=start({"type": "mcp_tool_use", "server_name": "wiki"}), protocol="anthropic", part=0)
    call = ToolCall(index=0, id="m", name="ask", arguments="{}", kind="server")
    (block,) = body([told, call, ENDED], id="m", model="m")["content"]
    assert block == {"type": "mcp_tool_use", "id": "m", "name": "ask", "input": {}, "server_name": "wiki"}


# --- endings ------------------------------------------------------------------------------------------------------


def test_a_failure_is_an_error_in_the_middle_of_the_stream() -> None:
    info = ErrorInfo("overloaded_error", "the provider is overloaded", detail="Overloaded", request_id="req_1")
    with client(encode(Text(text="Hel"), Failed(error=info))) as api, api.messages.stream(**ASK) as stream:
        seen = []
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            seen.extend(stream.text_stream)
    assert seen == ["Hel"]


def test_nothing_follows_a_failure() -> None:
    encoder = Encoder(id="m", model="m")
    encoder.encode([Text(text="a"), Failed(error=ErrorInfo("server_error", "no"))])
    assert encoder.encode([Text(text="b")]) == b""


@pytest.mark.parametrize(
    ("end", "kind", "message"),
    [
        (Failed(error=ErrorInfo("insufficient_quota", "no credit")), "billing_error", "no credit"),
        (Failed(error=ErrorInfo("log_full", "too long")), "api_error", "too long"),
        (Interrupted(error=ErrorInfo("interrupted", "it broke off")), "api_error", "it broke off"),
        (Cancelled(reason="by hand"), "api_error", "the answer was stopped: by hand"),
        (Skipped(), "api_error", "the task was not run"),
    ],
)
def test_only_completed_ends_well(end: Record, kind: str, message: str) -> None:
    error = {"type": "error", "error": {"type": kind, "message": message}}
    assert encode(end) == b"event: error\ndata: " + msgspec.json.encode(error) + b"\n\n"
    assert body([Text(text="a"), end], id="m", model="m") == error


@pytest.mark.parametrize(
    "end",
    [
        Completed(stop_reason="stop", raw_stop_reason="end_turn"),
        Completed(stop_reason="length", raw_stop_reason="max_tokens"),
        Completed(stop_reason="length", raw_stop_reason="model_context_window_exceeded"),
        Completed(stop_reason="stop_sequence", raw_stop_reason="stop_sequence", stop_sequence="#"),
        Completed(stop_reason="content_filter", raw_stop_reason="refusal"),
        Completed(stop_reason="pause", raw_stop_reason="pause_turn"),
        Completed(stop_reason="other", raw_stop_reason="tired"),
        Completed(stop_reason="other"),
    ],
)
def test_every_ending_comes_back(end: Completed) -> None:
    assert again(end)[-1] == end


@pytest.mark.parametrize(
    ("reason", "raw", "told"),
    [("stop", "STOP", "end_turn"), ("tool_calls", "function_call", "tool_use"), ("length", "length", "max_tokens")],
)
def test_another_protocols_stop_reason_is_told_in_this_ones_words(reason: Any, raw: str, told: str) -> None:
    message = accumulated(encode(Completed(stop_reason=reason, raw_stop_reason=raw)))
    assert message["stop_reason"] == told


def test_a_reset_after_content_cannot_be_shown() -> None:
    encoder = Encoder(id="m", model="m")
    encoder.encode([Usage(input_tokens=1), Reset(from_seq=1, reason="retry"), Text(text="a")])
    with pytest.raises(StreamReset):
        encoder.encode([Reset(from_seq=1, reason="retry")])


# --- properties ---------------------------------------------------------------------------------------------------

WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
OBJECTS = st.dictionaries(WORD, st.none() | st.integers(-9, 9) | WORD, max_size=2)


@st.composite
def messages(draw: st.DrawFn) -> list[Record]:
    """The records of an answer as the decoder would give them: blocks one after another, fragments and all."""
    records: list[Record] = []
    tools = 0
    kinds = draw(st.lists(st.sampled_from("text thinking sealed tool result empty odd".split()), max_size=5))  # noqa: SIM905
    for part, kind in enumerate(kinds):
        pieces = draw(st.lists(WORD, min_size=1, max_size=3))
        match kind:
            case "text":
                records += [Text(text=piece, part=part) for piece in pieces]
                if draw(st.booleans()):
                    raw = {"type": "char_location", "cited_text": pieces[0]}
                    records.append(Citation(part=part, text=pieces[0], raw=raw))
            case "thinking":
                records += [Reasoning(text=piece, part=part) for piece in pieces]
                records.append(Reasoning(signature="sig", part=part))
            case "sealed":
                records.append(Reasoning(redacted=pieces[0], part=part))
            case "tool":
                server = draw(st.sampled_from(["function", "server"]))
                text = msgspec.json.encode(draw(OBJECTS)).decode()
                cut = draw(st.integers(0, len(text)))
                records.append(ToolCall(index=tools, id=pieces[0], name=pieces[-1], part=part, kind=server))
                for piece in (text[:cut], text[cut:]):
                    if piece:
                        records.append(ToolCall(index=tools, arguments=piece, part=part, kind=server))
                tools += 1
            case "result":
                records.append(ToolResult(id=pieces[0], name="web_fetch_tool_result", content=draw(OBJECTS), part=part))
            case "empty":
                raw = start({"type": "text", "text": ""}, part)
                records.append(Unknown(raw=raw, protocol="anthropic", part=part))
            case _:
                raw = start({"type": "from_the_future", "x": pieces}, part)
                records.append(Unknown(raw=raw, protocol="anthropic", part=part))
    counts = {"input_tokens": draw(st.integers(0, 9)), "output_tokens": draw(st.integers(0, 9))}
    usage = Usage(**counts, raw=counts)
    reason = draw(st.sampled_from([("stop", "end_turn"), ("tool_calls", "tool_use"), ("other", "tired")]))
    return [usage, *records, usage, Completed(stop_reason=reason[0], raw_stop_reason=reason[1])]


@given(messages(), st.integers(1, 4))
def test_what_the_protocol_can_say_comes_back_the_same(records: list[Record], size: int) -> None:
    encoder = Encoder(id="m", model="m")
    pieces = [encoder.encode(records[at : at + size]) for at in range(0, len(records), size)]
    assert decode(Decoder, pieces) == records


ANY = st.one_of(
    st.builds(Text, text=st.text(max_size=3), part=st.integers(0, 2)),
    st.builds(Reasoning, text=st.text(max_size=3), part=st.integers(0, 2), signature=st.none() | WORD),
    st.builds(Reasoning, redacted=WORD, part=st.integers(0, 2)),
    st.builds(Refusal, text=WORD),
    st.builds(
        ToolCall,
        index=st.integers(0, 2),
        id=st.sampled_from(["", "", "t"]),
        name=st.sampled_from(["", "n"]),
        arguments=st.sampled_from(["", "{}", '{"a":', "1}"]),
        kind=st.sampled_from(["function", "custom", "server"]),
    ),
    st.builds(ToolResult, id=WORD, content=st.none() | OBJECTS | WORD, name=WORD, part=st.integers(0, 2)),
    st.builds(Citation, part=st.integers(0, 2), url=st.none() | WORD),
    st.builds(Usage, output_tokens=st.integers(0, 9), input_tokens=st.none() | st.integers(0, 9)),
    st.builds(
        Unknown,
        raw=st.sampled_from(
            [
                start({"type": "text"}),
                start({"type": "mcp_tool_use"}),
                start({"type": "odd"}),
                start(None),
                {"type": "content_block_delta", "delta": {"type": "text_delta"}},
                {"type": "content_block_delta", "delta": {"type": "odd_delta"}},
                {"type": "content_block_stop", "x": 1},
                {"type": "message_delta", "delta": {"stop_details": {"type": "odd"}}},
                {"type": "message_stop", "x": 1},
                {"type": "odd"},
                {"type": 1},
                {},
            ]
        ),
        protocol=st.just("anthropic"),
        part=st.integers(0, 2),
    ),
)


@given(st.lists(ANY, max_size=8))
def test_any_records_make_a_stream_that_reads_back_whole(records: list[Record]) -> None:
    """Whatever comes: each block begins once, ends once, and the text is all there."""
    stream = encode(*records, ENDED)
    back = decode(Decoder, [stream])
    assert isinstance(back[-1], Completed)
    assert text(back) == text(records)
    begun: list[int] = []
    open_now: set[int] = set()
    for line in stream.splitlines():
        event = json.loads(line[6:]) if line.startswith(b"data: ") else {}
        if event.get("type") == "content_block_start":
            begun.append(event["index"])
            open_now.add(event["index"])
        elif event.get("type") == "content_block_stop":
            open_now.remove(event["index"])
    assert begun == list(range(len(begun)))
    assert not open_now
    json.dumps(body([*records, ENDED], id="m", model="m"))
