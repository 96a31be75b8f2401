"""The floor: the least that can be called an executor of tasks with targets.

Frozen task values with two parameters, an async ``exists`` before and after, one ``asyncio.Task`` a node and
a counter of unmet dependencies. No parameter checks, no identity beyond the dataclass's, no locks, no events,
no failures, no limits. Ratios to it say what the rest of an engine costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

STORE: dict[str, int] = {}


class MiniTarget:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    async def exists(self) -> bool:
        return self.name in STORE

    def put(self, value: int) -> None:
        STORE[self.name] = value


@dataclass(frozen=True)
class Leaf:
    n: int
    label: str = "leaf"

    def requires(self) -> Sequence[Leaf | Root]:
        return ()

    def output(self) -> MiniTarget:
        return MiniTarget(f"{self.label}-{self.n}")

    async def run(self) -> None:
        self.output().put(self.n)


@dataclass(frozen=True)
class Root(Leaf):
    label: str = "root"

    def requires(self) -> Sequence[Leaf | Root]:
        return [Leaf(n) for n in range(self.n)]


@dataclass(frozen=True)
class Link(Leaf):
    label: str = "link"

    def requires(self) -> Sequence[Leaf | Root]:
        return [Link(self.n - 1)] if self.n else ()


async def build(root: Leaf) -> int:
    """Make ``root`` and what it requires; how many ran."""
    waiting: dict[Leaf, int] = {}
    dependents: dict[Leaf, list[Leaf]] = {}
    ready: list[Leaf] = []
    seen = {root}
    todo = [root]
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

    async def drive(task: Leaf) -> None:
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

    def start(task: Leaf) -> None:
        handle = loop.create_task(drive(task))
        running.add(handle)
        handle.add_done_callback(running.discard)

    for task in ready:
        start(task)
    await done
    return len(waiting)
