"""One schedule: what a seed makes of a scheduler, its store, its providers and its users, step by step."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import random
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from multi_agent_scheduler.agents import Cache
from multi_agent_scheduler.errors import LogTrimmed, StoreError, StreamExists, StreamReset
from multi_agent_scheduler.events import EventBus
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import Cancelled, Completed, Text
from multi_agent_scheduler.recovery import recovery
from multi_agent_scheduler.scheduler import Handle, Limits, MultiAgentScheduler
from multi_agent_scheduler.store.core import Fenced
from multi_agent_scheduler.task import Budget, Task, Template, Timeouts
from tests.simulation.loop import SeededLoop
from tests.simulation.provider import Provider, composite
from tests.simulation.store import Disk
from tests.simulation.truth import AuditedDisk, AuditedMemory, Permits, Truth, log_of

PATIENCE: Final = 100_000.0
"""Virtual seconds after which a schedule ought to be over."""

PAUSES: Final = (0.0, 0.0, 0.0, 0.01, 0.3, 3.0, 40.0)


class Reader:
    """One who follows a stream, leaves, and comes back with a cursor, whatever happens to the process."""

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        self.cursor = 0
        self.done = False


class Life:
    """One life of the process: a scheduler, its providers, and those who are connected to it."""

    def __init__(self, schedule: Schedule) -> None:
        chance = schedule.chance
        self.permits = Permits(schedule.limits, schedule.truth)
        self.providers = [
            Provider(name, chance, self.permits, schedule.asked, chance.choice((None, 1, 2))) for name in ("p0", "p1")
        ]
        cache = Cache(clock=schedule.loop.time)
        drawn = random.Random(schedule.seed)  # the same agent in each life
        agents = dict(zip(("p0", "p1"), self.providers, strict=True), c=composite(drawn, *self.providers, cache))
        self.store = schedule.opened()
        self.scheduler = MultiAgentScheduler(
            agents,
            store=self.store,
            limits=schedule.limits,
            task_type_limits={"narrow": 1},
            max_running=schedule.max_running,
            event_bus=EventBus(),
            metrics=Metrics(),
            clock=schedule.loop.time,
        )
        self.clients: list[asyncio.Task[None]] = []

    def connect(self, client: Coroutine[Any, Any, None]) -> None:
        self.clients.append(asyncio.get_running_loop().create_task(client))


class Schedule:
    """What a seed says. :meth:`run` raises AssertionError where a promise is broken; :meth:`trace` tells the story."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        chance = self.chance = random.Random(seed)
        self.loop = SeededLoop(chance)
        self.tasks: dict[str, Task] = {}
        self.truth = Truth(self.tasks)
        self.durable = chance.random() < 0.6
        self.keep_logs = random.Random(f"logs {seed}").choice((math.inf, math.inf, 0.5))
        self.disk = Disk()
        self.max_running = chance.choice((1, 2, 1000))
        self.limits = {name: _limits(chance) for name in ("p0", "p1")}
        self.readers: list[Reader] = []
        self.handles: list[Handle] = []
        self._story: list[tuple[float, str]] = []

    # --- running --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            raise (self.truth.violation or error) from error
        if self.truth.violation is not None:
            raise self.truth.violation

    async def _main(self) -> None:
        self.life = Life(self)
        await self.life.scheduler.__aenter__()
        steps = [
            self._submit,
            self._submit,
            self._plan,
            self._plan,
            self._read,
            self._cancel,
            self._stream,
            self._resubmit,
        ]
        if self.durable:
            steps += [self._crash, self._expire, self._expire]
        for _ in range(self.chance.randint(2, 6)):
            await self.chance.choice(steps)()
            await asyncio.sleep(self.chance.choice(PAUSES))
        async with asyncio.timeout(PATIENCE):
            await self._finish()
        self._check_nothing_left()

    async def _finish(self) -> None:
        """Everything that was accepted ends, and everybody is told."""
        scheduler, clients = self.life.scheduler, self.life.clients
        for _ in range(100):
            await scheduler.wait_idle()
            resumed = self.durable and await scheduler.resume()
            busy = [client for client in clients if not client.done()]
            if busy:
                await asyncio.wait(busy, timeout=PATIENCE / 1000)
            elif not resumed:
                break
        else:
            raise AssertionError("it does not end")
        await asyncio.gather(*clients)
        await self.life.store.settled()
        self.truth.ended(self.life.store)
        for stream_id in self.truth.streams:
            if all(reader.stream_id != stream_id for reader in self.readers):
                self.readers.append(Reader(stream_id))
        for reader in self.readers:
            await self._follow(reader, self.life)
            assert reader.cursor == len(self.truth.streams[reader.stream_id].records), "a reader missed the end"
        await scheduler.aclose()

    def _check_nothing_left(self) -> None:
        life = self.life
        me = asyncio.current_task()
        left = [task.get_name() for task in self.loop.running if task is not me]
        assert not left, f"tasks are left behind: {left}"
        assert not any(life.permits.held.values()), f"permits were not given back: {dict(life.permits.held)}"
        assert not any(provider.sources for provider in life.providers), "a provider was not closed"

    # --- what may happen ------------------------------------------------------------------------------------------

    def _task(self, depends_on: tuple[str, ...] = ()) -> Task:
        chance, number = self.chance, len(self.tasks)
        name = f"t{number}"
        agent = chance.choice(("p0", "p1", "c", "c"))
        prompt: str | Template = "the same for all" if agent == "c" and chance.random() < 0.6 else f"<{name}>"
        if depends_on and chance.random() < 0.7:
            prompt = Template(f"<{name}>" + "".join(f"${{{parent}}}" for parent in depends_on))
        timeouts = Timeouts(
            queue=chance.choice((None, None, 30.0)),
            first_content=chance.choice((None, 5.0)),
            between_content=chance.choice((None, 1.0)),
            total=chance.choice((None, None, 20.0)),
        )
        task = self.tasks[name] = Task(
            name,
            prompt,
            chance.choice(("general", "narrow")),
            agent=agent,
            depends_on=depends_on,
            priority=chance.randint(0, 2),
            on_failure=chance.choice(("skip", "run")),
            timeouts=timeouts,
            budget=chance.choice((None, None, None, Budget(tokens=chance.randint(4, 60)))),
        )
        self.tell("draws", task.id, agent, depends_on)
        return task

    async def _submit(self) -> None:
        task, life = self._task(), self.life
        self.tell("submits", task.id)

        async def client() -> None:
            handle = await life.scheduler.submit(task)
            self.handles.append(handle)
            await self._result(handle)

        life.connect(client())

    async def _resubmit(self) -> None:
        """Somebody who does not know whether a task was accepted submits it again, under the same id."""
        life, stream = self.life, self.chance.choice([None, *self.truth.streams.values()])
        if stream is None or stream.plan_id is not None:
            return
        self.tell("submits again", stream.task_id)

        async def client() -> None:
            try:
                await life.scheduler.submit(self.tasks[stream.task_id], stream_id=stream.stream_id)
            except StreamExists:
                return
            raise AssertionError(f"{stream.task_id} was accepted twice")

        life.connect(_lenient(client, self._was_fenced))

    async def _result(self, handle: Handle) -> None:
        try:
            result = await handle.result()
        except StoreError as error:  # its lease was taken away: whoever resumes the stream ends it
            if not self.truth.streams[handle.stream_id].fence:
                raise AssertionError(f"a result that is an error: {error!r}") from error
            return
        self.tell("result of", self.truth.streams[handle.stream_id].task_id, result.state)
        self.truth.resulted(result)

    async def _stream(self) -> None:
        """A reader who reads one task, slowly perhaps, and may leave; then the task is stopped."""
        task, scheduler = self._task(), self.life.scheduler
        leaves = self.chance.choice((1, 2, 1000))
        slow = self.chance.choice((0.0, 0.0, 1.0))
        self.tell("streams", task.id)

        async def client() -> None:
            text, seen = "", 0
            async with aclosing(scheduler.execute_task_stream(task)) as items:
                async for item in items:
                    seen += 1
                    if item["done"]:
                        assert text == item["result"] or not item["success"], "the pieces are not the result"
                        return
                    text += item["chunk"]
                    if seen >= leaves:
                        break
                    await asyncio.sleep(slow)
            self.tell("left", task.id)

        self.life.connect(_lenient(client, self._was_fenced))

    async def _plan(self) -> None:
        """A small graph, drained or read live; who reads it may leave."""
        tasks: list[Task] = []
        for _ in range(self.chance.randint(2, 4)):
            parents = [task.id for task in tasks if self.chance.random() < 0.5]
            tasks.append(self._task(tuple(parents)))
        scheduler, reads = self.life.scheduler, self.chance.random() < 0.4
        leaves = self.chance.choice((3, 1000))
        self.tell("plans", *(task.id for task in tasks))

        async def client() -> None:
            if not reads:
                for result in (await scheduler.run(tasks)).values():
                    self.truth.resulted(result)
                return
            done = set()
            async with aclosing(scheduler.stream(tasks)) as items:
                async for item in items:
                    assert item["task_id"] not in done, "a piece behind the last"
                    if item["done"]:
                        done.add(item["task_id"])
                    leaves_now = len(done) >= leaves
                    if leaves_now:
                        return
            assert done == {task.id for task in tasks}, "a plan's stream has no end of some tasks"

        self.life.connect(_lenient(client, self._was_fenced))

    async def _read(self) -> None:
        streams = list(self.truth.streams)
        if streams:
            reader = Reader(self.chance.choice(streams))
            self.readers.append(reader)
            self.life.connect(self._follow(reader, self.life))

    async def _follow(self, reader: Reader, life: Life) -> None:
        """Read to the end, leaving now and then, or until the rest is gone."""
        try:
            await self._followed(reader, life)
        except LogTrimmed:
            reader.done = True
            self.tell("trimmed", self.truth.streams[reader.stream_id].task_id)
            text = (await life.scheduler.snapshot(reader.stream_id)).text
            with self.truth.noted():
                reader.cursor = len(self.truth.gone(life.store, reader.stream_id))
                assert text == self.truth.streams[reader.stream_id].result.text

    async def _followed(self, reader: Reader, life: Life) -> None:
        while not reader.done:
            leaves, started = self.chance.randint(1, 6), reader.cursor
            async with aclosing(life.scheduler.follow(reader.stream_id, after=reader.cursor)) as records:
                async for record in records:
                    self.truth.shown(reader.stream_id, reader.cursor, record)
                    reader.cursor += 1
                    if reader.cursor - started >= leaves:
                        break
                else:
                    reader.done = True
            if not reader.done:
                await asyncio.sleep(self.chance.choice(PAUSES))

    async def _cancel(self) -> None:
        if not self.handles:
            return
        handle, life = self.chance.choice(self.handles), self.life
        stream = self.truth.streams[handle.stream_id]
        self.tell("cancels", stream.task_id)

        async def client() -> None:
            first = await handle.cancel("enough")
            if first:
                assert stream.terminal is not None or stream.fence, "a stop came back before the end"
            prompt = f"<{stream.task_id}>"
            open_still = [it for provider in life.providers for it in provider.sources if it.prompt == prompt]
            assert not open_still or stream.fence, f"{stream.task_id} was stopped, and its provider runs on"

        self.life.connect(_lenient(client, self._was_fenced))

    async def _expire(self) -> None:
        """Somebody believes that a run has died, and another takes its stream over."""
        life = self.life
        for _ in range(4):
            running = [it.stream_id for it in life.store.streams(states={"running"}) if it.plan_id is None]
            if running:
                break
            await asyncio.sleep(0.01)
        else:
            return
        stream_id = self.chance.choice(running)
        self.tell("expires", self.truth.streams[stream_id].task_id)
        if self.truth.streams[stream_id].terminal is not None:
            return  # it has ended, and that is about to be shown
        if self.chance.random() < 0.2:
            life.connect(self._usurper(stream_id, life))
            return
        life.store.expire(stream_id)
        if self.chance.random() < 0.7:
            life.connect(_lenient(partial(self._rival, stream_id, life), self._was_fenced))
        else:
            await asyncio.sleep(self.chance.choice(PAUSES))
            await life.scheduler.resume()

    async def _usurper(self, stream_id: str, life: Life) -> None:
        """Another worker, which wants a stream that is not to be had."""
        try:
            await life.store.claim(stream_id)  # the truth knows whether it may be given
            life.store.expire(stream_id)
        except Fenced:
            self.tell("may not have", self.truth.streams[stream_id].task_id)

    async def _rival(self, stream_id: str, life: Life) -> None:
        """Another worker, which takes a stream over and brings it to its end, or dies in its turn."""
        store, stream = life.store, self.truth.streams[stream_id]
        lease = await store.claim(stream_id)
        prelude = recovery(log_of(store, stream_id), "reset").prelude
        for _ in range(3):
            store.append(lease, [*prelude, Text("from another worker ")])
            prelude = ()
            await asyncio.sleep(self.chance.choice((0.01, 0.3, 3.0)))
        if self.chance.random() < 0.5:
            store.expire(stream_id)
        else:
            store.finish(lease, [Completed("stop") if stream.stop is None else Cancelled(stream.stop)])

    async def _crash(self) -> None:
        """The process dies, at this very moment; another begins and goes on with what was left."""
        self.tell("crash")
        life = self.life
        assert isinstance(life.store, AuditedDisk)
        self.truth.crashing(life.store)
        life.store.crash()
        me = asyncio.current_task()
        dying = [task for task in self.loop.running if task is not me]
        for task in dying:
            task.cancel()
        await asyncio.gather(*dying, return_exceptions=True)
        self.handles.clear()
        self.life = Life(self)
        await self.life.store.open()
        self.truth.recovered(self.life.store)
        self.readers = [it for it in self.readers if it.stream_id in self.truth.streams]
        for reader in self.readers:
            if not reader.done:
                self.life.connect(self._follow(reader, self.life))
        resumed = await self.life.scheduler.resume()
        self.tell("resumes", *(self.truth.streams[it].task_id for it in resumed))

    # --- inside ---------------------------------------------------------------------------------------------------

    def opened(self) -> AuditedMemory | AuditedDisk:
        store = (
            AuditedDisk(self.disk, self.chance, self.loop.time, self.keep_logs)
            if self.durable
            else AuditedMemory(clock=self.loop.time, keep_logs=self.keep_logs)
        )
        store.truth = self.truth
        return store

    def asked(self, provider: str, prompt: str) -> None:
        """A provider was asked: where the prompt is a task's, it must be that task's as its parents have left it."""
        self.tell("asks", provider, repr(prompt[:40]))
        if prompt.startswith("<") and "\n" not in prompt:  # not that of a judge
            name = prompt[1 : prompt.index(">")]
            plans = [it.plan_id for it in self.truth.streams.values() if it.task_id == name]
            with self.truth.noted():
                assert prompt in [self.truth.prompt(name, plan) for plan in plans], f"{name} was asked {prompt!r}"

    def _was_fenced(self) -> bool:
        return any(stream.fence for stream in self.truth.streams.values())

    def tell(self, *what: object) -> None:
        self._story.append((self.loop.time(), what))  # type: ignore[arg-type]

    def trace(self) -> str:
        """What happened, a line for each step."""
        kind = "durable" if self.durable else "memory"
        lines = [f"seed {self.seed}: {kind} store, {self.max_running} tasks at once, {self.limits}"]
        lines += [f"{at - 1000:10.3f}  {' '.join(map(str, what))}" for at, what in self._story]
        for stream in self.truth.streams.values():
            lines.append(f"{stream.task_id} (epoch {stream.epoch}, shown {stream.shown}):")
            lines += [f"    {seq} {record}" for seq, record in enumerate(stream.records, 1)]
        return "\n".join(lines)


