"""Who may do what: keys, owners, tokens, limits, hosts and origins."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import websockets

from multi_agent_scheduler.errors import InvalidConfiguration, InvalidOption
from multi_agent_scheduler.records import Usage
from multi_agent_scheduler.server import Keys, Settings, tokens
from multi_agent_scheduler.server.keys import KeyLimits
from multi_agent_scheduler.testing import ScriptedAgent

from .served import Served, events_of, eventually, serving, task

# --- the file of keys -------------------------------------------------------------------------------------------


def test_a_key_is_given_out_once_and_not_kept(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "deep" / "keys")
    key = keys.create("ci")
    assert key.startswith("mas_")
    assert len(key) >= 47
    assert key.encode() not in (tmp_path / "deep" / "keys").read_bytes()
    assert stat.S_IMODE(os.stat(tmp_path / "deep" / "keys").st_mode) == 0o600
    found = keys.check(key)
    assert found is not None
    assert (found.name, found.owner) == ("ci", "ci")
    for other in ("", key[:-1], key + "x", key.upper(), "mas_", "\ud800"):
        assert keys.check(other) is None


def test_keys_are_seen_by_another_process_at_once(tmp_path: Path) -> None:
    server, command = Keys(tmp_path / "keys"), Keys(tmp_path / "keys")
    assert not server.required
    key = command.create("a", owner="team", limits=KeyLimits(requests_per_minute=5))
    assert server.required
    found = server.check(key)
    assert found is not None
    assert (found.owner, found.limits.requests_per_minute) == ("team", 5)
    command.revoke("a")
    assert server.check(key) is None
    assert server.required
    assert server.all() == []
    (tmp_path / "keys").unlink()
    assert server.required  # a server that asks for keys does so for as long as it lives


def test_the_secret_outlives_the_process(tmp_path: Path) -> None:
    secret = Keys(tmp_path / "keys").secret
    assert len(secret) == 32
    assert Keys(tmp_path / "keys").secret == secret
    Keys(tmp_path / "keys").create("a")
    assert Keys(tmp_path / "keys").secret == secret
    assert not Keys(tmp_path / "other").required
    assert Keys(None).secret != Keys(None).secret


def test_what_is_wrong_with_keys_is_told(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    keys.create("a")
    with pytest.raises(InvalidOption, match="'a' already"):
        keys.create("a")
    with pytest.raises(InvalidOption, match="no key 'b'"):
        keys.revoke("b")
    for name in ("", " a", "a\nb", "x" * 65):
        with pytest.raises(InvalidOption, match="printable"):
            keys.create(name)
    with pytest.raises(InvalidOption, match="requests_per_minute"):
        KeyLimits(requests_per_minute=0)
    with pytest.raises(InvalidOption, match="pace"):
        KeyLimits(pace="fast")
    with pytest.raises(InvalidOption, match="in memory"):
        Keys(None).create("a")
    for text in ("{", "[]", '{"secret": "xyz", "keys": []}'):
        (tmp_path / "broken").write_text(text)
        with pytest.raises(InvalidConfiguration, match="no file of keys"):
            Keys(tmp_path / "broken").all()


# --- owners -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def with_keys(
    tmp_path: Path, agents: dict[str, Any], *, settings: Settings | None = None, **limits: Any
) -> AsyncIterator[tuple[Served, dict[str, str], dict[str, str]]]:
    """A server with two keys; gives the headers of each. ``limits`` are the first key's."""
    keys = Keys(tmp_path / "keys")
    first, second = keys.create("first", limits=KeyLimits(**limits)), keys.create("second")
    async with serving(agents, keys=keys, settings=settings) as served:
        yield served, {"authorization": f"Bearer {first}"}, {"x-api-key": second}


async def test_without_a_key_nothing_is_answered(tmp_path: Path) -> None:
    async with with_keys(tmp_path, {"a": ScriptedAgent("x")}) as (served, first, _):
        mine = (await served.submit(task(), headers=first))["a"]
        for route in served.app.router.routes:
            path = re.sub(r"\{\w+\}", mine, route.path)
            answer = await served.http.request(route.method, path, json={})
            if route.public:
                assert answer.status_code == 200, path
                continue
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            wrong = await served.http.request(
                route.method, path, json={}, headers={"authorization": "Bearer mas_wrong"}
            )
            assert wrong.status_code == 401, path


