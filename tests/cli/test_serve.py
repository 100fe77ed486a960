"""``mas serve`` and ``mas keys``, as a user runs them; and what readers see when the server is killed or stopped."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import pytest

from multi_agent_scheduler.records import Record, Reset, Text, decode_record
from multi_agent_scheduler.store.reader import SQLiteReader
from multi_agent_scheduler.wire import sse
from tests.agents.server import Provider, answer, chat, chunk, head
from tests.agents.server import chat_event as event
from tests.cli.commands import agent_table, mas, needs_model, process
from tests.server.served import events_of, task

STORE = ("--store", "sqlite:///mas.db")
EVENTS = {"accept": "text/event-stream"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("MAS_STORE", raising=False)
    return tmp_path


@pytest.fixture
def shown(capsysbinary: pytest.CaptureFixture[bytes]) -> pytest.CaptureFixture[bytes]:
    return capsysbinary


class Serving(NamedTuple):
    process: asyncio.subprocess.Process
    http: httpx.AsyncClient
    line: str


@asynccontextmanager
async def serving(folder: Path, *arguments: str) -> AsyncIterator[Serving]:
    """A server as a process, once it listens."""
    async with process("serve", "--port", "0", *arguments, cwd=folder) as started:
        assert started.stdout is not None and started.stderr is not None
        line = ""
        while not line.startswith("Listening on "):
            line = (await asyncio.wait_for(started.stdout.readline(), 20)).decode()
            if not line:
                pytest.fail((await started.stderr.read()).decode())
        url = line.split()[2]
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            yield Serving(started, http, line)


async def stopped(server: Serving, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, float]:
    """Stop it; gives its exit code, what it said on stderr, and how long it took."""
    began = time.monotonic()
    server.process.send_signal(number)
    _, err = await asyncio.wait_for(server.process.communicate(), 20)
    assert server.process.returncode is not None
    return server.process.returncode, err.decode(), time.monotonic() - began


def hanging(*texts: str) -> list[bytes]:
    """An answer that says something and then nothing more."""
    return [head(), *(chunk(event({"content": text})) for text in texts)]


# --- serving ----------------------------------------------------------------------------------------------------


@needs_model
async def test_without_any_configuration_the_embedded_model_answers(folder: Path) -> None:
    async with serving(folder) as server:
        assert re.match(r"Listening on http://127\.0\.0\.1:\d+ \(local\); no key is needed\.", server.line)
        body = {"tasks": [task(options={"max_tokens": 5})]}
        streams = (await server.http.post("/v1/tasks", json=body)).json()["streams"]
        events = events_of((await server.http.get(f"/v1/streams/{streams['a']}", headers=EVENTS)).content)
        assert events[-1].type == "end"
        code, err, _ = await stopped(server)
    assert code == 0
    lines = [json.loads(line) for line in err.splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/v1/tasks", 202),
        ("GET", f"/v1/streams/{streams['a']}", 200),
    ]
    assert (folder / "data" / "multi-agent-scheduler" / "mas.db").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at another process's limits as Linux lets it")
async def test_there_may_be_more_connections_than_a_process_usually_has_files(folder: Path) -> None:
    import resource

    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with Provider() as provider:
        (folder / "mas.toml").write_text(agent_table(provider.url) + "[server]\nmax_connections = 10\n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
        try:
            async with serving(folder, *STORE) as server:
                allowed, _ = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
    assert allowed == min(1020, hard)


async def test_ctrl_c_and_sigterm_have_their_exit_codes(folder: Path) -> None:
    async with Provider() as provider:
        (folder / "mas.toml").write_text(agent_table(provider.url))
        for number, expected in ((signal.SIGINT, 130), (signal.SIGTERM, 0)):
            async with serving(folder, *STORE) as server:
                code, err, seconds = await stopped(server, number)
            assert (code, err) == (expected, "")
            assert seconds < 5


async def test_the_settings_of_the_file_and_the_command_line_hold(
    shown: pytest.CaptureFixture[bytes], folder: Path
) -> None:
    async with Provider(answer(chat("Hi"))) as provider:
        table = agent_table(provider.url) + agent_table(provider.url, "b") + "[server]\nport = 1\nretry = 2.5\n"
        (folder / "mas.toml").write_text('default_agent = "b"\n' + table)
        async with serving(folder, *STORE) as server:
            agents = (await server.http.get("/v1/agents")).json()["agents"]
            assert [(it["name"], it["default"]) for it in agents] == [("a", False), ("b", True)]
            streams = (await server.http.post("/v1/tasks", json={"tasks": [task()]})).json()["streams"]
            stream = await server.http.get(f"/v1/streams/{streams['a']}", headers=EVENTS)
            assert stream.content.startswith(b"retry: 2500\n\n")
        for text, message in [
            ("[server]\nportt = 1\n", "portt"),
            ("[server]\nport = 99999\n", "port must be at most 65535"),
            ("[server]\nheartbeat = 0\n", "heartbeat must be above 0"),
            ('[server]\ncors_origins = ["example.com"]\n', "is no origin"),
            ('[server]\nhost = "no.such.host.invalid"\nport = 1\n', "no.such.host.invalid"),
        ]:
            (folder / "mas.toml").write_text(agent_table(provider.url) + text)
            done = await mas(shown, "serve", *STORE)
            assert (done.code, done.out) == (1, b"")
            assert message in done.err


async def test_what_cannot_be_listened_on_is_told(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    (folder / "mas.toml").write_text(agent_table("http://127.0.0.1:1"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await mas(shown, "serve", "--port", str(port), *STORE)
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.err
    assert (await mas(shown, "serve", "--port", "70000")).code == 2


async def test_an_agent_that_lacks_its_key_is_left_out(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    (folder / "mas.toml").write_text('[agents.claude]\ntype = "claude"\nmodel = "m"\n')
    done = await mas(shown, "serve", "--port", "0", *STORE)
    assert done.code == 1
    assert "claude is left out" in done.err
    assert "no agent can be used" in done.err


# --- keys -------------------------------------------------------------------------------------------------------


async def test_other_machines_are_answered_only_with_keys(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    (folder / "mas.toml").write_text(agent_table("http://127.0.0.1:1"))
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        done = await mas(shown, "serve", "--host", host, "--port", "0", *STORE)
        assert done.code == 1
        assert "mas keys create NAME" in done.err
    made = await mas(shown, "keys", "create", "ci", *STORE)
    async with serving(folder, "--host", "0.0.0.0", *STORE) as server:
        assert "a key is needed" in server.line
        port = server.http.base_url.port
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/v1/agents")).status_code == 401
            bearer = {"authorization": f"Bearer {made.out.decode().strip()}", "host": "agents.example"}
            assert (await http.get("/v1/agents", headers=bearer)).status_code == 200
            await mas(shown, "keys", "revoke", "ci", *STORE)
            assert (await http.get("/v1/agents", headers=bearer)).status_code == 401


async def test_a_key_is_printed_alone_and_once(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    made = await mas(shown, "keys", "create", "ci", "--owner", "team", "--requests-per-minute", "60", *STORE)
    assert made.code == 0
    assert re.fullmatch(rb"mas_[\w-]{43}\n", made.out)
    key = made.out.decode().strip()
    assert key not in made.err
    listed = await mas(shown, "keys", "list", *STORE)
    assert re.fullmatch(r"ci: made \d{4}-\d\d-\d\d, owner team, requests_per_minute 60\n", listed.out.decode())
    file = folder / "mas.db.keys"
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert key not in file.read_text()
    assert (await mas(shown, "keys", "revoke", "ci", *STORE)).code == 0
    none = await mas(shown, "keys", "list", *STORE)
    assert (none.code, none.out) == (0, b"")
    again = await mas(shown, "keys", "revoke", "ci", *STORE)
    assert (again.code, again.err) == (2, "mas: there is no key 'ci'; mas keys list names them\n")
    assert (await mas(shown, "keys")).code == 2
    assert (await mas(shown, "keys", "create", "x", "--pace", "fast", *STORE)).code == 2


# --- killed, stopped, and back ----------------------------------------------------------------------------------


async def records(folder: Path, stream_id: str) -> list[Record]:
    """What the log holds, on disk."""
    reader = SQLiteReader(folder / "mas.db")
    await reader.open()
    found: list[Record] = []
    log = reader.log(stream_id)
    while some := log.read(len(found)):
        found += some
    await reader.aclose()
    return found


async def until_cut(server: Serving, stream_id: str, cursor: str) -> AsyncIterator[sse.Event]:
    """A stream's events behind a cursor, until the connection breaks."""
    decoder = sse.Decoder()
    headers = EVENTS | ({"last-event-id": cursor} if cursor else {})
    async with server.http.stream("GET", f"/v1/streams/{stream_id}", headers=headers) as stream:
        try:
            async for piece in stream.aiter_bytes():
                for it in decoder.feed(piece):
                    yield it
        except (httpx.RemoteProtocolError, httpx.ReadError):
            return
    pytest.fail("the stream ended")


