"""``mas doctor``: which agents there are, whether each can be used, and what is missing."""

from __future__ import annotations

import argparse
import sys

from ..__about__ import VERSION
from ..agents.http import HttpAgent
from ..agents.local import LocalAgent
from ..config import Offer
from ..errors import SchedulerError
from . import choice

__all__ = ["run"]


def run(parsed: argparse.Namespace) -> int:
    """Exit code 0 if at least one agent can be used, 1 if none can."""
    rows = [_row(offer) for offer in choice.available(parsed.config).values()]
    out = sys.stdout
    version = ".".join(map(str, sys.version_info[:3]))
    out.write(f"Multi-Agent Scheduler {VERSION}, Python {version}, {sys.platform}\n\n")
    width = max((len(name) for name, _, _ in rows), default=5)
    for name, usable, what in rows:
        out.write(f"  {'ok' if usable else '--'}  {name:<{width}}  {what}\n")
    usable = [name for name, ready, _ in rows if ready]
    if usable:
        out.write(f'\nTry: mas ask --agent {usable[0]} "Explain Python async"\n')
        return 0
    out.write("\nNo agent can be used yet: install the local model or set a provider's key, as said above.\n")
    return 1


def _row(offer: Offer) -> tuple[str, bool, str]:
    try:
        agent = offer.make()
    except SchedulerError as error:
        return offer.name, False, str(error)
    if isinstance(agent, LocalAgent):
        missing = agent.missing
        return offer.name, missing is None, missing or f"{agent.model}, embedded, no key needed"
    if isinstance(agent, HttpAgent):
        missing = agent.key_missing
        if missing is not None:
            return offer.name, False, f"set {offer.key_variable}" if offer.key_variable else missing
        return offer.name, True, f"{agent.model or 'name a model with --model'}, {agent.shown_url}"
    return offer.name, True, repr(agent)
