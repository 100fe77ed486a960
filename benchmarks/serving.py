"""The server under load, beside nginx and what a user would write instead."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final
from urllib.request import Request, urlopen

from .figures import Budget, Report, Row, median
from .gateways import GATEWAYS, Gateway
from .rounds import Load, Provider, Setting, Unavailable

__all__ = ["serving", "serving_first", "serving_held", "serving_memory", "serving_replay"]

_DELAY: Final = 20  # milliseconds between chunks: 50 tokens a second
_LAG: Final = 0.1  # seconds: the p99 that a held stream may lag
_STREAMS: Final = 400
_HOUR: Final = 3_600_000
_MINE: Final = "mas serve"


def _quantile(found: Sequence[float], share: float) -> float:
    return sorted(found)[min(len(found) - 1, int(share * len(found)))] if found else float("inf")


def _paced(load: Load, gateway: Gateway, streams: int, chunks: int) -> dict[str, Any]:
    """One round of paced streams through a gateway, with the CPU that it took for a chunk."""
    before = gateway.cpu
    model = f"{gateway.model_prefix}n{chunks}-d{_DELAY}-t1-stamps"
    # The starts are spread over the gap between two chunks and more, so that streams do not go in step.
    found = load.ask("load", gateway, model=model, streams=streams, chunks=chunks, ramp=1.0)
    time.sleep(0.2)  # what is done after the last byte counts as well
    found["cpu"] = (gateway.cpu - before) / (streams * chunks) * 1e6
    return found


def serving(setting: Setting) -> Report:
    """CPU per chunk and lag of 400 paced streams, chat completions in and out."""
    rows, notes, chunks = [], [], setting.chunks
    found: dict[str, list[dict[str, Any]]] = {}
    with Provider() as provider, Load() as load:
        for name, make in GATEWAYS.items():
            streams = 40 if name.startswith("FastAPI") else _STREAMS  # it holds no more
            try:
                with make(provider.port) as gateway:
                    _paced(load, gateway, min(streams, 50), 25)
                    found[name] = [_paced(load, gateway, streams, chunks) for _ in range(min(setting.rounds, 3))]
            except Unavailable as reason:
                notes.append(f"SKIPPED  {name}: {reason} is not installed")
                continue
            whole = min(each["whole"] for each in found[name])
            rows.append(
                Row(
                    name,
                    {
                        "streams": streams,
                        "whole": whole,
                        "us/chunk": median([each["cpu"] for each in found[name]]),
                        "lag p50 ms": median([_quantile(each["lags"], 0.5) for each in found[name]]) * 1e3,
                        "lag p99 ms": median([_quantile(each["lags"], 0.99) for each in found[name]]) * 1e3,
                    },
                )
            )
    budgets = []
    if "nginx" in found:
        ratio = _cpu(found[_MINE]) / _cpu(found["nginx"])
        budgets.append(Budget("CPU per chunk at 400 streams, over nginx's", ratio, 3))
    columns = {"streams": ".0f", "whole": ".0f", "us/chunk": ".1f", "lag p50 ms": ".1f", "lag p99 ms": ".1f"}
    return Report(
        f"Serving: streams of {1000 // _DELAY} chunks/s held on one core, {chunks} chunks each",
        columns,
        rows,
        budgets,
        notes,
    )


def _cpu(found: list[dict[str, Any]]) -> float:
    return median([each["cpu"] for each in found])


def serving_held(setting: Setting) -> Report:
    """How many paced streams are held with a p99 lag under 100 ms."""
    rows, notes, held = [], [], {}
    with Provider() as provider, Load() as load:
        for name, make in GATEWAYS.items():
            try:
                with make(provider.port) as gateway:
                    held[name] = _most(load, gateway, 20 if name.startswith("FastAPI") else 100, setting.chunks)
            except Unavailable as reason:
                notes.append(f"SKIPPED  {name}: {reason} is not installed")
                continue
            rows.append(Row(name, {"held": held[name]}))
    budgets = [Budget("400 over the streams held, everything on", 400 / max(held[_MINE], 1), 1)]
    title = f"Held: streams of {1000 // _DELAY} chunks/s on one core with a p99 lag under {_LAG * 1e3:.0f} ms"
    return Report(title, {"held": ".0f"}, rows, budgets, notes)


def _most(load: Load, gateway: Gateway, step: int, chunks: int) -> int:
    """The most streams that are held, in steps; the first that fails twice ends it."""
    held, streams = 0, step
    while streams <= 10 * step:
        for _chance in range(2):
            found = _paced(load, gateway, streams, chunks)
            if found["whole"] == streams and _quantile(found["lags"], 0.99) < _LAG:
                held = streams
                break
        if held < streams:
            break
        streams += step
    return held


def serving_first(setting: Setting) -> Report:
    """The time to the first chunk that a gateway adds, one stream at a time, and 1,000 requests at once."""
    rows, notes = [], []
    firsts: dict[str, list[float]] = {}
    rush: dict[str, float] = {}
    with Provider() as provider, Load() as load, ExitStack() as stack:
        gateways: dict[str, Gateway] = {}
        for name in ("direct", "nginx", _MINE, "mas serve, memory"):
            try:
                gateways[name] = stack.enter_context(GATEWAYS[name](provider.port))
            except Unavailable as reason:
                notes.append(f"SKIPPED  {name}: {reason} is not installed")
        for _ in range(setting.rounds):
            for name, gateway in gateways.items():
                asked = load.ask("first", gateway, model=f"{gateway.model_prefix}n1-d0", count=40)
                firsts.setdefault(name, []).extend(one for one in asked["seconds"][5:] if one is not None)
        for name, gateway in gateways.items():
            found = load.ask(
                "load",
                gateway,
                model=f"{gateway.model_prefix}n25-d{_DELAY}-t1-stamps",
                streams=1000,
                chunks=25,
                ramp=0.0,
            )
            rush[name] = _quantile(found["first"], 0.99) if found["whole"] == 1000 else float("inf")
    for name, seconds in firsts.items():
        added = median(seconds) - median(firsts["direct"])
        figures = {"p50 ms": median(seconds) * 1e3, "added ms": added * 1e3, "rush p99 s": rush[name]}
        rows.append(Row(name, figures))
    mine = (median(firsts[_MINE]) - median(firsts["direct"])) * 1e3
    budgets = [
        Budget("added to the first chunk at the median, ms", mine, 0.8),
        Budget("1,000 requests at once, p99 to the first chunk, s", rush[_MINE], 1),
    ]
    columns = {"p50 ms": ".2f", "added ms": "+.2f", "rush p99 s": ".2f"}
    return Report("First chunk through a gateway, and 1,000 requests at once", columns, rows, budgets, notes)


def serving_memory(setting: Setting) -> Report:  # noqa: ARG001
    """Resident memory when idle, and of 1,000 open streams."""
    rows = []
    idle = per_stream = 0.0
    with Provider() as provider, Load() as load:
        for name in (_MINE, "mas serve, memory"):
            with GATEWAYS[name](provider.port) as gateway:
                idle_now = gateway.resident / 2**20
                model = f"{gateway.model_prefix}n2-d{_HOUR}"
                load.ask("first", gateway, model=f"{gateway.model_prefix}n1-d0", count=20)
                before = gateway.resident
                found = load.ask("hold", gateway, model=model, streams=1000)
                if found["open"] != 1000:
                    raise RuntimeError(f"{name}: only {found['open']} of 1000 streams began")
                each = (gateway.resident - before) / 1000 / 1024
                load.ask("hold", gateway, model=model, streams=0)
            rows.append(Row(name, {"idle MiB": idle_now, "KiB/stream": each}))
            if name == _MINE:
                idle, per_stream = idle_now, each
    budgets = [Budget("idle, MiB", idle, 100), Budget("KiB more for an open stream", per_stream, 30)]
    return Report("The server's memory", {"idle MiB": ".0f", "KiB/stream": ".1f"}, rows, budgets, [])


def serving_replay(setting: Setting) -> Report:
    """A finished stream of 10 MB read again, and what further readers of live streams cost."""
    rows, budgets, notes = [], [], []
    with Provider() as provider, Load() as load, GATEWAYS[_MINE](provider.port) as gateway:
        chunks = 10_000_000 // 4
        stream_id = _submitted(gateway, f"n{chunks}-d0", 1)[0]
        load.ask("get", gateway, paths=[f"/v1/streams/{stream_id}"])  # until it has ended
        seconds = []
        for _ in range(min(setting.rounds, 3)):
            found = load.ask("get", gateway, paths=[f"/v1/streams/{stream_id}"])
            seconds.append(found["seconds"])
            notes = [f"{found['bytes'] / 1e6:.0f} MB of events for 10 MB of text"]
        rows.append(Row("replay of 10 MB, s", {"": median(seconds)}))
        budgets.append(Budget("replay of 10 MB of text, s", median(seconds), 1))
        costs = {readers: _readers(load, gateway, readers, setting.chunks) for readers in (1, 5)}
        further = (costs[5] - costs[1]) / 4
        rows.append(Row("a further reader, us a chunk", {"": further}))
        budgets.append(Budget("a further reader of a stream, us a chunk", further, 8))
    return Report("Reading again, and reading together", {"": ".2f"}, rows, budgets, notes)


def _readers(load: Load, gateway: Gateway, readers: int, chunks: int) -> float:
    """Microseconds of the server's CPU for a chunk of each of 50 streams with so many readers each."""
    streams = 50
    before = gateway.cpu
    ids = _submitted(gateway, f"n{chunks}-d{_DELAY}-t1", streams)
    found = load.ask("get", gateway, paths=[f"/v1/streams/{one}" for one in ids for _ in range(readers)])
    if found["whole"] != streams * readers:
        raise RuntimeError(f"only {found['whole']} of {streams * readers} readers came to the end")
    return (gateway.cpu - before) / (streams * chunks) * 1e6


def _submitted(gateway: Gateway, model: str, count: int) -> list[str]:
    """The ids of so many streams that were submitted together."""
    tasks = [
        {"id": f"t{number}", "prompt": "Why is the sky blue?", "agent": "provider", "options": {"model": model}}
        for number in range(count)
    ]
    asked = Request(
        f"http://127.0.0.1:{gateway.port}/v1/tasks",
        json.dumps({"tasks": tasks}).encode(),
        {"content-type": "application/json"},
    )
    with urlopen(asked, timeout=30) as answer:
        streams: dict[str, str] = json.load(answer)["streams"]
    return list(streams.values())
