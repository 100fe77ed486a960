"""What JSON Schema's keywords ask of one value (draft 2020-12, and lists of ``items`` as older drafts have them).

``format`` is a remark, as the draft has it; ``unevaluatedItems``, ``unevaluatedProperties`` and ``$dynamicRef`` are not
checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from ..errors import InvalidRequest
from .shape import Misfit, Path, arrived, kind_of, shown

__all__ = ["Checks", "Endless", "equal", "mark"]

_DEEPEST_REFERENCE: Final = 100
_STEPS: Final = 200  # for one place of a value, and ten for each schema of the document


class Endless(Exception):
    """A schema whose references multiply, or lead in a circle: following it takes more steps than any needs."""


class Checks:
    """The checks of one schema document, and of ``schemas`` in it. What they take is bounded: each method may raise
    :class:`Endless`, or RecursionError, which means the same."""

    __slots__ = ("_each", "_left", "_root")

    def __init__(self, root: dict[str, Any], schemas: int = 1) -> None:
        self._root = root
        self._each = _STEPS + 10 * schemas
        self._left = self._each

    def begin(self, places: int = 1) -> None:
        """What follows is about a value with so many places."""
        self._left = self._each * places

    def resolved(self, schema: Any) -> Any:
        """The schema that a ``$ref`` alone stands for. Raises InvalidRequest for one that leads nowhere."""
        self._left -= 1
        if self._left < 0:
            raise Endless
        for _ in range(_DEEPEST_REFERENCE):
            if not isinstance(schema, dict) or "$ref" not in schema:
                return schema
            target = self.target(schema["$ref"])
            beside = {name: value for name, value in schema.items() if name not in _REMARKS}
            schema = target if not beside else {**beside, "allOf": [*beside.get("allOf", ()), target]}
        raise InvalidRequest("schema: its references lead in a circle")

    def target(self, reference: Any) -> Any:
        """What a reference leads to. Raises InvalidRequest if that is nothing."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise InvalidRequest(
                f"schema: $ref must lead to a place in the schema itself (#/$defs/...), not {reference!r}"
            )
        node: Any = self._root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            try:
                node = node[int(name)] if isinstance(node, list) else node[name]
            except (KeyError, IndexError, TypeError, ValueError):
                raise InvalidRequest(f"schema: {reference!r} leads nowhere") from None
        return node

    def verify(self, schema: dict[str, Any]) -> None:
        """Raise InvalidRequest if one schema of the document cannot be: it refers to nothing, or a keyword of it has a
        value that says nothing."""
        self.begin()
        self.resolved(schema)
        for keyword, (holds, expected) in _SAID.items():
            if keyword in schema and not holds(schema[keyword]):
                raise InvalidRequest(f"schema: {keyword} must be {expected}, not {schema[keyword]!r}")
        for pattern in (schema.get("pattern", ""), *schema.get("patternProperties", ())):
            _search(pattern, "")
        for kind in ("object", "array"):
            self.may_be(schema, kind)

    def fits(self, schema: Any, value: Any) -> bool:
        return next(self.misfits(schema, value, ()), None) is None

    def misfits(self, schema: Any, value: Any, path: Path, *, shallow: bool = False) -> Iterator[Misfit]:
        """What is wrong with the value, the first first; ``shallow``: members and items have been checked already."""
        schema = self.resolved(schema)
        if schema is True or schema == {}:
            return
        if schema is False:
            yield Misfit(path, f"nothing may be here, but {arrived(value)} arrived")
            return
        if not isinstance(schema, dict):
            raise InvalidRequest(f"schema: a schema is an object, true or false, not {schema!r}")
        for keyword, check in _PLAIN.items():
            if keyword in schema:
                problem = check(schema[keyword], value)
                if problem is not None:
                    yield Misfit(path, f"{problem}, but {arrived(value)} arrived")
        if isinstance(value, dict):
            yield from self._members(schema, value, path, shallow)
        elif isinstance(value, list):
            yield from self._items(schema, value, path, shallow)
        yield from self._combined(schema, value, path)

    def _members(self, schema: dict[str, Any], value: dict[str, Any], path: Path, shallow: bool) -> Iterator[Misfit]:
        for name in schema.get("required", ()):
            if name not in value:
                yield Misfit((*path, name), "it is required, but did not arrive")
        for name, names in schema.get("dependentRequired", {}).items():
            for needed in names if name in value else ():
                if needed not in value:
                    yield Misfit((*path, needed), f"it is required beside {shown((name,))}, but did not arrive")
        for name, dependent in schema.get("dependentSchemas", {}).items():
            if name in value:
                yield from self.misfits(dependent, value, path)
        if "propertyNames" in schema:
            for name in value:
                yield from self.misfits(schema["propertyNames"], name, (*path, name))
        if not shallow:
            for name, member in value.items():
                for inner in self.members_schemas(schema, name):
                    yield from self.misfits(inner, member, (*path, name))

    def members_schemas(self, schema: dict[str, Any], name: str) -> Iterator[Any]:
        """The schemas that a member must fit."""
        named = False
        if name in schema.get("properties", ()):
            named = True
            yield schema["properties"][name]
        for pattern, inner in schema.get("patternProperties", {}).items():
            if _search(pattern, name):
                named = True
                yield inner
        if not named and "additionalProperties" in schema:
            yield schema["additionalProperties"]

    def _items(self, schema: dict[str, Any], value: list[Any], path: Path, shallow: bool) -> Iterator[Misfit]:
        if "contains" in schema:
            found = sum(self.fits(schema["contains"], item) for item in value)
            least, most = schema.get("minContains", 1), schema.get("maxContains", found)
            if not least <= found <= most:
                yield Misfit(path, f"{found} of its items are such as it must contain")
        if not shallow:
            for index, item in enumerate(value):
                yield from self.misfits(self.item_schema(schema, index), item, (*path, index))

    def item_schema(self, schema: dict[str, Any], index: int) -> Any:
        """The schema that an item must fit."""
        items = schema.get("items", True)
        first = schema.get("prefixItems", items if isinstance(items, list) else ())
        if index < len(first):
            return first[index]
        return schema.get("additionalItems", True) if isinstance(items, list) else items

    def _combined(self, schema: dict[str, Any], value: Any, path: Path) -> Iterator[Misfit]:
        for inner in schema.get("allOf", ()):
            yield from self.misfits(inner, value, path)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                yield from self._one_of(schema[keyword], value, path, alone=keyword == "oneOf")
        if "not" in schema and self.fits(schema["not"], value):
            yield Misfit(path, f"it must not be such as {arrived(value)}")
        if "if" in schema:
            branch = "then" if self.fits(schema["if"], value) else "else"
            yield from self.misfits(schema.get(branch, True), value, path)

    def _one_of(self, schemas: list[Any], value: Any, path: Path, *, alone: bool) -> Iterator[Misfit]:
        found = [next(self.misfits(inner, value, path), None) for inner in schemas]
        fitting = found.count(None)
        if fitting == 1 or (fitting and not alone):
            return
        if fitting:
            yield Misfit(path, f"it fits {fitting} of {len(schemas)} alternatives, and must fit one")
            return
        kind = kind_of(value)
        likely = [(misfit, inner) for misfit, inner in zip(found, schemas, strict=True) if self.may_be(inner, kind)]
        tags = [self._wrong_tags(inner, value) for _, inner in likely]
        meant = [misfit for (misfit, _), wrong in zip(likely, tags, strict=True) if not wrong]
        tag = next((name for name in (tags[0] if tags else ()) if all(name in wrong for wrong in tags)), None)
        if len(meant) == 1 and meant[0] is not None:
            yield meant[0]
        elif tag is not None:
            problem = _enum([other for wrong in tags for other in wrong[tag]], value[tag])
            yield Misfit((*path, tag), f"{problem}, but {arrived(value[tag])} arrived")
        else:
            yield Misfit(path, f"it fits none of {len(schemas)} alternatives: {arrived(value)} arrived")

    def _wrong_tags(self, schema: Any, value: Any) -> dict[str, list[Any]]:
        """The members that would have to be another constant for the value to be meant as such, and which."""
        schema = self.resolved(schema)
        if not isinstance(schema, dict) or not isinstance(value, dict):
            return {}
        members = (
            (name, self.resolved(inner)) for name, inner in schema.get("properties", {}).items() if name in value
        )
        constants = {
            name: [inner["const"]] if "const" in inner else inner["enum"]
            for name, inner in members
            if isinstance(inner, dict) and not inner.keys().isdisjoint(("const", "enum"))
        }
        return {name: constant for name, constant in constants.items() if _enum(constant, value[name]) is not None}

    def may_be(self, schema: Any, kind: str) -> bool:
        """Whether values of a kind can fit at all, as far as ``type``, ``enum`` and ``const`` say."""
        schema = self.resolved(schema)
        if not isinstance(schema, dict):
            return schema is not False
        if "type" in schema:
            types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            if kind not in ("number" if name == "integer" else name for name in types):
                return False
        if "const" in schema and kind_of(schema["const"]) != kind:
            return False
        if "enum" in schema and all(kind_of(value) != kind for value in schema["enum"]):
            return False
        return all(
            any(self.may_be(inner, kind) for inner in schema[keyword])
            for keyword in ("anyOf", "oneOf")
            if keyword in schema
        ) and all(self.may_be(inner, kind) for inner in schema.get("allOf", ()))


