"""Whatever somebody types: an exit code and at most a line on stderr, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multi_agent_scheduler import cli
from tests.cli.commands import agent_table

ODD: Final = (
    "",
    "-",
    "--",
    "-1",
    "0",
    "1e9",
    "999999999999999999999",
    "a",
    "nobody",
    "\x00",
    "\ud800",
    "\u2028",
    "../..",
    "/dev/null",
    "/",
    "plan.json",
    "plan.txt",
    "empty.json",
    "mas.toml",
    "mas.db",
    "text.db",
    "00000000",
    "sqlite:///mas.db",
    "sqlite:///",
    "sqlite:///text.db",
    "sqlite:////nowhere/mas.db",
    "memory://",
    "valkey://x",
    "text",
    "records",
    "json",
    "{}",
    "[]",
)
OPTIONS: Final = (
    "--agent",
    "-a",
    "--model",
    "--max-tokens",
    "--system",
    "--temperature",
    "--format",
    "--config",
    "--quiet",
    "--store",
    "--limit",
    "--after",
    "--cost",
    "--owner",
    "--pace",
    "--streams",
    "--help",
    "--nonsense",
)
COMMANDS: Final = ("ask", "run", "resume", "streams", "watch", "cancel", "keys", "doctor", "nonsense")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a configuration whose only agent answers nobody, and some files."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "mas.toml").write_text(agent_table("http://127.0.0.1:1"))
    (folder / "plan.json").write_text(json.dumps({"tasks": [{"id": "a", "prompt": "x"}]}))
    (folder / "empty.json").write_text("")
    (folder / "text.db").write_text("no database at all\n" * 100)
    return folder


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(COMMANDS),
    st.lists(st.sampled_from((*ODD, *OPTIONS, "create", "list", "revoke")) | st.text(max_size=8), max_size=6),
)
def test_no_arguments_bring_a_traceback(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))
    monkeypatch.setenv("MAS_STORE", "")
    with open("/dev/null", encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        code = cli.main([command, *arguments])
    said = capfd.readouterr().err
    assert code in (0, 1, 2)
    assert "this is a bug" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments", [["watch", "\ud800aaaaaa"], ["run", "a\x00b"], ["cancel", "\x00" * 8], ["ask", "\ud800"]]
)
def test_characters_that_cannot_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))
    assert cli.main(arguments) in (1, 2)
    assert "this is a bug" not in capfd.readouterr().err
