"""Many agents, one answer: their candidates stream live as branches, and the main text is the answer alone.

A candidate's branch is its agent's name, numbered where two have the same. Every agent gets the request as it is. A
candidate that fails does not fail the ensemble while enough others may still succeed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from json import dumps
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import CallerError, ErrorInfo, InvalidConfiguration
from ..records import Completed, Failed, Text
from ..request import Request
from ..schema import shown
from ..views.summary import outcome, summarise
from .ballot import Undecided, elected, object_in
from .base import Agent, Batch
from .candidate import Candidate, branch_names, normalised
from .composite import Composite, Lane, Output, as_agent, broken, mistaken, relay
from .context import Context
from .crew import Crew
from .verdict import choice_request, chosen, fusion_request, verdict_request

__all__ = ["Fuse", "Judge", "Vote"]

Source: TypeAlias = Agent | Callable[..., Any]


class _Ensemble(Composite):
    """What they share: the candidates run at the same time until the ensemble has what it needs."""

    def __init__(self, agents: Sequence[Source], quorum: int, name: str | None) -> None:
        super().__init__(agents, name)
        if isinstance(quorum, bool) or not isinstance(quorum, int) or not 1 <= quorum <= len(self.agents):
            kind, most = type(self).__name__, len(self.agents)
            raise InvalidConfiguration(f"{kind}: quorum must be a whole number from 1 to {most}, not {quorum!r}")
        self.quorum = quorum

    @property
    def continues_prefix(self) -> bool:  # type: ignore[override]
        return False

    @property
    def enforces_schema(self) -> bool:  # type: ignore[override]
        return False

    async def batches(self, request: Request, ctx: Context) -> AsyncGenerator[Batch, None]:
        self.check(request)
        run = _Run(ctx)
        try:
            for agent, name in zip(self.agents, branch_names(self.agents, ctx), strict=True):
                lane = Lane(run.output, "open", branch=name)
                run.candidates.append(Candidate(name, lane, run.crew.start(agent, agent.adopt(request), lane)))
            async with aclosing(self._gathered(run)) as merged:
                async for batch in merged:
                    yield batch
            await run.crew.gone()
            async with aclosing(self._concluded(request, run)) as conclusion:
                async for batch in conclusion:
                    yield batch
        except CallerError as error:
            if not run.output.position:
                raise
            yield (mistaken(error),)
        finally:
            await run.crew.aclose()

    async def _gathered(self, run: _Run) -> AsyncGenerator[Batch, None]:
        """The candidates' records as they come, until all are over; once no more is needed, the others are closed."""
        of_feed = {candidate.feed: candidate for candidate in run.candidates}
        while of_feed:
            item = await run.crew.next()
            assert item is not None
            feed, batch = item
            lane = of_feed[feed].lane
            shown = lane.take(batch)
            if lane.terminal is not None:
                run.over.append(of_feed.pop(feed))
                shown = [*shown, *lane.end()]
                if of_feed and self._settled(run):
                    for loser in of_feed.values():
                        shown += [record for left in run.crew.drop(loser.feed) for record in loser.lane.facts(left)]
                        shown += loser.lane.end()
                    of_feed.clear()
            if shown:
                yield shown

    def _settled(self, run: _Run) -> bool:
        """Whether it does not matter any more what the candidates that still run may do."""
        running = len(run.candidates) - len(run.over)
        return len(run.good) + running < self.quorum

    @abstractmethod
    def _concluded(self, request: Request, run: _Run) -> AsyncGenerator[Batch, None]:
        """The main text and the terminal, once the candidates are over."""

    def _lacking(self, run: _Run) -> Failed | None:
        """The terminal if too few have succeeded: its error is that of the last who failed, in the ensemble's words."""
        if len(run.good) >= self.quorum:
            return None
        last = next(candidate for candidate in reversed(run.over) if not candidate.succeeded)
        error = outcome(last.terminal)[2]
        assert error is not None
        count = len(run.candidates)
        problem = (
            f"{len(run.good)} of {count} candidates succeeded, {self.quorum} must; {last.name} failed with {error}"
        )
        return Failed(msgspec.structs.replace(error, message=problem))


