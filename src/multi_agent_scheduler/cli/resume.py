"""``mas resume``: goes on with what a process that died has left."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from ..agents.base import Agent
from ..config import Configuration
from ..scheduler import MultiAgentScheduler
from ..store import SQLiteStore, Store
from ..store.core import StreamInfo
from ..submission import unpack
from ..task import Result
from ..telemetry import Telemetry
from ..views.summary import summarise
from . import choice, place
from .run import until_stopped
from .stopping import Stopping
from .terminal import one_line, printable, say

__all__ = ["run"]


def run(parsed: argparse.Namespace) -> int:
    """Exit code 0 if all that was left succeeded, or nothing was left; 1 if not, 130 after Ctrl-C."""
    store = place.durable(parsed.store, parsed.config)
    place.check_there(store.path)  # or it would be made
    return asyncio.run(_resume(store, parsed.config))


async def _resume(store: SQLiteStore, config: str | None) -> int:
    await store.open()
    try:
        left = store.streams(states={"queued"})
        if not left:
            say(f"Nothing is left to go on with in {store.path}.")
            return 0
        said = choice.configuration(config)
        agents = _agents(store, left, said)
        scheduler = MultiAgentScheduler(
            agents, store=store, telemetry=Telemetry.from_environment(), **choice.limited(said, agents)
        )
        return await _go_on(store, scheduler, left)
    finally:
        await store.aclose()


def _agents(store: Store, left: Sequence[StreamInfo], said: Configuration) -> dict[str, Agent]:
    """The agents that the tasks were given to, as far as there still are such; at least one, as a scheduler needs."""
    names = [unpack(store.body(info.stream_id)).agent for info in left]
    known = [name for name in dict.fromkeys(names) if name in said.agents]
    return choice.made(said.agents, known or [choice.chosen(said.agents, said.default_agent).name])


async def _go_on(store: Store, scheduler: MultiAgentScheduler, left: Sequence[StreamInfo]) -> int:
    succeeded = 0
    with Stopping() as stopping:
        async with scheduler:
            for info in left:
                say(f"{one_line(info.task_id)}: goes on (stream {info.stream_id})")
            await scheduler.resume()
            await until_stopped(_drained(scheduler, store), scheduler, stopping)
            for info in left:
                if store.info(info.stream_id).ended:
                    result = _result(store, info)
                    succeeded += result.success
                    say(_ended(info, result))
                else:
                    say(f"{one_line(info.task_id)}: not finished; mas resume goes on with it")
        if stopping.signal is not None:
            stopping.leave()
    return 0 if succeeded == len(left) else 1


async def _drained(scheduler: MultiAgentScheduler, store: Store) -> None:
    await scheduler.wait_idle()
    await store.settled()


def _result(store: Store, info: StreamInfo) -> Result:
    return summarise(store.log(info.stream_id).whole(), stream_id=info.stream_id)


def _ended(info: StreamInfo, result: Result) -> str:
    if result.error is not None and not result.success:
        return f"{one_line(info.task_id)}: {printable(str(result.error))}"
    return f"{one_line(info.task_id)}: {result.state}" + (f" ({result.stop_reason})" if result.stop_reason else "")
