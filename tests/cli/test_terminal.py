"""What may be shown on a terminal."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from multi_agent_scheduler.cli.terminal import complain, printable, status
from multi_agent_scheduler.records import Usage
from multi_agent_scheduler.task import Result


@given(st.text())
def test_nothing_that_drives_a_terminal_is_printable(text: str) -> None:
    shown = printable(text)
    assert {char for char in shown if unicodedata.category(char) == "Cc"} <= {"\n", "\t"}
    assert printable(shown) == shown


@given(st.text(st.characters(exclude_categories=["Cc"])))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert printable(text + "\n\t") == text + "\n\t"


def test_control_characters_become_visible() -> None:
    assert printable("a\x1b[31mb\r\nc\x9bd\x7f") == "a\ufffd[31mb\nc\ufffdd\ufffd"


@given(st.text())
def test_a_complaint_is_one_line(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr("sys.stderr", type("Sink", (), {"write": staticmethod(written.append)}))
        complain(text)
    shown = "".join(written)
    assert re.fullmatch(r"mas: [^\n]*\n", shown)
    assert {char for char in shown if unicodedata.category(char) == "Cc"} == {"\n"}


def test_a_status_says_what_is_known() -> None:
    bare = Result(text="", state="cancelled", success=False, latency=1.5)
    assert status("a", bare) == "a · cancelled · 1.50 s"
    assert status("a", structs.replace(bare, latency=0.0)) == "a · cancelled"  # nobody knows
    full = Result(
        text="x", state="completed", success=True, stop_reason="stop", usage=Usage(output_tokens=7), latency=2.0,
        ttft=0.25, model="m\x1b",
    )  # fmt: skip
    assert status("a", full) == "a · m\ufffd · completed (stop) · 7 tokens · first chunk 0.25 s · 2.00 s"
