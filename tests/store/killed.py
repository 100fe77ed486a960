"""A program that uses a SQLite store until it is killed: ``python -m tests.store.killed FILE``.

Says on stdout what it was promised (``submitted NAME``) and what it was shown (``shown NAME SEQ``). The record with seq
N of every stream is the text N; a stream ends at 700.
"""

from __future__ import annotations

import asyncio
import os
import sys

from multi_agent_scheduler.records import Completed, Text
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.store.follow import Follower
from multi_agent_scheduler.store.sqlite import SQLiteStore

LAST = 700


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def write(store: SQLiteStore, name: str) -> None:
    seq = store.info(name).seq
    lease = await store.claim(name)
    while seq < LAST - 1:
        count = min(1 + seq % 3, LAST - 1 - seq)
        assert store.append(lease, [Text(str(seq + number)) for number in range(1, count + 1)]) == seq + 1
        seq += count
        await asyncio.sleep(0)
    store.finish(lease, [Completed("stop")])


async def read(store: SQLiteStore, name: str) -> None:
    follower = Follower(store, name)
    while await follower.next():
        say(f"shown {name} {follower.seq}")


async def main() -> None:
    store = SQLiteStore(sys.argv[1])
    await store.open()
    say("opened")
    number = len(store.streams())
    names = [info.stream_id for info in store.streams(states={"queued"})]
    while True:
        while len(names) < 6:
            name = f"s{number}"
            number += 1
            await store.submit([StreamSpec(name, "t", body=name.encode())])
            say(f"submitted {name}")
            names.append(name)
        await asyncio.gather(*(work(store, name) for name in names for work in (write, read)))
        names = []


if __name__ == "__main__":
    asyncio.run(main())
