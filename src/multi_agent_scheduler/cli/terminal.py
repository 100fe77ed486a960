"""Standard output and standard error: what goes there, and in what form."""

from __future__ import annotations

import io
import os
import re
import select
import sys
from typing import Final, TextIO

from ..task import Result

__all__ = ["Output", "complain", "printable", "status"]

# Everything that could move the cursor, change colours or talk to the terminal: C0 and C1 but for tab and line feed.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """The text with its control characters made visible: a model must not drive the terminal."""
    return _CONTROL.sub(lambda match: "\ufffd" if match[0] != "\r" else "", text)


def complain(sentence: str) -> None:
    """One line on stderr, whatever the sentence has in it."""
    print(f"mas: {printable(' '.join(sentence.split()))}", file=sys.stderr)  # noqa: T201


class Output:
    """Standard output, written at once.

    Into a pipe or a file an answer goes as it is, and nothing is added. On a terminal its control characters are made
    visible. What the output's encoding does not have is written as ``?``.
    """

    def __init__(self) -> None:
        self._stream = sys.stdout
        if isinstance(self._stream, io.TextIOWrapper):
            self._stream.reconfigure(errors="replace")
        self._terminal = self._stream.isatty()
        self._mid_line = False
        self._writing = False

    @property
    def blocked(self) -> bool:
        """Whether a write is waiting for whoever reads. To be asked in a signal handler."""
        if not self._writing:
            return False
        try:
            return not select.select((), (self._stream,), (), 0)[1]
        except (OSError, ValueError):  # not a file at all
            return False

    def text(self, text: str) -> None:
        """A piece of an answer."""
        self._mid_line = not text.endswith("\n")
        self._write(printable(text) if self._terminal else text)

    def line(self, line: bytes) -> None:
        """A line of UTF-8 that stays UTF-8, whatever the encoding of text is: JSON is (RFC 8259, 8.1)."""
        raw = getattr(self._stream, "buffer", None)
        if self._terminal or raw is None:
            self._write(printable(line.decode()) + "\n")
            return
        self._writing = True
        raw.write(line + b"\n")
        raw.flush()
        self._writing = False

    def end(self) -> None:
        """End the line before something else is written, where both are seen together."""
        if self._mid_line and (self._terminal or _same_place(self._stream, sys.stderr)):
            self._write("\n")
            self._mid_line = False

    def _write(self, text: str) -> None:
        self._writing = True
        self._stream.write(text)
        self._stream.flush()
        self._writing = False


def _same_place(one: TextIO, other: TextIO) -> bool:
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError):  # closed, or not a file at all
        return False


def status(name: str, result: Result) -> str:
    """One line about a result."""
    parts = [name]
    if result.model:
        parts.append(printable(result.model))
    parts.append(f"{result.state} ({result.stop_reason})" if result.stop_reason else result.state)
    if result.usage is not None and result.usage.output_tokens is not None:
        parts.append(f"{result.usage.output_tokens} tokens")
    if result.ttft is not None:
        parts.append(f"first chunk {result.ttft:.2f} s")
    parts.append(f"{result.latency:.2f} s")
    return " · ".join(parts)
