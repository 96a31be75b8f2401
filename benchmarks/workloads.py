"""The workloads' tasks, for asyncflow. A node writes one small value to an in-memory target."""

from __future__ import annotations

import asyncio
import time

from asyncflow import MemoryTarget, Task


class Leaf(Task):
    n: int
    label: str = "leaf"

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"{self.label}-{self.n}")

    async def run(self) -> None:
        self.output().put(self.n)


class Root(Leaf):
    """``n`` independent tasks under one root."""

    label: str = "root"

    def requires(self) -> list[Leaf]:
        return [Leaf(n=n) for n in range(self.n)]


class Link(Leaf):
    """A chain of ``n`` tasks below this one."""

    label: str = "link"

    def requires(self) -> list[Link]:
        return [Link(n=self.n - 1)] if self.n else []


class Sleeper(Task):
    n: int

    async def run(self) -> None:
        await asyncio.sleep(0.1)


class ThreadSleeper(Task):
    n: int
    seconds: float = 0.1

    def run(self) -> None:
        time.sleep(self.seconds)


class OneByOne(Task):
    """One body that awaits ``n`` others one after the other."""

    n: int

    async def run(self) -> None:
        for n in range(self.n):
            await Leaf(n=n)


class AtOnce(Task):
    """One body that yields ``n`` others at once."""

    n: int

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"at-once-{self.n}")

    def run(self):  # type: ignore[no-untyped-def]
        targets = yield [Leaf(n=n) for n in range(self.n)]
        self.output().put(len(targets))
