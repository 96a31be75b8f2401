"""The floor: the least that can be called an executor of tasks with targets.

Frozen task values with two parameters, an async ``exists`` before and after, one ``asyncio.Task`` a node and
a counter of unmet dependencies. No parameter checks, no identity beyond the dataclass's, no locks, no events,
no failures, no limits. Ratios to it say what the rest of an engine costs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

STORE: dict[str, int] = {}

WIDTH = 100
"""Tasks in a layer of ``Cell``."""


class Node(Protocol):
    """What ``build`` wants of a task; it is hashable, too."""

    def requires(self) -> Sequence[Node]: ...

    def output(self) -> MiniTarget: ...

    async def run(self) -> None: ...


class MiniTarget:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    async def exists(self) -> bool:
        return self.name in STORE

    def put(self, value: int) -> None:
        STORE[self.name] = value


class MiniFile(MiniTarget):
    """A file, written under another name and renamed, all of it on the loop."""

    __slots__ = ()

    async def exists(self) -> bool:
        return os.path.exists(self.name)  # noqa: ASYNC240  # as the floor does everything: on the loop

    def put(self, value: int) -> None:
        with open(self.name + ".part", "w", encoding="utf-8") as file:
            file.write(f"{value}\n")
        os.replace(self.name + ".part", self.name)


@dataclass(frozen=True)
class Leaf:
    n: int
    label: str = "leaf"

    def requires(self) -> Sequence[Node]:
        return ()

    def output(self) -> MiniTarget:
        return MiniTarget(f"{self.label}-{self.n}")

    async def run(self) -> None:
        self.output().put(self.n)


@dataclass(frozen=True)
class Root(Leaf):
    label: str = "root"

    def requires(self) -> Sequence[Node]:
        return [Leaf(n) for n in range(self.n)]


@dataclass(frozen=True)
class Link(Leaf):
    label: str = "link"

    def requires(self) -> Sequence[Node]:
        return [Link(self.n - 1)] if self.n else ()


@dataclass(frozen=True)
class Cell:
    layer: int
    column: int

    def requires(self) -> Sequence[Node]:
        return [Cell(self.layer - 1, (self.column + step) % WIDTH) for step in range(3)] if self.layer else ()

    def output(self) -> MiniTarget:
        return MiniTarget(f"cell-{self.layer}-{self.column}")

    async def run(self) -> None:
        self.output().put(self.layer)


@dataclass(frozen=True)
class Top(Leaf):
    label: str = "top"

    def requires(self) -> Sequence[Node]:
        return [Cell(self.n - 1, column) for column in range(WIDTH)]


@dataclass(frozen=True)
class File:
    n: int
    folder: Path

    def requires(self) -> Sequence[Node]:
        return ()

    def output(self) -> MiniTarget:
        return MiniFile(f"{self.folder}/{self.n}.txt")

    async def run(self) -> None:
        self.output().put(self.n)


async def build(*roots: Node) -> int:
    """Make ``roots`` and what they require; how many ran."""
    waiting: dict[Node, int] = {}
    dependents: dict[Node, list[Node]] = {}
    ready: list[Node] = []
    seen = set(roots)
    todo = list(roots)
    while todo:
        task = todo.pop()
        if await task.output().exists():
            continue
        dependencies = task.requires()
        waiting[task] = len(dependencies)
        for dependency in dependencies:
            dependents.setdefault(dependency, []).append(task)
            if dependency not in seen:
                seen.add(dependency)
                todo.append(dependency)
        if not dependencies:
            ready.append(task)
    if not waiting:
        return 0
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    running: set[asyncio.Task[None]] = set()
    left = len(waiting)

    async def drive(task: Node) -> None:
        nonlocal left
        await task.run()
        assert await task.output().exists()
        for dependent in dependents.get(task, ()):
            waiting[dependent] -= 1
            if not waiting[dependent]:
                start(dependent)
        left -= 1
        if not left:
            done.set_result(None)

    def start(task: Node) -> None:
        handle = loop.create_task(drive(task))
        running.add(handle)
        handle.add_done_callback(running.discard)

    for task in ready:
        start(task)
    await done
    return len(waiting)
