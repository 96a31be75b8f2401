"""Rows, markers and tables, in a file of SQLite and on a server of PostgreSQL."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import pickle
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine

from asyncflow import Task, build, value
from asyncflow.clients import close_idle
from asyncflow.contrib.sql import CopyToTable
from asyncflow.errors import PlanError, TargetStateUnknown
from asyncflow.target import Target
from asyncflow.targets._sql import rows as walking
from asyncflow.targets._sql import server
from asyncflow.targets.sql import MarkerTarget, RowError, RowTarget, TableTarget
from asyncflow.testing import no_blocking, no_leaks

N, NAME = ("n", sa.Integer), ("name", sa.Text)
PEOPLE = [(n, f"person {n}") for n in range(1, 1001)]


def people(url: str, update_id: str = "u1", **options: Any) -> TableTarget:
    return TableTarget(url, "people", update_id, [N, NAME], **options)


async def read(target: TableTarget) -> list[tuple[Any, ...]]:
    async with target.rows() as rows:
        return sorted([row async for row in rows])


# Rows in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tuples", "lists", "mappings", "generator", "async generator", "list", "nothing"])
async def test_rows_come_as_they_like(url: str, kind: str) -> None:
    def generator() -> Iterator[Any]:
        for row in PEOPLE:
            yield row if kind == "generator" else list(row) if kind == "lists" else {"name": row[1], "n": row[0]}

    async def asynchronous() -> AsyncIterator[Any]:
        for row in PEOPLE:
            if row[0] % 100 == 0:
                await asyncio.sleep(0)
            yield row

    expected = [] if kind == "nothing" else PEOPLE
    rows: Any = {
        "tuples": iter(PEOPLE),
        "list": PEOPLE,
        "async generator": asynchronous(),
        "nothing": [],
    }.get(kind) or (expected and generator())
    async with no_leaks():
        target = people(url)
        assert await target.exists() is False
        assert await target.write(rows) == len(expected)
        assert await target.exists() is True
        assert await read(target) == expected


async def test_values_of_all_kinds_come_back(url: str) -> None:
    columns: list[Any] = [
        ("i", sa.BigInteger),
        ("t", sa.Text),
        ("f", sa.Double),
        ("b", sa.Boolean),
        ("d", sa.Date),
        ("dt", sa.DateTime),
        ("bin", sa.LargeBinary),
        ("j", sa.JSON),
        ("u", sa.Uuid),
    ]
    row = (
        2**40,
        "ünïcödé 🦊 \\ \t \n ' \"",
        1.5,
        True,
        datetime.date(2026, 2, 28),
        datetime.datetime(2026, 2, 28, 1, 2, 3, 456),
        b"\0\xff",
        {"a": [1, None]},
        uuid.UUID(int=7),
    )
    nothing = (None,) * len(columns)
    target = TableTarget(url, "kinds", "u", columns)
    await target.write([row, nothing])
    async with target.rows() as rows:
        assert [found async for found in rows] == [row, nothing]
    # The same into a table that is there, whose types the database knows.
    known = columns if url.startswith("postgres") else columns[:-1]  # SQLite has no type for a UUID
    again = TableTarget(url, "kinds", "again", [name for name, _ in known])
    await again.write([row[: len(known)]])
    async with again.rows() as rows:
        assert [found async for found in rows] == [row[: len(known)], nothing[: len(known)], row[: len(known)]]


async def test_a_table_that_is_there_needs_no_columns(url: str) -> None:
    await people(url).write(PEOPLE[:2])
    assert await TableTarget(url, "people", "u2").write([(7, "seven")]) == 1
    assert await TableTarget(url, "people", "u3", ["name"]).write([("nobody",)]) == 1
    async with people(url).rows() as rows:
        assert sorted([row async for row in rows], key=str)[-1] == (None, "nobody")
    with pytest.raises(ValueError, match=r"there is no table nowhere: create it, or give its columns with their types"):
        await TableTarget(url, "nowhere", "u").write([])
    with pytest.raises(ValueError, match=r"people has no column 'age'; it has n, name"):
        await TableTarget(url, "people", "u4", ["n", "age"]).write([])


@pytest.mark.parametrize(
    ("bad", "message", "column"),
    [
        ((1,), r"people: row 501: it has 1 values for 2 columns \(n, name\)", None),
        ((1, "x", 2), r"people: row 501: it has 3 values for 2 columns", None),
        ({"n": 1}, r"people: row 501, column 'name': it has no 'name'", "name"),
        ({"n": 1, "name": "", "age": 3}, r"people: row 501, column 'age': it has 'age', which is no column", "age"),
        ("ab", r"people: row 501: a row is a tuple, a list or a mapping, not a str", None),
        (None, r"people: row 501: a row is a tuple, a list or a mapping, not None", None),
        ((2**70, "x"), r"people: row 501, column 'n': ", "n"),
        ((1, object()), r"people: row 501, column 'name': ", "name"),
        ((1, "x\ud800"), r"people: row 501, column 'name': |people: row 501: ", ...),
    ],
)
async def test_a_row_that_cannot_be_written_is_named(url: str, bad: Any, message: str, column: Any) -> None:
    def rows() -> Iterator[Any]:
        yield from PEOPLE[:500]
        yield bad
        yield from PEOPLE[500:]

    async with no_leaks():
        with pytest.raises(RowError, match=message) as failure:
            await people(url).write(rows())
        assert failure.value.row == 501
        assert column is ... or failure.value.column == column
        assert str(pickle.loads(pickle.dumps(failure.value))) == str(failure.value)
        assert await people(url).exists() is False
        assert await read(people(url)) == []
        assert await people(url).write(PEOPLE) == 1000


async def test_a_row_that_the_database_refuses_is_named(url: str) -> None:
    target = people(url)
    await target.write([(1, "one")])
    async with MarkerTarget(url, "unique").transaction() as connection:
        await connection.exec_driver_sql("CREATE UNIQUE INDEX once ON people (n)")
    with pytest.raises(RowError, match=r"(?i)people: row 300.*unique") as failure:
        await people(url, "u2").write([*[(n, "") for n in range(10, 309)], (1, "again"), (500, "")])
    assert failure.value.row == 300
    assert await read(target) == [(1, "one")]


@pytest.mark.parametrize(
    ("bad", "message"), [((1, "again"), r"(?i)people: row 5.*unique"), (("x", ""), r"people: row 5, column 'n'")]
)
async def test_a_row_that_came_slowly_is_named(postgres_url: str, bad: Any, message: str) -> None:
    """Rows that are waited for come in several bunches, and COPYs."""

    def rows() -> Iterator[Any]:
        for n in range(10, 14):
            yield n, ""
            time.sleep(2 * walking.MAKING)
        yield bad

    await people(postgres_url).write([(1, "one")])
    async with MarkerTarget(postgres_url, "unique").transaction() as connection:
        await connection.exec_driver_sql("CREATE UNIQUE INDEX once ON people (n)")
    with pytest.raises(RowError, match=message) as failure:
        await people(postgres_url, "u2").write(rows())
    assert failure.value.row == 5
    assert await read(people(postgres_url)) == [(1, "one")]


async def test_the_values_of_a_row_are_not_in_its_error(postgres_url: str) -> None:
    """They may be personal data, and errors go into logs; they can be had from its cause."""
    columns = [N, NAME, ("x", sa.JSON)]
    target = TableTarget(postgres_url, "people", "u", columns)
    async with MarkerTarget(postgres_url, "setup").transaction() as connection:
        await connection.exec_driver_sql(
            "CREATE TABLE people (n int CONSTRAINT small CHECK (n < 9), name text, x json)"
        )
    for row, message, cause in (
        ((99, "Ann", None), 'people: row 1: new row for relation "people" violates check constraint "small"', "Ann"),
        ((1, "Ann", {"Ann"}), "people: row 1, column 'x': a value of set does not fit: Object of type set is not", ""),
        ("Ann", "people: row 1: a row is a tuple, a list or a mapping, not a str", ""),
    ):
        with pytest.raises(RowError) as failure:
            await target.write([row])
        assert str(failure.value).startswith(message)
        assert "Ann" not in str(failure.value)
        assert cause in str(failure.value.__cause__)


async def test_what_the_rows_raise_comes_out_and_says_where(url: str) -> None:
    def rows() -> Iterator[Any]:
        yield from PEOPLE[:700]
        raise KeyError("no such field")

    async def asynchronous() -> AsyncIterator[Any]:
        for row in rows():
            yield row

    for given in (rows(), asynchronous()):
        async with no_leaks():
            with pytest.raises(KeyError, match="no such field") as failure:
                await people(url).write(given)
            assert failure.value.__notes__ == ["raised by the rows for people, after row 700"]
            assert await read(people(url)) == []
    with pytest.raises(TypeError, match="rows are an iterable, or an asynchronous one, of tuples or mappings"):
        await people(url).write("abc")


async def test_rows_are_walked_in_one_thread_and_do_not_hold_up_the_loop(url: str, tmp_path: Path) -> None:
    source = sqlite3.connect(tmp_path / "source.db")
    source.execute("CREATE TABLE s (n INTEGER, name TEXT)")
    source.executemany("INSERT INTO s VALUES (?, ?)", PEOPLE)
    source.commit()
    source.close()

    def rows() -> Iterator[Any]:
        connection = sqlite3.connect(tmp_path / "source.db")  # refuses to be used in another thread
        try:
            time.sleep(0.3)
            yield from connection.execute("SELECT n, name FROM s")
        finally:
            connection.close()

    with no_blocking(0.2):
        assert await people(url).write(rows()) == 1000
    with pytest.raises(RowError):
        await people(url, "u2").write(row if row[0] < 900 else () for row in rows())


@pytest.mark.parametrize("kind", ["list", "dict"])
async def test_a_row_may_be_used_for_the_next(url: str, kind: str) -> None:
    def rows() -> Iterator[Any]:
        row: Any = [0, ""] if kind == "list" else {"n": 0, "name": ""}
        for n, name in PEOPLE[:5]:
            row[0 if kind == "list" else "n"] = n
            row[1 if kind == "list" else "name"] = name
            yield row

    async def asynchronous() -> AsyncIterator[Any]:
        for row in rows():
            yield row

    await people(url).write(rows())
    await people(url, "u2").write(asynchronous())
    assert await read(people(url)) == sorted(2 * PEOPLE[:5])


async def test_rows_that_are_fast_and_then_slow_are_written_meanwhile(url: str) -> None:
    given = 0

    def rows() -> Iterator[Any]:
        nonlocal given
        for _ in range(5):
            yield from PEOPLE
        for given in range(1_000):
            time.sleep(0.005)
            yield given, "slow"

    async with asyncio.timeout(60):
        load = asyncio.create_task(value(people(url).write(rows())))
        while not given:
            await asyncio.sleep(0.01)
        load.cancel()
        await asyncio.wait([load])
    at_the_end = given
    await asyncio.sleep(0.3)
    assert given <= at_the_end + walking.STEP  # it would have been sixty


@pytest.mark.parametrize("wide", [100_000, 10_000_000])
async def test_wide_rows_are_few_at_a_time(wide: int) -> None:
    shape = walking.Shape("t", ["n", "name"], [None, None])
    text = "x" * wide
    most = max(2 * walking.BYTES, 3 * wide)

    def rows() -> Iterator[Any]:
        for n in range(300):
            yield n, text

    async def asynchronous() -> AsyncIterator[Any]:
        for row in rows():
            yield row

    given: Any
    for given in (rows(), asynchronous()):
        found = [bunch async for bunch in walking.bunches(given, shape)]
        assert sum(len(bunch.rows) for bunch in found) == 300
        assert max(len(bunch.rows) for bunch in found) * wide <= most


async def test_rows_that_become_wide_are_few_at_a_time() -> None:
    """A document is small, until it is written as text."""
    given = 0

    def as_text(document: list[int]) -> str:
        nonlocal given
        given += 1
        return 1_000_000 * str(document[0])

    shape = walking.Shape("t", ["n", "document"], [None, as_text])
    documents = [(n, [n % 10]) for n in range(300)]

    async def asynchronous() -> AsyncIterator[Any]:
        for row in documents:
            yield row

    rows: Any
    for rows in (documents, iter(documents), asynchronous()):
        found = [len(bunch.rows) async for bunch in walking.bunches(rows, shape)]
        assert sum(found) == 300
        assert max(found) == found[0] == walking.FIRST
        assert max(found[1:]) <= walking.BYTES // 1_000_000
    assert given == 3 * 300


@pytest.mark.parametrize("leaving", [SystemExit, KeyboardInterrupt])
async def test_rows_that_want_to_leave_fail_the_load(url: str, leaving: type[BaseException]) -> None:
    def rows() -> Iterator[Any]:
        yield from PEOPLE[:10]
        raise leaving

    class Load(Task):
        def output(self) -> Target:
            return people(url)

        async def run(self) -> None:
            await people(url).write(rows())

    class Other(Task):
        async def run(self) -> None:
            await asyncio.sleep(0.2)

    result = await build([Load(), Other()])
    assert result.counts == {"failed": 1, "succeeded": 1}
    assert await read(people(url)) == []


async def test_a_table_that_was_dropped_is_made_again(url: str) -> None:
    await people(url).write(PEOPLE)
    async with MarkerTarget(url, "drop").transaction() as connection:
        await connection.exec_driver_sql("DROP TABLE people")
    with pytest.raises(Exception, match=r"no such table|does not exist") as failure:
        await people(url, "u2").write(PEOPLE)
    assert not isinstance(failure.value, RowError)
    assert await people(url, "u2").write(PEOPLE) == 1000


async def test_a_table_of_markers_that_was_dropped_is_made_again_at_once(url: str) -> None:
    for marks in ("marks", "main.marks" if url.startswith("sqlite") else "public.marks"):
        await people(url, f"{marks} 1", marker_table=marks).write([(1, "a")])
        for number, drop in enumerate((["marks"], ["marks", "people"]), 2):
            async with MarkerTarget(url, f"{marks} drop {number}").transaction() as connection:
                for table in drop:
                    await connection.exec_driver_sql(f"DROP TABLE {table}")
            target = people(url, f"{marks} {number}", marker_table=marks)
            assert await target.write([(number, "a")]) == 1
            assert await target.exists() is True
        await MarkerTarget(url, f"{marks} 5", marker_table=marks).touch()
    assert await read(people(url)) == [(3, "a")]


async def test_the_type_of_an_enum_is_made_too(url: str) -> None:
    target = TableTarget(url, "shirts", "u1", [N, ("color", sa.Enum("red", "blue", name="color"))])
    assert await target.write([(1, "red"), (2, None), (3, "blue")]) == 3
    assert await read(target) == [(1, "red"), (2, None), (3, "blue")]


async def test_what_a_trigger_does_is_not_counted(url: str) -> None:
    target = people(url)
    await target.write([])
    async with MarkerTarget(url, "trigger").transaction() as connection:
        await connection.exec_driver_sql("CREATE TABLE audit (n INTEGER)")
        if url.startswith("sqlite"):
            await connection.exec_driver_sql(
                "CREATE TRIGGER a BEFORE INSERT ON people BEGIN INSERT INTO audit VALUES (new.n); "
                "SELECT RAISE(ABORT, 'eight') WHERE new.n = 8; END"
            )
        else:
            await connection.exec_driver_sql(
                "CREATE FUNCTION a() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN\n INSERT INTO audit VALUES (new.n);\n"
                " IF new.n = 8 THEN RAISE EXCEPTION 'eight'; END IF; RETURN new; END $$"
            )
            await connection.exec_driver_sql(
                "CREATE TRIGGER a BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION a()"
            )
    with pytest.raises(RowError, match="people: row 8: .*eight") as failure:
        await people(url, "u2").write(PEOPLE)
    assert failure.value.row == 8


async def test_what_no_row_is_to_blame_for_is_no_row_error(postgres_url: str) -> None:
    await people(postgres_url).write([])
    async with MarkerTarget(postgres_url, "slow").transaction() as connection:
        await connection.exec_driver_sql(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.01); PERFORM pg_cancel_backend(pg_backend_pid()); RETURN new; END $$"
        )
        await connection.exec_driver_sql(
            "CREATE TRIGGER slow BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    with pytest.raises(asyncpg.QueryCanceledError):
        await people(postgres_url, "u2").write(PEOPLE)
    async with MarkerTarget(postgres_url, "odd").transaction() as connection:
        await connection.exec_driver_sql("CREATE TABLE found (words tsvector)")
    with pytest.raises(TypeError, match="found cannot be written by COPY: no binary format encoder"):
        await TableTarget(postgres_url, "found", "u1").write([("a",)])


async def test_the_loop_comes_round_in_the_middle_of_a_copy(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are there, and the server takes them: nothing of it would have to wait."""
    monkeypatch.setattr(server, "TURN", 0)
    monkeypatch.setattr(server, "STEP", 2048)
    monkeypatch.setattr(server.ServerConnection, "breathing", property(lambda _: False, lambda *_: None))
    turns = 0
    breaths: list[int] = []
    breathe = server.ServerConnection.breathe

    def noted(connection: server.ServerConnection) -> None:
        breaths.append(turns)
        breathe(connection)

    monkeypatch.setattr(server.ServerConnection, "breathe", noted)

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    wide = "x" * 400  # so many rows as lie between two breaths are more than the driver keeps
    assert await people(postgres_url).write([(n, wide) for n in range(50_000)]) == 50_000
    counting.cancel()
    assert len(breaths) > 20
    assert len(set(breaths)) >= len(breaths) - 3  # at the end of a bunch fewer rows lie between two


