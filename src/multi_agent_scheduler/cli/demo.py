"""``mas demo``: three agents at once over three wire protocols, all answered by the embedded model."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..agents import ClaudeAgent, OpenAIAgent
from ..agents.base import Agent
from ..agents.local import LocalServer, local_server
from ..scheduler import MultiAgentScheduler
from ..task import Task
from .terminal import printable

if TYPE_CHECKING:
    from rich.console import Console, Group

__all__ = ["run"]

_FRAMES: Final = 12  # pictures a second
_HEADINGS: Final = ("agent", "protocol", "first chunk", "chunks/s", "tokens", "ended")


class _Lane(msgspec.Struct):
    """One agent's part of the screen."""

    name: str
    protocol: str
    prompt: str
    text: str = ""
    count: int = 0
    first: float | None = None
    last: float = 0.0
    final: dict[str, Any] | None = None


def _lanes() -> list[_Lane]:
    return [
        _Lane("ada", "OpenAI chat completions", "Explain what streaming is, in a few sentences."),
        _Lane("bruno", "OpenAI responses", "Write a short story about a lighthouse keeper."),
        _Lane("clara", "Anthropic messages", "List five facts about honey bees."),
    ]


def run(parsed: argparse.Namespace) -> int:
    """Exit code 0 if every agent completed."""
    return asyncio.run(_demo(parsed.max_tokens, parsed.svg))


async def _demo(max_tokens: int, svg: str | None) -> int:
    lanes = _lanes()
    screen = _screen(svg)
    screen.note("Loading the embedded model (SmolLM2-135M, in this process; no key, no network) ...")
    server = await local_server()
    agents = _agents(server, lanes)
    async with MultiAgentScheduler(agents) as scheduler:
        began = time.monotonic()
        screen.begin(lanes)
        work = [_stream(scheduler, lane, max_tokens, began, screen) for lane in lanes]
        try:
            await asyncio.gather(*work)
        finally:
            screen.end(lanes)
    screen.table(_HEADINGS, [_figures(lane) for lane in lanes])
    screen.note(
        'Try next:\n  .venv/bin/mas ask "Explain Python async"        one answer, streamed to stdout\n'
        "  .venv/bin/mas doctor                            which agents you can use, and what is missing\n"
        "  .venv/bin/python examples/streaming_example.py  the library, in short examples"
    )
    if svg:
        screen.save(svg)
    return 0 if all(lane.final is not None and lane.final["success"] for lane in lanes) else 1


def _agents(server: LocalServer, lanes: Sequence[_Lane]) -> dict[str, Agent]:
    first, second, third = (lane.name for lane in lanes)
    key, model, url = server.api_key, server.model, server.base_url
    return {
        first: OpenAIAgent(key, model=model, base_url=f"{url}/v1"),
        second: OpenAIAgent(key, model=model, base_url=f"{url}/v1", api="responses"),
        third: ClaudeAgent(key, model=model, base_url=url),
    }


async def _stream(
    scheduler: MultiAgentScheduler, lane: _Lane, max_tokens: int, began: float, screen: _Plain | _Live
) -> None:
    task = Task(lane.name, lane.prompt, options={"max_tokens": max_tokens})
    async for item in scheduler.execute_task_stream(task, lane.name):
        if item["done"]:
            lane.final = item
            screen.done(lane)
            return
        now = time.monotonic() - began
        lane.first = now if lane.first is None else lane.first
        lane.last = now
        lane.count += 1
        lane.text += printable(item["chunk"])
        screen.update(lane)


def _figures(lane: _Lane) -> tuple[str, ...]:
    final = lane.final or {}
    usage = final.get("usage") or {}
    seconds = lane.last - (lane.first or 0.0)
    rate = f"{(lane.count - 1) / seconds:.0f}" if lane.count > 1 and seconds > 0 else "-"
    ttft = final.get("ttft")
    ended = final.get("state", "not finished")
    if final.get("stop_reason"):
        ended = f"{ended} ({final['stop_reason']})"
    return (
        lane.name,
        lane.protocol,
        "-" if ttft is None else f"{ttft:.2f} s",
        rate,
        str(usage.get("output_tokens") or "-"),
        final.get("error") or ended,
    )


class _Plain:
    """Lines for a pipe or a log: each line of an answer as soon as it is whole, behind its agent's name."""

    def __init__(self) -> None:
        self._written: dict[str, int] = {}

    def note(self, text: str) -> None:
        self._print(text)

    def begin(self, lanes: Sequence[_Lane]) -> None:
        self._written = {lane.name: 0 for lane in lanes}

    def update(self, lane: _Lane) -> None:
        whole = lane.text.rfind("\n") + 1
        self._show(lane, whole)

    def done(self, lane: _Lane) -> None:
        self._show(lane, len(lane.text))

    def end(self, lanes: Sequence[_Lane]) -> None:
        pass

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
        self._print("")
        for row in (headings, *rows):
            self._print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        self._print("")

    def save(self, file: str) -> None:
        self._print(f"No picture was saved to {file}: that needs rich (pip install rich)")

    def _show(self, lane: _Lane, until: int) -> None:
        start = self._written[lane.name]
        for line in lane.text[start:until].splitlines():
            if line.strip():
                self._print(f"[{lane.name}] {line}")
        self._written[lane.name] = max(start, until)

    def _print(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


class _Live:
    """Three panels that fill up, on a terminal."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._lanes: Sequence[_Lane] = ()
        self._view = Live(console=console, refresh_per_second=_FRAMES, get_renderable=self._render, transient=False)

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def begin(self, lanes: Sequence[_Lane]) -> None:
        self._lanes = lanes
        self._view.start()

    def update(self, lane: _Lane) -> None:
        """The view draws itself anew several times a second."""

    def done(self, lane: _Lane) -> None:
        """As above."""

    def end(self, lanes: Sequence[_Lane]) -> None:  # noqa: ARG002
        self._view.stop()

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich.table import Table

        table = Table(*headings, header_style="bold")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def save(self, file: str) -> None:
        self._console.save_svg(file, title="mas demo")

    def _render(self) -> Group:
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        height = 7
        width = max(20, self._console.width - 4)
        panels = []
        for lane in self._lanes:
            lines = Text(lane.text.strip()).wrap(self._console, width)
            shown = Text("\n").join(lines[-height:])
            colour = "yellow" if lane.final is None else "green" if lane.final["success"] else "red"
            title = Text.assemble((lane.name, "bold"), f" · {lane.protocol} · {lane.count} chunks")
            panels.append(Panel(shown, title=title, title_align="left", border_style=colour, height=height + 2))
        return Group(*panels)


def _screen(svg: str | None) -> _Plain | _Live:
    if not sys.stdout.isatty() and not svg:
        return _Plain()
    try:
        from rich.console import Console
    except ImportError:
        return _Plain()
    if svg:
        return _Live(Console(record=True, width=100, force_terminal=True))
    return _Live(Console())
