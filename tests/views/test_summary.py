"""What came of a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo
from multi_agent_scheduler.records import (
    CallEnded,
    CallStarted,
    Cancelled,
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
    Usage,
)
from multi_agent_scheduler.task import ToolCallResult
from multi_agent_scheduler.views.live import live
from multi_agent_scheduler.views.summary import Summary, summarise

from .logs import cut, log, logs, unnumbered

STOP = Completed(stop_reason="stop")
BROKEN = ErrorInfo("interrupted", "the answer ended before its finish marker")


def test_a_plain_answer():
    result = summarise(
        log(
            CallStarted(call=1, agent="claude", model="m"),
            Reasoning(text="hm"), Reasoning(text="m"), Text(text="Hel"), Text(text="lo"), Text(text="x", branch="b"),
            Usage(input_tokens=5, output_tokens=1, call=1),
            Usage(input_tokens=5, output_tokens=7, call=1),
            CallEnded(call=1, outcome="completed", model="m-2026", latency=2.0, ttft=0.5),
            STOP,
        )
    )  # fmt: skip
    assert (result.text, result.reasoning, result.refusal) == ("Hello", "hmm", "")
    assert (result.state, result.success, result.error, result.stop_reason) == ("completed", True, None, "stop")
    assert result.usage is not None
    assert (result.usage.input_tokens, result.usage.output_tokens) == (5, 7), "a cumulative count replaces"
    assert (result.agent, result.model, result.latency, result.ttft) == ("claude", "m-2026", 2.0, 0.5)


@pytest.mark.parametrize("reason", ["stop", "stop_sequence", "length", "tool_calls"])
def test_the_stop_reasons_of_a_success(reason):
    result = summarise([Text(text="a"), Completed(stop_reason=reason)])
    assert (result.success, result.error, result.stop_reason) == (True, None, reason)


@pytest.mark.parametrize(
    ("terminal", "state", "error"),
    [
        (Completed(stop_reason="content_filter"), "completed",
         "content_filter: the provider refused or blocked the content"),
        (Completed(stop_reason="pause"), "completed", "agent_error: the provider paused the answer before its end"),
        (Completed(stop_reason="other"), "completed",
         "agent_error: the model stopped for a reason that is not known here"),
        (Failed(error=ErrorInfo("server_error", "the provider failed")), "failed", "server_error: the provider failed"),
        (Interrupted(error=BROKEN), "interrupted", "interrupted: the answer ended before its finish marker"),
        (Cancelled(), "cancelled", "cancelled: stopped on request"),
        (Cancelled(reason="the reader left"), "cancelled", "cancelled: the reader left"),
        (Skipped(), "skipped", "skipped: a task that this one depends on did not succeed"),
        (Skipped(reason="task 'a' failed"), "skipped", "skipped: task 'a' failed"),
        (None, "interrupted", "interrupted: the stream has no end"),
    ],
)  # fmt: skip
def test_everything_else_is_no_success_and_says_why_and_keeps_the_text(terminal, state, error):
    result = summarise([Text(text="part"), *([terminal] if terminal else [])])
    assert (result.state, result.success, str(result.error), result.text) == (state, False, error, "part")


def test_the_first_terminal_decides_and_a_branch_has_none():
    assert summarise([Failed(error=BROKEN, branch="a"), STOP, Cancelled()]).state == "completed"


def test_a_reset_voids_content_and_keeps_the_bill():
    result = summarise(
        log(
            CallStarted(call=1, agent="a"),
            Text(text="one "), Reasoning(text="r"), Refusal(text="no"), ToolCall(index=0, id="x", name="f"),
            Usage(output_tokens=10, call=1),
            CallEnded(call=1, outcome="interrupted", ttft=0.1),
            Reset(from_seq=3, reason="retry"),
            CallStarted(call=2, agent="b", attempt=2),
            Text(text="two"),
            Usage(output_tokens=5, call=2),
            CallEnded(call=2, outcome="completed", ttft=0.1),
            STOP,
        )
    )  # fmt: skip
    assert (result.text, result.reasoning, result.refusal, result.tool_calls) == ("one two", "", "", ())
    assert result.usage is not None
    assert (result.usage.output_tokens, result.usage.source) == (15, "reported")
    assert result.agent == "b"


# --- usage --------------------------------------------------------------------------------------------------------


def usage_of(*records: Record) -> Usage | None:
    return summarise(log(*records)).usage


def test_without_any_usage_there_is_none():
    assert usage_of(CallStarted(call=1, agent="a"), STOP) is None


def test_zero_is_a_value():
    usage = usage_of(CallStarted(call=1, agent="a"), Usage(input_tokens=3, output_tokens=0, call=1))
    assert usage is not None
    assert (usage.output_tokens, usage.total_tokens, usage.reasoning_tokens) == (0, 3, None)


def test_what_call_ended_says_is_final():
    usage = usage_of(
        CallStarted(call=1, agent="a"),
        Usage(output_tokens=3, call=1),
        CallEnded(call=1, outcome="completed", usage=Usage(output_tokens=4, call=1)),
    )
    assert usage is not None
    assert usage.output_tokens == 4


@pytest.mark.parametrize(
    ("sources", "total"),
    [
        (["reported", "reported"], "reported"),
        (["reported", "estimated"], "estimated"),
        (["estimated", "unknown"], "unknown"),
    ],
)
def test_a_sum_is_as_sure_as_its_least_sure_part(sources, total):
    usage = usage_of(
        *(CallStarted(call=call, agent="a") for call in (1, 2)),
        *(Usage(output_tokens=2, call=call, source=source) for call, source in enumerate(sources, 1)),
    )
    assert usage is not None
    assert (usage.output_tokens, usage.input_tokens, usage.source) == (4, None, total)


def test_a_call_of_which_nothing_is_known_makes_the_sum_unknown():
    first = [CallStarted(call=1, agent="a"), Usage(output_tokens=2, call=1), CallStarted(call=2, agent="b")]
    assert (usage := usage_of(*first))
    assert usage.source == "unknown"
    assert (usage := usage_of(*first, CallEnded(call=2, outcome="cancelled", ttft=0.2)))
    assert usage.source == "unknown"


def test_a_call_that_failed_before_any_content_cost_nothing():
    usage = usage_of(
        CallStarted(call=1, agent="a"),
        CallEnded(call=1, outcome="failed"),
        CallStarted(call=2, agent="a", attempt=2),
        Usage(output_tokens=2, call=2),
    )
    assert usage is not None
    assert usage.source == "reported"


def test_usage_that_names_no_call_belongs_to_the_latest_of_its_branch():
    usage = usage_of(
        CallStarted(call=1, agent="a", branch="x"),
        CallStarted(call=2, agent="b", branch="y"),
        Usage(output_tokens=1, branch="x"),
        Usage(output_tokens=2, branch="x"),
        Usage(output_tokens=10, branch="y"),
    )
    assert usage is not None
    assert (usage.output_tokens, usage.source) == (12, "reported")


def test_usage_without_any_call():
    usage = usage_of(Usage(output_tokens=1), Usage(output_tokens=2))
    assert usage is not None
    assert usage.output_tokens == 2


# --- tool calls ---------------------------------------------------------------------------------------------------

FRAGMENTS = [
    ToolCall(index=1, id="b", name="g", arguments=""),
    ToolCall(index=0, id="a", name="f", arguments='{"x"'),
    ToolCall(index=1, arguments='{"y": 2'),
    ToolCall(index=0, arguments=": 1}"),
]


def test_tool_calls_are_put_together_by_index():
    result = summarise([*FRAGMENTS, ToolCall(index=1, arguments="}"), Completed(stop_reason="tool_calls")])
    assert result.tool_calls == (ToolCallResult("a", "f", '{"x": 1}'), ToolCallResult("b", "g", '{"y": 2}'))


def test_half_a_tool_call_is_none():
    assert summarise([*FRAGMENTS, Interrupted(error=BROKEN)]).tool_calls == (ToolCallResult("a", "f", '{"x": 1}'),)


def test_the_free_text_of_a_custom_tool_is_whole_only_in_a_completed_answer():
    call = ToolCall(index=0, id="a", name="sql", arguments="{}", kind="custom")
    assert summarise([call, Cancelled()]).tool_calls == ()
    assert summarise([call, STOP]).tool_calls == (ToolCallResult("a", "sql", "{}", "custom"),)


# --- Calls and times ----------------------------------------------------------------------------------------------


def test_open_calls_are_those_that_began_and_have_not_ended():
    summary = Summary()
    first, second = CallStarted(call=1, agent="a"), CallStarted(call=2, agent="b", branch="x")
    summary.feed([first, second])
    assert summary.open_calls == (first, second)
    summary.feed([CallEnded(call=1, outcome="completed")])
    assert summary.open_calls == (second,)


def test_the_agent_is_the_one_whose_call_completed():
    summary = Summary()
    assert summary.result(agent="fallback").agent == "fallback"
    summary.feed([CallStarted(call=1, agent="fast"), CallStarted(call=2, agent="slow", model="m")])
    assert (summary.agent, summary.model) == ("slow", "m")
    summary.feed([CallEnded(call=2, outcome="cancelled"), CallEnded(call=1, outcome="completed")])
    assert (summary.agent, summary.model) == ("fast", None)


@pytest.mark.parametrize(
    "content",
    [Text(text="a"), Reasoning(text="a"), Reasoning(redacted="x"), Refusal(text="a"), ToolCall(index=0, name="f")],
)
def test_the_first_content_is_timed_and_kept(content):
    summary = Summary()
    summary.feed([CallStarted(call=1, agent="a"), Text(text=""), Text(text="a", branch="b")], 1.0)
    assert not summary.has_content
    summary.feed([content], 2.5)
    assert summary.has_content
    summary.feed([Text(text="more"), STOP], 3.0)
    result = summary.result(started_at=0.5, ended_at=4.0, stream_id="s", cached=True)
    assert (result.ttft, result.latency, result.stream_id, result.cached) == (2.0, 3.5, "s", True)


@pytest.mark.parametrize(
    "content",
    [Text(text="a"), Reasoning(text="a"), Reasoning(redacted="x"), Refusal(text="a"), ToolCall(index=0, name="f")],
)
def test_after_a_reset_no_content_stands_but_the_first_was_given(content):
    summary = Summary()
    summary.feed([content], 2.0)
    summary.feed([Reset(from_seq=1, reason="retry")], 3.0)
    assert not summary.has_content
    assert summary.first_content_at == 2.0


def test_without_content_there_is_no_time_to_it():
    summary = Summary()
    summary.feed([STOP], 1.0)
    assert summary.result(started_at=0.0, ended_at=1.0).ttft is None


@given(logs(finished=True), st.lists(st.integers(0, 5), max_size=8), st.booleans())
def test_any_batches_of_any_log_give_what_stands(records: list[Record], sizes: list[int], numbered_log: bool):
    summary = Summary()
    for batch in cut(records if numbered_log else unnumbered(records), sizes):
        summary.feed(batch)
    stands = [record for record in live(records) if record.branch is None]
    assert summary.text == "".join(r.text for r in stands if isinstance(r, Text))
    assert summary.reasoning == "".join(r.text for r in stands if isinstance(r, Reasoning))
    assert summary.refusal == "".join(r.text for r in stands if isinstance(r, Refusal))
    assert sum(len(call.arguments) for call in summary.tool_calls()) == sum(
        len(r.arguments) for r in stands if isinstance(r, ToolCall)
    )
    assert summary.result() == summarise(records)
