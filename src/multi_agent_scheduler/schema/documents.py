"""A JSON Schema as a shape: members and items are checked as they close, what holds for the whole when that does."""

from __future__ import annotations

from typing import Any, Final, Literal

from .checks import Checks, Endless
from .shape import ANYTHING, Misfit, Shape

__all__ = ["DocumentShape"]


class DocumentShape(Shape):
    """One place of a schema document; values stay plain data."""

    plain = True
    __slots__ = ("_checks", "_items", "_members", "_schema")

    def __init__(self, checks: Checks, schema: Any) -> None:
        self._checks = checks
        checks.begin()
        self._schema = checks.resolved(schema)
        self._members: dict[str, Shape] = {}
        self._items: dict[int, Shape] = {}

    def opened(self, kind: Literal["object", "array"]) -> Shape:
        self._checks.begin()
        try:
            return self._opened(kind)
        except (Endless, RecursionError):
            raise Misfit((), _ENDLESS) from None

    def _opened(self, kind: Literal["object", "array"]) -> Shape:
        schema = self._schema
        if not self._checks.may_be(schema, kind):
            begun: Any = {} if kind == "object" else []
            raise next(self._checks.misfits(schema, begun, ()), Misfit((), f"an {kind} may not be here"))
        if not isinstance(schema, dict) or not _COMBINING & schema.keys():
            return self
        if schema.keys() - _REMARKS in ({"anyOf"}, {"oneOf"}):
            alternatives = schema["anyOf"] if "anyOf" in schema else schema["oneOf"]
            likely = [it for it in alternatives if self._checks.may_be(it, kind)]
            if len(likely) == 1:
                return DocumentShape(self._checks, likely[0])._opened(kind)
        return _Undecided(self)

    def child(self, key: str | int) -> Shape:
        schema = self._schema
        if not isinstance(schema, dict):
            return ANYTHING
        if isinstance(key, str):
            if key not in schema.get("properties", ()):
                return self._member(schema, key)  # of such names there may be any number
            if key not in self._members:
                self._members[key] = self._member(schema, key)
            return self._members[key]
        items = schema.get("items")
        first = len(schema.get("prefixItems", items if isinstance(items, list) else ()))
        key = min(key, first)
        if key not in self._items:
            self._items[key] = DocumentShape(self._checks, self._checks.item_schema(schema, key))
        return self._items[key]

    def _member(self, schema: dict[str, Any], name: str) -> Shape:
        schemas = list(self._checks.members_schemas(schema, name))
        if not schemas:
            return ANYTHING
        return DocumentShape(self._checks, schemas[0] if len(schemas) == 1 else {"allOf": schemas})

    def closed(self, value: Any) -> Any:
        if not isinstance(value, dict | list):
            return self._checked(value, 1, shallow=True)
        deep = isinstance(self._schema, dict) and not _DEEP.isdisjoint(self._schema)
        return self._checked(value, _places(value) if deep else 1 + len(value), shallow=True)

    def partial(self, members: Any) -> Any:
        return members

    def whole(self, value: Any) -> Any:
        """As :meth:`closed`, for a value of which nothing has been checked."""
        return self._checked(value, _places(value), shallow=False)

    def _checked(self, value: Any, places: int, *, shallow: bool) -> Any:
        self._checks.begin(places)
        try:
            for misfit in self._checks.misfits(self._schema, value, (), shallow=shallow):
                raise misfit
        except (Endless, RecursionError):
            raise Misfit((), _ENDLESS) from None
        return value


class _Undecided(Shape):
    """An object or array of which it is not known which alternative it is: it is checked when it is whole."""

    __slots__ = ("_of",)

    def __init__(self, of: DocumentShape) -> None:
        self._of = of

    def opened(self, kind: Literal["object", "array"]) -> Shape:  # noqa: ARG002
        return self

    def child(self, key: str | int) -> Shape:  # noqa: ARG002
        return ANYTHING

    def closed(self, value: Any) -> Any:
        return self._of.whole(value)

    def partial(self, members: Any) -> Any:
        return members


_COMBINING = frozenset({"anyOf", "oneOf", "allOf", "if", "not"})
_REMARKS = frozenset({"title", "description", "default", "examples", "$defs", "definitions", "$schema", "$id"})
_DEEP = frozenset({"contains", "dependentSchemas"})  # these look into what was checked already
_ENDLESS: Final = "it takes too long to tell whether it fits: the schema's references multiply, or lead in a circle"


def _places(value: Any) -> int:
    """How many values there are in a value, itself among them."""
    count, inside = 1, [value]
    while inside:
        outer = inside.pop()
        members = outer.values() if isinstance(outer, dict) else outer
        count += len(outer)
        inside += [member for member in members if isinstance(member, dict | list)]
    return count
