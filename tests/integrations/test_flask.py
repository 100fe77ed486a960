"""Streams in a Flask app: a WSGI server's side of it, in threads without an event loop."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import pytest

from multi_agent_scheduler import Agent, EventBus, Metrics, MultiAgentScheduler, Task, blocking
from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.store.memory import MemoryStore
from multi_agent_scheduler.testing import ScriptedAgent
from multi_agent_scheduler.wire.sse import Decoder, Event

pytest.importorskip("flask", reason="needs flask")

from flask import Flask, Response
from werkzeug.test import Client

from multi_agent_scheduler.integrations.flask import sse, sse_follow

DOWN = agent_error(ErrorInfo("overloaded_error", "the provider is overloaded", status=529, detail="<b>gone</b>"))


@pytest.fixture(autouse=True)
def no_loop_left_behind() -> Iterator[None]:
    yield
    blocking.shut_down()


def client_of(make: Any) -> Client:
    app = Flask("app")

    @app.route("/")
    def stream() -> Response:
        response: Response = make()
        return response

    app.testing = True  # what a view raises is not hidden
    return app.test_client()


def events(body: bytes) -> list[Event]:
    return Decoder().feed(body)


def test_text_comes_as_events_and_ends_as_the_guide_says() -> None:
    agent = ScriptedAgent("Hello ", "<script>\nworld\n\n")
    with client_of(lambda: sse(agent.call_stream("Hi"))).get("/") as response:
        found = events(response.data)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert [(event.type, event.data) for event in found] == [
        ("message", b"Hello "),
        ("message", b"<script>\nworld\n\n"),
        ("complete", b"done"),
    ]


def test_the_dicts_of_a_scheduler_and_records() -> None:
    scheduler = MultiAgentScheduler({"one": ScriptedAgent("Hello")}, event_bus=EventBus(), metrics=Metrics())
    with client_of(lambda: sse(scheduler.execute_task_stream(Task("t1", "Hi")))).get("/") as response:
        chunk, final, complete = events(response.data)
    assert json.loads(chunk.data) == {"task_id": "t1", "chunk": "Hello", "done": False}
    assert json.loads(final.data)["result"] == "Hello"
    assert complete.type == "complete"
    blocking.run(scheduler.aclose())

    with client_of(lambda: sse(ScriptedAgent("Hello").stream("Hi"))).get("/") as response:
        *records, end = events(response.data)
    assert [json.loads(event.data)["type"] for event in records] == ["call_started", "text", "call_ended", "completed"]
    assert end.type == "end"


def test_an_event_goes_out_when_it_is_there_and_closing_stops_the_provider() -> None:
    agent = ScriptedAgent("Hello ", asyncio.Event())
    response = client_of(lambda: sse(agent.call_stream("Hi"))).get("/", buffered=False)
    body = response.iter_encoded()
    assert next(body) == b"id: begun\nretry: 2000\n\ndata: Hello \n\n"
    assert agent.running == 1
    response.close()
    assert (agent.running, agent.closed) == (0, 1)


def test_a_response_that_nobody_reads_stops_the_provider_when_it_is_closed() -> None:
    agent = ScriptedAgent("Hello ", asyncio.Event())
    client_of(lambda: sse(agent.call_stream("Hi"))).get("/", buffered=False).close()
    assert (agent.running, agent.closed) == (0, 1)


def test_silence_is_filled_with_comments() -> None:
    agent = ScriptedAgent(asyncio.Event(), "Hello")
    with client_of(lambda: sse(agent.call_stream("Hi"), heartbeat=0.01)).get("/", buffered=False) as response:
        body = response.iter_encoded()
        assert next(body) == b"id: begun\nretry: 2000\n\n: \n\n"
        assert [next(body), next(body)] == [b": \n\n", b": \n\n"]
    assert agent.running == 0


def test_a_browser_that_comes_back_is_told_to_stay_away_and_a_head_asks_nothing() -> None:
    agent = ScriptedAgent("Hello")
    client = client_of(lambda: sse(agent.call_stream("Hi")))
    assert client.get("/", headers={"Last-Event-ID": "begun"}).status_code == 204
    head = client.head("/")
    assert (head.status_code, head.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert agent.requests == []


def test_an_agent_that_fails_says_so_in_our_words() -> None:
    agent = ScriptedAgent("Half a", DOWN)
    with client_of(lambda: sse(agent.call_stream("Hi", errors="raise"))).get("/") as response:
        first, last = events(response.data)
    assert (response.status_code, first.data) == (200, b"Half a")
    assert (last.type, json.loads(last.data)["code"]) == ("failed", "overloaded_error")
    assert b"gone" not in last.data


def test_a_mistake_of_the_callers_has_a_status() -> None:
    agent = ScriptedAgent("Hello")
    with client_of(lambda: sse(agent.call_stream("Hi", max_tokens=-1))).get("/") as response:
        assert response.status_code == 400
        assert "max_tokens" in response.text
    scheduler = MultiAgentScheduler({"one": agent}, event_bus=EventBus(), metrics=Metrics())
    with client_of(lambda: sse(scheduler.execute_task_stream(Task("t1", "Hi"), "nobody"))).get("/") as response:
        assert response.status_code == 404
        assert "nobody" in response.text
    assert agent.requests == []
    blocking.run(scheduler.aclose())


def test_a_submitted_task_is_read_again_from_where_its_reader_stood() -> None:
    agent = ScriptedAgent("Hello ", "world")
    scheduler = MultiAgentScheduler({"one": agent}, event_bus=EventBus(), metrics=Metrics())
    handle = blocking.run(scheduler.submit(Task("t1", "Hi"), owner="anna"))
    client = client_of(lambda: sse_follow(scheduler, handle.stream_id, owner="anna"))
    with client.get("/") as response:
        found = events(response.data)
    assert [json.loads(event.data).get("seq") for event in found] == [1, 2, 3, 4, 5, None]
    with client.get("/", headers={"Last-Event-ID": found[2].id}) as response:
        assert [event.id for event in events(response.data)[:-1]] == [event.id for event in found[3:-1]]
    assert client.get("/", headers={"Last-Event-ID": found[-1].id}).status_code == 204
    assert client.get("/", headers={"Last-Event-ID": "begun"}).status_code == 400
    assert client_of(lambda: sse_follow(scheduler, handle.stream_id, owner="bert")).get("/").status_code == 404
    blocking.run(scheduler.aclose())


def test_a_log_that_was_trimmed_is_gone() -> None:
    now = [0.0]
    store = MemoryStore(keep_logs=60, clock=lambda: now[0])
    scheduler = MultiAgentScheduler({"one": ScriptedAgent("Hello")}, store=store, metrics=Metrics())
    handle = blocking.run(scheduler.submit(Task("t1", "Hi")))
    client = client_of(lambda: sse_follow(scheduler, handle.stream_id))
    with client.get("/") as response:
        last = events(response.data)[-2].id
    now[0] = 100.0
    blocking.run(scheduler.execute_task(Task("t2", "Hi")))
    answer = client.get("/")
    assert answer.status_code == 410 and "was trimmed" in answer.text
    assert client.get("/", headers={"Last-Event-ID": last}).status_code == 204
    blocking.run(scheduler.aclose())


def test_a_bug_in_a_stream_is_told_of_and_raised() -> None:
    async def broken() -> AsyncIterator[str]:
        yield "Half a"
        raise RuntimeError("a secret of the program")

    with client_of(lambda: sse(broken())).get("/", buffered=False) as response:
        body = response.iter_encoded()
        next(body)
        last = events(next(body))[0]
        assert (last.type, json.loads(last.data)["code"]) == ("failed", "internal_error")
        with pytest.raises(RuntimeError, match="a secret of the program"):
            next(body)


def test_what_is_no_stream_is_refused_at_once() -> None:
    agent: Agent = ScriptedAgent("Hello")
    with (
        Flask("app").test_request_context(),
        pytest.raises(TypeError, match="a stream is an asynchronous iterator"),
    ):
        sse(agent.call_stream_sync("Hi"))  # type: ignore[arg-type]


def test_many_workers_at_once() -> None:
    agent = ScriptedAgent("Hello ", "world")
    client = client_of(lambda: sse(agent.call_stream("Hi")))
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(client.get("/").data)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(bodies)) == 1
    assert len(bodies) == len(agent.requests) == 8


def test_any_wsgi_server() -> None:
    """The standard library's server, and its checker of the rules of WSGI (PEP 3333), over a real connection."""
    agent = ScriptedAgent("Hello ", asyncio.Event(), "world")
    app = Flask("app")

    @app.route("/")
    def stream() -> Response:
        return sse(agent.call_stream("Hi"), heartbeat=0.01)

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with make_server("127.0.0.1", 0, validator(app.wsgi_app), handler_class=Quiet) as server:
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        with socket.create_connection(server.server_address) as client:  # type: ignore[arg-type]
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            received = b""
            while b"data: Hello \n\n: \n\n" not in received:
                received += client.recv(1000)
        serving.join(10)  # the reader has left: within a heartbeat the server notices
        assert not serving.is_alive()
    head, _, body = received.partition(b"\r\n\r\n")
    assert b" 200 OK\r\n" in head
    assert body.startswith(b"id: begun\nretry: 2000\n\ndata: Hello \n\n: \n\n")
    assert (agent.running, agent.closed) == (0, 1)
