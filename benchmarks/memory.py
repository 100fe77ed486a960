"""Resident memory of an open stream."""

from __future__ import annotations

from .figures import Budget, Report, Row, median
from .rounds import Client, Provider, Setting, Unavailable, turns

__all__ = ["memory"]

_OPEN = 1000
_HOUR = 3_600_000.0


def memory(setting: Setting) -> Report:
    """Resident memory per stream, 1,000 streams open at once, over bare aiohttp's."""
    names = ["aiohttp", "call_stream", "execute_task_stream"]
    rounds = min(setting.rounds, 3)
    notes: list[str] = []
    with Provider() as provider:
        root = provider.root(2, _HOUR)

        def act(name: str) -> float | None:
            with Client(name, setting.loop) as client:  # a new process each time: freed memory is seldom given back
                try:
                    return float(client.ask("hold", root, _OPEN)["bytes"]) / 1024
                except Unavailable as reason:
                    notes.append(f"SKIPPED  {name}: {reason} is not installed (make bench installs it)")
                    return None

        found = turns(names, rounds, act, notes)
    measured = {name: [figure for figure in figures if figure is not None] for name, figures in found.items()}
    bare = median(measured["aiohttp"])
    rows, budgets = [], []
    for name, figures in measured.items():
        if not figures:
            continue
        rows.append(Row(name, {"KiB/stream": median(figures), "added KiB": median(figures) - bare}))
        if name in ("call_stream", "execute_task_stream"):
            budgets.append(Budget(f"{name}, added KiB per stream", median(figures) - bare, 20))
    title = f"Memory: {_OPEN} streams that said one chunk and stay open, {rounds} processes each, {setting.loop} loop"
    return Report(title, {"KiB/stream": ".1f", "added KiB": "+.1f"}, rows, budgets, sorted(set(notes)))
