"""A scheduler over a durable store: killed at any moment, every accepted task ends once, and readers lose nothing."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from multi_agent_scheduler.errors import StoreError
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import TERMINALS, Record, Reset
from multi_agent_scheduler.scheduler import MultiAgentScheduler
from multi_agent_scheduler.task import Task, Template
from multi_agent_scheduler.testing import ScriptedAgent
from multi_agent_scheduler.views.summary import summarise

pytest.importorskip("apsw", reason="needs apsw")

# Prints a line for each record as it is shown, and "accepted" once the plan is.
WRITER = """
import asyncio, sys
from multi_agent_scheduler import MultiAgentScheduler, Task, Template
from multi_agent_scheduler.plans import Merge

async def words(prompt):
    for number in range(40):
        yield f"{number} "
        await asyncio.sleep(0.001)

async def main():
    async with MultiAgentScheduler({"a": words}, store="sqlite:///" + sys.argv[1]) as scheduler:
        plan = [Task("one", "1"), Task("two", "2"), Task("end", Template("${one}${two}"), depends_on=["one", "two"])]
        async for item in scheduler.stream(plan):
            print(item["stream_id"], item["seq"], item.get("chunk", "DONE"), flush=True)

asyncio.run(main())
"""


def scheduler(file: Path, **agents: ScriptedAgent) -> MultiAgentScheduler:
    return MultiAgentScheduler(agents or {"a": ScriptedAgent("again")}, store=f"sqlite:///{file}", metrics=Metrics())


async def logs(running: MultiAgentScheduler) -> dict[str, list[Record]]:
    return {info.stream_id: [record async for record in running.follow(info.stream_id)] for info in running.streams()}


async def test_what_ran_can_be_read_by_a_later_scheduler(tmp_path: Path) -> None:
    file = tmp_path / "mas.db"
    async with scheduler(file, a=ScriptedAgent("one ", "two")) as first:
        result = await first.execute_task(Task("t", "Hi"))
        before = await logs(first)
    async with scheduler(file) as second:
        assert await logs(second) == before
        assert await second.resume() == []
    assert summarise(before[str(result.stream_id)]).text == "one two"


async def test_a_second_writer_is_told_that_the_store_is_taken(tmp_path: Path) -> None:
    async with scheduler(tmp_path / "mas.db"):
        with pytest.raises(StoreError, match="open in this process already"):
            async with scheduler(tmp_path / "mas.db"):
                pass


@pytest.mark.parametrize("seed", range(4))
async def test_killed_at_any_moment_every_task_ends_once(tmp_path: Path, seed: int) -> None:
    file = tmp_path / "mas.db"
    process = subprocess.Popen(  # noqa: ASYNC220 - it is read line by line, with nothing else to do
        [sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    shown: dict[str, list[tuple[int, str]]] = {}
    kill_after = random.Random(seed).randrange(1, 110)
    for count, line in enumerate(process.stdout, 1):
        stream_id, seq, chunk = line.rstrip("\n").split(" ", 2)
        shown.setdefault(stream_id, []).append((int(seq), chunk))
        if count == kill_after:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    process.wait()
    async with scheduler(file) as second:
        cursors = {stream_id: seen[-1][0] for stream_id, seen in shown.items()}
        kept = {stream_id: second._store.log(stream_id) for stream_id in cursors}
        for stream_id, seen in shown.items():  # what a reader was shown is there
            first = {record.seq: record async for record in numbered(second, stream_id)}
            for seq, chunk in seen:
                if chunk != "DONE":
                    assert getattr(first[seq], "text", None) == chunk
        assert kept
        await second.resume()
        await second.wait_idle()
        for stream_id, log in (await logs(second)).items():
            assert [record.seq for record in log] == list(range(1, len(log) + 1))
            assert sum(isinstance(record, TERMINALS) for record in log) == 1
            assert isinstance(log[-1], TERMINALS)
            rest = [record async for record in second.follow(stream_id, after=cursors.get(stream_id, 0))]
            assert rest == log[cursors.get(stream_id, 0) :]
            result = summarise(log)
            assert result.success
            whole = "".join(f"{number} " for number in range(40))
            assert result.text in (whole, "again")
            if result.text == "again" and stream_id in cursors:
                assert any(isinstance(record, Reset) for record in log)


async def numbered(running: MultiAgentScheduler, stream_id: str):  # type: ignore[no-untyped-def]
    from multi_agent_scheduler.records import numbered as number
    from multi_agent_scheduler.store.follow import Follower

    follower = Follower(running._store, stream_id)
    while True:
        first = follower.seq + 1
        records = follower.at_hand()
        if not records:
            return
        for record in number(records, first):
            yield record


async def test_a_plan_that_was_left_is_kept_as_it_ended(tmp_path: Path) -> None:
    file = tmp_path / "mas.db"
    first = scheduler(file, done=ScriptedAgent("facts"), half=ScriptedAgent("half", asyncio.Event()))
    plan = [
        Task("facts", "1", agent="done"),
        Task("draft", Template("from ${facts}"), agent="half", depends_on=["facts"]),
        Task("end", Template("${draft}"), agent="half", depends_on=["draft"]),
    ]
    async for item in first.stream(plan):
        if item["task_id"] == "draft":
            break
    await first.aclose()
    async with scheduler(file) as second:
        assert await second.resume() == []
        states = {info.task_id: info.state for info in second.streams()}
    assert states == {"facts": "completed", "draft": "cancelled", "end": "skipped"}
