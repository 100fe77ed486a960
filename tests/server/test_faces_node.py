"""What the official JavaScript clients make of the server: the AI SDK's chat, openai and @anthropic-ai/sdk.

They are installed by ``npm ci --prefix tests/node``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from multi_agent_scheduler.errors import ErrorInfo
from multi_agent_scheduler.records import (
    Citation,
    Completed,
    Interrupted,
    Reasoning,
    Record,
    Refusal,
    Reset,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from multi_agent_scheduler.request import ImagePart, TextPart
from multi_agent_scheduler.testing import ScriptedAgent, Step
from tests.server.served import serving

FOLDER: Final = Path(__file__).parents[1] / "node"
USAGE: Final = Usage(input_tokens=5, output_tokens=2)


@pytest.fixture(autouse=True)
def installed() -> None:
    if not (FOLDER / "node_modules").is_dir():
        pytest.skip("needs the packages of tests/node: npm ci --prefix tests/node")


pytestmark = pytest.mark.needs("node")


async def run(script: str, *arguments: str, on_line: Callable[[], None] | None = None) -> Any:
    """The object that a script printed; ``on_line`` is called for each line that is none."""
    process = await asyncio.create_subprocess_exec(
        "node", str(FOLDER / script), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    lines: list[bytes] = []
    async for line in process.stdout:
        lines.append(line)
        if on_line is not None and not line.startswith(b"{"):
            on_line()
    assert await process.wait() == 0, (await errors).decode()
    await errors
    return json.loads(lines[-1])


async def chat(
    what: str, *script: Step, on_line: Callable[[], None] | None = None
) -> tuple[dict[str, Any], ScriptedAgent]:
    agent = ScriptedAgent(*script)
    async with serving({"a": agent}) as served:
        return await run("ai-sdk.mjs", served.url, what, on_line=on_line), agent


def kinds(told: dict[str, Any]) -> list[str]:
    return [part["type"] for part in told["messages"][-1]["parts"]]


async def test_the_official_clients_read_streams_and_objects() -> None:
    async with serving({"a": ScriptedAgent("Hel", "lo", USAGE)}) as served:
        told = await run("official.mjs", served.url)
    assert told["completion"] == told["whole"] == told["response"] == told["message"] == "Hello"
    assert told["usage"] == 7 and told["models"] == ["a"] and told["requestId"]
    assert [failure["status"] for failure in told["unknown"]] == [404, 404, 404]


async def test_a_chat_shows_every_kind_of_part() -> None:
    script: list[Record] = [
        Reasoning("hm", signature="sig"),
        Text("Look: ", part=1),
        Citation(part=1, url="https://a.example/", title="A"),
        Citation(part=1, title="paper.pdf"),
        ToolCall(0, id="c1", name="search", arguments='{"q":1}', part=2, kind="server"),
        ToolResult("c1", content={"found": 1}, part=3),
        ToolCall(1, id="c2", name="sh", arguments="ls", part=4, kind="custom"),
        ToolResult("c2", content="no", is_error=True, part=5),
        Refusal("that I may not", part=6),
        USAGE,
        Completed("length"),
    ]
    told, agent = await chat("say", script[:3], script[3:])
    assert (told["status"], told["error"], told["finishReason"]) == ("ready", None, "length")
    assert kinds(told) == [
        "step-start", "reasoning", "text", "source-url", "source-document", "tool-search", "tool-sh", "text",
    ]  # fmt: skip
    message = told["messages"][-1]
    reasoning, text, _, _, search, shell, refusal = message["parts"][1:]
    assert reasoning["text"] == "hm" and reasoning["providerMetadata"] == {
        "multiAgentScheduler": {"protocol": "scripted", "signature": "sig"}
    }
    assert text["text"] == "Look: " and text["state"] == "done" and refusal["text"] == "that I may not"
    assert search["output"] == {"found": 1} and search["providerExecuted"] and search["input"] == {"q": 1}
    assert shell["state"] == "output-error" and shell["input"] == "ls" and shell["errorText"] == "no"
    assert message["id"].startswith("msg_") and message["metadata"]["model"] == "a"
    assert message["metadata"]["usage"] == {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7}
    image, words = sorted(agent.requests[0].messages[0].parts, key=lambda part: isinstance(part, TextPart))
    assert isinstance(image, ImagePart) and image.data == b"png" and isinstance(words, TextPart) and words.text == "Hi"


async def test_a_failure_in_the_middle_is_the_chats_error() -> None:
    told, _ = await chat("say", "half", Interrupted(ErrorInfo("interrupted", "it broke off")))
    assert (told["status"], told["error"]) == ("error", "it broke off")
    assert told["messages"][-1]["parts"][1]["text"] == "half"


async def test_a_failure_before_the_answer_is_the_chats_error() -> None:
    told, _ = await chat("say", Interrupted(ErrorInfo("connection_error", "nobody there")))
    assert (told["status"], told["error"]) == ("error", "nobody there")


async def test_a_reset_is_a_part_that_says_how_many_are_void() -> None:
    told, _ = await chat("say", Reasoning("hm"), Text("wrong", part=1), Reset(2, "another attempt"), "right")
    assert told["error"] is None
    parts = [part for part in told["messages"][-1]["parts"] if part["type"] != "step-start"]
    assert [part.get("text", part.get("data")) for part in parts] == [
        "hm", "wrong", {"void": 2, "reason": "another attempt"}, "right",
    ]  # fmt: skip


async def test_a_tool_of_the_page_runs_and_its_answer_goes_on_in_the_same_message() -> None:
    first = ScriptedAgent(ToolCall(0, id="c1", name="look", arguments='{"at":"x"}'), Completed("tool_calls"))
    async with serving({"a": first}) as served:
        told = await run("ai-sdk.mjs", served.url, "tool", on_line=lambda: setattr(first, "script", ("Seen",)))
    assert told["error"] is None
    assert [message["role"] for message in told["messages"]] == ["user", "assistant"]
    assert kinds(told) == ["step-start", "tool-look", "step-start", "text"]
    assert told["messages"][-1]["parts"][1]["output"] == {"seen": {"at": "x"}}
    assert [message.role for message in first.requests[1].messages] == ["user", "assistant", "tool"]


async def test_a_page_that_is_loaded_again_resumes() -> None:
    gate = asyncio.Event()
    told, agent = await chat("resume", "Hel", gate, "lo", USAGE, on_line=gate.set)
    assert (told["status"], told["error"]) == ("ready", None)
    assert [message["role"] for message in told["messages"]] == ["user", "assistant"]
    assert told["messages"][-1]["parts"][1]["text"] == "Hello"
    assert told["again"] == 2 and len(agent.requests) == 1


# --- the AI SDK's objects ---------------------------------------------------------------------------------------


async def objects(
    what: str, *script: Step, on_line: Callable[[], None] | None = None
) -> tuple[dict[str, Any], ScriptedAgent]:
    agent = ScriptedAgent(*script)
    async with serving({"a": agent}) as served:
        return await run("ai-sdk-object.mjs", served.url, what, on_line=on_line), agent


RECIPE: Final = {"title": "Pancakes", "steps": ["Mix", "Fry"]}


async def test_an_object_grows_on_a_page() -> None:
    gate = asyncio.Event()
    told, agent = await objects(
        "use", 'Sure:\n```json\n{"title": "Pan', gate, 'cakes", "steps": ["Mix", "Fr', 'y"]}\n```', on_line=gate.set
    )
    assert told["seen"][0] == {"title": "Pan"} and told["seen"][-1] == told["finished"] == RECIPE
    assert (told["invalid"], told["error"], told["isLoading"]) == (None, None, False)
    assert agent.requests[0].schema is not None and agent.requests[0].schema["required"] == ["title", "steps"]


async def test_a_page_may_submit_a_text() -> None:
    told, agent = await objects("text", json.dumps(RECIPE))
    assert told["finished"] == RECIPE and agent.requests[0].schema is None


async def test_an_object_that_breaks_off_is_no_object_to_a_page() -> None:
    gate, error = asyncio.Event(), ErrorInfo("interrupted", "it broke off")
    # What has come would fit once the page has completed it.
    told, _ = await objects("use", '{"title": "Pan', '", "steps": ["Mi', gate, Interrupted(error), on_line=gate.set)
    assert told["seen"][-1] == {"title": "Pan", "steps": ["Mi"]}
    assert "finished" not in told and told["failed"] == told["error"] and not told["isLoading"]


async def test_an_object_that_never_began_is_told_in_words() -> None:
    told, _ = await objects("use", "I would rather not.")
    assert "there is no JSON document in the text" in told["failed"]


async def test_a_page_stops_its_object() -> None:
    told, agent = await objects("leave", '{"title": "Pan', asyncio.Event())
    assert told["seen"][-1] == {"title": "Pan"} and "finished" not in told and told["error"] is None
    assert agent.closed == 1


async def test_stream_object_reads_the_chat_face() -> None:
    told, agent = await objects("stream", *(json.dumps(RECIPE)[place : place + 5] for place in range(0, 60, 5)), USAGE)
    assert told["object"] == told["seen"][-1] == RECIPE and told["usage"] == 7
    assert agent.requests[0].schema is not None and agent.requests[0].schema["required"] == ["title", "steps"]
