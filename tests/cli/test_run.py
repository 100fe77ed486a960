"""``mas run``: plans from files, over scripted providers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from multi_agent_scheduler.cli import place
from multi_agent_scheduler.cli.board import LiveBoard, TaskLane
from multi_agent_scheduler.store.reader import SQLiteReader
from tests.agents.server import Provider, Script, answer, chat, chat_event, chunk, head
from tests.cli.commands import Done, Terminal, agent_table, mas, process

PLAN = {
    "tasks": [
        {"id": "facts", "prompt": "List facts"},
        {"id": "page", "template": "Write from: ${facts}", "depends_on": ["facts"]},
    ]
}
FACTS, PAGE = answer(chat("Bees\nfly")), answer(chat("A ", "page"))
BROKEN = answer(b"{}", status=400, headers={"Content-Type": "application/json"})


def hangs() -> Script:
    """An answer that says a line and never ends."""
    return [head(), chunk(chat_event({"content": "Hello\n"})), asyncio.Event()]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("MAS_STORE", raising=False)
    return tmp_path


@pytest.fixture
def shown(capsysbinary: pytest.CaptureFixture[bytes]) -> pytest.CaptureFixture[bytes]:
    return capsysbinary


def write(provider: Provider | None, plan: object = PLAN, *, agents: str = "") -> None:
    Path("mas.toml").write_text(agents or agent_table(provider.url if provider else "http://127.0.0.1:1"))
    Path("plan.json").write_text(json.dumps(plan))


async def states(path: Path) -> dict[str, str]:
    reader = SQLiteReader(path)
    await reader.open()
    try:
        return {info.task_id: info.state for info in reader.streams()}
    finally:
        await reader.aclose()


async def test_plain_lines_tell_what_happens_and_a_table_ends_them(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(FACTS, PAGE) as provider:
        write(provider)
        done = await mas(shown, "run", "plan.json")
    lines = done.out.decode().splitlines()
    assert (done.code, done.err) == (0, "")
    assert lines[:3] == ["facts", "└ page", ""]
    assert re.fullmatch(r"facts: running \(a, stream [0-9a-f]{32}\)", lines[3])
    assert lines[4:7] == ["[facts] Bees", "[facts] fly", "facts: completed (stop)"]
    assert lines[7].startswith("page: running (a, stream ")
    assert lines[8:10] == ["[page] A page", "page: completed (stop)"]
    row = r"\nfacts +a +\d+\.\d\d s +(-|~?\d+) +\d+ +- +\d+\.\d\d s +completed \(stop\)\n"
    assert re.search(row, done.out.decode())
    assert re.fullmatch(r"2 of 2 succeeded in \d+\.\d\d s\.", lines[-1])
    assert provider.requests[1].json["messages"][0]["content"] == "Write from: Bees\nfly"


async def test_streams_are_kept_in_the_data_folder(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    async with Provider(FACTS, PAGE) as provider:
        write(provider)
        assert (await mas(shown, "run", "plan.json")).code == 0
    kept = folder / "data" / "multi-agent-scheduler" / "mas.db"
    assert await states(kept) == {"facts": "completed", "page": "completed"}


async def test_the_store_can_be_named(
    shown: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("MAS_STORE", "sqlite:///environment.db")
    async with Provider(FACTS, PAGE, FACTS, PAGE) as provider:
        write(provider)
        assert (await mas(shown, "run", "plan.json")).code == 0
        assert (await mas(shown, "run", "plan.json", "--store", "sqlite:///given.db")).code == 0
    assert len(await states(folder / "environment.db")) == len(await states(folder / "given.db")) == 2
    assert not (folder / "data").exists()


async def test_the_configuration_names_the_store_beside_it(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    async with Provider(FACTS, PAGE) as provider:
        write(provider, agents='store = "sqlite:///kept.db"\n' + agent_table(provider.url))
        (folder / "mas.toml").rename(folder / "elsewhere" / "my.toml")
        assert (await mas(shown, "run", "plan.json", "--config", "elsewhere/my.toml")).code == 0
    assert len(await states(folder / "elsewhere" / "kept.db")) == 2


async def test_without_a_library_for_files_streams_are_in_memory_and_a_note_says_so(
    shown: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(place, "_files_can_be_kept", lambda: False)
    async with Provider(FACTS, PAGE) as provider:
        write(provider)
        done = await mas(shown, "run", "plan.json")
    assert (done.code, (folder / "data").exists()) == (0, False)
    assert done.err == (
        "mas: streams are kept in memory only, and end with this process: pip install apsw keeps them in a file\n"
    )


async def test_a_failure_skips_what_needs_it_and_is_the_exit_code(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(BROKEN) as provider:
        write(provider)
        done = await mas(shown, "run", "plan.json")
    assert done.code == 1
    assert re.search(r"^facts: invalid_request_error: ", done.out.decode(), re.M)
    assert re.search(r"^page: skipped", done.out.decode(), re.M)
    assert b"\n0 of 2 succeeded in " in done.out


async def test_only_the_agents_that_are_named_are_made(shown: pytest.CaptureFixture[bytes]) -> None:
    plan = {"tasks": [{"id": "one", "prompt": "Hi", "agent": "b"}, {"id": "two", "prompt": "Hi"}]}
    async with Provider(answer(chat("x")), answer(chat("y"))) as provider:
        broken = '[agents.c]\ntype = "compatible"\nbase_url = 7\n'
        write(provider, plan, agents="".join(agent_table(provider.url, name) for name in "abd") + broken)
        done = await mas(shown, "run", "plan.json", "--agent", "d")
    assert done.code == 0, done.err
    assert re.findall(rb"^(\w+): running \((\w),", done.out, re.M) == [(b"one", b"b"), (b"two", b"d")]


WRONG = {
    "no tasks": ({}, "mas: plan.json: a plan needs tasks: a list of tables, at least one\n"),
    "a cycle": (
        {"tasks": [{"id": "a", "prompt": "x", "depends_on": ["a"]}]},
        "mas: plan.json, line 1: the tasks wait for each other: a -> a\n",
    ),
    "an unknown agent": (
        {"tasks": [{"id": "one", "prompt": "x", "agent": "z"}]},
        "mas: task 'one': unknown agent 'z'; the agents are a\n",
    ),
}


@pytest.mark.parametrize(("plan", "sentence"), WRONG.values(), ids=WRONG)
async def test_a_wrong_plan_is_said_before_anything_is_opened(
    shown: pytest.CaptureFixture[bytes], folder: Path, plan: object, sentence: str
) -> None:
    write(None, plan)
    done = await mas(shown, "run", "plan.json")
    assert (done.code, done.out, (folder / "data").exists()) == (2, b"", False)
    assert done.err == sentence


async def test_an_agent_without_its_key_is_said_before_anything_runs(
    shown: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    write(None, {"tasks": [{"id": "one", "prompt": "x", "agent": "c"}]}, agents='[agents.c]\ntype = "claude"\n')
    assert await mas(shown, "run", "plan.json") == (1, b"", "mas: c: set ANTHROPIC_API_KEY\n")


async def interrupted(provider: Provider, folder: Path, *arguments: str, until: bytes) -> Done:
    """A run that gets Ctrl-C once it has written something; its provider is closed at once."""
    async with process("run", "plan.json", *arguments, cwd=folder) as started:
        assert started.stdout is not None
        while until not in await asyncio.wait_for(started.stdout.readline(), 20):
            pass
        os.killpg(started.pid, signal.SIGINT)
        began = time.monotonic()
        await asyncio.wait_for(provider.peers[-1].closed.wait(), 10)
        seconds = time.monotonic() - began
        out, err = await asyncio.wait_for(started.communicate(), 20)
    assert seconds < 1, "the machine may be busy; alone it takes a few milliseconds"
    assert started.returncode is not None
    return Done(started.returncode, out, err.decode())


async def test_control_c_leaves_what_has_not_ended_to_resume(shown: pytest.CaptureFixture[bytes], folder: Path) -> None:
    async with Provider(FACTS, hangs(), PAGE) as provider:
        write(provider)
        done = await interrupted(provider, folder, "--store", "sqlite:///mas.db", until=b"[page] Hello")
        assert done.code == 130
        assert done.err == "mas: stopped; mas resume goes on with the tasks that have not ended (1)\n"
        assert re.search(rb"\npage +a .* not finished\n", done.out)
        assert b"1 of 2 succeeded" in done.out
        assert await states(folder / "mas.db") == {"facts": "completed", "page": "queued"}
        resumed = await mas(shown, "resume", "--store", "sqlite:///mas.db")
    assert (resumed.code, resumed.err) == (0, "")
    assert b"page: completed (stop)" in resumed.out
    assert await states(folder / "mas.db") == {"facts": "completed", "page": "completed"}


async def test_control_c_ends_the_lines_of_records(folder: Path) -> None:
    async with Provider(FACTS, hangs()) as provider:
        write(provider)
        store = ("--store", "sqlite:///mas.db", "--format", "records")
        done = await interrupted(provider, folder, *store, until=b'"text":"Hello')
    assert done.code == 130
    assert done.err.splitlines()[-1] == "mas: stopped; mas resume goes on with the tasks that have not ended (1)"
    for line in done.out.splitlines():
        json.loads(line)


async def test_control_c_with_streams_in_memory_just_stops(folder: Path) -> None:
    async with Provider(hangs()) as provider:
        write(provider)
        done = await interrupted(provider, folder, "--store", "memory://", until=b"[facts] Hello")
    assert (done.code, done.err) == (130, "")
    assert b"0 of 2 succeeded" in done.out


async def test_on_a_terminal_each_task_has_a_line_and_the_table_stays(folder: Path) -> None:
    async with Provider(FACTS, PAGE) as provider:
        write(provider)

        def watch() -> tuple[int, str, str]:
            with Terminal("run", "plan.json", "--store", "memory://", cwd=folder) as terminal:
                return terminal.wait(), terminal.text, terminal.raw

        code, text, raw = await asyncio.to_thread(watch)
    assert code == 0, text
    assert "2 of 2 ended, 0 running" in text
    assert re.search(r"completed +└ page +a +\d\.\d\d s +(-|~?\d+ tok/s) +A page", text)
    assert re.search(r"│ page +│ a +│ +\d+\.\d\d s │ +(-|~?\d+) │ +\d+ │ +- │ +\d\.\d\d s │ completed \(stop\)", text)
    assert raw.count("\x1b[?25l") == raw.count("\x1b[?25h")


def test_a_plan_longer_than_the_screen_shows_what_runs() -> None:
    console = pytest.importorskip("rich.console").Console(width=80, height=8, force_terminal=True, color_system=None)
    board = LiveBoard(console)
    lanes = [TaskLane(f"t{number}", "a", "") for number in range(1000)]
    board._lanes = lanes
    ended = {"state": "completed", "success": True, "error": None, "stop_reason": "stop", "ttft": 0.1, "usage": None}
    for lane in lanes[:300]:
        lane.final = ended
        board.update(lane)
    lanes[700].running = True
    board.started(lanes[700], "s")
    with console.capture() as capture:
        console.print(board._render())
    lines = capture.get().splitlines()
    assert lines[0] == "300 of 1000 ended, 1 running"
    assert len(lines) == 7
    assert "running" in lines[1]
    assert "t700" in lines[1]
    assert "t299" in lines[2]


async def test_records_of_all_tasks_are_lines_of_json(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(FACTS, PAGE) as provider:
        write(provider)
        done = await mas(shown, "run", "plan.json", "--format", "records")
    records = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert re.fullmatch(r"2 of 2 succeeded in \d+\.\d\d s\.\n", done.err)
    streams = {record["task_id"]: record["stream_id"] for record in records}
    assert len(set(streams.values())) == 2
    for task_id, text in (("facts", "Bees\nfly"), ("page", "A page")):
        mine = [record for record in records if record["task_id"] == task_id]
        assert [record["seq"] for record in mine] == list(range(1, len(mine) + 1))
        assert {record["stream_id"] for record in mine} == {streams[task_id]}
        assert "".join(record["text"] for record in mine if record["type"] == "text") == text
        assert (mine[0]["type"], mine[-1]["type"]) == ("call_started", "completed")


async def test_records_tell_of_failed_and_skipped_tasks_too(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(BROKEN) as provider:
        write(provider)
        done = await mas(shown, "run", "plan.json", "--format", "records")
    last = {record["task_id"]: record["type"] for record in map(json.loads, done.out.splitlines())}
    assert (done.code, last) == (1, {"facts": "failed", "page": "skipped"})


async def test_json_is_one_document_at_the_end(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(FACTS, BROKEN) as provider:
        write(provider)
        done = await mas(shown, "run", "plan.json", "--format", "json")
    said = json.loads(done.out)
    assert (done.code, said["success"]) == (1, False)
    assert list(said["tasks"]) == ["facts", "page"]
    assert said["tasks"]["facts"]["text"] == "Bees\nfly"
    assert said["tasks"]["facts"]["usage"]["output_tokens"] == 1
    assert said["tasks"]["page"]["error"]["code"] == "invalid_request_error"
    assert [span["task_id"] for span in said["timeline"]] == ["facts", "page"]
    assert (said["usage"]["output_tokens"], said["cost"]) == (1, None)
    assert done.err.startswith("1 of 2 succeeded in ")


async def test_what_mas_toml_says_of_agents_and_task_types_holds(shown: pytest.CaptureFixture[bytes]) -> None:
    plan = {"tasks": [{"id": "one", "prompt": "Hi", "task_type": "review"}, {"id": "two", "prompt": "Hi"}]}
    async with Provider(answer(chat("x")), answer(chat("y"))) as provider:
        tables = "".join(agent_table(provider.url, name) for name in "abc")
        said = 'default_agent = "b"\n' + tables + '[task_types.review]\nagent = "c"\n[limits.a]\nconcurrency = 1\n'
        write(provider, plan, agents=said + "[limits.b]\nconcurrency = 1\n")
        done = await mas(shown, "run", "plan.json")
    assert done.code == 0, done.err
    assert sorted(re.findall(rb"^(\w+): running \((\w),", done.out, re.M)) == [(b"one", b"c"), (b"two", b"b")]


async def test_what_it_cost_is_told_where_prices_are_known(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(FACTS, PAGE, FACTS, PAGE) as provider:
        priced = '[prices."m-1"]\ninput = 1.0\noutput = 500000.0\n'
        write(provider, agents=agent_table(provider.url) + priced)
        done = await mas(shown, "run", "plan.json")
        document = await mas(shown, "run", "plan.json", "--format", "json")
    assert re.search(rb"\nfacts +a .* \$0\.5 ", done.out), done.out
    assert re.fullmatch(rb"2 of 2 succeeded in [\d.]+ s, for \$1\.50\.", done.out.splitlines()[-1])
    assert json.loads(document.out)["cost"] == pytest.approx(1.500006)
    assert json.loads(document.out)["tasks"]["page"]["cost"] == pytest.approx(1.000003)


async def test_a_plan_file_that_cannot_be_read_is_wrong_usage(
    tmp_path: Path, shown: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "plan.txt").write_text("tasks: []")
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    for name, said in (
        ("none.yaml", "cannot be read"),
        ("plan.txt", "a plan file ends in"),
        ("bytes.json", "is not UTF-8 text"),
    ):
        done = await mas(shown, "run", name)
        assert done.code == 2
        assert said in done.err


def test_tokens_in_a_second_are_those_that_were_counted_or_are_marked_as_estimated() -> None:
    lane = TaskLane("t", "a", "", began=10.0)
    assert lane.rate == "-"
    for number in range(5):
        lane.add("word" * 3, 11.0 + number)
        assert lane.rate == ("~3" if number else "-")  # three tokens of four characters in each second
    final = {"success": True, "error": None, "state": "completed", "stop_reason": "stop", "ttft": 1.0, "latency": 5.0}
    lane.final = {**final, "usage": None}
    assert lane.figures()[3] == "~3"
    lane.final = {**final, "usage": {"input_tokens": 7, "output_tokens": 20}}
    assert lane.figures()[3] == "5"


def test_a_live_line_shows_the_estimate() -> None:
    console = pytest.importorskip("rich.console").Console(width=100, height=8, force_terminal=True, color_system=None)
    board, lane = LiveBoard(console), TaskLane("t", "a", "", running=True)
    board._lanes = [lane]
    lane.add("four", 1.0)
    lane.add("four" * 31, 2.0)
    with console.capture() as capture:
        console.print(board._render())
    assert "1.00 s" in capture.get() and "~16 tok/s" in capture.get()
