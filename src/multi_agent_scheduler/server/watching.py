"""What watches the server asks for: whether it lives, whether it can work, and its figures."""

from __future__ import annotations

from typing import Final

import msgspec

from ..errors import SchedulerError
from ..metrics import PROMETHEUS_CONTENT_TYPE
from .exchange import Exchange
from .face import Answer
from .problem import Problem
from .routing import Route

__all__ = ["ROUTES"]


class Health(msgspec.Struct, frozen=True):
    """``status`` is ``ok``."""

    status: str


async def alive(exchange: Exchange) -> None:
    """``GET /healthz``: the loop turns."""
    await exchange.json(Health("ok"))


async def ready(exchange: Exchange) -> None:
    """``GET /readyz``: the store can be used, and the server is not being stopped. Raises Problem 503."""
    server = exchange.server
    if server.draining:
        raise Problem(503, "the server is being stopped")
    try:
        server.scheduler.streams(limit=1)
    except SchedulerError:
        raise Problem(503, "the store cannot be used") from None
    await exchange.json(Health("ok"))


async def metrics(exchange: Exchange) -> None:
    """``GET /metrics``, in Prometheus' text format."""
    text = exchange.server.metrics.prometheus_text()
    await exchange.answer(Answer(200, text.encode(), PROMETHEUS_CONTENT_TYPE.encode()))


ROUTES: Final = (
    Route(
        method="GET", path="/healthz", handler=alive, public=True, answers={200: Health},
        summary="Whether the server lives.",
    ),
    Route(
        method="GET", path="/readyz", handler=ready, public=True, answers={200: Health},
        summary="Whether the server can take work.",
    ),
    Route(
        method="GET", path="/metrics", handler=metrics, answers={200: str}, summary="Figures, for Prometheus.",
    ),
)  # fmt: skip
