"""JSON Schema's keywords, each with a value that fits and one that does not, and what is said about that one."""

from __future__ import annotations

from typing import Any

import pytest

from multi_agent_scheduler.errors import InvalidRequest
from multi_agent_scheduler.schema import Misfit, Schema
from multi_agent_scheduler.schema.checks import Checks

A_TREE = {
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}}}}
}

# schema, what fits, what does not, what is said
CASES: list[tuple[Any, Any, Any, str]] = [
    ({"type": "string"}, "a", 1, "the answer: expected a string, but 1 arrived"),
    ({"type": "integer"}, 2.0, 2.5, "the answer: expected a whole number, but 2.5 arrived"),
    ({"type": "number"}, 1, True, "the answer: expected a number, but true arrived"),
    ({"type": ["string", "null"]}, None, [], "the answer: expected a string or null, but [] arrived"),
    ({"type": "boolean"}, False, 0, "the answer: expected true or false, but 0 arrived"),
    ({"enum": ["a", 1, None]}, 1.0, "b", 'the answer: expected one of "a", 1, null, but "b" arrived'),
    ({"const": {"a": [1]}}, {"a": [1.0]}, {"a": [True]}, "the answer: expected an object, but an object arrived"),
    ({"minimum": 1}, 1, 0, "the answer: expected a number from 1, but 0 arrived"),
    ({"maximum": 1}, "z", 1.5, "the answer: expected a number up to 1, but 1.5 arrived"),
    ({"exclusiveMinimum": 1}, 1.1, 1, "the answer: expected a number above 1, but 1 arrived"),
    ({"exclusiveMaximum": 1}, 0, 1, "the answer: expected a number below 1, but 1 arrived"),
    ({"multipleOf": 0.01}, 19.99, 0.005, "the answer: expected a number that is a multiple of 0.01, but 0.005 arrived"),
    ({"minLength": 2}, "ab", "é", 'the answer: expected at least 2 characters, but "\\xe9" arrived'),
    ({"maxLength": 1}, "😀", "ab", 'the answer: expected at most 1 characters, but "ab" arrived'),
    ({"pattern": "^a"}, "ab", "ba", 'the answer: expected a text like ^a, but "ba" arrived'),
    ({"minItems": 1}, [1], [], "the answer: expected at least 1 items, but [] arrived"),
    ({"maxItems": 1}, [1], [1, 2], "the answer: expected at most 1 items, but an array arrived"),
    (
        {"uniqueItems": True},
        [1, True, "1", {"a": 1}],
        [{"a": 1}, {"a": 1.0}],
        "the answer: expected no item twice, but an array arrived",
    ),
    ({"minProperties": 1}, {"a": 1}, {}, "the answer: expected at least 1 members, but {} arrived"),
    ({"maxProperties": 1}, {"a": 1}, {"a": 1, "b": 2}, "the answer: expected at most 1 members, but an object arrived"),
    ({"items": {"type": "integer"}}, [1, 2], [1, "2"], '[1]: expected a whole number, but "2" arrived'),
    ({"prefixItems": [{"type": "string"}], "items": False}, ["a"], ["a", 1], "[1]: nothing may be here, but 1 arrived"),
    (
        {"items": [{"type": "string"}], "additionalItems": {"type": "null"}},
        ["a", None],
        ["a", 1],
        "[1]: expected null, but 1 arrived",
    ),
    (
        {"contains": {"const": 1}, "maxContains": 1},
        [1, 2],
        [1, 1],
        "the answer: 2 of its items are such as it must contain",
    ),
    ({"properties": {"a": {"type": "string"}}}, {"b": 1}, {"a": 1}, "a: expected a string, but 1 arrived"),
    ({"required": ["a"]}, {"a": None}, {"b": 1}, "a: it is required, but did not arrive"),
    (
        {"properties": {"a": {}}, "additionalProperties": False},
        {"a": 1},
        {"a": 1, "b c": 2},
        '["b c"]: nothing may be here, but 2 arrived',
    ),
    (
        {"patternProperties": {"^n_": {"type": "number"}}, "additionalProperties": {"type": "string"}},
        {"n_a": 1, "b": ""},
        {"b": 1},
        "b: expected a string, but 1 arrived",
    ),
    ({"propertyNames": {"maxLength": 1}}, {"a": 1}, {"ab": 1}, 'ab: expected at most 1 characters, but "ab" arrived'),
    ({"dependentRequired": {"a": ["b"]}}, {"b": 1}, {"a": 1}, "b: it is required beside a, but did not arrive"),
    ({"dependentSchemas": {"a": {"required": ["c"]}}}, {"b": 1}, {"a": 1}, "c: it is required, but did not arrive"),
    ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, 2, 3, "the answer: expected a number up to 2, but 3 arrived"),
    ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, 5, 1, "the answer: expected a number from 5, but 1 arrived"),
    ({"oneOf": [{"minimum": 1}, {"maximum": 2}]}, 3, 1.5, "the answer: it fits 2 of 2 alternatives, and must fit one"),
    (
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"a": 1},
        {"c": 1},
        "the answer: it fits none of 2 alternatives: an object arrived",
    ),
    ({"not": {"type": "string"}}, 1, "a", 'the answer: it must not be such as "a"'),
    (
        {"if": {"type": "string"}, "then": {"minLength": 1}, "else": {"type": "null"}},
        "a",
        1,
        "the answer: expected null, but 1 arrived",
    ),
    (
        {**A_TREE, "$ref": "#/$defs/node"},
        {"next": {"n": 1}},
        {"next": {"next": {"n": "x"}}},
        'next.next.n: expected a whole number, but "x" arrived',
    ),
    (
        {**A_TREE, "$ref": "#/$defs/node", "required": ["n"]},
        {"n": 1},
        {"n": "x"},
        'n: expected a whole number, but "x" arrived',
    ),
    (False, None, 1, "the answer: nothing may be here, but 1 arrived"),
]


