"""Programs as tasks, against real programs: what they print, how they end, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asyncflow import LocalTarget, StrParameter, Task, Visibility, build
from asyncflow.contrib import _process
from asyncflow.contrib.program import ProgramError, ProgramNotStarted, ProgramTask, run_program
from asyncflow.testing import STYLES, Outcome, Style, leaks, sweep

LOG = "asyncflow.program"


class Groups:
    """The process groups that were begun in a test."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def check_reaped(self) -> None:
        """None of them is a child of this process any more, dead or alive."""
        for pid in self.pids:
            with pytest.raises(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def alive(self) -> list[int]:
        """Those that somebody is still in, after a moment's patience: the system takes one to bury orphans."""
        return leaks.settle(lambda: [pid for pid in self.pids if _somebody_in(pid)])


def _somebody_in(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    # Dead orphans are there until the system's first process has looked for them, which may take it seconds.
    ps = subprocess.run(["ps", "-A", "-o", "pgid=", "-o", "stat="], capture_output=True, text=True, check=True)
    members = [line.split() for line in ps.stdout.splitlines()]
    return any(int(of) == group and not state.startswith("Z") for of, state in members)


@pytest.fixture(autouse=True)
def groups(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Groups]:
    begun = Groups()

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            begun.pids.append(self.pid)

    monkeypatch.setattr(_process, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": Recorded}))
    yield begun
    assert begun.alive() == [], "a test left processes behind"
    assert [record for record in caplog.get_records("call") if record.name == "asyncio"] == []


@pytest.fixture(params=["pidfd", "thread", "reaping"])
def ending(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the end of a program is learned: Linux; macOS from Python 3.13 on; macOS before."""
    if request.param == "pidfd":
        if not hasattr(os, "pidfd_open"):
            pytest.skip("no pidfd here")
    else:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        if request.param == "reaping":
            monkeypatch.delattr(os, "waitid", raising=False)
    return request.param


def lines(caplog: pytest.LogCaptureFixture, stream: str) -> list[str]:
    return [record.args[1] for record in caplog.records if getattr(record, "stream", None) == stream]  # type: ignore[index,misc]


# What it prints ------------------------------------------------------------------------------------------


async def test_the_output_is_published_whole(tmp_path: Path, ending: str) -> None:
    target = LocalTarget(tmp_path / "new" / "out.bin")
    assert await run_program("head", "-c", 3_000_000, "/dev/zero", stdout=target) == 0
    assert Path(target.path).read_bytes() == bytes(3_000_000)


async def test_what_a_failing_program_printed_is_not_published(tmp_path: Path, ending: str) -> None:
    target = LocalTarget(tmp_path / "out")
    Path(target.path).write_text("old")
    with pytest.raises(ProgramError):
        await run_program("sh", "-c", "head -c 1000000 /dev/zero; exit 3", stdout=target)
    assert Path(target.path).read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


async def test_a_task_whose_output_is_printed(tmp_path: Path) -> None:
    class Sorted(ProgramTask):
        stdout_to = "output"

        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "sorted")

        def program_args(self) -> list[Any]:
            return ["sort", "-n"]

        def program_stdin(self) -> str:
            return "10\n9\n"

    result = await build(Sorted())
    assert result.ok
    assert Path(result[Sorted()]).read_text() == "9\n10\n"
    assert (await build(Sorted())).counts == {"complete": 1}


async def test_a_task_whose_program_is_given_a_path(tmp_path: Path) -> None:
    class Writes(ProgramTask):
        code: int

        def output(self) -> list[LocalTarget]:
            return [LocalTarget(tmp_path / "made.txt"), LocalTarget(tmp_path / "second")]

        def program_args(self) -> list[Any]:
            first, second = self.output()
            return ["sh", "-c", 'echo "$1" >"$1"; echo 2 >"$2"; exit $3', "sh", first, second, self.code]

    assert not (await build(Writes(code=1))).ok
    assert list(tmp_path.iterdir()) == []
    (await build(Writes(code=0))).raise_for_failure()
    path = (tmp_path / "made.txt").read_text().strip()
    assert path != str(tmp_path / "made.txt"), "the program was given the final path"
    assert path.endswith(".txt")
    assert sorted(os.listdir(tmp_path)) == ["made.txt", "second"]


async def test_a_program_that_forgets_its_output_has_failed(tmp_path: Path) -> None:
    class Forgets(ProgramTask):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "never")

        def program_args(self) -> list[Any]:
            return ["true"]

    result = await build(Forgets())
    assert result.counts == {"failed": 1}


async def test_output_to_what_has_a_write() -> None:
    out = io.BytesIO()
    await run_program("printf", "a\\nb", stdout=out)
    assert out.getvalue() == b"a\nb"


async def test_the_log_has_lines_while_the_program_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    heard: list[str] = []

    class Lets(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())
            if "first" in record.getMessage() and "runs" not in record.getMessage():
                fifo.write_text("go on")  # the program waits for this: it has not ended

    class Talks(ProgramTask):
        n: int = 1

        def program_args(self) -> list[Any]:
            return ["sh", "-c", 'echo first; read x <"$1"; echo "then $x"; echo "and this" >&2', "sh", fifo]

    handler = Lets()
    logging.getLogger(LOG).addHandler(handler)
    try:
        assert (await build(Talks())).ok
    finally:
        logging.getLogger(LOG).removeHandler(handler)
    assert heard[1:3] == ["Talks(n=1): first", "Talks(n=1): then go on"]
    assert lines(caplog, "stderr") == ["and this"]
    assert {getattr(record, "task", None) for record in caplog.records if record.name == LOG} == {Talks()}


async def test_what_is_no_text_and_lines_without_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG)
    await run_program("printf", "\\377\\000 ok\\n\\n10%%\\r20%%\\r\\nlast")
    assert lines(caplog, "stdout") == ["\\xff\0 ok", "10%", "20%", "last"]
    caplog.clear()
    await run_program(sys.executable, "-c", "import sys; sys.stdout.write('x' + 'ä' * 50_000)")
    told = lines(caplog, "stdout")
    assert "".join(told) == "x" + "ä" * 50_000, "a character was cut in two"
    assert max(len(line.encode()) for line in told) <= 8192


async def test_the_end_of_standard_error_is_in_the_error_and_bounded() -> None:
    with pytest.raises(ProgramError) as failure:
        await run_program("sh", "-c", "seq 1 100000 >&2; exit 1")
    assert failure.value.stderr == tuple(str(n) for n in range(99_951, 100_001))
    with pytest.raises(ProgramError) as failure:
        await run_program("sh", "-c", "head -c 300000 /dev/zero >&2; exit 1")
    assert 0 < sum(map(len, failure.value.stderr)) <= 8192
    assert len(str(failure.value)) < 10_000


# How it ends ---------------------------------------------------------------------------------------------


async def test_the_error_names_task_command_code_and_last_words(ending: str) -> None:
    class Fails(ProgramTask):
        day: str

        def program_args(self) -> list[Any]:
            return ["sh", "-c", "echo no such table >&2; exit 7"]

    [error] = (await build(Fails(day="monday"))).errors()
    cause = error.__cause__
    assert isinstance(cause, ProgramError)
    assert str(cause) == (
        "Fails(day=monday): sh -c 'echo no such table >&2; exit 7' ended with exit code 7; if that is as it should be, "
        "add it to success_codes\n  the end of its standard error:\n    no such table"
    )
    assert (cause.returncode, cause.stderr) == (7, ("no such table",))
    again = pickle.loads(pickle.dumps(cause))
    assert (str(again), vars(again)) == (str(cause), vars(cause))


async def test_exit_codes_that_are_no_error(tmp_path: Path) -> None:
    assert await run_program("sh", "-c", "exit 1", success_codes=(0, 1)) == 1
    with pytest.raises(ProgramError, match="exit code 0"):
        await run_program("true", success_codes=[1])

    class Grep(ProgramTask):
        success_codes = range(2)

        def program_args(self) -> list[Any]:
            return ["sh", "-c", "exit 1"]

    assert (await build(Grep())).ok


async def test_death_by_a_signal_is_named(ending: str) -> None:
    with pytest.raises(ProgramError, match=r"was killed by SIGSEGV \(11\)") as failure:
        await run_program("sh", "-c", "kill -SEGV $$")
    assert failure.value.returncode == -signal.SIGSEGV
    with pytest.raises(ProgramError, match="when memory runs out"):
        await run_program("sh", "-c", "kill -KILL $$")


def _script(path: Path, text: str, mode: int) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda at: ["no-such-program-anywhere"], "there is no program 'no-such-program-anywhere' on its PATH"),
        (lambda at: [at / "nothing"], "there is no file"),
        (lambda at: [_script(at / "text", "x", 0o644)], "may not be executed"),
        (lambda at: [at], "may not be executed"),
        (lambda at: [_script(at / "bad", "#!/no/such/interpreter\n", 0o755)], "the interpreter that the first line"),
        (lambda at: [_script(at / "raw", "echo hello", 0o755)], "no program this system can run"),
    ],
)
async def test_what_cannot_be_started(tmp_path: Path, make: Callable[[Path], list[Any]], says: str) -> None:
    before = leaks.Snapshot.take()
    target = LocalTarget(tmp_path / "out")
    entered: list[int] = []

    class Starts(ProgramTask):
        retries, retry_delay = 3, 0.0
        stdout_to = "output"

        def output(self) -> LocalTarget:
            return target

        def program_args(self) -> list[Any]:
            entered.append(1)
            return make(tmp_path)

    [error] = (await build(Starts())).errors()
    assert isinstance(error.__cause__, ProgramNotStarted)
    assert says in str(error.__cause__)
    assert isinstance(error.__cause__.__cause__, OSError)
    assert len(entered) == 1, "it was tried again"
    assert not os.path.exists(target.path)
    leaks.check_open_files(before)


async def test_a_working_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProgramNotStarted, match="working folder .* is not a folder"):
        await run_program("true", cwd=tmp_path / "nowhere")


async def test_what_fails_for_the_moment_is_an_ordinary_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(_process.subprocess, "Popen", full)
    with pytest.raises(ProgramError, match="temporarily unavailable") as failure:
        await run_program("true")
    assert not isinstance(failure.value, ProgramNotStarted)


async def test_a_failing_program_is_tried_again(tmp_path: Path) -> None:
    class Second(ProgramTask):
        retries, retry_delay = 1, 0.0

        def program_args(self) -> list[Any]:
            return ["sh", "-c", 'test -e "$1" || { touch "$1"; exit 1; }', "sh", tmp_path / "been"]

    result = await build(Second())
    assert result.ok
    assert len(result.tasks[Second()].attempts) == 2


def test_an_exit_code_that_somebody_else_took_is_not_taken_for_0() -> None:
    code = (
        "import asyncio, signal; from asyncflow.contrib.program import *\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "async def main():\n"
        "    try: print(await run_program('sh', '-c', 'exit 3'))\n"
        "    except ProgramError as error: print(error)\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert "somebody else took its exit code" in done.stdout, done.stdout + done.stderr


# What it is given ----------------------------------------------------------------------------------------


async def test_environment_folder_and_input(tmp_path: Path) -> None:
    out = io.BytesIO()
    await run_program("env", env={"PATH": os.environ["PATH"], "N": 3}, stdout=out)
    assert sorted(out.getvalue().split()) == sorted([b"N=3", b"PATH=" + os.environb[b"PATH"]])
    out = io.BytesIO()
    await run_program("pwd", cwd=tmp_path, stdout=out)
    assert out.getvalue().strip() == os.fsencode(os.path.realpath(tmp_path))
    big = os.urandom(1_000_000)
    out = io.BytesIO()
    await run_program("cat", stdin=big, stdout=out)
    assert out.getvalue() == big
    (tmp_path / "in").write_bytes(big)
    for file in (tmp_path / "in", LocalTarget(tmp_path / "in")):
        out = io.BytesIO()
        await run_program("cat", stdin=file, stdout=out)
        assert out.getvalue() == big
    await run_program("head", "-c", 1, stdin=big, stdout=out)
    with pytest.raises(FileNotFoundError):
        await run_program("cat", stdin=tmp_path / "absent")


def test_the_input_of_this_process_is_not_the_programs() -> None:
    code = "import asyncio, sys; from asyncflow.contrib.program import *\n"
    code += "asyncio.run(run_program('cat', stdout=sys.stdout.buffer))"
    done = subprocess.run([sys.executable, "-c", code], input=b"ours", capture_output=True, timeout=30, check=True)
    assert done.stdout == b""


async def test_a_program_has_a_session_of_its_own() -> None:
    out = io.BytesIO()
    await run_program(sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())", stdout=out)
    assert out.getvalue() == b"True\n"


async def test_the_environment_of_a_task_is_as_in_luigi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INHERITED", "1")

    class Env(ProgramTask):
        stdout_to = "output"

        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "env")

        def program_args(self) -> list[Any]:
            return ["sh", "-c", 'echo "$INHERITED $ADDED"; pwd']

        def program_environment(self) -> Any:
            return super().program_environment() | {"ADDED": "2"}  # type: ignore[operator]

        def program_cwd(self) -> str:
            return "/"

    await build(Env())
    assert (tmp_path / "env").read_text() == "1 2\n/\n"


@pytest.mark.parametrize("wrong", [None, True, b"bytes", ["list"]])
async def test_arguments_that_no_program_can_have(wrong: Any) -> None:
    with pytest.raises(TypeError, match="write a string, a path or a number"):
        await run_program("echo", wrong)
    with pytest.raises(TypeError, match=r"env\['A'\]"):
        await run_program("echo", env={"A": wrong})


async def test_calls_that_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the name of a program"):
        await run_program()
    with pytest.raises(ValueError, match="kill_after"):
        await run_program("true", kill_after=-1)

    class Two(ProgramTask):
        stdout_to = "output"

        def output(self) -> list[LocalTarget]:
            return [LocalTarget(tmp_path / "a"), LocalTarget(tmp_path / "b")]

        def program_args(self) -> list[Any]:
            return ["true"]

    class Wrong(ProgramTask):
        stdout_to = "stdout"  # type: ignore[assignment]

        def program_args(self) -> list[Any]:
            return ["true"]

    class Nothing(ProgramTask):
        pass

    errors = [error.__cause__ for error in (await build([Two(), Wrong(), Nothing()])).errors()]
    assert sorted(type(error).__name__ for error in errors) == ["NotImplementedError", "TypeError", "ValueError"]


async def test_hidden_values_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    class Login(ProgramTask):
        user: str = "me"
        password = StrParameter(visibility=Visibility.HIDDEN)
        pin = StrParameter(default="12", visibility=Visibility.PRIVATE)

        def program_args(self) -> list[Any]:
            script = f'echo "{self.password} was given"; echo "with {self.password}" >&2; exit 12'
            return ["sh", "-c", script, f"--password={self.password}", self.pin]

    class Body(Task):
        password = StrParameter(visibility=Visibility.HIDDEN)

        async def run(self) -> None:
            await run_program("sh", "-c", "exit 1", self.password)

    for task in (Login(password="hunter22"), Body(password="hunter22")):
        [error] = (await build(task)).errors()
        assert "hunter22" not in str(error) + str(error.__cause__) + caplog.text
    assert "--password=***" in caplog.text
    assert "*** was given" in caplog.text
    assert "exit 12" in caplog.text, "a short secret made other words unreadable"
    caplog.clear()
    await run_program("echo", "tok-123456", hide=["tok-123456"])
    assert "tok-123456" not in caplog.text


# Nothing of it is left -----------------------------------------------------------------------------------


async def started(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Wait until the program has said ``text`` in the log."""
    while text not in [line for stream in ("stdout", "stderr") for line in lines(caplog, stream)]:
        await asyncio.sleep(0.005)


async def cancelled(task: asyncio.Task[Any]) -> float:
    """Cancel, and the seconds it took."""
    begun = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - begun


@pytest.mark.parametrize("script", ["sleep 100 & sleep 100 & echo on; wait", "echo on; sleep 100; echo never"])
async def test_a_cancel_ends_the_whole_group(
    script: str, caplog: pytest.LogCaptureFixture, groups: Groups, ending: str
) -> None:
    caplog.set_level(logging.INFO, LOG)
    task = asyncio.create_task(run_program("sh", "-c", script, kill_after=20))
    await started("on", caplog)
    assert _somebody_in(groups.pids[0]), "there was nothing to end"
    assert await cancelled(task) < 5, "it was SIGKILL after the patience, not SIGTERM"
    groups.check_reaped()
    assert groups.alive() == []


async def test_a_program_that_ignores_sigterm_is_killed(
    caplog: pytest.LogCaptureFixture, groups: Groups, ending: str
) -> None:
    caplog.set_level(logging.INFO, LOG)
    task = asyncio.create_task(
        run_program("sh", "-c", "trap '' TERM; echo on; while :; do sleep 0.1; done", kill_after=0.3)
    )
    await started("on", caplog)
    assert 0.3 <= await cancelled(task) < 5
    assert groups.alive() == []


async def test_a_child_that_ignores_sigterm_is_killed(caplog: pytest.LogCaptureFixture, groups: Groups) -> None:
    caplog.set_level(logging.INFO, LOG)
    child = "trap '' TERM; echo on; while :; do sleep 0.1; done"
    task = asyncio.create_task(run_program("sh", "-c", f'sh -c "{child}" & wait', kill_after=0.3))
    await started("on", caplog)
    await cancelled(task)
    assert groups.alive() == []


async def test_a_program_has_time_to_clean_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG)
    # Who is told as it is being forked has the shell's trap still, and loses it with what it runs: not before `on`.
    script = "trap 'sleep 0.2; echo tidy >&2; exit' TERM; (trap - TERM; echo on; exec sleep 100) & wait"
    task = asyncio.create_task(run_program("sh", "-c", script, kill_after=20))
    await started("on", caplog)
    assert await cancelled(task) < 5
    assert lines(caplog, "stderr") == ["tidy"]


async def test_a_program_that_writes_when_it_is_to_end_can(tmp_path: Path, groups: Groups) -> None:
    """Its output is not wanted any more, and is still read: it would wait for that until it is killed."""

    class Blocks:
        full = asyncio.Event()

        async def write(self, data: bytes) -> None:
            self.full.set()
            await asyncio.sleep(3600)

    sink = Blocks()
    script = "trap 'head -c 1000000 /dev/zero; touch \"$1\"; exit' TERM; echo on; while :; do sleep 0.05; done"
    task = asyncio.create_task(run_program("sh", "-c", script, "sh", tmp_path / "done", stdout=sink, kill_after=20))
    await sink.full.wait()
    assert await cancelled(task) < 5
    assert (tmp_path / "done").exists()


async def test_a_time_limit_ends_the_group(tmp_path: Path, groups: Groups) -> None:
    class Slow(ProgramTask):
        timeout = 0.3
        stdout_to = "output"

        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "out")

        def program_args(self) -> list[Any]:
            return ["sh", "-c", "trap '' TERM; echo half; sleep 100 & while :; do sleep 0.1; done"]

    result = await build(Slow())
    [error] = result.errors()
    assert isinstance(error.__cause__, TimeoutError)
    assert result.tasks[Slow()].attempts
    assert groups.alive() == [], "with the default kill_after, it fits into the default grace"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("style", STYLES)
async def test_cancel_anywhere(tmp_path: Path, style: Style, groups: Groups, ending: str) -> None:
    (tmp_path / "in").write_bytes(bytes(700_000))
    (tmp_path / "out").mkdir()
    target = LocalTarget(tmp_path / "out" / "copy", durability="none")

    async def copy() -> None:
        await run_program(
            "sh", "-c", "sleep 100 >/dev/null 2>&1 & cat; exec sleep 0.02", stdin=tmp_path / "in", stdout=target
        )

    await copy()  # what is opened once for the loop is open
    os.remove(target.path)
    before = leaks.Snapshot.take()

    async def check(outcome: Outcome) -> None:
        assert leaks.other_tasks() == [], outcome
        groups.check_reaped()
        assert groups.alive() == [], outcome
        groups.pids.clear()
        if os.path.exists(target.path):
            assert os.path.getsize(target.path) == 700_000, outcome
            os.remove(target.path)
        else:
            assert outcome.reached
        assert os.listdir(tmp_path / "out") == [], outcome
        leaks.check_open_files(before)

    assert await sweep(copy, check, style) >= 4


async def test_a_target_that_cannot_be_written_ends_the_program(groups: Groups) -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    begun = time.monotonic()
    with pytest.raises(OSError, match="No space left"):
        await run_program("yes", stdout=Full())
    assert time.monotonic() - begun < 5
    assert groups.alive() == []


async def test_a_coroutine_that_is_closed_leaves_nothing(groups: Groups, ending: str) -> None:
    """As by a loop that is gone: nothing can be awaited any more."""
    before = leaks.Snapshot.take()
    body = run_program("sh", "-c", "trap '' TERM; sleep 100 & wait")
    body.send(None)
    body.close()
    while ending != "pidfd" and not groups.pids:
        await asyncio.sleep(0)
    assert groups.alive() == []
    if ending == "thread":  # it is the thread's word that the dead is buried at
        await asyncio.sleep(0.05)
    leaks.check_open_files(before)


async def test_what_a_program_leaves_behind_is_killed(groups: Groups) -> None:
    await run_program("sh", "-c", "sleep 100 >/dev/null 2>&1 &")
    assert groups.alive() == []


async def test_what_keeps_the_output_open(tmp_path: Path, groups: Groups, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG)
    await run_program("sh", "-c", "sleep 100 & echo done", kill_after=0.1)
    assert groups.alive() == []
    assert "it has been killed" in caplog.text
    target = LocalTarget(tmp_path / "out")
    with pytest.raises(ProgramError, match="still held its output open, so it may not be whole"):
        await run_program("sh", "-c", "sleep 100 & echo half", stdout=target, kill_after=0.1)
    assert groups.alive() == []
    assert list(tmp_path.iterdir()) == []
    await run_program("sh", "-c", "sleep 100 >/dev/null & echo whole", stdout=target, kill_after=0.1)
    assert Path(target.path).read_text() == "whole\n", "standard error alone was held"


async def test_what_comes_after_the_program_has_ended_belongs_to_it(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path / "out")
    await run_program("sh", "-c", "(sleep 0.2; echo late) & echo early", stdout=target, kill_after=20)
    assert Path(target.path).read_text() == "early\nlate\n"


async def test_a_slow_reader_is_not_taken_for_an_output_that_is_held_open() -> None:
    sizes: list[int] = []

    class Slow:
        def write(self, data: bytes) -> Any:
            sizes.append(len(data))
            # Longer than the patience: the program has ended meanwhile, and the rest stands in the pipe.
            return asyncio.sleep(0.3) if len(sizes) == 1 else None

    size = _process.HOP + 65_536 + 30_000
    await run_program("head", "-c", size, "/dev/zero", stdout=Slow(), kill_after=0.05)
    assert sum(sizes) == size


# Many, large, elsewhere ----------------------------------------------------------------------------------


async def test_a_hundred_at_once(tmp_path: Path, ending: str) -> None:
    class Copy(ProgramTask):
        n: int
        stdout_to = "output"

        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / f"{self.n}", durability="none")

        def program_args(self) -> list[Any]:
            return ["sh", "-c", "sleep 0.05; cat; echo on >&2"]

        def program_stdin(self) -> str:
            return f"{self.n}" * 20_000

    tasks = [Copy(n=n) for n in range(100)]
    result = await build(tasks, concurrency=100)
    assert result.counts == {"succeeded": 100}
    for task in tasks:
        assert Path(task.output().path).read_text() == f"{task.n}" * 20_000


def test_a_large_output_is_not_held_in_memory(tmp_path: Path) -> None:
    code = (
        "import asyncio, resource, sys; from asyncflow import LocalTarget; from asyncflow.contrib.program import *\n"
        "async def main():\n"
        "    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    for size in (2_000_000, 200_000_000):\n"
        "        await run_program('head', '-c', size, '/dev/zero', stdout=LocalTarget(sys.argv[1]))\n"
        "        print(peak())\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big")], capture_output=True, text=True, timeout=50, check=True
    )
    small, large = map(int, done.stdout.split())
    unit = 1 if sys.platform == "darwin" else 1024
    assert (large - small) * unit < 10_000_000, done.stdout
    assert (tmp_path / "big").stat().st_size == 200_000_000


