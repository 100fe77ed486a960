"""Who is measured. Each reads a stream the way that its documentation shows, with its defaults; no retries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any, Final

from .transports import Aiohttp, AiohttpJson, Contender, Httptools, Raw, RawBuffered, RawStreams

__all__ = ["CONTENDERS"]

_MESSAGES: Final = [{"role": "user", "content": "hello"}]


class CallStream(Contender):
    """``agent.call_stream(prompt)`` of this project."""

    def __init__(self, agent: str = "OpenAIAgent", under: str = "/v1", **settings: Any) -> None:
        self._kind = agent
        self._under = under
        self._settings = settings

    def _agent(self, root: str, streams: int) -> Any:
        import multi_agent_scheduler

        kind = getattr(multi_agent_scheduler, self._kind)
        return kind(api_key="x", base_url=root + self._under, model="m", max_concurrent=streams, **self._settings)

    async def start(self, root: str, streams: int) -> None:
        self._used = self._agent(root, streams)

    def chunks(self) -> AsyncIterator[str]:
        found: AsyncIterator[str] = self._used.call_stream("hello")
        return found

    async def close(self) -> None:
        await self._used.aclose()


class ExecuteTaskStream(CallStream):
    """``scheduler.execute_task_stream(task, agent_name)``: the same through store, log, events and metrics."""

    async def start(self, root: str, streams: int) -> None:
        from multi_agent_scheduler import MultiAgentScheduler

        await super().start(root, streams)
        self._scheduler = MultiAgentScheduler(agents={"a": self._used})
        self._ids = count()

    async def chunks(self) -> AsyncIterator[str]:
        from multi_agent_scheduler import Task

        async for said in self._scheduler.execute_task_stream(Task(f"task-{next(self._ids)}", "hello"), "a"):
            if not said["done"]:
                yield said["chunk"]
            elif not said["success"]:
                raise RuntimeError(said["error"])

    async def stream(self) -> int:
        from multi_agent_scheduler import Task

        total = 0
        async for said in self._scheduler.execute_task_stream(Task(f"task-{next(self._ids)}", "hello"), "a"):
            if not said["done"]:
                total += len(said["chunk"])
            elif not said["success"]:
                raise RuntimeError(said["error"])
        return total

    async def close(self) -> None:
        await self._scheduler.aclose()
        await super().close()


class OpenAISdk(Contender):
    """The official SDK, chat completions."""

    async def start(self, root: str, streams: int) -> None:  # noqa: ARG002
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(api_key="x", base_url=f"{root}/v1", max_retries=0)

    async def chunks(self) -> AsyncIterator[str]:
        async for event in await self._client.chat.completions.create(model="m", messages=_MESSAGES, stream=True):
            if event.choices and (text := event.choices[0].delta.content):
                yield text

    async def close(self) -> None:
        await self._client.close()


class OpenAIResponses(OpenAISdk):
    """The official SDK, the Responses API."""

    async def chunks(self) -> AsyncIterator[str]:
        async for event in await self._client.responses.create(model="m", input="hello", stream=True):
            if event.type == "response.output_text.delta":
                yield event.delta


class AnthropicSdk(Contender):
    """The official SDK."""

    async def start(self, root: str, streams: int) -> None:  # noqa: ARG002
        from anthropic import AsyncAnthropic

        self._client = AsyncAnthropic(api_key="x", base_url=root, max_retries=0)

    async def chunks(self) -> AsyncIterator[str]:
        events = await self._client.messages.create(model="m", max_tokens=99, messages=_MESSAGES, stream=True)
        async for event in events:
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield event.delta.text

    async def close(self) -> None:
        await self._client.close()


class LiteLlm(Contender):
    """LiteLLM's ``acompletion``."""

    async def start(self, root: str, streams: int) -> None:  # noqa: ARG002
        import litellm

        litellm.suppress_debug_info = True
        self._complete = litellm.acompletion
        self._base = f"{root}/v1"

    async def chunks(self) -> AsyncIterator[str]:
        events = await self._complete(
            model="openai/m", messages=_MESSAGES, stream=True, api_base=self._base, api_key="x", max_retries=0
        )
        async for event in events:
            if event.choices and (text := event.choices[0].delta.content):
                yield text


class PydanticAi(Contender):
    """pydantic-ai's ``run_stream``, text by deltas, without its debouncing."""

    async def start(self, root: str, streams: int) -> None:  # noqa: ARG002
        from pydantic_ai import Agent
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        self._agent = Agent(OpenAIChatModel("m", provider=OpenAIProvider(base_url=f"{root}/v1", api_key="x")))

    async def chunks(self) -> AsyncIterator[str]:
        async with self._agent.run_stream("hello") as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                yield text


CONTENDERS: Final[dict[str, Callable[[], Contender]]] = {
    "raw": Raw,
    "raw responses": lambda: Raw("/v1/responses"),
    "raw messages": lambda: Raw("/v1/messages"),
    "raw, buffered": RawBuffered,
    "asyncio streams": RawStreams,
    "aiohttp": Aiohttp,
    "aiohttp + JSON": AiohttpJson,
    "httptools": Httptools,
    "call_stream": CallStream,
    "call_stream, responses": lambda: CallStream(api="responses"),
    "call_stream, Claude": lambda: CallStream("ClaudeAgent", ""),
    "execute_task_stream": ExecuteTaskStream,
    "openai SDK": OpenAISdk,
    "openai SDK, responses": OpenAIResponses,
    "anthropic SDK": AnthropicSdk,
    "litellm": LiteLlm,
    "pydantic-ai": PydanticAi,
}
"""By the names that tables show. Those of this project and the transports first, then the peers."""
