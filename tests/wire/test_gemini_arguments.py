"""Arguments in pieces: paths, and the text that grows from them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multi_agent_scheduler.wire.gemini.arguments import PartialArguments, parse_path

NAMES = st.text(alphabet="ab.'\"\\[]é ", max_size=3)
LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.text(alphabet='x"\\\n\u2028😀', max_size=6)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(NAMES, inner, min_size=1, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)


def pieces_of(value: Any, path: list[Any]) -> list[tuple[list[Any], Any]]:
    """The leaves of a value in document order, strings in pieces of two characters."""
    if isinstance(value, dict):
        return [piece for name, inner in value.items() for piece in pieces_of(inner, [*path, name])]
    if isinstance(value, list):
        return [piece for index, inner in enumerate(value) for piece in pieces_of(inner, [*path, index])]
    if isinstance(value, str):
        return [(path, value[start : start + 2]) for start in range(0, max(len(value), 1), 2)]
    return [(path, value)]


def spelled(path: list[Any]) -> str:
    text = "$"
    for segment in path:
        quoted = str(segment).replace("\\", "\\\\").replace("'", "\\'")
        text += f"[{segment}]" if isinstance(segment, int) else f"['{quoted}']"
    return text


@settings(deadline=None)
@given(OBJECTS)
def test_pieces_in_document_order_give_the_compact_text_as_it_grows(value: dict[str, Any]) -> None:
    arguments = PartialArguments()
    text = ""
    for path, piece in pieces_of(value, []):
        parsed = parse_path(spelled(path))
        assert parsed == path
        added = arguments.put(parsed, piece)
        assert added is not None
        assert added or piece == ""
        text += added
    text += arguments.close()
    assert text == json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@settings(deadline=None)
@given(OBJECTS, st.integers(0, 5))
def test_pieces_in_any_order_give_the_same_object(value: dict[str, Any], seed: int) -> None:
    leaves: dict[str, list[Any]] = {}
    for path, piece in pieces_of(value, []):
        leaves.setdefault(spelled(path), []).append((path, piece))
    groups = list(leaves.values())
    random.Random(seed).shuffle(groups)
    arguments = PartialArguments()
    text = ""
    for path, piece in [one for group in groups for one in group]:
        added = arguments.put(path, piece)
        assert added is not None
        text += added
    assert json.loads(text + arguments.close()) == value


def test_pieces_of_two_strings_in_turn() -> None:
    arguments = PartialArguments()
    text = "".join(
        arguments.put([name], piece) or "" for name, piece in [("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")]
    )
    assert json.loads(text + arguments.close()) == {"a": "13", "b": "24"}


def test_an_empty_piece_that_only_closes_a_string_writes_nothing() -> None:
    arguments = PartialArguments()
    text = "".join(arguments.put([name], piece) or "" for name, piece in [("a", "1"), ("b", "2"), ("a", "")])
    assert text + arguments.close() == '{"a":"1","b":"2"}'


def test_a_list_that_starts_in_the_middle_is_filled_up() -> None:
    arguments = PartialArguments()
    text = arguments.put(["a", 1], True)
    assert text == ""
    assert arguments.close() == '{"a":[null,true]}'


def test_a_value_may_be_replaced_by_another_kind() -> None:
    arguments = PartialArguments()
    text = "".join(arguments.put(path, value) or "" for path, value in [(["a"], 1), (["a", "b"], 2), (["a", "c"], "x")])
    assert json.loads(text + arguments.close()) == {"a": {"b": 2, "c": "x"}}


def test_an_index_far_past_the_end_is_refused() -> None:
    arguments = PartialArguments()
    assert arguments.put(["a", 999_999_999], 1) is None
    assert json.loads((arguments.put(["b"], 1) or "") + arguments.close())["b"] == 1


def test_no_pieces_is_an_empty_object() -> None:
    assert PartialArguments().close() == "{}"


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("$.foo.bar[0].data", ["foo", "bar", 0, "data"]),
        ("$['a b'][\"c'd\"]", ["a b", "c'd"]),
        ("$['it\\'s']", ["it's"]),
        ("$.snake_case-name", ["snake_case-name"]),
        ("$", None),
        ("$[0]", None),
        ("$..a", None),
        ("$.a[*]", None),
        ("$.a[-1]", None),
        ("a.b", None),
        ("", None),
        (7, None),
        ("$" + ".a" * 101, None),
    ],
)
def test_paths(path: Any, segments: Any) -> None:
    assert parse_path(path) == segments
