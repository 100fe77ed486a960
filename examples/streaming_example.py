"""Streaming, in short examples. Each runs with no key, on the embedded model.

    python examples/streaming_example.py              all of them, one after the other
    python examples/streaming_example.py chat events  some of them
    python examples/streaming_example.py --list       what there is

With ANTHROPIC_API_KEY or OPENAI_API_KEY set, write ClaudeAgent() or OpenAIAgent() for LocalAgent() and nothing else
changes. The usage guide (docs/USAGE_GUIDE.md) says more about each of them.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

from multi_agent_scheduler import (
    Agent,
    AgentError,
    FunctionAgent,
    LocalAgent,
    MultiAgentScheduler,
    OpenAIAgent,
    Task,
    Timeouts,
    buffered,
    get_event_bus,
    get_metrics,
)
from multi_agent_scheduler.events import Event
from multi_agent_scheduler.scheduler import Template

agent = LocalAgent()


async def basic() -> None:
    """An agent's answer, piece by piece as it arrives."""
    async for chunk in agent.call_stream("Explain Python async in two sentences", max_tokens=60):
        print(chunk, end="", flush=True)
    print()


async def scheduler() -> None:
    """A task through a scheduler: pieces, then one last dict that says how it went."""
    async with MultiAgentScheduler(agents={"local": agent}) as scheduler:
        task = Task(id="task1", prompt="Write a haiku", task_type="creative", options={"max_tokens": 40})
        async for chunk_data in scheduler.execute_task_stream(task, "local"):
            if not chunk_data["done"]:
                print(chunk_data["chunk"], end="", flush=True)
            else:
                print(f"\n{chunk_data['agent_selected']}: {chunk_data['stop_reason']} in {chunk_data['latency']:.2f} s")


async def chat() -> None:
    """A conversation: messages instead of one prompt."""
    messages = [
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada!"},
        {"role": "user", "content": "What is my name?"},
    ]
    print("AI: ", end="")
    async for chunk in agent.call_stream(messages, max_tokens=40):
        print(chunk, end="", flush=True)
    print()


async def progress() -> None:
    """How far an answer has come (on a terminal: the number counts up in place)."""
    characters = 0
    async for chunk in agent.call_stream("Write an essay about rivers", max_tokens=60):
        characters += len(chunk)
        if sys.stdout.isatty():
            print(f"\r{characters} characters ...", end="", flush=True)
    print(f"\rcomplete: {characters} characters" if sys.stdout.isatty() else f"complete: {characters} characters")


async def several() -> None:
    """Several tasks at once, over one scheduler."""
    async with MultiAgentScheduler(agents={"local": agent}) as scheduler:
        tasks = [Task(f"t{n}", f"Name {n} colours", options={"max_tokens": 30}) for n in (2, 3, 4)]

        async def show(task: Task) -> None:
            async for item in scheduler.execute_task_stream(task, "local"):
                if item["done"]:
                    print(f"[{task.id}] {' '.join(item['result'].split())}")

        await asyncio.gather(*(show(task) for task in tasks))


async def plan() -> None:
    """Tasks that depend on each other: the second is given what the first one wrote."""
    tasks = [
        Task("draft", "Write one sentence about the sea", options={"max_tokens": 30}),
        Task("title", Template("Give this a title: ${draft}"), depends_on=["draft"], options={"max_tokens": 12}),
    ]
    async with MultiAgentScheduler(agents={"local": agent}) as scheduler:
        results = await scheduler.run(tasks)
    for task_id, result in results.items():
        print(f"[{task_id}] {' '.join(result.text.split())}")


async def events() -> None:
    """Events for whoever wants to know, and metrics for whoever counts."""
    bus = get_event_bus()

    async def on_complete(event: Event) -> None:
        print(f"{event.name}: {event.data['task_id']} took {event.data['latency']:.2f} s")

    bus.on("task.stream_completed", on_complete)
    async with MultiAgentScheduler(agents={"local": agent}) as scheduler:
        await scheduler.execute_task(Task("t1", "Say hello", options={"max_tokens": 20}))
    bus.off("task.stream_completed", on_complete)
    counters = get_metrics().get_all_stats()["counters"]
    print(f"streams started: {counters['tasks.stream_started']}, completed: {counters['tasks.stream_completed']}")


