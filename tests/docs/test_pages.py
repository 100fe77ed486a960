"""The pages of the site: what they show runs, prints what they say, and is read by the programs that it is for."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from multi_agent_scheduler import FunctionAgent, cli, config
from multi_agent_scheduler.agents import LocalAgent
from multi_agent_scheduler.planfile import read_plan
from tests.guide.blocks import Block, blocks
from tests.guide.conftest import loaded
from tests.server.served import serving

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = (DOCS / "index.md", *sorted((DOCS / "tasks").glob("*.md")))
BLOCKS: Final = {page.stem: tuple(blocks(page)) for page in PAGES}
ALL: Final = tuple(block for found in BLOCKS.values() for block in found)
SERVER: Final = "127.0.0.1:8000"


def of(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{block.page.stem}:{block.line}")
        for block in ALL
        if block.language == language and block.not_run is None
    ]


def pages(*, local: bool) -> list[str]:
    """The pages with code that uses the embedded model, or with code that does not."""
    codes = {name: [block.code for block in found if block.language == "python"] for name, found in BLOCKS.items()}
    return [name for name, code in codes.items() if code and local == ("LocalAgent(" in "".join(code))]


@pytest.fixture(scope="session")
def default_model() -> None:
    """The model of ``LocalAgent()``, loaded outside of the test: its port stays open."""
    loaded()


async def greeting(prompt: str, **_: Any) -> Any:
    for word in ("Hello", " there"):
        yield word


@pytest.mark.parametrize("page", pages(local=False))
async def test_the_code_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    await play(page, capsys)


@pytest.mark.usefixtures("default_model")
@pytest.mark.parametrize("page", pages(local=True))
async def test_the_code_of_a_page_runs_on_the_embedded_model(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    await play(page, capsys)


async def play(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = [block for block in BLOCKS[page] if block.language == "python" and block.not_run is None]
    names: dict[str, Any] = {"__name__": "page"}
    async with AsyncExitStack() as stack:
        address = SERVER
        if any(SERVER in block.code for block in code):
            server = await stack.enter_async_context(serving({"local": FunctionAgent(greeting)}))
            address = server.url.removeprefix("http://")
        for block in code:
            block = block._replace(code=block.code.replace(SERVER, address))
            done = eval(block.compiled(), names)
            if inspect.isawaitable(done):
                await done
            printed = re.sub(r" +$", "", capsys.readouterr().out, flags=re.M).strip()
            if block.prints is not None:
                assert block.printed(printed), f"line {block.line} printed:\n{printed}"
    for value in names.values():
        if isinstance(value, LocalAgent):
            await value.aclose()


def test_every_output_belongs_to_code() -> None:
    outputs = [block for block in ALL if block.language == "text"]
    assert len(outputs) == sum(block.prints is not None for block in ALL if block.language == "python")


@pytest.mark.parametrize("block", of("console"))
def test_the_commands_can_be_given(block: Block) -> None:
    for line in block.code.splitlines():
        command = re.match(r"\$ (?:\w+=\S+ )*mas (.*)", line)
        if command:
            cli._parser().parse_args(shlex.split(command[1].partition(">")[0], comments=True))


@pytest.mark.parametrize("block", of("toml"))
def test_the_configurations_can_be_read(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(variable, "key")
    file = tmp_path / "mas.toml"
    agents = '[agents.claude]\ntype = "claude"\n' if "[agents." not in block.code else ""
    file.write_text(block.code + agents)
    for offer in config.read(file).agents.values():
        assert offer.missing is None or "model" in offer.missing
        offer.make()


@pytest.mark.parametrize("block", of("yaml"))
def test_the_plans_can_be_read(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(block.code)
    assert read_plan(file)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """A link to nowhere, a page that nothing leads to, a docstring that is no markup: each is a warning."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "kept")]
    done = subprocess.run([*command, str(DOCS), str(tmp_path / "site")], capture_output=True, text=True, timeout=55)
    assert (done.returncode, done.stderr) == (0, "")
    site = tmp_path / "site"
    assert "execute_task_stream" in (site / "reference" / "scheduler.html").read_text(encoding="utf-8")
    outside = re.compile(r'(?:src|href)="(?:https?:)?//[^"]*\.(?:js|css|woff2?|png|svg)')
    for page in site.rglob("*.html"):
        assert outside.search(page.read_text(encoding="utf-8")) is None, f"{page} loads something from elsewhere"
