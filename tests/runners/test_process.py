"""Bodies in worker processes: what they may do, how they end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from asyncflow import (
    ConfigError,
    Flow,
    MemoryTarget,
    PlanError,
    Task,
    TaskDefinitionError,
    TaskLog,
    TaskProgress,
    UpstreamFailed,
    WorkerDied,
    build,
    plan,
)
from asyncflow.runners import workers
from tests import in_processes as tasks
from tests.in_processes import InProcess

HERE = os.getpid()


def children() -> list[str]:
    """The processes this one has started and not waited for, with their state."""
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,stat=,args=", "--ppid", str(HERE)], capture_output=True, text=True, check=False
    )
    return [line for line in found.stdout.splitlines() if "ps -ww" not in line]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
async def no_children() -> Any:
    before = children()
    yield
    for _ in range(500):
        if (left := children()) == before:
            break
        await asyncio.sleep(0.01)
    assert left == before


def written(path: Path) -> bool:
    """Whether there is something in the file: it is there a moment before."""
    return path.exists() and bool(path.read_text())


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# What they give ------------------------------------------------------------------------------------------


async def test_bodies_run_in_other_processes_which_are_used_again() -> None:
    result = await build([tasks.Pid(n=n) for n in range(20)], processes=2)
    pids = {result[tasks.Pid(n=n)] for n in range(20)}
    assert HERE not in pids
    assert 1 <= len(pids) <= 2


async def test_no_more_at_once_than_processes_allow() -> None:
    result = await build([tasks.Pid(n=n, seconds=0.05) for n in range(6)], processes=3)
    assert len({result[tasks.Pid(n=n, seconds=0.05)] for n in range(6)}) <= 3


async def test_inputs_and_values() -> None:
    result = await build([tasks.Square(n=n) for n in range(5)])
    assert [result[tasks.Square(n=n)] for n in range(5)] == [0, 1, 4, 9, 16]


async def test_a_generator_goes_on_where_it_stood(tmp_path: Path) -> None:
    task = tasks.Yields(folder=tmp_path)
    assert (await build(task, processes=1)).tasks[task].value == [1, 2, HERE, ("TaskFailed", "ValueError")]
    assert (tmp_path / "entered").read_text() == "x"


async def test_require_in_a_process_and_in_a_thread() -> None:
    result = await build([tasks.Requires(), tasks.RequiresInThread()], processes=1)
    assert result[tasks.Requires()] == [1, 2, 3]
    assert result[tasks.RequiresInThread()] == [1, HERE, 3]


async def test_async_bodies() -> None:
    assert (await build(tasks.Awaits(), processes=1))[tasks.Awaits()] == [1, 2, 3, HERE]


@pytest.mark.parametrize("before", [None, tasks.Awaits()])
async def test_a_sync_body_may_run_a_loop_of_its_own(before: Task | None) -> None:
    async with Flow(processes=1) as flow:  # one worker, whatever it has run before
        if before is not None:
            await flow.run(before)
        assert await flow.run(tasks.HasALoopOfItsOwn()) == 7


async def test_an_async_body_may_leave_what_it_has_asked_for() -> None:
    async with asyncio.timeout(20):
        assert (await build(tasks.LeavesOne()))[tasks.LeavesOne()] == "left"


async def test_async_generators_and_targets(tmp_path: Path) -> None:
    assert await build(tasks.Steps(folder=tmp_path))
    assert (tmp_path / "steps.txt").read_text() == "[1, 2]"


async def test_an_output_that_is_not_there_is_noticed(tmp_path: Path) -> None:
    result = await build(tasks.Forgets(folder=tmp_path))
    assert "its output is not there" in str(result.tasks[tasks.Forgets(folder=tmp_path)].error)


async def test_classes_of_the_program_itself(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from asyncflow import Task, run\n"
        "class Inner(Task):\n"
        "    runner = 'process'\n"
        "    n: int\n"
        "    def run(self): return self.n\n"
        "class Outer(Task):\n"
        "    runner = 'process'\n"
        "    def run(self): return self.require(Inner(n=2)) + 1\n"
        "if __name__ == '__main__':\n"
        "    print(run(Outer())[Outer()])\n"
    )
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False, timeout=50)
    assert (ended.stdout, ended.stderr) == ("3\n", "")


async def test_what_they_say_comes_back(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    with caplog.at_level(logging.INFO, logger="tests.body"):
        assert await build(tasks.Says(), on_event=seen.append)
    out, err = capsys.readouterr()
    assert out == "out 1\nbegun\n"
    assert err.startswith("err\n")
    assert [record.getMessage() for record in caplog.records] == ["logged 2", "with a traceback"]
    assert "ValueError: inner" in (caplog.records[1].exc_text or "")
    told = [(event.source, event.level, event.message) for event in seen if isinstance(event, TaskLog)]
    assert set(told) == {
        ("stdout", 0, "out 1"),
        ("stdout", 0, "begun"),
        ("stderr", 0, "err"),
        ("tests.body", logging.WARNING, "logged 2"),
        ("tests.body", logging.ERROR, "with a traceback"),
    }
    assert [event.message for event in seen if isinstance(event, TaskProgress)] == ["half"]


# How they fail -------------------------------------------------------------------------------------------


async def failure(task: Task, **options: Any) -> BaseException:
    async with asyncio.timeout(30):
        result = await build(task, **options)
    error = result.tasks[task].error
    assert error is not None
    return error


async def test_an_exception_comes_back_with_its_place_and_its_cause() -> None:
    error = await failure(tasks.Fails(kind="plain"))
    assert (type(error), str(error)) == (ValueError, "row 17")
    assert "in worker process" in error.__notes__[0]
    assert "in_processes.py" in error.__notes__[0]
    error = await failure(tasks.Fails(kind="cause"))
    assert (type(error), type(error.__cause__)) == (RuntimeError, KeyError)


@pytest.mark.parametrize(
    ("kind", "expected", "text"),
    [
        ("unsendable", RuntimeError, "in_processes.Unsendable: 1 and 2 (an exception that cannot be pickled"),
        ("exits", SystemExit, "3"),
        ("lambda", TypeError, "run() returned a value (function) that cannot be sent from its worker process"),
        ("not a task", TypeError, "waits for 7 (int)"),
        ("os._exit", WorkerDied, "exited with code 7; a body should raise an exception"),
        ("signal", WorkerDied, "was killed by SIGSEGV; a crash in a library"),
        ("thread", RuntimeError, "require() was called in a thread that is not its body's own"),
    ],
)
async def test_bad_ends_are_told(kind: str, expected: type[BaseException], text: str) -> None:
    error = await failure(tasks.Fails(kind=kind))
    assert type(error) is expected
    assert text in str(error)


async def test_a_worker_that_dies_is_an_attempt_that_failed(tmp_path: Path) -> None:
    task = tasks.DiesTwice(folder=tmp_path)
    result = await build(task)
    assert result[task] == 3
    assert [type(attempt.error) for attempt in result.tasks[task].attempts] == [WorkerDied, WorkerDied, type(None)]
    assert "SIGKILL; if nobody has killed it" in str(result.tasks[task].attempts[0].error)


async def test_what_cannot_be_sent_is_told_before_anything_runs() -> None:
    entered: list[Task] = []

    class Local(InProcess):
        def run(self) -> None: ...

    class Enters(Task):
        async def run(self) -> None:
            entered.append(self)

    for task, text in (
        (Local(), "cannot be sent to a worker: .*define the class at the top of a module"),
        (tasks.InMemory(), r"MemoryTarget\('in/process'\) is in the memory of this process"),
    ):
        for door in (build, plan):
            with pytest.raises(PlanError, match=text):
                await door([task, Enters()])
    assert not entered


async def test_what_cannot_be_sent_from_what_it_requires() -> None:
    error = await failure(tasks.ReadsMemory())
    assert "MemoryTarget('of/parent'), which it requires, is in the memory of another process" in str(error)
    error = await failure(tasks.TakesLambda())
    assert "what it requires gave something that cannot be sent to a worker" in str(error)
    MemoryTarget.clear()


async def test_a_parameter_that_cannot_be_pickled_is_named() -> None:
    task = tasks.Number(n=1)
    object.__setattr__(task, "n", lambda: None)
    with pytest.raises(PlanError, match="its parameter 'n' is a function, which cannot be pickled"):
        await build(task)


def test_runner_takes_one_word() -> None:
    with pytest.raises(TaskDefinitionError, match="runner is 'threads'; expected 'process', or None"):

        class Wrong(Task):
            runner = "threads"

            def run(self) -> None: ...


async def test_processes_is_a_number() -> None:
    with pytest.raises(ConfigError, match=r"build\(processes=0\)"):
        await build(tasks.Number(n=1), processes=0)


async def test_more_than_can_be_kept_waiting_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncflow.runners.process.PARKED", 2)
    parents = [tasks.Parks(n=n, folder=tmp_path) for n in range(6)]
    async with asyncio.timeout(30):
        result = await build(parents, processes=1)
    assert 2 <= len(result.ran) - len([task for task in result.ran if isinstance(task, tasks.Number)]) <= 6
    for task in result.failed:
        assert "2 bodies in processes are waiting for tasks at once" in str(result.tasks[task].error)
    assert set(parents) == {task for task in (*result.ran, *result.failed) if isinstance(task, tasks.Parks)}


async def test_one_body_may_wait_for_many() -> None:
    assert (await build(tasks.AwaitsMany()))[tasks.AwaitsMany()] == 100


async def test_what_cannot_be_printed_or_logged_does_not_end_a_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", ascii_only)
    task = tasks.Accents(folder=tmp_path)
    assert (await build(task, on_event=seen.append))[task] == "printed"
    assert ascii_only.buffer.getvalue() == b"\\xe9\n"  # type: ignore[attr-defined]
    assert [event.message for event in seen if isinstance(event, TaskLog)] == ["é"]
    ascii_only.close()
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert (await build(task))[task] == "printed"
    monkeypatch.setattr(sys, "stdout", None)
    assert (await build(task))[task] == "printed"
    assert (await build(tasks.LogsWrongly()))[tasks.LogsWrongly()] == "went on"
    assert "odd" in caplog.messages


async def test_what_a_body_changes_in_its_process_is_not_there_for_the_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    umask = os.umask(0o22)
    os.umask(umask)
    async with Flow(processes=1) as flow:
        pid = await flow.run(tasks.Upsets())
        assert await flow.run(tasks.Looks()) == [pid, os.getcwd(), umask, False]
    assert capsys.readouterr().out == "seen\n"


def test_a_class_that_no_worker_can_import_is_told_before_anything_runs(tmp_path: Path) -> None:
    program = (
        "from asyncflow import PlanError, Task, run\n"
        "class One(Task):\n"
        "    runner = 'process'\n"
        "    def run(self): return 1\n"
        "try: run(One())\n"
        "except PlanError as error: print(error)\n"
    )
    package = tmp_path / "package"
    package.mkdir()
    (package / "__main__.py").write_text(program)
    for arguments in (["-c", program], [str(package)], ["-m", "package"]):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(tmp_path)]))}
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=50
        )
        assert "its class is where no other interpreter can import it" in done.stdout, done.stderr


async def test_a_death_is_noticed_although_a_child_lives(tmp_path: Path) -> None:
    error = await failure(tasks.ForksAndDies(folder=tmp_path))
    assert "was killed by SIGKILL" in str(error)
    await until(lambda: gone(int((tmp_path / "child").read_text())))


@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_without_its_streams(tmp_path: Path, closed: str) -> None:
    program = (
        "import sys; from asyncflow import run; from tests.in_processes import Pid\n"
        "open(sys.argv[1], 'w').write(run(Pid()).status)"
    )
    subprocess.run(
        ["/bin/sh", "-c", f'"$0" -c "$1" "$2" {closed}', sys.executable, program, str(tmp_path / "status")],
        check=False,
        timeout=50,
        capture_output=not closed,
    )
    assert (tmp_path / "status").read_text() == "succeeded"


def test_a_module_beside_the_program_is_not_taken_for_pythons(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('mine')")
    program = "from asyncflow import run; from tests.in_processes import Pid; print(run(Pid()).status)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert done.stdout == "succeeded\n", done.stderr


def test_a_program_that_builds_as_it_is_imported_is_told(tmp_path: Path) -> None:
    program = tmp_path / "unguarded.py"
    program.write_text(
        "from asyncflow import Task, run\n"
        "class One(Task):\n"
        "    runner = 'process'\n"
        "    def run(self): return 1\n"
        "result = run(One())\n"
        "print(result.tasks[One()].error)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False, timeout=50)
    assert 'put the build under `if __name__ == "__main__":`' in done.stdout
    assert len(done.stdout.splitlines()) == 1


# How they are stopped --------------------------------------------------------------------------------------


STOPS = [(kind, how) for kind in ("sleeps", "burns", "waits", "deaf", "swallows") for how in ("cancel", "timeout")]
STOPS.remove(("waits", "timeout"))  # time in which a body waits for tasks does not count


@pytest.mark.parametrize(("kind", "how"), STOPS)
async def test_a_sync_body_is_stopped(tmp_path: Path, kind: str, how: str) -> None:
    task: Task = (tasks.TimesOut if how == "timeout" else tasks.Stubborn)(kind=kind, folder=tmp_path)
    building = asyncio.create_task(build(task, grace=1.0))
    await until(lambda: written(tmp_path / "pid"))
    pid = int((tmp_path / "pid").read_text())
    if how == "cancel":
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
    else:
        result = await building
        assert isinstance(result.tasks[task].error, TimeoutError)
    assert not (tmp_path / f"{kind}.txt").exists()
    left = list(tmp_path.glob(".af-*"))
    if kind == "deaf":  # killed in the end, with what it has started
        await until(lambda: gone(int((tmp_path / "child").read_text())))
        for path in left:
            path.unlink()
    else:
        assert (tmp_path / "unwound").exists()
        assert not left, "its blocks have been left"
    await until(lambda: gone(pid))


async def test_an_async_body_gets_a_cancel(tmp_path: Path) -> None:
    building = asyncio.create_task(build(tasks.StubbornAsync(folder=tmp_path)))
    await until(lambda: written(tmp_path / "pid"))
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert (tmp_path / "cancelled").exists()


@pytest.mark.parametrize("fresh", [True, False])
async def test_a_cancel_at_any_moment_publishes_nothing(tmp_path: Path, fresh: bool) -> None:
    for n in range(12):
        async with Flow(processes=1) as flow:
            if not fresh:
                await flow.run(tasks.Pid(n=n))
            run = flow.start(tasks.LateWrite(folder=tmp_path, n=n))
            await asyncio.sleep((0.018 if fresh else 0.01) * n)
            run.cancel()
            await run
            path = tmp_path / f"late {n}.txt"
            there = path.exists()
            assert not there or path.read_text() == "too late", "it was published before the cancel, and whole"
            assert not there or fresh or n >= 8, "it was cancelled before it wrote"
            await asyncio.sleep(0.15)
            assert path.exists() == there


async def test_a_stop_waits_for_the_end_of_a_publish(tmp_path: Path) -> None:
    building = asyncio.create_task(build(tasks.PublishesSlowly(folder=tmp_path)))
    await until((tmp_path / "between").exists)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert sorted(path.name for path in tmp_path.iterdir()) == ["between", "one", "two"]


async def test_a_body_stopped_in_the_middle_of_a_word_spoils_no_worker(tmp_path: Path) -> None:
    async with Flow(processes=1) as flow:
        for n in range(6):
            run = flow.start(tasks.SaysMuch(folder=tmp_path))
            await until(lambda: written(tmp_path / "pid"))
            await asyncio.sleep(0.002 * n)
            run.cancel()
            assert (await run).status == "cancelled"
            (tmp_path / "pid").unlink()
            assert await flow.run(tasks.Number(n=n)) == n


async def test_a_worker_whose_body_has_stopped_is_used_again(tmp_path: Path) -> None:
    async with Flow(processes=1) as flow:
        run = flow.start(tasks.Stubborn(kind="sleeps", folder=tmp_path))
        await until(lambda: written(tmp_path / "pid"))
        run.cancel()
        assert (await run).status == "cancelled"
        assert await flow.run(tasks.Pid()) == int((tmp_path / "pid").read_text())


async def test_a_flow_keeps_its_workers_and_sends_them_home() -> None:
    async with Flow(processes=1) as flow:
        pids = {await flow.run(tasks.Pid(n=n)) for n in range(3)}
        assert len(pids) == 1
        pid = pids.pop()
        assert not gone(pid)
    await until(lambda: gone(pid))


async def test_no_more_idle_workers_are_kept_than_processes_allow(tmp_path: Path) -> None:
    async with Flow(processes=1) as flow:
        assert await flow.run(tasks.Requires()) == [1, 2, 3]  # one waits while another is at work
        await until(lambda: len(workers._idle) == 1)
        await until(lambda: len(children()) == 1)


async def test_runs_cancelled_at_random_leave_workers_that_work(tmp_path: Path) -> None:
    chance = random.Random(3)
    async with Flow(processes=2) as flow:
        for n in range(25):
            many = [tasks.Yields(folder=tmp_path), tasks.Awaits(), tasks.Requires(), tasks.Pid(n=n, seconds=0.01)]
            run = flow.start(many)
            await asyncio.sleep(chance.random() * 0.05)
            run.cancel()
            async with asyncio.timeout(20):
                await run
        async with asyncio.timeout(20):
            assert await flow.run(tasks.Awaits()) == [1, 2, 3, HERE]
            assert await flow.run(tasks.Requires()) == [1, 2, 3]


async def test_a_worker_killed_while_idle_is_replaced() -> None:
    async with Flow(processes=1) as flow:
        pid = await flow.run(tasks.Pid(n=1))
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not workers._idle[0].alive)
        assert await flow.run(tasks.Pid(n=2)) not in (pid, HERE)


async def test_workers_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    """200 tasks, and a worker is killed every few milliseconds: each file is whole, none is made twice at once."""
    chance = random.Random(7)
    todo = [tasks.Writes(folder=tmp_path, n=n) for n in range(200)]
    building = asyncio.create_task(build(todo, processes=3, retries=50))
    kills = 0
    while not building.done():
        await asyncio.sleep(chance.uniform(0.02, 0.15))
        pids = [int(line.split()[0]) for line in children() if "asyncflow.runners.worker" in line]
        if pids and kills < 40:
            kills += 1
            with suppress(ProcessLookupError):  # it has gone by itself
                os.kill(chance.choice(pids), signal.SIGKILL)
    result = await building
    assert result.ok
    assert len(result.ran) == 200
    assert kills > 5
    for n in range(200):
        assert (tmp_path / f"{n}.txt").read_text() == f"{n}\n" * 20
    for path in tmp_path.glob(".af-*"):  # of those that were killed
        path.unlink()


def test_ctrl_c_leaves_no_child(tmp_path: Path) -> None:
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # who started us may ignore it
        "import sys; from pathlib import Path; from asyncflow import run; from tests.in_processes import *\n"
        "run([Stubborn(kind=kind, folder=Path(sys.argv[1]) / kind) for kind in ('sleeps', 'burns')])"
    )
    for kind in ("sleeps", "burns"):
        (tmp_path / kind).mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.PIPE, text=True, process_group=0
    )
    pids = [tmp_path / kind / "pid" for kind in ("sleeps", "burns")]
    try:
        for path in pids:
            for _ in range(4000):
                if written(path):
                    break
                process.poll()
                assert process.returncode is None, process.stderr.read() if process.stderr else ""
                signal.sigtimedwait([], 0.005)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(20)
    finally:
        process.kill()
        process.communicate()
    for path in pids:
        for _ in range(1000):
            if gone(int(path.read_text())):
                break
            signal.sigtimedwait([], 0.005)
        assert gone(int(path.read_text()))


def test_workers_of_a_program_that_is_killed_go(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from asyncflow import run; from tests.in_processes import *\n"
        "run(Stubborn(kind='burns', folder=Path(sys.argv[1])))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    try:
        for _ in range(4000):
            if written(tmp_path / "pid"):
                break
            signal.sigtimedwait([], 0.005)
    finally:
        process.kill()
        process.wait()
    pid = int((tmp_path / "pid").read_text())
    for _ in range(1000):
        if gone(pid):
            break
        signal.sigtimedwait([], 0.005)
    assert gone(pid)
    for path in tmp_path.glob(".af-*"):  # nobody was left to remove it
        path.unlink()


async def test_a_dependent_of_one_that_died_is_blocked() -> None:
    class Above(Task):
        def requires(self) -> Task:
            return tasks.Fails(kind="os._exit")

        async def run(self) -> None: ...

    result = await build(Above())
    assert result.failed == (tasks.Fails(kind="os._exit"),)
    assert result.blocked == (Above(),)
    with pytest.raises(UpstreamFailed):
        result[Above()]


async def test_builds_that_come_and_go_leave_no_files_open() -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for n in range(5):
        building = asyncio.create_task(build([tasks.Pid(n=n, seconds=0.02), tasks.Pid(n=-n - 1, seconds=60)]))
        await asyncio.sleep(0.05 * n)
        building.cancel()
        await asyncio.gather(building, return_exceptions=True)
    gc.collect()
    if before:
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)
