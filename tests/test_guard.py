"""Who holds the loop: named with its line, and nobody named who does not."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from asyncflow import Event, LoopBlocked, MemoryTarget, Target, Task, build, gather, guard, plan
from asyncflow.testing import leaks

HOLD = 0.3  # seconds
HERE = __file__


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    MemoryTarget.clear()
    yield
    assert not guard._listeners
    assert guard._limit == guard.LIMIT


@pytest.fixture
def blocked() -> Blocked:
    return Blocked()


class Blocked(list[LoopBlocked]):
    """A listener that keeps what it hears of a blocked loop."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, LoopBlocked):
            self.append(event)


def hold(seconds: float = HOLD) -> None:
    time.sleep(seconds)


def line_of(function: Callable[..., Any], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(index for index, line in enumerate(lines) if text in line)


HOLD_LINE = line_of(hold, "time.sleep")


# Who, where, how long ------------------------------------------------------------------------------------


class Body(Task):
    n: int = 0

    async def run(self) -> None:
        hold()


class Steps(Task):
    def output(self) -> MemoryTarget:
        return MemoryTarget("steps")

    async def run(self) -> AsyncIterator[Task]:
        yield Value(n=1)
        hold()
        self.output().put(1)


class Child(Task):
    """A task of asyncio's that the body has made."""

    async def run(self) -> None:
        async def child() -> None:
            await asyncio.sleep(0)
            hold()

        await asyncio.create_task(child())


class Requires(Task):
    def requires(self) -> list[Task]:
        hold()
        return []

    async def run(self) -> None: ...


class RequiresSteps(Task):
    def requires(self) -> Iterator[Task]:
        yield Value(n=1)
        hold()
        yield Value(n=2)

    async def run(self) -> None: ...


class RequiresLater(Task):
    def requires(self) -> Iterator[Task]:
        time.sleep(0.01)  # longer than a slice of the planner's: it goes on in another turn
        for n in range(64):
            yield Value(n=n)
        hold()

    async def run(self) -> None: ...


class Output(Task):
    def output(self) -> MemoryTarget:
        hold()
        return MemoryTarget("output")

    async def run(self) -> None:
        MemoryTarget("output").put(1)


class Complete(Task):
    async def complete(self) -> bool:
        hold()
        return True


class Inline(Target):
    def exists(self) -> bool:
        hold()
        return True


Inline._how = "inline"  # as MemoryTarget's is


class OnLoop(Target):
    async def exists(self) -> bool:
        await asyncio.sleep(0)
        hold()
        return True


class InlineExists(Task):
    def output(self) -> Target:
        return Inline()

    async def run(self) -> None: ...


class AsyncExists(Task):
    def output(self) -> Target:
        return OnLoop()

    async def run(self) -> None: ...


class Value(Task):
    n: int

    async def run(self) -> int:
        await asyncio.sleep(0)
        return self.n


HOLDERS = [Body, Steps, Child, Requires, RequiresSteps, RequiresLater, Output, Complete, InlineExists, AsyncExists]


@pytest.mark.parametrize("cls", HOLDERS)
async def test_the_task_the_line_and_the_time_are_told(cls: type[Task], blocked: Blocked) -> None:
    task = cls()
    assert (await build(task, on_event=blocked)).ok
    [event] = blocked
    assert event.task == task
    assert event.place == f"{HERE}:{HOLD_LINE} in hold"
    assert HOLD / 2 < event.seconds < HOLD + 1, "right to a quarter of the limit, but on a busy machine"
    assert event.to_dict()["task"] == task.task_id


async def test_each_of_several_in_one_turn_is_told(blocked: Blocked) -> None:
    tasks = [Body(n=n) for n in range(3)]
    start = time.perf_counter()
    await build(tasks, on_event=blocked)
    assert [event.task for event in blocked] == tasks
    assert sum(event.seconds for event in blocked) <= time.perf_counter() - start, "no second is counted twice"


async def test_every_build_of_the_loop_is_told_once() -> None:
    first, second = Blocked(), Blocked()

    class Waits(Task):
        async def run(self) -> None:
            await done.wait()

    done = asyncio.Event()
    beside = asyncio.create_task(build(Waits(), on_event=first))
    await build(Body(), on_event=second)
    done.set()
    await beside
    assert [[event.task for event in events] for events in (first, second)] == [[Body()], [Body()]]


async def test_a_plan_beside_a_build_is_named(blocked: Blocked) -> None:
    class Waits(Task):
        async def run(self) -> None:
            await done.wait()

    done = asyncio.Event()
    beside = asyncio.create_task(build(Waits(), on_event=blocked))
    await plan(Requires())
    done.set()
    await beside
    assert [event.task for event in blocked] == [Requires()]


async def test_it_is_told_before_the_build_has_ended() -> None:
    events: list[Event] = []
    await build(Body(), on_event=events.append)
    kinds = [type(event).__name__ for event in events]
    assert kinds.index("LoopBlocked") < kinds.index("BuildFinished")
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_code_of_the_host_is_told_without_a_task(blocked: Blocked) -> None:
    class Waits(Task):
        async def run(self) -> None:
            started.set()
            await done.wait()

    started, done = asyncio.Event(), asyncio.Event()
    beside = asyncio.create_task(build(Waits(), on_event=blocked))
    await started.wait()
    await asyncio.sleep(0)
    hold()
    await asyncio.sleep(0)
    done.set()
    await beside
    [event] = blocked
    assert event.task is None
    assert event.place == f"{HERE}:{HOLD_LINE} in hold"
    assert event.to_dict()["task"] is None


async def test_a_listener_that_holds_the_loop_is_named_and_no_task() -> None:
    events: list[LoopBlocked] = []

    def listener(event: Event) -> None:
        if isinstance(event, LoopBlocked):
            events.append(event)
        elif type(event).__name__ == "TaskFinished":
            hold()

    class Two(Task):
        def requires(self) -> Task:
            return Value(n=1)

        async def run(self) -> None:
            await asyncio.sleep(0)

    await build(Two(), on_event=listener)
    assert {event.task for event in events} == {None}


async def test_a_body_that_waits_is_not_blamed_for_another(blocked: Blocked) -> None:
    class Waits(Task):
        async def run(self) -> None:
            await gather(Value(n=1), Body())

    await build(Waits(), on_event=blocked)
    assert [event.task for event in blocked] == [Body()]


def test_two_loops_in_two_threads() -> None:
    heard: dict[int, Blocked] = {0: Blocked(), 1: Blocked()}
    both = threading.Barrier(2)

    class Meets(Task):
        n: int

        async def run(self) -> None:
            both.wait(10)
            if self.n:
                hold()
            await asyncio.sleep(HOLD / 2)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(build(Meets(n=n), on_event=heard[n]))) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.task for event in heard[1]] == [Meets(n=1)]
    assert not heard[0]


