"""A log's digest: the few records that are kept of a log that is trimmed.

It is a log of its own, and what came of a stream can be read from it as from the whole: the answer with its parts,
seals, citations and tool calls, the usage, how the Calls went and what they cost, and the end. Gone are how the answer
arrived (its pieces are joined), what was taken back, and what candidates said that were not the answer.

The one thing that is kept of those is the text of Calls that never said what they used: budgets estimate from its
length what such a Call cost.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from ..records import CallEnded, CallStarted, Reasoning, Record, Refusal, Reset, Text, ToolCall, Usage
from .live import VOIDABLE, standing

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["digest"]

_CONTENT: Final = (Text, Reasoning, Refusal, ToolCall)
_Piece: TypeAlias = Text | Reasoning | Refusal | ToolCall


def digest(records: Sequence[Record]) -> list[Record]:
    """The digest of a whole log; its records, which have no ``seq``, count from 1 anew.

    :class:`~.summary.Summary` and :class:`~multi_agent_scheduler.scheduling.budget.Spending` fold it to what they fold
    the whole log to.
    """
    positions = [record.seq or position for position, record in enumerate(records, 1)]
    stands = set(standing(records, positions))
    unreported, superseded = _unreported(records), _superseded(records)
    void = any(records[index].branch is None and index not in stands for index in unreported)
    joined = _Joined()
    for index, record in enumerate(records):
        kind = type(record)
        if kind in VOIDABLE:
            if (record.branch is None and index in stands) or index in unreported:
                joined.add(positions[index], record, stands=index in stands)
        elif isinstance(record, Reset):
            if void and record.branch is None:
                joined.add_reset(positions[index], record)
        elif index not in superseded:
            joined.add(positions[index], record)
    return joined.all()


class _Joined:
    """A log that is written anew, each run of pieces as one record. ``position`` is where a record stood before."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._positions: list[int] = []
        self._run: list[_Piece] = []
        self._place: Hashable = None

    def add(self, position: int, record: Record, *, stands: bool = True) -> None:
        """Nothing that was taken back is joined with what was not."""
        if isinstance(record, _CONTENT):
            place = _place(record)
            if self._run and place is not None and (place, stands) == self._place:
                self._run.append(record)
                return
            self._flush()
            self._run, self._place = [record], (place, stands)
        else:
            self._flush()
            self._records.append(_unnumbered(record))
        self._positions.append(position)

    def add_reset(self, position: int, reset: Reset) -> None:
        """It reaches back to where what it voids begins now."""
        from_seq = bisect_left(self._positions, reset.from_seq) + 1
        self.add(position, msgspec.structs.replace(reset, from_seq=from_seq))

    def all(self) -> list[Record]:
        self._flush()
        return self._records

    def _flush(self) -> None:
        run = self._run
        if not run:
            return
        first, self._run = run[0], []
        if len(run) == 1:
            self._records.append(_unnumbered(first))
        elif isinstance(first, ToolCall):
            arguments = "".join(piece.arguments for piece in run if isinstance(piece, ToolCall))
            self._records.append(msgspec.structs.replace(first, arguments=arguments, seq=0))
        else:
            text = "".join(piece.text for piece in run if not isinstance(piece, ToolCall))
            self._records.append(msgspec.structs.replace(first, text=text, seq=0))


def _place(piece: _Piece) -> Hashable:
    """What a piece extends; pieces of one place that follow each other can be joined. None for one that stands alone:
    it has an id, a name or a seal."""
    match piece:
        case Text() | Refusal():
            return type(piece), piece.branch, piece.part
        case Reasoning(signature=None, redacted=None):
            return type(piece), piece.branch, piece.part, piece.kind, piece.id
        case ToolCall(id="", name="", signature=None):
            return type(piece), piece.branch, piece.part, piece.kind, piece.index
    return None


def _unnumbered(record: Record) -> Record:
    return msgspec.structs.replace(record, seq=0) if record.seq else record


def _unreported(records: Sequence[Record]) -> set[int]:
    """The indices of the content of Calls that said nothing later of how many tokens they gave."""
    speaking: dict[str | None, int] = {}
    unreported: dict[int, list[int]] = {}
    for index, record in enumerate(records):
        if isinstance(record, _CONTENT):
            call = speaking.get(record.branch)
            if call is not None:
                unreported[call].append(index)
        elif isinstance(record, CallStarted):
            if record.cached:
                speaking.pop(record.branch, None)
            else:
                speaking[record.branch] = record.call
                unreported[record.call] = []
        elif isinstance(record, Usage | CallEnded) and record.call in unreported:
            usage = record if isinstance(record, Usage) else record.usage
            if usage is not None and usage.output_tokens is not None:
                unreported[record.call] = []
    return {index for indices in unreported.values() for index in indices}


def _superseded(records: Sequence[Record]) -> set[int]:
    """The indices of usages in whose place a later one stands that says as much."""
    latest: dict[str | None, int] = {}
    last: dict[tuple[str | None, int, int], tuple[int, Usage]] = {}
    found = set()
    for index, record in enumerate(records):
        if isinstance(record, CallStarted):
            latest[record.branch] = record.call
        elif isinstance(record, Usage):
            place = record.branch, record.call, 0 if record.call else latest.get(record.branch, 0)
            before = last.get(place)
            if before is not None and _covers(record, before[1]):
                found.add(before[0])
            last[place] = index, record
    return found


def _covers(later: Usage, earlier: Usage) -> bool:
    # A budget goes on with what was said of one of them before where a later usage says nothing of it.
    return (later.input_tokens is not None or earlier.input_tokens is None) and (
        later.output_tokens is not None or earlier.output_tokens is None
    )
