"""``mas ask`` against a scripted provider: what goes where, and what is said of failures."""

from __future__ import annotations

import io
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agents.server import Provider, Script, answer, chat, chat_event, chunk, cut, head
from tests.cli.commands import after, agent_table, mas, needs_model, run

HELLO = answer(chat("Hel", "lo ", "wörld"))
ANSWER = "Hello wörld".encode()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shown(capsysbinary: pytest.CaptureFixture[bytes]) -> pytest.CaptureFixture[bytes]:
    return capsysbinary


def configure(text: str) -> None:
    Path("mas.toml").write_text(text)


def use(provider: Provider) -> None:
    configure(agent_table(provider.url))


def records(out: bytes) -> list[dict[str, Any]]:
    """The records of an NDJSON output, of which the order is checked."""
    lines = out.split(b"\n")
    assert lines.pop() == b""
    found = [json.loads(line) for line in lines]
    assert [record["seq"] for record in found] == list(range(1, len(found) + 1))
    return found


# --- the answer -----------------------------------------------------------------------------------------------------


async def test_the_text_is_on_stdout_as_it_came_and_a_status_on_stderr(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(HELLO) as provider:
        use(provider)
        done = await mas(shown, "ask", "Hi")
    assert (done.code, done.out) == (0, ANSWER)
    assert done.err.startswith("a · m-1 · completed (stop) · 3 tokens · first chunk 0.")
    assert done.err.count("\n") == 1


async def test_quiet_says_nothing_but_the_answer(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(HELLO) as provider:
        use(provider)
        assert await mas(shown, "ask", "Hi", "--quiet") == (0, ANSWER, "")


async def test_options_reach_the_provider(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(HELLO) as provider:
        use(provider)
        options = ["--model", "m-2", "--max-tokens", "7", "--system", "Be brief", "--temperature", "0.5"]
        assert (await mas(shown, "ask", "Hi", *options)).code == 0
    body = provider.requests[0].json
    assert body["messages"] == [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("m-2", 7, 0.5)


async def test_an_agent_is_chosen_by_name_and_the_first_that_can_be_used_without_one(
    shown: pytest.CaptureFixture[bytes],
) -> None:
    async with Provider(HELLO) as provider:
        without_key = '[agents.first]\ntype = "claude"\n'
        two = agent_table(provider.url, "second", model="m-2") + agent_table(provider.url, "third", model="m-3")
        configure(without_key + two)
        assert (await mas(shown, "ask", "Hi")).err.startswith("second · ")
        assert (await mas(shown, "ask", "Hi", "-a", "third")).err.startswith("third · ")
    assert [request.json["model"] for request in provider.requests] == ["m-2", "m-3"]


async def test_a_key_from_the_environment_is_enough(
    shown: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Provider(HELLO) as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test-123456")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
        assert (await mas(shown, "ask", "Hi", "--agent", "openai")).out == ANSWER
    assert provider.requests[0].headers["authorization"] == "Bearer sk-test-123456"


@pytest.mark.parametrize("arguments", [["ask"], ["ask", "-"]])
async def test_a_prompt_from_standard_input(
    shown: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Grüße\n".encode()), encoding="ascii"))
    async with Provider(HELLO) as provider:
        use(provider)
        assert (await mas(shown, *arguments)).code == 0
    assert provider.requests[0].json["messages"][0]["content"] == "Grüße\n"


async def test_control_characters_reach_a_pipe_as_they_are(shown: pytest.CaptureFixture[bytes]) -> None:
    wild = "\x1b[31mred\x07\r\n\x9b1m"
    async with Provider(answer(chat(wild))) as provider:
        use(provider)
        assert (await mas(shown, "ask", "Hi")).out == wild.encode()


async def test_records_are_json_lines_with_the_terminal_last(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(HELLO) as provider:
        use(provider)
        done = await mas(shown, "ask", "Hi", "--format", "records")
    found = records(done.out)
    assert [record["type"] for record in found] == ["call_started", *["text"] * 3, "usage", "call_ended", "completed"]
    assert "".join(record["text"] for record in found if record["type"] == "text") == "Hello wörld"
    assert "wörld".encode() in done.out
    assert done.code == 0


# --- failures of the provider ---------------------------------------------------------------------------------------


ERROR_404 = b'{"error": {"message": "There is no\\n`m-1` here", "code": "model_not_found"}}'
JSON = {"Content-Type": "application/json"}
FAILURES: dict[str, tuple[Script, bytes, str, str]] = {
    "an unknown model": (
        answer(ERROR_404, status=404, headers=JSON),
        b"",
        "mas: a: the provider does not know this model or address (the provider said: There is no `m-1` here)\n",
        "failed",
    ),
    "a cut in the middle": (
        [head(), chunk(chat_event({"content": "Hel"})), cut],
        b"Hel",
        "mas: a: the answer ended before its finish marker: the connection closed in the middle of the answer\n",
        "interrupted",
    ),
    "a web page": (
        answer(b"<html>Welcome to the hotel</html>", headers={"Content-Type": "text/html"}),
        b"",
        "mas: a: ",
        "failed",
    ),
    "an error in mid-stream": (
        answer([chat_event({"content": "Hel"}), b'data: {"error": {"message": "Overloaded", "code": 503}}\n\n']),
        b"Hel",
        "mas: a: the provider is overloaded (the provider said: Overloaded)\n",
        "failed",
    ),
}


@pytest.mark.parametrize("script, out, err, terminal", FAILURES.values(), ids=FAILURES)  # noqa: PT006
async def test_a_failure_is_one_line_and_what_came_is_kept(
    shown: pytest.CaptureFixture[bytes], script: Script, out: bytes, err: str, terminal: str
) -> None:
    async with Provider(script) as provider:
        use(provider)
        done = await mas(shown, "ask", "Hi")
        assert (done.code, done.out) == (1, out)
        assert done.err.startswith(err)
        assert done.err.count("\n") == 1
        done = await mas(shown, "ask", "Hi", "--format", "records", "--quiet")
    found = records(done.out)
    assert done.code == 1
    assert found[-1]["type"] == terminal
    assert found[-1]["error"]["message"] in done.err
    assert b"".join(record["text"].encode() for record in found if record["type"] == "text") == out


async def test_a_refusal_is_told_and_not_taken_for_an_answer(shown: pytest.CaptureFixture[bytes]) -> None:
    events = [chat_event({"refusal": "I cannot do that."}), chat_event(finish_reason="content_filter")]
    async with Provider(answer([*events, b"data: [DONE]\n\n"])) as provider:
        use(provider)
        done = await mas(shown, "ask", "Hi")
    assert (done.code, done.out) == (1, b"")
    assert done.err.endswith("(the model said: I cannot do that.)\n")


async def test_a_server_that_is_not_there_is_named(shown: pytest.CaptureFixture[bytes]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configure(agent_table(f"http://127.0.0.1:{port}"))
    done = await mas(shown, "ask", "Hi")
    assert (done.code, done.out) == (1, b"")
    assert (
        done.err
        == f"mas: a: 127.0.0.1:{port} did not accept the connection (Connection refused): is the server running?\n"
    )
    done = await mas(shown, "ask", "Hi", "--format", "records")
    assert [record["type"] for record in records(done.out)] == ["call_started", "call_ended", "failed"]


async def test_a_missing_key_names_its_variable(shown: pytest.CaptureFixture[bytes]) -> None:
    done = await mas(shown, "ask", "Hi", "--agent", "claude")
    assert done == (1, b"", "mas: claude: no API key: set ANTHROPIC_API_KEY\n")
    done = await mas(shown, "ask", "Hi", "--agent", "claude", "--format", "records")
    assert [record["type"] for record in records(done.out)] == ["call_started", "call_ended", "failed"]
    configure('[agents.team]\ntype = "claude"\napi_key_env = "TEAM_KEY"')
    done = await mas(shown, "ask", "Hi", "--agent", "team")
    assert done == (1, b"", "mas: mas.toml: [agents.team]: set TEAM_KEY, which api_key_env names\n")


async def test_a_key_is_never_shown(shown: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "opensesame42")
    refusal = b'{"type": "error", "error": {"type": "authentication_error", "message": "bad key opensesame42"}}'
    async with Provider(answer(refusal, status=401, headers=JSON)) as provider:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.url)
        for extra in ([], ["--format", "records"]):
            done = await mas(shown, "ask", "Hi", "--agent", "claude", *extra)
            assert done.code == 1
            assert "the provider did not accept the key" in done.err
            assert b"opensesame" not in done.out + done.err.encode()
    assert provider.requests[0].headers["x-api-key"] == "opensesame42"
    monkeypatch.setenv("ANTHROPIC_API_KEY", "open sesame 42")
    done = await mas(shown, "ask", "Hi", "--agent", "claude")
    assert done.code == 1
    assert "the key in ANTHROPIC_API_KEY is malformed" in done.err
    assert "sesame" not in done.err


# --- the caller's mistakes ------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[list[str], str]] = {
    "unknown agent": (["Hi", "-a", "nobody"], "unknown agent 'nobody'; the agents are a"),
    "empty prompt": ([""], "the prompt is empty: give the agent something to answer"),
    "blank prompt": ([" \n"], "the prompt is empty: give the agent something to answer"),
    "no tokens": (["Hi", "--max-tokens", "0"], "max_tokens must be at least 1, not 0"),
    "fewer than no tokens": (["Hi", "--max-tokens", "-3"], "max_tokens must be at least 1, not -3"),
    "no temperature": (["Hi", "--temperature", "nan"], "temperature must be a number, not nan"),
    "bytes that are no text": (["a\udcff"], "the prompt is not UTF-8 text"),
    "a model that is no text": (["Hi", "-m", "a\udcff"], "model is not UTF-8 text"),
}


@pytest.mark.parametrize("arguments, sentence", MISTAKES.values(), ids=MISTAKES)  # noqa: PT006
async def test_a_mistake_is_one_line_and_asks_nobody(
    shown: pytest.CaptureFixture[bytes], arguments: list[str], sentence: str
) -> None:
    async with Provider(HELLO) as provider:
        use(provider)
        assert await mas(shown, "ask", *arguments) == (2, b"", f"mas: {sentence}\n")
    assert provider.requests == []


async def test_standard_input_that_is_no_text(
    shown: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff")))
    done = await mas(shown, "ask", "--agent", "local")
    assert done == (2, b"", "mas: standard input is not UTF-8 text (byte 2)\n")


async def test_a_model_has_to_be_named_where_there_is_no_default(
    shown: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "gsk-1")
    done = await mas(shown, "ask", "Hi", "-a", "groq")
    assert done == (2, b"", "mas: groq: no model is set: name one with --model\n")


@pytest.mark.parametrize("source", ["--config", "MAS_CONFIG", "mas.toml"])
async def test_a_broken_file_is_named(
    shown: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    file = Path("mas.toml") if source == "mas.toml" else tmp_path / "other.toml"
    file.write_text('[agents.a]\ntype = "clod"\n')
    if source == "MAS_CONFIG":
        monkeypatch.setenv("MAS_CONFIG", str(file))
    done = await mas(shown, "ask", "Hi", *(["--config", str(file)] if source == "--config" else []))
    assert (done.code, done.out) == (1, b"")
    assert done.err == (
        f"mas: {file}: [agents.a]: type 'clod' is unknown: it must be one of claude, compatible, gemini, local, "
        "openai, cached, failover, fuse, hedge, judge, race, retry, vote (line 2)\n"
    )


async def test_nothing_can_be_used(shown: pytest.CaptureFixture[bytes]) -> None:
    configure('[agents.a]\ntype = "claude"\n')
    done = await mas(shown, "ask", "Hi")
    assert done == (1, b"", "mas: no agent can be used: mas doctor says what is missing\n")


# --- as a process ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}], ids=["LC_ALL", "ascii"])
async def test_any_encoding_of_the_output_will_do(folder: Path, variables: dict[str, str]) -> None:
    async with Provider(HELLO) as provider:
        use(provider)
        done = await run("ask", "Grüße", env=variables, cwd=folder)
        assert done.code == 0
        assert done.out in (ANSWER, b"Hello w?rld")
        done = await run("ask", "Grüße", "--format", "records", env=variables, cwd=folder)
    assert "".join(record["text"] for record in records(done.out) if record["type"] == "text") == "Hello wörld"
    assert provider.requests[0].json["messages"][0]["content"] == "Grüße"


async def test_an_error_in_the_middle_is_on_a_line_of_its_own_where_both_are_seen_together(folder: Path) -> None:
    async with Provider([head(), chunk(chat_event({"content": "Hel"})), cut]) as provider:
        use(provider)
        done = await run("ask", "Hi", cwd=folder, program=after("os.dup2(1, 2)"))
    assert done.out.startswith(b"Hel\nmas: a: the answer ended")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_is_told(folder: Path) -> None:
    async with Provider(HELLO[:3]) as provider:
        use(provider)
        full = after("os.dup2(os.open('/dev/full', os.O_WRONLY), 1)")
        done = await run("ask", "Hi", cwd=folder, program=full)
        await provider.peers[0].closed.wait()
    assert (done.code, done.err) == (1, "mas: standard output: No space left on device\n")


@needs_model
async def test_with_no_file_and_no_key_the_embedded_model_answers(folder: Path) -> None:
    done = await run("ask", "--max-tokens", "3", stdin=b"Name a river", cwd=folder)
    assert done.code == 0
    assert done.out.strip()
    assert done.err.startswith("local · smollm2-135m-instruct · completed (length) · 3 tokens")
