"""S3 servers, once a session, and in them a place of its own for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import count
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from examples.servers import S3Server, moto as moto_server, seaweedfs
from tests.servers import had
from tests.targets.s3.faults import FaultS3

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


def plain_client(server: S3Server, endpoint: str | None = None, **options: Any) -> AbstractAsyncContextManager[Any]:
    """A client of aiobotocore that tries once; with ``endpoint``, by way of a proxy."""
    return get_session().create_client(
        "s3",
        endpoint_url=endpoint or server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
        config=AioConfig(retries={"total_max_attempts": 1}, **options),
    )
