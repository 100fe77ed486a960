"""What stands: the fold that drops superseded output. It comes first, once; each other view folds what it lets through.

A :class:`~multi_agent_scheduler.records.Reset` voids the content from its ``from_seq`` up to itself: all of it, or, if
it names a branch, that of the branch and of those inside it (``branch/inner``). What the Calls cost and how they went
(``Usage``, ``CallStarted``, ``CallEnded``) and the terminal are facts and stay; the reset has done its work and is
dropped too.

The position of a record is its ``seq``. Records that are in no log yet (``seq`` 0) are counted from 1 as they are fed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ..records import Citation, Reasoning, Record, Refusal, Reset, Text, ToolCall, ToolResult, Unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["VOIDABLE", "Fresh", "Live", "live", "standing"]

VOIDABLE: Final = frozenset({Text, Reasoning, Refusal, ToolCall, ToolResult, Citation, Unknown})
"""What a reset voids; everything else is a fact."""
_NEVER: Final = 1 << 63


class Fresh(msgspec.Struct, frozen=True, gc=False):
    """What one batch brings: first take back what each of ``voided`` voids, then take ``records``.

    ``voided`` are the resets that reach back behind this batch, in order; what they void inside the batch is already
    gone. The position of ``records[i]`` is its ``seq``, or ``first + i`` if it has none.
    """

    records: Sequence[Record]
    first: int
    voided: tuple[Reset, ...] = ()


class Live:
    """The incremental form: ``feed`` it a stream's batches in order, each record once."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 1

    def feed(self, batch: Sequence[Record]) -> Fresh:
        """What of this batch stands. Without a reset in it, that is the batch itself, not a copy."""
        first = self._next
        for record in batch:
            if type(record) is Reset:
                return self._reset(batch)
        if batch:
            self._next = (batch[-1].seq or first + len(batch) - 1) + 1
        return Fresh(batch, first)

    def _reset(self, batch: Sequence[Record]) -> Fresh:
        positions = [record.seq or position for position, record in enumerate(batch, self._next)]
        self._next = positions[-1] + 1
        # Dropping some breaks the count, so the others carry their positions with them.
        records = [_placed(batch[index], positions[index]) for index in standing(batch, positions)]
        begin = positions[0]
        voided = tuple(record for record in batch if type(record) is Reset and record.from_seq < begin)
        return Fresh(records, begin, voided)


def live(records: Iterable[Record]) -> list[Record]:
    """What stands of a whole log."""
    log = list(records)
    positions = [record.seq or position for position, record in enumerate(log, 1)]
    return [log[index] for index in standing(log, positions)]


def _placed(record: Record, position: int) -> Record:
    return record if record.seq else msgspec.structs.replace(record, seq=position)


def standing(batch: Sequence[Record], positions: Sequence[int]) -> list[int]:
    """The indices of the records that stand, in order; ``positions`` are those of the records."""
    # Read backwards, every reset that can concern a record has been met before it: one pass, however many resets.
    void_from = _NEVER
    branch_from: dict[str, int] = {}
    found = []
    for index in range(len(batch) - 1, -1, -1):
        record = batch[index]
        if type(record) is Reset:
            if record.branch is None:
                void_from = min(void_from, record.from_seq)
            else:
                branch_from[record.branch] = min(record.from_seq, branch_from.get(record.branch, _NEVER))
        elif type(record) not in VOIDABLE or positions[index] < min(
            void_from, _NEVER if record.branch is None else _branch_void_from(branch_from, record.branch)
        ):
            found.append(index)
    found.reverse()
    return found


def _branch_void_from(branch_from: dict[str, int], branch: str) -> int:
    """From where a branch is void: by its own resets and by those of the branches that it is inside of."""
    void_from = branch_from.get(branch, _NEVER)
    while branch_from and "/" in branch:
        branch = branch.rpartition("/")[0]
        void_from = min(void_from, branch_from.get(branch, _NEVER))
    return void_from
