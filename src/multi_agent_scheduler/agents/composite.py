"""What agents of agents share: they pass their context on, let the Calls show, and end in exactly one terminal.

A composite's records are those of its agents, turned by a :class:`Lane` for each run of an agent: Calls and usage go
through at once, in one numbering of attempts; the terminal is kept back for the composite to judge; what a failed
attempt said before it had content never shows; positions and branches are the composite's own.
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from ..errors import CallerError, ErrorInfo, InvalidConfiguration, StoreError
from ..records import (
    TERMINALS,
    CallEnded,
    CallStarted,
    Completed,
    Failed,
    Interrupted,
    Record,
    Reset,
    Terminal,
    TerminalName,
    Text,
    Usage,
    is_content,
    terminal_name,
)
from ..request import Prompt, Request
from .base import Agent, Batch, ErrorMode
from .context import Context
from .function import FunctionAgent

__all__ = ["FACTS", "Composite", "Lane", "Output", "as_agent", "broken", "mistaken", "relay", "unfinished"]

_log = logging.getLogger(__name__)

_ENDS: Final = frozenset(TERMINALS)
FACTS: Final = frozenset({CallStarted, CallEnded, Usage})
_replace = msgspec.structs.replace

Gate: TypeAlias = Literal["main", "any", "open"]
"""When a lane begins to show what its agent says: with the first content of the main text, with any content, at once.

Before the first content of the main text ("main") branches show all the same.
"""


class Composite(Agent):
    """The base of agents that ask other agents. An async generator function is taken as a FunctionAgent."""

    def __init__(self, agents: Sequence[Agent | Callable[..., Any]], name: str | None = None) -> None:
        kind = type(self).__name__
        if not agents:
            raise InvalidConfiguration(f"{kind} needs at least one agent")
        self.agents = tuple(as_agent(agent, kind) for agent in agents)
        if name is not None and (not isinstance(name, str) or not name):
            raise InvalidConfiguration(f"{kind}: name must be a non-empty string, not {name!r}")
        self.name = name or kind.lower()
        modes: set[ErrorMode] = {agent.errors for agent in self.agents}
        self.errors = modes.pop() if len(modes) == 1 else "marker"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.members))})"

    @property
    def members(self) -> tuple[Agent, ...]:
        """Every agent that may be asked."""
        return self.agents

    @property
    def continues_prefix(self) -> bool:  # type: ignore[override]
        return all(agent.continues_prefix for agent in self.agents)

    @property
    def enforces_schema(self) -> bool:  # type: ignore[override]
        return all(agent.enforces_schema for agent in self.agents)

    def request(self, prompt: Prompt, **options: Any) -> Request:
        """As :meth:`Agent.request`; where all agents are one, its options are taken."""
        first, *others = self.agents
        if all(other is first for other in others):
            return first.request(prompt, **options)
        return super().request(prompt, **options)

    def check(self, request: Request) -> None:
        for agent in dict.fromkeys(self.agents):
            agent.check(agent.adopt(request))

    async def aclose(self) -> None:
        for agent in dict.fromkeys(self.members):
            await agent.aclose()


def as_agent(agent: Agent | Callable[..., Any], where: str) -> Agent:
    """An agent, or an async generator function as one. Raises InvalidConfiguration for anything else."""
    if isinstance(agent, Agent):
        return agent
    if not callable(agent) or isinstance(agent, type):
        raise InvalidConfiguration(f"{where} is made of agents, not {agent!r}")
    return FunctionAgent(agent)


def broken(agent: Agent) -> Failed:
    """The terminal for an agent that raised what no agent may raise; called where that is being handled."""
    _log.exception("the agent %s broke down", agent.name)
    return Failed(ErrorInfo("internal_error", f"the agent {agent.name} broke down; the log has the details"))


def mistaken(error: CallerError) -> Failed:
    """The terminal for a caller's mistake that shows only when it is too late to raise."""
    return Failed(ErrorInfo("invalid_request_error", str(error)))


def unfinished(agent: Agent) -> Interrupted:
    """The terminal for an agent that gave none."""
    problem = f"the agent {agent.name} ended without an outcome"
    return Interrupted(ErrorInfo("interrupted", problem, retryable=True))


