"""``S3Target``, outside a build: what the target itself costs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from asyncflow.targets.s3 import S3Store, S3Target

from .protocol import Timed, main
from .s3_store import (
    ACCESS_KEY,
    BUCKET,
    BYTES,
    CONCURRENCY,
    ENDPOINT,
    MB,
    REGION,
    SECRET_KEY,
    Growth,
    each,
    new_prefix,
    pieces,
    timed,
)

STORE = S3Store(endpoint_url=ENDPOINT, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)


def target(key: str) -> S3Target:
    return S3Target(f"s3://{BUCKET}/{key}", store=STORE)


def make(work: Callable[[int], Awaitable[dict[str, Any]]]) -> Callable[[int], Timed]:
    async def run(n: int) -> dict[str, Any]:
        return await work(n)

    return lambda n: lambda: asyncio.run(run(n))


async def small(n: int) -> dict[str, Any]:
    """Write ``n`` small objects, and read them."""
    prefix, body = new_prefix(), os.urandom(BYTES)

    async def write(number: int) -> None:
        async with target(f"{prefix}/{number}").open("wb") as file:
            await file.write(body)

    async def read(number: int) -> None:
        async with target(f"{prefix}/{number}").open("rb") as file:
            if await file.read() != body:
                raise RuntimeError(f"object {number} is not what was written")

    await each(CONCURRENCY, write)  # everybody has a connection
    return {**await timed("write", lambda: each(n, write)), **await timed("read", lambda: each(n, read))}


async def large(megabytes: int) -> dict[str, Any]:
    """Write one large object, and read it as it comes."""
    one = target(f"{new_prefix()}/large")

    async def write() -> None:
        async with one.open("wb") as file:
            for piece in pieces(megabytes):
                await file.write(piece)

    async def read() -> None:
        size = 0
        async with one.open("rb") as file:
            while piece := await file.read(MB):
                size += len(piece)
        if size != megabytes * MB:
            raise RuntimeError(f"{size} bytes read of {megabytes} MB")

    async with target(f"{new_prefix()}/warm").open("wb") as file:
        await file.write(b"x")
    growth = Growth()
    written = {**await timed("write", write), "write_growth_mb": growth.mb()}
    growth = Growth()
    return {**written, **await timed("read", read), "read_growth_mb": growth.mb()}


async def exists(n: int) -> dict[str, Any]:
    """Ask of ``n`` objects, which are there, whether they are."""
    prefix = os.environ["S3_PREFIX"]
    targets = [target(f"{prefix}/{number}") for number in range(n)]

    async def ask() -> None:
        answers = await S3Target.exists_many(targets)
        if answers != [True] * n:
            raise RuntimeError(f"{answers.count(True)} of {n} objects are there")

    return await timed("exists", ask)


if __name__ == "__main__":
    main({"small": make(small), "large": make(large), "exists": make(exists)})
