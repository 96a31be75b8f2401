"""What a process that is killed has left unfinished is removed by the next one, and nothing else is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from asyncflow import LocalTarget, Task, build, healing, journal, task
from asyncflow.testing.leaks import settle

BEGIN = """
import sys, threading
from asyncflow import LocalTarget
folder = sys.argv[1]
held = []
for n in range(3):
    file = LocalTarget(f"{folder}/{n % 2}/{n}.txt").open("w")
    file.__enter__().write("half")
    held.append(file)
path = LocalTarget(f"{folder}/tree").temporary_path()
import os
os.makedirs(path.__enter__() + "/deep")
with LocalTarget(f"{folder}/whole.txt").open("w") as file:
    file.write("whole")
print("there", flush=True)
sys.stdin.readline()
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no flock")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of its own, and a process that has not written anything yet."""
    folder = tmp_path / "state"
    monkeypatch.setenv("ASYNCFLOW_STATE", str(folder))
    fresh = {"_token": "", "_fd": None, "_past": 0, "_broken": False, "_noted": set(), "unfinished": set()}
    for name, value in fresh.items():
        monkeypatch.setattr(journal, name, value)
    for name, value in {"_begun": False, "_undone": False, "_healed": False, "_decided": threading.Event()}.items():
        monkeypatch.setattr(healing, name, value)
    return folder


