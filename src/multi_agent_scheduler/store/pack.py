"""Blocks: a stretch of a log as compact bytes, and back. Pure.

Runs of deltas that extend the same thing (one part of one branch) are kept as columns: the run's place once, then the
texts alone. Everything else is kept as it is, in MessagePack. A block also keeps the batches in which its records came
and their times. Blocks that follow each other are joined without looking at the records.

A block is one byte, :data:`_PLAIN` or :data:`_ZLIB`, and then MessagePack of ``[time of the first batch, counts, time
steps, runs]``: ``counts`` are pairs of (records in a batch, how many batches in a row have as many), ``time steps`` are
from one batch to the next; a run is ``[kind, part, branch, index, texts]``, or ``[0, records]``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from operator import sub
from typing import Any, Final, NamedTuple

import msgspec

from ..errors import StoreError
from ..records import Reasoning, Record, Text, ToolCall

__all__ = ["Stretch", "join", "measure", "pack", "split", "unpack", "unpack_records"]

OVERHEAD: Final = 32  # bytes counted for each record beside its text

_PLAIN: Final = b"\0"
_ZLIB: Final = b"\1"
_WORTH_PRESSING: Final = 4096  # bytes; fewer are not worth the time
_LEVEL: Final = 1  # measured on English text: level 6 saves 6% more and takes twice as long

_OTHER: Final = 0
_TEXT: Final = 1
_REASONING: Final = 2
_ARGUMENTS: Final = 3

_encoder: Final = msgspec.msgpack.Encoder()
_block: Final = msgspec.msgpack.Decoder(tuple[int, list[int], list[int], list[list[Any]]])
_records: Final = msgspec.msgpack.Decoder(list[Record])


class Stretch(NamedTuple):
    """Records that follow each other in a log, and the batches in which they came.

    ``counts`` has the number of records of each batch, ``times`` when it came, in whole milliseconds since 1970 (UTC).
    """

    records: Sequence[Record]
    counts: Sequence[int]
    times: Sequence[int]


def measure(records: Sequence[Record]) -> int:
    """The size of records in bytes, as limits count it; the same for every store.

    Raises ValueError (for half a surrogate pair), TypeError or OverflowError for a record that cannot be kept, because
    something in it is no plain data.
    """
    size = 0
    for record in records:
        if type(record) is Text and record.branch is None and not record.part:
            text = record.text
            size += OVERHEAD + (len(text) if text.isascii() else len(text.encode()))
        else:
            size += OVERHEAD + len(_encoder.encode(record))
    return size


def pack(stretch: Stretch, *, press: bool = False) -> bytes:
    """A block of these records; ``press`` compresses it where that is worth it."""
    times = stretch.times
    steps = [0, *map(sub, times[1:], times)]
    return _encoded(times[0], _pairs(stretch.counts), steps, _runs(stretch.records), press)


def unpack_records(block: bytes) -> list[Record]:
    """The records of a block. Raises StoreError if it is damaged."""
    found: list[Record] = []
    try:
        for run in _decoded(block)[3]:
            found += _expanded(*run)
    except (IndexError, TypeError, ValueError) as error:
        raise StoreError(f"a block of a log is damaged: {error}") from None
    return found


def unpack(block: bytes) -> Stretch:
    """All of a block. Raises StoreError if it is damaged."""
    time, pairs, steps, _ = _decoded(block)
    counts: list[int] = []
    for count, repeats in zip(pairs[::2], pairs[1::2], strict=True):
        counts += [count] * repeats
    times = []
    for step in steps:
        time += step
        times.append(time)
    return Stretch(unpack_records(block), counts, times)


def join(blocks: Sequence[bytes], *, press: bool = False) -> bytes:
    """One block of several that follow each other. Raises StoreError if one is damaged."""
    parts = [_decoded(block) for block in blocks]
    pairs: list[int] = []
    steps: list[int] = []
    runs: list[list[Any]] = []
    last = parts[0][0]
    for time, some_pairs, some_steps, some_runs in parts:
        _add_pairs(pairs, some_pairs)
        steps += [time - last, *some_steps[1:]]
        last = time + sum(some_steps)
        if runs and some_runs and runs[-1][0] != _OTHER and runs[-1][:4] == some_runs[0][:4]:
            runs[-1][4] += some_runs.pop(0)[4]
        runs += some_runs
    return _encoded(parts[0][0], pairs, steps, runs, press)


def split(stretch: Stretch, size: int) -> Iterator[Stretch]:
    """The same records in stretches of at most ``size`` bytes (a lone record may have more); batches may be cut."""
    start = 0
    total = 0
    cuts = []
    for position, record in enumerate(stretch.records):
        total += measure((record,))
        if total > size and position > start:
            cuts.append(position)
            start, total = position, measure((record,))
    if not cuts:
        yield stretch
        return
    batches = list(zip(stretch.counts, stretch.times, strict=True))[::-1]
    for first, last in zip([0, *cuts], [*cuts, len(stretch.records)], strict=True):
        counts, times, missing = [], [], last - first
        while missing:
            count, time = batches.pop()
            if count > missing:
                batches.append((count - missing, time))
                count = missing
            counts.append(count)
            times.append(time)
            missing -= count
        yield Stretch(stretch.records[first:last], counts, times)


def _encoded(time: int, pairs: list[int], steps: list[int], runs: list[list[Any]], press: bool) -> bytes:
    plain = _encoder.encode((time, pairs, steps, runs))
    if press and len(plain) >= _WORTH_PRESSING:
        pressed = zlib.compress(plain, _LEVEL)
        if len(pressed) < len(plain):
            return _ZLIB + pressed
    return _PLAIN + plain


def _decoded(block: bytes) -> tuple[int, list[int], list[int], list[list[Any]]]:
    kind = block[:1]
    try:
        if kind == _ZLIB:
            return _block.decode(zlib.decompress(memoryview(block)[1:]))
        if kind == _PLAIN:
            return _block.decode(memoryview(block)[1:])
    except (zlib.error, msgspec.DecodeError) as error:
        raise StoreError(f"a block of a log is damaged: {error}") from None
    raise StoreError(f"a block of a log is damaged: it begins with {kind!r}")


def _pairs(counts: Sequence[int]) -> list[int]:
    if counts.count(counts[0]) == len(counts):
        return [counts[0], len(counts)]
    pairs: list[int] = []
    for count in counts:
        if pairs and pairs[-2] == count:
            pairs[-1] += 1
        else:
            pairs += (count, 1)
    return pairs


def _add_pairs(pairs: list[int], more: list[int]) -> None:
    if pairs and more and pairs[-2] == more[0]:
        pairs[-1] += more[1]
        more = more[2:]
    pairs += more


def _runs(records: Sequence[Record]) -> list[list[Any]]:
    runs: list[list[Any]] = []
    kind, part, branch, index = -1, 0, None, 0
    texts: list[str] = []
    others: list[Record] = []
    for record in records:
        if (
            kind == _TEXT
            and type(record) is Text
            and record.part == part
            and record.branch == branch
            and not record.seq
        ):
            texts.append(record.text)  # what nearly all of them are
            continue
        if type(record) is Text and not record.seq:
            text, this, tool = record.text, _TEXT, 0
        elif type(record) is Reasoning and _is_plain(record):
            text, this, tool = record.text, _REASONING, 0
        elif type(record) is ToolCall and _is_fragment(record):
            text, this, tool = record.arguments, _ARGUMENTS, record.index
        else:
            if kind != _OTHER:
                kind, others = _OTHER, []
                runs.append([_OTHER, others])
            others.append(record)
            continue
        if this != kind or record.part != part or record.branch != branch or tool != index:
            kind, part, branch, index, texts = this, record.part, record.branch, tool, []
            runs.append([kind, part, branch, index, texts])
        texts.append(text)
    for run in runs:
        if run[0] == _OTHER:
            run[1] = _encoder.encode(run[1])
    return runs


def _is_plain(record: Reasoning) -> bool:
    return (
        not record.seq
        and record.signature is None
        and record.redacted is None
        and record.kind is None
        and record.id is None
    )


def _is_fragment(record: ToolCall) -> bool:
    return (
        not record.seq
        and record.id == ""
        and record.name == ""
        and record.kind == "function"
        and record.signature is None
    )


def _expanded(kind: int, *place: Any) -> Sequence[Record]:
    if kind == _OTHER:
        return _records.decode(place[0])
    part, branch, index, texts = place
    if kind == _TEXT:
        if part == 0 and branch is None:
            return list(map(Text, texts))
        return [Text(text, part, branch=branch) for text in texts]
    if kind == _REASONING:
        return [Reasoning(text, part, branch=branch) for text in texts]
    if kind == _ARGUMENTS:
        return [ToolCall(index, arguments=text, part=part, branch=branch) for text in texts]
    raise ValueError(f"a run of the unknown kind {kind!r}")
