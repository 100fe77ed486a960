"""The scheduler: one log, one terminal, whatever happens, and the guide's dicts as its readers see them."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from multi_agent_scheduler.agents import FunctionAgent
from multi_agent_scheduler.errors import (
    CallerError,
    CursorError,
    ErrorInfo,
    InvalidConfiguration,
    InvalidOption,
    InvalidRequest,
    StoreClosed,
    StreamNotFound,
    StreamReset,
    UnknownAgent,
    WrongLoop,
    agent_error,
)
from multi_agent_scheduler.events import Event, EventBus
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import (
    CallEnded,
    CallStarted,
    Cancelled,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Reset,
    Text,
    Usage,
)
from multi_agent_scheduler.scheduler import Limits, MultiAgentScheduler
from multi_agent_scheduler.store.memory import MemoryStore
from multi_agent_scheduler.task import Task, Timeouts
from multi_agent_scheduler.testing import ScriptedAgent

GUIDE_KEYS = ["task_id", "task_type", "agent_selected", "result", "latency", "done", "success", "error"]


class House:
    """A scheduler with a bus and metrics of its own, and what was heard on the bus."""

    def __init__(self, *agents: Any, **options: Any) -> None:
        self.events: list[Event] = []
        bus = EventBus()
        bus.on("task.*", self.events.append)
        self.metrics = Metrics()
        named = {agent.name: agent for agent in agents}
        self.scheduler = MultiAgentScheduler(named, event_bus=bus, metrics=self.metrics, **options)

    async def __aenter__(self) -> House:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.scheduler.aclose()

    def names(self) -> list[str]:
        return [event.name for event in self.events if event.name != "task.stream_chunk"]

    def count(self, name: str) -> float:
        counters: dict[str, float] = self.metrics.get_all_stats()["counters"]
        return counters[name]

    async def dicts(self, task: Task, *args: Any) -> list[dict[str, Any]]:
        return [item async for item in self.scheduler.execute_task_stream(task, *args)]


async def test_the_guides_dicts_have_exactly_its_keys_in_its_order() -> None:
    usage = Usage(input_tokens=3, output_tokens=2)
    async with House(
        ScriptedAgent("Hello ", [Text("wor"), Text("ld")], [usage, Completed("stop")], name="claude")
    ) as house:
        items = await house.dicts(Task("task1", "Hi", "creative"), "claude", 7)
    *pieces, last = items
    assert pieces == [{"task_id": "task1", "chunk": chunk, "done": False} for chunk in ("Hello ", "wor", "ld")]
    assert all(list(piece) == ["task_id", "chunk", "done"] for piece in pieces)
    assert list(last)[:8] == GUIDE_KEYS
    assert last["result"] == "Hello world"
    assert last["task_type"] == "creative"
    assert last["agent_selected"] == "claude"
    assert last["done"] is True
    assert last["success"] is True
    assert last["error"] is None
    assert last["batch"] == 7
    assert last["usage"]["output_tokens"] == 2
    assert last["latency"] >= last["ttft"] >= 0


async def test_draining_is_the_same_stream() -> None:
    async with House(ScriptedAgent("a", Reasoning("hm"), "b")) as house:
        result = await house.scheduler.execute_task(Task("t", "Hi"))
        assert (result.text, result.reasoning, result.state, result.success) == ("ab", "hm", "completed", True)
        assert result.agent == "scripted"
        records = [record async for record in house.scheduler.follow(str(result.stream_id))]
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert isinstance(records[0], CallStarted)
    assert isinstance(records[-2], CallEnded)
    assert isinstance(records[-1], Completed)


async def test_an_agent_that_raises_what_closes_generators_does_not_hang_its_reader() -> None:
    async def confused(prompt: str) -> AsyncIterator[str]:
        yield "part"
        raise GeneratorExit

    async with House(FunctionAgent(confused, name="confused")) as house:
        *_, last = await house.dicts(Task("t", "Hi"))
    assert (last["state"], last["result"]) == ("failed", "part")


@pytest.mark.parametrize("ends", [True, False])
async def test_an_agent_that_swallows_its_cancellation_is_stopped_all_the_same(ends: bool) -> None:
    closed = asyncio.Event()

    async def stubborn(prompt: str) -> AsyncIterator[str]:
        try:
            yield "part"
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if ends:
                        return
                    yield "still"
        finally:
            closed.set()

    async with House(FunctionAgent(stubborn, name="stubborn")) as house:
        handle = await house.scheduler.submit(Task("t", "Hi"))
        async for record in handle.follow():
            if isinstance(record, Text):
                break
        assert await handle.cancel("enough")
        assert closed.is_set()
        result = await handle.result()
    assert (result.state, result.text) == ("cancelled", "part" if ends else "partstill")
    assert house.names() == ["task.stream_started", "task.stream_cancelled"]


async def test_a_function_over_a_client_that_blocks_is_read_while_it_runs() -> None:
    given: list[int] = []

    async def blocking(prompt: str) -> AsyncIterator[str]:
        for number in range(20):
            time.sleep(0.003)  # noqa: ASYNC251 - that is the point
            given.append(number)
            yield "word "

    async with House(FunctionAgent(blocking, name="blocking")) as house:
        seen = [len(given) async for _ in house.scheduler.execute_task_stream(Task("t", "Hi"))]
    assert seen[0] < 10


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_program_that_is_ended_from_inside_an_agent_has_a_terminal_all_the_same(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def ending(prompt: str) -> AsyncIterator[str]:
        yield "part"
        raise kind

    scheduler = MultiAgentScheduler({"ending": ending}, event_bus=EventBus(), metrics=Metrics())
    with pytest.raises(kind):
        asyncio.run(scheduler.execute_task(Task("t", "Hi")))
    assert [info.state for info in scheduler.streams()] == ["interrupted"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("step", "state", "error"),
    [
        (
            agent_error(ErrorInfo("overloaded_error", "too busy", detail="secret words")),
            "failed",
            "overloaded_error: too busy",
        ),
        (Interrupted(ErrorInfo("interrupted", "cut")), "interrupted", "interrupted: cut"),
        (Failed(ErrorInfo("server_error", "it failed")), "failed", "server_error: it failed"),
        (RuntimeError("a bug"), "failed", "internal_error: the agent broke down; the log has the details"),
        (Completed("content_filter"), "completed", "content_filter: the provider refused or blocked the content"),
    ],
)
async def test_a_failure_is_in_the_last_dict_and_what_came_is_kept(step: Any, state: str, error: str) -> None:
    async with House(ScriptedAgent("part", step)) as house:
        *pieces, last = await house.dicts(Task("t", "Hi"))
        assert [piece["chunk"] for piece in pieces] == ["part"]
        assert (last["success"], last["state"], last["error"], last["result"]) == (False, state, error, "part")
        assert house.names() == ["task.stream_started", "task.stream_failed"]
        records = [record async for record in house.scheduler.follow(last["stream_id"])]
    starts = [record.call for record in records if isinstance(record, CallStarted)]
    ends = [record.call for record in records if isinstance(record, CallEnded)]
    assert starts == ends == [1]


async def test_leaving_early_stops_the_provider() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent("one", gate, "two")
    async with House(agent) as house:
        stream = house.scheduler.execute_task_stream(Task("t", "Hi"))
        assert (await anext(stream))["chunk"] == "one"
        await stream.aclose()  # type: ignore[attr-defined]
        assert (agent.running, agent.closed) == (0, 1)
        (info,) = house.scheduler.streams()
        assert info.state == "cancelled"
        assert house.names()[-1] == "task.stream_cancelled"
        assert house.count("tasks.stream_cancelled") == 1


async def test_a_stream_that_is_dropped_in_mid_air_is_stopped_too() -> None:
    agent = ScriptedAgent("one", asyncio.Event())
    async with House(agent) as house:
        async for item in house.scheduler.execute_task_stream(Task("t", "Hi")):
            assert item["chunk"] == "one"
            break
        gc.collect()
        for _ in range(10):
            await asyncio.sleep(0)
        assert agent.closed == 1


async def test_cancelling_the_reader_passes_and_stops_the_provider() -> None:
    agent = ScriptedAgent("one", asyncio.Event())
    async with House(agent) as house:
        seen = asyncio.Event()

        async def read() -> None:
            async for _ in house.scheduler.execute_task_stream(Task("t", "Hi")):
                seen.set()

        reader = asyncio.create_task(read())
        await seen.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert agent.closed == 1


async def test_a_submitted_task_goes_on_without_readers_and_can_be_followed_from_any_cursor() -> None:
    gate = asyncio.Event()
    async with House(ScriptedAgent("one", "two", gate, "three")) as house:
        handle = await house.scheduler.submit(Task("t", "Hi"))
        early: list[Record] = []
        async for record in handle.follow():
            early.append(record)
            if isinstance(record, Text) and record.text == "two":
                break
        gate.set()
        rest = [record async for record in handle.follow(after=early[-1].seq)]
        again = [record async for record in handle.follow()]
        assert early + rest == again
        assert (await handle.result()).text == "onetwothree"
        assert not await handle.cancel()


async def test_a_stop_keeps_the_partial_and_is_the_only_terminal() -> None:
    agent = ScriptedAgent("part", asyncio.Event())
    async with House(agent) as house:
        handle = await house.scheduler.submit(Task("t", "Hi"))
        async for record in handle.follow():
            if isinstance(record, Text):
                break
        assert await handle.cancel("enough")
        result = await handle.result()
        assert (result.text, result.state, result.success) == ("part", "cancelled", False)
        records = [record async for record in handle.follow()]
        assert records[-1] == Cancelled("enough", seq=len(records))
        ended = records[-2]
        assert isinstance(ended, CallEnded)
        assert (ended.call, ended.outcome) == (1, "cancelled")
        assert agent.closed == 1


async def test_a_stop_that_comes_before_the_start_is_remembered() -> None:
    agent = ScriptedAgent("never")
    async with House(agent) as house:
        handle = await house.scheduler.submit(Task("t", "Hi"))
        assert await handle.cancel()  # the run has not had its first turn
        assert (await handle.result()).state == "cancelled"
        assert agent.requests == []


async def test_max_concurrent_holds_and_waiting_tasks_follow_in_order() -> None:
    gates = [asyncio.Event() for _ in range(4)]
    active: list[str] = []
    most = 0

    async def slow(prompt: str) -> AsyncIterator[str]:
        nonlocal most
        active.append(prompt)
        most = max(most, len(active))
        await gates[int(prompt)].wait()
        active.remove(prompt)
        yield prompt

    from multi_agent_scheduler.agents.function import FunctionAgent

    async with House(FunctionAgent(slow, name="f", max_concurrent=2)) as house:
        handles = [await house.scheduler.submit(Task(f"t{n}", str(n))) for n in range(4)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert active == ["0", "1"]
        assert await handles[3].cancel()  # one that waits can be stopped, and holds nothing then
        gates[1].set()
        assert (await handles[1].result()).text == "1"
        for _ in range(20):
            await asyncio.sleep(0)
        assert active == ["0", "2"]
        for gate in gates:
            gate.set()
        assert [(await handle.result()).state for handle in handles] == ["completed"] * 3 + ["cancelled"]
        assert most == 2


async def test_waiting_for_a_permit_has_a_limit() -> None:
    busy = ScriptedAgent("x", asyncio.Event(), name="a", max_concurrent=1)
    async with House(busy) as house:
        await house.scheduler.submit(Task("t1", "Hi"))
        last = (await house.dicts(Task("t2", "Hi", timeouts=Timeouts(queue=0.01))))[-1]
        assert last["error"] == "timeout_error: no permit within the queue limit of 0.01 s"


async def test_time_limits_end_a_silent_agent() -> None:
    async with House(ScriptedAgent("x", asyncio.Event())) as house:
        last = (await house.dicts(Task("t", "Hi", timeouts=Timeouts(between_content=0.01))))[-1]
        assert last["error"] == "timeout_error: no further content within the between_content limit of 0.01 s"
        assert last["result"] == "x"
        last = (await house.dicts(Task("t", "Hi", timeouts=Timeouts(total=0.01))))[-1]
        assert last["error"] == "timeout_error: not finished within the total limit of 0.01 s"


async def test_concurrent_streams_do_not_mix() -> None:
    async with House(ScriptedAgent("a", "b", "c")) as house:
        answers = await asyncio.gather(*(house.dicts(Task(f"t{n}", "Hi")) for n in range(50)))
        for number, items in enumerate(answers):
            assert {item["task_id"] for item in items} == {f"t{number}"}
            assert items[-1]["result"] == "abc"
        assert house.count("tasks.stream_started") == house.count("tasks.stream_completed") == 50


async def test_events_have_been_heard_before_the_last_dict() -> None:
    bus, heard = EventBus(), []

    async def later(event: Event) -> None:
        await asyncio.sleep(0)
        heard.append(("async", event.name))

    bus.on("task.stream_completed", lambda event: heard.append(("plain", event.name)))
    bus.on("task.stream_completed", later)
    scheduler = MultiAgentScheduler({"a": ScriptedAgent("x")}, event_bus=bus, metrics=Metrics())
    async for item in scheduler.execute_task_stream(Task("t", "Hi"), "a"):
        if item["done"]:
            assert heard == [("plain", "task.stream_completed"), ("async", "task.stream_completed")]
    await scheduler.aclose()


async def test_a_handler_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus()
    bus.on("*", lambda _: 1 / 0)
    scheduler = MultiAgentScheduler({"a": ScriptedAgent("x")}, event_bus=bus, metrics=Metrics())
    items = [item async for item in scheduler.execute_task_stream(Task("t", "Hi"), "a")]
    assert items[-1]["success"]
    assert "ZeroDivisionError" in caplog.text
    await scheduler.aclose()


async def test_event_data_is_the_guides() -> None:
    async with House(ScriptedAgent("x", "y")) as house:
        await house.dicts(Task("t", "Hi", "creative"))
        started, ended = (event for event in house.events if event.name != "task.stream_chunk")
        assert started.data["task_id"] == "t"
        assert isinstance(ended.data["latency"], float)
        assert ended.data["success"] is True
        chunks = [event.data["chunk"] for event in house.events if event.name == "task.stream_chunk"]
        assert chunks == ["x", "y"]


async def test_a_reset_after_output_ends_a_text_reader_and_stops_the_task() -> None:
    shown = asyncio.Event()
    agent = ScriptedAgent("wrong", shown, Reset(1, "another attempt"), asyncio.Event())
    async with House(agent) as house:
        stream = house.scheduler.execute_task_stream(Task("t", "Hi"))
        assert (await anext(stream))["chunk"] == "wrong"
        shown.set()
        with pytest.raises(StreamReset, match="another attempt"):
            await anext(stream)
        assert agent.closed == 1


async def test_a_log_over_its_cap_fails_the_task_and_stops_the_provider() -> None:
    agent = ScriptedAgent(*["x" * 100] * 50, asyncio.Event())
    async with House(agent, store=MemoryStore(max_log_bytes=1000)) as house:
        last = (await house.dicts(Task("t", "Hi")))[-1]
        assert last["error"].startswith("response_too_large: the log of the stream")
        assert last["state"] == "failed"
        assert 0 < len(last["result"]) <= 1000
        assert agent.closed == 1


async def test_the_callers_mistakes_raise_before_the_first_item() -> None:
    async with House(ScriptedAgent("x", name="claude"), ScriptedAgent("x", name="openai")) as house:

        async def first(task: Any, *args: Any) -> Any:
            return await anext(house.scheduler.execute_task_stream(task, *args))

        with pytest.raises(UnknownAgent, match="unknown agent 'nobody'; the agents are claude, openai"):
            await first(Task("t", "Hi"), "nobody")
        with pytest.raises(UnknownAgent, match=r"unknown agent \['claude'\]; the agents are claude, openai"):
            await first(Task("t", "Hi"), ["claude"])
        with pytest.raises(UnknownAgent, match="'t': agent: unknown agent 'x'"):
            await first(Task("t", "Hi", agent="x"))
        with pytest.raises(InvalidRequest, match="the prompt is empty"):
            await first(Task("t", "  "), "claude")
        with pytest.raises(InvalidRequest, match="id must be a non-empty string"):
            await first(Task("", "Hi"), "claude")
        with pytest.raises(InvalidRequest, match="task_type must be a non-empty string"):
            await first(Task("t", "Hi", ""), "claude")
        with pytest.raises(InvalidRequest, match="must be a Task"):
            await first("Hi", "claude")
        with pytest.raises(InvalidOption, match="max_tokens must be at least 1, not -5"):
            await first(Task("t", "Hi", options={"max_tokens": -5}), "claude")
        with pytest.raises(CallerError, match=r"unknown option 'max_token'.*extra="):
            await first(Task("t", "Hi", options={"max_token": 5}), "claude")
        assert house.scheduler.streams() == []
        assert house.events == []


async def test_agents_are_chosen_by_task_type_with_a_fall_back() -> None:
    agents = {name: ScriptedAgent(name) for name in ("first", "writer", "coder")}
    scheduler = MultiAgentScheduler(agents, routes={"creative": "writer", "code": "coder"})
    assert scheduler.select_agent(Task("t", "Hi", "creative")) == "writer"
    assert scheduler.select_agent(Task("t", "Hi", "unheard of")) == "first"
    assert scheduler.select_agent(Task("t", "Hi", "code", agent="writer")) == "writer"
    assert MultiAgentScheduler(agents, default_agent="coder").select_agent(Task("t", "Hi")) == "coder"
    assert (await scheduler.execute_task(Task("t", "Hi", "code"))).text == "coder"
    await scheduler.aclose()


def test_what_cannot_work_is_refused_at_once() -> None:
    agent = ScriptedAgent()
    with pytest.raises(InvalidConfiguration, match="at least one"):
        MultiAgentScheduler({})
    with pytest.raises(InvalidConfiguration, match=r"agents\['a'\] must be an agent"):
        MultiAgentScheduler({"a": "claude"})  # type: ignore[dict-item]
    with pytest.raises(InvalidConfiguration, match=r"not its class: ScriptedAgent\(\.\.\.\)"):
        MultiAgentScheduler({"a": ScriptedAgent})
    with pytest.raises(UnknownAgent, match=r"routes\['code'\]: unknown agent 'b'; the agents are a"):
        MultiAgentScheduler({"a": agent}, routes={"code": "b"})
    with pytest.raises(UnknownAgent, match="default_agent"):
        MultiAgentScheduler({"a": agent}, default_agent="b")
    with pytest.raises(InvalidConfiguration, match="store must be"):
        MultiAgentScheduler({"a": agent}, store="postgres://x")
    with pytest.raises(InvalidConfiguration, match=r"store must be .* or a Store, not None"):
        MultiAgentScheduler({"a": agent}, store=None)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfiguration, match="routes must map task types to names of agents, not 5"):
        MultiAgentScheduler({"a": agent}, routes=5)  # type: ignore[arg-type]


async def test_a_function_is_taken_as_an_agent() -> None:
    async def shout(prompt: str) -> AsyncIterator[str]:
        yield prompt.upper()

    async with MultiAgentScheduler({"shout": shout}) as scheduler:
        assert (await scheduler.execute_task(Task("t", "hi"), "shout")).text == "HI"


async def test_cursors_and_streams_that_do_not_exist() -> None:
    async with House(ScriptedAgent("x")) as house:
        result = await house.scheduler.execute_task(Task("t", "Hi"))
        with pytest.raises(CursorError):
            await anext(house.scheduler.follow(str(result.stream_id), after=1000))
        with pytest.raises(StreamNotFound):
            await anext(house.scheduler.follow("no such stream"))


def test_a_scheduler_belongs_to_one_loop_while_that_lives() -> None:
    scheduler = MultiAgentScheduler({"a": ScriptedAgent("x")}, metrics=Metrics())

    async def once() -> str:
        return (await scheduler.execute_task(Task("t", "Hi"))).text

    assert asyncio.run(once()) == "x"
    assert asyncio.run(once()) == "x"  # the first loop is closed: nothing of it is left
    first = asyncio.new_event_loop()
    try:
        assert first.run_until_complete(once()) == "x"
        with pytest.raises(WrongLoop, match="belongs to another event loop"):
            asyncio.run(once())
        first.run_until_complete(scheduler.aclose())
    finally:
        first.close()


async def test_closing_stops_what_runs_and_takes_nothing_more() -> None:
    agent = ScriptedAgent("x", asyncio.Event())
    house = House(agent)
    handle = await house.scheduler.submit(Task("t", "Hi"))
    async for record in handle.follow():
        if isinstance(record, Text):
            break
    await house.scheduler.aclose()
    assert agent.closed == 1
    assert (await handle.result()).state == "cancelled"
    with pytest.raises(StoreClosed):
        await house.dicts(Task("t", "Hi"))


def test_the_sync_twin_gives_the_same_dicts() -> None:
    scheduler = MultiAgentScheduler({"a": ScriptedAgent("x", "y")}, metrics=Metrics())
    items = list(scheduler.execute_task_stream_sync(Task("t", "Hi"), "a"))
    assert [item.get("chunk") for item in items] == ["x", "y", None]
    assert items[-1]["success"]
    assert scheduler.execute_task_sync(Task("t", "Hi")).text == "xy"


def test_an_abandoned_sync_stream_is_stopped() -> None:
    agent = ScriptedAgent("x", "y", "z")
    scheduler = MultiAgentScheduler({"a": agent}, metrics=Metrics())
    stream = scheduler.execute_task_stream_sync(Task("t", "Hi"), "a")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert agent.running == 0


async def test_an_agents_limits_hold_in_any_minute() -> None:
    agent = ScriptedAgent("x", name="a")
    async with House(agent, limits={"a": Limits(requests_per_minute=2)}) as house:
        handles = [await house.scheduler.submit(Task(f"t{n}", "Hi")) for n in range(4)]
        assert [(await handle.result()).state for handle in handles[:2]] == ["completed"] * 2
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(agent.requests) == 2  # the others wait for the window to move on
        for handle in handles[2:]:
            assert await handle.cancel()


async def test_a_request_over_its_bucket_fails_at_once() -> None:
    async with House(ScriptedAgent("x", name="a"), limits={"a": Limits(tokens_per_minute=10)}) as house:
        result = await house.scheduler.execute_task(Task("t", "Hi", options={"max_tokens": 500}))
    assert result.state == "failed"
    assert "can never be made within its limit of 10 tokens per minute" in str(result.error)


async def test_a_task_types_limit_holds_over_all_agents() -> None:
    gate = asyncio.Event()
    first, second = ScriptedAgent(gate, name="a"), ScriptedAgent(gate, name="b")
    async with House(first, second, task_type_limits={"heavy": 1}) as house:
        tasks = [Task("1", "Hi", "heavy", agent="a"), Task("2", "Hi", "heavy", agent="b"), Task("3", "Hi", agent="b")]
        handles = [await house.scheduler.submit(task) for task in tasks]
        for _ in range(20):
            await asyncio.sleep(0)
        assert (first.running, second.running) == (1, 1)  # the second heavy one waits, the light one does not
        gate.set()
        assert all([(await handle.result()).success for handle in handles])


def test_limits_of_nobody_and_of_nothing_are_refused() -> None:
    with pytest.raises(UnknownAgent, match="limits: unknown agent 'b'"):
        MultiAgentScheduler({"a": ScriptedAgent()}, limits={"b": Limits(concurrency=1)})
    with pytest.raises(InvalidOption, match=r"limits\['a'\] must be Limits"):
        MultiAgentScheduler({"a": ScriptedAgent()}, limits={"a": 5})  # type: ignore[dict-item]
    with pytest.raises(InvalidOption, match="concurrency must be a whole number above 0"):
        Limits(concurrency=0)
