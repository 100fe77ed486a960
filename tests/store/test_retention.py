"""How long the SQLite store keeps what has ended: streams are removed, logs are trimmed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from multi_agent_scheduler.errors import LogTrimmed, StoreClosed, StreamNotFound
from multi_agent_scheduler.records import CallStarted, Completed, Text, Usage
from multi_agent_scheduler.store import engine
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.store.follow import Follower
from tests.store.files import query, reading, until, using, written


async def test_ended_streams_go_when_they_are_old_enough(tmp_path: Path) -> None:
    now = [1000.0]
    async with using(tmp_path / "a.db", clock=lambda: now[0]) as store:
        await written(store, "old", "x")
        await store.submit([StreamSpec("waiting", "t")])
        now[0] = 2000.0
        await written(store, "new", "x")
    async with using(tmp_path / "a.db", keep_seconds=500, clock=lambda: now[0]) as store:
        await until(lambda: len(store.streams()) == 2)
        assert [info.stream_id for info in store.streams()] == ["waiting", "new"]
    assert query(tmp_path / "a.db", "SELECT count(DISTINCT id >> 32) FROM blocks") == [(1,)]


async def test_what_has_ended_of_a_plan_stays_until_all_of_it_has(tmp_path: Path) -> None:
    now = [1000.0]
    async with using(tmp_path / "a.db", clock=lambda: now[0]) as store:
        await store.submit([StreamSpec("first", "t", "p"), StreamSpec("second", "t", "p")])
        store.finish(await store.claim("first"), [Completed("stop")])
        await written(store, "alone", "x")
        now[0] = 2000.0
    async with using(tmp_path / "a.db", keep_seconds=500, clock=lambda: now[0]) as store:
        await until(lambda: len(store.streams()) == 2)
        assert [info.stream_id for info in store.streams()] == ["first", "second"]
        store.finish(await store.claim("second"), [Completed("stop")])
        await store.settled()
        now[0] = 3000.0
    async with using(tmp_path / "a.db", keep_seconds=500, clock=lambda: now[0]) as store:
        await until(lambda: not store.streams())


async def test_the_oldest_go_while_the_file_is_too_large_and_it_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with using(path) as store:
        for number in range(20):
            await written(store, f"s{number}", os.urandom(100_000).hex())
        reader = Follower(store, "s0")
        log = store.log("s0")
    assert path.stat().st_size > 2_000_000
    async with using(path, keep_bytes=500_000) as store:
        log = store.log("s0")
        await until(lambda: path.stat().st_size <= 600_000)
        left = [info.stream_id for info in store.streams()]
        assert left == [f"s{number}" for number in range(20 - len(left), 20)] and 2 <= len(left) <= 5
        with pytest.raises(StreamNotFound, match="has been removed"):
            log.read(0)
    with pytest.raises(StoreClosed):
        reader.at_hand()


async def test_old_logs_are_trimmed_whatever_their_plan_does(tmp_path: Path) -> None:
    path, now = tmp_path / "a.db", [1000.0]
    async with using(path, clock=lambda: now[0]) as store:
        await store.submit([StreamSpec("first", "t", "p"), StreamSpec("second", "t", "p")])
        lease = await store.claim("first")
        for number in range(5000):
            store.append(lease, [Text(f"{number} ")])
        store.finish(lease, [Completed("stop")])
        now[0] = 2000.0
        await written(store, "new", "x")
    async with using(path, keep_logs=500, clock=lambda: now[0]) as store, reading(path) as reader:
        log, other = store.log("first"), reader.log("first")
        await until(lambda: store.info("first").trimmed)
        text = "".join(f"{number} " for number in range(5000))
        for place, read in ((store, log), (reader, other)):
            for after in (0, 4999):
                with pytest.raises(
                    LogTrimmed, match=r"the log of the stream 'first' was trimmed: .* its snapshot still"
                ):
                    read.read(after)
                with pytest.raises(LogTrimmed):
                    read.batches(after)
                with pytest.raises(LogTrimmed):
                    Follower(place, "first", after)
            assert not read.read(5001) and read.ended
            assert read.digest() == read.whole() == [Text(text), Completed("stop")]
            info = place.info("first")
            assert (info.state, info.seq, info.trimmed) == ("completed", 5001, True)
            assert len(text) <= info.size < len(text) + 200
            assert place.log("new").whole() == [Text("x"), Completed("stop")] and not place.log("new").digest()
            assert [info.trimmed for info in place.streams()] == [True, False, False]
    assert query(path, "SELECT count(*) FROM blocks WHERE id >> 32 = 1") == [(0,)]
    async with using(path, keep_seconds=500, clock=lambda: now[0]) as store:
        log = store.log("first")
        store.finish(await store.claim("second"), [Completed("stop")])
        await until(lambda: len(store.streams()) == 2)
        with pytest.raises(StreamNotFound):
            log.digest()
    assert query(path, "SELECT count(*) FROM digests") == [(0,)]


async def test_a_reader_that_follows_goes_on_with_what_is_in_memory(tmp_path: Path) -> None:
    now = [1000.0]
    async with using(tmp_path / "a.db", keep_logs=60, clock=lambda: now[0]) as store:
        await store.submit([StreamSpec("s", "t")])
        lease, follower = await store.claim("s"), Follower(store, "s")
        store.append(lease, [Text("a")])
        await follower.next()
        store.finish(lease, [Text("b"), Completed("stop")])
        await store.settled()
        now[0] = 2000.0
        await store.submit([StreamSpec("next", "t")])
        await until(lambda: store.info("s").trimmed)
        assert await follower.next() == [Text("b"), Completed("stop")]
        assert await follower.next() == ()


async def test_logs_give_way_to_size_before_streams_do_but_not_those_that_have_just_ended(tmp_path: Path) -> None:
    path, now = tmp_path / "a.db", [1000.0]
    async with using(path, clock=lambda: now[0]) as store:
        for number in range(20):
            await store.submit([StreamSpec(f"s{number}", "t")])
            lease = await store.claim(f"s{number}")
            store.append(lease, [CallStarted(1, "a", branch="loser"), Text(os.urandom(50_000).hex(), branch="loser")])
            store.append(lease, [Usage(1, 2, call=1, branch="loser"), Text(os.urandom(5000).hex())])
            store.finish(lease, [Completed("stop")])
            now[0] += 60
        await store.settled()
    size = path.stat().st_size
    async with using(path, keep_bytes=size * 2 // 3, clock=lambda: now[0]) as store:
        await until(lambda: path.stat().st_size <= size * 3 // 4)
        trimmed = [info.trimmed for info in store.streams()]
        assert len(trimmed) == 20 and 5 <= sum(trimmed) <= 10
        assert trimmed == sorted(trimmed, reverse=True), "the oldest go first"
        assert len(store.log("s0").digest()) == 4
    async with using(path, keep_bytes=size // 5, clock=lambda: now[0]) as store:
        await until(lambda: path.stat().st_size <= size // 3)
        left = store.streams()
        assert not any(info.trimmed for info in left), "the last ten minutes stay whole"
        assert [info.stream_id for info in left] == [f"s{number}" for number in range(20 - len(left), 20)]
        assert 1 <= len(left) <= 4


async def test_a_damaged_log_is_not_trimmed_and_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, now = tmp_path / "a.db", [1000.0]
    async with using(path, clock=lambda: now[0]) as store:
        for name in ("first", "second", "third"):
            await written(store, name, "x")
    database = engine.connect(path, "write")
    database.execute("UPDATE blocks SET data = x'00ff' WHERE id >> 32 = 1")
    database.execute("DELETE FROM blocks WHERE id >> 32 = 2")
    database.close()
    now[0] = 2000.0
    async with using(path, keep_logs=60, clock=lambda: now[0]) as store:
        await until(lambda: store.info("third").trimmed)
        assert not store.info("first").trimmed and not store.info("second").trimmed
        await written(store, "more", "x")
    assert [record.getMessage() for record in caplog.records] == [
        "the log of the stream number 1 is left as it is: a block of a log is damaged: Expected `array`, got `int`",
        "the log of the stream number 2 is left as it is: its blocks have 0 records, and not 2",
    ]


_KILLED_WHILE_IT_TRIMS = """
import asyncio, os, signal, sys
from multi_agent_scheduler.store import engine
from tests.store.files import until, using
database = engine.connect(sys.argv[1], "read")
Database = type(database)
database.close()
execute, statements, trimming = Database.execute, [], []
def executed(self, statement, *arguments):
    if statement.startswith("INSERT INTO digests"):
        trimming.append(self)
    if self in trimming:
        statements.append(statement)
        if len(statements) > int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    return execute(self, statement, *arguments)
