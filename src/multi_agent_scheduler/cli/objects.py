"""``mas ask --schema``: the answer as an object that grows on a terminal, or whole at the end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption
from ..records import Record
from ..schema import Schema
from ..views.objects import ObjectView
from ..wire.partial_json import Change
from ..wire.partial_json import Path as Place
from .screen import FRAMES, terminal
from .terminal import Output, complain, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["Growing", "read_schema", "show"]

_INDENT = "  "


def read_schema(file: str) -> dict[str, Any]:
    """The JSON Schema in a file. Raises InvalidOption."""
    try:
        document = json.loads(Path(file).read_bytes())
    except OSError as error:
        raise InvalidOption(f"--schema: {file} cannot be read: {error.strerror}") from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise InvalidOption(f"--schema: {file} is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidOption(f"--schema: {file} must hold a JSON Schema, which is an object")
    Schema.of(document)
    return document


async def show(records: AsyncIterator[Record], schema: dict[str, Any], output: Output, *, compact: bool) -> bool:
    """Show the object: as it grows on a terminal, else once it is whole; ``compact``: on one line, once it is whole.

    False if it has not become whole: then nothing was written, except on a terminal, which keeps what it has shown.
    """
    view = ObjectView(Schema.of(schema))
    if output.terminal and not compact:
        console = terminal()
        shown = Along(output) if console is None else InPlace(output, console)
        try:
            await _grow(records, view, shown)
        finally:
            await shown.end()
        return view.problem is None
    async for record in records:
        view.feed((record,))
    view.close()
    if view.problem is None:
        text = json.dumps(view.value, ensure_ascii=False, indent=None if compact else len(_INDENT))
        await output.line(text.encode())
    return view.problem is None


async def _grow(records: AsyncIterator[Record], view: ObjectView, shown: Along) -> None:
    async for record in records:
        partial = view.feed((record,))
        if partial is not None:
            if partial.restarted is not None:
                await shown.again(partial.restarted)
            await shown.add(partial.changes)
    last = view.close()
    if last is not None:
        await shown.add(last.changes)


class Along:
    """The object written as it comes: each character once."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._growing = Growing()

    async def add(self, changes: Sequence[Change]) -> None:
        """The object has changed."""
        if text := self._growing.add(changes):
            await self._output.text(text)

    async def again(self, reason: str) -> None:
        """What was shown is void."""
        await self.end()
        await self._output.end()
        complain(f"the object begins again: {reason}")
        self._growing = Growing()

    async def end(self) -> None:
        """No more will come: close what is open."""
        await self._output.text(self._growing.end())


class InPlace(Along):
    """The object drawn anew in its place some times a second, closed as if it ended there; of one that is higher than
    the screen, its end. When no more comes it is written once, all of it."""

    def __init__(self, output: Output, console: Console) -> None:
        from rich.live import Live

        super().__init__(output)
        self._console = console
        self._most = console.width * console.height  # characters that a screen can show
        self._pieces: list[str] = []
        self._tail = ""
        self._drawn = "", ""  # the end of what came, and what would close it; swapped at once, as a thread reads them
        self._view = Live(console=console, refresh_per_second=FRAMES, transient=True, get_renderable=self._render)

    async def add(self, changes: Sequence[Change]) -> None:
        text = self._growing.add(changes)
        if not text:
            return
        self._pieces.append(text)
        self._tail = (self._tail + text)[-self._most :]
        self._drawn = printable(self._tail), printable(self._growing.ending)
        self._view.start()

    async def again(self, reason: str) -> None:
        complain(f"the object begins again: {reason}")
        self._growing, self._tail, self._drawn = Growing(), "", ("", "")
        self._pieces.clear()

    async def end(self) -> None:
        self._view.stop()
        await self._output.text("".join([*self._pieces, self._growing.end()]))

    def _render(self) -> Text:
        from rich.text import Text

        came, ending = self._drawn
        here, *closing = ending.split("\n")
        room = max(1, self._console.height - 1)
        closing = closing[: room // 3]
        # A Text is taken as it is: nothing in it is markup.
        lines = Text(came + here).wrap(self._console, self._console.width)
        return Text("\n").join([*lines[len(closing) - room :], *map(Text, closing)])


class Growing:
    """A document written as its changes come: indented, and never more than what is known of it."""

    def __init__(self) -> None:
        self._open: list[tuple[Place, str, bool]] = []  # the path, what closes it, and whether anything is in it
        self._string: Place | None = None

    def add(self, changes: Sequence[Change]) -> str:
        """The text to add."""
        return "".join(self._added(path, value) for path, value in changes)

    def end(self) -> str:
        """Close all that is open: the text for that."""
        return self._closed(0)

    @property
    def ending(self) -> str:
        """What would close all that is open now."""
        text = "" if self._string is None else '"'
        for path, end, filled in reversed(self._open):
            text += f"\n{_INDENT * len(path)}{end}" if filled else end
        return text

    def _added(self, path: Place, value: Any) -> str:
        if self._string == path and isinstance(value, str):
            return _quoted(value)[1:-1]
        depth = len(path)
        text = self._closed(depth)
        if path:
            outer, end, filled = self._open[-1]
            self._open[-1] = outer, end, True
            text += f"{',' if filled else ''}\n{_INDENT * depth}"
            if isinstance(path[-1], str):
                text += f"{_quoted(path[-1])}: "
        if isinstance(value, str):
            self._string = path
            return text + _quoted(value)[:-1]
        if isinstance(value, dict | list):
            begin, end = "{}" if isinstance(value, dict) else "[]"
            self._open.append((path, end, False))
            return text + begin
        return text + json.dumps(value)

    def _closed(self, depth: int) -> str:
        """Close the string, and the objects and arrays that are deeper."""
        text = "" if self._string is None else '"'
        self._string = None
        while len(self._open) > depth:
            path, end, filled = self._open.pop()
            text += f"\n{_INDENT * len(path)}{end}" if filled else end
        return text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
