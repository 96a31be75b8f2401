"""Retries and time limits: what an attempt may cost, and what comes after one that has failed. In virtual time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, ClassVar

import pytest

from asyncflow import (
    Abandoned,
    ConfigError,
    Event,
    MemoryTarget,
    Target,
    Task,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskRetry,
    build,
    gather,
)
from asyncflow.testing import explore, simulate

entered: Counter[Any] = Counter()
HOUR = 3600.0


@pytest.fixture(autouse=True)
def _fresh() -> None:
    MemoryTarget.clear()
    entered.clear()


def now() -> float:
    return asyncio.get_running_loop().time()


def simulated(main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test runs in a simulated loop."""

    def test() -> None:
        simulate(main, seed=1)

    test.__name__, test.__doc__ = main.__name__, main.__doc__
    return test


def simulated_with(main: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    """The same, for a test with a parameter called `seconds`."""

    def test(seconds: Any) -> None:
        simulate(lambda: main(seconds), seed=1)

    test.__name__, test.__doc__ = main.__name__, main.__doc__
    return test


class Flaky(Task):
    """Fails as often as it is told, then gives how often it was entered."""

    failures: int
    retries = 5
    retry_delay = HOUR

    async def run(self) -> int:
        entered[self.failures] += 1
        if entered[self.failures] <= self.failures:
            raise ConnectionError(f"attempt {entered[self.failures]}")
        return entered[self.failures]


def test_five_retries_with_an_hour_between_take_no_time() -> None:
    events: list[Event] = []

    async def main() -> None:
        start = now()
        result = await build(Flaky(failures=5), on_event=events.append)
        assert result[Flaky(failures=5)] == 6
        assert 5 * HOUR / 2 <= now() - start <= 5 * HOUR, "half of each is drawn, and an hour is the most"
        attempts = result.tasks[Flaky(failures=5)].attempts
        assert [str(attempt.error) for attempt in attempts] == [*(f"attempt {n}" for n in range(1, 6)), "None"]
        assert all(later.started - earlier.finished >= HOUR / 2 for earlier, later in pairwise(attempts))

    begun = time.perf_counter()
    simulate(main, seed=1)
    assert time.perf_counter() - begun < 2, "virtual hours"
    retried = [event for event in events if isinstance(event, TaskRetry)]
    assert [event.attempt for event in retried] == [1, 2, 3, 4, 5]
    assert all(HOUR / 2 <= event.wait <= HOUR for event in retried)
    assert [event.status for event in events if isinstance(event, TaskFinished)] == ["succeeded"]


@simulated
async def test_when_all_attempts_have_failed_it_has_failed() -> None:
    class Dependent(Task):
        def requires(self) -> Task:
            return Flaky(failures=9)

        async def run(self) -> None: ...

    result = await build(Dependent())
    assert entered[9] == 6
    assert result.failed == (Flaky(failures=9),)
    assert result.blocked == (Dependent(),)
    assert len(result.tasks[Flaky(failures=9)].attempts) == 6
    with pytest.raises(TaskFailed, match="attempt 6"):
        _ = result[Flaky(failures=9)]


@simulated
async def test_the_builds_retries_are_for_tasks_that_do_not_say() -> None:
    class Never(Flaky):
        retries = 0

    class Silent(Flaky):
        retries = None
        retry_delay = 0.5

    result = await build([Never(failures=1), Silent(failures=2)], retries=2)
    assert result.failed == (Never(failures=1),)
    assert result[Silent(failures=2)] == 3
    assert result.tasks[Never(failures=1)].attempts[0].error is not None


@simulated
async def test_the_place_and_the_resources_are_free_between_attempts() -> None:
    class Waits(Flaky):
        resources = {"db": 1}

    class Quick(Task):
        resources = {"db": 1}

        async def run(self) -> float:
            return now()

    start = now()
    result = await build([Waits(failures=1), Quick()], concurrency=1)
    assert result[Quick()] - start < 1
    assert result[Waits(failures=1)] == 2


@simulated
async def test_what_another_build_wants_meanwhile_is_the_same_flight() -> None:
    async def later() -> Any:
        await asyncio.sleep(HOUR / 4)
        return await Flaky(failures=1)

    assert await asyncio.gather(build(Flaky(failures=1)), later()) != []
    assert entered[1] == 2


@simulated
async def test_a_build_that_leaves_between_two_attempts() -> None:
    one = asyncio.create_task(build(Flaky(failures=5)))
    await asyncio.sleep(1)
    start = now()
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert now() == start, "there is nothing to wait for"
    assert entered[5] == 1
    await asyncio.sleep(10 * HOUR)
    assert entered[5] == 1


@simulated
async def test_handed_over_between_two_attempts_it_goes_on() -> None:
    one = asyncio.create_task(build(Flaky(failures=2)))
    await asyncio.sleep(1)
    two = asyncio.create_task(build(Flaky(failures=2)))
    await asyncio.sleep(1)
    one.cancel()
    await asyncio.sleep(1)
    assert entered[2] == 1, "the delay is not cut short"
    assert (await two)[Flaky(failures=2)] == 3
    assert len(two.result().tasks[Flaky(failures=2)].attempts) == 3


@simulated
async def test_what_the_failed_attempt_asked_for_is_made_once() -> None:
    class Part(Task):
        async def run(self) -> int:
            entered["part"] += 1
            return 20

    class Whole(Task):
        retries = 3

        async def run(self) -> int:
            entered["whole"] += 1
            part = await Part()
            if entered["whole"] < 3:
                raise OSError
            return part + 1

    assert (await build(Whole()))[Whole()] == 21
    assert entered == {"part": 1, "whole": 3}


@simulated
async def test_a_failed_dependency_is_no_reason_to_try_again() -> None:
    class Parent(Task):
        retries = 3

        async def run(self) -> None:
            entered["parent"] += 1
            await Flaky(failures=100)

    result = await build(Parent())
    assert entered["parent"] == 1
    assert result.blocked == (Parent(),)


def test_sync_bodies_are_tried_again_too() -> None:
    class InThread(Task):
        retries = 2
        retry_delay = 0.0

        def output(self) -> MemoryTarget:
            return MemoryTarget("in thread")

        def run(self) -> None:
            entered["thread"] += 1
            if entered["thread"] < 3:
                raise OSError
            self.output().put("made")

    async def main() -> None:
        assert await build(InThread())

    asyncio.run(main())
    assert entered["thread"] == 3


looks: list[Any] = []  # what the looks for an output find: True, False, or an exception; then whether it is there


class Doubtful(Target):
    """In a store that does not always answer."""

    key = "doubtful"

    async def exists(self) -> bool:
        return self.look()

    def look(self) -> bool:
        answer = looks.pop(0) if looks else bool(entered)
        if isinstance(answer, BaseException):
            raise answer
        return bool(answer)


class DoubtfulInThread(Doubtful):
    def exists(self) -> bool:  # type: ignore[override]
        return self.look()


class DoubtfulInBulk(Doubtful):
    @classmethod
    async def exists_many(cls, targets: Sequence[Doubtful]) -> list[bool]:
        return [target.look() for target in targets]


class DoubtfulTwice(Doubtful):
    """A plain def that gives a bare coroutine."""

    def exists(self) -> Awaitable[bool]:  # type: ignore[override]
        return Doubtful._exists(self)  # type: ignore[no-any-return]


class Makes(Task):
    retries = 2
    retry_on = OSError
    kind: ClassVar[type[Doubtful]] = Doubtful

    def output(self) -> Target:
        return self.kind()

    async def run(self) -> None:
        entered["body"] += 1


class MakesInThread(Makes):
    def run(self) -> None:  # type: ignore[override]
        entered["body"] += 1


@pytest.fixture(params=[Doubtful, DoubtfulInThread, DoubtfulInBulk, DoubtfulTwice])
def doubtful(request: pytest.FixtureRequest) -> Iterator[None]:
    Makes.kind = request.param
    yield
    looks.clear()


@pytest.mark.usefixtures("doubtful")
@pytest.mark.parametrize("task", [Makes(), MakesInThread()])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("found", "bodies", "attempts"),
    [
        ([OSError("503")], 1, 2),
        ([OSError("503"), OSError("504")], 1, 3),
        ([OSError("503"), False], 2, 2),
        ([OSError("503"), False, OSError("504")], 2, 3),
    ],
)
def test_only_the_look_for_the_output_is_repeated_where_it_was_that_which_failed(
    task: Task, force: bool, found: list[Any], bodies: int, attempts: int
) -> None:
    async def main() -> None:
        looks[:] = found if force else [False, *found]
        result = await build(task, force=force)
        assert result.counts == {"succeeded": 1}
        assert entered["body"] == bodies
        assert len(result.tasks[task].attempts) == attempts
        assert not looks

    simulate(main, seed=1)


