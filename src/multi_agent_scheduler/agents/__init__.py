"""Agents turn a request into records: those of the providers, the embedded model, and a user's own functions.

Each is loaded when it is first used: a program that speaks one protocol does not pay for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Agent, BaseAgent
    from .cached import Cache, Cached
    from .claude import ClaudeAgent
    from .compatible import PRESETS, CompatibleAgent
    from .context import Context, Permit
    from .ensemble import Fuse, Judge, Vote
    from .failover import Failover, Retry
    from .function import FunctionAgent
    from .gemini import GeminiAgent
    from .hedge import Hedge, Race
    from .local import LocalAgent, LocalServer, local_server
    from .openai import OpenAIAgent
    from .structured import Structured

__all__ = [
    "PRESETS",
    "Agent",
    "BaseAgent",
    "Cache",
    "Cached",
    "ClaudeAgent",
    "CompatibleAgent",
    "Context",
    "Failover",
    "FunctionAgent",
    "Fuse",
    "GeminiAgent",
    "Hedge",
    "Judge",
    "LocalAgent",
    "LocalServer",
    "OpenAIAgent",
    "Permit",
    "Race",
    "Retry",
    "Structured",
    "Vote",
    "local_server",
]

_HOMES = {
    "base": ("Agent", "BaseAgent"),
    "cached": ("Cache", "Cached"),
    "claude": ("ClaudeAgent",),
    "compatible": ("PRESETS", "CompatibleAgent"),
    "context": ("Context", "Permit"),
    "ensemble": ("Fuse", "Judge", "Vote"),
    "failover": ("Failover", "Retry"),
    "function": ("FunctionAgent",),
    "gemini": ("GeminiAgent",),
    "hedge": ("Hedge", "Race"),
    "local": ("LocalAgent", "LocalServer", "local_server"),
    "openai": ("OpenAIAgent",),
    "structured": ("Structured",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:  # PEP 562
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = found  # the next use is an ordinary one
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
