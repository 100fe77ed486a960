"""What came of a stream: the fold that everything in a :class:`~multi_agent_scheduler.task.Result` is read from."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from io import StringIO
from typing import TYPE_CHECKING, Final

import msgspec

from ..errors import ErrorInfo
from ..records import (
    SUCCESSFUL,
    TERMINALS,
    CallEnded,
    CallStarted,
    Cancelled,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Refusal,
    Skipped,
    Terminal,
    Text,
    ToolCall,
    Usage,
    is_content,
)
from ..scheduling.budget import cost
from ..task import Result, State, ToolCallResult
from .live import Live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..scheduling.budget import Price

__all__ = ["Summary", "outcome", "summarise", "total_usage"]

_MAIN: Final = (Text, Reasoning, Refusal, ToolCall)


class Summary:
    """Feed it a stream's batches in order; ask it at any time.

    Text, reasoning, refusal and tool calls are those of the main answer, without what a reset voided; the content of a
    branch is none of it. Usage and Calls are those of the whole stream: losers and superseded Calls were paid for.
    """

    __slots__ = (
        "_ended",
        "_live",
        "_reasoning",
        "_refusal",
        "_sealed",
        "_started",
        "_text",
        "_tools",
        "_usage",
        "first_content_at",
        "terminal",
    )

    def __init__(self) -> None:
        self._live = Live()
        self._text = _Pieces()
        self._reasoning: _Pieces | None = None
        self._refusal: _Pieces | None = None
        self._tools: list[tuple[int, ToolCall]] = []
        self._sealed: list[int] = []  # the positions of reasoning that came only in encrypted form
        self._usage: dict[tuple[str | None, int], Usage] = {}
        self._started: dict[int, CallStarted] = {}
        self._ended: dict[int, CallEnded] = {}
        self.terminal: Terminal | None = None
        self.first_content_at: float | None = None

    # --- the fold -------------------------------------------------------------------------------------------------

    def feed(self, batch: Sequence[Record], now: float | None = None) -> None:
        """Take in one batch. ``now`` is when it came, in seconds on any one clock; it dates the first content."""
        fresh = self._live.feed(batch)
        for reset in fresh.voided:
            if reset.branch is None:
                self._void(reset.from_seq)
        position = fresh.first
        for record in fresh.records:
            if type(record) is not Text:
                self._other(record, record.seq or position, now)
            elif record.branch is None and record.text:
                self._text.add(record.seq or position, record.text)
                if self.first_content_at is None:
                    self.first_content_at = now
            position += 1

    def _other(self, record: Record, position: int, now: float | None) -> None:
        if isinstance(record, Usage):
            self._usage[record.branch, record.call or self._latest_call(record.branch)] = record
        elif isinstance(record, CallStarted):
            self._started[record.call] = record
        elif isinstance(record, CallEnded):
            self._ended[record.call] = record
        elif record.branch is not None:
            return
        elif isinstance(record, TERMINALS):
            if self.terminal is None:
                self.terminal = record
        elif isinstance(record, _MAIN):
            self._content(record, position)
            if self.first_content_at is None and is_content(record):
                self.first_content_at = now

    def _content(self, record: Record, position: int) -> None:
        match record:
            case Reasoning(text=text) if text:
                if self._reasoning is None:
                    self._reasoning = _Pieces()
                self._reasoning.add(position, text)
            case Reasoning(redacted=sealed) if sealed:
                self._sealed.append(position)
            case Refusal(text=text) if text:
                if self._refusal is None:
                    self._refusal = _Pieces()
                self._refusal.add(position, text)
            case ToolCall():
                self._tools.append((position, record))

    def _void(self, from_seq: int) -> None:
        for pieces in (self._text, self._reasoning, self._refusal):
            if pieces is not None:
                pieces.cut(from_seq)
        while self._tools and self._tools[-1][0] >= from_seq:
            self._tools.pop()
        while self._sealed and self._sealed[-1] >= from_seq:
            self._sealed.pop()

    def _latest_call(self, branch: str | None) -> int:
        # A usage record that does not say whose it is belongs to the Call that began last in its branch.
        return next((call for call, record in reversed(self._started.items()) if record.branch == branch), 0)

    # --- what it knows --------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The main text that stands."""
        return self._text.value()

    @property
    def reasoning(self) -> str:
        return "" if self._reasoning is None else self._reasoning.value()

    @property
    def refusal(self) -> str:
        return "" if self._refusal is None else self._refusal.value()

    @property
    def has_content(self) -> bool:
        """Whether any content of the main answer stands: the commit point is behind."""
        said = self._text or self._reasoning or self._refusal or self._sealed
        return bool(said) or any(is_content(tool) for _, tool in self._tools)

    @property
    def open_calls(self) -> tuple[CallStarted, ...]:
        """The Calls that began and have not ended, in order: whoever ends the stream owes each a ``CallEnded``."""
        return tuple(record for call, record in self._started.items() if call not in self._ended)

    @property
    def stop_reason(self) -> str | None:
        return self.terminal.stop_reason if isinstance(self.terminal, Completed) else None

    @property
    def usage(self) -> Usage | None:
        """The tokens of all Calls; None if nothing at all is known. See :func:`total_usage`."""
        known = {call: usage for (_, call), usage in self._usage.items() if call in self._started}
        apart = [usage for (_, call), usage in self._usage.items() if call not in self._started]
        for call, ended in self._ended.items():
            if ended.usage is not None:
                known[call] = ended.usage
        missing = any(call not in known and not _free(self._ended.get(call)) for call in self._started)
        return total_usage((*known.values(), *apart), complete=not missing)

    def cost(self, price_of: Callable[[str | None], Price | None]) -> float | None:
        """What all Calls cost together, in US dollars; None, not a part of it, if the cost of one is unknown."""
        usages = {call: usage for (_, call), usage in self._usage.items()}
        total = 0.0
        for number, started in self._started.items():
            ended = self._ended.get(number)
            usage = usages.get(number) if ended is None or ended.usage is None else ended.usage
            if started.cached or (usage is None and _free(ended)):
                continue
            paid = cost(usage, price_of(started.model))
            if paid is None:
                return None
            total += paid
        return total

    @property
    def agent(self) -> str | None:
        """The agent that gave the answer: that of the Call that completed last, else of the Call that began last."""
        call = self._answering()
        return None if call is None else call.agent

    @property
    def model(self) -> str | None:
        """The model that gave the answer, as the provider named it where it did."""
        call = self._answering()
        if call is None:
            return None
        ended = self._ended.get(call.call)
        return (ended.model if ended is not None else None) or call.model

    @property
    def cached(self) -> bool:
        """Whether the answer came from a cache: its Call did, or, if all Calls belong to branches, all of them."""
        call = self._answering()
        if call is not None:
            return call.cached
        return bool(self._started) and all(record.cached for record in self._started.values())

    def _answering(self) -> CallStarted | None:
        mine = [record for record in self._started.values() if record.branch is None]
        done = [record for record in mine if record.call in self._ended and _completed(self._ended[record.call])]
        return done[-1] if done else mine[-1] if mine else None

    def tool_calls(self) -> tuple[ToolCallResult, ...]:
        """The tool calls by index. Unless the answer completed, only those whose arguments are whole."""
        calls: dict[int, list[ToolCall]] = {}
        for _, fragment in self._tools:
            calls.setdefault(fragment.index, []).append(fragment)
        assembled = (_assemble(calls[index]) for index in sorted(calls))
        finished = isinstance(self.terminal, Completed)
        return tuple(call for call in assembled if finished or _whole(call))

    def result(
        self,
        *,
        started_at: float | None = None,
        ended_at: float | None = None,
        stream_id: str | None = None,
        agent: str | None = None,
        cached: bool = False,
        price_of: Callable[[str | None], Price | None] | None = None,
    ) -> Result:
        """The result as things stand; without a terminal its state is ``interrupted``.

        ``started_at`` and ``ended_at`` are on the clock of ``feed``. Without them ``latency`` and ``ttft`` are those of
        the stream's Call, if there was just one (0.0 and None otherwise). ``agent`` is the name to give where no Call
        says one. There is a cost if ``price_of`` gives the prices of models.
        """
        latency, ttft = self._times(started_at, ended_at)
        state, success, error = outcome(self.terminal)
        terminal = self.terminal
        return Result(
            text=self.text,
            state=state,
            success=success,
            error=error,
            stop_reason=terminal.stop_reason if isinstance(terminal, Completed) else None,
            reasoning=self.reasoning,
            refusal=self.refusal,
            tool_calls=self.tool_calls() if self._tools else (),
            usage=self.usage,
            latency=latency,
            ttft=ttft,
            agent=self.agent or agent,
            model=self.model,
            stream_id=stream_id,
            cached=cached or self.cached,
            cost=None if price_of is None else self.cost(price_of),
        )

    def _times(self, started_at: float | None, ended_at: float | None) -> tuple[float, float | None]:
        if started_at is None:
            only = next(iter(self._ended.values())) if len(self._ended) == 1 else None
            return (0.0, None) if only is None else (only.latency or 0.0, only.ttft)
        latency = max(0.0, ended_at - started_at) if ended_at is not None else 0.0
        first = self.first_content_at
        return latency, None if first is None else max(0.0, first - started_at)


