"""The scheduler behind HTTP: a raw ASGI application, for ``mas serve`` or to be mounted in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .app import Server
from .settings import Settings

if TYPE_CHECKING:
    from ..scheduler import MultiAgentScheduler

__all__ = ["Server", "Settings", "make_app"]


def make_app(scheduler: MultiAgentScheduler, *, settings: Settings | None = None) -> Server:
    """An ASGI application over a scheduler, which stays its maker's: to be closed after the application's lifespan."""
    return Server(scheduler, settings or Settings())
