"""One kind of object in every way that users describe one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
from pydantic import BaseModel, Field


class StepModel(BaseModel):
    text: str
    minutes: int = Field(default=5, ge=0)


class RecipeModel(BaseModel):
    title: str
    steps: list[StepModel]
    day: date | None = None


class StepStruct(msgspec.Struct):
    text: str
    minutes: Annotated[int, msgspec.Meta(ge=0)] = 5


class RecipeStruct(msgspec.Struct):
    title: str
    steps: list[StepStruct]
    day: date | None = None


@dataclass
class StepData:
    text: str
    minutes: Annotated[int, msgspec.Meta(ge=0)] = 5


@dataclass
class RecipeData:
    title: str
    steps: list[StepData] = field(default_factory=list)
    day: date | None = None


class StepDict(TypedDict):
    text: str
    minutes: NotRequired[Annotated[int, msgspec.Meta(ge=0)]]


class RecipeDict(TypedDict):
    title: str
    steps: list[StepDict]
    day: NotRequired[date | None]


RECIPE_SCHEMA: dict[str, Any] = {
    "title": "Recipe",
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}},
        "day": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
    },
    "required": ["title", "steps"],
    "$defs": {
        "step": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "minutes": {"type": "integer", "minimum": 0}},
            "required": ["text"],
        }
    },
}

RECIPES: tuple[Any, ...] = (RecipeModel, RecipeStruct, RecipeData, RecipeDict, RECIPE_SCHEMA)
PANCAKES = '{"title": "Pancakes", "steps": [{"text": "Mix", "minutes": 3}, {"text": "Fry"}], "day": "2026-02-17"}'


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]
