"""A server in a thread of its own, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .served import serving

__all__ = ["threaded"]


@contextmanager
def threaded(agents: dict[str, Any], **options: Any) -> Iterator[str]:
    """Gives its URL. ``options`` are those of :func:`serving`."""
    started, stop, loop, url = threading.Event(), asyncio.Event(), asyncio.new_event_loop(), ""

    async def serve() -> None:
        nonlocal url
        async with serving(agents, **options) as served:
            url = served.url
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
