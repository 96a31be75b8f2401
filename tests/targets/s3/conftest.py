"""S3 servers, once a session, and in them a place of its own for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import count
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session

from asyncflow.targets.s3 import S3Store
from examples.servers import S3Server, seaweedfs
from examples.servers import moto as moto_server
from tests.servers import had
from tests.targets.s3.faults import FaultS3

BUCKET = "tests"

_numbers = count(1)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """SeaweedFS, which checks signatures and conditions."""
    with had(seaweedfs()) as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """moto, for what has to hold with a second server."""
    with had(moto_server()) as server:
        yield server


@pytest.fixture(scope="session")
def session() -> AioSession:
    """What clients of aiobotocore are made by. It has read the description of S3, which takes half a second, once."""
    return get_session()


def create_client(session: AioSession, server: S3Server, endpoint: str) -> AbstractAsyncContextManager[Any]:
    """A client of the server that asks once; the ``endpoint`` may be that of a proxy."""
    made: AbstractAsyncContextManager[Any] = session.create_client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
        config=AioConfig(retries={"total_max_attempts": 1}),
    )
    return made


@pytest.fixture(scope="session")
def bucket(session: AioSession, s3: S3Server) -> str:
    """A bucket on ``s3``, for all tests: the first object of one takes SeaweedFS 0.2 s. See ``place``."""

    async def make() -> None:
        async with create_client(session, s3, s3.endpoint) as client:
            await client.create_bucket(Bucket=BUCKET)
            await client.put_object(Bucket=BUCKET, Key="first")

    asyncio.run(make())
    return BUCKET


@pytest.fixture
def place(bucket: str) -> str:
    """A place on ``s3`` with nothing in it, this test's own: ``f"{place}/key"`` is "s3://bucket/17/key"."""
    return f"s3://{bucket}/{next(_numbers)}"


@pytest.fixture
async def proxy(s3: S3Server) -> AsyncIterator[FaultS3]:
    """The way to ``s3`` on which requests fail."""
    async with FaultS3(s3) as proxy:
        yield proxy


@pytest.fixture
async def client(session: AioSession, s3: S3Server) -> AsyncIterator[Any]:
    """A plain client of ``s3``, to see what is really there."""
    async with create_client(session, s3, s3.endpoint) as client:
        yield client


@pytest.fixture
async def failing(session: AioSession, s3: S3Server, proxy: FaultS3) -> AsyncIterator[Any]:
    """A plain client of ``s3`` by way of ``proxy``."""
    async with create_client(session, s3, proxy.endpoint) as client:
        yield client


def store_of(server: S3Server, endpoint: str | None = None, **options: Any) -> S3Store:
    """The server as targets know it; the ``endpoint`` may be that of a proxy."""
    return S3Store(
        endpoint_url=endpoint or server.endpoint,
        access_key=server.access_key,
        secret_key=server.secret_key,
        region=server.region,
        **options,
    )
