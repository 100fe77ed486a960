"""A stream as the object that its main text is: for each commit a message with what that changed.

The places are those of the text alone, whatever was asked for: that an answer fits its schema is checked while the task
runs, and the log has the outcome. So a reader is told the same of a stream whenever it comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..errors import ErrorInfo, StreamReset
from ..records import TERMINALS, Completed, Failed, Interrupted, Record, Terminal
from ..schema import Schema
from ..views.objects import ObjectView, Partial
from ..wire.partial_json import Change, Path

__all__ = ["ObjectStep", "ObjectSteps"]

_json: Final = msgspec.json.Encoder().encode
_ANY: Final = Schema.of({})
_ANSWERED: Final = frozenset({"stop", "stop_sequence", "length"})


class ObjectEnd(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the stream ended. ``whole``: the document is. ``valid``: that, and it is the answer that was asked for; of a
    task with a ``schema`` it fits."""

    state: str
    whole: bool
    valid: bool
    error: ErrorInfo | None = None


class ObjectStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="object"):
    """What the records up to ``seq`` changed, behind those of the message before.

    ``changes`` are ``[path, value]``: text to append to the string at the path (the first piece makes it), or else the
    value that is there now, an opening object or array as ``{}`` or ``[]``. ``completed`` are the paths that closed.
    With ``restarted``, which says why, all that was known is void, and the changes begin from nothing. ``problem`` says
    why the text is no object; what comes behind it is left aside.
    """

    changes: Sequence[Change]
    completed: Sequence[Path]
    restarted: str | None = None
    problem: str | None = None
    end: ObjectEnd | None = None
    seq: int


class ObjectSteps:
    """The fold. It is fed a log from its start; what is known at a record does not depend on how the log is cut."""

    __slots__ = ("_lost", "_told", "_view")

    def __init__(self) -> None:
        self._view = ObjectView(_ANY)
        self._lost: str | None = None  # a part of what was shown is void, which paths cannot say
        self._told: str | None = None  # the problem that the reader knows of

    def feed(self, first: int, records: Sequence[Record]) -> bytes:
        """An :class:`ObjectStep` as JSON; nothing if these records change nothing."""
        terminal = records[-1]
        partials = [self._fed(records)]
        if isinstance(terminal, TERMINALS):
            partials.append(self._view.close())
        found = [partial for partial in partials if partial is not None]
        restarted = next((partial.restarted for partial in found if partial.restarted is not None), None)
        if restarted is not None:
            self._lost = self._told = None
        if self._lost is not None:
            found = []
        problem = self._problem(terminal)
        if not found and problem is None and not isinstance(terminal, TERMINALS):
            return b""
        step = ObjectStep(
            changes=[change for partial in found for change in partial.changes],
            completed=[path for partial in found for path in partial.completed],
            restarted=restarted,
            problem=problem,
            end=self._end(terminal) if isinstance(terminal, TERMINALS) else None,
            seq=first + len(records) - 1,
        )
        return _json(step)

    def _fed(self, records: Sequence[Record]) -> Partial | None:
        try:
            return self._view.feed(records)
        except StreamReset as error:
            self._lost = str(error)
            return None

    def _problem(self, last: Record) -> str | None:
        """What is wrong with the object, if the reader does not know that yet."""
        problem = self._lost or (None if self._view.problem is None else str(self._view.problem))
        cut = isinstance(last, TERMINALS) and not isinstance(last, Completed)  # which says itself that it is not all
        if problem is None or self._told is not None or cut:
            return None
        self._told = problem
        return problem

    def _end(self, terminal: Terminal) -> ObjectEnd:
        whole = self._lost is None and self._view.problem is None
        answered = isinstance(terminal, Completed) and terminal.stop_reason in _ANSWERED
        error = terminal.error if isinstance(terminal, Failed | Interrupted) else None
        state = terminal.__struct_config__.tag
        assert isinstance(state, str)
        return ObjectEnd(state, whole, whole and answered, error)
