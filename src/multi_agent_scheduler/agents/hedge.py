"""Several agents for one answer: the first to say something gives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from ..errors import CallerError
from ..records import Completed, Failed, Interrupted, Record
from ..request import Request
from ..scheduling.retry import Hedging, RetryRules, decide
from .base import Agent, Batch
from .composite import Composite, Lane, Output, mistaken
from .context import Context
from .crew import Crew, Feed

__all__ = ["Hedge", "Race"]

_ELSEWHERE: Final = RetryRules(attempts=1)


class _FirstContent(Composite):
    """The first agent to say something has won; the others are closed and accounted."""

    async def batches(self, request: Request, ctx: Context) -> AsyncGenerator[Batch, None]:
        self.check(request)
        run = _Run(self.agents, request, ctx)
        try:
            self._begin(run)
            while not run.over:
                item = await run.crew.next(run.due)
                shown = run.overdue() if item is None else run.take(*item)
                if run.over:
                    await run.crew.gone()
                if shown:
                    yield shown
        except CallerError as error:
            if not run.output.position:
                raise
            yield (mistaken(error),)
        finally:
            await run.crew.aclose()

    def _begin(self, run: _Run) -> None:
        while run.ask():
            pass


class Hedge(_FirstContent):
    """The first agent; if it takes long to say anything, the next as well, and so on.

    ``after`` is how long that is: seconds, or a percentile of the recent times to first content ("p95") and a tenth
    more, so that what takes as long as most is not late. The first content wins: from then on the stream is the
    winner's, and the other Calls are closed, and accounted as cancelled.
    With a percentile nothing is hedged until twenty times are known, and no more than the rest of the hundred is asked
    twice (with "p95" one request in twenty), however slow the agents become.

    ``Hedge(agent, after=...)`` asks the same agent a second time. Then, and with a percentile, the time counts from
    when the Call began: who waits for a permit gains nothing by waiting twice. Otherwise it counts from when the agent
    was asked. If an agent fails before it has said anything and no other is running, the next one, if it is another, is
    asked at once.
    """

    def __init__(self, *agents: Agent | Callable[..., Any], after: float | str, name: str | None = None) -> None:
        super().__init__(agents, name)
        if len(self.agents) == 1:
            self.name = name or self.agents[0].name
            self.agents *= 2
        self._hedging = Hedging(after)
        self._by_percentile = isinstance(after, str)

    def _begin(self, run: _Run) -> None:
        run.hedging = self._hedging
        run.from_call = self._by_percentile
        run.delay = self._hedging.began()
        run.ask()


class Race(_FirstContent):
    """All agents at once; the first to say something has won, and the others are closed: ``Hedge`` without waiting.

    What comes first is the beginning of an answer, not its end: the answer streams from there on. Whoever fails before
    has lost; if all do, the last failure is the outcome.
    """

    def __init__(self, *agents: Agent | Callable[..., Any], name: str | None = None) -> None:
        super().__init__(agents, name)


class _Run:
    """One run: which agents have been asked, when the next is due, and who has won."""

    def __init__(self, agents: tuple[Agent, ...], request: Request, ctx: Context) -> None:
        self.output = Output(ctx)
        self.crew = Crew(ctx)
        self.hedging: Hedging | None = None
        self.delay: float | None = None
        self.from_call = False
        self.due: float | None = None
        """When the next agent is to be asked, on the loop's clock."""
        self.over = False
        self._agents = agents
        self._request = request
        self._feeds: list[Feed] = []
        self._running: set[Feed] = set()
        self._winner: Feed | None = None
        self._awaited: Feed | None = None  # the time counts from when its Call begins

    def ask(self) -> bool:
        """Ask the next agent; False if there is none."""
        asked = len(self._feeds)
        if asked == len(self._agents):
            return False
        agent = self._agents[asked]
        lane = Lane(self.output, "any", after=max(asked, self.output.attempts))
        feed = self.crew.start(agent, agent.adopt(self._request), lane)
        self._feeds.append(feed)
        self._running.add(feed)
        self.due = self._awaited = None
        if self.delay is not None and asked + 1 < len(self._agents):
            if self.from_call or self._agents[asked + 1] is agent:
                self._awaited = feed
            else:
                self._arm()
        return True

    def overdue(self) -> list[Record]:
        """The time has passed."""
        self.due = None
        if self.hedging is None or self.hedging.spend():
            self.ask()
        return []

    def take(self, feed: Feed, batch: Batch) -> Batch:
        """What to put out for a batch; the last of it is the terminal once it is ``over``."""
        lane = feed.lane
        shown = lane.take(batch)
        if self._winner is None:
            if feed is self._awaited and lane.called_at is not None:
                self._awaited = None
                self._arm()
            if lane.shows or isinstance(lane.terminal, Completed):
                shown = [*shown, *lane.release(), *self._won(feed)]
        if lane.terminal is None:
            return shown
        shown = [*shown, *lane.end()]
        if self._winner is None:
            self._running.discard(feed)
            if self._running or self._may_ask(lane):
                return shown
        self.over = True
        return [*shown, *lane.release(), lane.terminal]

    def _arm(self) -> None:
        assert self.delay is not None
        self.due = asyncio.get_running_loop().time() + self.delay

    def _won(self, winner: Feed) -> list[Record]:
        self._winner = winner
        self.due = self._awaited = None
        first = self._feeds[0].lane
        if self.hedging is not None and first.called_at is not None:
            self.hedging.first_content(max(0.0, self.output.clock() - first.called_at))
        shown: list[Record] = []
        for loser in [feed for feed in self._feeds if feed in self._running and feed is not winner]:
            for left in self.crew.drop(loser):
                shown += loser.lane.facts(left)
            shown += loser.lane.end()
        return shown

    def _may_ask(self, lane: Lane) -> bool:
        """The last that ran has failed: whether another is asked now."""
        if not isinstance(lane.terminal, Failed | Interrupted) or lane.terminal.error.code == "content_filter":
            return False
        if len(self._feeds) == len(self._agents) or self._agents[len(self._feeds)] is self._feeds[-1].agent:
            return False
        decision = decide(_ELSEWHERE, lane.terminal.error, attempt=1, chance=0.0, others=True)
        return decision.action == "next" and self.ask()
