"""Bodies that ask for more: deep, wide, in rings, in every kind of body, also where only one may be at work."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator, Iterator
from itertools import pairwise
from typing import Any

import pytest

from asyncflow import CycleError, MemoryTarget, Task, TaskFailed, build, gather
from asyncflow.executor import _executors
from asyncflow.hub import hub

SOON = 5.0  # seconds; what a cycle may take is a fifth of it, on a machine that has nothing else to do


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    MemoryTarget.clear()
    yield
    MemoryTarget.clear()
    assert not len(hub)
    assert not _executors


class Stored(Task):
    n: int

    def output(self) -> MemoryTarget:
        return MemoryTarget(repr(self))


class DeepYields(Stored):
    """An async generator: each asks for the next."""

    async def run(self) -> AsyncIterator[Any]:
        below = -1
        if self.n:
            below = (yield DeepYields(n=self.n - 1)).get()
        self.output().put(below + 1)


class Deep(Task):
    n: int

    async def run(self) -> int:
        return 1 + await Deep(n=self.n - 1) if self.n else 0


async def test_fifty_async_generators_deep_in_one_place() -> None:
    result = await build(DeepYields(n=50), concurrency=1)
    assert result[DeepYields(n=50)].get() == 50
    assert result.counts == {"succeeded": 51}


@pytest.mark.parametrize("kind", [Deep, DeepYields])
async def test_five_thousand_bodies_deep(kind: type[Any]) -> None:
    """No recursion over what waits for what: neither when it ends nor when it is left."""
    result = await build(kind(n=5000), concurrency=1)
    assert result.counts == {"succeeded": 5001}


async def test_a_build_of_five_thousand_bodies_deep_that_fails_at_the_bottom() -> None:
    class DeepFails(Task):
        n: int

        async def run(self) -> None:
            if not self.n:
                raise ValueError("the bottom")
            await DeepFails(n=self.n - 1)

    result = await build(DeepFails(n=5000), concurrency=1)
    assert result.counts == {"failed": 1, "blocked": 5000}


class Value(Task):
    n: int

    async def run(self) -> int:
        return self.n


class WideAwaits(Task):
    async def run(self) -> int:
        return sum(await gather(*[Value(n=n) for n in range(5000)]))


class WideYields(Stored):
    async def run(self) -> AsyncIterator[Any]:
        self.output().put(sum((yield [Value(n=n) for n in range(5000)])))


@pytest.mark.parametrize("kind", ["awaits", "yields"])
async def test_five_thousand_at_once_from_one_body(kind: str) -> None:
    task = WideAwaits() if kind == "awaits" else WideYields(n=0)
    result = await build(task, concurrency=1)
    got = result[task]
    assert (got if isinstance(got, int) else got.get()) == sum(range(5000))


# Rings -----------------------------------------------------------------------------------------------------


class Ring(Task):
    """Number n of a ring asks for number n + 1; ``asks_itself`` when there is one only."""

    n: int
    of: int

    @property
    def following(self) -> Task:
        return type(self)(n=(self.n + 1) % self.of, of=self.of)


class RingAwaits(Ring):
    async def run(self) -> object:
        return await self.following  # type: ignore[misc]


class RingGathers(Ring):
    async def run(self) -> object:
        return await gather(Value(n=self.n), self.following)


class RingYields(Ring):
    def output(self) -> MemoryTarget:
        return MemoryTarget(repr(self))

    async def run(self) -> AsyncIterator[Any]:
        yield [Value(n=self.n), self.following]


class RingYieldsInThread(Ring):
    def run(self) -> Generator[Any, Any, None]:
        yield {"one": Value(n=self.n), "another": self.following}


class RingBehindARequirement(Ring):
    """Each waits in a body for a task that requires the next one."""

    async def run(self) -> None:
        await Between(ring=self)


class Between(Task):
    ring: RingBehindARequirement

    def requires(self) -> Task:
        return self.ring.following

    async def run(self) -> None: ...


@pytest.mark.parametrize("of", [1, 2, 3, 30])
@pytest.mark.parametrize("kind", [RingAwaits, RingGathers, RingYields, RingYieldsInThread, RingBehindARequirement])
async def test_a_ring_of_bodies_is_told_with_its_path(kind: type[Ring], of: int) -> None:
    start = time.monotonic()
    result = await build(kind(n=0, of=of), concurrency=1, threads=1)
    assert time.monotonic() - start < SOON
    [failed] = result.failed
    error = result.tasks[failed].error
    assert isinstance(error, CycleError)
    path = [task for task in error.path if isinstance(task, Ring)]
    numbers = [task.n for task in path]
    assert set(numbers) == set(range(of))
    for number, following in pairwise(numbers):
        assert following == (number + 1) % of
    assert repr(failed) in str(error)
    rings = {task: one.status for task, one in result.tasks.items() if isinstance(task, Ring)}
    assert sorted(rings.values()) == ["blocked"] * (of - 1) + ["failed"]


async def test_a_body_that_catches_its_cycle_goes_on() -> None:
    class Stubborn(Task):
        n: int

        async def run(self) -> int:
            try:
                return await Stubborn(n=(self.n + 1) % 3) + 1
            except CycleError:
                return 0

    result = await build(Stubborn(n=0), concurrency=1)
    assert result[Stubborn(n=0)] == 2


async def test_who_waits_for_a_ring_is_blocked_by_it() -> None:
    class Outside(Task):
        async def run(self) -> None:
            with pytest.raises(TaskFailed, match="RingAwaits"):
                await RingAwaits(n=0, of=3)

    assert (await build(Outside(), concurrency=1)).tasks[Outside()].status == "succeeded"