def test_a_loop_is_guarded_while_that_of_another_thread_tells_a_slow_listener() -> None:
    telling, beaten = threading.Event(), threading.Event()
    wrong: list[dict[str, Any]] = []

    class Holds(Task):
        async def run(self) -> None:
            hold()
            await asyncio.to_thread(beaten.wait, 30)

    class Beats(Task):
        async def run(self) -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: wrong.append(context))
            await asyncio.to_thread(telling.wait, 30)
            heart = guard._guards[loop]
            turn, late = heart.turn, time.monotonic() + 30
            while heart.turn < turn + 3 and not wrong and time.monotonic() < late:
                await asyncio.sleep(0.01)
            turns.append(heart.turn - turn)
            beaten.set()

    def listen(event: Event) -> None:
        if isinstance(event, LoopBlocked) and event.task is not None:
            telling.set()
            beaten.wait(30)

    turns: list[int] = []
    slow = threading.Thread(target=lambda: asyncio.run(build(Holds(), on_event=listen)))
    slow.start()
    asyncio.run(build(Beats()))
    slow.join()
    assert not wrong
    assert turns[0] >= 3


def test_a_sync_body_with_a_loop_of_its_own(blocked: Blocked) -> None:
    inner = Blocked()

    class Runs(Task):
        def run(self) -> None:
            asyncio.run(build(Body(), on_event=inner))

    asyncio.run(build(Runs(), on_event=blocked))
    assert [event.task for event in inner] == [Body()]
    assert not blocked


