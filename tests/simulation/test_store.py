"""The simulated store is a store: what holds of the real ones holds of it."""

from __future__ import annotations

import random

import pytest

from multi_agent_scheduler.conformance import Model, Place, StoreConformance
from multi_agent_scheduler.store import Store
from multi_agent_scheduler.testing import run_virtual
from tests.simulation.store import Disk, SimulatedStore
from tests.store.places import Aging


class OnSimulatedDisk(Aging):
    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._disk = Disk()

    async def store(self) -> Store:
        store = SimulatedStore(self._disk, self._chance, self.clock, self.KEEP_LOGS)
        await store.open()
        return store

    async def crash(self, store: Store) -> None:
        assert isinstance(store, SimulatedStore)
        store.crash()


class TestSimulatedStore(StoreConformance):
    def place(self) -> Place:
        return OnSimulatedDisk(random.Random(1))


@pytest.mark.parametrize("seed", range(20))
def test_it_keeps_what_a_store_keeps_under_any_schedule(seed: int) -> None:
    chance = random.Random(seed)

    async def main() -> None:
        model = Model(OnSimulatedDisk(chance))
        await model.begin()
        for _ in range(60):
            name = chance.choice("abcd")
            match chance.choice(("submit", "claim", "append", "append", "finish", "expire", "cancel", "read", "other")):
                case "submit":
                    await model.submit([name])
                case "claim":
                    await model.claim(name)
                case "append":
                    model.append(name, chance.randint(1, 3))
                case "cancel":
                    model.cancel(name, "x")
                case "other":
                    await chance.choice((model.settle, model.crash, model.reopen, model.check, model.age))()
                case step:
                    getattr(model, step)(name)
        await model.end()

    run_virtual(main())
