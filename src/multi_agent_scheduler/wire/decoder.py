"""What every protocol's decoder shares: framing, bounds, garbled events, and the one outcome at the end.

A decoder turns the body of one streamed answer into records. ``feed`` gives one batch for one read; ``close`` is the
end of the body. The last record that a decoder gives is its outcome, a terminal record, and there is exactly one:

- ``Completed`` only after the protocol's finish marker;
- ``Failed`` after an error event, an error object in place of the stream, a garbled event, or an empty body;
- ``Interrupted`` when the body ended before the finish marker, be it in the first event.

After the outcome ``done`` is true and whatever else comes is ignored.
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import msgspec

from ..errors import ErrorInfo
from ..records import Completed, Failed, Interrupted, Record, Terminal
from . import sse
from .failure import SENTENCES, classify
from .surrogates import Halves

__all__ = ["StreamDecoder"]

_json = msgspec.json.Decoder()
_NO_NUMBER = re.compile(rb"NaN|Infinity|[0-9][eE]\+?[0-9]{3}|[0-9]{300}")
"""What Python's servers write for a logprob of minus infinity, and numbers that no float can hold."""
_BLANK = b"\xef\xbb\xbf \t\r\n"  # the bytes of a byte order mark, and white space


class StreamDecoder:
    """The base of the decoders. A protocol overrides :meth:`_event`, and :meth:`_body` for an answer that is no stream.

    In :meth:`_event` a protocol appends records to ``out``. When it has seen its finish marker it puts the coming
    outcome into ``self._completed``, and calls :meth:`_end` once nothing more can follow (a marker of the end such as
    ``[DONE]``); the end of the body does that too. For an error frame it calls ``self._end(out, Failed(info))``.
    """

    protocol: ClassVar[str]

    def __init__(self, *, limit: int = sse.DEFAULT_LIMIT) -> None:
        self._sse = sse.Decoder(limit=limit)
        self._limit = limit
        self._plain: bytearray | None = None  # the body, when it is JSON and not an event stream
        self._begun = False  # a byte that is not white space came
        self._events = 0
        self._completed: Completed | None = None
        self._halves: Halves | None = None
        self.done = False
        self.response_id: str | None = None
        self.model: str | None = None

    # --- what a protocol overrides --------------------------------------------------------------------------------

    def _event(self, name: str, payload: dict[str, Any], out: list[Record]) -> None:
        """One event: its SSE event name ("message" if none) and its JSON object."""
        raise NotImplementedError

    def _literal(self, data: bytes, out: list[Record]) -> bool:  # noqa: ARG002 - a protocol may have no such words
        """An event whose data is no JSON but a word of the protocol (``[DONE]``); true if it was one."""
        return False

    def _body(self, payload: Any, out: list[Record]) -> None:  # noqa: ARG002 - a protocol may have no such form
        """A whole answer sent as one JSON document (error objects have been dealt with): records and :meth:`_end`."""
        self._end(out, Failed(_protocol_error("the answer was JSON, not an event stream")))

    def _error(self, error: Any) -> ErrorInfo:
        """An error object of the protocol. The usual shape: message, and words in code, type or status."""
        if isinstance(error, dict):
            names = (error.get("type"), error.get("code"), error.get("status"))
            return classify(names=names, message=error.get("message"))
        return classify(message=error if isinstance(error, str) else None)

    # --- what an agent calls --------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[Record]:
        """The records of one read; never raises for anything that a provider can send."""
        out: list[Record] = []
        if self.done:
            return out
        if not self._begun:
            self._begin(data)
        if self._plain is not None:
            self._plain += data
            if len(self._plain) > self._limit:
                self._end(out, Failed(_too_large(f"the body passed {self._limit} bytes")))
            return out
        too_long: sse.TooLong | None = None
        try:
            events = self._sse.feed(data)
        except sse.TooLong as error:
            events, too_long = error.events, error
        for event in events:
            self._one(event, out)
            if self.done:
                return out
        if too_long is not None:
            self._end(out, Failed(_too_large(str(too_long))))
        return out

    def close(self) -> list[Record]:
        """The body ended: the outcome, if it was not given yet."""
        out: list[Record] = []
        if self.done:
            return out
        if self._plain is not None:
            self._whole(bytes(self._plain), out)
        if not self.done:
            self._end(out, self._completed or self._unfinished())
        return out

    # --- inside ---------------------------------------------------------------------------------------------------

    def _end(self, out: list[Record], outcome: Terminal) -> None:
        self.done = True
        self._plain = None
        out.append(outcome)

    def _begin(self, data: bytes) -> None:
        head = data.lstrip(_BLANK)
        if head:
            self._begun = True
            if head[:1] in b"{[<":  # no field of an event stream starts like this: JSON, or a page of HTML
                self._plain = bytearray()

    def _one(self, event: sse.Event, out: list[Record]) -> None:
        self._events += 1
        if event.data[:1] != b"{" and self._literal(event.data, out):
            return
        try:
            payload = self._json(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._end(out, Failed(_protocol_error(f"event {self._events} of the answer is not JSON")))
            return
        if not isinstance(payload, dict):
            if event.data.strip():
                self._end(out, Failed(_protocol_error(f"event {self._events} of the answer is not a JSON object")))
            return
        try:
            self._event(event.type, payload, out)
        except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            problem = f"event {self._events} of the answer has an unknown shape ({type(error).__name__})"
            self._end(out, Failed(_protocol_error(problem)))

    def _json(self, text: bytes) -> Any:
        try:
            return _json.decode(text)
        except msgspec.DecodeError:
            if self._halves is None:
                self._halves = Halves()
            mended = self._halves.mend(text)
            if mended is not None:
                return self._strange(mended)
            return self._strange(text)

    def _strange(self, text: bytes) -> Any:
        """JSON that may have numbers which are none: they become null, and the answer goes on."""
        try:
            return _json.decode(text)
        except msgspec.DecodeError:
            if _NO_NUMBER.search(text) is None:
                raise
            try:
                return _lenient(text)
            except ValueError:
                pass
            raise

    def _whole(self, body: bytes, out: list[Record]) -> None:
        try:
            payload = self._json(body.lstrip(_BLANK))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            page = body.lstrip()[:1] == b"<"
            problem = "the answer was a page of HTML or XML" if page else "the answer was broken JSON"
            self._end(out, Failed(_protocol_error(f"{problem}, not an event stream")))
            return
        self._document(payload, out)

    def _document(self, payload: Any, out: list[Record]) -> None:
        """The JSON document that came instead of an event stream."""
        if isinstance(payload, list) and payload:
            payload = payload[0]  # Gemini wraps errors in a list when it is not streaming SSE
        if isinstance(payload, dict) and payload.get("error"):
            self._end(out, Failed(self._error(payload["error"])))
            return
        try:
            self._body(payload, out)
        except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            self._end(out, Failed(_protocol_error(f"the answer has an unknown shape ({type(error).__name__})")))

    def _unfinished(self) -> Terminal:
        if not self._begun:
            return Failed(_protocol_error("the answer was empty"))
        return Interrupted(ErrorInfo("interrupted", "the answer ended before its finish marker", retryable=True))


def _lenient(text: bytes) -> Any:
    import json  # slow, and seldom needed

    return json.loads(text.decode(), parse_constant=lambda _: None, parse_float=_finite, parse_int=_finite)


def _finite(text: str) -> int | float | None:
    if len(text) < 19 and text.lstrip("-").isdigit():
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else None


def _protocol_error(problem: str) -> ErrorInfo:
    return ErrorInfo("protocol_error", f"{SENTENCES['protocol_error']}: {problem}")


def _too_large(problem: str) -> ErrorInfo:
    return ErrorInfo("response_too_large", f"the answer is larger than is allowed: {problem}")
