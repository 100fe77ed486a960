"""CPU per chunk: what it costs to read a hundred streams at once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from .figures import Budget, Report, Row, median, ratios
from .provider import text_of
from .rounds import Provider, Setting, available, turns

__all__ = ["anthropic", "burst", "paced", "responses", "transport"]

_DELAY = 20.0  # milliseconds between the chunks of a stream: 50 tokens a second
_COLUMNS = {"us/chunk": ".1f", "x raw": ".2f", "of openai": ".2f", "wall s": ".2f"}


def _checked(answer: dict[str, Any], streams: int, chunks: int) -> dict[str, Any]:
    expected = streams * len(text_of(chunks))
    if answer["unit"] == "characters" and answer["size"] != expected:
        raise RuntimeError(f"read {answer['size']} characters of {expected}")
    if answer["unit"] == "bytes" and answer["size"] < expected:
        raise RuntimeError(f"read {answer['size']} bytes, fewer than the {expected} characters of the text")
    return answer


def measured(
    names: list[str], setting: Setting, chunks: int, delay: float
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """The rounds' answers of every contender that can run, with ``us`` (CPU per chunk) added; and the notes."""
    with Provider() as provider, ExitStack() as stack:
        clients, notes = available(names, provider, setting.loop, stack)
        root = provider.root(chunks, delay)

        def act(name: str) -> dict[str, Any]:
            answer = _checked(clients[name].ask("stream", root, setting.streams), setting.streams, chunks)
            answer["us"] = answer["cpu"] / (setting.streams * chunks) * 1e6
            setting.say(f"{name}: {answer['us']:.1f} us")
            return answer

        return turns(list(clients), setting.rounds, act), notes


def _report(
    title: str, names: list[str], setting: Setting, chunks: int, delay: float
) -> tuple[Report, dict[str, list[float]]]:
    """A table, raw first; and each contender's CPU per chunk, round by round."""
    answers, notes = measured(names, setting, chunks, delay)
    costs = {name: [answer["us"] for answer in found] for name, found in answers.items()}
    raw = costs[names[0]]
    rows = []
    for name, cost in costs.items():
        figures: dict[str, float | None] = {
            "us/chunk": median(cost),
            "x raw": median(ratios(cost, raw)),
            "of openai": median(ratios(cost, costs["openai SDK"])) if "openai SDK" in costs else None,
            "wall s": median([answer["wall"] for answer in answers[name]]),
        }
        rows.append(Row(name, figures))
    columns = {name: form for name, form in _COLUMNS.items() if any(row.figures[name] is not None for row in rows)}
    how = "in a burst" if not delay else f"{delay:g} ms apart"
    title = f"{title}: {setting.streams} streams of {chunks} chunks {how}, {setting.rounds} rounds, {setting.loop} loop"
    return Report(title, columns, rows, [], notes), costs


def _ratio(costs: dict[str, list[float]], of: str, to: str, limit: float) -> list[Budget]:
    if of not in costs or to not in costs:
        return []
    return [Budget(f"{of} / {to}", median(ratios(costs[of], costs[to])), limit)]


def paced(setting: Setting) -> Report:
    """CPU per chunk, 20 ms between chunks: the honest one."""
    names = ["raw", "aiohttp", "call_stream", "execute_task_stream", "openai SDK", "pydantic-ai", "litellm"]
    report, costs = _report("Paced", names, setting, setting.chunks, _DELAY)
    report.budgets.extend(_ratio(costs, "call_stream", "raw", 3.5))
    report.budgets.extend(_ratio(costs, "execute_task_stream", "raw", 4.5))
    report.budgets.extend(_ratio(costs, "call_stream", "openai SDK", 0.25))
    report.budgets.extend(_ratio(costs, "call_stream", "litellm", 0.1))
    return report


def burst(setting: Setting) -> Report:
    """CPU per chunk, everything at once."""
    names = ["raw", "aiohttp", "call_stream", "execute_task_stream", "openai SDK", "pydantic-ai", "litellm"]
    report, costs = _report("Burst", names, setting, setting.chunks, 0)
    report.budgets.append(Budget("call_stream, us per chunk", median(costs["call_stream"]), 12))
    return report


def anthropic(setting: Setting) -> Report:
    """CPU per chunk, Anthropic messages, paced."""
    names = ["raw messages", "call_stream, Claude", "anthropic SDK"]
    report, costs = _report("Anthropic messages, paced", names, setting, setting.chunks, _DELAY)
    report.budgets.extend(_ratio(costs, "call_stream, Claude", "raw messages", 3.5))
    return report


def responses(setting: Setting) -> Report:
    """CPU per chunk, OpenAI responses, paced."""
    names = ["raw responses", "call_stream, responses", "openai SDK, responses"]
    report, costs = _report("OpenAI responses, paced", names, setting, setting.chunks, _DELAY)
    report.budgets.extend(_ratio(costs, "call_stream, responses", "raw responses", 3.5))
    return report


def transport(setting: Setting) -> Report:
    """CPU per chunk of ways to move bytes, paced: why the project has a client of its own."""
    names = ["raw", "asyncio streams", "httptools", "aiohttp", "aiohttp + JSON", "call_stream"]
    return _report("Transports, paced", names, setting, setting.chunks, _DELAY)[0]
