"""Budgets of tokens and cost: a fold of a stream's records into what it has used, against what it may.

While a Call streams its usage is not known yet and is estimated; what the provider reports takes the estimate's place.
Reported usage is cumulative, so it replaces and never adds. Losers, cancelled and superseded Calls count as well: they
are paid for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ..errors import InvalidOption
from ..records import CallEnded, CallStarted, Reasoning, Record, Refusal, Text, ToolCall, Usage
from ..task import Budget

__all__ = ["CHARACTERS_PER_TOKEN", "Account", "Budget", "LongPrice", "Price", "Spending", "cost"]

CHARACTERS_PER_TOKEN: Final = 4
"""The estimate for text whose tokens nobody has reported."""

_MILLION: Final = 1_000_000


class LongPrice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model costs when its prompt has more than ``over`` tokens: all of that Call's tokens cost as said here."""

    over: int
    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """US dollars for a million tokens. Cache prices that are None are the price of input."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    long: LongPrice | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cache_read", "cache_write"):
            value = getattr(self, name)
            if value is not None and not _amount(value):
                raise InvalidOption(f"price: {name} must be dollars for a million tokens, not {value!r}")


def cost(usage: Usage | None, price: Price | None) -> float | None:
    """What a Call cost, in US dollars; None, not zero, if its usage or its model's price is not known.

    Tokens written to a provider's cache count at one price, that of its shortest kind.
    """
    if usage is None or price is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    rates: Price | LongPrice = price
    if price.long is not None and usage.input_tokens > price.long.over:
        rates = price.long
    read, write = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    dollars = (usage.input_tokens - read - write) * rates.input + usage.output_tokens * rates.output
    dollars += read * (rates.input if rates.cache_read is None else rates.cache_read)
    dollars += write * (rates.input if rates.cache_write is None else rates.cache_write)
    return dollars / _MILLION


class Account:
    """What one task, plan or key has used of its budget, in all its streams together.

    ``name`` is how messages call it (``task 'draft'``). ``cost`` is the known part; ``unpriced`` counts the Calls whose
    cost is not known.
    """

    __slots__ = ("budget", "cost", "name", "tokens", "unpriced")

    def __init__(self, name: str, budget: Budget) -> None:
        self.name = name
        self.budget = budget
        self.tokens = 0
        self.cost = 0.0
        self.unpriced = 0

    def add(self, used: Account) -> None:
        """Count what another account has used."""
        self.tokens += used.tokens
        self.cost += used.cost
        self.unpriced += used.unpriced

    def check(self, model: str | None, price: Price | None) -> None:
        """Raise InvalidOption if a Call of this model could not be held to the budget, its price being unknown."""
        if self.budget.cost is not None and price is None:
            raise InvalidOption(
                f"{self.name} has a budget of {_dollars(self.budget.cost)}, but the price of model {model!r} is not "
                f"known: give its price, or a budget of tokens"
            )

    def charge(self, tokens: int, cost: float, unpriced: int) -> None:
        """So much more was used; less, where an estimate was too high."""
        self.tokens += tokens
        self.cost += cost
        self.unpriced += unpriced

    @property
    def tokens_left(self) -> int | None:
        """Tokens that may still be used, never below 0; None without a limit."""
        return None if self.budget.tokens is None else max(0, self.budget.tokens - self.tokens)

    @property
    def cost_left(self) -> float | None:
        """US dollars that may still be spent, never below 0; None without a limit."""
        return None if self.budget.cost is None else max(0.0, self.budget.cost - self.cost)

    def exceeded(self) -> str | None:
        """Why what runs must stop: more was used than the budget has. None if it was not."""
        if self.budget.tokens is not None and self.tokens > self.budget.tokens:
            return f"{self.name} has used {self.tokens} tokens, more than its budget of {self.budget.tokens}"
        if self.budget.cost is not None and self.cost > self.budget.cost:
            return f"{self.name} has cost {_dollars(self.cost)}, more than its budget of {_dollars(self.budget.cost)}"
        return None

    def used_up(self) -> str | None:
        """Why nothing more may begin: the whole budget was used. None if something is left."""
        if self.budget.tokens is not None and self.tokens >= self.budget.tokens:
            return f"{self.name} has used up its budget of {self.budget.tokens} tokens"
        if self.budget.cost is not None and self.cost >= self.budget.cost:
            return f"{self.name} has used up its budget of {_dollars(self.budget.cost)}"
        return None


class _Call:
    """One Call: what was reported last, and the characters that have come since."""

    __slots__ = ("characters", "cost", "price", "reported", "tokens")

    def __init__(self, price: Price | None, input_tokens: int) -> None:
        self.price = price
        self.reported = Usage(input_tokens=input_tokens, output_tokens=0, source="estimated")
        self.characters = 0
        self.tokens = 0
        self.cost: float | None = 0.0

    def report(self, usage: Usage) -> None:
        """What the provider does not say stays as it was estimated."""
        old = self.reported
        if usage.output_tokens is not None:
            self.characters = 0
        self.reported = msgspec.structs.replace(
            usage,
            input_tokens=old.input_tokens if usage.input_tokens is None else usage.input_tokens,
            output_tokens=old.output_tokens if usage.output_tokens is None else usage.output_tokens,
        )

    def usage(self) -> Usage:
        """What is known and estimated together."""
        if not self.characters:
            return self.reported
        output = (self.reported.output_tokens or 0) + -(-self.characters // CHARACTERS_PER_TOKEN)
        return msgspec.structs.replace(self.reported, output_tokens=output, source="estimated")


class Spending:
    """One stream's use, folded from its records and charged to accounts: the task's, the plan's, the key's.

    ``price_of`` gives a model's price, None if it has none. ``input_tokens`` is the estimate of a Call's prompt.
    """

    def __init__(
        self, accounts: Sequence[Account], price_of: Callable[[str | None], Price | None], *, input_tokens: int = 0
    ) -> None:
        self.tokens = 0
        self._accounts = accounts
        self._price_of = price_of
        self._input_tokens = input_tokens
        self._calls: dict[int, _Call] = {}
        self._speaking: dict[str | None, _Call] = {}  # by branch: whose text it is

    @property
    def cost(self) -> float | None:
        """US dollars; None, not a part of it, if the cost of any Call is unknown."""
        total = 0.0
        for call in self._calls.values():
            if call.cost is None:
                return None
            total += call.cost
        return total

    def feed(self, batch: Sequence[Record]) -> str | None:
        """Take records in; the reason to stop, once an account is overdrawn."""
        touched: dict[int, _Call] = {}
        for record in batch:
            match record:
                case Text(text=text) | Reasoning(text=text) | Refusal(text=text) | ToolCall(arguments=text):
                    call = self._speaking.get(record.branch)
                    if call is None:
                        continue  # of no Call: nobody is paid for it
                    call.characters += len(text)
                case CallStarted(cached=True):
                    self._speaking.pop(record.branch, None)  # nobody is paid for it again
                    continue
                case CallStarted():
                    call = _Call(self._price_of(record.model), self._input_tokens)
                    self._calls[record.call] = self._speaking[record.branch] = call
                case Usage(call=number) if number in self._calls:
                    call = self._calls[number]
                    call.report(record)
                case CallEnded(call=number) if number in self._calls:
                    call = self._calls[number]
                    if record.usage is not None:
                        call.report(record.usage)
                case _:
                    continue
            touched[id(call)] = call
        for call in touched.values():
            self._charge(call)
        for account in self._accounts:
            reason = account.exceeded()
            if reason is not None:
                return reason
        return None

    def _charge(self, call: _Call) -> None:
        usage = call.usage()
        tokens, dollars = usage.total_tokens or 0, cost(usage, call.price)
        more = tokens - call.tokens
        dearer = (dollars or 0.0) - (call.cost or 0.0)
        unpriced = (dollars is None) - (call.cost is None)
        call.tokens, call.cost = tokens, dollars
        self.tokens += more
        for account in self._accounts:
            account.charge(more, dearer, unpriced)


def _amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _dollars(amount: float) -> str:
    return f"${amount:.2f}" if amount >= 1 or amount == 0 else f"${amount:.3g}"