async def errors() -> None:
    """What a failure looks like: never like a success, and what came before it is kept."""
    nobody = OpenAIAgent(api_key="any", base_url="http://127.0.0.1:1/v1")  # nothing listens there
    try:
        async for chunk in nobody.call_stream("What is the answer?"):
            print(f"the last chunk is a marker: {chunk.strip()}")
    except AgentError as error:
        print(f"and then it is raised: {type(error).__name__}, retryable={error.retryable}")

    async def flaky(prompt: str) -> AsyncIterator[str]:
        yield f"{prompt} The answer is "
        raise ConnectionError("the line went dead")

    broken = FunctionAgent(flaky)
    try:
        await broken.call("What is the answer?")
    except AgentError as error:
        print(f"half-way: {error}; kept: {str(error.partial)!r}")

    async with MultiAgentScheduler(agents={"flaky": broken}) as scheduler:  # a scheduler returns it
        result = await scheduler.execute_task(Task("t1", "What is the answer?"))
        print(f"in a scheduler: success={result.success} state={result.state} text={result.text!r}")


async def lines() -> None:
    """Fewer, larger pieces: by line here; by number, time or sentence as well."""
    async for line in buffered(agent.call_stream("List three fruits, one a line", max_tokens=40), lines=True):
        print(f"> {line}", end="")
    print()


async def concurrent() -> None:
    """Several agents at once. A function of your own is an agent too."""

    async def echo(prompt: str) -> AsyncIterator[str]:
        for word in prompt.split():
            yield word + " "

    async def show(name: str, one: Agent) -> None:
        result = await one.call("The quick brown fox")
        print(f"[{name}] {' '.join(result.text.split())[:70]}")

    await asyncio.gather(show("local", LocalAgent(defaults={"max_tokens": 30})), show("echo", FunctionAgent(echo)))


async def timeout() -> None:
    """Time limits: the agent's own, and asyncio's. Both stop the model."""
    try:
        await agent.call("Count to ten thousand", timeouts=Timeouts(total=0.3))
    except AgentError as error:
        print(f"{error.code}: {error} (error.partial has what came)")
    try:
        async with asyncio.timeout(0.3):
            async for _ in agent.call_stream("Count to ten thousand"):
                pass
    except TimeoutError:
        print("asyncio.timeout: TimeoutError, as from anything else in asyncio")


async def sync() -> None:
    """Plain generators, for code without an event loop (here in a thread, as this example has a loop)."""

    def plain() -> None:
        for chunk in agent.call_stream_sync("Say hello", max_tokens=20):
            print(chunk, end="", flush=True)
        print()

    await asyncio.to_thread(plain)


EXAMPLES: dict[str, Callable[[], Awaitable[None]]] = {
    example.__name__: example
    for example in (basic, scheduler, chat, progress, several, plan, events, errors, lines, concurrent, timeout, sync)
}


async def main(names: list[str]) -> None:
    # What a function raises is written to the log, with its traceback. These examples fail on purpose: keep it quiet.
    logging.getLogger("multi_agent_scheduler").addHandler(logging.NullHandler())
    for name in names:
        print(f"--- {name}: {EXAMPLES[name].__doc__}", flush=True)
        await EXAMPLES[name]()
        print()


if __name__ == "__main__":
    wanted = sys.argv[1:]
    if wanted == ["--list"]:
        for name, example in EXAMPLES.items():
            print(f"{name:12} {example.__doc__}")
    elif unknown := [name for name in wanted if name not in EXAMPLES]:
        sys.exit(f"unknown example {unknown[0]!r}; the examples are {', '.join(EXAMPLES)}")
    elif agent.missing:
        sys.exit(agent.missing)
    else:
        asyncio.run(main(wanted or list(EXAMPLES)))
