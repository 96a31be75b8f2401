"""The whole engine in simulated loops: random graphs, latencies and cancels by seed, against the sequential model.

A seed that fails is replayed alone: ``ASYNCFLOW_SEED=17 pytest tests/test_simulation.py``.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from asyncflow import AsyncflowError, BuildResult, ExternalTask, MemoryTarget, Task, build, gather
from asyncflow.executor import Executor, _executors
from asyncflow.testing import SimulatedLoop, explore, other_tasks
from tests.model import Graph, Model, Spec, random_graph


class World:
    """One seed's graph, and what its bodies have done."""

    def __init__(self, chance: random.Random, *, threads: bool) -> None:
        self.chance = chance
        self.graph: Graph = random_graph(chance)
        kinds = [Coroutine, Generating, *([InThread, GeneratingInThread] if threads else [])]
        self.kinds = [Given if spec.external else chance.choice(kinds) for spec in self.graph]
        targets = chance.choice([[MemoryTarget], [MemoryTarget, Remote], [MemoryTarget, Remote, InBulk]])
        self.targets = [chance.choice(targets)(str(n)) for n in range(len(self.graph))]
        self.latency = chance.choice([0.0, 0.1, 1.0, 10.0])
        self.running: Counter[int] = Counter()
        self.begun: Counter[int] = Counter()
        self.made: Counter[int] = Counter()
        self.wrong: list[str] = []
        for spec, target in zip(self.graph, self.targets, strict=True):
            if spec.complete:
                target.put("there before")

    def unit(self, n: int) -> Task:
        return self.kinds[n](n=n)

    def units(self, some: list[int]) -> list[Task]:
        return [self.unit(n) for n in some]

    async def pause(self) -> None:
        """None at all, one turn, or some virtual seconds; several bodies wake at one moment now and then."""
        kind = self.chance.randrange(4)
        if kind == 1:
            await asyncio.sleep(0)
        elif kind == 2:
            await asyncio.sleep(self.latency)
        elif kind == 3:
            await asyncio.sleep(self.chance.random() * self.latency)

    @contextmanager
    def body(self, n: int) -> Generator[Spec, None, None]:
        """Around what a body does."""
        spec = self.graph[n]
        if self.running[n]:
            self.wrong.append(f"the body of {n} was entered while it was running")
        if self.made[n] or spec.complete:
            self.wrong.append(f"the body of {n} was entered although its output was there")
        for other in spec.requires:
            if not self.targets[other]._there():
                self.wrong.append(f"the body of {n} was entered before {other} was there")
        self.begun[n] += 1
        self.running[n] += 1
        try:
            yield spec
            if spec.fails:
                raise ValueError(n)
            self.targets[n].put(n)
            self.made[n] += 1
        finally:
            self.running[n] -= 1

    @asynccontextmanager
    async def async_body(self, n: int) -> AsyncIterator[Spec]:
        """Around what a body on the loop does: some take a while to unwind."""
        unwinds = self.chance.random() < 0.5
        with self.body(n) as spec:
            await self.pause()
            try:
                yield spec
            finally:
                if unwinds:
                    await asyncio.sleep(self.chance.random() * 0.4)


worlds: list[World] = []  # the one of the seed that runs; bodies in threads see it too


class Remote(MemoryTarget):
    """Answers on the loop, late."""

    async def exists(self) -> bool:  # type: ignore[override]
        await worlds[-1].pause()
        return self.name in self._values


class InBulk(Remote):
    """Answers for many at once, later still."""

    async def exists(self) -> bool:  # type: ignore[override]
        return await super().exists()

    @classmethod
    async def exists_many(cls, targets: Sequence[MemoryTarget]) -> list[bool]:
        await worlds[-1].pause()
        await worlds[-1].pause()
        return [target.name in cls._values for target in targets]


class Unit(Task):
    n: int

    def requires(self) -> list[Task]:
        return worlds[-1].units(worlds[-1].graph[self.n].requires)

    def output(self) -> MemoryTarget:
        return worlds[-1].targets[self.n]


class Given(ExternalTask):
    n: int

    def output(self) -> MemoryTarget:
        return worlds[-1].targets[self.n]


class Coroutine(Unit):
    async def run(self) -> None:
        world = worlds[-1]
        async with world.async_body(self.n) as spec:
            for stage in spec.stages:
                try:
                    if len(stage) == 1:
                        await world.unit(stage[0])
                    else:
                        await gather(*world.units(stage))
                except AsyncflowError:
                    if not spec.catches:
                        raise
                await world.pause()


class Generating(Unit):
    async def run(self) -> AsyncIterator[Any]:
        world = worlds[-1]
        async with world.async_body(self.n) as spec:
            for stage in spec.stages:
                try:
                    yield world.units(stage)
                except AsyncflowError:
                    if not spec.catches:
                        raise
                await world.pause()


