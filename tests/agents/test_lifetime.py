"""Agents over the life of a program: loops that come and go, threads, forks, ends without a word of goodbye."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from multi_agent_scheduler.agents import OpenAIAgent

from .asking import KEY
from .server import Provider, answer, chat, chunk, eventually, head


class Elsewhere:
    """A provider in a loop and thread of its own, for programs that block, or that run in other processes."""

    def __init__(self, *scripts: Any) -> None:
        self._scripts = scripts
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with Provider(*self._scripts) as self.provider:
            self._ready.set()
            await self._stop.wait()

    def until_closed(self, peer: int) -> None:
        """Wait until a client's connection is closed."""

        async def closed() -> None:
            await asyncio.wait_for(self.provider.peers[peer].closed.wait(), 5)

        asyncio.run_coroutine_threadsafe(closed(), self._loop).result()

    def __enter__(self) -> Provider:
        self._thread.start()
        self._ready.wait()
        return self.provider

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Elsewhere(answer(chat("Python's", " async/await"))) as elsewhere:
        yield elsewhere


@pytest.fixture
def speaking() -> Iterator[Elsewhere]:
    """Says one word and never ends."""
    elsewhere = Elsewhere([head(), *(chunk(event) for event in chat("Hello")[:2]), asyncio.Event()])
    with elsewhere:
        yield elsewhere


def run(program: str, provider: Provider) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{provider.url}/v1"},
    )  # fmt: skip


# --- programs that end ----------------------------------------------------------------------------------------------

QUICK_START = """
    import asyncio
    from multi_agent_scheduler.agents import OpenAIAgent

    async def basic_example():
        agent = OpenAIAgent()
        async for chunk in agent.call_stream("Explain Python async"):
            print(chunk, end='', flush=True)

    asyncio.run(basic_example())
"""

PROGRAMS = {
    "the quick start": QUICK_START,
    "left early": QUICK_START.replace("flush=True)", "flush=True)\n            break"),
    "never iterated": QUICK_START.replace("async for", 'agent.call_stream("Unused")\n        async for'),
    "left at the loop's end": """
        import asyncio
        from multi_agent_scheduler.agents import OpenAIAgent

        async def main():
            global stream
            stream = OpenAIAgent().call_stream("Explain")
            print(await anext(stream), end="")

        asyncio.run(main())
    """,
    "an agent of the module, twice": """
        import asyncio
        from multi_agent_scheduler.agents import OpenAIAgent
        agent = OpenAIAgent()

        async def main():
            await agent.call("Explain")
            print((await agent.call("Explain")).text, end="")

        asyncio.run(main())
        asyncio.run(main())
    """,
    "a plain generator": """
        from multi_agent_scheduler.agents import OpenAIAgent
        for chunk in OpenAIAgent().call_stream_sync("Explain"):
            print(chunk, end="")
    """,
    "a plain generator, dropped": """
        from multi_agent_scheduler.agents import OpenAIAgent
        print(next(OpenAIAgent().call_stream_sync("Explain")), end="")
    """,
    "a plain generator, held to the end": """
        from multi_agent_scheduler.agents import OpenAIAgent
        stream = OpenAIAgent().call_stream_sync("Explain")
        print(next(stream), end="")
    """,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_says_no_goodbye_leaves_nothing_and_prints_nothing(program: str, provider: Provider) -> None:
    done = run(PROGRAMS[program], provider)
    said = "Python's async/await"
    expected = {"the quick start": said, "a plain generator": said, "never iterated": said}
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected.get(program, said * 2 if "twice" in program else "Python's")


# --- loops and threads ----------------------------------------------------------------------------------------------


def test_an_agent_serves_one_loop_after_another(provider: Provider) -> None:
    agent = OpenAIAgent(KEY, base_url=f"{provider.url}/v1")

    async def ask() -> str:
        return (await agent.call("Hi")).text

    assert [asyncio.run(ask()) for _ in range(3)] == ["Python's async/await"] * 3
    assert len(provider.peers) == 3


def test_an_agent_serves_many_threads_at_once(provider: Provider) -> None:
    agent = OpenAIAgent(KEY, base_url=f"{provider.url}/v1")
    texts: list[str] = []

    async def ask() -> None:
        for _ in range(3):
            texts.append((await agent.call("Hi")).text)  # noqa: PERF401

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["Python's async/await"] * 12
    assert len(provider.peers) >= 4  # no loop uses another's connections


async def test_an_abandoned_stream_is_closed_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    script = [head(), *(chunk(event) for event in chat("Hello")[:2]), asyncio.Event()]
    async with Provider(script) as provider, OpenAIAgent(KEY, base_url=f"{provider.url}/v1") as agent:
        stream = agent.call_stream("Hi")
        await anext(stream)
        del stream
        gc.collect()
        async with asyncio.timeout(0.1):
            await provider.peers[0].closed.wait()
    assert not recwarn.list


async def test_nothing_holds_a_finished_stream() -> None:
    """Agents, connections and what was said go without waiting for the collector of cycles."""
    async with Provider(answer(chat("x"))) as provider:
        agent = OpenAIAgent(KEY, base_url=f"{provider.url}/v1")
        await agent.call("Hi")
        await agent.aclose()
        alive = weakref.ref(agent)
        await eventually(lambda: provider.peers[0].closed.is_set())
        gc.disable()
        try:
            del agent
            assert alive() is None
        finally:
            gc.enable()


async def test_a_thousand_calls_leave_as_much_as_one() -> None:
    async with Provider(answer(chat("x"))) as provider, OpenAIAgent(KEY, base_url=f"{provider.url}/v1") as agent:
        await agent.call("Hi")
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(100):
            await agent.call("Hi")
            provider.requests.clear()
        gc.collect()
        assert len(gc.get_objects()) - before < 50
        assert len(provider.peers) == 1


# --- plain generators -----------------------------------------------------------------------------------------------


def test_dropping_a_plain_generator_stops_the_provider(speaking: Elsewhere) -> None:
    agent = OpenAIAgent(KEY, base_url=f"{speaking.provider.url}/v1")
    pieces = agent.call_stream_sync("Hi")
    assert next(pieces) == "Hello"
    del pieces
    speaking.until_closed(0)


async def test_a_plain_generator_works_inside_a_running_loop() -> None:
    """As in a notebook: the cell's loop is blocked meanwhile, the provider's is another."""
    with Elsewhere(answer(chat("Hello", " world"))) as provider:
        agent = OpenAIAgent(KEY, base_url=f"{provider.url}/v1")
        assert list(agent.call_stream_sync("Hi")) == ["Hello", " world"]
        from multi_agent_scheduler import blocking

        blocking.run(agent.aclose())