async def test_rows_are_never_all_in_memory(url: str) -> None:
    alive = most = 0

    class Counted(str):
        def __init__(self, _: str) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    await people(url).write((n, Counted(n)) for n in range(100_000))
    assert most <= 3 * walking.MOST


# Markers -------------------------------------------------------------------------------------------------


async def test_a_marker_and_the_sql_of_a_body_are_one_transaction(url: str) -> None:
    marker = MarkerTarget(url, "nightly")
    async with marker.transaction() as connection:
        await connection.exec_driver_sql("CREATE TABLE done (n INTEGER)")
        await connection.exec_driver_sql("INSERT INTO done VALUES (1)")
        assert await marker.exists() is False
    assert await marker.exists() is True
    with pytest.raises(ZeroDivisionError):
        async with MarkerTarget(url, "other").transaction() as connection:
            await connection.exec_driver_sql("INSERT INTO done VALUES (2)")
            raise ZeroDivisionError
    assert await MarkerTarget(url, "other").exists() is False
    assert await RowTarget(url, "done", {"n": 1}).exists() is True
    assert await RowTarget(url, "done", {"n": 2}).exists() is False


async def test_a_marker_is_touched_more_than_once(url: str) -> None:
    marker = MarkerTarget(url, "m")
    await marker.touch()
    await marker.touch()
    assert await marker.exists() is True
    with pytest.raises(FileExistsError, match="published before, and is not written twice"):
        async with marker.transaction():
            pass


