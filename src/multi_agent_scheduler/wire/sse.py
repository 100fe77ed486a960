"""Server-sent events, both ways, as the WHATWG HTML standard defines them (section 9.2, "Server-sent events").

Pure: bytes in, events out. Everything is bounded: an event larger than ``limit`` bytes raises :class:`TooLong`.
"""

from __future__ import annotations

import msgspec

__all__ = ["Decoder", "Event", "TooLong"]

DEFAULT_LIMIT = 16 * 1024 * 1024


class TooLong(Exception):
    """A line or an event passed the decoder's limit."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event. ``data`` is UTF-8 as it came: decode it with errors="replace", as the standard says."""

    type: str
    data: bytes
    id: str = ""


class Decoder:
    """``feed`` bytes as they come, split anywhere; each call returns the events that became complete."""

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._rest = b""
        self._start = True
        self._type = ""
        self._data: list[bytes] = []
        self.last_event_id = ""
        self.retry: int | None = None

    def feed(self, data: bytes) -> list[Event]:
        data = self._rest + data
        if self._start:
            if len(data) < 3 and b"\xef\xbb\xbf".startswith(data):
                self._rest = data
                return []
            self._start = False
            data = data.removeprefix(b"\xef\xbb\xbf")
        events: list[Event] = []
        lines = data.replace(b"\r\n", b"\n").split(b"\n") if b"\r" not in data else None
        if lines is None:
            held = b"\r" if data.endswith(b"\r") else b""
            body = data[:-1] if held else data
            lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            lines[-1] += held
        self._rest = lines.pop()
        if len(self._rest) > self._limit:
            raise TooLong(f"a line of more than {self._limit} bytes")
        for line in lines:
            self._line(line, events)
        return events

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            if self._data:
                events.append(Event(self._type or "message", b"\n".join(self._data), self.last_event_id))
                self._data = []
            self._type = ""
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self.last_event_id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self.retry = int(value)
