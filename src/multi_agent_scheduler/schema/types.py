"""Python types as shapes: what an answer must be is said by a class, and what has come of it is shown as one."""

from __future__ import annotations

import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin, is_typeddict

from .shape import ANYTHING, Misfit, Shape, arrived

__all__ = ["Check", "Fields", "Later", "Types", "misfit", "shape_of"]

Check: TypeAlias = Callable[[Any], Any]
"""Plain data to what a type makes of it; raises Misfit."""


class Fields(NamedTuple):
    """What the objects of a class have: by the name in JSON, the attribute, its type, and the class's own way to check
    it (None: as its type is checked). ``build`` makes what is shown of an object of which some attributes are known."""

    places: Mapping[str, tuple[str, Any, Check | None]]
    build: Callable[[dict[str, Any]], Any]


class Types(ABC):
    """Who knows the types: msgspec, or Pydantic."""

    @abstractmethod
    def json_schema(self, hint: Any) -> dict[str, Any]:
        """The JSON Schema of a type. Raises InvalidRequest for one that has none."""

    @abstractmethod
    def check(self, hint: Any) -> Check:
        """What checks values of a type."""

    @abstractmethod
    def fields(self, hint: Any) -> Fields | None:
        """What a class has; None for a type without fields, and for one whose fields cannot be told one by one."""


def shape_of(hint: Any, types_: Types, check: Check | None = None) -> Shape:
    """The shape of a type; ``check`` is what checks its values, if not the type alone does."""
    plain = hint
    while get_origin(plain) is Annotated:
        plain = get_args(plain)[0]
    if plain is Any or plain is object:
        return ANYTHING
    check = check or Later(lambda: types_.check(hint))
    origin, arguments = get_origin(plain) or plain, get_args(plain)
    if origin is Union or origin is types.UnionType:
        return _Alternatives([shape_of(argument, types_) for argument in arguments], check)
    if isinstance(origin, type):
        if issubclass(origin, str | bytes | int | float):
            return _Scalar(check)
        if issubclass(origin, Mapping) and not is_typeddict(origin):
            return _Map(check, shape_of(arguments[1], types_) if len(arguments) == 2 else ANYTHING)
        if issubclass(origin, Sequence | AbstractSet):
            return _List(check, [shape_of(it, types_) for it in arguments if it is not ...], origin)
        if is_typeddict(origin) or hasattr(origin, "__annotations__"):
            return _Object(check, types_, plain)
    if origin is Literal or origin is None or origin is type(None):
        return _Scalar(check)
    return _Whole(check)


class Later:
    """A check that is made when it is first needed."""

    __slots__ = ("_check", "_make")

    def __init__(self, make: Callable[[], Check]) -> None:
        self._make = make
        self._check: Check | None = None

    def __call__(self, value: Any) -> Any:
        if self._check is None:
            self._check = self._make()
        return self._check(value)


class _Whole(Shape):
    """A place that is checked when it is whole, whatever is inside."""

    __slots__ = ("_check",)

    kinds: frozenset[str] = frozenset({"object", "array"})

    def __init__(self, check: Check) -> None:
        self._check = check

    def opened(self, kind: Literal["object", "array"]) -> Shape:
        if kind not in self.kinds:
            begun: Any = {} if kind == "object" else []
            self._check(begun)  # it says what was expected
            return _Whole(self._check)  # the type takes it all the same
        return self

    def child(self, key: str | int) -> Shape:  # noqa: ARG002
        return ANYTHING

    def closed(self, value: Any) -> Any:
        return self._check(value)

    def partial(self, members: Any) -> Any:
        return members


class _Scalar(_Whole):
    __slots__ = ()
    kinds = frozenset()


class _Map(_Whole):
    __slots__ = ("_values",)
    kinds = frozenset({"object"})

    def __init__(self, check: Check, values: Shape) -> None:
        super().__init__(check)
        self._values = values

    def child(self, key: str | int) -> Shape:  # noqa: ARG002
        return self._values


class _List(_Whole):
    """Items of one type, or of one type each (a tuple). Sets are shown as lists until they are whole."""

    __slots__ = ("_items",)
    kinds = frozenset({"array"})

    def __init__(self, check: Check, items: Sequence[Shape], origin: type) -> None:
        super().__init__(check)
        fixed = issubclass(origin, tuple) and len(items) > 1
        self._items = items if fixed else (items or [ANYTHING])[0]

    def child(self, key: str | int) -> Shape:
        if isinstance(self._items, Shape):
            return self._items
        assert isinstance(key, int)
        return self._items[key] if key < len(self._items) else ANYTHING


class _Object(_Whole):
    """An object of a class. It is shown as one from its first brace, without what has not come."""

    __slots__ = ("_fields", "_hint", "_places", "_types")
    kinds = frozenset({"object"})

    def __init__(self, check: Check, types_: Types, hint: Any) -> None:
        super().__init__(check)
        self._types = types_
        self._hint = hint
        self._fields: Fields | None = None
        self._places: dict[str, Shape] = {}

    def opened(self, kind: Literal["object", "array"]) -> Shape:
        opened = super().opened(kind)
        if opened is self and self._fields is None:
            self._fields = self._types.fields(self._hint)
            if self._fields is None:
                return _Whole(self._check)
        return opened

    def child(self, key: str | int) -> Shape:
        assert self._fields is not None and isinstance(key, str), "it has been opened"
        place = self._places.get(key)
        if place is None:
            if key not in self._fields.places:
                return ANYTHING  # whether the class takes it is said when it is whole
            _, hint, check = self._fields.places[key]
            place = self._places[key] = shape_of(hint, self._types, check)
        return place

    def partial(self, members: Any) -> Any:
        assert self._fields is not None
        places = self._fields.places
        return self._fields.build({places[name][0]: value for name, value in members.items() if name in places})


class _Alternatives(_Whole):
    """A union. It is decided when something opens that only one of its members can be."""

    __slots__ = ("_shapes", "kinds")

    def __init__(self, shapes: Sequence[Shape], check: Check) -> None:
        super().__init__(check)
        self._shapes = shapes
        self.kinds = frozenset[str]().union(*(_kinds(shape) for shape in shapes))

    def opened(self, kind: Literal["object", "array"]) -> Shape:
        likely = [shape for shape in self._shapes if kind in _kinds(shape)]
        if len(likely) == 1:
            return likely[0].opened(kind)
        return _Whole(self._check).opened(kind) if likely else super().opened(kind)


def _kinds(shape: Shape) -> frozenset[str]:
    return shape.kinds if isinstance(shape, _Whole) else _Whole.kinds


def misfit(value: Any, path: Sequence[str | int], problem: str) -> Misfit:
    """What a library found wrong inside a value, with its path as far as that leads to something."""
    real: list[str | int] = []
    for step in path:
        named = isinstance(value, dict) and isinstance(step, str) and step in value
        if not named and not (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            break
        value = value[step]
        real.append(step)
    return Misfit(tuple(real), f"{problem}, but {arrived(value)} arrived")
