"""Documents in pieces, and what may be shown of one that is not finished."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st

from multi_agent_scheduler.errors import InvalidJSON
from multi_agent_scheduler.wire.partial_json import UNSET, PartialJSON, Path, apply

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=25,
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """JSON text of any value, in one of the spellings that writers use."""
    return json.dumps(
        draw(values), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 0, 2, "\t", "\r\n"]))
    )


class Told(NamedTuple):
    """What a reader of the changes has: the document, the paths in the order in which they closed, and the error."""

    document: Any
    completed: list[Path]
    error: tuple[int, str] | None


def told(pieces: Iterable[str], parser: PartialJSON | None = None) -> Told:
    """The pieces as a reader of changes and a reader of values see them, who agree after each piece."""
    parser = PartialJSON() if parser is None else parser
    document: Any = UNSET
    completed: list[Path] = []
    error = None
    try:
        for piece in pieces:
            document = apply(document, parser.feed(piece))
            completed += [path for path, _ in parser.completed]
            assert same(document, parser.value)
        value = parser.close()
        assert same(apply(document, parser.changes), value)
    except InvalidJSON as raised:
        error = raised.position, str(raised)
    document = apply(document, parser.changes)
    assert same(document, parser.value)
    return Told(document, completed + [path for path, _ in parser.completed], error)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same kinds: 1, 1.0 and True are three values, and 0.0 is not -0.0."""
    return repr(one) == repr(other)


def cuts(text: str, seed: int = 0) -> Iterator[list[str]]:
    """The text whole, in single characters, in fours, and at random places, empty pieces among them."""
    yield [text]
    yield list(text)
    yield [text[at : at + 4] for at in range(0, len(text), 4)]
    chance = random.Random(seed)
    places = sorted(chance.randrange(len(text) + 1) for _ in range(1 + len(text) // 5))
    yield [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]


def agrees(shown: Any, finished: Any, *, last: bool = True) -> bool:
    """Whether what was shown can become what the finished document says; ``last``: it may still be growing."""
    if shown is UNSET:
        return last
    if type(shown) is not type(finished):
        return False
    if isinstance(shown, str):
        return bool(finished.startswith(shown)) if last else shown == finished
    if isinstance(shown, list):
        if len(shown) > len(finished) or (not last and len(shown) < len(finished)):
            return False
        return all(
            agrees(item, finished[index], last=last and index == len(shown) - 1) for index, item in enumerate(shown)
        )
    if isinstance(shown, dict):
        names = list(shown)
        if names != list(finished)[: len(names)] or (not last and len(names) < len(finished)):
            return False
        return all(agrees(shown[name], finished[name], last=last and name == names[-1]) for name in names)
    return same(shown, finished)
