"""The answer as an object: what each batch changed in it, what is known of it, and what of that is for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from ..errors import InvalidJSON, StreamReset
from ..records import Record, Reset, Text
from ..schema import ANYTHING, Misfit, Schema, Shape
from ..wire.partial_json import Change, EmbeddedJSON, PartialJSON, Path
from .live import Live

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Folding", "ObjectView", "Partial"]


class Folding:
    """One document as it arrives, checked and typed: each place as it closes.

    There may be prose or a fence around it, unless ``strict`` is True or it is a bare number, say: those are not told
    from prose. Raises
    :class:`~multi_agent_scheduler.errors.InvalidJSON` for what is no JSON and
    :class:`~multi_agent_scheduler.schema.Misfit` for what does not fit; then ``value`` is what was
    known before. A name that an object has twice is an error, so that what is completed stays completed.
    """

    __slots__ = ("_frames", "_parser", "_root", "_shape", "changes", "completed")

    def __init__(self, schema: Schema, *, strict: bool = False) -> None:
        kind = PartialJSON if strict or schema.scalar else EmbeddedJSON
        self._parser: PartialJSON = kind(duplicates="error")
        self._shape = schema.shape
        self._frames: dict[Path, _Frame] = {}  # the open objects and arrays, from the outermost inwards
        self._root: Any = UNSET
        self.changes: list[Change] = []
        self.completed: list[tuple[Path, Any]] = []

    @property
    def parser(self) -> PartialJSON:
        """What reads the text."""
        return self._parser

    def feed(self, text: str) -> None:
        """The next piece; ``changes`` and ``completed`` are what it brought, also if it raises."""
        self.changes, self.completed = [], []
        try:
            self._parser.feed(text)
        finally:
            self._fold()

    def close(self) -> Any:
        """The text has ended: the value."""
        self.changes, self.completed = [], []
        try:
            self._parser.close()
        finally:
            self._fold()
        return self._root

    @property
    def value(self) -> Any:
        """What is known, in the types of the schema as far as these are decided; ``UNSET`` while that is nothing."""
        if not self._frames:
            return self._root if self._root is not UNSET else self._parser.value
        growing = self._parser.growing
        below, inner = growing if growing is not None else ((), UNSET)
        for path, frame in reversed(self._frames.items()):
            members = frame.made.copy()
            if inner is not UNSET:
                if isinstance(members, list):
                    members.append(inner)
                else:
                    members[below[-1]] = inner
            inner, below = frame.shape.partial(members), path
        return inner

    def _fold(self) -> None:
        parser = self._parser
        self.changes = parser.changes
        path: Path = ()
        try:
            for path, value in parser.changes:
                if type(value) in (dict, list):
                    opened = self._place(path).opened("object" if type(value) is dict else "array")
                    self._frames[path] = _Frame(opened, type(value)())
            for path, value in parser.completed:
                self._complete(path, value)
        except Misfit as misfit:
            raise Misfit((*path, *misfit.path), misfit.problem) from None

    def _place(self, path: Path) -> Shape:
        return self._frames[path[:-1]].shape.child(path[-1]) if path else self._shape

    def _complete(self, path: Path, value: Any) -> None:
        frame = self._frames.get(path)
        shape = self._place(path) if frame is None else frame.shape
        made = value if shape is ANYTHING else shape.closed(value)
        if frame is not None:
            del self._frames[path]
        if not path:
            self._root = made
        else:
            outer = self._frames[path[:-1]].made
            if type(outer) is list:
                outer.append(made)
            else:
                outer[path[-1]] = made
        self.completed.append((path, made))


class _Frame:
    """An open object or array: its shape, and what its members and items are by now."""

    __slots__ = ("made", "shape")

    def __init__(self, shape: Shape, made: Any) -> None:
        self.shape = shape
        self.made = made


class Partial:
    """What one batch changed in an object.

    ``changes`` are ``(path, value)`` in order: text to append to the string at the path (the first piece makes it), or
    else the value that is there now, an opening object or array as ``{}`` or ``[]``. ``completed`` are the paths that
    closed with this batch, the inner before the outer: what is there will not change any more. ``restarted`` is None,
    or why the object begins anew: what was shown of it is void, and the changes begin from nothing.
    """

    __slots__ = ("_closed", "_view", "changes", "restarted")

    def __init__(
        self, view: ObjectView, changes: list[Change], closed: list[tuple[Path, Any]], restarted: str | None
    ) -> None:
        self._view = view
        self._closed = closed
        self.changes = changes
        self.restarted = restarted

    @property
    def completed(self) -> list[Path]:
        """The paths that closed with this batch."""
        return [path for path, _ in self._closed]

    def items(self, path: Path) -> list[Any]:
        """The items of the array at ``path`` that closed with this batch: whole, checked, of the schema's type."""
        return [made for place, made in self._closed if len(place) == len(path) + 1 and place[:-1] == path]

    def __repr__(self) -> str:
        again = "" if self.restarted is None else f", restarted={self.restarted!r}"
        return f"Partial(changes={self.changes!r}, completed={self.completed!r}{again})"

    @property
    def value(self) -> Any:
        """What is known so far, ``UNSET`` while that is nothing; made when it is asked for, and then left as it is.

        Under a type it is of that type, with what has not come absent (Pydantic), or ``UNSET`` (dataclasses and
        Structs). It is what is known when it is asked for: ask before the next partial is.
        """
        return self._view.value


