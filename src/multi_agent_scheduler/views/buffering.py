"""How chunks are gathered into larger pieces: the decisions behind :func:`multi_agent_scheduler.buffering.buffered`.

Each class takes chunks and gives pieces; what comes out, joined, is what went in. Lines and sentences are the same
however the text was cut into chunks.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

__all__ = ["Amount", "Buffer", "Lines", "Sentences"]


class Buffer(Protocol):
    """What they have in common."""

    def push(self, chunk: str, now: float) -> list[str]:
        """Take a chunk at the time ``now`` (seconds, any clock); the pieces that it completes."""
        ...

    @property
    def due(self) -> float | None:
        """When what is held has to be given out by :meth:`take`, if nothing else comes; None: not before the end."""
        ...

    def take(self) -> str:
        """All that is held, "" if nothing is; it is held no longer."""
        ...


class Amount:
    """Pieces of ``chunks`` chunks, or of what came within ``seconds`` of the first chunk held; whichever is first."""

    def __init__(self, chunks: int | None, seconds: float | None) -> None:
        self._chunks = chunks
        self._seconds = seconds
        self._held: list[str] = []
        self.due: float | None = None

    def push(self, chunk: str, now: float) -> list[str]:
        if not chunk:
            return []
        if not self._held and self._seconds is not None:
            self.due = now + self._seconds
        self._held.append(chunk)
        full = self._chunks is not None and len(self._held) >= self._chunks
        if full or (self.due is not None and now >= self.due):
            return [self.take()]
        return []

    def take(self) -> str:
        piece = "".join(self._held)
        self._held.clear()
        self.due = None
        return piece


class Lines:
    r"""Complete lines, each with the ``\n`` that ends it; the rest at the end. Other line separators are just text."""

    due: Final = None

    def __init__(self) -> None:
        self._held: list[str] = []

    def push(self, chunk: str, now: float) -> list[str]:  # noqa: ARG002 - a line does not care when
        first, *others = chunk.split("\n")
        self._held.append(first)
        if not others:
            return []
        *complete, rest = others
        lines = ["".join(self._held), *complete]
        self._held = [rest] if rest else []
        return [line + "\n" for line in lines]

    def take(self) -> str:
        piece = "".join(self._held)
        self._held.clear()
        return piece


# A text is runs of four kinds: marks that can end a sentence, what may close after them, white space, and the rest.
# Compiled by the first Sentences, not by every import of this module (1 ms); "re" keeps what it has compiled.
_RUNS: Final = r"""(?P<mark>[.!?…。！？｡]+) | (?P<closer>["'”’»)\]}」』）】*_]+) | (?P<space>\s+)
    | (?P<word>[^.!?…。！？｡"'”’»)\]}」』）】*_\s]+)"""  # noqa: RUF001 - full-width marks are meant
_CJK_MARKS: Final = frozenset("。！？｡")  # noqa: RUF001 - as above
_WORD_LENGTH: Final = 24  # of a word, its end is enough to know an abbreviation

# Where a full stop ends no sentence: after a title with its capital, before a number, and anywhere.
_TITLES: Final = frozenset({
    "Capt", "Col", "Dr", "Gen", "Gov", "Hon", "Lt", "Mlle", "Mme", "Mr", "Mrs", "Ms", "Mt", "Prof", "Rep", "Rev", "Sen",
    "Sgt", "St",
})  # fmt: skip
_BEFORE_NUMBERS: Final = frozenset({
    "art", "ca", "ch", "chap", "eq", "eqs", "fig", "figs", "no", "nos", "nr", "p", "para", "pp", "sec", "vol", "vols",
})  # fmt: skip
_ANYWHERE: Final = frozenset({"approx", "bzw", "cf", "resp", "viz", "vs"})
_INITIALS: Final = r"(?:[^\W\d_]\.)+[^\W\d_]|[A-HJ-Z]"  # "e.g", "U.S", "J": before their last full stop


class Sentences:
    """Whole sentences, each with the white space after it; the rest at the end.

    A sentence ends at ``.``, ``!``, ``?`` or ``…`` (and quotes, brackets or asterisks that close) before white space,
    unless what follows begins with a small letter; at ``。``, ``！``, ``？`` also without white space; and at an empty
    line. The full stop of "Dr.", "e.g.", an initial or a list's number ends none. A piece is given out when the first
    character after it has come, for only that shows that the sentence is over.
    """  # noqa: RUF002 - full-width marks are meant

    due: Final = None

    def __init__(self) -> None:
        self._runs = re.compile(_RUNS, re.VERBOSE).finditer
        self._held: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self._word = ""  # the word that is being read, or that the mark stands behind
        self._begun = False  # a word or mark has come
        self._line_start = True  # of the word: it is the first of its line
        self._mark = ""  # the mark that may have ended the sentence
        self._cjk = False
        self._spaced = False  # white space came since the last word or mark
        self._newlines = 0

    def push(self, chunk: str, now: float) -> list[str]:  # noqa: ARG002 - a sentence does not care when
        pieces: list[str] = []
        start = 0  # of what is not held yet
        for run in self._runs(chunk):
            kind = run.lastgroup
            if kind == "space":
                self._spaced = True
                self._newlines += run.group().count("\n")
                continue
            if self._over(kind, run.group()):
                self._held.append(chunk[start : run.start()])
                start = run.start()
                pieces.append(self.take())
            self._read(kind, run.group())
        if start < len(chunk):
            self._held.append(chunk[start:])
        return pieces

    def take(self) -> str:
        piece = "".join(self._held)
        self._held.clear()
        self._begin()
        return piece

    def _over(self, kind: str | None, text: str) -> bool:
        """Whether the sentence was over before this run, which is no white space."""
        if self._begun and self._newlines >= 2:
            return True
        if not self._mark or (not self._spaced and kind != "word"):
            return False  # marks and closers that follow at once belong to the end
        if self._cjk:
            return True
        if not self._spaced or kind == "mark" or text[0].islower():
            return False
        return self._mark != "." or not self._is_abbreviation(text)

    def _is_abbreviation(self, following: str) -> bool:
        word = self._word.lstrip("([{\"'“‘«*_")  # noqa: RUF001 - the quotes are meant
        if word.isdigit():
            return self._line_start  # the number of a list's item
        if word in _TITLES or word.lower() in _ANYWHERE or re.fullmatch(_INITIALS, word):
            return True
        return following[0].isdigit() and word.lower() in _BEFORE_NUMBERS

    def _read(self, kind: str | None, text: str) -> None:
        spaced = self._spaced
        first_of_line = self._newlines > 0 or not self._begun
        self._spaced = False
        self._newlines = 0
        begun, self._begun = self._begun, True
        if kind == "mark":
            if spaced or not self._mark:
                self._mark = ""
                self._cjk = False
            self._mark = (self._mark + text)[:2]
            self._cjk = self._cjk or not _CJK_MARKS.isdisjoint(text)
            return
        if kind == "closer" and self._mark and not spaced:
            return
        if spaced or not begun:
            self._word = ""
            self._line_start = first_of_line
        self._word = (self._word + self._mark * (not spaced) + text)[-_WORD_LENGTH:]
        self._mark = ""
        self._cjk = False
