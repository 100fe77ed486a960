"""``mas demo`` with the embedded model: as a newcomer sees it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from multi_agent_scheduler import cli
from multi_agent_scheduler.cli import screen
from tests.cli.commands import Terminal, needs_model, run

ROWS = {"ada": "OpenAI chat completions", "bruno": "OpenAI responses", "clara": "Anthropic messages"}


@needs_model
async def test_without_a_terminal_it_prints_plain_lines_and_saves_a_picture(tmp_path: Path) -> None:
    done = await run("demo", "--max-tokens", "6", "--svg", "demo.svg", cwd=tmp_path)
    text = done.out.decode()
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in text
    for name, protocol in ROWS.items():
        assert f"\n[{name}] " in text
        assert re.search(rf"\n{name} +{protocol} +\d+\.\d\d s +[\d-]+ +\d+ +completed \(", text), text
    assert re.search(r"first chunk was there after \d+\.\d\d s, the whole answer after \d+\.\d\d s\.", text)
    assert "Try next:\n" in text
    assert "ada" in (tmp_path / "demo.svg").read_text()


@needs_model
def test_on_a_terminal_the_panels_move_and_the_table_stays(tmp_path: Path) -> None:
    with Terminal("demo", "--max-tokens", "6", cwd=tmp_path) as terminal:
        assert terminal.wait(50) == 0, terminal.text
    assert terminal.raw.count("\x1b[?25l") == terminal.raw.count("\x1b[?25h") == 1
    for name, protocol in ROWS.items():
        assert f"─ {name} · {protocol} ─" in terminal.text
        assert re.search(rf"│ {name} +│ {protocol} +│ +\d+\.\d\d s │ +[\d-]+ │ +\d+ │ completed", terminal.text)


@needs_model
def test_a_narrow_terminal_is_enough(tmp_path: Path) -> None:
    with Terminal("demo", "--max-tokens", "6", cwd=tmp_path, columns=40, lines=16) as terminal:
        assert terminal.wait(50) == 0, terminal.text
    assert max(map(len, terminal.text.splitlines())) <= 40
    assert "ada, OpenAI chat completions: first" in terminal.text


@needs_model
def test_control_c_ends_it_and_gives_the_cursor_back(tmp_path: Path) -> None:
    with Terminal("demo", "--max-tokens", "1500", cwd=tmp_path) as terminal:
        terminal.wait_for(" chunks, the first after")
        terminal.press("\x03")
        assert terminal.wait(20) == 130, terminal.text
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
    assert terminal.text.rstrip().endswith("Stopped.")
    assert "Traceback" not in terminal.text


def test_a_picture_needs_rich(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "rich_installed", lambda: False)
    monkeypatch.setattr("multi_agent_scheduler.agents.local.LocalAgent.missing", None)
    assert cli.main(["demo", "--svg", "x.svg"]) == 1
    assert capsys.readouterr().err == "mas: --svg needs rich: pip install 'multi-agent-scheduler[cli]'\n"
