"""The WebSockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from .relay import Message, Send

if TYPE_CHECKING:
    from .app import Server

__all__ = ["connected"]


async def connected(
    server: Server,  # noqa: ARG001
    scope: Mapping[str, Any],  # noqa: ARG001
    receive: Callable[[], Awaitable[Message]],
    send: Send,
) -> None:
    """Somebody wants a WebSocket."""
    await receive()
    await send({"type": "websocket.close"})
