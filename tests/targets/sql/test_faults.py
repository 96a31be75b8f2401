"""Connections that break, servers that fall, bodies that are cancelled: data if and only if marker; nothing is left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from asyncflow import Task, build, value
from asyncflow.clients import close_idle
from asyncflow.errors import TargetStateUnknown
from asyncflow.target import Target
from asyncflow.targets._sql import engine, marker, rows, server, turns
from asyncflow.targets._sql import server as connections
from asyncflow.targets.sql import MarkerTarget, RowTarget, TableTarget
from asyncflow.testing import STYLES, Outcome, Style, no_leaks, sweep
from asyncflow.testing.leaks import open_files
from examples.servers.postgres import Postgres

N, NAME = ("n", sa.Integer), ("name", sa.Text)
POOL = sum(turns.PLACES.values())
SEED = int(os.environ.get("ASYNCFLOW_SEED", "0")) or random.randrange(1, 2**32)

FOREVER = {
    "postgres": "SELECT pg_sleep(60)",
    "sqlite": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000000000) SELECT count(*) FROM c",
}


def people(url: str, update_id: str = "u1", table: str = "people") -> TableTarget:
    return TableTarget(url, table, update_id, [N, NAME])


async def ids(target: TableTarget) -> dict[str, int]:
    """How many rows each update has brought; they have its id as their name."""
    counts: dict[str, int] = {}
    async with target.rows() as rows:
        async for _, name in rows:
            counts[name] = counts.get(name, 0) + 1
    return counts


@asynccontextmanager
async def watching(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


OURS = "datname = current_database() AND application_name = 'asyncflow'"


async def busy(watch: Any) -> int:
    """Our connections that the server is at work for, or that are in a transaction."""
    return await watch.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND state <> 'idle'")  # type: ignore[no-any-return]


async def open_now(watch: Any) -> int:
    return await watch.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {OURS}")  # type: ignore[no-any-return]


async def until(condition: Callable[[], Any], seconds: float = 3) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it has not come about"
        await asyncio.sleep(0.01)


# Connections that break ----------------------------------------------------------------------------------


async def _terminated(url: str, dsn: str, points: int) -> None:
    """T32: the server ends our connections at random points of a load."""
    dice = random.Random(SEED)
    print("seed", SEED)
    count = 3_000
    await people(url, "setup").write([])
    outcomes: dict[str, int] = {}
    async with watching(dsn) as watch:
        for point in range(points):
            target = people(url, f"u{point}")
            rows = ((n, f"u{point}") for n in range(count))
            load = asyncio.create_task(value(target.write(rows)))
            await asyncio.sleep(dice.uniform(0, 0.04))
            await watch.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
            try:
                outcome = f"written {await load}"
            except (DBAPIError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                outcome = type(error).__name__
            there = await target.exists()
            rows_there = await watch.fetchval("SELECT count(*) FROM people WHERE name = $1", f"u{point}")
            assert rows_there == (count if there else 0), (point, outcome)
            assert there == outcome.startswith("written"), (point, outcome)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            assert await open_now(watch) <= POOL
        print(outcomes)
        assert len(outcomes) > 1, f"all points were alike: {outcomes}"
        assert await busy(watch) == 0


async def test_data_if_and_only_if_marker_when_connections_are_terminated(postgres_url: str, dsn: str) -> None:
    await _terminated(postgres_url, dsn, 40)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_data_if_and_only_if_marker_when_connections_are_terminated_often(postgres_url: str, dsn: str) -> None:
    await _terminated(postgres_url, dsn, int(os.environ.get("SEEDS", "400")))


async def test_data_if_and_only_if_marker_when_the_server_falls(postgres_url: str, server: Postgres) -> None:
    """T32: stopped without a checkpoint in the middle of loads, and started again."""
    dice = random.Random(SEED)
    print("seed", SEED)
    await people(postgres_url, "setup").write([])
    for turn in range(3):
        targets = [people(postgres_url, f"u{turn} {n}") for n in range(8)]

        async def load(target: TableTarget) -> str:
            try:
                await target.write((n, target.update_id) for n in range(2_000))
            except (DBAPIError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TargetStateUnknown) as error:
                return type(error).__name__
            return "written"

        loads = [asyncio.create_task(load(target)) for target in targets]
        await asyncio.sleep(dice.uniform(0.005, 0.1))
        await asyncio.to_thread(server.restart)
        outcomes = await asyncio.gather(*loads)
        there = await TableTarget.exists_many(targets)
        found = await ids(people(postgres_url))
        for target, outcome, is_there in zip(targets, outcomes, there, strict=True):
            assert isinstance(is_there, bool)
            assert found.get(target.update_id, 0) == (2_000 if is_there else 0), (target, outcome)
            if outcome != "TargetStateUnknown":
                assert is_there == (outcome == "written"), (target, outcome)


async def test_a_server_that_takes_no_more_is_waited_for(
    postgres_url: str, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the rows with it: they are not gathered on their way to it."""
    monkeypatch.setattr(server, "TURN", 0)  # the loop comes round before each piece the driver sends
    monkeypatch.setattr(server.ServerConnection, "breathing", property(lambda _: False, lambda *_: None))
    monkeypatch.setattr(rows, "AHEAD", 100)  # nothing is waited for but the server
    transports: list[Any] = []
    go_on = server.ServerConnection._go_on

    def noted(connection: server.ServerConnection) -> None:
        transports.append(connection._transport)
        go_on(connection)

    monkeypatch.setattr(server.ServerConnection, "_go_on", noted)
    async with watching(dsn) as watch:
        load = asyncio.create_task(value(people(postgres_url).write([(n, "x" * 200) for n in range(400_000)])))
        while not transports:
            await asyncio.sleep(0)
        pids = await watch.fetch(f"SELECT pid FROM pg_stat_activity WHERE {OURS}")
        for (pid,) in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            before = -1
            while before != (before := transports[0].get_write_buffer_size()):
                await asyncio.sleep(0.5)
            assert 0 < before < 2**20
        finally:
            for (pid,) in pids:
                os.kill(pid, signal.SIGCONT)
        load.cancel()
        await asyncio.wait([load])
    assert await people(postgres_url).exists() is False


