"""Records as chunks: what each record adds to an answer in this protocol, before it is bytes or a message.

A chunk here is a dict with ``choices`` and perhaps more, without the envelope (id, model and so on).
"""

from __future__ import annotations

from typing import Any, Final, assert_never

from ...errors import ErrorInfo, StreamReset
from ...records import (
    CallEnded,
    CallStarted,
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
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from .failure import error_object
from .finish import PROTOCOL, finish_reason
from .usage import to_usage

__all__ = ["Chunk", "Chunks", "is_sealed"]

Chunk = dict[str, Any]

_LAST_CHOICE: Final = 127  # the API takes an n of at most 128
_ENVELOPE: Final = frozenset({"id", "object", "created", "model", "usage", "error"})


class _Shown:
    """What was shown of one choice."""

    __slots__ = ("annotations", "begun", "calls", "finished", "plain", "plain_part", "reasoning", "refused")

    def __init__(self) -> None:
        self.begun = False
        self.finished = False
        self.annotations = 0  # OpenAI's client wants an index in each item of a list that goes on
        self.refused = False
        self.calls: dict[
            int, int
        ] = {}  # index of the record -> index here, where the provider's own calls are left out
        self.reasoning: dict[int, int] = {}  # part of the record -> index of the reasoning block here
        self.plain = 0  # the block that reasoning without an index belongs to
        self.plain_part: int | None = None  # the part whose reasoning was last sent without an index


class Chunks:
    """Feed it records in order; each gives the chunks that show it, most give one, some none."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._choices: dict[int, _Shown] = {}
        self._usages: dict[tuple[str | None, int], Usage] = {}
        self._sources: dict[str, list[Any]] = {}
        self.shown = False  # something that a reset could not take back
        self.ended = False
        self.failed = False

    def of(self, record: Record) -> list[Chunk]:
        """The chunks for one record. Raises :class:`~multi_agent_scheduler.errors.StreamReset`: see the encoder."""
        if self.ended:
            return []
        match record:
            case Text() | Reasoning() | Refusal() | ToolCall() | Citation():
                return self._content(record)
            case Unknown():
                return self._unknown(record)
            case Usage():
                self._usages[record.branch, record.call] = record
            case Reset():
                if self.shown:
                    raise StreamReset(
                        "what was shown of this answer is void, and a chat completion cannot take it back"
                    )
            case CallStarted() | CallEnded() | ToolResult():
                pass
            case Completed():
                return self._completed(record)
            case Failed(error=info) | Interrupted(error=info):
                return self._failed(info)
            case Cancelled():
                return self._failed(ErrorInfo("cancelled", "the call was stopped"))
            case Skipped():
                return self._failed(
                    ErrorInfo("cancelled", "the task was not run: a task it depends on did not succeed")
                )
            case _:
                assert_never(record)
        return []

    def plain(self) -> tuple[bool, int | None]:
        """Whether a text of the main answer now needs nothing but a chunk with that text, and so which reasoning."""
        main = self._choices.get(0)
        if main is None or not main.begun or not self.shown or self.ended:
            return False, None
        return True, main.plain_part

    # --- the kinds of record -----------------------------------------------------------------------------------------

    def _content(self, record: Text | Reasoning | Refusal | ToolCall | Citation) -> list[Chunk]:
        index = _index(record.branch)
        if index is None:
            return []
        shown = self._choices.setdefault(index, _Shown())
        match record:
            case Text():
                delta: Chunk = {"content": record.text} if record.text else {}
            case Refusal():
                delta = {"refusal": record.text} if record.text else {}
                shown.refused = shown.refused or bool(delta)
            case Reasoning():
                delta = _reasoning(shown, record)
            case ToolCall():
                delta = _call(shown, record)
            case Citation():
                if self._is_source(record):
                    return [self._source(record)]
                delta = {"annotations": [{**_annotation(record), "index": shown.annotations}]}
                shown.annotations += 1
            case _:
                assert_never(record)
        self.shown = self.shown or bool(delta)
        return [*self._lower(index), self._chunk(index, shown, delta)] if delta else []

    def _lower(self, index: int) -> list[Chunk]:
        """OpenAI's client counts on choices to begin in order."""
        lower = ((number, self._choices.setdefault(number, _Shown())) for number in range(index))
        return [self._chunk(number, shown, {}) for number, shown in lower if not shown.begun]

    def _chunk(self, index: int, shown: _Shown, delta: Chunk, finish: str | None = None) -> Chunk:
        if not shown.begun:
            shown.begun = True
            delta = {"role": "assistant", **delta}
        return {"choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    def _is_source(self, record: Citation) -> bool:
        raw = record.raw
        return record.branch is None and (isinstance(raw, str) or (isinstance(raw, dict) and "url" in raw))

    def _source(self, record: Citation) -> Chunk:
        """Perplexity's way: a list beside the choices, whole in each chunk that has it."""
        field = "citations" if isinstance(record.raw, str) else "search_results"
        sources = self._sources.setdefault(field, [])
        sources.append(record.raw)
        return {"choices": [], field: list(sources)}

    def _unknown(self, record: Unknown) -> list[Chunk]:
        """This protocol's own are sent as they came, unless they would spoil what a client adds up."""
        raw, index = record.raw, _index(record.branch)
        if record.protocol != PROTOCOL or not isinstance(raw, dict) or index is None:
            return []
        chunk: Chunk = {"choices": [], **{key: value for key, value in raw.items() if key not in _ENVELOPE}}
        if not isinstance(chunk["choices"], list):
            return []
        choices = []
        for choice in chunk["choices"]:
            if not isinstance(choice, dict) or choice.get("index") != index:
                return []
            shown = self._choices.setdefault(index, _Shown())
            delta = choice.get("delta", {})
            if not isinstance(delta, dict) or not _harmless(delta):
                return []
            if "reasoning_details" in delta:
                delta = _renumbered(shown, delta, record.part)
            finish = choice.get("finish_reason") if index else None
            shown.finished = shown.finished or finish is not None
            choices.append({"finish_reason": None, **choice, **self._chunk(index, shown, delta, finish)["choices"][0]})
            if choice.get("logprobs") is not None:
                choices[-1]["logprobs"] = choice["logprobs"]
        before = self._lower(index) if choices else []
        return [*before, {**chunk, "choices": choices}]

    def _completed(self, record: Completed) -> list[Chunk]:
        self.ended = True
        main = self._choices.setdefault(0, _Shown())
        chunks = []
        for index, shown in sorted(self._choices.items()):
            if not shown.finished:
                word = finish_reason(record, refused=main.refused) if index == 0 else "stop"
                chunks.append(self._chunk(index, shown, {}, word))
        if record.stop_sequence is not None:
            chunks[0]["choices"][0]["stop_reason"] = record.stop_sequence  # as vLLM has it
        return chunks + self._usage()

    def _failed(self, info: ErrorInfo) -> list[Chunk]:
        self.ended = self.failed = True
        return [*self._usage(), {"error": error_object(info)}]

    def _usage(self) -> list[Chunk]:
        usage = to_usage(list(self._usages.values())) if self._include_usage else None
        return [] if usage is None else [{"choices": [], "usage": usage}]


def _index(branch: str | None) -> int | None:
    """The choice for a branch: 0 for the main text, n for "n" up to 127; None for a branch that has no choice."""
    if branch is None:
        return 0
    plain = branch.isascii() and branch.isdigit() and branch[0] != "0" and len(branch) < 4
    return int(branch) if plain and int(branch) <= _LAST_CHOICE else None


def is_sealed(record: Reasoning) -> bool:
    """Whether there is more to it than text, which ``reasoning_content`` cannot tell."""
    return bool(record.signature or record.redacted or record.id or record.kind)


def _reasoning(shown: _Shown, record: Reasoning) -> Chunk:
    """As ``reasoning_content``, which most clients show, and with a seal, an id or a kind in OpenRouter's form too."""
    block = shown.reasoning.setdefault(record.part, len(shown.reasoning))
    if not is_sealed(record) and block == shown.plain:
        shown.plain_part = record.part
        return {"reasoning_content": record.text} if record.text else {}
    shown.plain_part = None
    details: list[Chunk] = []
    item = {"id": record.id} if record.id else {}
    if record.text or record.signature or not record.redacted:
        shown.plain = block
        text = {"summary" if record.kind else "text": record.text} if record.text else {}
        seal = {"signature": record.signature} if record.signature else {}
        kind = "reasoning.summary" if record.kind else "reasoning.text"
        details.append({"type": kind, **text, **seal, **item, "index": block})
        item = {}
    if record.redacted:
        details.append({"type": "reasoning.encrypted", "data": record.redacted, **item, "index": block})
    return {**({"reasoning_content": record.text} if record.text else {}), "reasoning_details": details}


def _renumbered(shown: _Shown, delta: Chunk, part: int | None) -> Chunk:
    if part is None:
        return delta
    block = shown.reasoning.setdefault(part, len(shown.reasoning))
    shown.plain_part = None
    details = []
    for detail in delta["reasoning_details"]:
        if detail.get("type") != "reasoning.encrypted":
            shown.plain = block
        details.append({**detail, "index": block})
    return {**delta, "reasoning_details": details}


def _call(shown: _Shown, record: ToolCall) -> Chunk:
    """A call that the provider itself runs is not shown: a client would run it again."""
    if record.kind == "server":
        return {}
    index = shown.calls.setdefault(record.index, len(shown.calls))
    field = "input" if record.kind == "custom" else "arguments"
    inner: Chunk = {"name": record.name} if record.name else {}
    inner[field] = record.arguments
    call: Chunk = {"index": index}
    if record.id:
        call["id"] = record.id
    if record.id or record.name or record.kind == "custom":
        call["type"] = record.kind
    call[record.kind] = inner
    if record.signature:
        call["extra_content"] = {"google": {"thought_signature": record.signature}}
    return {"tool_calls": [call]}


def _annotation(record: Citation) -> Chunk:
    raw = record.raw
    if isinstance(raw, dict) and isinstance(raw.get("url_citation"), dict):
        return {**raw, "type": "url_citation"}
    cited: Chunk = {"url": record.url or "", "title": record.title or ""}
    if record.start is not None:
        cited["start_index"] = record.start
    if record.end is not None:
        cited["end_index"] = record.end
    if record.text:
        cited["content"] = record.text
    return {"type": "url_citation", "url_citation": cited}


def _harmless(delta: Chunk) -> bool:
    """Whether a client that adds up deltas can take this one beside ours."""
    if not isinstance(delta.get("content", ""), str) or "tool_calls" in delta:
        return False
    details = delta.get("reasoning_details", [])
    return isinstance(details, list) and all(isinstance(detail, dict) for detail in details)