async def main():
    Database.execute = executed
    async with using(sys.argv[1], keep_logs=0) as store:
        await until(lambda: store.info("s").trimmed)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.parametrize("statements", range(5))
async def test_whoever_is_killed_while_it_trims_leaves_all_or_the_digest(tmp_path: Path, statements: int) -> None:
    path = tmp_path / "a.db"
    async with using(path) as store:
        await written(store, "s", *map(str, range(3000)))
    program = (sys.executable, "-c", _KILLED_WHILE_IT_TRIMS, str(path), str(statements))
    killed = await asyncio.create_subprocess_exec(*program)
    assert await killed.wait() == -signal.SIGKILL
    text = "".join(map(str, range(3000)))
    async with using(path) as store:
        info, whole = store.info("s"), store.log("s").whole()
        assert info.trimmed == (statements == 4), "the fourth statement commits"
        assert len(whole) == (2 if info.trimmed else 3001) and info.seq == 3001
        assert "".join(record.text for record in whole if isinstance(record, Text)) == text
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "SELECT count(*) FROM digests") == [(int(statements == 4),)]


async def test_a_follower_never_sees_a_gap_where_its_log_is_trimmed(tmp_path: Path) -> None:
    path, now = tmp_path / "a.db", [1000.0]
    async with using(path, clock=lambda: now[0]) as store:
        await written(store, "s", *(os.urandom(40).hex() for _ in range(9000)))
    async with using(path, keep_logs=60, clock=lambda: now[0]) as store, reading(path) as other:
        followers = [Follower(store, "s"), Follower(other, "s")]
        seen = [len(await follower.next()) for follower in followers]
        assert all(0 < count < 9001 for count in seen)
        now[0] = 2000.0
        await store.submit([StreamSpec("next", "t")])
        await until(lambda: store.info("s").trimmed)
        for follower, count in zip(followers, seen, strict=True):
            with pytest.raises(LogTrimmed):
                await follower.next()
            assert follower.seq == count