@pytest.mark.parametrize("how", ["list", "async"])
async def test_a_server_that_goes_while_it_is_waited_for_is_noticed(postgres_url: str, dsn: str, how: str) -> None:
    """The driver waits until it may write more, and the library does not tell it that it never will."""
    wide = [(n, 10_000_000 * "x") for n in range(20)]

    async def asynchronous() -> AsyncIterator[Any]:
        for row in wide:
            yield row

    async with watching(dsn) as watch, asyncio.timeout(60):
        load = asyncio.create_task(value(people(postgres_url).write(wide if how == "list" else asynchronous())))
        copying = f"{OURS} AND query ~ '^COPY'"
        while not (pids := await watch.fetch(f"SELECT pid FROM pg_stat_activity WHERE {copying}")):
            await asyncio.sleep(0.001)
        os.kill(pids[0]["pid"], signal.SIGSTOP)
        await asyncio.sleep(0.2)
        assert await watch.fetchval("SELECT pg_terminate_backend($1)", pids[0]["pid"])
        os.kill(pids[0]["pid"], signal.SIGCONT)
        with pytest.raises(ConnectionError, match="people: the connection broke in the middle of a COPY"):
            await load
    assert await people(postgres_url).exists() is False


async def test_connections_that_died_while_idle_are_not_noticed(postgres_url: str, dsn: str) -> None:
    target = people(postgres_url)
    await target.write([(1, "x")])
    async with watching(dsn) as watch:
        await watch.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
        await until(lambda: _none_open(watch))
    assert await target.exists() is True
    assert await people(postgres_url, "u2").write([(1, "x")]) == 1


async def _none_open(watch: Any) -> bool:
    return await open_now(watch) == 0


