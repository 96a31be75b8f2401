"""stardag: ``build``, async bodies, ``InMemoryTarget`` and ``LocalFileTarget``, no registry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import stardag as sd
from stardag.target import InMemoryTarget, LocalFileTarget

from .protocol import SLEEP, WIDTH, Timed, edges, folder, main

entered = 0  # times the body with dynamic dependencies was entered


class Leaf(sd.TargetTask[InMemoryTarget]):
    n: int
    label: str = "leaf"

    def target(self):
        return InMemoryTarget(f"{self.label}-{self.n}")

    async def run_aio(self):
        await self.target().save_aio(self.n)


class Root(Leaf):
    label: str = "root"

    def requires(self):
        return [Leaf(n=n) for n in range(self.n)]


class Link(Leaf):
    label: str = "link"

    def requires(self):
        return [Link(n=self.n - 1)] if self.n else []


class Cell(sd.TargetTask[InMemoryTarget]):
    layer: int
    column: int

    def requires(self):
        return [Cell(layer=layer, column=column) for layer, column in edges(self.layer, self.column)]

    def target(self):
        return InMemoryTarget(f"cell-{self.layer}-{self.column}")

    async def run_aio(self):
        await self.target().save_aio(self.layer)


class Top(Leaf):
    label: str = "top"

    def requires(self):
        return [Cell(layer=self.n - 1, column=column) for column in range(WIDTH)]


class Sleeper(Leaf):
    label: str = "sleeper"

    async def run_aio(self):
        await asyncio.sleep(SLEEP)
        await super().run_aio()


class OneByOne(sd.TargetTask[InMemoryTarget]):
    n: int

    def target(self):
        return InMemoryTarget(f"one-by-one-{self.n}")

    def run(self):
        global entered
        entered += 1
        for n in range(self.n):
            yield Leaf(n=n)
        self.target().save(self.n)


class AtOnce(OneByOne):
    def run(self):
        global entered
        entered += 1
        yield [Leaf(n=n) for n in range(self.n)]
        self.target().save(self.n)


class File(sd.TargetTask[LocalFileTarget]):
    n: int
    folder: str

    def target(self):
        return LocalFileTarget(f"{self.folder}/{self.n}.txt")

    async def run_aio(self):
        async with self.target().open_aio("w") as out:
            await out.write(f"{self.n}\n")


def make(tasks: Callable[[], sd.BaseTask | Sequence[sd.BaseTask]], made: Callable[[], int]) -> Timed:
    def timed() -> dict[str, Any]:
        sd.build(tasks())
        return {"made": made(), "entered": entered}

    return timed


def in_memory() -> int:
    return len(InMemoryTarget.key_to_object)


def complete(n: int) -> Timed:
    InMemoryTarget.key_to_object.update((f"leaf-{i}", i) for i in range(n))
    return make(lambda: [Leaf(n=i) for i in range(n)], in_memory)


def files_in(place: Path, n: int) -> Timed:
    return make(lambda: [File(n=i, folder=str(place)) for i in range(n)], lambda: len(list(place.iterdir())))


def files_again(n: int) -> Timed:
    place = folder()
    for i in range(n):
        (place / f"{i}.txt").write_text(f"{i}\n")
    return files_in(place, n)


if __name__ == "__main__":
    main(
        {
            "wide": lambda n: make(lambda: Root(n=n), in_memory),
            "chain": lambda n: make(lambda: Link(n=n - 1), in_memory),
            "layers": lambda n: make(lambda: Top(n=n // WIDTH), in_memory),
            "sleeping": lambda n: make(lambda: [Sleeper(n=i) for i in range(n)], in_memory),
            "one_by_one": lambda n: make(lambda: OneByOne(n=n), in_memory),
            "at_once": lambda n: make(lambda: AtOnce(n=n), in_memory),
            "complete": complete,
            "files": lambda n: files_in(folder(), n),
            "files_again": files_again,
        }
    )
