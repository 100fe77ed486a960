"""The time that one Call may take."""

from __future__ import annotations

import asyncio
import math

import pytest

from multi_agent_scheduler.agents.call import Deadline
from multi_agent_scheduler.errors import AgentError


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_limit_that_passes_is_named_and_leaves_the_task_uncancelled() -> None:
    task = asyncio.current_task()
    assert task is not None
    limit = pytest.raises(AgentError, match="no connection within the connect limit of 10 s")
    with limit as raised, Deadline("connect", 0.0, 10.0):
        await forever()
    assert raised.value.info.code == "timeout_error"
    assert task.cancelling() == 0
    await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [60.0, math.inf])
async def test_who_cancels_the_task_cancels_it(seconds: float) -> None:
    async def wait() -> None:
        with Deadline("connect", seconds):
            await forever()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_of_a_limit_and_another_cancellation_in_one_moment_the_latter_counts() -> None:
    async def wait() -> None:
        task = asyncio.current_task()
        assert task is not None
        with Deadline("connect", 0.0):
            asyncio.get_running_loop().call_later(0.0, task.cancel)
            await forever()

    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


async def test_what_is_raised_inside_goes_through_and_time_is_no_matter_afterwards() -> None:
    with pytest.raises(ValueError, match="inside"), Deadline("connect", 0.0):
        raise ValueError("inside")
    with Deadline("connect", 0.0):
        pass
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
