"""``mas serve``: the scheduler behind HTTP."""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import logging
import signal
import socket
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from .. import config
from ..agents.base import Agent
from ..errors import InvalidConfiguration
from ..events import EventBus
from ..metrics import Metrics
from ..scheduler import MultiAgentScheduler
from ..server import Keys, Settings, make_app
from ..server.access_log import LOGGER
from ..server.process import Process, bound, loop_factory
from ..server.settings import settings_of
from ..store import SQLiteStore, Store
from ..telemetry import Telemetry
from . import choice, place
from .stopping import Stopping
from .terminal import complain, say

__all__ = ["keys_beside", "run"]

_COLLECTIONS: Final = (10_000, 20, 20)
"""How often garbage is collected: more seldom than usual, for a busy server makes much that is no garbage yet."""
_RUNNING: Final = 10_000  # tasks at once; what they may ask their agents is limited there
_FILES: Final = 1000  # open files beside those that are connections of readers
_NEEDED: Final = ("uvicorn", "websockets")


def run(parsed: argparse.Namespace) -> int:
    """Serve until a signal comes. Exit code 0 after SIGTERM, 130 after Ctrl-C."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidConfiguration(f"mas serve needs {missing[0]}: pip install 'multi-agent-scheduler[server]'")
    said = choice.configuration(parsed.config)
    settings = settings_of(said.server, host=parsed.host, port=parsed.port)
    store = place.to_write(parsed.store, parsed.config)
    keys = Keys(keys_beside(store))
    if not _is_loopback(settings.host) and not keys.required:
        raise InvalidConfiguration(
            f"{settings.host} can be reached from other machines, and anybody there could use your agents: "
            "make a key first, with mas keys create NAME (and the same --store), or listen on 127.0.0.1"
        )
    agents = _agents(said)
    _log_to_stderr(settings)
    listener = bound(settings.host, settings.port)
    _allow_files(2 * settings.max_connections + _FILES)  # a reader's connection, and its provider's
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(said, agents, store, keys, settings, listener))


async def _serve(
    said: config.Configuration, agents: Mapping[str, Agent], store: Store, keys: Keys, settings: Settings,
    listener: socket.socket,
) -> int:  # fmt: skip
    metrics = Metrics()
    scheduler = MultiAgentScheduler(
        agents,
        store=store,
        event_bus=EventBus(),
        metrics=metrics,
        max_running=_RUNNING,
        telemetry=Telemetry.from_environment(),
        default_agent=said.default_agent,
        **choice.limited(said, agents),
    )
    app = make_app(scheduler, settings=settings, keys=keys, metrics=metrics)
    process, loop = Process(app, listener), asyncio.get_running_loop()
    patience = asyncio.timeout(None)

    def stop(_: str) -> None:
        process.stop()
        patience.reschedule(loop.time() + settings.drain)

    with Stopping() as stopping:
        await scheduler.open()
        resumed = await scheduler.resume()
        if resumed:
            say(f"Going on with {len(resumed)} streams that an earlier process left.")
        running = asyncio.ensure_future(process.run())
        started = asyncio.ensure_future(process.started())
        await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():  # it could not begin
            started.cancel()
            await running
        say(f"Listening on {_url(process.address)} ({', '.join(agents)}); {_how(keys)}. Ctrl-C stops it.")
        try:
            async with patience:
                stopping.then(stop)
                await asyncio.wait({running})
                await scheduler.wait_idle()
        except TimeoutError:
            await running
            await scheduler.suspend()  # what has not ended in its time is the next start's
        await scheduler.aclose()
        return _code(stopping)


def _code(stopping: Stopping) -> int:
    return 130 if stopping.signal == signal.SIGINT else 0


def keys_beside(store: Store) -> Path | None:
    """The file of keys that belongs to a store; None for a store that is in memory."""
    return store.path.with_name(f"{store.path.name}.keys") if isinstance(store, SQLiteStore) else None


def _agents(said: config.Configuration) -> dict[str, Agent]:
    """Every agent that can be used; the one for tasks that name none must be among them, and at least one.

    What is wrong with an agent is an error; what it only lacks (a key, say) leaves it out, and is told.
    """
    agents: dict[str, Agent] = {}
    from_file = said.agents and not any(offer.by_name_only for offer in said.agents.values())
    for name, offer in said.agents.items():
        if not offer.key_set or offer.by_name_only:
            lacking: str | None = "its key is not set"
        else:
            lacking = offer.missing
        if lacking is None:
            agents[name] = offer.make()
        elif name == said.default_agent:
            raise InvalidConfiguration(f"the default agent {name} cannot be used: {lacking}")
        elif from_file:
            complain(f"the agent {name} is left out: {lacking}")
    if not agents:
        raise InvalidConfiguration("no agent can be used: mas doctor says what is missing")
    return agents


def _allow_files(number: int) -> None:
    """Raise the limit of this process's open files to as many, or to what it may at most: 1024 is usual, and few."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _url(address: tuple[str, int]) -> str:
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _how(keys: Keys) -> str:
    return "a key is needed" if keys.required else "no key is needed"


def _log_to_stderr(settings: Settings) -> None:
    """The access log as it is, and whatever goes wrong, on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    if settings.access_log:
        LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    problems = logging.StreamHandler(sys.stderr)
    problems.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger("multi_agent_scheduler").addHandler(problems)
