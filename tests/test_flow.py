"""``Flow``: one flight for all who want the same, one budget for all runs, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from asyncflow import (
    ConfigError,
    Flow,
    FlowClosed,
    MemoryTarget,
    PlanError,
    Run,
    Task,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskStarted,
    gather,
)
from asyncflow.errors import describe
from asyncflow.hub import hub
from asyncflow.testing import SimulatedLoop, explore, other_tasks, simulate

entered: Counter[Any] = Counter()
ended: Counter[Any] = Counter()
working = 0
most = 0


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global working, most
    entered.clear()
    ended.clear()
    working = most = 0


class Sleeps(Task):
    """Gives its number after ``seconds``."""

    n: int
    seconds: float = 0.01

    async def run(self) -> int:
        global working, most
        entered[self.n] += 1
        working += 1
        most = max(most, working)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            working -= 1
        ended[self.n] += 1
        return self.n


class UsesDb(Sleeps):
    resources = {"db": 1}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


# One flight ----------------------------------------------------------------------------------------------


async def test_a_hundred_calls_at_once_run_the_body_once() -> None:
    async with Flow() as flow:
        assert await asyncio.gather(*(flow.run(Sleeps(n=7)) for _ in range(100))) == [7] * 100
    assert entered == {7: 1}


async def test_calls_and_runs_share_it_too() -> None:
    async with Flow() as flow:
        run = flow.start(Sleeps(n=1))
        assert await flow.run(Sleeps(n=1)) == 1
        assert (await run)[Sleeps(n=1)] == 1
    assert entered == {1: 1}


async def test_who_leaves_takes_nothing_away_and_the_last_one_everything() -> None:
    async with Flow() as flow:
        calls = [asyncio.create_task(flow.run(Sleeps(n=1, seconds=0.05))) for _ in range(10)]
        await until(lambda: entered[1] == 1)
        for call in calls[1:]:
            call.cancel()
        assert await calls[0] == 1
        last = asyncio.create_task(flow.run(Sleeps(n=2, seconds=60)))
        await until(lambda: entered[2] == 1)
        last.cancel()
        with pytest.raises(asyncio.CancelledError):
            await last
        assert working == 0
    assert ended == {1: 1}


async def test_a_target_is_what_run_gives_and_is_not_made_twice() -> None:
    class Makes(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("flow/made")

        async def run(self) -> None:
            entered["made"] += 1
            self.output().put(1)

    async with Flow() as flow:
        for _ in range(2):
            assert (await flow.run(Makes())).get() == 1
    assert entered == {"made": 1}
    MemoryTarget.clear()


async def test_a_failure_comes_to_every_caller() -> None:
    class Fails(Task):
        async def run(self) -> None:
            entered["fails"] += 1
            await asyncio.sleep(0)
            raise ValueError("no")

    async with Flow() as flow:
        answers = await asyncio.gather(*(flow.run(Fails()) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [TaskFailed] * 3
    assert entered == {"fails": 1}


async def test_in_a_body_it_is_an_await() -> None:
    flow = Flow(concurrency=1)

    class Parent(Task):
        async def run(self) -> int:
            return await flow.run(Sleeps(n=1)) + 1

    async with asyncio.timeout(10):
        assert await flow.run(Parent()) == 2, "a body that waits has no place"
    await flow.close()


async def test_a_run_cannot_be_started_in_a_body() -> None:
    flow = Flow()

    class Starts(Task):
        async def run(self) -> None:
            flow.start(Sleeps(n=1))

    with pytest.raises(TaskFailed) as failure:
        await flow.run(Starts())
    assert "flow.start() was called in the body of Starts()" in str(failure.value.__cause__)
    await flow.close()


# One budget ----------------------------------------------------------------------------------------------


async def test_concurrency_holds_for_all_builds_together() -> None:
    async with Flow(concurrency=3) as flow:
        runs = [flow.start([Sleeps(n=10 * n + m) for m in range(4)]) for n in range(3)]
        calls = [flow.run(Sleeps(n=100 + n)) for n in range(3)]
        await asyncio.gather(*calls, *runs)
    assert most == 3
    assert len(ended) == 15


async def test_threads_hold_for_all_builds_together() -> None:
    gate, inside, peak, lock = threading.Event(), 0, 0, threading.Lock()

    class InThread(Task):
        n: int

        def run(self) -> None:
            nonlocal inside, peak
            with lock:
                inside += 1
                peak = max(peak, inside)
            gate.wait(10)
            with lock:
                inside -= 1

    async with Flow(threads=2) as flow:
        runs = [flow.start(InThread(n=n)) for n in range(6)]
        await until(lambda: inside == 2)
        await asyncio.sleep(0.01)
        gate.set()
        for run in runs:
            assert (await run).ok
    assert peak == 2


@pytest.mark.parametrize(("given", "expected"), [({"db": 2}, 2), ({"other": 1}, 1), (None, 1)])
async def test_resources_hold_for_all_builds_together(given: Any, expected: int) -> None:
    async with Flow(resources=given) as flow:
        await asyncio.gather(*(flow.run(UsesDb(n=n)) for n in range(6)))
    assert most == expected


def test_rates_hold_for_all_builds_together() -> None:
    class Calls(Task):
        n: int
        rate = "api"

        async def run(self) -> float:
            return SimulatedLoop.running().time()

    async def main() -> None:
        async with Flow(rate={"api": "2/s"}) as flow:
            times = await asyncio.gather(*(flow.run(Calls(n=n)) for n in range(6)))
        assert sorted(times) == pytest.approx([0, 0, 1, 1, 2, 2])

    simulate(main)


async def test_a_long_run_does_not_keep_a_short_one_waiting() -> None:
    async with Flow(concurrency=2) as flow:
        long = flow.start([Sleeps(n=n) for n in range(50)])
        await until(lambda: working == 2)
        assert await flow.run(Sleeps(n=1000)) == 1000
        assert len(ended) < 20
        assert not long.done


async def test_retries_of_the_flow_and_of_one_run() -> None:
    class Flaky(Task):
        n: int
        retry_delay = 0.0

        async def run(self) -> int:
            entered[self.n] += 1
            if entered[self.n] < 3:
                raise ValueError("again")
            return entered[self.n]

    async with Flow(retries=2) as flow:
        assert await flow.run(Flaky(n=1)) == 3
        assert not (await flow.start(Flaky(n=2), retries=1)).ok


# Runs ----------------------------------------------------------------------------------------------------


async def test_runs_are_listed_and_found() -> None:
    async with Flow() as flow:
        slow = flow.start(Sleeps(n=1, seconds=60), tags={"user": "42"})
        fast = flow.start(Sleeps(n=2))
        await fast
        assert flow.runs() == [fast, slow]
        assert flow.runs(status="running") == [slow]
        assert flow.runs(status="succeeded") == [fast]
        assert flow.get(slow.run_id) is slow
        assert flow.get("no such") is None
        assert (slow.tags, slow.tasks) == ({"user": "42"}, (Sleeps(n=1, seconds=60),))
        slow.cancel("enough")
        assert (await slow).why == "enough"
        assert flow.runs(status="cancelled") == [slow]
        with pytest.raises(ConfigError, match="expected one of running, succeeded"):
            flow.runs(status="over")  # type: ignore[arg-type]


async def test_no_more_ended_runs_are_kept_than_asked_for() -> None:
    async with Flow(keep=3) as flow:
        lasting = flow.start(Sleeps(n=0, seconds=60))
        runs = []
        for n in range(1, 6):
            runs.append(flow.start(Sleeps(n=n, seconds=0)))
            await runs[-1]
        await asyncio.sleep(0)
        assert flow.runs() == [*reversed(runs[-3:]), lasting]
        assert flow.get(runs[0].run_id) is None


async def test_a_run_outlives_the_request_that_started_it() -> None:
    async with Flow() as flow:

        async def request() -> Run:
            return flow.start(Sleeps(n=1))

        run = await asyncio.create_task(request())
        del request
        gc.collect()
        assert (await run).ok


async def test_snapshots() -> None:
    gate = asyncio.Event()

    class Works(Task):
        async def run(self) -> None:
            self.progress(0.25, "a quarter")
            await gate.wait()

    class Fails(Task):
        async def run(self) -> None:
            raise ValueError("no")

    class Waits(Task):
        async def run(self) -> None:
            await Works()

    async with Flow(concurrency=10) as flow:
        before = flow.start(Sleeps(n=1)).snapshot()
        assert (before.status, before.counts, before.at_work) == ("running", {}, ())
        run = flow.start([Waits(), Fails()], tags={"a": "b"})
        other = flow.start(Works())
        await until(lambda: any(task.progress for task in run.snapshot().at_work))
        snapshot = run.snapshot()
        assert snapshot.counts == {"suspended": 1, "running": 1, "failed": 1}
        works = next(task for task in snapshot.at_work if task.task == Works())
        assert (works.status, works.progress, works.message) == ("running", 0.25, "a quarter")
        assert 0 <= works.duration <= snapshot.duration < 10
        assert str(snapshot.errors[Fails()]) == "no"
        assert other.snapshot().at_work[0].progress == 0.25, "it has joined, and sees the same"
        plain = snapshot.to_dict()
        assert plain["errors"] == {Fails().task_id: "ValueError: no"}
        assert plain["tags"] == {"a": "b"}
        gate.set()
        await asyncio.gather(run, other)
        after = run.snapshot()
        assert after.status == "failed"
        assert after.counts == {"succeeded": 2, "failed": 1}
        assert after.at_work == ()
        assert after.duration == run.snapshot().duration, "it stands still"


async def test_a_snapshot_says_why_a_run_was_stopped_or_could_not_be_made() -> None:
    class Wrong(Task):
        def requires(self) -> Task:
            raise ValueError("no such year")

        async def run(self) -> None: ...

    async with Flow() as flow:
        stopped, wrong, fine = flow.start(Sleeps(n=1, seconds=60)), flow.start(Wrong()), flow.start(Sleeps(n=2))
        assert {run.snapshot().why for run in (stopped, wrong, fine)} == {None}
        stopped.cancel("by anna")
        await fine
        assert (await stopped).why == stopped.snapshot().why == "by anna"
        fine.cancel("too late")
        assert fine.snapshot().why is None
        with pytest.raises(PlanError) as failure:
            await wrong
        shown = wrong.snapshot().to_dict()
        assert (shown["status"], shown["errors"]) == ("failed", {})
        assert shown["why"] == describe(failure.value)
        assert "no such year" in shown["why"]
        closed = flow.start(Sleeps(n=3, seconds=60))
    assert closed.snapshot().why == "the flow was closed"


async def test_a_run_that_joins_another_hears_of_what_they_share() -> None:
    """Also of what is below, whether it was there when it joined or is asked for later."""
    gates = {n: asyncio.Event() for n in range(4)}

    class Step(Task):
        n: int

        def requires(self) -> list[Step]:
            return [Step(n=1), Step(n=2)] if self.n == 0 else []

        async def run(self) -> None:
            self.progress(0.5, f"step {self.n}")
            await gates[self.n].wait()
            if not self.n:
                await Step(n=3)

    class Top(Task):
        who: int

        async def run(self) -> None:
            await Step(n=0)

    async with Flow() as flow:
        runs = [flow.start(Top(who=0))]
        await until(lambda: len(runs[0].snapshot().at_work) == 3)
        gates[1].set()
        await until(lambda: Step(n=1) not in [task.task for task in runs[0].snapshot().at_work])
        runs += [flow.start(Top(who=1)), flow.start(Step(n=0))]
        await until(lambda: len(runs[1].snapshot().at_work) == 2)
        for gate in gates.values():
            gate.set()
        heard = [[event.to_dict() async for event in run.events()] for run in runs]
        for run in runs:
            assert (await run).ok
    for events in heard[1:]:
        started = [event["task"] for event in events if event["type"] == "TaskStarted"]
        finished = [event["task"] for event in events if event["type"] == "TaskFinished"]
        told = [event["message"] for event in events if event["type"] == "TaskProgress"]
        steps = [Step(n=n).task_id for n in (2, 0, 3)]
        assert [task for task in started if task in steps] == steps
        assert sorted(task for task in finished if task in steps) == sorted(steps)
        assert len(set(started)) == len(started)
        assert len(set(finished)) == len(finished)
        assert told == ["step 0", "step 3"], "step 2 said so before"
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


async def test_a_run_that_joins_a_task_still_being_planned_hears_of_what_that_requires() -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    class Top(Task):
        async def complete(self) -> bool:  # type: ignore[override]
            asked.set()
            await gate.wait()
            return False

        def requires(self) -> Task:
            return Sleeps(n=1)

        async def run(self) -> None: ...

    async with Flow() as flow:
        first = flow.start(Top())
        await asked.wait()
        second = flow.start(Top())
        await asyncio.sleep(0.01)
        gate.set()
        for run in (first, second):
            finished = [event.task async for event in run.events() if isinstance(event, TaskFinished)]
            assert finished == [Sleeps(n=1), Top()]


# The end -------------------------------------------------------------------------------------------------


async def test_closing_cancels_what_is_at_work_and_leaves_nothing() -> None:
    flow = Flow()
    async with flow:
        run = flow.start(Sleeps(n=1, seconds=60))
        call = asyncio.create_task(flow.run(Sleeps(n=2, seconds=60)))
        await until(lambda: working == 2)
    assert working == 0
    assert (run.status, (await run).why) == ("cancelled", "the flow was closed")
    with pytest.raises(TaskCancelled):
        await call
    assert not other_tasks()
    for door in (flow.run, flow.start):
        with pytest.raises(FlowClosed, match="has been closed"):
            await door(Sleeps(n=3))  # type: ignore[operator]


async def test_draining_lets_what_is_at_work_end() -> None:
    flow = Flow(drain=30)
    run, late = flow.start(Sleeps(n=1, seconds=0.05)), flow.start(Sleeps(n=2, seconds=0.02))
    await flow.close()
    assert (run.status, late.status) == ("succeeded", "succeeded")


def test_draining_ends() -> None:
    async def main() -> None:
        flow = Flow(drain=5)
        short, long = flow.start(Sleeps(n=1, seconds=4)), flow.start(Sleeps(n=2, seconds=6))
        await flow.close()
        assert SimulatedLoop.running().time() == pytest.approx(5, abs=0.01)
        assert (short.status, long.status) == ("succeeded", "cancelled")
        await flow.close(drain=100)  # nothing is left to be waited for
        assert SimulatedLoop.running().time() == pytest.approx(5, abs=0.01)

    simulate(main)


async def test_a_close_that_is_cancelled_cancels_what_is_at_work() -> None:
    flow = Flow(drain=60)
    run = flow.start(Sleeps(n=1, seconds=60))
    await until(lambda: working == 1)
    closing = asyncio.create_task(flow.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert (await run).status == "cancelled"


async def test_work_in_other_loops_ends_too() -> None:
    flow = Flow()
    statuses: list[str] = []

    def elsewhere() -> None:
        async def main() -> None:
            run = flow.start(Sleeps(n=threading.get_ident(), seconds=60))
            statuses.append((await run).status)

        asyncio.run(main())

    threads = [threading.Thread(target=elsewhere) for _ in range(3)]
    for thread in threads:
        thread.start()
    await until(lambda: working == 3)
    await flow.close()
    for thread in threads:
        thread.join(10)
    assert statuses == ["cancelled"] * 3
    assert working == 0


def test_a_loop_that_was_closed_in_the_middle_is_forgotten() -> None:
    class Lasts(Task):
        async def run(self) -> None:
            await asyncio.sleep(60)

    flow = Flow()
    loop = asyncio.new_event_loop()

    async def main() -> Run:
        return flow.start(Lasts())

    run = loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0.01))
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert (run.status, run.done) == ("cancelled", True)
    asyncio.run(flow.close())
    assert "0 at work" in repr(flow)


# Bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, r"Flow\(concurrency=0\): expected a whole number"),
        ({"threads": "x"}, r"Flow\(threads='x'\)"),
        ({"drain": -1}, r"Flow\(drain=-1\): expected a number of seconds"),
        ({"grace": None}, r"Flow\(grace=None\)"),
        ({"keep": -1}, r"Flow\(keep=-1\)"),
        ({"retries": 1.5}, r"Flow\(retries=1.5\)"),
        ({"resources": {"db": 0}}, r"Flow\(\).resources is"),
        ({"resources": 3}, r"Flow\(\).resources is 3"),
        ({"rate": {"api": "often"}}, r"Flow\(rate=\{'api': ...\}\): 'often' is not a rate"),
        ({"rate": "10/s"}, r"Flow\(rate='10/s'\)"),
    ],
)
def test_wrong_options_are_told_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Flow(**options)


async def test_wrong_calls_are_told() -> None:
    async with Flow() as flow:
        with pytest.raises(ConfigError, match=r"flow.start\(tags=\{'n': 1\}\): expected texts by name"):
            flow.start(Sleeps(n=1), tags={"n": 1})  # type: ignore[dict-item]
        with pytest.raises(ConfigError, match=r"flow.start\(timeout=-1\)"):
            flow.start(Sleeps(n=1), timeout=-1)
        with pytest.raises(TypeError, match="not a task"):
            flow.start(Sleeps)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="takes one task"):
            await flow.run([Sleeps(n=1)])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="no option 'concurrency': there are timeout, retries"):
            flow.start(Sleeps(n=1), concurrency=3)  # type: ignore[call-arg]
        assert flow.runs() == []


def test_without_a_loop_nothing_is_started() -> None:
    with pytest.raises(RuntimeError, match=r"flow.start\(\) needs a running event loop"):
        Flow().start(Sleeps(n=1))


# Torture -------------------------------------------------------------------------------------------------


async def test_a_thousand_starts_and_cancels_leave_nothing() -> None:
    async with Flow(keep=0) as flow:
        for n in range(1000):
            run = flow.start([Sleeps(n=n % 7, seconds=60), Sleeps(n=n, seconds=0)])
            for _ in range(n % 4):
                await asyncio.sleep(0)
            run.cancel()
            if n % 3 == 0:
                await run
        await until(lambda: not flow._at_work)
        assert flow.runs() == []
        assert working == 0
        assert len(hub) == 0
        assert not flow._budgets[asyncio.get_running_loop()].table
    assert not other_tasks()


class Layer(Task):
    """Half of the graph is everybody's, the other half the client's own."""

    client: int
    depth: int

    async def run(self) -> int:
        entered[self] += 1
        await asyncio.sleep(0.001 * (self.depth + 1))
        if not self.depth:
            return 1
        own, shared = await gather(
            Layer(client=self.client, depth=self.depth - 1), Layer(client=0, depth=self.depth - 1)
        )
        ended[self] += 1
        return own + shared


async def test_a_want_that_was_met_elsewhere_strands_nobody() -> None:
    """A forced run of the top ends while another waits for what the top requires, which a third then wants."""
    gate = asyncio.Event()

    class Deep(Task):
        async def run(self) -> None:
            await asyncio.sleep(0.1)

    class Sub(Task):
        async def run(self) -> int:
            entered["sub"] += 1
            if entered["sub"] > 1:
                await Deep()
            return entered["sub"]

    class Top(Task):
        def requires(self) -> Task:
            return Sub()

        async def run(self) -> int:
            await gate.wait()
            return 1

    async with Flow() as flow:
        flow.start(Top(), force=True)
        await until(lambda: entered["sub"] == 1)
        await asyncio.sleep(0.01)
        call = asyncio.create_task(flow.run(Top()))
        await until(lambda: entered["sub"] == 2)
        flow.start([Top(), Sleeps(n=1, seconds=60)])
        await asyncio.sleep(0.01)
        gate.set()
        assert await call == 1
        async with asyncio.timeout(10):
            await flow.run(Sub())


async def test_who_leaves_what_a_body_waits_for_does_not_take_the_body_along() -> None:
    """A body goes on for another build than that which began it; a third wants what it waits for, and leaves."""
    gate = asyncio.Event()

    class Waited(Task):
        async def run(self) -> int:
            entered["waited"] += 1
            await gate.wait()
            return 1

    class Waits(Task):
        async def run(self) -> int:
            return await Waited() + 1

    async with Flow() as flow:
        first = flow.start(Waits(), force=True)
        await until(lambda: entered["waited"] == 1)
        second = asyncio.create_task(flow.run(Waits()))
        await asyncio.sleep(0.01)
        first.cancel()
        await first
        third = flow.start(Waited())
        await asyncio.sleep(0.01)
        third.cancel()
        await third
        gate.set()
        async with asyncio.timeout(10):
            assert await second == 2
    assert entered == {"waited": 1}


def test_a_start_that_meets_the_close_of_another_thread_is_stopped_or_refused() -> None:
    for _ in range(30):
        flow, statuses = Flow(), []
        started = threading.Event()

        def elsewhere(flow: Flow = flow, statuses: list[str] = statuses, started: threading.Event = started) -> None:
            async def main() -> None:
                started.set()
                runs: list[Run] = []
                with suppress(FlowClosed):
                    runs.extend(flow.start(Sleeps(n=1, seconds=60)) for _ in range(1000))
                statuses.extend([(await run).status for run in runs])

            asyncio.run(main())

        thread = threading.Thread(target=elsewhere)
        thread.start()
        started.wait(10)
        asyncio.run(flow.close())
        thread.join(20)
        assert not thread.is_alive()
        assert set(statuses) <= {"cancelled"}


class Held(Task):
    """Everything a task may ask for, at random."""

    n: int
    resources = {"db": 1}
    hold = "db"
    retries = 1
    retry_delay = 0.001
    timeout = 0.05
    rate = "api"

    async def run(self) -> int:
        chance = SimulatedLoop.running().random
        await asyncio.sleep(chance.random() * 0.004)
        if chance.random() < 0.1:
            raise ValueError
        if not self.n % 3:
            await Mixed(n=self.n % 5)
        return self.n


class Mixed(Task):
    n: int
    resources = {"disk": 2}

    async def run(self) -> None:
        await asyncio.sleep(SimulatedLoop.running().random.random() * 0.003)
        if self.n % 2:
            await Last(n=self.n)


class Last(Task):
    n: int
    resources = {"disk": 1}

    async def run(self) -> None:
        await asyncio.sleep(SimulatedLoop.running().random.random() * 0.003)


class Above(Task):
    n: int

    def requires(self) -> list[Task]:
        return [Held(n=self.n % 7), Held(n=(self.n + 1) % 7), Mixed(n=self.n % 5)]

    async def run(self) -> int:
        await asyncio.sleep(0.001)
        return self.n


async def runs_of_every_kind_come_and_go() -> None:
    chance = SimulatedLoop.running().random
    limits: dict[str, Any] = {"resources": {"db": 2, "disk": 3}, "rate": {"api": "2000/s"}}
    plain, share, patience = chance.choice([0.2, 0.6]), chance.choice([0.25, 0.5]), chance.choice([0.4, 0.8])

    async def client(flow: Flow, n: int) -> None:
        await asyncio.sleep(chance.random() * 0.1)
        if chance.random() < plain:
            call = asyncio.create_task(flow.run(Above(n=n % 9)))
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() * 0.02)
                call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            return
        kinds: dict[str, Any] = {"force": True, "only": [Above, Held], "fail_fast": True, "timeout": 0.02}
        options = {name: value for name, value in kinds.items() if chance.random() < share}
        run = flow.start(Above(n=n % 9), **options)
        await asyncio.sleep(chance.random() * 0.02)
        run.snapshot()
        if chance.random() < patience:
            run.cancel()
        await run

    async with Flow(concurrency=chance.choice([1, 3, 50]), keep=5, **limits) as flow:
        async with asyncio.timeout(60):  # of the loop's own time: what hangs, hangs for ever
            await asyncio.gather(*(client(flow, n) for n in range(40)))
        [budget] = flow._budgets.values()
        assert (budget.running, budget.seated) == (0, [0, 0, 0])
        assert all(pool.free == pool.capacity and not pool.held for pool in budget.pools.values())
        assert not budget.table
        assert not len(hub)


def test_runs_of_every_kind_come_and_go() -> None:
    explore(runs_of_every_kind_come_and_go, seeds=100)


@pytest.mark.soak
def test_many_runs_of_every_kind_come_and_go() -> None:
    explore(runs_of_every_kind_come_and_go, seeds=5_000)


def test_clients_with_graphs_that_overlap_come_and_go() -> None:
    async def main() -> None:
        chance = SimulatedLoop.running().random
        async with Flow(concurrency=chance.choice([1, 3, 50])) as flow:
            calls = [asyncio.create_task(flow.run(Layer(client=n, depth=3))) for n in range(1, 40)]
            for call in chance.sample(calls, 10):
                await asyncio.sleep(chance.random() * 0.005)
                call.cancel()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            left = [answer for answer in answers if isinstance(answer, BaseException)]
            assert all(isinstance(answer, asyncio.CancelledError) for answer in left)
            assert len(left) <= 10
            assert {answer for answer in answers if isinstance(answer, int)} == {8}
            assert all(count == 1 for task, count in ended.items() if task.client == 0), "each shared task runs once"
        entered.clear()
        ended.clear()

    explore(main, seeds=50)


def test_what_runs_that_share_are_told_is_whole() -> None:
    """Each hears of a task at most once that it starts, then that it ends, whoever pays for it."""

    async def main() -> None:
        chance = SimulatedLoop.running().random
        async with Flow(concurrency=chance.choice([1, 3, 50])) as flow:
            runs = []
            for n in range(8):
                runs.append(flow.start(Layer(client=n % 3, depth=3)))
                await asyncio.sleep(chance.random() * 0.003)
                if chance.random() < 0.2:
                    chance.choice(runs).cancel()
            for run in runs:
                result = await run
                begun, over = Counter[str](), Counter[str]()
                async for event in run.events():
                    if isinstance(event, TaskStarted):
                        begun[event.task.task_id] += 1
                    elif isinstance(event, TaskFinished):
                        over[event.task.task_id] += 1
                        assert begun[event.task.task_id] == 1 or event.status == "cancelled"
                assert set(over.values()) | set(begun.values()) <= {1}
                if result.ok:
                    assert over == begun
        entered.clear()
        ended.clear()

    explore(main, seeds=100)


async def test_two_hundred_clients_of_which_fifty_leave() -> None:
    chance = random.Random(5)
    async with Flow() as flow:
        calls = [asyncio.create_task(flow.run(Layer(client=n, depth=3))) for n in range(1, 201)]
        for call in chance.sample(calls, 50):
            await asyncio.sleep(chance.random() * 0.001)
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {answer for answer in answers if isinstance(answer, int)} == {8}
        assert 150 <= sum(isinstance(answer, int) for answer in answers) < 200
        assert all(count == 1 for task, count in entered.items() if task.client == 0)
        assert not flow._at_work


def test_loops_that_follow_one_another_use_one_flow() -> None:
    flow = Flow(resources={"db": 1})
    for n in range(20):
        assert asyncio.run(flow.run(UsesDb(n=n, seconds=0))) == n
    asyncio.run(flow.close())
    assert len(flow._budgets) <= 1, "those of loops that are gone are gone"


def test_loops_in_threads_share_the_flights_of_a_flow() -> None:
    flow = Flow()
    barrier = threading.Barrier(4)
    answers: list[list[int]] = []

    def one() -> None:
        async def main() -> list[int]:
            barrier.wait(10)
            return await asyncio.gather(*(flow.run(Sleeps(n=n, seconds=0.05)) for n in range(20)))

        answers.append(asyncio.run(main()))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [list(range(20))] * 4
    assert set(entered.values()) <= {1, 2}, "a computed value is gone when the last who wanted it has left"
    asyncio.run(flow.close())
