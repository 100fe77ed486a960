"""``mas streams``, ``mas watch`` and ``mas cancel``, while another process runs a plan and when none does."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from multi_agent_scheduler.cli import streams
from tests.agents.server import Provider, answer, chat, chat_event, chunk, head
from tests.cli.commands import Done, mas, process, run
from tests.cli.test_run import hangs, states, write
from tests.store.files import until, using

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


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A process that runs a plan, of which the first task has said a line; and that task's stream."""
    async with process("run", "plan.json", *STORE, cwd=folder) as started:
        assert started.stdout is not None
        out = b""
        while not out.endswith(b"[facts] Hello\n"):
            out += await asyncio.wait_for(started.stdout.readline(), 20)
        found = re.search(rb"stream ([0-9a-f]{32})", out)
        assert found is not None
        yield started, found[1].decode()


async def kill(started: asyncio.subprocess.Process) -> None:
    os.killpg(started.pid, signal.SIGKILL)
    await started.wait()


async def ran(shown: pytest.CaptureFixture[bytes]) -> dict[str, str]:
    """A plan that ran to its end: its streams by task."""
    async with Provider(answer(chat("Bees ", "fly")), answer(chat("A page"))) as provider:
        write(provider)
        assert (await mas(shown, "run", "plan.json", *STORE)).code == 0
    listed = json.loads((await mas(shown, "streams", "--format", "json", *STORE)).out)
    return {info["task_id"]: info["stream_id"] for info in listed}


# --- while another process runs them --------------------------------------------------------------------------------


