"""The uses of the streaming guide, for real: its code as it stands there, against the embedded model.

Where a claim is about the moment (the first chunk before the last, tasks at the same time), a provider that plays a
script takes the model's place, so that nothing depends on how fast the machine is.
"""

# ruff: noqa: T201 - the guide's code prints

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from multi_agent_scheduler.agents import ClaudeAgent, OpenAIAgent
from multi_agent_scheduler.events import Event, get_event_bus
from multi_agent_scheduler.metrics import get_metrics
from multi_agent_scheduler.scheduler import MultiAgentScheduler, Task

from ..agents.server import LAST, Provider, answer, chat, head
from ..agents.server import chunk as framed
from .conftest import FEW


@contextmanager
def counted(*names: str) -> Iterator[Callable[[], list[float]]]:
    """How much counters have grown since; the default metrics are every test's."""
    before = get_metrics().get_all_stats()["counters"]
    yield lambda: [get_metrics().get_all_stats()["counters"][name] - before[name] for name in names]


# --- quick start ------------------------------------------------------------------------------------------------------


async def test_basic_agent_streaming(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    agent = ClaudeAgent(api_key=key)
    pieces = 0

    # Stream response
    async for chunk in agent.call_stream("Explain Python async", max_tokens=FEW):
        print(chunk, end="", flush=True)
        pieces += 1

    assert pieces > 2
    assert len(capsys.readouterr().out) >= pieces
    await agent.aclose()


async def test_the_key_may_come_from_the_environment(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    for agent in (ClaudeAgent(), OpenAIAgent(), OpenAIAgent(api="responses")):
        async with agent:
            assert [chunk async for chunk in agent.call_stream("Say hello", max_tokens=3)]


async def test_scheduler_streaming(agent: ClaudeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    scheduler = MultiAgentScheduler(agents={"claude": agent})

    task = Task(id="task1", prompt="Write a haiku", task_type="creative")

    text = ""
    async for chunk_data in scheduler.execute_task_stream(task, "claude"):
        if not chunk_data["done"]:
            print(chunk_data["chunk"], end="", flush=True)
            text += chunk_data["chunk"]
        else:
            print(f"\n✅ Completed in {chunk_data['latency']:.2f}s")

    printed = capsys.readouterr().out
    assert text
    assert printed.startswith(f"{text}\n")
    assert re.search(r"✅ Completed in \d+\.\d\ds\n$", printed)
    await scheduler.aclose()


# --- reference --------------------------------------------------------------------------------------------------------


async def test_max_tokens_bounds_the_answer(key: str) -> None:
    async with ClaudeAgent(api_key=key) as agent:
        chunks = [chunk async for chunk in agent.call_stream("Explain quantum computing", max_tokens=4)]
    assert 1 <= len(chunks) <= 4
    assert all(isinstance(chunk, str) and chunk for chunk in chunks)


async def test_the_dicts_have_the_guides_keys_in_its_order(scheduler: MultiAgentScheduler) -> None:
    task = Task(id="t", prompt="Say hello", task_type="general")
    *chunks, final = [item async for item in scheduler.execute_task_stream(task, "claude", 3)]

    assert chunks
    for item in chunks:
        assert list(item) == ["task_id", "chunk", "done"]
        assert (item["task_id"], item["done"]) == ("t", False)
    documented = ["task_id", "task_type", "agent_selected", "result", "latency", "done", "success", "error"]
    own = ["stream_id", "batch", "ttft", "usage", "stop_reason", "state"]
    assert [name for name in final if name != "cost"] == [*documented, *own]  # it is there where it is known
    assert {name: final[name] for name in documented if name != "latency"} == {
        "task_id": "t",
        "task_type": "general",
        "agent_selected": "claude",
        "result": "".join(item["chunk"] for item in chunks),
        "done": True,
        "success": True,
        "error": None,
    }
    assert isinstance(final["latency"], float)
    assert final["batch"] == 3
    json.dumps(final)  # a dashboard wants to send it


# --- use cases --------------------------------------------------------------------------------------------------------


async def test_real_time_chat_interface(agent: ClaudeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    async def chat_interface(user_message: str) -> None:
        """Real-time chat with streaming"""
        print("AI: ", end="")

        async for chunk in agent.call_stream(user_message):
            print(chunk, end="", flush=True)

        print()  # Newline after complete

    await chat_interface("Hello!")
    assert re.fullmatch(r"AI: .+\n", capsys.readouterr().out, re.DOTALL)


async def test_progress_tracking(agent: ClaudeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    async def track_progress() -> None:
        """Track generation progress"""
        char_count = 0

        async for chunk in agent.call_stream("Write an essay"):
            char_count += len(chunk)
            print(f"\r{char_count} chars...", end="")

        print(f"\n✅ Complete: {char_count} total characters")

    await track_progress()
    counts = [int(count) for count in re.findall(r"\d+", capsys.readouterr().out)]
    assert len(counts) > 2
    assert counts[-1] == counts[-2] == max(counts)
    assert counts == sorted(counts)


async def test_multi_task_streaming(scheduler: MultiAgentScheduler, capsys: pytest.CaptureFixture[str]) -> None:
    async def stream_multiple_tasks() -> None:
        """Stream multiple tasks concurrently"""

        tasks = [
            Task(id="t1", prompt="Task 1", task_type="general"),
            Task(id="t2", prompt="Task 2", task_type="general"),
        ]

        async def stream_task(task: Task) -> None:
            print(f"\n[{task.id}] ", end="")
            async for chunk_data in scheduler.execute_task_stream(task, "claude"):
                if not chunk_data["done"]:
                    print(chunk_data["chunk"], end="")

        # Stream all tasks concurrently
        await asyncio.gather(*[stream_task(t) for t in tasks])

    with counted("tasks.stream_succeeded") as grown:
        await stream_multiple_tasks()
        assert grown() == [2]
    # Both began before either had an answer.
    assert capsys.readouterr().out.startswith("\n[t1] \n[t2] ")


async def test_tasks_that_are_gathered_run_at_the_same_time() -> None:
    """Each provider waits until the other has been asked: in turn they would wait for ever."""
    asked = [asyncio.Event(), asyncio.Event()]

    def met(mine: int) -> Callable[[Any], Awaitable[None]]:
        async def meet(_: Any) -> None:
            asked[mine].set()
            await asked[1 - mine].wait()

        return meet

    scripts = [[met(mine), *answer(b"".join(chat("hello")))] for mine in (0, 1)]
    async with Provider(*scripts) as provider:
        one = OpenAIAgent("key", base_url=provider.url)
        async with MultiAgentScheduler(agents={"openai": one}) as scheduler:
            results = await asyncio.gather(*(scheduler.execute_task(Task(f"t{n}", "Hi")) for n in (1, 2)))
    assert [result.text for result in results] == ["hello", "hello"]


# --- events and metrics -----------------------------------------------------------------------------------------------


async def test_event_integration(scheduler: MultiAgentScheduler, capsys: pytest.CaptureFixture[str]) -> None:
    bus = get_event_bus()

    # Listen to stream events
    async def on_stream_start(event: Event) -> None:
        print(f"Stream started: {event.data['task_id']}")

    async def on_stream_complete(event: Event) -> None:
        print(f"Stream completed: {event.data['latency']:.2f}s")

    bus.on("task.stream_started", on_stream_start)
    bus.on("task.stream_completed", on_stream_complete)
    try:
        task = Task(id="task1", prompt="Say hello", task_type="general")
        async for chunk_data in scheduler.execute_task_stream(task, "claude"):
            if chunk_data["done"]:
                print("Last dict")
    finally:
        bus.off("task.stream_started", on_stream_start)
        bus.off("task.stream_completed", on_stream_complete)

    printed = capsys.readouterr().out
    assert re.fullmatch(r"Stream started: task1\nStream completed: \d+\.\d\ds\nLast dict\n", printed)


async def test_metrics_tracking(scheduler: MultiAgentScheduler) -> None:
    metrics = get_metrics()
    with counted("tasks.stream_started", "tasks.stream_completed") as grown:
        [_ async for _ in scheduler.execute_task_stream(Task(id="t", prompt="Hi", task_type="general"), "claude")]
        assert grown() == [1, 1]

    # After streaming
    stats = metrics.get_all_stats()

    assert f"Streams started: {stats['counters']['tasks.stream_started']}" != "Streams started: 0"
    assert f"Streams completed: {stats['counters']['tasks.stream_completed']}" != "Streams completed: 0"


# --- performance tips -------------------------------------------------------------------------------------------------


async def test_buffered_streaming(agent: ClaudeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    written: list[str] = []

    async def buffered_streaming() -> None:
        """Buffer chunks for better performance"""
        buffer: list[str] = []
        buffer_size = 10

        async for chunk in agent.call_stream("Long text"):
            buffer.append(chunk)

            if len(buffer) >= buffer_size:
                print("".join(buffer), end="", flush=True)
                written.append("".join(buffer))
                buffer = []

        # Flush remaining
        if buffer:
            print("".join(buffer), end="", flush=True)
            written.append("".join(buffer))

    await buffered_streaming()
    assert 1 <= len(written) <= 2
    assert capsys.readouterr().out == "".join(written) != ""


async def test_concurrent_streaming(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    key1 = key2 = key

    async def concurrent_streams() -> None:
        """Stream from multiple agents simultaneously"""

        agents: list[tuple[str, ClaudeAgent | OpenAIAgent]] = [
            ("claude", ClaudeAgent(api_key=key1)),
            ("openai", OpenAIAgent(api_key=key2)),
        ]

        async def stream_from_agent(name: str, agent: ClaudeAgent | OpenAIAgent) -> None:
            async for chunk in agent.call_stream("Test", max_tokens=FEW):
                print(f"[{name}] {chunk}")

        await asyncio.gather(*[stream_from_agent(name, agent) for name, agent in agents])
        for _, agent in agents:
            await agent.aclose()

    await concurrent_streams()
    printed = capsys.readouterr().out
    assert "[claude] " in printed
    assert "[openai] " in printed


# --- troubleshooting --------------------------------------------------------------------------------------------------


async def test_a_stream_is_no_list(agent: ClaudeAgent) -> None:
    # ❌ Wrong
    chunks = agent.call_stream("Test")  # Returns AsyncIterator, not list
    assert isinstance(chunks, AsyncIterator)
    with pytest.raises(TypeError, match="not iterable"):
        list(chunks)  # type: ignore[call-overload]

    # ✅ Correct
    got = []
    async for chunk in agent.call_stream("Test"):
        got.append(chunk)  # noqa: PERF401 - as the guide has it
    assert got


# --- what streaming is for --------------------------------------------------------------------------------------------


async def test_the_first_chunk_is_there_before_the_provider_has_said_the_second() -> None:
    """First token against total: a regular call waits for all of it, a stream does not."""
    said_more = asyncio.Event()
    events = chat("First", " and last")
    held = [head(), *map(framed, events[:2]), said_more, *map(framed, events[2:]), LAST]
    async with Provider(held) as provider, OpenAIAgent("key", base_url=provider.url) as agent:
        regular = asyncio.create_task(agent.call("Hi"))
        text = ""
        async for chunk in agent.call_stream("Hi"):
            if not text:
                assert chunk == "First"
                assert not regular.done()
                said_more.set()
            text += chunk
        assert text == "First and last"
        assert (await regular).text == text


async def test_the_model_is_heard_while_it_is_still_writing(scheduler: MultiAgentScheduler) -> None:
    task = Task("t", "Write an essay about rivers", options={"max_tokens": 30})
    states = []
    async for item in scheduler.execute_task_stream(task, "claude"):
        if not item["done"]:
            states.append(scheduler.streams()[-1].state)
        else:
            assert 0 < item["ttft"] < item["latency"]
    assert states[0] == "running"
    assert len(states) > 10
