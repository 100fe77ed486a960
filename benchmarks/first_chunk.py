"""How much later the first chunk arrives than with bare aiohttp."""

from __future__ import annotations

from contextlib import ExitStack

from .figures import Budget, Report, Row, interval, median
from .rounds import Provider, Setting, available, turns

__all__ = ["first_chunk"]

_ASKED = 30  # streams one after another in a round


def first_chunk(setting: Setting) -> Report:
    """Time to the first chunk over bare aiohttp, over connections that are open already."""
    names = ["aiohttp", "call_stream", "execute_task_stream", "openai SDK", "litellm"]
    rounds = 3 * setting.rounds
    with Provider() as provider, ExitStack() as stack:
        clients, notes = available(names, provider, setting.loop, stack)
        # The rest comes 5 ms later, so that the first chunk is read alone.
        root = provider.root(2, 5)

        def act(name: str) -> float:
            # The first stream opens the connection.
            return median(clients[name].ask("first", root, _ASKED + 1)["seconds"][1:]) * 1e3

        found = turns(list(clients), rounds, act, notes)
    rows, budgets = [], []
    for name, times in found.items():
        added = [time - bare for time, bare in zip(times, found["aiohttp"], strict=True)]
        low, high = interval(added)
        rows.append(Row(name, {"ms": median(times), "added ms": median(added), "low": low, "high": high}))
        if name in ("call_stream", "execute_task_stream"):
            budgets.append(Budget(f"{name}, added ms", median(added), 0.3))
    title = f"First chunk: {rounds} rounds of {_ASKED} streams in a row, {setting.loop} loop (low-high: 95 % interval)"
    return Report(title, {"ms": ".3f", "added ms": "+.3f", "low": "+.3f", "high": "+.3f"}, rows, budgets, notes)
