"""What is kept of a log that is trimmed says the same as all of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo
from multi_agent_scheduler.records import (
    CallEnded,
    CallStarted,
    Cancelled,
    Citation,
    Completed,
    Failed,
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
from multi_agent_scheduler.scheduling.budget import Account, Budget, Price, Spending
from multi_agent_scheduler.views.digest import digest
from multi_agent_scheduler.views.live import live
from multi_agent_scheduler.views.summary import summarise
from multi_agent_scheduler.wire import anthropic, openai_chat, openai_responses

from .logs import log, unnumbered

PRICE = Price(input=1.0, output=5.0)
STOP = Completed("stop")
WORDS = st.text("ab🙂", max_size=4)
TOKENS = st.none() | st.integers(0, 9)


def used(records: list[Record]) -> tuple[int, float, int]:
    account = Account("a", Budget())
    Spending((account,), {"m": PRICE}.get, input_tokens=7).feed(records)
    return account.tokens, pytest.approx(account.cost), account.unpriced


@st.composite
def stories(draw: st.DrawFn) -> list[Record]:
    """Logs as they come about: Calls of the answer and of candidates, one after the other or side by side, some of
    them taken back, some without any usage."""
    found: list[Record] = []
    open_calls: dict[str | None, int] = {}
    calls, begun = 0, {None: 1}
    for step in draw(
        st.lists(st.sampled_from(["call", "end", "say", "say", "say", "say", "use", "reset"]), max_size=30)
    ):
        branch = draw(st.sampled_from([None, None, "a", "b", "a/x"]))
        call = open_calls.get(branch)
        if step == "call" and call is None:
            calls += 1
            open_calls[branch], begun[branch] = calls, len(found) + 1
            model = draw(st.sampled_from(["m", "m", None]))
            found.append(
                CallStarted(calls, "agent", model, branch=branch, cached=draw(st.sampled_from([False] * 4 + [True])))
            )
        elif step == "end" and call is not None:
            del open_calls[branch]
            usage = draw(st.none() | st.builds(Usage, TOKENS, TOKENS))
            outcome = draw(st.sampled_from(["completed", "failed", "cancelled"]))
            found.append(CallEnded(call, outcome, usage=usage, ttft=draw(st.none() | st.just(1.0)), branch=branch))
        elif step == "use" and call is not None:
            found.append(Usage(draw(TOKENS), draw(TOKENS), call=draw(st.sampled_from([call, 0])), branch=branch))
        elif step == "reset" and branch in begun:
            found.append(Reset(draw(st.sampled_from([begun[branch], len(found) + 1])), "retry", branch=branch))
        elif step == "say":
            found.append(draw(_said(branch)))
    return [*found, draw(st.sampled_from([STOP, Cancelled("x"), Failed(ErrorInfo("server_error", "it failed"))]))]


def _said(branch: str | None) -> st.SearchStrategy[Record]:
    part = st.integers(0, 1)
    on = st.just(branch)
    return st.one_of(
        st.builds(Text, WORDS, branch=on),
        st.builds(Text, WORDS, part, branch=on),
        st.builds(Reasoning, WORDS, part, branch=on),
        st.builds(Reasoning, WORDS, signature=WORDS, redacted=st.none() | WORDS, branch=on),
        st.builds(Refusal, WORDS, branch=on),
        st.builds(ToolCall, part, st.just("id"), st.just("f"), WORDS, branch=on),
        st.builds(ToolCall, part, arguments=WORDS, branch=on),
        st.builds(Citation, url=WORDS, branch=on),
        st.builds(Unknown, WORDS, branch=on),
    )


def answer(records: list[Record]) -> list[Record]:
    """What stands of the answer itself."""
    return unnumbered([record for record in live(records) if record.branch is None])


@given(stories(), st.booleans())
def test_any_log_and_its_digest_say_the_same(records: list[Record], numbered: bool) -> None:
    found = digest(log(*records) if numbered else records)
    assert all(record.seq == 0 for record in found)
    price_of = {"m": PRICE}.get
    assert summarise(found, price_of=price_of) == summarise(records, price_of=price_of)
    assert used(found) == used(records)
    assert len(found) <= len(records)
    assert digest(found) == found, "of a digest nothing is left to be joined"
    for kind in (Citation, ToolResult, Unknown):
        assert [it for it in answer(found) if type(it) is kind] == [it for it in answer(records) if type(it) is kind]


@given(stories())
def test_whole_answers_in_each_protocol_are_the_same(records: list[Record]) -> None:
    whole, short = answer(records), answer(digest(records))
    for encoder in (
        lambda: openai_chat.Encoder(id="i", model="m", created=1),
        lambda: anthropic.Encoder(id="i", model="m"),
        lambda: openai_responses.Encoder(id="i", model="m", created=1),
    ):
        assert encoder().body(short) == encoder().body(whole)


def test_pieces_are_joined_and_what_was_taken_back_is_gone() -> None:
    records = [
        CallStarted(1, "a"), Text("wro"), Text("ng"), Usage(1, 2, call=1), CallEnded(1, "failed"), Reset(2, "retry"),
        CallStarted(2, "a"), CallStarted(3, "b", branch="x"), Reasoning("h"), Text("o", branch="x"), Reasoning("m"),
        Text("ri"), Usage(1, 1, call=2), Text("ght"), Usage(1, 2, call=2), Usage(1, 9, call=3, branch="x"),
        ToolCall(0, "id", "f"), ToolCall(0, arguments='{"a"'), ToolCall(0, arguments=":1}"), CallEnded(2, "completed"),
        CallEnded(3, "cancelled"), STOP,
    ]  # fmt: skip
    assert digest(records) == [
        CallStarted(1, "a"), Usage(1, 2, call=1), CallEnded(1, "failed"),
        CallStarted(2, "a"), CallStarted(3, "b", branch="x"), Reasoning("hm"),
        Text("right"), Usage(1, 2, call=2), Usage(1, 9, call=3, branch="x"),
        ToolCall(0, "id", "f"), ToolCall(0, arguments='{"a":1}'), CallEnded(2, "completed"),
        CallEnded(3, "cancelled"), STOP,
    ]  # fmt: skip


def test_what_a_call_that_never_said_its_usage_has_cost_is_estimated_as_before() -> None:
    records = [
        CallStarted(1, "a", "m"), Text("x" * 30), Text("y" * 30), CallEnded(1, "interrupted"), Reset(2, "retry"),
        CallStarted(2, "a", "m"), Text("good"), Usage(7, 1, call=2), CallEnded(2, "completed"), STOP,
    ]  # fmt: skip
    found = digest(records)
    assert Text("x" * 30 + "y" * 30) in found and Reset(2, "retry") in found
    assert used(found) == used(records)
    assert summarise(found).text == "good"


def test_a_reset_reaches_as_far_as_it_did() -> None:
    records = [
        Text("ke"), Text("pt"), CallStarted(1, "a", "m"), Text("go"), Citation(url="gone"), Text("ne"),
        Reset(4, "retry"), Text("new"), STOP,
    ]  # fmt: skip
    assert digest(records) == [
        Text("kept"), CallStarted(1, "a", "m"), Text("gone"), Reset(3, "retry"), Text("new"), STOP,
    ]  # fmt: skip
    assert summarise(digest(records)).text == summarise(records).text == "keptnew"


def test_what_only_an_earlier_usage_says_is_kept() -> None:
    records = [CallStarted(1, "a", "m"), Usage(5, 1, call=1), Text("x"), Usage(None, 9, call=1), STOP]
    assert digest(records) == records
    assert used(records)[0] == 14
