"""``mas run``: a plan from a file, over the configured agents."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Final

from ..errors import StoreClosed
from ..events import EventBus
from ..planfile import read_plan
from ..scheduler import MultiAgentScheduler
from ..store import Store
from ..task import Task
from ..telemetry import Telemetry
from . import choice, place
from .stopping import Stopping
from .telling import Telling, telling
from .terminal import complain

__all__ = ["ACTIVE", "run", "until_stopped"]

ACTIVE: Final = ("queued", "running")
_PATIENCE: Final = 5.0  # seconds that agents have, after a stop, to close their providers


def run(parsed: argparse.Namespace) -> int:
    """Exit code 0 if every task succeeded, 1 if not, 2 for a wrong plan, 130 after Ctrl-C."""
    tasks = read_plan(Path(parsed.plan))
    said = choice.configuration(parsed.config)
    agents = choice.team(said, tasks, parsed.agent)
    store, bus = place.to_write(parsed.store, parsed.config), EventBus()
    scheduler = MultiAgentScheduler(
        agents,
        store=store,
        event_bus=bus,
        telemetry=Telemetry.from_environment(),
        **choice.limited(said, agents),
    )
    return asyncio.run(_run(scheduler, tasks, store, telling(parsed.format, tasks, store, bus)))


async def _run(scheduler: MultiAgentScheduler, tasks: Sequence[Task], store: Store, told: Telling) -> int:
    began = time.monotonic()
    with Stopping(restore=told.restore) as stopping:
        async with scheduler:
            others = len(store.streams(states=ACTIVE))
            if others:
                complain(f"tasks of earlier runs have not ended ({others}): mas resume goes on with them")
            await until_stopped(told.play(scheduler, tasks), scheduler, stopping)
        ended, succeeded = told.sum_up(time.monotonic() - began)
        if stopping.signal is not None:
            if store.durable and ended < len(tasks):
                complain(f"stopped; mas resume goes on with the tasks that have not ended ({len(tasks) - ended})")
            stopping.leave()
    return 0 if succeeded == len(tasks) else 1


async def until_stopped(work: Coroutine[None, None, None], scheduler: MultiAgentScheduler, stopping: Stopping) -> None:
    """Do the work to its end, or until a signal comes: then what has not ended is let go of, and closed."""
    patience, suspending = asyncio.timeout(None), list[asyncio.Task[None]]()

    def stop(_: str) -> None:
        suspending.append(asyncio.create_task(scheduler.suspend()))
        patience.reschedule(asyncio.get_running_loop().time() + _PATIENCE)

    stopping.then(stop)
    try:
        async with patience:
            try:
                await work
            except StoreClosed:
                if not suspending:
                    raise
            await asyncio.gather(*suspending)
    except TimeoutError:
        stopping.leave()
