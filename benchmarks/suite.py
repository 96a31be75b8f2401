"""The measurements of asyncflow and the floor. Each gives its rows as it goes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

from asyncflow import Flow, Task, build, plan, start

from . import fresh, mini, workloads
from .measure import Measure, Scale, clear, in_turns, longest_gap, medians, ratio, spent
from .rows import Goal, Row

__all__ = ["ALL"]

MICRO = 1e6
Durability = Literal["fsync", "none"]
CPU = "us CPU/task"
WALL = "us wall/task"


async def made(*tasks: Task) -> None:
    """Build ``tasks`` with the default settings."""
    (await build(tasks)).raise_for_failure()


def compare(
    workload: str,
    tasks: int,
    turns: int,
    ours: Measure,
    floor: Measure | None = None,
    *,
    goal: Goal | None = None,
    peer_workload: str | None = None,
    warm: tuple[Measure, Measure] | None = None,
) -> Row:
    """CPU time per task of ``ours`` and ``floor``, in turns; ``warm`` runs before each of them, unmeasured."""
    before, floor_before = warm or (None, None)
    if floor is None:
        pairs = in_turns(turns, lambda: spent(ours, warm=before).cpu)
        return Row(workload, tasks, CPU, medians(pairs)[0] / tasks * MICRO, goal=goal, peer_workload=peer_workload)
    pairs = in_turns(turns, lambda: spent(ours, warm=before).cpu, lambda: spent(floor, warm=floor_before).cpu)
    own, least = (seconds / tasks * MICRO for seconds in medians(pairs))
    return Row(workload, tasks, CPU, own, least, ratio(pairs), goal, peer_workload)


def wide(scale: Scale) -> Iterator[Row]:
    """W1: independent tasks under one root."""
    for n in scale.sizes(100, 1_000, 10_000, 100_000):
        goal = Goal(30, 2.5 if n <= 10_000 else 3)
        ours, floor = partial(made, workloads.Root(n=n)), partial(mini.build, mini.Root(n))
        yield compare("W1 wide", n, scale.turns_for(n), ours, floor, goal=goal, peer_workload="wide")


def chain(scale: Scale) -> Iterator[Row]:
    """W2: a chain."""
    for n in scale.sizes(100, 1_000, 10_000, 100_000):
        goal = Goal(30, 2.5 if n <= 10_000 else 3)
        ours, floor = partial(made, workloads.Link(n=n - 1)), partial(mini.build, mini.Link(n - 1))
        yield compare("W2 chain", n, scale.turns_for(n), ours, floor, goal=goal, peer_workload="chain")


def layers(scale: Scale) -> Iterator[Row]:
    """W3: 10 and 100 layers of 100 tasks, 3 edges each."""
    for n in scale.sizes(10, 100):
        tasks = n * workloads.WIDTH
        ours, floor = partial(made, workloads.Top(n=n)), partial(mini.build, mini.Top(n))
        yield compare(
            "W3 layers, 3 edges", tasks, scale.turns_for(tasks), ours, floor, goal=Goal(40), peer_workload="layers"
        )


def watched(scale: Scale) -> Iterator[Row]:
    """What events cost a task, more than with no listener: a callback, a run that nobody reads, readers."""
    n = scale.size(10_000)

    async def called() -> None:
        await build(workloads.Root(n=n), on_event=lambda event: None)

    async def read(readers: int) -> None:
        run = start(workloads.Root(n=n))

        async def reads() -> None:
            async for _ in run.events():
                pass

        reading = [asyncio.create_task(reads()) for _ in range(readers)]
        await run
        for task in reading:
            await task

    cases: dict[str, Measure] = {
        "on_event": called,
        "a run nobody reads": partial(read, 0),
        "a run with a reader": partial(read, 1),
        "a run with 10 readers": partial(read, 10),
    }
    measures = [partial(made, workloads.Root(n=n)), *cases.values()]
    turns = in_turns(scale.turns_for(n), *[lambda measure=measure: spent(measure).cpu for measure in measures])
    for place, name in enumerate(cases, 1):
        more = median(turn[place] - turn[0] for turn in turns) / n * MICRO
        yield Row(f"events: {name}", n, "us CPU/task more", more)


def sleeping(scale: Scale) -> Iterator[Row]:
    """W4 and W8: many that sleep at once, on the loop and in threads."""
    n, threads = scale.size(1_000), scale.size(64)
    for workload, tasks, limit, peer_workload in (
        ("W4 sleep 0.1 s", [workloads.Sleeper(n=i) for i in range(n)], 0.16, "sleeping"),
        ("W8 sync sleep 0.1 s, 32 threads", [workloads.ThreadSleeper(n=i) for i in range(threads)], 0.25, None),
    ):
        (wall,) = medians(in_turns(scale.turns(5), lambda tasks=tasks: spent(partial(made, *tasks)).wall))  # type: ignore[misc]
        yield Row(workload, len(tasks), "s wall", wall, goal=Goal(limit), peer_workload=peer_workload)


def processes(scale: Scale) -> Iterator[Row]:
    """Bodies in two worker processes, which a flow has started before."""
    burners, tiny = scale.size(8), scale.size(2_000)

    async def measured() -> tuple[float, float]:
        async with Flow(processes=2) as flow:
            await flow.start([workloads.Burner(n=n, seconds=0.01) for n in range(8)])
            walls = []
            for tasks in ([workloads.Burner(n=n) for n in range(burners)], [workloads.Tiny(n=n) for n in range(tiny)]):
                begun = time.perf_counter()
                (await flow.start(tasks)).raise_for_failure()
                walls.append(time.perf_counter() - begun)
        return walls[0], walls[1]

    burning, small = medians([asyncio.run(measured()) for _ in range(scale.turns(5))])
    yield Row("processes: 0.5 s of CPU each, 2 workers", burners, "s wall", burning, goal=Goal(2.5))
    yield Row("processes: tiny tasks, 2 workers", tiny, "us wall/task", small / tiny * MICRO, goal=Goal(400))


def dynamic(scale: Scale) -> Iterator[Row]:
    """W5: one body that asks for many."""
    n = scale.size(1_000)
    for workload, task, peer_workload in (
        ("W5 awaited one by one", workloads.OneByOne(n=n), "one_by_one"),
        ("W5 yielded at once", workloads.AtOnce(n=n), "at_once"),
    ):
        ours = partial(made, task)
        yield compare(workload, n, scale.turns_for(n), ours, goal=Goal(60), peer_workload=peer_workload)


def complete(scale: Scale) -> Iterator[Row]:
    """W6: everything is there already."""
    n = scale.size(10_000)

    async def ours() -> None:
        await made(*[workloads.Leaf(n=i) for i in range(n)])

    async def floor() -> None:
        await mini.build(*[mini.Leaf(i) for i in range(n)])

    turns = scale.turns_for(n)
    warm = (ours, floor)
    yield compare("W6 all complete", n, turns, ours, floor, goal=Goal(8), peer_workload="complete", warm=warm)


def files(scale: Scale) -> Iterator[Row]:
    """W7: small files, each written atomically; then asked for again."""
    with tempfile.TemporaryDirectory(dir=_cache(), prefix="bench-files-") as place:
        folders = map(Path(place).joinpath, map(str, range(sys.maxsize)))
        for n in scale.sizes(1_000, 10_000):
            yield _written("W7 files, none", n, scale, folders, Goal(150), "files")
        yield _written("W7 files, none, sync bodies", scale.size(1_000), scale, folders, kind=workloads.ThreadFile)
        yield _written("W7 files, fsync", scale.size(1_000), scale, folders, durability="fsync")
        yield _asked_again(scale.size(10_000), scale, folders)


def _cache() -> Path:
    fresh.CACHE.mkdir(exist_ok=True)
    return fresh.CACHE


def _folder(folders: Iterator[Path]) -> Path:
    folder = next(folders)
    folder.mkdir()
    return folder


def _written(
    workload: str,
    n: int,
    scale: Scale,
    folders: Iterator[Path],
    goal: Goal | None = None,
    peer_workload: str | None = None,
    *,
    kind: type[workloads.File] = workloads.File,
    durability: Durability = "none",
) -> Row:
    """Wall time a file. The floor writes its files on the loop and without fsync."""

    async def ours(folder: Path) -> None:
        await made(*[kind(n=i, folder=folder, durability=durability) for i in range(n)])

    async def floor(folder: Path) -> None:
        await mini.build(*[mini.File(i, folder) for i in range(n)])

    pairs = in_turns(
        scale.turns(3),
        lambda: spent(partial(ours, _folder(folders))).wall,
        lambda: spent(partial(floor, _folder(folders))).wall,
    )
    own, least = (seconds / n * MICRO for seconds in medians(pairs))
    return Row(workload, n, WALL, own, least, ratio(pairs), goal, peer_workload)


def _asked_again(n: int, scale: Scale, folders: Iterator[Path]) -> Row:
    folder = _folder(folders)

    async def ours() -> None:
        await made(*[workloads.File(n=i, folder=folder) for i in range(n)])

    async def floor() -> None:
        await mini.build(*[mini.File(i, folder) for i in range(n)])

    spent(ours)
    pairs = in_turns(scale.turns(5), lambda: spent(ours).wall, lambda: spent(floor).wall)
    own, least = medians(pairs)
    return Row("W7 files again, all complete", n, "s wall", own, least, ratio(pairs), Goal(0.3), "files_again")


def gaps(scale: Scale) -> Iterator[Row]:
    """W9: how long a build holds the loop."""
    n = scale.size(10_000)
    with tempfile.TemporaryDirectory(dir=_cache(), prefix="bench-files-") as place:
        folders = map(Path(place).joinpath, map(str, range(sys.maxsize)))

        def files_of(kind: type[workloads.File]) -> Measure:
            # Made before the clock starts: a list of 10,000 is 70 ms of the caller's own.
            folder = _folder(folders)
            return partial(made, *[kind(n=i, folder=folder) for i in range(n)])

        works: list[tuple[str, Callable[[], Measure], Goal | None]] = [
            ("W9 loop gap, planned and run", lambda: partial(made, workloads.Root(n=n)), Goal(50)),
            ("W9 loop gap, planned", lambda: partial(_planned, workloads.Root(n=n)), Goal(50)),
            ("loop gap, LocalTarget bodies", partial(files_of, workloads.File), None),
            ("loop gap, LocalTarget sync bodies", partial(files_of, workloads.ThreadFile), None),
        ]
        for workload, prepared, goal in works:
            yield _gap(workload, n, scale, prepared, goal)
    sleeper = workloads.ThreadSleeper(n=0, seconds=0.5)
    yield _gap("loop gap, a sync body of 0.5 s", 1, scale, lambda: partial(made, sleeper))


async def _planned(task: Task) -> None:
    await plan(task)


def _gap(workload: str, n: int, scale: Scale, prepared: Callable[[], Measure], goal: Goal | None = None) -> Row:
    def longest() -> float:
        clear()
        return asyncio.run(longest_gap(prepared()))

    (gap,) = medians(in_turns(scale.turns(5), longest))
    return Row(workload, n, "ms", gap * 1e3, goal=goal)


def imports(scale: Scale) -> Iterator[Row]:
    """What ``import asyncflow`` costs over ``import asyncio``, each in a new interpreter, in turns."""
    code = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"

    def seconds(module: str) -> float:
        # A user's interpreter finds compiled modules.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, "-c", code.format(module)]
        out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return float(out.stdout)

    seconds("asyncflow")
    pairs = in_turns(scale.turns(11), lambda: seconds("asyncflow"), lambda: seconds("asyncio"))
    (over,) = medians([(ours - bare,) for ours, bare in pairs])
    yield Row("import, over import asyncio", 1, "ms", over * 1e3)


def memory(scale: Scale) -> Iterator[Row]:
    """What a task costs in resident size: the peak of a new process over its size before, per task."""
    n = scale.size(100_000)
    for workload, name in (("memory, W1 wide", "wide"), ("memory, W2 chain", "chain")):
        ours, floor = (fresh.run(engine, name, n) for engine in ("asyncflow", "mini"))
        own, least = ((found["peak_mb"] - found["before_mb"]) * 1024 / n for found in (ours, floor))
        yield Row(workload, n, "kB/task", own, least, own / max(least, 0.01))


def million(scale: Scale) -> Iterator[Row]:
    """W1 with a million tasks, in a process of its own: wall time and peak resident size."""
    n = scale.size(1_000_000)
    ours, floor = (fresh.run(engine, "wide", n, limit=600) for engine in ("asyncflow", "mini"))
    for workload, unit, key, limit in (
        ("W1 wide, a million", "s wall", "wall_s", 60),
        ("W1 wide, a million, peak RSS", "MB", "peak_mb", 1_200),
    ):
        yield Row(workload, n, unit, ours[key], floor[key], ours[key] / floor[key], Goal(limit))


ALL = (wide, chain, layers, sleeping, processes, dynamic, complete, watched, files, gaps, imports, memory, million)
