"""Each fault really happens, seen by a plain client that asks once; and what is not to fail passes through whole."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from io import BytesIO
from typing import Any

import aiohttp
import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError, EndpointConnectionError

from examples.servers import S3Server
from tests.targets.s3.conftest import create_client
from tests.targets.s3.faults import FaultS3

MB = 1 << 20


def split(place: str) -> tuple[str, str]:
    """Bucket and key."""
    bucket, _, key = place.removeprefix("s3://").partition("/")
    return bucket, key


@pytest.fixture
def at(place: str) -> dict[str, str]:
    """Where this test's object is, as clients want to be told."""
    bucket, key = split(place)
    return {"Bucket": bucket, "Key": f"{key}/object"}


async def body_of(client: Any, at: dict[str, str]) -> bytes:
    answer = await client.get_object(**at)
    async with answer["Body"] as stream:
        read: bytes = await stream.read()
    return read


async def missing(client: Any, at: dict[str, str]) -> bool:
    try:
        await client.head_object(**at)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return True
    return False


async def test_what_is_not_to_fail_passes_through(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    odd = {**at, "Key": f"{at['Key']}/ä +%41&=?#'()*"}
    await failing.put_object(**odd, Body=b"x", ContentEncoding="gzip", Metadata={"a": "b"}, ContentType="text/plain")
    head = await failing.head_object(**odd)
    assert (head["ContentLength"], head["ContentEncoding"], head["Metadata"]) == (1, "gzip", {"a": "b"})
    assert await body_of(failing, odd) == b"x"
    listed = await failing.list_objects_v2(Bucket=odd["Bucket"], Prefix=at["Key"])
    assert [entry["Key"] for entry in listed["Contents"]] == [odd["Key"]]
    assert [(seen.method, seen.status) for seen in proxy.requests] == [
        ("PUT", 200),
        ("HEAD", 200),
        ("GET", 200),
        ("GET", 200),
    ]
    assert proxy.count("GET", query="list-type=2") == 1
    assert proxy.count(path="/object") == 3


async def test_signatures_are_checked_behind_it(
    session: AioSession, s3: S3Server, proxy: FaultS3, at: dict[str, str]
) -> None:
    wrong = S3Server(s3.endpoint, s3.access_key, "not the key")
    async with create_client(session, wrong, proxy.endpoint) as client:
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            await client.put_object(**at, Body=b"x")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("503", 503, "SlowDown"),
        ("500", 500, "InternalError"),
        ("403", 403, "AccessDenied"),
        ("signature", 403, "SignatureDoesNotMatch"),
        ("409", 409, "ConditionalRequestConflict"),
        ("expired", 400, "ExpiredToken"),
    ],
)
async def test_an_error(
    fault: Any, status: int, code: str, failing: Any, client: Any, proxy: FaultS3, at: dict[str, str]
) -> None:
    proxy.fail(fault)
    with pytest.raises(ClientError) as raised:
        await failing.put_object(**at, Body=b"x" * MB)
    assert raised.value.response["Error"]["Code"] == code
    assert await missing(client, at)
    await failing.put_object(**at, Body=b"x" * MB)
    assert [(seen.status, seen.fault) for seen in proxy.requests] == [(status, fault), (200, None)]


