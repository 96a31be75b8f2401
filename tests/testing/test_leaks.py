"""Each leak check goes red for its leak, and only for it: a real pytest run over tests that leak."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leaks

HERE = Path(__file__).parent

INNER = """
import asyncio, os, socket, threading
import pytest
from tests import leaks

leaks.PATIENCE = 0.05
kept = []
end = threading.Event()


def leave_thread():
    kept.append(threading.Thread(target=end.wait, daemon=True, name="left-thread"))
    kept[-1].start()


async def leave_task():
    kept.append(asyncio.create_task(asyncio.Event().wait(), name="left-task"))
    await asyncio.sleep(0)


async def test_red_task():
    await leave_task()


def test_red_task_of_asyncio_run():
    asyncio.run(leave_task())


def test_red_thread():
    leave_thread()


async def test_red_thread_async():
    leave_thread()


def test_red_fd(tmp_path):
    kept.append(open(tmp_path / "left-open", "w"))


async def test_red_fd_async():
    kept.append(socket.socket())


def test_red_temp(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / ".af-left").touch()


async def test_red_temp_async(tmp_path):
    (tmp_path / ".af-left").touch()


def test_red_more_than_declared(abandoned):
    abandoned(1)
    leave_thread()
    leave_thread()


def test_green_declared(abandoned, tmp_path):
    abandoned(1, fds=1, files=1)
    leave_thread()
    kept.append(open(tmp_path / ".af-held", "w"))


async def test_green_declared_task(abandoned):
    abandoned(tasks=1)
    await leave_task()


def test_green_nothing(tmp_path):
    (tmp_path / "published").touch()


async def test_green_tidy(tmp_path, capfd):
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread((tmp_path / "published").write_text, "x"))
    print("seen")
    assert capfd.readouterr().out


def test_green_own_loop():
    asyncio.run(asyncio.to_thread(os.getpid))


def test_green_slow_thread():
    threading.Timer(0.01, int).start()


@pytest.mark.xfail(strict=True)
def test_green_body_failed_first():
    leave_thread()
    assert False


def test_zz_the_abandoned_end():
    end.set()
"""


@pytest.mark.timeout(120)
def test_each_check_goes_red(pytester: pytest.Pytester) -> None:
    inner = pytester.mkdir("tests")
    for name in ("conftest.py", "leaks.py"):
        shutil.copy(HERE / name, inner)
    (inner / "test_inner.py").write_text(INNER)
    shutil.copy(HERE.parent / "pyproject.toml", pytester.path)

    result = pytester.runpytest_subprocess("-rAx", "--tb=line", "tests")

    verdict = {"red": set[str](), "green": set[str]()}
    for line in result.outlines:
        outcome, _, rest = line.partition(" tests/test_inner.py::")
        if outcome in ("ERROR", "FAILED"):
            verdict["red"].add(rest.split()[0])
        elif outcome in ("PASSED", "XFAIL"):
            verdict["green"].add(rest.split()[0])
    names = {line.split("def ")[1].split("(")[0] for line in INNER.splitlines() if "def test_" in line}
    assert verdict["red"] == {name for name in names if name.startswith("test_red_")}
    assert verdict["green"] == names, "an error comes from the check alone: every body passes"
    result.assert_outcomes(passed=len(names) - 1, errors=len(verdict["red"]), xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "*left asyncio tasks behind (1)*",
            "*left threads behind (1)*",
            "*left open files behind (1)*",
            "*left temporary files behind (1)*",
            "*left threads behind (2, 1 declared)*",
        ]
    )


def test_abandoned_threads_must_end(pytester: pytest.Pytester) -> None:
    inner = pytester.mkdir("tests")
    for name in ("conftest.py", "leaks.py"):
        shutil.copy(HERE / name, inner)
    conftest = (inner / "conftest.py").read_text()
    assert "patience=10" in conftest
    (inner / "conftest.py").write_text(conftest.replace("patience=10", "patience=0.05"))
    (inner / "test_inner.py").write_text(
        "import threading\n"
        "def test_never_ends(abandoned):\n"
        "    abandoned(1)\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    shutil.copy(HERE.parent / "pyproject.toml", pytester.path)
    result = pytester.runpytest_subprocess("tests")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*declared as ending by themselves, and still alive*"])


# The functions alone: the message names the thing, and what is allowed is let through.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PATIENCE", 0.0)


@pytest.fixture
def left_thread() -> Iterator[leaks.Snapshot]:
    before = leaks.Snapshot.take()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="left-thread")
    thread.start()
    yield before
    end.set()
    thread.join()


@pytest.mark.usefixtures("impatient")
def test_a_thread_is_named_with_its_place(left_thread: leaks.Snapshot) -> None:
    with pytest.raises(leaks.LeakError, match=r"left-thread, now at\n(.*\n)+.*wait"):
        leaks.check_threads(left_thread)
    assert [thread.name for thread in leaks.check_threads(left_thread, allowed=1)] == ["left-thread"]


@pytest.mark.usefixtures("impatient")
def test_an_open_file_is_named() -> None:
    before = leaks.Snapshot.take()
    reading, writing = os.pipe()
    try:
        with pytest.raises(leaks.LeakError, match=rf"\(2\):\n  fd {min(reading, writing)}: "):
            leaks.check_open_files(before)
        leaks.check_open_files(before, allowed=2)
    finally:
        os.close(reading)
        os.close(writing)
    leaks.check_open_files(before)


@pytest.mark.usefixtures("impatient")
def test_a_number_used_again_is_another_file(tmp_path: Path) -> None:
    with (tmp_path / "one").open("w") as first:
        before = leaks.Snapshot.take()
        fd = first.fileno()
        (tmp_path / "two").touch()
        other = os.open(tmp_path / "two", os.O_RDONLY)
        os.dup2(other, fd)
        os.close(other)
        with pytest.raises(leaks.LeakError, match=rf"fd {fd}: "):
            leaks.check_open_files(before)


@pytest.mark.usefixtures("impatient")
def test_a_temporary_file_is_named(tmp_path: Path) -> None:
    left = tmp_path / "a" / ".af-0123"
    left.parent.mkdir()
    left.touch()
    with pytest.raises(leaks.LeakError, match=r"\.af-0123"):
        leaks.check_temp_files(tmp_path)
    leaks.check_temp_files(tmp_path, allowed=1)
    left.unlink()
    leaks.check_temp_files(tmp_path)


async def test_a_task_is_named() -> None:
    assert leaks.other_tasks() == []
    task = asyncio.create_task(asyncio.Event().wait(), name="left-task")
    with pytest.raises(leaks.LeakError, match="left-task"):
        leaks.check_tasks(leaks.other_tasks())
    leaks.check_tasks(leaks.other_tasks(), allowed=1)
    task.cancel()
    await asyncio.wait([task])
    leaks.check_tasks(leaks.other_tasks())


def test_idle_workers_are_told_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    before = leaks.Snapshot.take()
    go = threading.Event()
    threading.Thread(target=go.wait, daemon=True).start()

    class Pool:
        trim = staticmethod(go.set)

    monkeypatch.setitem(sys.modules, "asyncflow.threads", Pool)
    try:
        assert leaks.check_threads(before) == []
    finally:
        go.set()
