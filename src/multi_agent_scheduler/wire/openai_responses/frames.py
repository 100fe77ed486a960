"""The items of an answer as they are written: each opens, says its pieces and closes, as events of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

__all__ = ["CallItem", "Content", "ItemBase", "MessageItem", "ReasoningItem", "Send", "WholeItem", "json_bytes"]

json_bytes: Final = msgspec.json.Encoder().encode

Send: TypeAlias = Callable[[str, dict[str, Any]], None]
"""Sends one event: its type, and its fields without ``type`` and ``sequence_number``."""

# kind -> the stem of its events, the field of its text, the events of its part, the part's type, its index's field
_CONTENT: Final = {
    "text": ("response.output_text", "text", "response.content_part", "output_text", "content_index"),
    "refusal": ("response.refusal", "refusal", "response.content_part", "refusal", "content_index"),
    "reasoning": ("response.reasoning_text", "text", "response.content_part", "reasoning_text", "content_index"),
    "summary": (
        "response.reasoning_summary_text", "text", "response.reasoning_summary_part", "summary_text", "summary_index"
    ),
}  # fmt: skip

# kind -> the item's type, the stem of its events, the field with its arguments
_CALLS: Final = {
    "function": ("function_call", "response.function_call_arguments", "arguments"),
    "custom": ("custom_tool_call", "response.custom_tool_call_input", "input"),
    "server": ("mcp_call", "response.mcp_call_arguments", "arguments"),
}


class ItemBase:
    """One entry of ``output``. ``raw`` is the item as it stands; ``open`` until ``output_item.done`` was sent."""

    __slots__ = ("index", "open", "raw", "send")

    def __init__(self, send: Send, index: int, raw: dict[str, Any]) -> None:
        self.send = send
        self.index = index
        self.raw = raw
        self.open = True
        send("response.output_item.added", {"output_index": index, "item": raw})

    def close(self, status: str = "completed") -> None:
        """Send what is still due. Safe to call again: nothing more is sent."""
        if self.open:
            self.open = False
            if "status" in self.raw:
                self.raw["status"] = status
            self.done()

    def done(self) -> None:
        """Send the item as it stands now; once more if something came late."""
        self.send("response.output_item.done", {"output_index": self.index, "item": self.raw})

    @property
    def place(self) -> dict[str, Any]:
        """The fields that say where an event belongs."""
        return {"item_id": self.raw["id"], "output_index": self.index}


class Content:
    """One content part (or part of a summary) of a message or of reasoning."""

    __slots__ = ("_entry", "_field", "_index", "_part", "_pieces", "_stem", "head", "item", "kind", "open", "tail")

    def __init__(self, item: ItemBase, kind: str, index: int, entry: dict[str, Any]) -> None:
        self._stem, self._field, self._part, _, index_key = _CONTENT[kind]
        self.item = item
        self.kind = kind
        self.open = True
        self._index = {index_key: index}
        self._entry = entry
        self._pieces: list[str] = []
        item.send(f"{self._part}.added", {**self.place, "part": entry})
        kind_of_event = f"{self._stem}.delta"
        fields = json_bytes({"type": kind_of_event, **self.place})
        self.head = b"event: " + kind_of_event.encode() + b"\ndata: " + fields[:-1] + b',"delta":'
        self.tail = b',"logprobs":[],"sequence_number":' if kind == "text" else b',"sequence_number":'

    @property
    def place(self) -> dict[str, Any]:
        """The fields that say where an event belongs."""
        return {**self.item.place, **self._index}

    def add(self, text: str) -> None:
        """Remember a piece, whose event the caller writes (it is the hot path)."""
        self._pieces.append(text)

    def cite(self, annotation: Any) -> None:
        """Add an annotation to a text."""
        notes: list[Any] = self._entry["annotations"]
        notes.append(annotation)
        where = {**self.place, "annotation_index": len(notes) - 1, "annotation": annotation}
        self.item.send("response.output_text.annotation.added", where)

    def close(self) -> None:
        """Send the whole of the part, once."""
        if not self.open:
            return
        self.open = False
        full = self._entry[self._field] = "".join(self._pieces)
        more: dict[str, Any] = {"logprobs": []} if self.kind == "text" else {}
        self.item.send(f"{self._stem}.done", {**self.place, self._field: full, **more})
        self.item.send(f"{self._part}.done", {**self.place, "part": self._entry})


class _WithContent(ItemBase):
    __slots__ = ("current",)

    def __init__(self, send: Send, index: int, raw: dict[str, Any]) -> None:
        self.current: Content | None = None
        super().__init__(send, index, raw)

    def _begin(self, kind: str, entries: list[Any], entry: dict[str, Any]) -> Content:
        if self.current is not None:
            self.current.close()
        entries.append(entry)
        self.current = Content(self, kind, len(entries) - 1, entry)
        return self.current

    def close(self, status: str = "completed") -> None:
        if self.current is not None:
            self.current.close()
        super().close(status)


class MessageItem(_WithContent):
    """An assistant's message: texts and refusals."""

    __slots__ = ()

    def __init__(self, send: Send, index: int, item_id: str, header: dict[str, Any]) -> None:
        raw = {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": [], **header}
        super().__init__(send, index, raw)

    def content(self, kind: str) -> Content:
        """A new content part; the one before it is closed."""
        entry: dict[str, Any] = {"type": "refusal", "refusal": ""}
        if kind == "text":
            entry = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return self._begin(kind, self.raw["content"], entry)

    def unknown(self, part: Any) -> None:
        """A content part of a type that has no record, passed on whole."""
        if self.current is not None:
            self.current.close()
        self.raw["content"].append(part)
        where = {**self.place, "content_index": len(self.raw["content"]) - 1, "part": part}
        self.send("response.content_part.added", where)
        self.send("response.content_part.done", where)


class ReasoningItem(_WithContent):
    """Reasoning: parts of a summary, or of the reasoning itself, and the seal."""

    __slots__ = ()

    def __init__(self, send: Send, index: int, item_id: str) -> None:
        super().__init__(send, index, {"id": item_id, "type": "reasoning", "summary": []})

    def content(self, kind: str) -> Content:
        """A new part; the one before it is closed."""
        entry = {"type": _CONTENT[kind][3], "text": ""}
        field = "summary" if kind == "summary" else "content"
        return self._begin(kind, self.raw.setdefault(field, []), entry)

    def seal(self, fields: dict[str, Any]) -> None:
        """What comes with the finished item. It closes the item, or sends the closed one once more."""
        self.raw.update(fields)
        if self.open:
            self.close()
        else:
            self.done()


class CallItem(ItemBase):
    """A tool call: for the client, or (kind "server") one that ran at the provider, which is shown as an MCP call."""

    __slots__ = ("_field", "_pieces", "_stem", "call_id", "kind")

    def __init__(self, send: Send, index: int, call: dict[str, Any]) -> None:
        """``call`` has ``item_id``, ``kind``, ``id`` and ``name``."""
        self.kind: str = call["kind"]
        self.call_id: str = call["id"]
        kind, self._stem, self._field = _CALLS[self.kind]
        self._pieces: list[str] = []
        raw = {"id": call["item_id"], "type": kind, "status": "in_progress", "name": call["name"], self._field: ""}
        if self.kind == "server":
            raw |= {"server_label": "provider", "output": None, "error": None}
        else:
            raw["call_id"] = self.call_id
        super().__init__(send, index, raw)

    def add(self, fragment: str) -> None:
        """A fragment of the arguments."""
        self._pieces.append(fragment)
        self.send(f"{self._stem}.delta", {**self.place, "delta": fragment})

    @property
    def complete(self) -> bool:
        """Whether the arguments are a whole JSON object, so that nothing more can follow."""
        text = "".join(self._pieces)
        if self.kind == "custom" or not text.lstrip().startswith("{"):
            return False
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True

    def close(self, status: str = "completed") -> None:
        if not self.open:
            return
        if self.kind != "custom" and status == "completed" and not self._pieces:
            self.add("{}")  # no arguments: clients parse this field as JSON
        full = self.raw[self._field] = "".join(self._pieces)
        self.send(f"{self._stem}.done", {**self.place, self._field: full})
        super().close(status)


class WholeItem(ItemBase):
    """An item that comes in one piece when it is done; events that belong to it may come before."""

    __slots__ = ("begun",)

    def __init__(self, send: Send, index: int, raw: dict[str, Any] | None) -> None:
        """``raw`` is the item as it begins; None where it is not known yet, so that only its place is taken."""
        self.begun = raw is not None
        if raw is not None:
            super().__init__(send, index, raw)
        else:
            self.send, self.index, self.raw, self.open = send, index, {}, True

    def finish(self, raw: dict[str, Any]) -> None:
        """The whole item."""
        self.raw = raw
        if not self.begun:
            self.send("response.output_item.added", {"output_index": self.index, "item": self._beginning()})
        self.open = False
        self.done()

    def _beginning(self) -> dict[str, Any]:
        return {**self.raw, "status": "in_progress"} if "status" in self.raw else self.raw

    def close(self, status: str = "completed") -> None:
        """An item that never came whole is not done, and nothing is sent for it."""
