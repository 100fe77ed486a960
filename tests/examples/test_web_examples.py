"""The web examples, each as a process of its own, read by real clients."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from multi_agent_scheduler.agents import LocalAgent
from multi_agent_scheduler.wire.sse import Decoder, Event

from .running import running

pytest.importorskip("fastapi", reason="needs fastapi")
pytest.importorskip("flask", reason="needs flask")
pytest.importorskip("uvicorn", reason="needs uvicorn")
pytest.importorskip("websockets", reason="needs websockets")

from websockets.sync.client import connect


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30, trust_env=False) as client:
        yield client


def events(response: httpx.Response) -> Iterator[Event]:
    """The events as they come."""
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    decoder = Decoder()
    for data in response.iter_bytes():
        yield from decoder.feed(data)


def read(http: httpx.Client, url: str, **headers: str) -> list[Event]:
    with http.stream("GET", url, headers=headers) as response:
        return list(events(response))


def resumed(http: httpx.Client, place: str) -> None:
    """A task is started, left after its first words, and read on; the browser that has seen the end is sent away."""
    stream_id = http.post(f"http://{place}/tasks", params={"prompt": "the quick brown fox"}).json()["stream_id"]
    url = f"http://{place}/streams/{stream_id}"
    seen = []
    with http.stream("GET", url) as response:
        for event in events(response):
            seen.append(event)
            if json.loads(event.data)["type"] == "text":
                break
    seen += read(http, url, **{"Last-Event-ID": seen[-1].id})
    assert seen == read(http, url)
    assert seen[-1].type == "end"
    records = [json.loads(event.data) for event in seen[:-1]]
    assert "".join(record.get("text", "") for record in records) == "the quick brown fox "
    assert records[-1]["type"] == "completed"
    assert http.get(url, headers={"Last-Event-ID": seen[-1].id}).status_code == 204
    assert http.get(url, headers={"Last-Event-ID": "garbage"}).status_code == 400
    assert http.get(f"http://{place}/streams/none").status_code == 404


def test_sse_server(http: httpx.Client) -> None:
    with running("sse_server", "--agent", "echo") as place:
        page = http.get(f"http://{place}/")
        found = read(http, f"http://{place}/stream-sse?prompt=one+two")
        resumed(http, place)
    assert page.headers["content-type"].startswith("text/html")
    assert "innerHTML" not in page.text
    assert [(event.type, event.data) for event in found] == [
        ("message", b"one "),
        ("message", b"two "),
        ("complete", b"done"),
    ]


def test_flask_app(http: httpx.Client) -> None:
    with running("flask_app", "--agent", "echo") as place:
        found = read(http, f"http://{place}/stream?prompt=one+two")
        resumed(http, place)
    assert [event.data for event in found] == [b"one ", b"two ", b"done"]


def test_websocket_chat(http: httpx.Client) -> None:
    with running("websocket_chat", "--agent", "echo") as place:
        page = http.get(f"http://{place}/").text
        with connect(f"ws://{place}/stream", origin=f"http://{place}", proxy=None) as client:
            for prompt in ("one <two>", "three four"):
                client.send(prompt)
                messages = [json.loads(client.recv()) for _ in range(3)]
                assert messages == [
                    *({"type": "chunk", "data": f"{it} "} for it in prompt.split()),
                    {"type": "complete"},
                ]
    assert "textContent" in page
    assert "innerHTML" not in page


def test_fastapi_app(http: httpx.Client) -> None:
    with running("fastapi_app", "--agent", "echo") as place:
        text = http.post(f"http://{place}/chat/stream", params={"prompt": "one two"}).text
        found = read(http, f"http://{place}/stream-sse?prompt=one+two")
        *dicts, complete = read(http, f"http://{place}/tasks-sse?prompt=one+two")
        with connect(f"ws://{place}/stream", proxy=None) as client:
            client.send("one")
            said = [json.loads(client.recv()), json.loads(client.recv())]
        agents = http.get(f"http://{place}/llm/v1/agents").json()
    assert text == "one two "
    assert [event.data for event in found] == [b"one ", b"two ", b"done"]
    items = [json.loads(event.data) for event in dicts]
    assert [item.get("chunk") for item in items] == ["one ", "two ", None]
    assert items[-1]["result"] == "one two "
    assert complete.type == "complete"
    assert said == [{"type": "chunk", "data": "one "}, {"type": "complete"}]
    assert [agent["name"] for agent in agents["agents"]] == ["agent"]


def test_with_no_key_and_no_choice_the_embedded_model_answers(http: httpx.Client) -> None:
    missing = LocalAgent().missing
    if missing is not None:
        pytest.skip(f"needs the embedded model: {missing}")
    with running("sse_server") as place:
        *text, last = read(http, f"http://{place}/stream-sse?prompt=Say+hello")
    assert len(text) > 1
    assert {event.type for event in text} == {"message"}
    assert last.type == "complete"
