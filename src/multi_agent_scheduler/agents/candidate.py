"""One agent of an ensemble: what it has said, and how that is compared and said again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

import msgspec

from ..records import Citation, Reasoning, Record, Refusal, Terminal, Text, ToolCall, ToolResult, Unknown
from ..task import Result
from ..views.live import live
from ..views.summary import outcome, summarise
from .base import Agent, Batch
from .composite import Lane
from .context import Context
from .crew import Feed

__all__ = ["Candidate", "branch_names", "normalised"]

_CONTENT: Final = frozenset({Text, Reasoning, Refusal, ToolCall, ToolResult, Citation, Unknown})
_AROUND: Final = " \t\r\n.!?,;:\"'`*_“”‘’"  # noqa: RUF001 - the quotes are meant


class Candidate:
    """A run of one agent in an ensemble."""

    __slots__ = ("_result", "_vote", "feed", "lane", "name")

    def __init__(self, name: str, lane: Lane, feed: Feed) -> None:
        self.name = name
        self.lane = lane
        self.feed = feed
        lane.heard = []
        self._result: Result | None = None
        self._vote: object = None

    @property
    def terminal(self) -> Terminal | None:
        return self.lane.terminal

    @property
    def succeeded(self) -> bool:
        return outcome(self.lane.terminal)[1]

    @property
    def result(self) -> Result:
        """What came of it; to be asked once it has ended."""
        if self._result is None:
            self._result = summarise(self.lane.heard or ())
        return self._result

    @property
    def told(self) -> str:
        """Its answer as a text for others to read."""
        calls = (f"[calls the tool {call.name} with {call.arguments}]" for call in self.result.tool_calls)
        return "\n".join((self.result.text, *calls)).strip("\n")

    def vote(self, normalise: Callable[[str], str]) -> object:
        """What is equal for answers that are the same."""
        if self._vote is None:
            calls = ((call.name, normalised(call.arguments)) for call in self.result.tool_calls)
            self._vote = (normalise(self.result.text), *calls)
        return self._vote

    def said_again(self) -> Batch:
        """Its main answer as it stands, in one batch with its terminal; pieces of one text are joined."""
        standing = [record for record in live(self.lane.heard or ()) if record.branch is None]
        batch: list[Record] = []
        for part, run in groupby(standing, key=lambda record: record.part if type(record) is Text else None):
            if part is None:
                batch += [record for record in run if type(record) in _CONTENT]
            else:
                batch.append(Text("".join(record.text for record in run if type(record) is Text), part=part))
        assert self.lane.terminal is not None
        batch.append(self.lane.terminal)
        return batch


def branch_names(agents: Sequence[Agent], ctx: Context) -> list[str]:
    """A branch for each agent: its name, with a number where that is taken. A slash is what nests branches."""
    names: list[str] = []
    for agent in agents:
        name = first = ctx.name_of(agent).replace("/", "-") or "agent"
        number = 1
        while name in names:
            number += 1
            name = f"{first}-{number}"
        names.append(name)
    return names


def normalised(text: str) -> str:
    """A text without what makes no difference: case, white space, punctuation around it; what is JSON, as data."""
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        try:
            return msgspec.json.encode(msgspec.json.decode(stripped), order="deterministic").decode()
        except msgspec.DecodeError:
            pass
    return " ".join(stripped.casefold().split()).strip(_AROUND)
