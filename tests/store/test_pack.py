"""Blocks: what was packed is what is unpacked, joined and split as well, and 4-character chunks take little."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import StoreError
from multi_agent_scheduler.records import Record, Text, Unknown, Usage
from multi_agent_scheduler.store.pack import Stretch, join, measure, pack, split, unpack, unpack_records
from tests.store.drawn import records, stretches


def together(*some: Stretch) -> Stretch:
    return Stretch(
        [record for stretch in some for record in stretch.records],
        [count for stretch in some for count in stretch.counts],
        [time for stretch in some for time in stretch.times],
    )


@given(stretches(), st.booleans())
def test_what_was_packed_is_unpacked(stretch: Stretch, press: bool) -> None:
    block = pack(stretch, press=press)
    assert unpack(block) == stretch
    assert unpack_records(block) == stretch.records


@given(st.lists(st.tuples(stretches(max_batches=4), st.booleans()), min_size=1, max_size=4), st.booleans())
def test_joined_blocks_are_what_they_were(some: list[tuple[Stretch, bool]], press: bool) -> None:
    blocks = [pack(stretch, press=pressed) for stretch, pressed in some]
    assert unpack(join(blocks, press=press)) == together(*(stretch for stretch, _ in some))


@given(stretches(), st.integers(1, 400))
def test_split_stretches_have_the_same_records_and_bounded_sizes(stretch: Stretch, size: int) -> None:
    parts = list(split(stretch, size))
    assert [record for part in parts for record in part.records] == stretch.records
    for part in parts:
        assert sum(part.counts) == len(part.records)
        assert len(part.counts) == len(part.times)
        assert len(part.records) == 1 or measure(part.records) <= size
    times = [time for part in parts for count, time in zip(part.counts, part.times, strict=True) for _ in range(count)]
    assert times == [
        time for count, time in zip(stretch.counts, stretch.times, strict=True) for _ in range(count)
    ]  # each record keeps the time of its batch


def test_a_run_of_small_chunks_takes_two_bytes_a_chunk_beside_its_text() -> None:
    stretch = Stretch(
        [Text("abcd") for _ in range(1000)], [1] * 1000, [1_700_000_000_000 + 20 * n for n in range(1000)]
    )
    assert len(pack(stretch)) < 6 * 1000 + 50
    assert len(pack(stretch, press=True)) < 200


def test_joined_runs_become_one_run() -> None:
    halves = [Stretch([Text("abcd")] * 100, [1] * 100, [1000] * 100)] * 2
    assert len(join([pack(half) for half in halves])) <= 2 * len(pack(halves[0])) - 10


@pytest.mark.parametrize("press", [False, True])
def test_a_damaged_block_is_told(press: bool) -> None:
    block = pack(Stretch([Text("some words")] * 200, [200], [5]), press=press)
    for damaged in (b"", b"\7" + block[1:], block[:-3], block[:1] + b"\x93" + block[2:], block[:1] + b"\xc1"):
        with pytest.raises(StoreError, match="a block of a log is damaged"):
            unpack(damaged)


@given(records)
def test_the_size_of_a_record_is_at_least_its_text(record: Record) -> None:
    text = getattr(record, "text", None) or ""
    assert measure([record]) >= 32 + len(text.encode())


@pytest.mark.parametrize(
    "record",
    [Text("half a pair: \ud800"), Unknown(raw=object()), Usage(raw={"n": 2**70})],
    ids=["surrogate", "object", "integer"],
)
def test_what_cannot_be_kept_is_refused_before_it_is_taken(record: Record) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        measure([record])