async def test_readers_of_a_killed_server_saw_what_is_in_the_log_and_get_the_rest(folder: Path) -> None:
    scripts = [hanging(*(f"{text} " for text in range(20)))] * 3 + [answer(chat("again"))]
    async with Provider(*scripts) as provider:
        (folder / "mas.toml").write_text(agent_table(provider.url))
        seen: dict[int, str] = {}
        stream_id = cursor = ""
        for attempt in range(3):
            async with serving(folder, *STORE) as server:
                if not attempt:
                    body = {"tasks": [task()]}
                    stream_id = (await server.http.post("/v1/tasks", json=body)).json()["streams"]["a"]
                enough = len(seen) + 12
                async for it in until_cut(server, stream_id, cursor):
                    number, cursor = int(it.id.partition("-")[0]), it.id
                    assert number not in seen
                    seen[number] = it.data.decode()
                    if len(seen) == enough:
                        os.killpg(server.process.pid, signal.SIGKILL)
                await server.process.wait()
            logged = await records(folder, stream_id)
            assert list(seen) == list(range(1, len(seen) + 1))
            for number, text in seen.items():
                said = decode_record(text)
                assert msgspec.structs.replace(logged[number - 1], seq=number) == said
        async with serving(folder, *STORE) as server:
            rest = await server.http.get(f"/v1/streams/{stream_id}", headers=EVENTS | {"last-event-id": cursor})
            events = events_of(rest.content)
            assert events[-1].type == "end"
            snapshot = (await server.http.get(f"/v1/streams/{stream_id}")).json()
    numbers = [int(it.id.partition("-")[0]) for it in events[:-1]]
    assert numbers == list(range(len(seen) + 1, len(seen) + 1 + len(numbers)))
    assert any(isinstance(decode_record(it.data), Reset) for it in events[:-1])
    assert (snapshot["state"], snapshot["text"]) == ("completed", "again")
    assert len(provider.requests) == 4


