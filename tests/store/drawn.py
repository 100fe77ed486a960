"""Hypothesis strategies for records and stretches of a log."""

from __future__ import annotations

from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo
from multi_agent_scheduler.records import (
    CallEnded,
    CallStarted,
    Citation,
    Reasoning,
    Record,
    Refusal,
    Reset,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from multi_agent_scheduler.store.pack import Stretch

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
branches = st.none() | st.sampled_from(["a", "b"])
parts = st.integers(0, 2)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
seals = st.none() | words

records: st.SearchStrategy[Record] = st.one_of(
    st.builds(Text, words, parts, branch=branches, seq=st.sampled_from([0, 0, 0, 7])),
    st.builds(Text, words),
    st.builds(Reasoning, words, parts, branch=branches),
    st.builds(Reasoning, words, parts, seals, seals, st.sampled_from([None, "summary"]), seals),
    st.builds(ToolCall, parts, arguments=words, branch=branches),
    st.builds(ToolCall, parts, words, words, words, parts, st.sampled_from(["function", "custom"]), seals),
    st.builds(ToolResult, words, plain),
    st.builds(Citation, parts, seals, raw=plain),
    st.builds(Usage, st.none() | st.integers(0, 9), call=parts, raw=plain),
    st.builds(Refusal, words),
    st.builds(CallStarted, parts, words, branch=branches),
    st.builds(CallEnded, parts, st.just("failed"), error=st.builds(ErrorInfo, words, words)),
    st.builds(Reset, st.integers(1, 9), words),
    st.builds(Unknown, plain),
)
batches = st.lists(records, min_size=1, max_size=5)


@st.composite
def stretches(draw: st.DrawFn, *, max_batches: int = 12) -> Stretch:
    some = draw(st.lists(batches, min_size=1, max_size=max_batches))
    times = [draw(st.integers(0, 2**41)) for _ in some]
    return Stretch([record for batch in some for record in batch], [len(batch) for batch in some], times)