_REMARKS: Final = frozenset({"$ref", "title", "description", "default", "examples", "$defs", "definitions"})

_Check = Callable[[Any, Any], str | None]


def equal(one: Any, other: Any) -> bool:
    """Equal as JSON Schema has it: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def _search(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except (re.error, TypeError) as error:
        raise InvalidRequest(f"schema: {pattern!r} is no regular expression: {error}") from None


def _type(types: Any, value: Any) -> str | None:
    names = types if isinstance(types, list) else [types]
    kind = kind_of(value)
    for name in names:
        if name == kind or (name == "integer" and kind == "number" and value == int(value)):
            return None
    return f"expected {' or '.join(_NAMED.get(name, str(name)) for name in names)}"


_NAMED: Final = {
    "object": "an object", "array": "an array", "string": "a string", "number": "a number",
    "integer": "a whole number", "boolean": "true or false", "null": "null",
}  # fmt: skip


def _enum(values: Any, value: Any) -> str | None:
    if any(equal(value, other) for other in [it for it in values if it == value]):
        return None
    told = ", ".join(arrived(other) for other in values[:8])
    return f"expected one of {told}{', ...' if len(values) > 8 else ''}"


def _const(wanted: Any, value: Any) -> str | None:
    return None if equal(value, wanted) else f"expected {arrived(wanted)}"


def _number(holds: Callable[[Any, Any], bool], words: str) -> _Check:
    def check(limit: Any, value: Any) -> str | None:
        if kind_of(value) != "number" or holds(value, limit):
            return None
        return f"expected a number {words} {limit}"

    return check


def _size(kind: str, units: str, *, least: bool) -> _Check:
    def check(limit: Any, value: Any) -> str | None:
        if kind_of(value) != kind or (len(value) >= limit if least else len(value) <= limit):
            return None
        return f"expected at {'least' if least else 'most'} {limit} {units}"

    return check


def _pattern(pattern: Any, value: Any) -> str | None:
    return None if not isinstance(value, str) or _search(pattern, value) else f"expected a text like {pattern}"


def _unique(wanted: Any, value: Any) -> str | None:
    if not wanted or not isinstance(value, list) or len(set(map(mark, value))) == len(value):
        return None
    return "expected no item twice"


def mark(value: Any) -> Any:
    """What is equal for values that are, as :func:`equal` has it, and for no others."""
    match value:
        case dict():
            return "object", frozenset((name, mark(member)) for name, member in value.items())
        case list():
            return "array", tuple(map(mark, value))
    return kind_of(value), value


def _multiple(value: Any, unit: Any) -> bool:
    if isinstance(value, int) and isinstance(unit, int):
        return value % unit == 0
    try:
        quotient = value / unit
    except OverflowError:  # a whole number that fits no float
        whole, parts = unit.as_integer_ratio()
        return bool(value * parts % whole == 0)
    return bool(abs(quotient - round(quotient)) < 1e-9 * max(1.0, abs(quotient)))


_PLAIN: Final[dict[str, _Check]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "minimum": _number(lambda value, limit: bool(value >= limit), "from"),
    "maximum": _number(lambda value, limit: bool(value <= limit), "up to"),
    "exclusiveMinimum": _number(lambda value, limit: bool(value > limit), "above"),
    "exclusiveMaximum": _number(lambda value, limit: bool(value < limit), "below"),
    "multipleOf": _number(_multiple, "that is a multiple of"),
    "minLength": _size("string", "characters", least=True),
    "maxLength": _size("string", "characters", least=False),
    "minItems": _size("array", "items", least=True),
    "maxItems": _size("array", "items", least=False),
    "minProperties": _size("object", "members", least=True),
    "maxProperties": _size("object", "members", least=False),
    "pattern": _pattern,
    "uniqueItems": _unique,
}


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _INFINITE


def _is_unit(value: Any) -> bool:
    return _is_number(value) and value > 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _are_types(value: Any) -> bool:
    return all(name in _NAMED for name in (value if _are_names(value) else [value]))


_INFINITE: Final = float("inf")
_COUNT: Final = (_is_count, "a whole number from 0")
_NUMBER: Final = (_is_number, "a number")
_SAID: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "type": (_are_types, "one of JSON's types, or a list of them"),
    "enum": (lambda value: isinstance(value, list), "a list"),
    "required": (_are_names, "a list of names"),
    "dependentRequired": (
        lambda value: isinstance(value, dict) and all(map(_are_names, value.values())), "lists of names by name",
    ),
    "multipleOf": (_is_unit, "a number above 0"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains",
         "maxContains"), _COUNT,
    ),
}  # fmt: skip
"""What the values of keywords must be, where a check would break over another."""
