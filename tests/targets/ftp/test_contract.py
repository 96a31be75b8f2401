"""FTPTarget keeps the contract of targets on real servers, plain and with TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from asyncflow import Target
from asyncflow.targets.ftp import FTPTarget
from asyncflow.testing import TargetContract
from examples.servers.ftp import FtpServer
from tests.targets.ftp.helpers import at, empty, left


class OnServer(TargetContract):
    server: FtpServer

    @pytest.fixture(autouse=True)
    def _folder(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.server = request.getfixturevalue(self.fixture)
        yield
        empty(self.server)

    fixture: str

    def make(self, name: str) -> FTPTarget:
        return at(self.server, f"store/{name}")

    def leftovers(self) -> list[str]:
        return [str(path) for path in left(self.server)]

    def unknown(self) -> Target:
        (self.server.root / "locked").mkdir(mode=0o000)
        return at(self.server, "locked/x")


class TestProftpd(OnServer):
    fixture = "pro"

    def test_a_write_cancelled_anywhere_leaves_nothing_or_all(self) -> None:
        """In the styles that differ most: ProFTPD takes 0.2 s for each new connection after one has been given up."""
        for style in ("late", "anyio"):
            asyncio.run(self._cancelled(style))  # type: ignore[arg-type]


class TestVsftpd(OnServer):
    fixture = "vs"


class TestProftpdTls(OnServer):
    fixture = "pro_tls"

    def test_a_write_cancelled_anywhere_leaves_nothing_or_all(self) -> None:
        """In one style: ProFTPD takes 0.2 s for each new connection after one has been given up."""
        asyncio.run(self._cancelled("native"))


class TestVsftpdTls(OnServer):
    fixture = "vs_tls"
