"""Real processes over a real file, killed at any moment and started again, until all that was accepted has ended.

``MAS_SIM_KILLS`` says how many histories of a file are played (2 in a normal run).
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from multi_agent_scheduler import MultiAgentScheduler
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import TERMINALS, CallEnded, CallStarted, Record, Reset, decode_record
from multi_agent_scheduler.testing import ScriptedAgent
from multi_agent_scheduler.views.summary import summarise
from tests.simulation.killed import WORDS

pytest.importorskip("apsw", reason="needs apsw")

ROOT = Path(__file__).parent.parent.parent
HISTORIES = int(os.environ.get("MAS_SIM_KILLS", "2"))
PLANS = 3
KILLS = 5


class History:
    """What all lives of the program together have said."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.accepted: dict[str, str] = {}
        self.shown: dict[str, dict[int, Record]] = {}

    def live(self, seconds: float) -> bool:
        """Run the program and kill it after so long; whether it came to its end before."""
        command = [sys.executable, "-m", "tests.simulation.killed", str(self.file), str(PLANS)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == b"opened\n"
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0 and process.poll() is None:
                if select.select([process.stdout], [], [], left)[0]:
                    some = os.read(process.stdout.fileno(), 65536)
                    if not some:
                        break
                    said += some
            process.kill()
            said += process.stdout.read() or b""
        for line in said.decode().splitlines(keepends=True):
            if line.endswith("\n"):  # the last one may be cut
                self._heard(line)
        return said.endswith(b"done\n")

    def _heard(self, line: str) -> None:
        what, *rest = line.rstrip("\n").split(" ", 3)
        if what == "accepted":
            self.accepted[rest[0]] = rest[1]
        elif what == "shown":
            stream_id, seq, record = rest[0], int(rest[1]), decode_record(rest[2])
            before = self.shown.setdefault(stream_id, {}).setdefault(seq, record)
            assert before == record, f"{stream_id}: seq {seq} was {before}, and is {record} now"


@pytest.mark.timeout(60 + 30 * HISTORIES)
@pytest.mark.parametrize("seed", range(HISTORIES))
def test_killed_again_and_again_every_task_of_a_plan_ends_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    history = History(tmp_path / "mas.db")
    for _ in range(KILLS):
        history.live(chance.choice((0.0, 0.01, 0.03, 0.06, 0.1)))
    assert history.live(30.0), "it did not come to its end"
    asyncio.run(_check(history))


async def _check(history: History) -> None:
    agents = {name: ScriptedAgent("never asked") for name in ("steady", "resets", "fails")}
    resets = 0
    async with MultiAgentScheduler(agents, store=f"sqlite:///{history.file}", metrics=Metrics()) as scheduler:
        assert await scheduler.resume() == []
        tasks = {info.stream_id: info.task_id for info in scheduler.streams()}
        assert len(tasks) == PLANS * 5
        assert set(history.accepted.values()) <= tasks.keys()
        for stream_id, task_id in tasks.items():
            log = [record async for record in scheduler.follow(stream_id)]
            assert [record.seq for record in log] == list(range(1, len(log) + 1))
            assert [isinstance(record, TERMINALS) for record in log] == [False] * (len(log) - 1) + [True]
            for seq, record in history.shown.get(stream_id, {}).items():
                assert log[seq - 1] == record, f"{task_id}: a reader was shown {record}"
            cursor = max(history.shown.get(stream_id, {0: None}))
            assert [record async for record in scheduler.follow(stream_id, after=cursor)] == log[cursor:]
            begun = [record.call for record in log if isinstance(record, CallStarted)]
            assert sorted(record.call for record in log if isinstance(record, CallEnded)) == begun
            resets += sum(isinstance(record, Reset) for record in log)
            _check_result(task_id.rstrip("0123456789"), log)
    assert resets >= PLANS  # each plan has one of its agent's own


def _check_result(task: str, log: list[Record]) -> None:
    result = summarise(log)
    if task == "fails":
        assert (result.state, result.text) == ("failed", "half an answer")
    elif task == "skipped":
        assert result.state == "skipped" and len(log) == 1
    else:
        assert (result.state, result.text) == ("completed", "".join(f"{number} " for number in range(WORDS)))
