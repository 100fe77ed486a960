"""A server that is killed in mid-stream: a client of the Responses API comes back, and misses and doubles nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.agents.server import Provider
from tests.cli.commands import agent_table
from tests.cli.test_serve import STORE, Serving, hanging, serving


def client(server: Serving) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="any", base_url=str(server.http.base_url.join("/v1")), max_retries=0)


async def rest_of(stream: AsyncIterator[Any], seen: list[Any]) -> None:
    async for event in stream:
        seen.append(event)  # noqa: PERF401 - what came before the cut counts


async def test_a_client_comes_back_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    seen: list[Any] = []
    async with Provider(hanging(*(f"{number} " for number in range(20)))) as provider:
        (tmp_path / "mas.toml").write_text(agent_table(provider.url))
        async with serving(tmp_path, *STORE) as server, client(server) as sdk:
            stream = await sdk.responses.create(model="a", input="Count", stream=True, background=True)
            while len(seen) < 16:
                seen.append(await anext(stream))
            os.killpg(server.process.pid, signal.SIGKILL)
            await server.process.wait()
            with pytest.raises(openai.APIConnectionError):
                await rest_of(stream, seen)
        response_id, last = seen[0].response.id, seen[-1].sequence_number
        async with serving(tmp_path, *STORE) as server, client(server) as sdk:
            await rest_of(await sdk.responses.retrieve(response_id, stream=True, starting_after=last), seen)
            again = [event async for event in await sdk.responses.retrieve(response_id, stream=True)]
            whole = await sdk.responses.retrieve(response_id)
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert [event.type for event in again] == [event.type for event in seen]
    said = [event.delta for event in seen if event.type == "response.output_text.delta"]
    assert said == [f"{number} " for number in range(len(said))] and len(said) > 12
    assert whole.output_text == "".join(said) and whole.status == "failed" and whole.background is True
    assert seen[-1].type == "response.failed" and len(provider.requests) == 1
