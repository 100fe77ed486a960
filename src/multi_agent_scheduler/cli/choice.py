"""Which agents there are on the command line, and which one is meant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .. import config
from ..errors import InvalidConfiguration, UnknownAgent

__all__ = ["available", "chosen", "file_in_use"]


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
