"""Ctrl-C, SIGTERM, and readers that go away: the provider is closed, and what came is kept."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.agents.server import LAST, Provider, Script, answer, chat, chat_event, chunk, eventually, head
from tests.cli.commands import MAS, Terminal, after, agent_table, needs_model, process, run

SAYS_HELLO: Script = [head(), chunk(chat_event({"content": "Hello, "}))]
"""And then nothing more: the stream stays open."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(text: str) -> None:
    Path("mas.toml").write_text(text)


def use(provider: Provider) -> None:
    configure(agent_table(provider.url))


async def said(started: asyncio.subprocess.Process, text: bytes) -> bytes:
    """Read the output until it has this text."""
    assert started.stdout is not None
    out = b""
    async with asyncio.timeout(30):
        while text not in out:
            data = await started.stdout.read(4096)
            assert data, out
            out += data
    return out


async def rest(started: asyncio.subprocess.Process) -> tuple[bytes, str, int]:
    """What else comes on stdout, stderr, and the exit code."""
    out, err = await asyncio.wait_for(started.communicate(), 30)
    assert started.returncode is not None
    return out or b"", err.decode(), started.returncode


STOPS = pytest.mark.parametrize(
    ("number", "code", "reason"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "the terminal was closed")],
)


@STOPS
async def test_a_stop_closes_the_provider_and_keeps_what_came(
    folder: Path, number: signal.Signals, code: int, reason: str
) -> None:
    async with Provider(SAYS_HELLO) as provider:
        use(provider)
        async with process("ask", "Hi", cwd=folder) as started:
            assert await said(started, b"Hello, ") == b"Hello, "
            os.killpg(started.pid, number)
            await asyncio.wait_for(provider.peers[0].closed.wait(), 10)
            out, err, came = await rest(started)
    assert (out, came) == (b"", code)
    assert err.startswith("a · m-1 · cancelled · ")
    assert err.count("\n") == 1


@STOPS
async def test_the_records_of_a_stopped_answer_end_with_cancelled(
    folder: Path, number: signal.Signals, code: int, reason: str
) -> None:
    async with Provider(SAYS_HELLO) as provider:
        use(provider)
        async with process("ask", "Hi", "--format", "records", "--quiet", cwd=folder) as started:
            out = await said(started, b"Hello")
            os.killpg(started.pid, number)
            more, err, came = await rest(started)
    found = [json.loads(line) for line in (out + more).splitlines()]
    assert [record["type"] for record in found] == ["call_started", "text", "call_ended", "cancelled"]
    assert [record["seq"] for record in found] == [1, 2, 3, 4]
    assert found[-1]["reason"] == reason
    assert (came, err) == (code, "")


@pytest.mark.needs("timeout")
async def test_a_signal_that_comes_twice_at_once_is_one(folder: Path) -> None:
    """timeout(1) signals the process, and then the group that the process is in."""
    async with Provider(SAYS_HELLO) as provider:
        use(provider)
        timeout = ("timeout", "--signal=INT", "--preserve-status", "30", *MAS)
        async with process("ask", "Hi", "--format", "records", "-q", cwd=folder, program=timeout) as started:
            out = await said(started, b"Hello")
            started.send_signal(signal.SIGINT)  # which timeout passes on as it does when the time is up
            more, _, code = await rest(started)
    assert json.loads((out + more).splitlines()[-1])["type"] == "cancelled"
    assert code == 130


async def test_a_stop_before_the_provider_answers(folder: Path) -> None:
    async with Provider([]) as provider:
        use(provider)
        async with process("ask", "Hi", cwd=folder) as started:
            await asyncio.wait_for(provider.arrived.wait(), 30)
            os.killpg(started.pid, signal.SIGINT)
            await asyncio.wait_for(provider.peers[0].closed.wait(), 10)
            out, err, code = await rest(started)
    assert (out, code) == (b"", 130)
    assert err.startswith("a · m-1 · cancelled")


async def test_a_slow_reader_gets_all_that_came_before_the_stop(folder: Path) -> None:
    async with Provider([head(), *[chunk(chat_event({"content": "x" * 5000}))] * 100]) as provider:
        use(provider)
        async with unread("ask", "Hi", "--format", "records", cwd=folder) as (started, descriptor):
            started.send_signal(signal.SIGINT)
            await asyncio.wait_for(provider.peers[0].closed.wait(), 10)
            out = await asyncio.to_thread(read_all, descriptor)
            assert await asyncio.wait_for(started.wait(), 10) == 130
    found = [json.loads(line) for line in out.splitlines()]
    assert [record["seq"] for record in found] == list(range(1, len(found) + 1))
    assert found[-1]["type"] == "cancelled"


async def test_a_second_signal_ends_at_once_even_if_nobody_reads(folder: Path) -> None:
    async with Provider([head(), *[chunk(chat_event({"content": "x" * 5000}))] * 100]) as provider:
        use(provider)
        nervous = after("import multi_agent_scheduler.cli.stopping as stopping\nstopping._ONE_GESTURE = 0")
        async with unread("ask", "Hi", cwd=folder, program=nervous) as (started, _):
            started.send_signal(signal.SIGINT)
            await asyncio.wait_for(provider.peers[0].closed.wait(), 10)
            assert started.returncode is None
            started.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(started.wait(), 3) == 143


async def test_after_a_stop_nobody_is_waited_for_forever(folder: Path) -> None:
    async with Provider([head(), *[chunk(chat_event({"content": "x" * 5000}))] * 100]) as provider:
        use(provider)
        impatient = after("import multi_agent_scheduler.cli.ask as ask\nask._PATIENCE = 0.2")
        async with unread("ask", "Hi", cwd=folder, program=impatient) as (started, _):
            started.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(started.wait(), 10) == 143