class Silence:
    """Between a client and the server: passes nothing on for connections up to ``last``, and says nothing."""

    def __init__(self, server: Postgres) -> None:
        self.server, self.count, self.last = server, 0, 0.0
        self.tasks: set[Any] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        self.count += 1
        up, down = await asyncio.open_connection(self.server.host, self.server.port)
        back = asyncio.create_task(self.pass_on(self.count, up, writer))
        await self.pass_on(self.count, reader, down)
        await back

    async def pass_on(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if number > self.last:
                    writer.write(data)
        writer.close()


@asynccontextmanager
async def silencing(server: Postgres, url: str) -> AsyncIterator[tuple[Silence, str]]:
    silence = Silence(server)
    proxy = await asyncio.start_server(silence, "127.0.0.1", 0)
    try:
        yield silence, url.replace(f":{server.port}", f":{proxy.sockets[0].getsockname()[1]}")
    finally:
        await close_idle()
        proxy.close()
        await asyncio.wait_for(asyncio.gather(*silence.tasks, return_exceptions=True), 10)
        await proxy.wait_closed()


async def test_a_server_gone_silent_is_unknown_and_a_connection_gone_silent_is_replaced(
    postgres_url: str, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CONNECT", 1.0)
    monkeypatch.setattr(connections, "PING", 0.2)
    monkeypatch.setattr(connections, "PATIENCE", 0.1)
    async with asyncio.timeout(30), silencing(server, postgres_url) as (silence, url):
        assert await people(url).write([(1, "x")]) == 1
        silence.last = silence.count
        assert await people(url).exists() is True
        silence.last = silence.count
        assert await people(url, "u2").write([(2, "x")]) == 1
        silence.last = float("inf")
        with pytest.raises(TargetStateUnknown, match=r"the server has not answered for 1\.0 s"):
            await people(url).exists()


async def test_a_question_has_a_limit_and_a_load_has_none(
    postgres_url: str, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ANSWER", 0.3)
    await people(postgres_url).write([(1, "x")])
    async with watching(dsn) as other:
        async with other.transaction():
            await other.execute("LOCK TABLE table_updates, people")
            load = asyncio.create_task(value(people(postgres_url, "u2").write([(2, "x")])))
            for target in (people(postgres_url), RowTarget(postgres_url, "people", {"n": 1})):
                with pytest.raises(TargetStateUnknown, match=r"the server has not answered for 0\.3 s"):
                    await asyncio.wait_for(target.exists(), 20)
            assert not load.done()
        assert await load == 1


class Gate:
    """Between a client and the server: breaks the connection at a COMMIT, before or after the server has heard it."""

    def __init__(self, server: Postgres, when: str) -> None:
        self.server, self.when, self.broken = server, when, 0
        self.tasks: set[Any] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        if self.when == "after, and nobody answers" and self.broken:
            writer.close()
            return
        up, down = await asyncio.open_connection(self.server.host, self.server.port)
        back = asyncio.create_task(self.pass_on(up, writer))
        try:
            while data := await reader.read(65536):
                if b"COMMIT;" in data and b"people" not in data and self.armed and not self.broken:
                    self.broken += 1
                    if self.when != "before":
                        back.cancel()
                        down.write(data)
                        await down.drain()
                        await asyncio.sleep(0.1)
                    break
                down.write(data)
        finally:
            back.cancel()
            down.close()
            writer.close()

    armed = False

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()


@pytest.mark.parametrize("when", ["before", "after", "after, and nobody answers"])
async def test_a_connection_that_breaks_in_the_commit(
    when: str, postgres_url: str, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marker, "COMMIT", 0.5)
    gate = Gate(server, when)
    proxy = await asyncio.start_server(gate, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    through = people(postgres_url.replace(f":{server.port}", f":{port}"))
    await people(postgres_url, "setup").write([])
    await MarkerTarget(postgres_url.replace(f":{server.port}", f":{port}"), "first").touch()
    gate.armed = True
    try:
        if when == "before":
            with pytest.raises((DBAPIError, OSError)):
                await through.write([(1, "x")])
        elif when == "after":
            assert await through.write([(1, "x")]) == 1
        else:
            with pytest.raises(TargetStateUnknown, match="broke while 'u1' was being committed"):
                await through.write([(1, "x")])
        assert gate.broken == 1
        assert await people(postgres_url).exists() is (when != "before")
        assert await ids(people(postgres_url)) == ({} if when == "before" else {"x": 1})
    finally:
        await close_idle()
        proxy.close()
        await asyncio.gather(*gate.tasks, return_exceptions=True)
        await proxy.wait_closed()


# Cancels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["native", "late"])
async def test_a_load_cancelled_at_every_await(url: str, style: Style) -> None:
    """Those inside of it too: ``write`` itself has one only."""
    number = 0

    def rows() -> Iterator[Any]:
        for n in range(100):
            yield n, f"u{number}"

    async def case() -> None:
        nonlocal number
        number += 1
        await people(url, f"u{number}")._write(rows())

    async def check(outcome: Outcome) -> None:
        there = await people(url, f"u{number}").exists()
        assert there or outcome.cancelled
        found = await ids(people(url))
        assert found.get(f"u{number}", 0) == (100 if there else 0), outcome

    await people(url, "setup").write([])
    async with no_leaks():
        points = await sweep(case, check, style)
        assert points > 10


@pytest.mark.parametrize("style", ["native", "late"])
async def test_a_copy_from_table_to_table_cancelled_at_every_await(sqlite_url: str, style: Style) -> None:
    number = 0

    async def case() -> None:
        nonlocal number
        number += 1
        async with people(sqlite_url).rows() as rows:
            await people(sqlite_url, f"u{number}", "copies")._write(rows)

    async def check(outcome: Outcome) -> None:
        there = await people(sqlite_url, f"u{number}", "copies").exists()
        assert there or outcome.cancelled
        async with people(sqlite_url).rows() as rows:
            assert len([row async for row in rows]) == 10

    await people(sqlite_url).write([(n, "x") for n in range(10)])
    await people(sqlite_url, "setup", "copies").write([])
    async with no_leaks():
        assert await sweep(case, check, style) > 10


@pytest.mark.parametrize("style", STYLES)
async def test_a_new_connection_cancelled_at_every_await(
    url: str, style: Style, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[sqlite3.Connection] = []  # what nobody has closed is not closed by being forgotten either
    connect = sqlite3.connect

    def kept(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        made.append(connect(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", kept)
    await MarkerTarget(url, "m").touch()
    await close_idle()

    async def case() -> None:
        async with engine.database(MarkerTarget(url, "m")._url) as shared, shared.lend("ask", "m") as connection:
            await connection.exec_driver_sql("SELECT 1")

    async def check(_: Outcome) -> None:
        await close_idle()
        await until(nothing_open)

    async def nothing_open() -> bool:
        return open_files() <= before

    before = open_files()
    await sweep(case, check, style)


@pytest.mark.parametrize("style", STYLES)
async def test_a_question_cancelled_at_every_await(url: str, style: Style) -> None:
    await MarkerTarget(url, "m").touch()

    async def case() -> None:
        assert await MarkerTarget(url, "m").exists()

    async with no_leaks():
        await sweep(case, lambda _: None, style)


async def _cancelled(url: str, dsn: str | None, cancels: int) -> None:
    """F55."""
    dice = random.Random(SEED)
    print("seed", SEED)
    await people(url, "setup").write([])
    targets = [people(url, f"u{n}") for n in range(cancels)]
    cancelled: list[int] = []
    most = 0

    writes = [people(url, f"w{n}") for n in range(4)]  # that are left alone: however slow the machine is, they end

    async def one(target: TableTarget, delay: float | None, way: int) -> None:
        if way == 0:
            work: Any = target.write((n, target.update_id) for n in range(300))
        elif way == 1:
            work = _by_hand(target)
        else:
            work = target.exists()
        try:
            async with asyncio.timeout(delay):
                await work
        except TimeoutError:
            cancelled.append(way)

    async def sample() -> None:
        nonlocal most
        assert dsn is not None
        async with watching(dsn) as watch:
            while True:
                most = max(most, await open_now(watch))
                await asyncio.sleep(0.005)

    sampler = asyncio.create_task(sample()) if dsn else None
    async with no_leaks(fds=0 if dsn is None else 1), asyncio.TaskGroup() as group:
        for n, target in enumerate(targets):
            group.create_task(one(target, dice.uniform(0, 0.2), dice.randrange(3)))
            await asyncio.sleep(dice.uniform(0, 0.002))
            if n in range(20, 100, 20):
                group.create_task(one(writes[n // 20 - 1], None, n // 20 % 2))
    if sampler is not None and dsn is not None:
        sampler.cancel()
        await asyncio.wait([sampler])
        assert sampler.cancelled()
        assert most <= POOL + 3, "those that are being closed are replaced meanwhile"
        async with watching(dsn) as watch:
            await until(lambda: _at_rest(watch))
    there = await TableTarget.exists_many([*targets, *writes])
    found = await ids(people(url))
    for target, is_there in zip([*targets, *writes], there, strict=True):
        assert found.get(target.update_id, 0) == (300 if is_there else 0), target
    assert all(there[cancels:])
    assert {0, 1} <= set(cancelled), "no write was cancelled"


async def _at_rest(watch: Any) -> bool:
    return await busy(watch) == 0 and await open_now(watch) <= POOL


async def _by_hand(target: TableTarget) -> None:
    async with target.transaction() as connection:
        for n in range(300):
            await connection.exec_driver_sql(f"INSERT INTO people VALUES ({n}, '{target.update_id}')")


async def test_cancels_at_random_points(url: str, request: pytest.FixtureRequest) -> None:
    dsn = request.getfixturevalue("dsn") if url.startswith("postgres") else None
    await _cancelled(url, dsn, 150)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_a_thousand_cancels_at_random_points(url: str, request: pytest.FixtureRequest) -> None:
    dsn = request.getfixturevalue("dsn") if url.startswith("postgres") else None
    await _cancelled(url, dsn, 1_000)


async def test_a_cancelled_statement_stops(url: str, request: pytest.FixtureRequest) -> None:
    kind = "postgres" if url.startswith("postgres") else "sqlite"

    async def body(n: int) -> None:
        async with MarkerTarget(url, f"m{n}").transaction() as connection:
            begun.set()
            await connection.exec_driver_sql(FOREVER[kind])

    async with no_leaks():
        for n in range(5):
            begun = asyncio.Event()
            task = asyncio.create_task(body(n))
            await begun.wait()
            await asyncio.sleep(0.05)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < 1
            assert await MarkerTarget(url, f"m{n}").exists() is False
            await MarkerTarget(url, f"after {n}").touch()
    if kind == "postgres":
        async with watching(request.getfixturevalue("dsn")) as watch:
            assert await watch.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)'") <= 1
            assert await busy(watch) == 0


async def test_a_load_that_waits_for_a_lock_is_cancelled(postgres_url: str, dsn: str) -> None:
    await people(postgres_url, "setup").write([])
    async with watching(dsn) as watch:
        transaction = watch.transaction()
        await transaction.start()
        await watch.execute("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")
        loads = [asyncio.create_task(value(people(postgres_url, f"u{n}").write([(n, "x")]))) for n in range(20)]
        async with watching(dsn) as other:
            await until(lambda: _waiting(other))
            for load in loads:
                load.cancel()
            await asyncio.wait(loads, timeout=3)
            assert all(load.cancelled() for load in loads)
            assert await other.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND state = 'active'") == 0
        await transaction.rollback()
    assert await people(postgres_url).write([(1, "x")]) == 1


async def _waiting(watch: Any) -> bool:
    return bool(
        await watch.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND wait_event_type = 'Lock'")
    )


async def test_a_build_that_is_cancelled_stops_its_load_in_time(url: str) -> None:
    def rows() -> Iterator[Any]:
        for n in range(10**9):
            yield n, "x"

    class Load(Task):
        def output(self) -> Target:
            return people(url)

        async def run(self) -> None:
            await people(url).write(rows())

    await people(url, "setup").write([])
    async with no_leaks():
        began = time.monotonic()
        result = await build(Load(), timeout=0.5)
        assert result.status == "cancelled"
        assert time.monotonic() - began < 10
    assert await people(url).exists() is False
    assert await ids(people(url)) == {}


# Other processes -----------------------------------------------------------------------------------------

LOADS = """
import asyncio, os, signal, sys, time
import sqlalchemy as sa
from asyncflow import Task, build, value
from asyncflow.targets.sql import TableTarget

where, url = sys.argv[1:]
target = TableTarget(url, "people", "u1", [("n", sa.Integer), ("name", sa.Text)])

def halt():
    print("half", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

class Load(Task):
    def output(self):
        return target
    async def run(self):
        if where == "before":
            halt()
        def rows():
            for n in range(10_000):
                if n == 9_999 and where == "within":
                    time.sleep(0.05)
                    halt()
                yield n, "stopped"
        await target.write(rows())

result = asyncio.run(build(Load()))
sys.exit(0 if result else 1)
"""


@pytest.fixture
def stopped(url: str, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", LOADS, request.param, url], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("url", "stopped"), [("sqlite", "before"), ("postgres", "before"), ("postgres", "within")], indirect=True
)
def test_who_slept_through_it_is_refused(url: str, stopped: subprocess.Popen[bytes]) -> None:
    """T14: stopped after it has looked; somebody else publishes; it wakes up and goes on.

    A file has one writer: while that is stopped nobody else publishes.
    """
    assert people(url).write([(1, "quick")]).result() == 1
    stopped.send_signal(signal.SIGCONT)
    assert stopped.wait(20) == 0, "that is no error: its task is done"
    assert asyncio.run(ids(people(url))) == {"quick": 1}


@pytest.mark.parametrize("stopped", ["within"], indirect=True)
def test_a_client_that_is_killed_leaves_nothing(url: str, stopped: subprocess.Popen[bytes]) -> None:
    """T32."""
    stopped.kill()
    stopped.wait()

    async def main() -> None:
        assert await people(url).exists() is False
        assert await ids(people(url)) == {}
        assert await people(url).write([(1, "after")]) == 1
        assert await ids(people(url)) == {"after": 1}

    asyncio.run(main())


async def test_a_file_that_somebody_locks_for_long(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = people(sqlite_url)
    await people(sqlite_url, "setup").write([])
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    asking, writing = asyncio.create_task(_asked(target)), asyncio.create_task(value(target.write([(1, "x")])))
    await asyncio.sleep(0.3)
    assert not asking.done()
    assert not writing.done()
    other.execute("COMMIT")
    assert await writing == 1
    assert await asking in (True, False)

    monkeypatch.setattr(engine, "BUSY", 0.2)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TargetStateUnknown, match="locked"):
        await target.exists()
    with pytest.raises(OperationalError, match="locked"):
        await people(sqlite_url, "u2").write([(1, "x")])
    cancelled = asyncio.create_task(value(people(sqlite_url, "u2").write([(1, "x")])))
    await asyncio.sleep(0.05)
    cancelled.cancel()
    await asyncio.wait([cancelled], timeout=1)
    assert cancelled.cancelled()
    other.execute("ROLLBACK")
    other.close()


async def _asked(target: TableTarget) -> bool:
    answer: bool = await target.exists()
    return answer


async def test_readers_of_a_file_are_waited_for_in_the_commit(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await people(sqlite_url, "setup").write([(n, "x") for n in range(2_000)])
    async with people(sqlite_url).rows() as rows:
        await anext(rows)
        writing = asyncio.create_task(
            value(people(sqlite_url).write([(1, "new")])), context=Context()
        )  # somebody else's
        await asyncio.sleep(0.3)
        assert not writing.done()
    assert await writing == 1

    monkeypatch.setattr(marker, "COMMIT", 0.2)
    async with people(sqlite_url).rows() as rows:
        await anext(rows)
        with pytest.raises(OperationalError, match="locked"):
            await asyncio.create_task(value(people(sqlite_url, "u2").write([(1, "newer")])), context=Context())
    assert await ids(people(sqlite_url)) == {"x": 2_000, "new": 1}
