"""A configuration: ``mas.toml``, ``MAS_`` variables over it, and what the environment offers without either.

``[agents.NAME]`` has a ``type`` and that agent's keywords; ``[limits.NAME]``, ``[task_types.NAME]``, ``[cache]``,
``[budgets.OWNER]``, ``[prices."MODEL"]`` and ``[server]`` have what their names say; ``store`` and ``default_agent``
stand before all tables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from ..agents.cached import Cache
from ..errors import CallerError, InvalidOption
from ..scheduling.budget import Budget, Price
from ..scheduling.limits import Limits
from .document import Document
from .leaves import TYPES
from .offers import Offer, agents_of, offers

__all__ = ["TYPES", "Configuration", "Offer", "find", "load", "offers", "read"]

_SETTINGS: Final = {
    "agents": True,
    "budgets": True,
    "cache": True,
    "default_agent": False,
    "limits": True,
    "prices": True,
    "server": True,
    "store": False,
    "task_types": True,
}
"""The settings, and whether each is a table."""


class Configuration(msgspec.Struct, kw_only=True):
    """What a configuration says. ``agents`` are what the environment offers, if there are no tables of agents.

    ``routes`` maps task types to agents and ``task_type_limits`` to the Calls that they may make at once; ``budgets``
    are by owner, ``prices`` by model. ``server`` is a table for the server to read: what is wrong with it, it says.
    """

    agents: dict[str, Offer]
    default_agent: str | None = None
    routes: dict[str, str] = {}
    limits: dict[str, Limits] = {}
    task_type_limits: dict[str, int] = {}
    budgets: dict[str, Budget] = {}
    prices: dict[str, Price] = {}
    cache: Cache | None = None
    server: dict[str, Any] = {}
    store: str | None = None
    """A URL; a file's name in it is seen from the folder of the configuration."""


class _TaskType(msgspec.Struct):
    agent: str | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise InvalidOption(f"concurrency must be a whole number above 0, not {self.concurrency!r}")


class _CacheTable(msgspec.Struct):
    ttl: float = 3600.0
    max_bytes: int = 64 * 1024 * 1024


def find(given: str | None, environment: Mapping[str, str] | None = None) -> Path | None:
    """The file in use: the one that is given, that of ``MAS_CONFIG``, ``./mas.toml``; None if there is none."""
    named = given or (os.environ if environment is None else environment).get("MAS_CONFIG")
    if named:
        return Path(named)
    here = Path("mas.toml")
    return here if here.is_file() else None


def load(path: Path) -> dict[str, Offer]:
    """The agents of a configuration file. Raises as :func:`read`."""
    return read(path).agents


def read(path: Path | None, environment: Mapping[str, str] | None = None) -> Configuration:
    """What a file says, and the ``MAS_`` variables, which override it.

    Raises :class:`~multi_agent_scheduler.errors.InvalidOption` for a file that cannot be read, and
    :class:`~multi_agent_scheduler.errors.InvalidConfiguration` for what it says, naming the file, the table, the key,
    the line where that is known, and the remedy.
    """
    variables = os.environ if environment is None else environment
    document = Document(path, variables, _SETTINGS)
    default = document.data.get("default_agent")
    if default is not None and not isinstance(default, str):
        raise document.mistake(f"default_agent must be an agent's name, not {default!r}", key="default_agent")
    types = {
        name: document.struct(_TaskType, table, "task_types", name) for name, table in document.tables("task_types")
    }
    configuration = Configuration(
        agents=agents_of(document) if "agents" in document.data else offers(),
        default_agent=default,
        routes={name: said.agent for name, said in types.items() if said.agent is not None},
        limits={name: document.struct(Limits, table, "limits", name) for name, table in document.tables("limits")},
        task_type_limits={name: said.concurrency for name, said in types.items() if said.concurrency is not None},
        budgets={name: document.struct(Budget, table, "budgets", name) for name, table in document.tables("budgets")},
        prices={name: document.struct(Price, table, "prices", name) for name, table in document.tables("prices")},
        cache=_cache(document),
        server=document.data.get("server", {}),
        store=_store(document, variables),
    )
    _check_names(configuration, document)
    return configuration


def _cache(document: Document) -> Cache | None:
    if "cache" not in document.data:
        return None
    said = document.struct(_CacheTable, document.data["cache"], "cache")
    try:
        return Cache(ttl=said.ttl, max_bytes=said.max_bytes)
    except CallerError as error:
        raise document.mistake(str(error), "cache", key=str(error).partition(" ")[0]) from None


def _store(document: Document, environment: Mapping[str, str]) -> str | None:
    url = document.data.get("store")
    if url is not None and not isinstance(url, str):
        raise document.mistake(f"store must be a URL, sqlite:///FILE or memory://, not {url!r}", key="store")
    if url is None or "MAS_STORE" in environment or not url.startswith("sqlite:///"):
        return url
    return f"sqlite:///{document.folder / url.removeprefix('sqlite:///')}"


def _check_names(configuration: Configuration, document: Document) -> None:
    """Raise for an agent that is named somewhere, and does not exist."""
    default, known = configuration.default_agent, configuration.agents
    places: list[tuple[str, tuple[str, ...], str | None]] = []
    if default is not None:
        places.append((default, (), "default_agent"))
    places += [(name, ("task_types", kind), "agent") for kind, name in configuration.routes.items()]
    for name in configuration.limits:
        places.append((name, ("limits", name), None))
        if name in known and known[name].members:
            members = ", ".join(member.name for member in known[name].members)
            raise document.mistake(
                f"{name} is an agent of agents: limit those that it asks ({members})", "limits", name
            )
    for name, table, key in places:
        if name not in known:
            problem = f"there is no agent {name!r}; the agents are {', '.join(sorted(known)) or '(none)'}"
            raise document.mistake(problem if key is None else f"{key}: {problem}", *table, key=key)
