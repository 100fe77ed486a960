"""Reading the Responses API's event stream (or its one JSON object) into records.

The finish marker is ``response.completed`` or ``response.incomplete``. What the protocol sends several times (a text
comes as deltas, as ``output_text.done``, in its content part, its item and in the final response) is said once, as
early as it came; servers that leave out deltas, or items, lose nothing. A full text that contradicts its own deltas
is kept as Unknown.

Items that have no record of their own (web searches, code interpreter calls, MCP calls ...) become one Unknown each,
whole, when they are done, and their deltas with content one Unknown each as they come; before the first of these
comes the event that added the item. Not carried: notices of progress that say nothing but their name
(``response.web_search_call.searching``), the ``*.done`` events of deltas that were carried, and the request's own
fields repeated in the response object. Unknown events are kept without ``sequence_number``, ``obfuscation`` and
``output_index``; their ``part`` is that of their item.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeAlias

from ...errors import ErrorInfo
from ...records import Cancelled, Completed, Failed, Interrupted, Record, Text, Unknown
from .. import sse
from ..decoder import StreamDecoder
from .answer import Answer, json_text
from .outcome import PROTOCOL, read_error, read_incomplete, read_usage
from .spoken import CONTENT, DELTAS, DONE, LaneKind, envelope, number, text_of

__all__ = ["Decoder"]

_TEXT_DELTA: Final = "response.output_text.delta"
_TEXT_KEYS: Final = frozenset(
    {"type", "delta", "item_id", "output_index", "content_index", "sequence_number", "logprobs", "obfuscation"}
)
_INDEXES: Final = ("content_index", "summary_index", "command_index")
_PLACE: Final = ("item_id", "content_index", "summary_index")
# The items that lanes are part of; a message where it is not said.
_ITEM_TYPES: Final[dict[LaneKind, str]] = {
    "summary": "reasoning",
    "reasoning": "reasoning",
    "function": "function_call",
    "custom": "custom_tool_call",
    "other": "",
}
_PROGRESS: Final = frozenset(
    {"added", "compacting", "completed", "failed", "generating", "in_progress", "interpreting", "searching"}
)
# An empty part that begins; its text follows, and comes whole with its end.
_BEGUN: Final = frozenset(
    {"response.content_part.added", "response.reasoning_part.added", "response.reasoning_summary_part.added"}
)
_QUIET: Final = frozenset({"", "keepalive", "message", "ping"})
# Fields of the response object that have a record, repeat the request, or are bookkeeping.
_RESPONSE_KNOWN: Final = frozenset(
    {
        "access_programs", "background", "billing", "completed_at", "conversation", "created_at", "error",
        "frequency_penalty", "id", "image", "incomplete_details", "input", "instructions", "max_output_tokens",
        "max_tool_calls", "metadata", "model", "object", "output", "output_text", "parallel_tool_calls",
        "presence_penalty", "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "reasoning", "safety_identifier", "seed", "service_tier", "status", "stop", "store",
        "stream", "temperature", "text", "tool_choice", "tools", "top_k", "top_logprobs", "top_p", "truncation",
        "usage", "user",
    }
)  # fmt: skip

_Handler: TypeAlias = Callable[["Decoder", str, dict[str, Any], list[Record]], bool]


class Decoder(StreamDecoder):
    """One answer of ``POST /v1/responses``. ``response.cancelled`` (a background response that someone stopped) gives
    the terminal Cancelled; ``response.failed`` and an ``error`` event give Failed, with what came before kept.

    The stop reason of a completed response is ``tool_calls`` if anything in it waits for the client (a function or
    custom call, a computer, shell or patch call without its output, an approval), ``content_filter`` if it is nothing
    but a refusal, else ``stop``.
    """

    protocol: ClassVar[str] = PROTOCOL

    def __init__(self, *, limit: int = sse.DEFAULT_LIMIT) -> None:
        super().__init__(limit=limit)
        self._answer = Answer()
        self._text_lanes = self._answer.text_lanes
        self._heard: set[tuple[str, int | None]] = set()  # hosted tools' deltas that were carried

    def _event(self, name: str, payload: dict[str, Any], out: list[Record]) -> None:
        kind = payload.get("type")
        if kind == _TEXT_DELTA:
            try:
                lane = self._text_lanes.get(
                    (payload.get("item_id"), payload.get("output_index"), payload.get("content_index"))
                )
            except TypeError:  # an index that is a list: the long way knows what to do
                lane = None
            delta = payload.get("delta")
            if lane is not None and type(delta) is str and not payload.get("logprobs") and payload.keys() <= _TEXT_KEYS:
                if delta:
                    lane.said.append(delta)
                    out.append(Text(text=delta, part=lane.part))
                return
        if not isinstance(kind, str):
            kind = name if name != "message" else ""
        if kind in DELTAS:
            self._delta(kind, payload, out)
        else:
            self._other(kind, payload, out)

    def _literal(self, data: bytes, out: list[Record]) -> bool:  # noqa: ARG002 - the base's signature
        return data.strip() == b"[DONE]"  # OpenRouter sends it after the finish marker; alone it finishes nothing

    def _body(self, payload: Any, out: list[Record]) -> None:
        if not isinstance(payload, dict) or not ("output" in payload or payload.get("object") == "response"):
            super()._body(payload, out)
            return
        self._identify(payload)
        status = payload.get("status")
        if status in ("queued", "in_progress"):
            problem = f"the response is still {status}: it was given before its end"
            self._end(out, Interrupted(ErrorInfo("interrupted", problem, retryable=True)))
        else:
            self._finish("completed", payload, out)

    def _error(self, error: Any) -> ErrorInfo:
        return read_error(error)

    # --- events ---------------------------------------------------------------------------------------------------

    def _delta(self, kind: str, payload: dict[str, Any], out: list[Record]) -> None:
        lane_kind, index_key = DELTAS[kind]
        text = text_of(payload.get("delta"))
        rest = envelope(payload, *_PLACE, *(() if text is None else ("delta",)))
        if not text and not rest:
            return
        answer = self._answer
        item = answer.item(_ITEM_TYPES.get(lane_kind, "message"), payload)
        if lane_kind in ("function", "custom") and item.call is None:
            # A call that never began: its name will come with the item, and the arguments with it, once more.
            self._carry(kind, payload, out)
            return
        lane = answer.lane(item, lane_kind, number(payload.get(index_key)) or 0)
        if text:
            answer.say(lane, text, out)
        if rest:
            lane.logged = lane.logged or "logprobs" in rest
            answer.unknown({"type": kind, **rest}, lane.part, out)
        item_id = payload.get("item_id")
        if lane_kind == "text" and (item_id == item.id or not item_id):
            key = (item_id, payload.get("output_index"), payload.get("content_index"))
            if all(value is None or isinstance(value, str | int) for value in key):
                self._text_lanes[key] = lane

    def _other(self, kind: str, payload: dict[str, Any], out: list[Record]) -> None:
        family, _, step = kind.partition(".")
        if kind in ("error", "response.error") or (family != "response" and payload.get("error")):
            error = payload.get("error")
            self._end(out, Failed(read_error(error if isinstance(error, dict | str) else payload)))
            return
        if family == "response" and isinstance(payload.get("response"), dict | None):
            response = payload.get("response") or {}
            if step in ("created", "queued", "in_progress"):
                self._identify(response)
                return
            if step in ("completed", "incomplete", "failed", "cancelled", "done"):
                self._identify(response)
                self._finish(step, response, out)
                return
        if kind in _BEGUN:
            return
        handler = _HANDLERS.get(kind)
        if handler is None or not handler(self, kind, payload, out):
            self._carry(kind, payload, out)

    def _identify(self, response: dict[str, Any]) -> None:
        if isinstance(response.get("id"), str):
            self.response_id = response["id"]
        if isinstance(response.get("model"), str):
            self.model = response["model"]

    def _lane_done(self, kind: str, payload: dict[str, Any], out: list[Record]) -> bool:
        lane_kind, index_key = DELTAS[kind.removesuffix("done") + "delta"]
        field = DONE[lane_kind][1]
        item = self._answer.item(_ITEM_TYPES.get(lane_kind, "message"), payload)
        if lane_kind in ("function", "custom"):
            if item.call is not None:  # else the item will come with the same arguments, and with its name
                self._answer.settle(item, lane_kind, 0, json_text(payload.get(field)), out)
            return True
        index = number(payload.get(index_key)) or 0
        self._answer.settle(item, lane_kind, index, text_of(payload.get(field)), out)
        self._answer.settle_rest(item, (lane_kind, index), kind, envelope(payload, *_PLACE, field), out)
        return True

    def _part_done(self, kind: str, payload: dict[str, Any], out: list[Record]) -> bool:
        part = payload.get("part")
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            return False
        lane_kind = CONTENT.get(part["type"], ("other", ""))[0]
        item = self._answer.item(_ITEM_TYPES.get(lane_kind, "message"), payload)
        index = number(payload.get("summary_index" if "summary" in kind else "content_index")) or 0
        self._answer.content(item, index, part, out)
        return True

    def _annotation(self, _kind: str, payload: dict[str, Any], out: list[Record]) -> bool:
        annotation = payload.get("annotation")
        if not isinstance(annotation, dict):
            return False
        item = self._answer.item("message", payload)
        lane = self._answer.lane(item, "text", number(payload.get("content_index")) or 0)
        self._answer.cite(lane, annotation, out)
        return True

    def _item_event(self, kind: str, payload: dict[str, Any], out: list[Record]) -> bool:
        raw = payload.get("item")
        if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
            return False
        item = self._answer.item_of(raw, payload)
        if kind.endswith("added"):
            self._answer.begin(item, raw, out)
        else:
            self._answer.finish(item, raw, out)
        return True

    def _carry(self, kind: str, payload: dict[str, Any], out: list[Record]) -> None:
        """An event that has no record: kept, unless it only says that something goes on."""
        base, _, step = kind.rpartition(".")
        if not envelope(payload, "item_id", *_INDEXES) and (step in _PROGRESS or kind in _QUIET):
            return
        part = None
        if payload.get("item_id") is not None or payload.get("output_index") is not None:
            part = self._answer.part_for(self._answer.item("", payload), out)
        if step == "delta":
            self._heard.add((base, part))
        elif step == "done" and (base, part) in self._heard:
            return
        left_out = ("sequence_number", "obfuscation", *(("output_index",) if part is not None else ()))
        raw = {key: value for key, value in payload.items() if key not in left_out}
        out.append(Unknown(raw=raw, protocol=PROTOCOL, part=part))

    # --- the end --------------------------------------------------------------------------------------------------

    def _finish(self, step: str, response: dict[str, Any], out: list[Record]) -> None:
        """The final response: what it has that was never streamed, what it cost, and how it ended."""
        output = response.get("output")
        if isinstance(output, list):
            items = [raw for raw in output if isinstance(raw, dict) and isinstance(raw.get("type"), str)]
            self._answer.final(items, out)
        rest = {key: value for key, value in response.items() if key not in _RESPONSE_KNOWN and _tells(value)}
        if rest:
            out.append(Unknown(raw={"type": "response", **rest}, protocol=PROTOCOL))
        usage = read_usage(response.get("usage"))
        if usage is not None:
            out.append(usage)
        status = response.get("status")
        if step in ("completed", "done") and status in ("failed", "incomplete", "cancelled"):
            step = str(status)
        match step:
            case "failed":
                self._end(out, Failed(read_error(response.get("error"))))
            case "cancelled":
                self._end(out, Cancelled("the response was cancelled at the provider"))
            case "incomplete":
                self._end(out, read_incomplete(response))
            case _:
                self._end(out, Completed(stop_reason=self._answer.stop_reason, raw_stop_reason="completed"))


_HANDLERS: Final[dict[str, _Handler]] = {
    "response.output_item.added": Decoder._item_event,
    "response.output_item.done": Decoder._item_event,
    "response.output_text.annotation.added": Decoder._annotation,
    "response.content_part.done": Decoder._part_done,
    "response.reasoning_part.done": Decoder._part_done,
    "response.reasoning_summary_part.done": Decoder._part_done,
    **{kind.removesuffix("delta") + "done": Decoder._lane_done for kind in DELTAS},
}


def _tells(value: Any) -> bool:
    """Whether a field of the response object has anything in it but zeros and empty containers."""
    if isinstance(value, dict):
        return any(_tells(entry) for entry in value.values())
    if isinstance(value, list):
        return any(_tells(entry) for entry in value)
    return bool(value)
