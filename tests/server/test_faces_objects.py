"""Objects and tool calls through the faces, with what the official clients parse as the oracle."""

from __future__ import annotations

from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel

from multi_agent_scheduler.records import Completed, Refusal, ToolCall, Usage
from multi_agent_scheduler.testing import ScriptedAgent
from multi_agent_scheduler.wire import anthropic as anthropic_wire
from multi_agent_scheduler.wire import openai_chat, openai_responses
from tests.server.served import Served, serving
from tests.structured.test_agent import pieces

HI: Any = [{"role": "user", "content": "Plan a meal"}]
USAGE = Usage(input_tokens=5, output_tokens=2)


class Course(BaseModel):
    name: str
    kind: Literal["starter", "main"]


class Meal(BaseModel):
    courses: list[Course]
    guests: int
    note: str | None


class Look(BaseModel):
    """Look something up."""

    at: str
    deep: bool


MEAL = Meal(
    courses=[Course(name="Söup \U0001f35c", kind="starter"), Course(name='"Pie"', kind="main")], guests=3, note=None
)
TEXT = MEAL.model_dump_json(indent=1)
CALLS = (
    ToolCall(0, id="c1", name="Look", arguments='{"at":"x'),
    ToolCall(0, arguments='","deep":true}'),
    ToolCall(1, id="c2", name="Look", arguments='{"at":"y","deep":false}'),
    Completed("tool_calls"),
)


def chat(served: Served) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="any", base_url=f"{served.url}/v1", max_retries=0)


def messages(served: Served) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key="any", base_url=served.url, max_retries=0)


def spoken(*script: Any) -> ScriptedAgent:
    return ScriptedAgent(*(script or pieces(TEXT)), USAGE)


class TestChat:
    async def test_a_parsed_completion(self) -> None:
        agent = spoken()
        async with serving({"a": agent}) as served, chat(served) as sdk:
            answer = await sdk.chat.completions.parse(model="a", messages=HI, response_format=Meal)
        assert answer.choices[0].message.parsed == MEAL
        (request,) = agent.requests
        assert request.schema == openai.lib._pydantic.to_strict_json_schema(Meal)
        assert (request.schema_name, request.schema_strict) == ("Meal", True)
        sent = openai_chat.build_request(request, model="m")["response_format"]
        assert sent == openai.lib._parsing._completions.type_to_response_format_param(Meal)

    async def test_a_parsed_stream(self) -> None:
        async with (
            serving({"a": spoken()}) as served,
            chat(served) as sdk,
            sdk.chat.completions.stream(model="a", messages=HI, response_format=Meal) as stream,
        ):
            grown: list[Any] = [event.parsed async for event in stream if event.type == "content.delta"]
            final = await stream.get_final_completion()
        assert final.choices[0].message.parsed == MEAL
        assert grown[-1] == MEAL.model_dump() and any(part and "guests" not in part for part in grown)

    async def test_tool_calls(self) -> None:
        agent = ScriptedAgent(*CALLS)
        tools: Any = [openai.pydantic_function_tool(Look)]
        async with serving({"a": agent}) as served, chat(served) as sdk:
            whole = await sdk.chat.completions.parse(model="a", messages=HI, tools=tools)
            async with sdk.chat.completions.stream(model="a", messages=HI, tools=tools) as stream:
                done = [event async for event in stream if event.type == "tool_calls.function.arguments.done"]
                final = await stream.get_final_completion()
        expected = [Look(at="x", deep=True), Look(at="y", deep=False)]
        for answer in (whole, final):
            called = answer.choices[0].message.tool_calls
            assert called is not None and [call.function.parsed_arguments for call in called] == expected
        assert [event.parsed_arguments for event in done] == expected
        assert [tool.strict for tool in agent.requests[0].tools] == [True]
        assert openai_chat.build_request(agent.requests[0], model="m")["tools"] == tools

    async def test_a_refusal_and_an_answer_that_was_cut(self) -> None:
        agents = {"no": spoken(Refusal("I will not")), "cut": ScriptedAgent('{"courses":[', Completed("length"))}
        async with serving(agents) as served, chat(served) as sdk:
            answer = await sdk.chat.completions.parse(model="no", messages=HI, response_format=Meal)
            assert answer.choices[0].message.refusal == "I will not" and answer.choices[0].message.parsed is None
            with pytest.raises(openai.LengthFinishReasonError):
                await sdk.chat.completions.parse(model="cut", messages=HI, response_format=Meal)


