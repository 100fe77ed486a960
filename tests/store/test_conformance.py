"""Every store does what the contract says, under any schedule of steps, crashes included."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from multi_agent_scheduler.conformance import Model, Place, StoreConformance
from tests.store.places import InFile, InMemory


class TestMemoryStore(StoreConformance):
    def place(self) -> Place:
        return InMemory()


class TestSQLiteStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def place(self) -> Place:
        return InFile(self.folder)


class Schedules(RuleBasedStateMachine):
    """Any order of steps."""

    made: ClassVar[type[InMemory] | type[InFile]]
    names = st.sampled_from(["a", "b", "c"])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.model = Model(InMemory() if self.made is InMemory else InFile(Path(self.folder.name)))

    def run(self, doing: Coroutine[Any, Any, None]) -> None:
        self.runner.run(doing)

    async def step(self, what: str, *arguments: Any, **options: Any) -> None:
        """Inside the loop, with all its callbacks not yet run."""
        getattr(self.model, what)(*arguments, **options)

    @initialize()
    def begin(self) -> None:
        async def act() -> None:
            await self.model.begin()
            await self.model.submit(["a", "b"])
            await self.model.claim("a")

        self.run(act())

    @rule(
        steps=st.lists(st.tuples(st.sampled_from(["append", "append", "finish", "expire", "read"]), names), max_size=6),
        pauses=st.integers(0, 3),
        crash=st.booleans(),
    )
    def many_in_one_turn(self, steps: list[tuple[str, str]], pauses: int, crash: bool) -> None:
        """What is done before the loop, or the writer, has had its turn; then perhaps a crash at once."""

        async def act() -> None:
            for what, name in steps:
                await self.step(what, name, *([2] if what == "append" else []))
            for _ in range(pauses):
                await asyncio.sleep(0)
            if crash:
                await self.model.crash()

        self.run(act())

    @rule(some=st.lists(names, min_size=1, max_size=3))
    def submit(self, some: list[str]) -> None:
        self.run(self.model.submit(some))

    @rule(name=names)
    def start(self, name: str) -> None:
        self.run(self.model.start(name))

    @rule(name=names)
    def claim(self, name: str) -> None:
        self.run(self.model.claim(name))

    @rule(name=names, count=st.sampled_from([1, 1, 1, 2, 5, 300, 600, 5000]), repeats=st.sampled_from([1, 3, 40]))
    def append(self, name: str, count: int, repeats: int) -> None:
        async def act() -> None:
            for _ in range(repeats if count < 600 else 1):
                self.model.append(name, count)

        self.run(act())

    @rule(name=names)
    def append_much(self, name: str) -> None:
        self.run(self.step("append", name, 2, size=90_000))

    @rule(name=names)
    def finish(self, name: str) -> None:
        self.run(self.step("finish", name))

    @rule(name=names)
    def expire(self, name: str) -> None:
        self.run(self.step("expire", name))

    @rule(name=names, reason=st.sampled_from(["x", "y"]))
    def cancel(self, name: str, reason: str) -> None:
        self.run(self.step("cancel", name, reason))

    @rule(name=names)
    def read(self, name: str) -> None:
        self.run(self.step("read", name))

    @rule(turns=st.integers(1, 5))
    def let_time_pass(self, turns: int) -> None:
        async def act() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(act())

    @rule()
    def check(self) -> None:
        self.run(self.model.check())

    @rule()
    def settle(self) -> None:
        self.run(self.model.settle())

    @rule()
    def reopen(self) -> None:
        self.run(self.model.reopen())

    @rule()
    def age(self) -> None:
        self.run(self.model.age())

    @rule()
    def crash(self) -> None:
        self.run(self.model.crash())

    def teardown(self) -> None:
        self.run(self.model.end())
        self.runner.close()
        self.folder.cleanup()


class _Memory(Schedules):
    made = InMemory


class _File(Schedules):
    made = InFile


TestMemorySchedules = _Memory.TestCase
TestFileSchedules = _File.TestCase
TestFileSchedules.settings = settings(stateful_step_count=30)
