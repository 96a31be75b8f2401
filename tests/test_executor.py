"""Builds with real loops and threads: dynamic dependencies, failure, cancellation, sharing."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncflow import (
    Abandoned,
    ConfigError,
    CycleError,
    Event,
    ExternalTask,
    IncompleteOutput,
    LocalTarget,
    MemoryTarget,
    MissingInput,
    PlanError,
    Target,
    Task,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskStarted,
    UpstreamFailed,
    WrapperTask,
    build,
    gather,
    plan,
    run,
    task,
    threads,
    value,
)
from asyncflow.executor import _executors
from asyncflow.runners.thread import ThreadRunner
from asyncflow.testing import STYLES, Outcome, Style, other_tasks, sweep

entered: Counter[Any] = Counter()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    MemoryTarget.clear()
    entered.clear()
    yield
    assert not _executors, "an executor outlived its builds"


class Value(Task):
    """A computed task."""

    n: int

    async def run(self) -> int:
        entered[self] += 1
        await asyncio.sleep(0)
        return self.n


class Stored(Task):
    n: int

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"stored-{self.n}")

    def run(self) -> None:
        entered[self] += 1
        self.output().put(self.n)


class Fails(Task):
    n: int = 0

    async def run(self) -> None:
        raise ValueError(f"row {self.n}")


# Dynamic dependencies ------------------------------------------------------------------------------------


class Awaits(Task):
    async def run(self) -> list[int]:
        entered["body"] += 1
        got = []
        for stage in range(3):
            got += [await Value(n=2 * stage), await Value(n=2 * stage + 1)]
        return got


class YieldsInThread(Task):
    def run(self) -> Any:
        entered["body"] += 1
        threads = {threading.get_ident()}
        got = []
        for stage in range(3):
            got += yield [Value(n=2 * stage), Value(n=2 * stage + 1)]
            threads.add(threading.get_ident())
        assert len(threads) == 1, "a generator keeps its thread"
        return got


class YieldsOnLoop(Task):
    def output(self) -> MemoryTarget:
        return MemoryTarget("yields on the loop")

    async def run(self) -> Any:
        entered["body"] += 1
        got: list[int] = []
        for stage in range(3):
            got += yield [Value(n=2 * stage), Value(n=2 * stage + 1)]
        self.output().put(got)


@pytest.mark.parametrize("concurrency", [1, 1000])
@pytest.mark.parametrize("kind", [Awaits, YieldsInThread, YieldsOnLoop])
async def test_a_body_is_entered_once_and_goes_on_where_it_stood(kind: type[Task], concurrency: int) -> None:
    result = await build(kind(), concurrency=concurrency)
    got = result[kind()]
    assert (got.get() if isinstance(got, MemoryTarget) else got) == list(range(6))
    assert entered["body"] == 1
    assert all(entered[Value(n=n)] == 1 for n in range(6))


class Deep(Task):
    n: int

    async def run(self) -> int:
        return 1 + await Deep(n=self.n - 1) if self.n else 0


class DeepInThreads(Task):
    n: int

    def run(self) -> Any:
        below = (yield DeepInThreads(n=self.n - 1)) if self.n else -1
        return below + 1


@pytest.mark.parametrize("kind", [Deep, DeepInThreads])
async def test_fifty_bodies_deep_in_one_place(kind: Any) -> None:
    assert (await build(kind(n=50), concurrency=1, threads=1))[kind(n=50)] == 50


class Wide(Task):
    n: int

    def run(self) -> Any:
        values = yield [Value(n=n) for n in range(self.n)]
        return sum(values)


async def test_five_thousand_at_once_in_one_place() -> None:
    result = await build(Wide(n=5000), concurrency=1)
    assert result[Wide(n=5000)] == sum(range(5000))
    assert result.counts == {"succeeded": 5001}


async def test_gather_value_and_nested_shapes() -> None:
    @task
    async def parent() -> Any:
        a, b = await gather(Value(n=1), Stored(n=2))
        async with asyncio.TaskGroup() as group:
            c = group.create_task(value(Value(n=3)))
            d = group.create_task(value(Value(n=1)))
        first, second = await asyncio.gather(Value(n=4), Value(n=5))
        return a, b.get(), c.result(), d.result(), first, second

    assert (await build(parent()))[parent()] == (1, 2, 3, 1, 4, 5)
    assert entered[Value(n=1)] == 1


async def test_a_build_in_a_body_joins_the_one_around_it() -> None:
    @task
    async def parent() -> Any:
        inner = await build([Value(n=1), Fails()])
        return inner.counts, inner[Value(n=1)]

    result = await build(parent(), concurrency=1)
    assert result[parent()] == ({"succeeded": 1, "failed": 1}, 1)
    assert result.counts == {"succeeded": 2, "failed": 1}


async def test_a_timeout_around_an_await_is_a_caller_that_leaves() -> None:
    stopped = asyncio.Event()

    class Slow(Task):
        async def run(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    class Impatient(Task):
        async def run(self) -> str:
            try:
                async with asyncio.timeout(0.01):
                    await Slow()
            except TimeoutError:
                await stopped.wait()
                return "went on"
            return "waited"

    result = await build(Impatient(), concurrency=1)
    assert result[Impatient()] == "went on"
    assert result.tasks[Slow()].status == "cancelled"


@pytest.mark.parametrize("wanted", [3, "x", object])
async def test_waiting_for_what_is_not_a_task(wanted: Any) -> None:
    class Yields(Task):
        def run(self) -> Any:
            yield wanted

    class YieldsAsync(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("never")

        async def run(self) -> Any:
            yield [wanted]

    for kind in (Yields, YieldsAsync):
        [error] = (await build(kind())).errors()
        assert isinstance(error.__cause__, TypeError)
        assert "a body can wait for tasks" in str(error.__cause__)


# Cycles and graph errors ---------------------------------------------------------------------------------


class Ring(Task):
    n: int
    of: int
    dynamic: bool

    def requires(self) -> Any:
        return [] if self.dynamic else [Ring(n=(self.n + 1) % self.of, of=self.of, dynamic=False)]

    async def run(self) -> None:
        if self.dynamic:
            await Ring(n=(self.n + 1) % self.of, of=self.of, dynamic=True)


@pytest.mark.parametrize("of", [1, 2, 5])
async def test_a_static_cycle_gives_its_path(of: int) -> None:
    with pytest.raises(CycleError) as caught:
        await build(Ring(n=0, of=of, dynamic=False))
    assert [node.n for node in caught.value.path] == [*range(of), 0]  # type: ignore[attr-defined]
    assert "Ring(n=0, of=" in str(caught.value)


@pytest.mark.parametrize("of", [1, 2, 5])
async def test_a_dynamic_cycle_gives_its_path(of: int) -> None:
    result = await build(Ring(n=0, of=of, dynamic=True))
    [failed] = result.failed
    error = result.tasks[failed].error
    assert isinstance(error, CycleError)
    assert len(error.path) == of + 1
    assert len(result.blocked) == of - 1


class Twin(Task):
    n: int

    def output(self) -> MemoryTarget:
        return MemoryTarget("the same")

    async def run(self) -> None:
        entered[self] += 1
        self.output().put(self.n)


async def test_two_tasks_that_would_make_one_target() -> None:
    with pytest.raises(PlanError, match=r"Twin\(n=1\) and Twin\(n=2\) would both make MemoryTarget\('the same'\)"):
        await build([Twin(n=1), Twin(n=2), Value(n=1)])
    assert not entered


async def test_two_builds_on_one_target_make_it_once() -> None:
    one, two = await asyncio.gather(build(Twin(n=1)), build(Twin(n=2)))
    assert one.ok
    assert two.ok
    assert sorted([*one.counts, *two.counts]) == ["adopted", "succeeded"]
    assert sum(entered.values()) == 1


class RequiresWrong(Task):
    what: str

    def requires(self) -> Any:
        if self.what == "raises":
            raise LookupError("no such table")
        return {"target": MemoryTarget("x"), "class": Value, "number": 3, "string": "abc"}[self.what]

    async def run(self) -> None:
        entered[self] += 1


@pytest.mark.parametrize(
    ("what", "advice"),
    [
        ("target", "ExternalTask around the target"),
        ("class", "construct it with its parameters"),
        ("number", "return a task, or a list, tuple or dict of tasks"),
        ("string", "'abc', which is not a task"),
        ("raises", r"requires\(\) raised LookupError: no such table"),
    ],
)
async def test_requires_gone_wrong_is_a_plan_error(what: str, advice: str) -> None:
    with pytest.raises(PlanError, match=advice) as caught:
        await build([Value(n=1), RequiresWrong(what=what)])
    assert "RequiresWrong" in str(caught.value)
    assert not entered, "nothing runs when the graph cannot be built"


class OutputWrong(Task):
    n: int

    def output(self) -> Any:
        if self.n == 1:
            raise LookupError("no such bucket")
        return ["data/x.txt"]

    async def run(self) -> None: ...


async def test_every_problem_of_a_graph_is_reported_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        await build([OutputWrong(n=0), OutputWrong(n=1), RequiresWrong(what="number")])
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "OutputWrong.output() returned 'data/x.txt' (str); return a target, e.g. LocalTarget('data/x.txt')" in text
    assert "OutputWrong(n=1).output() raised LookupError: no such bucket" in text


async def test_a_graph_error_of_a_dynamic_dependency_is_thrown_at_the_await() -> None:
    @task
    async def parent() -> str:
        try:
            await RequiresWrong(what="number")
        except PlanError as error:
            return str(error)
        return "nothing"

    class InThread(Task):
        def run(self) -> Any:
            try:
                yield [RequiresWrong(what="number"), RequiresWrong(what="raises")]
            except PlanError as error:
                return len(error.problems)

    @task
    async def later() -> int:
        first = await parent()
        try:
            await gather(RequiresWrong(what="number"), RequiresWrong(what="raises"))
        except PlanError as error:
            return len(error.problems)
        return len(first)

    # One build each: of two that ask at once, one may be told before all of the other's problems are known.
    assert "which is not a task" in await parent()
    assert await InThread() == 2, "every problem is thrown, as on the loop"
    assert await later() == 2, "also one that was known already"


async def test_a_task_without_run() -> None:
    class Nothing(Task): ...

    with pytest.raises(PlanError, match=r"Nothing\(\) has no run\(\)"):
        await build(Nothing())


# Failure -------------------------------------------------------------------------------------------------


class Needs(Task):
    a: Task
    b: Task

    def requires(self) -> list[Task]:
        return [self.a, self.b]

    async def run(self) -> None:
        entered[self] += 1


async def test_a_failure_blocks_its_dependents_and_nothing_else() -> None:
    middle = Needs(a=Fails(), b=Value(n=1))
    top = Needs(a=middle, b=Value(n=2))
    result = await build([top, Value(n=3)])
    assert not result.ok
    assert result.status == "failed"
    assert result.failed == (Fails(),)
    assert set(result.blocked) == {middle, top}
    assert set(result.ran) == {Value(n=n) for n in (1, 2, 3)}, "siblings go on"
    assert result.tasks[top].blocked_by == Fails()
    with pytest.raises(ExceptionGroup) as caught:
        result.raise_for_failure()
    [error] = caught.value.exceptions
    assert isinstance(error, TaskFailed)
    assert error.task == Fails()
    assert isinstance(error.__cause__, ValueError)
    with pytest.raises(UpstreamFailed, match=r"Fails\(n=0\) failed: ValueError: row 0"):
        result[top]


async def test_await_outside_a_build_raises_the_failure() -> None:
    with pytest.raises(TaskFailed, match="ValueError: row 7") as caught:
        await Fails(n=7)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(UpstreamFailed):
        await Needs(a=Fails(), b=Value(n=1))


class Catches(Task):
    async def run(self) -> str:
        with pytest.raises(TaskFailed) as first:
            await Fails()
        with pytest.raises(TaskFailed) as again:
            await Fails()
        assert first.value.__cause__ is again.value.__cause__, "the same failure, not another run"
        return "went on"


class CatchesInThread(Task):
    def run(self) -> Any:
        try:
            yield Fails()
        except TaskFailed as error:
            return f"caught {error.__cause__}"


class DoesNotCatch(Task):
    async def run(self) -> None:
        await gather(Value(n=1), Fails())


async def test_a_failure_can_be_caught_where_it_was_waited_for() -> None:
    result = await build([Catches(), CatchesInThread()])
    assert result.ok
    assert result[CatchesInThread()] == "caught row 0"
    assert result.failed == (Fails(),)


async def test_a_failure_that_is_not_caught_blocks() -> None:
    result = await build(DoesNotCatch())
    assert result.blocked == (DoesNotCatch(),)
    assert result.failed == (Fails(),)
    assert result.tasks[DoesNotCatch()].blocked_by == Fails()


class Raises(Task):
    which: str
    where: str

    def _raise(self) -> None:
        raise {
            "exit": SystemExit(0),
            "interrupt": KeyboardInterrupt(),
            "generator": GeneratorExit(),
            "group": ExceptionGroup("several", [ValueError("one"), TypeError("two")]),
            "base": BaseException("odd"),
            "cancel": asyncio.CancelledError(),
            "stop": StopIteration(3),
        }[self.which]


class RaisesOnLoop(Raises):
    async def run(self) -> None:
        self._raise()


class RaisesInThread(Raises):
    def run(self) -> None:
        self._raise()


@pytest.mark.parametrize("which", ["exit", "interrupt", "generator", "group", "base", "cancel", "stop"])
@pytest.mark.parametrize("kind", [RaisesOnLoop, RaisesInThread])
async def test_whatever_a_body_raises_the_host_goes_on(kind: Any, which: str) -> None:
    heart_beats = 0

    async def heart() -> None:
        nonlocal heart_beats
        while True:
            await asyncio.sleep(0)
            heart_beats += 1

    beating = asyncio.create_task(heart())
    bad = kind(which=which, where="")
    result = await build([bad, Value(n=1), Stored(n=1)])
    assert result.failed == (bad,)
    assert set(result.ran) == {Value(n=1), Stored(n=1)}
    assert result.tasks[bad].error is not None
    before = heart_beats
    await asyncio.sleep(0.001)
    assert heart_beats > before
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


async def test_a_body_that_forgets_its_output_fails() -> None:
    class Forgets(Task):
        sync: bool

        def output(self) -> list[MemoryTarget]:
            return [MemoryTarget("made"), MemoryTarget("forgotten")]

        async def run(self) -> None:
            self.output()[0].put(1)

    [error] = (await build(Forgets(sync=True))).errors()
    assert isinstance(error.__cause__, IncompleteOutput)
    assert "MemoryTarget('forgotten')" in str(error.__cause__)


async def test_an_output_that_changes_is_named() -> None:
    names = iter("abcdef")

    class Fickle(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget(next(names))

        def run(self) -> None:
            self.output().put(1)

    [error] = (await build(Fickle())).errors()
    assert "MemoryTarget('a'); output() gives MemoryTarget('c') now" in str(error.__cause__)


async def test_a_value_goes_into_an_output_that_can_take_it() -> None:
    class Returns(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("returned")

        async def run(self) -> int:
            return 7

    target = await Returns()
    assert target.get() == 7  # type: ignore[attr-defined]


async def test_a_value_that_has_no_place_to_go_is_an_error() -> None:
    class Flag(Target):
        def exists(self) -> bool:
            return bool(entered["flag"])

    class Returns(Task):
        def output(self) -> Flag:
            return Flag()

        async def run(self) -> int:
            entered["flag"] = 1
            return 7

    [error] = (await build(Returns())).errors()
    assert "write it to" in str(error)


async def test_a_missing_input_is_not_a_failure() -> None:
    class Input(ExternalTask):
        def output(self) -> MemoryTarget:
            return MemoryTarget("delivered by nobody")

    top = Needs(a=Input(), b=Value(n=1))
    result = await build(top)
    assert result.status == "incomplete"
    assert (result.missing, result.blocked, result.failed) == ((Input(),), (top,), ())
    assert result.exit_code == 3
    [error] = result.errors()
    assert isinstance(error, MissingInput)
    assert "delivered by nobody" in str(error)


class Unknowable(Target):
    def exists(self) -> bool:
        raise PermissionError("no access")


class AsyncUnknowable(Target):
    async def exists(self) -> Any:
        return "yes"


@pytest.mark.parametrize("kind", [Unknowable, AsyncUnknowable])
async def test_unknown_is_neither_run_nor_done(kind: type[Target]) -> None:
    class Makes(Task):
        def output(self) -> Target:
            return kind()

        async def run(self) -> None:
            entered[self] += 1

    result = await build([Makes(), Value(n=1)])
    assert result.unknown == (Makes(),)
    assert result.exit_code == 4
    assert not entered[Makes()]
    assert result.ran == (Value(n=1),)


async def test_a_complete_hook_of_ones_own() -> None:
    class Sync(Task):
        def complete(self) -> bool:
            return entered["sync"] > 0

        async def run(self) -> None:
            entered["sync"] += 1

    class Async(Task):
        async def complete(self) -> bool:
            await asyncio.sleep(0)
            return entered["async"] > 0

        async def run(self) -> None:
            entered["async"] += 1

    assert (await build([Sync(), Async()])).counts == {"succeeded": 2}
    assert (await build([Sync(), Async()])).counts == {"complete": 2}


async def test_a_wrapper_is_complete_when_what_it_requires_is() -> None:
    class All(WrapperTask):
        def requires(self) -> Any:
            return (Stored(n=n) for n in range(3))

    assert (await build(All())).counts == {"succeeded": 4}
    assert (await build(All())).counts == {"complete": 4}
    assert await All().complete()


# Sharing -------------------------------------------------------------------------------------------------


async def test_callers_of_one_loop_share_a_run_and_one_of_them_may_leave() -> None:
    inside, go = asyncio.Event(), asyncio.Event()

    class Shared(Task):
        async def run(self) -> int:
            entered[self] += 1
            inside.set()
            await go.wait()
            return 7

    callers = [asyncio.create_task(build(Shared())) for _ in range(5)]
    await inside.wait()
    for caller in callers[:4]:  # the one that started it among them
        caller.cancel()
    await asyncio.wait(callers[:4])
    assert all(caller.cancelled() for caller in callers[:4])
    go.set()
    assert (await callers[4])[Shared()] == 7
    assert entered[Shared()] == 1


async def test_the_last_caller_to_leave_stops_the_run() -> None:
    inside, stopped = asyncio.Event(), asyncio.Event()

    class Shared(Task):
        async def run(self) -> None:
            inside.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    callers = [asyncio.create_task(build(Shared())) for _ in range(3)]
    await inside.wait()
    for caller in callers:
        assert not stopped.is_set()
        caller.cancel()
        await asyncio.wait([caller])
    assert stopped.is_set()


async def test_wanted_again_while_it_is_being_stopped_it_runs_again_afterwards() -> None:
    inside, stopping, let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(Task):
        async def run(self) -> int:
            entered[self] += 1
            if entered[self] > 1:
                return 2
            inside.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopping.set()
                await let_go.wait()
            return 1

    first = asyncio.create_task(build(Slow()))
    await inside.wait()
    first.cancel()
    await stopping.wait()
    second = asyncio.create_task(build(Slow()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert entered[Slow()] == 1, "two bodies of one task at once"
    let_go.set()
    assert (await second)[Slow()] == 2
    await asyncio.wait([first])


# Cancellation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
async def test_cancelled_at_every_suspension_of_a_dynamic_await(style: Style) -> None:
    state = {"running": 0}

    class Leaf(Task):
        n: int

        async def run(self) -> int:
            state["running"] += 1
            try:
                await asyncio.sleep(0)
                return self.n
            finally:
                state["running"] -= 1

    class Parent(Task):
        async def run(self) -> int:
            state["running"] += 1
            try:
                return await Leaf(n=1) + sum(await gather(Leaf(n=2), Leaf(n=3)))
            finally:
                state["running"] -= 1

    async def check(outcome: Outcome) -> None:
        assert state["running"] == 0, f"a body was left running after {outcome}"
        assert not _executors
        assert (await build(Parent()))[Parent()] == 6

    assert await sweep(lambda: build(Parent()), check, style) >= 1


@pytest.mark.parametrize("style", STYLES)
async def test_a_body_cancelled_at_every_suspension_of_its_own_await(style: Style) -> None:
    """The cancel hits the await inside the body; the body catches it, and the build goes on."""

    class Leaf(Task):
        n: int

        async def run(self) -> int:
            await asyncio.sleep(0)
            return self.n

    async def case() -> None:
        class Parent(Task):
            async def run(self) -> Any:
                async def asks() -> int:
                    return await Leaf(n=1) + await Leaf(n=2)

                def check(outcome: Outcome) -> None:
                    entered["checked"] += 1

                return await sweep(asks, check, style)

        result = await build(Parent(), concurrency=1)
        result.raise_for_failure()
        assert result[Parent()] == 2

    await case()
    assert entered["checked"] == 3


async def test_cancelling_a_build_unwinds_every_body() -> None:
    log: list[str] = []
    inside = asyncio.Event()

    class Leaf(Task):
        async def run(self) -> None:
            inside.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                log.append("leaf")

    class Parent(Task):
        kind: str

        async def run(self) -> None:
            try:
                await Leaf()
            finally:
                await asyncio.sleep(0)
                log.append("parent")

    class InThread(Task):
        def run(self) -> Any:
            try:
                yield Leaf()
            finally:
                log.append("thread")

    class OnLoop(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("never")

        async def run(self) -> Any:
            try:
                yield Leaf()
            finally:
                log.append("generator")

    building = asyncio.create_task(build([Parent(kind="a"), InThread(), OnLoop()]))
    await inside.wait()
    await asyncio.sleep(0)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert sorted(log) == ["generator", "leaf", "parent", "thread"]
    assert not threads._idle, "threads were kept after the last build"


async def test_a_body_that_is_being_stopped_can_ask_for_nothing_and_publish_nothing() -> None:
    inside = asyncio.Event()
    refused: list[Any] = []

    class Stubborn(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("late")

        async def run(self) -> None:
            inside.set()
            try:
                await asyncio.Event().wait()
            finally:
                for attempt in (lambda: self.output().put(1), lambda: value(Value(n=1))):
                    try:
                        if (more := attempt()) is not None:
                            await more
                    except TaskCancelled as error:
                        refused.append(error.task)

    building = asyncio.create_task(build(Stubborn()))
    await inside.wait()
    building.cancel()
    await asyncio.wait([building])
    assert refused == [Stubborn(), Stubborn()]
    assert not await MemoryTarget("late").exists()
    assert not entered


async def test_a_body_that_is_stopped_before_its_first_step() -> None:
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, TaskStarted):
            building.cancel()  # comes before the first step of the body that is about to start

    building = asyncio.create_task(build(Value(n=1), on_event=listen))
    await asyncio.wait([building])
    assert building.cancelled()
    assert not entered
    assert not [event for event in events if isinstance(event, Abandoned)]


@pytest.mark.parametrize("how", ["gather", "await", "yield in a thread", "yield on the loop", "nested build"])
async def test_what_a_cancelled_body_had_asked_for_is_waited_for(how: str) -> None:
    inside = asyncio.Event()

    class Child(Task):
        n: int

        async def run(self) -> None:
            inside.set()
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(20):
                    await asyncio.sleep(0)
                entered["ended"] += 1

    class Parent(Task):
        async def run(self) -> None:
            children = [Child(n=n) for n in range(3)]
            if how == "gather":
                await gather(*children)
            elif how == "await":
                await asyncio.gather(*children)
            else:
                await build(children)

    class InThread(Task):
        def run(self) -> Any:
            yield [Child(n=n) for n in range(3)]

    class OnLoop(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("never")

        async def run(self) -> Any:
            yield [Child(n=n) for n in range(3)]

    kind = {"yield in a thread": InThread, "yield on the loop": OnLoop}.get(how, Parent)
    building = asyncio.create_task(build(kind()))
    await inside.wait()
    building.cancel()
    await asyncio.wait([building])
    assert entered["ended"] == 3
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("what", ["the rest of the body", "the target"])
async def test_what_comes_after_a_sync_body_is_stopped_too(what: str) -> None:
    """A plain ``def run`` has returned; its coroutine, or its target's async ``exists``, is being waited for."""
    inside = asyncio.Event()
    events: list[Event] = []

    async def forever() -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            entered["stopped"] += 1

    class Slow(Target):
        async def exists(self) -> bool:
            if entered["ran"] and what == "the target":
                await forever()
            return False

    class Makes(Task):
        def output(self) -> Slow:
            return Slow()

        def run(self) -> Any:
            entered["ran"] += 1
            return forever() if what == "the rest of the body" else None

    building = asyncio.create_task(build(Makes(), on_event=events.append))
    await inside.wait()
    building.cancel()
    await asyncio.wait([building])
    assert building.cancelled()
    assert entered["stopped"] == 1
    assert not [event for event in events if isinstance(event, Abandoned)]


