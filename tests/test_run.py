"""``start()`` and its ``Run``: it goes on by itself, many may await it, ``cancel()`` ends it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import asyncflow
from asyncflow import (
    BuildFinished,
    BuildStarted,
    ConfigError,
    CycleError,
    Event,
    MemoryTarget,
    PlanError,
    Run,
    Task,
    TaskCancelled,
    TaskFailed,
    account,
    build,
    start,
)
from asyncflow._run import _held
from asyncflow.executor import _executors
from asyncflow.testing import STYLES, Outcome, SimulatedLoop, Style, explore, other_tasks, simulate, sweep

entered: Counter[Any] = Counter()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    MemoryTarget.clear()
    entered.clear()
    yield
    assert not _held, "a run is held although it has ended"
    assert not _executors, "an executor outlived its builds"


class Value(Task):
    n: int

    async def run(self) -> int:
        entered[self.n] += 1
        await asyncio.sleep(0)
        return self.n


class Sleeps(Task):
    seconds: float

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"slept-{self.seconds}")

    async def run(self) -> str:
        entered["began"] += 1
        await asyncio.sleep(self.seconds)
        entered["ended"] += 1
        return "well"


class Loop(Task):
    def requires(self) -> Any:
        return Loop()

    async def run(self) -> None: ...


class Slow(Task):
    """Takes its time to be planned: as long as it has to wait for the answer of its ``complete()``."""

    broken: bool = False

    def requires(self) -> Any:
        if self.broken:
            raise ValueError("broken")
        return []

    async def complete(self) -> bool:
        await asyncio.sleep(0 if self.broken else 3600)
        return False

    async def run(self) -> None: ...


request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


# Starting ------------------------------------------------------------------------------------------------


async def test_it_is_started_at_once_and_awaited_when_one_likes() -> None:
    run = start([Value(n=1), Value(n=2)])
    assert isinstance(run, Run)
    assert (run.status, run.done) == ("running", False)
    assert not entered, "start() itself runs nothing"
    result = await run
    assert result.ok
    assert result[Value(n=2)] == 2
    assert (run.status, run.done, run.run_id) == ("succeeded", True, result.run_id)
    assert repr(run) == f"<Run {result.run_id} succeeded>"
    assert await run is result


async def test_its_options_are_those_of_build() -> None:
    told: list[Event] = []
    await build(Value(n=1))
    options: Any = {"concurrency": 1, "force": True, "only": [Value(n=1)], "on_event": told.append}
    run = start([Value(n=1), Value(n=2)], **options)
    result = await run
    assert result.ran == (Value(n=1),)
    assert result.missing == (Value(n=2),)
    assert run.status == "incomplete"
    assert [event async for event in run.events()] == told


async def test_it_sees_the_context_it_was_started_in() -> None:
    class Sees(Task):
        async def run(self) -> str:
            return request.get()

    request.set("r1")
    run = start(Sees())
    request.set("r2")
    assert (await run)[Sees()] == "r1"


def test_without_a_loop_it_says_what_to_use() -> None:
    with pytest.raises(RuntimeError, match=r"start\(\) needs a running event loop: without one, use `asyncflow.run"):
        start(Value(n=1))


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"on_event": 3}, {"only": [3]}, {"timeout": -1}])
async def test_wrong_options_are_refused_at_once(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        start(Value(n=1), **wrong)
    with pytest.raises(TypeError, match="is not a task"):
        start(Value)  # type: ignore[arg-type]


async def test_what_is_found_wrong_later_comes_out_of_await_and_ends_the_events() -> None:
    run = start(Value(n=1), force=[3])  # type: ignore[list-item]
    reading = asyncio.create_task(read(run))
    with pytest.raises(ConfigError, match="force"):
        await run
    assert [type(event) for event in await reading] == [BuildStarted, BuildFinished]
    assert run.status == "failed"


async def read(run: Run) -> list[Event]:
    return [event async for event in run.events()]


async def test_a_body_can_neither_start_nor_await_a_run() -> None:
    class Starts(Task):
        async def run(self) -> None:
            start(Value(n=1))

    class Awaits(Task):
        async def run(self) -> None:
            await outer

    outer = start([Starts(), Awaits()])
    result = await outer
    starts, awaits = (str(result.tasks[task].error) for task in (Starts(), Awaits()))
    assert starts.startswith("asyncflow.start() was called in the body of Starts()")
    assert awaits.startswith("the body of Awaits() cannot wait for a run: use `await build(...)`")
    with pytest.raises(TaskFailed):
        result[Starts()]


# Awaiting ------------------------------------------------------------------------------------------------


async def test_several_await_it_and_one_may_leave() -> None:
    run = start(Sleeps(seconds=0.05))
    waiting = [asyncio.create_task(wait_for(run)) for _ in range(3)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert (run.status, entered) == ("running", {"began": 1})
    one, other = await waiting[1], await waiting[2]
    assert one is other
    assert one.ok


async def wait_for(run: Run) -> Any:
    return await run


@pytest.mark.parametrize("style", STYLES)
async def test_cancelling_who_awaits_it_anywhere_leaves_it_alone(style: Style) -> None:
    state: dict[str, Run] = {}

    async def case() -> None:
        MemoryTarget.clear()
        state["run"] = run = start(Sleeps(seconds=0))
        await run

    async def check(outcome: Outcome) -> None:
        assert (await state["run"]).ok, outcome

    assert await sweep(case, check, style) == 1


def test_it_outlives_who_started_it() -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def handle_request() -> None:
            async with asyncio.timeout(1):
                run = start(
                    Sleeps(seconds=3600), on_event=lambda event: isinstance(event, BuildFinished) and ended.set()
                )
                await run

        with pytest.raises(TimeoutError):
            await handle_request()
        gc.collect()  # nobody has it any more
        [held] = _held.values()
        assert len(held) == 1, "by the module: the loop alone knows it weakly"
        await ended.wait()
        assert SimulatedLoop.running().time() == 3600
        assert entered == {"began": 1, "ended": 1}
        await asyncio.sleep(0)

    simulate(main)


async def test_it_is_awaited_where_it_was_started_and_anywhere_when_it_is_done() -> None:
    outcomes: list[Any] = []

    def elsewhere() -> None:
        try:
            outcomes.append(asyncio.run(wait_for(run)))
        except RuntimeError as error:
            outcomes.append(str(error))

    run = start(Value(n=1))
    for _ in range(2):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        result = await run
    assert outcomes == [f"run {run.run_id} can be awaited, while it lasts, only in the loop it was started in", result]


# Cancelling ----------------------------------------------------------------------------------------------


async def test_cancelled_before_its_first_step_it_has_run_nothing() -> None:
    run = start([Value(n=1), Sleeps(seconds=60)])
    run.cancel()
    run.cancel()
    result = await run
    assert (result.status, result.why) == ("cancelled", "cancelled by run.cancel()")
    assert result.counts == {"cancelled": 2}
    assert run.status == "cancelled"
    assert not entered
    kinds = [type(event).__name__ for event in await read(run)]
    assert kinds == ["BuildStarted", "TaskFinished", "TaskFinished", "BuildFinished"]


async def test_cancelled_in_the_middle_it_leaves_nothing_alive() -> None:
    run = start([Value(n=1), Sleeps(seconds=60)])
    while not entered["began"] or not entered[1]:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    before = other_tasks()
    assert len(before) == 2, "the run and the body"
    run.cancel()
    result = await run
    assert other_tasks() == []
    assert (result.status, result.why) == ("cancelled", "cancelled by run.cancel()")
    assert result.counts == {"succeeded": 1, "cancelled": 1}
    assert result[Value(n=1)] == 1
    assert not await Sleeps(seconds=60).output().exists()


def test_cancelled_at_any_moment_it_has_a_result_and_leaves_nothing() -> None:
    async def main() -> None:
        MemoryTarget.clear()
        entered.clear()
        chance = SimulatedLoop.running().random
        tasks = [Sleeps(seconds=seconds) for seconds in (1, 2, 3)]
        run = start(tasks, concurrency=chance.choice([1, 3]))
        reading = asyncio.create_task(read(run))
        asyncio.get_running_loop().call_later(chance.uniform(0, 7), run.cancel)
        result = await run
        assert set(other_tasks()) <= {reading}
        events = await reading
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        finished = events[-1]
        assert isinstance(finished, BuildFinished)
        assert finished.counts == result.counts
        assert finished.status == result.status == run.status
        assert result.status == ("succeeded" if entered["ended"] == 3 else "cancelled")
        assert len(result.ran) == entered["ended"]
        await asyncio.sleep(10)  # until the cancel has come, if it is late: nothing happens

    explore(main, seeds=200)


async def test_what_others_want_goes_on_when_a_run_is_cancelled() -> None:
    run = start(Sleeps(seconds=0.05))
    other = start(Sleeps(seconds=0.05))
    await asyncio.sleep(0.01)
    run.cancel()
    result = await run
    assert (result.status, result.counts) == ("cancelled", {"cancelled": 1})
    assert not result
    with pytest.raises(TaskCancelled):
        result[Sleeps(seconds=0.05)]
    assert (await other).ok
    assert entered == {"began": 1, "ended": 1}
    left = result.tasks[Sleeps(seconds=0.05)]
    assert left.status == "cancelled", "what others have made of it since is not this run's"
    assert left.started is not None
    assert (left.finished, left.value, left.attempts) == (None, None, ())


async def test_cancelling_what_has_ended_does_nothing() -> None:
    run = start(Value(n=1))
    result = await run
    run.cancel()
    assert await run is result
    assert (run.status, result.why) == ("succeeded", None)
    failing = start(Loop())
    with pytest.raises(CycleError):
        await failing
    failing.cancel()
    with pytest.raises(CycleError):
        await failing


def test_cancelled_while_it_plans_it_is_cancelled_whatever_the_plan_has_met() -> None:
    async def main() -> None:
        run = start([Slow(broken=True), Slow()])
        await asyncio.sleep(1)
        run.cancel()
        result = await run
        assert (result.status, result.why) == ("cancelled", "cancelled by run.cancel()")

    simulate(main)


def test_a_thread_may_cancel_it_and_may_be_late() -> None:
    async def main() -> tuple[Run, Any]:
        run = start(Sleeps(seconds=60))
        while not entered["began"]:
            await asyncio.sleep(0)
        await asyncio.to_thread(run.cancel)
        return run, await run

    run, result = asyncio.run(main(), debug=True)  # in which asyncio refuses calls that only its thread may make
    assert result.status == "cancelled"
    run.cancel()  # its loop has been closed


def test_the_end_of_its_loop_is_the_end_of_the_run(abandoned: Any) -> None:
    abandoned(tasks=5)  # three runs and two bodies, for asyncio.run() to cancel
    runs: list[Run] = []

    async def main(steps: int) -> None:
        runs.append(start(Sleeps(seconds=60)))
        for _ in range(steps):
            await asyncio.sleep(0)

    for steps in (0, 1, 5):
        asyncio.run(main(steps))
        run = runs[-1]
        assert (run.status, run.done) == ("cancelled", True)
        assert isinstance(asyncio.run(read(run))[-1], BuildFinished), "its readers come to an end, too"
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(wait_for(run))


async def test_cancelled_from_outside_before_its_first_step_its_readers_end() -> None:
    run = start(Value(n=1))
    for task in other_tasks():  # as whoever ends a loop does
        task.cancel()
    [finished] = await read(run)
    assert isinstance(finished, BuildFinished)
    assert (finished.status, run.status) == ("cancelled", "cancelled")
    assert not entered


async def test_nothing_is_told_after_the_end(abandoned: Any) -> None:
    abandoned(threads=1)
    released = threading.Event()
    over = threading.Event()

    class Deaf(Task):
        def run(self) -> None:
            entered["began"] += 1
            released.wait()
            self.progress(0.5, "too late")
            over.set()

    told: list[Event] = []
    run = start(Deaf(), grace=0.05, on_event=told.append)
    while not entered["began"]:
        await asyncio.sleep(0.001)
    run.cancel()
    await run
    released.set()
    await asyncio.to_thread(over.wait)
    await asyncio.sleep(0)
    assert [type(event).__name__ for event in told] == [
        *("BuildStarted", "TaskStarted", "Abandoned", "TaskFinished", "BuildFinished")
    ]
    assert await read(run) == told


# Errors nobody asks for ----------------------------------------------------------------------------------


async def test_an_error_of_a_run_nobody_awaits_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    run = start(Loop())
    await read(run)
    await asyncio.sleep(0)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("asyncflow", logging.ERROR)
    assert record.getMessage() == f"build {run.run_id}, which nobody awaits, could not be made"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], CycleError)
    with pytest.raises(PlanError):
        await run
    del run, record
    caplog.clear()
    gc.collect()
    assert not caplog.records, "asyncio has nothing to add"


async def test_an_error_that_somebody_gets_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    run = start(Loop())
    outcomes = await asyncio.gather(wait_for(run), wait_for(run), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [CycleError, CycleError]
    assert run.status == "failed"
    del run, outcomes
    gc.collect()
    assert not caplog.records


def test_an_error_is_logged_or_raised_whenever_its_last_waiter_leaves(caplog: pytest.LogCaptureFixture) -> None:
    seen = Counter[str]()

    async def main() -> None:
        caplog.clear()
        run = start([Slow(broken=True), Slow(broken=True)])
        waiting = asyncio.create_task(wait_for(run))
        for _ in range(SimulatedLoop.running().random.randrange(12)):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        raised = not waiting.cancelled() and isinstance(waiting.exception(), PlanError)
        await asyncio.wait([run._task])
        await asyncio.sleep(0.1)
        assert raised + len(caplog.records) == 1
        seen["raised" if raised else "logged"] += 1

    explore(main, seeds=200)
    assert seen["raised"] > 10
    assert seen["logged"] > 10


# Cost ----------------------------------------------------------------------------------------------------


async def test_when_nobody_listens_no_event_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*args: Any) -> Any:
        raise AssertionError("an event nobody gets")

    class Talks(Task):
        async def run(self) -> None:
            self.progress(0.5)

    for kind in Event.__subclasses__():
        if hasattr(account, kind.__name__):
            monkeypatch.setattr(account, kind.__name__, made)
    assert (await build([Talks(), Value(n=1)])).ok
    assert asyncflow.account.BuildStarted is made, "the names that were replaced are those that the account uses"
