"""What a stream can say: one tagged union of small frozen records.

A stream is an append-only log of these. ``seq`` counts from 1 without gaps inside one stream; a record that is not in a
log yet has ``seq`` 0. ``branch`` names the candidate that a record belongs to; the main text has none.

Deltas carry ``part``, the index of the content part (block, output item) that they extend, so that a protocol with
blocks survives: two texts with different ``part`` are two blocks. Deltas of one part arrive in order.

Every task's stream ends in exactly one terminal record: :data:`TERMINALS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from .errors import ErrorInfo

__all__ = [
    "SUCCESSFUL",
    "TERMINALS",
    "CallEnded",
    "CallStarted",
    "Cancelled",
    "Citation",
    "Completed",
    "Failed",
    "Interrupted",
    "Reasoning",
    "Record",
    "Refusal",
    "Reset",
    "Skipped",
    "StopReason",
    "Terminal",
    "TerminalName",
    "Text",
    "ToolCall",
    "ToolResult",
    "Unknown",
    "Usage",
    "decode_record",
    "encode_record",
    "is_content",
    "numbered",
    "terminal_name",
]

StopReason: TypeAlias = Literal["stop", "stop_sequence", "length", "tool_calls", "content_filter", "pause", "other"]
"""Why a model stopped, in one vocabulary; the provider's own word is kept beside it as ``raw_stop_reason``.

