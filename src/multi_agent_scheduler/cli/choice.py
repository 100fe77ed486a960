"""Which agents there are on the command line, and which one is meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import config
from ..agents.base import Agent
from ..agents.http import HttpAgent
from ..errors import InvalidConfiguration, InvalidOption, UnknownAgent
from ..task import Task

__all__ = ["available", "chosen", "configuration", "limited", "made", "team"]


def configuration(given: str | None) -> config.Configuration:
    """What the configuration says: the file that is given, that of ``MAS_CONFIG``, ``./mas.toml``, or none."""
    return config.read(config.find(given))


def available(given: str | None) -> dict[str, config.Offer]:
    """The agents of the configuration, or what the environment offers."""
    return configuration(given).agents


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


def team(said: config.Configuration, tasks: Iterable[Task], default: str | None) -> dict[str, Agent]:
    """The agents that some tasks need, and no other; first the one for tasks that name none, if it is needed or named.

    Raises UnknownAgent, and InvalidConfiguration or InvalidOption for an agent that cannot be used as it is.
    """
    offers, tasks, agents = said.agents, list(tasks), dict[str, Agent]()
    default, first = default or said.default_agent, None
    if default is not None or any(task.agent is None and task.task_type not in said.routes for task in tasks):
        first = chosen(offers, default).name
        agents[first] = _usable(offers[first])
    for task in tasks:
        name = task.agent or said.routes.get(task.task_type, first)
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


def limited(said: config.Configuration, agents: Mapping[str, Agent]) -> dict[str, Any]:
    """What the configuration says of these agents, as keywords of a scheduler."""
    return {
        "limits": {name: limits for name, limits in said.limits.items() if name in agents},
        "routes": {kind: name for kind, name in said.routes.items() if name in agents},
        "task_type_limits": said.task_type_limits,
        "budgets": said.budgets,
        "prices": said.prices,
        "cache": said.cache,
    }


def made(offers: Mapping[str, config.Offer], names: Iterable[str]) -> dict[str, Agent]:
    """The agents of these names. Raises InvalidConfiguration for one that cannot be used as it is."""
    return {name: _usable(offers[name]) for name in names}


def _usable(offer: config.Offer) -> Agent:
    missing = offer.missing
    if missing is not None:
        raise InvalidConfiguration(f"{offer.name}: {missing}")
    return offer.make()
