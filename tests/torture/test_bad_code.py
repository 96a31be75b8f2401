"""Bodies, hooks and tasks that do what they should not: the build says so, and the host beside it goes on."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncflow import (
    Abandoned,
    BuildResult,
    Event,
    Flow,
    LocalTarget,
    LoopBlocked,
    MemoryTarget,
    PlanError,
    Target,
    Task,
    build,
    gather,
    run,
)
from asyncflow.executor import _executors
from asyncflow.hub import hub

MOST = 1.0  # seconds the host may be held up for, on a machine that has other things to do


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    MemoryTarget.clear()
    yield
    MemoryTarget.clear()
    assert not len(hub)
    assert not _executors


class Host:
    """What else runs on the loop: it looks at the clock every few milliseconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.beats = 0

    async def beat(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            self.longest = max(self.longest, now - last - 0.005)
            self.beats += 1
            last = now


@asynccontextmanager
async def host(most: float = MOST) -> AsyncIterator[Host]:
    """A host that goes on beside the block, and is not held up by it for longer than ``most``."""
    host = Host()
    gc.collect()
    beating = asyncio.create_task(host.beat())
    yield host
    beats = host.beats
    await asyncio.sleep(0.02)
    assert not beating.done(), "the host was stopped"
    assert host.beats > beats, "the host does not go on"
    beating.cancel()
    await asyncio.wait([beating])
    assert host.longest < most, f"the host was held up for {host.longest:.3f} s"


class Good(Task):
    """What runs beside the bad one, and has to succeed."""

    n: int

    async def run(self) -> int:
        await asyncio.sleep(0.01)
        return self.n


GOOD = [Good(n=n) for n in range(3)]


async def beside_good_ones(bad: Task, **options: Any) -> Any:
    """Build ``bad`` with a host and other tasks beside it; what is known of it afterwards."""
    async with host():
        result = await build([bad, *GOOD], **options)
    assert [result[good] for good in GOOD] == [0, 1, 2]
    return result.tasks[bad]


# Bodies that end in odd ways -----------------------------------------------------------------------------------


def odd_ends() -> list[BaseException]:
    return [
        SystemExit(0),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
        BaseExceptionGroup("several", [KeyboardInterrupt(), SystemExit(2)]),
        StopIteration(1),
        StopAsyncIteration(),
        RecursionError(),
        MemoryError(),
    ]


class EndsOddly(Task):
    n: int

    async def run(self) -> None:
        await asyncio.sleep(0)
        raise odd_ends()[self.n]


class EndsOddlyInThread(Task):
    n: int

    def run(self) -> None:
        raise odd_ends()[self.n]


class EndsOddlyInGenerator(Task):
    n: int

    def run(self) -> Iterator[Any]:
        yield GOOD[0]
        raise odd_ends()[self.n]


class EndsOddlyInAsyncGenerator(Task):
    n: int

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"never {self.n}")

    async def run(self) -> AsyncIterator[Any]:
        yield GOOD[0]
        raise odd_ends()[self.n]


async def by_flow(tasks: list[Task]) -> BuildResult:
    """One of two runs of a flow that are made at the same time; the other is left alone."""
    async with Flow() as flow:
        calls = [asyncio.create_task(flow.run(good)) for good in GOOD]
        result = await flow.start(tasks)
        assert await asyncio.gather(*calls) == [0, 1, 2]
        assert await flow.run(Good(n=7)) == 7, "the flow goes on"
        return result


@pytest.mark.parametrize("door", [build, by_flow])
@pytest.mark.parametrize("kind", [EndsOddly, EndsOddlyInThread, EndsOddlyInGenerator, EndsOddlyInAsyncGenerator])
async def test_odd_ends_are_failures_of_their_task(kind: Any, door: Any) -> None:
    bad = [kind(n=n) for n in range(len(odd_ends()))]
    async with host():
        result = await door([*bad, *GOOD])
    assert result.failed == tuple(bad)
    assert result.counts == {"failed": len(bad), "succeeded": len(GOOD)}
    for task, end in zip(bad, odd_ends(), strict=True):
        error = result.tasks[task].error
        # In a coroutine and a generator Python itself turns StopIteration and the like into a RuntimeError.
        assert type(error) in (type(end), RuntimeError), error


async def test_a_body_that_swallows_every_cancel_for_a_while() -> None:
    let_go = asyncio.Event()

    class Swallows(Task):
        async def run(self) -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue

    events: list[Event] = []
    async with host():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await build(Swallows(), grace=0.05, on_event=events.append)
        assert [event.task for event in events if isinstance(event, Abandoned)] == [Swallows()]
        let_go.set()


async def test_time_sleep_on_the_loop_is_named() -> None:
    class Sleeps(Task):
        async def run(self) -> None:
            time.sleep(0.4)

    events: list[Event] = []
    async with host(most=3.0) as beside:
        assert (await build([Sleeps(), *GOOD], on_event=events.append)).ok
    assert beside.longest > 0.3
    assert Sleeps() in [event.task for event in events if isinstance(event, LoopBlocked)]


