"""How users call the public names, for a type checker: ``mypy --strict`` reads this file, and nothing runs it."""

# ruff: noqa: T201 - stands for whatever is done with a value

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import aclosing, closing
from typing import Any, assert_never, assert_type

import multi_agent_scheduler as mas
from multi_agent_scheduler import (
    Agent,
    AgentError,
    CallerError,
    ClaudeAgent,
    CompatibleAgent,
    EventBus,
    FunctionAgent,
    GeminiAgent,
    Handle,
    ImagePart,
    LocalAgent,
    Message,
    Metrics,
    MultiAgentScheduler,
    OpenAIAgent,
    Result,
    SchedulerError,
    StoreError,
    Task,
    TextPart,
    Timeouts,
    Tool,
    buffered,
    get_event_bus,
    get_metrics,
)
from multi_agent_scheduler.agents import PRESETS, Context, LocalServer, local_server
from multi_agent_scheduler.errors import AuthenticationError, ErrorInfo, RateLimitError, UnknownAgent, agent_error
from multi_agent_scheduler.events import STREAM_COMPLETED, Event
from multi_agent_scheduler.metrics import PROMETHEUS_CONTENT_TYPE, Counter, Gauge, Histogram
from multi_agent_scheduler.records import (
    CallEnded,
    CallStarted,
    Cancelled,
    Citation,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Refusal,
    Reset,
    Skipped,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
    decode_record,
    encode_record,
)
from multi_agent_scheduler.request import ToolCallPart, ToolResultPart
from multi_agent_scheduler.scheduler import PlanResult, Template
from multi_agent_scheduler.task import State, ToolCallResult
from multi_agent_scheduler.testing import ScriptedAgent

assert_type(mas.__version__, str)


# --- agents ---------------------------------------------------------------------------------------------------------


async def token() -> str:
    return "a token that expires"


async def own_agent(prompt: str, *, words: int = 3) -> AsyncIterator[str]:
    for word in prompt.split()[:words]:
        yield word


async def own_records(prompt: str) -> AsyncIterator[str | Record]:
    yield Reasoning("Let me see.")
    yield prompt
    yield Completed("stop")


def agents() -> list[Agent]:
    return [
        ClaudeAgent(),
        ClaudeAgent("key", model="claude-sonnet-5", base_url="https://host", max_concurrent=5, errors="raise"),
        OpenAIAgent(api_key="key", api="responses", timeouts=Timeouts(total=60), headers={"x-team": "a"}),
        OpenAIAgent(auth=token, proxy="", ca="ca.pem", client_cert=("cert.pem", "key.pem")),
        GeminiAgent(api_key=None, name="gemini-2", defaults={"temperature": 0.0}, max_response_bytes=1_000_000),
        CompatibleAgent(base_url="http://127.0.0.1:8000/v1", model="some-model"),
        CompatibleAgent(preset="azure", base_url="https://NAME.openai.azure.com", api_version="2024-10-21", model="d"),
        LocalAgent(),
        LocalAgent("model.gguf", slots=2, context=4096, threads=2, name="own"),
        FunctionAgent(own_agent),
        FunctionAgent(own_records, name="mine", max_concurrent=2, timeouts=Timeouts(first_content=5)),
        ScriptedAgent("Hello", [Text("a"), Text("b")], asyncio.Event(), agent_error(ErrorInfo("server_error", "no"))),
    ]


def agents_that_are_wrong() -> None:
    ClaudeAgent(api_keys="key")  # type: ignore[call-arg]
    OpenAIAgent(api="completions")  # type: ignore[arg-type]
    OpenAIAgent(max_concurrent="many")  # type: ignore[arg-type]
    Timeouts(5)  # type: ignore[call-arg]
    Timeouts(read=5)  # type: ignore[call-arg]


