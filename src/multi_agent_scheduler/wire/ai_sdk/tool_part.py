"""One tool call as it is streamed to a page."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ...records import ToolCall, ToolResult
from .vocabulary import NAMESPACE

__all__ = ["ToolPart"]

_decode: Final = msgspec.json.Decoder().decode


class ToolPart:
    """Gives the chunks of one call. ``id`` is what the client calls it by, ``protocol`` whose its signature is."""

    __slots__ = ("_finished", "_kind", "_last", "_name", "_pieces", "_protocol", "_signature", "id")

    def __init__(self, record: ToolCall, protocol: str | None) -> None:
        self.id = record.id or f"call_{record.index}"
        self._name = record.name or "unknown"
        self._kind = record.kind
        self._protocol = protocol
        self._pieces: list[str] = []
        self._last = ""
        self._signature: str | None = None
        self._finished = False

    def start(self) -> dict[str, Any]:
        chunk = {"type": "tool-input-start", **self._names()}
        return {**chunk, "inputEncoding": "text"} if self._kind == "custom" else chunk

    def feed(self, record: ToolCall) -> list[dict[str, Any]]:
        """The chunks of a fragment. What comes when the call is finished comes too late: the page has it already."""
        self._signature = record.signature or self._signature
        if self._finished or not record.arguments:
            return []
        self._last = record.arguments
        self._pieces.append(record.arguments)
        return [{"type": "tool-input-delta", "toolCallId": self.id, "inputTextDelta": record.arguments}]

    def is_whole(self) -> bool:
        """Whether the arguments are a whole JSON object, so that nothing more can follow."""
        if self._finished or self._kind == "custom" or not self._last.rstrip().endswith("}"):
            return False
        try:
            return isinstance(_decode("".join(self._pieces)), dict)
        except (ValueError, RecursionError):
            return False

    def finish(self) -> list[dict[str, Any]]:
        """The chunk that makes the input available, or says that it is none; nothing if that was said."""
        if self._finished:
            return []
        self._finished = True
        text = "".join(self._pieces)
        chunk: dict[str, Any] = {"type": "tool-input-available", **self._names(), "input": text}
        own: dict[str, str] = {}
        if self._signature is not None:
            own = {"signature": self._signature, **({"protocol": self._protocol} if self._protocol else {})}
        if self._kind == "custom":
            own["kind"] = self._kind
        if own:
            chunk["providerMetadata"] = {NAMESPACE: own}
        if self._kind == "custom":
            return [chunk]
        try:
            chunk["input"] = _decode(text) if text else {}
        except (ValueError, RecursionError):
            chunk |= {"type": "tool-input-error", "errorText": f"the arguments of {self._name} are no JSON"}
        return [chunk]

    def output(self, result: ToolResult) -> dict[str, Any]:
        """The chunk of the call's result."""
        chunk: dict[str, Any] = {"toolCallId": self.id}
        if self._kind == "server":
            chunk["providerExecuted"] = True
        if not result.is_error:
            return {"type": "tool-output-available", **chunk, "output": result.content}
        content = result.content
        text = content if isinstance(content, str) else msgspec.json.encode(content).decode()
        return {"type": "tool-output-error", **chunk, "errorText": text}

    def _names(self) -> dict[str, Any]:
        names: dict[str, Any] = {"toolCallId": self.id, "toolName": self._name}
        return {**names, "providerExecuted": True} if self._kind == "server" else names