@pytest.mark.parametrize(("schema", "fits", "misfits", "said"), CASES, ids=[said for *_, said in CASES])
def test_keywords(schema: Any, fits: Any, misfits: Any, said: str) -> None:
    checks = Checks(schema if isinstance(schema, dict) else {})
    assert schema is False or checks.fits(schema, fits)
    problems = list(checks.misfits(schema, misfits, ()))
    assert str(problems[0]) == said


def test_other_kinds_of_values_do_not_concern_a_keyword() -> None:
    for keyword in ("minimum", "minLength", "minItems", "minProperties"):
        for value in (None, True, "", 1, [], {}):
            kinds = {"minimum": int, "minLength": str, "minItems": list, "minProperties": dict}
            fits = Checks({}).fits({keyword: 3}, value)
            assert fits is not (type(value) is kinds[keyword])


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "https://example.com/s"}, r"\$ref must lead to a place in the schema itself"),
        ({"items": {"$ref": "#/$defs/missing"}}, r"'#/\$defs/missing' leads nowhere"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "lead in a circle"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}, "lead in a circle"),
        ({"properties": {"a": {"pattern": "("}}}, "no regular expression"),
        ({"patternProperties": {"[": True}}, "no regular expression"),
        ({"items": 3}, "a schema is an object, true or false, not 3"),
        ({"properties": [1]}, "properties must be an object"),
        ({"anyOf": {"a": 1}}, "anyOf must be a list"),
        ({"additionalItems": 5}, "a schema is an object, true or false, not 5"),
        ({"elsewhere": {"a": {"pattern": "("}}, "$ref": "#/elsewhere/a"}, "no regular expression"),
        ({"elsewhere": {"a": 5}, "$ref": "#/elsewhere/a"}, "a schema is an object, true or false, not 5"),
        ({"type": "text"}, "type must be one of JSON's types, or a list of them, not 'text'"),
        ({"enum": {"a": 1}}, "enum must be a list"),
        ({"required": "a"}, "required must be a list of names, not 'a'"),
        ({"dependentRequired": {"a": "b"}}, "dependentRequired must be lists of names by name"),
        ({"minimum": "1"}, "minimum must be a number, not '1'"),
        ({"maximum": True}, "maximum must be a number, not True"),
        ({"multipleOf": 0}, "multipleOf must be a number above 0, not 0"),
        ({"maxLength": 1.5}, "maxLength must be a whole number from 0, not 1.5"),
        ({"minContains": -1}, "minContains must be a whole number from 0, not -1"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Schema.of(schema)


def test_what_is_no_schema_at_all() -> None:
    for given in (None, "string", 3, ["a"]):
        with pytest.raises(InvalidRequest, match="schema must be a type or a JSON Schema as a dict"):
            Schema.of(given)


def test_a_value_in_a_message_is_short_and_harmless() -> None:
    with pytest.raises(Misfit) as raised:
        Schema.of({"type": "integer"}).shape.closed("\x1b[31m<b>\n" + "é" * 500)
    assert str(raised.value).isascii()
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 130


def doubling(keyword: str, last: Any) -> dict[str, Any]:
    """Sixty definitions, each of which has the next one twice."""
    names = [f"#/$defs/a{number}" for number in range(1, 61)]
    defs = {f"a{number}": {keyword: [{"$ref": name}, {"$ref": name}]} for number, name in enumerate(names)}
    return {"$defs": {**defs, "a60": last}, "properties": {"p": {"$ref": "#/$defs/a0"}}}


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf"])
def test_references_that_multiply_end(keyword: str) -> None:
    with pytest.raises((InvalidRequest, Misfit), match="multiply"):
        Schema.of(doubling(keyword, {"type": "string"})).shape.child("p").closed("x")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"p": {"not": {"$ref": "#/properties/p"}}}},
        {"properties": {"p": {"if": {"$ref": "#/properties/p"}}}},
    ],
)
def test_what_cannot_be_told_in_reasonable_time_does_not_fit(schema: dict[str, Any]) -> None:
    with pytest.raises(Misfit, match="it takes too long to tell whether it fits"):
        Schema.of(schema).shape.child("p").closed("x")


