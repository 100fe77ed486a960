"""How the demo looks: plain lines, panels, and the picture."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.cli import screen
from multi_agent_scheduler.cli.screen import Lane, Plain

FINAL = {
    "success": True,
    "error": None,
    "state": "completed",
    "stop_reason": "stop",
    "ttft": 0.25,
    "usage": {"output_tokens": 3},
}


def lane(*chunks: str, name: str = "ada", **final: Any) -> Lane:
    made = Lane(name, "OpenAI chat completions", "Why?", began=10.0)
    for number, chunk in enumerate(chunks):
        made.add(chunk, 10.25 + number * 0.1)
    made.final = FINAL | final
    return made


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_figures_of_a_lane() -> None:
    assert lane("a", "b", "c").figures() == (
        "ada", "OpenAI chat completions", "0.25 s", "10", "3", "completed (stop)"
    )  # fmt: skip
    failed = lane(success=False, state="failed", error="rate_limit_error: later", ttft=None, usage=None)
    assert failed.figures()[2:] == ("-", "-", "-", "rate_limit_error: later")
    assert Lane("ada", "p", "q").figures()[2:] == ("-", "-", "-", "not finished")


def test_plain_lines_come_as_soon_as_they_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    plain, told = Plain(), Lane("ada", "p", "q")
    plain.begin([told])
    shown = []
    for chunk in ("One", " two\n", "\n\nthr", "ee " + "word " * 20):
        told.add(chunk, 0.0)
        plain.update(told)
        shown.append(capsys.readouterr().out)
    long = ("three " + "word " * 16).strip()
    assert shown == ["", "[ada] One two\n", "", f"[ada] {long}\n"]
    told.final = FINAL
    plain.update(told)
    assert capsys.readouterr().out == "[ada] word word word word\n"


@given(st.lists(st.text(st.sampled_from("ab \n"), max_size=60)))
def test_plain_lines_lose_nothing(chunks: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.StringIO())
        plain, told = Plain(), Lane("ada", "p", "q")
        plain.begin([told])
        for chunk in chunks:
            told.add(chunk, 0.0)
            plain.update(told)
        told.final = FINAL
        plain.update(told)
        lines = sys.stdout.getvalue().splitlines()  # type: ignore[attr-defined]
    said = "".join(line.removeprefix("[ada] ") for line in lines)
    assert said.replace(" ", "") == "".join(chunks).replace(" ", "").replace("\n", "")
    assert all(len(line) <= 100 for line in lines)


def test_a_plain_table_stands_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Plain().table([lane("a"), lane("b", name="clara")])
    head, first, second = capsys.readouterr().out.strip().splitlines()
    assert head.index("protocol") == first.index("OpenAI") == second.index("OpenAI")
    assert head.index("ended") == first.index("completed")


@pytest.mark.parametrize(("variables", "live"), [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False)])
def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], live: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert isinstance(screen.fitting(), Plain) is not live


def test_without_rich_a_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(screen, "rich_installed", lambda: False)
    assert isinstance(screen.fitting(), Plain)


@pytest.mark.parametrize(("no_color", "colours"), [(None, True), ("1", False)])
def test_the_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch, no_color: str | None, colours: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys, "stdout", out := Terminal())
    screen.fitting().table([lane("a", success=False, error="[bold]not markup[/bold]")])
    assert "[bold]not markup[/bold]" in out.getvalue()
    assert ("\x1b[31m" in out.getvalue()) is colours


def test_a_narrow_terminal_gets_sentences_instead_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", out := Terminal())
    screen.fitting().table([lane("a", "b")])
    assert " ".join(out.getvalue().split()) == (
        "ada, OpenAI chat completions: first chunk 0.25 s, 10 chunks/s, 3 tokens, completed (stop)"
    )


def test_the_picture_has_panels_and_figures_and_loads_nothing(tmp_path: Path) -> None:
    file = tmp_path / "demo.svg"
    screen.save_picture(str(file), [lane("Hello <b>&amp;</b>"), lane(success=False, error="it broke", name="bruno")])
    text = file.read_text(encoding="utf-8")
    words = " ".join("".join(ElementTree.fromstring(text).itertext()).split())
    for piece in ("ada", "OpenAI", "Hello", "bruno", "broke", "0.25"):
        assert piece in words
    assert "font-face" not in text
    assert "url(http" not in text
