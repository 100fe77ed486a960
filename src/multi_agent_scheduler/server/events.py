"""A stream as server-sent events of the native API: one record an event, or one commit, with what it changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..errors import ErrorInfo
from ..records import TERMINALS, Record, Text, encode_record
from .cursor import tag
from .face import Renderer
from .objects import ObjectSteps

__all__ = ["NativeRenderer", "ObjectRenderer"]

_json: Final = msgspec.json.Encoder().encode
_END: Final = b"event: end\ndata: {}\n\n"


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
            frames.append(_END)
        return b"".join(frames)

    def broken(self, error: ErrorInfo) -> bytes:  # noqa: ARG002 - who comes back gets the rest
        return b": not the end: connect again with the last id\n" + self.prologue


class ObjectRenderer(NativeRenderer):
    """The same stream as an object: an event for each commit that changes it, ``data`` an
    :class:`~.objects.ObjectStep`. The one of the terminal has ``end``, and behind it comes an event ``end``, too."""

    stateful = True

    def __init__(self, stream_id: str, retry: float) -> None:
        super().__init__(stream_id, retry)
        self._steps = ObjectSteps()

    def feed(self, first: int, records: Sequence[Record]) -> bytes:
        step = self._steps.feed(first, records)
        if not step:
            return b""
        end = _END if isinstance(records[-1], TERMINALS) else b""
        return b"id: %d%b%b\n\n%b" % (first + len(records) - 1, self._data, step, end)
