"""``mas ask``: one prompt, streamed to stdout."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import Any

from ..errors import InvalidRequest
from ..records import Record, encode_record
from ..scheduler import Handle, MultiAgentScheduler
from ..task import Result, Task
from ..views.text import TextView
from . import choice
from .terminal import printable, status

__all__ = ["run"]


def run(parsed: argparse.Namespace) -> int:
    """Exit code 0 if the answer came whole, 1 if not, 130 after Ctrl-C."""
    prompt = _prompt(parsed.prompt)
    offer = choice.chosen(choice.available(parsed.config), parsed.agent)
    options = {
        "model": parsed.model,
        "max_tokens": parsed.max_tokens,
        "system": parsed.system,
        "temperature": parsed.temperature,
    }
    task = Task("ask", prompt, options={name: value for name, value in options.items() if value is not None})
    return asyncio.run(_ask(offer.name, offer.make(), task, records=parsed.format == "records", quiet=parsed.quiet))


def _prompt(given: str | None) -> str:
    if given is not None and given != "-":
        return given
    if given is None and sys.stdin.isatty():
        raise InvalidRequest('nothing to ask: mas ask "your question", or pipe it in')
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise InvalidRequest("standard input is not UTF-8 text") from None


async def _ask(name: str, agent: Any, task: Task, *, records: bool, quiet: bool) -> int:
    async with MultiAgentScheduler({name: agent}) as scheduler:
        handle = await scheduler.submit(task, name)
        stopped = _stop_on_signals(handle)
        try:
            await _show(handle, records=records)
        except BrokenPipeError:
            await handle.cancel("nobody reads the output")
            raise
        result = await handle.result()
    _sum_up(name, result, quiet=quiet)
    if stopped:
        return 128 + stopped[0]
    return 0 if result.success else 1


def _stop_on_signals(handle: Handle) -> list[int]:
    """Let Ctrl-C and SIGTERM stop the provider; what came is kept. Gives the signals that came, as they come."""
    received: list[int] = []
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[bool]] = set()

    def stop(number: int) -> None:
        received.append(number)
        if len(received) > 1:  # they mean it
            os._exit(128 + number)
        pending.add(loop.create_task(handle.cancel("Ctrl-C" if number == signal.SIGINT else "SIGTERM")))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    return received


async def _show(handle: Handle, *, records: bool) -> None:
    out, view, on_terminal = sys.stdout, TextView(), sys.stdout.isatty()
    shown = ""
    async for record in handle.follow():
        text = _line(record) if records else view.feed((record,))
        if text:
            out.write(printable(text) if on_terminal else text)
            out.flush()
            shown = text
    if shown and not shown.endswith("\n"):
        out.write("\n")
        out.flush()


def _line(record: Record) -> str:
    return encode_record(record).decode() + "\n"


def _sum_up(name: str, result: Result, *, quiet: bool) -> None:
    if result.error is not None:
        problem = str(result.error)
        if result.error.detail:
            problem += f" (the provider said: {result.error.detail})"
        print(f"mas: {name}: {printable(problem)}", file=sys.stderr)  # noqa: T201
    if not quiet:
        print(status(name, result), file=sys.stderr)  # noqa: T201
