"""How things are measured: CPU and wall time, the longest gap of a loop, the resident size of a process.

Times are in seconds. What is compared takes turns, since a shared machine's speed swings within minutes, and
of the turns the median counts.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from asyncflow import MemoryTarget

from . import mini

Measure = Callable[[], Awaitable[object]]

TICK = 0.001  # seconds: how often the coroutine that looks for gaps wants to run


@dataclass(frozen=True)
class Spent:
    """What a piece of work took, in seconds."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Scale:
    """How much is measured: all of it, or with ``at_most`` a small piece, to see that everything works."""

    at_most: int | None = None

    def sizes(self, *sizes: int) -> list[int]:
        """The numbers of tasks to measure."""
        return list(sizes) if self.at_most is None else sorted({min(size, self.at_most) for size in sizes})

    def size(self, size: int) -> int:
        """One number of tasks."""
        return self.sizes(size)[0]

    def turns(self, turns: int) -> int:
        """How often each of the things compared is measured."""
        return turns if self.at_most is None else 1

    def turns_for(self, tasks: int) -> int:
        """The same, for a comparison of builds of ``tasks``: short ones are noisier."""
        return self.turns(15 if tasks <= 1_000 else 5 if tasks <= 10_000 else 3)


def clear() -> None:
    """Forget what has been made."""
    MemoryTarget.clear()
    mini.STORE.clear()


def spent(body: Measure, *, warm: Measure | None = None) -> Spent:
    """What ``body`` takes in a loop of its own, nothing having been made; ``warm`` runs before it, unmeasured."""

    async def timed() -> Spent:
        clear()
        if warm is not None:
            await warm()
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        await body()
        return Spent(time.process_time() - cpu, time.perf_counter() - wall)

    return asyncio.run(timed())


def in_turns(turns: int, *measures: Callable[[], float]) -> list[tuple[float, ...]]:
    """The figures of ``measures``, which take turns."""
    return [tuple(measure() for measure in measures) for _ in range(turns)]


def medians(figures: list[tuple[float, ...]]) -> tuple[float, ...]:
    """The median of each of the things that took turns."""
    return tuple(map(statistics.median, zip(*figures, strict=True)))


def ratio(pairs: list[tuple[float, ...]]) -> float:
    """The median of the ratios within each turn: what both of a pair met, a slow minute say, falls out."""
    return statistics.median(pair[0] / pair[1] for pair in pairs)


async def longest_gap(work: Measure) -> float:
    """The longest time in seconds a coroutine that wants to run every millisecond had to wait."""
    worst = 0.0
    over = False

    async def tick() -> None:
        nonlocal worst
        last = time.perf_counter()
        while not over:
            await asyncio.sleep(TICK)
            now = time.perf_counter()
            worst = max(worst, now - last - TICK)
            last = now

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    await work()
    over = True
    await ticker
    return worst
