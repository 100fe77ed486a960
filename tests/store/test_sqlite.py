"""The SQLite store's file: what may open it, how it is kept small, and what happens when it cannot be written."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from multi_agent_scheduler.conformance import everything
from multi_agent_scheduler.errors import (
    InvalidConfiguration,
    InvalidOption,
    StoreClosed,
    StoreError,
    StreamNotFound,
)
from multi_agent_scheduler.records import Completed, Record, Text
from multi_agent_scheduler.store import MemoryStore, engine, opened, schema
from multi_agent_scheduler.store.changes import Change, Pile
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.store.follow import Follower
from multi_agent_scheduler.store.pack import Stretch, pack
from multi_agent_scheduler.store.reader import SQLiteReader
from multi_agent_scheduler.store.sqlite import SQLiteStore
from tests.store.files import query, until, using, written


def modes(path: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}


def files(path: Path) -> dict[str, int]:
    return {file.name.removeprefix(path.name): file.stat().st_size for file in path.parent.iterdir()}


# --- what is opened ---------------------------------------------------------------------------------------------------


async def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(opened("memory://"), MemoryStore)
    absolute = opened(f"sqlite:///{tmp_path}/a.db?keep_seconds=60&keep_logs=30&durability=power")
    assert isinstance(absolute, SQLiteStore) and absolute.path == tmp_path / "a.db"
    monkeypatch.chdir(tmp_path)
    relative = opened("sqlite:///b.db")
    assert isinstance(relative, SQLiteStore)
    await relative.open()
    await relative.aclose()
    assert (tmp_path / "b.db").exists()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("valkey://x", "store must be 'memory://' or 'sqlite:///FILE', not 'valkey://x'"),
        ("sqlite:///", "not 'sqlite:///'"),
        ("sqlite://host/a.db", "store must be"),
        ("mas.db", "store must be"),
        ("sqlite:///a.db?keep=1", "unknown setting 'keep'; the settings are durability, "),
        ("sqlite:///a.db?keep_bytes=many", "keep_bytes must be a number, not 'many'"),
        ("sqlite:///a.db?keep_seconds=-1", "keep_seconds must be a number from 0"),
        ("sqlite:///a.db?durability=some", "durability must be 'process' or 'power', not 'some'"),
    ],
)
def test_urls_that_name_no_store(url: str, problem: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        opened(url)
    assert problem in str(caught.value)


async def test_a_new_file_is_for_its_owner_only_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with using(path) as store:
        await written(store, "s", "x")
        assert {name: oct(mode) for name, mode in modes(path).items() if mode != 0o600} == {}
    assert set(files(path)) == {"", "-owner"}


async def test_the_body_is_kept_until_the_end(tmp_path: Path) -> None:
    async with using(tmp_path / "a.db") as store:
        await store.submit([StreamSpec("s", "t", body=b"what to do")])
    async with using(tmp_path / "a.db") as store:
        assert store.body("s") == b"what to do"
        store.finish(await store.claim("s"), [Completed("stop")])
        await store.settled()
        assert store.body("s") == b""
        with pytest.raises(StreamNotFound):
            store.body("other")


async def test_an_unopened_store_says_so(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")
    with pytest.raises(StoreClosed, match="is not open"):
        await store.submit([StreamSpec("s", "t")])
    await store.aclose()


def test_a_store_goes_on_in_a_later_loop(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")

    async def begin() -> None:
        await store.open()
        await store.open()  # again in the same loop changes nothing
        await store.submit([StreamSpec("s", "t")])
        store.append(await store.claim("s"), [Text("x")])
        await store.settled()

    async def go_on() -> None:
        await store.open()
        assert store.info("s").state == "queued"
        store.finish(await store.claim("s"), [Completed("stop")])
        assert await everything(store, "s") == [Text("x"), Completed("stop")]
        await store.aclose()

    asyncio.run(begin())
    asyncio.run(go_on())


def _damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 6] = os.urandom(4096 * 4)
    path.write_bytes(data)


def _execute(*statements: str) -> Any:
    def change(path: Path) -> None:
        database = engine.connect(path, "create")
        for statement in statements:
            database.execute(statement)
        database.close()

    return change


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.write_bytes(b"not a database" * 1000), "is not a database of streams"),
        (_damaged, "restore it from a backup"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "restore it from a backup"),
        (lambda path: os.truncate(path, 1000), "restore it from a backup|is not a database"),
        (
            _execute("PRAGMA user_version = 99"),
            rf"was written by a later version .*its form is 99, known here is {schema.FORMAT}\)",
        ),
        (_execute("PRAGMA application_id = 7"), "is the database of another program: name another file"),
        (lambda path: (path.unlink(), _execute("CREATE TABLE x (y)")(path)), "is the database of another program"),
    ],
    ids=["text", "damaged", "cut", "cut to the header", "later", "another's", "anybody's"],
)
async def test_a_file_that_cannot_be_used_is_left_as_it_was(tmp_path: Path, spoil: Any, problem: str) -> None:
    path = tmp_path / "a.db"
    async with using(path) as store:
        await written(store, "s", *("some text " * 1000 for _ in range(20)))
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=problem) as caught:
        await SQLiteStore(path).open()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


async def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder .*/none; make it first"):
        await SQLiteStore(tmp_path / "none" / "a.db").open()
    with pytest.raises(StoreError, match="is a folder: name a file in it"):
        await SQLiteStore(tmp_path).open()


_OPEN = """
import asyncio, os, sys
from multi_agent_scheduler.errors import StoreError
from multi_agent_scheduler.store.sqlite import SQLiteStore
from tests.store.files import query, until, using, written
async def main():
    other = SQLiteStore(sys.argv[2])  # loads what has to be loaded
    await other.open()
    await other.aclose()
    if os.geteuid() == 0:  # become somebody whom permissions concern
        os.setuid(65534)
    try:
        await SQLiteStore(sys.argv[1]).open()
    except StoreError as error:
        print(error)
    else:
        print("opened")