``pause`` is a provider that paused a turn to be continued (Anthropic ``pause_turn``); ``other`` is a word unknown here.
"""

SUCCESSFUL: Final = frozenset({"stop", "stop_sequence", "length", "tool_calls"})
"""The stop reasons of a success. ``content_filter`` (refused or blocked), ``pause`` and ``other`` are none."""

TerminalName: TypeAlias = Literal["completed", "failed", "cancelled", "interrupted", "skipped"]
UsageSource: TypeAlias = Literal["reported", "estimated", "unknown"]


class _Base(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    seq: int = 0
    branch: str | None = None


class Text(_Base, frozen=True, tag="text", gc=False):
    """A piece of the answer."""

    text: str
    part: int = 0


class Reasoning(_Base, frozen=True, tag="reasoning", gc=False):
    """A piece of the model's reasoning: its own channel, never part of the text.

    ``signature`` is the provider's seal over the part (Anthropic's signature, Gemini's thoughtSignature, OpenAI's
    encrypted_content); ``redacted`` is a part that came only in encrypted form (Anthropic's redacted_thinking).
    ``kind`` is "summary" where the provider sends a summary of the reasoning instead of the reasoning; ``id`` is the
    provider's id of the item. Each must be sent back as it came.
    """

    text: str = ""
    part: int = 0
    signature: str | None = None
    redacted: str | None = None
    kind: Literal["summary"] | None = None
    id: str | None = None


class Refusal(_Base, frozen=True, tag="refusal", gc=False):
    """A piece of the model's explanation of why it refuses (OpenAI)."""

    text: str
    part: int = 0


class ToolCall(_Base, frozen=True, tag="tool_call", gc=False):
    """A tool call, or a fragment of one. The first record of an ``index`` has ``id`` and ``name``.

    ``index`` counts the tool calls of one answer from 0; ``arguments`` is a fragment of JSON text (of free text where
    ``kind`` is "custom"). ``kind`` "server" is a tool that the provider itself runs. ``signature`` as in
    :class:`Reasoning` (Gemini puts it on calls).
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    part: int = 0
    kind: Literal["function", "custom", "server"] = "function"
    signature: str | None = None


class ToolResult(_Base, frozen=True, tag="tool_result"):
    """The result of a tool that ran inside the stream, at the provider or by a tool loop; ``content`` is plain data."""

    id: str
    content: Any = None
    name: str = ""
    is_error: bool = False
    part: int = 0


class Citation(_Base, frozen=True, tag="citation"):
    """A source for the text of ``part``. ``start`` and ``end`` are the provider's offsets; ``raw`` is all of it."""

    part: int = 0
    url: str | None = None
    title: str | None = None
    text: str | None = None
    start: int | None = None
    end: int | None = None
    raw: Any = None


class Usage(_Base, frozen=True, tag="usage"):
    """Tokens of one Call, cumulative: a later record of the same ``call`` replaces an earlier one. None is unknown.

    ``input_tokens`` is everything that the prompt counted for, cache reads and writes included; ``output_tokens``
    includes reasoning. ``raw`` is the provider's own usage object. What is ``cached`` was used for somebody else
    before: it is told again with an answer from a cache, and counts nowhere as used.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    source: UsageSource = "reported"
    call: int = 0
    raw: Any = None
    cached: bool = False

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; None while either is unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


class CallStarted(_Base, frozen=True, tag="call_started", gc=False):
    """One request to one leaf agent began. ``call`` counts the Calls of a stream from 1.

    ``attempt`` counts the requests that were made for the same answer, from 1. A ``cached`` Call is told again, not
    made: its records, usage among them, are those of the Call that was made for somebody else.
    """

    call: int
    agent: str
    model: str | None = None
    protocol: str | None = None
    attempt: int = 1
    cached: bool = False


class CallEnded(_Base, frozen=True, tag="call_ended"):
    """A Call ended. ``outcome`` is the name of the terminal that it would be; times are seconds since its start."""

    call: int
    outcome: TerminalName
    stop_reason: StopReason | None = None
    error: ErrorInfo | None = None
    usage: Usage | None = None
    model: str | None = None
    response_id: str | None = None
    request_id: str | None = None
    latency: float | None = None
    ttft: float | None = None


class Reset(_Base, frozen=True, tag="reset", gc=False):
    """What was said from ``from_seq`` up to here is void: another attempt begins."""

    from_seq: int
    reason: str


class Unknown(_Base, frozen=True, tag="unknown"):
    """Something a provider sent that has no record of its own, kept as it came."""

    raw: Any
    protocol: str = ""
    part: int | None = None


class Completed(_Base, frozen=True, tag="completed"):
    """Terminal: the model finished. Only the stop reasons in :data:`SUCCESSFUL` make it a success."""

    stop_reason: StopReason
    raw_stop_reason: str | None = None
    stop_sequence: str | None = None


class Failed(_Base, frozen=True, tag="failed"):
    """Terminal: an error ended it."""

    error: ErrorInfo


class Cancelled(_Base, frozen=True, tag="cancelled", gc=False):
    """Terminal: stopped on request."""

    reason: str = ""


class Interrupted(_Base, frozen=True, tag="interrupted"):
    """Terminal: the provider or the run died in the middle. What came before is kept."""

    error: ErrorInfo


class Skipped(_Base, frozen=True, tag="skipped", gc=False):
    """Terminal: never run, because a task it depends on did not succeed."""

    reason: str = ""


Delta: TypeAlias = Text | Reasoning | Refusal | ToolCall
Terminal: TypeAlias = Completed | Failed | Cancelled | Interrupted | Skipped
Record: TypeAlias = (
    Text
    | Reasoning
    | Refusal
    | ToolCall
    | ToolResult
    | Citation
    | Usage
    | CallStarted
    | CallEnded
    | Reset
    | Unknown
    | Completed
    | Failed
    | Cancelled
    | Interrupted
    | Skipped
)

TERMINALS: Final = (Completed, Failed, Cancelled, Interrupted, Skipped)
_DELTAS: Final = frozenset({Text, Reasoning, Refusal, ToolCall})

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[Record]] = msgspec.json.Decoder(Record)

encode_record = _encoder.encode
"""A record as one JSON object: ``type``, its fields, ``seq``; fields at their defaults are left out."""


def decode_record(data: bytes | str) -> Record:
    """The record that :func:`encode_record` wrote. Raises ``msgspec.ValidationError`` for anything else."""
    return _decoder.decode(data)


def is_content(record: Record) -> bool:
    """Whether a record passes the commit point: a non-empty text, reasoning, refusal or tool-call delta."""
    if type(record) is Text:
        return bool(record.text)
    if type(record) not in _DELTAS:
        return False
    match record:
        case Reasoning():
            return bool(record.text or record.redacted)
        case Refusal():
            return bool(record.text)
        case ToolCall():
            return bool(record.name or record.arguments)
    return False


def numbered(batch: Iterable[Record], first: int) -> Sequence[Record]:
    """Copies of the records with ``seq`` counting up from ``first``."""
    replace = msgspec.structs.replace
    return [replace(record, seq=seq) for seq, record in enumerate(batch, first)]


def terminal_name(terminal: Terminal) -> TerminalName:
    """The name of a terminal's type: completed, failed, cancelled, interrupted or skipped."""
    name: TerminalName = type(terminal).__struct_config__.tag  # type: ignore[assignment]
    return name