@pytest.mark.usefixtures("doubtful")
def test_where_no_look_succeeds_it_has_failed() -> None:
    async def main() -> None:
        looks[:] = [False, OSError("1"), OSError("2"), OSError("3")]
        events: list[Event] = []
        result = await build(Makes(), on_event=events.append)
        assert result.counts == {"failed": 1}
        assert str(result.tasks[Makes()].error) == "3"
        assert entered["body"] == 1
        assert [str(event.error) for event in events if isinstance(event, TaskRetry)] == ["1", "2"]

    simulate(main, seed=1)


@pytest.mark.parametrize("stage", ["after the body", "before the next"])
@pytest.mark.parametrize("end", ["its time is up", "it is not wanted"])
def test_a_look_that_hangs(stage: str, end: str) -> None:
    class Hanging(Doubtful):
        async def exists(self) -> bool:
            there = self.look()
            if there and hangs:
                hangs.pop()
                await asyncio.sleep(HOUR)
            return there

    class Limited(Task):
        retries = 2
        timeout = 60 if end == "its time is up" else None

        def output(self) -> Target:
            return Hanging()

        async def run(self) -> None:
            entered["body"] += 1

    async def main() -> None:
        looks[:] = [False] if stage == "after the body" else [False, OSError("503")]
        result = await build(Limited(), timeout=None if end == "its time is up" else 30)
        assert result.counts == ({"succeeded": 1} if end == "its time is up" else {"cancelled": 1})
        assert entered["body"] == 1

    hangs = [1]
    simulate(main, seed=1)
    looks.clear()