async def test_a_head_fails_without_a_code(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    proxy.fail("503", method="HEAD")
    with pytest.raises(ClientError) as raised:
        await failing.head_object(**at)
    assert raised.value.response["Error"] == {"Code": "503", "Message": "Service Unavailable"}


async def test_an_error_that_comes_with_status_200(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    upload = await failing.create_multipart_upload(**at)
    part = await failing.upload_part(**at, UploadId=upload["UploadId"], PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    proxy.fail("200", method="POST", query="uploadId=")
    with pytest.raises(ClientError, match="InternalError"):
        await failing.complete_multipart_upload(**at, UploadId=upload["UploadId"], MultipartUpload=parts)
    assert proxy.requests[-1].status == 200
    await failing.complete_multipart_upload(**at, UploadId=upload["UploadId"], MultipartUpload=parts)


async def test_a_reset_before_the_store(failing: Any, client: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    proxy.fail("reset_before", times=2)  # aiohttp has asked again by itself
    with pytest.raises(EndpointConnectionError):  # aiobotocore's word for a reset, too
        await failing.put_object(**at, Body=b"x")
    assert await missing(client, at)
    assert [seen.status for seen in proxy.requests] == [None, None]


async def test_a_reset_after_the_store(failing: Any, client: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    proxy.fail("reset_after", times=2)
    with pytest.raises(EndpointConnectionError):  # aiobotocore's word for a reset, too
        await failing.put_object(**at, Body=b"x")
    assert await body_of(client, at) == b"x"
    assert [seen.status for seen in proxy.requests] == [None, None]


async def test_a_client_that_is_refused_by_its_own_lost_put(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    """aiohttp sends a request whose answer is lost again, by itself; the second one finds the object of the first."""
    proxy.fail("reset_after")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        await failing.put_object(**at, Body=b"x", IfNoneMatch="*")
    assert [seen.status for seen in proxy.requests] == [None, 412]


async def test_a_post_that_is_reset_is_not_sent_again(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    proxy.fail("reset_after")
    with pytest.raises(EndpointConnectionError):  # aiobotocore's word for a reset, too
        await failing.create_multipart_upload(**at)
    assert len(proxy.requests) == 1


async def test_a_truncated_body(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    body = os.urandom(3 * MB)
    await failing.put_object(**at, Body=body)
    proxy.fail("truncated", method="GET")
    answer = await failing.get_object(**at)
    assert answer["ContentLength"] == len(body)
    read = b""
    with pytest.raises(aiohttp.ClientPayloadError):  # aiobotocore passes it on as it is
        async with answer["Body"] as stream:
            while piece := await stream.read(64 * 1024):
                read += piece
    assert body.startswith(read)
    assert MB < len(read) < 2 * MB
    assert await body_of(failing, at) == body


async def test_a_request_that_hangs(failing: Any, client: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    proxy.fail("hang", method="PUT")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await failing.put_object(**at, Body=b"x")
    await failing.put_object(**{**at, "Key": at["Key"] + "2"}, Body=b"x")
    assert await missing(client, at)


async def test_what_hangs_ends_with_the_proxy(session: AioSession, s3: S3Server, at: dict[str, str]) -> None:
    async with FaultS3(s3) as proxy, create_client(session, s3, proxy.endpoint) as client:
        proxy.fail("hang")
        asking = asyncio.create_task(client.head_object(**at))
        while not proxy.requests:
            await asyncio.sleep(0)
        await proxy.__aexit__(None, None, None)
        with pytest.raises(EndpointConnectionError):
            await asking


async def test_which_requests_fail(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    proxy.fail("503", n=2, times=2, method="PUT", path="/object")
    proxy.fail("500", method="GET", query="prefix=")
    told = []
    for _ in range(4):
        await missing(failing, at)
        try:
            await failing.put_object(**at, Body=b"x")
            told.append(200)
        except ClientError as error:
            told.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
    assert told == [200, 503, 503, 200]
    with pytest.raises(ClientError, match="InternalError"):
        await failing.list_objects_v2(Bucket=at["Bucket"], Prefix=at["Key"])


async def test_all_from_now_on_until_it_is_healed(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    proxy.fail("503", times=None)
    for _ in range(3):
        with pytest.raises(ClientError):
            await failing.head_object(**at)
    proxy.heal()
    assert await missing(failing, at)


async def test_an_unknown_fault_is_refused(proxy: FaultS3) -> None:
    with pytest.raises(ValueError, match="no fault called 'teapot'; there are: 503, 500"):
        proxy.fail("teapot")  # type: ignore[arg-type]


async def test_some_fail_by_chance(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    proxy.fail_some(0.5, ["503", "500"], seed=1)
    await asyncio.gather(*[failing.head_object(**at) for _ in range(40)], return_exceptions=True)
    counted = Counter(seen.status for seen in proxy.requests)
    assert counted[404] > 10
    assert counted[503] > 3
    assert counted[500] > 3


async def test_latency(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    proxy.latency = 0.2
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await missing(failing, at)
    assert loop.time() - begun >= 0.2


async def test_a_store_that_knows_no_conditions(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    await failing.put_object(**at, Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        await failing.put_object(**at, Body=b"second", IfNoneMatch="*")
    proxy.strip_conditions = True
    await failing.put_object(**at, Body=b"second", IfNoneMatch="*")
    await failing.put_object(**at, Body=b"third", IfMatch='"0123"')
    assert await body_of(failing, at) == b"third"


async def test_a_limit_of_requests_in_a_second(failing: Any, proxy: FaultS3, at: dict[str, str]) -> None:
    proxy.limit = 5
    await asyncio.gather(*[failing.head_object(**at) for _ in range(12)], return_exceptions=True)
    assert Counter(seen.status for seen in proxy.requests) == {404: 5, 503: 7}


async def test_bodies_are_not_held(session: AioSession, at: dict[str, str]) -> None:
    """What the store does not take, the proxy does not take either."""
    over = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.transport.abort()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    store = S3Server(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "key", "secret")
    async with FaultS3(store) as proxy, create_client(session, store, proxy.endpoint) as client:
        body = BytesIO(bytes(64 * MB))
        putting = asyncio.create_task(client.put_object(**at, Body=body))
        while not proxy.requests:
            await asyncio.sleep(0.01)
        sent = -1
        while body.tell() != sent:
            sent = body.tell()
            await asyncio.sleep(0.2)
        assert 0 < sent < 32 * MB  # most of it in the buffers of sockets
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        over.set()
    server.close()
    await server.wait_closed()


async def test_an_upload_whose_client_leaves_does_not_become_visible(
    failing: Any, client: Any, proxy: FaultS3, at: dict[str, str]
) -> None:
    uploading = asyncio.create_task(failing.put_object(**at, Body=os.urandom(32 * MB)))
    while not proxy.requests:
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    assert not uploading.done()
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    assert await missing(client, at)
