"""Few open files, and many builds: what a long-lived process has little of is given back."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from asyncflow import BuildResult, Flow, MemoryTarget, Task, build, gather, threads
from asyncflow.executor import _executors
from asyncflow.hub import hub
from asyncflow.testing import other_tasks
from asyncflow.testing.leaks import Snapshot

# Open files --------------------------------------------------------------------------------------------------

FEW_FILES = """
import asyncio, hashlib, os, resource, sys
from pathlib import Path
from asyncflow import LocalTarget, Task, build

folder, kind, count, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def content(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


class OnLoop(Task):
    n: int

    def output(self) -> LocalTarget:
        return LocalTarget(folder / f"{self.n % 100}" / f"{self.n}.txt")

    async def run(self) -> None:
        async with self.output().open("w") as file:
            await file.write(content(self.n))


class Reads(OnLoop):
    def requires(self) -> OnLoop:
        return OnLoop(n=self.n)

    def output(self) -> LocalTarget:
        return LocalTarget(folder / f"{self.n % 100}" / f"{self.n}.copy")

    async def run(self) -> None:
        async with self.requires().output().open() as file, self.output().open("w") as copy:
            await asyncio.sleep(0)
            async for line in file:
                await copy.write(line)


class InThread(OnLoop):
    def run(self) -> None:
        with self.output().open("w") as file:
            file.write(content(self.n))


async def watch(peak: list[int]) -> None:
    while True:
        peak[0] = max(peak[0], len(os.listdir("/proc/self/fd")) - 1)
        await asyncio.sleep(0.002)


async def main() -> None:
    peak = [0]
    watching = asyncio.create_task(watch(peak))
    kinds = {"loop": OnLoop, "reads": Reads, "thread": InThread}
    # A file that sync code has opened is open: there, the number of threads is the limit.
    result = await build([kinds[kind](n=n) for n in range(count)], concurrency=count, threads=100)
    watching.cancel()
    errors = [one.error for one in result.tasks.values() if one.error is not None]
    print(f"{dict(result.counts)}, at most {peak[0]} files open")
    assert not errors, f"{len(errors)} tasks failed: {errors[0]!r}"
    suffixes = ("txt", "copy") if kind == "reads" else ("txt",)
    assert result.counts == {"succeeded": count * len(suffixes)}
    for n in range(count):
        for suffix in suffixes:
            assert (folder / f"{n % 100}" / f"{n}.{suffix}").read_text() == content(n)
    assert sum(1 for path in folder.rglob("*") if path.is_file()) == count * len(suffixes)


asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
@pytest.mark.parametrize(
    ("kind", "count"),
    [("loop", 10_000), ("reads", 2_000), ("thread", 1_000)],
)
def test_thousands_of_files_with_few_open_files(tmp_path: Path, kind: str, count: int) -> None:
    """Of 256 descriptors they may use 200, so that is the limit here: one more and a task fails with EMFILE."""
    ended = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(tmp_path), kind, str(count), "200"],
        check=False,
        capture_output=True,
        text=True,
        timeout=55,
    )
    print(ended.stdout)
    assert ended.returncode == 0, ended.stderr


# Memory ------------------------------------------------------------------------------------------------------


Door = Callable[[Task], Awaitable[Any]]


class Series:
    """Builds of ``size`` tasks each, of which every third is cancelled in the middle."""

    def __init__(self, size: int, door: Door) -> None:
        self.size = size
        self.door = door
        self.number = 0
        self.begun = 0
        self.call: asyncio.Task[Any] | None = None
        self.leaves_after = 0
        self.cancelled = 0

    def enter(self) -> None:
        self.begun += 1
        if self.begun == self.leaves_after:
            assert self.call is not None
            self.call.cancel()

    async def one(self) -> None:
        self.number += 1
        self.begun = 0
        self.leaves_after = self.size // 2 if self.number % 3 == 0 else 0
        shape = {"series": self.number, "size": self.size}
        self.call = asyncio.create_task(self.door(Top(**shape)))
        [outcome] = await asyncio.gather(self.call, return_exceptions=True)
        if self.leaves_after:
            assert isinstance(outcome, asyncio.CancelledError)
            self.cancelled += 1
        else:
            failures = (self.size - 1) // 20
            assert outcome.counts == {"succeeded": self.size - failures - 1, "failed": failures, "blocked": 1}
        MemoryTarget.clear()
        self.call = None


