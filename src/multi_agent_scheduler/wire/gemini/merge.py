"""The events of one answer to the one object that a request without streaming gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["merge_events"]

_TEXT: Final = frozenset({"text", "thought", "thoughtSignature"})


def merge_events(events: Sequence[dict[str, Any]], envelope: Mapping[str, Any]) -> dict[str, Any]:
    """One GenerateContentResponse: parts joined, other fields as they were said last; or the error object."""
    whole: dict[str, Any] = {}
    candidates: dict[int, dict[str, Any]] = {}
    for event in events:
        if "error" in event:
            return {"error": event["error"]}
        for key, value in event.items():
            if key == "promptFeedback" and isinstance(value, dict):
                value = {**whole.get(key, {}), **value}
            if key != "candidates":
                whole[key] = value
                continue
            for candidate in value if isinstance(value, list) else ():
                if isinstance(candidate, dict):
                    _merge(candidates.setdefault(candidate.get("index", 0), {}), candidate)
    ordered = [candidates[index] for index in sorted(candidates)]
    return {**({"candidates": ordered} if ordered else {}), **whole, **envelope}


def _merge(whole: dict[str, Any], candidate: dict[str, Any]) -> None:
    for key, value in candidate.items():
        if key != "content" or not isinstance(value, dict):
            whole[key] = value
            continue
        content = whole.setdefault("content", {})
        content.update({name: field for name, field in value.items() if name != "parts"})
        for part in value.get("parts", ()):
            _add(content.setdefault("parts", []), part)


def _add(parts: list[Any], part: Any) -> None:
    """Join text to text of the same kind, and a signature to the text that it followed."""
    last: Any = parts[-1] if parts else None
    if (
        _is_text(last)
        and _is_text(part)
        and "thoughtSignature" not in last
        and last.get("thought") == part.get("thought")
    ):
        parts[-1] = {**last, **part, "text": last["text"] + part["text"]}
    else:
        parts.append(part)


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str) and part.keys() <= _TEXT
