"""The embedded model's own server in the place of the providers.

The server is llama.cpp's, written elsewhere; agents find it as the official SDKs would, through ANTHROPIC_BASE_URL and
OPENAI_BASE_URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from multi_agent_scheduler.agents import ClaudeAgent, LocalAgent, LocalServer, local_server
from multi_agent_scheduler.scheduler import MultiAgentScheduler

FEW: Final = 12
"""Tokens of an answer: the machine may be slow and busy."""


@pytest.fixture(scope="session")
def server() -> LocalServer:
    """The embedded model's server, in slots large enough that an answer without a limit does not end by itself soon."""
    return loaded(slots=4, context=1024, threads=1)


@pytest.fixture(scope="session")
def default_model() -> LocalServer:
    """The model of ``LocalAgent()``, loaded outside of the test: its port stays open."""
    return loaded()


def loaded(**settings: int) -> LocalServer:
    missing = LocalAgent().missing
    if missing is not None:
        pytest.skip(f"needs the embedded model: {missing}")
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(asyncio.run, local_server(**settings)).result()


@pytest.fixture
def key(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key to pass as ``api_key``; the addresses are in the environment."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.base_url}/v1")
    return server.api_key


@pytest.fixture
async def agent(key: str) -> AsyncIterator[ClaudeAgent]:
    """The guide's ``agent``, but for a limit: some of its prompts ask for essays."""
    async with ClaudeAgent(api_key=key, defaults={"max_tokens": FEW}) as agent:
        yield agent


@pytest.fixture
async def scheduler(agent: ClaudeAgent) -> AsyncIterator[MultiAgentScheduler]:
    async with MultiAgentScheduler(agents={"claude": agent}) as scheduler:
        yield scheduler
