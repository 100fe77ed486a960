"""JSON as models hand it over: with words before and behind it, or in a code fence."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from ...errors import InvalidJSON
from .grammar import END
from .parser import Change, PartialJSON

__all__ = ["EmbeddedJSON"]

# What begins a document in prose. Every line begins behind a line feed here, the first one too. Prose has braces and
# brackets of its own: a brace counts before a name or its end, a bracket at the begin of a line before a value or its
# end, so that a link is none. All that may have to wait for the next piece is bounded, so that no prose is read again
# and again.
_BEGIN: Final = re.compile(
    r"""\{(?=[ \t\r\n]{0,200}["}])
      | \n[ \t]{0,200}(?P<bracket>\[)(?=[ \t\r\n]{0,200}(?:[\]\[{"0-9-]|true|false|null))
      | \n[ \t]{0,3}(?P<fence>`{3,9}|~{3,9})[ \t]{0,9}
        (?: (?P<info>(?i:json)[a-zA-Z0-9]{0,9})[ \t\r]{0,9}\n | [ \t\r]{0,9}\n(?=[ \t\r\n]{0,200}[{\[]) )""",
    re.VERBOSE,
).search
_MAY_BEGIN: Final = re.compile(
    r"""(?: \{[ \t\r\n]{0,200}
          | \n[ \t]{0,200}(?:\[[ \t\r\n]{0,200}(?:t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?)?)?
          | \n[ \t]{0,3}(?:`{1,9}|~{1,9})[ \t]{0,9}[a-zA-Z0-9]{0,13}[ \t\r]{0,9}(?:\n[ \t\r\n]{0,200})?
        )\Z""",
    re.VERBOSE,
).search


class EmbeddedJSON(PartialJSON):
    """A document, strict in itself, in a text that may have more: prose around it, a Markdown fence, or both.

    The document is the first of these: an object or array with which the text, or a fence without a language, begins;
    whatever a fence of JSON holds; an object in the prose; an array that begins a line. What stands around it is kept:
    ``before`` and ``after`` are the prose without white space around it, ``fence`` is the fence's language ("" if it
    names none), None where there is no fence. Positions count from the begin of the whole text.
    """

    __slots__ = ("_before", "_begun", "_behind", "_blank", "_fence_mark", "_waiting", "fence")

    def __init__(self, *, duplicates: Literal["last", "error"] = "last", max_depth: int = 128) -> None:
        super().__init__(duplicates=duplicates, max_depth=max_depth)
        self.fence: str | None = None
        self._fence_mark = ""
        self._begun = False
        self._blank = True  # nothing but white space has come
        self._before: list[str] = []
        self._behind: list[str] = []
        self._waiting = "\n"  # the end of the prose so far, which may be the begin of a begin

    @property
    def before(self) -> str:
        """The prose before the document; so far, all that has come, until it has begun."""
        return "".join(self._before).strip()

    @property
    def after(self) -> str:
        """The prose behind the document, so far."""
        text = "".join(self._behind).strip()
        return text.removeprefix(self._fence_mark).lstrip() if self._fence_mark else text

    def feed(self, text: str) -> list[Change]:
        """As :meth:`PartialJSON.feed`; what is no part of the document changes nothing."""
        if self._behind:
            self.changes, self.completed = [], []
            self._behind.append(text)
            self._position += len(text)
            return self.changes
        return super().feed(text if self._begun else self._document(text))

    def close(self) -> Any:
        """As :meth:`PartialJSON.close`; a text without a document raises InvalidJSON, too."""
        if not self._begun and self._failure is None:
            self._failure = InvalidJSON("there is no JSON document in the text", self._position)
        return super().close()

    def _document(self, text: str) -> str:
        """What has come of the document with this piece, as long as that is nothing yet."""
        prose = self._waiting + text
        found, begin = self._found(prose)
        if begin < 0:
            may_begin = _MAY_BEGIN(prose)
            found = len(prose) if may_begin is None else may_begin.start()
            self._waiting = prose[found:]
            self._position += len(text)
        else:
            self._begun = True
            self._position += begin - (len(prose) - len(text))
        self._before.append(prose[:found])
        return prose[begin:] if self._begun else ""

    def _found(self, prose: str) -> tuple[int, int]:
        """Where the prose ends and where the document begins; -1 if it does not yet."""
        if self._blank:
            text = prose.lstrip(" \t\r\n\ufeff")  # a mark of the byte order says nothing
            if text[:1] in ("{", "["):
                begin = len(prose) - len(text)
                return begin, begin
            self._blank = not text
        match = _BEGIN(prose)
        if match is None:
            return -1, -1
        if match["fence"]:
            self.fence, self._fence_mark = (match["info"] or "").lower(), match["fence"]
            return match.start(), match.end()
        begin = match.end("bracket") - 1 if match["bracket"] else match.start()
        return begin, begin

    def _unexpected(self, text: str, at: int) -> int:
        if self._expect != END:
            return super()._unexpected(text, at)
        self._behind.append(text[at:])
        return len(text)
