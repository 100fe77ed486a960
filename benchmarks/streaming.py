"""CPU per chunk: what it costs to read a hundred streams at once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final, NamedTuple

from .figures import Budget, Report, Row, median, ratios
from .provider import text_of
from .rounds import Provider, Setting, available, turns

__all__ = ["anthropic", "burst", "paced", "responses", "spread", "transport"]


class _Pace(NamedTuple):
    """Milliseconds from a stream's chunk to its next, and of the provider's clock (see benchmarks/server.py)."""

    delay: float
    tick: float
    how: str


_PACED: Final = _Pace(20, 1, "20 ms apart, on a clock of 1 ms")  # 50 tokens a second
_SPREAD: Final = _Pace(20, 0, "20 ms apart, each at a time of its own")
_BURST: Final = _Pace(0, 1, "in a burst")

_CHAT: Final = ["raw", "aiohttp", "call_stream", "execute_task_stream", "openai SDK", "pydantic-ai", "litellm"]
_COLUMNS: Final = {"us/chunk": ".1f", "x raw": ".2f", "x openai": ".3f", "wall s": ".2f"}

Costs = dict[str, list[float]]
"""Microseconds of CPU per chunk, round by round."""


def paced(setting: Setting) -> Report:
    """CPU per chunk, 20 ms between the chunks of a stream."""
    return _chat("Paced", setting, _PACED)


def spread(setting: Setting) -> Report:
    """The same, each chunk at a time of its own: the client sleeps and wakes for every one of them."""
    return _chat("Spread", setting, _SPREAD)


def burst(setting: Setting) -> Report:
    """CPU per chunk, everything at once."""
    report, costs = _report("Burst", _CHAT, setting, _BURST)
    if "call_stream" in costs:
        report.budgets.append(Budget("call_stream, us per chunk", median(costs["call_stream"]), 12))
    return report


def anthropic(setting: Setting) -> Report:
    """CPU per chunk, Anthropic messages, paced."""
    report, costs = _report(
        "Anthropic messages", ["raw messages", "call_stream, Claude", "anthropic SDK"], setting, _PACED
    )
    report.budgets.extend(_ratio(costs, "call_stream, Claude", "raw messages", 3.5))
    return report


def responses(setting: Setting) -> Report:
    """CPU per chunk, OpenAI responses, paced."""
    names = ["raw responses", "call_stream, responses", "openai SDK, responses"]
    report, costs = _report("OpenAI responses", names, setting, _PACED)
    report.budgets.extend(_ratio(costs, "call_stream, responses", "raw responses", 3.5))
    return report


def transport(setting: Setting) -> Report:
    """CPU per chunk of ways to move bytes: why the project has a client of its own."""
    names = ["raw", "raw, buffered", "asyncio streams", "httptools", "aiohttp", "aiohttp + JSON", "call_stream"]
    return _report("Transports", names, setting, _PACED)[0]


def _chat(title: str, setting: Setting, pace: _Pace) -> Report:
    report, costs = _report(title, _CHAT, setting, pace)
    report.budgets.extend(_ratio(costs, "call_stream", "raw", 3.5))
    report.budgets.extend(_ratio(costs, "execute_task_stream", "raw", 4.5))
    report.budgets.extend(_ratio(costs, "call_stream", "openai SDK", 0.25))
    report.budgets.extend(_ratio(costs, "call_stream", "litellm", 0.1))
    return report


def _ratio(costs: Costs, of: str, to: str, limit: float) -> list[Budget]:
    if of not in costs or to not in costs:
        return []
    return [Budget(f"{of} / {to}", median(ratios(costs[of], costs[to])), limit)]


def _report(title: str, names: list[str], setting: Setting, pace: _Pace) -> tuple[Report, Costs]:
    """A table, raw first, and what it is made of."""
    answers, notes = _answers(names, setting, pace)
    costs = {name: [_microseconds(answer, setting) for answer in found] for name, found in answers.items()}
    raw, openai = costs[names[0]], costs.get("openai SDK")
    rows = []
    for name, cost in costs.items():
        figures: dict[str, float | None] = {
            "us/chunk": median(cost),
            "x raw": median(ratios(cost, raw)),
            "x openai": median(ratios(cost, openai)) if openai else None,
            "wall s": median([answer["wall"] for answer in answers[name]]),
        }
        rows.append(Row(name, figures))
    columns = {name: form for name, form in _COLUMNS.items() if any(row.figures[name] is not None for row in rows)}
    size = f"{setting.streams} streams of {setting.chunks} chunks"
    return Report(
        f"{title}: {size} {pace.how}, {setting.rounds} rounds, {setting.loop}", columns, rows, [], notes
    ), costs


def _answers(names: list[str], setting: Setting, pace: _Pace) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """The rounds' answers of every contender that can run; and the notes."""
    with Provider() as provider, ExitStack() as stack:
        clients, notes = available(names, provider, setting.loop, stack)
        root = provider.root(setting.chunks, pace.delay, pace.tick)

        def act(name: str) -> dict[str, Any]:
            answer = _checked(clients[name].ask("stream", root, setting.streams), setting)
            setting.say(f"{name}: {_microseconds(answer, setting):.1f} us")
            return answer

        return turns(list(clients), setting.rounds, act, notes), notes


def _microseconds(answer: dict[str, Any], setting: Setting) -> float:
    cpu: float = answer["cpu"]
    return cpu / (setting.streams * setting.chunks) * 1e6


def _checked(answer: dict[str, Any], setting: Setting) -> dict[str, Any]:
    expected = setting.streams * len(text_of(setting.chunks))
    if answer["unit"] == "characters" and answer["size"] != expected:
        raise RuntimeError(f"read {answer['size']} characters of {expected}")
    if answer["unit"] == "bytes" and answer["size"] < expected:
        raise RuntimeError(f"read {answer['size']} bytes, fewer than the {expected} characters of the text")
    return answer