async def test_a_slow_reader_holds_the_program_up() -> None:
    """What is not taken yet is bounded, however much the program could write."""
    sizes: list[int] = []

    class Slow:
        async def write(self, data: bytes) -> None:
            sizes.append(len(data))
            await asyncio.sleep(0.02)

    await run_program("head", "-c", 5_000_000, "/dev/zero", stdout=Slow())
    assert sum(sizes) == 5_000_000
    assert max(sizes) <= 2 * _process.HOP


async def test_the_loop_goes_on_while_a_program_talks() -> None:
    turn, told = 0, Counter[int]()

    class Counts(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told[turn] += 1

    log, handler = logging.getLogger(LOG), Counts()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        task = asyncio.create_task(run_program("sh", "-c", "yes | head -n 20000"))
        while not task.done():
            turn += 1
            await asyncio.sleep(0)
        await task
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    assert sum(told.values()) == 20_000 + 1
    assert max(told.values()) <= 4096, "so many lines were told in one turn of the loop"


def test_a_build_in_another_thread(tmp_path: Path, ending: str) -> None:
    class Prints(ProgramTask):
        def program_args(self) -> list[Any]:
            return ["sh", "-c", "sleep 0.05"]

    results: list[Any] = []

    def elsewhere() -> None:
        results.append(asyncio.run(build(Prints())))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert results[0].ok


def test_a_cancel_in_another_thread(groups: Groups) -> None:
    async def main() -> None:
        async with asyncio.timeout(0.2):
            await run_program("sh", "-c", "sleep 100 & sleep 100")

    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            asyncio.run(main())
        except TimeoutError as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert groups.alive() == []
