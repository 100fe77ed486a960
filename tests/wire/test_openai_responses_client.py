"""What the official client makes of the bytes that are written, over a stand-in for the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo
from multi_agent_scheduler.records import (
    Cancelled,
    Citation,
    Completed,
    Failed,
    Reasoning,
    Record,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from multi_agent_scheduler.wire.openai_responses import Decoder, Encoder, body, parse_request
from tests.wire.replay import Recording, decode, recordings
from tests.wire.test_openai_responses_encode import any_record

RECORDINGS = recordings("responses")
STOP = Completed(stop_reason="stop", raw_stop_reason="completed")


# Items that are a provider's own, or nonsense, are not in the client's types; it says so, and goes on.
odd_items = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")


def client(answer: Callable[[httpx.Request], httpx.Response]) -> openai.OpenAI:
    transport = httpx.MockTransport(answer)
    return openai.OpenAI(
        api_key="sk-test", base_url="http://test/v1", max_retries=0, http_client=httpx.Client(transport=transport)
    )


def serving(records: list[Record]) -> openai.OpenAI:
    """A client of a server that answers with these records, as a stream or as an object, as it is asked."""

    def answer(request: httpx.Request) -> httpx.Response:
        _, stream = parse_request(json.loads(request.content))
        if not stream:
            return httpx.Response(200, json=body(records, id="resp_9", model="m", created=1))
        writer = Encoder(id="resp_9", model="m", created=1)
        data = b"".join(writer.encode([record]) for record in records)
        return httpx.Response(200, content=data, headers={"content-type": "text/event-stream"})

    return client(answer)


@odd_items
@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_the_official_client_sees_what_the_provider_said(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    expected = recording.expected
    with serving(records) as sdk, sdk.responses.stream(model="m", input="Hi") as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        if expected["status"] == "completed":
            final: Any = stream.get_final_response()
            assert final.output_text == expected["text"]
            calls = [item for item in final.output if item.type == "function_call"]
            seen = [{"call_id": call.call_id, "name": call.name, "arguments": call.arguments} for call in calls]
            assert seen == expected["function_calls"]
            assert final.usage.total_tokens == expected["usage"]["total_tokens"]
    assert deltas == expected["text"]


@pytest.mark.parametrize("recording", RECORDINGS[::4], ids=str)
def test_the_official_client_reads_the_response_object(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    with serving(records) as sdk:
        response = sdk.responses.create(model="m", input="Hi")
    assert response.output_text == recording.expected["text"]
    assert response.status == recording.expected["status"]
    assert response.usage is not None
    assert response.usage.output_tokens == recording.expected["usage"]["output_tokens"]


def test_every_kind_of_record_passes_the_official_clients_accumulator() -> None:
    records: list[Record] = [
        Reasoning(text="hm", kind="summary", id="rs_1"),
        Text(text="Look ", part=1),
        ToolCall(index=0, id="call_1", name="add", part=2),
        ToolCall(index=0, arguments='{"a":', part=2),
        ToolCall(index=1, id="call_2", name="now", part=3),
        ToolCall(index=0, arguments="1}", part=2),
        ToolCall(index=2, id="srv_1", name="web_search", part=4, kind="server"),
        ToolResult(id="srv_1", content="found", part=5),
        Reasoning(signature="seal", kind="summary", id="rs_1"),
        Text(text="here", part=6),
        Citation(url="https://e.org", title="E", part=6),
        Refusal(text="No more.", part=7),
        Usage(input_tokens=3, output_tokens=4),
        Completed(stop_reason="tool_calls", raw_stop_reason="tool_use"),
    ]
    with serving(records) as sdk, sdk.responses.stream(model="m", input="Hi") as stream:
        numbers = [event.sequence_number for event in stream]
        final = stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    assert final.output_text == "Look here"
    assert [item.type for item in final.output] == [
        "reasoning", "message", "function_call", "function_call", "mcp_call", "message"
    ]  # fmt: skip
    assert [item.arguments for item in final.output if item.type == "function_call"] == ['{"a":1}', "{}"]
    assert final.usage is not None
    assert final.usage.total_tokens == 7


@odd_items
@given(st.lists(any_record, max_size=10))
@example([Unknown(raw={"type": "reasoning"}, protocol="openai_responses", part=0)] * 2)
@settings(max_examples=60, deadline=None)
def test_no_records_at_all_upset_the_official_client(records: list[Record]) -> None:
    with serving([*records, STOP]) as sdk, sdk.responses.stream(model="m", input="Hi") as stream:
        final = stream.get_final_response()
    assert final.output_text == "".join(record.text for record in records if isinstance(record, Text))


@pytest.mark.parametrize(
    ("terminal", "kind"),
    [
        (Failed(ErrorInfo("rate_limit_error", "the provider's rate limit is reached")), "response.failed"),
        (Completed(stop_reason="length"), "response.incomplete"),
        (Cancelled("on request"), "response.cancelled"),
    ],
)
def test_the_official_client_is_told_of_every_ending(terminal: Any, kind: str) -> None:
    with serving([Text(text="Hel"), terminal]) as sdk:
        *_, last = sdk.responses.create(model="m", input="Hi", stream=True)
        response: Any = last.to_dict()["response"]
        assert last.type == kind
        assert response["output"][0]["content"][0]["text"] == "Hel"
        assert response["status"] == kind.removeprefix("response.")
        if kind == "response.failed":
            assert response["error"]["code"] == "rate_limit_exceeded"
        whole = sdk.responses.create(model="m", input="Hi")
        assert whole.status == response["status"]
        assert whole.output_text == "Hel"


def test_the_official_clients_next_turn_is_understood() -> None:
    seen: list[Any] = []
    records: list[Record] = [
        Reasoning(signature="seal", id="rs_1"),
        Text(text="Adding.", part=1),
        ToolCall(index=0, id="call_1", name="add", part=2),
        ToolCall(index=0, arguments='{"a":1}', part=2),
        Completed(stop_reason="tool_calls"),
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(parse_request(json.loads(request.content))[0])
        return httpx.Response(200, json=body(records, id="resp_9", model="m", created=1))

    with client(answer) as sdk:
        conversation: list[Any] = [{"role": "user", "content": "1+1?"}]
        first = sdk.responses.create(model="m", input=conversation)
        conversation += first.output
        conversation.append({"type": "function_call_output", "call_id": "call_1", "output": "2"})
        sdk.responses.create(model="m", input=conversation)
    user, assistant, tool = seen[1].messages
    assert user.parts[0].text == "1+1?"
    reasoning, text, call = assistant.parts
    assert (reasoning.signature, reasoning.id) == ("seal", "rs_1")
    assert text.text == "Adding."
    assert (call.id, call.name, call.arguments) == ("call_1", "add", '{"a":1}')
    assert tool.parts[0].content[0].text == "2"
