"""Streams that are accepted and claimed in one commit."""

from __future__ import annotations

import asyncio
from pathlib import Path

from multi_agent_scheduler.records import CallStarted, Completed
from multi_agent_scheduler.store.core import StreamSpec

from .files import using


async def test_streams_that_are_begun_together_are_refused_one_by_one(tmp_path: Path) -> None:
    async with using(tmp_path / "a.db") as store:
        await store.submit([StreamSpec("taken", "t")])
        await store.settled()
        store.finish(await store.claim("taken"), [Completed("stop")])
        await store.settled()  # it is on disk alone from now on: only the commit can find that its id is taken
        begun = await asyncio.gather(
            *(store.begin(StreamSpec(name, "t")) for name in ("a", "b", "taken", "c", "d")), return_exceptions=True
        )
        assert [type(one).__name__ for one in begun] == ["Lease", "Lease", "StreamExists", "Lease", "Lease"]
        assert "'taken'" in str(begun[2])


async def test_a_stream_whose_beginning_nobody_awaits_any_more_can_be_claimed(tmp_path: Path) -> None:
    async with using(tmp_path / "a.db") as store:
        beginning = asyncio.ensure_future(store.begin(StreamSpec("s", "t")))
        await asyncio.sleep(0)
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
        await store.settled()
        assert store.info("s").state == "queued"
        await store.claim("s")


async def test_that_a_call_has_begun_is_shown_though_nothing_follows(tmp_path: Path) -> None:
    async with using(tmp_path / "a.db") as store:
        lease = await store.begin(StreamSpec("s", "t"))
        store.append(lease, [CallStarted(1, "a")])
        await store.log("s").wait(0)
        assert [type(record) for record in store.log("s").read(0)] == [CallStarted]