async def test_a_transaction_is_left_to_its_block(url: str) -> None:
    with pytest.raises(RuntimeError, match="was ended inside its block.*leave commit"):
        async with MarkerTarget(url, "m").transaction() as connection:
            await connection.commit()
    assert await MarkerTarget(url, "m").exists() is False


async def test_two_tables_may_have_one_update_id(url: str) -> None:
    one, two = (TableTarget(url, table, "same", [N]) for table in ("one", "two"))
    assert await one.write([(1,)]) == 1
    assert (await one.exists(), await two.exists()) == (True, False)
    assert await two.write([(2,)]) == 1
    assert await two.exists() is True
    assert await MarkerTarget(url, "same").exists() is False


async def test_a_table_of_markers_that_luigi_has_made(url: str) -> None:
    # As its PostgresTarget writes it.
    async with MarkerTarget(url, "setup", marker_table="ours").transaction() as connection:
        await connection.exec_driver_sql(
            "CREATE TABLE table_updates (update_id TEXT PRIMARY KEY, target_table TEXT, inserted TIMESTAMP)"
        )
        await connection.exec_driver_sql("INSERT INTO table_updates (update_id, target_table) VALUES ('old', 'people')")
    assert await people(url, "old").exists() is True
    assert await people(url, "new").write(PEOPLE) == 1000
    assert await people(url, "new").exists() is True
    with pytest.raises(
        ValueError, match=r"takes an update_id once, and 'new' is that of people: give this one another"
    ):
        await TableTarget(url, "others", "new", [N]).write([(1,)])
    assert await RowTarget(url, "others", {"n": 1}).exists() is False