asyncio.run(main())
"""


@pytest.mark.parametrize(("file", "folder"), [(0o444, 0o777), (0o666, 0o555), (0o000, 0o777)])
def test_what_is_read_only_is_told(tmp_path: Path, file: int, folder: int) -> None:
    place = tmp_path / "place"
    place.mkdir()
    path = place / "a.db"

    async def make() -> None:
        async with using(path) as store:
            await written(store, "s", "x")

    asyncio.run(make())
    before = path.read_bytes()
    for kept in (place, tmp_path, *list(tmp_path.parents)[:2]):
        kept.chmod(0o755)
    for lock in place.glob("*-owner"):
        lock.chmod(0o666)
    path.chmod(file)
    place.chmod(folder)
    try:
        command = [sys.executable, "-c", _OPEN, str(path), str(tmp_path / "other.db")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    finally:
        place.chmod(0o755)
    assert path.name in done.stdout and "opened" not in done.stdout, done
    assert any(word in done.stdout for word in ("read-only", "cannot be read", "cannot be opened", "writable")), done
    assert path.read_bytes() == before


async def test_a_file_of_the_first_form_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    block = pack(Stretch([Text("old "), Text("words"), Completed("stop")], [2, 1], [1000, 2000]))
    half = pack(Stretch([Text("half")], [1], [3000]))
    database = engine.connect(path, "create")
    for statement in (
        "PRAGMA auto_vacuum = INCREMENTAL",
        "CREATE TABLE streams (number INTEGER PRIMARY KEY, stream_id TEXT NOT NULL UNIQUE, task_id TEXT NOT NULL, "
        "plan_id TEXT, state TEXT NOT NULL DEFAULT 'queued', epoch INTEGER NOT NULL DEFAULT 0, "
        "seq INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL DEFAULT 0, stop_reason TEXT, created REAL NOT NULL, "
        "ended_at REAL, body BLOB)",
        "CREATE INDEX streams_of_plan ON streams (plan_id) WHERE plan_id IS NOT NULL",
        "CREATE INDEX streams_live ON streams (number) WHERE ended_at IS NULL",
        "CREATE INDEX streams_ended ON streams (ended_at) WHERE ended_at IS NOT NULL",
        "CREATE TABLE blocks (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
        f"PRAGMA application_id = {0x4D41534C}",
        "INSERT INTO streams VALUES (1, 'done', 't1', NULL, 'completed', 1, 3, 99, NULL, 1.0, 2.0, NULL)",
        "INSERT INTO streams VALUES (2, 'half', 't2', 'p', 'running', 4, 1, 36, NULL, 1.5, NULL, x'01')",
    ):
        database.execute(statement)
    database.executemany("INSERT INTO blocks VALUES (?, ?)", [(1 << 32 | 3, block), (2 << 32 | 1, half)])
    database.close()
    async with using(path) as store:
        assert await everything(store, "done") == [Text("old "), Text("words"), Completed("stop")]
        assert [batch.at for batch in store.log("done").batches(1)] == [1.0, 2.0]
        info = store.info("half")
        assert (info.state, info.epoch, info.seq, info.owner, store.body("half")) == ("queued", 4, 1, "", b"\1")
        lease = await store.claim("half")
        assert lease.epoch == 5
        store.append(lease, [Text(" more")])
        store.finish(lease, [Completed("stop")])
        assert await everything(store, "half") == [Text("half"), Text(" more"), Completed("stop")]
        assert [found.stream_id for found in store.streams(owner="")] == ["done", "half"]
    assert query(path, "PRAGMA user_version") == [(schema.FORMAT,)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_file_that_kept_every_log_whole_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    block = pack(Stretch([Text("old "), Text("words"), Completed("stop")], [2, 1], [1000, 2000]))
    database = engine.connect(path, "create")
    for statement in (
        "PRAGMA auto_vacuum = INCREMENTAL",
        "CREATE TABLE streams (number INTEGER PRIMARY KEY, stream_id TEXT NOT NULL UNIQUE, task_id TEXT NOT NULL, "
        "plan_id TEXT, owner TEXT NOT NULL DEFAULT '', state TEXT NOT NULL DEFAULT 'queued', "
        "epoch INTEGER NOT NULL DEFAULT 0, seq INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL DEFAULT 0, "
        "stop_reason TEXT, created REAL NOT NULL, ended_at REAL, body BLOB)",
        "CREATE INDEX streams_of_plan ON streams (plan_id) WHERE plan_id IS NOT NULL",
        "CREATE INDEX streams_of_owner ON streams (owner) WHERE owner != ''",
        "CREATE INDEX streams_live ON streams (number) WHERE ended_at IS NULL",
        "CREATE INDEX streams_ended ON streams (ended_at) WHERE ended_at IS NOT NULL",
        "CREATE TABLE journal (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
        "CREATE TABLE blocks (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
        f"PRAGMA application_id = {0x4D41534C}",
        "PRAGMA user_version = 1",
        "INSERT INTO streams VALUES (1, 'done', 't1', NULL, 'me', 'completed', 1, 3, 99, NULL, 1.0, 2.0, NULL)",
    ):
        database.execute(statement)
    database.execute("INSERT INTO blocks VALUES (?, ?)", (1 << 32 | 3, block))
    database.close()
    with pytest.raises(StoreError, match="has an older form"):
        await SQLiteReader(path).open()
    async with using(path) as store:
        assert await everything(store, "done") == [Text("old "), Text("words"), Completed("stop")]
        assert not store.info("done").trimmed
    async with using(path, keep_logs=60) as store:
        await until(lambda: store.info("done").trimmed)
        assert store.log("done").digest() == [Text("old words"), Completed("stop")]
    assert query(path, "PRAGMA user_version") == [(schema.FORMAT,)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_an_old_sqlite_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MINIMUM", (99, 0, 0))
    with pytest.raises(
        StoreError, match=r"needs SQLite 99\.0\.0 or later, and apsw has .*multi-agent-scheduler\[sqlite\]"
    ):
        engine.connect(tmp_path / "a.db", "create")
    monkeypatch.setitem(sys.modules, "apsw", None)
    with pytest.raises(StoreError, match=r"and this Python has .*pip install 'multi-agent-scheduler\[sqlite\]'"):
        engine.connect(tmp_path / "a.db", "create")


async def test_the_standard_librarys_sqlite_does_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's may be too old to be allowed; what it is used for works in old ones, too."""
    monkeypatch.setattr(engine, "connect", None)
    for module in ("archive", "schema", "writer"):
        monkeypatch.setattr(f"multi_agent_scheduler.store.{module}.connect", lambda path, mode: standard(path, mode))

    def standard(path: Path, mode: Any) -> engine.Database:
        return engine._connect_standard(path, mode, minimum=(3, 0))

    path = tmp_path / "with a space?.db"
    async with using(path) as store:
        await written(store, "s", *(f"{number} " for number in range(600)))
        with pytest.raises(StoreError, match="exists already"):
            await store.submit([StreamSpec("s", "t")])
        assert len(await everything(store, "s", 590)) == 11
    os.truncate(path, 5000)
    with pytest.raises(StoreError, match="restore it from a backup"):
        await SQLiteStore(path).open()


