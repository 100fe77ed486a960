"""What a real browser makes of it: EventSource over connections that break, and the examples' pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from multi_agent_scheduler import Task
from multi_agent_scheduler.server import Settings
from multi_agent_scheduler.testing import ScriptedAgent

from ..examples.running import running
from .browser import Page, browsing
from .test_ws import serving

pytestmark = pytest.mark.needs("chromium")


class Wire:
    """Connections to ``target`` that can be cut."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.partition(":")
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._joined, "127.0.0.1", 0)
        try:
            host, port = server.sockets[0].getsockname()
            yield f"{host}:{port}"
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    def cut(self) -> None:
        """Every connection breaks now."""
        for writer in self._writers:
            writer.transport.abort()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there_reader, there_writer = await asyncio.open_connection(self._host, int(self._port))
        self._writers |= {writer, there_writer}
        try:
            await asyncio.gather(self._carried(reader, there_writer), self._carried(there_reader, writer))
        except OSError:
            pass
        finally:
            for end in (writer, there_writer):
                end.transport.abort()
                self._writers.discard(end)

    async def _carried(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()


READER = """
window.seen = []; window.opened = 0; window.broke = 0; window.ended = false;
window.source = new EventSource(URL);
source.onopen = () => { opened += 1; };
source.onerror = () => { broke += 1; };
source.onmessage = (event) => { seen.push(JSON.parse(event.data)); };
source.addEventListener("end", () => { ended = true; });
null
"""


async def test_an_event_source_comes_back_and_misses_nothing() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    agent = ScriptedAgent("one ", gates[0], "two ", gates[1], "<b>three</b>")
    async with serving({"one": agent}, settings=Settings(access_log=False, retry=0.05)) as server:
        handle = await server.scheduler.submit(Task("t1", "Hi"))
        wire = Wire(server.place)
        async with wire.open() as place, browsing() as page:
            await page.open(f"http://{place}/healthz")
            await page.run(READER.replace("URL", repr(f"/v1/streams/{handle.stream_id}")))
            for number, gate in enumerate(gates, 1):
                await page.until(f"seen.filter(record => record.type === 'text').length === {number}")
                wire.cut()
                await page.until(f"opened === {number + 1}")
                gate.set()
            await page.until("ended")
            await page.until("source.readyState === EventSource.CLOSED")  # it came back once more, and was sent away
            seen = await page.run("seen")
        log = [record async for record in server.scheduler.follow(handle.stream_id)]
    assert [record["seq"] for record in seen] == list(range(1, len(log) + 1))
    assert "".join(record.get("text", "") for record in seen) == "one two <b>three</b>"
    assert len(agent.requests) == 1


async def test_the_chat_page() -> None:
    with running("websocket_chat", "--agent", "echo") as place:
        async with browsing() as page:
            await page.open(f"http://{place}/")
            await page.until("!button.disabled")
            for prompt in ("<img src=x onerror=document.title='broken'> one", "two"):
                await _said(page, prompt)
            said = await page.run("[...document.querySelectorAll('.said')].map(it => [it.className, it.textContent])")
            assert await page.run("document.querySelectorAll('#log img').length") == 0
            assert await page.run("document.title") == "Chat"
    assert said == [
        ["said user", "<img src=x onerror=document.title='broken'> one"],
        ["said agent", "<img src=x onerror=document.title='broken'> one "],
        ["said user", "two"],
        ["said agent", "two "],
    ]


async def _said(page: Page, prompt: str) -> None:
    await page.run(f"prompt.value = {prompt!r}; form.requestSubmit(); null")
    await page.until("button.disabled === false && answer.textContent !== ''")


async def test_the_page_of_the_sse_server_goes_on_after_a_reload() -> None:
    words = " ".join(f"word{number}" for number in range(40))
    with running("sse_server", "--agent", "echo") as place:
        async with browsing() as page:
            await page.open(f"http://{place}/")
            await page.run(
                f"document.getElementById('prompt').value = '{words}';"
                "document.getElementById('form').requestSubmit(); null"
            )
            await page.until("text.textContent.includes('word3 ')")
            await page.run("window.before = true; location.reload(); null")
            await page.until("!window.before && document.readyState === 'complete'")
            await page.until("text.textContent.includes('word39 ')")
            assert await page.run("text.textContent") == words + " "
