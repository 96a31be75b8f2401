"""Which of the bodies that could run goes first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from asyncflow import MemoryTarget, Task, build, gather

order: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    MemoryTarget.clear()
    order.clear()


class Noted(Task):
    """Notes its name; waits for what it requires."""

    name: str
    needs: tuple[str, ...] = ()

    def requires(self) -> Any:
        return [type(self)(name=name) for name in self.needs]

    async def run(self) -> None:
        order.append(self.name)


class Urgent(Noted):
    priority = 10


class Lazy(Noted):
    priority = -1.5


async def test_priority_first_then_first_come() -> None:
    tasks = [Lazy(name="z"), Noted(name="a"), Urgent(name="u"), Noted(name="b"), Urgent(name="v")]
    assert await build(tasks, concurrency=1)
    assert order == ["u", "v", "a", "b", "z"]


async def test_what_an_urgent_task_requires_is_as_urgent() -> None:
    class Result(Urgent):
        def requires(self) -> Any:
            return Middle(name="middle")

    class Middle(Noted):
        def requires(self) -> Any:
            return Noted(name="needed")

    assert await build([*(Noted(name=f"other {n}") for n in range(5)), Result(name="result")], concurrency=1)
    assert order[:3] == ["needed", "middle", "result"]


async def test_what_is_less_urgent_is_as_urgent_as_what_waits_for_it() -> None:
    class Result(Noted):
        def requires(self) -> Any:
            return Lazy(name="required")

    class Asks(Noted):
        async def run(self) -> None:
            order.append("asks")
            await Lazy(name="asked for")

    assert await build([Lazy(name="lazy"), Asks(name=""), Result(name="result")], concurrency=1)
    assert order == ["required", "asks", "asked for", "result", "lazy"]


async def test_what_an_urgent_body_asks_for_is_as_urgent() -> None:
    class Asks(Urgent):
        async def run(self) -> None:
            order.append("asks")
            await Noted(name="asked for")
            order.append("goes on")

    assert await build([Asks(name="asks"), *(Noted(name=f"other {n}") for n in range(5))], concurrency=1)
    assert order[:3] == ["asks", "asked for", "goes on"]


async def test_a_joiner_makes_what_waits_already_more_urgent() -> None:
    """Two builds of one place: the second, urgent, wants the last of what waits in the first."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    class First(Urgent):
        async def run(self) -> None:
            order.append("first")
            begun.set()
            await go_on.wait()

    class Wants(Urgent):
        def requires(self) -> Any:
            return Noted(name="wanted", needs=("below",))

    waiting = [Noted(name=f"other {n}") for n in range(5)]
    one = asyncio.create_task(
        build([First(name="first"), *waiting, Noted(name="wanted", needs=("below",))], concurrency=1)
    )
    await begun.wait()
    two = asyncio.create_task(build(Wants(name="wants"), concurrency=1))
    for _ in range(10):
        await asyncio.sleep(0)
    go_on.set()
    assert await one
    assert await two
    assert order[:3] == ["first", "below", "wanted"]


async def test_a_body_that_goes_on_comes_before_one_that_has_not_begun() -> None:
    class Asks(Noted):
        async def run(self) -> None:
            order.append(f"{self.name} begins")
            await Noted(name=f"{self.name}'s")
            order.append(f"{self.name} goes on")

    assert await build([Asks(name="a"), Noted(name="x"), Noted(name="y")], concurrency=1)
    assert order == ["a begins", "a's", "a goes on", "x", "y"]


async def test_what_a_body_waits_for_comes_first_the_deepest_of_it() -> None:
    class Deep(Noted):
        depth: int

        async def run(self) -> None:
            if self.depth:
                await gather(Deep(name=self.name, depth=self.depth - 1), Noted(name=f"{self.name} {self.depth}"))

    assert await build([Deep(name="a", depth=3), Noted(name="later")], concurrency=1)
    assert order == ["a 1", "a 2", "a 3", "later"]


async def test_the_longest_path_first() -> None:
    class Chain(Noted):
        n: int

        def requires(self) -> Any:
            return [Chain(name=self.name, n=self.n - 1)] if self.n else []

        async def run(self) -> None:
            order.append((self.name, self.n))

    lengths = {"short": 0, "long": 5, "middle": 2}
    assert await build([Chain(name=name, n=n) for name, n in lengths.items()], concurrency=1)
    assert order[:3] == [("long", 0), ("long", 1), ("long", 2)]
    assert order[-1] in {("short", 0), ("long", 5), ("middle", 2)}
    positions = {name: order.index((name, 0)) for name in lengths}
    assert positions["long"] < positions["middle"] < positions["short"]


async def test_priorities_hold_between_loop_and_threads() -> None:
    class InThread(Noted):
        priority = 5

        def run(self) -> None:  # type: ignore[override]
            order.append(self.name)

    assert await build([*(Noted(name=f"loop {n}") for n in range(3)), InThread(name="thread")], concurrency=1)
    assert order[0] == "thread"


async def test_requires_that_yields_keeps_the_order() -> None:
    class Many(Task):
        def requires(self) -> Iterator[Task]:
            for n in range(20):
                yield Noted(name=str(n))

        async def run(self) -> None: ...

    assert await build(Many(), concurrency=1)
    assert order == [str(n) for n in range(20)]
