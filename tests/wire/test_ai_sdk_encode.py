"""Records as a UI message stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo
from multi_agent_scheduler.records import (
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
    StopReason,
    Terminal,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from multi_agent_scheduler.wire.ai_sdk import Encoder
from tests.wire.ui_messages import Page, chunks, said

END = Completed("stop")
START = [{"type": "start", "messageId": "msg_1", "messageMetadata": {"model": "m"}}, {"type": "start-step"}]
FINISH = [{"type": "finish-step"}, {"type": "finish", "finishReason": "stop"}]


def test_a_text_is_a_block_with_its_deltas() -> None:
    assert said(CallStarted(1, "a"), Text("Hel"), Text(""), Text("lo\n\n"), END) == [
        *START,
        {"type": "text-start", "id": "1"},
        {"type": "text-delta", "id": "1", "delta": "Hel"},
        {"type": "text-delta", "id": "1", "delta": "lo\n\n"},
        {"type": "text-end", "id": "1"},
        *FINISH,
    ]


def test_the_stream_can_be_opened_before_there_is_a_record() -> None:
    writer = Encoder(id="msg_1", model="m")
    opened = writer.start()
    assert writer.start() == b""
    assert chunks(opened + writer.encode([Text("x"), END])) == said(Text("x"), END)


def test_a_model_that_is_not_known_is_not_told() -> None:
    assert chunks(Encoder(id="msg_1", model="").encode([END]))[0] == {"type": "start", "messageId": "msg_1"}


def test_nothing_follows_the_end() -> None:
    writer = Encoder(id="msg_1", model="m")
    writer.encode([Text("x"), END])
    assert writer.encode([Text("y"), END]) == b""


def test_parts_that_alternate_are_blocks_of_their_own() -> None:
    page = Page(said(Reasoning("hm", part=0), Text("a", part=1), Refusal("no", part=2), Text("b", part=1), END))
    assert [(part["type"], part.get("text")) for part in page.parts[1:]] == [
        ("reasoning", "hm"),
        ("text", "a"),
        ("text", "no"),
        ("text", "b"),
    ]
    assert all(part["state"] == "done" for part in page.parts[1:])


def test_the_seal_of_a_reasoning_comes_with_its_end() -> None:
    page = Page(said(Reasoning("hm", id="rs_1", kind="summary"), Reasoning(signature="sig"), Text("a", part=1), END))
    assert page.parts[1]["providerMetadata"] == {
        "multiAgentScheduler": {"id": "rs_1", "kind": "summary", "signature": "sig"}
    }
    assert "providerMetadata" not in page.parts[2]


def test_reasoning_that_is_only_sealed_has_a_part() -> None:
    page = Page(said(Reasoning(redacted="blob"), END))
    assert page.parts[1]["text"] == ""
    assert page.parts[1]["providerMetadata"] == {"multiAgentScheduler": {"redacted": "blob"}}


def test_a_tool_call_streams_and_is_available_when_something_else_begins() -> None:
    got = said(
        ToolCall(0, id="c1", name="look", arguments='{"a"'),
        ToolCall(0, arguments=": {}}"),
        ToolCall(1, id="c2", name="nap"),
        Completed("tool_calls"),
    )
    assert got[2:] == [
        {"type": "tool-input-start", "toolCallId": "c1", "toolName": "look"},
        {"type": "tool-input-delta", "toolCallId": "c1", "inputTextDelta": '{"a"'},
        {"type": "tool-input-delta", "toolCallId": "c1", "inputTextDelta": ": {}}"},
        {"type": "tool-input-available", "toolCallId": "c1", "toolName": "look", "input": {"a": {}}},
        {"type": "tool-input-start", "toolCallId": "c2", "toolName": "nap"},
        {"type": "tool-input-available", "toolCallId": "c2", "toolName": "nap", "input": {}},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "tool-calls"},
    ]


def test_fragments_of_parallel_calls_may_interleave() -> None:
    page = Page(
        said(
            ToolCall(0, id="c1", name="f", arguments='{"a": {}'),
            ToolCall(1, id="c2", name="g", arguments='{"b":'),
            ToolCall(0, arguments="}"),
            ToolCall(1, arguments="1}"),
            Completed("tool_calls"),
        )
    )
    assert [part["input"] for part in page.parts[1:]] == [{"a": {}}, {"b": 1}]


def test_arguments_that_broke_off_are_an_error_of_that_call() -> None:
    got = said(ToolCall(0, id="c1", name="f", arguments='{"a"'), Completed("length"))
    assert got[-3] == {
        "type": "tool-input-error",
        "toolCallId": "c1",
        "toolName": "f",
        "input": '{"a"',
        "errorText": "the arguments of f are no JSON",
    }


def test_a_call_of_an_answer_that_failed_never_becomes_available() -> None:
    page = Page(said(ToolCall(0, id="c1", name="f", arguments="{}"), Failed(ErrorInfo("server_error", "broke"))))
    assert page.parts[1]["state"] == "input-streaming"


def test_free_text_for_a_custom_tool_is_its_input() -> None:
    got = said(ToolCall(0, id="c1", name="sh", arguments="ls {}", kind="custom"), Completed("tool_calls"))
    assert got[2]["inputEncoding"] == "text"
    assert got[4]["input"] == "ls {}"


def test_a_result_closes_its_call() -> None:
    page = Page(
        said(
            ToolCall(0, id="c1", name="search", arguments='{"q":1}', kind="server"),
            ToolResult("c1", content=[{"url": "u"}]),
            ToolCall(1, id="c2", name="f", arguments="{}"),
            ToolResult("c2", content={"why": "x"}, is_error=True),
            END,
        )
    )
    first, second = page.parts[1:]
    assert first["state"] == "output-available" and first["output"] == [{"url": "u"}] and first["providerExecuted"]
    assert second["state"] == "output-error" and second["errorText"] == '{"why":"x"}' and not second["providerExecuted"]


def test_a_result_without_a_call_brings_its_call_with_it() -> None:
    page = Page(said(ToolResult("x1", content="42", name="calc"), ToolResult("x2", content=1), END))
    assert [(part["type"], part["output"]) for part in page.parts[1:]] == [("tool-calc", "42"), ("tool-unknown", 1)]


def test_sources_are_told_once_and_only_web_addresses_are_links() -> None:
    got = said(
        Citation(url="https://a.example/", title="A"),
        Citation(url="https://a.example/", title="A", text="again"),
        Citation(url="javascript:alert(1)", title="B"),
        Citation(title="paper.pdf"),
        Citation(start=1, end=2),
        END,
    )
    unknown = {"type": "source-document", "mediaType": "application/octet-stream"}
    assert got[2:] == [
        {"type": "source-url", "sourceId": "source-1", "url": "https://a.example/", "title": "A"},
        {**unknown, "sourceId": "source-2", "title": "B"},
        {**unknown, "sourceId": "source-3", "title": "paper.pdf"},
        *FINISH,
    ]


def test_usage_is_summed_over_calls_in_the_words_of_the_sdk() -> None:
    got = said(
        Usage(call=1, input_tokens=9, output_tokens=1, cache_read_tokens=4),
        Text("x"),
        Usage(call=1, input_tokens=10, output_tokens=2, cache_read_tokens=4),
        Usage(call=2, branch="b", input_tokens=1, output_tokens=1, reasoning_tokens=0),
        END,
    )
    assert got[-1]["messageMetadata"] == {
        "usage": {
            "inputTokens": 11,
            "inputTokenDetails": {"cacheReadTokens": 4},
            "outputTokens": 3,
            "outputTokenDetails": {"reasoningTokens": 0},
            "totalTokens": 14,
        }
    }


def test_a_reset_says_how_many_parts_are_void() -> None:
    got = said(
        Text("kept", part=0),
        Reasoning("wrong", part=1),
        Text("worse", part=2),
        ToolCall(0, id="c1", name="f", arguments="{}"),
        Reset(2, "connection_error"),
        ToolCall(0, id="c1", name="f", arguments="{}"),
        Completed("tool_calls"),
    )
    reset = {"type": "data-reset", "data": {"void": 3, "reason": "connection_error"}}
    at = got.index(reset)
    assert [chunk["type"] for chunk in got[at - 1 : at + 3]] == [
        "finish-step",
        "data-reset",
        "start-step",
        "tool-input-start",
    ]
    assert "tool-input-available" not in [chunk["type"] for chunk in got[:at]]


def test_a_reset_of_nothing_shown_is_not_shown() -> None:
    assert said(Text("a"), Reset(2, "x"), Reset(1, "x", branch="b"), Text("b"), END) == said(Text("a"), Text("b"), END)


@pytest.mark.parametrize(
    ("terminal", "sentence"),
    [
        (Failed(ErrorInfo("server_error", "the provider failed", detail="secret words")), "the provider failed"),
        (Interrupted(ErrorInfo("interrupted", "it broke off")), "it broke off"),
        (Skipped("its parent failed"), "its parent failed"),
        (Skipped(), "a task that this one depends on did not succeed"),
    ],
)
def test_what_is_no_success_is_an_error_in_our_words(terminal: Terminal, sentence: str) -> None:
    got = said(Text("half"), terminal)
    assert got[4:6] == [{"type": "text-end", "id": "1"}, {"type": "error", "errorText": sentence}]
    assert got[-1]["finishReason"] == "error"


def test_a_stop_is_an_abort() -> None:
    assert said(Text("half"), Cancelled("enough"))[-1] == {"type": "abort", "reason": "enough"}
    assert said(Cancelled())[-1] == {"type": "abort"}


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop_sequence", "stop"),
        ("length", "length"),
        ("tool_calls", "tool-calls"),
        ("content_filter", "content-filter"),
        ("pause", "other"),
        ("other", "other"),
    ],
)
def test_stop_reasons(reason: StopReason, word: str) -> None:
    assert said(Completed(reason))[-1]["finishReason"] == word


def test_what_is_not_of_the_main_text_or_of_this_protocol_is_left_out() -> None:
    assert said(Text("x", branch="1"), Unknown({"type": "image"}, protocol="anthropic"), END) == [*START, *FINISH]


_ids = st.sampled_from(["", "c1", "c2"])
_texts = st.text(st.sampled_from('a"\n{}'), max_size=3)
_records: st.SearchStrategy[Record] = st.one_of(
    st.builds(Text, _texts, part=st.integers(0, 2)),
    st.builds(Reasoning, _texts, part=st.integers(0, 2), signature=st.none() | st.just("s")),
    st.builds(Refusal, _texts, part=st.integers(0, 1)),
    st.builds(
        ToolCall, st.integers(0, 2), _ids, st.sampled_from(["", "f"]), st.sampled_from(["", "{}", '{"a":', "1}"]),
        kind=st.sampled_from(["function", "custom", "server"]),
    ),
    st.builds(ToolResult, st.sampled_from(["c1", "c2", "c3"]), content=st.none() | _texts, is_error=st.booleans()),
    st.builds(Citation, url=st.sampled_from([None, "https://x.example", "data:,x"]), title=st.none() | _texts),
    st.builds(Reset, st.integers(1, 12), st.just("why")),
    st.builds(Usage, input_tokens=st.none() | st.integers(0, 9), call=st.integers(1, 2)),
)  # fmt: skip
_ends: st.SearchStrategy[Record] = st.sampled_from(
    [END, Completed("tool_calls"), Cancelled("x"), Failed(ErrorInfo("server_error", "broke"))]
)


@given(st.lists(_records, max_size=12), _ends, st.data())
def test_any_stream_is_one_that_a_client_can_read_however_it_is_cut(
    records: list[Record], end: Record, data: st.DataObject
) -> None:
    log = [*records, end]
    whole = Encoder(id="msg_1", model="m").encode(log)
    page = Page(chunks(whole))  # which demands starts before deltas, calls before results, and known fields
    assert not any(part.get("state") == "streaming" for part in page.parts)
    cut = data.draw(st.integers(0, len(log)))
    writer = Encoder(id="msg_1", model="m")
    assert writer.encode(log[:cut]) + writer.encode(log[cut:]) == whole
