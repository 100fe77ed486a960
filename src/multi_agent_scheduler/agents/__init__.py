"""Agents turn a request into records: those of the providers, the embedded model, and a user's own functions.

Each is loaded when it is first used: a program that speaks one protocol does not pay for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Agent
    from .claude import ClaudeAgent
    from .compatible import PRESETS, CompatibleAgent
    from .context import Context, Permit
    from .function import FunctionAgent
    from .gemini import GeminiAgent
    from .local import LocalAgent, LocalServer, local_server
    from .openai import OpenAIAgent

__all__ = [
    "PRESETS",
    "Agent",
    "ClaudeAgent",
    "CompatibleAgent",
    "Context",
    "FunctionAgent",
    "GeminiAgent",
    "LocalAgent",
    "LocalServer",
    "OpenAIAgent",
    "Permit",
    "local_server",
]

_HOMES = {
    "base": ("Agent",),
    "claude": ("ClaudeAgent",),
    "compatible": ("PRESETS", "CompatibleAgent"),
    "context": ("Context", "Permit"),
    "function": ("FunctionAgent",),
    "gemini": ("GeminiAgent",),
    "local": ("LocalAgent", "LocalServer", "local_server"),
    "openai": ("OpenAIAgent",),
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