async def test_a_loop_that_does_not_come_back_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())
            released.set()

    class Stuck(Task):
        async def run(self) -> None:
            assert released.wait(30), "the log names it while it holds the loop"

    records: list[str] = []
    released = threading.Event()
    handler = Handler(logging.WARNING)
    logging.getLogger("asyncflow").addHandler(handler)
    try:
        (await build(Stuck())).raise_for_failure()
    finally:
        logging.getLogger("asyncflow").removeHandler(handler)
    [record] = records
    assert record.startswith("Stuck() has held the event loop for 0.1")
    assert record.endswith(f"{HERE}:{line_of(Stuck.run, 'released.wait')} in {Stuck.run.__qualname__}")


async def test_c_code_that_never_lets_go_of_the_interpreter_is_named(blocked: Blocked) -> None:
    class Sums(Task):
        async def run(self) -> None:
            sum(range(50_000_000))

    await build(Sums(), on_event=blocked)
    assert [event.task for event in blocked] == [Sums()]
    assert blocked[0].place == f"{HERE}:{line_of(Sums.run, 'sum(')} in {Sums.run.__qualname__}"


# The line ------------------------------------------------------------------------------------------------


def imported(path: Path, code: str) -> ModuleType:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


async def test_the_line_of_the_body_not_of_a_library(tmp_path: Path, blocked: Blocked, forget: None) -> None:
    library = imported(tmp_path / "site-packages" / "a_library.py", "import time\ndef get(s):\n    time.sleep(s)\n")

    class Fetches(Task):
        async def run(self) -> None:
            library.get(HOLD)

    await build(Fetches(), on_event=blocked)
    line = line_of(Fetches.run, "library.get")
    assert [event.place for event in blocked] == [f"{HERE}:{line} in {Fetches.run.__qualname__}"]


async def test_a_pipeline_that_is_installed_has_lines_of_its_own(
    tmp_path: Path, blocked: Blocked, forget: None
) -> None:
    imported(tmp_path / "site-packages" / "a_library.py", "import time\ndef get(s):\n    time.sleep(s)\n")
    path = tmp_path / "site-packages" / "a_pipeline.py"
    code = "import a_library, asyncflow\nclass Sleeps(asyncflow.Task):\n    async def run(self):\n        "
    code += "a_library.get(0.3)\n"
    pipeline = imported(path, code)
    await build(pipeline.Sleeps(), on_event=blocked)
    assert [event.place for event in blocked] == [f"{path}:4 in Sleeps.run"]


async def test_a_library_alone_is_named_where_no_line_is_the_users(
    tmp_path: Path, blocked: Blocked, forget: None
) -> None:
    path = tmp_path / "site-packages" / "a_server.py"
    server = imported(path, "import time\ndef serve(s):\n    time.sleep(s)\n")

    class Waits(Task):
        async def run(self) -> None:
            asyncio.get_running_loop().call_later(0.01, server.serve, HOLD)
            await asyncio.sleep(HOLD)

    await build(Waits(), on_event=blocked)
    assert [(event.task, event.place) for event in blocked] == [(None, f"{path}:3 in serve")]


# Nobody --------------------------------------------------------------------------------------------------


async def test_nobody_is_named_for_a_thousand_that_wait(blocked: Blocked) -> None:
    class Sleeps(Task):
        n: int

        async def run(self) -> None:
            await asyncio.sleep(HOLD)

    await build([Sleeps(n=n) for n in range(1_000)], on_event=blocked)
    assert not blocked


class InThread(Task):
    n: int = 0

    def run(self) -> None:
        hold()


class HookInThread(Task):
    def complete(self) -> bool:
        hold()
        return True


@pytest.mark.parametrize("cls", [InThread, HookInThread])
async def test_nobody_is_named_for_what_sleeps_in_a_thread(cls: type[Task], blocked: Blocked) -> None:
    assert (await build(cls(), on_event=blocked)).ok
    assert not blocked