async def test_another_owners_stream_is_one_that_is_not_there(tmp_path: Path) -> None:
    agent = ScriptedAgent("secret", asyncio.Event())
    async with with_keys(tmp_path, {"a": agent}) as (served, first, second):
        answer = await served.post("/v1/tasks", {"tasks": [task()]}, headers=first)
        plan_id, stream_id = answer.json()["plan_id"], answer.json()["streams"]["a"]
        cursor = (await served.http.get(f"/v1/streams/{stream_id}", headers=first)).json()["cursor"]

        async def both(method: str, path: str, **more: str) -> tuple[Any, Any]:
            """What the route says of the stream, and of one that nobody has."""
            nobody = "0" * len(stream_id)
            found = await served.http.request(method, path.format(stream_id), headers={**second, **more})
            absent = await served.http.request(method, path.format(nobody), headers={**second, **more})
            return found, absent

        for method, path, more in [
            ("GET", "/v1/streams/{}", {}),
            ("GET", "/v1/streams/{}", {"accept": "text/event-stream"}),
            ("GET", "/v1/streams/{}", {"accept": "text/event-stream", "last-event-id": cursor}),
            ("POST", "/v1/streams/{}/cancel", {}),
            ("POST", "/v1/streams/{}/token", {}),
            ("GET", "/v1/streams?before={}", {}),
            ("GET", "/v1/responses/{}", {}),
            ("POST", "/v1/responses/{}/cancel", {}),
        ]:
            found, absent = await both(method, path, **more)
            assert found.status_code == absent.status_code == 404, path
            assert found.text.replace(stream_id, "X") == absent.text.replace("0" * len(stream_id), "X")
        assert (await served.http.get(f"/v1/plans/{plan_id}", headers=second)).status_code == 404
        assert (await served.http.get("/v1/streams", headers=second)).json()["streams"] == []
        listed = await served.http.get(f"/v1/streams?plan_id={plan_id}", headers=second)
        assert listed.json()["streams"] == []
        assert agent.running == 1
        mine = await served.http.get(f"/v1/streams/{stream_id}", headers=first)
        assert mine.status_code == 200
        # The same Idempotency-Key of two owners names two plans.
        again = {"idempotency-key": "k"}
        assert await served.submit(task(), headers={**first, **again}) != await served.submit(
            task(), headers={**second, **again}
        )


async def test_a_revoked_key_works_no_more(tmp_path: Path) -> None:
    async with with_keys(tmp_path, {"a": ScriptedAgent("x")}) as (served, first, second):
        assert (await served.http.get("/v1/agents", headers=first)).status_code == 200
        stream = (await served.submit(task(), headers=first))["a"]
        url = (await served.http.post(f"/v1/streams/{stream}/token", headers=first)).json()["url"]
        assert (await served.http.get(url)).status_code == 200
        Keys(tmp_path / "keys").revoke("first")
        assert (await served.http.get("/v1/agents", headers=first)).status_code == 401
        assert (await served.http.get("/v1/agents", headers=second)).status_code == 200
        assert (await served.http.get(url)).status_code == 401


SOCKETS = [
    ("/v1/ws", {"type": "submit", "tasks": [task()]}),
    ("/v1/ws", {"type": "subscribe", "stream_id": "STREAM"}),
    ("/v1/ws", {"type": "cancel", "stream_id": "STREAM"}),
    ("/v1/ws", {"type": "ping"}),
    ("/stream", "hello"),
]


@pytest.mark.parametrize(("path", "message"), SOCKETS)
async def test_a_revoked_key_is_not_heard_on_a_socket_that_is_open(path: str, message: Any, tmp_path: Path) -> None:
    agent = ScriptedAgent("x", asyncio.Event())
    async with with_keys(tmp_path, {"a": agent}) as (served, first, second):
        stream = (await served.submit(task(), headers=first))["a"]
        await eventually(lambda: agent.running)
        said = message if path == "/stream" else msgspec.json.encode(message).decode().replace("STREAM", stream)
        url = served.url.replace("http", "ws") + path
        async with (
            websockets.connect(url, additional_headers=first) as socket,
            websockets.connect(url, additional_headers=second) as other,
        ):
            Keys(tmp_path / "keys").revoke("first")
            await socket.send(said)
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "this key was revoked")
            await other.send(msgspec.json.encode({"type": "ping"}).decode())
            assert await other.recv()
        await eventually(lambda: agent.running == 1)
        assert served.scheduler.find(stream).state == "running"
        await eventually(lambda: not served.app.sockets)


