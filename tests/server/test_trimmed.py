"""Streams whose logs were trimmed: what they said is still there, their events are not, and nobody is shown a gap."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from multi_agent_scheduler import Task
from multi_agent_scheduler.errors import LogTrimmed
from multi_agent_scheduler.records import Completed, Reasoning, Text, Usage
from multi_agent_scheduler.server.app import ROUTES
from multi_agent_scheduler.server.openapi import document
from multi_agent_scheduler.store import MemoryStore, Store
from multi_agent_scheduler.store.sqlite import SQLiteStore
from multi_agent_scheduler.testing import ScriptedAgent
from tests.store.files import until, using, written

from .served import Served, events_of, serving, task

EVENTS = {"accept": "text/event-stream"}


class Clock:
    """A store's clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Store:
    if request.param == "memory":
        return MemoryStore(keep_logs=60, clock=clock)
    return SQLiteStore(tmp_path / "a.db", keep_logs=60, clock=clock)


def agent() -> ScriptedAgent:
    words = (Text(word, part=1) for word in ("Once ", "upon ", "a ", "time"))
    return ScriptedAgent(Reasoning("hm", kind="summary"), *words, Usage(5, 4), Completed("stop"))


@asynccontextmanager
async def served_by(store: Store) -> AsyncIterator[Served]:
    async with serving({"a": agent()}, store=store) as served:
        yield served


async def ended(served: Served) -> str:
    """The id of a stream that has ended."""
    stream_id = (await served.submit(task()))["a"]
    assert (await served.events(stream_id)).status_code == 200
    return stream_id


async def trim(served: Served, clock: Clock, stream_id: str) -> None:
    """Let so much time pass that a stream's log is trimmed."""
    clock.now += 1000
    await ended(served)
    await until(lambda: served.scheduler.find(stream_id).trimmed)


def gone(answer: httpx.Response, stream_id: str) -> dict[str, Any]:
    """The problem document of an answer that says that a log was trimmed."""
    assert answer.status_code == 410
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["link"] == f'</v1/streams/{stream_id}>; rel="alternate"; type="application/json"'
    body: dict[str, Any] = answer.json()
    assert (body["title"], body["status"], body["snapshot"]) == ("Gone", 410, f"/v1/streams/{stream_id}")
    assert body["detail"].startswith(f"the log of the stream '{stream_id}' was trimmed")
    return body


async def test_the_events_are_gone_and_the_json_stays(store: Store, clock: Clock) -> None:
    async with served_by(store) as served:
        stream_id = await ended(served)
        place = f"/v1/streams/{stream_id}"
        events = events_of((await served.events(stream_id)).content)
        before = (await served.http.get(place)).json()
        await trim(served, clock, stream_id)
        problem = gone(await served.events(stream_id), stream_id)
        gone(await served.events(stream_id, after=events[2].id), stream_id)
        gone(await served.http.get(f"{place}?view=object&after={events[2].id}", headers=EVENTS), stream_id)
        assert (await served.events(stream_id, after=events[-2].id)).status_code == 204
        assert (await served.http.head(place, headers=EVENTS)).status_code == 410
        assert (await served.http.get(problem["snapshot"])).json() == before
        assert before["text"] == "Once upon a time" and before["cursor"] == events[-2].id
        listed = (await served.http.get("/v1/streams")).json()["streams"]
        assert [row["cursor"] for row in listed if row["stream_id"] == stream_id] == [before["cursor"]]
        assert (await served.post(f"{place}/cancel", None)).json()["cancelled"] is False
        token = await served.http.post(f"{place}/token")
        assert (await served.http.get(token.json()["url"])).json() == before
        gone(await served.http.get(token.json()["url"], headers=EVENTS), stream_id)


async def test_a_follower_gets_what_it_can_or_is_told(store: Store, clock: Clock) -> None:
    async with served_by(store) as served:
        stream_id = await ended(served)
        records = [record async for record in served.scheduler.follow(stream_id)]
        await trim(served, clock, stream_id)
        with pytest.raises(LogTrimmed):
            await anext(served.scheduler.follow(stream_id, 1))
        assert [record async for record in served.scheduler.follow(stream_id, len(records))] == []
        shot = await served.scheduler.snapshot(stream_id)
        assert (shot.text, shot.reasoning, shot.stop_reason) == ("Once upon a time", "hm", "stop")


async def test_a_response_is_retrieved_as_it_was_but_its_events_are_gone(store: Store, clock: Clock) -> None:
    async with (
        served_by(store) as served,
        openai.AsyncOpenAI(api_key="any", base_url=f"{served.url}/v1", max_retries=0) as sdk,
    ):
        response = await sdk.responses.create(model="a", input="Tell", background=True)
        stream_id = response.id.removeprefix("resp_")
        await until(lambda: served.scheduler.find(stream_id).ended)
        before = await sdk.responses.retrieve(response.id)
        await trim(served, clock, stream_id)
        assert await sdk.responses.retrieve(response.id) == before
        assert before.status == "completed" and before.output_text == "Once upon a time"
        for after in (None, 2):
            with pytest.raises(openai.APIStatusError) as caught:
                await sdk.responses.retrieve(response.id, stream=True, starting_after=after or openai.omit)
            assert caught.value.status_code == 410
            assert f"</v1/streams/{stream_id}>" in caught.value.response.headers["link"]
            assert "was trimmed" in caught.value.message
        assert (await sdk.responses.cancel(response.id)).status == "completed"


