"""What every store must do, as tests, and as a model to compare with under any schedule."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from ..errors import CursorError, LogFull, LogTrimmed, StoreClosed, StoreError, StreamExists, StreamNotFound
from ..records import TERMINALS, Cancelled, Completed, Record, Text, terminal_name
from ..store.base import Store
from ..store.core import Fenced, Lease, StreamSpec
from ..store.follow import Follower
from ..views.summary import summarise

__all__ = ["Model", "Place", "StoreConformance", "everything"]


class Place(ABC):
    """Where a store keeps what it keeps."""

    durable: bool = True
    """Whether anything outlives :meth:`crash`."""
    trims: bool = False
    """Whether its stores trim old logs; then :meth:`age` must be there."""

    @abstractmethod
    async def store(self) -> Store:
        """A store, opened, with what was kept here before."""

    def age(self) -> None:
        """Let so much time pass that the stores made here trim the logs of all streams that have ended by now, at the
        latest when the next one has ended and the store has been closed."""
        raise NotImplementedError

    async def crash(self, store: Store) -> None:
        """End a store as if its process had been killed: nothing that it has not kept may be kept afterwards."""
        raise NotImplementedError


async def everything(store: Store, stream_id: str, after: int = 0) -> list[Record]:
    """The whole of a stream that ends, from behind a cursor."""
    follower = Follower(store, stream_id, after)
    found: list[Record] = []
    while records := await follower.next():
        found += records
    return found


def at_hand(store: Store, stream_id: str, after: int = 0) -> list[Record]:
    """What a stream shows now."""
    follower = Follower(store, stream_id, after)
    found: list[Record] = []
    while records := follower.at_hand():
        found += records
    return found


class _Stream:
    """What should be true of one stream."""

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        self.records: list[Record] = []
        self.lease: Lease | None = None
        self.epoch = 0
        self.stop: str | None = None
        self.ended = False
        self.dead: list[Lease] = []
        """Leases that are not live any more."""
        self.cursor = 0
        """A reader of its own: what it has been shown may never change."""


class Model:
    """A store beside what should be true of it. Each step may be taken at any time; :meth:`check` after any of them."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._streams: dict[str, _Stream] = {}
        self._written = 0
        self.store: Store

    async def begin(self) -> None:
        """Open the store; before anything else."""
        self.store = await self._place.store()

    async def end(self) -> None:
        """Check all of it, and close the store."""
        await self.check()
        await self.store.aclose()

    # --- steps ----------------------------------------------------------------------------------------------------

    async def submit(self, names: Sequence[str]) -> None:
        """Submit streams, all or none."""
        specs = [StreamSpec(name, f"task {name}", "plan", "somebody", name.encode()) for name in names]
        if len(set(names)) < len(names) or any(name in self._streams for name in names):
            await _raises(StoreError, self.store.submit(specs))
        else:
            await self.store.submit(specs)
            self._streams.update((name, _Stream(name)) for name in names)

    async def claim(self, name: str) -> None:
        stream = self._streams.get(name)
        if stream is None:
            await _raises(StreamNotFound, self.store.claim(name))
        elif stream.ended or stream.lease is not None:
            await _raises(Fenced, self.store.claim(name))
        else:
            stream.lease = await self.store.claim(name)
            assert stream.lease.epoch > stream.epoch, "an epoch must be later than all before it"
            stream.epoch = stream.lease.epoch

    async def start(self, name: str) -> None:
        """Submit and claim in one step."""
        spec = StreamSpec(name, f"task {name}", "plan", "somebody", name.encode())
        if name in self._streams:
            await _raises(StoreError, self.store.begin(spec))
        else:
            lease = await self.store.begin(spec)
            stream = self._streams[name] = _Stream(name)
            stream.lease, stream.epoch = lease, lease.epoch

    def append(self, name: str, count: int, *, size: int = 4) -> None:
        """Append one batch under the live lease, and try to under those that are not live."""
        stream = self._streams.get(name)
        if stream is None:
            return
        batch: list[Record] = [Text(f"{self._written + number:0{size}}") for number in range(count)]
        for lease in stream.dead[-3:]:
            _refused(partial(self.store.append, lease, batch))
        if stream.lease is not None:
            first = self.store.append(stream.lease, batch)
            assert first == len(stream.records) + 1, "seq must count without a gap"
            self._written += count
            stream.records += batch

    def finish(self, name: str) -> None:
        stream = self._streams.get(name)
        if stream is None:
            return
        for lease in stream.dead[-3:]:
            _refused(partial(self.store.finish, lease, [Completed("stop")]))
        if stream.lease is not None:
            last: list[Record] = [Text("last"), Cancelled(stream.stop) if stream.stop else Completed("stop")]
            self.store.finish(stream.lease, last)
            stream.records += last
            stream.ended = True
            stream.dead.append(stream.lease)
            stream.lease = None

    def expire(self, name: str) -> None:
        stream = self._streams.get(name)
        if stream is not None and stream.lease is not None:
            self.store.expire(name)
            stream.dead.append(stream.lease)
            stream.lease = None
        elif stream is not None:
            _refused(lambda: self.store.expire(name))

    def cancel(self, name: str, reason: str) -> None:
        stream = self._streams.get(name)
        if stream is not None:
            first = self.store.cancel(name, reason)
            assert first == (stream.stop is None and not stream.ended), "only the first stop counts"
            if first:
                stream.stop = reason

    def read(self, name: str) -> None:
        """A reader goes on; what it is shown must be what was written next."""
        stream = self._streams.get(name)
        if stream is not None and not self._is_trimmed(stream):
            found = at_hand(self.store, name, stream.cursor)
            assert found == stream.records[stream.cursor : stream.cursor + len(found)], (
                "a reader was shown something else"
            )
            stream.cursor += len(found)

    async def settle(self) -> None:
        """Wait until all is kept; then all of it can be read."""
        await self.store.settled()
        for stream in self._streams.values():
            if not self._is_trimmed(stream):
                assert at_hand(self.store, stream.stream_id) == stream.records, "what was settled must be shown"

    async def age(self) -> None:
        """Let time pass, so that a store that trims does so with all that has ended, and open it anew."""
        if self._place.trims:
            await self.store.settled()
            self._place.age()
            await self.reopen()

    async def reopen(self) -> None:
        """Close and open anew: nothing is lost."""
        if self._place.durable:
            await self.store.aclose()
            await self.store.settled()
            self.store = await self._place.store()
            for stream in self._streams.values():
                self._lost_lease(stream)
            await self.settle()

    async def crash(self) -> None:
        """Kill and open anew: whatever was acknowledged or shown is there, and what is there was written."""
        if not self._place.durable:
            return
        for stream in self._streams.values():
            self.read(stream.stream_id)
        await self._place.crash(self.store)
        self.store = await self._place.store()
        for stream in self._streams.values():
            info = self.store.info(stream.stream_id)
            if info.trimmed:
                continue
            kept = at_hand(self.store, stream.stream_id)
            assert len(kept) >= stream.cursor, "what a reader was shown was lost"
            assert kept == stream.records[: len(kept)], "what is kept must be a prefix of what was written"
            stream.records = kept
            stream.ended = bool(kept) and isinstance(kept[-1], TERMINALS)
            assert info.stop_reason in (None, stream.stop)
            stream.stop = info.stop_reason
            stream.epoch = info.epoch
            self._lost_lease(stream)

    def _lost_lease(self, stream: _Stream) -> None:
        if stream.lease is not None:
            stream.dead.append(stream.lease)
            stream.lease = None

    def _is_trimmed(self, stream: _Stream) -> bool:
        """Check what must hold of a log that is trimmed; false for one that is not."""
        info = self.store.info(stream.stream_id)
        if not info.trimmed:
            return False
        assert stream.ended and info.ended, "only logs of streams that have ended are trimmed"
        assert info.seq == len(stream.records), "a log that is trimmed reaches as far as it did"
        log = self.store.log(stream.stream_id)
        assert log.ended
        for after in {0, stream.cursor} - {info.seq}:
            _fails(LogTrimmed, partial(log.read, after))
            _fails(LogTrimmed, partial(log.batches, after))
            _fails(LogTrimmed, partial(Follower, self.store, stream.stream_id, after))
        assert not log.read(info.seq) and not at_hand(self.store, stream.stream_id, info.seq)
        assert summarise(log.digest()) == summarise(log.whole()) == summarise(stream.records)
        return True

    # --- what must hold -------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """What a reader sees of every stream is a prefix of what was written, with one terminal, at its end."""
        known = self.store.streams()
        assert [info.stream_id for info in known] == list(self._streams), "streams must be listed as they came"
        for info in known:
            stream = self._streams[info.stream_id]
            if self._is_trimmed(stream):
                continue
            shown = at_hand(self.store, info.stream_id)
            assert shown == stream.records[: len(shown)]
            assert info.seq == len(shown), "the seq that is told is that of what is shown"
            ended = bool(shown) and isinstance(shown[-1], TERMINALS)
            assert info.ended == ended == self.store.log(info.stream_id).ended
            assert not any(isinstance(record, TERMINALS) for record in shown[:-1]), "a second terminal"
            if info.ended:
                assert isinstance(shown[-1], TERMINALS) and info.state == terminal_name(shown[-1])
            batches = self.store.log(info.stream_id).batches(stream.cursor)
            some = [record for batch in batches for record in batch.records]
            assert some == shown[stream.cursor : stream.cursor + len(some)], "batches are the log, cut otherwise"
            assert bool(some) == (stream.cursor < len(shown))


