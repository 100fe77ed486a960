"""The AI SDK's objects: a text that is a growing JSON document, and never looks whole where it is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given

from multi_agent_scheduler import Failover
from multi_agent_scheduler.errors import ErrorInfo, StreamReset, agent_error
from multi_agent_scheduler.records import Completed, Record, Refusal, Reset, Text
from multi_agent_scheduler.server.faces.ai_sdk_object import FACE
from multi_agent_scheduler.testing import ScriptedAgent
from multi_agent_scheduler.wire.partial_json import PartialJSON, Spelling
from tests.partial_json.documents import documents
from tests.server.served import Served, serving
from tests.structured.test_agent import pieces

RECIPE: dict[str, Any] = {"title": 'Pan"cakes \U0001f95e', "steps": ["Mix", "Fry"], "n": [1.5, None, {}, [], True]}
TEXT = json.dumps(RECIPE, indent=1)
NOTHING: Any = None
BROKEN = agent_error(ErrorInfo("overloaded_error", "too much", status=529, retryable=True))


@given(documents())
def test_changes_spell_the_document_again(text: str) -> None:
    parser, spelling, spelled = PartialJSON(duplicates="error"), Spelling(), b""
    for place in range(0, len(text), 3):
        parser.feed(text[place : place + 3])
        spelled += spelling.feed(parser.changes, [path for path, _ in parser.completed])
    parser.close()
    spelled += spelling.feed(parser.changes, [path for path, _ in parser.completed])
    assert repr(json.loads(spelled)) == repr(json.loads(text))


def rendered(*records: Record) -> list[bytes]:
    renderer = FACE.renderer(NOTHING, NOTHING)
    return [renderer.feed(seq, [record]) for seq, record in enumerate(records, 1)]


def test_prose_is_left_out_and_the_end_is_kept_back() -> None:
    said = ("Sure:\n```json\n", '{"a":"b', 'c"}\n', "```\nEnjoy!")
    told = rendered(*map(Text, said), Completed("stop"))
    assert told == [b"", b'{"a":"b', b'c"', b"", b"}"]
    assert rendered(Text("```json\n4"), Text("2\n"), Text("```"), Completed("stop"))[:3] == [b"", b"", b""]


def test_white_space_keeps_a_connection_alive_where_it_means_nothing() -> None:
    renderer = FACE.renderer(NOTHING, NOTHING)
    beats = [
        (renderer.feed(seq, [Text(text)]), renderer.heartbeat)
        for seq, text in enumerate(['{"a":', '"b', '",', '"c":1}'], 1)
    ]
    assert [beat for _, beat in beats] == [b"\n", b"", b"\n", b""]


def test_what_cannot_be_told_in_a_text_is_raised() -> None:
    with pytest.raises(StreamReset):
        rendered(Text('{"a":'), Reset(1, "again"))
    assert rendered(Text("Well, "), Reset(1, "again"), Text("[]"), Completed("stop"))[-1] == b"]"


# --- over HTTP --------------------------------------------------------------------------------------------------


async def ask(served: Served, **body: Any) -> httpx.Response:
    return await served.post("/v1/ai-sdk/object", {"prompt": "A recipe", **body})


async def test_a_document_as_it_grows() -> None:
    agent = ScriptedAgent("Here:\n", *pieces(TEXT), "\nEnjoy!")
    schema = {"type": "object", "properties": {"title": {"type": "string", "pattern": "^P"}}}
    async with serving({"a": agent}) as served:
        answer = await ask(served, schema=schema, system="Be brief", temperature=0.5)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "x-vercel-ai-ui-message-stream" not in answer.headers
        assert answer.json() == RECIPE
        (request,) = agent.requests
        assert request.schema == schema and request.temperature == 0.5
        assert [message.role for message in request.messages] == ["system", "user"]
        assert (await served.post("/v1/ai-sdk/object", "A recipe")).json() == RECIPE
        parts = [{"type": "text", "text": "A recipe"}]
        assert (
            await served.post("/v1/ai-sdk/object", {"messages": [{"role": "user", "parts": parts}]})
        ).json() == RECIPE


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "one of prompt (a text) and messages is needed"),
        ({"prompt": "x", "messages": []}, "one of prompt (a text) and messages is needed"),
        ({"messages": []}, "messages must be a list of at least one message"),
        ({"prompt": 1}, "prompt must be a string"),
        ({"prompt": "x", "schema": "s"}, "schema must be an object"),
        ({"prompt": "x", "schema": {"enum": [0] * 1001}}, "more than 1000 values"),
        (3, "the body must be an object"),
        ("", "one of prompt (a text) and messages is needed"),
    ],
)
async def test_what_cannot_be_asked(body: Any, said: str) -> None:
    async with serving({"a": ScriptedAgent("{}")}) as served:
        answer = await served.post("/v1/ai-sdk/object", body)
        assert answer.status_code == 400 and said in answer.text, answer.text
        assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ((BROKEN,), 529, "too much"),
        (("There is none.",), 502, "there is no JSON document in the text"),
        ((Refusal("No"), Completed("content_filter")), 400, "content_filter"),
    ],
)
async def test_an_answer_that_never_began_has_a_status(script: Sequence[Any], status: int, said: str) -> None:
    async with serving({"a": ScriptedAgent(*script)}) as served:
        answer = await ask(served)
        assert answer.status_code == status and said in answer.text, (answer.status_code, answer.text)


async def cut(served: Served, gate: asyncio.Event) -> str:
    """What comes of an answer before its connection is cut."""
    seen = ""
    async with served.http.stream("POST", "/v1/ai-sdk/object", json={"prompt": "x"}) as answer:
        try:
            async for text in answer.aiter_text():
                seen += text
                gate.set()
        except httpx.TransportError:
            return seen
    pytest.fail(f"it ended in order: {seen}")


async def test_an_answer_that_breaks_off_is_cut() -> None:
    gate = asyncio.Event()
    async with serving({"a": ScriptedAgent('{"title":"Pa', gate, BROKEN)}) as served:
        assert await cut(served, gate) == '{"title":"Pa'


async def test_a_whole_document_of_an_answer_that_failed_is_never_whole() -> None:
    gate = asyncio.Event()
    async with serving({"a": ScriptedAgent('{"title":"Pa"}', gate, BROKEN)}) as served:
        assert await cut(served, gate) == '{"title":"Pa"'


async def test_what_is_no_json_is_cut() -> None:
    gate = asyncio.Event()
    async with serving({"a": ScriptedAgent('{"title":"Pa"', gate, "]")}) as served:
        assert await cut(served, gate) == '{"title":"Pa"'


async def test_a_reset_cuts_the_answer() -> None:
    gate = asyncio.Event()
    agent = Failover(ScriptedAgent('{"title":"Pa', gate, BROKEN), ScriptedAgent('{"title":"Waffles"}'), policy="reset")
    async with serving({"a": agent}) as served:
        assert await cut(served, gate) == '{"title":"Pa'


async def test_a_client_that_leaves_stops_its_answer() -> None:
    never = asyncio.Event()
    agent = ScriptedAgent('{"title":"Pa', never)
    async with serving({"a": agent}) as served:
        async with served.http.stream("POST", "/v1/ai-sdk/object", json={"prompt": "x"}) as answer:
            async for _ in answer.aiter_text():
                break
        (info,) = served.scheduler.streams()
        records = [record async for record in served.scheduler.follow(info.stream_id)]
        assert records[-1].__class__.__name__ == "Cancelled"
