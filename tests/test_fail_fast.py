"""``fail_fast``: the first failure ends the build, and nothing but the build. In virtual time where time matters."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asyncflow import (
    ConfigError,
    ExternalTask,
    MemoryTarget,
    Target,
    Task,
    TaskCancelled,
    TaskFailed,
    WrapperTask,
    build,
)
from asyncflow.hub import hub
from asyncflow.testing import explore, simulate

log: list[str] = []
PATIENCE = 20.0


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    MemoryTarget.clear()
    log.clear()
    yield
    assert not len(hub), "a claim outlived its build"


def simulated(main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test runs in a simulated loop."""

    def test() -> None:
        simulate(main, seed=1)

    test.__name__, test.__doc__ = main.__name__, main.__doc__
    return test


def now() -> float:
    return asyncio.get_running_loop().time()


class Fails(Task):
    after: float = 1

    async def run(self) -> None:
        await asyncio.sleep(self.after)
        raise ValueError("row 17")


class Long(Task):
    name: str = "long"
    unwinds: float = 0

    async def run(self) -> str:
        log.append(f"{self.name} begins")
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(self.unwinds)
            log.append(f"{self.name} stops")
            raise
        return self.name


class After(Task):
    def requires(self) -> Task:
        return Fails()

    async def run(self) -> None:
        log.append("after")


@simulated
async def test_siblings_are_stopped_and_waited_for() -> None:
    start = now()
    result = await build([After(), Long(unwinds=0.25)], fail_fast=True)
    assert now() - start == 1.25
    assert log == ["long begins", "long stops"]
    assert (result.status, result.exit_code, result.why) == ("failed", 1, None)
    assert result.counts == {"failed": 1, "blocked": 1, "cancelled": 1}
    with pytest.raises(TaskFailed, match="row 17"):
        _ = result[Fails()]
    with pytest.raises(TaskCancelled):
        _ = result[Long(unwinds=0.25)]


@simulated
async def test_by_default_they_go_on() -> None:
    start = now()
    result = await build([After(), Long()])
    assert now() - start == 100
    assert result.counts == {"succeeded": 1, "failed": 1, "blocked": 1}


@simulated
async def test_a_body_that_does_not_stop_is_left_behind() -> None:
    class Stubborn(Task):
        async def run(self) -> None:
            while now() < 5:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    log.append("asked to stop")

    result = await build([Fails(after=0.5), Stubborn()], fail_fast=True, grace=2)
    assert now() == 2.5
    assert log == ["asked to stop", "asked to stop"]
    assert result.status == "failed"
    await asyncio.sleep(5)  # until what was left behind has ended


def test_nothing_starts_afterwards() -> None:
    class Notes(Task):
        n: int

        async def run(self) -> None:
            assert not failed, "a body was entered after the failure"
            await asyncio.sleep(self.n % 3)

    class Last(Task):
        async def run(self) -> None:
            await asyncio.sleep(2.5)
            failed.append(True)
            raise ValueError

    failed: list[bool] = []

    async def main() -> None:
        failed.clear()
        result = await build([Last(), *(Notes(n=n) for n in range(50))], fail_fast=True, concurrency=3)
        assert result.status == "failed"
        assert result.failed == (Last(),)
        assert result.counts["cancelled"] > 10

    explore(main, seeds=50)


@simulated
async def test_what_is_not_known_or_missing_is_a_failure_of_the_planning() -> None:
    class Broken(Target):
        def exists(self) -> bool:
            raise OSError("the disk is on fire")

    class Unknown(Task):
        def output(self) -> Target:
            return Broken()

        async def run(self) -> None: ...

    class Missing(ExternalTask):
        def output(self) -> MemoryTarget:
            return MemoryTarget("not there")

    unknown = await build([Long(), Unknown()], fail_fast=True)
    assert (unknown.status, unknown.unknown) == ("failed", (Unknown(),))
    missing = await build([Long(), Missing()], fail_fast=True)
    assert (missing.status, missing.missing) == ("incomplete", (Missing(),))
    assert not [line for line in log if line.endswith("begins")]


@simulated
async def test_a_dynamic_dependency_that_fails() -> None:
    class Asks(Task):
        async def run(self) -> None:
            log.append("asks")
            await asyncio.gather(Fails(), Long())

    result = await build(Asks(), fail_fast=True)
    assert (result.status, result.failed) == ("failed", (Fails(),))
    assert now() == 1
    assert log == ["asks", "long begins", "long stops"]


@simulated
async def test_a_failure_with_attempts_left_is_none() -> None:
    class Second(Task):
        retries = 1
        retry_delay = 10

        async def run(self) -> None:
            log.append("attempt")
            if len(log) == 1:
                raise ValueError

    assert await build(Second(), fail_fast=True)
    assert log == ["attempt", "attempt"]


def test_in_threads() -> None:
    begun = threading.Event()

    class InThread(Task):
        async def run(self) -> None:
            await asyncio.to_thread(begun.wait, PATIENCE)

    class FailsInThread(Task):
        def run(self) -> None:
            begun.set()
            raise ValueError("row 17")

    class Behind(Task):
        def run(self) -> None:
            log.append("entered")

    tasks = [InThread(), FailsInThread(), *(Behind() for _ in range(1))]
    result = asyncio.run(build(tasks, fail_fast=True, threads=1))
    assert (result.status, result.failed) == ("failed", (FailsInThread(),))
    assert not log