class ObjectView:
    """The main text of a stream as one object, batch by batch. A reset that voids it begins it anew, visibly."""

    __slots__ = ("_begun_at", "_folding", "_live", "_schema", "problem")

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._live = Live()
        self._folding = Folding(schema)
        self._begun_at: int | None = None  # the position of the first text since the object began, or began anew
        self.problem: InvalidJSON | Misfit | None = None
        """What is wrong with the text, once something is; what comes after that is left aside, until a reset."""

    @property
    def value(self) -> Any:
        """What is known so far."""
        return self._folding.value

    def feed(self, batch: Sequence[Record]) -> Partial | None:
        """What the batch changed; None if that is nothing.

        Raises :class:`~multi_agent_scheduler.errors.StreamReset` if a reset voids a part of the object.
        """
        fresh = self._live.feed(batch)
        restarted = None
        for reset in fresh.voided:
            if reset.branch is None and self._begun_at is not None:
                self._restart(reset)
                restarted = reset.reason
        texts = [record.text for record in fresh.records if type(record) is Text and record.branch is None]
        if texts and self._begun_at is None:
            self._begun_at = next(
                record.seq or position
                for position, record in enumerate(fresh.records, fresh.first)
                if type(record) is Text and record.branch is None
            )
        if not texts or self.problem is not None:
            return None if restarted is None else Partial(self, [], [], restarted)
        try:
            self._folding.feed("".join(texts))
        except (InvalidJSON, Misfit) as error:
            self.problem = error
        return self._partial(restarted)

    def close(self) -> Partial | None:
        """The text has ended: what its end changed. If it is not a whole object that fits, ``problem`` says why."""
        if self.problem is not None:
            return None
        try:
            self._folding.close()
        except (InvalidJSON, Misfit) as error:
            self.problem = error
        return self._partial(None)

    def _partial(self, restarted: str | None) -> Partial | None:
        changes, completed = self._folding.changes, self._folding.completed
        if not changes and not completed and restarted is None:
            return None
        return Partial(self, changes, completed, restarted)

    def _restart(self, reset: Reset) -> None:
        assert self._begun_at is not None
        if reset.from_seq > self._begun_at and self._folding.value is not UNSET:
            raise StreamReset(
                f"a part of the object was taken back ({reset.reason}), which no object can show; read the stream's "
                "records to follow it across a reset"
            )
        self._folding, self._begun_at, self.problem = Folding(self._schema), None, None
