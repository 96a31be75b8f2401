"""Fixtures for every test: nothing may be left behind. The checks are those of `asyncflow.testing`."""

from __future__ import annotations

import asyncio
import asyncio.runners
import atexit
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from pytest_asyncio import is_async_test

from asyncflow.testing import LeakError, no_leaks, other_tasks
from asyncflow.testing.leaks import settle

# No deadline per example: a busy machine is not a wrong answer (pytest-timeout ends what hangs).
settings.register_profile("asyncflow", deadline=None, print_blob=True)
settings.load_profile("asyncflow")

# The journals of this process, and of those that tests start, are nobody else's.
os.environ["ASYNCFLOW_STATE"] = _state = tempfile.mkdtemp(prefix="asyncflow-state-")
atexit.register(shutil.rmtree, _state, ignore_errors=True)

GUARD = pytest.StashKey[no_leaks]()
PASSED = pytest.StashKey[bool]()
EXAMPLES = Path(__file__).parent / "examples"

_abandoned_threads: list[threading.Thread] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(EXAMPLES):
            item.add_marker("examples")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Remember whether the body passed: one that failed half-way leaves things behind and says why."""
    report: pytest.TestReport = yield  # type: ignore[assignment, misc]
    if call.when == "call":
        item.stash[PASSED] = report.passed
    return report  # type: ignore[return-value]


@pytest.fixture
def abandoned(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`abandoned(2)`: this test knowingly leaves two threads, which end by themselves before the session.

    `fds`, `files` and `tasks` are what those threads (or a killed loop) still hold when the test ends.
    """

    guard: no_leaks = request.node.stash[GUARD]
    return guard.allow


@pytest.fixture(scope="session", autouse=True)
def _abandoned_threads_end() -> Iterator[None]:
    yield
    left = settle(lambda: [t for t in _abandoned_threads if t.is_alive()], patience=10)
    if left:
        raise LeakError(f"declared as ending by themselves, and still alive: {left}")


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Threads, open files, temporary files. Set up first, so it looks when the test's loop is closed."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    guard = request.node.stash[GUARD] = no_leaks(folder)
    yield
    if request.node.stash.get(PASSED, False):
        guard.check()
        _abandoned_threads.extend(guard.left)


@pytest.fixture(autouse=True)
def _no_tasks_left(request: pytest.FixtureRequest, _nothing_left: None) -> Iterator[None]:
    """In an async test, look before its loop closes; in a sync one, whenever `asyncio.run` closes a loop."""
    if is_async_test(request.node):
        request.getfixturevalue("_no_tasks_left_in_loop")
        yield
        return
    left: list[asyncio.Task[Any]] = []
    cancel_all_tasks = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]

    def noting(loop: asyncio.AbstractEventLoop) -> None:
        left.extend(asyncio.all_tasks(loop))
        cancel_all_tasks(loop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.runners, "_cancel_all_tasks", noting)
        yield
    if request.node.stash.get(PASSED, False):
        request.node.stash[GUARD].check_tasks(left)


@pytest.fixture
async def _no_tasks_left_in_loop(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    yield
    if request.node.stash.get(PASSED, False):
        request.node.stash[GUARD].check_tasks(other_tasks())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say aloud which servers were not there to be tested against."""
    missing = getattr(sys.modules.get("tests.servers"), "missing", ())
    if missing:
        skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
        terminalreporter.section("servers that could not be had")
        for problem in missing:
            count = sum(problem in reason for reason in skipped)
            terminalreporter.write_line(f"{count} tests skipped: {problem}", yellow=True)
