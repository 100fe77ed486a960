"""The guards of every test, seen from outside: a test that leaves something behind fails, and says what it left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

LEAVERS = """
import asyncio, os, pytest, socket, threading, gc

async def test_task():
    asyncio.get_running_loop().left = asyncio.create_task(asyncio.sleep(60))

async def test_task_with_unseen_error():
    async def fail():
        raise ZeroDivisionError
    asyncio.create_task(fail())
    await asyncio.sleep(0)

async def test_transport():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    await asyncio.open_connection(*server.sockets[0].getsockname())
    server.close()

kept = []

async def test_socket():
    kept.append(socket.create_server(("127.0.0.1", 0)))

def test_socket_without_loop():
    kept.append(socket.create_server(("127.0.0.1", 0)))

@pytest.mark.keeps_sockets("to show that it may")
def test_socket_on_purpose():
    kept.append(socket.create_server(("127.0.0.1", 0)))

def test_thread():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()

async def test_tidy():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read()
    writer.close()
    server.close()
    asyncio.create_task(asyncio.sleep(0))

def test_close():
    while kept:
        kept.pop().close()
"""

SKIPS = """
import pytest

@pytest.mark.needs("sh", "no-such-program")
def test_program():
    pass

@pytest.mark.needs("sh")
def test_program_that_is_there():
    pass

@pytest.mark.skipif(True, reason="needs a moon")
def test_mark():
    pass

def test_bad_reason():
    pytest.skip("not today")

@pytest.mark.xfail(raises=ZeroDivisionError)
def test_expected_failure():
    1 / 0
"""


class House:
    """An empty project with this one's guards and settings; ``run`` gives what failed, with all that was said of it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        here = Path(__file__).parent
        guards = (here / "conftest.py").read_text()
        assert "GRACE: Final = 1.0" in guards
        pytester.makeconftest(guards.replace("GRACE: Final = 1.0", "GRACE: Final = 0.05"))
        pytester.makepyprojecttoml((here.parent / "pyproject.toml").read_text().replace('testpaths = ["tests"]', ""))

    def run(self, **modules: str) -> dict[str, str]:
        """What was said of each test, by name: its outcomes, and the text of its failures and skips."""
        self.pytester.makepyfile(**modules)
        said: dict[str, str] = {}
        result = self.pytester.inline_run("-p", "no:cacheprovider", "--continue-on-collection-errors")
        for report in result.getreports():
            if report.when == "call" or report.outcome != "passed":
                name = report.nodeid.partition("::")[2] or report.nodeid
                said[name] = f"{said.get(name, '')} {report.outcome} {report.longrepr or ''}".strip()
        return said


@pytest.fixture
def house(pytester: pytest.Pytester) -> Iterator[House]:
    with mock.patch.dict(os.environ):
        yield House(pytester)


def test_what_is_left_behind_fails_the_test(house: House) -> None:
    said = house.run(test_leavers=LEAVERS)
    for name, words in {
        "test_task": "tasks left running: [<Task pending name=",
        "test_task_with_unseen_error": "errors that nobody saw: Task exception was never retrieved: ZeroDivision",
        "test_transport": "ResourceWarning: unclosed",
        "test_socket": "sockets left open: AF_INET ('127.0.0.1', ",
        "test_socket_without_loop": "sockets left open: AF_INET ('127.0.0.1', ",
        "test_thread": "Exception in thread",
    }.items():
        text = said.pop(name)
        assert "failed" in text
        assert words in text
    assert said == {"test_socket_on_purpose": "passed", "test_tidy": "passed", "test_close": "passed"}


def test_a_skip_names_what_it_needs(house: House) -> None:
    said = house.run(test_skips=SKIPS)
    assert "skipped" in said["test_program"] and "needs no-such-program" in said["test_program"]
    assert "skipped" in said["test_mark"] and "needs a moon" in said["test_mark"]
    assert "failed" in said["test_bad_reason"]
    assert 'the reason of a skip must start with "needs ": not today' in said["test_bad_reason"]
    assert said["test_program_that_is_there"] == "passed"
    assert said["test_expected_failure"].startswith("skipped")


def test_where_everything_is_installed_no_test_may_skip(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAS_TEST_STRICT", "1")
    said = house.run(test_skips=SKIPS, test_module='import pytest\npytest.skip("needs all", allow_module_level=True)')
    for name, reason in {
        "test_program": "needs no-such-program",
        "test_mark": "needs a moon",
        "test_bad_reason": "not today",
        "test_module.py": "needs all",
    }.items():
        assert said[name].startswith("failed"), said[name]
        assert f"skipped where nothing may skip: {reason}" in said[name]
    assert said["test_program_that_is_there"] == "passed"
    assert said["test_expected_failure"].startswith("skipped")


def test_nothing_of_the_machine_gets_into_a_test(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_BASE_URL", "https_proxy", "MAS_CONFIG", "NO_COLOR", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, "of-the-machine")
    said = house.run(
        test_environment="""
        import os
        AT_IMPORT = dict(os.environ)

        def test_environment():
            assert "of-the-machine" not in AT_IMPORT.values()
            assert "of-the-machine" not in os.environ.values()
            assert not os.path.exists(os.environ["XDG_DATA_HOME"])
        """
    )
    assert said == {"test_environment": "passed"}


OUTLIVES = """
import gc, warnings

class Unclosed:
    def __init__(self):
        self.itself = self

    def __del__(self):
        warnings.warn("unclosed and dropped", ResourceWarning)

kept = []

async def test_that_leaves_one_in_the_module():
    kept.append(Unclosed())

async def test_that_drops_it():
    kept.clear()
"""

LOOKS = """
import gc

LARGE = [[] for _ in range(100_000)]

async def test_collects_little():
    assert len(gc.get_objects()) < 50_000
"""


def test_what_outlived_its_test_is_seen_when_it_is_dropped(house: House) -> None:
    said = house.run(
        **{"one/test_outlives": OUTLIVES, "two/test_tidy": "async def test_of_another_folder():\n    pass"}
    )
    assert "ResourceWarning: unclosed and dropped" in said.pop("test_of_another_folder")
    assert said == {"test_that_leaves_one_in_the_module": "passed", "test_that_drops_it": "passed"}


def test_a_collection_after_a_test_looks_at_what_the_test_made(house: House) -> None:
    assert house.run(test_looks=LOOKS) == {"test_collects_little": "passed"}