class InThread(Unit):
    """Cannot wait for tasks: what its stages ask for is made by a coroutine's body in its place."""

    def run(self) -> Any:
        world = worlds[-1]
        if world.graph[self.n].stages:
            return Coroutine.run(self)  # type: ignore[arg-type]  # the rest of the body, on the loop
        with world.body(self.n):
            return None


class GeneratingInThread(Unit):
    def run(self) -> Generator[Any, Any, None]:
        world = worlds[-1]
        with world.body(self.n) as spec:
            for stage in spec.stages:
                try:
                    yield world.units(stage)
                except AsyncflowError:
                    if not spec.catches:
                        raise


def number(task: Task) -> int:
    n: int = task.n  # type: ignore[attr-defined]
    return n


async def one_build(world: World, wanted: list[int], begins: float, leaves: float | None) -> BuildResult | None:
    """Begin at a moment, and perhaps leave at another; the result if it has stayed."""
    chance = world.chance
    loop = asyncio.get_running_loop()
    await asyncio.sleep(begins)
    door = build(world.units(wanted), concurrency=chance.randint(1, 4), threads=chance.randint(1, 3))
    if leaves is None:
        return await door
    call = asyncio.create_task(door)
    timer = loop.call_at(leaves, call.cancel)
    try:
        return await call
    except asyncio.CancelledError:
        return None
    finally:
        timer.cancel()


async def builds_come_and_go(*, threads: bool = False) -> None:
    """One to six builds on one graph, of which one stays to its end."""
    MemoryTarget.clear()
    loop = SimulatedLoop.running()
    chance = loop.random
    world = World(chance, threads=threads)
    worlds[:] = [world]
    last = len(world.graph) - 1  # most of the others are below it
    wanted = [
        [chance.choice([last, chance.randint(0, last)]) for _ in range(chance.randint(1, 3))]
        for _ in range(chance.choice([1, 2, 3, 4, 6]))
    ]
    stays = chance.randrange(len(wanted))
    span = 5 * world.latency  # what a build takes, more or less
    together = chance.random() * span  # several leave at one moment, as when a server goes down
    executor = Executor.current()
    calls = [
        asyncio.create_task(
            one_build(
                world,
                roots,
                # Some begin while bodies of those that have left are still unwinding.
                begins := chance.choice([0.0, chance.random() * span, together + chance.random() * 0.4]),
                None if n == stays else max(begins, chance.choice([0.0, together, together, chance.random() * span])),
            )
        )
        for n, roots in enumerate(wanted)
    ]
    await asyncio.wait(calls)
    results = [call.result() for call in calls]
    for roots, result in zip(wanted, results, strict=True):
        if result is not None:
            as_the_model_says(world, roots, result, alone=len(wanted) == 1)
    assert results[stays] is not None
    assert not world.wrong
    assert max(world.made.values(), default=1) == 1, "a task was made twice"
    nothing_is_left(executor, world)


def as_the_model_says(world: World, roots: list[int], result: BuildResult, *, alone: bool) -> None:
    model = Model(world.graph, roots)
    found = {number(task): one.status for task, one in result.tasks.items()}
    if alone:
        assert found == model.status
        assert world.begun == model.runs
        return
    # What another build had made before this one asked for it is found complete; what that had required is not
    # asked for again then.
    made_before = {n for n in found if found[n] in ("complete", "adopted") and world.made[n]}
    assert made_before or found.keys() >= model.status.keys()
    for n in found.keys() & model.status.keys():
        assert found[n] == model.status[n] or (n in made_before and model.status[n] == "succeeded"), f"task {n}"
    for n in found.keys() - model.status.keys():
        raise AssertionError(f"task {n} is none of this build's: {found[n]}")


def nothing_is_left(executor: Executor, world: World) -> None:
    assert not +world.running
    assert other_tasks() == []
    assert executor.loop not in _executors
    scheduler = executor._scheduler
    assert not scheduler.nodes
    assert not len(scheduler.sharing.hub)
    assert not scheduler._successors
    assert not scheduler._stopping
    assert not scheduler.builds
    assert not executor._planner._bulk._calls
    assert not executor._planner._bulk._waiting
    assert not executor._planner._bulk._open
    assert not executor._planner._questions._checkers
    assert not executor._stopping
    assert not executor._confirming
    assert not executor._loose


@pytest.fixture(autouse=True)
def _clear() -> Generator[None, None, None]:
    yield
    MemoryTarget.clear()
    worlds.clear()


def test_builds_come_and_go() -> None:
    explore(builds_come_and_go, 500)


def test_builds_with_bodies_in_threads_come_and_go() -> None:
    async def main() -> None:
        await builds_come_and_go(threads=True)

    explore(main, 25)


@pytest.mark.soak
def test_many_builds_come_and_go() -> None:
    first = random.randrange(2**40)
    explore(builds_come_and_go, 20 * int(os.environ.get("SEEDS", "1000")), first=first)
