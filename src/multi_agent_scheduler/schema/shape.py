"""What a place in an answer must be: found along its path, checked when the place closes, shown while it is open."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

__all__ = ["ANYTHING", "Kind", "Misfit", "Path", "Shape", "arrived", "kind_of", "shown"]

Path: TypeAlias = tuple[str | int, ...]
Kind: TypeAlias = Literal["object", "array", "string", "number", "boolean", "null"]

_LONGEST: Final = 60  # characters of a value in a message


class Misfit(Exception):
    """A value that does not fit. ``path`` leads to it; ``problem`` says what was expected and what arrived."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{shown(path)}: {problem}")
        self.path = path
        self.problem = problem


class Shape(ABC):
    """What one place must be. Shapes are shared and do not change."""

    plain = False
    """Whether values stay the plain data that they are."""

    @abstractmethod
    def opened(self, kind: Literal["object", "array"]) -> Shape:
        """The shape of an object or array that opens here: one member of a union, if only one can be meant.

        Raises :class:`Misfit`, with an empty path, if none may be here.
        """

    @abstractmethod
    def child(self, key: str | int) -> Shape:
        """The shape of a member or an item."""

    @abstractmethod
    def closed(self, value: Any) -> Any:
        """What the whole value, plain data, is here: checked and converted. Raises :class:`Misfit` (from here on)."""

    @abstractmethod
    def partial(self, members: Any) -> Any:
        """What is shown of an open object or array (a dict or list of what its members and items are by now)."""


class _Anything(Shape):
    plain = True

    def opened(self, kind: Literal["object", "array"]) -> Shape:  # noqa: ARG002
        return self

    def child(self, key: str | int) -> Shape:  # noqa: ARG002
        return self

    def closed(self, value: Any) -> Any:
        return value

    def partial(self, members: Any) -> Any:
        return members


ANYTHING: Final[Shape] = _Anything()
"""A place about which nothing is said, or nothing yet."""


def kind_of(value: Any) -> Kind:
    """What a plain value is called in JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case Mapping():
            return "object"
        case Sequence():
            return "array"
    raise TypeError(f"{type(value).__name__} is no JSON value")


def arrived(value: Any) -> str:
    """A value as a message names it: short, on one line, in ASCII without control characters."""
    if isinstance(value, dict | list) and value:
        return f"an {kind_of(value)}"
    text = str(value) if type(value) is int else _quoted(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def shown(path: Path) -> str:
    """A path as a message names it: ``steps[2].text``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.isidentifier():
            text += f".{step}" if text else step
        else:
            text += f"[{_quoted(step)}]"
    return text or "the answer"


def _quoted(value: Any) -> str:
    text = msgspec.json.encode(value, enc_hook=repr).decode().replace("\x7f", "\\u007f")
    return text.encode("ascii", "backslashreplace").decode()
