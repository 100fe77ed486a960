"""The event bus: who is called, when, and what happens when a handler misbehaves."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import threading
import weakref

import pytest

from multi_agent_scheduler.errors import InvalidOption
from multi_agent_scheduler.events import STREAM_CHUNK, STREAM_COMPLETED, Event, EventBus, get_event_bus

LOGGER = "multi_agent_scheduler.events"


@pytest.fixture
def bus() -> EventBus:
    return EventBus(clock=lambda: 1000.5)


@pytest.fixture
def seen() -> list[object]:
    return []


# --- listening ----------------------------------------------------------------------------------------------------


def test_a_handler_gets_name_data_and_time(bus, seen):
    bus.on("task.stream_started", seen.append)
    bus.emit("task.stream_started", {"task_id": "t1"})
    assert seen == [Event("task.stream_started", {"task_id": "t1"}, 1000.5)]


@pytest.mark.parametrize(
    ("pattern", "name", "heard"),
    [
        ("a.b", "a.b", True), ("a.b", "a.c", False), ("a.b", "a.bc", False), ("a.b", "axb", False),
        ("task.*", "task.stream_started", True), ("task.*", "task.a.b", True), ("task.*", "task", False),
        ("*", "anything at all", True), ("*_failed", "task.stream_failed", True), ("*_failed", "failed", False),
        ("a*c*e", "abcde", True), ("a*c*e", "ace", True), ("a*c*e", "aec", False),
    ],
)  # fmt: skip
def test_names_and_wildcards(bus, seen, pattern, name, heard):
    bus.on(pattern, seen.append)
    assert bus.has_listeners(name) is heard
    bus.emit(name)
    assert bool(seen) is heard


def test_handlers_run_in_the_order_of_registration_whatever_their_pattern(bus, seen):
    bus.on("*", lambda _: seen.append(1))
    bus.on("x", lambda _: seen.append(2))
    bus.on("x*", lambda _: seen.append(3))
    bus.on("x", lambda _: seen.append(4))
    bus.emit("x")
    assert seen == [1, 2, 3, 4]


def test_on_and_once_are_decorators_that_leave_the_function_as_it_is(bus, seen):
    @bus.on("x")
    def always(event):
        seen.append("always")

    @bus.once("x")
    def only_once(event):
        seen.append("once")

    assert (always.__name__, only_once.__name__) == ("always", "only_once")
    bus.emit("x")
    bus.emit("x")
    assert seen == ["always", "once", "always"]


def test_once_holds_even_if_the_handler_emits_the_same_event(bus, seen):
    def handler(event):
        seen.append(event.name)
        bus.emit("x")

    bus.once("x", handler)
    bus.emit("x")
    assert seen == ["x"]


def test_off_takes_one_handler_or_all_of_a_name(bus, seen):
    bus.on("x", seen.append)
    bus.on("x", print)
    assert bus.off("x", seen.append) is True
    assert bus.off("x", seen.append) is False
    assert bus.has_listeners("x")
    assert bus.off("x") is True
    assert not bus.has_listeners("x")
    bus.emit("x")
    assert seen == []


def test_a_handler_switched_off_by_an_earlier_one_is_not_called(bus, seen):
    bus.on("x", lambda _: bus.off("x", seen.append))
    bus.on("x", seen.append)
    bus.emit("x")
    assert seen == []


def test_a_handler_registered_during_an_event_hears_the_next_one(bus, seen):
    bus.once("x", lambda _: bus.on("x", seen.append))
    bus.emit("x")
    assert seen == []
    bus.emit("x")
    assert len(seen) == 1


def test_has_listeners_follows_every_change(bus):
    assert not bus.has_listeners("x")
    handler = bus.on("*", print)
    assert bus.has_listeners("x")
    bus.off("*", handler)
    assert not bus.has_listeners("x")


def test_many_names_do_not_grow_the_bus(bus, seen):
    bus.on("task.*", seen.append)
    for number in range(5000):
        bus.has_listeners(f"other.{number}")
    assert len(bus._matching) <= 1024
    assert bus.has_listeners("task.x")


@pytest.mark.parametrize("handler", ["not a function", 3, [print]])
def test_a_handler_that_cannot_be_called_is_refused(bus, handler):
    with pytest.raises(InvalidOption, match=r"the handler of 'x' must be a function of one event, not"):
        bus.on("x", handler)


def test_a_handler_that_yields_is_refused(bus):
    async def handler(event):
        yield

    with pytest.raises(InvalidOption, match=r"the handler of 'x' must not yield: calling a generator runs nothing"):
        bus.on("x", handler)


@pytest.mark.parametrize("name", ["", None, print])
def test_a_name_that_is_none_is_refused(bus, name):
    with pytest.raises(InvalidOption, match="an event's name must be a non-empty string, not"):
        bus.on(name, print)


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True])
def test_a_capacity_that_is_none_is_refused(capacity):
    with pytest.raises(InvalidOption, match="capacity must be a whole number of at least 1, not"):
        EventBus(capacity=capacity)


def test_there_is_one_default_bus():
    assert get_event_bus() is get_event_bus()


# --- failures -----------------------------------------------------------------------------------------------------


def broken(event):
    raise ValueError("broken handler")


def cancelled(event):
    raise asyncio.CancelledError


@pytest.mark.parametrize("handler", [broken, cancelled])
def test_the_failure_of_a_plain_handler_is_logged_and_goes_no_further(bus, seen, caplog, handler):
    bus.on("x", handler)
    bus.on("x", seen.append)
    bus.emit("x")
    assert len(seen) == 1
    (record,) = caplog.records
    assert (record.name, record.levelno) == (LOGGER, logging.ERROR)
    assert record.getMessage() == f"handler {handler.__name__} of x failed"
    assert record.exc_info is not None


async def test_the_failure_of_an_async_handler_is_logged_and_goes_no_further(bus, seen, caplog):
    async def failing(event):
        raise ValueError("broken handler")

    async def cancelling(event):
        raise asyncio.CancelledError

    async def good(event):
        seen.append(event)

    for handler in (failing, cancelling, good):
        bus.on("x", handler)
    bus.emit("x")
    assert await bus.drain()
    assert len(seen) == 1
    assert ["failing of x failed" in caplog.text, "cancelling of x failed" in caplog.text] == [True, True]


# --- async handlers -----------------------------------------------------------------------------------------------


async def test_plain_handlers_have_run_when_emit_returns_and_async_ones_run_in_order(bus, seen):
    async def slow(event):
        await asyncio.sleep(0)
        seen.append(("slow", event.data["n"]))

    async def quick(event):
        seen.append(("quick", event.data["n"]))

    bus.on("x", slow)
    bus.on("x", quick)
    bus.on("x", lambda event: seen.append(("plain", event.data["n"])))
    bus.emit("x", {"n": 1})
    bus.emit("x", {"n": 2})
    assert seen == [("plain", 1), ("plain", 2)]
    assert await bus.drain()
    assert seen[2:] == [("slow", 1), ("quick", 1), ("slow", 2), ("quick", 2)]


class Methods:
    def __init__(self, seen):
        self.seen = seen

    async def method(self, event):
        self.seen.append(event)

    async def __call__(self, event):
        self.seen.append(event)


@pytest.mark.parametrize(
    "shape",
    [
        lambda seen: Methods(seen).method,
        Methods,
        lambda seen: functools.partial(Methods.method, Methods(seen)),
        lambda seen: lambda event: Methods(seen).method(event),
        lambda seen: lambda event: asyncio.ensure_future(Methods(seen).method(event)),
    ],
    ids=["method", "object", "partial", "lambda", "future"],
)
async def test_every_shape_of_async_handler_is_awaited(bus, seen, shape):
    bus.on("x", shape(seen))
    bus.emit("x")
    assert await bus.drain()
    assert len(seen) == 1


async def test_the_worker_exists_only_while_there_is_something_to_do(bus):
    async def handler(event):
        pass

    before = asyncio.all_tasks()
    bus.on("x", handler)
    bus.emit("x")
    assert len(asyncio.all_tasks() - before) == 1
    await bus.drain()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_drain_waits_for_what_was_given_out_before_it_and_not_for_more(bus, seen):
    gate = asyncio.Event()

    async def handler(event):
        seen.append(event.data["n"])
        if event.data["n"] == 2:
            await gate.wait()

    bus.on("x", handler)
    bus.emit("x", {"n": 1})
    draining = asyncio.ensure_future(bus.drain())
    await asyncio.sleep(0)
    bus.emit("x", {"n": 2})
    assert await draining is True
    gate.set()
    assert await bus.drain()
    assert seen == [1, 2]


async def test_drain_keeps_its_deadline_and_does_not_wait_for_the_same_handler_again(bus, caplog):
    gate = asyncio.Event()

    async def stuck(event):
        await gate.wait()

    bus.on("x", stuck)
    bus.emit("x")
    bus.emit("x")
    assert await bus.drain(timeout=0.01) is False
    assert caplog.messages == ["async handlers were not done within 0.01 s; 1 more calls wait"]
    assert await bus.drain(timeout=0.01) is False
    assert len(caplog.messages) == 1, "the second drain returned at once"
    gate.set()
    assert await bus.drain() is True, "a longer wait is worth it"


async def test_a_handler_that_drains_does_not_wait_for_itself(bus, seen):
    async def handler(event):
        seen.append(await bus.drain())

    bus.on("x", handler)
    bus.emit("x")
    assert await bus.drain()
    assert seen == [False]


async def test_a_drain_that_is_cancelled_leaves_the_handlers_alone(bus, seen):
    gate = asyncio.Event()

    async def handler(event):
        await gate.wait()
        seen.append(event)

    bus.on("x", handler)
    bus.emit("x")
    draining = asyncio.ensure_future(bus.drain())
    await asyncio.sleep(0)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    gate.set()
    assert await bus.drain()
    assert len(seen) == 1


async def test_best_effort_events_are_dropped_first_and_the_bound_is_hard(seen, caplog):
    bus = EventBus(capacity=2)

    async def handler(event):
        seen.append(event.name)

    bus.on("*", handler)
    for _ in range(5):
        bus.emit(STREAM_CHUNK)
    assert bus.dropped == 3
    for _ in range(20):
        bus.emit(STREAM_COMPLETED)
    assert bus.dropped == 3 + 6
    assert caplog.messages == ["async handlers cannot keep up: task.stream_chunk dropped, with 2 calls waiting"]
    assert await bus.drain()
    assert seen == [STREAM_CHUNK] * 2 + [STREAM_COMPLETED] * 14
    for _ in range(3):
        bus.emit(STREAM_CHUNK)
    assert len(caplog.messages) == 2, "after the queue was empty, dropping is news again"
    await bus.drain()


async def test_a_dropped_awaitable_is_closed(caplog):
    bus = EventBus(capacity=1)

    async def handler(event):
        pass

    bus.on(STREAM_CHUNK, lambda event: handler(event))
    bus.emit(STREAM_CHUNK)
    bus.emit(STREAM_CHUNK)
    assert bus.dropped == 1
    gc.collect()  # a coroutine that was not awaited would warn, and warnings are errors
    await bus.drain()


async def test_aclose_stops_a_handler_that_does_not_end(bus, seen, caplog):
    async def endless(event):
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("stopped")

    bus.on("x", endless)
    bus.emit("x")
    bus.emit("x")
    before = asyncio.all_tasks()
    await bus.aclose(timeout=0.01)
    assert (seen, bus.dropped) == (["stopped"], 2)
    assert len(asyncio.all_tasks()) == len(before) - 1
    bus.off("x")
    bus.on("x", Methods(seen))
    bus.emit("x")
    assert await bus.drain(timeout=0.01), "the bus can be used again"
    assert len(seen) == 2


async def test_a_handler_that_closes_the_bus_does_not_cancel_itself(bus, seen):
    async def handler(event):
        await bus.aclose()
        seen.append("done")

    bus.on("x", handler)
    bus.emit("x")
    assert await bus.drain()
    assert seen == ["done"]


async def test_async_handlers_do_not_run_in_the_context_of_the_emitter(bus, seen):
    variable = contextvars.ContextVar("variable", default="none")

    async def handler(event):
        seen.append(variable.get())

    bus.on("x", handler)
    variable.set("the first emitter's")
    bus.emit("x")
    await bus.drain()
    assert seen == ["none"]


async def test_a_long_queue_of_quick_handlers_lets_others_run(bus, seen):
    async def handler(event):
        seen.append(event)

    bus.on("x", handler)
    for _ in range(500):
        bus.emit("x")
    await asyncio.sleep(0)
    assert 0 < len(seen) < 500
    await bus.drain()
    assert len(seen) == 500


# --- loops and threads --------------------------------------------------------------------------------------------


def test_one_bus_serves_one_loop_after_the_other(bus, seen):
    async def handler(event):
        await asyncio.sleep(0)
        seen.append(asyncio.get_running_loop())

    async def main():
        bus.emit("x")
        assert await bus.drain()

    bus.on("x", handler)
    asyncio.run(main())
    asyncio.run(main())
    assert len(seen) == 2
    loops = [weakref.ref(loop) for loop in seen]
    seen.clear()
    gc.collect()
    assert [loop() for loop in loops] == [None, None], "the bus keeps no loop alive"


def test_one_bus_serves_two_loops_at_once(bus, seen):
    barrier = threading.Barrier(2, timeout=10)

    async def handler(event):
        seen.append((event.data["thread"], threading.get_ident()))

    async def main():
        barrier.wait()
        bus.emit("x", {"thread": threading.get_ident()})
        assert await bus.drain()

    bus.on("x", handler)
    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 2
    assert all(emitter == runner for emitter, runner in seen)


def test_without_a_loop_plain_handlers_run_and_async_ones_are_reported(bus, seen, caplog):
    async def handler(event):
        raise AssertionError

    bus.on("x", handler)
    bus.on("x", lambda event: handler(event))
    bus.on("x", seen.append)
    bus.emit("x")
    assert [event.data for event in seen] == [{}]
    assert bus.dropped == 2
    assert caplog.messages[0].endswith("handler of x was not called: no event loop runs here")


def test_a_loop_that_ends_in_the_middle_stops_its_handlers_and_counts_them(bus, seen, caplog):
    async def handler(event):
        seen.append(event)
        await asyncio.Event().wait()

    async def main():
        bus.emit("x")
        bus.emit("x")
        await asyncio.sleep(0)

    bus.on("x", handler)
    asyncio.run(main())
    assert (len(seen), bus.dropped) == (1, 2)
    assert caplog.messages == ["event handlers were stopped: 2 calls were not made or not finished"]
