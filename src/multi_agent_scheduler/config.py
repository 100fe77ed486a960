"""Agents from a configuration: ``mas.toml``, or what the environment offers.

``[agents.NAME]`` has a ``type`` and that agent's keywords; ``api_key_env`` names the variable that holds a key (a key
itself is not accepted in a file). Without a file there is the embedded model, and each provider whose key is set.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from .agents import PRESETS, Agent, ClaudeAgent, CompatibleAgent, GeminiAgent, LocalAgent, OpenAIAgent
from .errors import CallerError, InvalidConfiguration
from .task import Timeouts

__all__ = ["TYPES", "Offer", "load", "offers"]

TYPES: Final[Mapping[str, Callable[..., Agent]]] = {
    "claude": ClaudeAgent,
    "compatible": CompatibleAgent,
    "gemini": GeminiAgent,
    "local": LocalAgent,
    "openai": OpenAIAgent,
}


class Offer(msgspec.Struct):
    """An agent by name: how to make it, and the variable that its key comes from (None if it needs none)."""

    name: str
    make: Callable[[], Agent]
    key_variable: str | None = None

    @property
    def key_set(self) -> bool:
        """Whether a key is there, or none is needed."""
        return self.key_variable is None or bool(os.environ.get(self.key_variable))


def offers() -> dict[str, Offer]:
    """What there is without a file, in order of preference: the embedded model, then the providers by name."""
    found = {
        "local": Offer("local", LocalAgent),
        "claude": Offer("claude", ClaudeAgent, ClaudeAgent.key_variable),
        "openai": Offer("openai", OpenAIAgent, OpenAIAgent.key_variable),
        "gemini": Offer("gemini", GeminiAgent, GeminiAgent.key_variable),
    }
    for name, preset in PRESETS.items():
        if preset.needs_key and preset.base_url:
            found[name] = Offer(name, _preset(name), preset.key_variable)
    return found


def load(path: Path) -> dict[str, Offer]:
    """The agents of a configuration file. Raises :class:`InvalidConfiguration`, naming the place and the remedy."""
    import tomllib

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfiguration(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path} is no valid TOML: {error}") from None
    tables = data.get("agents", {})
    if not isinstance(tables, dict):
        raise InvalidConfiguration(f"{path}: agents must be tables, [agents.NAME]")
    return {name: _offer(f"{path}: [agents.{name}]", name, table) for name, table in tables.items()}


def _offer(where: str, name: str, table: Any) -> Offer:
    if not isinstance(table, dict):
        raise InvalidConfiguration(f"{where} must be a table")
    settings = dict(table)
    kind = settings.pop("type", None)
    if kind not in TYPES:
        raise InvalidConfiguration(f"{where}: type must be one of {', '.join(sorted(TYPES))}, not {kind!r}")
    if "api_key" in settings:
        raise InvalidConfiguration(f"{where}: no key in a file: set api_key_env to the name of the variable that holds it")
    variable = settings.pop("api_key_env", None)
    timeouts = settings.pop("timeouts", None)

    def make() -> Agent:
        keywords = dict(settings)
        if variable is not None:
            keywords["api_key"] = os.environ.get(variable)
        if timeouts is not None:
            keywords["timeouts"] = msgspec.convert(timeouts, Timeouts, strict=True)
        try:
            return TYPES[kind](**{"name": name, **keywords})
        except (CallerError, TypeError, msgspec.ValidationError) as error:
            raise InvalidConfiguration(f"{where}: {error}") from None

    default = getattr(TYPES[kind], "key_variable", None)
    if default is None and settings.get("preset") in PRESETS:
        default = PRESETS[settings["preset"]].key_variable
    return Offer(name, make, variable or default)


def _preset(name: str) -> Callable[[], Agent]:
    return lambda: CompatibleAgent(preset=name)
