"""Handles of stores over a network read and write as files do, and publish whole or not at all."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncflow import Task, build
from asyncflow.testing import STYLES, Style, TargetContract, sweep
from tests.targets.remote import RemoteTarget, Store


@pytest.fixture(autouse=True)
def store() -> Iterator[Store]:
    RemoteTarget.store = Store()
    yield RemoteTarget.store
    assert not RemoteTarget.store.partial, "something is still being stored"
    assert not RemoteTarget.store.reading, "something is still open"


class TestRemoteTarget(TargetContract):
    def make(self, name: str) -> RemoteTarget:
        return RemoteTarget(name)

    def leftovers(self) -> list[str]:
        return [outgoing.name for outgoing in RemoteTarget.store.partial]


text = st.text(alphabet="ab\n\r\u2028é🦊", max_size=40)
any_order = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@any_order
@given(
    st.lists(text.filter(bool), max_size=5),
    st.sampled_from([None, "", "\n", "\r", "\r\n"]),
    st.sampled_from(["utf-8", "utf-16"]),
)
def test_text_is_written_as_files_write_it(pieces: list[str], newline: str | None, encoding: str) -> None:
    path = Path("/dev/shm/asyncflow-test-remote")
    with open(path, "w", encoding=encoding, newline=newline) as file:
        for piece in pieces:
            file.write(piece)
    expected = path.read_bytes()
    path.unlink()

    async def main() -> None:
        async with RemoteTarget("async").open("w", encoding=encoding, newline=newline) as file:
            for piece in pieces:
                assert await file.write(piece) == len(piece)

    asyncio.run(main())
    with RemoteTarget("sync").open("w", encoding=encoding, newline=newline) as file:
        file.writelines(pieces)
    assert RemoteTarget.store.whole == {"async": expected, "sync": expected}


@any_order
@given(
    text.map(lambda text: text * 3000),
    st.sampled_from([None, "", "\n", "\r", "\r\n"]),
    st.sampled_from(["utf-8", "utf-16"]),
    st.lists(st.sampled_from([-1, 0, 1, 7, 5000, "line"]), max_size=5),
    st.integers(),
)
def test_text_is_read_as_files_read_it(
    content: str, newline: str | None, encoding: str, steps: list[Any], seed: int
) -> None:
    RemoteTarget.store.draw.seed(seed)
    RemoteTarget.store.whole["it"] = content.encode(encoding)
    path = Path("/dev/shm/asyncflow-test-remote")
    path.write_bytes(content.encode(encoding))

    async def main() -> list[str]:
        async with RemoteTarget("it").open("r", encoding=encoding, newline=newline) as file:
            found = [await (file.readline() if step == "line" else file.read(step)) for step in steps]
            return found + [line async for line in file] + [await file.read()]

    with open(path, encoding=encoding, newline=newline) as file:
        expected = [file.readline() if step == "line" else file.read(step) for step in steps]
        expected += [*file, ""]
    path.unlink()
    assert asyncio.run(main()) == expected
    with RemoteTarget("it").open("r", encoding=encoding, newline=newline) as file:
        found = [file.readline() if step == "line" else file.read(step) for step in steps]
        assert [*found, *file, ""] == expected


async def test_bytes_come_back_by_lines_and_by_sizes() -> None:
    content = b"".join(b"%d\n" % n * (n % 7) for n in range(20_000)) + b"end"
    async with RemoteTarget("it").open("wb") as file:
        for at in range(0, len(content), 70_000):
            await file.write(bytearray(content[at : at + 70_000]))
    async with RemoteTarget("it").open("rb") as file:
        assert [line async for line in file] == content.splitlines(keepends=True)
        assert await file.read() == b""
    async with RemoteTarget("it").open("rb") as file:
        assert await file.read(100_000) + await file.read() == content


@pytest.mark.parametrize("large", [1_000, 10_000_000])
async def test_a_cancelled_read_loses_nothing(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncflow.targets._remote_reading.LARGE", large)
    content = bytes(range(256)) * 4000
    RemoteTarget.store.whole["it"] = content
    async with RemoteTarget("it").open("rb") as file:
        found = b""
        for n in range(1, 30):
            reading = asyncio.ensure_future(file.read() if n % 2 else file.read(200_000))
            for _ in range(n):
                await asyncio.sleep(0)
            reading.cancel()
            try:
                found += await reading
            except asyncio.CancelledError:
                continue
        assert found + await file.read() == content


@pytest.mark.parametrize("newline", [None, "", "\r\n"])
async def test_tasks_that_read_one_handle_share_its_lines(newline: str | None, store: Store) -> None:
    lines = [f"{n} {'x' * (n % 50)}\r\n" for n in range(20_000)]
    store.whole["it"] = "".join(lines).encode()
    found: list[str] = []

    async def read() -> None:
        async for line in file:
            found.append(line)
            await asyncio.sleep(0)

    async with RemoteTarget("it").open(newline=newline) as file, asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(read())
    assert found == (lines if newline is not None else [line.replace("\r", "") for line in lines])


async def test_tasks_that_read_one_handle_share_its_bytes(store: Store) -> None:
    store.whole["it"] = b"0123456789" * 30_000
    found: list[bytes] = []

    async def read(size: int) -> None:
        while data := await file.read(size):
            found.append(data)

    async with RemoteTarget("it").open("rb") as file, asyncio.TaskGroup() as tasks:
        for size in (10, 5_000, 70_000):
            tasks.create_task(read(size))
    assert all(len(data) % 10 == 0 and data.startswith(b"0123456789") for data in found)
    assert sum(map(len, found)) == 300_000


async def test_closing_stops_a_read_of_another_task(store: Store) -> None:
    store.whole["it"] = b"x" * 300_000
    async with RemoteTarget("it").open("rb") as file:
        store.open.clear()
        reading = [asyncio.ensure_future(file.read()), asyncio.ensure_future(file.readline())]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    for read in reading:
        with pytest.raises(ValueError, match="read of a closed handle"):
            await read


async def test_a_long_line_takes_no_longer_than_the_file(store: Store) -> None:
    store.whole["it"] = b"x" * 24_000_000 + b"\nend"
    begun = time.process_time()
    async with RemoteTarget("it").open() as file:
        assert len(await file.read()) == 24_000_004
    whole, begun = time.process_time() - begun, time.process_time()
    async with RemoteTarget("it").open() as file:
        assert len(await file.readline()) == 24_000_001
        assert await file.read() == "end"
    assert time.process_time() - begun < 5 * whole + 0.1


@pytest.mark.parametrize("step", ["write", "commit"])
async def test_an_error_of_the_store_publishes_nothing(step: str, store: Store) -> None:
    def fail(at: str) -> None:
        if at == step:
            raise ConnectionError("gone")

    store.fail = fail
    with pytest.raises(ConnectionError, match="gone"):
        async with RemoteTarget("it").open("wb") as file:
            try:
                await file.write(bytes(300_000))
            except ConnectionError:
                with pytest.raises(ValueError, match="closed handle"):
                    file.write(b"more")
    assert not store.whole


@pytest.mark.parametrize("step", ["write", "commit"])
def test_an_error_of_the_store_publishes_nothing_in_sync_code(step: str, store: Store) -> None:
    def fail(at: str) -> None:
        if at == step:
            raise ConnectionError("gone")

    store.fail = fail
    with pytest.raises(ConnectionError, match="gone"), RemoteTarget("it").open("w") as file:
        file.write("x" * 600_000)
    assert not store.whole


async def test_a_write_that_failed_cannot_be_committed_by_swallowing_the_error(store: Store) -> None:
    def fail(at: str) -> None:
        if at == "write":
            store.fail = lambda step: None
            raise ConnectionError("once")

    store.fail = fail
    with pytest.raises(ConnectionError, match="once"):
        async with RemoteTarget("it").open("wb") as file:
            with pytest.raises(ConnectionError):
                await file.write(bytes(300_000))
    assert not store.whole


async def _of(write: Awaitable[int]) -> int:
    return await write


async def test_a_block_that_ends_stops_the_writes_of_other_tasks(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        async with RemoteTarget("it").open("wb") as file:
            store.open.clear()
            writing = [asyncio.ensure_future(_of(file.write(bytes(300_000)))) for _ in range(3)]
            while not store.partial:
                await asyncio.sleep(0)
            raise ZeroDivisionError
    assert not store.partial
    store.open.set()
    for write in writing:
        with pytest.raises(ValueError, match="write to a closed handle"):
            await write
    with pytest.raises(ValueError, match="write to a closed handle"):
        file.write(b"more")
    assert not store.whole
    assert not store.partial


async def test_a_cancel_of_whoever_closes_leaves_nothing(store: Store) -> None:
    async def body() -> None:
        async with RemoteTarget("it").open("wb") as file:
            store.open.clear()
            writing.append(asyncio.ensure_future(_of(file.write(bytes(300_000)))))
            while not store.partial:
                await asyncio.sleep(0)
            raise ZeroDivisionError

    for late in range(12):
        writing: list[asyncio.Future[Any]] = []
        running = asyncio.ensure_future(body())
        while not writing:
            await asyncio.sleep(0)
        for _ in range(late):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises((asyncio.CancelledError, ZeroDivisionError)):
            await running
        assert not store.partial
        with pytest.raises(ValueError, match="write to a closed handle"):
            await writing[0]
        store.open.set()
    assert not store.whole


async def test_a_write_that_was_cut_off_is_an_error_of_the_block(store: Store) -> None:
    with pytest.raises(OSError, match=r"remote://it: a write was cut off .* nothing was published; open it again"):
        async with RemoteTarget("it").open("wb") as file:
            store.open.clear()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await file.write(bytes(300_000))
            store.open.set()
    assert not store.whole


async def test_a_commit_that_was_cut_off_does_not_say_what_it_cannot_know(store: Store) -> None:
    with pytest.raises(OSError, match=r"remote://it: its commit was cut off.* exists\(\) tells"):
        async with RemoteTarget("it").open("wb") as file:
            await file.write(b"x")
            committing = asyncio.ensure_future(file.commit())
            store.fail = lambda step: committing.cancel() if step == "commit" else None  # type: ignore[func-returns-value]
            with pytest.raises(asyncio.CancelledError):
                await committing
    assert store.whole == {"it": b"x"}


@pytest.mark.parametrize("how", ["async", "sync"])
@pytest.mark.parametrize("value", ["ä\n🦊" * 1_000_000, bytes(range(250)) * 20_000])
def test_a_large_value_is_handed_on_in_pieces(how: str, value: Any, store: Store) -> None:
    mode: Any = "w" if isinstance(value, str) else "wb"
    small: Any = "x" if isinstance(value, str) else b"x"
    pieces = []
    store.wrote = pieces.append

    async def main() -> None:
        async with RemoteTarget("it").open(mode) as file:
            file.write(small)
            assert await file.write(value) == len(value)
            file.write(value)
            await file.writelines([small, small])

    if how == "async":
        asyncio.run(main())
    else:
        with RemoteTarget("it").open(mode) as file:
            file.writelines([small, value, value, small, small])
    whole = small + value + value + small + small
    assert store.whole["it"] == (whole.encode() if isinstance(whole, str) else whole)
    assert max(map(len, pieces)) <= 4 * 512 * 1024
    assert len(pieces) < 50


async def test_text_that_cannot_be_encoded_publishes_nothing(store: Store) -> None:
    with pytest.raises(UnicodeEncodeError):
        async with RemoteTarget("it").open("w") as file:
            await file.write("\udc80")
    assert not store.whole


async def test_what_a_handle_refuses() -> None:
    async with RemoteTarget("it").open("w") as file:
        with pytest.raises(TypeError, match="takes str, not bytes; open with 'wb'"):
            file.write(b"x")
        file.write("kept although nobody awaits it")
    async with RemoteTarget("it").open("wb") as file:
        with pytest.raises(TypeError, match="takes bytes, not str; open with 'w'"):
            file.write("x")
        await file.close()
        assert file.closed
    assert await RemoteTarget("it").exists()
    async with RemoteTarget("it").open() as file:
        assert await file.read() == "kept although nobody awaits it"
    with pytest.raises(ValueError, match="read of a closed handle"):
        await file.read()
    for mode in ("r", "w"):
        with pytest.raises(TypeError, match="on the event loop write `async with"), RemoteTarget("it").open(mode):
            pass
        with pytest.raises(AttributeError, match="no 'read' yet"):
            _ = RemoteTarget("it").open(mode).read
    with pytest.raises(LookupError, match="unknown encoding"):
        RemoteTarget("it").open("w", encoding="utf-9")
    with pytest.raises(FileNotFoundError, match="RemoteTarget"):
        async with RemoteTarget("absent").open():
            pass


async def test_committing_by_hand() -> None:
    async with RemoteTarget("it").open("w") as file:
        await file.write("now")
        await file.commit()
        assert await RemoteTarget("it").exists()
        with pytest.raises(ValueError, match="nothing more is published"):
            await file.commit()


def test_sync_code_publishes_when_its_block_ends_well(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), RemoteTarget("it").open("w") as file:
        file.write("x" * 600_000)
        raise ZeroDivisionError
    with RemoteTarget("it").open("wb") as file:
        file.write(b"x")
        file.close()
        assert file.closed
        with pytest.raises(ValueError, match="nothing more is published"):
            file.commit()
    assert not store.whole
    assert not RemoteTarget("it").exists()
    with pytest.raises(FileNotFoundError), RemoteTarget("it").open():
        pass
    with RemoteTarget("it").open("w") as file:
        file.write("text")
    assert RemoteTarget("it").exists()
    assert store.whole == {"it": b"text"}


async def test_in_sync_bodies(store: Store) -> None:
    class Upper(Task):
        def output(self) -> RemoteTarget:
            return RemoteTarget("upper")

        def run(self) -> None:
            assert not self.output().exists()
            with RemoteTarget("lower").open() as lower, self.output().open("w") as upper:
                for line in lower:
                    upper.write(line.upper())

    store.whole["lower"] = b"one\ntwo\n"
    (await build([Upper()])).raise_for_failure()
    assert store.whole["upper"] == b"ONE\nTWO\n"


async def test_a_sync_body_that_is_too_late_publishes_nothing(store: Store) -> None:
    written, release, ended = threading.Event(), threading.Event(), threading.Event()

    class Late(Task):
        def output(self) -> RemoteTarget:
            return RemoteTarget("late")

        def run(self) -> None:
            try:
                with self.output().open("w") as file:
                    file.write("x")
                    written.set()
                    release.wait(10)
            finally:
                ended.set()

    building = asyncio.ensure_future(build([Late()], grace=0.05))
    await asyncio.to_thread(written.wait, 10)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    release.set()
    await asyncio.to_thread(ended.wait, 10)
    assert not store.whole


@pytest.mark.parametrize("style", STYLES)
async def test_reading_is_cancelled_cleanly_at_every_step(style: Style, store: Store) -> None:
    store.whole["it"] = b"line\n" * 40_000

    async def read() -> None:
        async with RemoteTarget("it").open() as file:
            assert len([line async for line in file]) == 40_000

    def check(outcome: object) -> None:
        assert not store.reading, outcome

    await sweep(read, check, style)
