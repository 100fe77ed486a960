"""The memory store and the follower: what was written is what is read, from any cursor, live or later."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import CursorError, LogTrimmed, StoreClosed, StreamNotFound
from multi_agent_scheduler.records import CallStarted, Completed, Record, Text, Unknown, Usage
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.store.follow import Follower
from multi_agent_scheduler.store.memory import MemoryStore


async def everything(store: MemoryStore, stream_id: str, after: int = 0) -> list[Record]:
    follower = Follower(store, stream_id, after)
    found: list[Record] = []
    while records := await follower.next():
        found += records
    return found


async def written(store: MemoryStore, stream_id: str, batches: list[list[Record]]) -> list[Record]:
    await store.submit([StreamSpec(stream_id, "t")])
    lease = await store.claim(stream_id)
    for batch in batches:
        store.append(lease, batch)
    store.finish(lease, [Completed("stop")])
    return [record for batch in batches for record in batch] + [Completed("stop")]


@given(st.lists(st.integers(1, 200), max_size=12), st.data())
def test_a_finished_log_is_read_from_any_cursor(sizes: list[int], data: st.DataObject) -> None:
    async def check() -> None:
        store = MemoryStore()
        batches: list[list[Record]] = [[Text(f"{b}.{i} ") for i in range(size)] for b, size in enumerate(sizes)]
        log = await written(store, "s", batches)
        after = data.draw(st.integers(0, len(log)))
        assert await everything(store, "s", after) == log[after:]

    asyncio.run(check())


async def test_readers_at_different_places_see_the_same_log_while_it_grows() -> None:
    store = MemoryStore()
    await store.submit([StreamSpec("s", "t")])
    lease = await store.claim("s")
    early = asyncio.create_task(everything(store, "s"))
    await asyncio.sleep(0)
    log: list[Record] = [CallStarted(1, "a"), Usage(input_tokens=1, call=1), Unknown(raw={"x": [1, 2]}, protocol="p")]
    store.append(lease, log)
    for index in range(1000):
        record = Text(str(index))
        store.append(lease, [record])
        log.append(record)
        if index % 100 == 0:
            await asyncio.sleep(0)
    late = asyncio.create_task(everything(store, "s", 300))
    await asyncio.sleep(0)
    store.finish(lease, [Completed("stop")])
    log.append(Completed("stop"))
    assert await early == log
    assert await late == log[300:]


async def test_a_follower_that_is_cancelled_leaves_nothing_behind() -> None:
    store = MemoryStore()
    await store.submit([StreamSpec("s", "t")])
    lease = await store.claim("s")
    waiting = asyncio.create_task(Follower(store, "s").next())
    other = asyncio.create_task(Follower(store, "s").next())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    store.append(lease, [Text("x")])
    assert await other == [Text("x")]
    assert store.log("s")._waiters == []  # type: ignore[attr-defined]


async def test_cursors_that_cannot_be_are_refused() -> None:
    store = MemoryStore()
    await written(store, "s", [[Text("x")]])
    for cursor in (-1, 3, True, "2"):
        with pytest.raises(CursorError, match="which reaches 2"):
            Follower(store, "s", cursor)  # type: ignore[arg-type]
    with pytest.raises(StreamNotFound):
        Follower(store, "nowhere")


async def test_old_streams_are_dropped_and_their_readers_go_on() -> None:
    store = MemoryStore(keep_streams=2)
    await written(store, "s0", [[Text(str(i)) for i in range(600)]])
    reader = Follower(store, "s0")
    await reader.next()
    for number in range(1, 4):
        await written(store, f"s{number}", [[Text("x")]])
    assert [info.stream_id for info in store.streams()] == ["s2", "s3"]
    with pytest.raises(StreamNotFound):
        store.info("s0")
    count = reader.seq
    while records := await reader.next():
        count += len(records)
    assert count == 601


async def test_the_bytes_that_are_kept_are_bounded() -> None:
    store = MemoryStore(keep_bytes=10_000)
    for number in range(50):
        await written(store, f"s{number}", [[Text("x" * 968)]])
    assert sum(info.size for info in store.streams()) <= 10_000
    assert store.streams()[-1].stream_id == "s49"


async def test_old_logs_are_trimmed_and_their_readers_go_on() -> None:
    now = [0.0]
    store = MemoryStore(keep_logs=60, clock=lambda: now[0])
    log = await written(store, "old", [[Text(f"{number} ")] for number in range(1500)])
    reader = Follower(store, "old")
    first = list(await reader.next())
    now[0] = 50.0
    await written(store, "new", [[Text("x")]])
    now[0] = 100.0
    await written(store, "newer", [[Text("x")]])
    assert [info.trimmed for info in store.streams()] == [True, False, False]
    while records := await reader.next():
        first += records
    assert first == log
    with pytest.raises(LogTrimmed, match="the log of the stream 'old' was trimmed"):
        Follower(store, "old", 7)
    assert await everything(store, "old", 1501) == []
    assert store.log("old").whole() == [Text("".join(f"{number} " for number in range(1500))), Completed("stop")]


async def test_logs_give_way_to_size_before_streams_do_but_not_those_that_have_just_ended() -> None:
    now = [0.0]
    store = MemoryStore(keep_bytes=100_000, clock=lambda: now[0])
    for number in range(10):
        now[0] += 100
        await written(store, f"s{number}", [[Text("x" * 15_000, branch="loser"), Text("x" * 5000)]])
    # All would have 200 kB; the logs of more than ten minutes ago, s0 to s2, have no loser any more.
    trimmed = [info.trimmed for info in store.streams()]
    assert trimmed == sorted(trimmed, reverse=True), "the oldest go first"
    assert not any(trimmed[-5:]), "the last ten minutes stay whole"
    assert sum(info.size for info in store.streams()) <= 100_000
    for number in range(10, 60):
        now[0] += 700
        await written(store, f"s{number}", [[Text("x" * 15_000, branch="loser"), Text("x" * 5000)]])
    trimmed = [info.trimmed for info in store.streams()]
    assert len(trimmed) == 16 and trimmed[:14] == [True] * 14
    assert sum(info.size for info in store.streams()) <= 100_000


async def test_few_logs_are_trimmed_at_once() -> None:
    now = [0.0]
    store = MemoryStore(keep_logs=60, clock=lambda: now[0])
    for number in range(10):
        await written(store, f"s{number}", [[Text("x")]])
    now[0] = 1000.0
    for trimmed in (2, 4, 6, 8, 10, 10):
        now[0] += 1
        await written(store, f"more {now[0]}", [[Text("x")]])
        assert sum(info.trimmed for info in store.streams()) == trimmed


async def test_a_closed_store_takes_nothing() -> None:
    store = MemoryStore()
    await store.submit([StreamSpec("s", "t")])
    lease = await store.claim("s")
    await store.aclose()
    with pytest.raises(StoreClosed):
        store.append(lease, [Text("x")])
    with pytest.raises(StoreClosed):
        await store.submit([StreamSpec("other", "t")])
