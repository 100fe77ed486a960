"""``mas resume``: after a run that was killed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.agents.server import Provider, answer, chat
from tests.cli.commands import mas, process
from tests.cli.test_run import hangs, states, write

STORE = ("--store", "sqlite:///mas.db")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("MAS_STORE", raising=False)
    return tmp_path


@pytest.fixture
def shown(capsysbinary: pytest.CaptureFixture[bytes]) -> pytest.CaptureFixture[bytes]:
    return capsysbinary


async def killed(folder: Path) -> None:
    """A run that is killed when its first task has said something."""
    async with process("run", "plan.json", *STORE, cwd=folder) as started:
        assert started.stdout is not None
        while (await asyncio.wait_for(started.stdout.readline(), 20)) != b"[facts] Hello\n":
            pass
        os.killpg(started.pid, signal.SIGKILL)
        await started.wait()


async def test_a_plan_that_was_killed_is_finished(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    async with Provider(hangs(), answer(chat("Bees fly")), answer(chat("A page"))) as provider:
        write(provider)
        await killed(folder)
        done = await mas(shown, "resume", *STORE)
    lines = done.out.decode().splitlines()
    assert (done.code, done.err) == (0, "")
    assert [line.partition(" (stream ")[0] for line in lines] == [
        "facts: goes on",
        "page: goes on",
        "facts: completed (stop)",
        "page: completed (stop)",
    ]
    assert await states(folder / "mas.db") == {"facts": "completed", "page": "completed"}
    assert provider.requests[2].json["messages"][0]["content"] == "Write from: Bees fly"


async def test_the_next_run_says_what_was_left_and_leaves_it(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    async with Provider(hangs(), answer(chat("x")), answer(chat("y"))) as provider:
        write(provider)
        await killed(folder)
        done = await mas(shown, "run", "plan.json", *STORE)
    assert done.code == 0
    assert done.err == "mas: tasks of earlier runs have not ended (2): mas resume goes on with them\n"


async def test_an_agent_that_is_no_more_fails_its_tasks(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    async with Provider(hangs()) as provider:
        write(provider)
        await killed(folder)
        write(provider, agents='[agents.b]\ntype = "compatible"\nbase_url = "http://127.0.0.1:1"\nmodel = "m"\n')
        done = await mas(shown, "resume", *STORE)
    assert done.code == 1
    assert b"\nfacts: invalid_request_error: the agent 'a' that the task was given to is not here" in done.out
    assert (await states(folder / "mas.db"))["page"] == "skipped"


async def test_control_c_leaves_what_goes_on_to_the_next(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    async with Provider(hangs(), hangs(), answer(chat("Bees fly")), answer(chat("A page"))) as provider:
        write(provider)
        await killed(folder)
        async with process("resume", *STORE, cwd=folder) as started:
            while len(provider.requests) < 2:  # noqa: ASYNC110 - it is another process that asks
                await asyncio.sleep(0.01)
            os.killpg(started.pid, signal.SIGINT)
            out, err = await asyncio.wait_for(started.communicate(), 20)
        assert (started.returncode, err) == (130, b"")
        assert b"\nfacts: not finished; mas resume goes on with it\n" in out
        assert (await mas(shown, "resume", *STORE)).code == 0
    assert await states(folder / "mas.db") == {"facts": "completed", "page": "completed"}


async def test_nothing_is_left_after_a_whole_run(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(answer(chat("x")), answer(chat("y"))) as provider:
        write(provider)
        assert (await mas(shown, "run", "plan.json", *STORE)).code == 0
        assert await mas(shown, "resume", *STORE) == (0, b"Nothing is left to go on with in mas.db.\n", "")


@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        ("sqlite:///none.db", "mas: none.db: there is no such store yet; mas run makes it\n"),
        ("memory://", "mas: memory:// is seen by its own process alone: name a store sqlite:///FILE\n"),
    ],
)
async def test_a_store_that_has_nothing_is_said(
    shown: pytest.CaptureFixture[bytes], folder: Path, store: str, sentence: str
) -> None:
    assert await mas(shown, "resume", "--store", store) == (1, b"", sentence)
    assert os.listdir(folder) == []