def test_a_look_before_the_next_attempt_that_ignores_its_cancel_is_given_up() -> None:
    class Stubborn(Doubtful):
        async def exists(self) -> bool:
            there = self.look()
            while there and not over.is_set():
                with suppress(asyncio.CancelledError):
                    await over.wait()
            return there

    class Asks(Makes):
        kind = Stubborn

    async def main() -> None:
        looks[:] = [False, OSError("503")]
        events: list[Event] = []
        result = await build(Asks(), timeout=60, grace=5, on_event=events.append)
        assert result.counts == {"cancelled": 1}
        [abandoned] = [event for event in events if isinstance(event, Abandoned)]
        assert (abandoned.task, *abandoned.stack) == (Asks(), "in the exists() hook of its output")
        over.set()
        await asyncio.sleep(1)
        assert entered["body"] == 1

    over = asyncio.Event()
    simulate(main, seed=1)


def test_a_store_that_goes_silent_after_the_body_fails_the_task_when_its_time_is_up() -> None:
    class Silent(Target):
        async def exists(self) -> bool:
            if entered:
                await asyncio.sleep(HOUR)
            return False

    class Limited(Task):
        retries = 2
        timeout = 60

        def output(self) -> Target:
            return Silent()

        async def run(self) -> None:
            entered["body"] += 1

    async def main() -> None:
        async with asyncio.timeout(HOUR / 2):
            result = await build(Limited())
        assert result.counts == {"failed": 1}
        assert "more than its timeout of 60 s" in str(result.tasks[Limited()].error)
        assert entered["body"] == 1

    simulate(main, seed=1)


