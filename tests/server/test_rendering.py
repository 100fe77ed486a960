"""Readers of one stream, fast and slow, early and late: each sees all of it, once, in order."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo, StoreClosed, StreamReset
from multi_agent_scheduler.records import Completed, Record, Reset, Text
from multi_agent_scheduler.server import Settings
from multi_agent_scheduler.server.compression import packer
from multi_agent_scheduler.server.events import NativeRenderer
from multi_agent_scheduler.server.face import Renderer
from multi_agent_scheduler.server.relay import Message, Opening, Relay
from multi_agent_scheduler.server.rendering import Reader, Renderings
from multi_agent_scheduler.store.base import Batch, Log
from multi_agent_scheduler.testing import ScriptedAgent

from .served import events_of, serving, task


class Paged(Log):
    """A log that gives out at most ``page`` records at once."""

    def __init__(self, page: int) -> None:
        self.records: list[Record] = []
        self.page = page
        self.listeners: list[Callable[[], None]] = []
        self.error: Exception | None = None

    def add(self, *records: Record) -> None:
        self.records += records
        for notify in list(self.listeners):
            notify()

    def read(self, after: int) -> Sequence[Record]:
        if self.error is not None:
            raise self.error
        return self.records[after : after + self.page]

    def batches(self, after: int) -> Sequence[Batch]:
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        return bool(self.records) and isinstance(self.records[-1], Completed)

    def subscribe(self, notify: Callable[[], None]) -> None:
        self.listeners.append(notify)

    def unsubscribe(self, notify: Callable[[], None]) -> None:
        self.listeners.remove(notify)

    async def wait(self, after: int) -> None:
        raise NotImplementedError


class Numbered(Renderer):
    """Says each text; a stateful one also how many records there were before."""

    made = 0

    def __init__(self, stateful: bool) -> None:
        self.stateful = stateful
        self.count = 0
        type(self).made += 1

    def feed(self, first: int, records: Sequence[Record]) -> bytes:
        said = b""
        for record in records:
            self.count += 1
            if isinstance(record, Reset):
                raise StreamReset("begins again")
            text = record.text if isinstance(record, Text) else "end"
            said += b"%d:%b;" % (self.count if self.stateful else first, text.encode())
            first += 1
        return said

    def broken(self, error: ErrorInfo) -> bytes:
        return error.code.encode()


class Slow(Reader):
    """A reader that takes things only while ``takes`` is above 0."""

    def __init__(self, after: int, most: int | None = None) -> None:
        super().__init__(after)
        self.most = most
        self.takes = 0
        self.said = b""
        self.broken: ErrorInfo | None = None

    @property
    def ready(self) -> bool:
        return self.takes > 0 and self.broken is None

    def show(self, records: Sequence[Record], data: bytes) -> None:
        assert self.ready
        self.takes -= 1
        self.seq += len(records)
        self.said += data

    def break_off(self, error: ErrorInfo) -> None:
        self.broken = error


def expected(count: int, after: int) -> bytes:
    said = [f"{number}:{number};" for number in range(1, count + 1)]
    return "".join(said[after:]).encode()


actions = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 5)),
    st.tuples(st.just("take"), st.integers(0, 3), st.integers(1, 4)),
    st.tuples(st.just("join"), st.integers(0, 3), st.integers(0, 6), st.sampled_from([None, None, 1])),
    st.tuples(st.just("leave"), st.integers(0, 3)),
)


@given(st.booleans(), st.integers(1, 4), st.lists(actions, max_size=40))
def test_every_reader_gets_all_of_it_once(stateful: bool, page: int, plan: list[Any]) -> None:
    log, renderings = Paged(page), Renderings()
    readers: dict[int, tuple[Slow, int]] = {}

    def grown(reader: Slow) -> None:
        rendering = renderings.of("k", lambda: log, lambda: Numbered(stateful))
        rendering.grew()

    for action in plan:
        match action:
            case ("add", count):
                log.add(*(Text(str(len(log.records) + number)) for number in range(1, count + 1)))
            case ("take", number, count) if number in readers:
                readers[number][0].takes += count
                grown(readers[number][0])
            case ("join", number, after, most) if number not in readers:
                after = min(after, len(log.records))
                reader = Slow(after, most)
                readers[number] = reader, after
                renderings.of("k", lambda: log, lambda: Numbered(stateful), after=after).join(reader)
            case ("leave", number) if number in readers:
                reader, after = readers.pop(number)
                renderings.of("k", lambda: log, lambda: Numbered(stateful)).leave(reader)
                assert reader.said == expected(reader.seq, after)
    for reader, _ in readers.values():
        reader.takes = 1000
    for reader, after in readers.values():
        grown(reader)
        assert reader.said == expected(len(log.records), after)
    for reader, _ in readers.values():
        renderings.of("k", lambda: log, lambda: Numbered(stateful)).leave(reader)
    assert not log.listeners
    assert not renderings._known


def test_readers_at_the_same_place_share_what_is_rendered() -> None:
    log, renderings = Paged(100), Renderings()
    rendering = renderings.of("k", lambda: log, lambda: Numbered(stateful=True))
    readers = [Slow(0) for _ in range(10)]
    for reader in readers:
        reader.takes = 1000
        rendering.join(reader)
    made = Numbered.made
    for number in range(1, 100):
        log.add(Text(str(number)))
    assert Numbered.made == made
    assert {reader.said for reader in readers} == {expected(99, 0)}
    late = Slow(0)
    late.takes = 1000
    rendering.join(late)
    assert late.own is None  # it has caught up, and goes on with the others
    log.add(Text("100"))
    assert late.said == readers[0].said == expected(100, 0)


async def test_many_who_are_far_behind_let_others_have_their_turn() -> None:
    log, renderings = Paged(1), Renderings()
    log.add(*(Text("x" * 100_000) for _ in range(20)))
    rendering = renderings.of("k", lambda: log, lambda: Numbered(stateful=False), after=20)
    behind, front = [Slow(0) for _ in range(50)], Slow(20)
    rendering.join(front)
    for reader in behind:
        reader.takes = 1000
        rendering.join(reader)
    front.takes = 1000
    rendering.grew()
    assert (
        sum(len(reader.said) for reader in behind) < 500_000
    )  # in one turn of the loop, however many come and wake it
    log.add(Text("new"))
    assert front.said == b"21:new;"  # who is not behind waits for none of them
    turns = 0
    while any(reader.seq < 21 for reader in behind):
        before = sum(len(reader.said) for reader in behind)
        await asyncio.sleep(0)
        assert 0 < sum(len(reader.said) for reader in behind) - before < 500_000
        assert max(reader.seq for reader in behind) - min(reader.seq for reader in behind) <= 6  # each in its turn
        turns += 1
    assert turns > 100
    assert len({reader.said for reader in behind}) == 1


class Full:
    """The way to a connection that takes nothing more."""

    def write(self, data: bytes) -> bool:
        return False

    def abort(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("text", ["x", "x" * 1000])
@pytest.mark.parametrize("together", [True, False])
async def test_a_reader_whose_connection_is_full_holds_a_page_and_no_more(text: str, together: bool) -> None:
    log, renderings, waiting = Paged(100_000), Renderings(), asyncio.Event()
    log.add(*[Text(text)] * 5000)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) > 1:  # the headers are the first; then nothing is taken
            waiting.set()
            await asyncio.get_running_loop().create_future()

    rendering = renderings.of("k", lambda: log, lambda: NativeRenderer("s", 1))
    first = Slow(0)
    if not together:
        first.takes = 10_000
        rendering.join(first)
    relay = Relay(rendering, send, Opening([]), direct=Full())
    relay.start()
    await waiting.wait()
    held = sum(len(message["body"]) for message in sent if "body" in message)
    assert 0 < held <= 64 * 1024
    assert relay.seq < 1000
    assert relay.own is None or not relay.own.ahead
    relay.leave()
    rendering.leave(first)


@pytest.mark.parametrize(
    ("error", "code"),
    [(StoreClosed("the store is closed"), "interrupted"), (ZeroDivisionError("a bug"), "internal_error")],
)
def test_what_cannot_be_read_on_breaks_readers_off_and_nobody_else(error: Exception, code: str) -> None:
    log, renderings = Paged(100), Renderings()
    rendering = renderings.of("k", lambda: log, lambda: Numbered(stateful=False))
    reader = Slow(0)
    reader.takes = 1000
    rendering.join(reader)
    log.error = error
    log.add(Text("1"))  # whoever writes the log notices nothing
    assert reader.broken is not None
    assert reader.broken.code == code


def test_a_reset_that_cannot_be_told_breaks_readers_off() -> None:
    log, renderings = Paged(100), Renderings()
    reader = Slow(0)
    reader.takes = 1000
    renderings.of("k", lambda: log, lambda: Numbered(stateful=True)).join(reader)
    log.add(Text("1"))
    log.add(Reset(1, "again"))
    assert reader.said == b"1:1;"
    assert reader.broken is not None
    assert reader.broken.code == "stream_reset"


# --- pace -------------------------------------------------------------------------------------------------------


async def test_a_reader_with_a_pace_is_slowed_and_nobody_else() -> None:
    async with serving({"a": ScriptedAgent([Text(str(number)) for number in range(10)])}) as served:
        streams = await served.submit(task())
        whole = await served.events(streams["a"])
        loop = asyncio.get_running_loop()
        began = loop.time()
        slow = await served.http.get(f"/v1/streams/{streams['a']}?pace=100/s", headers={"accept": "text/event-stream"})
        assert loop.time() - began >= 0.09
        assert slow.content == whole.content
        for pace in ("fast", "0", "-1"):
            bad = await served.http.get(
                f"/v1/streams/{streams['a']}", params={"pace": pace}, headers={"accept": "text/event-stream"}
            )
            assert bad.status_code == 400
            assert "pace" in bad.json()["detail"]


async def test_a_reader_with_a_pace_that_leaves_is_forgotten() -> None:
    async with serving({"a": ScriptedAgent(["x", "y", "z"])}) as served:
        streams = await served.submit(task())
        path = f"/v1/streams/{streams['a']}?pace=1/min"
        async with served.http.stream("GET", path, headers={"accept": "text/event-stream"}) as answer:
            async for _ in answer.aiter_bytes():
                break


# --- compression ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br, zstd", b"zstd"),
        ("gzip", b"gzip"),
        ("GZIP;q=0.5", b"gzip"),
        ("*", b"zstd"),
        ("zstd;q=0, *", b"gzip"),
        ("gzip;q=0, identity", None),
        ("gzip;q=x", None),
        ("br", None),
        ("", None),
    ],
)
def test_the_encoding_is_one_that_the_client_likes(accepted: str, encoding: bytes | None) -> None:
    found = packer(accepted)
    assert (None if found is None else found.encoding) == encoding


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@given(pieces=st.lists(st.binary(max_size=300), min_size=1, max_size=10))
def test_each_piece_can_be_read_when_it_comes(encoding: str, pieces: list[bytes]) -> None:
    made = packer(encoding)
    assert made is not None
    reader: Any = zlib.decompressobj(31) if encoding == "gzip" else zstandard.ZstdDecompressor().decompressobj()
    for place, piece in enumerate(pieces, 1):
        assert reader.decompress(made.pack(piece, last=place == len(pieces))) == piece
    assert reader.eof


async def test_streams_are_compressed_where_both_want_it() -> None:
    texts = ["word " * 20] * 200
    settings = Settings(compression=True, access_log=False)
    async with serving({"a": ScriptedAgent(*texts)}, settings=settings) as served:
        streams = await served.submit(task())
        plain = await served.events(streams["a"], **{"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        for encoding in ("gzip", "zstd"):
            packed = await served.events(streams["a"], **{"accept-encoding": encoding})
            assert packed.headers["content-encoding"] == encoding
            assert packed.headers["vary"] == "accept-encoding"
            assert packed.num_bytes_downloaded < len(plain.content) / 4
            assert packed.content == plain.content
    async with serving({"a": ScriptedAgent(*texts)}) as served:
        streams = await served.submit(task())
        answer = await served.events(streams["a"], **{"accept-encoding": "gzip"})
        assert "content-encoding" not in answer.headers


async def test_a_compressed_stream_comes_piece_by_piece() -> None:
    gate = asyncio.Event()
    settings = Settings(compression=True, access_log=False)
    async with serving({"a": ScriptedAgent("one", gate, "two")}, settings=settings) as served:
        streams = await served.submit(task())
        headers = {"accept": "text/event-stream", "accept-encoding": "gzip"}
        seen = b""
        async with served.http.stream("GET", f"/v1/streams/{streams['a']}", headers=headers) as answer:
            assert isinstance(answer, httpx.Response)
            async for piece in answer.aiter_bytes():
                seen += piece
                if b'"one"' in seen:
                    gate.set()
        assert events_of(seen)[-1].type == "end"
