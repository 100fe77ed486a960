"""Objects as they arrive: checked and typed as each place closes, never taken back but by a reset."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    Tag,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from multi_agent_scheduler.errors import InvalidJSON, StreamReset
from multi_agent_scheduler.records import Completed, Reasoning, Record, Reset, Text
from multi_agent_scheduler.schema import Misfit, Schema, json_schema
from multi_agent_scheduler.views.objects import Folding, ObjectView
from multi_agent_scheduler.wire.partial_json import apply
from tests.partial_json.documents import agrees, documents, same
from tests.structured.recipes import (
    PANCAKES,
    RECIPE_SCHEMA,
    RECIPES,
    Cat,
    Dog,
    RecipeData,
    RecipeDict,
    RecipeModel,
    RecipeStruct,
    StepModel,
)

NAMES = [getattr(each, "__name__", "JSON Schema") for each in RECIPES]


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Holder:
    step: StepModel


class Small(msgspec.Struct, tag=True):
    a: int


class Large(msgspec.Struct, tag=True, rename="camel"):
    long_name: int

    def __post_init__(self) -> None:
        assert isinstance(self.long_name, int)


def folded(given: Any, text: str, size: int = 4) -> Folding:
    folding = Folding(Schema.of(given))
    for place in range(0, len(text), size):
        folding.feed(text[place : place + size])
    return folding


def plain(value: Any) -> Any:
    return msgspec.to_builtins(value.model_dump(mode="json") if isinstance(value, BaseModel) else value)


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
class TestEveryKindOfSchema:
    def test_the_whole_object(self, recipe: Any) -> None:
        made = folded(recipe, PANCAKES).close()
        expected = json.loads(PANCAKES)
        if recipe is RECIPE_SCHEMA:
            assert made == expected
            return
        if recipe is RecipeModel:
            oracle: Any = RecipeModel.model_validate_json(PANCAKES)
        else:
            oracle = msgspec.json.decode(PANCAKES, type=recipe)
        assert made == oracle
        assert type(made) is (dict if recipe is RecipeDict else recipe)

    def test_a_misfit_is_found_when_its_place_closes(self, recipe: Any) -> None:
        folding = Folding(Schema.of(recipe))
        folding.feed('{"title": "Pancakes", "steps": [{"text": "Mix", "minutes": -3')
        with pytest.raises(Misfit) as raised:
            folding.feed(', "')
        assert raised.value.path == ("steps", 0, "minutes")
        assert "-3 arrived" in str(raised.value)
        assert "0" in raised.value.problem.replace("-3", "")

    def test_another_kind_of_container_is_found_when_it_opens(self, recipe: Any) -> None:
        with pytest.raises(Misfit, match=r"^steps: .* arrived$"):
            Folding(Schema.of(recipe)).feed('{"steps": {')
        with pytest.raises(Misfit, match=r"^title: "):
            Folding(Schema.of(recipe)).feed('{"title": [')

    def test_what_is_missing_is_missing_when_the_object_closes(self, recipe: Any) -> None:
        folding = folded(recipe, '{"title": "x", "steps": [{"minutes": 1')
        with pytest.raises(Misfit) as raised:
            folding.feed("}")
        assert raised.value.path[:2] == ("steps", 0)
        assert "text" in str(raised.value)

    def test_what_is_shown_of_an_open_object(self, recipe: Any) -> None:
        value = folded(recipe, '{"title": "Pan').value
        if recipe in (RecipeDict, RECIPE_SCHEMA):
            assert value == {"title": "Pan"}
        else:
            assert type(value) is recipe
            assert value.title == "Pan"
            assert getattr(value, "steps", UNSET) is UNSET
            assert getattr(value, "day", UNSET) is UNSET, "a default is not what arrived"
        assert "Pan" in repr(value)
        later = folded(
            recipe, '{"title": "Pancakes", "day": "2026-02-17", "steps": [{"text": "Mix"}, {"text": "F'
        ).value
        steps = later["steps"] if isinstance(later, dict) else later.steps
        texts = [step["text"] if isinstance(step, dict) else step.text for step in steps]
        assert texts == ["Mix", "F"]
        if recipe is RecipeModel:
            assert isinstance(later.steps[0], StepModel)
            assert later.steps[0].minutes == 5
            assert not hasattr(later.steps[1], "minutes")
            assert later.model_fields_set == {"title", "steps", "day"}
        if recipe is not RECIPE_SCHEMA:
            assert (later["day"] if isinstance(later, dict) else later.day) == date(2026, 2, 17)

    def test_the_schema_that_providers_are_sent(self, recipe: Any) -> None:
        schema = Schema.of(recipe)
        document = schema.document
        assert json.loads(json.dumps(document)) == document
        assert document["type"] == "object"
        assert set(document["properties"]) == {"title", "steps", "day"}
        assert schema.name == ("Recipe" if recipe is RECIPE_SCHEMA else recipe.__name__)
        if recipe is not RECIPE_SCHEMA:
            assert document["additionalProperties"] is False
            assert all(each["additionalProperties"] is False for each in document["$defs"].values())
        assert Schema.of(document).shape.opened("object").closed(json.loads(PANCAKES)) == json.loads(PANCAKES)
        assert recipe is RECIPE_SCHEMA or Schema.of(recipe) is schema


class TestSchemas:
    def test_strict_is_said_where_every_member_is_required(self) -> None:
        class Inner(BaseModel):
            a: int
            b: str | None

        class Outer(BaseModel):
            inner: Inner
            many: list[Inner]

        assert Schema.of(Outer).strict
        assert not Schema.of(StepModel).strict, "minutes has a default"
        assert not Schema.of(list[Inner]).strict, "providers want an object at the top"
        assert not Schema.of(dict[str, int]).strict

    def test_a_type_inside_itself(self) -> None:
        class Tree(BaseModel):
            name: str
            children: list[Tree] = []

        text = '{"name": "a", "children": [{"name": "b", "children": [{"name": "c"}]}]}'
        assert folded(Tree, text).close() == Tree.model_validate_json(text)
        assert json_schema(Tree)["$defs"]["Tree"]["additionalProperties"] is False
        with pytest.raises(Misfit, match=r"^children\[0\]\.children\[0\]\.name: "):
            folded(Tree, '{"name": "a", "children": [{"name": "b", "children": [{"name": 1}]}]}')

    def test_types_that_are_no_classes(self) -> None:
        assert folded(list[StepModel], '[{"text": "a"}]').close() == [StepModel(text="a")]
        assert folded(dict[str, list[int]], '{"a": [1, 2]}').close() == {"a": [1, 2]}
        assert folded(tuple[int, str], '[1, "a"]').close() == (1, "a")
        assert folded(set[int], "[1, 2]").value == {1, 2}
        assert folded(set[int], "[1, 2").value == [1]
        assert folded(int | None, "null").close() is None
        assert folded(Any, '{"a": 1}').close() == {"a": 1}

    def test_coerced_as_pydantic_coerces(self) -> None:
        folding = folded(RecipeModel, '{"title": "x", "steps": [{"text": "a", "minutes": "7", ')
        assert folding.value.steps[0].minutes == 7


class TestModels:
    def test_aliases_and_names(self) -> None:
        class Model(BaseModel):
            model_config = ConfigDict(populate_by_name=True)
            from_: str = Field(alias="from")
            to: str = Field(validation_alias="TO")

        assert folded(Model, '{"from": "a", "TO": "b').value.to == "b"
        assert folded(Model, '{"from_": "a"').value.from_ == "a"

    def test_what_a_model_does_itself_waits_until_it_is_whole(self) -> None:
        class Tags(BaseModel):
            tags: list[str]
            count: int

            @field_validator("tags", mode="before")
            @classmethod
            def split(cls, value: Any) -> Any:
                return value.split(",") if isinstance(value, str) else value

            @model_validator(mode="after")
            def counted(self) -> Tags:
                if self.count != len(self.tags):
                    raise ValueError("the count is wrong")
                return self

        text = '{"tags": "a,b", "count": 2}'
        assert folded(Tags, text[:-1]).value.tags == "a,b"
        assert folded(Tags, text).close() == Tags.model_validate_json(text)
        with pytest.raises(Misfit, match="the count is wrong"):
            folded(Tags, text.replace("2", "3"))

    def test_models_that_take_the_object_as_it_comes(self) -> None:
        class Either(BaseModel):
            a: int = Field(validation_alias=AliasChoices("a", "b"))

        class Before(BaseModel):
            a: int

            @model_validator(mode="before")
            @classmethod
            def unpacked(cls, value: Any) -> Any:
                return value["inner"]

        class Root(RootModel[list[int]]):
            pass

        assert folded(Either, '{"b": 1}').close() == Either(b=1)
        assert folded(Before, '{"inner": {"a": 1}}').close() == Before.model_validate({"inner": {"a": 1}})
        assert folded(Root, "[1, 2]").close() == Root([1, 2])
        assert folded(Root, "[1, 2").value == [1]

    def test_the_model_says_whether_it_takes_more(self) -> None:
        class Strict(BaseModel):
            model_config = ConfigDict(extra="forbid", strict=True)
            a: int

        assert folded(Strict, '{"a": 1, "b": [{"c": 2').value.a == 1
        with pytest.raises(Misfit, match=r"^b: "):
            folded(Strict, '{"a": 1, "b": 2}')
        with pytest.raises(Misfit, match=r"^a: .*integer"):
            folded(Strict, '{"a": "1",')

    def test_dataclasses_of_pydantic(self) -> None:
        @pydantic_dataclass
        class Point:
            x: Annotated[int, Field(ge=0)]
            y: int = 0

        assert folded(Point, '{"x": 1}').close() == Point(1)
        assert folded(Point, '{"x": 1, ').value.x == 1
        with pytest.raises(Misfit, match=r"^\[0\]\.x: "):
            folded(list[Point], '[{"x": -1, ')

    def test_a_dataclass_with_models_inside(self) -> None:
        assert folded(Holder, '{"step": {"text": "a"}}').close() == Holder(StepModel(text="a"))
        assert folded(Holder, '{"step": {"text": "a').value.step.text == "a"

    def test_generic_types_are_checked_when_they_are_whole(self) -> None:
        assert folded(Box[int], '{"content": 1}').close() == Box(1)
        assert folded(Box[int], '{"content": 1,').value == {"content": 1}


class ModelA(BaseModel):
    kind: Literal["a"]
    x: int


class ModelB(BaseModel):
    kind: Literal["b"]
    y: str


class StructA(msgspec.Struct, tag_field="kind", tag="a"):
    x: int


class StructB(msgspec.Struct, tag_field="kind", tag="b"):
    y: str


class TaggedModel(BaseModel):
    u: Annotated[ModelA | ModelB, Field(discriminator="kind")]


class UntaggedModel(BaseModel):
    u: ModelA | ModelB


class TaggedStruct(msgspec.Struct):
    u: StructA | StructB


TAGGED: tuple[Any, ...] = (
    TaggedModel,
    UntaggedModel,
    TaggedStruct,
    {
        "properties": {
            "u": {
                "oneOf": [
                    {"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}},
                    {"type": "object", "properties": {"kind": {"const": "b"}, "y": {}}, "required": ["y"]},
                ]
            }
        }
    },
)


class TestUnions:
    def test_decided_when_it_is_whole(self) -> None:
        class Owner(BaseModel):
            pet: Cat | Dog

        opened = folded(Owner, '{"pet": {"kind": "dog", "tricks": ["sit", "ro')
        assert opened.value.pet == {"kind": "dog", "tricks": ["sit", "ro"]}, "plain, as long as it is open"
        made = folded(Owner, '{"pet": {"kind": "dog", "tricks": []}').value
        assert isinstance(made.pet, Dog)
        with pytest.raises(Misfit, match=r"^pet"):
            folded(Owner, '{"pet": {"kind": "cow"}')

    def test_decided_at_once_where_only_one_can_open(self) -> None:
        class Owner(BaseModel):
            pet: Cat | list[int] | None

        assert folded(Owner, '{"pet": {"kind": "cat"').value.pet.kind == "cat"
        assert folded(Owner, '{"pet": [1, ').value.pet == [1]
        assert folded(Owner, '{"pet": null').value.pet is None

    def test_alternatives_of_a_document(self) -> None:
        schema = {
            "properties": {
                "pet": {"anyOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]}
            }
        }
        assert folded(schema, '{"pet": {"b": 1}}').close() == {"pet": {"b": 1}}
        with pytest.raises(Misfit, match=r"^pet: it fits none of 2 alternatives"):
            folded(schema, '{"pet": {"c": 1}')

    @pytest.mark.parametrize("schema", TAGGED)
    def test_what_is_wrong_in_one_is_named_where_it_is(self, schema: Any) -> None:
        for text, said in {
            '{"u": {"kind": "c", "x": 1}}': r"u\.kind: .*\"c\" arrived",
            '{"u": {"kind": "a", "x": "no"}}': r"u\.x: .*\"no\" arrived",
            '{"u": {"kind": "b"}}': r"u\.y: it is required, but did not arrive",
            '{"u": {"kind": 5}}': r"u\.kind: .*5 arrived",
        }.items():
            with pytest.raises(Misfit, match=f"^{said}$"):
                folded(schema, text).close()

    def test_a_wrong_tag_is_told_which_there_are(self) -> None:
        for schema in (TAGGED[0], TAGGED[-1]):
            with pytest.raises(Misfit, match=r'^u\.kind: expected one of "a", "b", but "c" arrived$'):
                folded(schema, '{"u": {"kind": "c"}}')
        with pytest.raises(Misfit, match=r"^u\.kind: it is required, but did not arrive$"):
            folded(TAGGED[0], '{"u": {"x": 1}}')

    def test_a_wrong_tag_in_the_document_of_a_type(self) -> None:
        for schema in map(json_schema, (TaggedModel, TaggedStruct)):
            with pytest.raises(Misfit, match=r'^u\.kind: expected one of "a", "b", but "c" arrived$'):
                folded(schema, '{"u": {"kind": "c"}}')
            with pytest.raises(Misfit, match=r"^u\.y: it is required, but did not arrive$"):
                folded(schema, '{"u": {"kind": "b"}}')

    def test_a_tag_that_a_function_tells(self) -> None:
        kinds = Discriminator(lambda value: value.get("kind") if isinstance(value, dict) else None)

        class Model(BaseModel):
            u: Annotated[Annotated[ModelA, Tag("a")] | Annotated[ModelB, Tag("b")], kinds]

        with pytest.raises(Misfit, match=r'^u: expected one of "a", "b", but an object arrived$'):
            folded(Model, '{"u": {"kind": "c"}}')
        with pytest.raises(Misfit, match=r"^u: unable to extract tag .* but an object arrived$"):
            folded(Model, '{"u": {"x": 1}}')

    def test_structs_with_tags_and_functions(self) -> None:
        assert folded(Small | Large, '{"type": "Large", "longName": 1}').close() == Large(1)
        assert folded(Large, '{"type": "Large", "longName": 1, ').value == {"long_name": 1}


class TestProperties:
    @given(text=documents())
    def test_any_document_without_a_schema_of_its_own(self, text: str) -> None:
        finished = json.loads(text)
        folding = Folding(Schema.of({} if text[0] in "{[" else {"type": ["string", "number", "boolean", "null"]}))
        document: Any = UNSET
        kept = {}
        for char in text:
            folding.feed(char)
            document = apply(document, folding.changes)
            assert same(folding.value, document)
            assert agrees(document, finished)
            kept.update(folding.completed)
        assert same(folding.close(), finished)
        for path, value in kept.items():
            found = finished
            for step in path:
                found = found[step]
            assert same(found, value)

    @given(cut=st.integers(0, len(PANCAKES)), size=st.integers(1, 9))
    def test_any_pieces_give_the_same_typed_object(self, cut: int, size: int) -> None:
        for recipe in (RecipeModel, RecipeStruct, RecipeData):
            whole, pieces = Folding(Schema.of(recipe)), folded(recipe, PANCAKES[:cut], size)
            whole.feed(PANCAKES[:cut])
            assert repr(whole.value) == repr(pieces.value)


class TestView:
    def view(self, *batches: list[Record]) -> tuple[ObjectView, list[Any]]:
        view = ObjectView(Schema.of(RecipeModel))
        return view, [view.feed(batch) for batch in batches]

    def test_batches_of_records(self) -> None:
        view, partials = self.view(
            [Reasoning(text="Hm.")],
            [Text("Here you are:\n```json\n")],
            [Text('{"title": "Pan'), Text("ca")],
            [Text("no part of it", branch="judge")],
            [Text('kes", "steps": []}\n```\nEnjoy!')],
            [Completed("stop")],
        )
        assert [partial is None for partial in partials] == [True, True, False, True, False, True]
        assert partials[2].changes == [((), {}), (("title",), "Panca")]
        assert partials[4].completed == [("title",), ("steps",), ()]
        assert view.close() is None
        assert view.problem is None
        assert view.value == RecipeModel(title="Pancakes", steps=[])

    def test_a_reset_begins_it_anew(self) -> None:
        view, partials = self.view(
            [Text('{"title": "Old", "steps": [')],
            [Reset(1, "interrupted: it broke off"), Text('{"title": "N')],
            [Text('ew", "steps": []}')],
        )
        assert partials[1].restarted == "interrupted: it broke off"
        assert partials[1].changes == [((), {}), (("title",), "N")]
        assert view.value == RecipeModel(title="New", steps=[])

    def test_a_reset_mends_a_misfit(self) -> None:
        view, partials = self.view(
            [Text('{"title": 3, ')], [Text('"steps": 3')], [Reset(1, "again")], [Text('{"title": ')]
        )
        assert partials[0].changes == [((), {}), (("title",), 3)]
        assert partials[1] is None
        assert partials[2].restarted == "again"
        assert view.problem is None

    def test_a_reset_of_prose_alone(self) -> None:
        view, partials = self.view([Text("One moment. ")], [Text("So: ")], [Reset(2, "again"), Text('{"title": "a"')])
        assert partials[2].restarted == "again"
        assert view.value.title == "a"

    def test_a_reset_of_a_part_cannot_be_shown(self) -> None:
        view, _ = self.view([Text('{"title": "a')], [Text('b", ')])
        with pytest.raises(StreamReset, match="a part of the object was taken back"):
            view.feed([Reset(2, "again")])

    def test_problems(self) -> None:
        view, partials = self.view([Text('{"title": "a", "steps": x')], [Text("more")])
        assert isinstance(view.problem, InvalidJSON)
        assert partials[0].completed == [("title",)]
        assert partials[1] is None
        assert view.value.title == "a"
        assert view.close() is None
        view, _ = self.view([Text('{"title": "a"')])
        view.close()
        assert isinstance(view.problem, InvalidJSON)
        view, _ = self.view([Text("I cannot do that.")])
        view.close()
        assert str(view.problem) == "there is no JSON document in the text"

    def test_a_value_is_made_when_it_is_asked_for_and_stays(self) -> None:
        view, partials = self.view([Text('{"title": "a')])
        value = partials[0].value
        view.feed([Text("b")])
        assert value.title == "a"
        assert partials[0].value.title == "ab"
        assert "Partial(changes=" in repr(partials[0])
