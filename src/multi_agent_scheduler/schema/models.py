"""Pydantic's models and what they are part of. The only module that knows Pydantic, which is loaded with the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Final, get_type_hints, is_typeddict

from ..errors import InvalidConfiguration, InvalidRequest
from .builtin import dataclass_fields
from .shape import Misfit, Path
from .types import Check, Fields, Later, Types, misfit

__all__ = ["ModelTypes", "is_model"]

_MISSING: Final = "it is required, but did not arrive"


def is_model(hint: Any) -> bool:
    """Whether a type is a model or a dataclass of Pydantic's."""
    return isinstance(hint, type) and hasattr(hint, "__pydantic_validator__")


class ModelTypes(Types):
    """Everything that Pydantic can validate. Raises InvalidConfiguration where it is not installed."""

    def __init__(self) -> None:
        try:
            import pydantic
            import pydantic_core
        except ImportError:
            raise InvalidConfiguration("the schema is a type that needs Pydantic 2: pip install pydantic") from None
        self._pydantic = pydantic
        self._encode: Callable[[Any], bytes] = pydantic_core.to_json

    def json_schema(self, hint: Any) -> dict[str, Any]:
        try:
            schema: dict[str, Any] = self._pydantic.TypeAdapter(hint).json_schema()
        except (self._pydantic.errors.PydanticUserError, TypeError) as error:
            raise InvalidRequest(f"schema: there is no JSON Schema of {hint!r}: {error}") from None
        return schema

    def check(self, hint: Any) -> Check:
        return self._checked(hint, None)

    def _checked(self, hint: Any, config: Any) -> Check:
        pydantic, encode = self._pydantic, self._encode
        try:
            adapter = pydantic.TypeAdapter(hint, config=config or None)
        except pydantic.errors.PydanticUserError:  # a model has a configuration of its own
            adapter = pydantic.TypeAdapter(hint)

        def check(value: Any) -> Any:
            try:
                return adapter.validate_json(encode(value))
            except pydantic.ValidationError as error:
                raise _told(value, error.errors(include_url=False)) from None

        return check

    def fields(self, hint: Any) -> Fields | None:
        if is_typeddict(hint):
            return Fields({name: (name, it, None) for name, it in get_type_hints(hint).items()}, dict)
        if not is_model(hint):
            return dataclass_fields(hint)
        decorators = hint.__pydantic_decorators__
        if decorators.root_validators or any(it.info.mode != "after" for it in decorators.model_validators.values()):
            return None  # it takes the object as it comes
        own = {name for it in decorators.field_validators.values() for name in it.info.fields}
        if not issubclass(hint, self._pydantic.BaseModel):
            return None if own else dataclass_fields(hint)
        return None if hint.__pydantic_root_model__ else self._model_fields(hint, own)

    def _model_fields(self, model: Any, own: set[str]) -> Fields | None:
        """``own`` are the fields for which the model has functions: what they take is said when the model is whole."""
        places: dict[str, tuple[str, Any, Check | None]] = {}
        for name, info in model.model_fields.items():
            alias = name if info.validation_alias is None else info.validation_alias
            if not isinstance(alias, str):
                return None
            if name in own or "*" in own:
                places[alias] = (name, Any, None)
            else:
                hint = self._hint(info)
                places[alias] = (name, hint, Later(partial(self._checked, hint, model.model_config)))
            if model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name"):
                places[name] = places[alias]
        return Fields(places, partial(_built, model))

    def _hint(self, info: Any) -> Any:
        """A field's type with what is said about its values."""
        said = list(info.metadata)
        if info.discriminator is not None:
            said.append(self._pydantic.Field(discriminator=info.discriminator))
        return Annotated[info.annotation, *said] if said else info.annotation


def _told(value: Any, errors: Sequence[Any]) -> Misfit:
    """What is wrong with a value: the first that is; in a union, in the member of it in which the least is."""
    found = [(*_place(value, error), error) for error in errors]
    place, member, error = found[0]
    if member:
        members = [member for _, member, _ in found if member]
        place, _, error = min((it for it in found if it[1]), key=lambda it: members.count(it[1]))
    kind, context = error["type"], error.get("ctx", {})
    tag = context.get("discriminator", "")
    if kind == "missing":
        return Misfit((*place, error["loc"][-1]), _MISSING)
    if kind == "union_tag_not_found" and tag.startswith("'"):
        return Misfit((*place, tag.strip("'")), _MISSING)
    if kind == "union_tag_invalid":  # a tag may be a function of the value, too
        named = (tag.strip("'"),) if tag.startswith("'") else ()
        return misfit(value, (*place, *named), f"expected one of {context['expected_tags']}".replace("'", '"'))
    return misfit(value, place, error["msg"][:1].lower() + error["msg"][1:])


def _place(value: Any, error: Any) -> tuple[Path, Path]:
    """Where an error is in a value; and the steps that are Pydantic's own: the class or tag of a union's member."""
    place: list[str | int] = []
    own: list[str | int] = []
    for step in error["loc"][:-1] if error["type"] == "missing" else error["loc"]:
        inside = step in value if isinstance(value, dict) else isinstance(value, list) and step in range(len(value))
        if inside:
            value = value[step]
        (place if inside else own).append(step)
    return tuple(place), tuple(own)


def _built(model: Any, known: dict[str, Any]) -> Any:
    """As ``model_construct``, but what has not come is absent, not at its default."""
    made = model.__new__(model)
    for name, value in (
        ("__dict__", known),
        ("__pydantic_fields_set__", set(known)),
        ("__pydantic_extra__", None),
        ("__pydantic_private__", None),
    ):
        object.__setattr__(made, name, value)
    return made
