"""File targets take and give values, by their codec: on this machine, and in a store over a network."""

from __future__ import annotations

import asyncio
import gc
import gzip
import pickle
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncflow import IncompleteOutput, LocalTarget, MemoryTarget, Task, build, task, value
from asyncflow.codecs import Bytes, Codec, Csv, Json, JsonLines, Pickle, Text
from asyncflow.targets._file import FileTarget
from asyncflow.testing import STYLES, Outcome, Style, no_blocking, no_leaks, sweep
from tests.targets.remote import RemoteTarget, Store

Make = Callable[[str, Codec[Any]], FileTarget]


@pytest.fixture(params=["local", "remote"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    RemoteTarget.store = Store()
    if request.param == "local":
        yield lambda name, codec: LocalTarget(tmp_path / name, codec=codec, durability="none")
    else:
        yield RemoteTarget
    assert not RemoteTarget.store.partial
    assert not RemoteTarget.store.reading


VALUES: list[tuple[Codec[Any], Any]] = [
    (Text(), "ä\n"),
    (Bytes(gzip=True), b"\0" * 100),
    (Json(), {"a": [1, None]}),
    (Json(gzip=True, indent=2), "text"),
    (Pickle(), {1, 2}),
    (JsonLines(gzip=True), [{"n": n} for n in range(5000)]),
    (JsonLines(), []),
    (Csv(), [{"a": "1", "b": "x\ny"}]),
    (Csv(header=False, gzip=True), [[str(n), "x" * (n % 50)] for n in range(30_000)]),
]


@pytest.mark.parametrize(("codec", "value"), VALUES)
async def test_a_value_comes_back(make: Make, codec: Codec[Any], value: Any) -> None:
    target = make("it", codec)
    await target.write(value)
    assert await target.read() == value


@pytest.mark.parametrize(("codec", "value"), VALUES)
def test_a_value_comes_back_to_sync_code(make: Make, codec: Codec[Any], value: Any) -> None:
    target = make("it", codec)
    target.write(value).result()
    assert target.read().result() == value


async def numbers(count: int) -> AsyncIterator[dict[str, int]]:
    for n in range(count):
        if not n % 1000:
            await asyncio.sleep(0)
        yield {"n": n}


async def test_rows_are_written_as_they_come_and_read_as_they_are_wanted(make: Make) -> None:
    count = 50_000
    target = make("rows.jsonl", JsonLines())
    with no_blocking():
        await target.write(numbers(count))
        n = 0
        async for row in target.rows():
            assert row == {"n": n}
            n += 1
        assert n == count
        await target.write({"n": n} for n in range(count))
    assert (await target.read())[-1] == {"n": count - 1}
    async with no_leaks(), target.rows() as rows:
        assert await anext(rows) == {"n": 0}
    with pytest.raises(StopAsyncIteration):
        while True:
            await anext(rows)


def test_rows_in_sync_code(make: Make) -> None:
    target = make("rows.csv", Csv())
    target.write({"n": n} for n in range(20_000)).result()
    assert sum(int(row["n"]) for row in target.rows()) == sum(range(20_000))
    with target.rows() as rows:
        assert next(rows) == {"n": "0"}
    with pytest.raises(TypeError, match="an async iterable is written by `await"):
        target.write(numbers(1)).result()


async def test_rows_that_are_left_early_let_go_of_the_file(make: Make) -> None:
    target = make("rows.jsonl", JsonLines())
    await target.write(numbers(100_000))
    async with no_leaks():
        async for _row in target.rows():
            break
        del _row


def test_rows_are_copied_in_sync_code(make: Make) -> None:
    first, second = make("rows.csv", Csv()), make("rows.jsonl.gz", JsonLines(gzip=True))
    first.write({"n": n} for n in range(5)).result()
    second.write(first.rows()).result()
    assert second.read().result() == first.read().result()


@pytest.mark.parametrize("compressed", [False, True])
async def test_memory_does_not_grow_with_the_rows(make: Make, compressed: bool) -> None:
    alive = most = 0

    class Row(dict[str, Any]):
        def __init__(self) -> None:
            nonlocal alive, most
            super().__init__(text="x" * 1000)
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    target = make("rows.jsonl", JsonLines(gzip=compressed))
    await target.write(Row() for _ in range(20_000))
    assert most < 2000
    async with target.rows() as rows:
        count = 0
        async for _row in rows:
            assert len(rows._ahead) < 2000
            count += 1
    assert count == 20_000


@pytest.mark.parametrize("style", STYLES)
async def test_a_write_of_rows_cancelled_anywhere_leaves_nothing_or_all(make: Make, style: Style) -> None:
    number = 0

    async def write() -> None:
        nonlocal number
        number += 1
        await make(f"{number}.jsonl", JsonLines(gzip=True)).write(numbers(3000))

    async def check(outcome: Outcome) -> None:
        target = make(f"{number}.jsonl", JsonLines(gzip=True))
        there = await target.exists()  # type: ignore[misc]
        assert there or outcome.cancelled
        if there:
            assert len(await target.read()) == 3000

    async with no_leaks():
        await sweep(write, check, style)


async def test_a_loop_over_rows_that_is_interrupted_goes_on(make: Make) -> None:
    target = make("rows.jsonl", JsonLines())
    await target.write(numbers(60_000))
    found: list[Any] = []
    rows = target.rows()

    async def read() -> None:
        async for row in rows:
            found.append(row["n"])  # noqa: PERF401  # what was found before a cancel counts

    cancels = 0
    while True:
        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0.001 * (cancels + 1))
        if not reading.done():
            reading.cancel()
            cancels += 1
        try:
            await reading
        except asyncio.CancelledError:
            continue
        break
    assert found == list(range(60_000))
    assert cancels > 2


async def test_rows_have_one_reader(make: Make) -> None:
    target = make("rows.jsonl", JsonLines())
    await target.write(numbers(60_000))
    rows = target.rows()

    async def read() -> int:
        return len([row async for row in rows])

    first, second = await asyncio.gather(read(), read(), return_exceptions=True)
    assert first == 60_000
    assert "are being read by somebody else: call rows() for each" in str(second)


async def test_an_async_generator_is_closed_when_its_file_cannot_be_written(make: Make) -> None:
    closed = False

    async def rows() -> AsyncIterator[Any]:
        nonlocal closed
        try:
            for n in range(100_000):
                yield {1} if n == 50_000 else n
        finally:
            closed = True

    with pytest.raises(TypeError, match=r"row 50,001"):
        await make("it", JsonLines()).write(rows())
    assert closed


@pytest.mark.parametrize("on_loop", [True, False])
async def test_what_the_rows_raise_is_raised_as_it_is(on_loop: bool, make: Make) -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise ValueError("mine")

    async def rows_on_loop() -> AsyncIterator[int]:
        for row in rows():
            yield row

    with pytest.raises(ValueError, match="^mine$"):
        await make("it", JsonLines()).write(rows_on_loop() if on_loop else rows())


async def test_an_operation_is_done_once(make: Make) -> None:
    writing = make("it", Json()).write(1)
    await writing
    with pytest.raises(RuntimeError, match=r"has been awaited before: call target.write\(value\) again"):
        await writing
    reading = make("it", Json()).read()
    assert await asyncio.to_thread(reading.result) == 1
    with pytest.raises(RuntimeError, match="has been awaited before"):
        await reading


async def test_the_collector_never_waits_for_what_sync_code_left_open(make: Make) -> None:
    """What a body has left half read, in a ring of references, is found on the loop."""
    rings: list[Any] = []

    class Leaves(Task):
        def run(self) -> None:
            rows = make("rows.jsonl", JsonLines()).rows()
            next(rows)
            ring: list[Any] = [rows]
            ring.append(ring)

    class LeavesHalfWritten(Task):
        def run(self) -> None:
            block = RemoteTarget("half").open("w")
            block.__enter__().write("x")
            ring: list[Any] = [block]
            ring.append(ring)

    await make("rows.jsonl", JsonLines()).write(numbers(50_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.disable()
        try:
            await build([Leaves(), LeavesHalfWritten()])
            async with asyncio.timeout(5):
                gc.collect()
                await asyncio.sleep(0)
        finally:
            gc.enable()
    assert "half" not in RemoteTarget.store.whole
    del rings


def test_a_script_that_leaves_rows_half_read_holds_nothing(make: Make) -> None:
    make("rows.jsonl", JsonLines()).write({"n": n} for n in range(50_000)).result()
    with warnings.catch_warnings(), no_leaks():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(5):
            rows = make("rows.jsonl", JsonLines()).rows()
            next(rows)
            del rows


@pytest.mark.parametrize(
    ("codec", "value", "error", "said"),
    [
        (Json(), {1, 2}, TypeError, "cannot be written: Object of type set is not JSON serializable"),
        (JsonLines(), [1] * 777 + [{1}], TypeError, "cannot be written: row 778: Object of type set"),
        (Csv(), [{"a": 1}, {"b": 2}], ValueError, "cannot be written: row 2: has no 'a'"),
        (JsonLines(), 5, TypeError, "rows are an iterable or an async iterable of rows, not int"),
        (Csv(), "text", TypeError, "rows are an iterable or an async iterable of rows, not str"),
    ],
)
async def test_what_cannot_be_written_names_the_target(
    make: Make, codec: Codec[Any], value: Any, error: type[Exception], said: str
) -> None:
    target = make("it", codec)
    with pytest.raises(error, match=said) as raised:
        await target.write(value)
    assert "rows are" in said or repr(target) in str(raised.value)
    with pytest.raises(error, match=said):
        await asyncio.to_thread(lambda: target.write(value).result())
    assert not await target.exists()  # type: ignore[misc]


async def test_rows_that_fail_publish_nothing(make: Make) -> None:
    def broken() -> Iterator[int]:
        yield from range(500)
        raise ZeroDivisionError

    async def broken_on_the_loop() -> AsyncIterator[int]:
        for n in broken():
            yield n

    target = make("it", JsonLines())
    for rows in (broken(), broken_on_the_loop()):
        with pytest.raises(ZeroDivisionError):
            await target.write(rows)
    assert not await target.exists()  # type: ignore[misc]


async def test_what_is_not_the_codecs_names_the_target(make: Make) -> None:
    await make("it", Text()).write("1\n2\nnot json\n")
    target = make("it", JsonLines())
    for read in (target.read(), anext(target.rows())):
        with pytest.raises(ValueError, match=r"cannot be read: line 3: Expecting value") as raised:
            await read
        assert repr(target) in str(raised.value)
    with pytest.raises(FileNotFoundError):
        await make("absent", Json()).read()


async def test_what_a_target_cannot_do(make: Make, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"has no codec to write or read values with: give it one, codec=Json\(\) say"):
        LocalTarget(tmp_path / "x").read()
    with pytest.raises(TypeError, match=r"Json\(.*\) has no rows; read\(\) gives its value"):
        make("it", Json()).rows()
    for wrong, said in ((Json, r"write codec=Json\(\)"), ("json", "expected one of asyncflow.codecs")):
        with pytest.raises(TypeError, match=said):
            make("it", wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"on the event loop write `await target.read\(\)`"):
        make("it", Json()).read().result()
    with pytest.raises(TypeError, match=r"FileTarget has no open\(\)"):
        FileTarget().open("r")


async def test_an_operation_as_a_coroutine(make: Make) -> None:
    target = make("it", Json())
    async with asyncio.TaskGroup() as group:
        group.create_task(value(target.write([1])))
    assert await value(target.read()) == [1]


def test_an_operation_that_nobody_awaited_says_so(make: Make) -> None:
    with pytest.warns(RuntimeWarning, match=r"write\(value\)> was never awaited: nothing has been done"):
        make("it", Json()).write(1)


def test_a_codec_goes_with_its_target(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path / "x", codec=JsonLines(gzip=True))
    again = pickle.loads(pickle.dumps(target))
    assert again == target == LocalTarget(tmp_path / "x")
    assert again.codec == JsonLines(gzip=True)


# In a build ------------------------------------------------------------------------------------------------


async def test_a_body_may_return_what_its_target_takes(make: Make) -> None:
    class Numbers(Task):
        sync: bool

        def output(self) -> FileTarget:
            return make(f"numbers-{self.sync}.jsonl.gz", JsonLines(gzip=True))

    class InThread(Numbers):
        def run(self) -> Any:
            return ({"n": n, "thread": threading.current_thread() is threading.main_thread()} for n in range(3))

    class OnLoop(Numbers):
        async def run(self) -> Any:
            return numbers(3)

    class Total(Task):
        def requires(self) -> list[Task]:
            return [InThread(sync=True), OnLoop(sync=False)]

        async def run(self) -> int:
            return sum([row["n"] for target in self.input() for row in await target.read()])

    result = await build([Total()])
    result.raise_for_failure()
    assert result[Total()] == 6
    assert (await build([Total()])).counts["complete"] == 2


async def test_what_a_body_returned_and_cannot_be_written_fails_it(make: Make) -> None:
    @task(output=lambda: make("it", Json()))
    async def broken() -> Any:
        return {1}

    result = await build([broken()])
    (error,) = result.errors()
    assert "cannot be written: Object of type set" in str(error.__cause__)
    assert not await make("it", Json()).exists()  # type: ignore[misc]


async def test_a_target_without_a_codec_says_what_to_do(tmp_path: Path) -> None:
    class Returns(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "x")

        async def run(self) -> Any:
            return 1

    class Kept(Returns):
        def output(self) -> Any:
            return MemoryTarget("kept")

    result = await build([Returns()])
    with pytest.raises(IncompleteOutput, match=r"write it to .*, give that a codec \(codec=Json\(\), say\)"):
        raise next(result.errors()).__cause__ or AssertionError
    assert (await build([Kept()])).ok
    MemoryTarget.clear()


async def test_a_sync_body_reads_and_writes(make: Make) -> None:
    class Double(Task):
        def output(self) -> FileTarget:
            return make("double", Json())

        def run(self) -> None:
            self.output().write([2 * n for n in make("single", Json()).read().result()]).result()

    await make("single", Json()).write([1, 2])
    (await build([Double()])).raise_for_failure()
    assert await make("double", Json()).read() == [2, 4]


async def test_gzip_is_what_others_read(make: Make) -> None:
    target = make("x.gz", Text(gzip=True))
    await target.write("text")
    async with target.open("rb") as file:
        assert gzip.decompress(await file.read()) == b"text"
