"""A stream as server-sent events of the native API: one record an event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..errors import ErrorInfo
from ..records import TERMINALS, Record, Text, encode_record
from .cursor import tag
from .face import Renderer

__all__ = ["NativeRenderer"]

_json: Final = msgspec.json.Encoder().encode


class NativeRenderer(Renderer):
    """Unnamed events: ``id`` is the cursor, ``data`` the record as JSON with its ``seq``. Behind the terminal comes an
    event ``end``, so that a reader can tell the end from a cut. ``retry`` is in seconds.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    stateful = False

    def __init__(self, stream_id: str, retry: float) -> None:
        self._data = f"-{tag(stream_id)}\ndata: ".encode()
        self._text = self._data + b'{"type":"text","text":'
        self.prologue = b"retry: %d\n\n" % round(retry * 1000)
        """The first bytes of every response."""

    def feed(self, first: int, records: Sequence[Record]) -> bytes:
        frames = []
        seq = first
        for record in records:
            if type(record) is Text and record.branch is None and not record.part:
                frames.append(b'id: %d%b%b,"seq":%d}\n\n' % (seq, self._text, _json(record.text), seq))
            else:
                frames.append(b'id: %d%b%b,"seq":%d}\n\n' % (seq, self._data, encode_record(record)[:-1], seq))
            seq += 1
        if isinstance(records[-1], TERMINALS):
            frames.append(b"event: end\ndata: {}\n\n")
        return b"".join(frames)

    def broken(self, error: ErrorInfo) -> bytes:  # noqa: ARG002 - who comes back gets the rest
        return b": not the end: connect again with the last id\n" + self.prologue
