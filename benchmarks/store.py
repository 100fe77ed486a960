"""The SQLite store: throughput, latency from append to show, replay, space on disk, memory.

Each figure is measured in a process of its own, in a new file in the folder for temporary files.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from multi_agent_scheduler.records import CallStarted, Completed, Record, Text, Usage
from multi_agent_scheduler.store import MemoryStore, Store
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.store.follow import Follower
from multi_agent_scheduler.store.sqlite import SQLiteStore

from .figures import Budget, Report, Row, median
from .rounds import ROOT, Setting, turns

__all__ = ["store"]

_STREAMS: Final = 100
_PACED: Final = 5000  # records a second
_LETTERS: Final = "etaoinshrdlucmfwypvbgkjqxz"


@cache
def _chunks(count: int) -> list[list[Record]]:
    """Batches of one text of 4 characters, as models give them: words of a made-up language, the same in each run."""
    chance = random.Random(20_240_229)
    words = ["".join(chance.choices(_LETTERS, range(26, 0, -1), k=chance.randint(2, 9))) for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]  # Zipf's law
    text = " ".join(chance.choices(words, weights, k=count))
    return [[Text(text[start : start + 4])] for start in range(0, count * 4, 4)]


async def _throughput(store: SQLiteStore) -> dict[str, float]:
    """Records a second that 100 streams append one at a time, until all of it is kept, followed by a reader each."""
    chunks = _chunks(1500)
    names = [f"s{number}" for number in range(_STREAMS)]
    await store.submit([StreamSpec(name, "t") for name in names])

    async def write(name: str) -> None:
        lease = await store.claim(name)
        for batch in chunks:
            store.append(lease, batch)
            await (store.room() if store.behind else asyncio.sleep(0))
        store.finish(lease, [Completed("stop")])

    async def read(name: str) -> int:
        follower = Follower(store, name)
        while await follower.next():
            pass
        return follower.seq

    readers = [asyncio.create_task(read(name)) for name in names]
    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(write(name) for name in names))
    await store.settled()
    total = sum(await asyncio.gather(*readers))
    seconds = time.perf_counter() - start
    return {"value": total / seconds, "cpu_us": (time.process_time() - cpu) / total * 1e6}


async def _idle(store: SQLiteStore) -> dict[str, float]:
    """Milliseconds from an append to its record being shown, one at a time."""
    await store.submit([StreamSpec("s", "t")])
    lease, follower = await store.claim("s"), Follower(store, "s")
    taken = []
    for batch in _chunks(500):
        start = time.perf_counter()
        store.append(lease, batch)
        await follower.next()
        taken.append((time.perf_counter() - start) * 1e3)
        await asyncio.sleep(0.002)
    return {"value": median(taken), "p99": sorted(taken)[int(len(taken) * 0.99)]}


async def _unloaded(_: SQLiteStore) -> dict[str, float]:
    """The same load on the memory store: what of it is the machine, the timers and the readers."""
    return await _loaded(MemoryStore())


async def _loaded(store: Store) -> dict[str, float]:
    """The same at 5,000 records a second from 100 streams, each with a reader."""
    names = [f"s{number}" for number in range(_STREAMS)]
    await store.submit([StreamSpec(name, "t") for name in names])
    sent: dict[str, list[float]] = {name: [] for name in names}
    taken: list[float] = []

    async def read(name: str) -> None:
        follower = Follower(store, name)
        while True:
            before = follower.seq
            if not await follower.next():
                return
            now = time.perf_counter()
            taken.extend(now - start for start in sent[name][before : follower.seq])

    async def write(number: int, name: str, begin: float) -> None:
        lease = await store.claim(name)
        loop, pause = asyncio.get_running_loop(), _STREAMS / _PACED
        for position, batch in enumerate(_chunks(200)):
            due = begin + (position + number / _STREAMS) * pause
            await asyncio.sleep(max(0, due - loop.time()))
            sent[name].append(time.perf_counter())
            store.append(lease, batch)
        sent[name].append(time.perf_counter())
        store.finish(lease, [Completed("stop")])

    readers = [asyncio.create_task(read(name)) for name in names]
    begin = asyncio.get_running_loop().time() + 0.1
    cpu = time.process_time()
    await asyncio.gather(*(write(number, name, begin) for number, name in enumerate(names)))
    await asyncio.gather(*readers)
    cpu = time.process_time() - cpu
    taken.sort()
    return {
        "value": taken[int(len(taken) * 0.99)] * 1e3, "p50": median(taken) * 1e3, "worst": taken[-1] * 1e3,
        "cpu_us": cpu / len(taken) * 1e6,
    }  # fmt: skip


async def _write(store: SQLiteStore, name: str, text_bytes: int) -> None:
    await store.submit([StreamSpec(name, "task")])
    lease = await store.claim(name)
    store.append(lease, [CallStarted(1, "local", "a-model")])
    for number, batch in enumerate(_chunks(text_bytes // 4)):
        store.append(lease, batch)
        if number % 50 == 0:
            await (store.room() if store.behind else asyncio.sleep(0))
    store.finish(lease, [Usage(input_tokens=9, output_tokens=text_bytes // 4, call=1), Completed("stop")])
    await store.settled()


async def _replay(store: SQLiteStore) -> dict[str, float]:
    """Seconds to read a stream of 10 MB of text in chunks of 4 characters, from disk."""
    await _write(store, "s", 10_000_000)
    start = time.perf_counter()
    follower = Follower(store, "s")
    count, longest = 0, 0.0
    while True:
        before = time.perf_counter()
        records = await follower.next()
        longest = max(longest, time.perf_counter() - before)
        if not records:
            break
        count += len(records)
    seconds = time.perf_counter() - start
    assert count == 2_500_003, count
    return {"value": seconds, "longest_ms": longest * 1e3}


async def _disk(store: SQLiteStore) -> dict[str, float]:
    """Bytes on disk over bytes of text, all files counted, of 100 streams of 8 KB that have just finished."""
    await asyncio.gather(*(_write(store, f"{number:032x}", 8000) for number in range(_STREAMS)))

    def size() -> float:
        files = [file for file in store.path.parent.iterdir() if file.suffix != ".db-shm"]  # an index in memory
        return sum(file.stat().st_size for file in files) / (8000 * _STREAMS)

    await asyncio.sleep(1)
    idle = size()
    await store.aclose()
    return {"value": size(), "idle": idle}


async def _memory(store: SQLiteStore) -> dict[str, float]:
    """MiB of resident memory that 10 MB more of logs add: the second half of them over the first."""
    found = []
    for number in range(20):
        await _write(store, f"s{number}", 1_000_000)
        found.append(_resident() / 2**20)
    return {"value": fmean(found[10:]) - fmean(found[:10]), "at": fmean(found[10:])}


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


_MEASURES: Final[dict[str, Callable[[SQLiteStore], Awaitable[dict[str, float]]]]] = {
    "throughput": _throughput,
    "idle": _idle,
    "loaded": _loaded,
    "memory store": _unloaded,
    "replay": _replay,
    "disk": _disk,
    "memory": _memory,
}


async def _measured(name: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore(Path(folder) / "bench.db", max_log_bytes=10**9)
        await store.open()
        try:
            return await _MEASURES[name](store)
        finally:
            await store.aclose()


def _ask(name: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.store", name], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"measuring {name} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def store(setting: Setting) -> Report:
    """The SQLite store: throughput, latency, replay, space on disk, memory."""
    rounds = min(setting.rounds, 2)  # writing what is read takes a while
    found: dict[str, list[dict[str, float]]] = turns(list(_MEASURES), rounds, _ask)

    def of(name: str, key: str = "value") -> float:
        return median([figures[key] for figures in found[name]])

    rows: list[tuple[str, dict[str, float | None], str]] = [
        ("records/s, 100 streams", {"figure": of("throughput")}, f"{of('throughput', 'cpu_us'):.1f} us CPU a record"),
        ("append to show, idle, median ms", {"figure": of("idle")}, f"p99 {of('idle', 'p99'):.2f}"),
        (
            f"append to show, {_PACED} records/s, p99 ms",
            {"figure": of("loaded")},
            f"median {of('loaded', 'p50'):.2f}, worst {of('loaded', 'worst'):.1f}, "
            f"{of('loaded', 'cpu_us'):.0f} us CPU a record, timers included",
        ),
        (
            "the same of the memory store",
            {"figure": of("memory store")},
            f"median {of('memory store', 'p50'):.2f}, worst {of('memory store', 'worst'):.1f}, "
            f"{of('memory store', 'cpu_us'):.0f} us CPU a record",
        ),
        ("replay of 10 MB, s", {"figure": of("replay")}, f"longest step {of('replay', 'longest_ms'):.1f} ms"),
        ("disk over text, closed", {"figure": of("disk")}, f"{of('disk', 'idle'):.2f} one second after the last end"),
        ("MiB that 10 MB more of logs add", {"figure": of("memory")}, f"to {of('memory', 'at'):.0f}"),
    ]
    budgets = [
        Budget("us a record, 100 streams", 1e6 / of("throughput"), 20),
        Budget("append to show, idle, median ms", of("idle"), 0.5),
        Budget(f"append to show, {_PACED} records/s, p99 ms", of("loaded"), 10),
        Budget("replay of 10 MB, s", of("replay"), 1),
        Budget("disk over text, one second after the last end", of("disk", "idle"), 3),
        Budget("MiB that 10 MB more of logs add", of("memory"), 8),
    ]
    title = f"SQLite store: one record of 4 characters an append, {rounds} rounds of a new process and file each"
    return Report(title, {"figure": ".2f"}, [Row(*row) for row in rows], budgets, [])


if __name__ == "__main__":
    answer: dict[str, Any] = asyncio.run(_measured(sys.argv[1]))
    print(json.dumps(answer))
