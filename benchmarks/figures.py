"""Figures from samples, and tables of them. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

__all__ = ["Budget", "Report", "Row", "interval", "median", "ratios", "shown"]


class Row(NamedTuple):
    """One line of a table: who, and its figures under the report's column names (None where there is none)."""

    name: str
    figures: dict[str, float | None]
    note: str = ""


class Budget(NamedTuple):
    """A promise: ``value`` may be at most ``limit``."""

    what: str
    value: float
    limit: float

    @property
    def met(self) -> bool:
        return self.value <= self.limit


class Report(NamedTuple):
    """What one benchmark found. ``columns`` maps a column's name to the format of its figures."""

    title: str
    columns: dict[str, str]
    rows: list[Row]
    budgets: list[Budget]
    notes: list[str]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "title": self.title,
            "rows": [
                {"name": row.name, **row.figures, **({"note": row.note} if row.note else {})} for row in self.rows
            ],
            "budgets": [{"what": b.what, "value": b.value, "limit": b.limit, "met": b.met} for b in self.budgets],
            "notes": self.notes,
        }


def ratios(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """Round by round: what slowed the machine down in one round slowed both."""
    return [one / other for one, other in zip(of, to, strict=True)]


def interval(
    samples: Sequence[float], statistic: Callable[[Sequence[float]], float] = median, *, resamples: int = 4000
) -> tuple[float, float]:
    """The 95 % interval of a statistic, by the percentile bootstrap (Efron 1979), with a fixed seed."""
    chance = random.Random(20_240_229)
    found = sorted(statistic(chance.choices(samples, k=len(samples))) for _ in range(resamples))
    return found[int(0.025 * resamples)], found[int(0.975 * resamples) - 1]


def shown(report: Report) -> str:
    """The report as text: title, table, budgets, notes."""
    width = max((len(row.name) for row in report.rows), default=4)
    heads = [max(len(name), 9) for name in report.columns]
    lines = [
        report.title,
        f"  {'':{width}}" + "".join(f"  {name:>{w}}" for name, w in zip(report.columns, heads, strict=True)),
    ]
    for row in report.rows:
        cells = ""
        for (name, form), w in zip(report.columns.items(), heads, strict=True):
            figure = row.figures.get(name)
            cells += f"  {'-' if figure is None else format(figure, form):>{w}}"
        lines.append(f"  {row.name:{width}}{cells}" + (f"  {row.note}" if row.note else ""))
    lines += [
        f"  {'met   ' if budget.met else 'MISSED'}  {budget.what}: {budget.value:.3g} (at most {budget.limit:g})"
        for budget in report.budgets
    ]
    lines += [f"  {note}" for note in report.notes]
    return "\n".join(lines)
