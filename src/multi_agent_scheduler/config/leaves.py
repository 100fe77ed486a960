"""The agents that ask one provider: from a table of the configuration to an agent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from .. import agents
from ..errors import InvalidConfiguration
from ..task import Timeouts

__all__ = ["TYPES", "made", "usual_variable"]


class _Type(NamedTuple):
    """An agent's class, by name so that only what is used is loaded, and the variable its key is usually in."""

    class_name: str
    key_variable: str | None = None

    def make(self, keywords: Mapping[str, Any]) -> agents.Agent:
        made: agents.Agent = getattr(agents, self.class_name)(**keywords)
        return made


TYPES: Final[Mapping[str, _Type]] = {
    "claude": _Type("ClaudeAgent", "ANTHROPIC_API_KEY"),
    "compatible": _Type("CompatibleAgent"),
    "gemini": _Type("GeminiAgent", "GEMINI_API_KEY"),
    "local": _Type("LocalAgent"),
    "openai": _Type("OpenAIAgent", "OPENAI_API_KEY"),
}

_FILES: Final = ("ca", "client_cert", "model_path")  # keywords that name files


def made(name: str, kind: str, settings: Mapping[str, Any], variable: str | None, folder: Path) -> agents.Agent:
    """The agent of a table; ``variable`` is what it names as its key's. Raises CallerError for what cannot be."""
    keywords = {"name": name, **settings, **_files(settings, folder)}
    if "timeouts" in settings:
        keywords["timeouts"] = _timeouts(settings["timeouts"])
    if not isinstance(keywords["name"], str):
        raise InvalidConfiguration(f"name must be a string, not {keywords['name']!r}")
    if variable is not None:
        if kind == "local":
            raise InvalidConfiguration("the embedded model needs no key: leave api_key_env out")
        # Not the provider's usual variable instead, if this one is not set: that may be another account.
        keywords["api_key"] = os.environ.get(variable) or "unset"
    return TYPES[kind].make(keywords)


def usual_variable(kind: str, settings: Mapping[str, Any]) -> str | None:
    """The variable that holds the key of such an agent where its table names none."""
    preset = settings.get("preset")
    if kind == "compatible" and isinstance(preset, str) and preset in agents.PRESETS:
        return agents.PRESETS[preset].key_variable
    return TYPES[kind].key_variable


def _timeouts(table: Any) -> Timeouts:
    known = Timeouts.__struct_fields__
    if not isinstance(table, dict):
        raise InvalidConfiguration(f"timeouts must be a table of {', '.join(known)}, not {table!r}")
    for name in table:
        if name not in known:
            raise InvalidConfiguration(f"timeouts: unknown limit {name!r}; the limits are {', '.join(known)}")
    return Timeouts(**table)


def _files(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The keywords that name files, as they are seen from the folder of the configuration."""

    def path(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidConfiguration(f"{name} must be the name of a file, not {value!r}")
        return str(folder / Path(value).expanduser())

    found: dict[str, Any] = {}
    for name in _FILES:
        value = settings.get(name)
        if name == "client_cert" and isinstance(value, list):
            found[name] = tuple(path(name, part) for part in value)
        elif value is not None:
            found[name] = path(name, value)
    return found
