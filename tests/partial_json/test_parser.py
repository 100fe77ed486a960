"""The parser: what is shown when, positions of errors, limits, linear work and little memory."""

from __future__ import annotations

import gc
import json
import pickle
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import InvalidJSON, InvalidOption
from multi_agent_scheduler.wire.partial_json import UNSET, PartialJSON, Path
from tests.partial_json.documents import agrees, documents, same, told


def closed(parser: PartialJSON) -> list[Path]:
    return [path for path, _ in parser.completed]


def fed(*pieces: str) -> PartialJSON:
    parser = PartialJSON()
    for piece in pieces:
        parser.feed(piece)
    return parser


class TestChanges:
    def test_a_document_as_it_grows(self) -> None:
        parser = PartialJSON()
        assert parser.feed(' {"title": "Pan') == [((), {}), (("title",), "Pan")]
        assert closed(parser) == []
        assert parser.feed('cakes", "st') == [(("title",), "cakes")]
        assert closed(parser) == [("title",)]
        assert parser.feed('eps": [{"n": 1') == [(("steps",), []), (("steps", 0), {})]
        assert closed(parser) == []
        assert parser.feed("2, ") == [(("steps", 0, "n"), 12)]
        assert parser.feed('"hot": tr') == []
        assert parser.feed("ue}, null") == [(("steps", 0, "hot"), True), (("steps", 1), None)]
        assert closed(parser) == [("steps", 0, "hot"), ("steps", 0), ("steps", 1)]
        assert parser.feed("]}\n") == []
        assert closed(parser) == [("steps",), ()]
        assert parser.close() == {"title": "Pancakes", "steps": [{"n": 12, "hot": True}, None]}

    def test_a_string_is_there_from_its_first_quote(self) -> None:
        parser = fed("[")
        assert parser.feed('"') == [((0,), "")]
        assert parser.value == [""]
        assert parser.feed("") == []
        assert parser.feed('"') == []
        assert closed(parser) == [(0,)]
        assert parser.feed(',""') == [((1,), "")]

    def test_escapes_and_pairs_are_not_shown_by_halves(self) -> None:
        parser = fed('"a')
        for piece, shown in [
            ("\\", None), ("n", "\n"), ("\\u00", None), ("e9", "é"), ("\\ud83", None), ("d", None), ("\\", None),
            ("ude", None), ("00", "😀"), ("b\\", "b"), ('"', '"'),
        ]:  # fmt: skip
            assert parser.feed(piece) == ([] if shown is None else [((), shown)]), piece
        assert parser.value == 'a\né😀b"'

    def test_names_are_not_shown_by_halves(self) -> None:
        parser = fed('{"na')
        assert parser.value == {}
        assert parser.feed('me"') == []
        assert parser.feed(":") == []
        assert parser.feed("[") == [(("name",), [])]

    @pytest.mark.parametrize("token", ["0", "-1", "10", "1.5", "-0.0", "1e5", "1E-2", "12345678901234567890123"])
    def test_a_number_is_known_when_the_next_character_is(self, token: str) -> None:
        for end in (",", "]", " ", "\n"):
            parser = fed("[")
            for char in token:
                assert parser.feed(char) == []
            parser.feed(end)
            assert same(parser.value, [json.loads(token)])
        bare = fed(token)
        assert bare.value is UNSET
        assert same(bare.close(), json.loads(token))
        assert bare.changes == [((), json.loads(token))]
        assert closed(bare) == [()]

    def test_nothing_is_known_of_nothing(self) -> None:
        assert PartialJSON().value is UNSET
        assert fed(" \n").value is UNSET
        assert fed("nul").value is UNSET