async def test_raises_in_del() -> None:
    class Cursed:
        def __del__(self) -> None:
            raise ValueError("in __del__")

    class Curses(Task):
        async def run(self) -> int:
            Cursed()
            return 1

    unraisable: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        assert (await beside_good_ones(Curses())).status == "succeeded"
    finally:
        sys.unraisablehook = hook
    assert [type(one.exc_value) for one in unraisable] == [ValueError]


async def test_a_huge_value() -> None:
    class Huge(Task):
        async def run(self) -> bytearray:
            return bytearray(64 << 20)

    class Uses(Task):
        def requires(self) -> Task:
            return Huge()

        async def run(self) -> int:
            return len(self.input())

    async with host():
        result = await build([Uses(), *GOOD])
    assert result[Uses()] == 64 << 20


async def test_a_hundred_thousand_lines(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    class Talks(Task):
        def run(self) -> None:
            log = logging.getLogger("talks")
            for n in range(100_000):
                print(n)
                log.debug("line %d", n)

    caplog.set_level(logging.INFO)
    assert (await beside_good_ones(Talks())).status == "succeeded"
    assert capsys.readouterr().out.count("\n") == 100_000


# Loops and processes of their own ------------------------------------------------------------------------------


async def test_a_loop_of_its_own_in_a_thread() -> None:
    """It may build, too: also what the build around it makes."""

    class OwnLoop(Task):
        def run(self) -> int:
            async def main() -> int:
                return int((await gather(*GOOD))[2])

            return asyncio.run(main()) + run(Good(n=7))[Good(n=7)]

    found = await beside_good_ones(OwnLoop())
    assert found.status == "succeeded"


async def test_a_loop_of_its_own_on_the_loop_is_an_error() -> None:
    class OwnLoop(Task):
        async def run(self) -> None:
            main = asyncio.sleep(0)
            try:
                asyncio.run(main)
            finally:
                main.close()

    found = await beside_good_ones(OwnLoop())
    assert found.status == "failed"
    assert "asyncio.run() cannot be called from a running event loop" in str(found.error)


async def test_closes_the_loop() -> None:
    class Closes(Task):
        async def run(self) -> None:
            asyncio.get_running_loop().close()

    found = await beside_good_ones(Closes())
    assert found.status == "failed"
    assert "Cannot close a running event loop" in str(found.error)


def test_stops_the_loop(abandoned: Callable[..., None]) -> None:
    """`asyncio.run` says that the loop was stopped; nothing of the build is left, and the next one is complete."""

    class Stops(Task):
        async def run(self) -> int:
            if not entered:
                entered.append(1)
                asyncio.get_running_loop().stop()
                await asyncio.sleep(0.01)
            return 1

    entered: list[int] = []
    abandoned(tasks=5)  # the build and its bodies, which `asyncio.run` cancels
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        run([Stops(), *GOOD])
    assert not len(hub)
    assert run([Stops(), *GOOD]).ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("where", ["loop", "thread"])
@pytest.mark.parametrize("child", ["ends", "builds"])
async def test_forks(where: str, child: str, tmp_path: Path) -> None:
    """A child that ends at once, and one that builds in its copy: the parent's build goes on."""

    def fork() -> int:
        pid = os.fork()
        if pid:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        code = 1
        try:
            if child == "builds":
                made: list[bool] = []
                # In a thread of its own: the child's copy of this one may be inside the parent's running loop.
                thread = threading.Thread(target=lambda: made.append(run([Inner(), *GOOD]).ok))
                thread.start()
                thread.join(20)
                code = 0 if made == [True] else 2
            else:
                code = 0
        finally:
            os._exit(code)

    class Inner(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "of the child")

        def run(self) -> None:
            with self.output().open("w") as file:
                file.write("whole")

    class ForksOnLoop(Task):
        async def run(self) -> int:
            return await asyncio.to_thread(fork) if child == "builds" else fork()

    class ForksInThread(Task):
        def run(self) -> int:
            return fork()

    task = ForksOnLoop() if where == "loop" else ForksInThread()
    async with host(most=2.0):
        result = await build([task, *GOOD])
    assert result[task] == 0
    assert [result[good] for good in GOOD] == [0, 1, 2]
    assert (tmp_path / "of the child").exists() == (child == "builds")


# Hooks and tasks -----------------------------------------------------------------------------------------------


async def test_deletes_its_input(tmp_path: Path) -> None:
    class Made(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "input")

        def run(self) -> None:
            with self.output().open("w") as file:
                file.write("x")

    class Deletes(Task):
        def requires(self) -> Task:
            return Made()

        async def run(self) -> None:
            os.unlink(self.input().path)

    class Reads(Task):
        def requires(self) -> list[Task]:
            return [Made(), Deletes()]

        def run(self) -> str:
            return (tmp_path / "input").read_text()

    async with host():
        result = await build([Reads(), *GOOD])
    assert result.failed == (Reads(),)
    assert isinstance(result.tasks[Reads()].error, FileNotFoundError)
    assert not await Made().complete(), "it is said to be there"
    result = await build(Made())
    assert result.ran == (Made(),)


@pytest.mark.parametrize("answer", [None, 1, "yes", [], NotImplemented, object])
@pytest.mark.parametrize("how", ["thread", "loop"])
async def test_an_exists_that_is_no_bool(how: str, answer: Any) -> None:
    class InThread(Target):
        def exists(self) -> Any:
            return answer

    class OnLoop(Target):
        async def exists(self) -> Any:  # type: ignore[override]
            return answer

    class Odd(Task):
        def output(self) -> Target:
            return InThread() if how == "thread" else OnLoop()

        async def run(self) -> None:
            raise AssertionError("an unknown answer was taken for absent")

    found = await beside_good_ones(Odd())
    assert found.status == "unknown"
    assert "exists" in str(found.error)


@pytest.mark.parametrize("garbage", [3, "a task", Good, object(), float("nan"), [GOOD[0], 3], {1: [2]}])
async def test_a_body_that_yields_garbage(garbage: Any) -> None:
    class InThread(Task):
        def run(self) -> Any:
            yield garbage

    class OnLoop(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("never")

        async def run(self) -> Any:
            yield garbage

    for bad in (InThread(), OnLoop()):
        found = await beside_good_ones(bad)
        assert found.status == "failed"
        assert isinstance(found.error, TypeError)


async def test_requires_that_never_ends_is_bounded_by_a_cancel() -> None:
    class Endless(Task):
        def requires(self) -> Iterator[Task]:
            return (Good(n=n) for n in itertools.count())

        async def run(self) -> None: ...

    async with host():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await build(Endless())
        assert (await build(GOOD)).ok


class Poisoned(Task):
    n: int

    async def run(self) -> int:
        return self.n


def poisoned(what: str) -> type[Poisoned]:
    """A task whose ``what`` raises."""

    def raises(*_: Any) -> Any:
        raise ZeroDivisionError(what)

    return type(f"Poisoned{what.strip('_').title()}", (Poisoned,), {"__hash__": Task.__hash__, what: raises})


@pytest.mark.parametrize("place", ["root", "required", "awaited", "yielded"])
@pytest.mark.parametrize("what", ["__hash__", "__eq__", "__repr__"])
async def test_a_task_that_cannot_be_compared_or_shown(what: str, place: str) -> None:
    kind = poisoned(what)

    class Requires(Task):
        def requires(self) -> list[Task]:
            return [kind(n=1), kind(n=1)]

        async def run(self) -> None: ...

    class Awaits(Task):
        async def run(self) -> None:
            await gather(kind(n=1), kind(n=1))

    class Yields(Task):
        def run(self) -> Any:
            yield [kind(n=1), kind(n=1)]

    tasks: dict[str, Callable[[], list[Task]]] = {
        "root": lambda: [kind(n=1), kind(n=1)],
        "required": lambda: [Requires()],
        "awaited": lambda: [Awaits()],
        "yielded": lambda: [Yields()],
    }
    async with host():
        async with asyncio.timeout(20):
            outcome: Any
            try:
                outcome = await build([*GOOD, *tasks[place]()])
            except (ZeroDivisionError, PlanError) as error:
                outcome = error
        # In every case it ends, and the loop is as good as before.
        assert (await build([Good(n=9)])).ok
    if what == "__repr__":
        assert outcome.ok
    else:
        assert isinstance(outcome, Exception) or outcome.failed


async def test_a_task_that_cannot_be_hashed_takes_nothing_from_other_builds() -> None:
    """What was named beside it is planned to its end, for another build that wants it too."""
    kind = poisoned("__hash__")

    class Catches(Task):
        async def run(self) -> int:
            with pytest.raises(ZeroDivisionError):
                await gather(Good(n=5), kind(n=1))
            return int(await Good(n=6))

    class Other(Task):
        async def run(self) -> int:
            return int(await Good(n=5))

    async with asyncio.timeout(20):
        with pytest.raises(ZeroDivisionError):
            await build([Good(n=4), kind(n=1)])
        assert (await build(Good(n=4))).ok
        outcomes = await asyncio.gather(
            build([Catches(), Other()], concurrency=1),
            build([Good(n=4), kind(n=1)]),
            build([Good(n=4), Other()]),
            return_exceptions=True,
        )
    one, two, three = outcomes
    assert isinstance(two, ZeroDivisionError)
    assert not isinstance(one, BaseException)
    assert not isinstance(three, BaseException)
    assert one[Catches()] == 6
    assert three[Other()] == 5
