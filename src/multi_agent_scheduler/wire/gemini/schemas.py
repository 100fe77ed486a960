"""Gemini's own schema objects (a subset of OpenAPI 3.0) as JSON Schema: what every other protocol and agent reads."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["to_json_schema"]

_KEYS: Final = {
    "any_of": "anyOf",
    "max_items": "maxItems",
    "max_length": "maxLength",
    "max_properties": "maxProperties",
    "min_items": "minItems",
    "min_length": "minLength",
    "min_properties": "minProperties",
    "property_ordering": "propertyOrdering",
}
_COUNTS: Final = frozenset({"maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties"})
_DEEPEST: Final = 200


def to_json_schema(value: Any, depth: int = 0) -> Any:
    """``type`` in lower case, ``nullable`` as a second type, counts as numbers. JSON Schema itself stays as it is."""
    if not isinstance(value, dict) or depth > _DEEPEST:
        return value
    schema: dict[str, Any] = value
    found: dict[str, Any] = {}
    for name, given in schema.items():
        key = _KEYS.get(name, name)
        if key == "properties" and isinstance(given, dict):
            found[key] = {field: to_json_schema(inner, depth + 1) for field, inner in given.items()}
        elif key == "anyOf" and isinstance(given, list):
            found[key] = [to_json_schema(inner, depth + 1) for inner in given]
        elif key == "items":
            found[key] = to_json_schema(given, depth + 1)
        elif key == "type" and isinstance(given, str) and given.isupper():
            if given != "TYPE_UNSPECIFIED":
                found[key] = given.lower()
        elif key in _COUNTS and isinstance(given, str) and given.isdigit():
            found[key] = int(given)
        elif key != "nullable":
            found[key] = given
    if schema.get("nullable") is True:
        _allow_null(found)
    return found


def _allow_null(schema: dict[str, Any]) -> None:
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
    elif isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
