"""The rename that makes an upload visible: refused, slow, or unanswered, it leaves the old file there, or the new."""

from __future__ import annotations

import asyncio
import json
import logging
import posixpath
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aioftp
import pytest

from asyncflow import clients, healing, journal
from asyncflow.targets._ftp import pool as pools
from asyncflow.targets._ftp import server as servers
from asyncflow.targets._ftp.connection import Connection
from asyncflow.targets._ftp.publishing import Publication
from asyncflow.targets._ftp.sink import FTPSink
from examples.servers.ftp import FtpServer, proftpd
from tests.servers import had
from tests.targets.ftp.helpers import at, empty, get, left, put, served
from tests.targets.ftp.proxy import Fault, Proxy, proxied

OLD, NEW = b"old and good", b"new"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "PAUSE", 0.01)


@pytest.fixture(autouse=True)
def _own_journal() -> Iterator[None]:
    """What is left to the next process here is left to nobody."""
    yield
    for entry in [entry for entry in journal._noted if entry.startswith(healing.TOGETHER)]:
        journal.done(*entry.split(" ", 1))
    journal.unfinished.clear()


class OnlyToFree(aioftp.Server):
    """Does not rename to a name in use, and tells the size of everything."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.commands_mapping["size"] = self.size

    async def size(self, connection: Any, rest: str) -> bool:
        path, _ = self.get_paths(connection, rest)
        there = await connection.path_io.exists(path)
        connection.response(*(("213", str((await connection.path_io.stat(path)).st_size)) if there else ("550", "no")))
        return True


@asynccontextmanager
async def replacing(root: Path, *faults: Fault) -> AsyncIterator[tuple[Proxy, FtpServer]]:
    """Such a server behind a proxy, with an old file on it."""
    (root / "out").write_bytes(OLD)
    async with served(OnlyToFree, root) as server, proxied(server, *faults) as (proxy, through):
        yield proxy, through
        await clients.close_idle()


def said(proxy: Proxy) -> list[tuple[str, str]]:
    return [(command.partition(" ")[0], command) for command in proxy.commands]


def verbs(commands: list[str]) -> list[str]:
    return [command.partition(" ")[0] for command in commands]


async def steps(root: Path) -> list[tuple[str, int]]:
    """The commands that replace a file, each with the number of those before that are called the same."""
    async with replacing(root) as (proxy, through):
        await put(at(through, "out"), NEW)
        said = verbs(proxy.commands)
    first = said.index("RNFR")
    return [(verb, said[:n].count(verb)) for n, verb in enumerate(said) if n >= first]


# The server says no -----------------------------------------------------------------------------------------


async def test_a_user_who_may_not_rename_keeps_the_old_file() -> None:
    with had(proftpd(lines=["<Limit RNTO>", "DenyAll", "</Limit>"])) as server:
        (server.root / "out").write_bytes(OLD)
        with pytest.raises(OSError, match="out cannot be published: 550 .*Operation not permitted"):
            await put(at(server, "out"), NEW)
        assert [path.name for path in server.root.iterdir()] == ["out"]
        assert (server.root / "out").read_bytes() == OLD
        await clients.close_idle()
    assert not journal.unfinished


@pytest.mark.parametrize("answer", ["451 try again", "450 busy", "501 what?", "532 need an account", "552 full"])
async def test_an_answer_that_says_nothing_of_a_name_in_use(vs: FtpServer, answer: str) -> None:
    (vs.root / "out").write_bytes(OLD)
    async with proxied(vs, Fault(command="RNTO", answer=answer, times=100)) as (proxy, through):
        with pytest.raises(OSError, match=answer[:3]):
            await put(at(through, "out"), NEW)
        assert (vs.root / "out").read_bytes() == OLD
        assert {command.partition(" ")[2] for command in proxy.commands if command.startswith("RNTO")} == {
            at(vs, "out").path
        }
        await clients.close_idle()
    assert not left(vs)
    empty(vs)


async def test_a_temporary_that_somebody_has_removed(tmp_path: Path) -> None:
    """The old file is not touched for it, although it is as long as the new one would be."""
    async with replacing(tmp_path) as (proxy, through):
        target = at(through, "out")
        sink = FTPSink(target.server, target.path, target.key, None)
        await sink.write(b"x" * len(OLD))
        await sink.prepare()
        left(through)[0].unlink()
        with pytest.raises(OSError, match="cannot be published: 550"):
            await sink.commit()
        await sink.discard()
        assert (tmp_path / "out").read_bytes() == OLD
        assert not any(command.endswith(".old") for command in proxy.commands)


async def test_an_answer_that_passes_is_waited_for(vs: FtpServer) -> None:
    (vs.root / "out").write_bytes(OLD)
    async with proxied(vs, Fault(command="RNTO", answer="451 try again", times=2)) as (proxy, through):
        await put(at(through, "out"), NEW)
        assert verbs(proxy.commands).count("DELE") == 0
        await clients.close_idle()
    assert (vs.root / "out").read_bytes() == NEW
    empty(vs)


@pytest.mark.parametrize("fixture", ["pro", "vs", "only to free"])
@pytest.mark.parametrize("mode", [0o755, 0])
async def test_a_folder_is_not_replaced(
    fixture: str, mode: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with served(OnlyToFree, tmp_path) as only_to_free:
        server = only_to_free if fixture == "only to free" else request.getfixturevalue(fixture)
        (server.root / "out").mkdir(mode=mode)
        with pytest.raises(OSError, match="out cannot be published: 550"):
            await put(at(server, "out"), NEW)
        assert [path.name for path in server.root.iterdir()] == ["out"]
        assert (server.root / "out").is_dir()
        await clients.close_idle()
        empty(server)


async def test_a_server_that_only_renames_to_free_names(tmp_path: Path) -> None:
    async with replacing(tmp_path) as (proxy, through):
        for content in (NEW, b"newer" * 100_000):
            await put(at(through, "out"), content)
            assert await get(at(through, "out")) == content
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert "DELE /out" not in proxy.commands
    assert not journal.unfinished
    assert not [entry for entry in journal._noted if entry.startswith(healing.TOGETHER)]


@pytest.mark.parametrize("answer", ["550 no", "553 no", "451 not now", "421 good bye"])
async def test_any_command_of_a_replacement_is_refused(
    answer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await _disturbed(tmp_path, caplog, answer=answer)


@pytest.mark.parametrize("after", [False, True])
async def test_the_connection_is_lost_over_any_command_of_a_replacement(
    after: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await _disturbed(tmp_path, caplog, after=after)


async def _disturbed(root: Path, caplog: pytest.LogCaptureFixture, **what: Any) -> None:
    """Each of the commands once: what is there is the new file if that is said, and else the old one."""
    outcomes = set()
    for verb, skip in await steps(root):
        async with replacing(root, Fault(command=verb, skip=skip, **what)) as (proxy, through):
            try:
                await put(at(through, "out"), NEW)
                expected = NEW
            except OSError:
                expected = OLD
            assert (root / "out").read_bytes() == expected, (verb, skip, proxy.commands)
            assert proxy.faults[0].times == 0
            outcomes.add(expected)
        for path in root.glob(".af-*"):
            assert expected == NEW, (verb, skip)
            assert path.name in caplog.text  # it is not removed, and somebody is told
            path.unlink()
        caplog.clear()
    assert NEW in outcomes


async def test_a_replacement_comes_to_its_end_whatever_cancels_arrive(tmp_path: Path) -> None:
    for verb, skip in await steps(tmp_path):
        async with replacing(tmp_path) as (proxy, through):
            writing = asyncio.create_task(put(at(through, "out"), NEW))
            while verbs(proxy.commands).count(verb) <= skip and not writing.done():
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
            assert (tmp_path / "out").read_bytes() == NEW, (verb, skip)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not journal.unfinished


async def test_a_new_file_that_is_taken_away_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one does not come back for it."""

    settle = Publication.settle
    taken = []

    async def take_it_away(self: Publication, connection: Connection) -> bool:
        taken.append((tmp_path / "out").read_bytes())
        (tmp_path / "out").unlink()
        return await settle(self, connection)

    monkeypatch.setattr(Publication, "settle", take_it_away)
    async with replacing(tmp_path) as (_, through):
        await put(at(through, "out"), NEW)
        assert taken == [NEW]
        assert await at(through, "out").exists() is False
        assert not left(through)


