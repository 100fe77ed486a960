"""Standard output and standard error: what goes there, and in what form."""

from __future__ import annotations

import asyncio
import os
import re
import select
import sys
from typing import Final, TextIO

from ..task import Result

__all__ = ["Output", "complain", "one_line", "printable", "say", "status"]

_PIECE: Final = 4096  # bytes that a pipe takes without waiting, if it takes any: PIPE_BUF of Linux

# Everything that could move the cursor, change colours or talk to the terminal: C0 and C1 but for tab and line feed.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """The text with its control characters made visible: a model must not drive the terminal."""
    return _CONTROL.sub(lambda match: "\ufffd" if match[0] != "\r" else "", text)


def complain(sentence: str) -> None:
    """One line on stderr, whatever the sentence has in it."""
    print(f"mas: {printable(' '.join(sentence.split()))}", file=sys.stderr)  # noqa: T201


def one_line(text: str) -> str:
    """A name that anybody may have given, as a part of a line."""
    return printable(text).replace("\n", " ")


def say(line: str) -> None:
    """One line on stdout, at once."""
    print(line, flush=True)  # noqa: T201


class Output:
    """Standard output, written at once, and without holding up the event loop while its reader dawdles.

    Into a pipe or a file an answer goes as it is, and nothing is added. On a terminal its control characters are made
    visible. What the output's encoding does not have is written as ``?``. Every method raises OSError.
    """

    def __init__(self) -> None:
        self._stream = sys.stdout
        self._stream.flush()
        self._terminal = self._stream.isatty()
        self._encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._mid_line = False

    @property
    def terminal(self) -> bool:
        """Whether somebody looks on."""
        return self._terminal

    def restore(self) -> None:
        """Show the cursor again, which is hidden while something is drawn in place; in a signal handler."""
        if self._terminal:
            os.write(self._stream.fileno(), b"\x1b[?25h\n")

    async def text(self, text: str) -> None:
        """A piece of an answer."""
        self._mid_line = not text.endswith("\n")
        await self._write((printable(text) if self._terminal else text).encode(self._encoding, "replace"))

    async def line(self, line: bytes) -> None:
        """A line of UTF-8 that stays UTF-8, whatever the encoding of text is: JSON is (RFC 8259, 8.1)."""
        await self._write((printable(line.decode()).encode() if self._terminal else line) + b"\n")

    async def end(self) -> None:
        """End the line before something else is written, where both are seen together."""
        if self._mid_line and (self._terminal or _same_place(self._stream, sys.stderr)):
            await self._write(b"\n")
            self._mid_line = False

    async def _write(self, data: bytes) -> None:
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):  # something in memory that took the place of standard output
            self._stream.write(data.decode(self._encoding, "replace"))
            return
        rest = memoryview(data)
        while rest:
            if not select.select((), (descriptor,), (), 0)[1]:
                await _writable(descriptor)
            try:
                rest = rest[os.write(descriptor, rest[:_PIECE]) :]
            except BlockingIOError:  # whoever started us made it so, and something else was quicker
                await _writable(descriptor)


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)


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
    if result.latency:  # a log says it of a Call that ended by itself, and of no other
        parts.append(f"{result.latency:.2f} s")
    return " · ".join(parts)
