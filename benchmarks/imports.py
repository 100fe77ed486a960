"""What it costs to import things, over an empty interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Final, NamedTuple

from .figures import Budget, Report, Row, median
from .rounds import ROOT, Setting, turns

__all__ = ["imports"]

_READY: Final = """
from multi_agent_scheduler import ClaudeAgent, MultiAgentScheduler, OpenAIAgent
agents = {"claude": ClaudeAgent(api_key="x"), "openai": OpenAIAgent(api_key="x")}
MultiAgentScheduler(agents=agents)
import httptools, ssl  # what the first connection loads
"""
_PROGRAMS: Final = {
    "empty interpreter": "",
    "import aiohttp": "import aiohttp",
    "import multi_agent_scheduler": "import multi_agent_scheduler",
    "ready to stream": _READY,
    "import openai": "import openai",
    "import anthropic": "import anthropic",
    "import litellm": "import litellm",
}


class _Cost(NamedTuple):
    wall: float
    cpu: float


def _run(program: str) -> _Cost:
    """Milliseconds of a whole process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"this program failed: {program}")
    return _Cost(wall * 1e3, (used.ru_utime + used.ru_stime) * 1e3)


def imports(setting: Setting) -> Report:
    """Import time of this package, and of a scheduler that is ready to stream, over an empty interpreter."""
    names, notes = [], []
    for name in _PROGRAMS:
        module = name.removeprefix("import ") if name.startswith("import ") else "sys"
        if find_spec(module) is None:
            notes.append(f"SKIPPED  {name}: it is not installed (make bench installs it)")
        else:
            names.append(name)
            _run(_PROGRAMS[name])  # writes the bytecode
    rounds = 2 * setting.rounds
    found: dict[str, list[_Cost]] = turns(names, rounds, lambda name: _run(_PROGRAMS[name]))
    empty, bare = found["empty interpreter"], found["import aiohttp"]
    rows, budgets = [], []
    for name in names:
        wall = [cost.wall - none.wall for cost, none in zip(found[name], empty, strict=True)]
        cpu = [cost.cpu - none.cpu for cost, none in zip(found[name], empty, strict=True)]
        ratio = median([one / (other.cpu - none.cpu) for one, other, none in zip(cpu, bare, empty, strict=True)])
        if name == "empty interpreter":
            rows.append(
                Row(name, {"wall ms": median([c.wall for c in empty]), "CPU ms": median([c.cpu for c in empty])})
            )
            continue
        rows.append(Row(name, {"wall ms": median(wall), "CPU ms": median(cpu), "of aiohttp": ratio}))
        limit = {"import multi_agent_scheduler": 1 / 3, "ready to stream": 1.25}.get(name)
        if limit is not None:
            budgets.append(Budget(f"{name} / import aiohttp, CPU", ratio, limit))
    title = f"Imports: {rounds} rounds of a new process each; all but the first row are over the empty interpreter"
    return Report(title, {"wall ms": ".0f", "CPU ms": ".0f", "of aiohttp": ".2f"}, rows, budgets, notes)
