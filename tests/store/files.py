"""Database files of streams for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from multi_agent_scheduler.records import Completed, Text
from multi_agent_scheduler.store import engine
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.store.reader import SQLiteReader
from multi_agent_scheduler.store.sqlite import SQLiteStore


@asynccontextmanager
async def using(path: Path, **settings: Any) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path, **settings)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def reading(path: Path) -> AsyncIterator[SQLiteReader]:
    reader = SQLiteReader(path)
    await reader.open()
    try:
        yield reader
    finally:
        await reader.aclose()


async def written(store: SQLiteStore, name: str, *texts: str) -> None:
    await store.submit([StreamSpec(name, "t", body=b"what to do")])
    lease = await store.claim(name)
    for text in texts:
        store.append(lease, [Text(text)])
        if store.behind:
            await store.room()
    store.finish(lease, [Completed("stop")])
    await store.settled()


def query(path: Path, statement: str) -> list[tuple[Any, ...]]:
    database = engine.connect(path, "read")
    try:
        return database.execute(statement)
    finally:
        database.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to pass")
