"""Resources and rates: what bodies share, and who waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from asyncflow import ConfigError, PlanError, Task, TaskFailed, TaskStarted, build, gather
from asyncflow.testing import simulate

working: Counter[str] = Counter()
most: Counter[str] = Counter()
order: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for book in (working, most):
        book.clear()
    order.clear()


async def use(what: str, amount: int = 1, turns: int = 5) -> None:
    working[what] += amount
    most[what] = max(most[what], working[what])
    for _ in range(turns):
        await asyncio.sleep(0)
    working[what] -= amount


class Query(Task):
    n: int
    resources = {"db": 1}

    async def run(self) -> None:
        order.append(self.n)
        await use("db")


@pytest.mark.parametrize(("given", "expected"), [({"db": 3}, 3), ({}, 1), ({"db": 100}, 20)])
async def test_no_more_at_work_than_there_are_units(given: dict[str, int], expected: int) -> None:
    """Without a capacity there is one unit, as in Luigi."""
    assert await build([Query(n=n) for n in range(20)], resources=given)
    assert most["db"] == expected
    assert order == list(range(20))


async def test_who_needs_nothing_is_not_held_up() -> None:
    class Free(Task):
        async def run(self) -> None:
            order.append("free")

    assert await build([Query(n=0), Query(n=1), Free()])
    assert order == [0, "free", 1]


async def test_several_units_of_several_resources() -> None:
    class Big(Task):
        n: int
        resources = {"db": 2, "gpu": 1}

        async def run(self) -> None:
            await asyncio.gather(use("db", 2), use("gpu"))

    class Gpu(Task):
        n: int
        resources = {"gpu": 2}

        async def run(self) -> None:
            await use("gpu", 2)

    tasks = [kind(n=n) for n in range(8) for kind in (Query, Big, Gpu)]
    assert await build(tasks, resources={"db": 3, "gpu": 2})
    assert most["db"] <= 3
    assert most["gpu"] <= 2
    assert not any(working.values())


async def test_who_needs_much_is_not_overtaken_for_ever() -> None:
    class All(Task):
        resources = {"db": 4}

        async def run(self) -> None:
            order.append("all")

    class Endless(Task):
        """Asks for one query after the other, eight at a time, until the big one has had its turn."""

        async def run(self) -> None:
            n = 100
            while "all" not in order:
                await gather(*[Query(n=n + i) for i in range(8)])
                n += 8
                assert n < 1000, "starved"

    assert await build([Endless(), *(Query(n=n) for n in range(4)), All()], resources={"db": 4})
    assert "all" in order


async def test_a_demand_that_cannot_be_met_is_a_plan_error() -> None:
    class Greedy(Task):
        resources = {"db": 5}

        async def run(self) -> None:
            order.append("ran")

    with pytest.raises(PlanError, match=r"Greedy\(\) needs 5 of .*\'db\', of which there is 4: give build\(resources="):
        await build([Greedy(), Query(n=0)], resources={"db": 4})
    assert not order, "nothing has run"

    class Asks(Task):
        async def run(self) -> str:
            try:
                await Greedy()
            except PlanError:
                return "told"
            return ""

    assert (await build(Asks()))[Asks()] == "told"


class Child(Task):
    async def run(self) -> None:
        order.append(f"child, {free()} gpu free")


def free() -> int:
    from asyncflow.executor import Executor

    [build] = Executor.current()._scheduler.builds
    return build.budget.pool("gpu").free


@pytest.mark.parametrize("holds", [False, True])
async def test_what_a_body_holds_while_it_waits(holds: bool) -> None:
    class Does(Task):
        resources = {"gpu": 1, "db": 1}
        hold = {"gpu"} if holds else ()

        async def run(self) -> None:
            await Child()
            order.append(f"after, {free()} gpu free")

    assert await build(Does(), resources={"gpu": 2})
    assert order == [f"child, {1 if holds else 2} gpu free", "after, 1 gpu free"]


async def test_holding_what_one_waits_for_is_told_and_does_not_hang() -> None:
    class NeedsGpu(Task):
        resources = {"gpu": 1}

        async def run(self) -> None:
            order.append("ran")

    class Holds(Task):
        resources = {"gpu": 1}
        hold = "gpu"

        async def run(self) -> str:
            try:
                await NeedsGpu()
            except TaskFailed as error:
                return str(error.__cause__)
            return ""

    async with asyncio.timeout(10):
        result = await build(Holds())
    assert result[Holds()] == (
        "NeedsGpu() needs 1 of the resource 'gpu', which Holds() holds while it waits for it: take 'gpu' out of its "
        "`hold`"
    )
    assert not order
    assert (await build(Holds(), resources={"gpu": 2}))[Holds()] == ""


async def test_two_that_hold_what_the_other_waits_for_are_told_and_do_not_hang() -> None:
    """A ring through two pools: neither is above the other."""

    class Needs(Task):
        what: str

        @property
        def resources(self) -> dict[str, int]:  # type: ignore[override]
            return {self.what: 1}

        async def run(self) -> None: ...

    class Holds(Task):
        holds: str
        needs: str

        @property
        def resources(self) -> dict[str, int]:  # type: ignore[override]
            return {self.holds: 1}

        @property
        def hold(self) -> str:  # type: ignore[override]
            return self.holds

        async def run(self) -> str:
            try:
                await Needs(what=self.needs)
            except TaskFailed as error:
                return str(error.__cause__)
            return ""

    one, two = Holds(holds="gpu", needs="disk"), Holds(holds="disk", needs="gpu")
    async with asyncio.timeout(10):
        result = await build([one, two])
    told = [result[task] for task in (one, two) if result[task]]
    assert len(told) == 1, "when one has been told, the other goes on"
    assert "holds while it waits for what cannot run either: take '" in told[0]


async def test_two_builds_that_hold_what_the_others_tasks_need_are_told_and_do_not_hang() -> None:
    """A ring through the pools of two builds: each waits for a body of the other, which waits for its own."""
    holding: list[Task] = []
    both = asyncio.Event()

    class Needs(Task):
        n: int
        resources = {"db": 1}

        async def run(self) -> None: ...

    class Shared(Task):
        n: int

        async def run(self) -> None:
            await both.wait()
            await Needs(n=self.n)

    class Holds(Task):
        n: int
        resources = {"db": 1}
        hold = "db"

        async def run(self) -> None:
            holding.append(self)
            if len(holding) == 2:
                both.set()
            await Shared(n=1 - self.n)  # it is the other build that runs it

    async with asyncio.timeout(10):
        results = await asyncio.gather(*(build([Shared(n=n), Holds(n=n)], resources={"db": 1}) for n in (0, 1)))
    needs = [result.tasks[Needs(n=n)].error for n, result in enumerate(results) if Needs(n=n) in result.failed]
    assert len(needs) == 1, "when one has been told, the others go on"
    assert isinstance(needs[0], PlanError)
    assert "which Holds(n=" in str(needs[0])
    assert sum(Needs(n=n) in result.ran for n, result in enumerate(results)) == 1


async def test_a_body_that_cannot_get_back_what_its_caller_holds_is_told() -> None:
    """The one that is waited for has let go of its unit while it waits, and the caller has taken it meanwhile."""
    asked = asyncio.Event()

    class Inner(Task):
        resources = {"disk": 1}

        async def run(self) -> str:
            try:
                await Leaf()
            except PlanError as error:
                return str(error)
            return ""

    class Leaf(Task):
        async def run(self) -> None:
            await asked.wait()

    class Outer(Task):
        resources = {"disk": 1}
        hold = "disk"

        async def run(self) -> str:
            asyncio.get_running_loop().call_later(0.01, asked.set)
            return await Inner()

    async with asyncio.timeout(10):
        result = await build([Inner(), Outer()])
    assert "needs 1 of the resource 'disk', which Outer() holds while it waits for it" in result[Outer()]


async def test_nobody_is_told_while_the_clock_can_help() -> None:
    """Nothing is at work, and what is held is wanted; but what the holder waits for only waits for its rate."""

    class Limited(Task):
        n: int
        rate = "api"

        async def run(self) -> None: ...

    class Holds(Task):
        resources = {"db": 1}
        hold = "db"

        async def run(self) -> None:
            await Limited(n=1)

    result = await build([Limited(n=0), Holds(), Query(n=0)], rate={"api": "1/0.05s"})
    assert result.counts == {"succeeded": 4}


async def test_what_is_held_is_no_reason_to_stand_behind_who_waits_for_it() -> None:
    """The first in the queue wants more than is free as long as the holder waits for the second."""

    class Small(Task):
        resources = {"db": 1}

        async def run(self) -> None:
            order.append("small")

    class Big(Task):
        resources = {"db": 3}
        priority = 20

        def requires(self) -> Task:
            return Begun()

        async def run(self) -> None:
            order.append("big")

    class Holds(Task):
        resources = {"db": 1}
        hold = "db"
        priority = 10

        async def run(self) -> None:
            begun.set()
            await Turns()
            await Small()

    class Begun(Task):
        async def run(self) -> None:
            await begun.wait()

    class Turns(Task):
        async def run(self) -> None:
            for _ in range(10):
                await asyncio.sleep(0)

    begun = asyncio.Event()
    async with asyncio.timeout(10):
        assert await build([Holds(), Big()], resources={"db": 3})
    assert order == ["small", "big"]


async def test_two_that_hold_one_each_of_what_the_others_wait_for_take_turns() -> None:
    """The second holder's child waits for the first holder, which is no ring: nobody is told anything."""

    class NeedsGpu(Task):
        n: int
        resources = {"gpu": 1}

        async def run(self) -> None:
            await use("gpu")

    class Holds(Task):
        n: int
        resources = {"disk": 1}
        hold = "disk"

        async def run(self) -> None:
            await NeedsGpu(n=self.n)

    assert await build([Holds(n=n) for n in range(6)], resources={"disk": 2, "gpu": 1})
    assert most["gpu"] == 1


