"""What `exists` answers, with how many commands, and what it does not take for an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aioftp
import pytest

from asyncflow import TargetStateUnknown, clients
from asyncflow.target import ask
from asyncflow.targets._ftp import pool as pools
from asyncflow.targets._ftp.listing import Listing
from asyncflow.targets.ftp import FTPTarget
from examples.servers.ftp import FtpServer, proftpd
from tests.servers import had
from tests.targets.ftp.helpers import at, empty, get, left, put, served
from tests.targets.ftp.proxy import Fault, proxied


@pytest.fixture(params=["pro", "vs"])
def server(request: pytest.FixtureRequest) -> Iterator[FtpServer]:
    given: FtpServer = request.getfixturevalue(request.param)
    yield given
    empty(given)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "PAUSE", 0.01)


# How many commands ------------------------------------------------------------------------------------------


async def test_a_question_is_two_round_trips_at_most(server: FtpServer) -> None:
    (server.root / "there").write_bytes(b"x")
    async with proxied(server) as (proxy, through):
        assert await at(through, "there").exists() is True
        proxy.count()
        assert await at(through, "there").exists() is True
        assert proxy.count() == 1
        assert await at(through, "missing").exists() is False
        assert proxy.count() == 2, proxy.commands
        await clients.close_idle()


async def test_many_questions_about_one_folder_are_one_listing(server: FtpServer) -> None:
    for n in range(0, 1000, 7):
        (server.root / f"file {n}").write_bytes(b"")
    async with proxied(server) as (proxy, through):
        targets = [at(through, f"file {n}") for n in range(1000)]
        answers = await FTPTarget.exists_many(targets)
        assert answers == [n % 7 == 0 for n in range(1000)]
        assert proxy.count() <= 10  # with the login
        assert await FTPTarget.exists_many([at(through, f"gone/{n}") for n in range(100)]) == [False] * 100
        assert proxy.count() <= 10
        await clients.close_idle()


async def test_many_questions_about_many_folders(server: FtpServer) -> None:
    for n in range(0, 50, 5):
        (server.root / str(n)).mkdir()
        (server.root / str(n) / "data").write_bytes(b"")
    async with proxied(server) as (proxy, through):
        answers = await FTPTarget.exists_many([at(through, f"{n}/data") for n in range(50)])
        assert answers == [n % 5 == 0 for n in range(50)]
        assert proxy.most <= pools.LIMIT
        await clients.close_idle()


# 550 is no answer -------------------------------------------------------------------------------------------


async def test_a_folder_is_there_although_it_has_no_size(server: FtpServer) -> None:
    (server.root / "folder").mkdir()
    assert await at(server, "folder").exists() is True
    assert await at(server, "folder/a/b/c").exists() is False
    (server.root / "file").write_bytes(b"")
    assert await at(server, "file/below").exists() is False


@pytest.mark.parametrize("name", ["[a]*?", "two  words ", " first", "-l", "~", "{a,b}", "back\\slash"])
async def test_names_that_servers_take_for_patterns(server: FtpServer, name: str) -> None:
    for folder in (".", "a [b]"):
        target = at(server, f"{folder}/{name}" if folder != "." else name)
        assert await target.exists() is False
        await put(target, name.encode())
        assert await target.exists() is True
        assert await get(target) == name.encode()
        near = at(server, f"{folder}/{name}x" if folder != "." else f"{name}x")
        assert await FTPTarget.exists_many([target, near, target, near]) == [True, False, True, False]


async def test_a_folder_that_may_not_be_read_is_unknown(server: FtpServer) -> None:
    (server.root / "locked").mkdir(mode=0)
    many = await FTPTarget.exists_many([at(server, f"locked/{n}") for n in range(5)])
    assert all(isinstance(answer, TargetStateUnknown) for answer in many)
    with pytest.raises(TargetStateUnknown, match="nor lists .*locked"):
        await at(server, "locked/file").exists()


async def test_a_user_who_may_not_list_does_not_know() -> None:
    limits = ["<Directory />", "<Limit LIST NLST MLSD MLST STAT>", "DenyAll", "</Limit>", "</Directory>"]
    with had(proftpd(lines=limits)) as server:
        (server.root / "there").write_bytes(b"x")
        assert await at(server, "there").exists() is True
        with pytest.raises(TargetStateUnknown):
            await at(server, "missing").exists()
        await clients.close_idle()


@pytest.mark.parametrize(
    "fault",
    [Fault(at_bytes=0, times=1000), Fault(cut="both", at_bytes=0, times=1000), Fault(reply="226", times=1000)],
    ids=["control", "both", "226"],
)
async def test_a_listing_without_an_end_is_no_answer(vs: FtpServer, fault: Fault) -> None:
    server = vs
    (server.root / "odd name").mkdir()
    async with proxied(server, dataclasses.replace(fault)) as (_, through):
        with pytest.raises(TargetStateUnknown):
            await at(through, "odd name/file").exists()
        many = await FTPTarget.exists_many([at(through, f"odd name/{n}") for n in range(5)])
        assert all(isinstance(answer, TargetStateUnknown) for answer in many)
        await clients.close_idle()
    empty(server)


# Servers that can do little ---------------------------------------------------------------------------------


class NoMlst(aioftp.Server):
    """Knows LIST alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in ("mlst", "mlsd"):
            del self.commands_mapping[name]


