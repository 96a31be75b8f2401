"""Builds that write, read and ask, cancelled wherever one of their bodies suspends, and in every turn of the loop.

Afterwards each target is whole or absent, nothing is left, and the next build makes what is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from asyncflow import BuildResult, LocalTarget, Task, build, gather
from asyncflow.executor import _executors
from asyncflow.hub import hub
from asyncflow.testing import Suspensions, other_tasks

T = TypeVar("T")

MOST = 300  # suspensions, or turns, after which a build is taken not to end


class Judge:
    """Counts the suspensions of all bodies, and cancels the build at the ``point``-th; ``again`` at the next one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.point = 0
        self.again = False
        self.count = 0
        self.call: asyncio.Task[BuildResult] | None = None
        self.begun: Counter[str] = Counter()
        self.made: set[str] = set()

    def at(self, _: int, __: Any) -> None:
        self.count += 1
        if self.call is not None and self.count in ((self.point, self.point + 1) if self.again else (self.point,)):
            self.call.cancel()

    def whole(self, name: str) -> bool:
        """Whether the file is there; it is whole then."""
        path = self.folder / name
        if not path.exists():
            return False
        content = path.read_text()
        body, seal = content[:-64], content[-64:]
        assert hashlib.sha256(body.encode()).hexdigest() == seal, f"{name} is there and not whole"
        return True

    def nothing_is_left(self) -> None:
        assert other_tasks() == []
        assert not len(hub)
        assert not _executors
        assert not list(self.folder.rglob(".af-*"))


judges: list[Judge] = []


async def watched(body: Awaitable[T]) -> T:
    value: T = await Suspensions(body, judges[-1].at)
    return value


def sealed(name: str) -> tuple[str, str]:
    """What a file holds, in two pieces: more than goes to a thread in one hop, and the seal."""
    body = name * (300 * 1024 // len(name))
    return body, hashlib.sha256(body.encode()).hexdigest()


class Local(LocalTarget):
    """Asked on the loop."""

    async def exists(self) -> bool:  # type: ignore[override]
        await asyncio.sleep(0)
        there = await super().exists()
        await asyncio.sleep(0)
        return there


class File(Task):
    name: str

    def output(self) -> LocalTarget:
        return LocalTarget(judges[-1].folder / self.name, durability="none")

    def enter(self) -> None:
        assert not judges[-1].whole(self.name), "it is there, and is made again"
        judges[-1].begun[self.name] += 1

    async def write(self) -> None:
        async with self.output().open("w") as out:
            for piece in sealed(self.name):
                await out.write(piece)


class Writes(File):
    async def run(self) -> None:
        self.enter()
        await watched(self.write())


class WritesAndIsAskedOnTheLoop(Writes):
    def output(self) -> LocalTarget:
        return Local(judges[-1].folder / self.name, durability="none")


class WritesInThread(File):
    def run(self) -> None:
        self.enter()
        with self.output().open("w") as out:
            for piece in sealed(self.name):
                out.write(piece)


class Reads(File):
    def requires(self) -> list[Task]:
        return [Writes(name="one"), WritesInThread(name="two")]

    async def read(self) -> int:
        length = 0
        for target in self.input():
            async with target.open() as file:
                length += len(await file.readline())
        return length

    async def run(self) -> None:
        self.enter()
        assert await watched(self.read()) == 2 * (300 * 1024 + 64)
        await watched(self.write())


class Awaits(File):
    async def ask(self) -> None:
        await WritesAndIsAskedOnTheLoop(name="one")
        await gather(Writes(name="two"), WritesInThread(name="six"))

    async def run(self) -> None:
        self.enter()
        await watched(self.ask())
        await watched(self.write())


class Yields(File):
    async def run(self) -> AsyncIterator[Any]:
        self.enter()
        yield Writes(name="one")
        yield [Writes(name="two"), WritesInThread(name="six")]
        await watched(self.write())


class YieldsInThread(File):
    def run(self) -> Iterator[Any]:
        self.enter()
        yield Writes(name="one")
        yield [Writes(name="two"), WritesAndIsAskedOnTheLoop(name="six")]
        with self.output().open("w") as out:
            for piece in sealed(self.name):
                out.write(piece)


KINDS: list[type[File]] = [Writes, WritesAndIsAskedOnTheLoop, WritesInThread, Reads, Awaits, Yields, YieldsInThread]


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Callable[[], Judge]]:
    def another() -> Judge:
        folder = tmp_path / str(len(judges))
        folder.mkdir()
        judges.append(Judge(folder))
        return judges[-1]

    yield another
    judges.clear()


async def judged(judge: Judge, root: File, call: asyncio.Task[BuildResult]) -> bool:
    """Whether ``call`` was cancelled; what it has left, and the build after it, are right."""
    [outcome] = await asyncio.gather(call, return_exceptions=True)
    judge.call = None
    cancelled = isinstance(outcome, asyncio.CancelledError)
    assert cancelled or (isinstance(outcome, BuildResult) and outcome.ok), outcome
    judge.nothing_is_left()
    there = {name: judge.whole(name) for name in ("root", "one", "two", "six")}
    assert cancelled or there["root"]
    before = judge.begun.copy()
    assert (await build(root)).ok
    for name, was_there in there.items():
        again = judge.begun[name] - before[name]
        assert again <= 1
        assert not (was_there and again), f"{name} was there, and was made again"
    assert judge.whole("root")
    judge.nothing_is_left()
    return cancelled


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (WritesInThread, YieldsInThread)])
async def test_cancelled_wherever_a_body_suspends(judge: Callable[[], Judge], kind: type[File], again: bool) -> None:
    cancels = 0
    for point in range(1, MOST):
        now = judge()
        now.point, now.again = point, again
        root = kind(name="root")
        now.call = asyncio.create_task(build(root, concurrency=2, threads=1))
        # Where the body is done before its build hears of the cancel, the build may have ended well.
        cancels += await judged(now, root, now.call)
        if now.count < point:
            break
    else:
        raise AssertionError("the build does not end")
    assert cancels >= 3


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_in_any_turn_of_the_loop(judge: Callable[[], Judge], kind: type[File], again: bool) -> None:
    """While it plans, asks hooks in threads and on the loop, writes in threads, and confirms."""
    turns, cancels = 0, 0
    for _ in range(MOST):
        now = judge()
        root = kind(name="root")
        call = asyncio.create_task(build(root, concurrency=2, threads=1))
        for _ in range(turns):
            await asyncio.sleep(0)
        ended = call.done()
        call.cancel()
        if again:
            await asyncio.sleep(0)
            call.cancel()
        cancels += await judged(now, root, call)
        if ended:
            break
        turns += 1 + turns // 8  # every one at first; how many there are in all is the threads' affair
    else:
        raise AssertionError("the build does not end")
    assert cancels >= 3
