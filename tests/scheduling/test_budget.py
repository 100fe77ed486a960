"""Budgets: what is used is known batch by batch, and never counted twice or taken for nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import InvalidOption
from multi_agent_scheduler.records import CallEnded, CallStarted, Reasoning, Record, Text, ToolCall, Usage
from multi_agent_scheduler.scheduling.budget import Account, Budget, LongPrice, Price, Spending, cost

PRICE = Price(input=2.0, output=10.0, cache_read=0.2, cache_write=2.5)
PRICES = {"known": PRICE}


def spending(*accounts: Account, input_tokens: int = 0) -> Spending:
    return Spending(accounts, lambda model: PRICES.get(model or ""), input_tokens=input_tokens)


def start(call: int = 1, model: str = "known", branch: str | None = None) -> CallStarted:
    return CallStarted(call=call, agent="a", model=model, branch=branch)


# --- cost ---


def test_the_cost_of_a_call_counts_what_was_cached_at_its_own_price() -> None:
    usage = Usage(input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=400_000, cache_write_tokens=200_000)
    assert cost(usage, PRICE) == pytest.approx(0.4 * 2.0 + 0.4 * 0.2 + 0.2 * 2.5 + 0.1 * 10.0)
    assert cost(usage, Price(input=2.0, output=10.0)) == pytest.approx(2.0 + 1.0)


def test_a_long_prompt_costs_its_own_price_from_the_first_token_on() -> None:
    price = Price(input=1.0, output=1.0, long=LongPrice(over=200_000, input=2.0, output=3.0))
    assert cost(Usage(input_tokens=200_000, output_tokens=0), price) == pytest.approx(0.2)
    assert cost(Usage(input_tokens=200_001, output_tokens=100_000), price) == pytest.approx(0.400002 + 0.3)


def test_what_is_unknown_costs_nothing_known_and_what_is_free_costs_nothing() -> None:
    assert cost(Usage(input_tokens=10, output_tokens=10), None) is None
    assert cost(Usage(input_tokens=10), PRICE) is None
    assert cost(None, PRICE) is None
    assert cost(Usage(input_tokens=10, output_tokens=10), Price(input=0, output=0)) == 0
    assert cost(Usage(input_tokens=0, output_tokens=0), PRICE) == 0


# --- while it streams ---


def test_an_overrun_is_seen_in_the_batch_that_makes_it() -> None:
    account = Account("task 'a'", Budget(tokens=100))
    fold = spending(account, input_tokens=50)
    assert fold.feed([start()]) is None
    assert account.tokens == 50
    assert fold.feed([Text(text="x" * 199)]) is None  # 50 tokens, as far as anybody can tell
    assert account.exceeded() is None and account.tokens_left == 0
    assert account.used_up() == "task 'a' has used up its budget of 100 tokens"
    assert fold.feed([Reasoning(text="yy")]) == "task 'a' has used 101 tokens, more than its budget of 100"
    assert account.tokens_left == 0


def test_an_overrun_in_dollars_is_seen_too() -> None:
    account = Account("plan 'p'", Budget(cost=0.001))
    fold = spending(account)
    assert fold.feed([start(), Text(text="x" * 400)]) is None
    assert account.cost_left == pytest.approx(0)
    assert fold.feed([Text(text="x" * 80)]) == "plan 'p' has cost $0.0012, more than its budget of $0.001"


def test_what_the_provider_reports_takes_the_place_of_the_estimate() -> None:
    account = Account("key 'k'", Budget(tokens=1000))
    fold = spending(account, input_tokens=500)
    fold.feed([start(), Text(text="x" * 400)])
    assert account.tokens == 600
    fold.feed([Usage(input_tokens=20, output_tokens=1, call=1)])  # at the start of an answer
    assert account.tokens == 21
    fold.feed([Text(text="x" * 40), ToolCall(index=0, arguments="y" * 8)])
    assert account.tokens == 33
    fold.feed([Usage(input_tokens=20, output_tokens=14, call=1)])
    assert account.tokens == 34
    final = Usage(input_tokens=20, output_tokens=15)
    fold.feed([CallEnded(call=1, outcome="completed", usage=final)])
    assert (account.tokens, fold.tokens) == (35, 35)
    assert fold.cost == cost(final, PRICE) == pytest.approx(account.cost)


def test_usage_that_says_only_a_part_leaves_the_rest_estimated() -> None:
    fold = spending(input_tokens=100)
    fold.feed([start(), Text(text="x" * 40), Usage(input_tokens=7, call=1)])
    assert fold.tokens == 17
    fold.feed([CallEnded(call=1, outcome="interrupted")])  # nothing was reported: the estimate stands
    assert fold.tokens == 17


def test_every_call_counts_whoever_won_and_each_text_belongs_to_its_branch() -> None:
    account = Account("task 'a'", Budget(tokens=10_000))
    fold = spending(account)
    fold.feed([start(1, branch="left"), start(2, branch="right")])
    fold.feed([Text(text="x" * 40, branch="left"), Text(text="x" * 80, branch="right"), Text(text="nobody's")])
    assert account.tokens == 30
    fold.feed([CallEnded(call=1, outcome="cancelled", branch="left", usage=Usage(input_tokens=5, output_tokens=5))])
    assert account.tokens == 30
    fold.feed([start(3, branch="left"), Text(text="x" * 4, branch="left")])  # another attempt
    assert account.tokens == 31


def test_an_unknown_price_is_never_zero() -> None:
    account = Account("plan 'p'", Budget(tokens=100))
    fold = spending(account)
    fold.feed([start(), Text(text="x" * 40)])
    assert fold.cost == pytest.approx(0.0001)
    fold.feed([start(2, model="strange"), Text(text="x" * 40)])
    assert (fold.cost, account.unpriced) == (None, 1)
    assert account.cost == pytest.approx(0.0001)
    assert account.tokens == 20


def test_a_budget_of_dollars_needs_a_price() -> None:
    Account("task 'a'", Budget(tokens=5)).check("strange", None)
    Account("task 'a'", Budget(cost=5)).check("known", PRICE)
    with pytest.raises(InvalidOption) as caught:
        Account("task 'a'", Budget(cost=5)).check("strange", None)
    assert str(caught.value) == (
        "task 'a' has a budget of $5.00, but the price of model 'strange' is not known: "
        "give its price, or a budget of tokens"
    )


def test_streams_share_the_account_of_their_plan() -> None:
    plan, task = Account("plan 'p'", Budget(tokens=30)), Account("task 'a'", Budget(tokens=20))
    first, second = spending(task, plan), spending(plan)
    assert first.feed([start(), Text(text="x" * 80)]) is None
    assert second.feed([start(), Text(text="x" * 44)]) == "plan 'p' has used 31 tokens, more than its budget of 30"
    assert first.feed([]) == "plan 'p' has used 31 tokens, more than its budget of 30"


@given(data=st.data())
def test_in_the_end_every_call_has_been_charged_what_it_said_last(data: st.DataObject) -> None:
    account = Account("key", Budget(tokens=10**9))
    fold, expected = spending(account, input_tokens=7), 0
    for call in range(1, data.draw(st.integers(1, 4)) + 1):
        records: list[Record] = [start(call)]
        last = None
        for _ in range(data.draw(st.integers(0, 4))):
            records.append(Text(text="x" * data.draw(st.integers(0, 50))))
            if data.draw(st.booleans()):
                last = Usage(input_tokens=data.draw(st.integers(0, 99)), output_tokens=data.draw(st.integers(0, 99)))
                records.append(Usage(input_tokens=last.input_tokens, output_tokens=last.output_tokens, call=call))
        last = last or Usage(input_tokens=3, output_tokens=4)
        records.append(CallEnded(call=call, outcome="completed", usage=last))
        while records:  # in batches of any size
            size = data.draw(st.integers(1, len(records)))
            fold.feed(records[:size])
            del records[:size]
        expected += last.total_tokens or 0
    assert fold.tokens == account.tokens == expected
    assert fold.cost == pytest.approx(account.cost)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens": 0}, "budget: tokens must be a whole number above 0, not 0"),
        ({"tokens": 1.5}, "budget: tokens must be a whole number above 0, not 1.5"),
        ({"cost": 0}, "budget: cost must be a number of US dollars above 0, not 0"),
        ({"cost": float("nan")}, "budget: cost must be a number of US dollars above 0, not nan"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Budget(**fields)
    assert str(caught.value) == message
    with pytest.raises(InvalidOption, match="price: output must be dollars for a million tokens, not -1"):
        Price(input=1, output=-1)