def begun(folder: Path) -> subprocess.Popen[str]:
    """A process that has begun three files and a tree in ``folder``."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    return process


def end(process: subprocess.Popen[str], *, kill: bool = True) -> None:
    if kill:
        process.kill()
    process.communicate("\n")


def hidden(folder: Path) -> list[Path]:
    found = []
    for directory, folders, files in os.walk(folder):  # unlike rglob, it does not mind what is removed meanwhile
        found += [Path(directory, name) for name in folders + files if name.startswith(".af-")]
    return sorted(found)


def close() -> None:
    if journal._fd is not None:
        os.close(journal._fd)


def test_what_a_killed_process_has_begun_is_removed_by_the_next_that_writes(tmp_path: Path, state: Path) -> None:
    process = begun(tmp_path / "data")
    end(process)
    assert len(hidden(tmp_path / "data")) == 4
    (tmp_path / "data" / ".af-somebody-elses").touch()
    with LocalTarget(tmp_path / "other" / "new.txt").open("w") as file:
        file.write("x")
    healing._decided.wait(10)
    settle(lambda: hidden(tmp_path / "data"), allowed=1)  # in the background
    assert [path.name for path in hidden(tmp_path / "data")] == [".af-somebody-elses"]
    assert (tmp_path / "data" / "whole.txt").read_text() == "whole"
    assert os.listdir(state / "journal") == [journal.token()], "its journal is gone, ours is there"
    (tmp_path / "data" / ".af-somebody-elses").unlink()
    close()


def test_what_a_process_that_is_alive_has_begun_is_left_alone(tmp_path: Path, state: Path) -> None:
    process = begun(tmp_path / "data")
    try:
        assert healing.clean() == 0
        assert len(hidden(tmp_path / "data")) == 4
        os.kill(process.pid, signal.SIGSTOP)
        assert healing.clean() == 0, "also when it does not move"
    finally:
        end(process)
    assert healing.clean() == 4
    assert healing.clean() == 0
    assert os.listdir(state / "journal") == []


def test_a_process_that_ends_leaves_no_journal(tmp_path: Path, state: Path) -> None:
    code = "import sys; from asyncflow import LocalTarget\nwith LocalTarget(sys.argv[1]).open('w') as f: f.write('x')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out.txt")], check=True)
    assert os.listdir(state / "journal") == []


def test_nor_does_one_whose_handles_were_closed_without_publishing(tmp_path: Path, state: Path) -> None:
    end(begun(tmp_path / "data"), kill=False)  # the handles are collected as it ends
    assert [path.is_dir() for path in hidden(tmp_path / "data")] == [True], "but for a path nobody has collected"
    assert healing.clean() == 1


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path, state: Path) -> None:
    end(begun(tmp_path / "data"))
    (tmp_path / "data").rename(tmp_path / "moved")
    assert healing.clean() == 0
    assert os.listdir(state / "journal") == []
    for path in hidden(tmp_path / "moved"):
        if path.is_file():
            path.unlink()
        else:
            (path / "deep").rmdir()
            path.rmdir()


def test_odd_names(tmp_path: Path, state: Path) -> None:
    folder = tmp_path / "two\nlines and ünïcode"
    end(begun(folder))
    assert healing.clean() == 4
    assert hidden(folder) == []


def test_what_cannot_be_removed_is_tried_again(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end(begun(tmp_path / "data"))

    def fails(*_: Any) -> int:
        raise PermissionError(13, "no")

    with monkeypatch.context() as patch:
        patch.setitem(healing.cleaners, "folder", fails)
        assert healing.clean() == 0
    with monkeypatch.context() as patch:
        patch.delitem(healing.cleaners, "folder")  # a part of asyncflow that is not loaded
        assert healing.clean() == 0
    assert healing.clean() == 4


def test_without_a_state_folder_files_are_written_all_the_same(
    tmp_path: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state.write_text("a file")
    with caplog.at_level(logging.DEBUG, "asyncflow"):
        for n in range(2):
            with LocalTarget(tmp_path / f"{n}.txt").open("w") as file:
                file.write("x")
    assert [path.name for path in sorted(tmp_path.glob("*.txt"))] == ["0.txt", "1.txt"]
    assert len([record for record in caplog.records if "no journal can be kept" in record.getMessage()]) == 1


def test_a_place_is_noted_once(tmp_path: Path, state: Path) -> None:
    def write(n: int) -> None:
        with LocalTarget(tmp_path / f"{n % 2}" / f"{n}.txt").open("w") as file:
            file.write("x")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = (state / "journal" / journal.token()).read_bytes().split(b"\0")
    assert sorted(entries) == sorted([b"", *(f"+folder {tmp_path / n}".encode() for n in "01")])
    assert not journal.unfinished
    close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_has_a_journal_of_its_own(tmp_path: Path, state: Path) -> None:
    with LocalTarget(tmp_path / "parent.txt").open("w") as file:
        file.write("x")
    mine = journal.token()
    pid = os.fork()
    if not pid:
        try:
            other = journal.token() != mine and not journal.unfinished
            handle = LocalTarget(tmp_path / "child.txt").open("w").__enter__()
            handle.write("half")
            os._exit(0 if other and len(os.listdir(state / "journal")) == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert healing.clean() == 1
    assert os.listdir(state / "journal") == [mine]
    close()


# What is noted one by one ------------------------------------------------------------------------------------


def entries(state: Path) -> list[str]:
    fd = os.open(state / "journal" / journal.token(), os.O_RDONLY)
    try:
        return journal.read(fd)
    finally:
        os.close(fd)


def test_what_is_done_is_forgotten(state: Path) -> None:
    journal.note("folder", "/some where")
    for n in range(3):
        journal.note("thing", f"number {n}")
    journal.done("thing", "number 1")
    journal.done("thing", "never noted")
    assert entries(state) == ["folder /some where", "thing number 0", "thing number 2"]
    journal.note("thing", "number 1")
    assert entries(state)[-1] == "thing number 1"
    close()


def test_a_long_life_does_not_make_a_long_journal(state: Path) -> None:
    journal.note("folder", "/some where")
    for n in range(3000):
        journal.note("thing", f"number {n} " + "x" * 100)
        journal.done("thing", f"number {n} " + "x" * 100)
        if n == 2000:
            journal.note("thing", "that stays")
    path = state / "journal" / journal.token()
    assert path.stat().st_size < 2 * journal.CROWDED
    assert entries(state) == ["folder /some where", "thing that stays"]
    assert os.listdir(state / "journal") == [journal.token()]
    assert healing.clean() == 0, "it is ours, and locked"
    close()


# Of others ----------------------------------------------------------------------------------------------------


def left_by_others(state: Path, name: str, *lines: str) -> Path:
    path = state / "journal" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line.encode() + b"\0" for line in lines))
    return path


@pytest.mark.parametrize(
    "entry",
    [
        "+together {",
        "+together 5",
        "+together [1]",
        '+together [{"kind": "file"}]',
        '+together [{"kind": "unheard of"}]',
        "+unheard-of place",
        "+ftp no url",
        "+s3 no json",
        '+s3 {"store": {}}',
        "",
        "+",
        "old format",
    ],
)
async def test_an_entry_that_makes_no_sense_hurts_nobody(entry: str, tmp_path: Path, state: Path) -> None:
    strange = left_by_others(state, "00000000", entry)
    end(begun(tmp_path / "data"))

    class Makes(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "made")

        async def run(self) -> None:
            async with self.output().open("w") as file:
                await file.write("x")

    assert (await build([Makes()])).ok
    settle(lambda: hidden(tmp_path / "data"))
    assert not hidden(tmp_path / "data"), "what another process has left was not removed"
    assert len(list(strange.parent.glob("00000000*"))) == 1
    close()


def test_a_file_that_cannot_be_opened_does_not_keep_the_others(tmp_path: Path, state: Path) -> None:
    (state / "journal" / "00000000").mkdir(parents=True)
    (state / "journal" / "gone").symlink_to("nowhere")
    end(begun(tmp_path / "data"))
    assert healing.clean() == 4


async def test_a_server_that_does_not_answer_holds_nobody_up(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, asked = threading.Event(), threading.Event()

    def slow(place: str, token: str) -> int:
        asked.set()
        silent.wait(20)
        return 0

    monkeypatch.setitem(healing.cleaners, "silent", slow)
    left_by_others(state, "00000000", "+silent place")

    @task
    async def nothing() -> None:
        assert healing._begun

    try:
        async with asyncio.timeout(5):
            assert (await build([nothing()])).ok
        assert asked.wait(5)
    finally:
        silent.set()


async def test_every_build_waits_for_what_had_been_decided(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(step: Any) -> None:
        time.sleep(0.3)
        (tmp_path / "made").write_text("by healing")

    class Made(Task):
        n: int

        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "made")

        async def run(self) -> None:
            raise AssertionError("it ran")

    monkeypatch.setitem(healing.finishers, "slow", slow)
    left_by_others(state, "00000000", '+together [{"kind": "slow"}]')
    results = await asyncio.gather(*[build([Made(n=n)]) for n in range(3)])
    assert [result.counts for result in results] == [{"complete": 1}] * 3
    monkeypatch.setattr(healing, "PATIENCE", 0.05)
    left_by_others(state, "00000001", '+together [{"kind": "slow"}]')
    monkeypatch.setattr(healing, "_undone", True)
    healing.again()
    (tmp_path / "made").unlink()
    assert (await build([Made(n=0)])).counts == {"failed": 1}, "it is not waited for without end"
    settle(lambda: os.listdir(state / "journal"))


@pytest.mark.parametrize(("takes", "said"), [(0.3, "cleaned\n"), (30, "")])
def test_a_short_build_ends_when_it_has_removed_what_was_left(takes: float, said: str) -> None:
    """And does not wait for ever for a store that is silent."""
    code = (
        "import time; from asyncflow import healing\n"
        f"healing.clean = lambda: (time.sleep({takes}), print('cleaned', flush=True))\n"
        "healing.begin()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert ended.stdout == said
