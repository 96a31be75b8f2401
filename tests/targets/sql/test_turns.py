"""Blocks that hold a connection and want another: nothing waits for ever, and nothing waits silently."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import datetime
import decimal
import errno
import sqlite3
from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import Any

import pytest
import sqlalchemy as sa

from asyncflow import Task, build, gather, value
from asyncflow.targets._sql import turns
from asyncflow.targets.sql import MarkerTarget, TableTarget
from asyncflow.testing import no_leaks

N = ("n", sa.Integer)
DEADLOCK = r"would wait for ever for its turn .* held by .*/table_updates#outer, .* before the transaction begins"


def numbers(url: str, update_id: str, table: str = "numbers") -> TableTarget:
    return TableTarget(url, table, update_id, [N])


def marker(url: str, update_id: str) -> MarkerTarget:
    return MarkerTarget(url, update_id)


async def all_of(*works: Any, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


# A file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["transaction", "touch", "write", "gather", "rows"])
async def test_a_second_transaction_of_a_file_is_refused_at_once(sqlite_url: str, how: str) -> None:
    outer, inner = marker(sqlite_url, "outer"), marker(sqlite_url, "inner")
    await numbers(sqlite_url, "setup").write([])

    async def rows() -> AsyncIterator[tuple[int]]:
        await inner.touch()
        yield (1,)

    async def nested() -> None:
        if how == "rows":
            await TableTarget(sqlite_url, "numbers", "1").write(rows())
            return
        async with outer.transaction():
            if how == "transaction":
                async with inner.transaction():
                    pass
            elif how == "write":
                await numbers(sqlite_url, "1").write([(1,)])
            elif how == "touch":
                await inner.touch()
            else:
                await asyncio.gather(inner.touch(), inner.exists())

    expected = DEADLOCK if how != "rows" else DEADLOCK.replace("table_updates#outer", "numbers#1")
    with pytest.raises(OSError, match=expected) as failure:
        await asyncio.wait_for(nested(), 5)
    assert failure.value.errno == errno.EDEADLK
    assert not await inner.exists()
    assert not await outer.exists()
    await inner.touch()


async def test_writers_of_a_file_that_do_not_need_each_other_take_turns(sqlite_url: str) -> None:
    """Also two of one body's; and one that was begun in a block, once that has ended."""
    begun = asyncio.Event()

    async def later() -> None:
        await begun.wait()
        await marker(sqlite_url, "later").touch()

    class Both(Task):
        async def run(self) -> None:
            await all_of(*(value(numbers(sqlite_url, f"u{n}").write([(n,)] * 100)) for n in range(20)))

    async with marker(sqlite_url, "outer").transaction():
        background = asyncio.create_task(later())
        other = asyncio.create_task(value(marker(sqlite_url, "other").touch()), context=contextvars.Context())
        await asyncio.sleep(0.05)
        assert not other.done()
    begun.set()
    await background
    await other
    (await build(Both())).raise_for_failure()


@pytest.mark.parametrize("first", ["the transaction", "the other"])
async def test_a_task_awaited_in_the_transaction_of_a_file_cannot_write_there(sqlite_url: str, first: str) -> None:
    class Other(Task):
        def output(self) -> MarkerTarget:
            return marker(sqlite_url, "other")

        async def run(self) -> None:
            begun.set()
            await self.output().touch()

    class Between(Task):
        async def run(self) -> None:
            await Other()

    class Outer(Task):
        def output(self) -> MarkerTarget:
            return marker(sqlite_url, "outer")

        async def run(self) -> None:
            async with self.output().transaction():
                opened.set()
                if first == "the other":
                    await begun.wait()
                await Between()

    class Early(Task):
        async def run(self) -> None:
            await opened.wait()
            await Other()

    begun, opened = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(10):
        result = await build([Outer()] if first == "the transaction" else [Outer(), Early()])
    errors = [str(error.__cause__) for error in result.errors() if isinstance(error.__cause__, OSError)]
    assert errors
    with pytest.raises(OSError, match=DEADLOCK):
        raise OSError(errors[0])
    assert not await marker(sqlite_url, "outer").exists()


async def test_a_task_awaited_in_the_transaction_may_do_something_else(url: str) -> None:
    class Other(Task):
        async def run(self) -> bool:
            return await marker(url, "other").exists()

    class Outer(Task):
        def output(self) -> MarkerTarget:
            return marker(url, "outer")

        async def run(self) -> None:
            async with self.output().transaction():
                assert await Other() is False
                await asyncio.sleep(0.1)

    class Waits(Task):
        n: int

        def output(self) -> MarkerTarget:
            return marker(url, f"waits {self.n}")

        async def run(self) -> None:
            await self.output().touch()

    (await build([Outer(), *(Waits(n=n) for n in range(20))])).raise_for_failure()


