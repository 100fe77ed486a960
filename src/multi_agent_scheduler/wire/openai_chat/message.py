"""Chunks added up to the response of an answer that is not streamed: a pure fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from ...records import Reasoning, Record, Text, ToolCall
from .chunks import Chunk

__all__ = ["fold", "joined"]

_REPLACED: Final = frozenset(
    {"index", "type", "id", "name", "role", "format", "native_finish_reason", "channel", "finish_reason"}
)
_NUMBERED: Final = frozenset({"tool_calls", "reasoning_details"})


def joined(records: Iterable[Record]) -> Iterator[Record]:
    """The records with each run of fragments of one part made one, so that the fold joins each text but once."""
    run: list[Text | Reasoning | ToolCall] = []
    for record in records:
        if run and _continues(run[-1], record):
            run.append(record)  # type: ignore[arg-type]
            continue
        if run:
            yield _one(run)
            run = []
        if isinstance(record, Text | Reasoning | ToolCall):
            run.append(record)
        else:
            yield record
    if run:
        yield _one(run)


def _continues(last: Text | Reasoning | ToolCall, record: Record) -> bool:
    if type(record) is not type(last) or record.branch != last.branch:
        return False
    match record:
        case Text():
            return True
        case Reasoning(part=part, signature=None, redacted=None, kind=kind, id=None):
            return (
                isinstance(last, Reasoning)
                and last.part == part
                and last.kind == kind
                and not (last.redacted or last.signature)
            )
        case ToolCall(index=index, id="", name="", signature=None):
            return isinstance(last, ToolCall) and last.index == index
    return False


def _one(run: list[Text | Reasoning | ToolCall]) -> Record:
    first = run[0]
    if len(run) == 1:
        return first
    field = "arguments" if isinstance(first, ToolCall) else "text"
    return msgspec.structs.replace(first, **{field: "".join(getattr(record, field) for record in run)})


def fold(chunks: Iterable[Chunk]) -> dict[str, Any]:
    """``choices`` with whole messages, ``usage`` and whatever else stood beside the choices; ``error`` if one came."""
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        answer.update((key, value) for key, value in chunk.items() if key != "choices")
        for part in chunk.get("choices", ()):
            _add(choices.setdefault(part["index"], {"index": part["index"]}), part)
    for choice in choices.values():
        choice["message"] = _message(choice.pop("delta", {}))
    order = ("index", "message", "logprobs", "finish_reason")
    answer["choices"] = [{**{key: choice.get(key) for key in order}, **choice} for _, choice in sorted(choices.items())]
    return answer


def _add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a delta: texts are joined, lists go on, labels are replaced; null says nothing."""
    for key, value in part.items():
        before = whole.get(key)
        if value is None:
            whole.setdefault(key, None)
        elif isinstance(value, dict):
            if not isinstance(before, dict):
                before = whole[key] = {}
            _add(before, value)
        elif isinstance(value, list):
            if not isinstance(before, list):
                before = whole[key] = []
            _add_list(before, value, numbered=key in _NUMBERED)
        elif isinstance(value, str) and isinstance(before, str) and key not in _REPLACED:
            whole[key] = before + value
        else:
            whole[key] = value


def _add_list(whole: list[Any], part: list[Any], *, numbered: bool) -> None:
    for item in part:
        if not numbered or not isinstance(item, dict):
            whole.append(item)
            continue
        kind = item.get("type")
        same = (old for old in whole if old.get("index") == item.get("index") and kind in (None, old.get("type", kind)))
        known = next(same, None)
        if known is None:
            known = {}
            whole.append(known)
        _add(known, item)


def _message(delta: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None, **delta}
    for field in ("annotations", "tool_calls"):
        if field in message:
            message[field] = [{key: value for key, value in item.items() if key != "index"} for item in message[field]]
    return message
