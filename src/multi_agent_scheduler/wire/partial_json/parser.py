"""An incremental parser of JSON: feed it text as it comes, and read what changed."""

from __future__ import annotations

from math import isinf
from types import NoneType
from typing import Any, Final, Literal, NoReturn, TypeAlias

from msgspec import UNSET

from ...errors import InvalidJSON, InvalidOption
from . import grammar
from .grammar import (
    AFTER_ITEM,
    AFTER_MEMBER,
    CLOSE,
    COLON,
    END,
    FIRST_ACTION,
    FIRST_ITEM,
    FIRST_NAME,
    LITERAL,
    LONGEST_NUMBER,
    NUMBER,
    OPEN_OBJECT,
    STEPS,
    STRING,
    VALUE,
)

__all__ = ["Change", "PartialJSON", "Path"]

Path: TypeAlias = tuple[str | int, ...]
"""Where in a document: the names and indices that lead there from the top."""

Change: TypeAlias = tuple[Path, Any]
"""A path and what came there: text to append to the string there, or else the value that stands there now."""

_AFTER: Final = {list: AFTER_ITEM, dict: AFTER_MEMBER, NoneType: END}  # what follows a value, by what it is in
_FEW_NAMES: Final = 500
_MANY_PIECES: Final = 500


class PartialJSON:
    """One document, strictly RFC 8259, in pieces of any size.

    :meth:`feed` gives the changes that a piece brings, in the order of the text. A change is ``(path, value)``. A
    string comes in pieces, each to be appended to what is there (the first may be empty); anything else comes once it
    can no longer become something else: a number when the character behind it is known, an object or array as ``{}`` or
    ``[]`` when it opens. Names and escapes are never shown by halves.

    ``completed`` has what closed with the last :meth:`feed` or :meth:`close`, as ``(path, value)``, the inner before
    the outer; ``changes`` is what that changed, also if it raised: both are what came before the error.

    A name that an object has twice: with ``duplicates="last"`` the last one stands, as RFC 8259 has it for most
    readers, and ``(path, UNSET)`` takes back what was shown of the other; with "error" it is an error, and then no
    completed path ever changes. Objects and arrays may be nested ``max_depth`` deep. Limits of our own: a number has at
    most 4,300 characters and fits a float unless it is whole, and no string has half a surrogate pair.

    The work is linear in the text, whatever its shape and its pieces; the memory is that of the value.
    """

    __slots__ = (
        "_after", "_chunks", "_container", "_depth", "_expect", "_failure", "_growing", "_held", "_in_string",
        "_name", "_name_at", "_names", "_naming", "_outer", "_outer_paths", "_path", "_pieces", "_position", "_root",
        "_strict", "_string_path", "changes", "completed",
    )  # fmt: skip

    def __init__(self, *, duplicates: Literal["last", "error"] = "last", max_depth: int = 128) -> None:
        if duplicates not in ("last", "error"):
            raise InvalidOption(f"duplicates must be 'last' or 'error', not {duplicates!r}")
        if type(max_depth) is not int or max_depth < 1:
            raise InvalidOption(f"max_depth must be a whole number from 1, not {max_depth!r}")
        self.changes: list[Change] = []
        self.completed: list[tuple[Path, Any]] = []
        self._strict = duplicates == "error"
        self._depth = max_depth
        self._expect = VALUE
        self._failure: InvalidJSON | None = None
        self._position = 0  # of the piece at hand, in the whole text
        self._held = ""  # the end of the last piece: a token that may go on
        self._root: Any = UNSET
        # The innermost open container, where it is, the name that the next value has, what follows a value in it; and
        # those around it. A container is put into the one around it when it closes. The list of those around it is
        # older than they are: if Python's collector met them before what holds them, it would visit all in them twice.
        self._container: dict[str, Any] | list[Any] | None = None
        self._path: Path = ()
        self._name = ""
        self._names: dict[str, str] = {}
        self._after = END
        self._outer: list[dict[str, Any] | list[Any] | None] = []
        self._outer_paths: list[Path] = []
        # The open string: whether it is a name, where it is, and what has come of it in earlier pieces.
        self._in_string = False
        self._naming = False
        self._name_at = 0
        self._string_path: Path = ()
        self._growing = False
        self._pieces: list[str] = []
        self._chunks: list[str] = []  # many pieces each: a short string takes fifty bytes more than its characters

    @property
    def position(self) -> int:
        """How many characters have been fed."""
        return self._position + len(self._held)

    @property
    def ended(self) -> bool:
        """Whether the document is whole: nothing but white space may follow. (A bare number ends with ``close``.)"""
        return self._expect == END and not self._in_string

    @property
    def growing(self) -> tuple[Path, str] | None:
        """The string that is open: where, and what has come of it."""
        if not self._in_string or self._naming:
            return None
        return self._string_path, "".join(self._chunks) + "".join(self._pieces)

    @property
    def value(self) -> Any:
        """What is known so far, as plain data; ``UNSET`` while that is nothing.

        It is made when it is asked for and stays as it is. Closed parts are shared with later values: do not change
        them.
        """
        growing: tuple[Path, Any] | None = self.growing
        path, inner = ((), UNSET) if growing is None else growing
        container, place = self._container, self._path
        for outer, outer_path in zip(reversed(self._outer), reversed(self._outer_paths), strict=True):
            if type(container) is list:
                inner = container.copy() if inner is UNSET else [*container, inner]
            else:
                assert type(container) is dict
                inner = container.copy() if inner is UNSET else container | {path[-1]: inner}
            path, container, place = place, outer, outer_path
        return self._root if inner is UNSET else inner

    def feed(self, text: str) -> list[Change]:
        """What the next piece changes. Raises :class:`~multi_agent_scheduler.errors.InvalidJSON`, then ever after."""
        changes = self.changes = []
        self.completed = []
        if self._failure is not None:
            raise self._failure
        if self._in_string and not self._held and grammar.special(text) is None:  # by far the most frequent case
            self._grow(text)
            self._position += len(text)
            return changes
        if not isinstance(text, str):
            raise TypeError(f"JSON is fed as str, not as {type(text).__name__}: decode it first")
        if self._held:
            text = self._held + text
            self._held = ""
        at, size = 0, len(text)
        try:
            while at < size:
                at = self._string(text, at) if self._in_string else self._structure(text, at)
        except InvalidJSON as error:
            self._failure = error
            raise
        self._position += size - len(self._held)
        return changes

    def close(self) -> Any:
        """The text has ended: the value of the document. Raises InvalidJSON if it is not whole."""
        self.changes, self.completed = [], []
        if self._failure is not None:
            raise self._failure
        try:
            self._end()
        except InvalidJSON as error:
            self._failure = error
            raise
        return self._root

    def _end(self) -> None:
        if self._expect == VALUE and self._container is None and not self._in_string:
            match = grammar.number(self._held + " ")
            if match is not None:
                self._put(int(match[0]) if match.lastindex is None else self._float(match[0], 0))
                self._position, self._held, self._expect = self.position, "", END
        if self._in_string:
            problem = "inside a string"
        elif self._held:
            problem = "inside a value"
        elif self._expect != END:
            problem = f"where {grammar.EXPECTED[self._expect]} must come"
        else:
            return
        raise InvalidJSON(f"not a whole JSON document: it ends {problem}", self.position)

    # --- between strings ------------------------------------------------------------------------------------------

    def _structure(self, text: str, at: int) -> int:
        """Read on up to the begin of a string or the end of the piece, and give the position behind."""
        expect, size = self._expect, len(text)
        steps = STEPS[expect]
        while at < size:
            step = steps.get(text[at], -1)
            if step < FIRST_ACTION:
                if step < 0:
                    self._expect = expect
                    return self._unexpected(text, at)
                at += 1
                if step != expect:
                    expect, steps = step, STEPS[step]
                continue
            if step == NUMBER:
                match = grammar.number(text, at)
                if match is None or match.lastindex == 3:
                    self._expect = expect
                    if match is None or size - at > LONGEST_NUMBER:
                        self._check_number(text, at)
                    self._held = text[at:]
                    return size
                self._put(int(match[0]) if match.lastindex is None else self._float(match[0], at))
                at = match.end()
                expect = self._after
            elif step == LITERAL:
                word, value = grammar.LITERALS[text[at]]
                if not text.startswith(word, at):
                    self._expect = expect
                    self._hold_literal(text, at, word)
                    return size
                self._put(value)
                at += len(word)
                expect = self._after
            elif step == CLOSE:
                at += 1
                self._close()
                expect = self._after
            elif step <= grammar.NAME_STRING:
                self._expect = expect
                self._begin_string(at, naming=step != STRING)
                at += 1
                if at == size:
                    self._grow("")
                return at
            else:
                if len(self._outer) >= self._depth:
                    self._refuse(f"it is nested deeper than {self._depth}", at)
                expect = FIRST_NAME if step == OPEN_OBJECT else FIRST_ITEM
                if step == OPEN_OBJECT:
                    self._open({}, {})
                else:
                    self._open([], [])
                at += 1
            steps = STEPS[expect]
        self._expect = expect
        return at

    def _unexpected(self, text: str, at: int) -> int:
        """A character that cannot stand there; gives where to read on, if that is not an error."""
        self._refuse(f"{grammar.EXPECTED[self._expect]} must come, not {text[at]!a}", at)

    def _refuse(self, problem: str, at: int) -> NoReturn:
        position = self._position + at
        raise InvalidJSON(f"not JSON: at position {position} {problem}", position)

    def _here(self) -> Path:
        """The path of the value that comes next."""
        container = self._container
        if type(container) is list:
            return self._path + (len(container),)  # noqa: RUF005 - it takes half the time
        return () if container is None else self._path + (self._name,)  # noqa: RUF005

    def _open(self, container: dict[str, Any] | list[Any], shown: dict[str, Any] | list[Any]) -> None:
        path = self._here()
        self.changes.append((path, shown))
        self._outer.append(self._container)
        self._outer_paths.append(self._path)
        self._container, self._path = container, path
        self._after = _AFTER[type(container)]

    def _close(self) -> None:
        closed = (self._path, self._container)
        self._container, self._path = self._outer.pop(), self._outer_paths.pop()
        self._after = _AFTER[type(self._container)]
        self._settle(closed)

    def _settle(self, closed: Change) -> None:
        """A value is whole: it is put where it belongs."""
        self.completed.append(closed)
        path, value = closed
        container = self._container
        if type(container) is list:
            container.append(value)
        elif container is None:
            self._root = value
        else:
            container[path[-1]] = value  # type: ignore[index]

    def _put(self, value: Any) -> None:
        """A number or a literal is known."""
        container = self._container
        if type(container) is list:  # the most frequent case, and the one that comes in the smallest pieces
            change = (self._path + (len(container),), value)  # noqa: RUF005
            container.append(value)
            self.completed.append(change)
        else:
            change = (self._here(), value)
            self._settle(change)
        self.changes.append(change)

    # --- numbers and literals -------------------------------------------------------------------------------------

    def _check_number(self, text: str, at: int) -> None:
        """What stands at ``at`` to the end of the piece is the begin of a number, or an error."""
        begun = grammar.number_begun(text, at)
        if begun - at > LONGEST_NUMBER:
            self._refuse(f"a number has more than {LONGEST_NUMBER} characters", at)
        if begun < len(text):
            self._refuse(f"a number cannot go on with {text[begun]!a}", begun)

    def _hold_literal(self, text: str, at: int, word: str) -> None:
        came = text[at : at + len(word)]
        if not word.startswith(came):
            wrong = next(index for index, char in enumerate(came) if char != word[index])
            self._refuse(f"{word!r} cannot go on with {came[wrong]!a}", at + wrong)
        self._held = came

    def _float(self, token: str, at: int) -> float:
        if len(token) > LONGEST_NUMBER:
            self._refuse(f"a number has more than {LONGEST_NUMBER} characters", at)
        number = float(token)
        if isinf(number):
            self._refuse("a number is too large for a float", at)
        return number

    # --- strings --------------------------------------------------------------------------------------------------

    def _begin_string(self, at: int, *, naming: bool) -> None:
        self._in_string, self._naming = True, naming
        if naming:
            self._name_at = self._position + at
        else:
            self._string_path = self._here()

    def _string(self, text: str, at: int) -> int:
        """Read on inside a string up to its end or that of the piece, and give the position behind."""
        pieces: list[str] = []
        begin = at
        while True:
            match = grammar.segment(text, begin)
            assert match is not None, "it matches nothing, too"
            kind, end = match.lastindex, match.end()
            if kind == 1:
                if end - 1 > begin:
                    pieces.append(text[begin : end - 1])
                self._end_string("".join(pieces))
                return end
            unit = 0
            if kind is None:
                pieces.append(text[begin:end])
                break
            if kind == 2:
                pieces.append(text[begin : end - 2])
                pieces.append(grammar.ESCAPES[match[2]])
            else:
                pieces.append(text[begin : end - 6])
                unit = int(match[3], 16)
                if unit & 0xF800 == 0xD800:
                    low = grammar.low_surrogate(text, end) if unit < 0xDC00 else None
                    if low is None:
                        end -= 6
                        break
                    end = low.end()
                    unit = 0x10000 + ((unit & 0x3FF) << 10 | int(low[1], 16) & 0x3FF)
                pieces.append(chr(unit))
            begin = end
        self._grow("".join(pieces))
        if end < len(text):
            self._hold_escape(text, end, unit)
        return len(text)

    def _hold_escape(self, text: str, at: int, unit: int) -> None:
        """What stands at ``at`` is held if it may become an escape (``unit``: it is a surrogate's), or an error."""
        char = text[at]
        if unit:
            begun = at if unit >= 0xDC00 else grammar.low_surrogate_begun(text, at + 6)
            if begun < len(text):
                self._refuse("a string has half a surrogate pair", at)
        elif char == "\\":
            begun = grammar.escape_begun(text, at)
            if begun < len(text):
                self._refuse(f"an escape cannot go on with {text[begun]!a}", begun)
        elif char < " ":
            self._refuse(f"a string cannot have the control character {char!a} as it is", at)
        else:
            self._refuse("a string has half a surrogate pair", at)
        self._held = text[at:]

    def _grow(self, text: str) -> None:
        """The string goes on with ``text``, and behind this piece."""
        if not self._naming and (text or not self._growing):
            self.changes.append((self._string_path, text))
        self._growing = True
        self._pieces.append(text)
        if len(self._pieces) == _MANY_PIECES:
            self._chunks.append("".join(self._pieces))
            self._pieces.clear()

    def _end_string(self, text: str) -> None:
        growing, whole = self._growing, text
        if growing:
            whole = "".join([*self._chunks, *self._pieces, text])
            self._pieces.clear()
            self._chunks.clear()
            self._growing = False
        self._in_string = False
        if self._naming:
            self._end_name(whole)
            return
        if text or not growing:
            self.changes.append((self._string_path, text))
        self._settle((self._string_path, whole))
        self._expect = self._after

    def _end_name(self, name: str) -> None:
        members = self._container
        assert type(members) is dict, "only objects have names"
        if name in members:
            if self._strict:
                position = self._name_at
                raise InvalidJSON(
                    f"not JSON: at position {position} an object has a name for the second time", position
                )
            self.changes.append(((*self._path, name), UNSET))
            del members[name]
        # Names come again in each object of an array: they are kept once, as long as they are few.
        self._name = self._names.setdefault(name, name) if len(self._names) < _FEW_NAMES else name
        self._expect = COLON
