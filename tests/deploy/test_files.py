"""The container's and systemd's files name what there is."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from multi_agent_scheduler import cli
from multi_agent_scheduler.store import SQLiteStore, opened
from multi_agent_scheduler.testing import ScriptedAgent
from tests.server.served import serving

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
DOCKERFILE: Final = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
UNIT: Final = (DEPLOY / "mas.service").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, with continued lines joined."""
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M)).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines if line.strip()]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_what_is_copied_into_the_image_is_there_and_not_ignored() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    sources = [source for rest in of("COPY") if "--from" not in rest for source in rest.split()[:-1]]
    assert set(sources) == {line[1:] for line in ignored if line.startswith("!")}
    for source in sources:
        assert (ROOT / source).exists()


def test_the_extras_that_are_installed_exist() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extras in re.findall(r"(?:\.|multi-agent-scheduler)\[([\w,]+)\]", DOCKERFILE + UNIT):
        assert set(extras.split(",")) <= known.keys()


def test_the_image_runs_mas_serve_and_not_as_root() -> None:
    (entry,), (command,) = of("ENTRYPOINT"), of("CMD")
    program, *arguments = [*json.loads(entry), *json.loads(command)]
    assert program == "mas"
    assert cli._parser().parse_args(arguments).host == "0.0.0.0"
    (user,) = of("USER")
    assert f" {user} " in next(rest for rest in of("RUN") if "useradd" in rest) + " "
    for line in re.findall(r"^#   docker run .* mas(?: (\w.*))?$", DOCKERFILE, re.M):
        if line:
            cli._parser().parse_args(shlex.split(line))


def variables(text: str) -> dict[str, str]:
    return dict(re.findall(r"(MAS_\w+)=(\S+)", text))


@pytest.mark.parametrize("text", [DOCKERFILE, UNIT], ids=["Dockerfile", "mas.service"])
def test_the_store_is_in_the_folder_that_may_be_written(text: str) -> None:
    store = opened(variables(text)["MAS_STORE"])
    assert isinstance(store, SQLiteStore)
    assert store.path == Path("/var/lib/mas/mas.db")
    assert variables(text)["MAS_CONFIG"] == "/etc/mas/mas.toml"


async def test_the_image_is_healthy_while_the_server_is() -> None:
    (check,) = of("HEALTHCHECK")
    _, option, code = json.loads(check[check.index("[") :])

    async def healthy(url: str) -> bool:
        here = code.replace("http://127.0.0.1:8000", url)
        assert here != code
        python = await asyncio.create_subprocess_exec(sys.executable, option, here, stderr=asyncio.subprocess.PIPE)
        await python.communicate()
        return python.returncode == 0

    async with serving({"a": ScriptedAgent("Hi")}) as served:
        assert await healthy(served.url)
    assert not await healthy(served.url)


def test_the_unit_starts_mas_serve() -> None:
    (command,) = re.findall(r"^ExecStart=(.*)$", UNIT, re.M)
    program, *arguments = shlex.split(command)
    assert Path(program).name == "mas"
    assert cli._parser().parse_args(arguments).host is None


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    program = shutil.which("true")
    unit = tmp_path / "mas.service"
    unit.write_text(UNIT.replace("/opt/mas/bin/mas", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=50
    )
    mine = [line for line in done.stderr.splitlines() if "mas.service" in line]
    assert (done.returncode, mine) == (0, [])


@pytest.mark.needs("systemd-analyze")
def test_the_unit_is_hardened() -> None:
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        "--threshold=20",
        str(DEPLOY / "mas.service"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout.splitlines()[-1]