async def test_streams_are_listed_while_they_run(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    async with Provider(hangs()) as provider:
        write(provider)
        async with running(folder) as (_, stream):
            done = await mas(shown, "streams", *STORE)
    assert (done.code, done.err) == (0, "")
    headings, page, facts = done.out.decode().splitlines()
    assert headings.split() == ["id", "task", "plan", "state", "size", "age"]
    assert re.fullmatch(r"[0-9a-f]{12}  page   [0-9a-f]{12}  queued   0 B +\d+ s", page)
    assert re.fullmatch(rf"{stream[:12]}  facts  [0-9a-f]{{12}}  running  \d+ B +\d+ s", facts)


async def test_a_stream_is_watched_from_another_process_to_its_end(folder: Path) -> None:
    goes_on = asyncio.Event()
    script = [
        head(),
        chunk(chat_event({"content": "Hello\n"})),
        goes_on,
        chunk(chat_event({"content": "world"})),
        *answer(chat())[1:],
    ]
    async with Provider(script, answer(chat("A page"))) as provider:
        write(provider)
        async with running(folder) as (_, stream), process("watch", stream[:8], *STORE, cwd=folder) as watching:
            assert watching.stdout is not None
            assert await asyncio.wait_for(watching.stdout.readline(), 20) == b"Hello\n"
            goes_on.set()
            out, err = await asyncio.wait_for(watching.communicate(), 20)
    assert (out, watching.returncode) == (b"world", 0), err
    assert err.startswith(b"facts \xc2\xb7 m-1 \xc2\xb7 completed (stop) \xc2\xb7 ")


async def test_control_c_stops_watching_and_nothing_else(folder: Path) -> None:
    async with Provider(hangs()) as provider:
        write(provider)
        async with running(folder) as (started, stream):
            async with process("watch", stream, *STORE, cwd=folder) as watching:
                assert watching.stdout is not None
                assert await asyncio.wait_for(watching.stdout.readline(), 20) == b"Hello\n"
                os.killpg(watching.pid, signal.SIGINT)
                assert await asyncio.wait_for(watching.communicate(), 20) == (b"", b"")
            assert (watching.returncode, started.returncode) == (130, None)
            assert (await states(folder / "mas.db"))["facts"] == "running"


async def test_a_stream_is_cancelled_from_another_process(folder: Path) -> None:
    async with Provider(hangs()) as provider:
        write(provider)
        async with running(folder) as (started, stream):
            done = await run("cancel", stream[:6], *STORE, cwd=folder)
            out, _ = await asyncio.wait_for(started.communicate(), 20)
        await asyncio.wait_for(provider.peers[0].closed.wait(), 10)
    assert done == Done(0, f"facts ({stream}) is stopped\n".encode(), "")
    assert b"\nfacts: cancelled" in b"\n" + out
    assert started.returncode == 1
    assert await states(folder / "mas.db") == {"facts": "cancelled", "page": "skipped"}


@pytest.mark.parametrize("arguments", [["run", "plan.json"], ["resume"]])
async def test_only_one_process_runs_the_streams_of_a_store(folder: Path, arguments: list[str]) -> None:
    async with Provider(hangs()) as provider:
        write(provider)
        async with running(folder) as (started, _):
            done = await run(*arguments, *STORE, cwd=folder)
            assert started.returncode is None
    assert (done.code, done.out) == (1, b"")
    assert done.err == (
        f"mas: mas.db is in use by process {started.pid}: end it first. Its streams can be listed, watched and "
        "cancelled from here\n"
    )


# --- when the process that ran them has died ------------------------------------------------------------------------


async def test_what_nobody_runs_is_said(
    shown: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(streams, "_LOOK_SECONDS", 0.05)
    async with Provider(hangs()) as provider:
        write(provider)
        async with running(folder) as (started, stream):
            await kill(started)
    listed = await mas(shown, "streams", *STORE)
    assert listed.err == "mas: nobody runs what has not ended (2): mas resume goes on with it\n"
    watched = await mas(shown, "watch", stream, *STORE)
    assert watched == (
        1,
        b"Hello\n",
        "mas: facts: nobody runs it, and it has not ended: mas resume goes on with it\n",
    )


async def test_a_stop_is_written_where_nobody_runs_the_stream(
    shown: pytest.CaptureFixture[bytes], folder: Path
) -> None:
    async with Provider(hangs()) as provider:
        write(provider)
        async with running(folder) as (started, stream):
            await kill(started)
        first = await mas(shown, "cancel", stream, *STORE)
        again = await mas(shown, "cancel", stream, *STORE)
        resumed = await mas(shown, "resume", *STORE)
    how = "is run by nobody; it will end as cancelled when mas resume goes on with it"
    assert first == (0, f"facts ({stream}) {how}\n".encode(), "")
    assert again == (0, f"facts ({stream}) was stopped before\n".encode(), "")
    assert resumed.code == 1
    assert await states(folder / "mas.db") == {"facts": "cancelled", "page": "skipped"}


# --- when they have ended -------------------------------------------------------------------------------------------


async def test_a_stream_that_has_ended_is_shown_whole_or_from_a_cursor(shown: pytest.CaptureFixture[bytes]) -> None:
    stream = (await ran(shown))["facts"]
    whole = await mas(shown, "watch", stream, *STORE)
    assert (whole.code, whole.out) == (0, b"Bees fly")
    records = [
        json.loads(line) for line in (await mas(shown, "watch", stream, "--format", "records", *STORE)).out.splitlines()
    ]
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert records[-1]["type"] == "completed"
    second = next(record["seq"] for record in records if record.get("text") == "fly")
    rest = await mas(shown, "watch", stream, "--after", str(second - 1), *STORE)
    assert (rest.code, rest.out) == (0, b"fly")
    lines = (await mas(shown, "watch", stream, "--after", str(second), "--format", "records", *STORE)).out.splitlines()
    assert [json.loads(line) for line in lines] == records[second:]


async def test_a_stream_that_has_ended_is_not_cancelled(shown: pytest.CaptureFixture[bytes]) -> None:
    stream = (await ran(shown))["page"]
    assert await mas(shown, "cancel", stream, *STORE) == (
        1,
        b"",
        f"mas: page ({stream}) has ended already: completed\n",
    )


async def test_the_newest_streams_come_first_and_as_many_as_are_asked_for(shown: pytest.CaptureFixture[bytes]) -> None:
    await ran(shown)
    lines = (await mas(shown, "streams", "--limit", "1", *STORE)).out.decode().splitlines()
    assert len(lines) == 2
    assert lines[1].split()[1] == "page"


@pytest.mark.parametrize("command", ["watch", "cancel"])
async def test_an_id_that_names_no_stream_is_said(shown: pytest.CaptureFixture[bytes], command: str) -> None:
    stream = (await ran(shown))["facts"]
    unknown = "z" * 6
    assert await mas(shown, command, unknown, *STORE) == (
        1,
        b"",
        f"mas: there is no stream {unknown!r} in mas.db: mas streams lists them\n",
    )
    short = f"mas: {stream[:5]!r} is no stream's id: give all of it, or at least its first 6 characters\n"
    assert await mas(shown, command, stream[:5], *STORE) == (2, b"", short)


@pytest.mark.parametrize("arguments", [["streams"], ["watch", "abcdef"], ["cancel", "abcdef"]])
async def test_without_a_file_there_is_nothing_to_see_and_none_is_made(
    shown: pytest.CaptureFixture[bytes], folder: Path, arguments: list[str]
) -> None:
    assert await mas(shown, *arguments, *STORE) == (
        1,
        b"",
        "mas: mas.db: there is no such store yet; mas run makes it\n",
    )
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["streams", "--limit", "0"], "mas streams: --limit/-n: it must be a whole number from 1, not '0'"),
        (["watch", "abcdef", "--after", "x"], "mas watch: --after: it must be a whole number from 0, not 'x'"),
    ],
)
async def test_wrong_numbers_are_wrong_usage(
    shown: pytest.CaptureFixture[bytes], arguments: list[str], sentence: str
) -> None:
    done = await mas(shown, *arguments)
    assert done.code == 2
    assert done.err.startswith(sentence)