class _Run:
    """One run of an ensemble: ``over`` are the candidates that have ended by themselves, in the order of their ends."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.output = Output(ctx)
        self.crew = Crew(ctx)
        self.candidates: list[Candidate] = []
        self.over: list[Candidate] = []

    @property
    def good(self) -> list[Candidate]:
        """Those that have succeeded, in the order of the agents."""
        return [candidate for candidate in self.candidates if candidate.succeeded]

    async def main(self, agent: Agent, request: Request) -> AsyncGenerator[Batch, None]:
        """What one more agent says, as the main text and to its terminal."""
        lane = Lane(self.output, "open")
        async with aclosing(relay(agent, request, self.ctx, lane)) as batches:
            async for batch in batches:
                if batch:
                    yield batch
        assert lane.terminal is not None
        yield (lane.terminal,)


class Vote(_Ensemble):
    """What most agents say: an answer that ``quorum`` of them give (by default more than half) becomes the main text.

    Answers are the same if ``normalise`` makes the same of their texts (by default case, white space, and punctuation
    around the text do not count, and JSON is compared as data) and they call the same tools; the first to come of those
    that agree is the one that is said. As soon as it is decided, or no answer can get enough votes any more, the other
    candidates are stopped. Without a decision the vote has failed.

    With ``by="field"`` the answers are objects, and each field gets the value that ``quorum`` of them agree on; a list
    is one field. The vote has failed if there is a field without agreement.
    """

    def __init__(
        self,
        *agents: Source,
        quorum: int | None = None,
        normalise: Callable[[str], str] | None = None,
        by: Literal["answer", "field"] = "answer",
        name: str | None = None,
    ) -> None:
        super().__init__(agents, len(agents) // 2 + 1 if quorum is None else quorum, name)
        if by not in ("answer", "field"):
            raise InvalidConfiguration(f"Vote: by must be 'answer' or 'field', not {by!r}")
        self._by_field = by == "field"
        self._normalise = normalised if normalise is None else normalise

    def _settled(self, run: _Run) -> bool:
        most = max((len(camp) for camp in self._camps(run)), default=0)
        running = len(run.candidates) - len(run.over)
        likely = len(run.good) if self._by_field else most
        return most >= self.quorum or likely + running < self.quorum

    async def _concluded(self, request: Request, run: _Run) -> AsyncGenerator[Batch, None]:  # noqa: ARG002
        camps = self._camps(run)
        winners = next((camp for camp in camps if len(camp) >= self.quorum), None)
        if winners is not None:
            yield winners[0].said_again()
            return
        if self._by_field:
            yield self._elected(run)
            return
        votes = f"{self.quorum} of {len(run.candidates)} votes are needed"
        problem = f"there is no agreement: {len(camps)} different answers, and {votes} for one"
        yield (self._lacking(run) or Failed(ErrorInfo("agent_error", problem)),)

    def _elected(self, run: _Run) -> Batch:
        """One answer made of the fields that enough candidates agree on."""
        lacking = self._lacking(run)
        if lacking is not None:
            return (lacking,)
        found = (object_in(candidate.result.text) for candidate in run.good)
        objects = [value for value in found if isinstance(value, dict)]
        if len(objects) < self.quorum:
            problem = f"{len(objects)} of {len(run.candidates)} candidates gave an object, {self.quorum} must"
            return (Failed(ErrorInfo("agent_error", problem)),)
        try:
            value = elected(objects, self.quorum)
        except Undecided as undecided:
            problem = f"there is no agreement on {shown(undecided.path)}: {self.quorum} votes are needed for one value"
            return (Failed(ErrorInfo("agent_error", problem)),)
        return (Text(dumps(value, ensure_ascii=False)), Completed("stop"))

    def _camps(self, run: _Run) -> list[list[Candidate]]:
        """Those who agree with each other, in the order of their ends."""
        camps: dict[object, list[Candidate]] = {}
        for candidate in run.over:
            if candidate.succeeded:
                try:
                    camps.setdefault(candidate.vote(self._normalise), []).append(candidate)
                except Exception:  # noqa: BLE001 - a function of the user's; an answer that it cannot read has no vote
                    candidate.lane.terminal = broken(self)
        return list(camps.values())


class Judge(_Ensemble):
    """The best answer, as another agent chooses it.

    When all agents have ended and ``quorum`` of them have succeeded, ``judge`` gets the request and the answers,
    numbered and without their authors' names, and replies with a number. What it says streams as a branch of its own
    ("judge"), and the answer that it chose becomes the main text; a reply that names no answer is a failure. An only
    answer is taken without asking. With ``mode="text"`` the judge writes about the answers, and that is the main text.

    ``criteria`` says in the caller's words what counts.
    """

    def __init__(
        self,
        *agents: Source,
        judge: Source,
        mode: Literal["choice", "text"] = "choice",
        criteria: str | None = None,
        quorum: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(agents, quorum, name)
        if mode not in ("choice", "text"):
            raise InvalidConfiguration(f"Judge: mode must be 'choice' or 'text', not {mode!r}")
        self.judge = as_agent(judge, "Judge")
        self._mode = mode
        self._criteria = criteria

    @property
    def members(self) -> tuple[Agent, ...]:
        return (*self.agents, self.judge)

    async def _concluded(self, request: Request, run: _Run) -> AsyncGenerator[Batch, None]:
        good, lacking = run.good, self._lacking(run)
        if lacking is not None:
            yield (lacking,)
        elif self._mode == "text":
            asked = verdict_request(request, [candidate.told for candidate in good], self._criteria)
            async with aclosing(run.main(self.judge, asked)) as batches:
                async for batch in batches:
                    yield batch
        elif len(good) == 1:
            yield good[0].said_again()
        else:
            async with aclosing(self._choice(request, run, good)) as batches:
                async for batch in batches:
                    yield batch

    async def _choice(self, request: Request, run: _Run, good: Sequence[Candidate]) -> AsyncGenerator[Batch, None]:
        names = {candidate.name for candidate in run.candidates}
        branch = "judge"
        while branch in names:
            branch += "-"
        lane = Lane(run.output, "open", branch=branch)
        lane.heard = []
        told = [candidate.told for candidate in good]
        asked = choice_request(request, told, self._criteria, constrained=self.judge.enforces_schema)
        async with aclosing(relay(self.judge, asked, run.ctx, lane)) as batches:
            async for batch in batches:
                if batch:
                    yield batch
        _, success, error = outcome(lane.terminal)
        if error is not None and not success:
            problem = f"the judge {self.judge.name} failed with {error}"
            yield (Failed(msgspec.structs.replace(error, message=problem)),)
            return
        number = chosen(summarise(lane.heard).text, len(good))
        if number is None:
            problem = f"the judge {self.judge.name} chose none of the {len(good)} answers by its number"
            yield (Failed(ErrorInfo("protocol_error", problem, retryable=True)),)
        else:
            yield good[number - 1].said_again()


class Fuse(_Ensemble):
    """One answer made of many.

    When all agents have ended and ``quorum`` of them have succeeded, ``synthesiser`` gets the request together with
    their answers, and what it writes, streamed as it comes, is the main text.
    """

    def __init__(self, *agents: Source, synthesiser: Source, quorum: int = 1, name: str | None = None) -> None:
        super().__init__(agents, quorum, name)
        self.synthesiser = as_agent(synthesiser, "Fuse")

    @property
    def members(self) -> tuple[Agent, ...]:
        return (*self.agents, self.synthesiser)

    async def _concluded(self, request: Request, run: _Run) -> AsyncGenerator[Batch, None]:
        lacking = self._lacking(run)
        if lacking is not None:
            yield (lacking,)
            return
        asked = fusion_request(request, [candidate.told for candidate in run.good])
        async with aclosing(run.main(self.synthesiser, asked)) as batches:
            async for batch in batches:
                yield batch
