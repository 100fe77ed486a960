"""Processes for the provider and for each contender, and rounds that take turns.

The machine is never quiet: what is compared is measured close together, over and over, in an order that turns around
each time, and ratios are taken round by round.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

if TYPE_CHECKING:
    from .gateways import Gateway

__all__ = ["Broken", "Client", "Load", "Provider", "Setting", "Unavailable", "available", "pinned", "turns"]

_PATIENCE: Final = 120  # seconds for a round; the slowest contender takes some 15

ROOT: Final = Path(__file__).resolve().parent.parent


class Setting(NamedTuple):
    """How thorough a run is: rounds, streams at once, chunks a stream, and the clients' event loop."""

    rounds: int = 5
    streams: int = 100
    chunks: int = 200
    loop: str = "asyncio"
    say: Callable[[str], None] = lambda _text: None


class Unavailable(Exception):
    """A contender that cannot run here: its package is not installed."""


class Broken(Exception):
    """A contender that failed while it was measured; what it said is on stderr."""


def _cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pinned(role: str) -> int:
    """The CPU of clients (the first) and of the provider (the last); -1 where there are no two to choose from."""
    cpus = _cpus()
    return -1 if len(cpus) < 2 else cpus[0] if role == "client" else cpus[-1]


def _python(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYDANTIC_DISABLE_PLUGINS": "__all__"}
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        environment.pop(name, None)
        environment.pop(name.upper(), None)
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, text=True, env=environment, **options)


class _Process:
    """A Python process that is spoken with over its stdin and stdout, and that ends when its stdin closes."""

    def __init__(self, *arguments: str) -> None:
        self._process = _python("-m", *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(map(str, self._process.args))} ended with code {self._process.wait()}")
        return line


class Provider(_Process):
    """The loopback provider."""

    def __init__(self) -> None:
        super().__init__("benchmarks.server", str(pinned("provider")))
        self.port = int(self._line())
        self._address = f"http://127.0.0.1:{self.port}"

    def root(self, chunks: int, delay: float, tick: float = 1) -> str:
        """The URL under which answers have that many chunks, ``delay`` milliseconds apart, at every ``tick``-th."""
        return f"{self._address}/n{chunks}/d{delay:.9g}/t{tick:g}"


class Load(_Process):
    """The load on a gateway, on the provider's core."""

    def __init__(self) -> None:
        super().__init__("benchmarks.load", str(pinned("provider")))

    def ask(self, do: str, gateway: Gateway, **command: Any) -> dict[str, Any]:
        """One command of benchmarks/load.py. Raises Broken."""
        assert self._process.stdin is not None
        command = {"do": do, "port": gateway.port, "path": gateway.path, **command}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        if "error" in answer:
            raise Broken(answer["error"])
        return answer


class Client(_Process):
    """A contender in a process of its own."""

    def __init__(self, name: str, loop: str = "asyncio") -> None:
        super().__init__("benchmarks.client", name, loop, str(pinned("client")))
        self.name = name

    def ask(self, do: str, root: str, count: int) -> dict[str, Any]:
        """One command of benchmarks/client.py. Raises Unavailable or Broken."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "root": root, "count": count}) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            self._process.kill()
            raise Broken(f"no answer in {_PATIENCE} s")
        answer: dict[str, Any] = json.loads(self._line())
        if "missing" in answer:
            raise Unavailable(answer["missing"])
        if "error" in answer:
            raise Broken(answer["error"])
        return answer


def available(
    names: Iterable[str], provider: Provider, loop: str, stack: ExitStack
) -> tuple[dict[str, Client], list[str]]:
    """The clients that can run, warmed up, entered into ``stack``; and a note for each that cannot."""
    clients: dict[str, Client] = {}
    notes: list[str] = []
    for name in names:
        client = stack.enter_context(Client(name, loop))
        try:
            client.ask("stream", provider.root(20, 0), 10)
        except Unavailable as reason:
            notes.append(f"SKIPPED  {name}: {reason} is not installed (make bench installs it)")
        except Broken as reason:
            notes.append(f"FAILED  {name}: {reason}")
        else:
            clients[name] = client
    return clients, notes


def turns(
    names: list[str], rounds: int, act: Callable[[str], Any], notes: list[str] | None = None
) -> dict[str, list[Any]]:
    """``act(name)`` for each name in each round; every second round backwards.

    With ``notes``, one that raises Broken is left out from then on, and said there.
    """
    found: dict[str, list[Any]] = {name: [] for name in names}
    for number in range(rounds):
        for name in list(found) if number % 2 == 0 else list(found)[::-1]:
            try:
                found[name].append(act(name))
            except Broken as reason:
                if notes is None:
                    raise
                notes.append(f"FAILED  {name}: {reason}")
                del found[name]
            time.sleep(0.05)  # sockets of the one before close
    return found