class TestResponses:
    async def test_a_parsed_response(self) -> None:
        agent = spoken()
        async with serving({"a": agent}) as served, chat(served) as sdk:
            answer = await sdk.responses.parse(model="a", input="Plan a meal", text_format=Meal)
        assert answer.output_parsed == MEAL
        (request,) = agent.requests
        form = {"type": "json_schema", "name": "Meal", "strict": True}
        assert openai_responses.build_request(request, model="m")["text"]["format"] == {
            **form,
            "schema": request.schema,
        }
        assert request.schema == openai.lib._pydantic.to_strict_json_schema(Meal)

    async def test_a_parsed_stream(self) -> None:
        async with (
            serving({"a": spoken()}) as served,
            chat(served) as sdk,
            sdk.responses.stream(model="a", input="Plan a meal", text_format=Meal) as stream,
        ):
            done = [event.parsed async for event in stream if event.type == "response.output_text.done"]
            final = await stream.get_final_response()
        assert done == [MEAL] and final.output_parsed == MEAL

    async def test_tool_calls(self) -> None:
        tools: Any = [openai.pydantic_function_tool(Look)["function"] | {"type": "function"}]
        async with serving({"a": ScriptedAgent(*CALLS)}) as served, chat(served) as sdk:
            whole = await sdk.responses.parse(model="a", input="Look", tools=tools)
            async with sdk.responses.stream(model="a", input="Look", tools=tools) as stream:
                grown = [
                    event.snapshot async for event in stream if event.type == "response.function_call_arguments.delta"
                ]
                final = await stream.get_final_response()
        for answer in (whole, final):
            called = [item.parsed_arguments for item in answer.output if item.type == "function_call"]
            assert [Look.model_validate(it) for it in called] == [Look(at="x", deep=True), Look(at="y", deep=False)]
        assert grown[0] == '{"at":"x' and grown[1] == '{"at":"x","deep":true}'


class TestMessages:
    async def test_a_parsed_message(self) -> None:
        agent = spoken()
        async with serving({"a": agent}) as served, messages(served) as sdk:
            answer = await sdk.messages.parse(model="a", messages=HI, max_tokens=99, output_format=Meal)
        assert answer.parsed_output == MEAL
        (request,) = agent.requests
        assert request.schema == anthropic.transform_schema(Meal)
        sent = anthropic_wire.build_request(request, model="m")
        assert sent["output_config"]["format"] == {"type": "json_schema", "schema": request.schema}

    async def test_a_parsed_stream(self) -> None:
        async with (
            serving({"a": spoken()}) as served,
            messages(served) as sdk,
            sdk.messages.stream(model="a", messages=HI, max_tokens=99, output_format=Meal) as stream,
        ):
            snapshots = [event.parsed_snapshot() async for event in stream if event.type == "text"]
            final = await stream.get_final_message()
        assert final.parsed_output == MEAL
        assert snapshots[-1] == MEAL.model_dump()

    async def test_tool_calls(self) -> None:
        agent = ScriptedAgent(*CALLS)
        tools: Any = [
            {"name": "Look", "description": "Look.", "input_schema": Look.model_json_schema(), "strict": True}
        ]
        async with serving({"a": agent}) as served, messages(served) as sdk:
            whole = await sdk.messages.create(model="a", messages=HI, max_tokens=99, tools=tools)
            async with sdk.messages.stream(model="a", messages=HI, max_tokens=99, tools=tools) as stream:
                grown = [event.snapshot async for event in stream if event.type == "input_json"]
                final = await stream.get_final_message()
        for answer in (whole, final):
            called = [block.input for block in answer.content if block.type == "tool_use"]
            assert called == [{"at": "x", "deep": True}, {"at": "y", "deep": False}]
            assert answer.stop_reason == "tool_use"
        assert {"at": "x", "deep": True} in grown
        assert anthropic_wire.build_request(agent.requests[0], model="m")["tools"] == tools


async def test_a_schema_that_would_keep_a_model_here_busy_is_refused() -> None:
    schema: Any = {"enum": list(range(1001))}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": schema}}}
    deep: Any = {}
    for _ in range(70):
        deep = {"items": deep}
    async with serving({"a": spoken()}) as served:
        asked = {"model": "a", "messages": HI}
        for more, said in (
            ({"response_format": form}, "more than 1000 values"),
            ({"tools": [tool]}, "more than 1000 values"),
            ({"response_format": {**form, "json_schema": {"name": "n", "schema": deep}}}, "nested deeper than 64"),
        ):
            answer = await served.post("/v1/chat/completions", {**asked, **more})
            assert answer.status_code == 400 and said in answer.json()["error"]["message"]
