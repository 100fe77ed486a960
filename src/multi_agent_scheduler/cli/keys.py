"""``mas keys``: who may use the server."""

from __future__ import annotations

import argparse
import time

from ..errors import InvalidConfiguration
from ..server.keys import KeyLimits, Keys
from . import place
from .serve import keys_beside
from .terminal import complain, one_line, say

__all__ = ["create", "list_all", "revoke"]


def create(parsed: argparse.Namespace) -> int:
    """The key goes to stdout, alone, and nowhere else: it cannot be shown again."""
    limits = KeyLimits(
        requests_per_minute=parsed.requests_per_minute,
        tokens_per_minute=parsed.tokens_per_minute,
        cost=parsed.cost,
        streams=parsed.streams,
        pace=parsed.pace,
    )
    say(_keys(parsed).create(parsed.name, owner=parsed.owner, limits=limits))
    complain(f"this is the only time that the key {parsed.name} is shown: keep it")
    return 0


def list_all(parsed: argparse.Namespace) -> int:
    """One line for each key, without the key."""
    keys = _keys(parsed).all()
    for key in keys:
        made = time.strftime("%Y-%m-%d", time.gmtime(key.created))
        limits = ", ".join(
            f"{name} {value}"
            for name in key.limits.__struct_fields__
            if (value := getattr(key.limits, name)) is not None
        )
        owner = "" if key.owner == key.name else f", owner {one_line(key.owner)}"
        say(f"{one_line(key.name)}: made {made}{owner}{', ' if limits else ''}{limits}")
    if not keys:
        complain("there are no keys: mas keys create NAME makes one")
    return 0


def revoke(parsed: argparse.Namespace) -> int:
    """A running server takes the key no more from now on."""
    _keys(parsed).revoke(parsed.name)
    return 0


def _keys(parsed: argparse.Namespace) -> Keys:
    path = keys_beside(place.durable(parsed.store, parsed.config))
    if path is None:
        raise InvalidConfiguration("keys are kept beside a store in a file")
    return Keys(path)
