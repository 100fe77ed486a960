"""An agent that plays a script, with no provider, no key and no clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from ..agents.base import LeafAgent, Source
from ..agents.context import Context
from ..errors import AgentError, ErrorInfo, agent_error
from ..records import TERMINALS, Completed, Record, Text
from ..request import Request
from ..task import Timeouts

__all__ = ["ScriptedAgent", "Step"]

Step: TypeAlias = str | Record | Sequence[Record] | asyncio.Event | Exception
"""One step of a script: a text, a record, a batch of records, an event to wait for, or an exception to raise."""


class ScriptedAgent(LeafAgent):
    """Plays its script in every Call: each text, record or batch of records is one batch of the stream.

    An :class:`asyncio.Event` is waited for; an exception is raised (an :class:`ErrorInfo` wrapped by
    :func:`~multi_agent_scheduler.errors.agent_error` is a provider's failure; any other is a bug in the agent). A
    script that ends without a terminal record is followed by ``Completed("stop")``.

    ``requests`` holds every request that came, ``closed`` counts the Calls that were closed, ``running`` those open.
    """

    protocol = "scripted"

    def __init__(
        self,
        *script: Step,
        name: str = "scripted",
        model: str | None = None,
        max_concurrent: int | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.max_concurrent = max_concurrent
        self.timeouts = timeouts
        self.script = script
        self.requests: list[Request] = []
        self.running = 0
        self.closed = 0

    def _model(self, request: Request) -> str | None:
        return request.model or self.model

    async def _open(self, request: Request, ctx: Context) -> Source:  # noqa: ARG002
        self.requests.append(request)
        self.running += 1
        return _Script(self, list(self.script))


class _Script(Source):
    def __init__(self, agent: ScriptedAgent, steps: list[Step]) -> None:
        self._agent = agent
        self._steps = steps
        self._waiting: asyncio.Future[ErrorInfo] | None = None

    async def next(self) -> Sequence[Record]:
        if not self._steps:
            return [Completed("stop")]
        step = self._steps.pop(0)
        if isinstance(step, str):
            return [Text(step)]
        if isinstance(step, asyncio.Event):
            await self._wait(step)
            return []
        if isinstance(step, Exception):
            raise step
        batch: list[Record] = [step] if isinstance(step, Record) else list(step)
        if any(isinstance(record, TERMINALS) for record in batch[:-1]):
            raise ValueError("a terminal must be the last record of a script's batch")
        return batch

    async def _wait(self, event: asyncio.Event) -> None:
        failed = self._waiting = asyncio.get_running_loop().create_future()
        opened = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({failed, opened}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting = None
            opened.cancel()
        if failed.done():
            error: AgentError = agent_error(failed.result())
            raise error

    def fail(self, info: ErrorInfo) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(info)

    async def aclose(self) -> None:
        self._agent.running -= 1
        self._agent.closed += 1