async def test_a_hundred_make_the_tables_at_once(url: str) -> None:
    await asyncio.gather(*(people(url, f"u{n}").write([(n, "")]) for n in range(100)))
    assert [n for n, _ in await read(people(url))] == list(range(100))


def test_processes_make_the_tables_at_once(url: str) -> None:
    program = f"""
import asyncio, sys, sqlalchemy as sa
from asyncflow.targets.sql import TableTarget
async def main():
    print("ready", flush=True); sys.stdin.readline()
    for n in range(5):
        await TableTarget({url!r}, f"t{{n}}", sys.argv[1], [("n", sa.Integer)]).write([(1,)] * 50)
asyncio.run(main())
"""
    crowd = [
        subprocess.Popen([sys.executable, "-c", program, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for n in range(4)
    ]
    for one in crowd:
        assert one.stdout is not None
        one.stdout.readline()
    for one in crowd:
        assert one.stdin is not None
        one.stdin.write(b"go\n")
        one.stdin.flush()
    for one in crowd:
        one.communicate()
        assert one.returncode == 0

    async def main() -> None:
        for n in range(5):
            assert len(await read(TableTarget(url, f"t{n}", "0"))) == 200

    asyncio.run(main())


async def test_fifty_loads_into_one_database_at_once(url: str) -> None:
    async with no_leaks(), asyncio.TaskGroup() as group:
        for n in range(50):
            group.create_task(value(people(url, f"u{n}").write([(n * 100 + row, "") for row in range(100)])))
    assert [n for n, _ in await read(people(url))] == list(range(5000))


@pytest.mark.parametrize("how", ["rows", "transaction"])
async def test_of_several_at_once_one_publishes(url: str, how: str) -> None:
    """E8, T14: who looked before and comes too late is refused by the database."""
    await people(url, "setup").write([])
    ready = asyncio.Barrier(5)

    async def rows(n: int) -> AsyncIterator[Any]:
        if url.startswith("postgres"):
            await ready.wait()  # five transactions are open
        yield n, "x"

    async def attempt(n: int) -> int:
        try:
            if how == "rows":
                return await people(url).write(rows(n))
            async with people(url).transaction() as connection:
                if url.startswith("postgres"):
                    await ready.wait()
                await connection.exec_driver_sql(f"INSERT INTO people VALUES ({n}, 'x')")
            return 1
        except FileExistsError:
            return 0

    assert sum(await asyncio.gather(*map(attempt, range(5)))) == 1
    assert len(await read(people(url))) == 1


async def test_losing_to_another_is_adopted_by_a_task(url: str) -> None:
    class Load(Task):
        n: int

        def output(self) -> Target:
            return people(url, "shared")

        async def run(self) -> None:
            await people(url, "shared").write([(99, "somebody else")]) if self.n < 0 else None

            async def rows() -> AsyncIterator[Any]:
                yield self.n, "mine"
                # In another process, as far as this one knows.
                await asyncio.create_task(value(people(url, "shared").write([(99, "else")])), context=_nobody())

            if url.startswith("postgres"):
                await people(url, "shared").write(rows())

    if url.startswith("sqlite"):  # one writer at a time: the other one comes first, or after
        await people(url, "shared").write([(99, "else")])
    result = await build(Load(n=1))
    result.raise_for_failure()
    assert result.counts == {"adopted" if url.startswith("postgres") else "complete": 1}
    assert await read(people(url)) == [(99, "else")]


@pytest.mark.parametrize("when", ["before", "within"])
async def test_what_fails_since_another_was_quicker_is_adopted(url: str, when: str) -> None:
    """On a key of the rows, or a table that both make: they find in each other's way what the first has done."""
    if when == "within" and url.startswith("sqlite"):
        return  # one writer at a time

    def elsewhere(work: Any) -> Any:  # in another process, as far as this one knows
        return asyncio.create_task(work, context=_nobody())

    class Load(Task):
        def output(self) -> TableTarget:
            return people(url, "shared")

        async def run(self) -> None:
            async def rows() -> AsyncIterator[Any]:
                if when == "within":
                    await elsewhere(value(self.output().write([(1, "else")])))
                yield 1, "mine"

            if when == "before":
                await elsewhere(value(self.output().write([(1, "else")])))
            assert await self.output().write(rows()) == 0

    class Schema(Task):
        def output(self) -> MarkerTarget:
            return MarkerTarget(url, "schema")

        async def make(self) -> None:
            async with self.output().transaction() as connection:
                await connection.exec_driver_sql("CREATE TABLE once (n INTEGER)")

        async def run(self) -> None:
            if when == "before":
                await elsewhere(self.make())
            async with self.output().transaction() as connection:
                if when == "within":
                    await elsewhere(self.make())
                await connection.exec_driver_sql("CREATE TABLE once (n INTEGER)")

    async with MarkerTarget(url, "setup").transaction() as connection:
        await connection.exec_driver_sql("CREATE TABLE people (n INTEGER PRIMARY KEY, name TEXT)")
    for task in (Load(), Schema()):
        result = await build(task)
        result.raise_for_failure()
        assert result.counts == {"adopted": 1}
    assert await read(people(url)) == [(1, "else")]


async def test_what_fails_in_a_snapshot_of_before_is_adopted(postgres_url: str, dsn: str) -> None:
    class Load(Task):
        def output(self) -> TableTarget:
            return people(postgres_url, "shared")

        async def run(self) -> None:
            async def rows() -> AsyncIterator[Any]:
                await asyncio.create_task(value(self.output().write([(1, "else")])), context=_nobody())
                yield 1, "mine"

            await self.output().write(rows())

    await people(postgres_url, "setup").write([])
    await close_idle()
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("ALTER DATABASE test SET default_transaction_isolation = 'repeatable read'")
        result = await build(Load())
    finally:
        await connection.execute("ALTER DATABASE test RESET default_transaction_isolation")
        await connection.close()
    assert result.counts == {"adopted": 1}, list(result.errors())
    assert await read(people(postgres_url)) == [(1, "else")]


async def test_what_fails_by_itself_is_raised(url: str) -> None:
    """Also where the marker was there before; and outside of a task it is said why nothing was written."""
    mark = MarkerTarget(url, "mark")

    class Twice(Task):
        def output(self) -> MarkerTarget:
            return mark

        async def run(self) -> None:
            async with mark.transaction():
                raise ZeroDivisionError

    assert isinstance(next(iter((await build(Twice())).errors())).__cause__, ZeroDivisionError)
    assert await mark.exists() is False
    await mark.touch()
    assert isinstance(next(iter((await build(Twice(), force=True)).errors())).__cause__, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        async with mark.transaction():
            raise ZeroDivisionError
    if url.startswith("postgres"):
        other = MarkerTarget(url, "other")
        with pytest.raises(FileExistsError, match="has been published before") as failure:
            async with other.transaction():
                await other.touch()
                raise ZeroDivisionError
        assert isinstance(failure.value.__cause__, ZeroDivisionError)


async def test_what_is_forced_is_not_loaded_twice(url: str) -> None:
    class Load(Task):
        def output(self) -> Target:
            return people(url, "it's")

        async def run(self) -> None:
            await people(url, "it's").write([(1, "one")])

    assert (await build(Load())).counts == {"succeeded": 1}
    result = await build(Load(), force=True)
    (error,) = result.errors()
    assert 'remove what it wrote, and its marker (update_id "it\'s" in table_updates), first' in str(error.__cause__)
    assert await read(people(url)) == [(1, "one")]


def _nobody() -> Any:
    import contextvars

    return contextvars.Context()


async def test_a_task_that_loads_is_seen_and_not_asked_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = MarkerTarget.exists_many.__func__  # type: ignore[attr-defined]

    async def counted(cls: Any, targets: Any) -> Any:
        asked.append(targets)
        return await real(cls, targets)

    monkeypatch.setattr(MarkerTarget, "exists_many", classmethod(counted))

    class Load(CopyToTable):
        table = "people"
        columns = [N, NAME]

        def rows(self) -> Any:
            return PEOPLE

    Load.url = url
    assert (await build(Load())).counts == {"succeeded": 1}
    assert len(asked) == 1
    assert (await build(Load())).counts == {"complete": 1}


@pytest.mark.parametrize("kind", ["generator", "async generator", "plain", "plain for async", "coroutine"])
async def test_copy_to_table(url: str, kind: str) -> None:
    class Load(CopyToTable):
        day: int = 7
        table = "people"
        columns = [N, NAME]

    def generator(self: Any) -> Any:
        yield from ((self.day, row[1]) for row in PEOPLE)

    async def asynchronous(self: Any) -> Any:
        for row in PEOPLE:
            yield self.day, row[1]

    def plain(self: Any) -> Any:
        return [(self.day, row[1]) for row in PEOPLE]

    async def coroutine(self: Any) -> Any:
        return plain(self)

    def handed_on(self: Any) -> Any:
        return asynchronous(self)

    Load.url = url
    Load.rows = {  # type: ignore[method-assign]
        "generator": generator,
        "async generator": asynchronous,
        "plain": plain,
        "plain for async": handed_on,
        "coroutine": coroutine,
    }[kind]
    task = Load()
    (await build(task)).raise_for_failure()
    assert task.output().update_id == task.task_id
    assert await read(task.output()) == sorted((7, name) for _, name in PEOPLE)


@pytest.mark.parametrize("how", ["async", "sync", "returned", "returned by async", "an iterator", "by hand"])
async def test_a_body_writes_or_returns_its_rows(url: str, how: str) -> None:
    class Load(Task):
        def output(self) -> TableTarget:
            return people(url, self.task_id)

    class Async(Load):
        async def run(self) -> None:
            assert await self.output().write(PEOPLE) == 1000

    class Sync(Load):
        def run(self) -> None:
            assert self.output().write(iter(PEOPLE)).result() == 1000

    class Returned(Load):
        def run(self) -> list[tuple[int, str]]:
            return PEOPLE

    class ReturnedByAsync(Load):
        async def run(self) -> AsyncIterator[tuple[int, str]]:  # type: ignore[override, misc]
            async def rows() -> AsyncIterator[tuple[int, str]]:
                for row in PEOPLE:
                    yield row

            return rows()

    class ReturnedByAnIterator(Load):
        def run(self) -> Iterator[dict[str, Any]]:
            return ({"n": n, "name": name} for n, name in PEOPLE)

    class ByHand(Load):
        def run(self) -> None:
            marks = MarkerTarget(url, "mark")
            marks.touch().result()
            assert marks.exists()
            with pytest.raises(TypeError, match=r"rows are an iterable"):
                self.output().write("abc").result()
            self.output().write(row for row in PEOPLE if row[0] > 0).result()

    kinds: dict[str, type[Load]] = {
        "async": Async,
        "sync": Sync,
        "returned": Returned,
        "returned by async": ReturnedByAsync,
        "an iterator": ReturnedByAnIterator,
        "by hand": ByHand,
    }
    task = kinds[how]()
    async with no_leaks():
        result = await build(task)
        result.raise_for_failure()
        assert result.counts == {"succeeded": 1}
        assert await read(task.output()) == PEOPLE
    assert (await build(task)).counts == {"complete": 1}


def test_a_script_writes_rows(url: str) -> None:
    assert people(url).write(PEOPLE).result() == 1000
    assert people(url).exists()
    MarkerTarget(url, "mark").touch().result()
    assert MarkerTarget(url, "mark").exists()


async def test_what_is_not_awaited_says_so(sqlite_url: str) -> None:
    with pytest.warns(RuntimeWarning, match=r"write\(rows\)> was never awaited: nothing has been done"):
        people(sqlite_url).write(PEOPLE)
    with pytest.raises(TypeError, match=r"on the event loop write `await target.touch\(\)`"):
        MarkerTarget(sqlite_url, "mark").touch().result()


async def test_where_the_rows_go_may_be_properties(url: str) -> None:
    class Load(CopyToTable):
        where: str

        columns = [N, NAME]

        @property
        def url(self) -> sa.URL:
            return sa.make_url(url)

        @property
        def table(self) -> str:
            return self.where

        def rows(self) -> Any:
            return PEOPLE

    (await build(Load(where="people"))).raise_for_failure()
    assert await read(people(url)) == PEOPLE


async def test_a_load_that_fails_names_the_row_and_the_task(url: str) -> None:
    class Load(CopyToTable):
        table = "people"
        columns = [N, NAME]

        def rows(self) -> Any:
            yield 1, "one"
            yield 2

    Load.url = url
    [error] = (await build(Load())).errors()
    assert "row 2" in str(error.__cause__ or error)

    class Incomplete(CopyToTable):
        table = "people"

    with pytest.raises(PlanError, match=r"Incomplete needs url = '...', where its rows are to go"):
        await build(Incomplete())


async def test_rows_may_ask_for_tasks(url: str) -> None:
    class Number(Task):
        n: int

        async def run(self) -> int:
            return 10 * self.n

    class Load(CopyToTable):
        table = "people"
        columns = [N, NAME]

        async def rows(self) -> Any:  # type: ignore[override]
            for n in (1, 2):
                yield await Number(n=n), "x"

    Load.url = url
    (await build(Load())).raise_for_failure()
    assert await read(people(url)) == [(10, "x"), (20, "x")]


# Questions -----------------------------------------------------------------------------------------------


async def test_two_thousand_questions_are_one_query(url: str) -> None:
    await asyncio.gather(*(MarkerTarget(url, f"m{n}").touch() for n in range(0, 50, 2)))
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    class Wanted(Task):
        n: int
        run = None  # type: ignore[assignment]

        def output(self) -> Target:
            return MarkerTarget(url, f"m{self.n}")

    event.listen(Engine, "before_cursor_execute", note)
    try:
        result = await build([Wanted(n=n) for n in range(2000)])
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert {task.n for task in result.skipped} == set(range(0, 50, 2))  # type: ignore[attr-defined]
    assert len([statement for statement in statements if "table_updates" in statement]) == 1
    answers = await MarkerTarget.exists_many([MarkerTarget(url, f"m{n}") for n in range(4)])
    assert answers == [True, False, True, False]


async def test_targets_that_differ_in_their_markers_only_are_two(url: str) -> None:
    one, two = (people(url, marker_table=marks) for marks in ("marks", "others"))
    marks, table = MarkerTarget(url, "u1", marker_table="crowd"), MarkerTarget(url, "u1", table="crowd")
    usual, odd = MarkerTarget(url, "u1"), MarkerTarget(url, "u1", table="table_updates")
    targets: list[MarkerTarget] = [one, two, marks, table, usual, odd]
    await people(url, marker_table="marks").write([])
    await table.touch()
    for given in (targets, targets[::-1]):
        alone = [await target.exists() for target in given]
        assert await MarkerTarget.exists_many(given) == alone
        assert {target for target, there in zip(given, alone, strict=True) if there} == {one, table}
    assert len({target.key for target in targets}) == len(set(targets)) == 6
    assert [target.key.rsplit("/", 1)[1] for target in (table, usual)] == ["crowd#u1", "table_updates#u1"]


async def test_rows_that_exist(url: str) -> None:
    when = datetime.datetime(2026, 1, 2, 3, 4, 5)
    target = TableTarget(url, "r", "u", [("n", sa.Integer), ("t", sa.Text), ("at", sa.DateTime)])
    await target.write([(1, "one", when), (2, None, None)])
    for where, there in (
        ({"n": 1}, True),
        ({"n": 3}, False),
        ({"n": 1, "t": "one", "at": when}, True),
        ({"n": 1, "t": "two"}, False),
        ({"n": 2, "t": None}, True),
        ({"n": 1, "t": None}, False),
        ({"t": "x'; DROP TABLE r; --"}, False),
    ):
        assert await RowTarget(url, "r", where).exists() is there, where
    assert await RowTarget(url, "nowhere", {"n": 1}).exists() is False
    for where in ({"nobody": 1}, {"nobody": "nobody"}):
        with pytest.raises(TargetStateUnknown, match="nobody"):
            await RowTarget(url, "r", where).exists()


async def test_a_missing_table_or_file_is_absent(url: str, tmp_path: Path) -> None:
    assert await MarkerTarget(url, "m").exists() is False
    assert await MarkerTarget(url, "m", marker_table="nowhere.at_all").exists() is False or "sqlite" in url
    missing = f"sqlite:///{tmp_path}/no/such/folder/data.db"
    assert await MarkerTarget(missing, "m").exists() is False
    assert await RowTarget(missing, "t", {"n": 1}).exists() is False
    assert not (tmp_path / "no").exists(), "a question has made something"


async def test_a_file_that_is_removed_is_absent_and_made_anew(sqlite_url: str, tmp_path: Path) -> None:
    await people(sqlite_url).write(PEOPLE)
    (tmp_path / "data.db").unlink()
    assert await people(sqlite_url).exists() is False
    assert await people(sqlite_url).write(PEOPLE[:3]) == 3
    await close_idle()
    connection = sqlite3.connect(tmp_path / "data.db")
    assert connection.execute("SELECT count(*) FROM people").fetchone() == (3,)
    connection.close()


# Values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "a database in memory"),
        ("sqlite:///:memory:", "a database in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "a database in memory"),
        ("mysql://root:hunter2@host/db", "'mysql' is no database we can talk to"),
        ("postgresql://host", "names no database"),
        ("hunter2", "this is no URL"),
        (7, "not by a int"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as failure:
        MarkerTarget(url, "x")
    assert "hunter2" not in str(failure.value)


@pytest.mark.parametrize(
    "name", ['x"; drop table t;--', "a b", "", "1a", "a.b.c", "x" * 64, "é", "a-b", "a;b", "a\n", 7]
)
def test_a_name_that_cannot_be_is_refused(name: Any) -> None:
    url = "sqlite:///x.db"
    for make in (
        lambda: TableTarget(url, name, "u"),
        lambda: TableTarget(url, f"{name}.t" if isinstance(name, str) else name, "u"),
        lambda: TableTarget(url, "t", "u", [name]),
        lambda: TableTarget(url, "t", "u", [(name, sa.Text)]),
        lambda: TableTarget(url, "t", "u", marker_table=name),
        lambda: MarkerTarget(url, "u", marker_table=name),
        lambda: RowTarget(url, name, {"n": 1}),
        lambda: RowTarget(url, "t", {name: 1}),
    ):
        with pytest.raises((ValueError, TypeError)):
            make()


@pytest.mark.parametrize("update_id", ["", "a\0b", "x" * 2001, "\ud800", 7, None])
def test_an_update_id_that_cannot_be_is_refused(update_id: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="update_id"):
        MarkerTarget("sqlite:///x.db", update_id)


def test_columns_that_cannot_be_are_refused() -> None:
    for columns in ([], ["a", ("b", sa.Text)], ["a", "a"], [("a", "text")], [("a", int)]):
        with pytest.raises((ValueError, TypeError)):
            TableTarget("sqlite:///x.db", "t", "u", columns)  # type: ignore[arg-type]
    for where in ({}, {"a": []}):
        with pytest.raises((ValueError, TypeError)):
            RowTarget("sqlite:///x.db", "t", where)  # type: ignore[arg-type]


async def test_nothing_can_be_injected(url: str) -> None:
    """S13: where a text may be anything it is bound, where it is a name it is checked and quoted."""
    await TableTarget(url, "t", "kept", [N]).write([(1,)])
    for text in ('x"; drop table t;--', "x'; drop table t;--", "'); drop table t;--", "%s", "$1", ":a", "{}", "?"):
        await TableTarget(url, "t", text, [N]).write([(2,)])
        assert await TableTarget(url, "t", text).exists() is True
        assert await MarkerTarget(url, text).exists() is False
        assert await RowTarget(url, "table_updates", {"update_id": text}).exists() is True
    for name in ("select", "Table", "user", "a$b", "_", "order"):  # words that mean something, case that matters
        target = TableTarget(url, name, "u", [("group", sa.Integer), ("Limit", sa.Text)])
        await target.write([(1, "x")])
        assert await read(target) == [(1, "x")]
    assert len(await read(TableTarget(url, "t", "u"))) == 9


async def test_a_schema(postgres_url: str) -> None:
    async with MarkerTarget(postgres_url, "setup").transaction() as connection:
        await connection.exec_driver_sql('CREATE SCHEMA "Stage"')
    target = TableTarget(postgres_url, "Stage.people", "u", [N, NAME], marker_table="Stage.marks")
    assert await target.exists() is False
    await target.write(PEOPLE)
    assert await target.exists() is True
    assert await read(target) == PEOPLE
    assert await RowTarget(postgres_url, "Stage.people", {"n": 7}).exists() is True
    assert target.key.endswith("/Stage.people@Stage.marks#u")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_keys_and_texts_hide_who_asks(scheme: str) -> None:
    """S9, S20."""
    url = f"{scheme}://me:hunter2@DB.example:6432/shop?sslmode=require&password=hunter3"
    for target in (
        TableTarget(url, "sales.orders", "o1"),
        MarkerTarget(url, "o1"),
        RowTarget(url, "orders", {"id": 7}),
    ):
        for text in (repr(target), str(target), target.key, f"{target}", f"{[target]!r}"):
            assert "hunter" not in text
            assert "me:" not in text
    assert TableTarget(url, "sales.orders", "o1").key == "postgresql://db.example:6432/shop/sales.orders#o1"
    assert TableTarget(f"{scheme}://db/shop", "t", "u").key == "postgresql://db:5432/shop/t#u"


def test_two_spellings_of_a_file_are_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    keys = {
        MarkerTarget(f"sqlite:///{path}", "u").key
        for path in (f"{tmp_path}/real/x.db", "link/x.db", "real/../link/x.db")
    }
    assert keys == {f"sqlite:///{tmp_path}/real/x.db/table_updates#u"}


@pytest.mark.parametrize(
    "trouble", ["nobody listens", "no such database", "not readable", "not visible", "no such host"]
)
async def test_unknown_is_not_absent(trouble: str, postgres_url: str, dsn: str) -> None:
    url = postgres_url
    if trouble == "nobody listens":
        url = "postgresql://me:hunter2@127.0.0.1:1/db"
    elif trouble == "no such database":
        url += "_none"
    elif trouble == "no such host":
        url = "postgresql://me:hunter2@no-such-host.invalid/db"
    else:
        await MarkerTarget(url, "m").touch()
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE ROLE reader LOGIN; GRANT CONNECT ON DATABASE test TO reader")
        if trouble == "not readable":
            await connection.execute("GRANT USAGE ON SCHEMA public TO reader")
        await connection.close()
        url = url.replace("test:secret@", "reader:hunter2@")
    try:
        for target in (MarkerTarget(url, "m"), RowTarget(url, "table_updates", {"update_id": "m"})):
            with pytest.raises(TargetStateUnknown, match=f"cannot tell whether {type(target).__name__}") as failure:
                await target.exists()
            assert "hunter2" not in str(failure.value)
        answers = await MarkerTarget.exists_many([MarkerTarget(url, "m"), MarkerTarget(postgres_url, "m")])
        assert isinstance(answers[0], TargetStateUnknown)
        assert isinstance(answers[1], bool)
    finally:
        if trouble.startswith("not "):
            connection = await asyncpg.connect(dsn)
            await connection.execute("DROP OWNED BY reader; DROP ROLE reader")
            await connection.close()


async def test_a_file_that_is_no_database_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("this is no database, and long enough to look like one\n" * 100)
    with pytest.raises(TargetStateUnknown, match="not a database"):
        await MarkerTarget(f"sqlite:///{tmp_path}/x.db", "m").exists()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(TargetStateUnknown):
        await MarkerTarget(f"sqlite:///{tmp_path}/loop/x.db", "m").exists()


def test_decimals_and_types_pickle() -> None:
    target = TableTarget("postgresql://h/d", "t", "u", [("d", sa.Numeric(10, 2))])
    again = pickle.loads(pickle.dumps(target))
    assert again == target
    assert again.columns == ("d",)
    assert decimal.Decimal(1) == 1


def test_importing_the_package_loads_no_sqlalchemy() -> None:
    check = "import sys, asyncflow; assert not {'sqlalchemy', 'aiosqlite', 'asyncpg'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_what_is_missing_is_named_with_the_line_that_installs_it() -> None:
    for module, line in (("sqlalchemy", "[sql]"), ("aiosqlite", "[sql]")):
        program = f"import sys; sys.modules[{module!r}] = None; import asyncflow.targets.sql"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert f"pip install 'asyncflow-engine{line}'" in done.stderr.splitlines()[-1]
