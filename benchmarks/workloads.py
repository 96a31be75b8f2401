"""The workloads' tasks, for asyncflow. A node writes one small value to an in-memory target, or a small file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

from asyncflow import LocalTarget, MemoryTarget, Task

WIDTH = 100
"""Tasks in a layer of ``Cell``."""


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


class Cell(Task):
    """A task of layer ``layer``; requires three of the layer below."""

    layer: int
    column: int

    def requires(self) -> list[Cell]:
        if not self.layer:
            return []
        return [Cell(layer=self.layer - 1, column=(self.column + step) % WIDTH) for step in range(3)]

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"cell-{self.layer}-{self.column}")

    async def run(self) -> None:
        self.output().put(self.layer)


class Top(Leaf):
    """Stands on ``n`` layers."""

    label: str = "top"

    def requires(self) -> list[Cell]:
        return [Cell(layer=self.n - 1, column=column) for column in range(WIDTH)]


class Sleeper(Task):
    n: int

    async def run(self) -> None:
        await asyncio.sleep(0.1)


class ThreadSleeper(Task):
    n: int
    seconds: float = 0.1

    def run(self) -> None:
        time.sleep(self.seconds)


class Burner(Task):
    """Keeps a core busy for half a second of its own time."""

    n: int
    seconds: float = 0.5
    runner = "process"

    def run(self) -> None:
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass


class Tiny(Task):
    n: int
    runner = "process"

    def run(self) -> int:
        return self.n


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

    def run(self) -> Generator[list[Leaf], list[Any], None]:
        targets = yield [Leaf(n=n) for n in range(self.n)]
        self.output().put(len(targets))


class File(Task):
    """A small file, written on the loop."""

    n: int
    folder: Path
    durability: Literal["fsync", "none"] = "none"

    def output(self) -> LocalTarget:
        return LocalTarget(self.folder / f"{self.n}.txt", durability=self.durability)

    async def run(self) -> None:
        async with self.output().open("w") as file:
            await file.write(f"{self.n}\n")


class ThreadFile(File):
    """The same, written by a sync body."""

    def run(self) -> None:  # type: ignore[override]
        with self.output().open("w") as file:
            file.write(f"{self.n}\n")
