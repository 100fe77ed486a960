"""Logs for the tests of views: hand-written ones, and a Hypothesis strategy for any."""

from __future__ import annotations

from hypothesis import strategies as st

from multi_agent_scheduler.records import (
    Citation,
    Completed,
    Reasoning,
    Record,
    Refusal,
    Reset,
    Text,
    ToolCall,
    Unknown,
    Usage,
    numbered,
)

BRANCHES = st.sampled_from([None, None, "a", "b", "a/x"])
WORDS = st.text(max_size=4)


def log(*records: Record) -> list[Record]:
    """The records as a log has them: numbered from 1."""
    return list(numbered(records, 1))


def entries() -> st.SearchStrategy[Record]:
    """Any record but a terminal; a reset's ``from_seq`` is anywhere in a short log."""
    return st.one_of(
        st.builds(Text, text=WORDS, branch=BRANCHES),
        st.builds(Text, text=WORDS),
        st.builds(Reasoning, text=WORDS, branch=BRANCHES),
        st.builds(Refusal, text=WORDS, branch=BRANCHES),
        st.builds(ToolCall, index=st.integers(0, 2), name=WORDS, arguments=WORDS, branch=BRANCHES),
        st.builds(Citation, url=WORDS, branch=BRANCHES),
        st.builds(Unknown, raw=WORDS, branch=BRANCHES),
        st.builds(Usage, output_tokens=st.integers(0, 9), call=st.integers(1, 2)),
        st.builds(Reset, from_seq=st.integers(1, 20), reason=st.just("retry"), branch=BRANCHES),
    )


def logs(*, finished: bool = False) -> st.SearchStrategy[list[Record]]:
    """Logs, numbered from 1."""
    ending: list[Record] = [Completed(stop_reason="stop")] if finished else []
    return st.lists(entries(), max_size=20).map(lambda records: log(*records, *ending))


def unnumbered(records: list[Record]) -> list[Record]:
    """The records as they are before any log has them."""
    return [numbered([record], 0)[0] for record in records]


def cut(records: list[Record], sizes: list[int]) -> list[list[Record]]:
    """The records in batches of these sizes; what is left over is the last batch."""
    batches = []
    for size in sizes:
        batches.append(records[:size])
        records = records[size:]
    batches.append(records)
    return batches
