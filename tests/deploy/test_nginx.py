"""A real nginx, as deploy/nginx.conf sets it up, in front of a real server."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import websockets

from multi_agent_scheduler.testing import ScriptedAgent
from tests.server.served import Served, events_of, eventually, serving, task

pytestmark = pytest.mark.needs("nginx")

RECIPE: Final = Path(__file__).parents[2] / "deploy" / "nginx.conf"

# All that nginx writes goes into a folder of the test's, and the recipe is read as from its conf.d.
WHOLE: Final = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    gzip on;
    gzip_types *;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/mas.conf;
}}
"""


def configured(folder: Path, upstream: str, listen: str) -> Path:
    recipe = RECIPE.read_text(encoding="utf-8").replace("127.0.0.1:8000", upstream)
    recipe = recipe.replace("listen 80;", f"listen {listen};").replace("listen [::]:80;", "")
    assert f"server {upstream};" in recipe and f"listen {listen};" in recipe
    (folder / "mas.conf").write_text(recipe)
    whole = folder / "nginx.conf"
    whole.write_text(WHOLE.format(folder=folder))
    return whole


@asynccontextmanager
async def proxied(folder: Path, *, complaints: bool = False, **agents: Any) -> AsyncIterator[tuple[Served, str]]:
    """A server, and the socket on which nginx answers for it; it writes ``complaints`` into its log, or none."""
    socket = f"unix:{folder}/nginx.sock"
    async with serving(agents) as served:
        whole = configured(folder, served.url.removeprefix("http://"), socket)
        nginx = await asyncio.create_subprocess_exec(
            "nginx", "-p", str(folder), "-c", str(whole), "-e", "stderr", stderr=subprocess.PIPE
        )
        try:
            while not (folder / "nginx.sock").exists():
                assert nginx.returncode is None, nginx.stderr and await nginx.stderr.read()
                await asyncio.sleep(0.005)
            yield served, f"{folder}/nginx.sock"
        finally:
            nginx.terminate()
            _, err = await nginx.communicate()
    assert bool(err) is complaints, err


def through(socket: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=socket)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=10)


def test_the_recipe_is_valid(tmp_path: Path) -> None:
    whole = configured(tmp_path, "127.0.0.1:8000", f"unix:{tmp_path}/nginx.sock")
    command = ["nginx", "-t", "-p", str(tmp_path), "-c", str(whole), "-e", "stderr"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


async def test_chunks_come_one_by_one_and_a_reader_that_comes_back_gets_what_is_missing(tmp_path: Path) -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent("first", gate, "second")
    async with proxied(tmp_path, a=agent) as (_, socket), through(socket) as http:
        made = (await http.post("/v1/tasks", json={"tasks": [task()]})).json()
        path, accept = f"/v1/streams/{made['streams']['a']}", {"accept": "text/event-stream"}
        seen = b""
        async with http.stream("GET", path, headers={**accept, "accept-encoding": "gzip"}) as answer:
            assert "content-encoding" not in answer.headers
            assert answer.http_version == "HTTP/1.1"
            async for data in answer.aiter_raw():
                seen += data
                if b"first" in seen:  # which nginx has let through while the answer goes on
                    break
        last = [event for event in events_of(seen) if event.id][-1]
        gate.set()
        rest = await http.get(path, headers={**accept, "last-event-id": last.id or ""})
        whole = await http.get(path, headers=accept)
        records = [event.data for event in events_of(whole.content) if event.type == "message"]
        before = [event.data for event in events_of(seen) if event.type == "message"]
        after = [event.data for event in events_of(rest.content) if event.type == "message"]
        assert before + after == records
        assert b'"second"' in rest.content and b'"first"' not in rest.content
        end = [event for event in events_of(rest.content) if event.id][-1]
        assert (await http.get(path, headers={**accept, "last-event-id": end.id or ""})).status_code == 204


async def test_a_reader_of_a_chat_that_leaves_stops_the_agent_behind_nginx(tmp_path: Path) -> None:
    agent = ScriptedAgent("first", asyncio.Event(), "never")
    async with proxied(tmp_path, a=agent) as (served, socket), through(socket) as http:
        body = {"model": "a", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if "first" in line:
                    break
        async with asyncio.timeout(10):
            while served.scheduler.streams()[0].state != "cancelled":  # noqa: ASYNC110 - nginx has to notice first
                await asyncio.sleep(0.005)


async def test_while_the_server_is_away_event_sources_are_told_to_come_back(tmp_path: Path) -> None:
    async with proxied(tmp_path, complaints=True, a=ScriptedAgent("x")) as (served, socket), through(socket) as http:
        served.process.stop()
        await eventually(lambda: served.app.draining)
        events = {"accept": "text/event-stream"}
        reader = await http.get("/v1/streams/any", headers=events)
        assert (reader.status_code, reader.content) == (200, b"retry: 1000\n\n")
        assert reader.headers["content-type"] == "text/event-stream"
        assert reader.headers["cache-control"] == "no-store"
        for answer in (await http.get("/v1/agents"), await http.post("/v1/responses", json={}, headers=events)):
            assert (answer.status_code, answer.headers["retry-after"]) == (502, "1")


async def test_a_websocket_goes_through(tmp_path: Path) -> None:
    said: list[str] = []
    async with (
        proxied(tmp_path, a=ScriptedAgent("Hel", "lo")) as (_, socket),
        websockets.unix_connect(socket, "ws://localhost/stream") as ws,
    ):
        await ws.send("Hi")
        while not said or '"complete"' not in said[-1]:
            said.append(str(await ws.recv()))
    assert "".join(re.findall(r'"data": ?"(\w+)"', "".join(said))) == "Hello"
