"""Tokens: ``usageMetadata`` to a :class:`~multi_agent_scheduler.records.Usage` and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ...records import Usage

__all__ = ["count", "read_usage", "write_usage"]

_NAMES: Final = frozenset({"promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount"})


def count(value: Any) -> int | None:
    """A number of the protocol as an int (JSON of a protobuf may spell 64-bit ones as strings); None if it is none."""
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return None


def read_usage(raw: dict[str, Any]) -> Usage:
    """The counts of one usageMetadata.

    Google leaves a count of 0 out, so that no count of the output beside a total means: total less input. An object
    without any count (Vertex sends the traffic type alone in early events) is a usage whose source is "unknown".
    """
    prompt, tool_prompt = count(raw.get("promptTokenCount")), count(raw.get("toolUsePromptTokenCount"))
    answer, thoughts = count(raw.get("candidatesTokenCount")), count(raw.get("thoughtsTokenCount"))
    total = count(raw.get("totalTokenCount"))
    given = None if prompt is None and tool_prompt is None else (prompt or 0) + (tool_prompt or 0)
    if answer is not None or thoughts is not None:
        output: int | None = (answer or 0) + (thoughts or 0)
    else:
        output = max(total - given, 0) if total is not None and given is not None else None
    return Usage(
        input_tokens=given,
        output_tokens=output,
        reasoning_tokens=thoughts,
        cache_read_tokens=count(raw.get("cachedContentTokenCount")),
        source="unknown" if given is None and output is None else "reported",
        raw=raw,
    )


def write_usage(usages: Iterable[Usage]) -> dict[str, Any]:
    """The usageMetadata for the last usage of each Call of a stream; if it is one Call of Gemini's, as it came."""
    every = list(usages)
    if len(every) == 1 and isinstance(every[0].raw, dict) and _is_ours(every[0]):
        return every[0].raw
    given = _sum(usage.input_tokens for usage in every)
    output = _sum(usage.output_tokens for usage in every)
    thoughts = _sum(usage.reasoning_tokens for usage in every)
    cached = _sum(usage.cache_read_tokens for usage in every)
    counts = {
        "promptTokenCount": given,
        "candidatesTokenCount": None if output is None else max(output - (thoughts or 0), 0),
        "totalTokenCount": None if given is None or output is None else given + output,
        "thoughtsTokenCount": thoughts,
        "cachedContentTokenCount": cached,
    }
    return {name: value for name, value in counts.items() if value is not None}


def _is_ours(usage: Usage) -> bool:
    return usage.source == "unknown" or not _NAMES.isdisjoint(usage.raw)


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
