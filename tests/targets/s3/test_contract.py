"""S3Target keeps the contract of targets, on SeaweedFS and on moto."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from asyncflow import Target
from asyncflow.targets.s3 import S3Store, S3Target
from asyncflow.testing import TargetContract
from examples.servers import S3Server
from tests.targets.s3.conftest import store_of


class TestOnSeaweedFS(TargetContract):
    @pytest.fixture(autouse=True)
    def _place(self, s3: S3Server, place: str) -> None:
        self.store = store_of(s3)
        self.place = place

    def make(self, name: str) -> S3Target:
        return S3Target(f"{self.place}/{name}", store=self.store)

    def leftovers(self) -> list[str]:
        async def uploads() -> list[str]:
            bucket, _, prefix = self.place.removeprefix("s3://").partition("/")
            found = await self.store.call("list_multipart_uploads", Bucket=bucket)
            return [upload["Key"] for upload in found.get("Uploads", ()) if upload["Key"].startswith(prefix)]

        with ThreadPoolExecutor() as pool:  # it is called on a loop, too
            return pool.submit(asyncio.run, uploads()).result()

    def unknown(self) -> Target:
        return S3Target("s3://bucket/key", store=S3Store(endpoint_url="http://127.0.0.1:1", attempts=1))
