"""Luigi: one worker, the local scheduler, and ``LocalTarget``.

Its own in-memory target, ``MockTarget``, keeps its values in another process (100 us and more a question); here
they are in a dictionary, as every other engine's are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import luigi

from .protocol import SLEEP, WIDTH, Timed, edges, folder, main

WORKERS = 32
"""For the tasks that sleep: each runs in a process of its own then, 32 at a time."""

STORE: dict[str, int] = {}

entered = 0  # times the body with dynamic dependencies was entered


class Memory(luigi.Target):
    def __init__(self, name):
        self.name = name

    def exists(self):
        return self.name in STORE

    def put(self, value):
        STORE[self.name] = value


class Leaf(luigi.Task):
    n = luigi.IntParameter()
    label = luigi.Parameter(default="leaf")

    def output(self):
        return Memory(f"{self.label}-{self.n}")

    def run(self):
        self.output().put(self.n)


class Root(Leaf):
    label = luigi.Parameter(default="root")

    def requires(self):
        return [Leaf(n=n) for n in range(self.n)]


class Link(Leaf):
    label = luigi.Parameter(default="link")

    def requires(self):
        return [Link(n=self.n - 1)] if self.n else []


class Cell(luigi.Task):
    layer = luigi.IntParameter()
    column = luigi.IntParameter()

    def requires(self):
        return [Cell(layer=layer, column=column) for layer, column in edges(self.layer, self.column)]

    def output(self):
        return Memory(f"cell-{self.layer}-{self.column}")

    def run(self):
        self.output().put(self.layer)


class Top(Leaf):
    label = luigi.Parameter(default="top")

    def requires(self):
        return [Cell(layer=self.n - 1, column=column) for column in range(WIDTH)]


class Sleeper(luigi.Task):
    n = luigi.IntParameter()

    def run(self):
        time.sleep(SLEEP)


class OneByOne(Leaf):
    label = luigi.Parameter(default="one-by-one")

    def run(self):
        global entered
        entered += 1
        for n in range(self.n):
            yield Leaf(n=n)
        super().run()


class AtOnce(Leaf):
    label = luigi.Parameter(default="at-once")

    def run(self):
        global entered
        entered += 1
        yield [Leaf(n=n) for n in range(self.n)]
        super().run()


class File(luigi.Task):
    n = luigi.IntParameter()
    folder = luigi.Parameter()

    def output(self):
        return luigi.LocalTarget(f"{self.folder}/{self.n}.txt")

    def run(self):
        with self.output().open("w") as out:
            out.write(f"{self.n}\n")


def make(tasks: Callable[[], Sequence[luigi.Task]], made: Callable[[], int], *, workers: int = 1) -> Timed:
    def timed() -> dict[str, Any]:
        if not luigi.build(tasks(), local_scheduler=True, workers=workers, log_level="CRITICAL"):
            raise RuntimeError("luigi.build() was not successful")
        return {"made": made(), "entered": entered}

    return timed


def in_memory() -> int:
    return len(STORE)


def complete(n: int) -> Timed:
    STORE.update((f"leaf-{i}", i) for i in range(n))  # by hand: Luigi would not be done making 10,000
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
            "wide": lambda n: make(lambda: [Root(n=n)], in_memory),
            "chain": lambda n: make(lambda: [Link(n=n - 1)], in_memory),
            "layers": lambda n: make(lambda: [Top(n=n // WIDTH)], in_memory),
            "sleeping": lambda n: make(lambda: [Sleeper(n=i) for i in range(n)], lambda: n, workers=WORKERS),
            "one_by_one": lambda n: make(lambda: [OneByOne(n=n)], in_memory),
            "at_once": lambda n: make(lambda: [AtOnce(n=n)], in_memory),
            "complete": complete,
            "files": lambda n: files_in(folder(), n),
            "files_again": files_again,
        }
    )