async def _raises(kind: type[Exception], doing: Awaitable[object]) -> None:
    try:
        await doing
    except kind:
        return
    raise AssertionError(f"{kind.__name__} should have been raised")


def _fails(kinds: type[Exception] | tuple[type[Exception], ...], doing: Callable[[], object]) -> None:
    try:
        doing()
    except kinds:
        return
    raise AssertionError(f"{kinds} should have been raised")


def _refused(doing: Callable[[], object]) -> None:
    """A lease that is not live is fenced off."""
    _fails(Fenced, doing)


class StoreConformance(ABC):
    """Tests of any store. :meth:`place` gives a new place each time it is called; each test calls it once."""

    @abstractmethod
    def place(self) -> Place:
        """A place in which nothing is kept yet."""

    async def test_a_log_is_read_while_it_grows_and_after_it_has_ended(self) -> None:
        store = await self.place().store()
        await store.submit([StreamSpec("s", "t")])
        lease = await store.claim("s")
        early = asyncio.create_task(everything(store, "s"))
        written: list[Record] = []
        for number in range(1500):
            batch: list[Record] = [Text(f"{number}.{part} ") for part in range(number % 4)] or [Text("x")]
            assert store.append(lease, batch) == len(written) + 1
            written += batch
            if number % 100 == 0:
                await asyncio.sleep(0)
        await store.settled()
        late = asyncio.create_task(everything(store, "s", 700))
        await asyncio.sleep(0)
        store.finish(lease, [Completed("stop")])
        written.append(Completed("stop"))
        assert await early == written
        assert await late == written[700:]
        for after in (0, 1, 511, 512, 513, len(written) - 1, len(written)):
            assert await everything(store, "s", after) == written[after:]
        await store.aclose()

    async def test_the_times_of_batches_are_kept(self) -> None:
        store = await self.place().store()
        await store.submit([StreamSpec("s", "t")])
        lease = await store.claim("s")
        for number in range(1000):
            store.append(lease, [Text("a"), Text(str(number))])
            if number % 300 == 0:
                await asyncio.sleep(0)
        store.finish(lease, [Completed("stop")])
        await store.settled()
        seen, last, sizes = 0, 0.0, []
        info, log = store.info("s"), store.log("s")
        while batches := log.batches(seen):
            for batch in batches:
                assert batch.at >= last and info.created - 1 <= batch.at <= (info.ended_at or 0) + 1
                last, seen = batch.at, seen + len(batch.records)
                sizes.append(len(batch.records))
        assert sizes == [2] * 1000 + [1]
        assert [len(batch.records) for batch in log.batches(3)[:2]] == [1, 2]
        await store.aclose()

    async def test_all_are_accepted_or_none(self) -> None:
        store = await self.place().store()
        await store.submit([StreamSpec("a", "t")])
        for names in (["b", "a"], ["b", "b"]):
            await _raises(StoreError, store.submit([StreamSpec(name, "t") for name in names]))
        assert [info.stream_id for info in store.streams()] == ["a"]
        await store.submit([StreamSpec("b", "t")])
        await store.aclose()

    async def test_streams_are_listed_by_what_they_are(self) -> None:
        store = await self.place().store()
        specs = [StreamSpec(f"s{n}", f"t{n}", "p" if n % 2 else None, "me" if n > 5 else "") for n in range(10)]
        await store.submit(specs)
        store.finish(await store.claim("s9"), [Completed("stop")])
        await store.claim("s8")
        await store.settled()

        def names(**choice: object) -> list[str]:
            return [info.stream_id for info in store.streams(**choice)]  # type: ignore[arg-type]

        assert names() == [spec.stream_id for spec in specs]
        assert names(plan_id="p") == ["s1", "s3", "s5", "s7", "s9"]
        assert names(owner="me") == ["s6", "s7", "s8", "s9"]
        assert names(owner="") == ["s0", "s1", "s2", "s3", "s4", "s5"]
        assert names(states=["completed", "running"]) == ["s8", "s9"]
        assert names(states=["queued"], owner="me") == ["s6", "s7"]
        assert names(limit=3) == ["s7", "s8", "s9"]
        assert names(limit=3, before="s7") == ["s4", "s5", "s6"]
        assert names(plan_id="other") == names(before="s0") == names(limit=0) == names(states=[]) == []
        _fails(StreamNotFound, lambda: store.streams(before="nothing"))
        await store.aclose()

    async def test_only_the_holder_of_the_lease_writes(self) -> None:
        store = await self.place().store()
        await store.submit([StreamSpec("s", "t")])
        first = await store.claim("s")
        await _raises(Fenced, store.claim("s"))
        store.append(first, [Text("one")])
        store.expire("s")
        _refused(lambda: store.append(first, [Text("late")]))
        second = await store.claim("s")
        assert second.epoch > first.epoch
        _refused(lambda: store.finish(first, [Completed("stop")]))
        store.finish(second, [Completed("stop")])
        for lease in (first, second):
            _refused(partial(store.append, lease, [Text("too late")]))
        await _raises(Fenced, store.claim("s"))
        assert await everything(store, "s") == [Text("one"), Completed("stop")]
        await store.settled()
        _refused(lambda: store.append(second, [Text("too late")]))
        await _raises(Fenced, store.claim("s"))
        await store.aclose()

    async def test_a_stream_is_accepted_and_claimed_in_one_step(self) -> None:
        store = await self.place().store()
        lease = await store.begin(StreamSpec("s", "t", "p", "o", b"what to do"))
        assert store.info("s").state == "running"
        assert store.body("s") == b"what to do"
        await _raises(Fenced, store.claim("s"))
        await _raises(StreamExists, store.begin(StreamSpec("s", "t")))
        store.append(lease, [Text("one")])
        store.expire("s")
        assert (await store.claim("s")).epoch > lease.epoch
        _refused(lambda: store.append(lease, [Text("late")]))
        await store.aclose()

    async def test_a_stop_is_remembered_once(self) -> None:
        store = await self.place().store()
        await store.submit([StreamSpec("s", "t")])
        assert store.cancel("s", "one")
        assert not store.cancel("s", "two")
        assert store.info("s").stop_reason == "one"
        store.finish(await store.claim("s"), [Cancelled("one")])
        await store.settled()
        assert not store.cancel("s", "three")
        _fails(StreamNotFound, lambda: store.cancel("other", "x"))
        _fails(StreamNotFound, lambda: store.info("other"))
        _fails(StreamNotFound, lambda: store.log("other"))
        await store.aclose()

    async def test_of_a_trimmed_log_stays_what_it_said(self) -> None:
        place = self.place()
        if not place.trims:
            return
        model = Model(place)
        await model.begin()
        await model.submit(["old", "live", "new"])
        for name in ("old", "live"):
            await model.claim(name)
            model.append(name, 3000)
        model.finish("old")
        await model.settle()
        assert not model.store.info("old").trimmed and not model.store.log("old").digest()
        place.age()
        await model.claim("new")
        model.finish("new")
        await model.settle()
        await model.reopen()
        assert [info.trimmed for info in model.store.streams()] == [True, False, False]
        assert model.store.info("old").size < 3000 * 5
        await model.end()

    async def test_cursors_that_cannot_be_are_refused(self) -> None:
        store = await self.place().store()
        await store.submit([StreamSpec("s", "t")])
        store.finish(await store.claim("s"), [Text("x"), Completed("stop")])
        await store.settled()
        cursors: tuple[Any, ...] = (-1, 3, True, "2")
        for cursor in cursors:
            _fails(CursorError, partial(Follower, store, "s", cursor))
        await store.aclose()

    async def test_what_is_no_data_is_refused_and_the_store_goes_on(self) -> None:
        store = await self.place().store()
        await store.submit([StreamSpec("s", "t")])
        lease = await store.claim("s")
        texts: tuple[Any, ...] = ("half a pair: \ud800", object())
        for text in texts:
            _fails((ValueError, TypeError, AttributeError), partial(store.append, lease, [Text(text)]))
        store.finish(lease, [Completed("stop")])
        assert await everything(store, "s") == [Completed("stop")]
        await store.aclose()

    async def test_a_full_log_takes_its_end(self) -> None:
        store = await self.place().store()
        await store.submit([StreamSpec("s", "t")])
        lease = await store.claim("s")
        big = Text("x" * 20_000_000)
        count = 0
        try:
            while count < 100:
                store.append(lease, [big])
                count += 1
        except LogFull:
            pass
        assert 0 < count < 100
        store.finish(lease, [Completed("stop")])
        assert len(await everything(store, "s")) == count + 1
        await store.aclose()

    async def test_a_follower_that_is_cancelled_leaves_the_others(self) -> None:
        store = await self.place().store()
        await store.submit([StreamSpec("s", "t")])
        lease = await store.claim("s")
        leaving = asyncio.create_task(Follower(store, "s").next())
        other = asyncio.create_task(Follower(store, "s").next())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait({leaving})
        store.append(lease, [Text("x")])
        assert await other == [Text("x")]
        await store.aclose()

    async def test_those_who_are_subscribed_are_called(self) -> None:
        store = await self.place().store()
        await store.submit([StreamSpec("s", "t")])
        lease, log = await store.claim("s"), store.log("s")
        called = asyncio.Event()
        log.subscribe(called.set)
        store.append(lease, [Text("x")])
        await called.wait()
        assert log.read(0) == [Text("x")]
        log.unsubscribe(called.set)
        called.clear()
        store.append(lease, [Text("y")])
        await store.settled()
        assert not called.is_set()
        await store.aclose()

    async def test_a_closed_store_takes_nothing_and_tells_those_who_wait(self) -> None:
        store = await self.place().store()
        await store.submit([StreamSpec("s", "t")])
        lease, follower = await store.claim("s"), Follower(store, "s")
        waiting = asyncio.create_task(follower.next())
        await asyncio.sleep(0)
        await store.aclose()
        await _raises(StoreClosed, waiting)
        await _raises(StoreClosed, store.submit([StreamSpec("other", "t")]))
        await _raises(StoreClosed, store.claim("s"))
        _fails(StoreClosed, lambda: store.append(lease, [Text("x")]))
        _fails(StoreClosed, lambda: store.finish(lease, [Completed("stop")]))
        await store.aclose()