# --- how it is kept ---------------------------------------------------------------------------------------------------


async def test_small_chunks_take_little_space_once_they_are_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    words = [f"{number * 7919 % 10000:04}" for number in range(40_000)]  # digits: what compresses badly
    async with using(path) as store:
        for number in range(40):
            await written(store, f"{number:032x}", *words[number * 1000 : number * 1000 + 1000])
        await store.settled()  # the journal is emptied behind the last end
        assert query(path, "SELECT count(*) FROM journal") == [(0,)]
    assert sum(files(path).values()) < 2 * 160_000


async def test_a_long_stream_is_kept_in_large_blocks_and_not_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with using(path) as store:
        await store.submit([StreamSpec("s", "t")])
        lease = await store.claim("s")
        for number in range(30_000):
            store.append(lease, [Text(f"{number:04} ")])
            if number % 100 == 0:
                await asyncio.sleep(0)
            if store.behind:
                await store.room()
        await store.settled()
        log = store._logs["s"]
        assert len(log.tail.records) < 1024
        while query(path, "SELECT max(id) & 0xffffffff FROM blocks") < [(29_000,)]:
            await store.settled()
        store.finish(lease, [Completed("stop")])
        await store.settled()
        assert store._logs == {} and list(store._core) == []
        ((blocks,),) = query(path, "SELECT count(*) FROM blocks")
        assert blocks <= 10
        assert [record.text for record in await everything(store, "s", 29_998) if isinstance(record, Text)] == [
            "29998 ",
            "29999 ",
        ]


