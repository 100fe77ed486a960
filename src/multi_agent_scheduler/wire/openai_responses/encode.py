"""Writing records as the Responses API's event stream, or as its one response object.

What reads the bytes back sees the same records, but for what the protocol has no words for: ids are made up for items
that had none; ``part`` numbers count from 0 in order of appearance; a part that goes on after another item began goes
on as a part of its own; a function call without arguments gets ``{}``; stop reasons are those of the protocol (a stop
sequence is ``completed``), with ``raw_stop_reason`` its word for them; an interrupted or skipped answer is
``response.failed``; a tool that ran at the provider of another protocol is shown as an MCP call, so that no client
tries to answer it.

Two fields are ours, for seals that other providers want back and this protocol has no field for: ``signature`` on
calls, ``redacted`` on reasoning items. ``parse_request`` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ...errors import StreamReset
from ...records import (
    Cancelled,
    Citation,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Refusal,
    Reset,
    Skipped,
    Terminal,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
    is_content,
)
from .answer import json_text
from .frames import CallItem, Content, ItemBase, MessageItem, ReasoningItem, WholeItem, json_bytes
from .outcome import PROTOCOL, write_outcome, write_usage
from .spoken import DELTAS, DONE, text_of

__all__ = ["Encoder", "body"]

_DEFAULTS: Final[dict[str, Any]] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": False,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
_ANNOTATIONS: Final = frozenset({"url_citation", "file_citation", "container_file_citation", "file_path"})
_LANE_EVENT: Final = re.compile(
    r"response\.(output_text|refusal|reasoning_summary_text|reasoning_text|reasoning_summary|reasoning"
    r"|function_call_arguments|custom_tool_call_input)\.(delta|done)"
)
_LANE_FIELDS: Final = dict(DONE.values())
_LIFECYCLE: Final = re.compile(
    r"error|response\.(created|queued|in_progress|completed|incomplete|failed|cancelled|done|output_item\..*|.*_part\.added"
    r"|output_text\.annotation\.added)"
)


class Encoder:
    """The event stream of one response. ``encode`` renders a batch; the batch with the terminal ends the stream.

    ``id`` is the response's (``resp_...``), ``created`` in unix seconds. ``echo`` holds the request's fields that the
    response object repeats (``instructions``, ``tools``, ``temperature`` ...); the API's defaults stand for the others.
    Records of branches, and of other protocols without a meaning here, are left out. Raises
    :class:`~multi_agent_scheduler.errors.StreamReset` for a reset after content was shown.
    """

    protocol: Final = PROTOCOL

    def __init__(
        self, *, id: str, model: str, created: int, echo: Mapping[str, Any] | None = None  # noqa: A002 - the field's name
    ) -> None:  # fmt: skip
        self._response: dict[str, Any] = {
            "id": id,
            "object": "response",
            "created_at": created,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            "usage": None,
            **_DEFAULTS,
            **(echo or {}),
        }
        self._stem = id.removeprefix("resp_")
        self._sequence = 0
        self._frames: list[bytes] = []
        self._started = False
        self._shown = False  # content that a reset could not take back
        self._texts = self._refusals = False
        self._items: list[ItemBase] = []
        self._ids: set[str] = set()
        self._current: MessageItem | ReasoningItem | None = None
        self._contents: dict[int, Content] = {}  # by part
        self._reasoning: dict[str, ReasoningItem] = {}  # by the id that the records give
        self._calls: dict[int, CallItem] = {}
        self._by_part: dict[int, ItemBase] = {}  # for what concerns an item as a whole
        self._usage: dict[int, Usage] = {}
        self.done = False

    def start(self) -> bytes:
        """The events that open the stream, so that a client sees it accepted before the first record; b"" later on."""
        self._begin()
        return self._flush()

    def encode(self, records: Sequence[Record]) -> bytes:
        """The events of a batch of records; b"" if there is nothing to show. After the terminal nothing is shown."""
        for record in records:
            if self.done:
                break
            if record.branch is None:
                if type(record) is Text:
                    self._text(record)
                else:
                    self._record(record)
        return self._flush()

    def body(self, records: Sequence[Record]) -> dict[str, Any]:
        """The response object after these records (for a new encoder: all of a stream), for an answer as JSON."""
        self.encode(records)
        return self._snapshot()

    # --- records --------------------------------------------------------------------------------------------------

    def _text(self, record: Text) -> None:
        if not record.text:
            return
        content = self._contents.get(record.part)
        if content is None or not content.open or content.kind != "text":
            content = self._message_content(record.part, "text")
        self._texts = self._shown = True
        content.add(record.text)
        self._frames.append(b"%b%b%b%d}\n\n" % (content.head, json_bytes(record.text), content.tail, self._sequence))
        self._sequence += 1

    def _record(self, record: Record) -> None:
        self._shown = self._shown or is_content(record)
        match record:
            case Refusal() if record.text:
                self._refusals = True
                self._write(self._content(record.part, "refusal"), record.text)
            case Reasoning():
                self._reason(record)
            case ToolCall():
                self._call(record)
            case ToolResult():
                self._result(record)
            case Citation():
                self._cite(record)
            case Usage():
                self._usage[record.call] = record
            case Unknown() if record.protocol == PROTOCOL and isinstance(record.raw, dict):
                self._unknown(record.raw, record.part)
            case Reset() if self._shown:
                raise StreamReset(f"what was shown has been voided ({record.reason}): this stream cannot take it back")
            case Completed() | Failed() | Cancelled() | Interrupted() | Skipped():
                self._finish(record)

    def _write(self, content: Content, text: str) -> None:
        content.add(text)
        self._frames.append(b"%b%b%b%d}\n\n" % (content.head, json_bytes(text), content.tail, self._sequence))
        self._sequence += 1

    def _content(self, part: int, kind: str) -> Content:
        content = self._contents.get(part)
        if content is not None and content.open and content.kind == kind:
            return content
        return self._message_content(part, kind)

    def _message_content(self, part: int, kind: str) -> Content:
        header = self._by_part.get(part)
        message = header if isinstance(header, MessageItem) and header.open else self._message()
        content = self._contents[part] = message.content(kind)
        return content

    def _message(self, header: dict[str, Any] | None = None) -> MessageItem:
        """The open message, or a new one; a header always begins one."""
        if header is None and isinstance(self._current, MessageItem) and self._current.open:
            return self._current
        self._switch()
        header = header or {}
        item_id = self._free_id(header.get("id"), "msg")
        message = MessageItem(self._send, len(self._items), item_id, {**header, "id": item_id})
        self._items.append(message)
        self._current = message
        return message

    def _reason(self, record: Reasoning) -> None:
        if record.text:
            kind = "summary" if record.kind == "summary" else "reasoning"
            content = self._contents.get(record.part)
            if content is None or not content.open or content.kind != kind:
                content = self._reasoning_item(record).content(kind)
                self._contents[record.part] = content
                self._by_part[record.part] = content.item
            self._write(content, record.text)
        seal: dict[str, Any] = {}
        if record.signature:
            seal["encrypted_content"] = record.signature
        if record.redacted:
            seal["redacted"] = record.redacted
        if seal or (record.id and not record.text and record.id not in self._reasoning):
            item = self._by_part.get(record.part)
            if not isinstance(item, ReasoningItem):
                item = self._reasoning.get(record.id or "") or self._reasoning_item(record)
                self._by_part[record.part] = item
            item.seal(seal)

    def _reasoning_item(self, record: Reasoning) -> ReasoningItem:
        """The item that this reasoning belongs to: the open one with its id, or else the open one of its part."""
        item = self._reasoning.get(record.id) if record.id else self._by_part.get(record.part)
        if isinstance(item, ReasoningItem) and item.open:
            return item
        self._switch()
        item = ReasoningItem(self._send, len(self._items), self._free_id(record.id, "rs"))
        self._items.append(item)
        self._current = item
        if record.id:
            self._reasoning[record.id] = item
        return item

    def _call(self, record: ToolCall) -> None:
        item = self._calls.get(record.index)
        if item is None or (record.id and record.id != item.call_id):
            self._switch()
            call = {
                "item_id": self._free_id(None, {"function": "fc", "custom": "ctc", "server": "mcp"}[record.kind]),
                "kind": record.kind,
                "id": record.id or f"call_{self._stem}_{record.index}",
                "name": record.name,
            }
            item = self._calls[record.index] = CallItem(self._send, len(self._items), call)
            self._items.append(item)
            self._by_part[record.part] = item
        if record.arguments:
            item.add(record.arguments)
        if record.signature:
            item.raw["signature"] = record.signature

    def _result(self, record: ToolResult) -> None:
        content = record.content
        call = next((item for item in self._calls.values() if item.call_id == record.id), None)
        self._switch()
        if call is not None and call.kind == "server":
            text = json_text(content)
            call.raw["error" if record.is_error else "output"] = text
            call.close()
            return
        custom = call is not None and call.kind == "custom"
        if call is not None:
            call.close()
        raw = {
            "id": self._free_id(None, "fco"),
            "type": "custom_tool_call_output" if custom else "function_call_output",
            "call_id": record.id,
            "output": content if _is_content(content) else json_text(content) or "",
            "status": "completed",
        }
        self._whole(raw, record.part)

    def _cite(self, record: Citation) -> None:
        content = self._contents.get(record.part)
        if content is None or content.kind != "text":
            content = self._message_content(record.part, "text")
        raw = record.raw
        if not (isinstance(raw, dict) and raw.get("type") in _ANNOTATIONS):
            raw = _annotation(record)
        content.cite(raw)

    # --- what has no record ---------------------------------------------------------------------------------------

    def _unknown(self, raw: dict[str, Any], part: int | None) -> None:
        kind = raw.get("type")
        if kind == "response.output_item.added" and part is not None and part not in self._by_part:
            if isinstance(raw.get("item"), dict):
                self._hosted(raw["item"], part)
            return
        if not isinstance(kind, str) or not kind or _LIFECYCLE.fullmatch(kind):
            return  # an event without a type has no place in a typed stream, and nothing may forge the stream's course
        self._begin()
        if kind == "response":
            rest = {key: value for key, value in raw.items() if key not in self._response and key != "type"}
            self._response |= rest
        elif _LANE_EVENT.fullmatch(kind):
            if part is not None:
                self._lane_event(kind, raw, part)
        elif part is None:
            self._send(kind, {key: value for key, value in raw.items() if key != "type"})
        elif kind == "response.content_part.done":
            if isinstance(raw.get("part"), dict):
                self._message().unknown(raw["part"])
        elif "." in kind:
            self._hosted_event(kind, raw, part)
        elif kind == "message":
            self._by_part[part] = self._message({key: value for key, value in raw.items() if key != "type"})
        elif isinstance(item := self._by_part.get(part), ReasoningItem | CallItem) and item.raw["type"] == kind:
            item.raw |= {key: value for key, value in raw.items() if key not in ("id", "type")}
            if not item.open:
                item.done()
        else:
            self._whole(raw, part)

    def _lane_event(self, kind: str, raw: dict[str, Any], part: int) -> None:
        """Fields without a record on a delta or at its end (logprobs, say): the same event, without a text of its
        own.
        """
        content = self._contents.get(part)
        item = self._by_part.get(part)
        lane, _ = DELTAS[f"{kind.rpartition('.')[0]}.delta"]
        if content is not None and content.kind == lane:
            where = content.place
        elif isinstance(item, CallItem) and item.kind == lane:
            where = item.place
        elif lane == "text":
            where = self._content(part, "text").place
        else:
            return  # of something that has not begun: it will come whole
        fields = {key: value for key, value in raw.items() if key != "type"}
        if kind.endswith(".delta"):
            if text_of(fields.get("delta")) is not None:
                fields["delta"] = ""  # text has records; this is not one of them
            self._send(kind, {**where, "delta": "", **fields})
        else:
            self._send(kind, {**where, _LANE_FIELDS.get(kind, "text"): "", **fields})

    def _hosted_event(self, kind: str, raw: dict[str, Any], part: int) -> None:
        """An event of a hosted tool. If its item was not added before, its place is taken until it comes whole."""
        item = self._by_part.get(part)
        if item is None:
            item = self._hosted(None, part)
        fields = {key: value for key, value in raw.items() if key != "type"}
        self._send(kind, {"output_index": item.index, **fields})

    def _whole(self, raw: dict[str, Any], part: int) -> None:
        """An item that is complete."""
        if raw.get("type") == "reasoning" and not raw.get("id"):
            raw = {**raw, "id": self._free_id(None, "rs")}  # clients tell reasoning items apart by their ids
        item = self._by_part.get(part)
        if not isinstance(item, WholeItem) or not item.open:
            item = self._hosted(None, part)
        item.finish(raw)

    def _hosted(self, begun: dict[str, Any] | None, part: int) -> WholeItem:
        self._switch()
        item = WholeItem(self._send, len(self._items), begun)
        self._items.append(item)
        self._by_part[part] = item
        return item

    # --- the stream -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._started:
            return
        self._started = True
        for kind in ("response.created", "response.in_progress"):
            self._send(kind, {"response": self._snapshot()})

    def _send(self, kind: str, fields: dict[str, Any]) -> None:
        self._begin()
        event = json_bytes({"type": kind, **fields, "sequence_number": self._sequence})
        self._frames.append(b"event: " + kind.encode("utf-8", "replace") + b"\ndata: " + event + b"\n\n")
        self._sequence += 1

    def _switch(self) -> None:
        """Another item begins: the open message or reasoning ends, and so do calls that have all their arguments."""
        self._begin()
        if self._current is not None:
            self._current.close()
            self._current = None
        for call in self._calls.values():
            if call.open and call.complete:
                call.close()

    def _free_id(self, wanted: Any, prefix: str) -> str:
        """The wanted id if it is not taken (clients refuse two items with one id), else one made from the place."""
        made = f"{prefix}_{self._stem}_{len(self._items)}"
        chosen = wanted if isinstance(wanted, str) and wanted and wanted not in self._ids else made
        self._ids.add(chosen)
        return chosen

    def _finish(self, terminal: Terminal) -> None:
        self._begin()
        self.done = True
        calls = any(item.kind != "server" for item in self._calls.values())
        refused = self._refusals and not self._texts and not calls
        status, why = write_outcome(terminal, refused=refused)
        for item in self._items:
            item.close("completed" if status == "completed" else "incomplete")
        self._response |= {"status": status, **why}
        self._send(f"response.{status}", {"response": self._snapshot()})

    def _snapshot(self) -> dict[str, Any]:
        usage = write_usage(self._usage.values()) if self.done else None
        output = [item.raw for item in self._items if not (isinstance(item, WholeItem) and item.open)]
        return {**self._response, "output": output, "usage": usage}

    def _flush(self) -> bytes:
        data = b"".join(self._frames)
        self._frames.clear()
        return data


def body(
    records: Iterable[Record], *, id: str, model: str, created: int, echo: Mapping[str, Any] | None = None  # noqa: A002
) -> dict[str, Any]:  # fmt: skip
    """The response object of a finished stream, for an answer as JSON; the arguments are those of :class:`Encoder`."""
    return Encoder(id=id, model=model, created=created, echo=echo).body(list(records))


def _is_content(content: Any) -> bool:
    """Whether a tool's result is a list of this protocol's parts; any other value is shown as JSON text."""
    return isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") in ("input_text", "input_image", "input_file") for part in content
    )


def _annotation(record: Citation) -> dict[str, Any]:
    """Another protocol's citation in this one's words: of an address, or else of a document."""
    if record.url is None:
        return {"type": "file_citation", "file_id": "", "filename": record.title or "", "index": record.start or 0}
    return {
        "type": "url_citation",
        "url": record.url,
        "title": record.title or "",
        "start_index": record.start or 0,
        "end_index": record.end or 0,
    }
