"""What the web examples have in common: which agent answers, and where they listen."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from multi_agent_scheduler import Agent, ClaudeAgent, FunctionAgent, GeminiAgent, LocalAgent, OpenAIAgent


async def echo(prompt: str) -> AsyncIterator[str]:
    """An agent of your own is any async generator of strings. This one says what it was told, word by word."""
    for word in prompt.split():
        yield f"{word} "
        await asyncio.sleep(0.02)


AGENTS: dict[str, Callable[[], Agent]] = {
    "local": lambda: LocalAgent(defaults={"max_tokens": 200}),
    "claude": ClaudeAgent,  # these three read their keys from ANTHROPIC_API_KEY, OPENAI_API_KEY and GEMINI_API_KEY
    "openai": OpenAIAgent,
    "gemini": GeminiAgent,
    "echo": lambda: FunctionAgent(echo),
}


def chosen(about: str) -> tuple[Agent, int]:
    """The agent and the port that the command line names."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--agent", choices=AGENTS, default="local", help="who answers (the embedded model, unless set)")
    parser.add_argument("--port", type=int, default=8000, help="where to listen on 127.0.0.1; 0 is any free port")
    options = parser.parse_args()
    agent = AGENTS[options.agent]()
    if missing := getattr(agent, "missing", None):
        sys.exit(missing)
    return agent, options.port


def serve(app: Any, port: int) -> None:
    """Run an ASGI app until Ctrl-C."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", port))
    print(f"Listening on http://127.0.0.1:{listener.getsockname()[1]} (Ctrl-C stops it)", flush=True)
    # Streams that are still open when it is stopped are given up after a second.
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run(sockets=[listener])
