"""Server-sent events, both ways, as the WHATWG HTML standard defines them (section 9.2, "Server-sent events").

Pure: :class:`Decoder` turns bytes into events, :func:`encode` one event into bytes. Decoding is linear in the bytes,
however they were cut, and bounded: a line or an event's data of more than ``limit`` bytes raises :class:`TooLong`.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

import msgspec

__all__ = ["DEFAULT_LIMIT", "Decoder", "Event", "TooLong", "encode"]

DEFAULT_LIMIT: Final = 16 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_KNOWN_TYPES: Final = 64  # event names whose decoded form a decoder remembers; a stream has a handful
_RETRY_DIGITS: Final = 18  # more than a clock can hold; also keeps int() away from its own limit on digits


class Event(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event. ``data`` is UTF-8 as it came: decode it with errors="replace", as the standard says.

    ``type`` is "message" where the stream gave none; ``id`` is the last event id at the moment of the dispatch.
    """

    type: str
    data: bytes
    id: str = ""


class TooLong(Exception):
    """A line or an event passed the decoder's limit. ``events`` are those that the same read had completed before."""

    def __init__(self, message: str, events: list[Event]) -> None:
        super().__init__(message)
        self.events = events


class Decoder:
    """``feed`` bytes as they come, split anywhere; each call returns the events that became complete.

    The end of the stream needs no call: an event that no blank line ended is never dispatched, as the standard says.
    A CR ends its line at once; an LF that follows it, in this read or the next, belongs to it.

    ``last_event_id`` is what a reconnect should send. ``retry`` is the last valid reconnection time in milliseconds,
    None if there was none; numbers of more than 18 digits are not taken. At most ``limit`` bytes of a line and
    ``limit`` bytes of an event's data are held.
    """

    __slots__ = (
        "_data",
        "_dead",
        "_id",
        "_idle",
        "_limit",
        "_line",
        "_ordinary",
        "_skip_lf",
        "_start",
        "_type",
        "_types",
        "last_event_id",
        "retry",
    )

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._ordinary = False  # none of the three that follow has a say in the next read
        self._idle = False  # ordinary, and neither a line nor an event has begun
        self._start = True  # a byte order mark may still come
        self._skip_lf = False  # the last byte was a CR, and its line is done
        self._dead: str | None = None
        self._line = bytearray()  # a line whose end has not come
        self._type = ""
        self._data: bytes | bytearray | None = None
        self._id = ""  # becomes last_event_id at the next blank line
        self._types: dict[bytes, str] = {}
        self.last_event_id = ""
        self.retry: int | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes completed. Raises :class:`TooLong`, and then again for whatever follows."""
        if self._idle and data[-2:] == b"\n\n" and len(data) <= self._limit:
            event = self._single(data)
            if event is not None:
                return [event]
        events: list[Event] = []
        if not self._ordinary or 13 in data:
            data = self._prepare(data)
        if 10 not in data:
            self._idle = False
            self._hold(data, events)
            return events
        lines = data.split(b"\n")
        rest = lines.pop()
        if self._line:
            self._line += lines[0]
            lines[0] = bytes(self._line)
            self._line = bytearray()
        if len(data) > self._limit or len(lines[0]) > self._limit:
            for number, line in enumerate(lines):
                if len(line) > self._limit:
                    self._read(lines[:number], events)
                    self._give_up("a line", events)
        self._read(lines, events)
        if rest:
            self._hold(rest, events)
        self._idle = self._ordinary and not (self._line or self._type or self._data is not None)
        return events

    def _single(self, data: bytes) -> Event | None:
        """The event, if one read is just one event in a usual spelling, as it is when tokens trickle in."""
        if data[:6] == b"data: ":
            kind, value = "message", data[6:-2]
        elif data[:7] == b"event: ":
            name, _, value = data[7:-2].partition(b"\n")
            if value[:6] != b"data: " or 13 in name:
                return None
            kind, value = self._types.get(name) or self._name(name) or "message", value[6:]
        else:
            return None
        if 10 in value or 13 in value:
            return None
        self.last_event_id = self._id
        return Event(kind, value, self._id)

    def _read(self, lines: list[bytes], events: list[Event]) -> None:
        """Whole lines, by the standard's table of fields; the spellings that everyone sends are tried first."""
        kind, value, new_id, last_id = self._type, self._data, self._id, self.last_event_id
        types = self._types
        for line in lines:
            if not line:
                last_id = new_id
                if value is not None:
                    events.append(Event(kind or "message", value if type(value) is bytes else bytes(value), last_id))
                    value = None
                kind = ""
            elif value is None and line[:6] == b"data: ":
                value = line[6:]
            elif line[:7] == b"event: ":
                kind = types.get(line[7:]) or self._name(line[7:])
            else:
                name, _, text = line.partition(b":")
                if text[:1] == b" ":
                    text = text[1:]
                if name == b"data":
                    value = text if value is None else self._joined(value, text, events)
                elif name == b"event":
                    kind = self._name(text)
                elif name == b"id" and 0 not in text:
                    new_id = text.decode("utf-8", "replace")
                elif name == b"retry" and text.isdigit():
                    self._set_retry(text)
        self._type, self._data, self._id, self.last_event_id = kind, value, new_id, last_id

    def _prepare(self, data: bytes) -> bytes:
        """The bytes without a byte order mark, without the LF of a CR LF that was cut, with LF as the only line end."""
        if self._dead is not None:
            raise TooLong(self._dead, [])
        if self._start:
            data = bytes(self._line) + data
            self._line = bytearray()
            if len(data) < len(_BOM) and _BOM.startswith(data):
                return data
            self._start = False
            data = data.removeprefix(_BOM)
        if self._skip_lf and data:
            self._skip_lf = False
            data = data.removeprefix(b"\n")
        if 13 in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._ordinary = not self._skip_lf
        return data

    def _hold(self, part: bytes, events: list[Event]) -> None:
        self._line += part
        if len(self._line) > self._limit:
            self._give_up("a line", events)

    def _joined(self, value: bytes | bytearray, text: bytes, events: list[Event]) -> bytearray:
        if type(value) is not bytearray:
            value = bytearray(value)
        value += b"\n"
        value += text
        if len(value) > self._limit:
            self._give_up("an event", events)
        return value

    def _name(self, raw: bytes) -> str:
        """An event's name as text; the first few are kept, since a stream has but a handful."""
        name = raw.decode("utf-8", "replace")
        if len(self._types) < _KNOWN_TYPES and len(raw) < _KNOWN_TYPES:
            self._types[raw] = name
        return name

    def _set_retry(self, digits: bytes) -> None:
        digits = digits.lstrip(b"0") or b"0"
        if len(digits) <= _RETRY_DIGITS:
            self.retry = int(digits)

    def _give_up(self, what: str, events: list[Event]) -> NoReturn:
        self._dead = f"{what} of more than {self._limit} bytes"
        self._ordinary = self._idle = False
        self._line = bytearray()
        self._data = None
        raise TooLong(self._dead, events)


