"""Records to Gemini's answers: events of ``streamGenerateContent?alt=sse``, or the one object of ``generateContent``.

What a client of Gemini sees of a stream:

- Text, thoughts, signatures, usage and Gemini's own parts and metadata go out as they came. Fragments of a function
  call are joined: Gemini's clients expect the arguments as one object, so a call is shown once it is complete.
  Arguments that are no JSON object are shown as ``{"input": ...}``; a call that was cut off has ``willContinue`` and
  no ``args``.
- A refusal is text. Other providers' citations become groundingMetadata; what other providers said in forms of their
  own, calls of tools that they ran themselves, and sealed reasoning are left out.
- Branches that are numbers from 1 are the candidates of that index; other branches are left out.
- Part numbers are not sent: two texts in a row are one part for the reader.
- Every end but Completed is an error object, the way Google sends one in mid-stream.
- The last usage is repeated in the last event, where Gemini's clients look for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from time import gmtime, strftime
from typing import Any, Final, assert_never

import msgspec

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
    Terminal,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
    is_content,
)
from .calls import Calls
from .citations import is_derived, to_grounding
from .failure import error_object
from .finish import PROTOCOL, block_word, finish_word
from .merge import merge_events
from .usage import write_usage

__all__ = ["Encoder"]

_encode: Final = msgspec.json.Encoder().encode
_BRANCH: Final = re.compile(r"[1-9]\d{0,5}")


class Encoder:
    """One stream of records in Gemini's spelling.

    ``id`` is the responseId, ``model`` the modelVersion, ``created`` (Unix seconds) the createTime; what is None is
    left out. :meth:`encode` takes the records in order, in batches of any size; :meth:`body` needs an encoder of its
    own.
    """

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002 - as in every protocol
        model: str | None = None,
        created: int | None = None,
    ) -> None:
        envelope = {"modelVersion": model, "createTime": _timestamp(created), "responseId": id}
        self._envelope = {name: value for name, value in envelope.items() if value is not None}
        self._events: list[dict[str, Any]] = []
        self._event: dict[str, Any] | None = None  # the event that is being filled
        self._index = -1  # the candidate that its parts belong to; -1: it takes no parts any more
        self._calls: dict[int, Calls] = {}
        self._thought: dict[int, int] = {}  # the number of a candidate's last part, while that is a thought
        self._sources: list[Citation] = []
        self._usages: dict[int, Usage] = {}
        self._finished: dict[int, bool] = {}  # the candidates seen
        self._content = False
        self._done = False

    def encode(self, records: Sequence[Record]) -> bytes:
        """The events for a batch; b"" if it has nothing to show.

        Raises :class:`~multi_agent_scheduler.errors.StreamReset` for a reset after content was given.
        """
        return b"".join(b"data: " + _encode(event) + b"\n\n" for event in self._take(records))

    def body(self, records: Sequence[Record]) -> dict[str, Any]:
        """The whole answer of a finished stream as one GenerateContentResponse, or ``{"error": ...}`` if it failed.

        The records are those that count: a reset after content raises StreamReset here too.
        """
        return merge_events(self._take(records), self._envelope)

    def _take(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        for record in records:
            if self._done:
                break
            self._record(record)
        self._flush()
        events, self._events = self._events, []
        return events

    def _record(self, record: Record) -> None:
        index = 0
        if record.branch is not None:
            if not _BRANCH.fullmatch(record.branch):
                return
            index = int(record.branch)
        self._content = self._content or is_content(record)
        if self._sources and not isinstance(record, Citation):
            self._cite()
        match record:
            case Text() | Refusal():
                if record.text:
                    self._part(index, {"text": record.text})
            case Reasoning():
                self._reasoning(index, record)
            case ToolCall():
                self._call(index, record)
            case Unknown():
                if record.protocol == PROTOCOL:
                    self._own(index, record)
            case Citation():
                if not is_derived(record):
                    self._sources.append(record)
            case Usage():
                self._spend(record)
            case Reset():
                if self._content:
                    raise StreamReset(f"what was sent of this answer has been voided: {record.reason}")
            case Completed() | Failed() | Interrupted() | Cancelled() | Skipped():
                self._terminal(record)
            case ToolResult() | CallStarted() | CallEnded():
                pass
            case _:
                assert_never(record)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _part(self, index: int, part: Any) -> None:
        """One item of a candidate's content, after the calls that are complete by now."""
        self._show_complete_calls()
        self._append(index, part)

    def _append(self, index: int, part: Any) -> None:
        if self._event is None or self._index != index:
            self._flush()
            self._event = {"candidates": [{"content": {"parts": [], "role": "model"}, "index": index}]}
            self._index = index
            self._finished.setdefault(index, False)
        self._event["candidates"][0]["content"]["parts"].append(part)
        self._thought.pop(index, None)

    def _reasoning(self, index: int, record: Reasoning) -> None:
        if record.text or self._thought.get(index) == record.part:
            part: dict[str, Any] = {"text": record.text, "thought": True}
        else:
            part = {"text": ""}
        if record.signature is not None:
            part["thoughtSignature"] = record.signature
        elif not record.text:
            return
        self._part(index, part)
        if record.text and record.signature is None:
            self._thought[index] = record.part

    def _call(self, index: int, record: ToolCall) -> None:
        if record.kind == "server":
            return
        calls = self._calls.setdefault(index, Calls())
        if calls.is_new(record.index):
            self._show_complete_calls()
        calls.add(record)

    def _show_calls(self, index: int, parts: list[dict[str, Any]]) -> None:
        for part in parts:
            self._append(index, part)

    def _show_complete_calls(self) -> None:
        for index, calls in self._calls.items():
            if calls:
                self._show_calls(index, calls.take_complete())

    def _own(self, index: int, record: Unknown) -> None:
        if record.part is not None:
            self._part(index, record.raw)
        elif isinstance(record.raw, dict):
            self._show_complete_calls()
            self._flush()
            self._events.append({**record.raw, **self._envelope})
            candidates = record.raw.get("candidates")
            for candidate in candidates if isinstance(candidates, list) else ():
                if isinstance(candidate, dict) and candidate.get("finishReason"):
                    self._finished[index] = True

    # --- everything else ------------------------------------------------------------------------------------------

    def _cite(self) -> None:
        by_candidate: dict[int, list[Citation]] = {}
        for citation in self._sources:
            by_candidate.setdefault(int(citation.branch or 0), []).append(citation)
        self._sources = []
        self._flush()
        for index, found in by_candidate.items():
            self._events.append(
                {"candidates": [{"groundingMetadata": to_grounding(found), "index": index}], **self._envelope}
            )

    def _spend(self, usage: Usage) -> None:
        self._show_complete_calls()
        self._usages[usage.call] = usage
        metadata = write_usage(self._usages.values())
        if not metadata:
            return
        if self._event is None or "usageMetadata" in self._event:
            self._flush()
            self._event = {}
        self._event["usageMetadata"] = metadata
        self._index = -1

    def _terminal(self, outcome: Terminal) -> None:
        self._done = True
        for index, calls in self._calls.items():
            self._show_calls(index, calls.take())
        match outcome:
            case Completed():
                self._finish(outcome)
            case Failed(error=error) | Interrupted(error=error):
                self._fail(error)
            case Cancelled(reason=reason):
                self._fail(ErrorInfo("cancelled", reason or "the call was stopped"))
            case Skipped(reason=reason):
                self._fail(ErrorInfo("cancelled", reason or "the task was never run"))

    def _fail(self, error: ErrorInfo) -> None:
        self._flush()
        self._events.append({"error": error_object(error)})

    def _finish(self, outcome: Completed) -> None:
        event = self._event
        word = block_word(outcome)
        if word is not None and not self._finished and "candidates" not in (event or ()):
            event = self._event = event or {}
            event["promptFeedback"] = {"blockReason": word}
        else:
            if event is None or event.get("candidates", [{"index": 0}])[0]["index"] != 0:
                self._flush()
                event = self._event = {}
            main = event.setdefault("candidates", [{"content": {"role": "model"}, "index": 0}])
            main[0]["finishReason"] = finish_word(outcome)
            main += [
                {"finishReason": "STOP", "index": index}
                for index in sorted(self._finished)
                if index and not self._finished[index]
            ]
        if self._usages:
            event["usageMetadata"] = write_usage(self._usages.values())
        self._flush()

    def _flush(self) -> None:
        if self._event is not None:
            self._event.update(self._envelope)
            self._events.append(self._event)
        self._event = None
        self._index = -1


def _timestamp(created: int | None) -> str | None:
    return None if created is None else strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(created))