@simulated
async def test_an_attempt_that_failed_publishes_nothing_any_more() -> None:
    escaped: list[asyncio.Task[None]] = []

    class Leaves(Task):
        retries = 1
        retry_delay = 10.0

        def output(self) -> MemoryTarget:
            return MemoryTarget("left")

        async def late(self) -> None:
            await asyncio.sleep(2)
            self.output().put("by the first")

        async def run(self) -> None:
            entered["leaves"] += 1
            if entered["leaves"] == 1:
                escaped.append(asyncio.create_task(self.late()))
                raise OSError
            self.output().put("by the second")

    assert await build(Leaves())
    with pytest.raises(TaskCancelled):
        await escaped[0]
    assert MemoryTarget("left").get() == "by the second"


@pytest.mark.parametrize("name", ["retry_on", "retry_delay"])
def test_an_option_that_raises_fails_the_task_and_not_the_engine(name: str) -> None:
    def raises(_: Any) -> Any:
        raise LookupError("no such table")

    class Wrong(Task):
        retries = 3

        async def run(self) -> None:
            raise OSError("down")

    odd = type("Odd", (Wrong,), {name: staticmethod(raises)})

    async def main() -> None:
        for _ in range(2):  # the second finds nothing of the first
            result = await build([odd(), Flaky(failures=0)])
            assert result.counts == {"succeeded": 1, "failed": 1}
            error = result.tasks[odd()].error
            assert isinstance(error, ConfigError)
            assert str(error) == f"Odd().{name} raised LookupError: no such table"

    simulate(main, seed=1)


@pytest.mark.parametrize("seconds", ["soon", None, float("nan"), float("inf")])
@simulated_with
async def test_a_delay_that_is_no_number(seconds: Any) -> None:
    class Odd(Task):
        retries = 1
        retry_delay = staticmethod(lambda failures: seconds)

        async def run(self) -> None:
            raise OSError

    [error] = (await build(Odd())).errors()
    assert "expected a number of seconds" in str(error.__cause__)


# Time limits ---------------------------------------------------------------------------------------------


class Slow(Task):
    seconds: float
    timeout = 5

    async def run(self) -> str:
        entered["slow"] += 1
        await asyncio.sleep(self.seconds)
        return "done"


@simulated
async def test_an_attempt_that_takes_too_long_has_failed() -> None:
    start = now()
    result = await build([Slow(seconds=4), Slow(seconds=60)])
    assert now() - start == 5
    assert result[Slow(seconds=4)] == "done"
    with pytest.raises(TaskFailed, match=r"Slow\(seconds=60(\.0)?\) was at work for more than its timeout of 5 s"):
        _ = result[Slow(seconds=60)]
    assert isinstance(result.tasks[Slow(seconds=60)].error, TimeoutError)


@simulated
async def test_each_attempt_has_the_whole_time() -> None:
    class Twice(Task):
        timeout = 5
        retries = 1
        retry_delay = 1.0

        async def run(self) -> int:
            entered["twice"] += 1
            await asyncio.sleep(60 if entered["twice"] == 1 else 4)
            return entered["twice"]

    assert (await build(Twice()))[Twice()] == 2


@simulated
async def test_neither_the_queue_nor_the_wait_for_others_counts() -> None:
    class Child(Task):
        n: int

        async def run(self) -> None:
            await asyncio.sleep(HOUR)

    class Patient(Task):
        timeout = 5

        async def run(self) -> str:
            await asyncio.sleep(2)
            await Child(n=1)
            await gather(Child(n=2), Child(n=3))
            try:
                async with asyncio.timeout(1):
                    await Child(n=4)
            except TimeoutError:
                pass
            await asyncio.sleep(2)
            return "done"

    class TooMuch(Patient):
        async def run(self) -> str:
            await Child(n=1)
            await asyncio.sleep(3)
            await Child(n=2)
            await asyncio.sleep(3)
            return "done"

    result = await build([Slow(seconds=4), Patient()], concurrency=1)
    assert result[Patient()] == "done"
    assert (await build(TooMuch())).failed == (TooMuch(),)