async def calls(agent: Agent) -> None:
    stream = agent.call_stream("Explain Python async", max_tokens=100)
    assert_type(stream, AsyncGenerator[str, None])
    async for chunk in stream:
        assert_type(chunk, str)
    async with aclosing(agent.call_stream("Hi", errors="raise", timeouts=Timeouts(total=5))) as chunks:
        async for chunk in chunks:
            print(chunk)

    result = await agent.call("Hi", system="Be brief.", temperature=0, stop=["\n"], extra={"top_k": 5})
    assert_type(result, Result)
    async for record in agent.stream("Hi"):
        assert_type(record, Record)
        seen(record)

    plain = agent.call_stream_sync("Hi")
    assert_type(plain, Generator[str, None, None])
    with closing(plain) as pieces:
        print("".join(pieces))

    async with agent as same:
        assert_type(same, Agent)
    await agent.aclose()
    agent.call_stream("Hi", errors="silent")  # type: ignore[arg-type]
    agent.call_stream(b"Hi")  # type: ignore[arg-type]


async def prompts(agent: Agent) -> None:
    await agent.call([{"role": "user", "content": "Hi"}])
    picture = ImagePart(data=b"\x89PNG", media_type="image/png")
    await agent.call([Message("system", (TextPart("Be brief."),)), Message("user", (TextPart("What is it?"), picture))])

    weather = Tool("weather", "The weather of a city", {"type": "object", "properties": {"city": {"type": "string"}}})
    result = await agent.call("Is it raining in Paris?", tools=[weather], tool_choice="tool:weather")
    for call in result.tool_calls:
        assert_type(call, ToolCallResult)
        turn = Message("assistant", (ToolCallPart(call.id, call.name, call.arguments),))
        answer = Message("tool", (ToolResultPart(call.id, (TextPart("It is."),)),))
        await agent.call([Message("user", (TextPart("Is it raining in Paris?"),)), turn, answer], tools=[weather])


async def the_rest_of_an_agent(agent: Agent, local: LocalAgent) -> None:
    assert_type(agent.name, str)
    assert_type(agent.max_concurrent, int | None)
    request = agent.request("Hi", max_tokens=5)
    agent.check(request)
    async for batch in agent.batches(request, Context()):
        assert_type(batch, Sequence[Record])
    assert_type(sorted(PRESETS), list[str])
    assert_type(local.missing, str | None)
    server = await local_server(slots=2)
    assert_type(server, LocalServer)
    print(server.base_url, server.api_key, server.model)


# --- results, records, errors ---------------------------------------------------------------------------------------


def results(result: Result) -> None:
    assert_type(result.text, str)
    assert_type(result.success, bool)
    assert_type(result.state, State)
    assert_type(result.error, ErrorInfo | None)
    assert_type(result.stop_reason, StopReason | None)
    assert_type(result.usage, Usage | None)
    assert_type(result.latency, float)
    assert_type(result.ttft, float | None)
    assert_type(result.agent, str | None)
    assert_type(result.stream_id, str | None)
    assert_type(result.cached, bool)
    result.text = ""  # type: ignore[misc]
    if result.usage is not None:
        assert_type(result.usage.total_tokens, int | None)


def seen(record: Record) -> str:
    """A match over records is complete, and the checker knows it."""
    match record:
        case Text() | Reasoning() | Refusal():
            return record.text
        case ToolCall():
            return record.arguments
        case ToolResult():
            return record.name
        case Citation():
            return record.url or ""
        case Usage():
            return str(record.total_tokens)
        case CallStarted():
            return record.agent
        case CallEnded():
            return record.outcome
        case Reset() | Cancelled() | Skipped():
            return record.reason
        case Unknown():
            return repr(record.raw)
        case Completed():
            return record.stop_reason
        case Failed() | Interrupted():
            return record.error.code
        case _:
            assert_never(record)


def written(record: Record) -> None:
    assert_type(encode_record(record), bytes)
    assert_type(decode_record(b'{"type": "text", "text": "Hi"}'), Record)


async def failures(agent: Agent) -> None:
    try:
        await agent.call("Hi")
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
    except AuthenticationError as error:
        assert_type(error.status, int | None)
        assert_type(error.request_id, str | None)
    except AgentError as error:
        assert_type(error.code, str)
        assert_type(error.retryable, bool)
        assert_type(error.partial, Result | None)
    except UnknownAgent as error:
        caller: CallerError = error
        value: ValueError = caller
        print(value)
    except (CallerError, StoreError) as error:
        root: SchedulerError = error
        print(root)


# --- the scheduler --------------------------------------------------------------------------------------------------


