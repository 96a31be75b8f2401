"""Many callers of one loop, as in a web server: each task once, and who leaves takes only its own along."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from asyncflow import BuildResult, MemoryTarget, Task, build, gather
from asyncflow.executor import _executors
from asyncflow.hub import hub
from asyncflow.testing import SimulatedLoop, explore, other_tasks

CLIENTS, LEAVERS, PARTS = 200, 50, 60


# Callers of one task ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("leavers", [0, 99, 100])
async def test_a_hundred_builds_of_one_task(leavers: int) -> None:
    """One run for all, the starter's leaving or not; it is stopped with the last caller and not before."""
    entered, left = asyncio.Event(), asyncio.Event()
    go_on = asyncio.Event()
    runs: list[str] = []

    class Shared(Task):
        async def run(self) -> str:
            runs.append("entered")
            entered.set()
            try:
                await go_on.wait()
            finally:
                left.set()
            return "made"

    calls = [asyncio.create_task(build([Shared()])) for _ in range(100)]
    await entered.wait()
    for call in calls[: min(leavers, 99)]:
        call.cancel()
    if leavers:
        await asyncio.wait(calls[: min(leavers, 99)])
    assert not left.is_set(), "the body was stopped although somebody waits for it"
    if leavers == 100:
        calls[-1].cancel()
    else:
        go_on.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert left.is_set()
    assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == leavers
    assert [outcome[Shared()] for outcome in outcomes if isinstance(outcome, BuildResult)] == ["made"] * (100 - leavers)
    assert runs == ["entered"]
    assert not len(hub)
    assert not _executors


async def test_two_builds_of_one_place_that_need_each_others_tasks() -> None:
    """In one loop: each runs what the other waits for, and waiting takes no place."""
    runs: Counter[Task] = Counter()

    class Leaf(Task):
        n: int

        async def run(self) -> int:
            runs[self] += 1
            await asyncio.sleep(0)
            return self.n

    class Sum(Task):
        order: int

        async def run(self) -> int:
            ns = range(40)[:: self.order]
            one_by_one = [await Leaf(n=n) for n in ns]
            return sum(one_by_one) + sum(await gather(*[Leaf(n=n + 40) for n in ns]))

    results = await asyncio.gather(*[build(Sum(order=order), concurrency=1) for order in (1, -1)])
    assert [result[Sum(order=order)] for order, result in zip((1, -1), results, strict=True)] == [sum(range(80))] * 2
    assert len(runs) == 80
    assert set(runs.values()) == {1}


async def test_a_cycle_through_two_builds_of_one_loop() -> None:
    """Each build has begun its half when the half asks for the other: one body is told, and both builds end."""
    at_work = asyncio.Barrier(2)
    told: list[str] = []

    class Half(Task):
        n: int

        async def run(self) -> str:
            await at_work.wait()
            try:
                await Half(n=1 - self.n)
            except Exception as error:
                told.append(str(error))
                return "told"
            return "not told"

    async with asyncio.timeout(10):
        results = await asyncio.gather(*[build(Half(n=n), concurrency=1) for n in (0, 1)])
    assert sorted(result[Half(n=n)] for n, result in enumerate(results)) == ["not told", "told"]
    [message] = told
    assert "Half(n=0)" in message
    assert "Half(n=1)" in message


# Two hundred clients -----------------------------------------------------------------------------------------