class TestValue:
    def test_it_stays_as_it_was(self) -> None:
        parser = fed('{"a": [1, {"b": "x')
        before = parser.value
        parser.feed('y"}, 2], "c": 3}')
        assert before == {"a": [1, {"b": "x"}]}
        assert parser.close() == {"a": [1, {"b": "xy"}, 2], "c": 3}

    def test_after_an_error_it_is_what_came_before(self) -> None:
        parser = PartialJSON()
        with pytest.raises(InvalidJSON):
            parser.feed('{"a": "text", "b": [1, 2 3]}')
        assert parser.value == {"a": "text", "b": [1, 2]}
        assert parser.changes[-1] == (("b", 1), 2)
        assert closed(parser) == [("a",), ("b", 0), ("b", 1)]
        again = PartialJSON()
        with pytest.raises(InvalidJSON):
            again.feed('["text\nmore"]')
        assert again.value == ["text"]


class TestDuplicates:
    def test_the_last_one_stands_and_the_change_is_said(self) -> None:
        parser = fed('{"a": [1], "b": 2, ')
        assert parser.feed('"a"') == [(("a",), UNSET)]
        assert parser.value == {"b": 2}
        assert parser.feed(': "x"}') == [(("a",), "x")]
        assert parser.close() == {"b": 2, "a": "x"}

    def test_they_are_an_error_on_request(self) -> None:
        parser = PartialJSON(duplicates="error")
        parser.feed('{"a": {"a": 1}, "b": 1, "')
        with pytest.raises(InvalidJSON, match="position 24 an object has a name for the second time") as raised:
            parser.feed('a": 2}')
        assert raised.value.position == 24
        assert parser.value == {"a": {"a": 1}, "b": 1}

    def test_an_escaped_name_is_the_same_name(self) -> None:
        with pytest.raises(InvalidJSON):
            PartialJSON(duplicates="error").feed('{"a": 1, "\\u0061": 2}')


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "position", "problem"),
        [
            ("x", 0, "a value must come, not 'x'"),
            ("[1 2]", 3, "',' or ']' must come, not '2'"),
            ("[1,]", 3, "a value must come, not ']'"),
            ("[}", 1, "a value or ']' must come, not '}'"),
            ('{"a" 1}', 5, "':' must come, not '1'"),
            ('{"a":1,}', 7, "a name in double quotes must come, not '}'"),
            ("{a", 1, "a name in double quotes or '}' must come, not 'a'"),
            ('{"a":1]', 6, "',' or '}' must come, not ']'"),
            ("{} {}", 3, "the end must come, not '{'"),
            ("01", 1, "a number cannot go on with '1'"),
            ("[-]", 2, "a number cannot go on with ']'"),
            ("[1.]", 3, "a number cannot go on with ']'"),
            ("[.5]", 1, "a value or ']' must come, not '.'"),
            ("[1e+,", 4, "a number cannot go on with ','"),
            ("[1.5.2", 4, "a number cannot go on with '.'"),
            ("[NaN]", 1, "a value or ']' must come, not 'N'"),
            ("[1e999]", 1, "a number is too large for a float"),
            ("nulx", 3, "'null' cannot go on with 'x'"),
            ("[truth]", 4, "'true' cannot go on with 't'"),
            ('"a\\x"', 3, "an escape cannot go on with 'x'"),
            ('"\\u12g4"', 5, "an escape cannot go on with 'g'"),
            ('"a\tb"', 2, "a string cannot have the control character '\\t' as it is"),
            ('"ab\\ud800c"', 3, "a string has half a surrogate pair"),
            ('"\\udc00"', 1, "a string has half a surrogate pair"),
            ('"\\ud800\\u0041"', 1, "a string has half a surrogate pair"),
            ('"a\ud800"', 2, "a string has half a surrogate pair"),
            ("\ufeff{}", 0, "a value must come, not '\\ufeff'"),
            ("[1\u00a0]", 2, "a number cannot go on with '\\xa0'"),
            ("[" * 129, 128, "it is nested deeper than 128"),
            ("-" + "1" * 5000, 0, "a number has more than 4300 characters"),
            ("[0." + "1" * 5000 + "]", 1, "a number has more than 4300 characters"),
        ],
    )
    def test_where_and_why(self, text: str, position: int, problem: str) -> None:
        with pytest.raises(InvalidJSON) as raised:
            fed(text)
        assert (raised.value.position, str(raised.value)) == (position, f"not JSON: at position {position} {problem}")
        assert told(text).error == told([text]).error, "the same in single characters"

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "where a value must come"),
            ("{", "where a name in double quotes or '}' must come"),
            ('{"a"', "where ':' must come"),
            ("[1", "inside a value"),
            ("[1 ", "where ',' or ']' must come"),
            ('["a', "inside a string"),
            ('["a\\', "inside a string"),
            ("tru", "inside a value"),
            ("-", "inside a value"),
            ("1e", "inside a value"),
        ],
    )
    def test_a_document_that_is_not_whole(self, text: str, problem: str) -> None:
        parser = fed(text)
        with pytest.raises(InvalidJSON) as raised:
            parser.close()
        assert raised.value.position == len(text) == parser.position
        assert str(raised.value) == f"not a whole JSON document: it ends {problem}"

    def test_an_error_stays(self) -> None:
        parser = PartialJSON()
        with pytest.raises(InvalidJSON) as first:
            parser.feed("[1,, ")
        for again in (lambda: parser.feed("2]"), parser.close):
            with pytest.raises(InvalidJSON) as later:
                again()
            assert later.value is first.value
        assert parser.changes == []

    def test_it_survives_pickling(self) -> None:
        error = pickle.loads(pickle.dumps(InvalidJSON("not JSON", 7)))
        assert (str(error), error.position) == ("not JSON", 7)

    def test_what_is_no_text_and_no_option(self) -> None:
        with pytest.raises(TypeError, match="fed as str, not as bytes"):
            PartialJSON().feed(b"{}")  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="duplicates must be 'last' or 'error', not 'first'"):
            PartialJSON(duplicates="first")  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="max_depth must be a whole number from 1, not 0"):
            PartialJSON(max_depth=0)

    def test_depth(self) -> None:
        assert fed("[" * 128 + "]" * 128).ended
        parser = PartialJSON(max_depth=1)
        parser.feed('{"a":')
        with pytest.raises(InvalidJSON, match="nested deeper than 1"):
            parser.feed("{")

    def test_nothing_may_follow(self) -> None:
        parser = fed("{}")
        assert parser.ended
        assert parser.feed(" \n") == []
        assert parser.close() == {}
        with pytest.raises(InvalidJSON, match="the end must come"):
            parser.feed("x")


