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
from collections.abc import AsyncIterator
from typing import Any

from .contenders import CONTENDERS
from .transports import Contender

__all__ = ["main"]

Answer = dict[str, Any]

_PATIENCE = 60  # seconds until all streams must have begun


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
    async with _open(contender, 20):
        pass  # what is loaded and allocated once
    gc.collect()
    before = _resident()
    async with _open(contender, streams):
        gc.collect()
        return {"bytes": (_resident() - before) / streams}


@contextlib.asynccontextmanager
async def _open(contender: Contender, streams: int) -> AsyncIterator[None]:
    """So many streams, each of which has said something."""
    waiting = streams
    everyone = asyncio.Event()

    async def reader() -> None:
        nonlocal waiting
        said = False
        async with contextlib.aclosing(contender.chunks()) as chunks:  # type: ignore[type-var]
            async for _ in chunks:
                if not said:
                    said = True
                    waiting -= 1
                    if not waiting:
                        everyone.set()
        everyone.set()
        raise RuntimeError("a stream that should stay open has ended")

    tasks = [asyncio.create_task(reader()) for _ in range(streams)]
    try:
        async with asyncio.timeout(_PATIENCE):
            await everyone.wait()
        for task in tasks:
            if task.done():
                task.result()
        yield
    except TimeoutError:
        raise RuntimeError(f"{waiting} of {streams} streams said nothing in {_PATIENCE} s") from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(make: Any) -> None:
    loop = asyncio.get_running_loop()
    actions = {"stream": _round, "first": _first, "hold": _hold}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        contender: Contender = make()
        await contender.start(command["root"], command["count"])
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
    except Exception as error:
        _say({"error": f"{type(error).__name__}: {error}"})
        raise


if __name__ == "__main__":
    main()
