"""How ``mas demo`` looks: panels that fill up on a terminal, plain lines everywhere else, and a picture of the end."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.panel import Panel
    from rich.table import Table

__all__ = ["FRAMES", "Lane", "Screen", "fitting", "rich_installed", "save_picture", "terminal"]

FRAMES: Final = 12  # pictures a second
_LINE: Final = 88  # characters of a plain line, about
_NARROW: Final = 80  # columns that the table needs
_PICTURE_WIDTH: Final = 100  # columns
_MOST_LINES: Final = 5  # of an answer in its panel
_FRAME_LINES: Final = 3  # of a panel beside the answer: its borders and what was asked
_WORDS: Final = ("agent", "protocol", "task", "ended")  # headings of columns that are words; the rest are figures
_HEADINGS: Final = ("agent", "protocol", "first chunk", "chunks/s", "tokens", "ended")


class Lane(msgspec.Struct):
    """One agent's part of the screen."""

    name: str
    protocol: str
    prompt: str
    began: float = 0.0
    """When it was asked, by the clock of :meth:`add`, in seconds; likewise the first and the last chunk."""
    first: float = 0.0
    last: float = 0.0
    text: str = ""
    count: int = 0
    final: dict[str, Any] | None = None

    def add(self, chunk: str, now: float) -> None:
        """A chunk came at ``now``."""
        if not self.count:
            self.first = now
        self.last = now
        self.count += 1
        self.text += chunk

    @property
    def succeeded(self) -> bool:
        """It has ended, and well."""
        return self.final is not None and bool(self.final["success"])

    @property
    def progress(self) -> str:
        """How far it is."""
        if not self.count:
            return "waiting" if self.final is None else self.ended
        first = self.first - self.began if self.final is None else self.final["ttft"]
        return f"{self.count} chunks, the first after {first:.2f} s"

    @property
    def ended(self) -> str:
        """How it ended."""
        if self.final is None:
            return "not finished"
        reason = self.final["stop_reason"]
        return self.final["error"] or (f"{self.final['state']} ({reason})" if reason else self.final["state"])

    @property
    def rate(self) -> str:
        """Chunks in a second, from the first to the last."""
        seconds = self.last - self.first
        return f"{(self.count - 1) / seconds:.0f}" if self.count > 1 and seconds > 0 else "-"

    def figures(self) -> tuple[str, ...]:
        """One text for each of the headings."""
        final = self.final or {}
        usage = final.get("usage") or {}
        ttft = final.get("ttft")
        tokens = str(usage.get("output_tokens") or "-")
        return self.name, self.protocol, "-" if ttft is None else f"{ttft:.2f} s", self.rate, tokens, self.ended


class Screen(Protocol):
    """What a screen can do."""

    def note(self, text: str) -> None:
        """Lines for the reader."""

    def begin(self, lanes: Sequence[Lane]) -> None:
        """Show these from now on."""

    def update(self, lane: Lane) -> None:
        """Something came, or the end."""

    def end(self) -> None:
        """Nothing more comes."""

    def table(self, lanes: Sequence[Lane]) -> None:
        """The figures."""

    def restore(self) -> None:
        """Leave the terminal as it was, in a signal handler."""


