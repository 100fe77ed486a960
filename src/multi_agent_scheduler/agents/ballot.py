"""A vote over objects, field by field: each gets the value that enough answers agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from ..errors import InvalidJSON
from ..schema import Path, mark
from ..wire.partial_json import EmbeddedJSON

__all__ = ["Undecided", "elected", "object_in"]


class Undecided(Exception):
    """There is a field on which too few agree; ``path`` leads to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


def object_in(text: str) -> Any:
    """The document in an answer, with prose or a fence around it; ``UNSET`` if there is none."""
    parser = EmbeddedJSON()
    try:
        parser.feed(text)
        return parser.close()
    except InvalidJSON:
        return UNSET


def elected(values: Sequence[Any], quorum: int, path: Path = ()) -> Any:
    """The value that at least ``quorum`` agree on. Raises :class:`Undecided`.

    Objects are compared member by member, and a member that is not there (``UNSET``) is a vote for its absence; lists
    are compared whole, and 1 and 1.0 are the same.
    """
    objects = [value for value in values if isinstance(value, dict)]
    if len(objects) >= quorum:
        names = dict.fromkeys(name for value in objects for name in value)
        members = {
            name: elected([value.get(name, UNSET) for value in objects], quorum, (*path, name)) for name in names
        }
        return {name: member for name, member in members.items() if member is not UNSET}
    votes: dict[Any, list[Any]] = {}
    for value in values:
        votes.setdefault(None if value is UNSET else mark(value), []).append(value)
    winner = max(votes.values(), key=len)
    if len(winner) < quorum:
        raise Undecided(path)
    return winner[0]
