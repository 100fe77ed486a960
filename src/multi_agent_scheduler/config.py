"""Agents from a configuration: ``mas.toml``, or what the environment offers.

``[agents.NAME]`` has a ``type`` and that agent's keywords; ``api_key_env`` names the variable that holds a key (a key
itself is not accepted in a file). Files are named relative to the folder of ``mas.toml``. Without a file there is the
embedded model, and each provider whose key is set.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from . import agents
from .errors import CallerError, InvalidConfiguration
from .task import Timeouts

__all__ = ["TYPES", "Offer", "load", "offers"]


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

_TABLES: Final = ("agents", "limits", "server", "store")  # each command reads what concerns it
_FILES: Final = ("ca", "client_cert", "model_path")  # keywords that name files


class Offer(msgspec.Struct):
    """An agent by name: how to make it, and the variable that its key comes from (None if it needs none)."""

    name: str
    make: Callable[[], agents.Agent]
    """Raises :class:`InvalidConfiguration`, naming the place and the remedy."""
    key_variable: str | None = None
    by_name_only: bool = False
    """Not to be chosen where no agent is named: it answers only if a server runs that nobody may have started."""

    @property
    def key_set(self) -> bool:
        """Whether a key is there, or none is needed."""
        return self.key_variable is None or bool(os.environ.get(self.key_variable))

    @property
    def missing(self) -> str | None:
        """What has to be done before this agent can be used; None if nothing has to. Raises what ``make`` raises."""
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
        name: Offer(name, _plain(name), TYPES[name].key_variable) for name in ("local", "claude", "openai", "gemini")
    }
    for name, preset in sorted(agents.PRESETS.items(), key=lambda item: not item[1].needs_key):
        if preset.base_url:
            make = _plain("compatible", preset=name)
            found[name] = Offer(name, make, preset.key_variable, by_name_only=not preset.needs_key)
    return found


def _plain(kind: str, **keywords: Any) -> Callable[[], agents.Agent]:
    return lambda: TYPES[kind].make(keywords)


def load(path: Path) -> dict[str, Offer]:
    """The agents of a configuration file. Raises :class:`InvalidConfiguration`, naming the place and the remedy."""
    import tomllib

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidConfiguration(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{path} is not UTF-8 text (byte {error.start})") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidConfiguration(f"{path} is no valid TOML: {error}") from None
    for name in data:
        if name not in _TABLES:
            raise InvalidConfiguration(f"{path}: unknown setting {name!r}; the settings are {', '.join(_TABLES)}")
    tables = data.get("agents", {})
    if not isinstance(tables, dict):
        raise InvalidConfiguration(f"{path}: agents must be tables, [agents.NAME]")
    return {name: _offer(path, name, table) for name, table in tables.items()}


def _offer(path: Path, name: str, table: Any) -> Offer:
    where = f"{path}: [agents.{name}]"
    if not isinstance(table, dict):
        raise InvalidConfiguration(f"{where} must be a table")
    settings = dict(table)
    kind = settings.pop("type", None)
    if not isinstance(kind, str) or kind not in TYPES:
        said = "is missing: it is" if kind is None else f"{kind!r} is unknown: it must be"
        raise InvalidConfiguration(f"{where}: type {said} one of {', '.join(sorted(TYPES))}")
    if "api_key" in settings:
        raise InvalidConfiguration(
            f"{where}: no key in a file: set api_key_env to the name of the variable that holds it"
        )
    variable = settings.pop("api_key_env", None)
    if variable is not None and (not isinstance(variable, str) or not variable):
        raise InvalidConfiguration(f"{where}: api_key_env must be the name of a variable, not {variable!r}")

    def make() -> agents.Agent:
        try:
            keywords = {"name": name, **settings, **_files(settings, path.parent)}
            if "timeouts" in settings:
                keywords["timeouts"] = _timeouts(settings["timeouts"])
            if not isinstance(keywords["name"], str):
                raise InvalidConfiguration(f"name must be a string, not {keywords['name']!r}")
            if variable is None:
                return TYPES[kind].make(keywords)
            return _with_key(kind, keywords, variable)
        except CallerError as error:
            raise InvalidConfiguration(f"{where}: {error}") from None

    return Offer(name, make, variable or _usual_variable(kind, settings))


def _usual_variable(kind: str, settings: Mapping[str, Any]) -> str | None:
    preset = settings.get("preset")
    if kind == "compatible" and isinstance(preset, str) and preset in agents.PRESETS:
        return agents.PRESETS[preset].key_variable
    return TYPES[kind].key_variable


def _with_key(kind: str, keywords: Mapping[str, Any], variable: str) -> agents.Agent:
    if kind == "local":
        raise InvalidConfiguration("the embedded model needs no key: leave api_key_env out")
    value = os.environ.get(variable)
    agent = TYPES[kind].make({**keywords, "api_key": value or "unset"})  # first what else is wrong
    if not value:  # and not the provider's usual variable instead: that may be another account
        raise InvalidConfiguration(f"set {variable}, which api_key_env names")
    return agent


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
