"""``mas`` itself: help, version, wrong usage, bugs, and how much is loaded before anything happens."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from multi_agent_scheduler import __version__, cli
from multi_agent_scheduler.cli import doctor
from tests.cli.commands import after, process, run

COMMANDS = ("ask", "run", "resume", "streams", "watch", "cancel", "doctor", "demo")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr() == (f"mas {__version__}\n", "")


def test_help_names_every_command_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown, _ = capsys.readouterr()
    assert all(f"\n    {command} " in shown for command in COMMANDS)
    assert 'mas ask "Explain Python async"' in shown
    assert all(len(line) <= 100 for line in shown.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert cli.main([command, "--help"]) == 0
    shown, _ = capsys.readouterr()
    assert shown.startswith(f"usage: mas {command} ")
    assert "--" in shown


def test_without_a_command_help_is_shown_and_the_usage_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: mas ")
    assert "examples:" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ask", "Hi", "--max-tokens", "x"], "mas ask: --max-tokens: invalid int value: 'x' (see mas ask --help)"),
        (
            ["ask", "Hi", "--format", "xml"],
            "mas ask: --format: invalid choice: 'xml' (choose from 'text', 'records', 'json'",
        ),
        (["ask", "Hi", "--colour"], "mas: unrecognized arguments: --colour (see mas --help)"),
        (["ask", "Hi", "--max", "3"], "mas: unrecognized arguments: --max 3 (see mas --help)"),
        (["ask", "Hi", "there"], "mas: unrecognized arguments: there (see mas --help)"),
        (["aks", "Hi"], "mas: COMMAND: invalid choice: 'aks' (choose from"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(sentence)
    assert err.count("\n") == 1


def test_a_bug_is_one_line_and_says_how_to_see_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: object) -> int:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(doctor, "run", breaks)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().err == (
        "mas: this is a bug (ZeroDivisionError: by zero); MAS_DEBUG=1 shows where: please report it\n"
    )
    monkeypatch.setenv("MAS_DEBUG", "1")
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


async def test_debugging_shows_the_log_and_where_an_error_comes_from(folder: Path) -> None:
    done = await run("ask", "", env={"MAS_DEBUG": "1"}, cwd=folder)
    assert done.code == 1
    assert "Traceback" in done.err
    assert done.err.endswith("InvalidRequest: the prompt is empty: give the agent something to answer\n")


def test_interrupted_before_anything_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", interrupted)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr() == ("", "")


async def test_the_module_is_the_command(folder: Path) -> None:
    assert await run("--version", cwd=folder) == (0, f"mas {__version__}\n".encode(), "")
    (script,) = entry_points(group="console_scripts", name="mas")
    assert script.load() is cli.main


@pytest.mark.parametrize("command", ["doctor", "--help"])
async def test_a_reader_that_left_is_no_reason_to_complain(folder: Path, command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    async with process(command, cwd=folder, stdout=write) as started:
        os.close(write)
        _, err = await started.communicate()
    assert err == b""
    assert started.returncode in (0, 1)  # argparse says nothing of a page of help that nobody took


async def test_closed_standard_streams(folder: Path) -> None:
    closed = after("os.closerange(0, 3)\nsys.stdin = sys.stdout = sys.stderr = None")
    for arguments, code in (["--version"], 0), (["ask"], 2):
        assert await run(*arguments, cwd=folder, program=closed) == (code, b"", "")


# --- starting -------------------------------------------------------------------------------------------------------

LOADED = """
import sys
from multi_agent_scheduler.cli import main
code = main(sys.argv[1:])
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


def loaded(folder: Path, *arguments: str) -> set[str]:
    """The modules that a command has loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, timeout=30, cwd=folder, check=False
    )
    return set(done.stderr.splitlines()[-1].split())


def test_the_version_waits_for_no_import(folder: Path) -> None:
    names = loaded(folder, "--version")
    assert not {"asyncio", "msgspec", "multi_agent_scheduler.agents"} & names
    assert {name for name in names if name.startswith("multi_agent_scheduler.cli.")} == set()


def test_a_question_loads_only_the_agent_that_is_asked(folder: Path) -> None:
    Path("mas.toml").write_text('[agents.a]\ntype = "compatible"\nbase_url = "http://127.0.0.1:1"\nmodel = "m"\n')
    names = loaded(folder, "ask", "Hi")
    assert "multi_agent_scheduler.agents.compatible" in names
    unused = {
        "agents.claude",
        "agents.gemini",
        "agents.local",
        "cli.demo",
        "cli.doctor",
        "wire.anthropic",
        "wire.gemini",
    }
    assert {name for name in unused if f"multi_agent_scheduler.{name}" in names} == set()
    assert not {"rich", "xllamacpp", "aiohttp", "importlib.metadata", "dataclasses"} & names


@pytest.mark.parametrize("command", ["run plan.json", "ask Hi", "doctor", "serve", "resume", "keys list"])
@pytest.mark.parametrize(("file", "said"), [("none.toml", "cannot be read"), ("bytes.toml", "is not UTF-8 text")])
def test_a_configuration_that_is_named_and_cannot_be_read_is_wrong_usage(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, file: str, said: str
) -> None:
    (folder / "plan.json").write_text('{"tasks": [{"id": "a", "prompt": "x"}]}')
    (folder / "bytes.toml").write_bytes(b"\xff")
    assert cli.main([*command.split(), "--config", file]) == 2
    out, err = capsys.readouterr()
    assert (out, err.startswith(f"mas: {file} {said}")) == ("", True)
