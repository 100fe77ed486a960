"""What an answer must be: a JSON Schema, or a Python type that has one."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any, get_args, get_type_hints

import msgspec

from ..errors import InvalidRequest
from .builtin import BuiltinTypes
from .checks import Checks, Endless, mark
from .documents import DocumentShape
from .models import ModelTypes, is_model
from .shape import ANYTHING, Misfit, Path, Shape, arrived, shown
from .told import directly_in, eased, is_strict, told
from .types import Types, shape_of

__all__ = [
    "ANYTHING",
    "Misfit",
    "Path",
    "Schema",
    "Shape",
    "arrived",
    "eased",
    "json_schema",
    "mark",
    "reached",
    "shown",
]


class Schema(msgspec.Struct, frozen=True):
    """What an answer must be, for whom it may concern.

    ``document`` is the JSON Schema that a provider is sent, ``name`` a name for it. ``strict``: every object in it has
    all its members and no others, so that providers can hold the model to it exactly. ``scalar``: the answer is neither
    an object nor an array. ``shape`` checks the answer.
    """

    document: dict[str, Any]
    name: str | None
    strict: bool
    scalar: bool
    shape: Shape

    @classmethod
    def of(cls, given: Any) -> Schema:
        """The schema of a Pydantic model, a dataclass, a TypedDict, a msgspec Struct, another type made of those (a
        ``list[...]``, say), or a JSON Schema as a dict. Raises InvalidRequest for anything else, and for a document
        that cannot be one.
        """
        if isinstance(given, Schema):
            return given
        if isinstance(given, dict):
            schemas = reached(given)
            checks = Checks(given, len(schemas))
            try:
                for inner in schemas:
                    checks.verify(inner)
            except (Endless, RecursionError):
                raise InvalidRequest("schema: its references lead in a circle, or multiply") from None
            title = given.get("title")
            name = title if isinstance(title, str) and _is_name(title) else None
            return cls(given, name, False, _is_scalar(given), DocumentShape(checks, given))
        try:
            return _of_type(given)
        except TypeError:  # it cannot be hashed, so it cannot be remembered
            return _of_type.__wrapped__(given)

    def may_have_array(self, path: Path) -> bool:
        """Whether an array may be there, as far as the document says: a type's class may look at some places itself."""
        shape: Shape = DocumentShape(Checks(self.document), self.document)
        try:
            for step in path:
                shape = shape.opened("object" if isinstance(step, str) else "array").child(step)
            shape.opened("array")
        except Misfit:
            return False
        return True


@lru_cache(maxsize=256)
def _of_type(hint: Any) -> Schema:
    if hint is None or isinstance(hint, str | bytes | int | float | list | tuple | set):
        raise InvalidRequest(f"schema must be a type or a JSON Schema as a dict, not {hint!r}")
    types, document = _described(hint)
    document = told(document)
    name = getattr(hint, "__name__", "")
    name = name if _is_name(name) else None
    return Schema(document, name, is_strict(document), _is_scalar(document), shape_of(hint, types))


def _described(hint: Any) -> tuple[Types, dict[str, Any]]:
    """Who knows the type, and its JSON Schema."""
    types: Types = ModelTypes() if _has_models(hint, set()) else BuiltinTypes()
    return types, types.json_schema(hint)


def _has_models(hint: Any, seen: set[int]) -> bool:
    """Whether a model of Pydantic's is anywhere in a type."""
    if id(hint) in seen:
        return False
    seen.add(id(hint))
    if is_model(hint):
        return True
    inside = [*get_args(hint)]
    if isinstance(hint, type):
        with suppress(NameError):  # names of a function's: whoever makes the JSON Schema says so, or knows them
            inside += get_type_hints(hint).values()
    return any(_has_models(inner, seen) for inner in inside)


def reached(document: dict[str, Any]) -> list[dict[str, Any]]:
    """All schemas of a document: those that stand where keywords have schemas, and those that references lead to.

    Raises InvalidRequest where one cannot be.
    """
    checks, found, pending = Checks(document), dict[int, dict[str, Any]](), list[Any]([document])
    while pending:
        schema = pending.pop()
        if id(schema) not in found:
            pending += directly_in(schema)
            if isinstance(schema, dict):
                found[id(schema)] = schema
                if "$ref" in schema:
                    pending.append(checks.target(schema["$ref"]))
    return [*found.values()]


def _is_scalar(document: dict[str, Any]) -> bool:
    checks = Checks(document)
    return not checks.may_be(document, "object") and not checks.may_be(document, "array")


def _is_name(name: str) -> bool:
    """Whether providers take it as the name of a schema."""
    return name.isascii() and name.replace("_", "").replace("-", "").isalnum() and len(name) <= 64


def json_schema(given: Any) -> dict[str, Any]:
    """The JSON Schema of what :meth:`Schema.of` takes; a dict is one already, and not looked at."""
    return given if isinstance(given, dict) else Schema.of(given).document
