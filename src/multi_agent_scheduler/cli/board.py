"""How ``mas run`` looks: a line for each task that moves on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, Protocol

from ..scheduling.budget import CHARACTERS_PER_TOKEN
from ..task import Task
from . import graph, screen
from .screen import Lane
from .terminal import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Board", "TaskLane", "dollars", "fitting"]

HEADINGS: Final = ("task", "agent", "first chunk", "tokens/s", "tokens", "cost", "time", "ended")
_MOST_NAME: Final = 24  # columns of a task's id, with what is drawn before it, or of an agent's name
_LEAST_TAIL: Final = 10  # columns of a text's end
_LOOKED_AT: Final = 500  # characters of which the last ones are shown
_FIGURES: Final = 46  # columns for the state, the figures and the space between columns
_COLOURS: Final = {"completed": "green", "running": "yellow", "waiting": "dim", "skipped": "dim"}


class TaskLane(Lane):
    """One task of a plan; ``protocol`` is the agent's name, empty until it is known."""

    running: bool = False
    parents: Sequence[TaskLane] = ()
    """Those that it waits for."""
    branch: str = ""
    """What the plan's graph has before its name; ``others`` are the parents under which it does not stand, in words."""
    others: str = ""

    @property
    def title(self) -> str:
        """Its name in the graph."""
        return self.branch + self.name

    @property
    def rate(self) -> str:
        """Tokens in a second while they came; behind a ``~`` an estimate, since nobody has counted them (yet)."""
        final = self.final or {}
        tokens, first = (final.get("usage") or {}).get("output_tokens"), final.get("ttft")
        if tokens and first is not None and final["latency"] > first:
            return f"{tokens / (final['latency'] - first):.0f}"
        seconds = self.last - self.first
        if self.count < 2 or seconds <= 0:
            return "-"
        behind = len(self.text) * (self.count - 1) / self.count  # characters that came since the first chunk
        return f"~{behind / CHARACTERS_PER_TOKEN / seconds:.0f}"

    def figures(self) -> tuple[str, ...]:
        """One text for each of the headings."""
        *figures, ended = super().figures()
        final = self.final or {}
        ran = self.final is not None and self.state != "skipped"
        return (*figures, dollars(final.get("cost")), f"{final['latency']:.2f} s" if ran else "-", ended)

    @property
    def state(self) -> str:
        """waiting, running, or how it ended."""
        if self.final is not None:
            return str(self.final["state"])
        return "running" if self.running else "waiting"


class Board(screen.Screen, Protocol):
    """A screen for tasks, which start one after the other."""

    def draw(self, tasks: Sequence[Task]) -> None:
        """Show how the tasks wait for each other, before they run."""

    def started(self, lane: TaskLane, stream_id: str) -> None:
        """A task runs."""


class PlainBoard(screen.Plain):
    """Lines: when a task starts, each line of its text as soon as it is whole, and how it ended."""

    def __init__(self) -> None:
        super().__init__(HEADINGS)
        self._held: dict[str, tuple[TaskLane, str]] = {}  # starts that are still to be told

    def draw(self, tasks: Sequence[Task]) -> None:
        lines = graph.overview(tasks, ascii_only=not _draws_lines(sys.stdout.encoding))
        if lines:
            self.note("\n".join([*lines, ""]))

    def started(self, lane: TaskLane, stream_id: str) -> None:
        self._held[lane.name] = lane, stream_id
        self._tell_due()

    def update(self, lane: Lane) -> None:
        self._tell(lane.name)
        super().update(lane)
        if lane.final is not None:
            self.note(f"{lane.name}: {printable(lane.ended)}")
            self._tell_due()

    def _tell(self, name: str) -> None:
        lane, stream_id = self._held.pop(name, (None, ""))
        if lane is not None:
            self.note(f"{name}: running ({lane.protocol}, stream {stream_id})")

    def _tell_due(self) -> None:
        """A start is told behind the ends that it waited for: those may be read only now."""
        for name, (lane, _) in list(self._held.items()):
            if all(parent.final is not None for parent in lane.parents):
                self._tell(name)


class LiveBoard(screen.Live):
    """A line for each task; where the terminal has not so many, for those that run and those that ended last."""

    def __init__(self, console: Console) -> None:
        self._running: dict[str, TaskLane] = {}
        self._ended: deque[TaskLane] = deque(maxlen=console.height)
        self._count = 0
        super().__init__(console, HEADINGS)  # which draws once

    def draw(self, tasks: Sequence[Task]) -> None:
        if len(tasks) > graph.MOST:  # else the lines of the tasks are the graph
            self.note("\n".join(graph.overview(tasks)))

    def started(self, lane: TaskLane, stream_id: str) -> None:  # noqa: ARG002
        self._running[lane.name] = lane

    def update(self, lane: Lane) -> None:
        if lane.final is not None:
            assert isinstance(lane, TaskLane)
            self._running.pop(lane.name, None)
            self._ended.appendleft(lane)
            self._count += 1

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        console, room = self._console, max(1, self._console.height - 2)
        lanes = list(self._lines(room))
        table = Table.grid(padding=(0, 2, 0, 0))
        widths = [min(_MOST_NAME, max(map(len, column), default=0)) for column in self._names(lanes)]
        for justify in ("left", "left", "left", "right", "right", "left"):
            table.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
        tail = max(_LEAST_TAIL, console.width - sum(widths) - _FIGURES)
        for lane in lanes:
            cells = [_cut(lane.title, widths[0]), _cut(lane.protocol, widths[1])]
            first = f"{lane.first - lane.began:.2f} s" if lane.count else "-"
            rate = "-" if lane.rate == "-" else f"{lane.rate} tok/s"
            text = " ".join(lane.text[-_LOOKED_AT:].split())[-tail:]
            if lane.final is not None and not lane.succeeded:
                text = printable(lane.ended)[:tail]
            elif lane.state == "waiting":
                text = lane.others[:tail]
            state = Text(lane.state, style=_COLOURS.get(lane.state, "red"))
            table.add_row(state, *map(Text, (*cells, first, rate, text)))
        return Group(Text(f"{self._count} of {len(self._lanes)} ended, {len(self._running)} running"), table)

    def _lines(self, room: int) -> Iterator[TaskLane]:
        """The lanes that are shown. Copies are made first: this is drawn in a thread of its own."""
        if len(self._lanes) <= room:
            return (lane for lane in self._lanes if isinstance(lane, TaskLane))
        return islice(chain(tuple(self._running.values()), tuple(self._ended)), room)

    @staticmethod
    def _names(lanes: Sequence[TaskLane]) -> tuple[list[str], list[str]]:
        return [lane.title for lane in lanes], [lane.protocol for lane in lanes]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "\u2026"


def dollars(cost: float | None) -> str:
    """A cost in US dollars, with as many places as show it."""
    return "-" if cost is None else f"${cost:.2f}" if cost >= 1 or not cost else f"${cost:.2g}"


def _draws_lines(encoding: str | None) -> bool:
    try:
        "\u2502\u251c\u2514".encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def fitting() -> Board:
    """The board that suits standard output."""
    console = screen.terminal()
    return PlainBoard() if console is None else LiveBoard(console)
