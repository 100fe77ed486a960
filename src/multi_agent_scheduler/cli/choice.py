"""Which agents there are on the command line, and which one is meant."""

from __future__ import annotations

import os
from pathlib import Path

from .. import config
from ..errors import UnknownAgent

__all__ = ["available", "chosen"]


def available(file: str | None) -> dict[str, config.Offer]:
    """The agents of the given file, of ``MAS_CONFIG``, of ``./mas.toml``, or what the environment offers."""
    named = file or os.environ.get("MAS_CONFIG")
    if named:
        return config.load(Path(named))
    here = Path("mas.toml")
    return config.load(here) if here.is_file() else config.offers()


def chosen(offers: dict[str, config.Offer], name: str | None) -> config.Offer:
    """The agent of this name; without one, the first that can be used. Raises UnknownAgent, listing the names."""
    if name is None:
        usable = (offer for offer in offers.values() if offer.key_set)
        found = next(usable, None) or next(iter(offers.values()), None)
        if found is None:
            raise UnknownAgent("no agent is configured: add an [agents.NAME] table to mas.toml")
        return found
    if name not in offers:
        raise UnknownAgent(f"unknown agent {name!r}; the agents are {', '.join(sorted(offers))}")
    return offers[name]
