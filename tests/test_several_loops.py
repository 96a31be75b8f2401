"""Builds in several loops and threads of one process: a task runs once, whoever asks for it."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asyncflow import CycleError, MemoryTarget, Task, TaskFailed, TaskStarted, build, gather, run
from asyncflow.executor import _executors
from asyncflow.hub import hub

entered: Counter[Any] = Counter()
PATIENCE = 20.0  # seconds after which a test that waits for another thread gives up


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    MemoryTarget.clear()
    entered.clear()
    yield
    assert not len(hub), "a claim outlived its build"
    assert not _executors, "an executor outlived its builds"


class Gate:
    """A body waits at ``passed()`` until ``open()`` is called, from any thread; ``reached`` tells that it waits."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def passed(self) -> None:
        event = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), event))
        self.reached.set()
        await event.wait()

    def open(self) -> None:
        for loop, event in self._waiting:
            loop.call_soon_threadsafe(event.set)


gate = Gate()


@pytest.fixture(autouse=True)
def _gate() -> None:
    global gate
    gate = Gate()


class Slow(Task):
    """A computed task that waits at the gate."""

    n: int = 0

    async def run(self) -> object:
        entered[self.n] += 1
        await gate.passed()
        return object()


class Loops:
    """Threads with a loop each; ``start`` runs a coroutine function in a new one."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(32, "loop")

    def start(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return self._pool.submit(lambda: asyncio.run(main()))

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture
def loops() -> Iterator[Loops]:
    made = Loops()
    yield made
    made.close()


def until(true: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread and has no event of its own."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def joined(count: int) -> bool:
    """Whether ``count`` nodes wait for one of another loop."""
    return sum(len(queue.nodes) for queue in list(hub._queues.values())) == count


async def value_of(task: Task) -> Any:
    return await task


def test_one_flight_for_all_loops(loops: Loops) -> None:
    first = loops.start(lambda: value_of(Slow()))
    assert gate.reached.wait(PATIENCE)
    others = [loops.start(lambda: value_of(Slow())) for _ in range(8)]
    until(lambda: joined(8))
    gate.open()
    value = first.result(PATIENCE)
    assert all(other.result(PATIENCE) is value for other in others)
    assert entered == {0: 1}


def test_a_failure_is_shared(loops: Loops) -> None:
    class Fails(Task):
        async def run(self) -> None:
            entered["fails"] += 1
            await gate.passed()
            raise ValueError("row 17")

    class Needs(Task):
        def requires(self) -> Task:
            return Fails()

        async def run(self) -> None: ...

    first = loops.start(lambda: build(Fails()))
    assert gate.reached.wait(PATIENCE)
    second = loops.start(lambda: build(Needs()))
    until(lambda: joined(1))
    gate.open()
    assert first.result(PATIENCE).failed == (Fails(),)
    result = second.result(PATIENCE)
    assert (result.failed, result.blocked) == ((Fails(),), (Needs(),))
    with pytest.raises(TaskFailed, match="row 17"):
        _ = result[Fails()]
    assert entered == {"fails": 1}


@pytest.mark.parametrize("leave", ["all but one", "all"])
def test_the_flight_goes_on_for_the_last_caller(loops: Loops, leave: str) -> None:
    """100 callers in 5 loops, the starter's loop among them; the starter and 98 others leave."""
    tasks: list[tuple[asyncio.AbstractEventLoop, list[asyncio.Task[Any]]]] = []
    stopped = threading.Event()

    class Counted(Task):
        async def run(self) -> str:
            entered["run"] += 1
            try:
                await gate.passed()
            except asyncio.CancelledError:
                stopped.set()
                raise
            return "value"

    async def callers() -> list[Any]:
        mine = [asyncio.create_task(value_of(Counted())) for _ in range(20)]
        tasks.append((asyncio.get_running_loop(), mine))
        done = await asyncio.gather(*mine, return_exceptions=True)
        if asyncio.get_running_loop() is tasks[0][0]:  # the flight's own loop stays
            await asyncio.to_thread(until, lambda: stopped.is_set() or left.is_set())
        return done

    left = threading.Event()
    futures = [loops.start(callers)]
    assert gate.reached.wait(PATIENCE)
    futures += [loops.start(callers) for _ in range(4)]
    until(lambda: joined(4))
    stays = tasks[3][1][7] if leave == "all but one" else None
    for loop, mine in tasks:
        for task in mine:
            if task is not stays:
                loop.call_soon_threadsafe(task.cancel)
    if stays is not None:
        until(lambda: all(task.done() for _, mine in tasks for task in mine if task is not stays))
        assert not stopped.is_set()
        gate.open()
    else:
        assert stopped.wait(PATIENCE), "the last one has left, and the body was not stopped"
    left.set()
    outcomes = [outcome for future in futures for outcome in future.result(PATIENCE)]
    assert outcomes.count("value") == (stays is not None)
    assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == 100 - (stays is not None)
    assert entered == {"run": 1}


