"""asyncflow, asked as the other engines are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from asyncflow import MemoryTarget, Task, build

from .. import workloads
from .protocol import WIDTH, Timed, folder, main


def make(tasks: Callable[[], Task | Sequence[Task]], made: Callable[[], int] | None = None) -> Timed:
    """Build ``tasks()``, and count what is there then."""

    def timed() -> dict[str, Any]:
        result = asyncio.run(build(tasks()))
        result.raise_for_failure()
        return {"made": len(MemoryTarget._values) if made is None else made()}

    return timed


def wide(n: int) -> Timed:
    return make(lambda: workloads.Root(n=n))


def chain(n: int) -> Timed:
    return make(lambda: workloads.Link(n=n - 1))


def layers(n: int) -> Timed:
    return make(lambda: workloads.Top(n=n // WIDTH))


def sleeping(n: int) -> Timed:
    return make(lambda: [workloads.Sleeper(n=i) for i in range(n)], lambda: n)


def one_by_one(n: int) -> Timed:
    return make(lambda: workloads.OneByOne(n=n))


def at_once(n: int) -> Timed:
    return make(lambda: workloads.AtOnce(n=n))


def complete(n: int) -> Timed:
    timed = make(lambda: [workloads.Leaf(n=i) for i in range(n)])
    timed()
    return timed


def files(n: int) -> Timed:
    place = folder()
    return make(lambda: [workloads.File(n=i, folder=place) for i in range(n)], lambda: len(list(place.iterdir())))


def files_again(n: int) -> Timed:
    timed = files(n)
    timed()
    return timed


WORKLOADS = {
    "wide": wide,
    "chain": chain,
    "layers": layers,
    "sleeping": sleeping,
    "one_by_one": one_by_one,
    "at_once": at_once,
    "complete": complete,
    "files": files,
    "files_again": files_again,
}

if __name__ == "__main__":
    main(WORKLOADS)
