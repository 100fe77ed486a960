"""What importing the package loads: nothing that a program which only imports it would have to wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import asyncio, msgspec  # what everything here stands on
before = set(sys.modules)
import {modules}
print(*sorted(set(sys.modules) - before))
"""

# Of the standard library, what takes longest to import, beyond what asyncio imports by itself.
SLOW = {
    "argparse", "ctypes", "dataclasses", "email", "http", "importlib.metadata", "importlib.resources", "json",
    "multiprocessing", "pydoc", "sqlite3", "tomllib", "unittest", "urllib.request", "uuid", "xml",
}  # fmt: skip


def loaded(*modules: str) -> set[str]:
    """The modules that a fresh interpreter has after importing these, beyond asyncio and msgspec."""
    program = PROGRAM.format(modules=", ".join(modules))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "modules",
    [
        ["multi_agent_scheduler"],
        [
            "multi_agent_scheduler.agents",
            "multi_agent_scheduler.scheduler",
            "multi_agent_scheduler.events",
            "multi_agent_scheduler.metrics",
        ],
    ],
    ids=["the package", "the modules of the guide"],
)
def test_importing_loads_no_other_library_and_nothing_slow(modules: list[str]) -> None:
    new = loaded(*modules)
    assert set(modules) <= new
    allowed = sys.stdlib_module_names | {"multi_agent_scheduler"}
    assert {name for name in new if name.partition(".")[0] not in allowed} == set()
    assert new & SLOW == set()