async def test_who_waits_for_long_is_told_of(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turns, "LOOK", 0.02)
    monkeypatch.setattr(turns, "SILENCE", 0.1)
    async with marker(sqlite_url, "outer").transaction():
        other = asyncio.create_task(value(marker(sqlite_url, "other").touch()), context=contextvars.Context())
        while not caplog.messages:
            await asyncio.sleep(0.02)
    await other
    assert caplog.messages[0].endswith("/table_updates#outer")
    assert "#other waits for its turn to write; that is held by sqlite:///" in caplog.messages[0]


# A server -------------------------------------------------------------------------------------------------


async def test_blocks_that_want_another_connection_each_get_it(postgres_url: str) -> None:
    """As many as there are places hold one, and want one more of the same or of another kind."""
    read, write = turns.PLACES["read"], turns.PLACES["write"]
    await numbers(postgres_url, "setup").write([(1,)] * 3_000)
    ready = asyncio.Barrier(write)
    reading = asyncio.Barrier(read)

    async def load(n: int) -> None:
        async def rows() -> AsyncIterator[tuple[int]]:
            await ready.wait()
            await numbers(postgres_url, f"in{n}").write([(n,)])
            yield (n,)

        await numbers(postgres_url, f"out{n}", "others").write(rows())

    async def touch(n: int) -> None:
        async with marker(postgres_url, f"o{n}").transaction():
            await ready.wait()
            await asyncio.gather(*(marker(postgres_url, f"i{n} {k}").touch() for k in range(20)))

    async def reader(n: int) -> None:
        async with numbers(postgres_url, "setup").rows() as rows:
            await anext(rows)
            await reading.wait()
            async with numbers(postgres_url, "setup").rows() as more:
                assert len([row async for row in more]) >= 3_000

    async def copied(n: int) -> None:
        async with numbers(postgres_url, "setup").rows() as rows:
            await reading.wait()
            await ready.wait()
            await numbers(postgres_url, f"copied{n}", "copies").write(rows)

    async def looks(n: int) -> None:
        async with marker(postgres_url, f"looks{n}").transaction():
            await ready.wait()
            async with numbers(postgres_url, "setup").rows() as rows:
                await anext(rows)

    await all_of(*map(load, range(write)))
    await all_of(*map(touch, range(write)))
    await all_of(*map(reader, range(read)))
    ready = asyncio.Barrier(read + write)
    await all_of(*map(copied, range(read)), *map(looks, range(write)))


