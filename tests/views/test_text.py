"""The answer as plain text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import StreamReset
from multi_agent_scheduler.records import Completed, Reasoning, Record, Refusal, Reset, Text, ToolCall
from multi_agent_scheduler.views.live import live
from multi_agent_scheduler.views.text import TextView

from .logs import cut, log, logs, unnumbered


def test_only_main_text_is_text():
    batch = log(
        Text(text="a"), Reasoning(text="no"), Refusal(text="no"), Text(text="no", branch="x"), Text(text=""),
        ToolCall(index=0, name="no"), Text(text="b"), Completed(stop_reason="stop"),
    )  # fmt: skip
    assert TextView().texts(batch) == ["a", "b"]
    assert TextView().feed(batch) == "ab"


def test_a_batch_without_text_gives_nothing():
    assert TextView().texts([Reasoning(text="hm")]) == []
    assert TextView().feed([]) == ""


def test_a_reset_before_any_output_is_silent():
    view = TextView()
    assert view.texts([Reasoning(text="hm")]) == []
    assert view.texts([Reset(from_seq=1, reason="retry"), Text(text="a")]) == ["a"]


def test_a_reset_after_output_raises_and_says_why():
    view = TextView()
    view.texts([Text(text="shown")])
    with pytest.raises(StreamReset) as caught:
        view.texts([Reset(from_seq=1, reason="the connection broke"), Text(text="again")])
    assert str(caught.value) == (
        "the answer began again (the connection broke) after some of it had been shown, and plain text cannot take it "
        "back; read the stream's records to follow it across a reset"
    )


def test_text_that_was_voided_before_it_was_shown_is_dropped_silently():
    batch = log(Text(text="void"), Reset(from_seq=1, reason="retry"), Text(text="a"))
    assert TextView().texts(batch) == ["a"]


def test_a_reset_that_spares_what_was_shown_is_silent():
    view = TextView()
    view.texts([Text(text="shown"), Reasoning(text="hm")])
    assert view.texts([Reset(from_seq=2, reason="retry"), Text(text=" more")]) == [" more"]


def test_the_reset_of_a_branch_is_no_business_of_the_main_text():
    view = TextView()
    view.texts([Text(text="shown")])
    assert view.texts([Reset(from_seq=1, reason="retry", branch="a"), Text(text="!")]) == ["!"]


@given(logs(), st.lists(st.integers(0, 5), max_size=8), st.booleans())
def test_a_reader_sees_what_stands_or_learns_that_it_does_not(records, sizes, numbered_log):
    view, shown, seen = TextView(), set[int](), list[Record]()
    for batch, given_batch in zip(
        cut(records, sizes), cut(records if numbered_log else unnumbered(records), sizes), strict=True
    ):
        seen += batch
        standing = {r.seq: r.text for r in live(seen) if isinstance(r, Text) and r.branch is None and r.text}
        if not shown <= standing.keys():
            with pytest.raises(StreamReset):
                view.texts(given_batch)
            return
        assert view.texts(given_batch) == [text for seq, text in standing.items() if seq not in shown]
        shown = set(standing)
