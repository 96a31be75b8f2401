"""The target as a value: what it is made of, what it refuses, what it tells nobody."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import BuildResult, Target, TargetStateUnknown, Task, build, clients, healing
from asyncflow.codecs import Json, JsonLines
from asyncflow.targets._ftp import server as servers
from asyncflow.targets._ftp.server import Server
from asyncflow.targets._ftp.sink import FTPSink
from asyncflow.targets.ftp import FTPTarget
from asyncflow.targets.together import together
from examples.servers.ftp import FtpServer, proftpd, vsftpd
from tests.servers import had
from tests.targets.ftp.helpers import at, empty, get, left, put
from tests.targets.ftp.proxy import Fault, proxied

SECRET = "canary-7f3a"


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await clients.close_idle()


@pytest.fixture(autouse=True)
def _own_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(servers, "accepted", {})


# Values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "tls", "port", "key"),
    [
        ("ftp://host/a/b.csv", "none", 21, "ftp://anonymous@host:21/a/b.csv"),
        ("ftp://me@host:2121/a%20b", "none", 2121, "ftp://me@host:2121/a b"),
        ("ftpes://me@host/x", "explicit", 21, "ftp://me@host:21/x"),
        ("ftps://me:s%40crt@HOST/x", "implicit", 990, "ftp://me@host:990/x"),
        ("ftp://a%40b@[::1]/x", "none", 21, "ftp://a%40b@[::1]:21/x"),
    ],
)
def test_urls(url: str, tls: str, port: int, key: str) -> None:
    target = FTPTarget.from_url(url)
    assert (target.server.tls, target.server.port, target.key) == (tls, port, key)
    assert FTPTarget.from_url(target.server.url(target.path)) == target


@pytest.mark.parametrize(
    "url",
    [
        *("http://host/x", "ftp:///x", "ftp://host", "ftp://host:port/x", "ftp://host:99999/x", "ftp://host/a#b"),
        *("ftp://host/a?b", "ftp://host/a//b", "ftp://host/a/../b", "ftp://host/a%0d%0ab", "ftp://host/x?ca=/c"),
    ],
)
def test_urls_that_are_wrong(url: str) -> None:
    with pytest.raises(ValueError, match=r".{20}") as caught:
        FTPTarget.from_url(url.replace("://", f"://me:{SECRET}@"))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"path": "relative/x"}, "'/relative/x'"),
        ({"path": ""}, "absolute"),
        ({"path": "/"}, "names a file"),
        ({"path": "/a\r\nDELE b"}, "line end"),
        ({"path": "/a\0"}, "NUL"),
        ({"path": "/x" * 600}, "1,024 bytes"),
        ({"path": "/\ud800"}, "UTF-8"),
        ({"host": "host/x"}, "host name"),
        ({"host": "me@host"}, "host name"),
        ({"host": ""}, "host name"),
        ({"port": 0}, "65535"),
        ({"port": True}, "65535"),
        ({"user": "a\nb"}, "line end"),
        ({"user": ""}, "empty"),
        ({"password": f"{SECRET}\r\n"}, "line end"),
        ({"tls": "yes"}, "'explicit'"),
        ({"ca": "/ca.pem"}, "tls='explicit'"),
    ],
)
def test_values_that_are_refused(wrong: dict[str, str], words: str) -> None:
    given = {"host": "host", "path": "/x", **wrong}
    with pytest.raises(ValueError, match=words) as caught:
        FTPTarget(given.pop("host"), given.pop("path"), **given)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


def test_types_that_are_refused() -> None:
    with pytest.raises(TypeError, match="is a str, not bytes"):
        FTPTarget("host", b"/x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not int"):
        FTPTarget("host", "/x", password=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the mode is"):
        FTPTarget("host", "/x").open("a")  # type: ignore[call-overload]


def test_a_password_is_shown_nowhere() -> None:
    target = FTPTarget("host", "/x", user="me", password=SECRET, tls="explicit")
    for shown in (repr(target), str(target), target.key, repr(target.server), repr(target.open)):
        assert SECRET not in shown
    with pytest.warns(RuntimeWarning, match="never awaited") as warned:
        target.remove().__del__()
    assert SECRET not in str(warned[0].message)
    assert target == FTPTarget("host", "/x", user="me")
    assert pickle.loads(pickle.dumps(target)).server.password == SECRET


@given(st.text(max_size=40))
def test_no_path_is_two_commands(text: str) -> None:
    try:
        target = FTPTarget("host", f"/{text}")
    except ValueError:
        return
    assert not {"\r", "\n", "\0"} & set(target.path)
    target.path.encode()


# Logins -----------------------------------------------------------------------------------------------------


async def test_every_command_is_one_line(pro: FtpServer) -> None:
    async with proxied(pro) as (proxy, through):
        for name in ("a\tb", "a b", "a\x0bb\x1f", "ü\u2028\x85", "'; DELE x"):
            await put(at(through, name), b"x")
            assert await get(at(through, name)) == b"x"
        verbs = {command.split(" ")[0] for command in proxy.commands}
        assert verbs <= {*("USER", "PASS", "OPTS", "TYPE", "EPSV", "STOR", "SIZE", "RNFR", "RNTO", "RETR", "MDTM")}
        await clients.close_idle()
    empty(pro)


async def test_a_wrong_password_is_said_without_it(pro: FtpServer) -> None:
    target = at(pro, "x", password=SECRET)
    with pytest.raises(PermissionError, match=r"flow@localhost:\d+ refuses the login \(user 'flow'\): 530") as caught:
        await put(target, b"x")
    assert SECRET not in str(caught.value)
    with pytest.raises(TargetStateUnknown, match="refuses the login") as unknown:
        await target.exists()
    assert SECRET not in str(unknown.value)


async def test_the_password_of_netrc(pro: FtpServer, tmp_path: Path) -> None:
    target = at(pro, "x", password=None)
    with pytest.raises(
        TargetStateUnknown, match=r"no password for flow@localhost.*netrc: machine localhost login flow"
    ):
        await target.exists()
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine localhost login flow password {pro.password}\n")
    netrc.chmod(0o600)
    assert await target.exists() is False
    netrc.write_text(f"machine localhost {SECRET}\n")
    await clients.close_idle()
    monkey = at(pro, "x", password=None, user="other")
    with pytest.raises(TargetStateUnknown, match="cannot be read") as caught:
        await monkey.exists()
    assert SECRET not in str(caught.value)


async def test_a_password_in_clear_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert Server("ftp.example.org", 21, "me", SECRET, "none", None).context() is None
    Server("localhost", 21, "me", SECRET, "none", None).context()
    (record,) = caplog.records
    assert "crosses the network in clear" in record.getMessage()
    assert SECRET not in record.getMessage()


async def test_a_password_is_in_no_log(pro: FtpServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await put(at(pro, "logged"), b"x")
    assert pro.password not in caplog.text
    empty(pro)


@pytest.mark.parametrize("fixture", ["pro_tls", "vs_tls"])
async def test_a_certificate_that_nobody_has_signed_is_refused(
    fixture: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: FtpServer = request.getfixturevalue(fixture)
    with pytest.raises(TargetStateUnknown, match=r"no TLS with .* self.signed certificate; .* give ca=FILE"):
        await at(server, "x", ca=None).exists()
    with pytest.raises(OSError, match="self.signed"):
        await put(at(server, "x", ca=None), b"x")
    assert await at(server, "x").exists() is False
    context = at(server, "x").server.context()
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(TargetStateUnknown, match=r"FTPTarget\(ca='/no/such'\)"):
        await at(server, "x", ca="/no/such").exists()


async def test_tls_with_a_server_that_has_none(pro: FtpServer) -> None:
    with pytest.raises(TargetStateUnknown, match="refuses AUTH TLS"):
        await at(pro, "x", tls="explicit").exists()


async def test_what_is_put_before_tls_is_not_taken_for_an_answer(pro_tls: FtpServer) -> None:
    async with proxied(pro_tls, Fault(command="AUTH", answer="234 go on\r\n230 logged in")) as (_, through):
        with pytest.raises(TargetStateUnknown, match="unprotected"):
            await at(through, "x").exists()
        await clients.close_idle()


@pytest.mark.parametrize("kind", [proftpd, vsftpd])
async def test_implicit_tls(kind: object) -> None:
    with had(kind(tls="implicit")) as server:  # type: ignore[operator]
        await put(at(server, "a/file"), b"content" * 100_000)
        assert await get(at(server, "a/file")) == b"content" * 100_000
        assert await at(server, "a/missing").exists() is False
        await clients.close_idle()


# Other work -------------------------------------------------------------------------------------------------


async def test_size_and_remove(pro: FtpServer) -> None:
    target = at(pro, "sized")
    with pytest.raises(FileNotFoundError, match="ftp://flow@localhost"):
        await target.size()
    with pytest.raises(FileNotFoundError, match="ftp://flow@localhost"):
        await get(target)
    await target.remove()
    await put(target, b"12345")
    assert await target.size() == 5
    await target.remove()
    assert await target.exists() is False


async def test_values(pro: FtpServer) -> None:
    await at(pro, "value.json", codec=Json()).write({"a": 1})
    assert await at(pro, "value.json", codec=Json()).read() == {"a": 1}
    rows = at(pro, "rows.jsonl.gz", codec=JsonLines(gzip=True))
    await rows.write({"n": n} for n in range(10_000))
    assert [row["n"] async for row in rows.rows()] == list(range(10_000))
    empty(pro)


def test_in_sync_code(pro: FtpServer) -> None:
    target = at(pro, "sync", codec=Json())
    assert not target.exists()
    target.write([1, 2]).result()
    assert target.exists()
    assert target.read().result() == [1, 2]
    with target.open() as file:
        assert file.read().split() == ["[1,2]"]
    assert target.size().result() > 0
    target.remove().result()
    assert not target.exists()


def test_in_sync_bodies(pro: FtpServer) -> None:
    class Made(Task):
        n: int

        def output(self) -> Target:
            return at(pro, f"sync/{self.n}")

        def run(self) -> None:
            with at(pro, f"sync/{self.n}").open("w") as file:
                file.write(f"{self.n}\n")

    result = asyncio.run(_built([Made(n=n) for n in range(20)]))
    result.raise_for_failure()
    assert sorted(path.name for path in (pro.root / "sync").iterdir()) == sorted(str(n) for n in range(20))
    empty(pro)


async def _built(tasks: list[Task]) -> BuildResult:
    return await build(tasks)


async def test_a_reader_that_stops_early_takes_its_connection_along(pro: FtpServer) -> None:
    await put(at(pro, "long"), bytes(2_000_000))
    async with at(pro, "long").open("rb") as file:
        assert await file.read(10) == bytes(10)
    assert await at(pro, "long").exists() is True
    assert await at(pro, "none").exists() is False
    empty(pro)


async def test_what_cannot_be_cleaned_stays_in_the_journal(pro: FtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    (pro.root / ".af-deadbeef0123.part").write_bytes(b"")
    (pro.root / ".af-othersid0123.part").write_bytes(b"")
    place = at(pro, "x").server.url("/")
    assert pro.password not in place
    clean = healing.cleaners["ftp"]
    with pytest.raises(PermissionError, match="no password"):
        await asyncio.to_thread(clean, place, "deadbeef")
    monkeypatch.setitem(servers.accepted, (pro.host, pro.port, pro.user), pro.password)
    assert await asyncio.to_thread(clean, place, "deadbeef") == 1
    assert await asyncio.to_thread(clean, place + "gone", "deadbeef") == 0
    assert [path.name for path in left(pro)] == [".af-othersid0123.part"]
    empty(pro)


async def test_several_outputs_at_one_moment(pro: FtpServer) -> None:
    one, two = at(pro, "one"), at(pro, "two")
    async with together(one.open("wb"), two.open("wb")) as (first, second):
        await first.write(b"1")
        await second.write(b"2" * 600_000)
    assert await get(one) == b"1"
    assert await get(two) == b"2" * 600_000
    with pytest.raises(ZeroDivisionError):
        async with together(one.open("wb"), two.open("wb")) as (first, second):
            await second.write(b"3" * 600_000)
            raise ZeroDivisionError
    assert await get(two) == b"2" * 600_000
    assert not left(pro)
    empty(pro)


async def test_what_was_about_to_be_published_is(pro: FtpServer) -> None:
    for before in (None, b"old"):
        target = at(pro, f"step {before!r}")
        if before is not None:
            await put(target, before)
        sink = FTPSink(target.server, target.path, target.key, None)
        await sink.write(b"new")
        step = json.loads(json.dumps(await sink.prepare()))
        assert pro.password not in str(step)
        finish = healing.finishers["ftp"]
        await asyncio.to_thread(finish, step)
        assert await get(target) == b"new"
        await put(target, b"made anew")
        await asyncio.to_thread(finish, step)  # a second time
        assert await get(target) == b"made anew"
        await sink.discard()
    assert not left(pro)
    empty(pro)


def test_without_aioftp() -> None:
    program = (
        "import sys; sys.modules['aioftp'] = None\n"
        "try:\n    import asyncflow.targets.ftp\n"
        "except ImportError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.endswith("pip install 'asyncflow-engine[ftp]'\n")