class TestProperties:
    @given(text=documents(), data=st.data())
    def test_any_document_in_any_pieces(self, text: str, data: st.DataObject) -> None:
        places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
        pieces = [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]
        in_pieces = told(pieces)
        assert in_pieces == told([text]) == told(text)
        assert same(in_pieces.document, json.loads(text))

    @given(text=documents())
    def test_what_is_shown_is_never_taken_back(self, text: str) -> None:
        finished, parser, before = json.loads(text), PartialJSON(), UNSET
        kept: dict[Any, Any] = {}
        for char in text:
            parser.feed(char)
            shown = parser.value
            assert agrees(shown, finished)
            assert agrees(before, shown)
            for path, value in parser.completed:
                assert same(value, at(shown, path))
                kept[path] = value
            before = shown
        parser.close()
        for path, value in kept.items():
            assert same(at(finished, path), value)

    @given(text=documents(), data=st.data())
    def test_a_spoiled_document_is_refused_as_others_refuse_it(self, text: str, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 2))
        spoiled = (
            text[:place]
            + data.draw(st.text(alphabet='{}[],:"\\utrue0-.eE \x00\ud83d', max_size=2))
            + text[place + gone :]
        )
        whole = told([spoiled])
        assert whole == told(spoiled)
        try:
            theirs = json.loads(spoiled, parse_constant=refuse)
            json.dumps(theirs, ensure_ascii=False, allow_nan=False).encode()
        except ValueError:  # a lone surrogate and a float out of range among them
            assert whole.error is not None
            return
        assert whole.error is None
        assert (
            same(whole.document, theirs)
            or sorted(map(repr, [theirs])) == sorted(map(repr, [whole.document]))
            or duplicated(spoiled)
        )

    @given(text=st.text(alphabet='{}[],:"\\u0a1truefalsn-.eE \n', max_size=30))
    def test_the_position_is_the_first_that_is_wrong(self, text: str) -> None:
        error = told([text]).error
        assert told(text).error == error
        if error is not None and error[0] < len(text):
            fed(text[: error[0]])  # so far nothing was wrong


