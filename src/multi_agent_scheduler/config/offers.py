"""The agents of a configuration: each is offered by name, and made when it is wanted.

``api_key_env`` names the variable that holds a key (a key itself is not accepted in a file). Files are named relative
to the folder of the configuration. An agent of agents names its members: ``agents = ["a", "b"]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec

from .. import agents
from ..errors import CallerError
from . import leaves
from .composites import COMPOSITES, Composition, in_order
from .document import Document

__all__ = ["Offer", "agents_of", "offers"]


class Offer(msgspec.Struct):
    """An agent by name: how to make it, and the variable that its key comes from (None if it needs none)."""

    name: str
    make: Callable[[], agents.Agent]
    """Raises :class:`InvalidConfiguration`, naming the place and the remedy."""
    key_variable: str | None = None
    by_name_only: bool = False
    """Not to be chosen where no agent is named: it answers only if a server runs that nobody may have started."""
    members: tuple[Offer, ...] = ()
    """The agents that an agent of agents may ask."""

    @property
    def key_set(self) -> bool:
        """Whether a key is there, or none is needed."""
        if not all(member.key_set for member in self.members):
            return False
        return self.key_variable is None or bool(os.environ.get(self.key_variable))

    @property
    def missing(self) -> str | None:
        """What has to be done before this agent can be used; None if nothing has to. Raises what ``make`` raises."""
        for member in self.members:
            if (lacking := member.missing) is not None:
                return f"{member.name}: {lacking}"
        agent = self.make()
        if not self.key_set:
            return f"set {self.key_variable}"
        missing: str | None = getattr(agent, "missing", None)
        return missing


def offers() -> dict[str, Offer]:
    """What there is without a file, in order of preference.

    The embedded model, the providers, and the servers that a user may run on this machine (Ollama and its like).
    """
    found = {
        name: Offer(name, _plain(name), leaves.TYPES[name].key_variable)
        for name in ("local", "claude", "openai", "gemini")
    }
    for name, preset in sorted(agents.PRESETS.items(), key=lambda item: not item[1].needs_key):
        if preset.base_url:
            make = _plain("compatible", preset=name)
            found[name] = Offer(name, make, preset.key_variable, by_name_only=not preset.needs_key)
    return found


def _plain(kind: str, **keywords: Any) -> Callable[[], agents.Agent]:
    return lambda: leaves.TYPES[kind].make(keywords)


def agents_of(document: Document) -> dict[str, Offer]:
    """The agents of a configuration. Raises :class:`InvalidConfiguration`, naming the place and the remedy.

    An agent is made once, however many others name it.
    """
    tables = dict(document.tables("agents"))
    compositions: dict[str, Composition] = {}
    for name, table in tables.items():
        kind = _kind(document, name, table)
        if kind in COMPOSITES:
            compositions[name] = Composition(document, name, table, tables)
    found: dict[str, Offer] = {}
    for name in in_order(document, tables, compositions):
        if name in compositions:
            found[name] = _composed(document, name, compositions[name], found)
        else:
            found[name] = _leaf(document, name, tables[name])
    return {name: found[name] for name in tables}


def _kind(document: Document, name: str, table: Mapping[str, Any]) -> str:
    kind = table.get("type")
    if isinstance(kind, str) and (kind in leaves.TYPES or kind in COMPOSITES):
        return kind
    said = "is missing: it is" if kind is None else f"{kind!r} is unknown: it must be"
    known = ", ".join([*sorted(leaves.TYPES), *sorted(COMPOSITES)])
    raise document.mistake(f"type {said} one of {known}", "agents", name, key="type")


def _leaf(document: Document, name: str, table: Mapping[str, Any]) -> Offer:
    settings = dict(table)
    kind = settings.pop("type")
    if "api_key" in settings:
        problem = "no key in a file: set api_key_env to the name of the variable that holds it"
        raise document.mistake(problem, "agents", name, key="api_key")
    variable = settings.pop("api_key_env", None)
    if variable is not None and (not isinstance(variable, str) or not variable):
        problem = f"api_key_env must be the name of a variable, not {variable!r}"
        raise document.mistake(problem, "agents", name, key="api_key_env")

    @cache
    def make() -> agents.Agent:
        try:
            agent = leaves.made(name, kind, settings, variable, document.folder)
        except CallerError as error:
            raise document.mistake_in(table, error, "agents", name) from None
        if variable is not None and not os.environ.get(variable):
            raise document.lack(f"set {variable}, which api_key_env names", "agents", name)
        return agent

    return Offer(name, make, variable or leaves.usual_variable(kind, settings))


def _composed(document: Document, name: str, composition: Composition, others: Mapping[str, Offer]) -> Offer:
    members = {member: others[member] for member in composition.members}

    @cache
    def make() -> agents.Agent:
        made = {member: offer.make() for member, offer in members.items()}
        try:
            return composition.made(made)
        except CallerError as error:
            raise document.mistake_in(composition.table, error, "agents", name) from None

    return Offer(name, make, members=tuple(members.values()))
