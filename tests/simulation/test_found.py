"""What the simulation has found, each told in a few steps."""

from __future__ import annotations

import asyncio
import random

from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import CallEnded, CallStarted
from multi_agent_scheduler.scheduler import MultiAgentScheduler
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.submission import Submission, pack
from multi_agent_scheduler.task import Task
from multi_agent_scheduler.testing import ScriptedAgent, run_virtual
from tests.simulation.store import Disk, SimulatedStore
from tests.simulation.truth import log_of


def test_what_another_run_wrote_last_is_known_to_the_one_that_goes_on() -> None:
    """It was read before the claim, when it was not committed yet: a Call's number was given twice."""

    async def main() -> None:
        store = SimulatedStore(Disk(), random.Random(1), asyncio.get_running_loop().time)
        async with MultiAgentScheduler({"a": ScriptedAgent("x")}, store=store, metrics=Metrics()) as scheduler:
            await store.submit([StreamSpec("s", "t", body=pack(Submission(Task("t", "Hi"), "a")))])
            store.append(await store.claim("s"), [CallStarted(1, "a")])
            store.expire("s")
            await scheduler.resume()
            await scheduler.wait_idle()
            records = log_of(store, "s")
        begun = [record.call for record in records if isinstance(record, CallStarted)]
        assert begun == [1, 2]
        assert sorted(record.call for record in records if isinstance(record, CallEnded)) == begun

    run_virtual(main())
