"""``force`` and ``only``: what runs although it is complete, and what does not run although it is not."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asyncflow import (
    ConfigError,
    ExternalTask,
    MemoryTarget,
    MissingInput,
    Task,
    TaskFailed,
    WrapperTask,
    build,
    plan,
)
from asyncflow.errors import PlanError, TaskNotFound
from asyncflow.hub import hub
from asyncflow.testing import explore, simulate

entered: Counter[str] = Counter()
PATIENCE = 20.0


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    MemoryTarget.clear()
    entered.clear()
    yield
    MemoryTarget.clear()
    assert not len(hub), "a claim outlived its build"


class Made(Task):
    """Puts how often it has run into its target; what it needs is its name's letters but the first."""

    name: str

    def requires(self) -> Any:
        return [type(self)(name=self.name[1:])] if self.name[1:] else []

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"{type(self).__name__} {self.name}")

    async def run(self) -> None:
        entered[self.name] += 1
        await asyncio.sleep(1)
        self.output().put(entered[self.name])


class Handmade(Made):
    """Another family."""


class Raw(ExternalTask):
    def output(self) -> MemoryTarget:
        return MemoryTarget("raw")


class All(WrapperTask):
    names: tuple[str, ...]

    def requires(self) -> Any:
        return [Made(name=name) for name in self.names]


A, BA, CBA = Made(name="a"), Made(name="ba"), Made(name="cba")