def _limits(chance: random.Random) -> Limits:
    return Limits(
        concurrency=chance.choice((None, 1, 2)),
        requests_per_minute=chance.choice((None, None, 2, 5)),
        tokens_per_minute=chance.choice((None, 180)),
    )


async def _lenient(client: Callable[[], Coroutine[Any, Any, None]], allowed: Callable[[], bool]) -> None:
    """A reader of text, whom a reset ends, or that the log was trimmed before it was read. The store's error may come
    to him if a lease was taken away."""
    try:
        await client()
    except (StreamReset, LogTrimmed):
        return
    except StoreError as error:
        if not allowed():
            raise AssertionError(f"a reader was given {error!r}") from error


def run(seed: int) -> Schedule:
    """Run one schedule. Raises what it raises, with the seed and the story in a note."""
    schedule = Schedule(seed)
    logging.disable(logging.CRITICAL)
    try:
        schedule.run()
    except BaseException as error:
        error.add_note(f"replay with: python -m tests.simulation --seed {seed} --schedules 1\n{schedule.trace()}")
        raise
    finally:
        logging.disable(logging.NOTSET)
    return schedule


def run_many(seed: int, schedules: int) -> None:
    """Run the schedules of ``schedules`` seeds, from ``seed`` on."""
    gc.collect()
    gc.disable()  # thousands of short lives: what they leave is collected between them
    try:
        for number in range(schedules):
            run(seed + number)
            if number % 200 == 199:
                gc.collect()
    finally:
        gc.enable()
