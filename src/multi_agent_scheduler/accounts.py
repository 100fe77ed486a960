"""Who pays: the budgets of owners, and what models cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from .agents import models
from .errors import InvalidOption, LogTrimmed, StreamNotFound
from .records import Record
from .scheduling.budget import Account, Budget, Price, Spending

if TYPE_CHECKING:
    from .store.base import Log, Store

__all__ = ["Ledger"]

_ENDS: Final = ("completed", "failed", "cancelled", "interrupted", "skipped")


class Ledger:
    """The accounts of the owners that have ``budgets``, and ``prices`` by model, before those of this package.

    What an owner's streams in a durable store have used before counts: it is read when the owner first runs something.
    """

    def __init__(self, budgets: Mapping[str, Budget] | None, prices: Mapping[str, Price] | None) -> None:
        for name, given, kind in (("budgets", budgets, Budget), ("prices", prices, Price)):
            if given is not None and not isinstance(given, Mapping):
                raise InvalidOption(f"{name} must be a mapping of names to {kind.__name__}(...), not {given!r}")
            for key, value in (given or {}).items():
                if not isinstance(value, kind):
                    raise InvalidOption(f"{name}[{key!r}] must be {kind.__name__}(...), not {value!r}")
        self._prices = dict(prices or {})
        self._accounts = {owner: Account(f"owner {owner!r}", budget) for owner, budget in (budgets or {}).items()}
        self._meter: Callable[[str], Account | None] | None = None
        self._recalled: dict[str, asyncio.Task[None]] = {}

    def price_of(self, model: str | None) -> Price | None:
        """What a model costs; None if nobody knows."""
        return models.price(model, self._prices)

    def account(self, owner: str) -> Account | None:
        """The account of an owner that has a budget."""
        return self._accounts.get(owner)

    def meter(self, owner: str) -> Account | None:
        """What counts one more stream of this owner; None if nobody does."""
        return None if self._meter is None else self._meter(owner)

    def set_meter(self, meter: Callable[[str], Account | None]) -> None:
        """From now on each stream is also charged, while it runs, to an account that ``meter`` makes for its owner."""
        self._meter = meter

    def set_budget(self, owner: str, budget: Budget) -> None:
        """From now on the owner has this budget; one that it had before is replaced, and what was used of it counts."""
        account = self._accounts.get(owner)
        if account is None:
            self._accounts[owner] = Account(f"owner {owner!r}", budget)
        elif account.budget != budget:
            account.budget = budget

    async def recall(self, owner: str, store: Store) -> None:
        """Count what the owner's streams have used that an earlier process ran; before any of them runs in this."""
        account = self._accounts.get(owner)
        if account is None or not store.durable:
            return
        if owner not in self._recalled:
            self._recalled[owner] = asyncio.get_running_loop().create_task(
                self._recall(account, owner, store), name=f"what owner {owner!r} has used"
            )
        await asyncio.shield(self._recalled[owner])

    async def _recall(self, account: Account, owner: str, store: Store) -> None:
        for info in store.streams(owner=owner, states=_ENDS):
            try:
                account.add(await self._used(store.log(info.stream_id)))
            except StreamNotFound:  # it was removed meanwhile: what is not kept does not count
                continue

    async def _used(self, log: Log) -> Account:
        """What one stream has used. Raises StreamNotFound."""
        try:
            return await self._counted(log)
        except LogTrimmed:  # before, or between two pages: what was counted of it is dropped
            used = Account("", Budget())
            self.spending((used,), history=log.digest())
            return used

    async def _counted(self, log: Log) -> Account:
        """The same, read a page at a time. Raises LogTrimmed, too."""
        used, seq = Account("", Budget()), 0
        spending = self.spending((used,))
        while records := log.read(seq):
            spending.feed(records)
            seq += len(records)
            await asyncio.sleep(0)
        return used

    def check(self, accounts: Iterable[Account], asked: Sequence[str | None]) -> None:
        """Raise InvalidOption if Calls of the models ``asked`` could not be held to a budget."""
        for account in accounts:
            if account.budget.cost is not None:
                for model in asked:
                    account.check(model, self.price_of(model))

    def spending(
        self, accounts: Sequence[Account], *, input_tokens: int = 0, history: Sequence[Record] = ()
    ) -> Spending:
        """The spending of one stream, which ``accounts`` pay for; its ``history`` counts."""
        spending = Spending(accounts, self.price_of, input_tokens=input_tokens)
        spending.feed(history)
        return spending
