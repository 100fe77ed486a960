"""Buffered streams: pieces, time, errors, and leaving early."""

from __future__ import annotations

import asyncio
import contextlib
import math

import pytest

from multi_agent_scheduler.buffering import buffered
from multi_agent_scheduler.errors import InvalidOption
from multi_agent_scheduler.testing import run_virtual


class Source:
    """An async iterator of text that tells how it was treated."""

    def __init__(self, *chunks, pause=0.0, failure=None):
        self.chunks = chunks
        self.pause = pause
        self.failure = failure
        self.given = 0
        self.closed = 0
        self.cancelled = False
        self.tasks = set()

    async def __aiter__(self):
        try:
            for chunk in self.chunks:
                self.tasks.add(asyncio.current_task())
                await asyncio.sleep(self.pause)
                self.given += 1
                yield chunk
            if self.failure is not None:
                raise self.failure
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.closed += 1


async def collect(stream):
    return [piece async for piece in stream]


MODES = [{"chunks": 2}, {"milliseconds": 50}, {"chunks": 2, "milliseconds": 50}, {"lines": True}, {"sentences": True}]
every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: "+".join(mode))


# --- pieces -------------------------------------------------------------------------------------------------------


@every_mode
def test_what_comes_out_is_what_went_in_and_the_source_is_closed(mode):
    source = Source("A b.", " C\n", "", "d? ", "E", pause=0.02)
    pieces = run_virtual(collect(buffered(source, **mode)))
    assert "".join(pieces) == "A b. C\nd? E"
    assert "" not in pieces
    assert source.closed == 1
    assert not source.cancelled


@every_mode
def test_an_empty_stream_gives_nothing(mode):
    assert run_virtual(collect(buffered(Source(), **mode))) == []


def test_each_mode_cuts_in_its_way():
    def pieces(**mode):
        return run_virtual(collect(buffered(Source("A b.", " C\n", "d? ", "E", "f"), **mode)))

    assert pieces(chunks=2) == ["A b. C\n", "d? E", "f"]
    assert pieces(lines=True) == ["A b. C\n", "d? Ef"]
    assert pieces(sentences=True) == ["A b. ", "C\nd? ", "Ef"]


def test_by_time_a_piece_is_what_came_since_its_first_chunk():
    async def main():
        loop = asyncio.get_running_loop()
        begin = loop.time()
        source = Source(*"abcdefg", pause=0.02)
        return [(piece, round(loop.time() - begin, 3)) async for piece in buffered(source, milliseconds=50)]

    assert run_virtual(main()) == [("abc", 0.07), ("def", 0.13), ("g", 0.14)]


def test_by_time_a_pause_of_the_source_does_not_hold_back_what_came():
    gate = asyncio.Event()

    async def source():
        yield "before"
        await gate.wait()
        yield "after"

    async def main():
        stream = buffered(source(), milliseconds=50)
        assert await anext(stream) == "before"
        gate.set()
        assert await collect(stream) == ["after"]

    run_virtual(main())


def test_by_count_or_time_whichever_is_first():
    async def main():
        source = Source(*"abcde", pause=0.02)
        return await collect(buffered(source, chunks=2, milliseconds=30))

    assert run_virtual(main()) == ["ab", "cd", "e"]


def test_a_source_that_never_pauses_is_cut_by_time_too():
    async def source():
        for _ in range(100):
            yield "x"

    async def main():
        pieces = []
        async for piece in buffered(source(), milliseconds=50):
            pieces.append(piece)
            await asyncio.sleep(0.1)
        return pieces

    pieces = run_virtual(main())
    assert "".join(pieces) == "x" * 100


def test_a_slow_reader_does_not_make_the_source_run_far_ahead():
    async def main():
        source = Source(*["x"] * 1000)
        stream = buffered(source, chunks=1, milliseconds=1000)
        await anext(stream)
        await asyncio.sleep(10)
        given = source.given
        await stream.aclose()
        return given

    assert run_virtual(main()) <= 1 + 16


def test_by_time_one_task_reads_the_whole_source():
    source = Source(*"abcdefg", pause=0.02)
    run_virtual(collect(buffered(source, milliseconds=50)))
    assert len(source.tasks) == 1, "time limits and cancel scopes inside a stream belong to one task"


# --- errors -------------------------------------------------------------------------------------------------------


@every_mode
def test_an_error_passes_through_after_what_was_held(mode):
    source = Source("kept ", "and this", "!", failure=ConnectionError("broken"))
    pieces = []

    async def main():
        async for piece in buffered(source, **mode):
            pieces.append(piece)  # noqa: PERF401 - a comprehension would lose them with the error

    with pytest.raises(ConnectionError, match="broken"):
        run_virtual(main())
    assert "".join(pieces) == "kept and this!"
    assert source.closed == 1