async def test_a_batch_of_any_size_is_read_in_pages(tmp_path: Path) -> None:
    async with using(tmp_path / "a.db") as store:
        await store.submit([StreamSpec("s", "t")])
        lease = await store.claim("s")
        batch: list[Record] = [Text(f"{number:04}") for number in range(40_000)]
        store.append(lease, batch)
        store.finish(lease, [Completed("stop")])
        await store.settled()
        follower, pages = Follower(store, "s"), []
        while records := await follower.next():
            pages.append(len(records))
        assert sum(pages) == 40_001 and max(pages) < 6000
        times = {batch.at for batch in store.log("s").batches(0)}
        assert len(times) == 1


async def test_the_journal_is_emptied_while_streams_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with using(path) as store:
        await store.submit([StreamSpec(name, "t") for name in ("slow", "fast")])
        slow, fast = await store.claim("slow"), await store.claim("fast")
        written: list[Record] = []
        for number in range(300):
            text = Text("x" * 30_000 + str(number))
            store.append(fast, [text])
            written.append(text)
            store.append(slow, [Text(str(number))])
            if store.behind:
                await store.room()
        await store.settled()
        ((size,),) = query(path, "SELECT coalesce(sum(length(data)), 0) FROM journal")
        assert size < 5_000_000  # of 9,000,000
        assert [record async for record in shown(store, "slow", 300)] == [Text(str(n)) for n in range(300)]
        assert [record async for record in shown(store, "fast", 300)] == written


