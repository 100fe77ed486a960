"""A program that runs plans until it is killed, and goes on with them when it is started again:
``python -m tests.simulation.killed FILE PLANS``.

Says on stdout what it was promised and what its readers were shown: ``accepted TASK STREAM`` and
``shown STREAM SEQ RECORD``, a record as JSON. Ends by itself once everything has ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator

from multi_agent_scheduler import Failover, MultiAgentScheduler, Task, Template
from multi_agent_scheduler.agents import FunctionAgent
from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.records import encode_record

WORDS = 12


async def words(prompt: str) -> AsyncGenerator[str, None]:
    for number in range(WORDS):
        yield f"{number} "
        await asyncio.sleep(0.001)


async def half(prompt: str) -> AsyncGenerator[str, None]:
    yield "half an answer"
    await asyncio.sleep(0.001)
    raise agent_error(ErrorInfo("overloaded_error", "overloaded", retryable=True))


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def plan(number: int) -> list[Task]:
    """A plan in which one task is reset by its agent, and one is skipped."""
    one, two, fails = f"one{number}", f"two{number}", f"fails{number}"
    return [
        Task(one, "1", agent="steady"),
        Task(two, Template(f"from ${{{one}}}"), agent="resets", depends_on=[one]),
        Task(f"end{number}", Template(f"${{{one}}}${{{two}}}"), agent="steady", depends_on=[one, two]),
        Task(fails, "x", agent="fails"),
        Task(f"skipped{number}", "x", agent="steady", depends_on=[fails]),
    ]


async def follow(scheduler: MultiAgentScheduler, stream_id: str) -> None:
    async for record in scheduler.follow(stream_id):
        say(f"shown {stream_id} {record.seq} {encode_record(record).decode()}")


async def main(file: str, plans: int) -> None:
    agents = {
        "steady": FunctionAgent(words, name="steady"),
        "resets": Failover(half, words, policy="reset"),
        "fails": FunctionAgent(half, name="fails"),
    }
    async with MultiAgentScheduler(agents, store=f"sqlite:///{file}", max_running=4) as scheduler:
        say("opened")
        here = {info.plan_id for info in scheduler.streams()}
        for number in range(len(here), plans):
            handle = await scheduler.submit_plan(plan(number))
            for task_id, stream_id in handle.streams.items():
                say(f"accepted {task_id} {stream_id}")
        await scheduler.resume()
        readers = [asyncio.create_task(follow(scheduler, info.stream_id)) for info in scheduler.streams()]
        await scheduler.wait_idle()
        await asyncio.gather(*readers)
    say("done")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
