"""The text of a configuration: a file's tables, the environment's variables over them, and where all of it stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from ..errors import CallerError, InvalidConfiguration, InvalidOption

__all__ = ["Document"]

_T = TypeVar("_T")
Place: TypeAlias = tuple[str, ...]

_PREFIX: Final = "MAS_"
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


class Document:
    """``data`` are the tables; ``folder`` is where the names of files in them begin.

    ``MAS_STORE=...`` sets the key ``store``, and ``MAS_AGENTS__QUICK__MODEL=...`` the key ``model`` of
    ``[agents.quick]``: names in lower case, two underscores between them. A value is TOML's (``5``, ``true``,
    ``["a", "b"]``) if it is one, and otherwise a string.
    """

    def __init__(self, path: Path | None, environment: Mapping[str, str], settings: Mapping[str, bool]) -> None:
        """``settings`` are the names of the settings, and whether each is a table. Raises InvalidConfiguration."""
        self.folder = Path() if path is None else path.parent
        self._path = path
        self._text = ""
        self.data: dict[str, Any] = {}
        if path is not None:
            self.data = self._read(path)
        self._take(environment, settings)
        for name, value in self.data.items():
            if name not in settings:
                raise self.mistake(f"unknown setting {name!r}; the settings are {', '.join(settings)}", key=name)
            if settings[name] and not isinstance(value, dict):
                inner = f"[{name}.NAME]" if name == "agents" else f"[{name}]"
                raise self.mistake(f"{name} must be {'tables' if name == 'agents' else 'a table'}, {inner}", key=name)

    def lack(self, message: str, *table: str) -> InvalidConfiguration:
        """The error for a table that is right, and lacks something outside of the configuration."""
        return InvalidConfiguration(f"{self}: [{_dotted(table)}]: {message}" if table else f"{self}: {message}")

    def mistake(self, message: str, *table: str, key: str | None = None) -> InvalidConfiguration:
        """The error for what stands in a table, at a key of it, with its line."""
        line = self._line(table if key is None else (*table, key))
        return self.lack(f"{message} (line {line})" if line else message, *table)

    def mistake_in(self, table: Mapping[str, Any], error: Exception, *place: str) -> InvalidConfiguration:
        """The error for a table that was refused: at the key that the refusal names, if it is one of the table's."""
        text = str(error)
        quoted = (key for key in table if f"'{key}'" in text)
        said = (key for key in table if re.search(rf"\b{re.escape(key)}\b", text))
        return self.mistake(text, *place, key=next(quoted, None) or next(said, None))

    def __str__(self) -> str:
        return "MAS_ variables" if self._path is None else str(self._path)

    def tables(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The tables within a table, by name."""
        for inner, table in self.data.get(name, {}).items():
            if not isinstance(table, dict):
                raise self.mistake("must be a table", name, inner)
            yield inner, table

    def struct(self, kind: type[_T], table: Mapping[str, Any], *place: str) -> _T:
        """A table as a struct. Raises InvalidConfiguration for a key that it has not, and a value that cannot be."""
        known: tuple[str, ...] = kind.__struct_fields__  # type: ignore[attr-defined]
        for key in table:
            if key not in known:
                raise self.mistake(f"unknown key {key!r}; the keys are {', '.join(known)}", *place, key=key)
        try:
            return msgspec.convert(table, kind)
        except (CallerError, msgspec.ValidationError) as error:
            raise self.mistake_in(table, error, *place) from None

    # --- reading --------------------------------------------------------------------------------------------------

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            self._text = path.read_text(encoding="utf-8-sig")
            return tomllib.loads(self._text)
        except OSError as error:
            raise InvalidOption(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise InvalidOption(f"{path} is not UTF-8 text (byte {error.start})") from None
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InvalidConfiguration(f"{path} is no valid TOML: {error}") from None

    def _take(self, environment: Mapping[str, str], settings: Mapping[str, bool]) -> None:
        for variable in sorted(environment):
            if not variable.startswith(_PREFIX):
                continue
            *tables, key = variable.removeprefix(_PREFIX).lower().split("__")
            if not tables and settings.get(key, True):
                continue  # somebody else's: MAS_CONFIG, MAS_DEBUG
            place = self.data
            for name in tables:
                place = place.setdefault(name, {})
                if not isinstance(place, dict):
                    raise InvalidConfiguration(f"{variable}: {name!r} is no table in {self}")
            if tables and (tables[0] not in settings or not all((*tables, key))):
                raise InvalidConfiguration(
                    f"{variable} names no setting: it is {_PREFIX}TABLE__KEY or {_PREFIX}TABLE__NAME__KEY, and the "
                    f"tables are {', '.join(name for name, is_table in settings.items() if is_table)}"
                )
            place[key] = _value(environment[variable])

    # --- where it stands ------------------------------------------------------------------------------------------

    def _line(self, place: Place) -> int | None:
        """The line of a key or a table, from 1; of what it stands in, if it has none."""
        lines = self._lines()
        while place:
            if place in lines:
                return lines[place]
            place = place[:-1]
        return None

    def _lines(self) -> dict[Place, int]:
        found: dict[Place, int] = {}
        table: Place = ()
        for number, line in enumerate(self._text.splitlines(), 1):
            text = line.strip()
            if text.startswith("["):
                place = table = _named(text) or table
            else:
                place = (*table, *_named(f"{text.partition('=')[0]} = {{}}"))
            for end in range(1, len(place) + 1):
                found.setdefault(place[:end], number)
        return found


def _named(text: str) -> Place:
    """The names in a table's header, or in a key that has an empty table."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return ()
    names: list[str] = []
    while isinstance(found, dict) and found:
        name, found = next(iter(found.items()))
        names.append(name)
    return tuple(names)


def _dotted(table: Place) -> str:
    return ".".join(name if _BARE.fullmatch(name) else '"' + name.replace('"', '\\"') + '"' for name in table)


def _value(text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    value = found.pop("value")
    return value if not found and isinstance(value, int | float | str | list | dict) else text
