"""``mas demo``: three agents at once over three wire protocols, all answered by the embedded model."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..agents.base import Agent
from ..agents.claude import ClaudeAgent
from ..agents.local import LocalAgent, LocalServer, local_server
from ..agents.openai import OpenAIAgent
from ..errors import InvalidConfiguration
from ..scheduler import MultiAgentScheduler
from ..task import Task
from . import screen
from .screen import Lane, Screen
from .stopping import Stopping
from .terminal import printable

__all__ = ["run"]


def _lanes() -> list[Lane]:
    return [
        Lane("ada", "OpenAI chat completions", "Describe a forest in the early morning."),
        Lane("bruno", "OpenAI responses", "Explain in two sentences what a lighthouse is for."),
        Lane("clara", "Anthropic messages", "List five names for a friendly robot, and say why."),
    ]


def run(parsed: argparse.Namespace) -> int:
    """Exit code 0 if every agent completed."""
    missing = LocalAgent().missing
    if missing is not None:
        raise InvalidConfiguration(missing)
    if parsed.svg is not None and not screen.rich_installed():
        raise InvalidConfiguration("--svg needs rich: pip install 'multi-agent-scheduler[cli]'")
    return asyncio.run(_demo(parsed.max_tokens, parsed.svg))


async def _demo(max_tokens: int, svg: str | None) -> int:
    lanes, shown = _lanes(), screen.fitting()
    main = asyncio.current_task()
    assert main is not None
    with Stopping(restore=shown.restore) as stopping:
        stopping.then(lambda _: main.cancel())
        try:
            await _play(lanes, max_tokens, shown)
        except asyncio.CancelledError:
            if stopping.signal is None:
                raise
            shown.note("Stopped.")
            stopping.leave()
    shown.table(lanes)
    shown.note(_average(lanes))
    shown.note(_next_steps())
    if svg is not None:
        screen.save_picture(svg, lanes)
    return 0 if all(lane.succeeded for lane in lanes) else 1


async def _play(lanes: Sequence[Lane], max_tokens: int, shown: Screen) -> None:
    shown.note("Loading the embedded model (SmolLM2-135M: tiny, in this process, no key, no network) ...")
    async with MultiAgentScheduler(_agents(await local_server(), lanes)) as scheduler:
        shown.begin(lanes)
        try:
            await asyncio.gather(*(_stream(scheduler, lane, max_tokens, shown) for lane in lanes))
        finally:
            shown.end()


def _agents(server: LocalServer, lanes: Sequence[Lane]) -> dict[str, Agent]:
    first, second, third = (lane.name for lane in lanes)
    key, model, url = server.api_key, server.model, server.base_url
    return {
        first: OpenAIAgent(key, model=model, base_url=f"{url}/v1", proxy=""),
        second: OpenAIAgent(key, model=model, base_url=f"{url}/v1", api="responses", proxy=""),
        third: ClaudeAgent(key, model=model, base_url=url, proxy=""),
    }


async def _stream(scheduler: MultiAgentScheduler, lane: Lane, max_tokens: int, shown: Screen) -> None:
    task = Task(lane.name, lane.prompt, options={"max_tokens": max_tokens})
    lane.began = time.monotonic()
    async for item in scheduler.execute_task_stream(task, lane.name):
        if item["done"]:
            lane.final = item
        else:
            lane.add(printable(item["chunk"]), time.monotonic())
        shown.update(lane)


def _average(lanes: Sequence[Lane]) -> str:
    ended = [lane.final for lane in lanes if lane.final is not None and lane.final["ttft"] is not None]
    if not ended:
        return "No agent said anything."
    first = sum(final["ttft"] for final in ended) / len(ended)
    whole = sum(final["latency"] for final in ended) / len(ended)
    return f"On average the first chunk was there after {first:.2f} s, the whole answer after {whole:.2f} s."


def _next_steps() -> str:
    mas = _this_command()
    steps = [
        (f'{mas} ask "Explain Python async"', "one answer, streamed to stdout"),
        (f"{mas} doctor", "which agents you can use, and what is missing"),
    ]
    example = Path("examples", "streaming_example.py")
    if example.is_file():
        steps.append((f"{_near(sys.executable)} {example}", "the library, in short examples"))
    width = max(len(command) for command, _ in steps)
    return "\n".join(["", "Try next:", *(f"  {command:<{width}}  {what}" for command, what in steps)])


def _this_command() -> str:
    """What to type to run this program again."""
    program = sys.argv[0]
    if Path(program).name != "mas":
        return "python -m multi_agent_scheduler"
    found = shutil.which("mas")
    return "mas" if found is not None and os.path.realpath(found) == os.path.realpath(program) else _near(program)


def _near(program: str) -> str:
    here = os.path.relpath(program)
    return program if here.startswith(os.pardir) else here
