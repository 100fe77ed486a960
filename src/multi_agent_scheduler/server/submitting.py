"""Starting a plan: what ``POST /v1/tasks`` and ``submit`` on a WebSocket have in common."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from ..errors import InvalidRequest, StreamExists
from ..task import Task
from .answering import check_running
from .bodies import Submitted, TaskBody
from .exchange import Exchange
from .problem import Problem

__all__ = ["KEY_CHARACTERS", "submit"]

KEY_CHARACTERS = 255
"""Of an idempotency key, at most."""


async def submit(exchange: Exchange, bodies: Sequence[TaskBody], key: str = "") -> Submitted:
    """Start these tasks. With a ``key`` the same tasks get the same answer, and run once, however they come.

    Raises CallerError and Problem; with 422 if the key was used for other tasks.
    """
    if not bodies:
        raise InvalidRequest("tasks must have at least one task")
    tasks = [body.task() for body in bodies]
    exchange.spend()
    if key:
        answer = _named(exchange, key, bodies)
        await _once(exchange, answer, tasks)
        return answer
    check_running(exchange, len(tasks))
    handle = await exchange.server.scheduler.submit_plan(tasks, owner=exchange.owner, trace=exchange.trace)
    return Submitted(handle.plan_id, dict(handle.streams))


def _named(exchange: Exchange, key: str, bodies: Sequence[TaskBody]) -> Submitted:
    """The ids that follow from key, owner and tasks: the plan's from the first two, the streams' from all of it."""
    if len(key) > KEY_CHARACTERS:
        raise Problem(400, f"an Idempotency-Key has at most {KEY_CHARACTERS} characters")
    secret = exchange.server.keys.secret

    def name(*parts: str) -> str:
        return hmac.digest(secret, "\n".join(("plan", *parts)).encode(), "sha256").hex()[:32]

    plan_id = name(exchange.owner, key)
    digest = sha256(msgspec.json.encode(bodies, order="deterministic")).hexdigest()
    return Submitted(plan_id, {body.id: name(plan_id, digest, body.id) for body in bodies})


async def _once(exchange: Exchange, answer: Submitted, tasks: Sequence[Task]) -> None:
    server, owner = exchange.server, exchange.owner
    async with server.one_at_a_time(answer.plan_id):
        known = server.scheduler.streams(owner=owner, plan_id=answer.plan_id)
        if not known:
            check_running(exchange, len(tasks))
            try:
                await server.scheduler.submit_plan(
                    tasks, owner=owner, plan_id=answer.plan_id, stream_ids=answer.streams, trace=exchange.trace
                )
                return
            except StreamExists:
                known = server.scheduler.streams(owner=owner, plan_id=answer.plan_id)
        if not {info.stream_id for info in known} <= set(answer.streams.values()):
            raise Problem(422, "this Idempotency-Key was used for another request: use a new key for a new request")
