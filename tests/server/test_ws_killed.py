"""A server that is killed in mid-stream, again and again: what readers over WebSockets saw is what the log has."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from multi_agent_scheduler.records import encode_record, numbered

from ..agents.server import Provider, answer, chat
from ..cli.commands import agent_table
from ..cli.test_serve import STORE, hanging, records
from ..cli.test_serve import serving as serving_process
from .test_ws import Talk

pytest.importorskip("websockets", reason="needs websockets")

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def test_a_killed_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    seen: list[str] = []
    stream_id = cursor = ""
    async with Provider(*[hanging(*(f"{text} " for text in range(20)))] * 3, answer(chat("again"))) as provider:
        (tmp_path / "mas.toml").write_text(agent_table(provider.url))
        for attempt in range(4):
            async with serving_process(tmp_path, *STORE) as server:
                address = f"ws://{server.http.base_url.netloc.decode()}/v1/ws"
                async with connect(address, proxy=None) as connection:
                    client = Talk(connection)
                    if not attempt:
                        stream_id = await client.submit("a", detach=True)
                    reply = await client.ask(type="subscribe", stream_id=stream_id, after=cursor)
                    assert reply["type"] == "reply"
                    enough = len(seen) + 12
                    try:
                        while (message := await client.hear())["type"] != "end":
                            cursor = message.pop("cursor")
                            assert message.pop("stream_id") == stream_id
                            seen.append(json.dumps(message))
                            if len(seen) == enough and attempt < 3:
                                os.killpg(server.process.pid, signal.SIGKILL)
                    except ConnectionClosed:
                        assert attempt < 3
                if attempt < 3:
                    await server.process.wait()
    logged = numbered(await records(tmp_path, stream_id), 1)
    assert [json.loads(message) for message in seen] == [json.loads(encode_record(record)) for record in logged]
    assert json.loads(seen[-1])["type"] == "completed"
    assert len(provider.requests) == 4
