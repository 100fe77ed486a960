"""The examples, as a newcomer runs them: nothing on stderr, no warning, and what they promise on stdout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from multi_agent_scheduler.agents import LocalAgent

EXAMPLES: Final = Path(__file__).parent.parent / "examples"


@pytest.fixture
def model() -> None:
    missing = LocalAgent().missing
    if missing is not None:
        pytest.skip(f"needs the embedded model: {missing}")


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "streaming_example.py"), *arguments]
    surroundings = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, env=surroundings, capture_output=True, encoding="utf-8", timeout=55)


@pytest.mark.usefixtures("model")
def test_some_of_the_examples_run() -> None:
    done = ran("basic", "progress", "events", "errors", "timeout", "sync")

    assert (done.returncode, done.stderr) == (0, "")
    parts = dict(re.findall(r"^--- (\w+): [^\n]*\n(.*?)(?=^--- |\Z)", done.stdout, re.MULTILINE | re.DOTALL))
    assert list(parts) == ["basic", "progress", "events", "errors", "timeout", "sync"]
    assert parts["basic"].strip()
    assert re.fullmatch(r"complete: [1-9]\d* characters\n\n", parts["progress"])
    assert re.fullmatch(
        r"task\.stream_completed: t1 took \d+\.\d\d s\nstreams started: 1, completed: 1\n\n", parts["events"]
    )
    assert "[ERROR: connection_error: " in parts["errors"]
    assert "ConnectionFailed, retryable=True" in parts["errors"]
    assert "kept: 'What is the answer? The answer is '" in parts["errors"]
    assert "success=False state=failed" in parts["errors"]
    assert parts["timeout"].startswith("timeout_error: not finished within the total limit of 0.3 s")
    assert parts["sync"].strip()


@pytest.mark.usefixtures("model")
def test_tasks_at_once_and_one_after_the_other() -> None:
    done = ran("several", "plan", "concurrent")

    assert (done.returncode, done.stderr) == (0, "")
    labels = re.findall(r"^\[(\w+)\] ", done.stdout, re.MULTILINE)
    assert sorted(labels[:3]) == ["t2", "t3", "t4"]
    assert labels[3:5] == ["draft", "title"]
    assert sorted(labels[5:]) == ["echo", "local"]


def test_the_list_names_every_example() -> None:
    done = ran("--list")

    assert (done.returncode, done.stderr) == (0, "")
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert {"basic", "scheduler", "chat", "events", "errors"} <= set(names)
    assert all(len(line.split()) > 3 for line in done.stdout.splitlines())


def test_an_example_that_is_not_there() -> None:
    done = ran("bogus")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("unknown example 'bogus'; the examples are basic, scheduler, ")
    assert len(done.stderr.splitlines()) == 1