@pytest.mark.parametrize("opened", ["a key", "a token"])
async def test_who_only_listens_with_a_revoked_key_is_let_go_of(opened: str, tmp_path: Path) -> None:
    settings = Settings(access_log=False, heartbeat=0.02)
    async with with_keys(tmp_path, {"a": ScriptedAgent("x", asyncio.Event())}, settings=settings) as (served, first, _):
        stream = (await served.submit(task(), headers=first))["a"]
        url, headers = f"/v1/streams/{stream}", {"accept": "text/event-stream"}
        if opened == "a token":
            url = (await served.http.post(f"{url}/token", headers=first)).json()["url"]
        else:
            headers |= first
        chat = {"model": "a", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with (
            served.http.stream("GET", url, headers=headers) as events,
            served.http.stream("POST", "/v1/chat/completions", json=chat, headers=first) as answer,
            websockets.connect(served.url.replace("http", "ws") + "/v1/ws", additional_headers=first) as socket,
        ):
            Keys(tmp_path / "keys").revoke("first")
            assert "end" not in [event.type for event in events_of(await events.aread())]
            assert "this key was revoked" in (await answer.aread()).decode()
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
        assert served.scheduler.find(stream).state == "running"  # it is for its owner, or for mas serve, to stop it


async def test_changed_limits_hold_for_sockets_that_are_open(tmp_path: Path) -> None:
    async with with_keys(tmp_path, {"a": ScriptedAgent("x")}) as (served, first, _):
        url, path = served.url.replace("http", "ws") + "/v1/ws", tmp_path / "keys"
        async with websockets.connect(url, additional_headers=first) as socket:
            for number, status in ((None, 202), (1, 202), (1, 429), (3, 202), (None, 202)):
                file = msgspec.json.decode(path.read_bytes())
                file["keys"][0]["limits"] = {} if number is None else {"requests_per_minute": number}
                path.with_suffix(".new").write_bytes(msgspec.json.encode(file))
                path.with_suffix(".new").rename(path)
                await socket.send(msgspec.json.encode({"type": "submit", "tasks": [task()]}).decode())
                reply = msgspec.json.decode(await socket.recv())
                assert reply.get("status", 202) == status, reply


async def test_keys_and_tokens_are_in_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with with_keys(tmp_path, {"a": ScriptedAgent("x")}, settings=Settings()) as (served, first, second):
        mine = (await served.submit(task(), headers=first))["a"]
        token = (await served.http.post(f"/v1/streams/{mine}/token", headers=first)).json()["token"]
        await served.http.get(f"/v1/streams/{mine}?token={token}")
        await served.http.get("/v1/agents", headers={"authorization": "Bearer mas_wrong_one"})
        await served.http.get("/v1/\u2028x%0ay")
    lines = [record.getMessage() for record in caplog.records if record.name == "multi_agent_scheduler.access"]
    assert len(lines) == 5
    for line in lines:
        assert "\n" not in line
    everything = "\n".join(lines)
    for secret in (first["authorization"][7:], second["x-api-key"], token, "mas_wrong_one"):
        assert secret not in everything


# --- tokens -----------------------------------------------------------------------------------------------------


async def test_a_token_opens_one_stream_for_reading(tmp_path: Path) -> None:
    async with with_keys(tmp_path, {"a": ScriptedAgent("x")}) as (served, first, _):
        streams = await served.submit(task("a"), task("b"), headers=first)
        made = await served.http.post(f"/v1/streams/{streams['a']}/token?seconds=60", headers=first)
        assert made.status_code == 201
        answer = await served.http.get(made.json()["url"], headers={"accept": "text/event-stream"})
        assert events_of(answer.content)[-1].type == "end"
        token = made.json()["token"]
        for method, path in [
            ("GET", f"/v1/streams/{streams['b']}"),
            ("POST", f"/v1/streams/{streams['a']}/cancel"),
            ("POST", f"/v1/streams/{streams['a']}/token"),
            ("GET", "/v1/streams"),
            ("GET", "/v1/agents"),
        ]:
            assert (await served.http.request(method, path, params={"token": token})).status_code == 401, path
        for wrong in (token[:-1], token + "A", "..", "a.b.c", "\u00e9.1.x", token.replace(".", ".9", 1)):
            answer = await served.http.get(f"/v1/streams/{streams['a']}", params={"token": wrong})
            assert answer.status_code == 401, wrong
        for seconds in ("0", "3601", "x"):
            bad = await served.http.post(f"/v1/streams/{streams['a']}/token?seconds={seconds}", headers=first)
            assert bad.status_code == 400


def test_a_token_expires_and_is_bound() -> None:
    made = tokens.token(b"secret", "stream", "owner\u00e9", 1000)
    assert tokens.owner_of(b"secret", made, "stream", 999.9) == "owner\u00e9"
    assert tokens.owner_of(b"secret", made, "stream", 1000) is None
    assert tokens.owner_of(b"another", made, "stream", 0) is None
    assert tokens.owner_of(b"secret", made, "other", 0) is None
    name, expiry, seal = made.split(".")
    assert tokens.owner_of(b"secret", f"{name}.{int(expiry) + 1}.{seal}", "stream", 0) is None
    assert tokens.owner_of(b"secret", f"{name[:-2]}.{expiry}.{seal}", "stream", 0) is None


# --- limits -----------------------------------------------------------------------------------------------------


async def test_requests_of_a_key_are_limited_and_told(tmp_path: Path) -> None:
    async with with_keys(tmp_path, {"a": ScriptedAgent("x")}, requests_per_minute=2) as (served, first, second):
        answers = [await served.post("/v1/tasks", {"tasks": [task()]}, headers=first) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        assert [answer.headers["ratelimit"].split(";t=")[0] for answer in answers] == [
            '"requests";r=1',
            '"requests";r=0',
            '"requests";r=0',
        ]
        assert answers[0].headers["ratelimit-policy"] == '"requests";q=2;w=60'
        assert 1 <= int(answers[2].headers["retry-after"]) <= 61
        assert answers[2].json()["code"] == "rate_limit_error"
        assert (await served.http.get("/v1/agents", headers=first)).status_code == 200  # reading starts nothing
        free = await served.post("/v1/tasks", {"tasks": [task()]}, headers=second)
        assert free.status_code == 202
        assert "ratelimit" not in free.headers


async def test_tokens_of_a_key_are_limited(tmp_path: Path) -> None:
    agent = ScriptedAgent("x", Usage(input_tokens=60, output_tokens=50))
    async with with_keys(tmp_path, {"a": agent}, tokens_per_minute=100) as (served, first, second):
        stream = (await served.submit(task(), headers=first))["a"]
        await served.events(stream, **first)
        over = await served.post("/v1/tasks", {"tasks": [task()]}, headers=first)
        assert over.status_code == 429
        assert "100 tokens" in over.json()["detail"]
        assert over.headers["ratelimit-policy"] == '"tokens";q=100;w=60'
        assert (await served.post("/v1/tasks", {"tasks": [task()]}, headers=second)).status_code == 202


async def test_tokens_count_while_they_stream(tmp_path: Path) -> None:
    said, more = asyncio.Event(), asyncio.Event()
    agent = ScriptedAgent("x" * 200, said, "x" * 400, more, Usage(input_tokens=10, output_tokens=60))
    async with with_keys(tmp_path, {"a": agent}, tokens_per_minute=100) as (served, first, second):

        async def left() -> int:
            answer = await served.http.get("/v1/agents", headers=first)
            return int(answer.headers["ratelimit"].split("r=")[1].split(";")[0])

        stream = (await served.submit(task(), headers=first))["a"]
        while (known := await left()) == 100:
            pass
        assert known <= 50  # a token for four characters, and those of the prompt
        said.set()
        while await left():
            pass
        refused = await served.post("/v1/tasks", {"tasks": [task()]}, headers=first)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limit_error")
        assert (await served.post("/v1/tasks", {"tasks": [task()]}, headers=second)).status_code == 202
        assert served.scheduler.find(stream).state == "running"  # what was begun goes on
        more.set()
        await served.events(stream, **first)
        assert await left() >= 30 - 1  # what the agent reports takes the place of what was thought


async def test_streams_of_a_key_are_limited(tmp_path: Path) -> None:
    async with with_keys(tmp_path, {"a": ScriptedAgent("x", asyncio.Event())}, streams=1) as (served, first, second):
        stream = (await served.submit(task(), headers=first))["a"]
        path, accept = f"/v1/streams/{stream}", {"accept": "text/event-stream"}
        async with served.http.stream("GET", path, headers={**first, **accept}) as answer:
            assert answer.status_code == 200
            refused = await served.http.get(path, headers={**first, **accept})
            assert refused.status_code == 429
            other = (await served.submit(task(), headers=second))["a"]
            async with served.http.stream("GET", f"/v1/streams/{other}", headers={**second, **accept}) as another:
                assert another.status_code == 200
        await eventually(lambda: not served.app.relays)
        async with served.http.stream("GET", path, headers={**first, **accept}) as answer:
            assert answer.status_code == 200


async def test_streams_that_a_key_has_running_are_limited(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with with_keys(tmp_path, {"a": ScriptedAgent("x", gate)}, streams=2) as (served, first, second):
        once, plan = {**first, "idempotency-key": "once"}, {"tasks": [task("b"), task("c", depends_on=["b"])]}
        chat = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}
        too_large = await served.post("/v1/tasks", {"tasks": [task(name) for name in "bcd"]}, headers=first)
        assert (too_large.status_code, "no more than 2" in too_large.json()["detail"]) == (400, True)
        answer = await served.post("/v1/tasks", plan, headers=once)
        assert answer.status_code == 202
        for path, body in (
            ("/v1/tasks", {"tasks": [task()]}),
            ("/v1/chat/completions", chat),
            ("/v1/chat/completions", {**chat, "stream": True}),
            ("/v1/responses", {"model": "a", "input": "hello", "background": True}),
        ):
            refused = await served.post(path, body, headers=first)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert (await served.post("/v1/tasks", plan, headers=once)).json() == answer.json()  # nothing is started
        assert (await served.post("/v1/tasks", {"tasks": [task()]}, headers=second)).status_code == 202
        gate.set()
        await served.scheduler.wait_idle()
        assert (await served.post("/v1/tasks", plan, headers=first)).status_code == 202
        await served.scheduler.wait_idle()
        assert served.scheduler.open_streams("first") == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/ai-sdk/chat"])
async def test_what_is_refused_for_its_pace_has_not_begun(path: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        messages = [{"id": "m", "role": "user", "content": "hi", "parts": [{"type": "text", "text": "hi"}]}]
        bodies: dict[str, Any] = {
            "/v1/responses": {"input": "hi"},
            "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
            "/v1/ai-sdk/chat": {"id": "c", "messages": messages},
        }
        body = bodies.get(path, {"messages": [{"role": "user", "content": "hi"}]})
        answer = await served.post(f"{path}?pace=fast", {"model": "a", "stream": True, **body})
        assert (answer.status_code, "pace" in answer.text) == (400, True)
        assert (await served.http.get("/v1/streams")).json()["streams"] == []


# --- browsers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", ""]
)
async def test_without_keys_only_this_machines_names_are_answered(host: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        refused = await served.http.get("/v1/agents", headers={"host": host})
        assert refused.status_code in (400, 403)
        for name in ("localhost:1234", "127.0.0.1", "[::1]:80", "LOCALHOST"):
            assert (await served.http.get("/v1/agents", headers={"host": name})).status_code == 200


async def test_the_name_that_the_server_listens_on_is_its_own() -> None:
    async with serving({"a": ScriptedAgent("x")}, settings=Settings(access_log=False, host="127.0.0.2")) as served:
        assert (await served.http.get("/v1/agents", headers={"host": "127.0.0.2:80"})).status_code == 200
        assert (await served.http.get("/v1/agents", headers={"host": "127.0.0.3"})).status_code == 403


async def test_a_page_of_another_origin_can_start_nothing() -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        page = {"origin": "https://evil.example"}
        refused = await served.post("/v1/tasks", {"tasks": [task()]}, headers=page)
        assert refused.status_code == 403
        assert "cors_origins" in refused.json()["detail"]
        plain = await served.http.post("/v1/tasks", content=b'{"tasks":[]}', headers={"content-type": "text/plain"})
        assert plain.status_code == 415
        own = await served.post("/v1/tasks", {"tasks": [task()]}, headers={"origin": served.url})
        assert own.status_code == 202
        preflight = await served.http.options("/v1/tasks", headers={**page, "access-control-request-method": "POST"})
        assert preflight.status_code == 403
        for answer in (refused, preflight):
            assert "access-control-allow-origin" not in answer.headers


async def test_pages_of_an_allowed_origin_may_read() -> None:
    settings = Settings(cors_origins=("https://app.example",), access_log=False)
    async with serving({"a": ScriptedAgent("x")}, settings=settings) as served:
        page = {"origin": "https://app.example"}
        preflight = await served.http.options(
            "/v1/tasks",
            headers={**page, "access-control-request-method": "POST", "access-control-request-headers": "content-type"},
        )
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-allow-headers"] == "content-type"
        answer = await served.post("/v1/tasks", {"tasks": [task()]}, headers=page)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["vary"] == "origin"
        events = await served.events(answer.json()["streams"]["a"], **page)
        assert events.headers["access-control-allow-origin"] == "https://app.example"
        problem = await served.http.get("/v1/streams/x", headers=page)
        assert problem.headers["access-control-allow-origin"] == "https://app.example"
        other = await served.http.get("/v1/agents", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
