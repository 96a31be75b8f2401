"""Run the workloads and print one JSON line for each: ``python -m benchmarks [NAME ...]``.

Figures are CPU time of the process per task in microseconds, and wall time where it is the point. asyncflow
and the floor (``mini.py``) take turns in one process, since the machine's speed swings within minutes: the
ratio, the median of the pairs, is the figure to quote.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from asyncflow import MemoryTarget, Task, build, plan, start

from . import mini, workloads

Measure = Callable[[], Coroutine[Any, Any, Any]]


def clear() -> None:
    MemoryTarget.clear()
    mini.STORE.clear()


def cpu(body: Measure, *, warm: Measure | None = None) -> float:
    """Seconds of CPU time ``body`` takes in a loop of its own; ``warm`` runs before it, unmeasured."""

    async def timed() -> float:
        clear()
        if warm is not None:
            await warm()
        gc.collect()
        start = time.process_time()
        await body()
        return time.process_time() - start

    return asyncio.run(timed())


async def asyncflow_build(task: Task) -> None:
    (await build(task)).raise_for_failure()


def compare(name: str, tasks: int, ours: Measure, floor: Measure | None, *, warm: Measure | None = None) -> None:
    """Print the medians of several turns of ``ours`` and ``floor``, in microseconds per task."""
    turns = 5 if tasks <= 10_000 else 3
    if tasks <= 1_000:
        turns = 15
    pairs = [(cpu(ours, warm=warm), cpu(floor) if floor else 0.0) for _ in range(turns)]
    line: dict[str, Any] = {
        "workload": name,
        "tasks": tasks,
        "us_per_task": round(statistics.median(a for a, _ in pairs) / tasks * 1e6, 2),
    }
    if floor is not None:
        line["mini_us_per_task"] = round(statistics.median(b for _, b in pairs) / tasks * 1e6, 2)
        line["ratio_to_mini"] = round(statistics.median(a / b for a, b in pairs), 2)
    print(json.dumps(line), flush=True)


def wide() -> None:
    for n in (100, 1_000, 10_000, 100_000):
        compare("W1 wide", n, partial(asyncflow_build, workloads.Root(n=n)), partial(mini.build, mini.Root(n)))


def chain() -> None:
    for n in (100, 1_000, 10_000, 100_000):
        compare("W2 chain", n, partial(asyncflow_build, workloads.Link(n=n)), partial(mini.build, mini.Link(n)))


def dynamic() -> None:
    n = 1_000
    compare("W5 awaited one by one", n, lambda: asyncflow_build(workloads.OneByOne(n=n)), None)
    compare("W5 yielded at once", n, lambda: asyncflow_build(workloads.AtOnce(n=n)), None)


def complete() -> None:
    n = 10_000

    async def leaves() -> None:
        await build([workloads.Leaf(n=i) for i in range(n)])

    compare("W6 all complete", n, leaves, None, warm=leaves)


def watched() -> None:
    """What events cost: to nobody, to a callback, kept by a run that nobody reads, read by one and by ten."""
    n = 10_000

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
        "nobody listens": lambda: asyncflow_build(workloads.Root(n=n)),
        "on_event": called,
        "a run nobody reads": partial(read, 0),
        "a run with a reader": partial(read, 1),
        "a run with 10 readers": partial(read, 10),
    }
    turns = [{name: cpu(case) for name, case in cases.items()} for _ in range(7)]
    for name in cases:
        extra = statistics.median(turn[name] - turn["nobody listens"] for turn in turns) / n * 1e6
        line = {"workload": f"events: {name}", "tasks": n, "us_per_task_more": round(extra, 2)}
        print(json.dumps(line), flush=True)


def sleeping() -> None:
    for name, tasks in (
        ("W4 1,000 x sleep 0.1 s", [workloads.Sleeper(n=n) for n in range(1_000)]),
        ("W8 64 sync x sleep 0.1 s, 32 threads", [workloads.ThreadSleeper(n=n) for n in range(64)]),
    ):
        walls = []
        for _ in range(5):
            start = time.perf_counter()
            asyncio.run(build(tasks))
            walls.append(time.perf_counter() - start)
        line = {"workload": name, "tasks": len(tasks), "wall_s": round(statistics.median(walls), 3)}
        print(json.dumps(line), flush=True)


async def longest_gap(work: Callable[[], Awaitable[object]]) -> float:
    """The longest time in seconds a coroutine that wants to run every millisecond had to wait."""
    worst = 0.0
    over = False

    async def tick() -> None:
        nonlocal worst
        last = time.perf_counter()
        while not over:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            worst = max(worst, now - last - 0.001)
            last = now

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    await work()
    over = True
    await ticker
    return worst


def gaps() -> None:
    n = 10_000
    for name, work in (
        ("W9 loop gap: 10,000 tasks planned and run", lambda: build(workloads.Root(n=n))),
        ("W9 loop gap: 10,000 tasks planned", lambda: plan(workloads.Root(n=n))),
        ("loop gap: a sync body sleeping 0.5 s", lambda: build(workloads.ThreadSleeper(n=0, seconds=0.5))),
    ):
        worst = []
        for _ in range(5):
            clear()
            worst.append(asyncio.run(longest_gap(work)))
        line = {"workload": name, "gap_ms": round(statistics.median(worst) * 1e3, 1)}
        print(json.dumps(line), flush=True)


def imports() -> None:
    """What ``import asyncflow`` costs over ``import asyncio``, each in a new interpreter, in turns."""
    code = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"

    def seconds(module: str) -> float:
        # Without -B: a user's interpreter finds compiled modules.
        out = subprocess.run([sys.executable, "-c", code.format(module)], capture_output=True, text=True, check=True)
        return float(out.stdout)

    seconds("asyncflow")
    pairs = [(seconds("asyncflow"), seconds("asyncio")) for _ in range(11)]
    line = {
        "workload": "import asyncflow, over import asyncio",
        "ms": round(statistics.median(a - b for a, b in pairs) * 1e3, 1),
        "asyncio_ms": round(statistics.median(b for _, b in pairs) * 1e3, 1),
    }
    print(json.dumps(line), flush=True)


ALL = (wide, chain, sleeping, dynamic, complete, watched, gaps, imports)


def main(names: list[str]) -> None:
    known = {measure.__name__: measure for measure in ALL}
    for name in names or known:
        if name not in known:
            sys.exit(f"no measurement called {name!r}; there are: {', '.join(known)}")
        known[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
