"""What a client may not do, and what it is told: sizes, times, and shapes of requests; and how the server ends."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from multi_agent_scheduler.server import Settings
from multi_agent_scheduler.testing import ScriptedAgent

from ..agents.server import eventually as comes_true
from .served import Served, events_of, eventually, serving, task

POST = b"POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
HEAD = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*served.process.address)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def said(served: Served, data: bytes) -> bytes:
    """Everything that comes for these bytes, until the server closes the connection."""
    async with connected(served) as (reader, writer):
        writer.write(data)
        return await reader.read()


def quick(**settings: Any) -> Settings:
    return Settings(access_log=False, **settings)


# --- bodies -----------------------------------------------------------------------------------------------------


async def test_a_body_has_a_largest_size_however_it_is_sent() -> None:
    async with serving({"a": ScriptedAgent("x")}, settings=quick(max_body=1000)) as served:
        json = {"content-type": "application/json"}
        announced = await served.http.post("/v1/tasks", content=b" " * 1001, headers=json)

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(11):
                yield b" " * 100

        chunked = await served.http.post("/v1/tasks", content=pieces(), headers=json)
        for answer in (announced, chunked):
            assert answer.status_code == 413
            assert answer.json()["code"] == "request_too_large"
        lying = await said(served, POST + b"content-length: 99999999999999999999999\r\nconnection: close\r\n\r\n{")
        assert lying.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))


async def test_a_body_that_does_not_come_is_given_up() -> None:
    async with serving({"a": ScriptedAgent("x")}, settings=quick(body_timeout=0.05)) as served:
        answer = await said(
            served,
            POST + b"content-length: 9\r\n\r\n{",
        )
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"null", "application/json", 400),
        (b'{"tasks": [{"id": "\xff"}]}', "application/json", 400),
        (b'{"tasks": [{"id": "\\ud800", "prompt": "x"}]}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"tasks": [{"id": "a", "prompt": "x", "metadata": ' + b'{"a":' * 50_000, "application/json", 400),
        (b'{"tasks": [{"id": "a", "prompt": "x", "metadata": {"n": 1e999}}]}', "application/json; charset=utf-8", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b"{}", "multipart/form-data; boundary=x", 415),
    ],
)
async def test_a_body_that_is_none_is_told(content: bytes, kind: str, status: int) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        answer = await served.http.post("/v1/tasks", content=content, headers={"content-type": kind} if kind else {})
        assert answer.status_code == status, answer.text
        assert answer.json()["detail"]


async def test_what_an_id_has_in_it_stays_in_json() -> None:
    name = "a\r\nevent: x\n\ndata: <script>\u2028"
    async with serving({"a": ScriptedAgent("x")}) as served:
        streams = await served.submit(task(name))
        answer = await served.events(streams[name])
        assert [event.type for event in events_of(answer.content)][:-1] == ["message"] * 4
        assert (await served.http.get(f"/v1/streams/{streams[name]}")).json()["task_id"] == name


async def test_wrong_methods_are_told_which_are_right() -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        for method, path, allowed in [
            ("GET", "/v1/tasks", "OPTIONS, POST"),
            ("DELETE", "/v1/streams/x", "GET, HEAD, OPTIONS"),
            ("PUT", "/healthz", "GET, HEAD, OPTIONS"),
        ]:
            answer = await served.http.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        options = await served.http.options("/v1/tasks")
        assert (options.status_code, options.headers["allow"]) == (204, "OPTIONS, POST")


# --- heads and connections --------------------------------------------------------------------------------------


async def test_a_head_has_a_largest_size() -> None:
    async with serving({"a": ScriptedAgent("x")}, settings=quick(max_header=4096)) as served:
        fits = await said(served, HEAD + b"x: " + b"y" * 3000 + b"\r\nconnection: close\r\n\r\n")
        assert fits.startswith(b"HTTP/1.1 200")
        for much in (b"x: " + b"y" * 5000, b"x: y\r\n" * 1000):
            async with connected(served) as (reader, writer):
                for start in range(0, len(much), 500):
                    writer.write((HEAD if not start else b"") + much[start : start + 500])
                    with suppress(ConnectionError):
                        await writer.drain()
                with suppress(ConnectionError):
                    assert (await reader.read()).startswith(b"HTTP/1.1 431")


async def test_a_head_must_come_in_time() -> None:
    async with serving({"a": ScriptedAgent("x")}, settings=quick(header_timeout=0.05)) as served:
        assert (await said(served, HEAD)).startswith(b"HTTP/1.1 408")
        assert await said(served, b"") == b""
        assert await said(served, b"\r\n\r\n") == b""
        answered_and_half = await said(served, HEAD + b"\r\n" + HEAD)
        assert answered_and_half.startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 408" in answered_and_half


async def test_connections_have_a_largest_number() -> None:
    async with serving({"a": ScriptedAgent("x")}, settings=quick(max_connections=2)) as served:
        async with connected(served) as one, connected(served) as two:
            for _, writer in (one, two):
                writer.write(HEAD + b"\r\n")
            for reader, _ in (one, two):
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            refused = await said(served, HEAD + b"\r\n")
            assert refused.startswith(b"HTTP/1.1 503")
        await eventually_async(served)


async def eventually_async(served: Served) -> None:
    """A connection is free again."""
    while not (await said(served, HEAD + b"connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200"):
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx\x00y: z\r\nconnection: close\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /%ff%fe/%00 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    ],
)
async def test_what_is_no_request_gets_a_refusal(data: bytes) -> None:
    async with serving({"a": ScriptedAgent("x")}, settings=quick(header_timeout=0.5, body_timeout=0.5)) as served:
        answer = await said(served, data)
        assert answer.startswith(b"HTTP/1.1 4")
        assert (await served.http.get("/healthz")).status_code == 200


# --- slow readers -----------------------------------------------------------------------------------------------


@contextmanager
def stalled(served: Served, stream_id: str) -> Iterator[socket.socket]:
    """A reader with small buffers that has asked for a stream and reads nothing."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(served.process.address)
        head = f"GET /v1/streams/{stream_id} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n"
        connection.sendall(head.encode())
        yield connection


