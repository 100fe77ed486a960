"""Function-call arguments that come in pieces: (JSON Path, value) pairs to one JSON text, written as it grows.

Vertex AI streams them when asked to (``functionCallingConfig.streamFunctionCallArguments``): each ``partialArgs`` entry
names a place by a path of RFC 9535 (``$.foo.bar[0]``) and gives a string, a number, a bool or a null for it; pieces of
one string follow each other.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import msgspec

__all__ = ["PartialArguments", "parse_path"]

Segment: TypeAlias = str | int

_SEGMENT: Final = re.compile(
    r"""\.([^.\[\]'"\s]+)|\[(\d{1,9})\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""", re.DOTALL
)
_ESCAPED: Final = re.compile(r"""\\(['"\\/])""")
_WIDEST_GAP: Final = 1000  # how far an index may point past the end of a list that we fill up with null
_DEEPEST: Final = 100


class _Pieces:
    """A string that still grows; joined only when it is needed whole."""

    __slots__ = ("pieces",)

    def __init__(self, text: str) -> None:
        self.pieces = [text]


def _plain(value: Any) -> Any:
    return "".join(value.pieces)


_json: Final = msgspec.json.Encoder(enc_hook=_plain)


def parse_path(path: Any) -> list[Segment] | None:
    """The segments of a normal path such as ``$.a[0]['b c']``; None for anything else, and for ``$`` alone."""
    if not isinstance(path, str) or not path.startswith("$"):
        return None
    segments: list[Segment] = []
    position = 1
    while position < len(path):
        match = _SEGMENT.match(path, position)
        if match is None or len(segments) == _DEEPEST:
            return None
        name, index, single, double = match.groups()
        if index is not None:
            segments.append(int(index))
        else:
            quoted = single if single is not None else double
            segments.append(name if quoted is None else _ESCAPED.sub(r"\1", quoted))
        position = match.end()
    return segments if segments and isinstance(segments[0], str) else None


class PartialArguments:
    """The arguments object of one call.

    :meth:`put` and :meth:`close` return the JSON text to add; together the texts are one JSON object. Paths in
    document order are written at once. A path that goes back to something already written cannot be: its top-level
    member is then written again, whole, at the end, and a reader of JSON takes the last of two equal names.
    """

    def __init__(self) -> None:
        self._value: dict[str, Any] = {}
        self._trail: list[Segment] = []  # the path of what was written last; every container on it is open in the text
        self._in_string = False
        self._again: dict[str, None] = {}  # members to be written again, in order

    def put(self, path: list[Segment], value: Any) -> str | None:
        """The text for one piece; a string adds to a string that is there. None: there can be no such place."""
        top = path[0]
        assert isinstance(top, str), "parse_path gives nothing else"
        grows = isinstance(value, str) and self._grows(path)
        depth = None if grows or top in self._again else self._depth(path)
        if not _place(self._value, path, value):
            return None
        if top in self._again:
            return ""
        if grows and path == self._trail and self._in_string:
            return _escaped(value)
        if depth is None:
            if not (grows and not value):  # an empty piece closes a string: nothing is written for it
                self._again[top] = None
            return ""
        return self._move(path, depth) + self._scalar(value)

    def close(self) -> str:
        """The rest of the text: what closes it."""
        text = self._shut(0) if self._trail else "{"
        for number, name in enumerate(self._again):
            comma = "," if number or self._trail else ""
            text += f"{comma}{_text(name)}:{_text(self._value[name])}"
        return text + "}"

    def _grows(self, path: list[Segment]) -> bool:
        node: Any = self._value
        for segment in path:
            if isinstance(node, list):
                if not isinstance(segment, int) or segment >= len(node):
                    return False
            elif not isinstance(node, dict) or segment not in node:
                return False
            node = node[segment]
        return isinstance(node, _Pieces)

    def _depth(self, path: list[Segment]) -> int | None:
        """The depth of the open container that the path adds a new last member to; None if that is not what it does."""
        trail = self._trail
        depth = 0
        while depth < len(trail) and depth < len(path) and trail[depth] == path[depth]:
            depth += 1
        if depth == len(path) or (trail and depth == len(trail)):
            return None
        node: Any = self._value
        for segment in path[:depth]:
            node = node[segment]
        step = path[depth]
        new = step == len(node) if isinstance(node, list) else isinstance(step, str) and step not in node
        first = all(isinstance(segment, str) or segment == 0 for segment in path[depth + 1 :])
        return depth if new and first else None

    def _move(self, path: list[Segment], depth: int) -> str:
        text = self._shut(depth) + "," if self._trail else "{"
        for place in range(depth, len(path)):
            segment = path[place]
            if place > depth:
                text += "{" if isinstance(segment, str) else "["
            if isinstance(segment, str):
                text += _text(segment) + ":"
        self._trail = path
        return text

    def _shut(self, depth: int) -> str:
        """What closes everything that is open below the container at ``depth``."""
        inner = self._trail[depth + 1 :]
        closers = "".join("}" if isinstance(segment, str) else "]" for segment in reversed(inner))
        text = '"' + closers if self._in_string else closers
        self._in_string = False
        return text

    def _scalar(self, value: Any) -> str:
        if isinstance(value, str):
            self._in_string = True
            return '"' + _escaped(value)
        return _text(value)


def _text(value: Any) -> str:
    return _json.encode(value).decode()


def _escaped(text: str) -> str:
    return _text(text)[1:-1]


def _place(root: dict[str, Any], path: list[Segment], value: Any) -> bool:
    """Set or extend the value at a path, making containers on the way; what is in the way is replaced."""
    node: Any = root
    for segment, following in zip(path, [*path[1:], None], strict=True):
        if isinstance(node, list):
            if not isinstance(segment, int) or segment > len(node) + _WIDEST_GAP:
                return False
            node.extend([None] * (segment + 1 - len(node)))
        elif not isinstance(segment, str):
            return False
        old: Any = node[segment] if isinstance(segment, int) else node.get(segment)
        if following is None:
            if isinstance(old, _Pieces) and isinstance(value, str):
                old.pieces.append(value)
            else:
                node[segment] = _Pieces(value) if isinstance(value, str) else value
            return True
        if not isinstance(old, dict if isinstance(following, str) else list):
            old = node[segment] = {} if isinstance(following, str) else []
        node = old
    return True
