"""Responses over HTTP, as the official client reads them; coming back to one, and those in the background."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.records import Completed, Failed, Interrupted, Reasoning, Text, ToolCall, Usage
from multi_agent_scheduler.request import TextPart
from multi_agent_scheduler.testing import ScriptedAgent
from tests.server.served import Served, serving


def client(served: Served) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="any", base_url=f"{served.url}/v1", max_retries=0)


def story() -> ScriptedAgent:
    return ScriptedAgent(
        Reasoning("hm", kind="summary"),
        *(Text(word, part=1) for word in ("Once ", "upon ", "a ", "time")),
        Usage(input_tokens=5, output_tokens=4),
        Completed("stop"),
    )


async def test_a_response_streams_and_comes_in_one_piece() -> None:
    async with serving({"a": story()}) as served, client(served) as sdk:
        async with sdk.responses.stream(model="a", input="Tell", instructions="Be brief", temperature=0.5) as stream:
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        whole = await sdk.responses.create(model="a", input="Tell", instructions="Be brief", temperature=0.5)
    assert "".join(deltas) == "Once upon a time"
    for response in (final, whole):
        assert response.output_text == "Once upon a time" and response.status == "completed"
        assert response.output[0].type == "reasoning" and response.output[0].summary[0].text == "hm"
        assert response.usage is not None and response.usage.total_tokens == 9
        assert response.instructions == "Be brief" and response.temperature == 0.5 and response.model == "a"
        assert response.background is False


async def test_calls_come_out() -> None:
    agent = ScriptedAgent(ToolCall(0, id="c1", name="look", arguments="{}"), Completed("tool_calls"))
    tool: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
    async with serving({"a": agent}) as served, client(served) as sdk:
        response = await sdk.responses.create(model="a", input=[{"role": "user", "content": "See"}], tools=[tool])
    (call,) = response.output
    assert call.type == "function_call" and call.call_id == "c1" and call.name == "look"
    (part,) = agent.requests[0].messages[0].parts
    assert isinstance(part, TextPart) and part.text == "See"
    assert response.tools[0].type == "function"


async def test_a_failure_before_the_answer_has_its_status() -> None:
    failure = agent_error(ErrorInfo("rate_limit_error", "slow", status=429))
    async with serving({"a": ScriptedAgent(failure)}) as served, client(served) as sdk:
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError, match="slow"):
                await sdk.responses.create(model="a", input="x", stream=stream)
        with pytest.raises(openai.NotFoundError) as caught:
            await sdk.responses.create(model="b", input="x")
    assert caught.value.code == "model_not_found"


async def test_a_failure_in_the_middle_is_a_failed_response() -> None:
    agent = ScriptedAgent("half", Interrupted(ErrorInfo("interrupted", "it broke off")))
    async with serving({"a": agent}) as served, client(served) as sdk:
        events = [event async for event in await sdk.responses.create(model="a", input="x", stream=True)]
    last = events[-1]
    assert last.type == "response.failed" and last.response.error is not None
    assert last.response.error.message == "it broke off" and last.response.output_text == "half"


async def test_leaving_stops_an_answer_that_is_not_in_the_background() -> None:
    agent = ScriptedAgent("first", asyncio.Event())
    async with serving({"a": agent}) as served, client(served) as sdk:
        async with await sdk.responses.create(model="a", input="x", stream=True) as stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    break
        await asyncio.wait_for(served.scheduler.wait_idle(), 5)
        assert [info.state for info in served.scheduler.streams()] == ["cancelled"]


async def test_a_response_in_the_background_is_answered_for_at_once_and_asked_for_again() -> None:
    gate = asyncio.Event()
    async with serving({"a": ScriptedAgent("Hel", gate, "lo")}) as served, client(served) as sdk:
        begun = await sdk.responses.create(model="a", input="x", background=True)
        assert begun.status in ("queued", "in_progress") and begun.background is True and begun.id.startswith("resp_")
        gate.set()
        await served.scheduler.wait_idle()
        done = await sdk.responses.retrieve(begun.id)
    assert done.status == "completed" and done.output_text == "Hello" and done.background is True and done.model == "a"


async def test_a_reader_that_comes_back_gets_what_it_misses_and_nothing_twice() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent("Once ", "upon ", gate, "a ", "time", Usage(input_tokens=1, output_tokens=4))
    async with serving({"a": agent}) as served, client(served) as sdk:
        seen: list[Any] = []
        async with await sdk.responses.create(model="a", input="x", stream=True, background=True) as stream:
            async for event in stream:
                seen.append(event)
                if event.type == "response.output_text.delta":
                    break
        response_id = seen[0].response.id
        assert seen[0].type == "response.created" and seen[0].response.background is True
        gate.set()
        rest = await sdk.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number)
        seen += [event async for event in rest]
        again = [event async for event in await sdk.responses.retrieve(response_id, stream=True)]
        nothing = [
            event
            async for event in await sdk.responses.retrieve(
                response_id, stream=True, starting_after=seen[-1].sequence_number
            )
        ]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert [event.type for event in seen] == [event.type for event in again] and nothing == []
    assert "".join(event.delta for event in seen if event.type == "response.output_text.delta") == "Once upon a time"
    assert len(agent.requests) == 1


@pytest.mark.parametrize("after", range(9))
async def test_any_event_is_a_place_to_go_on_from(after: int) -> None:
    async with serving({"a": ScriptedAgent("Hi")}) as served, client(served) as sdk:
        response = await sdk.responses.create(model="a", input="x")
        path = f"/v1/responses/{response.id}?stream=true"
        whole = (await served.http.get(path)).text
        rest = (await served.http.get(f"{path}&starting_after={after}")).text
    frames = whole.split("\n\n")
    assert rest == "\n\n".join(frames[after + 1 :])


async def test_responses_outlive_the_server(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'streams.db'}"
    async with serving({"a": story()}, store=store) as served, client(served) as sdk:
        first = await sdk.responses.create(model="a", input="x")
    agent = story()
    async with serving({"a": agent}, store=store) as served, client(served) as sdk:
        again = await sdk.responses.retrieve(first.id)
        events = [event async for event in await sdk.responses.retrieve(first.id, stream=True)]
    assert again.output_text == "Once upon a time" and events[-1].type == "response.completed"
    assert agent.requests == []


async def test_a_response_can_be_cancelled() -> None:
    agent = ScriptedAgent("half", asyncio.Event())
    async with serving({"a": agent}) as served, client(served) as sdk:
        begun = await sdk.responses.create(model="a", input="x", background=True)
        stopped = await sdk.responses.cancel(begun.id)
        assert stopped.status == "cancelled" and agent.closed == agent.running + len(agent.requests)
        assert (await sdk.responses.cancel(begun.id)).status == "cancelled"


async def test_a_failed_response_in_the_background_is_read_not_raised() -> None:
    failed = Failed(ErrorInfo("server_error", "broke"))
    async with serving({"a": ScriptedAgent(failed)}) as served, client(served) as sdk:
        begun = await sdk.responses.create(model="a", input="x", background=True)
        await served.scheduler.wait_idle()
        done = await sdk.responses.retrieve(begun.id)
    assert done.status == "failed" and done.error is not None and done.error.message == "broke"


async def test_another_stream_is_no_response() -> None:
    async with serving({"a": ScriptedAgent("x")}) as served, client(served) as sdk:
        for response_id in ("resp_nothing", "nothing"):
            with pytest.raises(openai.NotFoundError) as caught:
                await sdk.responses.retrieve(response_id)
            assert caught.value.code == "not_found"
            with pytest.raises(openai.NotFoundError):
                await sdk.responses.cancel(response_id)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"input": "x"}, "model is missing"),
        ({"model": "a"}, "input: is required"),
        ({"model": "a", "input": "x", "previous_response_id": "resp_1"}, "previous_response_id: is not kept here"),
        ({"model": "a", "input": "x", "background": 1}, "background: must be true or false"),
        ({"model": "a", "input": "x", "endpoint": "http://x"}, "'endpoint' is not a field of this request"),
    ],
)
async def test_a_body_that_does_not_fit_is_told_in_the_protocols_shape(body: Any, told: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        answer = await served.post("/v1/responses", body)
    assert answer.status_code == 400 and told in answer.json()["error"]["message"]


@pytest.mark.parametrize("query", ["stream=yes", "starting_after=-1", "starting_after=x", "starting_after=" + "9" * 40])
async def test_a_query_that_does_not_fit(query: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served, client(served) as sdk:
        response = await sdk.responses.create(model="a", input="x")
        assert (await served.http.get(f"/v1/responses/{response.id}?{query}")).status_code == 400


async def test_a_server_that_stops_leaves_readers_their_place() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent("Hel", gate, "lo")
    async with serving({"a": agent}) as served, client(served) as sdk:
        stream = await sdk.responses.create(model="a", input="x", stream=True, background=True)
        seen = [await anext(stream) for _ in range(5)]
        assert seen[-1].type == "response.output_text.delta"
        async with served.http.stream("GET", f"/v1/responses/{seen[0].response.id}?stream=true") as raw:
            lines = raw.aiter_lines()
            while "output_text.delta" not in await anext(lines):
                pass
            await served.app.drain()
            told = [line async for line in lines if line.startswith("data: ")]
        with pytest.raises(openai.APIError, match="being stopped"):
            await anext(stream)
        gate.set()
    assert [json.loads(line[6:])["type"] for line in told if "sequence_number" not in line] == ["error"]
