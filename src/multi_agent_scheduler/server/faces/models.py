"""``/v1/models``: the agents, as OpenAI's and Anthropic's clients both read the list."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..exchange import Exchange
from ..routing import Route
from . import chat

__all__ = ["ROUTES"]


class ModelBody(msgspec.Struct, frozen=True):
    """An agent, or one of its models. It has no date of its own; both protocols demand one."""

    id: str
    display_name: str
    object: str = "model"
    type: str = "model"
    owned_by: str = "multi-agent-scheduler"
    created: int = 0
    created_at: str = "1970-01-01T00:00:00Z"


class ModelsBody(msgspec.Struct, frozen=True):
    """All of them, on one page."""

    data: list[ModelBody]
    first_id: str | None
    last_id: str | None
    object: str = "list"
    has_more: bool = False


async def listed(exchange: Exchange) -> None:
    """``GET /v1/models``."""
    names = list(exchange.server.scheduler.agents)
    await exchange.json(ModelsBody([ModelBody(name, name) for name in names], names[0], names[-1]))


async def one(exchange: Exchange) -> None:
    """``GET /v1/models/{agent}`` and ``/v1/models/{agent}/{model}``."""
    name = "/".join(exchange.parameters.values())
    exchange.server.chosen(name)
    await exchange.json(ModelBody(name, name))


def _route(path: str, handler: Any, summary: str, answer: Any) -> Route:
    return Route(
        method="GET", path=path, handler=handler, problem=chat.FACE.problem, summary=summary, answers={200: answer}
    )


ROUTES: Final = (
    _route("/v1/models", listed, "The agents, by the names that requests give as their model.", ModelsBody),
    _route("/v1/models/{agent}", one, "One agent.", ModelBody),
    _route("/v1/models/{agent}/{model}", one, "One agent with one of its models.", ModelBody),
)
