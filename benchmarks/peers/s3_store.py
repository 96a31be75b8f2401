"""What the contestants of ``benchmarks.s3`` have in common: where the store is, and how much is asked of it.

Uses the standard library only, as ``protocol.py`` does.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

from .protocol import peak_mb

__all__ = [
    "ACCESS_KEY",
    "BUCKET",
    "BYTES",
    "CONCURRENCY",
    "ENDPOINT",
    "MB",
    "PART",
    "PARTS",
    "REGION",
    "SECRET_KEY",
    "Growth",
    "each",
    "new_prefix",
    "pieces",
    "timed",
]

ENDPOINT = os.environ["S3_ENDPOINT"]
ACCESS_KEY = os.environ["S3_ACCESS_KEY"]
SECRET_KEY = os.environ["S3_SECRET_KEY"]
REGION = os.environ["S3_REGION"]
BUCKET = os.environ["S3_BUCKET"]

MB = 1 << 20
BYTES = 10_000
"""Bytes of a small object."""

CONCURRENCY = 50
"""Small objects under way at once, and connections."""

PART = 8 * MB
"""Bytes of a part of a large object."""

PARTS = 4
"""Parts under way at once."""


def new_prefix() -> str:
    """Where the store has nothing yet."""
    return f"{os.getpid()}-{time.time_ns()}"


def pieces(megabytes: int) -> Iterator[bytes]:
    """So much data, a megabyte at a time: how it comes to whoever writes a large object."""
    piece = os.urandom(MB)
    for _ in range(megabytes):
        yield piece


async def each(n: int, work: Callable[[int], Awaitable[object]]) -> None:
    """``work`` of each number, ``CONCURRENCY`` at once."""
    numbers = iter(range(n))

    async def some() -> None:
        for number in numbers:
            await work(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(some())


async def timed(name: str, work: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """Seconds of wall and CPU time that ``work`` took, named after it."""
    cpu, wall = time.process_time(), time.perf_counter()
    await work()
    return {f"{name}_s": time.perf_counter() - wall, f"{name}_cpu_s": time.process_time() - cpu}


class Growth:
    """How much the resident size has grown at its highest, from when this was made, in megabytes."""

    def __init__(self) -> None:
        # Linux alone forgets a peak; elsewhere what came before may hide some growth.
        with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        self._before = peak_mb()

    def mb(self) -> float:
        return round(peak_mb() - self._before, 1)