async def test_a_cancelled_build_of_several_gives_everything_back() -> None:
    """A shared task is handed over with what it has of the pools of the build that leaves."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Shared(Task):
        resources = {"db": 2}

        async def run(self) -> str:
            begun.set()
            await go_on.wait()
            return "made"

    one = asyncio.create_task(build(Shared(), resources={"db": 2}))
    await begun.wait()
    two = asyncio.create_task(build([Shared(), Query(n=1)], resources={"db": 3}))
    for _ in range(5):
        await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    go_on.set()
    result = await two
    assert result
    assert result[Shared()] == "made"


async def test_a_leaver_waiting_for_a_resource_takes_nothing_with_it() -> None:
    class Caller(Task):
        async def run(self) -> None:
            try:
                async with asyncio.timeout(0.01):
                    await Query(n=1)
            except TimeoutError:
                order.append("left")
            assert await Query(n=2) is None

    begun = asyncio.Event()

    class Busy(Task):
        resources = {"db": 1}

        async def run(self) -> None:
            begun.set()
            while "left" not in order:
                await asyncio.sleep(0.001)

    assert await build([Busy(), Caller()])
    assert order == ["left", 2]


@pytest.mark.parametrize(
    "wrong",
    [{"resources": {"db": 0}}, {"resources": 3}, {"rate": {"api": "fast"}}, {"rate": "10/s"}, {"rate": {"a": 1}}],
)
async def test_wrong_capacities(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"build\("):
        await build(Query(n=0), **wrong)


class Call(Task):
    n: int
    rate = "api"

    async def run(self) -> None:
        order.append(asyncio.get_running_loop().time())


def test_no_more_starts_in_any_stretch_of_time_than_the_rate_says() -> None:
    async def main() -> None:
        assert await build([Call(n=n) for n in range(25)], rate={"api": "10/0.1s"})

    simulate(main)
    assert len(order) == 25
    for first, eleventh in zip(order, order[10:], strict=False):
        assert eleventh - first >= 0.099
    assert order[9] - order[0] < 0.05, "ten may start at once"
    assert order[-1] - order[0] < 0.25


async def test_a_rate_counts_starts_and_not_what_goes_on() -> None:
    class Asks(Task):
        rate = "api"

        async def run(self) -> None:
            for n in range(3):
                await Query(n=n)

    started: list[Any] = []
    assert await build(Asks(), rate={"api": "1/h"}, on_event=started.append)
    assert sum(isinstance(event, TaskStarted) for event in started) == 4


async def test_a_rate_nobody_gives_is_a_plan_error() -> None:
    with pytest.raises(PlanError, match=r"Call\(n=1\) is limited by the rate 'api', which nobody gives: build\(rate="):
        await build(Call(n=1))

    class Burst(Task):
        rate = {"api": 5}

        async def run(self) -> None: ...

    with pytest.raises(PlanError, match=r"Burst\(\) takes 5 starts of the rate 'api' at once, which gives 2 in 1 s"):
        await build(Burst(), rate={"api": "2/s"})


async def test_a_body_that_asks_for_more_while_its_answer_waits_for_units() -> None:
    """The units granted for the first answer are given back: the body goes on waiting for the second."""
    answered, busy = asyncio.Event(), asyncio.Event()

    class Quick(Task):
        n: int

        async def run(self) -> int:
            return self.n

    class Busy(Task):
        resources = {"gpu": 1}

        async def run(self) -> None:
            busy.set()
            await answered.wait()

    class Asks(Task):
        resources = {"gpu": 1}

        async def late(self) -> int:
            await busy.wait()
            for _ in range(5):
                await asyncio.sleep(0)
            answered.set()
            return await Quick(n=2)

        async def run(self) -> list[int]:
            async def first() -> int:
                return await Quick(n=1)

            return await asyncio.gather(first(), self.late())

    async with asyncio.timeout(10):
        result = await build([Asks(), Busy(), Query(n=1)], resources={"gpu": 1})
    assert result[Asks()] == [1, 2]


async def test_builds_with_pools_of_their_own_plan_for_themselves() -> None:
    """One gives no rate, the other does: the first is refused, and the second is not."""
    first, second = await asyncio.gather(
        build(Call(n=1)), build(Call(n=1), rate={"api": "10/s"}), return_exceptions=True
    )
    assert isinstance(first, PlanError)
    assert not isinstance(second, BaseException)
    assert second.ok


async def test_what_is_not_to_run_needs_nothing() -> None:
    class Needs(Task):
        def requires(self) -> Task:
            return Call(n=1)

        async def run(self) -> None: ...

    result = await build([Needs(), Query(n=1)], only=Query)
    assert result.counts == {"succeeded": 1, "missing": 2}