async def test_blocks_that_are_opened_at_once_for_one_body(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The children of ``gather()`` that open them have ended, so it is not they who wait for each other."""
    monkeypatch.setattr(turns, "LOOK", 60.0)
    await numbers(url, "setup").write([(1,)] * 10)

    async def merge(*opening: Any) -> list[Any]:
        async with contextlib.AsyncExitStack() as stack:
            return await asyncio.gather(*map(stack.enter_async_context, opening))

    class Compare(Task):
        n: int

        async def run(self) -> None:
            await merge(*(numbers(url, "setup").rows() for _ in range(2)))

    async with asyncio.timeout(20), no_leaks():
        assert len(await merge(*(numbers(url, "setup").rows() for _ in range(12)))) == 12
        (await build([Compare(n=n) for n in range(6)])).raise_for_failure()
        if url.startswith("postgres"):
            assert len(await merge(*(marker(url, f"m{n}").transaction() for n in range(8)))) == 8


async def test_bodies_that_await_others_in_their_transactions(postgres_url: str) -> None:
    ready = asyncio.Barrier(turns.PLACES["write"])

    class Other(Task):
        n: int

        def output(self) -> MarkerTarget:
            return marker(postgres_url, f"other {self.n}")

        async def run(self) -> None:
            await self.output().touch()

    class Outer(Task):
        n: int

        def output(self) -> MarkerTarget:
            return marker(postgres_url, f"outer {self.n}")

        async def run(self) -> None:
            async with self.output().transaction():
                await ready.wait()
                await gather(Other(n=self.n), Other(n=self.n + 100))

    async with asyncio.timeout(20):
        (await build([Outer(n=n) for n in range(turns.PLACES["write"])])).raise_for_failure()


async def test_many_loads_inside_of_a_block_keep_to_the_places(postgres_url: str) -> None:
    most = 0

    async def load(n: int) -> None:
        nonlocal most

        async def rows() -> AsyncIterator[tuple[int]]:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.01)
            yield (n,)
            at_once -= 1

        await numbers(postgres_url, f"u{n}").write(rows())

    at_once = 0
    await numbers(postgres_url, "setup").write([(1,)])
    async with numbers(postgres_url, "setup").rows() as rows:
        await anext(rows)
        await all_of(*map(load, range(60)), seconds=20)
    assert most <= turns.PLACES["write"] + 1


# Rows out and in ------------------------------------------------------------------------------------------

KINDS = [("n", sa.Integer), ("t", sa.Text), ("d", sa.Date), ("x", sa.Numeric(10, 2)), ("b", sa.LargeBinary)]


def kinds(url: str, table: str) -> TableTarget:
    return TableTarget(url, table, table, KINDS)


def made_up(count: int) -> Iterator[tuple[Any, ...]]:
    day = datetime.date(2026, 1, 2)
    for n in range(count):
        yield n, f"1{n % 10}.0", day if n % 2 else None, decimal.Decimal("1.10"), b"\0" * 50


async def seen(target: TableTarget) -> list[tuple[Any, ...]]:
    async with target.rows() as rows:
        return [row async for row in rows]


@pytest.mark.parametrize("how", ["rows outside", "rows inside", "half read", "to itself", "in other tasks"])
async def test_from_table_to_table(url: str, how: str) -> None:
    """Of one database, and more than SQLite keeps in memory."""
    count = 40_000
    source, copy = kinds(url, "source"), kinds(url, "copy")
    await source.write(made_up(count))

    async def through() -> AsyncIterator[tuple[Any, ...]]:
        async with source.rows() as rows:
            async for row in rows:
                yield row

    async def queued(rows: AsyncIterator[tuple[Any, ...]]) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue(10)

        async def taken() -> AsyncIterator[tuple[Any, ...]]:
            while (row := await queue.get()) is not None:
                yield row

        async with asyncio.TaskGroup() as group:
            group.create_task(value(copy.write(taken())))
            async for row in rows:
                await queue.put(row)
            await queue.put(None)

    async with no_leaks(), asyncio.timeout(20):
        if how == "rows inside":
            await copy.write(through())
        else:
            async with source.rows() as rows:
                if how == "rows outside":
                    await copy.write(rows)
                elif how == "half read":
                    first = [await anext(rows) for _ in range(1_500)]
                    await copy.write([*first, *[row async for row in rows]])
                elif how == "to itself":
                    copy = TableTarget(url, "source", "again", KINDS)
                    await copy.write(rows)
                else:
                    await queued(rows)
        await MarkerTarget(url, "and more").touch()
    assert await copy.exists()
    expected = list(made_up(count))
    assert sorted(await seen(copy), key=itemgetter(0)) == (
        sorted(expected * 2, key=itemgetter(0)) if how == "to itself" else expected
    )


async def test_from_table_to_table_in_its_other_mode(sqlite_url: str) -> None:
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    await test_from_table_to_table(sqlite_url, "rows outside")


async def test_a_task_awaited_while_rows_are_read(sqlite_url: str) -> None:
    class Each(Task):
        n: int

        def output(self) -> MarkerTarget:
            return marker(sqlite_url, f"each {self.n}")

        async def run(self) -> None:
            await self.output().touch()

    class All(Task):
        async def run(self) -> None:
            async with numbers(sqlite_url, "setup").rows() as rows:
                async for (n,) in rows:
                    await Each(n=n)

    await numbers(sqlite_url, "setup").write([(n,) for n in range(10)])
    async with asyncio.timeout(10):
        (await build(All())).raise_for_failure()


async def test_rows_that_cannot_be_read_in_a_transaction(sqlite_url: str) -> None:
    """What does not fit into SQLite's memory is in the file, half done: nobody can read it now."""
    await numbers(sqlite_url, "setup").write([(1,)])
    async with marker(sqlite_url, "big").transaction() as connection:
        assert await seen(numbers(sqlite_url, "setup")) == [(1,)]
        await connection.exec_driver_sql("CREATE TABLE big (data BLOB)")
        for _ in range(20):
            await connection.exec_driver_sql("INSERT INTO big VALUES (zeroblob(500000))")
        async with asyncio.timeout(5):
            with pytest.raises(OSError, match="numbers cannot be read: .*#big, in whose transaction .* read before"):
                await seen(numbers(sqlite_url, "setup"))
    assert await marker(sqlite_url, "big").exists()
