"""The grammar of JSON (RFC 8259) as the parser uses it: what may come next, and the shapes of its tokens.

The structure is one table: in each state, the characters that may come, and for each either the next state or an action
(whose outcome is a state of its own). What is not in the table is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

# States: what is expected.
VALUE, FIRST_ITEM, FIRST_NAME, NAME, COLON, AFTER_ITEM, AFTER_MEMBER, END = range(8)

# Actions: what begins or ends at a character.
STRING, NAME_STRING, NUMBER, LITERAL, OPEN_OBJECT, OPEN_ARRAY, CLOSE = range(8, 15)
FIRST_ACTION: Final = STRING


def _steps(state: int, **steps: int) -> dict[str, int]:
    return dict.fromkeys(" \t\n\r", state) | steps


_VALUES: Final = {
    '"': STRING,
    "{": OPEN_OBJECT,
    "[": OPEN_ARRAY,
    **dict.fromkeys("-0123456789", NUMBER),
    **dict.fromkeys("tfn", LITERAL),
}

STEPS: Final = (
    _steps(VALUE, **_VALUES),
    _steps(FIRST_ITEM, **_VALUES, **{"]": CLOSE}),
    _steps(FIRST_NAME, **{'"': NAME_STRING, "}": CLOSE}),
    _steps(NAME, **{'"': NAME_STRING}),
    _steps(COLON, **{":": VALUE}),
    _steps(AFTER_ITEM, **{",": VALUE, "]": CLOSE}),
    _steps(AFTER_MEMBER, **{",": NAME, "}": CLOSE}),
    _steps(END),
)
"""For each state the step that each character makes: a state, or an action from ``FIRST_ACTION`` on."""

EXPECTED: Final = (
    "a value",
    "a value or ']'",
    "a name in double quotes or '}'",
    "a name in double quotes",
    "':'",
    "',' or ']'",
    "',' or '}'",
    "the end",
)

LITERALS: Final = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}

LONGEST_NUMBER: Final = 4300  # characters; Python itself refuses to read longer whole numbers
number: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,4298})(\.[0-9]+)?([eE][+-]?[0-9]+)?(?:(?=[,\]} \t\n\r])|(\Z))").match
"""A number and what shows that it is whole; (1) or (2): it has a fraction or an exponent; (3): it may go on."""

special: Final = re.compile(r'["\\\x00-\x1f\ud800-\udfff]').search
"""What cannot stand for itself in a string."""

segment: Final = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*(?:(")|\\(?:(["\\/bfnrt])|u([0-9a-fA-F]{4})))?').match
"""What can, and what ends it: (1) the string's end, (2) an escape of one letter, (3) one of a code unit."""

low_surrogate: Final = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})").match


def _reach(pattern: str) -> Callable[[str, int], int]:
    match = re.compile(pattern).match

    def reach(text: str, at: int) -> int:
        found = match(text, at)
        return at if found is None else found.end()

    return reach


number_begun: Final = _reach(r"-?(?:0|[1-9][0-9]*)?(?:(?<=[0-9])(?:\.[0-9]*)?(?:(?<=[0-9])[eE](?:[+-]?[0-9]*)?)?)?")
"""How far the longest beginning of a number goes; what stands behind it cannot belong to it. So the others:"""
escape_begun: Final = _reach(r"\\(?:u[0-9a-fA-F]{0,3})?")
low_surrogate_begun: Final = _reach(r"\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?")

ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
