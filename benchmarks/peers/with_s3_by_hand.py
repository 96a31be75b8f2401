"""aiobotocore by hand: what somebody who knows it, and wants nothing else, would write."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from .protocol import Timed, main
from .s3_store import (
    ACCESS_KEY,
    BUCKET,
    BYTES,
    CONCURRENCY,
    ENDPOINT,
    MB,
    PART,
    PARTS,
    REGION,
    SECRET_KEY,
    Growth,
    each,
    new_prefix,
    pieces,
    timed,
)


def make(work: Callable[[Any, int], Awaitable[dict[str, Any]]]) -> Callable[[int], Timed]:
    """The workload that has a client."""

    async def run(n: int) -> dict[str, Any]:
        config = AioConfig(max_pool_connections=CONCURRENCY)
        async with get_session().create_client(
            "s3",
            endpoint_url=ENDPOINT,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
            config=config,
        ) as client:
            return await work(client, n)

    return lambda n: lambda: asyncio.run(run(n))


async def small(client: Any, n: int) -> dict[str, Any]:
    """Write ``n`` small objects, and read them."""
    prefix, body = new_prefix(), os.urandom(BYTES)

    async def write(number: int) -> None:
        await client.put_object(Bucket=BUCKET, Key=f"{prefix}/{number}", Body=body)

    async def read(number: int) -> None:
        answer = await client.get_object(Bucket=BUCKET, Key=f"{prefix}/{number}")
        async with answer["Body"] as stream:
            if await stream.read() != body:
                raise RuntimeError(f"object {number} is not what was written")

    await each(CONCURRENCY, write)  # everybody has a connection
    return {**await timed("write", lambda: each(n, write)), **await timed("read", lambda: each(n, read))}


async def upload(client: Any, at: dict[str, str], megabytes: int) -> None:
    """An object in parts, ``PARTS`` of them under way at once."""
    at = {**at, "UploadId": (await client.create_multipart_upload(**at))["UploadId"]}
    free = asyncio.Semaphore(PARTS)
    sent: list[dict[str, Any]] = []

    async def send(number: int, body: bytes) -> None:
        try:
            answer = await client.upload_part(**at, PartNumber=number, Body=body)
            sent.append({"PartNumber": number, "ETag": answer["ETag"]})
        finally:
            free.release()

    try:
        async with asyncio.TaskGroup() as group:
            part = bytearray()
            number = 0
            for piece in pieces(megabytes):
                part += piece
                if len(part) >= PART:
                    number += 1
                    await free.acquire()
                    group.create_task(send(number, bytes(part)))
                    part.clear()
            if part:
                group.create_task(send(number + 1, bytes(part)))
    except BaseException:
        await client.abort_multipart_upload(**at)
        raise
    sent.sort(key=lambda part: part["PartNumber"])
    await client.complete_multipart_upload(**at, MultipartUpload={"Parts": sent})


async def large(client: Any, megabytes: int) -> dict[str, Any]:
    """Write one large object, and read it as it comes."""
    at = {"Bucket": BUCKET, "Key": f"{new_prefix()}/large"}

    async def read() -> None:
        answer = await client.get_object(**at)
        size = 0
        async with answer["Body"] as stream:
            while piece := await stream.read(MB):
                size += len(piece)
        if size != megabytes * MB:
            raise RuntimeError(f"{size} bytes read of {megabytes} MB")

    await client.put_object(Bucket=BUCKET, Key=f"{at['Key']}-warm", Body=b"")
    growth = Growth()
    written = {**await timed("write", lambda: upload(client, at, megabytes)), "write_growth_mb": growth.mb()}
    growth = Growth()
    found = {**written, **await timed("read", read), "read_growth_mb": growth.mb()}
    await client.delete_object(**at)
    return found


async def exists(client: Any, n: int) -> dict[str, Any]:
    """Ask of each of ``n`` objects, which are there, whether it is."""
    prefix = os.environ["S3_PREFIX"]

    async def head(number: int) -> None:
        await client.head_object(Bucket=BUCKET, Key=f"{prefix}/{number}")

    return await timed("exists", lambda: each(n, head))


async def fill(client: Any, n: int) -> dict[str, Any]:
    """Make the ``n`` objects that ``exists`` asks for."""
    prefix = os.environ["S3_PREFIX"]

    async def write(number: int) -> None:
        await client.put_object(Bucket=BUCKET, Key=f"{prefix}/{number}", Body=b"x")

    return await timed("fill", lambda: each(n, write))


if __name__ == "__main__":
    main({"small": make(small), "large": make(large), "exists": make(exists), "fill": make(fill)})