async def test_a_loop_that_waits_for_events_is_in_nobodys_code() -> None:
    class SeesFromAThread(Task):
        def run(self) -> bool:
            return not leaks.settle(guard._guards[loop]._frames)

    loop = asyncio.get_running_loop()
    assert (await build(SeesFromAThread()))[SeesFromAThread()]


async def test_nobody_is_named_for_threads_that_compute(blocked: Blocked) -> None:
    class Computes(Task):
        n: int

        def run(self) -> None:
            end = time.perf_counter() + HOLD
            while time.perf_counter() < end:
                pass

    await build([Computes(n=n) for n in range(4)], on_event=blocked)
    assert not blocked


async def test_nobody_is_named_for_a_turn_of_many_short_steps(blocked: Blocked) -> None:
    class Short(Task):
        n: int

        async def run(self) -> None:
            time.sleep(0.005)

    await build([Short(n=n) for n in range(60)], on_event=blocked)  # all in one turn
    assert not blocked


async def test_nobody_is_named_for_the_garbage_collector(blocked: Blocked) -> None:
    class Collects(Task):
        async def run(self) -> None:
            end = time.perf_counter() + HOLD
            while time.perf_counter() < end:
                gc.collect()

    garbage = [[n] for n in range(300_000)]
    await build(Collects(), on_event=blocked)
    assert not blocked
    assert garbage


async def test_the_clock_goes_on_after_a_collection_that_outlived_the_sampler() -> None:
    class Lasts:
        def __del__(self) -> None:
            gone.append(not sampler())

    gone: list[bool] = []
    garbage = [Lasts()]
    garbage.append(garbage)  # type: ignore[arg-type]
    gc.disable()
    try:
        await build(Looks())
        del garbage
        gc.collect()
    finally:
        gc.enable()
    assert gone == [True]
    start = guard._now()
    assert guard._now() > start


async def test_nobody_is_named_in_a_debugger(blocked: Blocked) -> None:
    debugger: dict[str, Any] = {"__name__": "bdb", "time": time}
    exec("def prompt(s):\n    time.sleep(s)", debugger)

    class Debugged(Task):
        async def run(self) -> None:
            debugger["prompt"](HOLD)

    await build(Debugged(), on_event=blocked)
    assert not blocked


def test_nobody_is_named_while_the_loop_is_not_run(blocked: Blocked) -> None:
    class Waits(Task):
        async def run(self) -> None:
            started.set()
            await done.wait()
            hold()

    async def start() -> asyncio.Task[Any]:
        building = asyncio.create_task(build(Waits(), on_event=blocked))
        await started.wait()
        return building

    async def end(building: asyncio.Task[Any]) -> None:
        done.set()
        await building

    with asyncio.Runner() as runner:
        started, done = asyncio.Event(), asyncio.Event()
        building = runner.run(start())
        hold()
        assert not sampler()
        runner.run(end(building))
    assert [event.task for event in blocked] == [Waits()], "and it is at work again when the loop is"
    assert blocked[0].seconds < 2 * HOLD


class Virtual(asyncio.SelectorEventLoop):
    virtual = True


def test_a_simulated_loop_is_not_guarded(blocked: Blocked) -> None:
    with asyncio.Runner(loop_factory=Virtual) as runner:
        runner.run(build(Body(), on_event=blocked))
    assert not blocked


STOPPED = """
import asyncio, os, sys
from asyncflow import LoopBlocked, Task, build

class Busy(Task):  # in this body all the time, without holding the loop
    async def run(self):
        print("ready", flush=True)
        waiting = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        while not waiting.done():
            for _ in range(1000):
                pass
            await asyncio.sleep(0)

def heard(event):
    if isinstance(event, LoopBlocked):
        print("blocked", event, flush=True)

asyncio.run(build(Busy(), on_event=heard))
print("over", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
def test_nobody_is_named_when_the_process_was_stopped() -> None:
    _stop_and_go(STOPPED, times=3)


def _stop_and_go(code: str, times: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        for _ in range(times):
            child.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, child.pid, os.WSTOPPED)
            time.sleep(0.5)  # the stop itself, as long as the machine sleeps
            child.send_signal(signal.SIGCONT)
            time.sleep(0.1)  # for the guard to look
        rest, _ = child.communicate("\n", timeout=30)
    assert rest == "over\n"


STOPPED_EARLY = (
    """
