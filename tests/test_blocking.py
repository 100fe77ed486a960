"""Streams for code without an event loop: plain generators, and everything that can happen to them."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncGenerator, Sequence

import pytest

from multi_agent_scheduler import blocking


class Source:
    """Gives batches, and knows how far it got and when it was closed."""

    def __init__(self, *batches: Sequence[int], error: BaseException | None = None, endless: bool = False) -> None:
        self._batches = batches
        self._error = error
        self._endless = endless
        self.given = 0
        self.closed = threading.Event()
        self.thread: threading.Thread | None = None

    async def __call__(self) -> AsyncGenerator[Sequence[int], None]:
        self.thread = threading.current_thread()
        try:
            for batch in self._batches:
                yield batch
                self.given += 1
            while self._endless:
                await asyncio.sleep(0)
                yield (self.given,)
                self.given += 1
            if self._error is not None:
                raise self._error
        finally:
            self.closed.set()


def test_the_items_of_all_batches_come_in_order() -> None:
    source = Source((1, 2), (), (3,))
    assert list(blocking.flatten(source)) == [1, 2, 3]
    assert source.closed.is_set()
    assert source.thread is not threading.current_thread()


def test_nothing_runs_before_the_first_item() -> None:
    source = Source((1,))
    items = blocking.flatten(source)
    assert source.thread is None
    items.close()
    assert source.thread is None


def test_an_exception_comes_after_what_was_given() -> None:
    source = Source((1,), error=ValueError("broken"))
    items = blocking.flatten(source)
    assert next(items) == 1
    with pytest.raises(ValueError, match=r"^broken$"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


@pytest.mark.parametrize("how", ["closed", "dropped", "left", "thrown at"])
def test_a_generator_that_is_left_closes_its_source_before_going_on(how: str) -> None:
    source = Source(endless=True)
    items = blocking.flatten(source)
    assert next(items) == 0
    if how == "closed":
        items.close()
    elif how == "dropped":
        del items
    elif how == "thrown at":
        with pytest.raises(KeyError):
            items.throw(KeyError())
    else:
        for _ in items:
            break
        del items
        gc.collect()
    assert source.closed.is_set()


def test_a_source_that_was_stopped_before_it_began_is_not_waited_for() -> None:
    held, begun = threading.Event(), threading.Event()

    async def hold() -> None:
        begun.set()
        held.wait()  # the loop is busy: nothing of the next stream can begin

    blocker = threading.Thread(target=blocking.run, args=(hold(),))
    blocker.start()
    begun.wait()
    source = Source((1,))
    bridge = blocking._Bridge(source, blocking._thread())
    threading.Timer(0.01, held.set).start()
    bridge.stop()  # returns as soon as the loop is free, not after the time that a closing source may take
    blocker.join()
    assert bridge._ended.is_set()


def test_a_slow_consumer_holds_the_source_back() -> None:
    source = Source(endless=True)
    items = blocking.flatten(source)
    assert next(items) == 0
    settled = threading.Event()

    async def turns() -> None:
        for _ in range(5000):
            await asyncio.sleep(0)
        settled.set()

    blocking.run(turns())
    assert settled.is_set()
    held = source.given
    assert held <= 70
    assert [next(items) for _ in range(500)] == list(range(1, 501))
    items.close()


def test_many_threads_stream_at_once() -> None:
    results: list[list[int]] = []

    def read(number: int) -> None:
        results.append(list(blocking.flatten(Source(*[(number,)] * 200))))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result[0] for result in results) == list(range(8))
    assert all(result == [result[0]] * 200 for result in results)


async def test_it_works_inside_a_running_loop() -> None:
    assert list(blocking.flatten(Source((1,), (2,)))) == [1, 2]


def test_the_background_loop_does_not_wait_for_itself() -> None:
    async def inner() -> int:
        return 1

    async def outer() -> None:
        with pytest.raises(RuntimeError, match="the background loop cannot wait for itself"):
            next(blocking.flatten(Source((1,))))
        with pytest.raises(RuntimeError, match="the background loop cannot wait for itself"):
            blocking.run(inner())

    blocking.run(outer())


def test_run_gives_the_result_or_raises() -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        if number < 0:
            raise ValueError("negative")
        return 2 * number

    assert blocking.run(double(4)) == 8
    with pytest.raises(ValueError, match=r"^negative$"):
        blocking.run(double(-1))


def test_it_can_be_shut_down_and_begins_anew() -> None:
    source = Source(endless=True)
    items = blocking.flatten(source)
    assert next(items) == 0
    blocking.shut_down()
    assert source.closed.is_set()
    with pytest.raises(asyncio.CancelledError):
        list(items)
    assert list(blocking.flatten(Source((1,)))) == [1]
    blocking.shut_down()
    blocking.shut_down()


def run(program: str) -> subprocess.CompletedProcess[str]:
    prelude = "import asyncio, os, signal, sys, threading\nfrom multi_agent_scheduler import blocking\n"
    source = """
        async def count():
            try:
                for number in range(1000):
                    await asyncio.sleep(0)
                    yield (number,)
            finally:
                print("closed", flush=True)
    """
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", prelude + "".join(map(textwrap.dedent, (source, program)))],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_what_runs_at_the_end_of_the_program_is_closed() -> None:
    done = run("items = blocking.flatten(count)\nprint(next(items))\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\nclosed\n", "")


def test_ctrl_c_stops_the_source() -> None:
    done = run("""
        async def hang():
            try:
                yield (0,)
                await asyncio.Event().wait()
            finally:
                print("closed", flush=True)
        try:
            for item in blocking.flatten(hang):
                print(item, flush=True)
                threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()  # the next item never comes
        except KeyboardInterrupt:
            print("stopped")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\nclosed\nstopped\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_a_loop_of_its_own() -> None:
    done = run("""
        assert len(list(blocking.flatten(count))) == 1000
        begun = blocking.flatten(count)
        next(begun)
        child = os.fork()
        if child == 0:
            assert len(list(blocking.flatten(count))) == 1000
            try:
                list(begun)
            except RuntimeError as error:
                print(error, flush=True)
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        assert len(list(begun)) == 999
    """)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "closed",
        "closed",
        "this generator was begun before a fork: only the process that began it can go on with it",
        "7",
        "closed",
    ]
