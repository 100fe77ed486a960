"""kill -9 at any moment: what was promised or shown is there, logs have no gap, readers go on where they were."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

from multi_agent_scheduler.records import Completed, Record, Text
from multi_agent_scheduler.store.follow import Follower
from multi_agent_scheduler.store.reader import SQLiteReader
from multi_agent_scheduler.store.sqlite import SQLiteStore
from tests.store.killed import LAST

ROOT = Path(__file__).parent.parent.parent


def run_and_kill(path: Path, seconds: float) -> list[list[str]]:
    """What the program said, without a last line that was cut."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.killed", str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = process.stdout.readline()  # it is open
    timer = time.monotonic() + seconds
    while time.monotonic() < timer and process.poll() is None:
        said += process.stdout.readline()
    process.kill()
    said += process.stdout.read()
    process.stdout.close()
    assert process.wait() == -9, said
    return [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]


def expected(seq: int) -> Record:
    return Completed("stop") if seq == LAST else Text(str(seq))


async def read_on(store: SQLiteStore | SQLiteReader, name: str, after: int) -> int:
    follower = Follower(store, name, after)
    while True:
        first = follower.seq + 1
        records = follower.at_hand()
        if not records:
            return follower.seq
        assert list(records) == [expected(first + number) for number in range(len(records))]


async def check(path: Path, shown: dict[str, int], cursors: dict[str, int]) -> None:
    reader = SQLiteReader(path)  # first as it was left, then as the next owner has it
    await reader.open()
    before = {name: await read_on(reader, name, 0) for name in shown}
    await reader.aclose()
    store = SQLiteStore(path)
    await store.open()
    for name, seq in shown.items():
        info = store.info(name)
        assert info.seq >= seq and info.seq == before[name]
        assert info.state == ("completed" if info.seq == LAST else "queued")
        assert info.ended or store.body(name) == name.encode()
        cursors[name] = await read_on(store, name, cursors.get(name, 0))
        assert cursors[name] == info.seq
    await store.aclose()


def test_nothing_that_was_promised_or_shown_is_lost(tmp_path: Path) -> None:
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    path = tmp_path / "a.db"
    shown: dict[str, int] = {}
    cursors: dict[str, int] = {}
    for turn in range(8):
        for what, *rest in run_and_kill(path, chance.uniform(0, 0.25)):
            if what == "submitted":
                shown.setdefault(rest[0], 0)
            elif what == "shown":
                shown[rest[0]] = max(shown[rest[0]], int(rest[1]))
        try:
            asyncio.run(check(path, shown, cursors))
        except AssertionError as error:
            raise AssertionError(f"after kill {turn + 1} with seed {seed}") from error
    assert any(seq == LAST for seq in cursors.values()) and sum(cursors.values()) > 100
