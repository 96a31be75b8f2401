"""Connections that break, at any place: what is visible is whole, and the rest is mended or failed honestly."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncflow import TargetStateUnknown, clients
from asyncflow.targets._ftp import connection as connections
from asyncflow.targets._ftp import pool as pools
from asyncflow.targets._ftp import sink as sinks
from examples.servers.ftp import FtpServer
from tests.targets.ftp.helpers import at, empty, get, left, put
from tests.targets.ftp.proxy import Fault, proxied

CONTENT = random.Random(5).randbytes(1_000_000)
PARTS = [0, 25, 50, 75, 100]


@pytest.fixture(params=["vs"])
def server(request: pytest.FixtureRequest) -> Iterator[FtpServer]:
    given: FtpServer = request.getfixturevalue(request.param)
    yield given
    empty(given)


@pytest.fixture(autouse=True)
async def _nothing_open() -> None:
    """Each test's connections are closed before its proxy is."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "PAUSE", 0.01)
    monkeypatch.setattr(sinks, "STEADY", 0.02)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("what", ["data", "control", "both"])
async def test_an_upload_goes_on_after_a_cut(server: FtpServer, what: str, part: int) -> None:
    fault = Fault(cut=what, at_bytes=len(CONTENT) * part // 100)  # type: ignore[arg-type]
    async with proxied(server, fault) as (proxy, through):
        await put(at(through, "file"), CONTENT)
        assert fault.times == 0
        assert proxy.connections > 1 or (what, part) == ("data", 100)  # the server has got it all
        await clients.close_idle()
    assert (server.root / "file").read_bytes() == CONTENT
    assert not left(server)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("what", ["data", "control", "both"])
async def test_a_download_goes_on_after_a_cut(server: FtpServer, what: str, part: int) -> None:
    (server.root / "file").write_bytes(CONTENT)
    fault = Fault(cut=what, at_bytes=len(CONTENT) * part // 100)  # type: ignore[arg-type]
    async with proxied(server, fault) as (_, through):
        content = await get(at(through, "file"))
        assert hashlib.sha256(content).digest() == hashlib.sha256(CONTENT).digest()
        assert fault.times == 0
        await clients.close_idle()


@pytest.mark.parametrize("what", ["data", "control"])
async def test_an_upload_that_is_cut_every_time_fails_and_leaves_nothing(server: FtpServer, what: str) -> None:
    fault = Fault(cut=what, at_bytes=100_000, times=1000)  # type: ignore[arg-type]
    async with proxied(server, fault) as (_, through):
        target = at(through, "file")
        with pytest.raises(ConnectionError):
            await put(target, CONTENT[:300_000] * 3)
            fault.at_bytes = 0
        fault.times = 0
        assert await target.exists() is False
        await clients.close_idle()
    assert not left(server)
    assert not (server.root / "file").exists()


@pytest.mark.parametrize("what", ["data", "control"])
async def test_a_download_that_is_cut_every_time_fails(server: FtpServer, what: str) -> None:
    (server.root / "file").write_bytes(CONTENT)
    async with proxied(server, Fault(cut=what, at_bytes=0, times=1000)) as (_, through):  # type: ignore[arg-type]
        with pytest.raises((ConnectionError, OSError)):
            await get(at(through, "file"))
        await clients.close_idle()


# Replies that get lost, come late, or say no ----------------------------------------------------------------


LOST = [
    Fault(reply="226", cut="control"),  # stored, and nobody is told
    Fault(reply="226", cut="both"),
    Fault(command="STOR"),
    Fault(command="STOR", after=True),
    Fault(command="SIZE"),
    Fault(command="RNFR"),
    Fault(command="RNFR", after=True),
    Fault(command="RNTO"),  # not done
    Fault(command="RNTO", after=True),  # done
    Fault(command="EPSV", after=True),
    Fault(command="OPTS", after=True),
    Fault(command="USER"),
    Fault(command="STOR", answer="425 cannot open a data connection"),
    Fault(command="USER", answer="421 too many users", times=2),
]


@pytest.mark.parametrize("fault", LOST, ids=lambda f: f"{f.command}{f.reply}{f.answer[:3]}{'-after' * f.after}-{f.cut}")
async def test_an_upload_survives_a_reply_that_is_lost(vs: FtpServer, fault: Fault) -> None:
    fault = dataclasses.replace(fault)
    async with proxied(vs, fault) as (_, through):
        target = at(through, "deep/file")
        await put(target, CONTENT[:300_000])
        assert fault.times == 0
        assert await target.exists()
        await clients.close_idle()
    assert (vs.root / "deep" / "file").read_bytes() == CONTENT[:300_000]
    assert not left(vs)
    empty(vs)


@pytest.mark.parametrize("code", [452, 552])
async def test_a_full_disk_is_told_in_the_server_s_words(vs: FtpServer, code: int) -> None:
    """The data connection is reset, and the reason is in a reply that waits on the other one."""
    fault = Fault(cut="data", at_bytes=300_000, answer=f"{code} no space left on device", times=100)
    async with proxied(vs, fault) as (_, through):
        with pytest.raises(OSError, match=f"{code} no space left") as caught:
            await put(at(through, "file"), CONTENT * 3)
        assert caught.value.errno == errno.ENOSPC
        assert fault.times == 99, "it was tried again"
        fault.times = 0
        assert await at(through, "file").exists() is False
        await clients.close_idle()
    assert not left(vs)


async def test_a_last_word_that_comes_too_late_is_asked_for(vs: FtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE", 0.2)
    monkeypatch.setattr(connections, "NEVER_MIND", 0.1)
    async with proxied(vs, Fault(reply="226", seconds=1)) as (proxy, through):
        await put(at(through, "file"), CONTENT[:300_000])
        assert proxy.connections == 2
        assert sum(command.startswith("STOR") for command in proxy.commands) == 1
        await clients.close_idle()
    assert (vs.root / "file").read_bytes() == CONTENT[:300_000]
    assert not left(vs)
    empty(vs)


async def test_a_control_connection_that_dies_in_a_long_download(vs: FtpServer) -> None:
    """Nothing on the data connection tells of it: the file comes whole, and the end of it is asked for again."""
    (vs.root / "file").write_bytes(CONTENT)
    async with proxied(vs, Fault(reply="226", cut="control")) as (proxy, through):
        assert await get(at(through, "file")) == CONTENT
        assert proxy.connections == 2
        await clients.close_idle()
    empty(vs)


@pytest.mark.parametrize("size", [900_000, 1000, 0], ids=["large", "small", "empty"])
@pytest.mark.parametrize("lost", ["cut", "lent"])
async def test_a_download_does_not_go_on_in_another_file(
    vs: FtpServer, lost: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "LIMIT", 1)
    (vs.root / "file").write_bytes(CONTENT)
    async with proxied(vs) as (proxy, through):
        async with at(through, "file").open("rb") as file:
            start = await file.read(1000)
            (vs.root / "new").write_bytes(CONTENT[:size])
            (vs.root / "new").rename(vs.root / "file")
            if lost == "cut":
                proxy.faults.append(Fault(cut="data", at_bytes=0))
            else:
                assert await at(through, "file").exists()  # by the one connection
            with pytest.raises(OSError, match="not what it was"):
                await file.read()
        assert start == CONTENT[:1000]
        await clients.close_idle()
    empty(vs)


@pytest.mark.parametrize("size", [1000, 900_000])
async def test_a_small_file_that_breaks_off_is_read_from_its_beginning(vs: FtpServer, size: int) -> None:
    """Nothing of it has been given: what is there by now is as good."""
    old, new = b"old" * 30_000, random.Random(2).randbytes(size)
    (vs.root / "file").write_bytes(old)
    (vs.root / "new").write_bytes(new)

    class Replaced(Fault):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "times" and value == 0:  # it breaks off now
                (vs.root / "new").rename(vs.root / "file")
            super().__setattr__(name, value)

    async with proxied(vs, Replaced(cut="both", at_bytes=50_000)) as (_, through):
        assert await get(at(through, "file")) == new
        await clients.close_idle()
    empty(vs)


async def test_an_upload_of_which_too_much_is_lost_fails_honestly(
    vs: FtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "WINDOW", 1000)
    async with proxied(vs, Fault(cut="both", at_bytes=100_000)) as (_, through):
        with pytest.raises(OSError, match="could be sent again"):
            await put(at(through, "file"), CONTENT)
        await clients.close_idle()
    assert not left(vs)


async def test_a_hundred_uploads_with_faults_all_over(vs: FtpServer) -> None:
    dice = random.Random(7)
    faults = [
        dataclasses.replace(dice.choice([*LOST, Fault(cut="data", at_bytes=dice.randrange(60_000))])) for _ in range(60)
    ]
    async with proxied(vs, *faults) as (_, through):
        outcomes = await asyncio.gather(
            *(put(at(through, f"many/{n}"), f"{n} ".encode() * 20_000) for n in range(100)), return_exceptions=True
        )
        for fault in faults:
            fault.times = 0
        for n, outcome in enumerate(outcomes):
            there = await at(through, f"many/{n}").exists()
            assert there or isinstance(outcome, OSError), outcome
            if there:
                assert (vs.root / "many" / str(n)).read_bytes() == f"{n} ".encode() * 20_000
        assert sum(outcome is None for outcome in outcomes) > 80
        await clients.close_idle()
    assert not left(vs)
    empty(vs)


async def test_a_server_that_cannot_be_reached_is_no_answer() -> None:
    async with proxied(FtpServer("localhost", 1, "u", "p", None, None, "/", Path())) as (_, through):
        with pytest.raises(TargetStateUnknown, match="cannot tell whether .* cannot be reached"):
            await at(through, "file").exists()
        with pytest.raises(ConnectionError):
            await put(at(through, "file"), b"")
        await clients.close_idle()


# Time-outs, each of its own ---------------------------------------------------------------------------------


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECT", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    target = at(FtpServer("127.0.0.1", port, "u", "p", None, None, "/", Path()), "file")
    with pytest.raises(TargetStateUnknown, match=r"has not answered for 0\.05 s"):
        await target.exists()
    await clients.close_idle()
    listener.close()


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_data_connection_on_which_nothing_moves(
    vs: FtpServer, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control connection that is silent for as long is nothing to worry about."""
    monkeypatch.setattr(connections, "IDLE", 0.2)
    monkeypatch.setattr(connections, "NEVER_MIND", 0.1)
    content = random.Random(1).randbytes(20_000_000)
    (vs.root / "down").write_bytes(content)
    async with proxied(vs, Fault(at_bytes=100_000, seconds=2)) as (proxy, through):
        if way == "up":
            await put(at(through, "up"), content, 2_000_000)
        else:
            assert await get(at(through, "down")) == content
        assert proxy.connections == 2
        await clients.close_idle()
    assert (vs.root / way).read_bytes() == content
    empty(vs)


async def test_a_read_that_is_cancelled_goes_on_where_it_was(vs: FtpServer) -> None:
    dice = random.Random(3)
    (vs.root / "file").write_bytes(CONTENT)
    parts: list[bytes] = []
    async with at(vs, "file").open("rb") as file:
        while True:
            reading = asyncio.create_task(file.read(70_000))
            await asyncio.sleep(dice.random() * 0.002)
            reading.cancel()
            try:
                part = await reading
            except asyncio.CancelledError:
                part = await file.read(50_000)
            if not part:
                break
            parts.append(part)
    assert b"".join(parts) == CONTENT
    await clients.close_idle()
    empty(vs)