class Plain:
    """Lines for a pipe or a log: each line of an answer as soon as it is whole, behind its agent's name."""

    def __init__(self, headings: Sequence[str] = _HEADINGS) -> None:
        self._headings = headings
        self._written: dict[str, int] = {}

    def note(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def begin(self, lanes: Sequence[Lane]) -> None:
        self._written = {lane.name: 0 for lane in lanes}

    def update(self, lane: Lane) -> None:
        rest = lane.text[self._written[lane.name] :]
        self._written[lane.name] += len(rest)
        *lines, rest = rest.split("\n")
        for line in lines:
            self._show(lane, line)
        while len(rest) > _LINE:
            cut = rest.rfind(" ", 0, _LINE) + 1 or _LINE
            self._show(lane, rest[:cut])
            rest = rest[cut:]
        if lane.final is None:
            self._written[lane.name] -= len(rest)
        else:
            self._show(lane, rest)

    def end(self) -> None:
        pass

    def table(self, lanes: Sequence[Lane]) -> None:
        rows = [tuple(self._headings), *(lane.figures() for lane in lanes)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        self.note("\n".join(["", *lines, ""]))

    def restore(self) -> None:
        pass

    def _show(self, lane: Lane, line: str) -> None:
        if line.strip():
            self.note(f"[{lane.name}] {line.strip()}")


class Live:
    """Three panels that fill up, on a terminal."""

    def __init__(self, console: Console, headings: Sequence[str] = _HEADINGS) -> None:
        from rich.live import Live as View

        self._console = console
        self._headings = headings
        self._lanes: Sequence[Lane] = ()
        self._view = View(console=console, refresh_per_second=FRAMES, get_renderable=self._render)

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def begin(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._view.start()

    def update(self, lane: Lane) -> None:
        """The view draws itself anew several times a second."""

    def end(self) -> None:
        self._view.stop()

    def table(self, lanes: Sequence[Lane]) -> None:
        if self._console.width >= _NARROW:
            self._console.print(_table(lanes, self._headings))
            return
        for lane in lanes:
            name, protocol, first, rate, tokens, *more, ended = lane.figures()
            rest = "".join(f", {heading} {figure}" for heading, figure in zip(self._headings[5:], more, strict=False))
            self.note(
                f"{name}, {protocol}: first chunk {first}, {rate} {self._headings[3]}, {tokens} tokens{rest}, {ended}"
            )

    def restore(self) -> None:
        os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # the cursor, which is hidden while the panels move

    def _render(self) -> RenderableType:
        # All of it has to fit on the screen, or it could not be drawn anew.
        room = (self._console.height - 1) // max(1, len(self._lanes)) - _FRAME_LINES
        return _panels(self._console, self._lanes, max(1, min(_MOST_LINES, room)))


def _panels(console: Console, lanes: Sequence[Lane], lines: int) -> Group:
    from rich.console import Group

    return Group(*(_panel(console, lane, lines) for lane in lanes))


def _panel(console: Console, lane: Lane, lines: int) -> Panel:
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    said = Text(lane.text.strip()).wrap(console, max(10, console.width - 4))[-lines:]
    asked = Text(f"> {lane.prompt}", style="dim", no_wrap=True, overflow="ellipsis")
    colour = "yellow" if lane.final is None else "green" if lane.succeeded else "red"
    return Panel(
        Group(asked, *said),
        title=Text.assemble((lane.name, "bold"), f" · {lane.protocol}"),
        title_align="left",
        subtitle=lane.progress,
        subtitle_align="right",
        border_style=colour,
        height=lines + _FRAME_LINES,
    )


def _table(lanes: Sequence[Lane], headings: Sequence[str] = _HEADINGS) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in _WORDS else "right")
    for lane in lanes:
        *figures, ended = lane.figures()
        table.add_row(*map(Text, figures), Text(ended, style="green" if lane.succeeded else "red"))
    return table


def rich_installed() -> bool:
    """Whether panels and pictures can be drawn."""
    return importlib.util.find_spec("rich") is not None


def fitting() -> Screen:
    """The screen that suits standard output."""
    console = terminal()
    return Plain() if console is None else Live(console)


def terminal() -> Console | None:
    """Standard output as a terminal on which lines can be drawn anew; None if it is none."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what its encoding does not have is no reason to stop
    if not sys.stdout.isatty() or not rich_installed():
        return None
    from rich.console import Console

    console = Console()
    return None if console.is_dumb_terminal else console


def save_picture(file: str, lanes: Sequence[Lane]) -> None:
    """Save the panels and the figures as an SVG. Raises OSError."""
    from rich.console import Console
    from rich.text import Text

    console = Console(
        record=True, width=_PICTURE_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text.assemble(("$ ", "dim"), ("mas demo", "bold")))
    console.print(_panels(console, lanes, _MOST_LINES))
    console.print(_table(lanes))
    picture = console.export_svg(title="mas demo")
    # It is shown anywhere and loads nothing from anywhere: the fonts are those of whoever looks at it.
    picture = re.sub(r"@font-face\s*\{[^}]*\}", "", picture)
    Path(file).write_text(picture, encoding="utf-8")
