"""Halves of surrogate pairs in JSON text (RFC 8259, 8.2): joined across events where they belong together.

A sender whose strings are UTF-16 (anything in JavaScript, Java or C#) that cuts a text anywhere cuts some emoji in two:
one event then ends in ``\\ud83d`` and the next begins with ``\\ude00``. Each is JSON by the grammar, and neither is
text that UTF-8 can hold.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["Halves"]

# A whole pair, a second half (perhaps at a string's begin), a first half (perhaps at its end), any other escape.
_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb'|(?P<begin>")?(?P<second>\\u[dD][c-fC-F][0-9a-fA-F]{2})'
    rb'|(?P<first>\\u[dD][89abAB][0-9a-fA-F]{2})(?P<end>")?'
    rb"|\\.",
    re.DOTALL,
)
_REPLACEMENT: Final = rb"\ufffd"


class Halves:
    """Mends the JSON texts of one stream's events, in order.

    A first half at the end of a string waits for a string that begins with a second half, in one of the next events
    that are mended; a half that stands anywhere else becomes U+FFFD, and one that nothing follows is left out.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = b""

    def mend(self, text: bytes) -> bytes | None:
        """The text with whole pairs only; None if it has no halves, so that they are not what is wrong with it."""
        waiting, found, joined = self._waiting, b"", False
        mended = False

        def whole(match: re.Match[bytes]) -> bytes:
            nonlocal found, joined, mended
            if match["second"] is not None:
                mended = True
                begin = match["begin"] or b""
                if begin and waiting:
                    joined = True
                    return begin + waiting + bytes(match["second"])
                return begin + _REPLACEMENT
            if match["first"] is not None:
                mended = True
                if match["end"]:
                    found = match["first"]
                    return b'"'
                return _REPLACEMENT
            return match[0]

        result = _ESCAPE.sub(whole, text)
        if found:
            self._waiting = found
        elif joined:
            self._waiting = b""
        return result if mended else None
