"""The agents of agents: which members their tables name, and how one is made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from .. import agents
from ..errors import InvalidConfiguration
from .document import Document

__all__ = ["COMPOSITES", "Composition", "in_order"]

_NUMBER: Final = (int, float)
_SAID: Final = {str: "a string", bool: "true or false", int: "a whole number", _NUMBER: "a number"}


class _Kind(NamedTuple):
    """``one``: it has an ``agent``, not ``agents``. ``roles`` are keywords that name one more member each."""

    class_name: str
    one: bool = False
    roles: tuple[str, ...] = ()
    keywords: Mapping[str, Any] = {}
    """The other keywords, and what kind of value each has."""


COMPOSITES: Final[Mapping[str, _Kind]] = {
    "cached": _Kind(
        "Cached",
        one=True,
        keywords={"pace": str, "identity": str, "ttl": _NUMBER, "max_bytes": int},
    ),
    "failover": _Kind("Failover", keywords={"policy": str, "refusals": bool}),
    "fuse": _Kind("Fuse", roles=("synthesiser",), keywords={"quorum": int}),
    "hedge": _Kind("Hedge", keywords={"after": (int, float, str)}),
    "judge": _Kind("Judge", roles=("judge",), keywords={"mode": str, "criteria": str, "quorum": int}),
    "race": _Kind("Race"),
    "retry": _Kind(
        "Retry",
        one=True,
        keywords={
            "attempts": int,
            "policy": str,
            "base": _NUMBER,
            "longest_wait": _NUMBER,
            "longest_retry_after": _NUMBER,
        },
    ),
    "vote": _Kind("Vote", keywords={"quorum": int, "by": str}),
}


class Composition:
    """The table of an agent of agents, read and checked. ``agents`` are its members in order, ``roles`` those by role.

    Raises InvalidConfiguration for a keyword that it does not take, and for a member that is missing or that no table
    has.
    """

    def __init__(self, document: Document, name: str, table: Mapping[str, Any], known: Collection[str]) -> None:
        self.name = name
        self.table = table
        self._type = table["type"]
        self._kind = kind = COMPOSITES[self._type]
        list_key = "agent" if kind.one else "agents"
        for key, value in table.items():
            if key in ("type", list_key) or key in kind.roles:
                continue
            expected = kind.keywords.get(key)
            if expected is None:
                keywords = ", ".join([list_key, *kind.roles, *kind.keywords])
                problem = f"{self._type}: unknown keyword {key!r}; the keywords are {keywords}"
                raise document.mistake(problem, "agents", name, key=key)
            if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
                said = _SAID.get(expected, "a number or a string")
                raise document.mistake(f"{key} must be {said}, not {value!r}", "agents", name, key=key)
        asked = [table.get("agent")] if kind.one else table.get("agents")
        if not isinstance(asked, list) or not asked or not all(isinstance(member, str) for member in asked):
            wanted = 'agent = "NAME"' if kind.one else 'agents = ["NAME", ...]'
            problem = f"{self._type} needs {wanted}, " + ("the agent" if kind.one else "the agents") + " that it asks"
            raise document.mistake(problem, "agents", name, key=list_key)
        self._agents: list[str] = asked
        self._roles: dict[str, str] = {}
        for role in kind.roles:
            if not isinstance(table.get(role), str):
                raise document.mistake(f'{self._type} needs {role} = "NAME", an agent', "agents", name, key=role)
            self._roles[role] = table[role]
        for member in self.members:
            if member not in known:
                key = next((role for role, named in self._roles.items() if named == member), list_key)
                problem = f"{key}: there is no agent {member!r}; the agents are {', '.join(sorted(known))}"
                raise document.mistake(problem, "agents", name, key=key)

    @property
    def members(self) -> list[str]:
        """The names of all that may be asked, once each."""
        return list(dict.fromkeys([*self._agents, *self._roles.values()]))

    def made(self, members: Mapping[str, agents.Agent]) -> agents.Agent:
        """The agent, of its members. Raises CallerError for what cannot be."""
        settings = {key: value for key, value in self.table.items() if key in self._kind.keywords}
        if self._type == "hedge" and "after" not in settings:
            raise InvalidConfiguration('hedge needs after: seconds, or a percentile such as "p95"')
        if self._type == "cached":
            kept = {key: settings.pop(key) for key in ("ttl", "max_bytes") if key in settings}
            settings["cache"] = agents.Cache(**kept)
        settings |= {role: members[name] for role, name in self._roles.items()}
        agent: agents.Agent = getattr(agents, self._kind.class_name)(
            *(members[name] for name in self._agents), **settings
        )
        agent.name = self.name
        return agent


def in_order(document: Document, names: Collection[str], compositions: Mapping[str, Composition]) -> list[str]:
    """The names, each after its members. Raises InvalidConfiguration, naming a cycle in order."""
    done: dict[str, None] = {}
    path: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in done:
            return
        if name in path:
            cycle = [*path][[*path].index(name) :]
            problem = f"an agent cannot be a member of itself: {' -> '.join([*cycle, name])}"
            raise document.mistake(problem, "agents", cycle[-1])
        path[name] = None
        if name in compositions:
            for member in compositions[name].members:
                visit(member)
        del path[name]
        done[name] = None

    for name in names:
        visit(name)
    return [*done]
