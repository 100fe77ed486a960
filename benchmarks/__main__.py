"""``python -m benchmarks [NAME ...]``: all of them, or those named."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from .figures import Report, shown
from .first_chunk import first_chunk
from .hedge import hedge
from .imports import imports
from .local_model import guide, local
from .memory import memory
from .partial_json import partial_json
from .rounds import Setting
from .scheduling import scheduling
from .serving import serving, serving_first, serving_held, serving_memory, serving_replay
from .store import store
from .streaming import anthropic, burst, paced, responses, spread, transport

_BENCHMARKS: Final[dict[str, Callable[[Setting], Report]]] = {
    "paced": paced,
    "spread": spread,
    "burst": burst,
    "anthropic": anthropic,
    "responses": responses,
    "first-chunk": first_chunk,
    "hedge": hedge,
    "memory": memory,
    "import": imports,
    "store": store,
    "scheduling": scheduling,
    "serving": serving,
    "serving-held": serving_held,
    "serving-first": serving_first,
    "serving-memory": serving_memory,
    "serving-replay": serving_replay,
    "partial-json": partial_json,
    "local": local,
    "guide": guide,
    "transport": transport,
}
_ON_REQUEST: Final = frozenset({"transport"})  # run only when named
_PACKAGES: Final = (
    "aiohttp",
    "anthropic",
    "apsw",
    "httptools",
    "jiter",
    "litellm",
    "msgspec",
    "openai",
    "partial-json-parser",
    "sse-starlette",
    "uvicorn",
    "pydantic-ai-slim",
    "uvloop",
    "xllamacpp",
)


def _machine() -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    name = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "").partition(": ")[2]
    memory_kib = next((line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0 0").split()[1]
    return {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": name.strip() or platform.processor(),
        "memory_gib": round(int(memory_kib) / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "versions": versions,
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _options(arguments: list[str] | None) -> argparse.Namespace:
    about = "\n".join(f"  {name:12} {run.__doc__}" for name, run in _BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Benchmarks:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which to run (default: all but {', '.join(_ON_REQUEST)})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which all take turns (5)")
    parser.add_argument("--streams", type=int, default=100, help="streams at once (100)")
    parser.add_argument("--chunks", type=int, default=200, help="chunks of a stream (200)")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="the clients' event loop")
    parser.add_argument("--verbose", action="store_true", help="show each round")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in _BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(_BENCHMARKS)}")
    if min(options.rounds, options.streams, options.chunks) < 1:
        parser.error("--rounds, --streams and --chunks are whole numbers from 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and write what was found: 1 if a contender broke. A missed budget is a figure, not a failure."""
    options = _options(arguments)

    def say(text: str) -> None:
        if options.verbose:
            print(f"    {text}", file=sys.stderr)

    setting = Setting(options.rounds, options.streams, options.chunks, options.loop, say)
    machine = _machine()
    print("{cpus} x {cpu}, {memory_gib} GiB, Linux {kernel}, Python {python}".format(**machine))
    chosen = {name: value for name, value in setting._asdict().items() if name != "say"}
    found: dict[str, Any] = {"machine": machine, "setting": chosen, "benchmarks": {}}
    broken = False
    for name in options.names or [name for name in _BENCHMARKS if name not in _ON_REQUEST]:
        start = time.perf_counter()
        report = _BENCHMARKS[name](setting)
        print(f"\n{shown(report)}", flush=True)
        found["benchmarks"][name] = {**report.plain(), "seconds": round(time.perf_counter() - start, 1)}
        if options.json:  # after each, so that an interrupted run leaves what it found
            options.json.write_text(json.dumps(found, indent=2) + "\n")
        broken = broken or any(note.startswith("FAILED") for note in report.notes)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