async def test_a_chat_whose_answer_was_trimmed_has_nothing_to_resume(store: Store, clock: Clock) -> None:
    async with served_by(store) as served:
        handle = await served.scheduler.submit(Task("ai-sdk/chat-1", "x"))
        await handle.result()
        await trim(served, clock, handle.stream_id)
        answer = await served.http.get("/v1/ai-sdk/chat/chat-1/stream")
        assert (answer.status_code, answer.content) == (204, b"")


async def test_a_socket_is_told_the_same(store: Store, clock: Clock) -> None:
    pytest.importorskip("websockets", reason="needs websockets")
    from websockets.asyncio.client import connect

    async with served_by(store) as served:
        stream_id = await ended(served)
        cursor = (await served.http.get(f"/v1/streams/{stream_id}")).json()["cursor"]
        await trim(served, clock, stream_id)
        async with connect(f"ws{served.url.removeprefix('http')}/v1/ws", proxy=None) as connection:
            for after in (None, f"1-{cursor.partition('-')[2]}"):
                for view in ("records", "object"):
                    asked = {"type": "subscribe", "id": 7, "stream_id": stream_id, "view": view}
                    await connection.send(json.dumps(asked | ({"after": after} if after else {})))
                    told = json.loads(await connection.recv())
                    assert (told["type"], told["id"], told["status"]) == ("problem", 7, 410)
                    assert (told["stream_id"], told["snapshot"]) == (stream_id, f"/v1/streams/{stream_id}")
            await connection.send(json.dumps({"type": "subscribe", "stream_id": stream_id, "after": cursor}))
            assert json.loads(await connection.recv())["cursor"] == cursor
            assert json.loads(await connection.recv()) == {"type": "end", "stream_id": stream_id}


async def test_a_reader_in_the_middle_is_told_and_sees_no_gap(tmp_path: Path, clock: Clock) -> None:
    pytest.importorskip("websockets", reason="needs websockets")
    from websockets.asyncio.client import connect

    async with using(tmp_path / "a.db", clock=clock) as store:
        await written(store, "long", *(f"{number:020000}" for number in range(200)))
    store = SQLiteStore(tmp_path / "a.db", keep_logs=60, clock=clock)
    async with (
        served_by(store) as served,
        connect(f"ws{served.url.removeprefix('http')}/v1/ws", proxy=None) as connection,
        served.http.stream("GET", "/v1/streams/long?pace=20/s", headers=EVENTS) as answer,
    ):
        await connection.send(json.dumps({"type": "subscribe", "stream_id": "long", "window": 1}))
        assert json.loads(await connection.recv())["type"] == "reply"
        assert json.loads(await connection.recv())["seq"] == 1
        body = answer.aiter_bytes()
        seen = await anext(body)
        await trim(served, clock, "long")
        seen += b"".join([piece async for piece in body])
        events = events_of(seen)
        assert [event.id.partition("-")[0] for event in events] == [str(seq) for seq in range(1, len(events) + 1)]
        assert 1 < len(events) < 201
        gone(await served.events("long", after=events[-1].id), "long")
        await connection.send(json.dumps({"type": "acknowledge", "stream_id": "long", "seq": 1}))
        told, seq = json.loads(await connection.recv()), 1
        while told["type"] != "problem":
            assert told["seq"] == seq + 1
            seq += 1
            await connection.send(json.dumps({"type": "acknowledge", "stream_id": "long", "seq": seq}))
            told = json.loads(await connection.recv())
        assert (told["stream_id"], told["status"], told["title"]) == ("long", 410, "Gone")
        assert 1 < seq < 201


async def test_what_is_asked_for_at_once_is_answered_whatever_is_kept(tmp_path: Path) -> None:
    async with serving({"a": agent()}, store=SQLiteStore(tmp_path / "a.db", keep_logs=0)) as served:
        for _ in range(20):
            answer = await served.post(
                "/v1/chat/completions", {"model": "a", "messages": [{"role": "user", "content": "x"}]}
            )
            assert answer.json()["choices"][0]["message"]["content"] == "Once upon a time"


def test_the_document_tells_of_it() -> None:
    paths = document(ROUTES)["paths"]
    told = paths["/v1/streams/{stream_id}"]["get"]["responses"]["410"]
    assert told["content"] == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    assert "application/json" in paths["/v1/responses/{response_id}"]["get"]["responses"]["410"]["content"]
