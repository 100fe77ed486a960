"""Virtual time: nobody waits, everything agrees on what time it is, and what can never end is told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from multi_agent_scheduler import Cache, EventBus, Limits, MultiAgentScheduler, Result, Retry, Task, Timeouts
from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.testing import ScriptedAgent, VirtualClock, VirtualLoop, run_virtual


def test_a_day_passes_at_once_and_every_clock_of_the_loop_tells_it() -> None:
    async def day() -> tuple[float, float]:
        began, loop_began = time.monotonic(), asyncio.get_running_loop().time()
        await asyncio.sleep(86_400)
        return time.monotonic() - began, asyncio.get_running_loop().time() - loop_began

    real = time.monotonic
    began = real()
    assert run_virtual(day()) == (86_400, 86_400)
    assert real() - began < 10
    assert time.monotonic is real


def test_things_happen_in_the_order_of_their_times() -> None:
    async def main() -> list[str]:
        happened: list[str] = []

        async def later(seconds: float, name: str) -> None:
            await asyncio.sleep(seconds)
            happened.append(name)

        await asyncio.gather(later(3, "c"), later(1, "a"), later(2, "b"))
        return happened

    assert run_virtual(main()) == ["a", "b", "c"]


def test_a_clock_of_ones_own_is_the_loops() -> None:
    clock = VirtualClock(5.0)
    run_virtual(asyncio.sleep(2), clock=clock)
    assert clock() == 7.0
    clock.advance(0.5)
    assert clock() == 7.5
    with pytest.raises(ValueError, match="goes forward"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="goes forward"):
        clock.advance(float("nan"))


def test_a_cache_forgets_by_a_virtual_clock() -> None:
    clock = VirtualClock()
    cache = Cache(ttl=60, clock=clock)
    cache.keep(b"key", b"answer")
    clock.advance(59)
    assert cache.find(b"key") == b"answer"
    clock.advance(1)
    assert cache.find(b"key") is None


def test_threads_take_no_time_and_keep_theirs() -> None:
    async def main() -> float:
        began = time.monotonic()
        timer = asyncio.create_task(asyncio.sleep(60))
        seen = await asyncio.to_thread(lambda: time.monotonic)
        there: list[float] = []
        await asyncio.to_thread(lambda: there.append(seen()))
        assert there[0] != time.monotonic()  # a thread has the machine's time
        took = time.monotonic() - began
        await timer
        return took

    assert run_virtual(main()) == 0


def test_a_thread_of_ones_own_wakes_a_loop_that_waits_for_nothing_else() -> None:
    async def main() -> str:
        loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(done.set_result, "hello"))
        thread.start()
        said: str = await done
        thread.join()
        return said

    assert run_virtual(main()) == "hello"


def test_what_can_never_go_on_is_told() -> None:
    async def main() -> None:
        await asyncio.gather(asyncio.create_task(asyncio.Event().wait(), name="the one that waits"))

    with pytest.raises(RuntimeError, match=r"nothing can ever happen .* the one that waits"):
        run_virtual(main())


def test_a_task_that_is_left_running_is_told() -> None:
    async def main() -> None:
        main.kept = asyncio.create_task(asyncio.sleep(5), name="forgotten")  # type: ignore[attr-defined]

    with pytest.raises(RuntimeError, match="left running: forgotten"):
        run_virtual(main())


def test_an_error_passes() -> None:
    async def main() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_virtual(main())


def test_limits_of_a_minute_and_time_limits_are_tested_in_no_time() -> None:
    async def main() -> tuple[float, str, str]:
        quick, silent = ScriptedAgent("x"), ScriptedAgent(asyncio.Event())
        failing = ScriptedAgent(agent_error(ErrorInfo("rate_limit_error", "no", retryable=True, retry_after=100)))
        agents = {"quick": quick, "silent": silent, "retried": Retry(failing, attempts=2)}
        limits = {"quick": Limits(requests_per_minute=2)}
        clock = asyncio.get_running_loop().time
        async with MultiAgentScheduler(agents, limits=limits, metrics=Metrics(), clock=clock) as scheduler:
            began = time.monotonic()
            await asyncio.gather(*(scheduler.execute_task(Task(str(n), "x"), "quick") for n in range(6)))
            took = time.monotonic() - began
            late = await scheduler.execute_task(Task("s", "x", timeouts=Timeouts(first_content=300)), "silent")
            retried = await scheduler.execute_task(Task("r", "x"), "retried")
        assert late.error is not None and late.latency == pytest.approx(300)
        assert retried.latency == pytest.approx(100, abs=1)
        return took, late.error.code, retried.state

    took, code, state = run_virtual(main())
    assert 120 <= took < 121
    assert (code, state) == ("timeout_error", "failed")


def test_it_is_a_loop_for_any_runner() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(asyncio.sleep(100))


def test_it_serves_pytest_asyncio(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makeconftest(
        """
        from multi_agent_scheduler.testing import VirtualLoop

        def pytest_asyncio_loop_factories(config, item):
            return {"virtual": VirtualLoop}
        """
    )
    pytester.makepyfile(
        """
        import asyncio, time

        async def test_an_hour():
            began = time.monotonic()
            await asyncio.sleep(3600)
            assert time.monotonic() - began == 3600
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_what_a_scheduler_measures_is_virtual_without_being_told_of_the_clock() -> None:
    async def main() -> Result:
        async def slow(prompt: str) -> AsyncIterator[str]:
            await asyncio.sleep(30)
            yield "x"

        async with MultiAgentScheduler({"slow": slow}, metrics=Metrics(), event_bus=EventBus()) as scheduler:
            return await scheduler.execute_task(Task("t", "Hi"))

    result = run_virtual(main())
    assert (result.ttft, result.latency) == (pytest.approx(30), pytest.approx(30))