@every_mode
def test_a_cancellation_from_inside_the_source_is_no_normal_end(mode):
    pieces = []

    async def read():
        async for piece in buffered(Source("a", failure=asyncio.CancelledError()), **mode):
            pieces.append(piece)  # noqa: PERF401 - as above

    async def main():
        with pytest.raises(asyncio.CancelledError):
            await read()

    run_virtual(main())
    assert pieces == []


@pytest.mark.parametrize("mode", [{"chunks": 1}, {"milliseconds": 50}])
def test_what_closing_the_source_raises_is_not_swallowed(mode):
    class Stubborn:
        def __aiter__(self):
            return self

        async def __anext__(self):
            raise StopAsyncIteration

        async def aclose(self):
            raise OSError("cannot close")

    with pytest.raises(OSError, match="cannot close"):
        run_virtual(collect(buffered(Stubborn(), **mode)))


@pytest.mark.parametrize("mode", [{"chunks": 1}, {"milliseconds": 50}])
def test_a_source_that_gives_no_text_is_an_error(mode):
    source = Source({"chunk": "a"})
    with pytest.raises(InvalidOption, match=r"buffered\(\) reads an async iterator of text; it gave dict"):
        run_virtual(collect(buffered(source, **mode)))
    assert source.closed == 1


# --- leaving ------------------------------------------------------------------------------------------------------


@every_mode
def test_leaving_early_closes_the_source(mode):
    source = Source("Go. ", "On\n", "And. ", "On\n", "End", pause=0.02)

    async def main():
        async with contextlib.aclosing(buffered(source, **mode)) as stream:
            async for _ in stream:
                break

    run_virtual(main())
    assert source.closed == 1
    assert source.given < 5


@every_mode
def test_a_reader_that_is_cancelled_closes_the_source(mode):
    source = Source("a", "b", pause=1000)

    async def main():
        reader = asyncio.ensure_future(collect(buffered(source, **mode)))
        await asyncio.sleep(0.1)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

    run_virtual(main())
    assert source.closed == 1


def test_a_reader_that_breaks_while_the_source_waits_stops_it():
    source = Source("a", "b", pause=0.06)

    async def main():
        stream = buffered(source, milliseconds=50)
        await anext(stream)
        await stream.aclose()

    run_virtual(main())
    assert source.cancelled
    assert source.closed == 1


def test_a_source_is_closed_even_if_its_reading_was_cancelled_before_it_began():
    class Connection:
        closed = False

        def __aiter__(self):
            return self

        async def __anext__(self):
            raise AssertionError

        async def aclose(self):
            self.closed = True

    async def main():
        source = Connection()
        reader = asyncio.ensure_future(anext(buffered(source, milliseconds=50)))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task(), reader}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        return source.closed

    assert run_virtual(main())


def test_an_iterator_without_aclose_will_do():
    class Plain:
        def __init__(self):
            self.left = ["a", "b"]

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    assert run_virtual(collect(buffered(Plain(), milliseconds=50))) == ["ab"]
    assert run_virtual(collect(buffered(Plain(), chunks=1))) == ["a", "b"]


# --- bad options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"lines": True, "sentences": True}, {"lines": True, "chunks": 2}, {"sentences": True, "milliseconds": 2}],
)
def test_exactly_one_way(options):
    with pytest.raises(
        InvalidOption, match=r"buffered\(\) wants exactly one of lines=True, sentences=True, or an amount"
    ):
        buffered(Source(), **options)


@pytest.mark.parametrize("chunks", [0, -1, 1.5, True, "2"])
def test_chunks_that_cannot_be(chunks):
    with pytest.raises(InvalidOption, match="chunks must be a whole number of at least 1, not"):
        buffered(Source(), chunks=chunks)


@pytest.mark.parametrize("milliseconds", [0, -1, math.nan, math.inf, True, "2"])
def test_milliseconds_that_cannot_be(milliseconds):
    with pytest.raises(InvalidOption, match="milliseconds must be a number above 0, not"):
        buffered(Source(), milliseconds=milliseconds)


@pytest.mark.parametrize("stream", ["text", ["a"], None])
def test_a_stream_that_is_none(stream):
    with pytest.raises(InvalidOption, match=r"buffered\(\) reads an async iterator of text, not (str|list|NoneType)"):
        buffered(stream, chunks=1)
