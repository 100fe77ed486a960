"""``mas streams``, ``mas watch`` and ``mas cancel``: the streams of a store that another process may be writing."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from ..errors import StoreError, StreamReset
from ..records import Record, encode_record, numbered
from ..store import SQLiteStore
from ..store.core import StreamInfo
from ..store.follow import Follower
from ..store.owner import NoOwner
from ..store.reader import SQLiteReader
from ..task import Result
from ..views.summary import Summary, summarise
from ..views.text import TextView
from . import place
from .stopping import Stopping
from .terminal import Output, complain, one_line, say, status

__all__ = ["cancel", "streams", "watch"]

_SHOWN: Final = 12  # characters of an id, which stand for all of it
_LOOK_SECONDS: Final = 1.0  # how often it is looked whether the process that writes still lives


def streams(parsed: argparse.Namespace) -> int:
    """Exit code 0."""
    return asyncio.run(_streams(parsed.store, parsed.limit, as_json=parsed.format == "json"))


async def _streams(store: str | None, limit: int, *, as_json: bool) -> int:
    async with place.reading(store) as reader:
        infos = list(reversed(reader.streams(limit=limit)))
        if as_json:
            say(msgspec.json.format(msgspec.json.encode(infos)).decode())
            return 0
        if not infos:
            say(f"There are no streams in {reader.path} yet.")
            return 0
        rows = [("id", "task", "plan", "state", "size", "age"), *(_row(info, time.time()) for info in infos)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        left = sum(not info.ended for info in infos)
        if left and not place.is_run(reader.path):
            complain(f"nobody runs what has not ended ({left}): mas resume goes on with it")
    return 0


def _row(info: StreamInfo, now: float) -> tuple[str, ...]:
    plan = "-" if info.plan_id is None else info.plan_id[:_SHOWN]
    size = f"{_size(info.size)} (trimmed)" if info.trimmed else _size(info.size)
    return info.stream_id[:_SHOWN], one_line(info.task_id), plan, info.state, size, _age(now - info.created)


def _size(size: float) -> str:
    for unit in ("B", "kB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} MB"


def _age(seconds: float) -> str:
    for unit, length, following in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 86400)):
        if seconds < following:
            return f"{max(0.0, seconds) / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def watch(parsed: argparse.Namespace) -> int:
    """Exit code 0 if the stream ended well, 1 if not, 130 after Ctrl-C, which changes nothing for the stream."""
    return asyncio.run(_watch(parsed.store, parsed.id, parsed.after, records=parsed.format == "records"))


async def _watch(store: str | None, beginning: str, after: int, *, records: bool) -> int:
    async with place.reading(store) as reader:
        info = place.found(reader, beginning)
        if info.trimmed and not after and not records:
            return await _show_what_is_left(reader, info)
        Follower(reader, info.stream_id, after)  # raises if the cursor cannot be
        with Stopping() as stopping:
            main = asyncio.current_task()
            assert main is not None
            stopping.then(lambda _: main.cancel())
            try:
                result = await _follow(reader, info, after, records=records)
            except asyncio.CancelledError:
                if stopping.signal is None:
                    raise
                stopping.leave()
    return _told(info, result)


async def _show_what_is_left(reader: SQLiteReader, info: StreamInfo) -> int:
    """The text of a stream whose log was trimmed: how it came, and what was taken back, is gone."""
    result, output = summarise(reader.log(info.stream_id).digest(), stream_id=info.stream_id), Output()
    await output.text(result.text)
    await output.end()
    complain(f"{one_line(info.task_id)}: its log was trimmed long after its end; this is the text that it had then")
    return _told(info, result)


def _told(info: StreamInfo, result: Result) -> int:
    """Say how a stream ended; gives the exit code."""
    if result.error is not None and not result.success and result.state != "cancelled":
        complain(f"{one_line(info.task_id)}: {result.error}")
    else:
        print(status(one_line(info.task_id), result), file=sys.stderr)  # noqa: T201
    return 0 if result.success else 1


async def _follow(reader: SQLiteReader, info: StreamInfo, after: int, *, records: bool) -> Result:
    """Show what is behind seq ``after``, up to the terminal. Raises StoreError where it will not come."""
    if info.trimmed:  # there is nothing behind ``after``
        return summarise(reader.log(info.stream_id).digest(), stream_id=info.stream_id)
    follower, summary, view, output = Follower(reader, info.stream_id), Summary(), TextView(), Output()
    while True:
        seq = follower.seq
        some = await _next(reader, info, follower)
        if not some:
            await output.end()
            return summary.result(stream_id=info.stream_id)
        summary.feed(some)
        for record in numbered(some, seq + 1):
            seq += 1
            if records and seq > after:
                await output.line(encode_record(record))
            elif not records:
                text = _text(view, record)
                if text and seq > after:
                    await output.text(text)


def _text(view: TextView, record: Record) -> str:
    try:
        return view.feed((record,))
    except StreamReset:
        return "\n[it begins again]\n"


async def _next(reader: SQLiteReader, info: StreamInfo, follower: Follower) -> Sequence[Record]:
    """The next records; none behind the terminal."""
    while True:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return await follower.next()
        except TimeoutError:
            if place.is_run(reader.path) or reader.info(info.stream_id).ended:
                continue
            raise StoreError(
                f"{one_line(info.task_id)}: nobody runs it, and it has not ended: mas resume goes on with it"
            ) from None


def cancel(parsed: argparse.Namespace) -> int:
    """Exit code 0 if the stop is kept, 1 if the stream had ended before."""
    return asyncio.run(_cancel(parsed.store, parsed.id))


async def _cancel(store: str | None, beginning: str) -> int:
    async with place.reading(store) as reader:
        info = place.found(reader, beginning)
        name = f"{one_line(info.task_id)} ({info.stream_id})"
        if info.ended:
            complain(f"{name} has ended already: {info.state}")
            return 1
        try:
            first = await asyncio.to_thread(reader.cancel, info.stream_id, "mas cancel")
            how = "is stopped"
        except NoOwner:
            first = await _write_stop(reader, info.stream_id)
            how = "is run by nobody; it will end as cancelled when mas resume goes on with it"
    say(f"{name} {how}" if first else f"{name} was stopped before")
    return 0


async def _write_stop(reader: SQLiteReader, stream_id: str) -> bool:
    store = SQLiteStore(reader.path)
    await store.open()
    try:
        first = store.cancel(stream_id, "mas cancel")
        await store.settled()
        return first
    finally:
        await store.aclose()