running: list[Series] = []


class Piece(Task):
    series: int
    n: int

    def requires(self) -> list[Task]:
        return [piece(self.series, n) for n in (2 * self.n, 2 * self.n + 1) if 0 < n < 10]


class Computed(Piece):
    async def run(self) -> bytes:
        running[-1].enter()
        await asyncio.sleep(0)
        return bytes(1000)


class Stored(Piece):
    def output(self) -> MemoryTarget:
        return MemoryTarget(f"stored {self.series} {self.n}")

    async def run(self) -> None:
        running[-1].enter()
        await asyncio.sleep(0)
        self.output().put(bytes(1000))


class Asks(Piece):
    async def run(self) -> int:
        running[-1].enter()
        return len(await gather(piece(self.series, 8), piece(self.series, 9)))


class Yields(Stored):
    async def run(self) -> AsyncIterator[Any]:  # type: ignore[override]
        running[-1].enter()
        yield piece(self.series, 6)
        self.output().put(bytes(1000))


class InThread(Piece):
    def run(self) -> Generator[Any, Any, int]:
        running[-1].enter()
        yield piece(self.series, 7)
        return self.n


class Fails(Piece):
    async def run(self) -> None:
        running[-1].enter()
        raise ValueError(self)


KINDS: dict[int, type[Piece]] = {2: Stored, 3: Asks, 4: Yields, 5: InThread, 19: Fails}


def piece(series: int, n: int) -> Task:
    return KINDS.get(n % 20, Computed)(series=series, n=n)


class Top(Task):
    series: int
    size: int

    def requires(self) -> list[Task]:
        return [piece(self.series, n) for n in range(self.size - 1)]

    async def run(self) -> None: ...


async def by_build(task: Task) -> BuildResult:
    return await build(task, concurrency=16, on_event=lambda _: None)


async def builds_in_one_loop(builds: int, size: int, warm: int, door: Door = by_build) -> float:
    """The bytes by which each build leaves the process larger, from the ``warm``-th on."""
    series = Series(size, door)
    running[:] = [series]
    points: list[tuple[int, int]] = []
    before = None
    tracemalloc.start()
    try:
        while series.number < builds:
            await series.one()
            if series.number >= warm and not series.number % 10:
                gc.collect()
                points.append((series.number, tracemalloc.get_traced_memory()[0]))
                threads.trim()
                assert other_tasks() == []
                if before is None:
                    before = Snapshot.take()
    finally:
        tracemalloc.stop()
    assert series.cancelled == builds // 3
    assert before is not None
    assert Snapshot.take().files == before.files
    assert not len(hub)
    assert not _executors
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    print(f"{builds} builds of {size} tasks: {slope:.0f} bytes a build, of {points[-1][1]:,}")
    return slope


async def by_flow(builds: int, size: int, warm: int) -> float:
    """The same for the runs of a flow, whose starters cancel them when they are cancelled themselves."""
    async with Flow(concurrency=16, keep=5) as flow:

        async def door(task: Task) -> BuildResult:
            run = flow.start(task)
            try:
                return await run
            except asyncio.CancelledError:
                run.cancel()
                await run
                raise

        return await builds_in_one_loop(builds, size, warm, door)


@pytest.mark.parametrize("through", [builds_in_one_loop, by_flow])
async def test_builds_leave_no_memory_behind(through: Any) -> None:
    assert await through(150, 60, 50) < 1000


@pytest.mark.soak
@pytest.mark.parametrize("through", [builds_in_one_loop, by_flow])
async def test_five_hundred_builds_leave_no_memory_behind(through: Any) -> None:
    assert await through(500, 200, 100) < 1000
