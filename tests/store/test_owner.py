"""One process owns the file; others are told who, and can read it and have streams stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from multi_agent_scheduler.errors import StoreError, StreamNotFound
from multi_agent_scheduler.records import Cancelled, Completed, Record, Text
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.store.follow import Follower
from multi_agent_scheduler.store.owner import NoOwner, ask_owner, cancel_at_owner, owner_of
from multi_agent_scheduler.store.reader import SQLiteReader
from multi_agent_scheduler.store.sqlite import SQLiteStore

HOLD = """
import asyncio, sys
from multi_agent_scheduler.store.sqlite import SQLiteStore
async def main():
    await SQLiteStore(sys.argv[1]).open()
    print("open", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "a.db")
    await store.open()
    await store.submit([StreamSpec("s", "t", "p", "me")])
    yield store
    await store.aclose()


def test_a_second_process_is_told_who_has_it_and_takes_over_when_that_dies(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()

    async def refused() -> None:
        with pytest.raises(StoreError, match=rf"a\.db is in use by process {holder.pid}: end it first"):
            await SQLiteStore(path).open()

    async def taken_over() -> None:
        left = json.loads((tmp_path / "a.db-owner").read_bytes())["socket"]
        assert left.endswith("socket")
        store = SQLiteStore(path)
        await store.open()
        assert owner_of(path) == os.getpid()
        await store.aclose()
        assert owner_of(path) is None

    try:
        asyncio.run(refused())
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        asyncio.run(taken_over())
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


async def test_a_second_store_in_the_same_process_is_refused(store: SQLiteStore) -> None:
    with pytest.raises(StoreError, match="is open in this process already: close that store or scheduler first"):
        await SQLiteStore(store.path).open()
    assert await asyncio.to_thread(ask_owner, store.path, {"do": "ping"})  # the first goes on


async def test_the_owner_stops_a_stream_when_asked(store: SQLiteStore) -> None:
    assert await asyncio.to_thread(cancel_at_owner, store.path, "s", "enough")
    assert store.info("s").stop_reason == "enough"
    assert not await asyncio.to_thread(cancel_at_owner, store.path, "s", "again")
    with pytest.raises(StreamNotFound, match="no stream 'other'"):
        await asyncio.to_thread(cancel_at_owner, store.path, "other")


async def test_whoever_runs_streams_stops_the_run(store: SQLiteStore) -> None:
    asked: list[tuple[str, str]] = []
    lease = await store.claim("s")

    def stop(stream_id: str, reason: str) -> bool:
        asked.append((stream_id, reason))
        store.finish(lease, [Cancelled(reason)])
        return True

    store.on_cancel = stop
    assert await asyncio.to_thread(cancel_at_owner, store.path, "s", "enough")
    assert asked == [("s", "enough")]
    assert store.info("s").state == "cancelled"


async def test_without_an_owner_it_is_said_so(tmp_path: Path, store: SQLiteStore) -> None:
    path = tmp_path / "other.db"
    with pytest.raises(NoOwner, match=r"no process has .*other\.db open"):
        cancel_at_owner(path, "s")
    (tmp_path / "other.db-owner").write_text(json.dumps({"pid": 1, "socket": str(tmp_path / "gone")}))
    with pytest.raises(NoOwner):
        cancel_at_owner(path, "s")
    (tmp_path / "other.db-owner").write_text("garbage")
    with pytest.raises(NoOwner):
        cancel_at_owner(path, "s")
    assert owner_of(path) is None


async def test_the_socket_is_the_owners_alone_and_bears_garbage(store: SQLiteStore) -> None:
    address = json.loads(store.path.with_name("a.db-owner").read_bytes())["socket"]
    assert stat.S_IMODE(os.stat(address).st_mode) == 0o600

    async def said(data: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(address)
        writer.write(data)
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer

    assert b"no request" in await said(b"not json\n")
    assert b"'fly' is unknown here" in await said(b'{"do": "fly"}\n')
    assert await said(b"x" * 200_000) == b""
    assert json.loads(await said(b'{"do": "ping"}\n'))["pid"] == os.getpid()
    with socket.socket(socket.AF_UNIX) as silent:  # one that never says anything does not keep the store from closing
        silent.connect(address)
        await asyncio.sleep(0)
        await store.aclose()
    with pytest.raises(FileNotFoundError):
        os.stat(address)


async def test_a_long_path_has_its_socket_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    store = SQLiteStore(folder / "a.db")
    await store.open()
    address = Path(json.loads((folder / "a.db-owner").read_bytes())["socket"])
    assert len(str(address)) < 100
    assert (await asyncio.to_thread(ask_owner, store.path, {"do": "ping"})).pid == os.getpid()
    await store.aclose()
    assert not address.parent.exists()


# --- reading beside the owner -----------------------------------------------------------------------------------------


async def test_a_reader_follows_what_the_owner_writes(store: SQLiteStore) -> None:
    reader = SQLiteReader(store.path)
    await reader.open()
    lease = await store.claim("s")
    written: list[Record] = []

    async def everything(after: int) -> list[Record]:
        follower, found = Follower(reader, "s", after), []
        while records := await follower.next():
            found += records
        return found

    early = asyncio.create_task(everything(0))
    for number in range(1200):
        batch: list[Record] = [Text(f"{number} "), Text("x")]
        store.append(lease, batch)
        written += batch
        if number == 600:
            await store.settled()
            assert reader.info("s").seq == 1202 == reader.streams()[0].seq
            assert reader.info("s").state == "running"
            late = asyncio.create_task(everything(900))
        if number % 50 == 0:
            await asyncio.sleep(0.002)
    await store.settled()
    log = reader.log("s")
    called = asyncio.Event()
    log.subscribe(called.set)
    await called.wait()
    log.unsubscribe(called.set)
    store.finish(lease, [Completed("stop")])
    written.append(Completed("stop"))
    assert await early == written
    assert await late == written[900:]
    batches = [batch for after in (0,) for batch in reader.log("s").batches(after)]
    assert {len(batch.records) for batch in batches} <= {1, 2} and len(batches) > 100
    assert reader.info("s").state == "completed"
    assert [info.stream_id for info in reader.streams(owner="me", plan_id="p", states={"completed"})] == ["s"]
    await reader.aclose()


async def test_a_reader_stops_streams_through_the_owner_and_writes_nothing(store: SQLiteStore) -> None:
    reader = SQLiteReader(store.path)
    await reader.open()
    assert await asyncio.to_thread(reader.cancel, "s", "enough")
    assert reader.info("s").stop_reason == "enough"
    assert reader.body("s") == b""
    with pytest.raises(StoreError, match=rf"is open for reading only; process {os.getpid()} owns it"):
        await reader.submit([StreamSpec("x", "t")])
    await reader.aclose()
    with pytest.raises(StoreError, match="closed"):
        reader.info("s")


async def test_a_reader_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no database of streams yet"):
        await SQLiteReader(tmp_path / "a.db").open()
    assert os.listdir(tmp_path) == []
