"""A reader of UI message streams as strict as the SDK's own (``uiMessageChunkSchema``, ``processUIMessageStream``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from multi_agent_scheduler.records import Record
from multi_agent_scheduler.wire.ai_sdk import Encoder

# The fields that version 6 demands of each chunk, and those that it knows beside them.
_OPTIONAL: Final = {"providerMetadata"}
_TOOL: Final = {"providerExecuted", "providerMetadata", "dynamic", "title"}
SCHEMA: Final[dict[str, tuple[set[str], set[str]]]] = {
    "start": (set(), {"messageId", "messageMetadata"}),
    "start-step": (set(), set()),
    "text-start": ({"id"}, _OPTIONAL),
    "text-delta": ({"id", "delta"}, _OPTIONAL),
    "text-end": ({"id"}, _OPTIONAL),
    "reasoning-start": ({"id"}, _OPTIONAL),
    "reasoning-delta": ({"id", "delta"}, _OPTIONAL),
    "reasoning-end": ({"id"}, _OPTIONAL),
    "tool-input-start": ({"toolCallId", "toolName"}, _TOOL | {"inputEncoding"}),
    "tool-input-delta": ({"toolCallId", "inputTextDelta"}, set()),
    "tool-input-available": ({"toolCallId", "toolName", "input"}, _TOOL),
    "tool-input-error": ({"toolCallId", "toolName", "input", "errorText"}, _TOOL),
    "tool-output-available": ({"toolCallId", "output"}, _TOOL | {"preliminary"}),
    "tool-output-error": ({"toolCallId", "errorText"}, _TOOL),
    "source-url": ({"sourceId", "url"}, {"title"}),
    "source-document": ({"sourceId", "mediaType", "title"}, {"filename"}),
    "data-reset": ({"data"}, {"id"}),
    "finish-step": (set(), set()),
    "finish": (set(), {"finishReason", "messageMetadata"}),
    "error": ({"errorText"}, set()),
    "abort": (set(), {"reason"}),
}
REASONS: Final = {"stop", "length", "content-filter", "tool-calls", "error", "other"}


def chunks(data: bytes) -> list[dict[str, Any]]:
    """The chunks of a whole stream, each checked against the schema; the end marker is demanded and left out."""
    assert data.endswith(b"\n\n")
    frames = data[:-2].split(b"\n\n")
    assert frames.pop() == b"data: [DONE]"
    found = []
    for frame in frames:
        assert frame.startswith(b"data: ") and b"\n" not in frame
        chunk = json.loads(frame[6:])
        needed, known = SCHEMA[chunk["type"]]
        there = chunk.keys() - {"type"}
        assert needed <= there <= needed | known, chunk
        assert chunk.get("finishReason", "stop") in REASONS
        found.append(chunk)
    return found


def said(*records: Record) -> list[dict[str, Any]]:
    """The chunks of a stream with these records."""
    return chunks(Encoder(id="msg_1", model="m").encode(records))


class Page:
    """A message as a page has it after some chunks: ``parts`` as ``useChat`` builds and posts them."""

    def __init__(self, stream: Sequence[dict[str, Any]]) -> None:
        self.parts: list[dict[str, Any]] = []
        self.error: str | None = None
        self.reason: str | None = None
        self.aborted = False
        self._open: dict[tuple[str, str], dict[str, Any]] = {}
        for chunk in stream:
            self._take(chunk)

    @property
    def message(self) -> dict[str, Any]:
        return {"id": "msg_1", "role": "assistant", "parts": self.parts}

    def _take(self, chunk: dict[str, Any]) -> None:
        kind = chunk["type"].partition("-")[0]
        match chunk["type"]:
            case "start-step":
                self.parts.append({"type": "step-start"})
            case "text-start" | "reasoning-start":
                part = self._open[kind, chunk["id"]] = {"type": kind, "text": "", "state": "streaming"}
                self.parts.append(part)
            case "text-delta" | "reasoning-delta":
                self._open[kind, chunk["id"]]["text"] += chunk["delta"]
            case "text-end" | "reasoning-end":
                part = self._open.pop((kind, chunk["id"]))
                part["state"] = "done"
                if "providerMetadata" in chunk:
                    part["providerMetadata"] = chunk["providerMetadata"]
            case "tool-input-start":
                self.parts.append(
                    {
                        "type": f"tool-{chunk['toolName']}",
                        "toolCallId": chunk["toolCallId"],
                        "state": "input-streaming",
                        "rawInput": "",
                        "providerExecuted": chunk.get("providerExecuted", False),
                    }
                )
            case "tool-input-delta":
                self._tool(chunk)["rawInput"] += chunk["inputTextDelta"]
            case "tool-input-available":
                self._tool(chunk).update(state="input-available", input=chunk["input"])
                if "providerMetadata" in chunk:
                    self._tool(chunk)["callProviderMetadata"] = chunk["providerMetadata"]
            case "tool-input-error" | "tool-output-error":
                self._tool(chunk).update(state="output-error", errorText=chunk["errorText"])
            case "tool-output-available":
                self._tool(chunk).update(state="output-available", output=chunk["output"])
            case "source-url" | "source-document" | "data-reset":
                self.parts.append(chunk)
            case "finish":
                self.reason = chunk["finishReason"]
            case "error":
                self.error = chunk["errorText"]
            case "abort":
                self.aborted = True

    def _tool(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """The call in the step that runs, or else the last one of the same id, as the SDK looks for it."""
        found = [part for part in self.parts if part.get("toolCallId") == chunk["toolCallId"]]
        assert found, f"no call {chunk['toolCallId']!r}"
        return found[-1]
