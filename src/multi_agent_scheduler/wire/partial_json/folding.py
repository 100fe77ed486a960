"""Changes applied to a document: what a reader of changes does to have the value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import UNSET

from .parser import Change

__all__ = ["apply"]


def apply(document: Any, changes: Iterable[Change]) -> Any:
    """The document with the changes made in it; ``UNSET`` is the document of which nothing is known.

    Containers are changed where they are. Appending to a string copies it, so this is for showing, not for collecting a
    large text: for that, keep the pieces, or ask the parser for its value.
    """
    for path, value in changes:
        if not path:
            document = document + value if isinstance(value, str) and isinstance(document, str) else value
            continue
        *way, last = path
        node: Any = document
        for step in way:
            node = node[step]
        if value is UNSET:
            del node[last]
        elif last == len(node) and type(last) is int:
            node.append(value)
        elif isinstance(value, str) and (type(last) is int or last in node):
            node[last] += value
        else:
            node[last] = value
    return document
