"""What the tests of HTTP agents share: an agent for a provider that plays a script, and what comes of asking it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from multi_agent_scheduler.agents import OpenAIAgent
from multi_agent_scheduler.errors import (
    AgentError,
)
from multi_agent_scheduler.records import Record, Text

from .server import (
    Provider,
    Script,
    answer,
)

__all__ = ["KEY", "agent_for", "asked", "error_answer", "failure", "texts"]

KEY = "sk-test-0123456789abcdef"


def agent_for(provider: Provider, **settings: Any) -> OpenAIAgent:
    return OpenAIAgent(KEY, model="m-1", base_url=f"{provider.url}/v1", **settings)


@asynccontextmanager
async def asked(*scripts: Script, **settings: Any) -> AsyncIterator[tuple[Provider, OpenAIAgent]]:
    """A provider that plays these scripts, and an agent with these settings that asks it."""
    async with Provider(*scripts) as provider, agent_for(provider, **settings) as agent:
        yield provider, agent


async def failure(script: Script, **settings: Any) -> tuple[AgentError, list[Record]]:
    """The error that ``call`` raises for this script; and the records of a second run."""
    async with Provider(script) as provider, agent_for(provider, **settings) as agent:
        with pytest.raises(AgentError) as caught:
            await agent.call("Hi")
        records = [record async for record in agent.stream("Hi")]
    return caught.value, records


def texts(records: list[Record]) -> str:
    return "".join(record.text for record in records if isinstance(record, Text))


def error_answer(status: int, body: Any, **headers: str) -> list[bytes]:
    """An answer with this status; ``body`` is bytes, or becomes JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer(raw, status=status, headers={"Content-Type": "application/json", **headers}, framing="length")
