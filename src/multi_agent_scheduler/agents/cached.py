"""Answers that were given before are given again, and requests that are under way are joined."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from itertools import count
from threading import Lock
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

import msgspec

from ..errors import InvalidConfiguration, InvalidOption
from ..records import SUCCESSFUL, CallEnded, CallStarted, Completed, Record, Usage
from ..request import Request
from .base import Agent, Batch, LeafAgent
from .composite import Composite
from .context import Context
from .flight import Flight

__all__ = ["Cache", "Cached"]

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 128
"""Records of a kept answer that are given out in one batch."""

_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_replace = msgspec.structs.replace


class _Kept(msgspec.Struct, array_like=True):
    """An answer as it is kept: its batches, and when each came, in seconds from the start."""

    batches: list[list[Record]]
    times: list[float]


_decode: Final = msgspec.msgpack.Decoder(_Kept).decode


class Cache:
    """Answers, in memory, for ``ttl`` seconds and in at most ``max_bytes``; those used longest ago go first.

    Several :class:`Cached` agents may share one: what is kept belongs to one agent, one owner and one request. ``hits``
    and ``misses`` count the requests; one that joins another under way is a hit. ``clock`` gives seconds.
    """

    def __init__(
        self,
        *,
        ttl: float = 3600.0,
        max_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(ttl, bool) or not isinstance(ttl, int | float) or math.isnan(ttl) or ttl <= 0:
            raise InvalidOption(f"ttl must be a number of seconds above 0, not {ttl!r}")
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
            raise InvalidOption(f"max_bytes must be a whole number from 0, not {max_bytes!r}")
        self.ttl = ttl
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()  # by last use; when it ends, and the answer
        self._size = 0
        self._lock = Lock()  # the loops of several threads may share a cache; what is under way belongs to one loop
        self._flights: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, Flight]] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """How many bytes the kept answers take."""
        return self._size

    def clear(self) -> None:
        """Forget all answers."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def find(self, key: bytes) -> bytes | None:
        """What is kept under a key."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            if self._clock() >= found[0]:
                self._drop(key)
                return None
            self._kept.move_to_end(key)
            return found[1]

    def keep(self, key: bytes, answer: bytes) -> None:
        """Keep an answer; one that is too large for the whole cache is not kept."""
        with self._lock:
            if key in self._kept:
                self._drop(key)
            size = len(key) + len(answer)
            if size > self.max_bytes:
                return
            self._kept[key] = (self._clock() + self.ttl, answer)
            self._size += size
            while self._size > self.max_bytes:
                self._drop(next(iter(self._kept)))

    def flights(self) -> dict[object, Flight]:
        """What is under way in the running loop."""
        return self._flights.setdefault(asyncio.get_running_loop(), {})

    def _drop(self, key: bytes) -> None:
        self._size -= len(key) + len(self._kept.pop(key)[1])


class Cached(Composite):
    """An agent whose answers are kept: a request that was answered before is answered at once, by the same records.

    Requests are the same if all of them is: messages, images, tools, options, ``extra``; and if they come from the same
    owner and go to the same agent and model. Answers are kept whatever the temperature, if they were completed
    successfully. The Calls and the usage of an answer that is given again are marked ``cached``.
    ``pace="original"`` gives it out as slowly as it came, otherwise it comes at once.

    A request that is under way is joined: one Call for all who ask the same, each of whom gets the whole stream from
    its beginning. It stops when the last of them leaves. If it fails before it has said anything, one of those who
    joined asks again, and the others join that.

    An agent is itself and no other, even if that has the same settings; ``identity`` is a name to share answers under.
    """

    def __init__(
        self,
        agent: Agent | Callable[..., Any],
        cache: Cache | None = None,
        *,
        pace: Literal["fast", "original"] = "fast",
        identity: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__((agent,), name)
        self.name = name or self.agents[0].name
        if cache is not None and not isinstance(cache, Cache):
            raise InvalidConfiguration(f"Cached: cache must be a Cache, not {cache!r}")
        if pace not in ("fast", "original"):
            raise InvalidOption(f"Cached: pace must be 'fast' or 'original', not {pace!r}")
        self.cache = Cache() if cache is None else cache
        self._pace = pace
        self._identity = identity

    async def batches(self, request: Request, ctx: Context) -> AsyncGenerator[Batch, None]:
        ctx.begin()
        agent, cache = self.agents[0], self.cache
        request = agent.adopt(request)
        key = self._key(request, ctx)
        if key is None:
            async with aclosing(agent.batches(request, ctx)) as batches:
                async for batch in batches:
                    yield batch
            return
        # Those who join share the time limits and the policy of the first: with others it is another request.
        under_way, place = cache.flights(), (key, ctx.timeouts, ctx.policy)
        for chance in ("first", "last"):
            kept = cache.find(key)
            if kept is not None:
                self._count(ctx, hit=True)
                async with aclosing(self._kept(kept, ctx)) as batches:
                    async for batch in batches:
                        yield batch
                return
            flight = under_way.get(place)
            if flight is None:
                self._count(ctx, hit=False)
                flight = under_way[place] = Flight(agent, request, ctx, lambda it: self._landed(it, key, place))
                async with aclosing(flight.read()) as batches:
                    async for batch in batches:
                        yield batch
                return
            joined = _Joined(flight, ctx, again=chance == "first")
            async with aclosing(joined.batches()) as batches:
                async for batch in batches:
                    if not joined.counted:
                        joined.counted = True
                        self._count(ctx, hit=True)
                    yield batch
            if joined.counted:
                return

    def _landed(self, flight: Flight, key: bytes, place: object) -> None:
        under_way = self.cache.flights()
        if under_way.get(place) is flight:
            del under_way[place]
        terminal = flight.terminal
        if isinstance(terminal, Completed) and terminal.stop_reason in SUCCESSFUL:
            try:
                answer = _encode(_Kept([list(batch) for batch in flight.batches], flight.times))
            except (TypeError, ValueError, OverflowError) as error:  # something of the user's own in the records
                _log.debug("an answer of %s cannot be kept: %s", self.name, error)
            else:
                self.cache.keep(key, answer)

    async def _kept(self, kept: bytes, ctx: Context) -> AsyncGenerator[Batch, None]:
        answer, again = _decode(kept), _Retold(ctx)
        if self._pace == "original":
            loop = asyncio.get_running_loop()
            began = loop.time()
            for batch, at in zip(answer.batches, answer.times, strict=True):
                wait = began + at - loop.time()
                if wait > 0:
                    await asyncio.sleep(wait)
                yield again.batch(batch)
            return
        together: list[Record] = []
        for batch in answer.batches:
            together += again.batch(batch)
            if len(together) >= _AT_ONCE:
                yield together
                together = []
        if together:
            yield together

    def _count(self, ctx: Context, *, hit: bool) -> None:
        if hit:
            self.cache.hits += 1
        else:
            self.cache.misses += 1
        ctx.count("cache.hits" if hit else "cache.misses")

    def _key(self, request: Request, ctx: Context) -> bytes | None:
        """What equals for requests that are the same; None for one that holds what cannot be compared."""
        from hashlib import sha256

        agent = self.agents[0]
        asked = self._identity if self._identity is not None else _number_of(agent)
        try:
            whole = _encode((1, asked, _models(agent, request), ctx.owner, request))
        except (TypeError, ValueError, OverflowError):
            return None
        return sha256(whole).digest()


class _Joined:
    """A flight as one more reader sees it: nothing, until it has content or stands as it is; then all of it.

    ``again``: a flight that dies before it has content shows nothing at all.
    """

    def __init__(self, flight: Flight, ctx: Context, *, again: bool) -> None:
        self.counted = False
        self._flight = flight
        self._ctx = ctx
        self._retold = _Retold(ctx)
        self._again = again

    async def batches(self) -> AsyncGenerator[Batch, None]:
        held: list[Record] = []
        flight, waits = self._flight, True
        self._ctx.waits(True)
        try:
            async with aclosing(flight.read()) as batches:
                async for batch in batches:
                    held += batch
                    if flight.content or (flight.terminal is not None and not (self._again and flight.died)):
                        if waits:
                            waits = False
                            self._ctx.waits(False)
                        told, held = held, []
                        yield self._retold.batch(told)
        finally:
            if waits:
                self._ctx.waits(False)


class _Retold:
    """Records of Calls that were made for somebody else, in the numbers of this stream's Calls."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._numbers: dict[int, int] = {}

    def batch(self, batch: Sequence[Record]) -> list[Record]:
        return [self._told(record) for record in batch]

    def _told(self, record: Record) -> Record:
        if isinstance(record, CallStarted):
            number = self._numbers[record.call] = self._ctx.next_call()
            return _replace(record, call=number, cached=True)
        if isinstance(record, CallEnded):
            usage = record.usage
            if usage is not None:
                usage = _replace(usage, call=self._numbers.get(usage.call, usage.call), cached=True)
            return _replace(record, call=self._numbers.get(record.call, record.call), usage=usage)
        if isinstance(record, Usage):
            return _replace(record, call=self._numbers.get(record.call, record.call), cached=True)
        return record


_numbers: WeakKeyDictionary[Agent, int] = WeakKeyDictionary()
_counter: Final = count(1)


def _number_of(agent: Agent) -> int:
    number = _numbers.get(agent)
    if number is None:
        number = _numbers[agent] = next(_counter)
    return number


def _models(agent: Agent, request: Request) -> list[Any]:
    """The models that a request may reach: an agent's may be changed while it is in use."""
    if isinstance(agent, Composite):
        return [_models(member, member.adopt(request)) for member in agent.members]
    return [agent._model(request)] if isinstance(agent, LeafAgent) else []
