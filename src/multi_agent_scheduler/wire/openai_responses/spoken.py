"""What a decoder remembers of an answer's items: what each has said so far, so that nothing is said twice."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

from ...records import Record, Unknown
from .outcome import PROTOCOL

__all__ = ["CALLS", "CONTENT", "DELTAS", "DONE", "Item", "Lane", "LaneKind", "envelope", "number", "says", "text_of"]

LaneKind: TypeAlias = Literal["text", "refusal", "summary", "reasoning", "function", "custom", "other"]

DELTAS: Final[dict[str, tuple[LaneKind, str]]] = {
    "response.output_text.delta": ("text", "content_index"),
    "response.refusal.delta": ("refusal", "content_index"),
    "response.reasoning_summary_text.delta": ("summary", "summary_index"),
    "response.reasoning_text.delta": ("reasoning", "content_index"),
    # Names from before the API was released, which some servers still use.
    "response.reasoning_summary.delta": ("summary", "summary_index"),
    "response.reasoning.delta": ("reasoning", "content_index"),
    "response.function_call_arguments.delta": ("function", ""),
    "response.custom_tool_call_input.delta": ("custom", ""),
}
"""The events that carry a fragment: which lane of the item it extends, and the field that has the lane's index."""

DONE: Final[dict[LaneKind, tuple[str, str]]] = {
    "text": ("response.output_text.done", "text"),
    "refusal": ("response.refusal.done", "refusal"),
    "summary": ("response.reasoning_summary_text.done", "text"),
    "reasoning": ("response.reasoning_text.done", "text"),
    "function": ("response.function_call_arguments.done", "arguments"),
    "custom": ("response.custom_tool_call_input.done", "input"),
    "other": ("response.content_part.done", "part"),
}
"""The event that closes a lane, and the field in which it repeats the whole of it."""

CALLS: Final[dict[str, Literal["function", "custom"]]] = {"function_call": "function", "custom_tool_call": "custom"}
"""The items that are tool calls for the client."""

CONTENT: Final[dict[str, tuple[LaneKind, str]]] = {
    "output_text": ("text", "text"),
    "text": ("text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning", "text"),
    "summary_text": ("summary", "text"),
}
"""The types of content parts: the lane, and the field that has the text."""

# What only says where an event belongs, or is noise. The item's place is kept in the record's ``part``.
_ENVELOPE: Final = frozenset({"type", "sequence_number", "obfuscation", "output_index"})


class Lane:
    """One run of text inside an item: a content part, a summary part, or a call's arguments."""

    __slots__ = ("cited", "item", "kind", "logged", "part", "said", "settled")

    def __init__(self, item: Item, kind: LaneKind, part: int) -> None:
        self.item = item
        self.kind: LaneKind = kind
        self.part = part
        self.said: list[str] = []
        self.settled = False  # its full text came, and what was missing of it has been said
        self.cited = 0
        self.logged = False  # its logprobs came with the deltas

    def missing(self, full: str, out: list[Record]) -> str:
        """What of the full text has not been said yet; a full text that contradicts the deltas is kept as Unknown."""
        said = "".join(self.said)
        if self.settled or full == said:
            return ""
        self.settled = True
        if full.startswith(said):
            return full[len(said) :]
        if not self._same(said, full):
            event, field = DONE[self.kind]
            out.append(Unknown(raw={"type": event, field: full}, protocol=PROTOCOL, part=self.part))
        return ""

    def _same(self, said: str, full: str) -> bool:
        if self.kind != "function":
            return said.strip() == full.strip()
        try:
            return bool(msgspec.json.decode(said) == msgspec.json.decode(full))
        except (msgspec.DecodeError, RecursionError):
            return False


class Item:
    """One entry of the answer's ``output``."""

    __slots__ = ("begun", "call", "carried", "done", "id", "lanes", "part", "sealed", "type")

    def __init__(self, type: str, id: str | None) -> None:  # noqa: A002 - the fields' names
        self.type = type
        self.id = id
        self.lanes: dict[tuple[LaneKind, int], Lane] = {}
        self.part: int | None = None  # the part that it used last
        self.call: int | None = None  # the number of its tool call
        self.carried: dict[str, Any] = {}  # fields without a record of their own that have been passed on
        self.begun: dict[str, Any] | None = None  # a hosted tool's item as it was added, until something of it is said
        self.done = False
        self.sealed = False


def envelope(payload: dict[str, Any], *known: str) -> dict[str, Any]:
    """The fields of an event that say something beyond where it belongs, without those that are ``known``."""
    return {key: value for key, value in payload.items() if key not in _ENVELOPE and key not in known and says(value)}


def says(value: Any) -> bool:
    """Whether a field says anything: not null and not empty."""
    return not (value is None or value == "" or value == [] or value == {})


def number(value: Any) -> int | None:
    """An index, which some servers send as a string."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else None


def text_of(value: Any) -> str | None:
    """The text of a delta or a part, in any of the shapes that servers give it; None if it has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return text_of(value.get("text"))
    if isinstance(value, list):
        texts = [text_of(entry) for entry in value]
        return "".join(text for text in texts if text) if all(text is not None for text in texts) else None
    return None
