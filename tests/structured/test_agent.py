"""Agents that answer with objects: how they are asked, what is checked, when they are asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from msgspec import UNSET

from multi_agent_scheduler import ClaudeAgent, CompatibleAgent, Failover, FunctionAgent, OpenAIAgent, Retry
from multi_agent_scheduler.agents.context import Context
from multi_agent_scheduler.agents.structured import Structured
from multi_agent_scheduler.errors import ErrorInfo, Interrupted, InvalidOption, InvalidOutput, agent_error
from multi_agent_scheduler.records import CallEnded, CallStarted, Completed, Failed, Record, Reset, Text, ToolCall
from multi_agent_scheduler.request import Request, TextPart
from multi_agent_scheduler.testing import ScriptedAgent
from tests.structured.recipes import PANCAKES, RECIPE_SCHEMA, RecipeModel

BAD = '{"title": "Pancakes", "steps": [{"text": "Mix", "minutes": "five"}, {"text": "Fry"}]}'


class Learning(ScriptedAgent):
    """Plays the next script in each Call."""

    def __init__(self, *scripts: Sequence[Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.scripts = list(scripts)

    async def _open(self, request: Request, ctx: Context) -> Any:
        self.script = tuple(self.scripts.pop(0))
        return await super()._open(request, ctx)


def pieces(text: str, size: int = 7) -> list[str]:
    return [text[place : place + size] for place in range(0, len(text), size)]


def texts(request: Request) -> list[str]:
    return [part.text for message in request.messages for part in message.parts if isinstance(part, TextPart)]


async def run(agent: Structured, **options: Any) -> list[Record]:
    return [record async for record in agent.stream("A recipe", **options)]


class TestChecking:
    async def test_an_answer_that_fits_passes_as_it_is(self) -> None:
        inner = ScriptedAgent(*pieces(PANCAKES))
        records = await run(Structured(inner, RecipeModel))
        assert "".join(record.text for record in records if isinstance(record, Text)) == PANCAKES
        assert records[-1].__class__ is Completed
        assert [record.seq for record in records] == list(range(1, len(records) + 1))

    async def test_an_answer_that_does_not_fit_is_stopped_where_that_shows(self) -> None:
        never = asyncio.Event()
        inner = ScriptedAgent('{"title": "Pancakes", "steps": [{"text": "Mix", "minutes": -1,', never, "more")
        records = await run(Structured(inner, RecipeModel))
        assert inner.closed == 1
        assert isinstance(records[-2], CallEnded)
        assert records[-2].outcome == "cancelled"
        assert isinstance(records[-1], Failed)
        assert records[-1].error.code == "invalid_output"
        assert records[-1].error.message == (
            "steps[0].minutes: input should be greater than or equal to 0, but -1 arrived"
        )

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ("I cannot do that.", "there is no JSON document in the text"),
            ('{"title": "a", "steps": [}', "not JSON: at position 25 a value or ']' must come, not '}'"),
            ('{"title": "a"', "not a whole JSON document: it ends inside a value"),
            ('{"title": "a"}', "steps: it is required, but did not arrive"),
            ('{"title": "a", "title": "b"}', "not JSON: at position 15 an object has a name for the second time"),
        ],
    )
    async def test_what_is_wrong_is_said(self, said: str, message: str) -> None:
        with pytest.raises(InvalidOutput) as raised:
            await Structured(ScriptedAgent(*pieces(said)), RecipeModel).object("A recipe")
        if "inside a value" in message:
            message = "not a whole JSON document: it ends where ',' or '}' must come"
        assert str(raised.value) == message
        assert raised.value.partial is not None
        assert said.startswith(raised.value.partial.text)

    async def test_an_answer_cut_at_its_limit_is_not_asked_for_again(self) -> None:
        inner = ScriptedAgent('{"title": "a", "st', Completed("length"))
        with pytest.raises(InvalidOutput, match="reached its limit of tokens before it was whole"):
            await Structured(inner, RecipeModel, ask_again=3).object("A recipe")
        assert inner.closed == 1

    @pytest.mark.parametrize(
        "script",
        [
            ("I will not.", Completed("content_filter")),
            (ToolCall(0, id="1", name="look", arguments="{}"), Completed("tool_calls")),
            ('{"tit', agent_error(ErrorInfo("server_error", "it broke"))),
        ],
    )
    async def test_what_is_no_attempt_stands(self, script: Sequence[Any]) -> None:
        inner = ScriptedAgent(*script)
        plain = [record async for record in inner.stream("A recipe")]
        checked = await run(Structured(inner, RecipeModel, ask_again=2))
        assert checked[-1] == plain[-1]
        assert inner.closed == 2

    async def test_there_must_be_a_schema(self) -> None:
        with pytest.raises(InvalidOption, match="there is no schema"):
            await run(Structured(ScriptedAgent("x")))
        records = await run(Structured(ScriptedAgent("{}")), schema={"type": "object", "required": ["a"]})
        assert isinstance(records[-1], Failed)
        with pytest.raises(InvalidOption, match="ask_again must be a whole number from 0, not -1"):
            Structured(ScriptedAgent("x"), ask_again=-1)


class TestAskingAgain:
    async def test_with_the_answer_and_what_was_wrong_with_it(self) -> None:
        inner = Learning(pieces(BAD), pieces(PANCAKES))
        agent = Structured(inner, RecipeModel, ask_again=1)
        records = await run(agent)
        calls = [record for record in records if isinstance(record, CallStarted)]
        assert [(call.call, call.attempt) for call in calls] == [(1, 1), (2, 2)]
        (reset,) = (record for record in records if isinstance(record, Reset))
        assert reset.from_seq == 2
        assert reset.reason == (
            "invalid_output: steps[0].minutes: input should be a valid integer, unable to parse string as an integer, "
            'but "five" arrived'
        )
        assert records[-1].__class__ is Completed
        assert inner.closed == 2
        first, second = inner.requests
        assert second.messages[: len(first.messages)] == first.messages
        *_, answer, wish = texts(second)
        assert BAD.startswith(answer)
        assert answer.endswith('"five"') or "five" in answer
        assert "steps[0].minutes: input should be a valid integer" in wish
        assert [message.role for message in second.messages[-2:]] == ["assistant", "user"]

    async def test_no_more_often_than_it_is_told(self) -> None:
        inner = Learning(pieces(BAD), ["nothing"], ["[]"])
        records = await run(Structured(inner, RecipeModel, ask_again=2))
        reasons = [record.reason for record in records if isinstance(record, Reset)]
        assert reasons[1] == "invalid_output: there is no JSON document in the text"
        assert len(reasons) == 2
        assert isinstance(records[-1], Failed)
        assert "but [] arrived" in records[-1].error.message

    async def test_the_partials_begin_anew(self) -> None:
        agent = Structured(Learning(pieces(BAD), pieces(PANCAKES)), RecipeModel, ask_again=1)
        restarted = [partial.restarted async for partial in agent.stream_object("A recipe") if partial.restarted]
        assert len(restarted) == 1
        agent = Structured(Learning(pieces(BAD), pieces(PANCAKES)), RecipeModel, ask_again=1)
        assert await agent.object("A recipe") == RecipeModel.model_validate_json(PANCAKES)

    async def test_a_function_is_told_all_of_it_in_its_prompt(self) -> None:
        prompts = []

        async def fn(prompt: str) -> AsyncIterator[str]:
            prompts.append(prompt)
            yield f"Here:\n```json\n{PANCAKES if len(prompts) > 1 else BAD}\n```"

        recipe = await Structured(FunctionAgent(fn), RecipeModel, ask_again=1).object("A recipe")
        assert recipe.title == "Pancakes"
        assert prompts[0].startswith("A recipe\n\nReply with one JSON document that fits this JSON Schema")
        assert '"title":"RecipeModel"' in prompts[0]
        assert prompts[1].startswith(prompts[0])
        assert "You replied:\nHere:" in prompts[1]
        assert "steps[0].minutes" in prompts[1]

    async def test_failover_inside_the_object(self) -> None:
        broken = ScriptedAgent(*pieces(PANCAKES[:40]), agent_error(ErrorInfo("interrupted", "it broke off")))
        agent = Structured(Failover(broken, ScriptedAgent(*pieces(PANCAKES)), policy="reset"), RecipeModel)
        partials = [(partial.restarted, partial.value) async for partial in agent.stream_object("A recipe")]
        assert [why for why, _ in partials if why] == ["interrupted: it broke off"]
        assert partials[-1][1] == RecipeModel.model_validate_json(PANCAKES)

    async def test_what_was_known_of_an_object_that_broke_off(self) -> None:
        cut = PANCAKES.index('"Fry')
        inner = ScriptedAgent(*pieces(PANCAKES[:cut]), agent_error(ErrorInfo("interrupted", "it broke off")))
        with pytest.raises(Interrupted) as raised:
            await Structured(inner, RecipeModel).object("A recipe")
        known = raised.value.known
        assert (known.title, known.steps[0].minutes) == ("Pancakes", 3)
        assert not hasattr(known, "day")
        with pytest.raises(Interrupted) as raised:
            await Structured(ScriptedAgent(agent_error(ErrorInfo("interrupted", "gone"))), RecipeModel).object("?")
        assert raised.value.known is UNSET


class TestAsking:
    async def asked(self, agent: Any) -> Request:
        structured = Structured(agent, RecipeModel)
        seen: list[Request] = []
        target = agent.agents[0] if isinstance(agent, Failover) else agent
        target.check = seen.append
        structured.check(structured.request("A recipe"))
        return seen[0]

    @pytest.mark.parametrize(
        "agent",
        [
            OpenAIAgent(api_key="k"),
            CompatibleAgent(preset="llama.cpp"),
            CompatibleAgent(preset="vllm", model="m"),
            Failover(OpenAIAgent(api_key="k"), ClaudeAgent(api_key="k")),
        ],
        ids=lambda agent: agent.name,
    )
    async def test_natively_where_that_is_known(self, agent: Any) -> None:
        request = await self.asked(agent)
        assert request.schema is not None
        assert request.schema_name == "RecipeModel"
        assert texts(request) == ["A recipe"]

    async def test_in_words_and_natively_where_it_is_not(self) -> None:
        request = await self.asked(CompatibleAgent(base_url="http://127.0.0.1:1/v1", model="m"))
        assert request.schema is not None
        assert texts(request)[0].startswith("A recipe\n\nReply with one JSON document")

    @pytest.mark.parametrize(
        "agent",
        [
            CompatibleAgent(preset="deepseek", model="m", api_key="k"),
            Failover(OpenAIAgent(api_key="k"), lambda prompt: None),
        ],
        ids=["deepseek", "failover"],
    )
    async def test_in_words_where_a_schema_is_refused(self, agent: Any) -> None:
        request = await self.asked(agent)
        assert (request.schema, request.schema_name) == (None, None)
        assert "Reply with one JSON document" in texts(request)[0]

    def test_strict_where_it_can_be(self) -> None:
        from pydantic import BaseModel

        class Point(BaseModel):
            x: int
            y: int

        assert Structured(OpenAIAgent(api_key="k"), Point).request("?").schema_strict is True
        assert Structured(OpenAIAgent(api_key="k"), RECIPE_SCHEMA).request("?").schema_strict is None
        assert Structured(OpenAIAgent(api_key="k"), Point).request("?", schema_strict=False).schema_strict is False

    async def test_it_is_an_agent_among_others(self) -> None:
        agent = Retry(Structured(Failover(ScriptedAgent(*pieces(PANCAKES))), RecipeModel))
        assert (await agent.call("A recipe")).text == PANCAKES
        assert agent.name == "failover"


async def test_leaving_stops_the_provider() -> None:
    inner = ScriptedAgent('{"title": "Pan', asyncio.Event())
    partials = Structured(inner, RecipeModel).stream_object("A recipe")
    assert (await anext(partials)).value.title == "Pan"
    await partials.aclose()
    assert (inner.closed, inner.running) == (1, 0)


async def test_one_schema_is_enough() -> None:
    agent = Structured(ScriptedAgent(*pieces(PANCAKES)), RecipeModel)
    assert (await agent.object("A recipe", schema=RecipeModel)).title == "Pancakes"
    with pytest.raises(InvalidOption, match="a schema is given twice"):
        await agent.object("A recipe", schema=RECIPE_SCHEMA)


async def test_claude_is_told_limits_in_words() -> None:
    """Its structured outputs refuse them; the answer is checked against them all the same."""
    agent = ClaudeAgent(api_key="k")
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many."}},
        "oneOf": [{"required": ["n"]}],
    }
    seen: list[Request] = []
    agent.check = seen.append  # type: ignore[method-assign]
    for asked in (agent, Failover(agent, agent)):
        structured = Structured(asked, schema)
        structured.check(structured.request("?"))
        assert seen[-1].schema == {
            "type": "object",
            "properties": {"n": {"type": "integer", "description": "How many. (minimum: 1, maximum: 9)"}},
            "anyOf": [{"required": ["n"]}],
        }
    with pytest.raises(InvalidOutput, match="n: expected a number up to 9, but 10 arrived"):
        await Structured(ScriptedAgent('{"n": 10}'), schema).object("?")
