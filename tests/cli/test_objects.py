"""``mas ask --schema``: an object on a terminal, in a pipe, and when it does not become one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from multi_agent_scheduler.cli.objects import Growing
from multi_agent_scheduler.wire.partial_json import PartialJSON
from tests.agents.server import Provider, answer, chat
from tests.cli.commands import Terminal, agent_table, mas
from tests.partial_json.documents import documents, same

SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "steps": {"type": "array"}},
    "required": ["title"],
}
FITS = answer(chat("Sure:\n```json\n", '{"title": "Pan', 'cäkes", "steps": [1, {}]}', "\n```"))
MISFITS = answer(chat('{"title": 3}'))
PRETTY = '{\n  "title": "Pancäkes",\n  "steps": [\n    1,\n    {}\n  ]\n}'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("schema.json").write_text(json.dumps(SCHEMA))
    Path("list.json").write_text("[]")
    return tmp_path


def halting(before: str, gate: asyncio.Event, behind: str) -> list[Any]:
    """An answer that waits in the middle."""
    steps: list[Any] = answer(chat(before, behind))
    return [*steps[:3], gate, *steps[3:]]  # the head, the role, the text before


def use(url: str) -> None:
    Path("mas.toml").write_text(agent_table(url))


@pytest.fixture
def shown(capsysbinary: pytest.CaptureFixture[bytes]) -> pytest.CaptureFixture[bytes]:
    return capsysbinary


async def test_the_whole_object_goes_into_a_pipe(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(FITS) as provider:
        use(provider.url)
        done = await mas(shown, "ask", "A recipe", "--schema", "schema.json")
        assert (done.code, done.out.decode()) == (0, PRETTY + "\n")
    body = provider.requests[0].json
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert "fits this JSON Schema" in body["messages"][-1]["content"]


async def test_on_one_line_as_json(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(FITS) as provider:
        use(provider.url)
        done = await mas(shown, "ask", "A recipe", "--schema", "schema.json", "--format", "json")
    assert done.out.decode() == '{"title": "Pancäkes", "steps": [1, {}]}\n'


async def test_what_does_not_fit_is_not_written(shown: pytest.CaptureFixture[bytes]) -> None:
    async with Provider(MISFITS, MISFITS, FITS) as provider:
        use(provider.url)
        done = await mas(shown, "ask", "A recipe", "--schema", "schema.json", "--format", "json")
        assert (done.code, done.out) == (1, b"")
        assert "title: expected a string, but 3 arrived" in done.err
        again = await mas(shown, "ask", "A recipe", "--schema", "schema.json", "--format", "json", "--ask-again", "1")
        assert (again.code, json.loads(again.out)["steps"]) == (0, [1, {}])


async def test_it_grows_on_a_terminal(folder: Path) -> None:
    async with Provider(FITS) as provider:
        use(provider.url)
        with Terminal("ask", "A recipe", "--schema", "schema.json", cwd=folder) as terminal:
            await asyncio.to_thread(terminal.wait_for, "completed")
    assert PRETTY in terminal.text


async def test_it_grows_in_its_place(folder: Path) -> None:
    gate = asyncio.Event()
    script = halting('{"title": "[bold]Pan\\u001b[31mc\\u009b5m", "steps": [1, ', gate, '{"deep": [[2]]}]}')
    async with Provider(script) as provider:
        use(provider.url)
        with Terminal("ask", "A recipe", "--schema", "schema.json", cwd=folder) as terminal:
            await asyncio.to_thread(terminal.wait_for, '"steps": [\n    1\n  ]\n}')  # closed as if it ended there
            assert "\x1b[?25l" in terminal.raw and "completed" not in terminal.text
            gate.set()
            await asyncio.to_thread(terminal.wait_for, "completed")
    drawn = terminal.raw.rpartition("\x1b[?25h")[0]
    assert "\x1b[1A" in drawn and "\x1b[2K" in drawn, "it was drawn over what was there"
    whole = {"title": "[bold]Pan\x1b[31mc\ufffd5m", "steps": [1, {"deep": [[2]]}]}
    assert json.dumps(whole, ensure_ascii=False, indent=2) in terminal.text
    assert "\x1b[31m" not in terminal.raw and "\x9b" not in terminal.raw, "the model drives no terminal"


async def test_of_an_object_that_is_higher_than_the_screen_the_end_is_drawn(folder: Path) -> None:
    gate = asyncio.Event()
    script = halting('{"title": "T", "steps": [' + ", ".join(map(str, range(100, 200))), gate, "]}")
    async with Provider(script) as provider:
        use(provider.url)
        with Terminal("ask", "A recipe", "--schema", "schema.json", cwd=folder, lines=10, columns=30) as terminal:
            await asyncio.to_thread(terminal.wait_for, "198")
            assert "title" not in terminal.text and "100" not in terminal.text
            gate.set()
            await asyncio.to_thread(terminal.wait_for, "completed")
    assert json.dumps({"title": "T", "steps": list(range(100, 200))}, indent=2) in terminal.text


async def test_on_a_terminal_that_cannot_be_drawn_on_it_is_written_along(folder: Path) -> None:
    async with Provider(FITS) as provider:
        use(provider.url)
        with Terminal("ask", "A recipe", "--schema", "schema.json", cwd=folder, env={"TERM": "dumb"}) as terminal:
            await asyncio.to_thread(terminal.wait_for, "completed")
    assert PRETTY in terminal.text and "\x1b" not in terminal.raw


async def test_a_new_beginning_is_said_on_a_terminal(folder: Path) -> None:
    async with Provider(MISFITS, FITS) as provider:
        use(provider.url)
        with Terminal("ask", "A recipe", "--schema", "schema.json", "--ask-again", "1", cwd=folder) as terminal:
            await asyncio.to_thread(terminal.wait_for, "completed")
    assert "mas: the object begins again: invalid_output: title: expected a string, but 3 arrived" in terminal.text
    assert PRETTY in terminal.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "json"], "--format json is for answers that are objects: say with --schema FILE"),
        (["--ask-again", "1"], "--ask-again is for answers that are objects"),
        (["--schema", "none.json"], "--schema: none.json cannot be read: No such file"),
        (["--schema", "mas.toml"], "--schema: mas.toml is no JSON"),
        (["--schema", "list.json"], "--schema: list.json must hold a JSON Schema, which is an object"),
        (["--schema", "schema.json", "--ask-again", "-1"], "ask_again must be a whole number from 0"),
    ],
)
async def test_wrong_usage(shown: pytest.CaptureFixture[bytes], arguments: list[str], said: str) -> None:
    use("http://127.0.0.1:1")
    done = await mas(shown, "ask", "A recipe", *arguments)
    assert done.code == 2
    assert said in done.err


@given(text=documents())
def test_a_document_is_written_as_it_grows(text: str) -> None:
    parser, growing, written = PartialJSON(), Growing(), ""
    for char in text:
        written += growing.add(parser.feed(char))
    value: Any = parser.close()
    written += growing.add(parser.changes) + growing.end()
    assert same(json.loads(written), value)
    assert written == json.dumps(value, ensure_ascii=False, indent=2)