class Site:
    """What two hundred clients ask for, what is made of it, and who has left."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.below = [chance.sample(range(n), min(n, chance.randint(0, 3))) for n in range(PARTS)]
        self.asked = [chance.sample(range(PARTS), 3) for _ in range(CLIENTS)]
        self.asked_later = [chance.sample(range(PARTS), 2) for _ in range(CLIENTS)]
        self.runs: Counter[Task] = Counter()
        self.ended: Counter[Task] = Counter()
        self.stopped: list[Task] = []
        self.wrong: list[str] = []
        self.calls: list[asyncio.Task[BuildResult]] = []
        self.begun = 0
        leavers = chance.sample(range(CLIENTS), LEAVERS)
        # After so many starts of bodies somebody leaves; often several at one moment.
        self.leaves: dict[int, list[int]] = {}
        for client in leavers:
            self.leaves.setdefault(chance.choice([1, chance.randint(1, PARTS), chance.randint(1, 150)]), []).append(
                client
            )
        self.gone: set[int] = set()
        self.wants = [{Page(client=n), *self.parts([*self.asked[n], *self.asked_later[n]])} for n in range(CLIENTS)]

    def parts(self, wanted: list[int]) -> set[Task]:
        """The parts in ``wanted`` and all they require."""
        found: set[int] = set()
        stack = list(wanted)
        while stack:
            n = stack.pop()
            if n not in found:
                found.add(n)
                stack += self.below[n]
        return {Part(n=n) for n in found}

    async def work(self, task: Task) -> None:
        """What each body does: it takes a moment, in which somebody may leave."""
        self.runs[task] += 1
        self.begun += 1
        for client in self.leaves.pop(self.begun, []):
            self.gone.add(client)
            self.calls[client].cancel()
        try:
            for _ in range(self.chance.randint(0, 3)):
                await asyncio.sleep(self.chance.choice([0, 0.001, 0.003]))
        except asyncio.CancelledError:
            self.stopped.append(task)
            for client in range(CLIENTS):
                if client not in self.gone and task in self.wants[client]:
                    self.wrong.append(f"{task} was stopped, and client {client} waits for it")
            raise
        self.ended[task] += 1


sites: list[Site] = []  # the one that is open


class Part(Task):
    n: int

    def requires(self) -> list[Task]:
        return [Part(n=n) for n in sites[-1].below[self.n]]

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"part {self.n}")

    async def run(self) -> None:
        await sites[-1].work(self)
        self.output().put(self.n)


class Page(Task):
    """What one client asks for, and nobody else."""

    client: int

    def requires(self) -> list[Task]:
        return [Part(n=n) for n in sites[-1].asked[self.client]]

    async def run(self) -> int:
        await gather(*[Part(n=n) for n in sites[-1].asked_later[self.client]])
        await sites[-1].work(self)
        return self.client


async def clients_come_and_go(chance: random.Random) -> None:
    MemoryTarget.clear()
    site = Site(chance)
    sites[:] = [site]
    site.calls = [
        asyncio.create_task(build([Page(client=n)], concurrency=chance.randint(1, 20))) for n in range(CLIENTS)
    ]
    outcomes: list[Any] = await asyncio.gather(*site.calls, return_exceptions=True)
    assert not site.wrong
    for client, outcome in enumerate(outcomes):
        if isinstance(outcome, BuildResult):
            assert outcome[Page(client=client)] == client
        else:
            assert isinstance(outcome, asyncio.CancelledError), f"client {client}: {outcome!r}"
            assert client in site.gone, f"client {client} was cancelled by somebody else's leaving"
    wanted = set().union(*(site.wants[n] for n in range(CLIENTS) if n not in site.gone))
    assert {task: site.runs[task] for task in wanted} == dict.fromkeys(wanted, 1)
    assert max(site.runs.values()) == 1, "a task was run twice"
    assert not wanted & set(site.stopped)
    assert set(site.runs) == {*site.ended, *site.stopped, *wanted}, "a body has not ended"
    assert other_tasks() == []
    assert not len(hub)
    assert not _executors


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    MemoryTarget.clear()
    yield
    MemoryTarget.clear()
    sites.clear()


async def in_a_simulated_loop() -> None:
    await clients_come_and_go(SimulatedLoop.running().random)


def test_two_hundred_clients_and_fifty_that_leave_in_any_order() -> None:
    explore(in_a_simulated_loop, 50)


async def test_two_hundred_clients_and_fifty_that_leave() -> None:
    stopped = 0
    for seed in range(20):
        try:
            await clients_come_and_go(random.Random(seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        stopped += len(sites[-1].stopped)
    assert stopped, "nobody has left in the middle of something: this tests nothing"


@pytest.mark.soak
def test_many_days_of_two_hundred_clients() -> None:
    explore(in_a_simulated_loop, int(os.environ.get("SEEDS", "1000")), first=random.randrange(2**40))
