"""Types that msgspec knows: its Structs, dataclasses, TypedDicts, and what Python has."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NotRequired, Required, get_args, get_origin, get_type_hints, is_typeddict

import msgspec
from msgspec import UNSET

from ..errors import InvalidRequest
from .shape import Misfit
from .types import Check, Fields, Types, misfit

__all__ = ["BuiltinTypes", "dataclass_fields"]

_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[(\.\.\.)\]")


class BuiltinTypes(Types):
    """Everything that ``msgspec.convert`` can make of plain data."""

    def json_schema(self, hint: Any) -> dict[str, Any]:
        try:
            return msgspec.json.schema(hint)
        except (TypeError, ValueError, NameError) as error:
            raise InvalidRequest(f"schema: there is no JSON Schema of {hint!r}: {error}") from None

    def check(self, hint: Any) -> Check:
        def check(value: Any) -> Any:
            try:
                return msgspec.convert(value, hint)
            except msgspec.ValidationError as error:
                problem, _, place = str(error).partition(" - at `")
                path = [name or (int(index) if index else "...") for name, index, _ in _STEP.findall(place.rstrip("`"))]
                problem = problem.partition(", got ")[0].replace("`", "")
                missing = problem.removeprefix("Object missing required field ")
                if missing != problem:
                    raise Misfit((*path, missing), "it is required, but did not arrive") from None
                raise misfit(value, path, problem[:1].lower() + problem[1:]) from None

        return check

    def fields(self, hint: Any) -> Fields | None:
        cls = get_origin(hint) or hint
        if isinstance(cls, type) and issubclass(cls, msgspec.Struct):
            if cls.__struct_config__.array_like:
                return None
            infos = msgspec.structs.fields(hint)
            return Fields(
                {info.encode_name: (info.name, info.type, None) for info in infos},
                _struct_builder(cls, [info.name for info in infos]),
            )
        if is_typeddict(cls):
            hints = get_type_hints(cls, include_extras=True)
            return Fields({name: (name, _bare(it), None) for name, it in hints.items()}, dict)
        return dataclass_fields(cls)


def dataclass_fields(cls: Any) -> Fields | None:
    """What a dataclass has; None for another class, and for one with type parameters."""
    if not hasattr(cls, "__dataclass_fields__") or getattr(cls, "__parameters__", None):
        return None
    from dataclasses import fields  # whoever has a dataclass has loaded it

    hints = get_type_hints(cls, include_extras=True)
    names = [field.name for field in fields(cls) if field.init]

    def build(known: dict[str, Any]) -> Any:
        made = object.__new__(cls)
        for name in names:
            object.__setattr__(made, name, known.get(name, UNSET))
        return made

    return Fields({name: (name, hints[name], None) for name in names}, build)


def _struct_builder(cls: type[msgspec.Struct], names: list[str]) -> Callable[[dict[str, Any]], Any]:
    if hasattr(cls, "__post_init__"):
        return dict  # it may ask for what has not come

    def build(known: dict[str, Any]) -> Any:
        return cls(**{name: known.get(name, UNSET) for name in names})

    return build


def _bare(hint: Any) -> Any:
    """The type of a TypedDict's member, whether that is required or not."""
    while get_origin(hint) in (Required, NotRequired):
        hint = get_args(hint)[0]
    return hint