def everything(connection: socket.socket) -> bytes:
    """The body of the answer, read to its end."""
    data = b""
    while not data.endswith(b"\r\n0\r\n\r\n"):
        data += connection.recv(65536)
    return b"".join(_chunks(data.partition(b"\r\n\r\n")[2]))


async def test_readers_that_take_nothing_slow_nobody_and_get_all_of_it_later() -> None:
    script = [f"{number:06} " + "x" * 1000 for number in range(8000)]  # 8 MB: more than sockets hold
    async with serving({"a": ScriptedAgent(*script)}) as served:
        streams = await served.submit(task())
        with stalled(served, streams["a"]) as one, stalled(served, streams["a"]) as two:
            whole = await served.events(streams["a"])
            assert len(whole.content) > 8_000_000
            assert len(served.app.relays) == 2
            assert all(relay.seq < 8002 for relay in served.app.relays)  # they hold no more than their connections do
            late = await asyncio.gather(asyncio.to_thread(everything, one), asyncio.to_thread(everything, two))
            assert late == [whole.content] * 2


async def test_a_reader_that_takes_nothing_for_too_long_is_let_go() -> None:
    settings = quick(heartbeat=0.02, stall_timeout=0.05)
    async with serving({"a": ScriptedAgent(*["x" * 10_000] * 1000)}, settings=settings) as served:
        streams = await served.submit(task())
        with stalled(served, streams["a"]):
            await eventually(lambda: served.app.relays)
            async with asyncio.timeout(5):
                for relay in served.app.relays.copy():
                    await relay.over
        await eventually(lambda: not served.app.relays)