@pytest.mark.parametrize(("seconds", "age"), [(-1, "0 s"), (59, "59 s"), (90, "2 min"), (7200, "2 h"), (400000, "5 d")])
def test_ages(seconds: float, age: str) -> None:
    assert streams._age(seconds) == age


@pytest.mark.parametrize(("size", "shown_as"), [(0, "0 B"), (999, "999 B"), (1500, "2 kB"), (2_340_000, "2.3 MB")])
def test_sizes(size: int, shown_as: str) -> None:
    assert streams._size(size) == shown_as


# --- when logs were trimmed -----------------------------------------------------------------------------------------


async def test_of_a_trimmed_stream_the_text_is_shown_and_that_it_was_trimmed(
    shown: pytest.CaptureFixture[bytes], folder: Path
) -> None:
    found = await ran(shown)
    async with using(folder / "mas.db", keep_logs=0) as store:
        await until(lambda: all(info.trimmed for info in store.streams()))
        last = store.info(found["facts"]).seq
    done = await mas(shown, "watch", found["facts"][:8], *STORE)
    assert (done.code, done.out.strip()) == (0, b"Bees fly")
    said, ended = done.err.splitlines()
    assert said == "mas: facts: its log was trimmed long after its end; this is the text that it had then"
    assert "completed (stop)" in ended
    for more in (("--after", "1"), ("--format", "records")):
        done = await mas(shown, "watch", found["facts"], *more, *STORE)
        assert done.code != 0 and done.out == b"" and "was trimmed: its records are gone" in done.err
    done = await mas(shown, "watch", found["facts"], "--after", str(last), *STORE)
    assert (done.code, done.out) == (0, b"") and "completed (stop)" in done.err
    listed = json.loads((await mas(shown, "streams", "--format", "json", *STORE)).out)
    assert [info["trimmed"] for info in listed] == [True, True]
    assert (await mas(shown, "streams", *STORE)).out.count(b" (trimmed)") == 2
    done = await mas(shown, "resume", *STORE)
    assert done.code == 0