class Factless(aioftp.Server):
    """Its lines of MLSD and MLST have names only, and one that nobody can read."""

    async def build_mlsx_string(self, connection: Any, path: Any) -> str:
        return f" {path.name}" if path.name != "odd" else "odd"


@pytest.mark.parametrize("kind", [aioftp.Server, NoMlst, Factless])
async def test_a_server_without_size_and_stat(kind: type[aioftp.Server], tmp_path: Path) -> None:
    async with served(kind, tmp_path) as server:
        target = at(server, "deep/file")
        assert await target.exists() is False
        await put(target, b"content" * 50_000)
        assert await target.exists() is True
        assert await get(target) == b"content" * 50_000
        await put(target, b"again")  # it does not rename to a name in use
        assert await get(target) == b"again"
        assert await FTPTarget.exists_many([at(server, f"deep/{n}") for n in ("a", "file", "b")]) == [
            False,
            True,
            False,
        ]
        assert not left(server)


async def test_a_download_that_breaks_off_is_seen_without_a_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(20_000_000))
    async with served(NoMlst, tmp_path) as server, proxied(server, Fault(cut="data", at_bytes=500_000)) as (_, through):
        with pytest.raises(OSError, match=r"broke off|not answered"):
            await get(at(through, "file", user="u"))
        await clients.close_idle()


async def test_a_line_that_nobody_can_read_leaves_its_name_open(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"")
    async with served(Factless, tmp_path) as server:
        many = await FTPTarget.exists_many([at(server, name) for name in ("a", "b", "c")])
        assert many == [False] * 3
        assert await ask(at(server, "odd")) is True  # by MLST


def test_listings() -> None:
    unix = Listing.of_lines(
        [
            *("total 3", "drwxr-xr-x   2 me  us  4096 Nov 21 17:34 .", "drwxr-xr-x 2 me us 4096 Nov 21 17:34 sub"),
            *("-rw-r--r--   1 0 0 1 Jan  3  2018 two  words ", "lrwxrwxrwx 1 0 0 3 Jan  3  2018 link -> sub"),
            *("09/21/2026  05:34 PM       <DIR>          windows", "gibberish that ends with name"),
        ]
    )
    assert unix.proven
    assert unix.folders == {"sub": True, "two  words ": False, "link": True, "windows": True}
    assert unix.has("words ") is False
    assert unix.has("name") is None
    assert unix.has("absent") is False
    facts = Listing.of_facts(["type=cdir; .", "type=file;size=3; a b", " bare", "type=OS.unix=slink:/x; link", "odd"])
    assert facts.folders == {"a b": False, "bare": True, "link": True}
    assert facts.has("odd") is None
    assert not Listing.of_lines([]).proven
