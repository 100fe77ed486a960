"""Tool calls as they arrive: the arguments of each as an object that grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from ..errors import InvalidJSON
from ..records import Record, ToolCall
from ..schema import Misfit, Path, Schema
from ..wire.partial_json import Change
from .live import Live
from .objects import Folding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PartialCall", "ToolCallsView"]


class PartialCall:
    """What one batch changed in the arguments of one tool call.

    ``index`` counts the calls of an answer from 0; ``id`` and ``name`` are the call's, "" while they have not come.
    ``changes`` and ``completed`` are those of :class:`~multi_agent_scheduler.views.objects.Partial`. ``restarted`` is
    None, or why the call begins anew: what was shown of it is void. ``problem`` is None, or what is wrong with the
    arguments: what comes after that is left aside.
    """

    __slots__ = ("_call", "changes", "completed", "id", "index", "name", "problem", "restarted")

    def __init__(self, index: int, call: _Call, restarted: str | None) -> None:
        self._call = call
        self.index = index
        self.id = call.id
        self.name = call.name
        self.changes = call.changes
        self.completed = call.completed
        self.problem = call.problem
        self.restarted = restarted

    @property
    def value(self) -> Any:
        """What is known of the arguments when it is asked for; ``UNSET`` while that is nothing."""
        return self._call.value

    def __repr__(self) -> str:
        return f"PartialCall(index={self.index}, id={self.id!r}, name={self.name!r}, changes={self.changes!r})"


class ToolCallsView:
    """The tool calls of a stream's main answer, batch by batch.

    ``schemas`` maps names of tools to what their arguments must be (:meth:`Schema.of`); those of other tools are not
    checked. Calls whose argument is free text (``kind`` "custom") are left out.
    """

    __slots__ = ("_calls", "_live", "_schemas")

    def __init__(self, schemas: Mapping[str, Any] | None = None) -> None:
        self._schemas = {name: Schema.of(given) for name, given in (schemas or {}).items()}
        self._live = Live()
        self._calls: dict[int, _Call] = {}

    def feed(self, batch: Sequence[Record]) -> list[PartialCall]:
        """What the batch changed, one for each call that it concerns, in the order of the calls."""
        fresh = self._live.feed(batch)
        void: dict[int, str] = {}
        for reset in fresh.voided:
            for index, known in [*self._calls.items()]:
                if reset.branch is None and reset.from_seq <= known.last:
                    void[index] = reset.reason
                    del self._calls[index]
        texts: dict[int, list[str]] = {}
        for position, record in enumerate(fresh.records, fresh.first):
            if type(record) is ToolCall and record.branch is None and record.kind != "custom":
                call = self._calls.get(record.index)
                if call is None:
                    call = self._calls[record.index] = _Call()
                call.heard(record, record.seq or position)
                texts.setdefault(record.index, []).append(record.arguments)
        for index, pieces in texts.items():
            self._calls[index].feed("".join(pieces), self._schemas)
        gone = [PartialCall(index, _Call(), reason) for index, reason in void.items() if index not in texts]
        return [*gone, *(PartialCall(index, self._calls[index], void.get(index)) for index in sorted(texts))]

    def close(self) -> list[PartialCall]:
        """The answer has ended: the calls in which that changes something, or whose arguments are not whole."""
        return [PartialCall(index, call, None) for index, call in sorted(self._calls.items()) if call.close()]


class _Call:
    __slots__ = ("_folding", "changes", "completed", "id", "last", "name", "problem")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.last = 0  # the position of its last record
        self.changes: list[Change] = []
        self.completed: list[Path] = []
        self.problem: InvalidJSON | Misfit | None = None
        self._folding: Folding | None = None

    @property
    def value(self) -> Any:
        return UNSET if self._folding is None else self._folding.value

    def heard(self, record: ToolCall, position: int) -> None:
        self.id = self.id or record.id
        self.name = self.name or record.name
        self.last = position

    def feed(self, text: str, schemas: Mapping[str, Schema]) -> None:
        self.changes, self.completed = [], []
        if not text or self.problem is not None:
            return
        if self._folding is None:
            self._folding = Folding(schemas.get(self.name, _ARGUMENTS), strict=True)
        try:
            self._folding.feed(text)
        except (InvalidJSON, Misfit) as error:
            self.problem = error
        self._tell()

    def close(self) -> bool:
        if self.problem is not None:
            return False
        if self._folding is None:  # a tool without arguments: some providers send no text at all
            self.feed("{}", {})
            return True
        try:
            self._folding.close()
        except (InvalidJSON, Misfit) as error:
            self.problem = error
        self._tell()
        return bool(self.changes or self.completed or self.problem)

    def _tell(self) -> None:
        assert self._folding is not None
        self.changes = self._folding.changes
        self.completed = [path for path, _ in self._folding.completed]


_ARGUMENTS: Final = Schema.of({"type": "object"})
