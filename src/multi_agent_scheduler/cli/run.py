"""``mas run``: a plan from a file, over the configured agents."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from ..events import EventBus
from ..planfile import read_plan
from ..scheduler import MultiAgentScheduler
from ..scheduling.plan import Plan
from ..store import Store
from ..task import Task
from ..telemetry import Telemetry
from . import choice, place
from .stopping import Stopping
from .telling import Telling, telling
from .terminal import complain

__all__ = ["ACTIVE", "PATIENCE", "run", "stop_all"]

ACTIVE: Final = ("queued", "running")
PATIENCE: Final = 5.0  # seconds that tasks have, after a stop, to end in order


def run(parsed: argparse.Namespace) -> int:
    """Exit code 0 if every task succeeded, 1 if not, 2 for a wrong plan, 130 after Ctrl-C."""
    tasks = read_plan(Path(parsed.plan))
    Plan(tasks)  # what is wrong with it is said before anything is opened
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
    patience, loop = asyncio.timeout(None), asyncio.get_running_loop()
    with Stopping(restore=told.restore) as stopping:
        async with scheduler:
            others = {info.stream_id for info in store.streams(states=ACTIVE)}
            if others:
                complain(f"tasks of earlier runs have not ended ({len(others)}): mas resume goes on with them")

            def stop(reason: str) -> None:
                stop_all(store, reason, others)
                patience.reschedule(loop.time() + PATIENCE)

            stopping.then(stop)
            try:
                async with patience:
                    await told.play(scheduler, tasks)
            except TimeoutError:
                stopping.leave()
        _, succeeded = told.sum_up(time.monotonic() - began)
        if stopping.signal is not None:
            stopping.leave()
    return 0 if succeeded == len(tasks) else 1


def stop_all(store: Store, reason: str, others: Collection[str] = ()) -> None:
    """Stop every stream of a store that has not ended, but for ``others``."""
    for info in store.streams(states=ACTIVE):
        if info.stream_id not in others:
            (store.on_cancel or store.cancel)(info.stream_id, reason)
