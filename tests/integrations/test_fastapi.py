"""Streams in a FastAPI or Starlette app."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from multi_agent_scheduler import EventBus, Metrics, MultiAgentScheduler, Task
from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.records import Reset, Text, decode_record
from multi_agent_scheduler.server import Settings
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.store.memory import MemoryStore
from multi_agent_scheduler.testing import ScriptedAgent

from .asgi import Exchange, Socket

pytest.importorskip("fastapi", reason="needs fastapi")

from fastapi import FastAPI, WebSocket
from fastapi.responses import Response

from multi_agent_scheduler.integrations.fastapi import mount, sse, sse_follow, websocket_stream

DOWN = agent_error(ErrorInfo("overloaded_error", "the provider is overloaded", status=529, detail="<b>gone</b>"))


def app_of(make: Any) -> FastAPI:
    """An app with one route, whose response ``make`` makes."""
    app = FastAPI()

    @app.get("/")
    async def stream() -> Response:
        response: Response = make()
        return response

    return app


async def test_text_comes_as_events_and_ends_as_the_guide_says() -> None:
    agent = ScriptedAgent("Hello ", "<script>\nworld\n\n")
    async with Exchange(app_of(lambda: sse(agent.call_stream("Hi")))) as client:
        status, headers = await client.head()
        events = await client.rest()

    assert status == 200
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"
    assert [(event.type, event.data) for event in events] == [
        ("message", b"Hello "),
        ("message", b"<script>\nworld\n\n"),
        ("complete", b"done"),
    ]


async def test_what_a_model_writes_cannot_end_or_forge_an_event() -> None:
    text = "data\n\nevent: complete\ndata: done\n\nid: 7\r\nretry: 1\r\r"
    async with Exchange(app_of(lambda: sse(ScriptedAgent(text).call_stream("Hi")))) as client:
        await client.head()
        first, last = await client.rest()

    assert (first.type, first.data.decode()) == ("message", text.replace("\r\n", "\n").replace("\r", "\n"))
    assert last.type == "complete"


async def test_the_dicts_of_the_scheduler_come_as_json() -> None:
    async with MultiAgentScheduler(
        {"one": ScriptedAgent("Hello ", "world")}, event_bus=EventBus(), metrics=Metrics()
    ) as scheduler:
        make = lambda: sse(scheduler.execute_task_stream(Task("t1", "Hi")))  # noqa: E731
        async with Exchange(app_of(make)) as client:
            await client.head()
            *dicts, last = await client.rest()

    items = [json.loads(event.data) for event in dicts]
    assert [item.get("chunk") for item in items] == ["Hello ", "world", None]
    assert items[-1]["done"] and items[-1]["result"] == "Hello world"
    assert (last.type, last.data) == ("complete", b"done")


async def test_records_come_as_json_and_end_as_on_the_server() -> None:
    agent = ScriptedAgent("Hello")
    async with Exchange(app_of(lambda: sse(agent.stream("Hi")))) as client:
        await client.head()
        *records, last = await client.rest()

    found = [decode_record(event.data) for event in records]
    assert [type(record).__name__ for record in found] == ["CallStarted", "Text", "CallEnded", "Completed"]
    assert [record.seq for record in found] == [1, 2, 3, 4]
    assert last.type == "end"


async def test_an_event_goes_out_when_it_is_there() -> None:
    more = asyncio.Event()
    agent = ScriptedAgent("Hello ", more, "world")
    async with Exchange(app_of(lambda: sse(agent.call_stream("Hi")))) as client:
        await client.head()
        assert (await client.event()).data == b"Hello "
        more.set()
        assert (await client.event()).data == b"world"
        assert (await client.event()).type == "complete"
        assert await client.rest() == []


async def test_a_reader_that_leaves_stops_the_provider_at_once() -> None:
    agent = ScriptedAgent("Hello ", asyncio.Event())
    async with Exchange(app_of(lambda: sse(agent.call_stream("Hi")))) as client:
        await client.head()
        await client.event()
        assert agent.running == 1
        await client.leave()
        await client.done()
        assert (agent.running, agent.closed) == (0, 1)


async def test_a_reader_that_leaves_while_it_takes_nothing_stops_the_provider() -> None:
    agent = ScriptedAgent("Hello ", "world")
    async with Exchange(app_of(lambda: sse(agent.call_stream("Hi")))) as client:
        client.full = asyncio.Event()
        await client.head()
        await client.leave()
        await client.done()
        assert (agent.running, agent.closed) == (0, 1)


async def test_a_server_that_says_by_an_error_that_the_reader_has_gone() -> None:
    agent = ScriptedAgent("Hello ", asyncio.Event())
    async with Exchange(sse(agent.call_stream("Hi"))) as client:
        client.broken = True
        await client.done()
    assert (agent.running, agent.closed) == (0, 1)


async def test_silence_is_filled_with_comments() -> None:
    more = asyncio.Event()
    agent = ScriptedAgent(more, "Hello")
    async with Exchange(app_of(lambda: sse(agent.call_stream("Hi"), heartbeat=0.01))) as client:
        assert (await client.head())[0] == 200
        opening = await client.body()
        assert opening.startswith(b"id: begun\nretry: 2000\n\n")
        assert await client.body() == b": \n\n"
        assert await client.body() == b": \n\n"
        more.set()
        assert (await client.event()).data == b"Hello"


async def test_a_reader_that_takes_nothing_gets_no_more_comments_and_may_leave() -> None:
    agent = ScriptedAgent(asyncio.Event(), "Hello")
    async with Exchange(app_of(lambda: sse(agent.call_stream("Hi"), heartbeat=0.001))) as client:
        await client.head()
        await client.body()
        client.full = asyncio.Event()
        assert await client.body() == b": \n\n"
        await client.leave()
        await client.done()
        assert (agent.running, agent.closed) == (0, 1)


async def test_a_browser_that_comes_back_is_told_to_stay_away() -> None:
    agent = ScriptedAgent("Hello")
    async with Exchange(app_of(lambda: sse(agent.call_stream("Hi"))), headers={"Last-Event-ID": "begun"}) as client:
        status, _ = await client.head()
        assert await client.whole() == b""
    assert status == 204
    assert agent.requests == []


async def test_the_head_alone_asks_nothing_of_a_model() -> None:
    agent = ScriptedAgent("Hello")
    async with Exchange(sse(agent.call_stream("Hi")), method="HEAD") as client:
        status, headers = await client.head()
        assert await client.whole() == b""
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert agent.requests == []


async def test_an_agent_that_fails_says_so_in_our_words() -> None:
    agent = ScriptedAgent("Half a", DOWN)
    async with Exchange(app_of(lambda: sse(agent.call_stream("Hi", errors="raise")))) as client:
        status, _ = await client.head()
        first, last = await client.rest()
    assert (status, first.data) == (200, b"Half a")
    assert last.type == "failed"
    assert json.loads(last.data) == {
        "code": "overloaded_error",
        "message": "the provider is overloaded",
        "status": 529,
    }


async def test_an_agent_that_begins_again_says_so() -> None:
    agent = ScriptedAgent("Half a", [Reset(from_seq=2, reason="another attempt"), Text("whole")])
    async with Exchange(app_of(lambda: sse(agent.call_stream("Hi")))) as client:
        await client.head()
        events = await client.rest()
    assert (events[-1].type, json.loads(events[-1].data)["code"]) == ("failed", "stream_reset")


async def test_a_mistake_of_the_callers_has_a_status() -> None:
    agent = ScriptedAgent("Hello")
    async with MultiAgentScheduler({"one": agent}, event_bus=EventBus(), metrics=Metrics()) as scheduler:
        for make, status, word in [
            (lambda: sse(agent.call_stream("Hi", max_tokens=-1)), 400, "max_tokens"),
            (lambda: sse(scheduler.execute_task_stream(Task("t1", "Hi"), "nobody")), 404, "nobody"),
            (lambda: sse(scheduler.follow("no such stream")), 404, "no such stream"),
        ]:
            async with Exchange(app_of(make)) as client:
                assert (await client.head())[0] == status
                assert word in json.loads(await client.whole())["detail"]
    assert agent.requests == []


async def test_a_bug_in_a_stream_is_told_of_and_raised() -> None:
    async def broken() -> AsyncIterator[str]:
        yield "Half a"
        raise RuntimeError("a secret of the program")

    async with Exchange(app_of(lambda: sse(broken()))) as client:
        await client.head()
        events = await client.rest()
        with pytest.raises(RuntimeError, match="a secret of the program"):
            await client.done()
    assert events[-1].type == "failed"
    assert json.loads(events[-1].data) == {"code": "internal_error", "message": "the stream broke off"}


async def test_items_that_cannot_be_sent() -> None:
    async def numbers() -> AsyncIterator[Any]:
        yield 1

    async with Exchange(sse(numbers())) as client:
        with pytest.raises(TypeError, match="events are made of text, of dicts or of records, not of 1"):
            await client.done()


def test_what_is_no_stream_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="a stream is an asynchronous iterator"):
        sse(["Hello"])  # type: ignore[arg-type]
    for heartbeat in (0, -1, True, "1"):
        with pytest.raises(ValueError, match="heartbeat must be a number of seconds above 0"):
            sse(ScriptedAgent().call_stream("Hi"), heartbeat=heartbeat)  # type: ignore[arg-type]


async def test_headers_of_ones_own() -> None:
    make = lambda: sse(ScriptedAgent().call_stream("Hi"), headers={"X-Mine": "1", "Cache-Control": "private"})  # noqa: E731
    async with Exchange(app_of(make)) as client:
        _, headers = await client.head()
    assert (headers["x-mine"], headers["cache-control"]) == ("1", "private")


# --- a submitted task -----------------------------------------------------------------------------------------------


async def test_a_submitted_task_is_read_again_from_where_its_reader_stood() -> None:
    more = asyncio.Event()
    agent = ScriptedAgent("Hello ", more, "world")
    async with MultiAgentScheduler({"one": agent}, event_bus=EventBus(), metrics=Metrics()) as scheduler:
        handle = await scheduler.submit(Task("t1", "Hi"))
        app = app_of(lambda: sse_follow(scheduler, handle.stream_id))
        async with Exchange(app) as client:
            assert (await client.head())[0] == 200
            started, hello = await client.event(), await client.event()
        assert agent.running == 1  # that its reader left is nothing to it
        more.set()
        await handle.result()

        async with Exchange(app, headers={"Last-Event-ID": started.id}) as client:
            await client.head()
            events = await client.rest()
        assert events[0] == hello
        assert [json.loads(event.data).get("seq") for event in events] == [2, 3, 4, 5, None]
        assert events[-1].type == "end"

        async with Exchange(app, headers={"Last-Event-ID": events[-1].id}) as client:
            assert (await client.head())[0] == 204
    assert len(agent.requests) == 1


async def test_a_cursor_that_cannot_be_and_a_stream_that_is_not_there() -> None:
    async with MultiAgentScheduler({"one": ScriptedAgent()}, event_bus=EventBus(), metrics=Metrics()) as scheduler:
        one = await scheduler.submit(Task("t1", "Hi"), owner="anna")
        two = await scheduler.submit(Task("t2", "Hi"))
        await one.result()
        async with Exchange(sse_follow(scheduler, two.stream_id)) as client:
            await client.head()
            other = (await client.event()).id
        for last, owner, status in [
            ("begun", "anna", 400),
            (other, "anna", 400),
            ("7" + other[1:], "anna", 400),
            ("", "bert", 404),
            ("", None, 200),
        ]:
            app = app_of(lambda owner=owner: sse_follow(scheduler, one.stream_id, owner=owner))
            async with Exchange(app, headers={"Last-Event-ID": last} if last else {}) as client:
                assert (await client.head())[0] == status


async def test_a_log_that_was_trimmed_is_gone() -> None:
    now = [0.0]
    store = MemoryStore(keep_logs=60, clock=lambda: now[0])
    async with MultiAgentScheduler({"one": ScriptedAgent("Hello")}, store=store, metrics=Metrics()) as scheduler:
        handle = await scheduler.submit(Task("t1", "Hi"))
        app = app_of(lambda: sse_follow(scheduler, handle.stream_id))
        async with Exchange(app) as client:
            await client.head()
            last = (await client.rest())[-2].id
        now[0] = 100.0
        await scheduler.execute_task(Task("t2", "Hi"))
        async with Exchange(app) as client:
            assert (await client.head())[0] == 410
            assert b"was trimmed" in await client.whole()
        async with Exchange(app, headers={"Last-Event-ID": last}) as client:
            assert (await client.head())[0] == 204


async def test_a_store_that_stops_does_not_look_like_an_end() -> None:
    store = MemoryStore()
    async with MultiAgentScheduler({"one": ScriptedAgent()}, store=store, metrics=Metrics()) as scheduler:
        await store.submit([StreamSpec("a stream", "t1")])
        store.append(await store.claim("a stream"), [Text("Hello")])
        async with Exchange(app_of(lambda: sse_follow(scheduler, "a stream"))) as client:
            await client.head()
            assert json.loads((await client.event()).data)["text"] == "Hello"
            await store.aclose()
            assert await client.rest() == []
    assert client.raw.endswith(b": not the end: connect again with the last id\nretry: 2000\n\n")


# --- the simple WebSocket -------------------------------------------------------------------------------------------


def socket_to(answers: Any, *, origins: Sequence[str] = (), **headers: str) -> Socket:
    app = FastAPI()

    async def stream(websocket: WebSocket) -> None:
        await websocket_stream(websocket, answers, origins=origins)

    stream.__annotations__["websocket"] = WebSocket  # which FastAPI goes by
    app.websocket("/stream")(stream)
    return Socket(app, "/stream", headers=headers)


async def test_a_prompt_is_answered_in_chunks() -> None:
    agent = ScriptedAgent("Hello ", "<world>")
    async with socket_to(agent.call_stream) as client:
        for prompt in ("one", "two"):
            await client.say(prompt)
            heard = [await client.hear() for _ in range(3)]
            assert heard == [
                {"type": "chunk", "data": "Hello "},
                {"type": "chunk", "data": "<world>"},
                {"type": "complete"},
            ]
    assert [request.prompt for request in agent.requests] == ["one", "two"]


@pytest.mark.parametrize(
    ("origin", "origins", "accepted"),
    [
        ("http://app.example:8000", (), True),
        ("https://evil.example", (), False),
        ("http://app.example", (), False),
        ("null", (), False),
        ("https://evil.example", ("https://good.example",), False),
        ("https://good.example", ("https://good.example",), True),
        ("https://evil.example", ("*",), True),
    ],
)
async def test_pages_of_other_origins_are_refused(origin: str, origins: Sequence[str], accepted: bool) -> None:
    agent = ScriptedAgent("Hello")
    async with socket_to(agent.call_stream, origins=origins, host="app.example:8000", origin=origin) as client:
        assert client.accepted is accepted


async def test_one_prompt_at_a_time() -> None:
    more = asyncio.Event()
    agent = ScriptedAgent("Hello ", more, "world")
    async with socket_to(agent.call_stream) as client:
        await client.say("one")
        await client.hear()
        await client.say("two")
        await client.say_bytes(b"three")
        errors = [await client.hear(), await client.hear()]
        more.set()
        assert [await client.hear(), await client.hear()] == [{"type": "chunk", "data": "world"}, {"type": "complete"}]
    assert [error["type"] for error in errors] == ["error", "error"]
    assert "one prompt at a time" in errors[0]["error"]["message"]
    assert "text frame" in errors[1]["error"]["message"]


async def test_a_client_that_leaves_stops_the_provider_though_nothing_comes() -> None:
    agent = ScriptedAgent("Hello ", asyncio.Event())
    async with socket_to(agent.call_stream) as client:
        await client.say("Hi")
        await client.hear()
    assert (agent.running, agent.closed) == (0, 1)


async def test_a_client_that_has_gone_before_it_was_noticed_stops_the_provider() -> None:
    more = asyncio.Event()
    agent = ScriptedAgent("Hello ", more, "world", asyncio.Event())
    async with socket_to(agent.call_stream) as client:
        await client.say("Hi")
        await client.hear()
        client.broken = True
        more.set()
        await client.done()
    assert (agent.running, agent.closed) == (0, 1)


async def test_an_answer_that_breaks_off_says_so_and_the_next_prompt_is_answered() -> None:
    agent = ScriptedAgent("Half a", DOWN)
    async with MultiAgentScheduler({"one": agent}, event_bus=EventBus(), metrics=Metrics()) as scheduler:
        for answers in (
            lambda prompt: agent.call_stream(prompt, errors="raise"),
            lambda prompt: scheduler.execute_task_stream(Task("chat", prompt)),
        ):
            async with socket_to(answers) as client:
                for _ in range(2):
                    await client.say("Hi")
                    assert await client.hear() == {"type": "chunk", "data": "Half a"}
                    error = await client.hear()
                    assert error == {
                        "type": "error",
                        "error": {"code": "overloaded_error", "message": "the provider is overloaded"},
                    }


async def test_a_mistake_is_told_over_the_socket() -> None:
    agent = ScriptedAgent("Hello")
    async with socket_to(lambda prompt: agent.call_stream(prompt, max_tokens=-1)) as client:
        await client.say("Hi")
        error = await client.hear()
    assert error["error"]["code"] == "invalid_request_error"
    assert "max_tokens" in error["error"]["message"]


async def test_a_bug_behind_the_socket_is_told_of_and_raised() -> None:
    async def broken(prompt: str) -> AsyncIterator[str]:
        yield prompt
        raise RuntimeError("a secret of the program")

    async with socket_to(broken) as client:
        await client.say("Hi")
        assert await client.hear() == {"type": "chunk", "data": "Hi"}
        assert (await client.hear())["error"] == {"code": "internal_error", "message": "the stream broke off"}
        with pytest.raises(RuntimeError, match="a secret of the program"):
            await client.done()


# --- the whole server -----------------------------------------------------------------------------------------------


async def test_the_server_under_a_path_of_the_app() -> None:
    app, host = FastAPI(), {"Host": "localhost"}
    async with MultiAgentScheduler(
        {"one": ScriptedAgent("Hello")}, event_bus=EventBus(), metrics=Metrics()
    ) as scheduler:
        server = mount(app, scheduler, settings=Settings(access_log=False))
        tasks = json.dumps({"tasks": [{"id": "t1", "prompt": "Hi"}]}).encode()
        json_body = {**host, "Content-Type": "application/json"}
        async with Exchange(app, "/llm/v1/tasks", method="POST", headers=json_body, body=tasks) as client:
            assert (await client.head())[0] == 202
            stream_id = json.loads(await client.whole())["streams"]["t1"]
        events = {**host, "Accept": "text/event-stream"}
        async with Exchange(app, f"/llm/v1/streams/{stream_id}", headers=events) as client:
            assert (await client.head())[0] == 200
            assert (await client.rest())[-1].type == "end"
        async with Exchange(app, f"/llm/v1/streams/{stream_id}/token", method="POST", headers=host) as client:
            await client.head()
            url = json.loads(await client.whole())["url"]
            assert url.startswith(f"/llm/v1/streams/{stream_id}?token=")
        async with Socket(app, "/llm/stream", headers=host) as socket:
            await socket.say("Hi")
            assert [await socket.hear(), await socket.hear()] == [
                {"type": "chunk", "data": "Hello"},
                {"type": "complete"},
            ]
        for path, headers, status in [
            ("/llm", host, 404),
            ("/llm/", host, 404),
            ("/v1/agents", host, 404),
            ("/llm/v1/agents", {"Host": "evil.example"}, 403),
        ]:
            async with Exchange(app, path, headers=headers) as client:
                assert (await client.head())[0] == (307 if path == "/llm" else status)
        await server.drain()