def refuse(token: str) -> None:
    raise ValueError(token)


def duplicated(text: str) -> bool:
    """Whether a name comes twice: there the order of the members is another."""
    try:
        parser = PartialJSON(duplicates="error")
        parser.feed(text)
        parser.close()
    except InvalidJSON:
        return True
    return False


def at(value: Any, path: Any) -> Any:
    for step in path:
        value = value[step]
    return value


def seconds(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


# fmt: off
SHAPES: dict[str, Callable[[int], str]] = {
    "one string": lambda size: '"' + "a" * size + '"',
    "one string of escapes": lambda size: '"' + "\\n\\u00e9" * (size // 8) + '"',
    "one name": lambda size: '{"' + "a" * size + '": 1}',
    "one array": lambda size: "[" + "1," * (size // 2) + "1]",
    "one object": lambda size: "{" + ",".join(f'"{number}":0' for number in range(size // 9)) + "}",
    "deep": lambda size: "[" * 120 + "{}," * (size // 3) + "1" + "]" * 120,
    "white space": lambda size: "[" + " \n" * (size // 2) + "]",
    "records": lambda size: "[" + '{"text": "Stir well.", "minutes": 5},' * (size // 37) + "null]",
}
# fmt: on


@pytest.mark.parametrize("shape", SHAPES)
def test_the_work_grows_with_the_text_and_no_faster(shape: str) -> None:
    def work(size: int) -> Callable[[], object]:
        text = SHAPES[shape](size)
        pieces = [text[place : place + 4] for place in range(0, len(text), 4)]
        return lambda: fed(*pieces).close()

    small, large = work(10_000), work(40_000)
    # Four times the text; a quadratic parser would need sixteen times the time. The machine may be busy.
    assert min(seconds(large) / seconds(small) for _ in range(3)) < 8


@pytest.mark.parametrize("shape", ["one string", "one string of escapes", "one name"])
def test_memory_is_that_of_the_value(shape: str) -> None:
    text = SHAPES[shape](400_000)
    pieces = [text[place : place + 4] for place in range(0, len(text), 4)]
    tracemalloc.start()
    try:
        parser = PartialJSON()
        for piece in pieces:
            parser.feed(piece)
        parser.close()
        assert tracemalloc.get_traced_memory()[1] < 3 * len(text)
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="needs the collector of Python 3.13")
def test_a_collection_leaves_an_open_document_in_the_order_of_the_text() -> None:
    """Out of order, its objects are far from each other in memory, and each later collection takes longer."""
    parser = fed("[" * 10)
    gc.collect()
    gc.disable()
    try:
        parser.feed(",".join(["[[[1]]]"] * 100) + ",[")
        gc.collect()
        order = {id(it): place for place, it in enumerate(gc.get_objects())}
    finally:
        gc.enable()
    value = parser.value
    for _ in range(9):
        value = value[0]
    places = []
    for item in value[:-1]:
        while isinstance(item, list):
            places.append(order[id(item)])
            item = item[0]
    assert len(places) == 300
    assert places == sorted(places)
