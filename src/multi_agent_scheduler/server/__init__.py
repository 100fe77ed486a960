"""The scheduler behind HTTP: a raw ASGI application, for ``mas serve`` or to be mounted in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..metrics import Metrics, get_metrics
from .app import Server
from .keys import Keys
from .settings import Settings

if TYPE_CHECKING:
    from ..scheduler import MultiAgentScheduler

__all__ = ["Keys", "Server", "Settings", "make_app"]


def make_app(
    scheduler: MultiAgentScheduler,
    *,
    settings: Settings | None = None,
    keys: Keys | None = None,
    metrics: Metrics | None = None,
) -> Server:
    """An ASGI application over a scheduler.

    The scheduler stays its maker's, to be closed after the application's lifespan. ``keys`` None is a server without
    keys: it answers whoever calls it by a name of ``settings.hosts``. ``metrics`` are those that the
    scheduler has, where it was given any.
    """
    return Server(scheduler, settings or Settings(), keys or Keys(None), metrics=metrics or get_metrics())
