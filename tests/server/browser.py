"""A real browser without a window: Chromium, driven over its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.request import ProxyHandler, build_opener

from websockets.asyncio.client import ClientConnection, connect

__all__ = ["Page", "browsing"]

# It is to talk to the test's servers only. As root, in a container, it has no sandbox of its own.
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)


class Page:
    """A tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0

    async def open(self, url: str) -> None:
        """Load a page, and wait until it is there."""
        await self._call("Page.navigate", url=url)
        await self.until(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        answer = await self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, condition: str, seconds: float = 20) -> None:
        """Wait until an expression is true, looking again whenever the page has had a turn."""
        async with asyncio.timeout(seconds):
            while not await self.run(condition):  # noqa: ASYNC110 - nothing here is told of what a page does
                await asyncio.sleep(0.01)

    async def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        await self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while (message := json.loads(await self._connection.recv())).get("id") != self._number:
            pass  # an event of the page's, which nobody asked for
        assert "error" not in message, message["error"]
        return message["result"]


@asynccontextmanager
async def browsing() -> AsyncIterator[Page]:
    """A browser with one empty page, and nothing in it from before."""
    profile = tempfile.mkdtemp(prefix="mas-browser-")
    process = await asyncio.create_subprocess_exec(
        "chromium",
        f"--user-data-dir={profile}",
        *_FLAGS,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            place = await _debugged_at(process)
        targets = json.loads(await asyncio.to_thread(_fetched, f"http://{place}/json/list"))
        (address,) = [target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page"]
        async with connect(address, proxy=None, max_size=None) as connection:
            yield Page(connection)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        shutil.rmtree(profile, ignore_errors=True)


async def _debugged_at(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    while line := (await process.stderr.readline()).decode():
        if line.startswith("DevTools listening on ws://"):
            return line.removeprefix("DevTools listening on ws://").partition("/")[0]
    raise AssertionError("the browser ended before it could be driven")


def _fetched(url: str) -> bytes:
    with build_opener(ProxyHandler({})).open(url, timeout=10) as response:
        data: bytes = response.read()
        return data