async def test_a_server_that_is_stopped_leaves_what_runs_to_the_next(folder: Path) -> None:
    async with Provider(hanging("half"), answer(chat("whole"))) as provider:
        (folder / "mas.toml").write_text(agent_table(provider.url) + "[server]\ndrain = 0.2\n")
        async with serving(folder, *STORE) as server:
            streams = (await server.http.post("/v1/tasks", json={"tasks": [task()]})).json()["streams"]
            path = f"/v1/streams/{streams['a']}"
            async with server.http.stream("GET", path, headers=EVENTS) as stream:
                seen = b""
                async for piece in stream.aiter_bytes():
                    if b"half" not in seen and b"half" in seen + piece:
                        server.process.send_signal(signal.SIGTERM)
                    seen += piece
            assert seen.endswith(b": not the end: connect again with the last id\nretry: 1000\n\n")
            code, err, seconds = await stopped(server)
            assert code == 0
            assert seconds < 5
            assert all(line.startswith("{") for line in err.splitlines())
        cursor = [it.id for it in events_of(seen) if it.id][-1]
        async with serving(folder, *STORE) as server:
            rest = events_of((await server.http.get(path, headers=EVENTS | {"last-event-id": cursor})).content)
    said = [decode_record(it.data) for it in rest[:-1]]
    assert any(isinstance(record, Reset) for record in said)
    assert "".join(record.text for record in said if isinstance(record, Text)) == "whole"
