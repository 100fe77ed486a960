"""An answer as it is told: its items, what each has said, and the records for what is new.

A decoder gives it fragments, finished parts and finished items in whatever order and number a server sends them; it
appends to ``out`` what was not said before, and never says anything twice.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from ...records import Citation, Reasoning, Record, Refusal, StopReason, Text, ToolCall, ToolResult, Unknown
from .outcome import PROTOCOL
from .spoken import CALLS, CONTENT, DONE, Item, Lane, LaneKind, number, says, text_of

__all__ = ["Answer", "json_text"]

_RESULTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})
# Items that wait for the client, which runs the tool or decides.
_CLIENT_RUN: Final = frozenset(
    {"computer_call", "local_shell_call", "shell_call", "apply_patch_call", "mcp_approval_request"}
)
# Fields of items that have a record, or say nothing that lasts.
_KNOWN: Final = {
    "message": frozenset({"type", "id", "status", "role", "content"}),
    "reasoning": frozenset({"type", "id", "status", "summary", "content", "encrypted_content", "redacted"}),
    "function_call": frozenset({"type", "id", "status", "call_id", "name", "arguments", "signature"}),
    "custom_tool_call": frozenset({"type", "id", "status", "call_id", "name", "input", "signature"}),
}


class Answer:
    """The items of one answer. ``text_lanes`` is a shortcut for the most frequent event, kept right by this class."""

    def __init__(self) -> None:
        self.text_lanes: dict[tuple[Any, Any, Any], Lane] = {}
        self._parts = 0
        self._calls = 0
        self._items: dict[int, Item] = {}  # by output_index
        self._by_id: dict[str, Item] = {}
        self._order: list[Item] = []
        self._waiting: set[str] = set()  # calls that the client has to answer
        self._spoke = False
        self._refused = False

    @property
    def stop_reason(self) -> StopReason:
        """Why a model stopped whose answer is complete."""
        if self._waiting:
            return "tool_calls"
        return "content_filter" if self._refused and not self._spoke else "stop"

    # --- finding --------------------------------------------------------------------------------------------------

    def item(self, type: str, payload: dict[str, Any]) -> Item:  # noqa: A002 - the field's name
        """The item that an event belongs to: by its id, else by its place (some servers change the ids as they go)."""
        item_id = payload.get("item_id")
        index = number(payload.get("output_index"))
        item = self._by_id.get(item_id) if isinstance(item_id, str) else None
        if item is None and index is not None:
            item = self._items.get(index)
        elif item is None and not item_id and self._order:
            item = self._order[-1]
        if item is not None and (not type or not item.type or item.type == type):
            item.type = item.type or type
            return item
        return self._new(type, item_id, index)

    def item_of(self, raw: dict[str, Any], payload: dict[str, Any]) -> Item:
        """The item of an ``output_item`` event: another id at a place that is finished is another item."""
        index = number(payload.get("output_index"))
        item_id = raw.get("id")
        item = self._by_id.get(item_id) if isinstance(item_id, str) else None
        if item is None and index is not None:
            item = self._items.get(index)
            if item is not None and item.done and item_id != item.id:
                item = None
        if item is not None and item.type in ("", raw["type"]):
            item.type = raw["type"]
            return item
        return self._new(raw["type"], item_id, index)

    def lane(self, item: Item, kind: LaneKind, index: int) -> Lane:
        """A lane of an item; a new one takes the next part, so ask only when there is something to say."""
        lane = item.lanes.get((kind, index))
        if lane is None:
            lane = item.lanes[kind, index] = Lane(item, kind, self._next_part())
            item.part = lane.part
        return lane

    def part_of(self, item: Item) -> int:
        """The part for what concerns the item as a whole."""
        if item.part is None:
            item.part = self._next_part()
        return item.part

    def _new(self, type: str, item_id: Any, index: int | None) -> Item:  # noqa: A002 - the field's name
        item = Item(type, item_id if isinstance(item_id, str) and item_id else None)
        if item.id is not None:
            self._by_id[item.id] = item
        if index is not None:
            self._items[index] = item
        self._order.append(item)
        self.text_lanes.clear()
        return item

    def _next_part(self) -> int:
        self._parts += 1
        return self._parts - 1

    # --- saying ---------------------------------------------------------------------------------------------------

    def say(self, lane: Lane, text: str, out: list[Record]) -> None:
        """A fragment, which must not be empty."""
        lane.said.append(text)
        match lane.kind:
            case "text":
                self._spoke = True
                out.append(Text(text=text, part=lane.part))
            case "refusal":
                self._refused = True
                out.append(Refusal(text=text, part=lane.part))
            case "summary":
                out.append(Reasoning(text=text, part=lane.part, kind="summary", id=lane.item.id))
            case "reasoning":
                out.append(Reasoning(text=text, part=lane.part, id=lane.item.id))
            case "function" | "custom":
                out.append(ToolCall(index=lane.item.call or 0, arguments=text, part=lane.part, kind=lane.kind))

    def settle(self, item: Item, kind: LaneKind, index: int, full: str | None, out: list[Record]) -> None:
        """The full text of a lane: whatever of it was not said yet is said now."""
        if not full:
            return
        lane = self.lane(item, kind, index)
        missing = lane.missing(full, out)
        if missing:
            self.say(lane, missing, out)

    def settle_rest(
        self, item: Item, key: tuple[LaneKind, int], event: str, rest: dict[str, Any], out: list[Record]
    ) -> None:
        """What a finished part has beyond its text: the logprobs, if the deltas had none, and what is unknown."""
        lane = item.lanes.get(key)
        if lane is not None and lane.logged:
            rest.pop("logprobs", None)
        new = {field: value for field, value in rest.items() if item.carried.get(f"{key}{field}") != value}
        if new:
            item.carried |= {f"{key}{field}": value for field, value in new.items()}
            self.unknown({"type": event, **new}, self.lane(item, *key).part, out)

    def content(self, item: Item, index: int, part: Any, out: list[Record]) -> None:
        """A finished content part, wherever it was found."""
        if isinstance(part, str):
            part = {"type": "summary_text" if item.type == "reasoning" else "output_text", "text": part}
        kind, field = CONTENT.get(part["type"], ("other", "")) if _typed(part) else ("other", "")
        if kind == "other":
            if says(part) and ("other", index) not in item.lanes:
                lane = self.lane(item, "other", index)
                self.unknown({"type": DONE["other"][0], "part": part}, lane.part, out)
            return
        self.settle(item, kind, index, text_of(part.get(field)), out)
        annotations = part.get("annotations")
        if kind == "text" and isinstance(annotations, list) and annotations:
            lane = self.lane(item, kind, index)
            for annotation in annotations[lane.cited :]:
                self.cite(lane, annotation, out)
        rest = {key: value for key, value in part.items() if key not in ("type", field, "annotations") and says(value)}
        self.settle_rest(item, (kind, index), DONE[kind][0], rest, out)

    def cite(self, lane: Lane, raw: Any, out: list[Record]) -> None:
        """An annotation of a text; the offsets of the API count the characters of the whole content part."""
        lane.cited += 1
        note = raw if isinstance(raw, dict) else {}
        url, title = note.get("url"), note.get("title") or note.get("filename")
        out.append(
            Citation(
                part=lane.part,
                url=url if isinstance(url, str) else None,
                title=title if isinstance(title, str) else None,
                start=number(note.get("start_index")),
                end=number(note.get("end_index")),
                raw=raw,
            )
        )

    def unknown(self, raw: Any, part: int | None, out: list[Record]) -> None:
        """What has no record of its own."""
        out.append(Unknown(raw=raw, protocol=PROTOCOL, part=part))

    # --- items ----------------------------------------------------------------------------------------------------

    def begin(self, item: Item, raw: dict[str, Any], out: list[Record]) -> None:
        """An item that was added: a call says its name, a message whatever else it has; the others wait for their
        end.
        """
        if item.type in CALLS:
            self._open_call(item, raw, out)
        elif item.type == "message":
            self._rest(item, raw, out)
        elif item.type != "reasoning":
            item.begun = raw

    def part_for(self, item: Item, out: list[Record]) -> int:
        """The part for an event of a hosted tool. Before the first, the item as it was added: what the event belongs
        to.
        """
        part = self.part_of(item)
        begun, item.begun = item.begun, None
        if begun is not None and not item.done:
            self.unknown({"type": "response.output_item.added", "item": begun}, part, out)
        return part

    def finish(self, item: Item, raw: dict[str, Any], out: list[Record]) -> None:
        """A finished item, from its own event or from the final response: what of it was not said is said now."""
        if item.type == "message":
            content = raw.get("content")
            for index, part in enumerate(content if isinstance(content, list) else [content]):
                self.content(item, index, part, out)
            self._rest(item, raw, out)
        elif item.type == "reasoning":
            self._reasoning(item, raw, out)
            self._rest(item, raw, out)
        elif item.type in CALLS:
            self._call(item, raw, out)
        elif not item.done:
            self._hosted(item, raw, out)
        item.done = True

    def _reasoning(self, item: Item, raw: dict[str, Any], out: list[Record]) -> None:
        item.id = item.id or (raw["id"] if isinstance(raw.get("id"), str) else None)
        for kind, field in (("summary_text", "summary"), ("reasoning_text", "content")):
            texts = raw.get(field)
            for index, part in enumerate(texts if isinstance(texts, list) else [texts]):
                self.content(item, index, {"type": kind, "text": part} if isinstance(part, str) else part, out)
        seal, redacted = raw.get("encrypted_content"), raw.get("redacted")
        last = next(reversed(item.lanes.values())) if item.lanes else None
        if not item.sealed and isinstance(seal, str) and seal:
            item.sealed = True
            kind_: Literal["summary"] | None = "summary" if last is not None and last.kind == "summary" else None
            out.append(Reasoning(signature=seal, part=self.part_of(item), kind=kind_, id=item.id))
        elif not item.sealed and isinstance(redacted, str) and redacted:
            item.sealed = True
            out.append(Reasoning(redacted=redacted, part=self.part_of(item), id=item.id))
        elif last is None and item.id and not item.done:
            out.append(Reasoning(part=self.part_of(item), id=item.id))  # it has to be sent back, so it is not lost

    def _open_call(self, item: Item, raw: dict[str, Any], out: list[Record]) -> None:
        name, call_id = raw.get("name"), raw.get("call_id") or raw.get("id")
        if item.call is not None or not isinstance(name, str) or not name:
            return
        kind = CALLS[item.type]
        lane = self.lane(item, kind, 0)
        item.call = self._calls
        self._calls += 1
        call_id = call_id if isinstance(call_id, str) else f"call_{item.call}"
        self._waiting.add(call_id)
        signature = raw["signature"] if isinstance(raw.get("signature"), str) else None
        item.sealed = signature is not None
        out.append(ToolCall(index=item.call, id=call_id, name=name, part=lane.part, kind=kind, signature=signature))
        self._rest(item, raw, out)

    def _call(self, item: Item, raw: dict[str, Any], out: list[Record]) -> None:
        self._open_call(item, raw, out)
        if item.call is None:
            if not item.done:
                self._hosted(item, raw, out)  # a call without a name cannot be made: kept as it came
            return
        kind = CALLS[item.type]
        self.settle(item, kind, 0, json_text(raw.get(DONE[kind][1])), out)
        signature = raw.get("signature")
        if isinstance(signature, str) and not item.sealed:
            item.sealed = True
            out.append(ToolCall(index=item.call, part=self.part_of(item), kind=kind, signature=signature))
        self._rest(item, raw, out)

    def _hosted(self, item: Item, raw: dict[str, Any], out: list[Record]) -> None:
        """An item of a tool that the provider runs, or one that is unknown here."""
        call_id = raw.get("call_id") or raw.get("id")
        if item.type in _CLIENT_RUN or (item.type == "tool_search_call" and raw.get("execution") == "client"):
            self._waiting.add(str(call_id))
        elif item.type.endswith("_output"):
            self._waiting.discard(str(call_id))
        if item.type in _RESULTS and isinstance(call_id, str):
            out.append(ToolResult(id=call_id, content=raw.get("output"), part=self.part_of(item)))
        else:
            self.unknown(raw, self.part_of(item), out)

    def _rest(self, item: Item, raw: dict[str, Any], out: list[Record]) -> None:
        """Fields of a known item that have no record (a message's ``phase``, a call's ``namespace``)."""
        known = _KNOWN[item.type]
        if raw.keys() <= known:
            return
        rest = {
            key: value
            for key, value in raw.items()
            if key not in known and says(value) and item.carried.get(key) != value
        }
        if not rest:
            return
        item.carried |= rest
        if item.type == "message":
            part = self.lane(item, "text", 0).part if item.part is None else item.part
            if isinstance(raw.get("id"), str):
                rest = {"id": raw["id"], **rest}
        else:
            part = self.part_of(item)
        self.unknown({"type": item.type, **rest}, part, out)

    def final(self, output: list[dict[str, Any]], out: list[Record]) -> None:
        """The final output, matched to what was streamed: by id, then by place, then in order among items of one
        type.
        """
        streamed = {id(item): item for item in self._order}
        matched: list[Item | None] = []
        for raw in output:
            item_id = raw.get("id")
            item = self._by_id.get(item_id) if isinstance(item_id, str) else None
            if item is not None and (item.type not in ("", raw["type"]) or streamed.pop(id(item), None) is None):
                item = None
            matched.append(item)
        for index, (raw, item) in enumerate(zip(output, matched, strict=True)):
            if item is None:
                at = self._items.get(index)
                left = [at] if at is not None and id(at) in streamed else []
                left += streamed.values()
                item = next((one for one in left if one.type in ("", raw["type"])), None)
                item = item if item is not None else self._new(raw["type"], raw.get("id"), None)
                streamed.pop(id(item), None)
            item.type = raw["type"]
            self.finish(item, raw, out)


def json_text(value: Any) -> str | None:
    """A call's arguments: text as it came; some servers send the object itself."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _typed(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("type"), str)