@simulated
async def test_a_body_that_will_not_stop_is_left_behind_and_has_failed() -> None:
    class Stubborn(Task):
        timeout = 5

        async def run(self) -> None:
            for _ in range(5):
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    entered["swallowed"] += 1

    events: list[Event] = []
    start = now()
    result = await build(Stubborn(), grace=2.0, on_event=events.append)
    assert now() - start == 7
    assert isinstance(result.tasks[Stubborn()].error, TimeoutError)
    assert [event.task for event in events if isinstance(event, Abandoned)] == [Stubborn()]
    assert entered["swallowed"] == 2
    await asyncio.sleep(HOUR)


@simulated
async def test_a_body_that_ends_while_it_is_being_stopped_was_too_late() -> None:
    class Late(Task):
        timeout = 5

        async def run(self) -> str:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                pass
            return "late"

    class Breaks(Late):
        async def run(self) -> str:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                raise OSError("closing the connection") from None
            return ""

    result = await build([Late(), Breaks()])
    assert isinstance(result.tasks[Late()].error, TimeoutError)
    error = result.tasks[Breaks()].error
    assert isinstance(error, TimeoutError)
    assert isinstance(error.__cause__, OSError)


@simulated
async def test_what_it_had_published_whole_before_its_time_was_up_stands() -> None:
    class Lingers(Task):
        timeout = 5
        retries = 2

        def output(self) -> MemoryTarget:
            return MemoryTarget("lingers")

        async def run(self) -> None:
            entered["lingers"] += 1
            self.output().put("made")
            await asyncio.sleep(100)

    start = now()
    result = await build(Lingers())
    assert now() - start == 5
    assert result.ran == (Lingers(),)
    assert entered["lingers"] == 1


@simulated
async def test_the_last_to_leave_waits_for_a_body_whose_time_was_up() -> None:
    gone: list[float] = []

    class Slowly(Task):
        timeout = 5

        async def run(self) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(1)
                gone.append(now())

    one, two = (asyncio.create_task(build(Slowly(), grace=3.0)) for _ in range(2))
    await asyncio.sleep(5.2)
    for task in (one, two):
        task.cancel()
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        await two
    assert gone, "it was still alive when the last build returned"
    with pytest.raises(asyncio.CancelledError):
        await one


@simulated
async def test_cancelled_while_it_is_being_stopped_for_its_time() -> None:
    class Slowly(Task):
        timeout = 5
        retries = 3

        async def run(self) -> None:
            entered["slowly"] += 1
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0.4)

    one = asyncio.create_task(build(Slowly()))
    await asyncio.sleep(5.2)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert entered["slowly"] == 1


def test_a_sync_body_past_its_time_is_left_behind(abandoned: Callable[..., None]) -> None:
    import threading

    abandoned(threads=1)
    go_on = threading.Event()

    class InThread(Task):
        timeout = 0.05

        def output(self) -> MemoryTarget:
            return MemoryTarget("late")

        def run(self) -> None:
            go_on.wait(20)
            self.output().put("late")

    async def main() -> None:
        result = await build(InThread(), grace=0.05)
        assert isinstance(result.tasks[InThread()].error, TimeoutError)

    asyncio.run(main())
    go_on.set()
    with pytest.raises(KeyError):
        MemoryTarget("late").get()


# The build's own time ------------------------------------------------------------------------------------


@simulated
async def test_a_build_whose_time_is_up_returns_cancelled_and_says_why() -> None:
    start = now()
    result = await build([Flaky(failures=0), Slow(seconds=4), Patience()], timeout=10)
    assert now() - start == 10
    assert result.status == "cancelled"
    assert result.why == "the build took more than its timeout of 10 s"
    assert result[Slow(seconds=4)] == "done"
    assert result.counts == {"succeeded": 2, "cancelled": 1}
    with pytest.raises(TaskCancelled):
        _ = result[Patience()]
    assert not result
    assert result.exit_code == 1


class Patience(Task):
    async def run(self) -> None:
        await asyncio.sleep(HOUR)