# The server is slow -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["pro", "vs"])
@pytest.mark.parametrize("before", [None, OLD, b"won"])
async def test_a_rename_that_is_done_while_it_is_tried_again(
    fixture: str, before: bytes | None, request: pytest.FixtureRequest
) -> None:
    """Its answer is lost; the server does it just before the second one, which it refuses."""
    server: FtpServer = request.getfixturevalue(fixture)
    if before is not None:
        (server.root / "out").write_bytes(before)
    async with proxied(server, Fault(command="RNTO", late=True)) as (proxy, through):
        await put(at(through, "out"), NEW)
        assert verbs(proxy.commands).count("RNTO") == 2
        assert await get(at(through, "out")) == NEW
        await clients.close_idle()
    assert not left(server)
    assert not journal.unfinished
    empty(server)


@pytest.mark.parametrize("when", ["at the next DELE", "when all is over"])
async def test_an_old_file_that_is_renamed_late_is_not_renamed_twice(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does it as this gives up, and it is not removed then: the next process gives it its name back."""

    async def not_yet(proxy: Proxy, name: str) -> None:
        """The server takes its time."""
        if when.endswith(name):
            await deliver(proxy, "RNTO")

    deliver = Proxy.deliver
    async with replacing(tmp_path, Fault(command="RNTO", skip=1, late=True)) as (proxy, through):
        with monkeypatch.context() as patch:
            patch.setattr(Proxy, "deliver", not_yet)
            with pytest.raises(ConnectionError, match=r"was lost as the file .*\.old.* may not have been done"):
                await put(at(through, "out"), NEW)
        assert sum(verb == "RNTO" and command.endswith(".old") for verb, command in said(proxy)) == 1
        assert not (tmp_path / "out").exists() or (tmp_path / "out").read_bytes() == OLD
        (entry,) = journal.unfinished
        await proxy.deliver("RNTO")
        assert [path.suffix for path in tmp_path.iterdir()] == [".old"]
        monkeypatch.setitem(servers.accepted, (through.host, through.port, through.user), through.password)
        await asyncio.to_thread(healing._finish, entry)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_bytes() == OLD


async def test_a_file_that_cannot_get_its_name_back_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the new one nor the old one is taken under that name any more."""
    faults = [Fault(command="RNTO", skip=2, answer="550 not that name", times=100)]
    async with replacing(tmp_path, *faults) as (_, through):
        with pytest.raises(OSError, match="550 not that name"):
            await put(at(through, "out"), NEW)
    (aside,) = tmp_path.iterdir()
    content = aside.read_bytes()
    aside.unlink()
    assert content == OLD
    assert aside.name in caplog.text
    assert [record.levelno for record in caplog.records if aside.name in record.getMessage()] == [logging.ERROR]
    assert journal.unfinished  # for the next process


# The process is killed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "between", "published", "over"])
@pytest.mark.parametrize("several", [False, True])
async def test_a_process_that_was_killed_as_it_replaced_a_file(
    several: bool, when: str, vs: FtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file is the old one again; of several the new ones are published, as had been decided."""
    monkeypatch.setitem(servers.accepted, (vs.host, vs.port, vs.user), vs.password)
    target = at(vs, "out")
    await put(target, OLD)
    sink = FTPSink(target.server, target.path, target.key, None)
    await sink.write(NEW)
    together = await sink.prepare()
    (temp,) = left(vs)
    aside = temp.with_suffix(".old")
    if when != "before":
        (vs.root / "out").rename(aside)
    if when in ("published", "over"):
        temp.rename(vs.root / "out")
    if when == "over":
        aside.unlink()
    new = when in ("published", "over") or several
    for step in [*([together] if several else []), {**together, "was": None}] * 2:
        await asyncio.to_thread(healing.finishers["ftp"], json.loads(json.dumps(step)))
        assert (vs.root / "out").read_bytes() == (NEW if new else OLD)
    assert not aside.exists()
    token = journal.token()
    await asyncio.to_thread(healing.cleaners["ftp"], target.server.url(posixpath.dirname(target.path) or "/"), token)
    assert [path.name for path in vs.root.iterdir()] == ["out"]
    await clients.close_idle()
    empty(vs)


async def test_cleaning_up_leaves_what_was_somebody_s_file(vs: FtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.accepted, (vs.host, vs.port, vs.user), vs.password)
    (vs.root / ".af-deadbeef0123.part").write_bytes(b"")
    (vs.root / ".af-deadbeef0123.old").write_bytes(OLD)
    assert await asyncio.to_thread(healing.cleaners["ftp"], at(vs, "x").server.url("/files"), "deadbeef") == 1
    assert [path.name for path in left(vs)] == [".af-deadbeef0123.old"]
    empty(vs)
