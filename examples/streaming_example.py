"""Streaming, in short examples. Each runs with no key, on the embedded model.

    python examples/streaming_example.py              all of them, one after the other
    python examples/streaming_example.py chat events  some of them
    python examples/streaming_example.py --list

With ANTHROPIC_API_KEY or OPENAI_API_KEY set, write ClaudeAgent() or OpenAIAgent() for LocalAgent(): nothing else changes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from multi_agent_scheduler import (
    AgentError,
    FunctionAgent,
    LocalAgent,
    MultiAgentScheduler,
    Task,
    Timeouts,
    buffered,
    get_event_bus,
    get_metrics,
)

agent = LocalAgent()


async def basic() -> None:
    """An agent's answer, piece by piece as it arrives."""
    async for chunk in agent.call_stream("Explain Python async in two sentences", max_tokens=80):
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
    """How far an answer has come."""
    characters = 0
    async for chunk in agent.call_stream("Write an essay about rivers", max_tokens=100):
        characters += len(chunk)
        print(f"\r{characters} characters ...", end="", flush=True)
    print(f"\rcomplete: {characters} characters")


async def several() -> None:
    """Several tasks at once, over one scheduler."""
    async with MultiAgentScheduler(agents={"local": agent}) as scheduler:
        tasks = [Task(f"t{n}", f"Name {n} colours", options={"max_tokens": 30}) for n in (2, 3, 4)]

        async def show(task: Task) -> None:
            async for item in scheduler.execute_task_stream(task, "local"):
                if item["done"]:
                    print(f"[{task.id}] {' '.join(item['result'].split())}")

        await asyncio.gather(*(show(task) for task in tasks))


async def events() -> None:
    """Events for whoever wants to know, and metrics for whoever counts."""
    bus = get_event_bus()

    async def on_complete(event) -> None:  # type: ignore[no-untyped-def]
        print(f"{event.name}: {event.data['task_id']} took {event.data['latency']:.2f} s")

    bus.on("task.stream_completed", on_complete)
    async with MultiAgentScheduler(agents={"local": agent}) as scheduler:
        await scheduler.execute_task(Task("t1", "Say hello", options={"max_tokens": 20}))
    bus.off("task.stream_completed", on_complete)
    counters = get_metrics().get_all_stats()["counters"]
    print(f"streams started: {counters['tasks.stream_started']}, completed: {counters['tasks.stream_completed']}")


async def errors() -> None:
    """A failure in the middle: what came is kept, and it is never taken for a success."""

    async def flaky(prompt: str):  # type: ignore[no-untyped-def]
        yield "The answer is "
        raise ConnectionError("the line went dead")

    broken = FunctionAgent(flaky)
    try:
        async for chunk in broken.call_stream("What is the answer?", errors="raise"):
            print(chunk, end="", flush=True)
    except AgentError as error:
        print(f"... [{error.code}] kept: {error.partial.text!r}")
    async with MultiAgentScheduler(agents={"flaky": broken}) as scheduler:
        result = await scheduler.execute_task(Task("t1", "What is the answer?"))
        print(f"success={result.success} state={result.state} error={result.error}")


async def lines() -> None:
    """Fewer, larger pieces: by line here; by number, time or sentence as well."""
    async for line in buffered(agent.call_stream("List three fruits, one a line", max_tokens=60), lines=True):
        print(f"> {line}", end="")
    print()


async def concurrent() -> None:
    """Several agents at once. A function of your own is an agent too."""

    async def echo(prompt: str):  # type: ignore[no-untyped-def]
        for word in prompt.split():
            yield word + " "

    async def show(name: str, one: LocalAgent | FunctionAgent) -> None:
        text = "".join([chunk async for chunk in one.call_stream("The quick brown fox", errors="raise")])
        print(f"[{name}] {' '.join(text.split())[:70]}")

    await asyncio.gather(show("local", agent), show("echo", FunctionAgent(echo)))


async def timeout() -> None:
    """Time limits: a limit of the agent's own, and asyncio's."""
    try:
        async for _ in agent.call_stream("Count to ten thousand", timeouts=Timeouts(total=0.3), errors="raise"):
            pass
    except AgentError as error:
        print(f"{error.code}: {error} (after {len(error.partial.text)} characters)")
    try:
        async with asyncio.timeout(0.3):
            async for _ in agent.call_stream("Count to ten thousand"):
                pass
    except TimeoutError:
        print("asyncio.timeout: stopped, and so is the model")


async def sync() -> None:
    """Plain generators, for code without an event loop (here in a thread, as this example has one)."""

    def plain() -> str:
        return "".join(agent.call_stream_sync("Say hello", max_tokens=20))

    print(" ".join((await asyncio.to_thread(plain)).split()))


EXAMPLES: dict[str, Callable[[], Awaitable[None]]] = {
    example.__name__: example
    for example in (basic, scheduler, chat, progress, several, events, errors, lines, concurrent, timeout, sync)
}


async def main(names: list[str]) -> None:
    for name in names:
        print(f"--- {name}: {EXAMPLES[name].__doc__}")
        await EXAMPLES[name]()
        print()


if __name__ == "__main__":
    wanted = sys.argv[1:]
    if wanted == ["--list"]:
        for name, example in EXAMPLES.items():
            print(f"{name:12} {example.__doc__}")
    elif unknown := [name for name in wanted if name not in EXAMPLES]:
        sys.exit(f"unknown example {unknown[0]!r}; the examples are {', '.join(EXAMPLES)}")
    else:
        asyncio.run(main(wanted or list(EXAMPLES)))
