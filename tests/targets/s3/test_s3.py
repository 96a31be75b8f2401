"""S3Target on a real store: questions, publishing, copies, folders; and what is said when something is wrong."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ParamValidationError

from asyncflow import PlanError, TargetStateUnknown, Task, build, clients, healing
from asyncflow.codecs import Json, JsonLines
from asyncflow.targets._s3 import listing, writing
from asyncflow.targets.s3 import S3FlagTarget, S3Store, S3Target
from asyncflow.testing import no_leaks
from examples.servers import S3Server
from tests.targets.s3.conftest import store_of
from tests.targets.s3.faults import FaultS3

MB = 1024 * 1024


@pytest.fixture
def store(s3: S3Server) -> S3Store:
    return store_of(s3)


async def put(target: S3Target, content: bytes = b"x") -> None:
    async with target.open("wb") as file:
        await file.write(content)


async def get(target: S3Target) -> bytes:
    async with target.open("rb") as file:
        return await file.read()


class Make(Task):
    """Makes an object of its `content`."""

    content: str = "made"

    def output(self) -> S3Target:
        return S3Target(self.url, store=self.store)

    async def run(self) -> None:
        async with self.output().open("w") as file:
            await file.write(self.content)

    url, store = "", S3Store()


def make(target: S3Target, **parameters: Any) -> Task:
    class MakeHere(Make):
        url, store = target.url, target.store

    return MakeHere(**parameters)


# Questions ------------------------------------------------------------------------------------------------


async def test_exists_is_one_request(s3: S3Server, place: str, proxy: FaultS3) -> None:
    store = store_of(s3, proxy.endpoint)
    await put(S3Target(f"{place}/there", store=store))
    assert not await S3Target(f"{place}/absent", store=store).exists()
    proxy.requests.clear()
    assert await S3Target(f"{place}/there", store=store).exists()
    assert not await S3Target(f"{place}/absent", store=store).exists()
    assert [request.method for request in proxy.requests] == ["HEAD", "HEAD"]


@pytest.mark.parametrize("fault", ["403", "503", "500", "reset_before", "hang"])
async def test_what_cannot_be_known_is_not_absent(fault: Any, s3: S3Server, place: str, proxy: FaultS3) -> None:
    store = store_of(s3, proxy.endpoint, attempts=2, read_timeout=0.2)
    target = S3Target(f"{place}/x", store=store)
    proxy.fail(fault, times=None)
    with pytest.raises(TargetStateUnknown, match=f"cannot tell whether {target.url} exists") as raised:
        await target.exists()
    assert ("s3:ListBucket" in str(raised.value)) == (fault == "403")
    answers = await S3Target.exists_many([S3Target(f"{place}/{n}", store=store) for n in range(20)])
    assert all(isinstance(answer, TargetStateUnknown) for answer in answers)
    result = await build([make(target)])
    assert result.counts == {"unknown": 1}


@pytest.mark.parametrize("fault", ["503", "500", "reset_before"])
async def test_a_passing_fault_is_asked_again(fault: Any, s3: S3Server, place: str, proxy: FaultS3) -> None:
    target = S3Target(f"{place}/x", store=store_of(s3, proxy.endpoint))
    await put(target)
    proxy.fail(fault, times=2, method="HEAD")
    assert await target.exists()


async def test_a_bucket_that_is_missing(moto: S3Server) -> None:
    store = store_of(moto)  # SeaweedFS makes a bucket that is written to
    target = S3Target("s3://no-such-bucket/key", store=store)
    with pytest.raises(TargetStateUnknown, match="there is no bucket 'no-such-bucket' at http"):
        await target.exists()
    with pytest.raises(FileNotFoundError, match="no-such-bucket/key could not be published: the bucket does not exist"):
        await put(target)
    with pytest.raises(FileNotFoundError):
        await get(target)
    async with FaultS3(moto) as proxy:
        there = store_of(moto, proxy.endpoint)
        answers = await S3Target.exists_many([S3Target(f"s3://no-such-bucket/{n}", store=there) for n in range(1000)])
        assert all("there is no bucket" in str(answer) for answer in answers)
        assert len(proxy.requests) == 1


async def test_wrong_credentials_are_named(s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = S3Store(endpoint_url=s3.endpoint, access_key=s3.access_key, secret_key="wrong" * 8)
    for action in (put(S3Target(f"{place}/x", store=wrong)), get(S3Target(f"{place}/x", store=wrong))):
        with pytest.raises(PermissionError, match=r"the store refuses it \(SignatureDoesNotMatch\)") as raised:
            await action
        assert "wrongwrong" not in str(raised.value)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    nobody = S3Store(endpoint_url=s3.endpoint, profile=None)
    with pytest.raises(TargetStateUnknown, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        await S3Target(f"{place}/x", store=nobody).exists()


async def test_the_environment_is_asked_for_what_is_not_given(
    s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", s3.region)
    target = S3Target(f"{place}/x", store=S3Store(addressing_style="path"))
    await put(target)
    assert await get(target) == b"x"


async def test_many_questions_are_few_requests(
    s3: S3Server, place: str, proxy: FaultS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, store = store_of(s3), store_of(s3, proxy.endpoint)
    monkeypatch.setattr(listing, "PAGE", 50)
    there = {f"{n:05}" for n in range(0, 300, 2)}
    async with asyncio.TaskGroup() as group:
        for name in there:
            group.create_task(put(S3Target(f"{place}/{name}", store=direct)))
        group.create_task(put(S3Target(f"{place}/elsewhere/0", store=direct)))
    asked = [f"{n:05}" for n in range(301)] + ["elsewhere/0", "elsewhere/1"]
    proxy.requests.clear()
    answers = await S3Target.exists_many([S3Target(f"{place}/{name}", store=store) for name in asked])
    assert {name for name, answer in zip(asked, answers, strict=True) if answer} == there | {"elsewhere/0"}
    assert all(answer is True or answer is False for answer in answers)
    assert len(proxy.requests) <= 20
    everywhere = [S3Target(f"{place}/{name}", store=store) for name in sorted(there)]
    proxy.requests.clear()
    assert await S3Target.exists_many(everywhere) == [True] * 150
    assert len(proxy.requests) <= 4
    nowhere = [S3Target(f"{place}/later/{n:05}", store=store) for n in range(10_000)]
    proxy.requests.clear()
    assert await S3Target.exists_many(nowhere) == [False] * 10_000
    assert len(proxy.requests) <= 10


async def test_a_store_that_lists_in_an_order_of_its_own(store: S3Store, place: str) -> None:
    """SeaweedFS lists a folder before what stands before it in the order of the bytes."""
    names = [f"out/day{sign}{n:02}" for sign in ("-", "/", "x") for n in range(12)]
    for name in names:
        await put(S3Target(f"{place}/{name}", store=store))
    assert (await build([make(S3Target(f"{place}/{name}", store=store)) for name in names])).counts == {"complete": 36}
    for some in (names[:12], names[12:24], names[6:30]):
        targets = [S3Target(f"{place}/{name}", store=store) for name in (*some, "out/day", "out/day/x")]
        assert await S3Target.exists_many(targets) == [True] * len(some) + [False] * 2


async def test_pages_that_leave_out_what_is_there(store: S3Store, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SeaweedFS leaves out a folder that is the name of an object, too, where a page ends right before it."""
    monkeypatch.setattr(listing, "PAGE", 4)
    monkeypatch.setattr(listing, "CONFIRMED", 1)
    names = ["day", "dayx", *(f"{folder}/{part}/{n}" for folder in ("day", "dayx") for part in "aq" for n in range(3))]
    targets = [S3Target(f"{place}/{name}", store=store) for name in names]
    for target in targets:
        await put(target)
    absent = [S3Target(f"{place}/day!/{n}", store=store) for n in range(100)]  # before all others, so that one is asked
    assert await S3Target.exists_many(absent + targets) == [False] * len(absent) + [True] * len(targets)


