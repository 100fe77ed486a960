"""A type's JSON Schema as providers like it: an object at the top, nothing allowed beside what a class has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from ..errors import InvalidRequest

__all__ = ["directly_in", "eased", "is_strict", "schemas_in", "told"]

_MAPS: Final = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLE: Final = frozenset({
    "additionalItems", "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then",
})  # fmt: skip

_LIMITS: Final = frozenset({
    "default", "exclusiveMaximum", "exclusiveMinimum", "maxItems", "maxLength", "maxProperties", "maximum", "minItems",
    "minLength", "minProperties", "minimum", "multipleOf", "pattern", "uniqueItems",
})  # fmt: skip

# What every provider that holds a model to a schema understands; OpenAI's "strict" has the shortest list.
_STRICT: Final = frozenset({
    "$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "items", "properties", "required",
    "title", "type",
})  # fmt: skip


def told(document: dict[str, Any]) -> Any:
    """The document with the definition that it stands for at the top, and with closed objects."""
    reference, definitions = document.get("$ref"), document.get("$defs", {})
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        name = reference.removeprefix("#/$defs/")
        again = any(inner.get("$ref") == reference for each in definitions.values() for inner in schemas_in(each))
        rest = {other: each for other, each in definitions.items() if other != name or again}
        document = {**definitions[name], **({"$defs": rest} if rest else {})}
    return _closed(document)


def is_strict(document: dict[str, Any]) -> bool:
    """Whether it is an object, and every object in it has all its members and no others."""
    return document.get("type") == "object" and all(
        inner.keys() <= _STRICT
        and (
            inner.get("type") != "object"
            or (
                inner.get("additionalProperties") is False
                and {*inner.get("properties", ())} == {*inner.get("required", ())}
            )
        )
        for inner in schemas_in(document)
    )


def eased(schema: Any) -> Any:
    """A document for providers that refuse limits of numbers, lengths and such: those become words of the description,
    and ``oneOf`` becomes ``anyOf``. Whoever sends it checks the answer against the document itself.
    """
    if not isinstance(schema, dict):
        return schema
    limits = [f"{keyword}: {value}" for keyword, value in schema.items() if keyword in _LIMITS]
    made = _mapped({keyword: value for keyword, value in schema.items() if keyword not in _LIMITS}, eased)
    if "oneOf" in made:
        made["anyOf"] = [*made.get("anyOf", ()), *made.pop("oneOf")]
    if limits:
        made["description"] = f"{made.get('description', '')} ({', '.join(limits)})".lstrip()
    return made


def _closed(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    made = _mapped(schema, _closed)
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


def _mapped(schema: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """The schema with those inside it changed."""
    made: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _MAPS:
            made[keyword] = {name: change(inner) for name, inner in value.items()}
        elif keyword in _LISTS:
            made[keyword] = [change(inner) for inner in value]
        else:
            made[keyword] = change(value) if keyword in _SINGLE else value
    return made


def schemas_in(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all those inside it, but true and false. Raises InvalidRequest where one cannot be."""
    for inner in directly_in(schema):
        yield from schemas_in(inner)
    if isinstance(schema, dict):
        yield schema


def directly_in(schema: Any) -> Iterator[Any]:
    """The schemas that the keywords of a schema have. Raises InvalidRequest if one cannot be a schema's."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise InvalidRequest(f"schema: a schema is an object, true or false, not {schema!r}")
    for keyword, value in schema.items():
        if (keyword in _MAPS and not isinstance(value, dict)) or (keyword in _LISTS and not isinstance(value, list)):
            raise InvalidRequest(f"schema: {keyword} must be {'an object' if keyword in _MAPS else 'a list'}")
        if keyword in _MAPS:
            yield from value.values()
        elif keyword in _LISTS:
            yield from value
        elif keyword in _SINGLE:
            yield from value if isinstance(value, list) else (value,)  # items may be a list in older drafts
