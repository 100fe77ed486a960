"""Where the stores under test keep their streams."""

from __future__ import annotations

from pathlib import Path

from multi_agent_scheduler.conformance import Place
from multi_agent_scheduler.store import MemoryStore, Store
from multi_agent_scheduler.store.sqlite import SQLiteStore


class InMemory(Place):
    durable = False

    async def store(self) -> Store:
        store = MemoryStore()
        await store.open()
        return store


class InFile(Place):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "streams.db"

    async def store(self) -> SQLiteStore:
        store = SQLiteStore(self.path)
        await store.open()
        return store

    async def crash(self, store: Store) -> None:
        assert isinstance(store, SQLiteStore)
        store._abandon()
        await store._release()