async def test_who_takes_nothing_of_a_whole_answer_is_let_go_of_too() -> None:
    agent = ScriptedAgent(*["x" * 1_000_000] * 12)
    async with serving({"a": agent}, settings=quick(stall_timeout=0.1, keep_alive=1)) as served:
        streams = await served.submit(task())
        await served.scheduler.wait_idle()
        connections = served.process._uvicorn.server_state.connections
        with socket.socket() as taker, socket.socket() as closing:
            for client, header in ((taker, b""), (closing, b"connection: close\r\n")):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(served.process.address)
                client.sendall(b"GET /v1/streams/%b HTTP/1.1\r\nhost: localhost\r\n" % streams["a"].encode() + header)
                client.sendall(b"\r\n")
            await comes_true(lambda: len(connections) == 2)
            await comes_true(lambda: not connections)


def _chunks(body: bytes) -> list[bytes]:
    found, place = [], 0
    while place < len(body):
        end = body.index(b"\r\n", place)
        size = int(body[place:end], 16)
        found.append(body[end + 2 : end + 2 + size])
        place = end + 4 + size
        if not size:
            break
    return found


async def test_silence_is_filled_with_heartbeats() -> None:
    gate = asyncio.Event()
    async with serving({"a": ScriptedAgent("x", gate)}, settings=quick(heartbeat=0.02)) as served:
        streams = await served.submit(task())
        seen = b""
        async with served.http.stream(
            "GET", f"/v1/streams/{streams['a']}", headers={"accept": "text/event-stream"}
        ) as answer:
            async for chunk in answer.aiter_bytes():
                seen += chunk
                if seen.count(b": keep-alive\n\n") >= 2:
                    gate.set()
        assert events_of(seen)[-1].type == "end"


# --- the end ----------------------------------------------------------------------------------------------------


async def test_when_the_server_is_stopped_readers_are_told_to_come_back() -> None:
    agent = ScriptedAgent("x", asyncio.Event())
    async with serving({"a": agent}) as served:
        streams = [(await served.submit(task()))["a"] for _ in range(20)]
        readers = [asyncio.ensure_future(served.events(stream_id)) for stream_id in streams]
        await eventually(lambda: len(served.app.relays) == 20)
        began = time.monotonic()
        served.process.stop()
        for reader in readers:
            body = (await reader).content
            events = events_of(body)
            assert events[-1].type == "message"
            assert events[-1].id
            assert body.endswith(b": not the end: connect again with the last id\nretry: 1000\n\n")
        assert time.monotonic() - began < 5


async def test_when_the_server_is_stopped_who_waits_for_a_whole_answer_is_told_to_come_again() -> None:
    async with serving({"a": ScriptedAgent("x", asyncio.Event())}, settings=quick(drain=0.05)) as served:
        body = {"model": "a", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        asked = [asyncio.ensure_future(served.post(f"/v1/{path}", body)) for path in ("chat/completions", "messages")]
        await eventually(lambda: served.scheduler.open_streams() == 2)
        served.process.stop()
        answers = [await answer for answer in asked]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert {answer.headers["retry-after"] for answer in answers} == {"1"}
        assert [answer.json()["error"]["type"] for answer in answers] == ["overloaded_error"] * 2


async def test_a_stopped_server_is_not_ready() -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        assert (await served.http.get("/readyz")).status_code == 200
        await served.app.drain()
        answer = await served.http.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded_error")
        assert (await served.http.get("/healthz")).json() == {"status": "ok"}


async def test_figures_for_prometheus() -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        streams = await served.submit(task())
        await served.events(streams["a"])
        await served.http.get("/v1/nothing")
        answer = await served.http.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'mas_server_requests_total{method="POST",route="/v1/tasks",status="202"} 1' in answer.text
        assert 'route="/v1/streams/{stream_id}"' in answer.text
        assert streams["a"] not in answer.text
        assert "mas_server_readers 0" in answer.text