import signal, threading, time
from asyncflow import guard

begin, lend = threading.Event(), guard.lend
guard.lend = lambda sample: lend(lambda: (begin.wait(), sample())[1])

def look(*_):  # it begins in here, and looks: before the loop comes round
    begin.set()
    time.sleep(0.03)

signal.signal(signal.SIGCONT, look)
"""
    + STOPPED
)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
def test_nobody_is_named_when_the_process_was_stopped_before_the_sampler_had_begun() -> None:
    _stop_and_go(STOPPED_EARLY, times=1)


FORKED = """
import asyncio, os, time
from asyncflow import LoopBlocked, Task, build, guard

class Holds(Task):
    async def run(self):
        time.sleep(0.3)

def heard(event):
    if isinstance(event, LoopBlocked):
        print(os.getpid() == parent, event.task, flush=True)

class Forks(Task):
    async def run(self):
        for _ in range(10):  # with luck in the middle of a look
            await asyncio.sleep(0.01)
            pid = os.fork()
            if not pid:
                try:
                    asyncio._set_running_loop(None)
                    with guard._lock:
                        assert not guard._sampling and not guard._guards
                    asyncio.run(build(Holds(), on_event=heard))
                finally:
                    os._exit(0)
            await asyncio.to_thread(os.waitpid, pid, 0)

parent = os.getpid()
asyncio.run(build(Forks(), on_event=heard))
asyncio.run(build(Holds(), on_event=heard))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_a_guard_of_its_own() -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), timeout=50)
    assert done.stdout.splitlines() == ["False Holds()"] * 10 + ["True Holds()"], done.stderr


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(HERE).parent.parent)}


# At work only while a build is ---------------------------------------------------------------------------


def sampler() -> list[bool]:
    """Whether there is a sampler, when it has had the time to go."""
    return leaks.settle(lambda: [True] * (guard._sampling or guard._collecting in gc.callbacks))


class Looks(Task):
    async def run(self) -> list[bool]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(guard.LIMIT)
        return [guard._sampling, guard._collecting in gc.callbacks, loop in guard._guards]


async def test_it_is_at_work_only_while_a_build_is() -> None:
    loop = asyncio.get_running_loop()
    assert (await build(Looks()))[Looks()] == [True, True, True]
    assert not sampler()
    await asyncio.sleep(guard.LIMIT)
    assert not guard._guards
    assert not [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]


async def test_builds_that_follow_one_another_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    start = guard.lend
    monkeypatch.setattr(guard, "lend", lambda job: (started.append(job), start(job)))
    for n in range(100):
        await build(Value(n=n))
    assert 1 <= len(started) <= 10, "not one for each"


def test_a_loop_that_is_closed_in_the_middle_of_a_build_is_let_go() -> None:
    class Waits(Task):
        async def run(self) -> None:
            started.set()
            await asyncio.Event().wait()

    async def start() -> None:
        kept.append(loop.create_task(build(Waits())))
        await started.wait()

    kept: list[asyncio.Task[Any]] = []
    loop = asyncio.new_event_loop()
    started = asyncio.Event()
    try:
        loop.run_until_complete(start())
    finally:
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
    assert not sampler()
    guard._at_work(stay=False)  # as the next sampler does, where this one went before the loop was closed
    assert loop not in guard._guards


async def test_a_build_does_without_where_there_is_no_thread(monkeypatch: pytest.MonkeyPatch, blocked: Blocked) -> None:
    def none(_: Callable[[], object]) -> None:
        raise RuntimeError("can't start new thread")

    assert not sampler()
    monkeypatch.setattr(guard, "lend", none)
    assert (await build(Body(), on_event=blocked)).ok
    assert not blocked
