"""The history of a pipeline, drawn by hypothesis, against the sequential model.

It is built, some of its targets are deleted, some tasks begin to fail and are mended, a build is cancelled half-way,
and it is built again, and again. Each build runs in a simulated loop with a seed of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from asyncflow import AsyncflowError, BuildResult, ExternalTask, MemoryTarget, Task, build, gather, plan
from asyncflow.executor import _executors
from asyncflow.hub import hub
from asyncflow.testing import other_tasks, simulate
from tests.model import Graph, Model, random_graph


class Pipeline:
    """The tasks, what of theirs is there, and what their bodies have done since ``begin``."""

    def __init__(self, rng: random.Random) -> None:
        self.graph: Graph = random_graph(rng)
        self.kinds: list[type[Task]] = [
            Given if spec.external else rng.choice([OnLoop, OnLoop, Yields, InThread]) for spec in self.graph
        ]
        self.flaky: set[int] = set()  # fail at their first attempt in every build
        self.leaves_after = 0
        self.call: asyncio.Task[BuildResult] | None = None
        self.begin()

    def begin(self) -> None:
        self.running: Counter[int] = Counter()
        self.begun: Counter[int] = Counter()
        self.made: Counter[int] = Counter()

    def task(self, n: int) -> Task:
        return self.kinds[n](n=n)  # type: ignore[call-arg]

    def tasks(self, some: list[int]) -> list[Task]:
        return [self.task(n) for n in some]

    def there(self) -> set[int]:
        return {n for n in range(len(self.graph)) if target(n)._there()}

    @contextmanager
    def body(self, n: int) -> Generator[None, None, None]:
        """Around what a body does."""
        assert not self.running[n], f"{n} is entered while it is running"
        assert not target(n)._there(), f"{n} is made although it is there"
        missing = set(self.graph[n].requires) - self.there()
        assert not missing, f"{n} is entered before {missing} are there"
        self.begun[n] += 1
        if self.call is not None and self.begun.total() == self.leaves_after:
            self.call.get_loop().call_soon_threadsafe(self.call.cancel)
        self.running[n] += 1
        try:
            yield
            if self.graph[n].fails or (n in self.flaky and self.begun[n] == 1):
                raise ValueError(n)
            target(n).put(n)
            self.made[n] += 1
        finally:
            self.running[n] -= 1


pipelines: list[Pipeline] = []  # the one whose history it is


def target(n: int) -> MemoryTarget:
    return MemoryTarget(f"unit {n}")


class Unit(Task):
    n: int

    def requires(self) -> list[Task]:
        return pipelines[-1].tasks(pipelines[-1].graph[self.n].requires)

    def output(self) -> MemoryTarget:
        return target(self.n)


class Given(ExternalTask):
    n: int

    def output(self) -> MemoryTarget:
        return target(self.n)


class OnLoop(Unit):
    async def run(self) -> None:
        pipeline = pipelines[-1]
        with pipeline.body(self.n):
            await asyncio.sleep(self.n % 3)
            for stage in pipeline.graph[self.n].stages:
                try:
                    await gather(*pipeline.tasks(stage))
                except AsyncflowError:
                    if not pipeline.graph[self.n].catches:
                        raise


class Yields(Unit):
    async def run(self) -> AsyncIterator[Any]:
        pipeline = pipelines[-1]
        with pipeline.body(self.n):
            for stage in pipeline.graph[self.n].stages:
                try:
                    yield pipeline.tasks(stage)
                except AsyncflowError:
                    if not pipeline.graph[self.n].catches:
                        raise


class InThread(Unit):
    def run(self) -> Generator[Any, Any, None]:
        pipeline = pipelines[-1]
        with pipeline.body(self.n):
            for stage in pipeline.graph[self.n].stages:
                try:
                    yield pipeline.tasks(stage)
                except AsyncflowError:
                    if not pipeline.graph[self.n].catches:
                        raise


def number(task: Task) -> int:
    n: int = task.n  # type: ignore[attr-defined]
    return n


def statuses(result: BuildResult) -> dict[int, str]:
    return {number(task): one.status for task, one in result.tasks.items()}


numbers = st.integers(0, 59)
seeds = st.integers(0, 2**32)
wanted = st.lists(numbers, min_size=1, max_size=3)


class History(RuleBasedStateMachine):
    @initialize(seed=seeds)
    def written(self, seed: int) -> None:
        MemoryTarget.clear()
        self.pipeline = Pipeline(random.Random(seed))
        pipelines[:] = [self.pipeline]
        for n, spec in enumerate(self.pipeline.graph):
            if spec.complete:
                target(n).put("there before")

    def _some(self, drawn: list[int]) -> list[int]:
        """Those that were drawn, from the end of the graph: most of the others are below."""
        size = len(self.pipeline.graph)
        return [size - 1 - n % size for n in drawn]

    def _model(self, roots: list[int], retries: int) -> Model:
        """What is to come of a build now."""
        there = self.pipeline.there()
        graph = [
            replace(spec, complete=n in there, fails=spec.fails or (n in self.pipeline.flaky and not retries))
            for n, spec in enumerate(self.pipeline.graph)
        ]
        model = Model(graph, roots)
        for n in model.runs:
            if model.status[n] == "failed":
                model.runs[n] = 1 + retries
            elif n in self.pipeline.flaky and model.status[n] == "succeeded":
                model.runs[n] = 2
        return model

    def _simulate(self, main: Coroutine[Any, Any, Any], seed: int) -> Any:
        async def alone() -> Any:
            result = await main
            assert other_tasks() == []
            return result

        self.pipeline.begin()
        found = simulate(alone, seed=seed)
        assert not +self.pipeline.running, "a body is still running"
        assert not len(hub)
        assert not _executors
        return found

    @rule(drawn=wanted, concurrency=st.integers(1, 16), retries=st.integers(0, 2), seed=seeds)
    def built(self, drawn: list[int], concurrency: int, retries: int, seed: int) -> None:
        roots = self._some(drawn)
        model, before = self._model(roots, retries), self.pipeline.there()
        tasks = self.pipeline.tasks([*roots, *roots])  # each is named twice
        result = self._simulate(build(tasks, concurrency=concurrency, retries=retries), seed)
        assert statuses(result) == model.status
        assert self.pipeline.begun == model.runs
        assert self.pipeline.there() == before | {n for n in model.status if model.status[n] == "succeeded"}

    @rule(drawn=wanted, others=wanted, concurrency=st.integers(1, 4), seed=seeds)
    def built_by_two(self, drawn: list[int], others: list[int], concurrency: int, seed: int) -> None:
        """Two builds at one time."""
        both = self._some(drawn), self._some(others)
        models, before = [self._model(roots, 2) for roots in both], self.pipeline.there()

        async def main() -> list[BuildResult]:
            return await asyncio.gather(
                *[build(self.pipeline.tasks(roots), concurrency=concurrency, retries=2) for roots in both]
            )

        for model, result in zip(models, self._simulate(main(), seed), strict=True):
            for n, status in statuses(result).items():
                found_made = status in ("complete", "adopted") and self.pipeline.made[n]
                assert status == model.status[n] or (found_made and model.status[n] == "succeeded"), f"task {n}"
        assert max(self.pipeline.made.values(), default=1) == 1, "a task was made twice"
        succeeded = {n for model in models for n in model.status if model.status[n] == "succeeded"}
        assert self.pipeline.there() == before | succeeded

    @rule(drawn=wanted, starts=st.integers(1, 30), concurrency=st.integers(1, 16), seed=seeds)
    def cancelled_half_way(self, drawn: list[int], starts: int, concurrency: int, seed: int) -> None:
        roots = self._some(drawn)
        model, before = self._model(roots, 0), self.pipeline.there()

        async def main() -> Any:
            pipeline = self.pipeline
            pipeline.leaves_after = starts
            pipeline.call = asyncio.create_task(build(pipeline.tasks(roots), concurrency=concurrency))
            [outcome] = await asyncio.gather(pipeline.call, return_exceptions=True)
            pipeline.call = None
            return outcome

        outcome = self._simulate(main(), seed)
        if isinstance(outcome, BuildResult):
            assert statuses(outcome) == model.status
        else:
            assert isinstance(outcome, asyncio.CancelledError), outcome
            assert self.pipeline.begun.total() >= starts
        assert all(self.pipeline.begun[n] <= model.runs.get(n, 0) for n in self.pipeline.begun)
        made = self.pipeline.there() - before
        assert made == {n for n in self.pipeline.made if self.pipeline.made[n]}
        assert all(model.status[n] == "succeeded" for n in made)

    @rule(drawn=wanted, seed=seeds)
    def planned(self, drawn: list[int], seed: int) -> None:
        """A plan tells of what is required, and does nothing."""
        before = self.pipeline.there()
        found = self._simulate(plan(self.pipeline.tasks(self._some(drawn))), seed)
        assert {number(item.task): item.action == "skip" for item in found.items} == {
            number(item.task): number(item.task) in before for item in found.items
        }
        assert not self.pipeline.begun
        assert self.pipeline.there() == before

    @rule(drawn=st.lists(numbers, min_size=1, max_size=10))
    def deleted(self, drawn: list[int]) -> None:
        for n in self._some(drawn):
            MemoryTarget._values.pop(target(n).name, None)

    @rule(n=numbers)
    def broken(self, n: int) -> None:
        self.pipeline.graph[self._some([n])[0]].fails = True

    @rule(n=numbers)
    def fails_now_and_then(self, n: int) -> None:
        self.pipeline.flaky.add(self._some([n])[0])

    @rule()
    def mended(self) -> None:
        self.pipeline.flaky.clear()
        for spec in self.pipeline.graph:
            spec.fails = False

    @rule()
    def delivered(self) -> None:
        """What is made elsewhere is there at last."""
        for n, spec in enumerate(self.pipeline.graph):
            if spec.external:
                target(n).put("delivered")

    @invariant()
    def targets_hold_what_their_tasks_make(self) -> None:
        for n in self.pipeline.there():
            assert target(n).get() in (n, "there before", "delivered")

    def teardown(self) -> None:
        MemoryTarget.clear()
        pipelines.clear()


def histories(count: int, phases: Collection[Phase]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        History,
        settings=settings(
            max_examples=count, stateful_step_count=12, suppress_health_check=list(HealthCheck), phases=phases
        ),
    )


def test_two_hundred_histories() -> None:
    histories(200, set(Phase) - {Phase.shrink})  # shrinking one may take minutes: its blob is printed


@pytest.mark.soak
def test_many_histories() -> None:
    histories(int(os.environ.get("SEEDS", "1000")), set(Phase))
