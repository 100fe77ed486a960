"""What holds for every test: nothing is left behind, nothing of the machine gets in, and no test skips in secret."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest

pytest_plugins = ["pytester"]

GRACE: Final = 1.0
"""Seconds that tasks and sockets may take to go after a test; what was told to close needs a few turns of the loop."""

# --- the machine stays outside ----------------------------------------------------------------------------------

_FOREIGN: Final = re.compile(
    r"MAS_(?!SIM_).*|.*_API_KEY|.*_BASE_URL|.*_AUTH_TOKEN|OPENAI_.*|ANTHROPIC_.*|GEMINI_.*|GOOGLE_.*"
    r"|(ALL|HTTP|HTTPS|NO|WS|WSS)_PROXY|NO_COLOR|FORCE_COLOR|CLICOLOR.*|COLUMNS|LINES",
    re.IGNORECASE,
)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Keys, addresses, proxies and settings of the machine are removed, and the user's folders are empty ones."""
    session.config.stash[_STRICT] = os.environ.get("MAS_TEST_STRICT") == "1"
    for name in [name for name in os.environ if _FOREIGN.fullmatch(name)]:
        del os.environ[name]
    home = session.config.stash[_HOME] = tempfile.mkdtemp(prefix="mas-tests-")
    for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
        os.environ[f"XDG_{kind}_HOME"] = os.path.join(home, kind.lower())


def pytest_sessionfinish(session: pytest.Session) -> None:
    gc.unfreeze()  # pytest collects once more, and reports what it finds
    shutil.rmtree(session.config.stash[_HOME], ignore_errors=True)


_HOME: Final = pytest.StashKey[str]()

# --- property tests ---------------------------------------------------------------------------------------------

# No deadline: other work on the machine must not fail a test. `--hypothesis-profile=thorough` looks harder.
hypothesis.settings.register_profile("default", max_examples=60, deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", max_examples=100, deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.register_profile("thorough", max_examples=3000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

# --- skips ------------------------------------------------------------------------------------------------------

_STRICT: Final = pytest.StashKey[bool]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        missing = [program for program in mark.args if shutil.which(program) is None]
        if missing:
            pytest.skip(f"needs {', '.join(missing)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge_skip(report, strict=item.config.stash[_STRICT])
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge_skip(report, strict=collector.config.stash[_STRICT])
    return report


def _judge_skip(report: pytest.TestReport | pytest.CollectReport, *, strict: bool) -> None:
    """A skip says what it needs, or it fails; where everything is installed (MAS_TEST_STRICT=1) every skip fails."""
    if not report.skipped or not isinstance(report.longrepr, tuple):  # an expected failure has no place and reason
        return
    path, line, reason = report.longrepr
    reason = reason.removeprefix("Skipped: ")
    if strict or not reason.startswith("needs "):
        why = "skipped where nothing may skip" if strict else 'the reason of a skip must start with "needs "'
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: {why}: {reason}"


# --- nothing is left behind -------------------------------------------------------------------------------------


_FOLDER: Final = pytest.StashKey[Path]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """What exists before a test is kept out of the collections after it: they look at what it made, so they are cheap.

    What has outlived its test is looked at again when the tests of its folder are done: nothing is forgotten.
    """
    if item.config.stash.get(_FOLDER, None) != item.path.parent:
        item.config.stash[_FOLDER] = item.path.parent
        gc.unfreeze()
    elif not item.get_closest_marker("asyncio"):
        return
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def the_log_as_it_was() -> Iterator[None]:
    """What a test, or the code of a guide that it runs, sets on the package's logger ends with it."""
    log = logging.getLogger("multi_agent_scheduler")
    before = (log.level, log.disabled, log.propagate, list(log.handlers))
    yield
    log.setLevel(before[0])
    log.disabled, log.propagate, log.handlers = before[1:]


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a task, an unclosed transport, an error that nobody saw, or an open socket."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("_nothing_left_in_loop")
        yield
        return
    before = _sockets()
    yield
    deadline = time.monotonic() + GRACE
    while (left := _left_open(request, before)) and time.monotonic() < deadline:
        time.sleep(0.005)
    if left:
        pytest.fail(f"sockets left open: {', '.join(left)}")


@pytest.fixture
async def _nothing_left_in_loop(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    sockets, tasks = _sockets(), asyncio.all_tasks()
    yield
    gc.collect()  # what was dropped unclosed warns now, and pytest makes an error of it
    deadline = time.monotonic() + GRACE
    while True:
        for _ in range(5):
            await asyncio.sleep(0)
        running = [task for task in asyncio.all_tasks() - tasks if task is not asyncio.current_task()]
        left = _left_open(request, sockets)
        if not (running or left) or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.005)
    gc.collect()
    if running:
        pytest.fail(f"tasks left running: {running}")
    if left:
        pytest.fail(f"sockets left open: {', '.join(left)}")
    if unseen:
        pytest.fail(
            "errors that nobody saw: " + "; ".join(f"{it.get('message')}: {it.get('exception')!r}" for it in unseen)
        )


def _sockets() -> dict[str, int]:
    """The open sockets of this process, by identity; none where there is no /proc (the guard looks away there)."""
    found: dict[str, int] = {}
    try:
        names = os.listdir("/proc/self/fd")
    except FileNotFoundError:
        return found
    for name in names:
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that listed this folder
        if target.startswith("socket:"):
            found[target] = int(name)
    return found


def _left_open(request: pytest.FixtureRequest, before: dict[str, int]) -> list[str]:
    """The network sockets that were opened since. A loop's own pair of unnamed sockets is none."""
    if request.node.get_closest_marker("keeps_sockets"):
        return []
    left = []
    for identity, descriptor in _sockets().items():
        if identity in before:
            continue
        try:
            opened = socket.socket(fileno=descriptor)
        except OSError:
            continue  # closed since
        try:
            name = opened.getsockname()
            if name:
                left.append(f"{opened.family.name} {name}")
        except OSError:
            continue  # closed this moment, by another thread
        finally:
            opened.detach()
    return left