@simulated
async def test_what_others_go_on_with_is_cancelled_for_the_build_that_was_stopped() -> None:
    class Fails(Task):
        async def run(self) -> None:
            raise ValueError("at once")

    other = asyncio.create_task(build(Patience()))
    late = asyncio.create_task(build([Patience(), Slow(seconds=4)], timeout=10))
    failing = asyncio.create_task(build([Patience(), Fails()], fail_fast=True))
    left = await late
    assert (left.status, left.counts) == ("cancelled", {"succeeded": 1, "cancelled": 1})
    assert not left
    failed = await failing
    assert (failed.status, failed.counts) == ("failed", {"failed": 1, "cancelled": 1})
    for result in (left, failed):
        with pytest.raises(TaskCancelled):
            _ = result[Patience()]
    assert (await other).counts == {"succeeded": 1}
    # It stays as it was when the build ended.
    assert left.tasks[Patience()].status == failed.tasks[Patience()].status == "cancelled"
    assert left.tasks[Patience()].finished is None


@simulated
async def test_a_build_that_ends_in_time_has_no_reason() -> None:
    result = await build(Slow(seconds=4), timeout=10)
    assert result
    assert result.why is None
    await asyncio.sleep(20)


def test_a_build_with_a_sync_body_of_three_seconds_returns_in_time(abandoned: Callable[..., None]) -> None:
    abandoned(threads=2)

    class Three(Task):
        n: int

        def output(self) -> MemoryTarget:
            return MemoryTarget(f"three {self.n}")

        def run(self) -> None:
            time.sleep(3)
            self.output().put(3)

    async def main() -> None:
        start = time.perf_counter()
        result = await build(Three(n=1), timeout=0.1, grace=0.2)
        assert result.status == "cancelled"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await build(Three(n=2), grace=0.2)
        assert time.perf_counter() - start < 2
        await asyncio.sleep(3.2)
        for n in (1, 2):
            with pytest.raises(KeyError):
                MemoryTarget(f"three {n}").get()

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong", [{"timeout": -1}, {"timeout": "1"}, {"retries": -1}, {"retries": None}, {"fail_fast": 1}]
)
async def test_wrong_options(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=rf"build\({next(iter(wrong))}="):
        await build(Flaky(failures=0), **wrong)


def test_random_attempts_by_seed() -> None:
    """Tasks with any limits and failures, two builds of which one leaves: every task has its end, none too often."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        draw = loop.random

        class Any_(Task):
            n: int
            retries = 2
            retry_delay = 1.0
            timeout = 3

            def requires(self) -> list[Task]:
                return [Any_(n=n) for n in needs[self.n]]

            async def run(self) -> int:
                times[self.n] += 1
                working[self.n] += 1
                assert working[self.n] == 1
                try:
                    await asyncio.sleep(draw.choice([0, 1, 2, 10]))
                    if draw.random() < 0.3:
                        raise OSError
                finally:
                    working[self.n] -= 1
                return self.n

        size = draw.randint(2, 12)
        needs = {n: draw.sample(range(n), min(n, draw.randint(0, 2))) for n in range(size)}
        times: Counter[int] = Counter()
        working: Counter[int] = Counter()
        stays = asyncio.create_task(build(Any_(n=size - 1), concurrency=draw.randint(1, 3)))
        leaves = asyncio.create_task(build([Any_(n=n) for n in range(size // 2)], concurrency=2))
        await asyncio.sleep(draw.choice([0, 1, 5, 20]))
        leaves.cancel()
        result = await stays
        assert set(result.counts) <= {"succeeded", "failed", "blocked", "complete"}
        for task, outcome in result.tasks.items():
            assert len(outcome.attempts) <= 3
            if outcome.status == "failed":
                assert len(outcome.attempts) == 3, (task, outcome)
        with pytest.raises(asyncio.CancelledError):
            if not leaves.done() or leaves.cancelled():
                await leaves
            else:
                raise asyncio.CancelledError

    explore(main, seeds=300)
