"""Reading JSON objects that a client wrote: each wrong type is told with its place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, overload

from ...errors import InvalidRequest

__all__ = ["Fields"]


class Fields:
    """A JSON object and where it stands. A field that is null counts as one that is not there."""

    __slots__ = ("raw", "where")

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw = raw
        self.where = where

    @classmethod
    def of(cls, value: Any, where: str) -> Fields:
        if not isinstance(value, Mapping):
            raise InvalidRequest(f"{where} must be an object, not {_kind(value)}")
        return cls(value, where)

    def place(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def get(self, name: str) -> Any:
        return self.raw.get(name)

    def inner(self, name: str) -> Fields:
        """The object in a field, which must be there."""
        return Fields.of(self._there(name), self.place(name))

    @overload
    def text(self, name: str, *, required: Literal[True]) -> str: ...
    @overload
    def text(self, name: str, *, required: bool = False) -> str | None: ...
    def text(self, name: str, *, required: bool = False) -> str | None:
        value = self._there(name) if required else self.raw.get(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def flag(self, name: str) -> bool | None:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def integer(self, name: str, *, low: int | None = None) -> int | None:
        value = self.raw.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(name, "a whole number", value)
        if low is not None and value < low:
            raise InvalidRequest(f"{self.place(name)} must be at least {low}, not {value}")
        return value

    def number(self, name: str) -> float | None:
        value = self.raw.get(name)
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise self._wrong(name, "a number", value)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._wrong(name, "a finite number", value)
        return value

    def object(self, name: str) -> dict[str, Any] | None:
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self._wrong(name, "an object", value)
        return dict(value)

    def list(self, name: str) -> list[Any] | None:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, list):
            raise self._wrong(name, "a list", value)
        return value

    def _there(self, name: str) -> Any:
        value = self.raw.get(name)
        if value is None:
            raise InvalidRequest(f"{self.place(name)} is missing")
        return value

    def _wrong(self, name: str, wanted: str, value: Any) -> InvalidRequest:
        return InvalidRequest(f"{self.place(name)} must be {wanted}, not {_kind(value)}")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
