"""The next agent, or the same one again, where an agent has failed.

Before the first content of the main text another attempt is free, and nothing of the failed one shows but its Calls
(what it showed in branches is taken back). After it the policy decides, as scheduling/retry.py says.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from random import random
from typing import Any

import msgspec

from ..errors import ErrorInfo
from ..records import Citation, Completed, Failed, Interrupted, Reasoning, Record, Text, Unknown, is_content
from ..request import Message, Request, TextPart
from ..scheduling.retry import CommitPolicy, Decision, RetryRules, decide
from ..views.live import live
from ..views.summary import outcome
from .base import Agent, Batch
from .composite import FACTS, Composite, Lane, Output, relay
from .context import Context

__all__ = ["Failover", "Retry"]


class _Attempts(Composite):
    """One attempt after the other: ``rules`` say how often each agent is asked, and what is done after content
    (``told``; otherwise the run's context says it)."""

    rules: RetryRules
    told: bool
    _refusals = False
    _chance: Callable[[], float] = staticmethod(random)

    async def batches(self, request: Request, ctx: Context) -> AsyncGenerator[Batch, None]:
        self.check(request)
        output = Output(ctx)
        rules = self.rules if self.told else msgspec.structs.replace(self.rules, policy=ctx.policy)
        said = _Said(request) if rules.policy == "continue" else None
        asked, number, attempt = request, 0, 1
        while True:
            lane = Lane(output, "main", after=output.attempts)
            last: list[Record] = []
            async with aclosing(relay(self.agents[number], asked, ctx, lane)) as batches:
                async for batch in batches:
                    if said is not None:
                        said.records += batch
                    if lane.terminal is not None:
                        last += batch
                    else:
                        yield batch
            assert lane.terminal is not None
            error = self._failure(lane)
            decision = None if error is None else self._decision(rules, error, lane, number, attempt, said)
            if decision is None or decision.action in ("give_up", "interrupted") or not _in_time(decision, ctx):
                yield [*last, *lane.release(), lane.terminal]
                return
            if decision.start != "continue" or not lane.shows:
                void = lane.void(str(error))
                last += void
                if said is not None:
                    said.records += void
            if last:
                yield last
            if decision.action == "next":
                number, attempt = number + 1, 1
            else:
                attempt += 1
                await ctx.rest(decision.after)
            if decision.start == "continue" and said is not None:
                asked = said.continued()

    def _failure(self, lane: Lane) -> ErrorInfo | None:
        """The error to do something about; None for an outcome that stands, whatever it is."""
        if lane.mistaken:
            return None
        match lane.terminal:
            case Failed(error=error) | Interrupted(error=error):
                return error if error.code != "content_filter" or self._refusals else None
            case Completed(stop_reason="content_filter") if self._refusals:
                return outcome(lane.terminal)[2]
        return None

    def _decision(
        self, rules: RetryRules, error: ErrorInfo, lane: Lane, number: int, attempt: int, said: _Said | None
    ) -> Decision:
        others = number + 1 < len(self.agents)
        following = self.agents[number + 1 if others else number]
        return decide(
            rules,
            error,
            attempt=attempt,
            chance=self._chance(),
            content=lane.shows if said is None else said.content,
            others=others,
            can_continue=said is not None and said.open_ended and following.continues_prefix,
        )


class Failover(_Attempts):
    """The first agent that does not fail.

    An agent that fails, for whatever reason, before it has said anything is followed by the next at once, and nothing
    shows that it was asked but its Calls. Once it has said something ``policy`` decides: ``"off"``: its outcome stands
    and what came is kept; ``"reset"``: what came is voided by a :class:`~multi_agent_scheduler.records.Reset` (which
    ends a reader of plain text with ``StreamReset``), and the next agent begins anew; ``"continue"``: the next agent
    goes on from the text, if it is one that continues a prefix (``continues_prefix``) and the text is one to go on
    from: not after tool calls, refusals or sealed reasoning, and not under a schema. Otherwise that is as "off".
    Without a ``policy`` it is "reset" for the tasks of plans, and "off" elsewhere.

    What a provider refuses or blocks (``content_filter``) is an answer, and stands; with ``refusals=True`` it is a
    failure like others. The caller's own mistakes, and what passed the caller's limits, are not tried elsewhere. If all
    fail, the last one's failure is the outcome.
    """

    def __init__(
        self,
        *agents: Agent | Callable[..., Any],
        policy: CommitPolicy | None = None,
        refusals: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(agents, name)
        self.told = policy is not None
        self.rules = RetryRules(attempts=1, policy="off" if policy is None else policy)
        self._refusals = refusals


class Retry(_Attempts):
    """The same agent again, up to ``attempts`` times in all, if its failure is one that may pass.

    Between two attempts it waits, without a permit, with exponential back-off and full jitter: a random time up to
    ``base * 2 ** (attempt - 1)`` seconds, at most ``longest_wait``, or for as long as the provider said
    (Retry-After), and if that is longer than ``longest_retry_after`` seconds not at all: the failure stands. A wait
    that would pass the total time limit is not begun. ``policy`` is that of :class:`Failover`, for a failure after
    content. ``chance`` gives the random numbers, from 0 to 1.
    """

    def __init__(
        self,
        agent: Agent | Callable[..., Any],
        attempts: int = 3,
        *,
        policy: CommitPolicy | None = None,
        base: float = 0.5,
        longest_wait: float = 30.0,
        longest_retry_after: float = 120.0,
        chance: Callable[[], float] = random,
    ) -> None:
        super().__init__((agent,))
        self.name = self.agents[0].name
        self.told = policy is not None
        self.rules = RetryRules(
            attempts=attempts,
            policy="off" if policy is None else policy,
            base=base,
            longest_wait=longest_wait,
            longest_retry_after=longest_retry_after,
        )
        self._chance = chance


class _Said:
    """What has been put out so far, for another attempt to go on from."""

    def __init__(self, request: Request) -> None:
        self.records: list[Record] = []
        self._request = request

    def _standing(self) -> list[Record]:
        return [record for record in live(self.records) if record.branch is None and type(record) not in FACTS]

    @property
    def content(self) -> bool:
        return any(is_content(record) for record in self._standing())

    @property
    def open_ended(self) -> bool:
        """Whether an agent that is given the text as the beginning of its answer goes on as the first would have."""
        standing = self._standing()
        if self._request.schema is not None or not any(type(record) is Text and record.text for record in standing):
            return False
        return all(
            isinstance(record, Text | Citation | Unknown)
            or (isinstance(record, Reasoning) and not record.signature and not record.redacted)
            for record in standing
        )

    def continued(self) -> Request:
        """The request with the text as the beginning of the answer, and nothing else added."""
        text = "".join(record.text for record in self._standing() if type(record) is Text)
        request = self._request
        *before, last = request.messages
        if last.role != "assistant":
            before, last = [*before, last], Message("assistant", ())
        *parts, end = last.parts or (TextPart(""),)
        if isinstance(end, TextPart):
            end = msgspec.structs.replace(end, text=end.text + text)
        else:
            parts, end = [*parts, end], TextPart(text)
        message = msgspec.structs.replace(last, parts=(*parts, end))
        # What the beginning took of the caller's limit, by the rule of thumb of a token for four characters.
        most = None if request.max_tokens is None else max(1, request.max_tokens - len(text) // 4)
        return msgspec.structs.replace(request, messages=(*before, message), max_tokens=most)


def _in_time(decision: Decision, ctx: Context) -> bool:
    """Whether the total time limit leaves time for another attempt."""
    total = None if ctx.timeouts is None else ctx.timeouts.total
    return total is None or ctx.clock() + decision.after < ctx.begin() + total
