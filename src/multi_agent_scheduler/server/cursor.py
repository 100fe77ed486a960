"""Cursors: where a reader stands in one stream, in a form that says which stream it was.

``<seq>-<tag>``: the tag is a digest of the stream's id, so that a cursor of another stream is noticed.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from ..errors import CursorError
from ..store.core import StreamInfo

__all__ = ["START", "cursor", "parse", "tag"]

START: Final = "0"
"""The cursor before every stream's first record."""

_CURSOR: Final = re.compile(r"(0|[1-9][0-9]{0,17})-([0-9a-f]{8})")


def tag(stream_id: str) -> str:
    """What a stream's cursors end in."""
    return blake2b(stream_id.encode(), digest_size=4).hexdigest()


def cursor(stream_id: str, seq: int) -> str:
    """The cursor behind the record ``seq``."""
    return f"{seq}-{tag(stream_id)}"


def parse(text: str, info: StreamInfo) -> int:
    """The seq of a cursor. Raises CursorError if it is garbage, another stream's, or lies in the future."""
    if text == START:
        return 0
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise CursorError("this is no cursor: give the id of the last event, or the cursor of the stream's JSON")
    if match[2] != tag(info.stream_id):
        raise CursorError("this cursor belongs to another stream")
    seq = int(match[1])
    if seq > info.seq:
        raise CursorError(f"this cursor lies in the future: the stream reaches {cursor(info.stream_id, info.seq)}")
    return seq
