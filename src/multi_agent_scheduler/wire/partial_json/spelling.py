"""Changes spelled as JSON text again, for readers who want the document as it arrives and nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from .parser import Change, Path

__all__ = ["Spelling"]

_json: Final = msgspec.json.Encoder().encode


class Spelling:
    """The document of which these are the changes, in pieces of UTF-8 that together are that document.

    The changes are those of a parser that takes nothing back (``duplicates="error"``).
    """

    __slots__ = ("_open", "_pieces")

    def __init__(self) -> None:
        self._open: list[_Open] = []  # strings, objects and arrays, from the outermost inwards
        self._pieces: list[bytes] = []

    @property
    def in_string(self) -> bool:
        """White space would be part of the document now."""
        return bool(self._open) and self._open[-1].end == b'"'

    def feed(self, changes: Iterable[Change], completed: Iterable[Path]) -> bytes:
        """The text of what came, and of what closed with it."""
        for path, value in changes:
            if isinstance(value, str):
                if not (self.in_string and self._open[-1].path == path):
                    self._begin(path, b'"', b'"')
                self._pieces.append(_json(value)[1:-1])
            elif type(value) is dict:
                self._begin(path, b"{", b"}")
            elif type(value) is list:
                self._begin(path, b"[", b"]")
            else:
                self._place(path)
                self._pieces.append(_json(value))
        for path in completed:
            if self._open and self._open[-1].path == path:
                self._pieces.append(self._open.pop().end)
        text = b"".join(self._pieces)
        self._pieces.clear()
        return text

    def _begin(self, path: Path, begin: bytes, end: bytes) -> None:
        self._place(path)
        self._pieces.append(begin)
        self._open.append(_Open(path, end))

    def _place(self, path: Path) -> None:
        """Close what has closed before something comes at this path, and write what stands before it."""
        while self._open and self._open[-1].path != path[:-1]:
            self._pieces.append(self._open.pop().end)
        if not path:
            return
        outer, name = self._open[-1], path[-1]
        if outer.filled:
            self._pieces.append(b",")
        outer.filled = True
        if isinstance(name, str):
            self._pieces.append(_json(name) + b":")


class _Open:
    __slots__ = ("end", "filled", "path")

    def __init__(self, path: Path, end: bytes) -> None:
        self.path = path
        self.end = end
        self.filled = False
