"""Which agents there are on the command line, and which one is meant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from .. import config
from ..agents.base import Agent
from ..agents.http import HttpAgent
from ..errors import InvalidConfiguration, InvalidOption, UnknownAgent
from ..task import Task

__all__ = ["available", "chosen", "file_in_use", "made", "team"]


def file_in_use(given: str | None) -> Path | None:
    """The configuration: the file that is given, that of ``MAS_CONFIG``, ``./mas.toml``; None if there is none."""
    named = given or os.environ.get("MAS_CONFIG")
    if named:
        return Path(named)
    here = Path("mas.toml")
    return here if here.is_file() else None


def available(given: str | None) -> dict[str, config.Offer]:
    """The agents of the configuration, or what the environment offers."""
    file = file_in_use(given)
    return config.offers() if file is None else config.load(file)


def chosen(offers: Mapping[str, config.Offer], name: str | None) -> config.Offer:
    """The agent of this name; without one, the first that can be used.

    Raises UnknownAgent, listing the names, and InvalidConfiguration if none can be used or one before it is wrong.
    """
    if name is not None:
        if name not in offers:
            raise UnknownAgent(f"unknown agent {name!r}; the agents are {', '.join(sorted(offers)) or '(none)'}")
        return offers[name]
    for offer in offers.values():
        if offer.key_set and not offer.by_name_only and offer.missing is None:
            return offer
    raise InvalidConfiguration("no agent can be used: mas doctor says what is missing")


def team(offers: Mapping[str, config.Offer], tasks: Iterable[Task], default: str | None) -> dict[str, Agent]:
    """The agents that some tasks need, and no other; first the one for tasks that name none, if it is needed or named.

    Raises UnknownAgent, and InvalidConfiguration or InvalidOption for an agent that cannot be used as it is.
    """
    tasks, agents = list(tasks), dict[str, Agent]()
    first = None
    if default is not None or any(task.agent is None for task in tasks):
        first = chosen(offers, default).name
        agents[first] = _usable(offers[first])
    for task in tasks:
        name = task.agent or first
        assert name is not None
        if name not in offers:
            known = ", ".join(sorted(offers)) or "(none)"
            raise UnknownAgent(f"task {task.id!r}: unknown agent {name!r}; the agents are {known}")
        if name not in agents:
            agents[name] = _usable(offers[name])
        agent = agents[name]
        if isinstance(agent, HttpAgent) and not (agent.model or task.options.get("model")):
            raise InvalidOption(f"task {task.id!r}: {name}: no model is set: add it to the task's options")
    return agents


def made(offers: Mapping[str, config.Offer], names: Iterable[str]) -> dict[str, Agent]:
    """The agents of these names. Raises InvalidConfiguration for one that cannot be used as it is."""
    return {name: _usable(offers[name]) for name in names}


def _usable(offer: config.Offer) -> Agent:
    missing = offer.missing
    if missing is not None:
        raise InvalidConfiguration(f"{offer.name}: {missing}")
    return offer.make()
