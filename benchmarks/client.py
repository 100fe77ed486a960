"""The process that a contender runs in: reads commands as JSON lines from stdin, answers on stdout.

``stream``
    a round: so many streams at once, each to its end; gives CPU seconds (user and system, all threads), wall seconds
    and how much was read.
``first``
    streams one after another; gives the seconds from asking to the first chunk, of each.
``hold``
    so many streams that said one chunk and stay open; gives the resident bytes that each of them takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import sys
import time
from typing import Any

from .contenders import CONTENDERS
from .transports import Contender

__all__ = ["main"]

Answer = dict[str, Any]


async def _round(contender: Contender, streams: int) -> Answer:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    sizes = await asyncio.gather(*(contender.stream() for _ in range(streams)))
    return {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "size": sum(sizes),
        "unit": contender.unit,
    }


async def _first(contender: Contender, count: int) -> Answer:
    found = []
    for _ in range(count):
        start = time.perf_counter()
        first = None
        async for _chunk in contender.chunks():
            if first is None:
                first = time.perf_counter() - start
        found.append(first)
    return {"seconds": found}


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def _hold(contender: Contender, streams: int) -> Answer:
    arrived = 0
    everyone = asyncio.Event()

    async def reader() -> None:
        nonlocal arrived
        first = True
        async with contextlib.aclosing(contender.chunks()) as chunks:  # type: ignore[type-var]
            async for _ in chunks:
                if first:
                    first = False
                    arrived += 1
                    if arrived == wanted:
                        everyone.set()

    async def some(number: int) -> None:
        nonlocal wanted
        wanted += number
        everyone.clear()
        tasks.extend(asyncio.create_task(reader()) for _ in range(number))
        waiting = asyncio.create_task(everyone.wait())
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a reader that ended did so by an error

    wanted = 0
    tasks: list[asyncio.Task[None]] = []
    await some(20)  # what is loaded and allocated once
    gc.collect()
    before = _resident()
    await some(streams)
    gc.collect()
    after = _resident()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"bytes": (after - before) / streams}


async def _serve(make: Any) -> None:
    loop = asyncio.get_running_loop()
    actions = {"stream": _round, "first": _first, "hold": _hold}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        contender: Contender = make()
        await contender.start(command["root"], command["count"] + 20)
        try:
            answer = await actions[command["do"]](contender, command["count"])
        finally:
            await contender.close()
        _say(answer)


def _say(answer: Answer) -> None:
    sys.__stdout__.write(json.dumps(answer) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def main() -> None:
    """``python -m benchmarks.client CONTENDER LOOP CPU`` (CPU -1: any)."""
    name, loop, cpu = sys.argv[1:]
    if int(cpu) >= 0:
        os.sched_setaffinity(0, {int(cpu)})
    sys.stdout = sys.stderr  # a peer that prints must not break the answers
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        if loop == "uvloop":
            import uvloop

            uvloop.run(_serve(CONTENDERS[name]))
        else:
            asyncio.run(_serve(CONTENDERS[name]))
    except ModuleNotFoundError as error:
        _say({"missing": error.name})


if __name__ == "__main__":
    main()
