"""Connections are few, shared, never waited for in a ring, and never used again after a cancel."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from asyncflow import Target, TargetStateUnknown, Task, build, clients
from asyncflow.targets._ftp import connection as connections
from asyncflow.targets._ftp import pool as pools
from asyncflow.targets._ftp.pool import pool_of
from asyncflow.testing import STYLES, Outcome, Style, sweep
from examples.servers.ftp import FtpServer, proftpd, vsftpd
from tests.servers import had
from tests.targets.ftp.helpers import at, empty, get, left, put
from tests.targets.ftp.proxy import Fault, proxied


@pytest.fixture
def server(vs: FtpServer) -> Iterator[FtpServer]:
    yield vs
    empty(vs)


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await clients.close_idle()


# Cancels ----------------------------------------------------------------------------------------------------


async def cancels(server: FtpServer, count: int) -> None:
    """Questions, downloads and uploads cancelled at random; what is asked after each is answered rightly."""
    dice = random.Random(count)
    content = b"there" * 100_000
    (server.root / "there").write_bytes(content)
    there, missing = at(server, "there"), at(server, "missing")
    jobs = [there.exists, missing.exists, lambda: get(there), lambda: put(at(server, "cut"), content)]
    for _ in range(count):
        job = asyncio.create_task(_run(dice.choice(jobs)))
        await asyncio.sleep(dice.random() * dice.choice([0.0005, 0.005]))
        job.cancel()
        with suppress(asyncio.CancelledError):
            await job
        assert await missing.exists() is False
        assert await there.exists() is True
    assert await get(there) == content
    assert not left(server)


async def _run(job: object) -> None:
    await job()  # type: ignore[operator]


async def test_fifty_random_cancels(server: FtpServer) -> None:
    await cancels(server, 50)


@pytest.mark.soak
@pytest.mark.parametrize("fixture", ["pro", "vs", "pro_tls", "vs_tls"])
async def test_five_hundred_random_cancels(fixture: str, request: pytest.FixtureRequest) -> None:
    server: FtpServer = request.getfixturevalue(fixture)
    await cancels(server, 500)
    empty(server)


@pytest.mark.parametrize("style", STYLES)
async def test_a_question_cancelled_anywhere_spoils_no_other(server: FtpServer, style: Style) -> None:
    (server.root / "there").write_bytes(b"")
    there, missing = at(server, "there"), at(server, "missing")

    async def question() -> None:
        await clients.close_idle()
        await missing.exists()
        await there.exists()

    async def check(outcome: Outcome) -> None:
        assert await missing.exists() is False, outcome
        assert await there.exists() is True, outcome

    assert await sweep(question, check, style) > 5


async def test_a_command_that_is_not_answered_in_time_ends_its_connection(
    server: FtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "COMMAND", 0.1)
    (server.root / "there").write_bytes(b"")
    async with proxied(server, Fault(reply="550", seconds=0.3)) as (proxy, through):
        assert await at(through, "missing").exists() is False
        assert await at(through, "there").exists() is True
        assert proxy.connections == 2
        await clients.close_idle()


# How many ---------------------------------------------------------------------------------------------------


async def test_connections_are_few_and_used_again(server: FtpServer) -> None:
    async with proxied(server) as (proxy, through):
        async with asyncio.TaskGroup() as group:
            for n in range(200):
                group.create_task(at(through, f"{n}")._exists())
        assert proxy.connections == proxy.most == pools.LIMIT
        await at(through, "one").exists()
        assert proxy.connections == pools.LIMIT
        await clients.close_idle()


@pytest.mark.parametrize("limit", ["vsftpd", "proftpd"])
async def test_a_server_that_takes_few_connections_is_waited_for(limit: str) -> None:
    """One says so with 421, the other with 530, as if the password were wrong."""
    few = vsftpd(lines=["max_clients=3"]) if limit == "vsftpd" else proftpd(lines=["MaxClientsPerUser 3"])
    with had(few) as server:
        async with asyncio.TaskGroup() as group:
            for n in range(40):
                group.create_task(put(at(server, f"{n}"), b"x"))
        assert sum(1 for _ in server.root.iterdir()) == 40
        assert not left(server)
        await clients.close_idle()


async def test_a_refused_login_is_not_tried_by_everybody(pro: FtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxied(pro) as (proxy, through):
        target = at(through, "x", password="wrong")
        answers = await asyncio.gather(*(target._exists() for _ in range(100)), return_exceptions=True)
        assert all(isinstance(answer, TargetStateUnknown) and "530" in str(answer) for answer in answers)
        assert proxy.connections <= pools.LIMIT
        monkeypatch.setattr(pools, "DOWN", 0)
        before = proxy.connections
        with pytest.raises(PermissionError):
            await target.size()
        assert proxy.connections == before + 1
        await clients.close_idle()


async def test_handles_go_on_when_the_pool_is_closed_under_them(server: FtpServer) -> None:
    """It is, when nobody has used it for a minute: a body may compute for longer between two blocks."""
    content = random.Random(2).randbytes(1_000_000)
    (server.root / "in").write_bytes(content)
    async with at(server, "in").open("rb") as source, at(server, "out").open("wb") as sink:
        while block := await source.read(300_000):
            await sink.write(block)
            await clients.close_idle()
    assert (server.root / "out").read_bytes() == content
    assert not left(server)


async def test_handles_that_are_open_do_not_starve_each_other(server: FtpServer) -> None:
    """Each body reads one file and writes another, and there are more of them than connections."""
    bodies, content = 3 * pools.LIMIT, b"0123456789" * 60_000
    for n in range(bodies):
        (server.root / f"in{n}").write_bytes(content)

    async def copy(n: int) -> None:
        async with at(server, f"in{n}").open("rb") as source, at(server, f"out{n}").open("wb") as sink:
            while block := await source.read(200_000):
                await sink.write(block)
                await sink.write(block)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for n in range(bodies):
            group.create_task(copy(n))
    for n in range(bodies):
        written = (server.root / f"out{n}").read_bytes()
        assert sorted(written[::1000]) == sorted(2 * content[::1000])
        assert len(written) == 2 * len(content)
    assert not left(server)


async def test_one_that_lies_idle_is_asked_before_it_is_used(
    server: FtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(server) as (proxy, through):
        await at(through, "missing").exists()
        monkeypatch.setattr(pools, "FRESH", 0)
        proxy.count()
        await at(through, "missing").exists()
        assert proxy.commands[0] == "NOOP"
        proxy.faults.append(Fault(command="NOOP"))
        await at(through, "missing").exists()
        assert proxy.connections == 2
        await clients.close_idle()


async def test_one_that_the_server_has_closed_is_replaced(server: FtpServer) -> None:
    async with proxied(server) as (proxy, through):
        target = at(through, "missing")
        await target.exists()
        async with pool_of(target.server) as pool:
            assert pool.count == 1
        proxy.faults.append(Fault(command="SIZE", answer="421 idle for too long"))
        assert await target.exists() is False
        assert proxy.connections == 2
        await clients.close_idle()


async def test_two_thousand_files_at_once(server: FtpServer) -> None:
    most = 0

    class Made(Task):
        n: int

        def output(self) -> Target:
            return at(server, f"{self.n % 10}/{self.n}")

        async def run(self) -> None:
            nonlocal most
            async with at(server, f"{self.n % 10}/{self.n}").open("wb") as file:
                await file.write(b"%d" % self.n)
            most = max(most, len(os.listdir("/dev/fd")))

    result = await build([Made(n=n) for n in range(2000)])
    assert result, result
    assert most <= 200
    assert not left(server)
    assert sum(1 for path in server.root.rglob("*") if path.is_file()) == 2000
    again = await build([Made(n=n) for n in range(2000)])
    assert len(again.skipped) == 2000
