"""Reading JSON objects of Gemini's protocol strictly, with the path in every complaint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any, Final

from ...errors import InvalidRequest

__all__ = ["Fields", "camel_keys", "listed", "mapping"]

_SNAKE: Final = re.compile(r"(?<=[a-z0-9])_([a-z])")


def camel_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same object with camelCase names: JSON of a protobuf may have either."""
    return {_SNAKE.sub(lambda match: match[1].upper(), key): value for key, value in fields.items()}


def mapping(value: Any, path: str) -> Mapping[str, Any]:
    """The value, which must be a JSON object."""
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{path} must be an object, not {_kind(value)}")
    return value


def listed(value: Any, path: str) -> list[Any]:
    """The value, which must be a list; nothing is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise InvalidRequest(f"{path} must be a list, not {_kind(value)}")
    return list(value)


class Fields:
    """The fields of one object; what was not taken is the rest. null counts as absent, as in JSON of a protobuf."""

    def __init__(self, fields: Mapping[str, Any], path: str) -> None:
        self._fields = {key: value for key, value in fields.items() if value is not None}
        self._prefix = f"{path}." if path else ""

    def names(self) -> Set[str]:
        return self._fields.keys()

    def get(self, name: str) -> Any:
        return self._fields.get(name)

    def take(self, name: str) -> Any:
        return self._fields.pop(name, None)

    def take_str(self, name: str) -> str | None:
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"{self._prefix}{name} must be a string, not {_kind(value)}")
        return value

    def take_int(self, name: str) -> int | None:
        value = self.take_number(name)
        if value is None or isinstance(value, int):
            return value
        if not value.is_integer():
            raise InvalidRequest(f"{self._prefix}{name} must be a whole number, not {value!r}")
        return int(value)

    def take_number(self, name: str) -> int | float | None:
        value = self.take(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InvalidRequest(f"{self._prefix}{name} must be a number, not {_kind(value)}")
        return value

    def rest(self) -> dict[str, Any]:
        return dict(self._fields)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
