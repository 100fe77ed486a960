"""Ten thousand schedules of a scheduler, its stores, its providers and its users, on virtual time.

``MAS_SIM_SEED`` and ``MAS_SIM_SCHEDULES`` choose others; ``python -m tests.simulation --seed N --schedules M`` runs
them without pytest. A failure prints its seed, the command that replays it, and the story of the schedule.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.schedule import run

ROOT = Path(__file__).parent.parent.parent
SEED = int(os.environ.get("MAS_SIM_SEED", "0"))
SCHEDULES = int(os.environ.get("MAS_SIM_SCHEDULES", "10000"))
PROCESSES = 2


@pytest.mark.timeout(1800)
def test_every_promise_holds_in_every_schedule() -> None:
    share = -(-SCHEDULES // PROCESSES)
    command = [sys.executable, "-m", "tests.simulation", "--schedules", str(share), "--seed"]
    running = [
        subprocess.Popen([*command, str(SEED + number * share)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for number in range(PROCESSES)
    ]
    said = [process.communicate()[0] for process in running]
    failed = [text for process, text in zip(running, said, strict=True) if process.returncode]
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)
    assert all("all well" in text for text in said)


@pytest.mark.parametrize("seed", range(SEED, SEED + 5))
def test_a_seed_tells_one_story(seed: int) -> None:
    """The same in this process, where others have run before, and in one where hashes are different."""
    command = [sys.executable, "-m", "tests.simulation", "--trace", "--schedules", "1", "--seed", str(seed)]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    there = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert there.splitlines()[:-1] == run(seed).trace().splitlines()


def test_much_of_what_can_happen_happens() -> None:
    """A net of schedules in which nothing happens would catch nothing."""
    stories = "\n".join(run(seed).trace() for seed in range(SEED, SEED + 300))
    for word in (
        "crash", "resumes t", "cancels", "expires", "trimmed t", "plans", "streams", "left", "submits", "Skipped",
        "Reset", "Cancelled", "Interrupted", "cached=True", "timeout_error", "rate_limit_error", "internal_error",
        "content_filter", "budget_exceeded",
        "branch='p0'", "attempt=2", "memory store", "durable store",
    ):  # fmt: skip
        assert len(re.findall(re.escape(word), stories)) >= 5, word
