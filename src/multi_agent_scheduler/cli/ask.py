"""``mas ask``: one prompt, streamed to stdout."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

from ..agents.base import Agent
from ..agents.http import HttpAgent
from ..config import Offer
from ..errors import InvalidOption, InvalidRequest
from ..records import Record, encode_record
from ..scheduler import Handle, MultiAgentScheduler
from ..task import Result, Task
from ..views.text import TextView
from . import choice, objects
from .stopping import Stopping
from .terminal import Output, complain, status

__all__ = ["run"]

_PATIENCE: Final = 5.0  # seconds that a reader of our output has, after a stop, to read what came before it


def run(parsed: argparse.Namespace) -> int:
    """Exit code 0 if the answer came whole, 1 if not, 130 after Ctrl-C."""
    offer = choice.chosen(choice.available(parsed.config), parsed.agent)
    prompt, options = _asked(parsed)
    agent, task = offer.make(), Task("ask", prompt, options=options, **_wanted(parsed))
    if isinstance(agent, HttpAgent) and not (agent.model or agent.request(prompt, **options).model):
        raise InvalidOption(f"{offer.name}: no model is set: name one with --model")
    return asyncio.run(_ask(offer, agent, task, form=parsed.format, quiet=parsed.quiet))


def _wanted(parsed: argparse.Namespace) -> dict[str, Any]:
    """What the answer must be, as fields of the task."""
    if parsed.schema is None:
        if parsed.ask_again is not None or parsed.format == "json":
            option = "--format json" if parsed.ask_again is None else "--ask-again"
            raise InvalidOption(f"{option} is for answers that are objects: say with --schema FILE what they must be")
        return {}
    return {"schema": objects.read_schema(parsed.schema), "ask_again": parsed.ask_again or 0}


def _asked(parsed: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The prompt and the options for it."""
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
    return prompt, {name: value for name, value in options.items() if value is not None}


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


async def _ask(offer: Offer, agent: Agent, task: Task, *, form: str, quiet: bool) -> int:
    output, patience = Output(), asyncio.timeout(None)
    with Stopping(restore=(lambda: None) if task.schema is None else output.restore) as stopping:
        async with MultiAgentScheduler({offer.name: agent}) as scheduler:
            handle = await scheduler.submit(task, offer.name)
            stops: set[asyncio.Task[bool]] = set()  # held here, because a loop does not hold its tasks

            def stop(reason: str) -> None:
                stops.add(asyncio.create_task(handle.cancel(reason)))
                patience.reschedule(asyncio.get_running_loop().time() + _PATIENCE)

            stopping.then(stop)
            try:
                async with patience:
                    await _show(handle, task, output, form)
                    result = await handle.result()
                    await output.end()
            except TimeoutError:
                stopping.leave()
            except OSError as error:  # a broken pipe, a full disk
                await handle.cancel("nothing can be written")
                raise OSError(error.errno, error.strerror, "standard output") from None
        _sum_up(offer.name, result, _problem(offer, agent, result), quiet=quiet)
        if stopping.signal is not None:
            stopping.leave()
    return 0 if result.success else 1


async def _show(handle: Handle, task: Task, output: Output, form: str) -> None:
    follower: AsyncIterator[Record] = handle.follow()
    if form == "records":
        async for record in follower:
            await output.line(encode_record(record))
        return
    if task.schema is not None:
        await objects.show(follower, task.schema, output, compact=form == "json")
        return
    view = TextView()
    async for record in follower:
        text = view.feed((record,))
        if text:
            await output.text(text)


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