def test_a_kept_flight_asks_for_more_and_its_builds_events_have_ended(loops: Loops) -> None:
    """The starter's build was cancelled; its body, kept by another loop, goes on to a dynamic dependency."""

    class Part(Task):
        async def run(self) -> int:
            return 20

    class Whole(Task):
        async def run(self) -> int:
            await gate.passed()
            self.progress(0.5)
            return await Part() + 1

    events: list[Any] = []
    over = threading.Event()

    async def first() -> None:
        task = asyncio.create_task(build(Whole(), on_event=events.append))
        await asyncio.to_thread(until, lambda: joined(1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        await asyncio.to_thread(over.wait, PATIENCE)

    starter = loops.start(first)
    assert gate.reached.wait(PATIENCE)
    other = loops.start(lambda: value_of(Whole()))
    assert other.result(PATIENCE) == 21
    over.set()
    starter.result(PATIENCE)
    assert [type(event).__name__ for event in events] == ["BuildStarted", "TaskStarted", "BuildFinished"]


def test_a_loop_that_ends_gives_its_flight_up(loops: Loops, abandoned: Callable[..., None]) -> None:
    """The starter's `asyncio.run` returns, which cancels the body another loop has joined: that one runs it."""
    abandoned(tasks=1)  # the body, which is cancelled with the loop

    class Once(Task):
        async def run(self) -> int:
            entered["run"] += 1
            if entered["run"] == 1:
                await gate.passed()
            return entered["run"]

    async def first() -> None:
        task = asyncio.create_task(build(Once()))
        await asyncio.to_thread(until, lambda: joined(1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    starter = loops.start(first)
    assert gate.reached.wait(PATIENCE)
    other = loops.start(lambda: value_of(Once()))
    starter.result(PATIENCE)
    assert other.result(PATIENCE) == 2


def test_a_loop_closed_in_the_middle_of_a_flight(loops: Loops, abandoned: Callable[..., None]) -> None:
    """Nobody says so; the other loop finds out, fences the thread that is left, and runs the task itself."""
    abandoned(threads=1)
    go_on = threading.Event()
    published: list[str] = []

    class InThread(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("in a thread")

        def run(self) -> None:
            entered["run"] += 1
            first = entered["run"] == 1
            if first:
                gate.reached.set()
                go_on.wait(PATIENCE)
            try:
                self.output().put("first" if first else "second")
            except BaseException as error:
                published.append(type(error).__name__)
                raise

    loop = asyncio.new_event_loop()
    building = loop.create_task(build(InThread()))
    while not gate.reached.is_set():
        loop.run_until_complete(asyncio.sleep(0.001))
    other = loops.start(lambda: build(InThread()))
    until(lambda: joined(1))
    loop.close()
    assert other.result(PATIENCE).ok
    go_on.set()
    until(lambda: bool(published))
    assert published == ["TaskCancelled"], "what is left of the dead loop's body published something"
    assert MemoryTarget("in a thread").get() == "second"
    assert entered == {"run": 2}
    assert not building.done()
    building._log_destroy_pending = False  # type: ignore[attr-defined]
    del building
    run([])  # the next build buries the loop
    gc.collect()  # nothing is reported of what is thrown away with the loop


def test_a_ring_through_two_loops_is_a_cycle(loops: Loops) -> None:
    at_work = threading.Barrier(2)
    paths: list[set[int]] = []

    class Half(Task):
        n: int

        async def run(self) -> str:
            await asyncio.to_thread(at_work.wait, PATIENCE)
            try:
                await Half(n=1 - self.n)
            except CycleError as error:
                paths.append({task.n for task in error.path})  # type: ignore[attr-defined]
                return "told"
            return "not told"

    futures = [loops.start(lambda n=n: build(Half(n=n))) for n in (0, 1)]  # type: ignore[misc]
    start = time.monotonic()
    results = [future.result(PATIENCE) for future in futures]
    assert time.monotonic() - start < 5
    assert sorted(result[Half(n=n)] for n, result in enumerate(results)) == ["not told", "told"]
    assert paths == [{0, 1}]


def test_two_builds_of_one_place_that_need_each_others_tasks(loops: Loops) -> None:
    """A waits for what B runs and the other way round, each with one place: waiting takes none."""

    class Leaf(Task):
        n: int

        async def run(self) -> int:
            entered[self.n] += 1
            await asyncio.sleep(0)
            return self.n

    class Sum(Task):
        order: int

        async def run(self) -> int:
            ns = range(50)[:: self.order]
            return sum([await Leaf(n=n) for n in ns]) + sum(await gather(*[Leaf(n=n) for n in ns]))

    for _ in range(5):
        entered.clear()
        futures = [
            loops.start(lambda order=order: build(Sum(order=order), concurrency=1))  # type: ignore[misc]
            for order in (1, -1)
        ]
        for order, future in zip((1, -1), futures, strict=True):
            assert future.result(PATIENCE)[Sum(order=order)] == 2 * sum(range(50))
        assert set(entered) == set(range(50))


class Piece(Task):
    group: int
    n: int

    def requires(self) -> list[Task]:
        return [Piece(group=self.group, n=n) for n in (2 * self.n + 1, 2 * self.n + 2) if n < 40]

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"piece {self.group} {self.n}")

    async def run(self) -> None:
        entered[self.group, self.n] += 1
        await asyncio.sleep(0)
        self.output().put(self.n)


class PieceInThread(Piece):
    def requires(self) -> list[Task]:
        return [PieceInThread(group=self.group, n=n) for n in (2 * self.n + 1, 2 * self.n + 2) if n < 40]

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"piece in a thread {self.group} {self.n}")

    def run(self) -> None:  # type: ignore[override]
        entered[self.group, self.n] += 1
        self.output().put(self.n)


@pytest.mark.parametrize("kind", [Piece, PieceInThread])
def test_four_threads_with_loops_of_their_own_on_the_same_tasks(loops: Loops, kind: type[Piece]) -> None:
    for group in range(10):
        together = threading.Barrier(4)

        async def main(group: int = group, together: threading.Barrier = together) -> Any:
            together.wait(PATIENCE)
            return await build([kind(group=group, n=n) for n in range(3)])

        for future in [loops.start(main) for _ in range(4)]:
            assert future.result(PATIENCE).ok
    assert set(entered.values()) == {1}, {task: times for task, times in entered.items() if times > 1}
    assert len(entered) == 400


def test_twenty_loops_one_after_another() -> None:
    for _ in range(20):
        assert run(Piece(group=0, n=0)).ok
    assert set(entered.values()) == {1}


def test_loops_that_come_and_go(loops: Loops) -> None:
    """Each of eight threads builds the same trees again and again, and leaves half of its builds half-way."""

    async def main(seed: int) -> None:
        rng = random.Random(seed)
        for group in range(20):
            try:
                async with asyncio.timeout(rng.choice([0, 0.001, 0.01, None])):
                    assert await build(Piece(group=group, n=0), concurrency=rng.randint(1, 4))
            except TimeoutError:
                pass
        for group in range(20):
            assert await build(Piece(group=group, n=0))

    for future in [loops.start(lambda seed=seed: main(seed)) for seed in range(8)]:  # type: ignore[misc]
        future.result(60)
    assert len(entered) == 800


def test_a_child_of_a_fork_has_none_of_the_parents_flights() -> None:
    """The parent is in the middle of a task when the child asks for the same one: that runs it itself."""

    class Forks(Task):
        depth: int = 0

        async def run(self) -> int:
            reading, writing = os.pipe()
            pid = os.fork()
            if not pid:
                code = 1
                try:
                    result: list[int] = []
                    # A thread of its own: the child's main thread is inside the parent's running loop.
                    thread = threading.Thread(target=lambda: result.append(run(Answer()).exit_code))
                    thread.start()
                    thread.join(PATIENCE)
                    code = result[0]
                finally:
                    os._exit(code)
            os.close(reading)
            os.close(writing)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            return os.waitstatus_to_exitcode(status)

    class Answer(Task):
        async def run(self) -> int:
            return 42

    class Both(Task):
        """`Answer` is in flight in the parent when it forks."""

        async def run(self) -> tuple[int, int]:
            return await gather(Forks(), Answer())

    assert run(Both())[Both()] == (0, 42)


def test_a_computed_task_that_waits_for_a_place_here_and_was_made_there_is_not_made_again(loops: Loops) -> None:
    class Value(Task):
        async def run(self) -> int:
            entered["value"] += 1
            return 5

    class Both(Task):
        """Takes the one place; `Value` waits for it."""

        async def run(self) -> None:
            await gate.passed()

    busy = loops.start(lambda: build([Both(), Value()], concurrency=1))
    assert gate.reached.wait(PATIENCE)
    assert loops.start(lambda: value_of(Value())).result(PATIENCE) == 5
    gate.open()
    assert busy.result(PATIENCE)[Value()] == 5
    assert entered == {"value": 1}


def test_events_of_a_build_that_joins(loops: Loops) -> None:
    events: list[Any] = []
    first = loops.start(lambda: value_of(Slow()))
    assert gate.reached.wait(PATIENCE)
    second = loops.start(lambda: build(Slow(), on_event=events.append))
    until(lambda: joined(1))
    gate.open()
    first.result(PATIENCE)
    result = second.result(PATIENCE)
    assert not [event for event in events if isinstance(event, TaskStarted)]  # it started elsewhere
    assert result.tasks[Slow()].status == "succeeded"
    assert result.tasks[Slow()].duration > 0