def test_alternatives_inside_alternatives_are_each_looked_at_once() -> None:
    node: dict[str, Any] = {
        "type": "object",
        "properties": {"next": {"oneOf": [{"$ref": "#/$defs/node"}, {"type": "string"}]}, "last": {"type": "null"}},
    }
    value: Any = {"last": 1}
    for _ in range(100):
        value = {"next": value}
    shape = Schema.of(
        {"$defs": {"node": node}, "oneOf": [{"$ref": "#/$defs/node"}, {"type": "object", "not": {}}]}
    ).shape
    with pytest.raises(Misfit, match="it fits none of 2 alternatives"):
        shape.opened("object").closed(value)


def test_items_are_told_apart_in_one_pass() -> None:
    shape = Schema.of({"type": "array", "uniqueItems": True}).shape
    assert shape.closed([{"a": [number]} for number in range(20_000)])
    assert shape.closed([1, True, "1", [1], [True], {"a": 1}, {"a": True}])
    equal: list[list[Any]] = [[1, 1.0], [{"a": 1, "b": 2}, {"b": 2.0, "a": 1}], [[], []]]
    for twice in equal:
        with pytest.raises(Misfit, match="no item twice"):
            shape.closed(twice)


def test_numbers_that_no_float_holds_have_multiples() -> None:
    shape = Schema.of({"multipleOf": 0.5}).shape
    assert shape.closed(10**400)
    with pytest.raises(Misfit):
        Schema.of({"multipleOf": 1.5}).shape.closed(10**400 + 1)