@simulated
async def test_the_tasks_of_another_build_go_on() -> None:
    """Both want the long one; it is on the account of whichever came first."""
    for first in (True, False):
        log.clear()
        hasty = build([Long(), Fails()], fail_fast=True)
        patient = build(Long())
        futures = [asyncio.create_task(one) for one in ((hasty, patient) if first else (patient, hasty))]
        results = await asyncio.gather(*futures)
        failed, whole = results if first else results[::-1]
        assert failed.counts == {"cancelled": 1, "failed": 1}
        assert failed.status == "failed"
        assert whole[Long()] == "long"
        assert log == ["long begins"]


@simulated
async def test_the_failure_of_a_shared_task_stops_the_hasty_build_alone() -> None:
    """Whoever pays for it: directly, below something else that goes on, and below a body that waits."""

    class Static(Task):
        def requires(self) -> Any:
            return [Fails(after=5), Long(name="slow")]

        async def run(self) -> None: ...

    class Dynamic(Task):
        async def run(self) -> None:
            await asyncio.gather(Fails(after=5), Long(name="slow"), return_exceptions=True)

    for top in (Fails(after=5), Static(), Dynamic()):
        start = now()
        patient = asyncio.create_task(build([top, Long()]))
        await asyncio.sleep(1)
        hasty = await build([top, Long(name="mine")], fail_fast=True)
        assert now() - start == 5, top
        assert hasty.status == "failed"
        assert hasty.failed == (Fails(after=5),)
        assert hasty.tasks[Long(name="mine")].status == "cancelled"
        counts = dict(hasty.counts)
        assert (await patient)[Long()] == "long"
        assert hasty.counts == counts, "what goes on for others does not change what came of it here"


@simulated
async def test_what_it_does_not_want_does_not_stop_it() -> None:
    class Leaves(Task):
        async def run(self) -> str:
            try:
                async with asyncio.timeout(1):
                    await Fails(after=50)
            except TimeoutError:
                pass
            return await Long()

    hasty = asyncio.create_task(build(Leaves(), fail_fast=True))
    await asyncio.sleep(0.5)
    other = await build(Fails(after=50))
    assert other.status == "failed"
    assert (await hasty)[Leaves()] == "long"


@simulated
async def test_two_hasty_builds() -> None:
    one, two, three = await asyncio.gather(
        build([Fails(after=2), Long()], fail_fast=True),
        build([Fails(after=2), Long(), Long(name="b")], fail_fast=True),
        build([Long(), Fails(after=3)], fail_fast=True),
    )
    assert one.counts == {"failed": 1, "cancelled": 1}
    assert two.counts == {"failed": 1, "cancelled": 2}
    assert three.counts == {"failed": 1, "cancelled": 1}
    assert now() == 3
    assert sorted(log) == ["b begins", "b stops", "long begins", "long stops"]


def asks_after(gate: threading.Event, begun: threading.Event) -> type[Task]:
    class Part(Task):
        async def run(self) -> int:
            return 20

    class Whole(Task):
        async def run(self) -> int:
            begun.set()
            await asyncio.to_thread(gate.wait, PATIENCE)
            return await Part() + 1

    return Whole


def test_a_flight_kept_for_another_loop_goes_on_where_it_began() -> None:
    """Its starter was stopped by a failure, and starts nothing more; the flight asks for more all the same."""
    gate, begun, over = threading.Event(), threading.Event(), threading.Event()
    kind = asks_after(gate, begun)

    class Later(Task):
        async def run(self) -> None:
            while not sum(len(queue.nodes) for queue in list(hub._queues.values())):
                await asyncio.sleep(0.001)
            raise ValueError("row 17")

    async def starter() -> Any:
        result = await build([kind(), Later()], fail_fast=True)
        gate.set()
        await asyncio.to_thread(over.wait, PATIENCE)
        return result

    async def joiner() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await kind()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: asyncio.run(starter()))
        assert begun.wait(PATIENCE)
        second = pool.submit(lambda: asyncio.run(joiner()))
        try:
            assert second.result(PATIENCE) == 21
        finally:
            over.set()
        assert first.result(PATIENCE).counts == {"failed": 1, "cancelled": 1}


@simulated
async def test_below_a_wrapper() -> None:
    class All(WrapperTask):
        def requires(self) -> Any:
            return [Fails(), Long()]

    result = await build(All(), fail_fast=True)
    assert result.failed == (Fails(),)
    assert now() == 1


async def test_it_is_true_or_false() -> None:
    with pytest.raises(ConfigError, match=r"build\(fail_fast='yes'\): expected True or False"):
        await build(Long(), fail_fast="yes")  # type: ignore[arg-type]


@simulated
async def test_a_build_that_runs_out_of_time_has_not_made_what_goes_on_for_others() -> None:
    other = asyncio.create_task(build(Long()))
    await asyncio.sleep(1)
    result = await build(Long(), timeout=1)
    assert (result.status, result.counts) == ("cancelled", {"cancelled": 1})
    with pytest.raises(TaskCancelled):
        _ = result[Long()]
    assert (await other)[Long()] == "long"
    assert (result.status, result.counts) == ("cancelled", {"cancelled": 1})
    assert result.tasks[Long()].finished is None