def summarise(
    records: Iterable[Record],
    *,
    stream_id: str | None = None,
    price_of: Callable[[str | None], Price | None] | None = None,
) -> Result:
    """The result of a whole log, or of any records in order."""
    summary = Summary()
    summary.feed(list(records))
    return summary.result(stream_id=stream_id, price_of=price_of)


def outcome(terminal: Terminal | None) -> tuple[State, bool, ErrorInfo | None]:
    """State, success and error of an ending. The error is None for a success and for nothing else."""
    match terminal:
        case Completed(stop_reason=reason) if reason in SUCCESSFUL:
            return "completed", True, None
        case Completed(stop_reason="content_filter"):
            return "completed", False, ErrorInfo("content_filter", "the provider refused or blocked the content")
        case Completed(stop_reason="pause"):
            return "completed", False, ErrorInfo("agent_error", "the provider paused the answer before its end")
        case Completed():
            return "completed", False, ErrorInfo("agent_error", "the model stopped for a reason that is not known here")
        case Failed(error=error):
            return "failed", False, error
        case Interrupted(error=error):
            return "interrupted", False, error
        case Cancelled(reason=reason):
            return "cancelled", False, ErrorInfo("cancelled", reason or "stopped on request")
        case Skipped(reason=reason):
            return "skipped", False, ErrorInfo("skipped", reason or "a task that this one depends on did not succeed")
        case None:
            return "interrupted", False, ErrorInfo("interrupted", "the stream has no end", retryable=True)


