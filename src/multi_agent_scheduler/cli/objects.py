"""``mas ask --schema``: the answer as an object that grows on a terminal, or whole at the end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidOption
from ..records import Record
from ..schema import Schema
from ..views.objects import ObjectView
from ..wire.partial_json import Change
from ..wire.partial_json import Path as Place
from .terminal import Output, complain

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
    view, growing = ObjectView(Schema.of(schema)), Growing()
    live = output.terminal and not compact
    async for record in records:
        partial = view.feed((record,))
        if partial is None or not live:
            continue
        if partial.restarted is not None:
            await output.text(growing.end())
            await output.end()
            complain(f"the object begins again: {partial.restarted}")
            growing = Growing()
        if text := growing.add(partial.changes):
            await output.text(text)
    last = view.close() if view.problem is None else None
    if live:
        await output.text(growing.add(last.changes if last is not None else ()) + growing.end())
    elif view.problem is None:
        text = json.dumps(view.value, ensure_ascii=False, indent=None if compact else len(_INDENT))
        await output.line(text.encode())
    return view.problem is None


class Growing:
    """A document written as its changes come: indented, and never more than what is known of it."""

    def __init__(self) -> None:
        self._open: list[tuple[Place, str, bool]] = []  # the path, what closes it, and whether anything is in it
        self._string: Place | None = None

    def add(self, changes: Sequence[Change]) -> str:
        """The text to add."""
        return "".join(self._added(path, value) for path, value in changes)

    def end(self) -> str:
        """What closes all that is open."""
        return self._closed(0)

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
