"""FTPTarget keeps the contract of targets on real servers, plain and with TLS."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from asyncflow import Target
from asyncflow.targets.ftp import FTPTarget
from asyncflow.testing import TargetContract
from examples.servers.ftp import FtpServer


class OnServer(TargetContract):
    server: FtpServer

    @pytest.fixture(autouse=True)
    def _folder(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.server = request.getfixturevalue(self.fixture)
        yield
        for path in self.server.root.iterdir():
            path.chmod(0o700)
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    fixture: str

    def make(self, name: str) -> FTPTarget:
        return target(self.server, f"store/{name}")

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.server.root.rglob(".af-*")]

    def unknown(self) -> Target:
        (self.server.root / "locked").mkdir(mode=0o000)
        return target(self.server, "locked/x")


class TestProftpd(OnServer):
    fixture = "pro"


class TestVsftpd(OnServer):
    fixture = "vs"


class TestProftpdTls(OnServer):
    fixture = "pro_tls"


class TestVsftpdTls(OnServer):
    fixture = "vs_tls"


def target(server: FtpServer, name: str) -> FTPTarget:
    return FTPTarget(
        server.host,
        f"{server.home.rstrip('/')}/{name}",
        port=server.port,
        user=server.user,
        password=server.password,
        tls=server.tls or "none",
        ca=server.certificate,
    )
