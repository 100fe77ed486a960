"""What stands after resets, in whole logs and batch by batch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.records import (
    CallEnded,
    CallStarted,
    Citation,
    Completed,
    Reasoning,
    Record,
    Reset,
    Text,
    Unknown,
    Usage,
)
from multi_agent_scheduler.views.live import Live, live

from .logs import cut, log, logs, unnumbered

SIZES = st.lists(st.integers(0, 5), max_size=8)


def concerns(reset: str | None, branch: str | None) -> bool:
    return reset is None or reset == branch or (branch is not None and branch.startswith(f"{reset}/"))


def naive(records: list[Record]) -> list[Record]:
    """The definition, word for word and slowly."""
    facts = (Usage, CallStarted, CallEnded, Completed)
    kept = []
    for index, record in enumerate(records):
        if isinstance(record, Reset):
            continue
        void = not isinstance(record, facts) and any(
            isinstance(later, Reset) and record.seq >= later.from_seq and concerns(later.branch, record.branch)
            for later in records[index + 1 :]
        )
        if not void:
            kept.append(record)
    return kept


def test_a_log_without_a_reset_is_left_as_it_is():
    records = log(Text(text="a"), Text(text="b", branch="x"), Completed(stop_reason="stop"))
    assert live(records) == records


def test_content_before_from_seq_stands_and_facts_stay():
    records = log(
        CallStarted(call=1, agent="x"),
        Text(text="kept"),
        Text(text="void"),
        Reasoning(text="void"),
        Citation(url="void"),
        Unknown(raw="void"),
        Usage(output_tokens=3, call=1),
        CallEnded(call=1, outcome="interrupted"),
        Reset(from_seq=3, reason="the connection broke"),
        CallStarted(call=2, agent="y"),
        Text(text="again"),
        Completed(stop_reason="stop"),
    )
    assert [record.seq for record in live(records)] == [1, 2, 7, 8, 10, 11, 12]


def test_a_reset_of_a_branch_voids_only_that_branch():
    records = log(
        Text(text="main"), Text(text="a", branch="a"), Text(text="b", branch="b"),
        Reset(from_seq=1, reason="retry", branch="a"), Text(text="a2", branch="a"),
    )  # fmt: skip
    assert [record.seq for record in live(records)] == [1, 3, 5]


def test_a_reset_of_a_branch_voids_the_branches_inside_it():
    records = log(
        Text(text="1", branch="a/x"), Text(text="2", branch="a/x/y"), Text(text="3", branch="ab"),
        Text(text="4", branch="b/a"), Reset(from_seq=1, reason="retry", branch="a"),
    )  # fmt: skip
    assert [record.seq for record in live(records)] == [3, 4]


def test_a_reset_without_a_branch_voids_the_branches_too():
    records = log(Text(text="a", branch="a"), Text(text="main"), Reset(from_seq=1, reason="retry"))
    assert live(records) == []


@given(logs(finished=True))
def test_whole_logs_follow_the_definition(records: list[Record]):
    assert live(records) == naive(records)


@given(logs())
def test_what_stands_stands_again(records: list[Record]):
    assert live(live(records)) == live(records)


@given(logs(finished=True), SIZES, st.booleans())
def test_batches_add_up_to_the_whole_log(records: list[Record], sizes: list[int], numbered_log: bool):
    given_log = records if numbered_log else unnumbered(records)
    view, held = Live(), dict[int, Record]()
    for batch in cut(given_log, sizes):
        fresh = view.feed(batch)
        for reset in fresh.voided:
            held = {
                seq: record
                for seq, record in held.items()
                if seq < reset.from_seq
                or isinstance(record, Usage | Completed)
                or not concerns(reset.branch, record.branch)
            }
        for index, record in enumerate(fresh.records):
            held[record.seq or fresh.first + index] = record
    assert list(held) == [record.seq for record in naive(records)]


@given(logs(), SIZES)
def test_a_reset_inside_its_batch_is_not_reported(records: list[Record], sizes: list[int]):
    view, first = Live(), 1
    for batch in cut(records, sizes):
        assert all(reset.from_seq < first for reset in view.feed(batch).voided)
        first += len(batch)


def test_a_batch_without_a_reset_is_handed_on_without_a_copy():
    batch = log(Text(text="a"), Text(text="b"))
    assert Live().feed(batch).records is batch


def test_an_empty_batch_counts_for_nothing():
    view = Live()
    view.feed([Text(text="a")])
    view.feed([])
    assert view.feed([Text(text="b")]).first == 2