def total_usage(usages: Sequence[Usage], *, complete: bool = True) -> Usage | None:
    """The sum over Calls, one usage record each; None for none.

    Each number is the sum of what is known of it (None if nothing is). ``source`` is "reported" only if all of it was
    reported, "unknown" if something is missing (some of the usages, or of the Calls: ``complete`` false), so that the
    numbers are a lower bound, and else "estimated". What came from a cache is no part of it, unless all of it did: then
    the sum is marked ``cached``.
    """
    usages = [usage for usage in usages if not usage.cached] or usages
    if not usages:
        return None
    if len(usages) == 1 and complete:
        only = usages[0]
        return only if not only.seq and only.branch is None else msgspec.structs.replace(only, seq=0, branch=None)
    sources = {usage.source for usage in usages}
    if not complete:
        sources.add("unknown")
    return Usage(
        input_tokens=_sum(usage.input_tokens for usage in usages),
        output_tokens=_sum(usage.output_tokens for usage in usages),
        reasoning_tokens=_sum(usage.reasoning_tokens for usage in usages),
        cache_read_tokens=_sum(usage.cache_read_tokens for usage in usages),
        cache_write_tokens=_sum(usage.cache_write_tokens for usage in usages),
        source="unknown" if "unknown" in sources else "estimated" if "estimated" in sources else "reported",
        cached=usages[0].cached,
    )


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _free(ended: CallEnded | None) -> bool:
    # A Call that failed before it gave any content cost nothing; any other Call that says nothing is unknown.
    return ended is not None and ended.outcome == "failed" and ended.ttft is None


def _completed(ended: CallEnded) -> bool:
    return ended.outcome == "completed"


def _assemble(fragments: list[ToolCall]) -> ToolCallResult:
    return ToolCallResult(
        id=next((fragment.id for fragment in fragments if fragment.id), ""),
        name=next((fragment.name for fragment in fragments if fragment.name), ""),
        arguments="".join(fragment.arguments for fragment in fragments),
        kind=fragments[0].kind,
    )


def _whole(call: ToolCallResult) -> bool:
    if call.kind == "custom" or not call.name:
        return False
    try:
        msgspec.json.decode(call.arguments, type=dict)
    except msgspec.DecodeError:
        return False
    return True


class _Pieces:
    """A text that grows at its end and can be cut back to a position.

    Sixteen bytes and the characters for each piece, where a list of strings would take about seventy.
    """

    __slots__ = ("_buffer", "_offsets", "_positions")

    def __init__(self) -> None:
        self._buffer = StringIO()
        self._positions = array("q")
        self._offsets = array("q")

    def __bool__(self) -> bool:
        return bool(self._positions)

    def add(self, position: int, text: str) -> None:
        self._positions.append(position)
        self._offsets.append(self._buffer.tell())
        self._buffer.write(text)

    def cut(self, from_seq: int) -> None:
        """Forget the pieces from this position on."""
        keep = bisect_left(self._positions, from_seq)
        if keep == len(self._positions):
            return
        text = self._buffer.getvalue()[: self._offsets[keep]]
        self._buffer = StringIO()  # truncating the old one would turn it into four bytes a character for good
        self._buffer.write(text)
        del self._positions[keep:], self._offsets[keep:]

    def value(self) -> str:
        return self._buffer.getvalue()