async def shown(store: SQLiteStore, name: str, count: int) -> AsyncIterator[Record]:
    follower = Follower(store, name)
    while follower.seq < count:
        for record in await follower.next():
            yield record


def test_settings_are_checked() -> None:
    for wrong in (
        {"keep_bytes": -1},
        {"keep_logs": "x"},
        {"keep_seconds": "1"},
        {"keep_bytes": True},
        {"durability": None},
    ):
        with pytest.raises(InvalidOption):
            SQLiteStore("a.db", **wrong)  # type: ignore[arg-type]


# --- when it cannot be written ----------------------------------------------------------------------------------------


async def test_when_the_disk_is_full_everybody_is_told_and_nothing_unkept_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with using(path) as store:
        await store.submit([StreamSpec("s", "t"), StreamSpec("other", "t")])
        lease, follower = await store.claim("s"), Follower(store, "s")
        store.append(lease, [Text("kept")])
        assert await follower.next() == [Text("kept")]
        await store.settled()
        assert store._writer is not None
        _limit_pages(store)
        called = asyncio.Event()
        store.log("other").subscribe(called.set)
        waiting = asyncio.create_task(follower.next())
        room = asyncio.create_task(store.settled())
        await asyncio.sleep(0)
        store.append(lease, [Text(os.urandom(1_000_000).hex())])
        for task in (waiting, room):
            with pytest.raises(StoreClosed, match=r"a\.db: the disk is full: free some space and start again"):
                await task
        assert called.is_set()
        with pytest.raises(StoreClosed, match="the disk is full"):
            store.append(lease, [Text("more")])
        with pytest.raises(StoreClosed, match="the disk is full"):
            await store.submit([StreamSpec("new", "t")])
        with pytest.raises(StoreClosed, match="the disk is full"):
            store.log("s") if store._closed is None else store.info("missing")
    async with using(path) as store:
        assert store.info("s").seq == 1
        assert store.log("s").read(0) == [Text("kept")]


def _limit_pages(store: SQLiteStore) -> None:
    """Let the writer find that there is no room for many more pages."""

    class Limit(Change):
        def apply(self, pile: Pile) -> None:
            pile.database.execute("PRAGMA max_page_count = 40")

    store._begun().changes.append(Limit())


def test_a_file_size_limit_stops_the_store(tmp_path: Path) -> None:
    """A real refusal by the system."""
    program = """
import asyncio, resource, sys
from multi_agent_scheduler.errors import StoreClosed
from multi_agent_scheduler.records import Text
from multi_agent_scheduler.store.changes import Change, Pile
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.store.sqlite import SQLiteStore
from tests.store.files import query, until, using, written
async def main():
    store = SQLiteStore(sys.argv[1])
    await store.open()
    await store.submit([StreamSpec("s", "t")])
    lease = await store.claim("s")
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
    try:
        for number in range(1000):
            store.append(lease, [Text("x" * 10_000)])
            await store.settled()
    except StoreClosed as error:
        print(store._logs["s"].shown, error)
    await store.aclose()
asyncio.run(main())
"""
    command = [sys.executable, "-c", program, str(tmp_path / "a.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    shown, _, message = done.stdout.partition(" ")
    assert "a.db: " in message and ("full" in message or "disk" in message)

    async def check() -> None:
        async with using(tmp_path / "a.db") as store:
            assert store.info("s").seq >= int(shown) > 10

    asyncio.run(check())


async def test_a_claim_that_is_given_up_leaves_the_stream_queued(tmp_path: Path) -> None:
    async with using(tmp_path / "a.db") as store:
        await store.submit([StreamSpec("s", "t")])
        claiming = asyncio.create_task(store.claim("s"))
        await asyncio.sleep(0)
        claiming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claiming
        await store.settled()
        assert store.info("s").state == "queued"
        assert (await store.claim("s")).epoch == 2