async def test_keys_that_lie_far_apart_are_asked_for_one_by_one(
    s3: S3Server, place: str, proxy: FaultS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, store = store_of(s3), store_of(s3, proxy.endpoint)
    monkeypatch.setattr(listing, "PAGE", 20)
    async with asyncio.TaskGroup() as group:
        for n in range(200):
            group.create_task(put(S3Target(f"{place}/x/{n:05}", store=direct)))
    asked = [S3Target(f"{place}/x/{n:05}", store=store) for n in range(0, 200, 10)]
    asked += [S3Target(f"{place}/y", store=store)]
    proxy.requests.clear()
    assert await S3Target.exists_many(asked) == [True] * 20 + [False]
    assert len(proxy.requests) <= 2 + len(asked) + 1  # of the pages one tells that it is not worth it


async def test_listing_that_is_not_allowed_is_done_without(s3: S3Server, place: str, proxy: FaultS3) -> None:
    store = store_of(s3, proxy.endpoint)
    targets = [S3Target(f"{place}/{n}", store=store) for n in range(20)]
    await put(targets[3])
    proxy.fail("403", times=None, query="list-type")
    assert [n for n, answer in enumerate(await S3Target.exists_many(targets)) if answer] == [3]


# Publishing -----------------------------------------------------------------------------------------------


async def test_what_is_made_at_the_same_time_elsewhere_stands(store: S3Store, place: str) -> None:
    target = S3Target(f"{place}/x", store=store)

    class Slow(Make):
        url, store = target.url, target.store

        async def run(self) -> None:
            async with self.output().open("w") as file:
                await file.write("ours")
                await contextvars.Context().run(asyncio.ensure_future, put(target, b"theirs"))

    result = await build([Slow()])
    assert result.counts == {"adopted": 1}
    assert await get(target) == b"theirs"


async def test_of_many_processes_one_publishes(s3: S3Server, place: str) -> None:
    program = f"""
import asyncio, sys
from asyncflow import Task, run
from asyncflow.targets.s3 import S3Store, S3Target
store = S3Store(endpoint_url={s3.endpoint!r}, access_key={s3.access_key!r}, secret_key={s3.secret_key!r})
class Race(Task):
    def output(self): return S3Target("{place}/race", store=store)
    async def run(self):
        print("begun", flush=True)
        async with self.output().open("w") as file:
            await file.write(sys.argv[1])
            await asyncio.to_thread(sys.stdin.readline)
result = run(Race())
print(*result.counts, flush=True)
"""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for n in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert await asyncio.to_thread(racer.stdout.readline) == "begun\n"
    outcomes = []
    for racer in racers:
        racer.stdin.write("\n")  # type: ignore[union-attr]
        racer.stdin.flush()  # type: ignore[union-attr]
    for racer in racers:
        said, _ = await asyncio.to_thread(racer.communicate)
        outcomes.append(said.strip())
    assert sorted(outcomes) == ["adopted", "adopted", "adopted", "succeeded"]
    content = await get(S3Target(f"{place}/race", store=store_of(s3)))
    assert content.decode() == str(outcomes.index("succeeded"))


async def test_what_is_forced_is_replaced_and_a_body_may_write_twice(store: S3Store, place: str) -> None:
    target = S3Target(f"{place}/x", store=store)
    assert (await build([make(target)])).counts == {"succeeded": 1}
    assert (await build([make(target, content="again")])).counts == {"complete": 1}
    assert (await build([make(target, content="again")], force=True)).counts == {"succeeded": 1}
    assert await get(target) == b"again"

    class Twice(Make):
        url, store = f"{place}/twice", target.store

        async def run(self) -> None:
            await super().run()
            async with self.output().open("w") as file:
                await file.write("second")

    assert (await build([Twice()])).counts == {"succeeded": 1}
    assert await get(Twice().output()) == b"second"


async def test_own_rules_of_completeness_replace_what_is_there(store: S3Store, place: str) -> None:
    target = S3Target(f"{place}/x", store=store)
    await put(target, b"stale")

    class Refresh(Make):
        url, store = target.url, target.store

        async def complete(self) -> bool:
            return await self.output().exists() and await get(target) != b"stale"

    assert (await build([Refresh()])).counts == {"succeeded": 1}
    assert await get(target) == b"made"


@pytest.mark.parametrize("given", [True, False])
async def test_a_store_that_ignores_conditions_is_named(
    given: bool,
    s3: S3Server,
    place: str,
    proxy: FaultS3,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy.strip_conditions = True
    store = store_of(s3, proxy.endpoint)
    if not given:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        store = dataclasses.replace(store, endpoint_url=None, region=s3.region, addressing_style="path")
    assert (await build([make(S3Target(f"{place}/1", store=store))])).ok
    assert (await build([make(S3Target(f"{place}/2", store=store))])).ok
    assert sum("does not keep conditions (If-None-Match)" in record.getMessage() for record in caplog.records) == 1
    left = await S3FlagTarget(f"{place}/", store=store_of(s3)).list()
    assert sorted(left) == ["1", "2"]  # nothing of the question that was asked


async def test_on_a_worker_process(store: S3Store, place: str) -> None:
    from tests.targets.s3 import in_processes

    task = in_processes.MakeInProcess(url=f"{place}/x", store=pickle.dumps(store).hex())
    (await build([task])).raise_for_failure()
    assert await get(S3Target(f"{place}/x", store=store)) == b"made there"
    sync = in_processes.MakeInSyncBody(url=f"{place}/y", store=pickle.dumps(store).hex())
    (await build([sync])).raise_for_failure()
    assert await get(S3Target(f"{place}/y", store=store)) == b"made there"


async def test_large_objects_come_in_parts(
    store: S3Store, place: str, monkeypatch: pytest.MonkeyPatch, client: Any
) -> None:
    monkeypatch.setattr(writing, "PART", 5 * MB)
    content = os.urandom(MB) * 17 + b"end"
    target = S3Target(f"{place}/large", store=store)
    async with target.open("wb") as file:
        for at in range(0, len(content), 300_000):
            await file.write(content[at : at + 300_000])
    assert await get(target) == content
    bucket, _, key = target.url.removeprefix("s3://").partition("/")
    assert (await client.head_object(Bucket=bucket, Key=key))["ETag"].endswith('-4"')
    async with target.open("wb") as file:
        await file.write(content)
    assert await get(target) == content


async def test_a_process_killed_in_a_large_upload_leaves_nothing(
    s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch, client: Any
) -> None:
    target = S3Target(f"{place}/killed", store=store_of(s3))
    program = """
import asyncio, pickle, sys
target = pickle.loads(bytes.fromhex(sys.argv[1]))
async def main():
    async with target.open("wb") as file:
        for _ in range(20):
            await file.write(bytes(1024 * 1024))
        print("begun", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, pickle.dumps(target).hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == b"begun\n"

    async def uploads() -> list[str]:
        bucket, _, key = target.url.removeprefix("s3://").partition("/")
        found = await client.list_multipart_uploads(Bucket=bucket)
        return [upload["Key"] for upload in found.get("Uploads", ()) if upload["Key"] == key]

    await asyncio.to_thread(healing.clean)
    assert await uploads(), "it is alive: what it has begun is its own"
    process.kill()
    process.communicate()
    assert not await target.exists()
    async with asyncio.timeout(30):
        while await uploads():  # another process may be at it, and is not waited for
            await asyncio.to_thread(healing.clean)


CRASH = """
import asyncio, os, sys
from asyncflow import LocalTarget, Task, run
from asyncflow.targets._draft import Draft
from asyncflow.targets.s3 import S3Store, S3Target
from asyncflow.targets.together import together

endpoint, access_key, secret_key, place, folder, crashes = sys.argv[1:]
store = S3Store(endpoint_url=endpoint, access_key=access_key, secret_key=secret_key)
if crashes == "yes":
    publish = Draft.publish
    Draft.publish = lambda draft: (publish(draft), os._exit(9))

class Both(Task):
    def output(self):
        return [LocalTarget(folder + "/local"), S3Target(place + "/remote", store=store)]
    async def run(self):
        print("both", flush=True)
        async with together(*[target.open("w") for target in self.output()]) as files:
            for file in files:
                await file.write("x" * 1000)

run(Both()).raise_for_failure()
"""


async def test_a_crash_before_the_last_publish_is_made_good(
    s3: S3Server, place: str, tmp_path: Path, client: Any
) -> None:
    def start(crashes: str) -> list[str]:
        arguments = [s3.endpoint, s3.access_key, s3.secret_key, place, str(tmp_path), crashes]
        process = subprocess.run([sys.executable, "-c", CRASH, *arguments], capture_output=True, text=True)
        assert process.returncode == (9 if crashes == "yes" else 0), process.stderr
        return process.stdout.split()

    target = S3Target(f"{place}/remote", store=store_of(s3))
    assert await asyncio.to_thread(start, "yes") == ["both"]
    assert (tmp_path / "local").exists()
    assert not await target.exists()
    assert await asyncio.to_thread(start, "no") == [], "the body was run again"
    assert await get(target) == b"x" * 1000
    uploads = (await client.list_multipart_uploads(Bucket=target.bucket)).get("Uploads", ())
    assert not [upload for upload in uploads if upload["Key"] == target.name]


async def test_codecs(store: S3Store, place: str) -> None:
    rows = S3Target(f"{place}/rows.jsonl.gz", store=store, codec=JsonLines(gzip=True))
    await rows.write({"n": n} for n in range(5000))
    assert sum([row["n"] async for row in rows.rows()]) == sum(range(5000))
    async with no_leaks():
        async for _row in rows.rows():
            break
        del _row
    value = S3Target(f"{place}/value.json", store=store, codec=Json())
    await value.write({"a": 1})
    assert await value.read() == {"a": 1}


def test_in_a_script_without_a_loop(store: S3Store, place: str) -> None:
    target = S3Target(f"{place}/x", store=store)
    assert not target.exists()
    with target.open("w") as file:
        file.write("text")
    assert target.exists()
    with target.open() as file:
        assert file.read() == "text"
    target.copy(S3Target(f"{place}/copy", store=store)).result()
    target.remove().result()
    assert S3FlagTarget(f"{place}/", store=store).list().result() == ["copy"]


async def test_two_thousand_objects_at_once_take_few_descriptors(store: S3Store, place: str) -> None:
    class Many(Make):
        n: int

        def output(self) -> S3Target:
            return S3Target(f"{place}/many/{self.n}", store=store)

    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, len(os.listdir("/proc/self/fd")))
            await asyncio.sleep(0.01)

    before = len(os.listdir("/proc/self/fd"))
    watching = asyncio.ensure_future(watch())
    tasks = [Many(n=n) for n in range(2000)]
    first = await build(tasks, concurrency=2000)
    assert first.counts == {"succeeded": 2000}, next(first.errors())
    assert (await build(tasks)).counts == {"complete": 2000}
    watching.cancel()
    assert peak - before <= 100


# Copies and folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 11 * MB])
async def test_copy_and_move(
    size: int, store: S3Store, place: str, monkeypatch: pytest.MonkeyPatch, client: Any
) -> None:
    monkeypatch.setattr(writing, "COPIED", 5 * MB)
    bucket, _, key = place.removeprefix("s3://").partition("/")
    content = os.urandom(size)
    await client.put_object(
        Bucket=bucket, Key=f"{key}/it", Body=content, ContentType="text/x-it", Metadata={"of": "theirs"}
    )
    source, copy, moved = (S3Target(f"{place}/{name}", store=store) for name in ("it", "sub folder/ümlaut+%20", "new"))
    await source.copy(copy)
    await copy.move(moved)
    assert [await target.exists() for target in (source, copy, moved)] == [True, False, True]
    assert await get(moved) == content
    found = await client.head_object(Bucket=bucket, Key=f"{key}/new")
    assert found["ContentType"] == "text/x-it"
    assert found["Metadata"]["of"] == "theirs"
    await moved.remove()
    await moved.remove()
    assert not await moved.exists()
    with pytest.raises(FileNotFoundError, match="cannot be copied: not there"):
        await moved.copy(source)


async def test_nothing_is_moved_to_itself(store: S3Store, place: str) -> None:
    target = S3Target(f"{place}/it", store=store)
    await put(target)
    for same in (target, S3Target(target.url, store=dataclasses.replace(store, read_timeout=5))):
        for operation in (target.move(same), target.copy(same)):
            with pytest.raises(ValueError, match="cannot be copied or moved to itself"):
                await operation
    assert await target.exists()


async def test_an_object_that_is_left_half_read_lets_go_of_the_client(store: S3Store, place: str) -> None:
    target = S3Target(f"{place}/rows", store=store, codec=JsonLines())
    await target.write({"n": n} for n in range(50_000))
    async for _row in target.rows():
        break
    del _row
    await asyncio.sleep(0.01)
    clients_of_loop = clients._of(asyncio.get_running_loop())
    assert [client.users for client in clients_of_loop.by_key.values()] == [0]


async def test_copies_go_from_store_to_store(store: S3Store, place: str, moto: S3Server) -> None:
    other = store_of(moto)
    await other.call("create_bucket", Bucket="other")
    source, copy = S3Target(f"{place}/it", store=store), S3Target("s3://other/copy", store=other)
    await put(source, b"content")
    await source.move(copy)
    assert await get(copy) == b"content"
    assert not await source.exists()


async def test_a_folder_is_there_with_its_flag(store: S3Store, place: str) -> None:
    class Parts(Task):
        def output(self) -> S3FlagTarget:
            return S3FlagTarget(f"{place}/parts/", store=store)

        async def run(self) -> None:
            for n in range(3):
                await put(self.output().target(f"part-{n}"), b"%d" % n)
            assert not await self.output().exists()
            await self.output().publish()

    (await build([Parts()])).raise_for_failure()
    assert (await build([Parts()])).counts == {"complete": 1}
    folder = Parts().output()
    assert await folder.list() == ["part-0", "part-1", "part-2"]
    assert await S3FlagTarget.exists_many([folder, S3FlagTarget(f"{place}/none/", store=store)]) == [True, False]
    await folder.remove()
    assert not await folder.exists()
    assert await folder.list() == []


# Values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("bucket/key", "expected s3://bucket/key"),
        ("s3://bucket", "expected s3://bucket/key"),
        ("s3://bucket/", "expected s3://bucket/key"),
        ("s3:///key", "expected s3://bucket/key|cannot be the name"),
        ("s3://buck et/key", "cannot be the name of a bucket"),
        ("s3://bucket/a//b", "must not have empty, '.' or '..' segments"),
        ("s3://bucket/a/../b", "must not have empty, '.' or '..' segments"),
        ("s3://bucket/a/", "must not have empty, '.' or '..' segments"),
        ("s3://bucket/a\nb", "must not have control characters"),
        ("s3://bucket/a\0b", "must not have control characters"),
        ("s3://bucket/" + "ü" * 513, "at most 1,024 bytes; this one has 1,026"),
        ("s3://bucket/\ud800", "cannot be written in UTF-8"),
    ],
)
def test_urls_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        S3Target(url)


def test_values_that_make_no_sense() -> None:
    with pytest.raises(TypeError, match="expected a str"):
        S3Target(b"s3://bucket/key")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="with a slash at its end"):
        S3FlagTarget("s3://bucket/folder")
    with pytest.raises(ValueError, match="access_key and secret_key go together"):
        S3Store(access_key="x")
    with pytest.raises(ValueError, match="expected http://"):
        S3Store(endpoint_url="localhost:9000")
    with pytest.raises(ValueError, match="expected auto, path or virtual"):
        S3Store(addressing_style="dns")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"S3Store\(connections=0\): expected 1 or more"):
        S3Store(connections=0)
    with pytest.raises(ValueError, match=r"S3Store\(attempts=2.5\): expected 1 or more"):
        S3Store(attempts=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"S3Store\(read_timeout='x'\): expected seconds"):
        S3Store(read_timeout="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected http://host"):
        S3Store(endpoint_url="http://")
    with pytest.raises(ValueError, match=r"S3Store\(endpoint_url='http://host:x'\): expected http://host or .* a port"):
        S3Store(endpoint_url="http://host:x")
    with pytest.raises(TypeError, match=r"S3Store\(secret_key=...\): expected a str, not a bytes"):
        S3Store(access_key="x", secret_key=b"canary")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the mode is 'r', 'w', 'rb' or 'wb'"):
        S3Target("s3://bucket/key").open("a")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("http://host:1", "http://host:1/"),
        ("http://host:1", "http://HOST:1//"),
        ("http://host", "http://host:80"),
        ("http://host", "http://Host:/"),
        ("https://host", "https://host:443/"),
        ("https://host/At/Path", "https://host:0443/At/Path/"),
        ("http://[fe80::1]", "http://[FE80::1]:80/"),
    ],
)
def test_an_endpoint_has_one_spelling(url: str, other: str) -> None:
    store, same = S3Store(endpoint_url=url), S3Store(endpoint_url=other)
    assert store.endpoint_url == url
    assert (same, same.place, same.identity) == (store, store.place, store.identity)
    assert S3Target("s3://bucket/key", store=same).key == f"s3://bucket/key at {url}"


@pytest.mark.parametrize("url", ["https://host:80", "http://host:443", "http://host:8080", "http://host/At/Path"])
def test_another_endpoint_stays_another(url: str) -> None:
    assert S3Store(endpoint_url=url).endpoint_url == url


async def test_one_object_by_two_spellings_is_one_target(s3: S3Server, place: str) -> None:
    ran = []

    class Spelt(Task):
        endpoint: str

        def output(self) -> S3Target:
            return S3Target(f"{place}/x", store=store_of(s3, self.endpoint))

        async def run(self) -> None:
            ran.append(self.endpoint)

    with pytest.raises(PlanError, match="would both make"):
        await build([Spelt(endpoint=s3.endpoint), Spelt(endpoint=f"{s3.endpoint}/")])
    assert ran == []


async def test_a_request_without_a_key_is_refused(store: S3Store, place: str) -> None:
    """It would be one to the bucket: to delete it, say."""
    target = S3Target(f"{place}/x", store=store)
    await put(target)
    bucket = place.split("/")[2]
    for parameters in ({"Key": ""}, {"Key": None}, {}):
        with pytest.raises(ParamValidationError):
            await store.call("delete_object", Bucket=bucket, **parameters)
    assert await get(target) == b"x"


def test_secrets_do_not_show() -> None:
    store = S3Store(endpoint_url="http://host:1", access_key="id", secret_key="canary", session_token="canary")
    target = S3Target("s3://bucket/key", store=store)
    for text in (repr(store), repr(target), target.key, str(store.identity), str(target.exists())):
        assert "canary" not in text
    assert pickle.loads(pickle.dumps(target)) == target
    assert target != S3Target("s3://bucket/key")
    assert target.key == "s3://bucket/key at http://host:1"
    assert S3Target("s3://bucket/key").key == "s3://bucket/key"


async def _of(write: Awaitable[int]) -> int:
    return await write


async def test_a_block_that_ends_while_another_task_writes_leaves_no_upload(
    s3: S3Server, place: str, client: Any
) -> None:
    for turns in (1, 5, 40):
        target = S3Target(f"{place}/key", store=store_of(s3))
        with pytest.raises(ZeroDivisionError):
            async with target.open("wb") as file:
                writing = asyncio.ensure_future(_of(file.write(bytes(20 * MB))))
                for _ in range(turns):
                    await asyncio.sleep(0)
                raise ZeroDivisionError
        with pytest.raises(ValueError, match="write to a closed handle"):
            await writing
        assert not await target.exists()
        assert target.name not in {upload["Key"] for upload in await _uploads(client, target.bucket)}


async def test_an_upload_that_begins_after_its_writer_has_gone_is_aborted(
    s3: S3Server, place: str, proxy: FaultS3, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncflow.shield.PATIENCE", 0.01)
    target = S3Target(f"{place}/key", store=store_of(s3, proxy.endpoint))
    assert not await target.exists()
    proxy.latency = 0.3

    async def write() -> None:
        async with target.open("wb") as file:
            await file.write(bytes(20 * MB))

    writing = asyncio.ensure_future(write())
    async with asyncio.timeout(20):
        while not proxy.count("POST"):
            await asyncio.sleep(0.005)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert not proxy.count("DELETE"), "the upload has not begun yet"
        proxy.latency = 0
        while not proxy.count("DELETE"):
            await asyncio.sleep(0.005)
        while target.name in {upload["Key"] for upload in await _uploads(client, target.bucket)}:
            await asyncio.sleep(0.005)


async def _uploads(client: Any, bucket: str) -> list[dict[str, Any]]:
    found = await client.list_multipart_uploads(Bucket=bucket)
    return found.get("Uploads", [])  # type: ignore[no-any-return]


async def test_a_large_value_is_cut_into_parts_without_copying_what_is_left(
    s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncflow.targets._s3.writing.PART", 1000)
    sink = S3Target(f"{place}/key", store=store_of(s3))._sink()
    parts = []

    async def send(operation: str, part: dict[str, Any]) -> None:
        parts.append(part["Body"])
        sink._begun += 1

    monkeypatch.setattr(sink, "_send", send)
    value = bytes(range(250)) * 80_000
    begun = time.process_time()
    for data in (b"abc", value, b"def"):
        await sink.write(data)
    assert time.process_time() - begun < 2  # 10 s, if each part copies the rest
    assert b"".join([*parts, *sink._chunks]) == b"abc" + value + b"def"
    assert {len(part) for part in parts} == {1000, 2000, 4000, 8000, 16000}
