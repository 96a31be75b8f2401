"""Requests that fail, one after the other: an object is whole or absent, what is said is true, nothing is left."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import pytest

from asyncflow import Task, TaskCancelled, build
from asyncflow.targets._s3 import writing
from asyncflow.targets._s3.store import Body
from asyncflow.targets.s3 import S3Store, S3Target
from asyncflow.testing import STYLES, Outcome, Style, no_leaks, sweep
from examples.servers import S3Server
from tests.targets.s3.conftest import store_of
from tests.targets.s3.faults import Fault, FaultS3

MB = 1024 * 1024

FAULTS: tuple[Fault, ...] = ("503", "500", "403", "409", "expired", "200", "reset_before", "reset_after", "hang")
WRITES = {"small": os.urandom(10_000), "parts": os.urandom(MB) * 16}


async def open_uploads(client: Any, target: S3Target) -> list[str]:
    found = await client.list_multipart_uploads(Bucket=target.bucket)
    return [upload["Key"] for upload in found.get("Uploads", ()) if upload["Key"] == target.name]


async def content_of(client: Any, target: S3Target) -> bytes | None:
    try:
        answer = await client.get_object(Bucket=target.bucket, Key=target.name)
    except client.exceptions.NoSuchKey:
        return None
    content: bytes = await answer["Body"].read()
    return content


class Writes(Task):
    """Writes one object."""

    kind: str

    def output(self) -> S3Target:
        return S3Target(self.url, store=self.store)

    async def run(self) -> None:
        content = WRITES[self.kind]
        async with self.output().open("wb") as file:
            for at in range(0, len(content), MB):
                await file.write(content[at : at + MB])

    url, store = "", S3Store()


def writing_to(target: S3Target, kind: str) -> Task:
    class WritesHere(Writes):
        url, store = target.url, target.store

    return WritesHere(kind=kind)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PART", 5 * MB)


@pytest.mark.parametrize(
    ("kind", "times"), [("small", 1), ("small", 2), ("parts", 1), pytest.param("parts", 2, marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("fault", FAULTS)
async def test_each_request_fails_in_its_turn(
    fault: Fault, kind: str, times: int, s3: S3Server, place: str, proxy: FaultS3, client: Any
) -> None:
    """Once, so that it is tried again; and as often as it is tried."""
    store = store_of(s3, proxy.endpoint, attempts=2, read_timeout=1 if fault == "hang" else 30)
    warm = S3Target(f"{place}/warm", store=store)
    assert not await warm.exists()  # the bucket is known,
    assert (await build([writing_to(warm, "small")])).ok  # and whether it keeps conditions
    n = 0
    while True:
        n += 1
        target = S3Target(f"{place}/{n}", store=store)
        before = len(proxy.requests)
        often = times * (2 if fault.startswith("reset") else 1)  # aiohttp tries once more by itself
        if fault == "200":  # what only this request is known for
            proxy.fail(fault, n=n, times=often, method="POST", query="uploadId")
        else:
            proxy.fail(fault, n=n, times=often)
        result = await build([writing_to(target, kind)])
        reached = any(request.fault for request in proxy.requests[before:])
        proxy.heal()
        content = await content_of(client, target)
        said = next(iter(result.tasks.values())).status
        assert content in (None, WRITES[kind]), f"request {n}: half an object is there"
        assert said in ("succeeded", "failed", "unknown"), f"request {n}: {said}, and nobody else was here"
        assert (content is not None) or said != "succeeded", f"request {n}: said to be there"
        if content is not None and fault != "hang":
            assert said == "succeeded", f"request {n}: it is there, and said to have {said}"
        failed = {request.query for request in proxy.requests[before:] if request.fault == "reset_after"}
        if "uploads" not in failed:  # else the store has begun an upload, and nobody knows its id
            assert not await open_uploads(client, target), f"request {n} has left its parts"
        if not reached:
            assert said == "succeeded", list(result.errors())
            break
    assert n > (3 if kind == "parts" and fault != "200" else fault != "200")


@pytest.mark.parametrize("kind", WRITES)
async def test_an_answer_that_is_lost_is_known_as_our_own(
    kind: str, s3: S3Server, place: str, proxy: FaultS3, client: Any
) -> None:
    """The store has it; the next try is refused by the condition, or knows of no upload any more."""
    target = S3Target(f"{place}/x", store=store_of(s3, proxy.endpoint))
    method, query = ("PUT", "") if kind == "small" else ("POST", "uploadId")
    proxy.fail("reset_after", times=2, method=method, path="/x", query=query)
    result = await build([writing_to(target, kind)])
    assert result.counts == {"succeeded": 1}
    assert await content_of(client, target) == WRITES[kind]
    assert sum(request.fault == "reset_after" for request in proxy.requests) >= 1


@pytest.mark.parametrize("kind", WRITES)
async def test_what_an_attempt_before_has_published_is_no_one_elses(
    kind: str, s3: S3Server, place: str, proxy: FaultS3, client: Any
) -> None:
    """Nobody could be asked what became of it; the next attempt finds it."""
    target = S3Target(f"{place}/x", store=store_of(s3, proxy.endpoint, attempts=1))

    class Again(Writes):
        url, store = target.url, target.store
        retries, retry_delay = 1, 0.01

    async def fail_the_question() -> None:
        while not any(request.fault == "reset_after" for request in proxy.requests):
            await asyncio.sleep(0)
        proxy.fail("503", method="HEAD", path="/x")

    assert not await target.exists()
    method, query = ("PUT", "") if kind == "small" else ("POST", "uploadId")
    proxy.fail("reset_after", times=2, method=method, path="/x", query=query)
    failing = asyncio.ensure_future(fail_the_question())
    result = await build([Again(kind=kind)])
    await failing
    assert [one.status for one in result.tasks.values()] == ["succeeded"], list(result.errors())
    assert len(next(iter(result.tasks.values())).attempts) == 2, "the first was not in doubt"
    assert await content_of(client, target) == WRITES[kind]
    assert not await open_uploads(client, target)


async def test_a_conflict_is_tried_again(s3: S3Server, place: str, proxy: FaultS3) -> None:
    target = S3Target(f"{place}/x", store=store_of(s3, proxy.endpoint))
    proxy.fail("409", times=5, method="PUT", path="/x")
    assert (await build([writing_to(target, "small")])).counts == {"succeeded": 1}
    assert sum(request.status == 409 for request in proxy.requests) == 5


async def test_credentials_that_expire_are_looked_for_anew(s3: S3Server, place: str, proxy: FaultS3) -> None:
    target = S3Target(f"{place}/x", store=store_of(s3, proxy.endpoint))
    proxy.fail("expired", n=2)
    assert (await build([writing_to(target, "parts")])).ok
    proxy.fail("expired", times=None)
    result = await build([writing_to(S3Target(f"{place}/y", store=target.store), "small")])
    assert result.counts == {"unknown": 1}
    assert "cannot tell whether" in str(next(result.errors()))


async def test_a_body_that_is_read_after_its_time_is_a_time_out_and_no_other_error() -> None:
    body = Body(b"content", 0.0)
    with pytest.raises(TimeoutError):
        async with body.watched:
            try:
                assert body.read(1) == b"c"
                await asyncio.sleep(60)
            finally:
                assert body.read(1) == b"o"
    assert body.read(1) == b"n"


# Reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["truncated", "503", "reset_before", "hang"])
async def test_reading_goes_on_where_it_broke(fault: Fault, s3: S3Server, place: str, proxy: FaultS3) -> None:
    store = store_of(s3, proxy.endpoint, attempts=4, read_timeout=0.3)
    target = S3Target(f"{place}/x", store=store)
    content = os.urandom(3 * MB)
    async with target.open("wb") as file:
        await file.write(content)
    for n in range(1, 4):
        proxy.fail(fault, n=n, method="GET")
    async with target.open("rb") as file:
        assert await file.read() == content
    if fault == "truncated":
        assert sum(request.method == "GET" for request in proxy.requests) == 4


async def test_reading_that_breaks_off_for_good_is_an_error(s3: S3Server, place: str, proxy: FaultS3) -> None:
    store = store_of(s3, proxy.endpoint, attempts=1)
    target = S3Target(f"{place}/x", store=store)
    async with target.open("wb") as file:
        await file.write(os.urandom(MB))
    proxy.fail("503", n=2, times=None, method="GET")
    proxy.fail("truncated", method="GET")
    with pytest.raises(ConnectionError, match="cannot be read: the store cannot answer now"):
        async with target.open("rb") as file:
            await file.read()


async def test_what_is_replaced_while_it_is_read_is_no_mixture(s3: S3Server, place: str, proxy: FaultS3) -> None:
    target = S3Target(f"{place}/x", store=store_of(s3, proxy.endpoint))
    other = S3Target(f"{place}/x", store=store_of(s3))
    async with other.open("wb") as file:
        await file.write(bytes(3 * MB))
    proxy.fail("truncated", method="GET")
    with pytest.raises(OSError, match="PreconditionFailed"):
        async with target.open("rb") as reading:
            await reading.read(1000)
            async with other.open("wb") as file:
                await file.write(b"1" * 3 * MB)
            await reading.read()


# All at once --------------------------------------------------------------------------------------------------


async def hail(seed: int, count: int, s3: S3Server, place: str, client: Any) -> None:
    """A graph whose requests fail one time in five."""
    draw = random.Random(seed)
    async with FaultS3(s3) as proxy:
        store = store_of(s3, proxy.endpoint, attempts=5, read_timeout=2)

        class Hailed(Task):
            n: int
            retries, retry_delay = 5, 0.01

            def requires(self) -> list[Task]:
                return [Hailed(n=n) for n in sorted({self.n // 2, self.n // 3}) if n < self.n]

            def output(self) -> S3Target:
                return S3Target(f"{place}/{seed}-{self.n}", store=store)

            async def run(self) -> None:
                async with self.output().open("wb") as file:
                    for _ in range(self.n % 3):
                        await file.write(b"%d\n" % self.n * 100_000)

        proxy.fail_some(0.2, (*FAULTS[:3], "reset_before", "reset_after", "truncated"), seed=draw.randrange(10**6))
        for _ in range(20):
            result = await build([Hailed(n=n) for n in range(count)], concurrency=50)
            for n in range(count):
                content = await content_of(client, Hailed(n=n).output())
                assert content in (None, b"%d\n" % n * 100_000 * (n % 3))
                if result.tasks[Hailed(n=n)].status in ("succeeded", "complete"):
                    assert content is not None
            if result.ok:
                break
        else:
            raise AssertionError(f"20 builds have not got it done: {result}")
        assert "adopted" not in result.counts


async def test_a_hail_of_faults(s3: S3Server, place: str, client: Any) -> None:
    await hail(1, 30, s3, place, client)


@pytest.mark.soak
async def test_a_long_hail_of_faults(s3: S3Server, place: str, client: Any) -> None:
    for seed in range(int(os.environ.get("SEEDS", "10")) // 10 or 1):
        await hail(seed, 300, s3, place, client)


async def test_an_outage_makes_nothing_run_again(s3: S3Server, place: str, proxy: FaultS3) -> None:
    store = store_of(s3, proxy.endpoint, attempts=1)
    target = S3Target(f"{place}/x", store=store)
    assert (await build([writing_to(target, "small")])).ok
    for fault in ("503", "403", "reset_before"):
        proxy.fail(fault, times=None)  # type: ignore[arg-type]
        assert (await build([writing_to(target, "small")])).counts == {"unknown": 1}
        proxy.heal()
        assert (await build([writing_to(target, "small")])).counts == {"complete": 1}


async def test_a_cancelled_upload_leaves_no_parts(s3: S3Server, place: str, proxy: FaultS3, client: Any) -> None:
    store = store_of(s3, proxy.endpoint)
    for n in range(8):
        target = S3Target(f"{place}/{n}", store=store)
        proxy.latency = 0.02
        building = asyncio.ensure_future(build([writing_to(target, "parts")], timeout=0.03 * n, grace=30))
        result = await building
        proxy.latency = 0
        if not result.ok:
            assert await content_of(client, target) in (None, WRITES["parts"])
        assert not await open_uploads(client, target)


@pytest.mark.parametrize("style", STYLES)
async def test_an_upload_in_parts_cancelled_anywhere_is_whole_or_gone(
    style: Style, s3: S3Server, place: str, client: Any
) -> None:
    store = store_of(s3)
    content = os.urandom(MB) * 6
    number = 0

    def target() -> S3Target:
        return S3Target(f"{place}/{number}", store=store)

    async def write() -> None:
        nonlocal number
        number += 1
        async with target().open("wb") as file:
            for at in range(0, len(content), MB):
                await file.write(content[at : at + MB])

    async def check(outcome: Outcome) -> None:
        there = await content_of(client, target())
        assert there in (None, content), outcome
        assert there is not None or outcome.cancelled
        assert not await open_uploads(client, target()), outcome

    await write()  # the client is there
    async with no_leaks(fds=store.connections):
        await sweep(write, check, style)


async def test_a_body_given_up_in_an_upload_publishes_nothing(s3: S3Server, place: str, client: Any) -> None:
    target = S3Target(f"{place}/x", store=store_of(s3))
    uploaded, release, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Stubborn(Task):
        async def run(self) -> None:
            try:
                async with target.open("wb") as file:
                    await file.write(bytes(6 * MB))
                    uploaded.set()
                    while not release.is_set():
                        try:
                            await release.wait()
                        except asyncio.CancelledError:
                            continue
            except TaskCancelled:
                ended.set()

    building = asyncio.ensure_future(build([Stubborn()], grace=0.1))
    await uploaded.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    release.set()
    await ended.wait()
    assert await content_of(client, target) is None
    assert not await open_uploads(client, target)
