"""An example as a process of its own, as a newcomer runs it: on a free port, and warnings are errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

EXAMPLES: Final = Path(__file__).parents[2] / "examples"


@contextmanager
def running(name: str, *arguments: str) -> Iterator[str]:
    """Run an example; gives ``host:port``. It must have nothing to say on stderr, and stop when it is told to."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--port", "0", *arguments]
    surroundings = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(
        command, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Listening on http://127.0.0.1:"), line or process.communicate(timeout=5)
            yield line.removeprefix("Listening on http://").split()[0]
        finally:
            process.terminate()
            _, said = process.communicate(timeout=20)
    complaints = [line for line in said.splitlines() if "HTTP/1.1" not in line]  # that is a log of requests
    assert not complaints, complaints