async def scheduling() -> None:
    scheduler = MultiAgentScheduler(
        {"claude": ClaudeAgent(), "own": own_agent},
        routes={"creative": "claude"},
        default_agent="own",
        event_bus=EventBus(),
        metrics=Metrics(),
    )
    assert_type(scheduler.agents, dict[str, Agent])
    MultiAgentScheduler(agents={"local": LocalAgent()})

    task = Task(id="task1", prompt="Write a haiku", task_type="creative")
    assert_type(scheduler.select_agent(task), str)
    async with scheduler:
        async for item in scheduler.execute_task_stream(task, "claude", batch=1):
            assert_type(item, dict[str, Any])
        async with aclosing(scheduler.execute_task_stream(task)) as items:
            async for item in items:
                print(item["chunk"])
        results(await scheduler.execute_task(task, "claude"))

        handle = await scheduler.submit(task)
        assert_type(handle, Handle)
        assert_type(handle.stream_id, str)
        async for record in handle.follow(after=3):
            assert_type(record, Record)
        assert_type(await handle.cancel(), bool)
        results(await handle.result())

        for info in scheduler.streams():
            print(info.stream_id, info.task_id, info.state)
        async for record in scheduler.follow(handle.stream_id):
            seen(record)


async def plans(scheduler: MultiAgentScheduler) -> None:
    draft = Task("draft", "Write", agent="claude", priority=2, options={"max_tokens": 50}, timeouts=Timeouts(queue=5))
    edit = Task("edit", Template("Shorten: ${draft}"), depends_on=["draft"], on_failure="run", metadata={"for": "me"})
    done = await scheduler.run([draft, edit])
    assert_type(done, PlanResult)
    assert_type(done["edit"], Result)
    assert_type(done.usage, Usage | None)
    assert_type(done.success, bool)
    for span in done.timeline:
        print(span.task_id, span.start, span.first, span.end)
    async for item in scheduler.stream([draft, edit]):
        print(item["stream_id"], item["seq"])
    Task("t", "Hi", on_failure="retry")  # type: ignore[arg-type]


def without_a_loop(scheduler: MultiAgentScheduler) -> None:
    results(scheduler.execute_task_sync(Task("t", "Hi")))
    with closing(scheduler.execute_task_stream_sync(Task("t", "Hi"))) as items:
        for item in items:
            assert_type(item, dict[str, Any])


# --- events, metrics, buffering -------------------------------------------------------------------------------------


async def events() -> None:
    bus = get_event_bus()
    assert_type(bus, EventBus)

    async def on_complete(event: Event) -> None:
        assert_type(event.name, str)
        assert_type(event.data, dict[str, Any])
        assert_type(event.time, float)

    assert_type(bus.on(STREAM_COMPLETED, on_complete) is on_complete, bool)
    bus.once("task.*", lambda event: print(event.name))

    @bus.on("task.stream_failed")
    def on_failed(event: Event) -> None:
        print(event.data["error"])

    on_failed(Event("task.stream_failed", {"error": "x"}, 0.0))  # a decorated handler is still the function
    assert_type(bus.off("task.stream_failed", on_failed), bool)
    bus.emit("own.event", {"answer": 42})
    assert_type(await bus.drain(), bool)
    bus.on("task.stream_failed", 5)  # type: ignore[call-overload]


def metrics() -> None:
    found = get_metrics()
    assert_type(found, Metrics)
    stats = found.get_all_stats()
    print(stats["counters"]["tasks.stream_started"], stats["histograms"]["stream.ttft_seconds"]["p95"])
    assert_type(found.prometheus_text(), str)
    assert_type(found.counter("own.things", {"kind": "a"}), Counter)
    assert_type(found.gauge("own.level"), Gauge)
    assert_type(found.histogram("own.seconds", bounds=[0.1, 1]), Histogram)
    content_type: str = PROMETHEUS_CONTENT_TYPE
    print(content_type)


async def buffering(agent: Agent) -> None:
    async for line in buffered(agent.call_stream("Hi"), lines=True):
        assert_type(line, str)
    async for piece in buffered(agent.call_stream("Hi"), chunks=10, milliseconds=50):
        print(piece)
    buffered(["not", "a", "stream"], chunks=2)  # type: ignore[arg-type]
