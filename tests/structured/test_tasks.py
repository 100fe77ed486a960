"""Tasks whose answers are objects: the scheduler's methods, plans, stores, limits of what is shown."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from msgspec import UNSET
from pydantic import BaseModel, field_validator

from multi_agent_scheduler import Cache, Failover, FunctionAgent, LocalAgent, MultiAgentScheduler, Task, Template, Vote
from multi_agent_scheduler.agents.structured import Structured
from multi_agent_scheduler.errors import (
    CallCancelled,
    ErrorInfo,
    InvalidOption,
    InvalidOutput,
    InvalidRequest,
    StreamReset,
    agent_error,
)
from multi_agent_scheduler.planfile import read_plan
from multi_agent_scheduler.records import CallStarted, Reset
from multi_agent_scheduler.submission import Submission, pack, unpack
from multi_agent_scheduler.testing import ScriptedAgent
from multi_agent_scheduler.wire.partial_json import apply
from tests.cli.commands import needs_model
from tests.structured.recipes import PANCAKES, RECIPE_SCHEMA, RECIPES, RecipeModel, RecipeStruct, StepModel
from tests.structured.test_agent import BAD, Learning, pieces


def task(schema: Any = RecipeModel, **fields: Any) -> Task:
    return Task("recipe", "A recipe for pancakes", schema=schema, **fields)


class TestStreamObject:
    async def test_the_object_as_it_grows(self) -> None:
        async with MultiAgentScheduler({"a": ScriptedAgent(*pieces(PANCAKES))}) as scheduler:
            document: Any = UNSET
            completed: list[Any] = []
            async for partial in scheduler.stream_object(task(), "a"):
                document = apply(document, partial.changes)
                completed += partial.completed
            assert document == {
                "title": "Pancakes",
                "steps": [{"text": "Mix", "minutes": 3}, {"text": "Fry"}],
                "day": "2026-02-17",
            }
            assert partial.value == RecipeModel.model_validate_json(PANCAKES)
            assert completed[-1] == ()
            assert len(completed) == len(set(completed)) == 9

    @pytest.mark.parametrize("schema", RECIPES, ids=range(len(RECIPES)))
    async def test_the_whole_object(self, schema: Any) -> None:
        async with MultiAgentScheduler({"a": ScriptedAgent("Sure:\n", *pieces(PANCAKES), "\nEnjoy!")}) as scheduler:
            recipe = await scheduler.object(task(schema))
            assert (recipe["title"] if isinstance(recipe, dict) else recipe.title) == "Pancakes"

    async def test_it_is_asked_again_as_the_task_says(self) -> None:
        read = asyncio.Event()
        agent = Learning(['{"title"', ': "Pan', read, BAD[14:]], pieces(PANCAKES))
        async with MultiAgentScheduler({"a": agent}) as scheduler:
            seen = []
            async for partial in scheduler.stream_object(task(ask_again=1)):
                read.set()
                seen.append(partial.restarted)
            assert next(why for why in seen if why).startswith("invalid_output: steps[0].minutes: ")
            assert partial.value == RecipeModel.model_validate_json(PANCAKES)
            (info,) = scheduler.streams()
            log = [record async for record in scheduler.follow(info.stream_id)]
            assert sum(isinstance(record, CallStarted) for record in log) == 2
            assert sum(isinstance(record, Reset) for record in log) == 1

    async def test_an_answer_that_does_not_fit_is_an_error(self) -> None:
        async with MultiAgentScheduler({"a": ScriptedAgent(*pieces(BAD))}) as scheduler:
            with pytest.raises(InvalidOutput, match=r'^steps\[0\]\.minutes: .* but "five" arrived$') as raised:
                await scheduler.object(task())
            assert raised.value.known.title == "Pancakes"
            assert raised.value.known.steps[0].text == "Mix"
            assert raised.value.partial is not None
            assert raised.value.partial.stream_id is not None

    async def test_failover_begins_the_object_anew(self) -> None:
        broken = ScriptedAgent(*pieces(PANCAKES[:50]), agent_error(ErrorInfo("server_error", "it broke")))
        agents = {"a": Failover(broken, ScriptedAgent(*pieces(PANCAKES)), policy="reset")}
        async with MultiAgentScheduler(agents) as scheduler:
            document: Any = UNSET
            async for partial in scheduler.stream_object(task(RECIPE_SCHEMA)):
                document = apply(UNSET if partial.restarted else document, partial.changes)
                assert document == partial.value
            assert document["steps"][1] == {"text": "Fry"}

    async def test_a_vote_over_objects_compares_them_as_data(self) -> None:
        other = '{"steps": [], "title": "Waffles"}'
        same = '{"steps":[],\n"title":"Pancakes"}'
        agents = [ScriptedAgent(text) for text in ('{"title": "Pancakes", "steps": []}', other, same)]
        async with MultiAgentScheduler({"council": Vote(*agents)}) as scheduler:
            assert (await scheduler.object(task())).title == "Pancakes"

    async def test_from_the_cache(self) -> None:
        agent = ScriptedAgent(*pieces(PANCAKES))
        async with MultiAgentScheduler({"a": agent}, cache=Cache()) as scheduler:
            assert await scheduler.object(task()) == await scheduler.object(task())
        assert agent.closed == 1

    async def test_stopped_it_says_what_is_known(self) -> None:
        agent = ScriptedAgent('{"title": "Pan', asyncio.Event())
        async with MultiAgentScheduler({"a": agent}) as scheduler:
            partials = scheduler.stream_object(task())
            assert (await anext(partials)).value.title == "Pan"
            (info,) = scheduler.streams()
            await scheduler.cancel(info.stream_id)
            with pytest.raises(CallCancelled) as raised:
                await anext(partials)
            assert raised.value.known.title == "Pan"
        assert agent.closed == 1

    async def test_leaving_stops_it(self) -> None:
        agent = ScriptedAgent('{"title": "Pan', asyncio.Event())
        async with MultiAgentScheduler({"a": agent}) as scheduler:
            partials = scheduler.stream_object(task())
            await anext(partials)
            await partials.aclose()
            assert agent.closed == 1

    async def test_mistakes_raise_before_anything_runs(self) -> None:
        agent = ScriptedAgent("{}")
        async with MultiAgentScheduler({"a": agent}) as scheduler:
            for wrong, said in [
                (Task("t", "?"), "task 't': it has no schema"),
                (task("text"), "schema must be a type or a JSON Schema as a dict, not 'text'"),
                (task(ask_again=-1), "ask_again must be a whole number from 0, or None, not -1"),
                ("A recipe", "a task must be a Task, not str"),
            ]:
                with pytest.raises(InvalidRequest, match=said):
                    await scheduler.object(wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest, match="there is none"):
                await scheduler.execute_task(Task("t", "?", ask_again=1))
        assert agent.requests == []


class TestStreamItems:
    async def test_each_item_as_soon_as_it_is_whole(self) -> None:
        gate = asyncio.Event()
        cut = PANCAKES.index(', {"text": "Fry"')
        agent = ScriptedAgent(PANCAKES[:cut], gate, PANCAKES[cut:])
        async with MultiAgentScheduler({"a": agent}) as scheduler:
            steps = scheduler.stream_items(task(), path="steps")
            assert await anext(steps) == StepModel(text="Mix", minutes=3)
            gate.set()
            assert [step async for step in steps] == [StepModel(text="Fry")]

    async def test_the_answer_itself_may_be_the_array(self) -> None:
        async with MultiAgentScheduler({"a": ScriptedAgent("[1, 2", ", 3]")}) as scheduler:
            assert [number async for number in scheduler.stream_items(task(list[int]))] == [1, 2, 3]
            nested = {"properties": {"a": {"properties": {"b": {"type": "array"}}}}}
            agent = ScriptedAgent('{"a": {"b": [[1], {"c": []}]}}')
        async with MultiAgentScheduler({"a": agent}) as scheduler:
            assert [item async for item in scheduler.stream_items(task(nested), path="a.b")] == [[1], {"c": []}]
            assert [item async for item in scheduler.stream_items(task(nested), path=("a", "b", 0))] == [1]

    async def test_there_must_be_an_array(self) -> None:
        async with MultiAgentScheduler({"a": ScriptedAgent("{}")}) as scheduler:
            for path in ("title", "", "steps.text"):
                with pytest.raises(InvalidOption, match="there is no array at"):
                    await anext(scheduler.stream_items(task(), path=path))

    async def test_a_place_that_a_class_looks_at_itself_must_have_an_array_too(self) -> None:
        class Own(BaseModel):
            o: int | None = None
            many: list[int] | None = None

            @field_validator("o", "many", mode="before")
            @classmethod
            def own(cls, value: Any) -> Any:
                return value

        agents = {"a": ScriptedAgent('{"many": [1, 2]}')}
        async with MultiAgentScheduler(agents) as scheduler:
            for path in ("o", "other"):
                with pytest.raises(InvalidOption, match=f"there is no array at {path}"):
                    await anext(scheduler.stream_items(task(Own), path=path))
            assert [item async for item in scheduler.stream_items(task(Own), path="many")] == [1, 2]

    async def test_items_cannot_be_taken_back(self) -> None:
        read = asyncio.Event()
        begin = '{"steps": [{"text": "Mix"}, '
        async with MultiAgentScheduler({"a": Learning([begin, read, "1,"], pieces(PANCAKES))}) as scheduler:
            steps = scheduler.stream_items(task(ask_again=1), path="steps")
            assert (await anext(steps)).text == "Mix"
            read.set()
            with pytest.raises(StreamReset, match="after some of its items had been given out"):
                await anext(steps)


class TestTasks:
    async def test_without_ask_again_an_answer_is_not_checked(self) -> None:
        async with MultiAgentScheduler({"a": ScriptedAgent("no object")}) as scheduler:
            assert (await scheduler.execute_task(task())).success
            result = await scheduler.execute_task(task(ask_again=0))
            assert (result.success, result.state) == (False, "failed")
            assert result.error is not None
            assert result.error.code == "invalid_output"

    async def test_in_a_plan(self) -> None:
        async def shout(prompt: str) -> Any:
            yield prompt.upper()

        agents = {"a": Learning(pieces(BAD), pieces(PANCAKES)), "b": FunctionAgent(shout)}
        plan = [
            task(agent="a", ask_again=1),
            Task("loud", Template("${recipe}"), agent="b", depends_on=["recipe"]),
        ]
        async with MultiAgentScheduler(agents) as scheduler:
            results = await scheduler.run(plan)
        assert results["loud"].text == PANCAKES.upper()

    def test_a_type_is_kept_as_its_schema(self) -> None:
        kept = unpack(pack(Submission(task(RecipeStruct, ask_again=2), "a"))).task
        assert kept.ask_again == 2
        assert kept.schema["title"] == "RecipeStruct"
        assert kept.schema["properties"].keys() == {"title", "steps", "day"}

    async def test_in_a_durable_store(self, tmp_path: Path) -> None:
        pytest.importorskip("apsw")
        agents = {"a": Learning(pieces(BAD), pieces(PANCAKES))}
        async with MultiAgentScheduler(agents, store=f"sqlite:///{tmp_path / 'mas.db'}") as scheduler:
            assert await scheduler.object(task(ask_again=1)) == RecipeModel.model_validate_json(PANCAKES)

    async def test_an_agent_that_checks_for_itself_may_be_scheduled(self) -> None:
        agents = {"a": Structured(Learning(pieces(BAD), pieces(PANCAKES)), RecipeModel, ask_again=1)}
        async with MultiAgentScheduler(agents) as scheduler:
            result = await scheduler.execute_task(Task("t", "A recipe"))
            assert result.text == PANCAKES


class Coffee(msgspec.Struct):
    size: Literal["small", "large"]
    hot: bool


@needs_model
@pytest.mark.keeps_sockets("the model's server stays until the process ends")
async def test_a_real_model_under_a_grammar() -> None:
    """Whatever it says, each step agrees with the next, and the end fits."""
    async with MultiAgentScheduler({"local": LocalAgent()}) as scheduler:
        wanted = task(Coffee, options={"max_tokens": 200, "temperature": 0})
        completed, document = [], UNSET
        async for partial in scheduler.stream_object(wanted):
            document = apply(document, partial.changes)
            completed += partial.completed
        assert partial.value == msgspec.convert(document, Coffee)
        assert completed == [("size",), ("hot",), ()]


def test_a_schema_that_is_only_passed_on_is_not_looked_at(tmp_path: Path) -> None:
    remote = {"$ref": "https://example.com/recipe.json"}
    task(remote).check()
    with pytest.raises(InvalidRequest, match="must lead to a place in the schema itself"):
        task(remote, ask_again=0).check()
    plan = tmp_path / "plan.toml"
    plan.write_text('[[tasks]]\nid = "a"\nprompt = "?"\nask_again = 2\nschema = { type = "object" }\n')
    assert read_plan(plan)[0].ask_again == 2
