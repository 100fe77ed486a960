"""Token counts: the provider's object, its merge over a stream, and the record."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ...records import Usage

__all__ = ["merge", "record", "render"]


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Counts are cumulative: newer fields replace older ones, and a null says nothing."""
    merged = dict(old)
    for key, value in new.items():
        if value is not None or key not in merged:
            merged[key] = value
    return merged


def record(raw: dict[str, Any]) -> Usage:
    """The record of a usage object. ``input_tokens`` here leaves caches out; the record's includes them."""
    plain = _count(raw.get("input_tokens"))
    read = _count(raw.get("cache_read_input_tokens"))
    write = _count(raw.get("cache_creation_input_tokens"))
    details = raw.get("output_tokens_details")
    return Usage(
        input_tokens=None if plain is None else plain + (read or 0) + (write or 0),
        output_tokens=_count(raw.get("output_tokens")),
        reasoning_tokens=_count(details.get("thinking_tokens")) if isinstance(details, dict) else None,
        cache_read_tokens=read,
        cache_write_tokens=write,
        raw=raw,
    )


def render(usages: Collection[Usage]) -> dict[str, Any]:
    """The usage object of all Calls together: the provider's own if it came from this protocol, else made from counts.

    The protocol has no word for "unknown": a count that nobody knows is left out, or 0 where it must be there.
    """
    if len(usages) == 1:
        (only,) = usages
        if isinstance(only.raw, dict) and _same_counts(record(only.raw), only):
            return {"output_tokens": 0, **only.raw}
    read = _total([usage.cache_read_tokens for usage in usages])
    write = _total([usage.cache_write_tokens for usage in usages])
    tokens = _total([usage.input_tokens for usage in usages])
    thinking = _total([usage.reasoning_tokens for usage in usages])
    raw: dict[str, Any] = {}
    if tokens is not None:
        raw["input_tokens"] = max(0, tokens - (read or 0) - (write or 0))
    if write is not None:
        raw["cache_creation_input_tokens"] = write
    if read is not None:
        raw["cache_read_input_tokens"] = read
    raw["output_tokens"] = _total([usage.output_tokens for usage in usages]) or 0
    if thinking is not None:
        raw["output_tokens_details"] = {"thinking_tokens": thinking}
    return raw


def _same_counts(one: Usage, other: Usage) -> bool:
    return (
        one.input_tokens == other.input_tokens
        and one.output_tokens == other.output_tokens
        and one.reasoning_tokens == other.reasoning_tokens
        and one.cache_read_tokens == other.cache_read_tokens
        and one.cache_write_tokens == other.cache_write_tokens
    )


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _count(value: Any) -> int | None:
    """A count; some gateways send them as text or as 12.0."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and len(value) < 16 and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else None
