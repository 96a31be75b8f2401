"""Each leak check goes red for its leak, and only for it: a real pytest run over tests that leak."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncflow import threads
from asyncflow.testing import leaks

ROOT = Path(__file__).parents[2]

INNER = """
import asyncio, os, socket, threading
import pytest
from asyncflow.testing import leaks

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
    shutil.copy(ROOT / "tests/conftest.py", inner)
    (inner / "test_inner.py").write_text(INNER)
    shutil.copy(ROOT / "pyproject.toml", pytester.path)

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
    shutil.copy(ROOT / "tests/conftest.py", inner)
    conftest = (inner / "conftest.py").read_text()
    assert "patience=10" in conftest
    (inner / "conftest.py").write_text(conftest.replace("patience=10", "patience=0.05"))
    (inner / "test_inner.py").write_text(
        "import threading\n"
        "def test_never_ends(abandoned):\n"
        "    abandoned(1)\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    shutil.copy(ROOT / "pyproject.toml", pytester.path)
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


def test_idle_workers_are_told_to_go() -> None:
    before = leaks.Snapshot.take()
    ended = threading.Event()
    threads.lend(ended.set)
    ended.wait()
    assert leaks.check_threads(before) == []


# The block -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_a_block_that_leaves_something(tmp_path: Path) -> None:
    end = threading.Event()
    reading, writing = os.pipe()
    os.close(writing)
    try:
        with pytest.raises(leaks.LeakError, match="threads behind"), leaks.no_leaks():
            threading.Thread(target=end.wait).start()
        with pytest.raises(leaks.LeakError, match="open files behind"), leaks.no_leaks():
            other = os.dup(reading)
        os.close(other)
        with pytest.raises(leaks.LeakError, match="temporary files behind"), leaks.no_leaks(tmp_path):
            (tmp_path / ".af-left").touch()
        with leaks.no_leaks():
            (tmp_path / ".af-left").touch()  # nobody has asked for this folder
        (tmp_path / ".af-left").unlink()
    finally:
        os.close(reading)
        end.set()


@pytest.mark.usefixtures("impatient")
def test_a_block_that_may_leave_something(tmp_path: Path) -> None:
    end = threading.Event()
    with leaks.no_leaks(tmp_path, threads=1, fds=1) as block:
        threading.Thread(target=end.wait, name="left-thread").start()
        reading, writing = os.pipe()
        os.close(writing)
        (tmp_path / ".af-left").touch()
        block.allow(files=1)
    assert [thread.name for thread in block.left] == ["left-thread"]
    os.close(reading)
    end.set()
    block.left[0].join()
    (tmp_path / ".af-left").unlink()


@pytest.mark.usefixtures("impatient")
def test_a_block_that_raises_says_why_itself(tmp_path: Path) -> None:
    with pytest.raises(KeyError), leaks.no_leaks(tmp_path):
        (tmp_path / ".af-left").touch()
        raise KeyError
    (tmp_path / ".af-left").unlink()


async def test_a_block_in_a_coroutine() -> None:
    before = asyncio.create_task(asyncio.Event().wait(), name="not-of-the-block")
    await asyncio.sleep(0)
    with pytest.raises(leaks.LeakError, match=r"tasks behind \(1\):\n.*left-task"):
        async with leaks.no_leaks():
            task = asyncio.create_task(asyncio.Event().wait(), name="left-task")
    async with leaks.no_leaks(tasks=1):
        other = asyncio.create_task(asyncio.Event().wait())
    for left in (before, task, other):
        left.cancel()
    await asyncio.wait([before, task, other])
    with pytest.raises(KeyError):
        async with leaks.no_leaks():
            raise KeyError


async def test_a_block_in_a_coroutine_lets_the_loop_close_its_transports() -> None:
    async with leaks.no_leaks():
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.close()
        server.close()


@pytest.mark.usefixtures("impatient")
async def test_a_block_in_a_coroutine_that_leaves_a_file(tmp_path: Path) -> None:
    with pytest.raises(leaks.LeakError, match="temporary files behind"):
        async with leaks.no_leaks(str(tmp_path)):
            (tmp_path / ".af-left").touch()
    (tmp_path / ".af-left").unlink()
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.raises(leaks.LeakError, match="open files behind"):
        async with leaks.no_leaks():
            other = os.dup(reading)
    os.close(other)
    os.close(reading)