def simulated(main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test runs in a simulated loop."""

    def test() -> None:
        simulate(main, seed=1)

    test.__name__, test.__doc__ = main.__name__, main.__doc__
    return test


async def made(*tasks: Task) -> None:
    """They are complete, and nothing has been counted."""
    assert await build(tasks)
    entered.clear()


# force -----------------------------------------------------------------------------------------------------


@simulated
async def test_true_runs_what_was_asked_for_and_nothing_else() -> None:
    await made(CBA)
    result = await build(CBA, force=True)
    assert entered == {"cba": 1}
    assert result.tasks[CBA].reason == "forced"
    assert result.tasks[BA].status == "complete"
    assert (await plan(CBA, force=True)).to_run == (CBA,)
    assert not (await plan(CBA)).to_run
    assert "Made(name=cba)  forced" in str(await plan(CBA, force=True))


@simulated
async def test_a_forced_run_replaces_what_was_there() -> None:
    await made(A)
    A.output().put("stale")
    await build(A, force=True)
    assert A.output().get() == 1


@simulated
async def test_a_wrapper_passes_force_on_to_what_it_requires() -> None:
    class Everything(WrapperTask):
        def requires(self) -> Any:
            return [All(names=("ba",)), Raw(), Handmade(name="x")]

    MemoryTarget("raw").put(1)
    await made(Everything())
    result = await build(Everything(), force=True)
    assert result
    assert entered == {"ba": 1, "x": 1}, "through the wrapper inside it, and no further"


@simulated
async def test_an_external_task_is_never_forced() -> None:
    MemoryTarget("raw").put(1)
    assert (await build(Raw(), force=True)).tasks[Raw()].status == "complete"
    assert (await build(Raw(), force=[Raw()])).tasks[Raw()].status == "complete"
    MemoryTarget.clear()
    assert (await build(Raw(), force="upstream")).missing == (Raw(),)


@simulated
async def test_upstream_runs_all_that_is_required() -> None:
    await made(CBA)
    result = await build(CBA, force="upstream")
    assert entered == {"cba": 1, "ba": 1, "a": 1}
    assert {item.reason for item in result.tasks.values()} == {"forced"}
    assert (await plan(CBA, force="upstream")).to_run == (CBA, BA, A)


@simulated
async def test_given_tasks_and_what_requires_them() -> None:
    beside = Made(name="xa")
    await made(CBA, beside)
    result = await build([CBA, beside], force=[BA])
    assert entered == {"ba": 1, "cba": 1}
    assert result.tasks[A].status == "complete"
    assert (await plan([CBA, beside], force=BA)).to_run == (CBA, BA)
    entered.clear()
    assert await build([CBA, beside], force=A)
    assert entered == {"a": 1, "ba": 1, "cba": 1, "xa": 1}
    entered.clear()
    assert await build(beside, force=[BA])
    assert not entered, "it is not below what was asked for"


@simulated
async def test_what_bodies_ask_for_is_forced_too() -> None:
    class Asks(Task):
        async def run(self) -> None:
            await A
            await A

    await made(A)
    for force in ("upstream", [A]):
        assert await build(Asks(), force=force)  # type: ignore[arg-type]
    assert entered == {"a": 2}, "once in each build, however often it is asked for"
    assert await build(Asks(), force=True)
    assert entered == {"a": 2}, "only what was asked for"


@pytest.mark.parametrize("wrong", ["targets", "downstream", 3, Made, [A, "a"]])
async def test_what_cannot_be_forced(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"build\(force=.*expected True, \"upstream\", or tasks"):
        await build(A, force=wrong)


def test_a_forced_build_waits_for_an_unforced_flight_and_runs_afterwards() -> None:
    spans: list[tuple[float, float]] = []

    class Long(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("long")

        async def run(self) -> None:
            loop = asyncio.get_running_loop()
            start = loop.time()
            await asyncio.sleep(10)
            spans.append((start, loop.time()))
            self.output().put(len(spans))

    async def later(delay: float, **options: Any) -> Any:
        await asyncio.sleep(delay)
        return await build(Long(), **options)

    async def main() -> None:
        MemoryTarget.clear()
        spans.clear()
        first, second, third, fourth = await asyncio.gather(
            later(0), later(1, force=True), later(2, force=True), later(15)
        )
        assert spans == [(0, 10), (10, 20)], "equal forced requests are one"
        assert first.tasks[Long()].reason == "output missing"
        assert second.tasks[Long()].reason == "forced"
        assert all((first, second, third, fourth))
        assert fourth.skipped == (Long(),), "it was there all the time"

    explore(main, seeds=50)


@simulated
async def test_an_unforced_build_joins_a_forced_flight() -> None:
    class Computed(Task):
        async def run(self) -> float:
            entered["run"] += 1
            await asyncio.sleep(10)
            return entered["run"]

    forced = asyncio.create_task(build(Computed(), force=True))
    await asyncio.sleep(1)
    assert await Computed() == 1
    assert (await forced)[Computed()] == 1


def test_force_in_two_loops() -> None:
    """The forced one waits for the flight of the other loop, and runs when that has ended."""
    go_on = threading.Event()
    inside = [threading.Event(), threading.Event()]

    class Slow(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("slow")

        def run(self) -> None:
            entered["slow"] += 1
            n = entered["slow"]
            inside[n - 1].set()
            assert go_on.wait(PATIENCE)
            self.output().put(n)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(lambda: asyncio.run(build(Slow())))
        assert inside[0].wait(PATIENCE)
        forced = [pool.submit(lambda: asyncio.run(build(Slow(), force=True))) for _ in range(2)]
        while sum(len(queue.nodes) for queue in list(hub._queues.values())) < 2:
            threading.Event().wait(0.001)
        assert not inside[1].is_set()
        go_on.set()
        assert first.result(PATIENCE).tasks[Slow()].reason == "output missing"
        assert all(future.result(PATIENCE).tasks[Slow()].reason == "forced" for future in forced)
    # The second forced one joins the first if that is still at work by the time it looks.
    assert 2 <= entered["slow"] <= 3


# only ------------------------------------------------------------------------------------------------------


@simulated
async def test_only_what_is_selected_runs() -> None:
    result = await build(CBA, only=A)
    assert entered == {"a": 1}
    assert result.missing == (CBA, BA)
    assert (result.status, result.exit_code) == ("incomplete", 3)
    with pytest.raises(TaskFailed, match=r"Made\(name=cba\) is not among the `only` tasks of this build"):
        _ = result[CBA]
    [error, _] = result.errors()
    assert isinstance(error, MissingInput)
    assert "is not among the `only` tasks of this build, and is not complete" in str(error)


@simulated
async def test_what_is_selected_uses_what_is_there_and_is_blocked_by_what_is_not() -> None:
    result = await build(CBA, only=[CBA])
    assert (result.missing, result.blocked) == ((BA, A), (CBA,))
    assert result.tasks[CBA].blocked_by == BA
    assert not entered
    await made(BA)
    assert (await build(CBA, only=[CBA])).ran == (CBA,)


@simulated
async def test_classes_names_and_tasks() -> None:
    class Sundry(Made):
        pass

    class Both(WrapperTask):
        def requires(self) -> Any:
            return [Sundry(name="m"), Handmade(name="o"), Handmade(name="p")]

    result = await build(Both(), only=["Sundry", Handmade(name="p")])
    assert result.missing == (Handmade(name="o"),)
    assert entered == {"m": 1, "p": 1}, "a wrapper is walked through; a base class takes all"


def test_a_class_stands_for_what_derives_from_it_too() -> None:
    async def main() -> None:
        assert await build(Handmade(name="o"), only=Made)
        MemoryTarget.clear()
        assert not await build(Made(name="m"), only=Handmade)
        assert await build(Handmade(name="o"), only="Handmade")
        assert await build(Made(name="m"), only=["Made", "Handmade"])

    simulate(main, seed=1)


async def test_an_unknown_name_is_told_before_anything_runs() -> None:
    with pytest.raises(TaskNotFound, match="no task is called 'Handmad'; did you mean 'Handmade'"):
        await build(A, only="Handmad")
    for wrong in (3, [3], [object()], [int]):
        with pytest.raises(ConfigError, match=r"build\(only=...\): expected tasks, task classes or their names"):
            await build(A, only=wrong)  # type: ignore[arg-type]
    assert not entered


@simulated
async def test_a_computed_task_outside_is_missing() -> None:
    class Computed(Task):
        async def run(self) -> int:
            return 3

    class Needs(Task):
        async def run(self) -> int:
            return await Computed()

    result = await build(Needs(), only=Needs)
    assert result.missing == (Computed(),)
    assert result.blocked == (Needs(),)
    assert (await build(Needs(), only=[Needs, Computed]))[Needs()] == 3


@simulated
async def test_the_plan_says_what_is_left_out() -> None:
    found = await plan(CBA, only=[BA, A])
    assert found.to_run == (BA, A)
    assert "missing Made(name=cba)  not among the `only` tasks, and not complete" in str(found)
    assert (await plan(CBA, only=CBA)).summary() == "0 to run, 2 missing, 1 blocked.  Nothing was executed."


@simulated
async def test_force_and_only() -> None:
    await made(CBA)
    assert await build(CBA, force="upstream", only=[A, BA]) is not None
    assert entered == {"a": 1, "ba": 1}, "what is not selected is not run, forced or not"


@simulated
async def test_what_is_forced_and_not_selected_is_complete_if_it_is_there() -> None:
    await made(CBA)
    result = await build(CBA, force="upstream", only=A)
    assert result
    assert result.tasks[CBA].status == "complete"
    assert (await plan(CBA, force="upstream", only=A)).to_run == (A,)


def test_beside_a_build_of_everything() -> None:
    async def main() -> None:
        MemoryTarget.clear()
        entered.clear()
        whole, part = await asyncio.gather(build(CBA), build(CBA, only=A))
        assert whole
        assert part.missing == (CBA, BA) or part.tasks[BA].status in ("complete", "adopted")
        assert entered == {"a": 1, "ba": 1, "cba": 1}

    explore(main, seeds=100)


@simulated
async def test_what_a_kept_flight_asks_for_is_left_out_of_no_other_build() -> None:
    """The build with `only` has left, its body goes on for another one, and asks for what was not selected."""
    go_on = asyncio.Event()

    class Flies(Task):
        async def run(self) -> str:
            await go_on.wait()
            try:
                await Handmade(name="z")
            except TaskFailed:
                return "left out"
            return "made"

    part = asyncio.create_task(build(Flies(), only=Flies))
    await asyncio.sleep(1)
    joiner = asyncio.create_task(build(Flies()))
    await asyncio.sleep(1)
    part.cancel()
    await asyncio.wait([part])
    go_on.set()
    other = asyncio.create_task(build(Handmade(name="z")))
    assert (await joiner)[Flies()] == "left out", "a flight goes on under its starter's options"
    assert (await other).ran == (Handmade(name="z"),)


@simulated
async def test_a_failure_inside_a_joined_flight_is_a_failure() -> None:
    """What it had asked for is not among the nodes of the build that joined."""

    class Fails(Task):
        async def run(self) -> None:
            await asyncio.sleep(5)
            raise ValueError("row 17")

    class Asks(Task):
        async def run(self) -> None:
            await Fails()

    first = asyncio.create_task(build(Asks(), force=True))
    await asyncio.sleep(1)
    second = await build(Asks())
    assert second.blocked == (Asks(),)
    assert (second.status, second.exit_code) == ("failed", 1)
    assert not await first


def test_looking_for_what_is_forced_counts_as_time_and_can_be_stopped() -> None:
    """What `requires()` gives has no end: only the build's timeout ends the search."""

    class Endless(Task):
        n: int = 0

        def requires(self) -> Any:
            n = 0
            while True:
                yield Endless(n=(n := n + 1))

        async def run(self) -> None: ...

    async def main() -> None:
        result = await build(Endless(), force=[Endless(n=3)], timeout=0.2)
        assert result.status == "cancelled"

    asyncio.run(main())


async def test_requires_that_wants_to_stop_the_process_is_a_plan_error_with_force_too() -> None:
    class Exits(Task):
        def requires(self) -> Any:
            raise SystemExit(3)

        async def run(self) -> None: ...

    with pytest.raises(PlanError, match="SystemExit: 3"):
        await build(Exits(), force=[Exits()])
