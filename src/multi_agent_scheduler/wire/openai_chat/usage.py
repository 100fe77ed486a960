"""Token counts, both ways.

``prompt_tokens`` counts cached tokens too, and ``completion_tokens`` the reasoning, at every provider but xAI, which
leaves the reasoning out of it (docs.x.ai, "Reasoning"): there ``total_tokens`` is larger than their sum by just the
reasoning tokens, and that is how it is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...records import Usage

__all__ = ["from_usage", "to_usage"]


def from_usage(raw: Mapping[str, Any], branch: str | None = None) -> Usage:
    """The record for a provider's usage object; what is missing or no number is None."""
    prompt_details = _object(raw.get("prompt_tokens_details"))
    output_details = _object(raw.get("completion_tokens_details"))
    prompt, output, total = _count(raw, "prompt_tokens"), _count(raw, "completion_tokens"), _count(raw, "total_tokens")
    reasoning = _first(_count(output_details, "reasoning_tokens"), _count(raw, "reasoning_tokens"))
    if prompt is not None and output is not None and reasoning and total == prompt + output + reasoning:
        output += reasoning
    return Usage(
        branch=branch,
        input_tokens=prompt,
        output_tokens=output,
        reasoning_tokens=reasoning,
        cache_read_tokens=_first(
            _count(prompt_details, "cached_tokens"),
            _count(raw, "prompt_cache_hit_tokens"),  # DeepSeek
            _count(raw, "cached_tokens"),  # Moonshot
        ),
        cache_write_tokens=_first(
            _count(prompt_details, "cache_write_tokens"),  # OpenRouter
            _count(raw, "cache_creation_input_tokens"),  # gateways in front of Anthropic
        ),
        raw=raw,
    )


def to_usage(usages: list[Usage]) -> dict[str, Any] | None:
    """The usage object for the last usage of each Call; None while input or output is unknown.

    Clients take these numbers for exact integers, so that a guess or a null is worse than nothing. A single usage that
    is of this protocol's shape is sent as the provider sent it.
    """
    if len(usages) == 1 and _complete(usages[0].raw):
        raw: dict[str, Any] = usages[0].raw
        return raw
    inputs = [usage.input_tokens for usage in usages if usage.input_tokens is not None]
    outputs = [usage.output_tokens for usage in usages if usage.output_tokens is not None]
    if not inputs or not outputs:
        return None
    prompt, output = sum(inputs), sum(outputs)
    body: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    read, write = [u.cache_read_tokens for u in usages], [u.cache_write_tokens for u in usages]
    details = {"cached_tokens": _sum(read), "cache_write_tokens": _sum(write)}
    if any(value is not None for value in details.values()):
        body["prompt_tokens_details"] = {key: value for key, value in details.items() if value is not None}
    reasoning = _sum([u.reasoning_tokens for u in usages])
    if reasoning is not None:
        body["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return body


def _complete(raw: Any) -> bool:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return isinstance(raw, dict) and all(type(raw.get(name)) is int for name in names)


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _count(source: Mapping[str, Any], name: str) -> int | None:
    value = source.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return value
    return None
