"""A stream at a steady pace, for one reader: a provider that sends in bursts reads like one that does not."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import InvalidOption
from .records import Reasoning, Refusal, Text, ToolCall
from .views.pacing import Pace, Pacer, parse_pace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator

__all__ = ["Pace", "paced", "singly"]

Item = TypeVar("Item")


def paced(stream: AsyncIterable[Item], pace: Pace | str | float) -> AsyncGenerator[Item, None]:
    """The same items in the same order, the chunks among them no faster than ``pace``.

    ``pace`` is ``"50/s"`` (or 50) for chunks, ``"50 tokens/s"`` for tokens, by the rule of thumb of a token for four
    characters. The items may be strings, the dicts of ``execute_task_stream`` or records; those without text (the last
    dict, say) do not wait. A slower stream is not delayed at all, and a pause is not followed by a burst.

    The stream is read no further than its reader has got: where it is a log that is followed, only this reader is
    slower for it. Leaving the iteration closes the stream, and what it raises is raised in its place. Raises
    :class:`~multi_agent_scheduler.errors.InvalidOption`, at once, for a pace that cannot be.
    """
    if not hasattr(type(stream), "__aiter__"):
        raise InvalidOption(f"paced() reads an async iterator, not {type(stream).__name__}")
    return _paced(aiter(stream), Pacer(parse_pace(pace)))


async def _paced(stream: AsyncIterator[Item], pacer: Pacer) -> AsyncGenerator[Item, None]:
    now = asyncio.get_running_loop().time
    try:
        async for item in stream:
            length = characters(item)
            if length:
                wait = pacer.due(length, now()) - now()
                if wait > 0:
                    await asyncio.sleep(wait)
            yield item
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


async def singly(items: AsyncGenerator[Item, None]) -> AsyncGenerator[tuple[Item], None]:
    """Each item as a batch of its own; leaving closes ``items``."""
    async with aclosing(items):
        async for item in items:
            yield (item,)


def characters(item: Any) -> int:
    """How much of an item a reader reads: of a string, a dict of ``execute_task_stream``, or a record."""
    match item:
        case str():
            return len(item)
        case dict():
            chunk = item.get("chunk")
            return len(chunk) if isinstance(chunk, str) else 0
        case Text(text=text) | Reasoning(text=text) | Refusal(text=text):
            return len(text)
        case ToolCall(arguments=arguments):
            return len(arguments)
    return 0
