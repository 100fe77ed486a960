"""Where the stores under test keep their streams."""

from __future__ import annotations

import time
from pathlib import Path

from multi_agent_scheduler.conformance import Place
from multi_agent_scheduler.store import MemoryStore, Store
from multi_agent_scheduler.store.sqlite import SQLiteStore


class Aging(Place):
    """Its clock can be put forward, and its logs are trimmed when they are an hour old."""

    trims = True
    KEEP_LOGS = 3600.0  # seconds

    def __init__(self) -> None:
        self._passed = 0.0

    def age(self) -> None:
        self._passed += 2 * self.KEEP_LOGS

    def clock(self) -> float:
        return time.time() + self._passed


class InMemory(Aging):
    durable = False

    async def store(self) -> Store:
        store = MemoryStore(keep_logs=self.KEEP_LOGS, clock=self.clock)
        await store.open()
        return store


class InFile(Aging):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "streams.db"

    async def store(self) -> SQLiteStore:
        store = SQLiteStore(self.path, keep_logs=self.KEEP_LOGS, clock=self.clock)
        await store.open()
        return store

    async def crash(self, store: Store) -> None:
        assert isinstance(store, SQLiteStore)
        store._abandon()
        await store._release()