async def test_a_body_that_swallows_its_cancel_is_left_behind_and_named() -> None:
    release = asyncio.Event()
    inside = asyncio.Event()
    events: list[Event] = []

    class Swallows(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("late")

        async def run(self) -> None:
            inside.set()
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    entered["cancel"] += 1
            try:
                self.output().put(1)
            except TaskCancelled:
                entered["refused"] += 1

    building = asyncio.create_task(build(Swallows(), grace=0.05, on_event=events.append))
    await inside.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    [abandoned] = [event for event in events if isinstance(event, Abandoned)]
    assert abandoned.task == Swallows()
    assert any("Swallows.run" in line for line in abandoned.stack)
    assert entered["cancel"] == 2
    release.set()
    while not entered["refused"]:
        await asyncio.sleep(0)
    assert not await MemoryTarget("late").exists()


async def test_a_sync_body_cannot_hold_up_a_cancelled_build(abandoned: Callable[..., None]) -> None:
    release, inside, refused = threading.Event(), threading.Event(), threading.Event()
    abandoned(threads=1)

    class Stubborn(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("late")

        def run(self) -> None:
            inside.set()
            release.wait(10)
            try:
                self.output().put(1)
            except TaskCancelled:
                refused.set()

    building = asyncio.create_task(build(Stubborn(), grace=0.05))
    await asyncio.to_thread(inside.wait, 5)
    building.cancel()
    start = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert time.monotonic() - start < 2
    release.set()
    assert await asyncio.to_thread(refused.wait, 5)
    assert not await MemoryTarget("late").exists()


async def test_a_publish_in_flight_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publishing, go = threading.Event(), threading.Event()
    events: list[Event] = []
    replace = os.replace

    def slow_replace(*args: Any) -> None:
        publishing.set()
        go.wait(10)
        replace(*args)

    class Writes(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "out")

        def run(self) -> None:
            with self.output().open("w") as out:
                out.write("whole")

    monkeypatch.setattr(os, "replace", slow_replace)
    building = asyncio.create_task(build(Writes(), grace=2, on_event=events.append))
    await asyncio.to_thread(publishing.wait, 5)
    building.cancel()
    asyncio.get_running_loop().call_later(2.2, go.set)  # later than grace; the body has a second more to end
    await asyncio.wait([building])
    assert building.cancelled()
    assert not [event for event in events if isinstance(event, Abandoned)]
    assert (tmp_path / "out").read_text() == "whole"


async def test_what_a_body_leaves_behind_publishes_nothing() -> None:
    left: list[asyncio.Task[None]] = []
    go = asyncio.Event()

    async def late() -> None:
        await go.wait()
        MemoryTarget("late").put(1)

    class Forgets(Task):
        async def run(self) -> None:
            left.append(asyncio.create_task(late()))

    assert (await build(Forgets())).ok
    go.set()
    await asyncio.wait(left)
    assert isinstance(left[0].exception(), TaskCancelled)
    assert not await MemoryTarget("late").exists()


async def test_a_slow_hook_is_cancelled_with_its_build() -> None:
    asked = asyncio.Event()

    class Slow(Target):
        async def exists(self) -> bool:
            asked.set()
            await asyncio.Event().wait()
            return True

    class Makes(Task):
        def output(self) -> Slow:
            return Slow()

        async def run(self) -> None: ...

    building = asyncio.create_task(build([Makes(), Value(n=1)]))
    await asked.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building


class Unanswered(Target):
    """Its ``exists`` is never answered."""

    asked = asyncio.Event()
    stopped = 0

    async def exists(self) -> bool:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            type(self).stopped += 1
        return True


class NeverPlanned(Task):
    def output(self) -> Unanswered:
        return Unanswered()

    async def run(self) -> None: ...


@pytest.fixture
def unanswered() -> type[Unanswered]:
    Unanswered.asked, Unanswered.stopped = asyncio.Event(), 0
    return Unanswered


async def test_a_build_goes_on_when_the_one_that_leaves_was_still_planning(unanswered: type[Unanswered]) -> None:
    leaves = asyncio.create_task(build([Value(n=1), NeverPlanned()]))
    stays = asyncio.create_task(build(Value(n=1)))
    await unanswered.asked.wait()
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    async with asyncio.timeout(10):
        assert (await stays)[Value(n=1)] == 1


async def test_two_builds_of_one_task_that_leave_together_leave_nothing_running() -> None:
    entered_it = asyncio.Event()
    unwound: list[bool] = []

    @task
    async def unwinds() -> None:
        try:
            entered_it.set()
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            unwound.append(True)

    builds = [asyncio.create_task(build(unwinds())) for _ in range(2)]
    await entered_it.wait()
    for building in builds:
        building.cancel()
    await asyncio.wait(builds)
    assert unwound == [True], "a body was running when both builds had returned"


async def test_what_a_stopped_body_had_asked_for_is_waited_for_by_its_own_build() -> None:
    """The body asked for was begun for another build, which has left in the same turn."""
    waiting, entered_it = asyncio.Event(), asyncio.Event()
    unwound: list[bool] = []

    @task
    async def unwinds() -> None:
        try:
            entered_it.set()
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            unwound.append(True)

    @task
    async def asks() -> None:
        waiting.set()
        await unwinds()

    begun_for = asyncio.create_task(build(unwinds()))
    await entered_it.wait()
    asking = asyncio.create_task(build(asks()))
    await waiting.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    asking.cancel()
    begun_for.cancel()
    await asyncio.wait([begun_for, asking])
    assert unwound == [True], "a body was running when both builds had returned"


async def test_a_body_that_is_being_stopped_is_known_when_another_build_has_come_and_gone() -> None:
    entered_it, go_on = asyncio.Event(), asyncio.Event()
    at_once: list[int] = []
    running = 0

    @task
    async def unwinds() -> None:
        nonlocal running
        running += 1
        at_once.append(running)
        try:
            if len(at_once) == 1:
                entered_it.set()
                await asyncio.Event().wait()
        finally:
            await go_on.wait()
            running -= 1

    leaves = asyncio.create_task(build(unwinds()))
    await entered_it.wait()
    leaves.cancel()
    await asyncio.sleep(0)
    await build(Value(n=1))  # the last build there is, but for the one that waits for its body
    again = asyncio.create_task(build(unwinds()))
    for _ in range(20):
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait([leaves, again])
    assert leaves.cancelled()
    assert again.result().ok
    assert at_once == [1, 1], "the body ran twice at once"


async def test_a_hook_that_a_stopped_body_had_asked_is_stopped_too(unanswered: type[Unanswered]) -> None:
    @task
    async def asks() -> None:
        await NeverPlanned()

    building = asyncio.create_task(build(asks()))
    await unanswered.asked.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert unanswered.stopped == 1


async def test_no_question_outlives_a_build_that_is_cancelled_as_it_begins(unanswered: type[Unanswered]) -> None:
    left: list[asyncio.Task[Any]] = []

    async def caller() -> None:
        try:
            await build(NeverPlanned())
        except asyncio.CancelledError:
            left.extend(other for other in other_tasks() if other is not test)
            raise

    def cancel_after(turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(cancel_after, turns - 1)
        else:
            building.cancel()

    test = asyncio.current_task()
    for turns in range(6):
        building = asyncio.create_task(caller())
        cancel_after(turns)
        await asyncio.wait([building])
        assert left == []


# Context, events, plans ----------------------------------------------------------------------------------

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


async def test_bodies_and_hooks_see_the_callers_context_and_keep_their_own() -> None:
    seen: list[str] = []

    class Seen(Target):
        def __init__(self, n: int) -> None:
            self.n = n

        async def exists(self) -> bool:
            seen.append(request_id.get())
            return entered[self.n] > 0

    class OnLoop(Task):
        n: int

        def requires(self) -> Any:
            assert request_id.get() == "r1"
            return []

        def output(self) -> Seen:
            return Seen(self.n)

        async def run(self) -> None:
            assert request_id.get() == "r1"
            request_id.set(f"changed by {self.n}")
            entered[self.n] += 1

    class InThread(Task):
        n: int

        def run(self) -> Any:
            assert request_id.get() == "r1"
            request_id.set(f"changed by {self.n}")
            yield Value(n=self.n)
            assert request_id.get() == f"changed by {self.n}"

    request_id.set("r1")
    result = await build([*(OnLoop(n=n) for n in range(3)), *(InThread(n=n) for n in range(3))])
    result.raise_for_failure()
    # Asked while planning; and again in each body's own context, when it had ended.
    assert sorted(seen) == sorted(["r1"] * 3 + [f"changed by {n}" for n in range(3)])
    assert request_id.get() == "r1"


async def test_events_are_numbered_and_in_order_of_cause() -> None:
    events: list[Event] = []
    top = Needs(a=Value(n=1), b=Fails())
    result = await build(top, on_event=events.append)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    names = [(type(event).__name__, repr(getattr(event, "task", "")), getattr(event, "status", "")) for event in events]
    assert names[0][0] == "BuildStarted"
    assert names[-1] == ("BuildFinished", "''", "failed")
    order = [name for name in names if name[0] == "TaskFinished"]
    assert order[-1][1:] == (repr(top), "blocked")
    assert names.index(("TaskStarted", repr(Value(n=1)), "")) < names.index(
        ("TaskFinished", repr(Value(n=1)), "succeeded")
    )
    assert {event.run_id for event in events} == {result.run_id}
    assert all(isinstance(event.to_dict()["type"], str) for event in events)


async def test_a_dependency_has_finished_before_its_body_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    answer = ThreadRunner._answer

    class Parent(Task):
        def run(self) -> Any:
            yield Value(n=1)

    def listen(event: Event) -> None:
        if isinstance(event, TaskFinished):
            log.append(repr(event.task))

    def spy(self: ThreadRunner, *args: Any) -> None:
        log.append("goes on")
        answer(self, *args)

    monkeypatch.setattr(ThreadRunner, "_answer", spy)
    await build(Parent(), on_event=listen)
    assert log == ["Value(n=1)", "goes on", "Parent()"]


async def test_a_listener_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def listener(event: Event) -> None:
        raise RuntimeError("broken listener")

    assert (await build(Value(n=1), on_event=listener)).ok
    assert "broken listener" in caplog.text


async def test_progress_reaches_the_listener_from_loop_and_thread() -> None:
    events: list[Any] = []

    class OnLoop(Task):
        async def run(self) -> None:
            self.progress(0.5, "half")
            await asyncio.sleep(0)

    class InThread(Task):
        def run(self) -> None:
            self.progress(0.25, "a quarter")

    await build([OnLoop(), InThread()], on_event=events.append)
    found = {(e.task, e.fraction, e.message) for e in events if type(e).__name__ == "TaskProgress"}
    assert found == {(OnLoop(), 0.5, "half"), (InThread(), 0.25, "a quarter")}


async def test_a_plan_says_what_and_why_and_does_nothing() -> None:
    await build(Stored(n=1))
    entered.clear()

    class Input(ExternalTask):
        def output(self) -> MemoryTarget:
            return MemoryTarget("absent")

    top = Needs(a=Stored(n=1), b=Stored(n=2))
    blocked = Needs(a=Input(), b=Stored(n=1))
    planned = await plan([top, blocked])
    assert {item.task: item.action for item in planned.items} == {
        top: "run",
        blocked: "blocked",
        Stored(n=1): "skip",
        Stored(n=2): "run",
        Input(): "missing",
    }
    assert "output missing: MemoryTarget('stored-2')" in str(planned)
    assert planned.summary() == "2 to run, 1 complete, 1 missing, 1 blocked.  Nothing was executed."
    assert not entered
    with pytest.raises(CycleError):
        await plan(Ring(n=0, of=3, dynamic=False))


def test_one_loop_after_another_and_loops_side_by_side() -> None:
    for _ in range(3):
        assert run(Awaits()).ok
    failures: list[BaseException] = []

    def one(n: int) -> None:
        try:
            assert run([Awaits(), YieldsInThread(), Stored(n=n)]).ok
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=one, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


@pytest.mark.parametrize("shape", ["deep", "wide"])
async def test_a_hundred_thousand_tasks(shape: str) -> None:
    n = 100_000

    class Link(Task):
        n: int

        def requires(self) -> Any:
            if shape == "deep":
                return Link(n=self.n - 1) if self.n else []
            return (Link(n=i) for i in range(n - 1)) if self.n == n - 1 else []

        def output(self) -> MemoryTarget:
            return MemoryTarget(f"link-{self.n}")

        async def run(self) -> None:
            self.output().put(self.n)

    assert (await build(Link(n=n - 1))).counts == {"succeeded": n}
    assert (await build(Link(n=n - 1))).counts == {"complete": 1}


# Found by trying to break it -----------------------------------------------------------------------------


async def test_many_sync_bodies_store_what_they_return_each_in_its_own_name() -> None:
    class Returns(Task):
        n: int

        def output(self) -> MemoryTarget:
            return MemoryTarget(f"returned-{self.n}")

        def run(self) -> int:
            return self.n

    result = await build([Returns(n=n) for n in range(200)])
    result.raise_for_failure()
    assert result.counts == {"succeeded": 200}
    assert [MemoryTarget(f"returned-{n}").get() for n in range(200)] == list(range(200))


async def test_the_rest_of_a_plain_body_may_be_a_coroutine() -> None:
    class Mixed(Task):
        n: int

        def run(self) -> Any:
            return self._rest()

        async def _rest(self) -> int:
            return 1 + await Value(n=self.n)

    class GivesATask(Task):
        async def run(self) -> Any:
            return Value(n=7)

    result = await build([Mixed(n=1), GivesATask()], concurrency=1)
    assert result[Mixed(n=1)] == 2
    assert result[GivesATask()] == Value(n=7), "a task returned is a value, not a wish"
    assert result.counts == {"succeeded": 3}


@pytest.mark.parametrize("first", ["the holder", "the other"])
async def test_a_ring_through_a_targets_lock_is_a_cycle(first: str) -> None:
    """A makes a target and asks for B, which another build has planned, and which makes the same target."""
    holding, planned = asyncio.Event(), asyncio.Event()

    class B(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("the same")

        async def run(self) -> None:
            self.output().put("b")

    class A(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("the same")

        async def run(self) -> str | None:
            holding.set()
            await planned.wait()
            try:
                await B()
            except CycleError:
                entered["told"] += 1
            self.output().put("a")
            return None

    class Blocks(Task):
        """Takes the second build's only place, so that B is still to be started when A asks for it."""

        async def run(self) -> None:
            await asked.wait()

    asked = asyncio.Event()
    one = asyncio.create_task(build(A()))
    await holding.wait()
    wanted = [B()] if first == "the other" else [Blocks(), B()]
    two = asyncio.create_task(build(wanted, concurrency=1))
    for _ in range(20):
        await asyncio.sleep(0)
    planned.set()
    for _ in range(20):
        await asyncio.sleep(0)
    asked.set()
    async with asyncio.timeout(5):
        results = [await one, await two]
    assert all(results)
    assert entered["told"] == 1
    assert results[1].tasks[B()].status == "adopted"


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, SystemExit, KeyboardInterrupt])
async def test_nothing_a_listener_raises_reaches_the_engine(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def listen(event: Event) -> None:
        raise error

    async with asyncio.timeout(5):
        result = await build([Awaits(), YieldsInThread()], on_event=listen)
    assert result.ok
    assert "on_event" in caplog.text


async def test_listeners_and_sync_hooks_run_in_the_callers_context() -> None:
    seen: set[str] = set()

    class Asked(Target):
        def exists(self) -> bool:
            seen.add(f"hook {request_id.get()}")
            return entered["made"] > 0

    class Makes(Task):
        def output(self) -> Asked:
            return Asked()

        async def run(self) -> None:
            request_id.set("the body's")
            await Value(n=1)
            entered["made"] += 1

    def listen(event: Event) -> None:
        seen.add(f"listener {request_id.get()}")
        MemoryTarget("log").put(event.seq)  # in nobody's name: it is not refused

    request_id.set("r2")
    (await build(Makes(), on_event=listen)).raise_for_failure()
    # Asked while planning; and again in the body's own context, when it had ended.
    assert seen == {"hook r2", "hook the body's", "listener r2"}
    assert await MemoryTarget("log").exists()


async def test_a_cancelled_build_is_not_kept_alive_by_its_timers() -> None:
    inside = asyncio.Event()

    class Slow(Task):
        async def run(self) -> None:
            inside.set()
            await asyncio.Event().wait()

    slow = Slow()
    alive = weakref.ref(slow)
    building = asyncio.create_task(build(slow, grace=60))
    await inside.wait()
    building.cancel()
    await asyncio.wait([building])
    del slow, building
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("how", ["swallows", "exits"])
async def test_a_dropped_hook_that_does_not_stop(how: str, caplog: pytest.LogCaptureFixture) -> None:
    asked, release = asyncio.Event(), asyncio.Event()
    events: list[Event] = []

    class Slow(Target):
        async def exists(self) -> bool:
            asked.set()
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    if how == "exits":
                        raise SystemExit(3) from None
            return True

    class Makes(Task):
        def output(self) -> Slow:
            return Slow()

        async def run(self) -> None: ...

    building = asyncio.create_task(build(Makes(), grace=0.05, on_event=events.append))
    await asked.wait()
    building.cancel()
    await asyncio.wait([building])
    assert building.cancelled()
    named = [event.task for event in events if isinstance(event, Abandoned)]
    assert named == ([Makes()] if how == "swallows" else [])
    release.set()
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_failed_group_shows_what_is_in_it() -> None:
    [error] = (await build(RaisesOnLoop(which="group", where=""))).errors()
    assert "several (ValueError: one; TypeError: two)" in str(error)


async def test_options_that_look_right() -> None:
    async def listen(event: Event) -> None: ...

    with pytest.raises(ConfigError, match="plain function"):
        await build(Value(n=1), on_event=listen)
    with pytest.raises(ConfigError, match="grace"):
        await build(Value(n=1), grace=True)
    with pytest.raises(TypeError, match="None is not a task"):
        await build(None)  # type: ignore[arg-type]