_NEWLINE: Final = re.compile(rb"\r\n|\r|\n")


def encode(
    data: bytes | str | None,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's name
    retry: int | None = None,
    comment: str | None = None,
) -> bytes:
    """One event as bytes, its closing blank line included. Nothing in a field can end the field or forge another.

    ``data`` with newlines of any kind becomes several data lines, which a reader joins with LF; bytes are taken as
    UTF-8. None is no event at all: a comment, an id or a reconnection time alone, which readers do not dispatch.
    ``retry`` is in milliseconds. Raises ValueError naming the field for an ``event`` or ``id`` with a CR, LF, NUL or
    a lone surrogate in it (no framing can carry those), for a negative ``retry``, and for an ``event`` without data.
    """
    bare = event is None and id is None and retry is None and comment is None
    if bare and type(data) is bytes and 10 not in data and 13 not in data:
        return b"data: " + data + b"\n\n"
    frame: list[bytes] = []
    if comment is not None:
        frame += [b": " + line for line in _split(comment)]
    if event is not None:
        if data is None:
            raise ValueError(f"event: an event ({event!r}) without data is never dispatched by a reader")
        frame.append(b"event: " + _one_line("event", event))
    if id is not None:
        frame.append(b"id: " + _one_line("id", id))
    if retry is not None:
        if isinstance(retry, bool) or not isinstance(retry, int) or retry < 0:
            raise ValueError(f"retry: must be a whole number of milliseconds, at least 0, not {retry!r}")
        frame.append(b"retry: %d" % retry)
    if data is not None:
        frame += [b"data: " + line for line in _split(data)]
    if not frame:
        return b""
    frame.append(b"\n")
    return b"\n".join(frame)


def _split(value: bytes | str) -> list[bytes]:
    raw = _utf8(value) if isinstance(value, str) else bytes(value)
    return _NEWLINE.split(raw) if b"\r" in raw else raw.split(b"\n")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates: U+FFFD in their place, as browsers do it
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _one_line(field: str, value: str) -> bytes:
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError(f"{field}: CR, LF and NUL cannot be sent in it: {value!r}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field}: a lone surrogate cannot be sent in it: {value!r}") from None
