"""``mas ask``: one prompt, streamed to stdout."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from ..agents.base import Agent
from ..agents.http import HttpAgent
from ..config import Offer
from ..errors import InvalidOption, InvalidRequest
from ..records import Record, encode_record
from ..scheduler import Handle, MultiAgentScheduler
from ..task import Result, Task
from ..views.text import TextView
from . import choice
from .stopping import Stopping, WriteStopped
from .terminal import Output, complain, status

__all__ = ["run"]


def run(parsed: argparse.Namespace) -> int:
    """Exit code 0 if the answer came whole, 1 if not, 130 after Ctrl-C."""
    offer = choice.chosen(choice.available(parsed.config), parsed.agent)
    task, agent = _task(parsed), offer.make()
    if isinstance(agent, HttpAgent) and not (agent.model or agent.request(task.prompt, **task.options).model):
        raise InvalidOption(f"{offer.name}: no model is set: name one with --model")
    return asyncio.run(_ask(offer, agent, task, records=parsed.format == "records", quiet=parsed.quiet))


def _task(parsed: argparse.Namespace) -> Task:
    options = {
        "model": parsed.model,
        "max_tokens": parsed.max_tokens,
        "system": parsed.system,
        "temperature": parsed.temperature,
    }
    prompt = parsed.prompt if parsed.prompt not in (None, "-") else _read_prompt(asked=parsed.prompt == "-")
    for name, text in {"the prompt": prompt, **options}.items():
        if isinstance(text, str) and not _is_text(text):
            raise InvalidRequest(f"{name.replace('_', '-')} is not UTF-8 text")
    return Task("ask", prompt, options={name: value for name, value in options.items() if value is not None})


def _read_prompt(*, asked: bool) -> str:
    if sys.stdin.isatty() and not asked:
        raise InvalidRequest('nothing to ask: mas ask "your question", or pipe it in')
    try:
        return sys.stdin.buffer.read().decode()  # UTF-8, whatever the locale says
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"standard input is not UTF-8 text (byte {error.start})") from None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # Python smuggles the bytes of an argument that is not UTF-8 through as surrogates
        return False
    return True


async def _ask(offer: Offer, agent: Agent, task: Task, *, records: bool, quiet: bool) -> int:
    output = Output()
    with Stopping(blocked=lambda: output.blocked) as stopping:
        async with MultiAgentScheduler({offer.name: agent}) as scheduler:
            handle = await scheduler.submit(task, offer.name)
            stops: set[asyncio.Task[bool]] = set()  # held here, because a loop does not hold its tasks
            stopping.then(lambda reason: stops.add(asyncio.create_task(handle.cancel(reason))))
            try:
                await _show(handle, output, records=records)
            except WriteStopped:
                stopping.leave()  # the operating system closes the provider's socket with us
            except OSError as error:  # a broken pipe, a full disk
                await handle.cancel("nothing can be written")
                raise OSError(error.errno, error.strerror, "standard output") from None
            result = await handle.result()
        output.end()
        _sum_up(offer.name, result, _problem(offer, agent, result), quiet=quiet)
        if stopping.signal is not None:
            stopping.leave()
    return 0 if result.success else 1


async def _show(handle: Handle, output: Output, *, records: bool) -> None:
    follower: AsyncIterator[Record] = handle.follow()
    if records:
        async for record in follower:
            output.line(encode_record(record))
        return
    view = TextView()
    async for record in follower:
        text = view.feed((record,))
        if text:
            output.text(text)


def _sum_up(name: str, result: Result, problem: str | None, *, quiet: bool) -> None:
    if problem is not None:
        complain(f"{name}: {problem}")
    elif not quiet:
        print(status(name, result), file=sys.stderr)  # noqa: T201


def _problem(offer: Offer, agent: Agent, result: Result) -> str | None:
    """What went wrong, and what may be done about it; None if nothing did, and for a stop that was asked for."""
    error = result.error
    if error is None or result.state == "cancelled":
        return None
    if error.code == "authentication_error" and error.status is None and not offer.key_set:
        return f"no API key: set {offer.key_variable}"
    problem = error.message
    if error.detail:
        problem += f" (the provider said: {error.detail})"
    if result.refusal:
        problem += f" (the model said: {result.refusal})"
    if error.code == "connection_error" and isinstance(agent, HttpAgent):
        here = (urlsplit(agent.base_url).hostname or "").startswith(("localhost", "127.", "::1"))
        problem += ": is the server running?" if here else ": is the network up, and is base_url right?"
    return problem
