"""The usage guide: its code runs, prints what it says, and its tables name what there is and nothing else.

The blocks of one section run one after the other, as they would in a notebook, behind the lines with which the guide
says that all of them begin.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from multi_agent_scheduler import cli, config, errors, events
from multi_agent_scheduler.agents import PRESETS, Agent, LocalServer
from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.records import Record, decode_record, encode_record
from multi_agent_scheduler.request import OPTIONS
from multi_agent_scheduler.scheduler import MultiAgentScheduler, Task
from multi_agent_scheduler.task import Timeouts
from multi_agent_scheduler.testing import ScriptedAgent
from tests.guide.blocks import blocks

GUIDE: Final = Path(__file__).parents[2] / "docs" / "USAGE_GUIDE.md"


BLOCKS: Final = tuple(blocks(GUIDE))
PYTHON: Final = tuple(block for block in BLOCKS if block.language == "python")
FIRST_LINES: Final = next(block for block in PYTHON if "agent = LocalAgent(" in block.code)
PROGRAM: Final = next(block for block in PYTHON if "asyncio.run(" in block.code)
RUN: Final = tuple(block for block in PYTHON if block.not_run is None and block not in (FIRST_LINES, PROGRAM))


def table(section: str, header: str) -> list[list[str]]:
    """The cells of the table in ``section`` whose first line begins with ``header``; bars in code stay."""
    text = GUIDE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = text[text.index(f"\n| {header}") :].strip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def coded(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# --- the code -------------------------------------------------------------------------------------------------------


SECTIONS: Final = [
    pytest.param(
        section,
        id=section.split(":")[0].replace(" ", "-").lower(),
        marks=[pytest.mark.keeps_sockets("the background loop keeps its connections")] * (section == "Without asyncio"),
    )
    for section in dict.fromkeys(block.section for block in RUN)
]


@pytest.mark.usefixtures("default_model")
@pytest.mark.parametrize("section", SECTIONS)
async def test_the_code_of_a_section_runs(
    section: str, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(variable, key)
    for package in ("fastapi", "sse_starlette"):
        pytest.importorskip(package, reason=f"needs {package}")
    names: dict[str, Any] = {"__name__": "guide"}
    agents: dict[int, Agent] = {}
    try:
        for block in (FIRST_LINES, *(block for block in RUN if block.section == section)):
            done = eval(block.compiled(), names)
            if inspect.isawaitable(done):
                await done
            agents |= {id(value): value for value in names.values() if isinstance(value, Agent)}
            printed = re.sub(r" +$", "", capsys.readouterr().out, flags=re.M).strip()
            if block.prints is not None:
                assert block.printed(printed), f"line {block.line} printed:\n{printed}"
    finally:
        for agent in agents.values():
            await agent.aclose()
            if isinstance(agent, ScriptedAgent):
                assert not agent.running


def test_the_first_program_runs(server: LocalServer) -> None:
    environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", PROGRAM.code]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_the_code_that_is_not_run_can_be_read() -> None:
    unread = [block for block in PYTHON if block.not_run is not None]
    assert [block.not_run for block in unread] == [
        "needs a model that can see",
        "needs a model that calls tools",
    ]
    for block in unread:
        block.compiled()


def test_every_output_belongs_to_code() -> None:
    outputs = [block for block in BLOCKS if block.language == "text"]
    assert len(outputs) == sum(block.prints is not None for block in RUN)


# --- the tables -----------------------------------------------------------------------------------------------------


def test_the_codes_are_those_that_there_are() -> None:
    rows = table("Errors", "`error.code`")
    assert {coded(row[0])[0] for row in rows} == {*errors._KINDS, "internal_error"}
    for code, kind, *_ in rows:
        assert type(agent_error(ErrorInfo(coded(code)[0], ""))).__name__ == coded(kind)[0]


def test_the_tree_names_every_error() -> None:
    tree = next(block for block in BLOCKS if block.code.startswith("SchedulerError")).code
    everything = {name for name in errors.__all__ if inspect.isclass(getattr(errors, name))} - {"ErrorInfo"}
    planned = {"RequestOverLimit"}  # for limits, which cannot be set yet
    assert everything - set(re.findall(r"\w+", tree)) == planned


def test_the_options_are_those_that_there_are() -> None:
    assert {name for row in table("What to ask: prompts and options", "option") for name in coded(row[0])} == {
        *OPTIONS,
        "timeouts",
    }


def test_the_presets_are_those_that_there_are() -> None:
    assert {name for row in table("Agents", "preset") for name in coded(row[0])} == set(PRESETS)


def test_the_time_limits_are_those_that_there_are() -> None:
    assert [coded(row[0])[0] for row in table("Time limits", "limit")] == list(Timeouts.__struct_fields__)


def test_the_events_are_those_that_there_are() -> None:
    names = [coded(row[0])[0] for row in table("Events", "event")]
    assert set(names) == {value for name, value in vars(events).items() if name.startswith("STREAM_")}


async def test_the_data_of_the_events_is_what_the_table_says() -> None:
    heard: dict[str, list[str]] = {}
    bus = events.EventBus()
    bus.on("task.*", lambda event: heard.update({event.name: list(event.data)}))
    async with MultiAgentScheduler({"one": ScriptedAgent("Hi")}, event_bus=bus, metrics=Metrics()) as scheduler:
        await scheduler.execute_task(Task("t1", "Hi"))

    started, chunk, completed, *_ = table("Events", "event")
    assert coded(started[2]) == heard["task.stream_started"]
    assert coded(chunk[2]) == heard["task.stream_chunk"]
    assert coded(started[2]) + coded(completed[2]) == heard["task.stream_completed"]


def test_the_metrics_are_those_that_there_are() -> None:
    stats = Metrics().get_all_stats()
    found = {(name, kind.removesuffix("s")) for kind, names in stats.items() for name in names}
    assert {(name, row[1]) for row in table("Metrics", "name") for name in coded(row[0])} == found


async def test_the_last_dict_has_the_keys_of_the_table() -> None:
    async with MultiAgentScheduler({"one": ScriptedAgent("Hi")}, metrics=Metrics()) as scheduler:
        items = [item async for item in scheduler.execute_task_stream(Task("t1", "Hi"))]
    assert [name for row in table("The scheduler", "key") for name in coded(row[0])] == list(items[-1])


def test_the_records_are_those_that_there_are_and_look_like_that() -> None:
    rows = table("Records", "type")
    kinds = {kind.__struct_config__.tag for kind in Record.__args__}
    assert {coded(row[0])[0] for row in rows} == kinds
    for kind, _, example in rows:
        line = coded(example)[0].encode()
        assert encode_record(decode_record(line)) == line
        assert msgspec.json.decode(line)["type"] == coded(kind)[0]


# --- the command line -----------------------------------------------------------------------------------------------


def test_the_commands_can_be_given() -> None:
    lines = [line for block in BLOCKS if block.language == "console" for line in block.code.splitlines()]
    commands = [line.partition("mas ")[2].partition(">")[0] for line in lines if re.search(r"[$|] mas ", line)]
    assert len(commands) > 5
    for command in commands:
        cli._parser().parse_args(shlex.split(command, comments=True))


def test_the_configuration_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: LocalServer) -> None:
    (block,) = (block for block in BLOCKS if block.language == "toml")
    file = tmp_path / "mas.toml"
    file.write_text(block.code)
    monkeypatch.setenv("COMPANY_KEY", "key")
    offers = config.load(file)
    assert list(offers) == list(tomllib.loads(block.code)["agents"])
    for offer in offers.values():
        assert offer.make().name == offer.name