@asynccontextmanager
async def unread(
    *arguments: str, cwd: Path, program: tuple[str, ...] = MAS
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """``mas`` with a pipe for its output that is full already, and the end to read it from."""
    read, write = os.pipe()
    try:
        async with process(*arguments, cwd=cwd, program=program, stdout=write) as started:
            await eventually(lambda: not select.select([], [write], [], 0)[1])
            os.close(write)
            write = -1
            yield started, read
    finally:
        for descriptor in (read, write):
            if descriptor >= 0:
                os.close(descriptor)


def read_all(descriptor: int) -> bytes:
    data = b""
    while piece := os.read(descriptor, 1 << 16):
        data += piece
    return data


async def test_a_reader_that_leaves_closes_the_provider_and_nobody_complains(folder: Path) -> None:
    more = asyncio.Event()
    async with Provider([*SAYS_HELLO, more, chunk(chat_event({"content": "world"}))]) as provider:
        use(provider)
        read, write = os.pipe()
        async with process("ask", "Hi", cwd=folder, stdout=write) as started:
            os.close(write)
            assert await asyncio.to_thread(os.read, read, 100) == b"Hello, "
            os.close(read)
            more.set()
            await asyncio.wait_for(provider.peers[0].closed.wait(), 10)
            assert await rest(started) == (b"", "", 1)


async def test_a_signal_that_was_ignored_stays_ignored(folder: Path) -> None:
    more = asyncio.Event()
    end = [chunk(chat_event(finish_reason="stop")), chunk(b"data: [DONE]\n\n"), LAST]
    async with Provider([*SAYS_HELLO, more, *end]) as provider:
        use(provider)
        nohup = after("import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)")
        async with process("ask", "Hi", cwd=folder, program=nohup) as started:
            out = await said(started, b"Hello, ")
            started.send_signal(signal.SIGHUP)
            more.set()
            out_rest, err, code = await rest(started)
    assert (out + out_rest, code) == (b"Hello, ", 0), err


@needs_model
async def test_a_stop_while_the_model_is_loaded(folder: Path) -> None:
    async with process("ask", "Hi", "--format", "records", cwd=folder) as started:
        out = await said(started, b"call_started")  # the Call begins, and with it the loading
        os.killpg(started.pid, signal.SIGINT)
        more, _, code = await rest(started)
    assert code == 130
    assert json.loads((out + more).splitlines()[-1])["type"] == "cancelled"


async def test_a_stop_before_anything_runs(folder: Path) -> None:
    interrupted = after("import signal\nfrom multi_agent_scheduler import config\n"
                        "config.read = lambda _: signal.raise_signal(signal.SIGINT)")  # fmt: skip
    configure(agent_table("http://127.0.0.1:1"))
    async with process("ask", "Hi", cwd=folder, program=interrupted) as started:
        assert await rest(started) == (b"", "", 130)


async def test_control_c_on_a_terminal(folder: Path) -> None:
    async with Provider(SAYS_HELLO) as provider:
        use(provider)
        with Terminal("ask", "Hi", cwd=folder) as terminal:
            await asyncio.to_thread(terminal.wait_for, "Hello, ")
            terminal.press("\x03")
            code = await asyncio.to_thread(terminal.wait)
        await asyncio.wait_for(provider.peers[0].closed.wait(), 10)
    assert code == 130
    lines = terminal.text.splitlines()
    assert lines[0].startswith("Hello, ")
    assert lines[1].startswith("a · m-1 · cancelled")


async def test_a_model_does_not_drive_the_terminal(folder: Path) -> None:
    wild = "\x1b[2J\x9b5mblink\x07\x1b]0;title\x07\tend"
    async with Provider(answer(chat(wild))) as provider:
        use(provider)
        for extra in ([], ["--format", "records"]):
            with Terminal("ask", "Hi", *extra, cwd=folder) as terminal:
                assert await asyncio.to_thread(terminal.wait) == 0
            assert not {"\x1b", "\x9b", "\x07"} & set(terminal.raw)
            assert "blink" in terminal.raw


async def test_a_terminal_gets_the_status_on_a_line_of_its_own(folder: Path) -> None:
    async with Provider(answer(chat("Hello"))) as provider:
        use(provider)
        with Terminal("ask", "Hi", cwd=folder) as terminal:
            assert await asyncio.to_thread(terminal.wait) == 0
    assert terminal.text.startswith("Hello\na · m-1 · completed (stop)")


# The signal is taken by a thread that is not the main one, as may happen to any that is about to sleep: nothing but the
# wake-up file descriptor tells the loop of it.
SLEEPER = """
import asyncio, signal, threading
from multi_agent_scheduler.cli.stopping import Stopping

def shoot():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

async def main():
    loop = asyncio.get_running_loop()
    with Stopping() as stopping:
        told = loop.create_future()
        stopping.then(told.set_result)
        timer = threading.Timer(0.1, shoot)
        timer.start()
        print(await told, flush=True)
        timer.join()
    assert signal.set_wakeup_fd(-1) == -1

asyncio.run(main())
"""


async def test_a_signal_wakes_a_loop_that_sleeps(folder: Path) -> None:
    done = await run(cwd=folder, program=(sys.executable, "-c", SLEEPER))
    assert done == (0, b"Ctrl-C\n", "")


async def test_a_loop_that_sees_to_signals_itself_is_left_alone(folder: Path) -> None:
    pytest.importorskip("uvloop", reason="needs uvloop")
    program = SLEEPER.replace("asyncio.run(main())", "import uvloop; uvloop.run(main())")
    program = program.replace("    assert signal.set_wakeup_fd(-1) == -1\n", "")
    done = await run(cwd=folder, program=(sys.executable, "-c", program))
    assert done == (0, b"Ctrl-C\n", "")
