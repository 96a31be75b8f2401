"""What a module of this folder is asked and what it answers; uses the standard library only.

``python -m benchmarks.peers.with_luigi wide 1000`` prints one line of JSON: seconds of wall and CPU time,
megabytes of peak resident size, and what the workload counted.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Timed = Callable[[], Mapping[str, Any] | None]
"""The part of a workload that is measured; gives what it counted."""

Workload = Callable[[int], Timed]
"""Prepares a workload of so many tasks."""

WIDTH = 100
"""Tasks in a layer of the workload ``layers``."""

SLEEP = 0.1
"""Seconds a task of the workload ``sleeping`` sleeps."""


def edges(layer: int, column: int) -> list[tuple[int, int]]:
    """What a task of the workload ``layers`` requires: three tasks of the layer below."""
    return [(layer - 1, (column + step) % WIDTH) for step in range(3)] if layer else []


def folder() -> Path:
    """A new folder for files, below the one the runner gives (and removes)."""
    return Path(tempfile.mkdtemp(dir=os.environ.get("BENCH_FOLDER")))


def peak_mb() -> float:
    """The peak resident size of this process in megabytes.

    Not ``ru_maxrss`` where there is better: on Linux it begins with the size of the process that forked this one.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            line = next(line for line in file if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def answer(workloads: Mapping[str, Workload], name: str, tasks: int) -> dict[str, Any]:
    """Run one workload of ``tasks`` tasks."""
    if name not in workloads:
        return {"status": "unsupported"}
    try:
        timed = workloads[name](tasks)
        before = peak_mb()
        cpu, wall = time.process_time(), time.perf_counter()
        counted = timed()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    except BaseException as error:
        text = " ".join(str(error).split())[:200]
        return {"status": "failed", "error": type(error).__name__, "message": text}
    return {
        "status": "ok",
        "wall_s": wall,
        "cpu_s": cpu,
        "before_mb": round(before, 1),
        "peak_mb": round(peak_mb(), 1),
        **(counted or {}),
    }


def main(workloads: Mapping[str, Workload]) -> None:
    """Answer the command line. Nothing else reaches standard output: engines like to talk."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    found = answer(workloads, sys.argv[1], int(sys.argv[2]))
    out.write(json.dumps(found) + "\n")
    out.flush()
    os._exit(0)  # an engine's threads, servers and exit handlers are not what is measured
