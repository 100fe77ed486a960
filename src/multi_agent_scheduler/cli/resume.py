"""``mas resume``: goes on with what a process that died has left."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from ..agents.base import Agent
from ..scheduler import MultiAgentScheduler
from ..store import SQLiteStore, Store
from ..store.core import StreamInfo
from ..store.follow import Follower
from ..submission import unpack
from ..task import Result
from ..telemetry import Telemetry
from ..views.summary import Summary
from . import choice, place
from .run import PATIENCE, stop_all
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
        agents = _agents(store, left, config)
        return await _go_on(store, agents, left)
    finally:
        await store.aclose()


def _agents(store: Store, left: Sequence[StreamInfo], config: str | None) -> dict[str, Agent]:
    """The agents that the tasks were given to, as far as there still are such; at least one, as a scheduler needs."""
    offers = choice.available(config)
    names = [unpack(store.body(info.stream_id)).agent for info in left]
    known = [name for name in dict.fromkeys(names) if name in offers]
    return choice.made(offers, known or [choice.chosen(offers, None).name])


async def _go_on(store: Store, agents: dict[str, Agent], left: Sequence[StreamInfo]) -> int:
    patience, results = asyncio.timeout(None), list[Result]()
    with Stopping() as stopping:
        async with MultiAgentScheduler(agents, store=store, telemetry=Telemetry.from_environment()) as scheduler:

            def stop(reason: str) -> None:
                stop_all(store, reason)
                patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)

            for info in left:
                say(f"{one_line(info.task_id)}: goes on (stream {info.stream_id})")
            await scheduler.resume()
            stopping.then(stop)
            try:
                async with patience:
                    await scheduler.wait_idle()
                    await store.settled()
            except TimeoutError:
                stopping.leave()
            for info in left:
                results.append(_result(store, info))
                say(_ended(info, results[-1]))
        if stopping.signal is not None:
            stopping.leave()
    return 0 if all(result.success for result in results) else 1


def _result(store: Store, info: StreamInfo) -> Result:
    follower, summary = Follower(store, info.stream_id), Summary()
    while records := follower.at_hand():
        summary.feed(records)
    return summary.result(stream_id=info.stream_id)


def _ended(info: StreamInfo, result: Result) -> str:
    if result.error is not None and not result.success:
        return f"{one_line(info.task_id)}: {printable(str(result.error))}"
    return f"{one_line(info.task_id)}: {result.state}" + (f" ({result.stop_reason})" if result.stop_reason else "")