async def relay(agent: Agent, request: Request, ctx: Context, lane: Lane) -> AsyncGenerator[Batch, None]:
    """One run of an agent through its lane, which has the terminal afterwards.

    An agent that breaks down has failed. A caller's mistake is raised while nothing has been put out; later it is a
    failure.
    """
    stream = agent.batches(agent.adopt(request), ctx)
    try:
        async for batch in stream:
            shown = lane.take(batch)
            if lane.terminal is not None:
                yield [*shown, *lane.end()]
                return
            if shown:
                yield shown
        lane.terminal = unfinished(agent)
    except CallerError as error:
        if not lane.late:
            raise
        lane.terminal, lane.mistaken = mistaken(error), True
    except StoreError:
        raise
    except Exception:  # noqa: BLE001 - it must not end the run of its composite, which may have others to ask
        lane.terminal = broken(agent)
    finally:
        await stream.aclose()
    left = lane.end()
    if left:
        yield left


class Output:
    """What one run of a composite has put out: the position of its last record, and the number of the last attempt."""

    __slots__ = ("attempts", "clock", "position")

    def __init__(self, ctx: Context) -> None:
        ctx.begin()
        self.clock = ctx.clock
        self.position = 0
        self.attempts = 0


class Lane:
    """One run of one agent inside a composite.

    What :meth:`take` and the others give is to be put out, in that order and before anything else is: they have counted
    it already. ``terminal`` is the agent's once it has come; ``shows`` whether what the agent says is shown by now.
    ``called_at`` is when its first Call began, on the context's clock. ``heard``, if it is made a list, keeps the
    agent's records as they came. ``mistaken``: the terminal says that the caller made a mistake.
    """

    __slots__ = (
        "_after", "_branches", "_delta", "_gate", "_held", "_mine", "_open", "_out", "_outer", "_seen", "_top",
        "_usage", "branch", "called_at", "heard", "mistaken", "shows", "terminal",
    )  # fmt: skip

    def __init__(self, output: Output, gate: Gate, *, branch: str | None = None, after: int = 0) -> None:
        """``after`` is how many attempts were made before; with a ``branch`` all its records belong to that."""
        self.branch = branch
        self.terminal: Terminal | None = None
        self.shows = gate == "open"
        self.called_at: float | None = None
        self.heard: list[Record] | None = None
        self.mistaken = False
        self._out = output
        self._gate = gate
        self._after = after
        self._seen = 0  # records of the agent's
        self._top = 0  # the last of its voidable records that is shown
        self._held: list[tuple[int, Record]] = []
        self._open: dict[int, tuple[CallStarted, float]] = {}
        self._usage: dict[int, Usage] = {}
        self._branches: dict[str, None] = {}  # that it has shown before its main text
        # Where its voidable records are in the output: those from its own position _mine[i] on are at _outer[i] and on.
        self._mine = array("q")
        self._outer = array("q")
        self._delta: int | None = None

    @property
    def late(self) -> bool:
        """Whether anything has been put out, by whichever lane: it is too late to raise a caller's mistake."""
        return self._out.position > 0

    def take(self, batch: Batch) -> Batch:
        """What is to be put out of the agent's next batch."""
        if self.heard is not None:
            self.heard += batch
        if self.shows and self.branch is None:
            for record in batch:
                if type(record) is not Text:
                    break
            else:
                out, count = self._out, len(batch)
                if out.position - self._seen != self._delta:
                    self._place(self._seen + 1, out.position + 1)
                self._seen += count
                out.position += count
                return batch
        return self._sift(batch)

    def _sift(self, batch: Batch) -> list[Record]:
        shown: list[Record] = []
        last = batch[-1]
        if not self.shows and type(last) is Completed and last.stop_reason != "content_filter":
            self._show(shown)  # it has nothing to say, but that is what it says
        for record in batch:
            self._seen += 1
            kind = type(record)
            if kind in FACTS:
                self._put(shown, self._fact(record))
            elif kind in _ENDS:
                self.terminal = record  # type: ignore[assignment]
            elif type(record) is Reset:
                self._reset(shown, record)
            elif self.shows:
                self._put_voidable(shown, self._seen, record)
            elif record.branch is not None and self._gate == "main":
                self._branches.setdefault(record.branch.partition("/")[0])
                self._put_voidable(shown, self._seen, record)
            else:
                self._held.append((self._seen, record))
                if is_content(record):
                    self._show(shown)
        return shown

    def facts(self, batch: Batch) -> list[Record]:
        """Of a batch of an agent that has lost already: its Calls and their usage."""
        shown: list[Record] = []
        for record in batch:
            if type(record) in FACTS:
                self._put(shown, self._fact(record))
        return shown

    def release(self) -> list[Record]:
        """What was held back, if it is to show after all."""
        shown: list[Record] = []
        self._show(shown)
        return shown

    def end(self, outcome: TerminalName = "cancelled") -> list[Record]:
        """The agent's run is over: ``call_ended`` for its open Calls, with the terminal's outcome, or else this one."""
        if not self._open:
            return []
        terminal, shown = self.terminal, list[Record]()
        error = terminal.error if isinstance(terminal, Failed | Interrupted) else None
        now = self._out.clock()
        for call, (started, at) in self._open.items():
            usage = self._usage.get(call) or Usage(source="unknown", call=call, branch=started.branch)
            ended = CallEnded(
                call, outcome if terminal is None else terminal_name(terminal), error=error, usage=usage,
                model=started.model, latency=max(0.0, now - at), branch=started.branch,
            )  # fmt: skip
            self._put(shown, ended)
        self._open.clear()
        return shown

    def void(self, reason: str) -> list[Record]:
        """The resets that take back what the agent has shown. What was held back is dropped."""
        shown: list[Record] = []
        self._held.clear()
        if not self._outer:
            return shown
        branches = [self.branch] if self.shows or self.branch is not None else [*self._branches]
        for branch in branches:
            self._put(shown, Reset(self._outer[0], reason, branch=branch))
        return shown

    # --- one record -----------------------------------------------------------------------------------------------

    def _put(self, shown: list[Record], record: Record) -> None:
        shown.append(record)
        self._out.position += 1

    def _put_voidable(self, shown: list[Record], mine: int, record: Record) -> None:
        # What was held back until later records had shown has no place of its own: it has no content, and is voided
        # with those.
        if mine > self._top:
            self._top = mine
            if self._out.position + 1 - mine != self._delta:
                self._place(mine, self._out.position + 1)
        if self.branch is not None:
            record = _replace(record, branch=self._under(record.branch))
        self._put(shown, record)

    def _show(self, shown: list[Record]) -> None:
        self.shows = True
        held, self._held = self._held, []
        for mine, record in held:
            self._put_voidable(shown, mine, record)

    def _place(self, mine: int, outer: int) -> None:
        self._delta = outer - mine
        self._mine.append(mine)
        self._outer.append(outer)

    def _under(self, branch: str | None) -> str | None:
        return branch if self.branch is None else self.branch if branch is None else f"{self.branch}/{branch}"

    def _fact(self, record: Record) -> Record:
        if self.branch is not None:
            record = _replace(record, branch=self._under(record.branch))
        match record:
            case CallStarted():
                if self._after:
                    record = _replace(record, attempt=record.attempt + self._after)
                self._out.attempts = max(self._out.attempts, record.attempt)
                now = self._out.clock()
                if self.called_at is None:
                    self.called_at = now
                self._open[record.call] = (record, now)
            case CallEnded():
                self._open.pop(record.call, None)
            case Usage():
                self._usage[record.call] = record
        return record

    def _reset(self, shown: list[Record], reset: Reset) -> None:
        self._held = [(mine, it) for mine, it in self._held if mine < reset.from_seq or not _voids(reset, it)]
        if not self._mine:
            return  # nothing of it is shown
        index = bisect_right(self._mine, reset.from_seq) - 1
        from_seq = self._outer[0] if index < 0 else self._outer[index] + reset.from_seq - self._mine[index]
        position = self._out.position + 1
        self._put(shown, _replace(reset, from_seq=min(from_seq, position), branch=self._under(reset.branch)))


def _voids(reset: Reset, record: Record) -> bool:
    branch = reset.branch
    return branch is None or record.branch == branch or (record.branch or "").startswith(f"{branch}/")
