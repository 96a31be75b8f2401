"""The servers, each started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.servers.ftp import FtpServer, proftpd, vsftpd
from tests.servers import had


@pytest.fixture(scope="session")
def pro() -> Iterator[FtpServer]:
    with had(proftpd()) as server:
        yield server


@pytest.fixture(scope="session")
def vs() -> Iterator[FtpServer]:
    with had(vsftpd()) as server:
        yield server


@pytest.fixture(scope="session")
def pro_tls() -> Iterator[FtpServer]:
    with had(proftpd(tls="explicit")) as server:
        yield server


@pytest.fixture(scope="session")
def vs_tls() -> Iterator[FtpServer]:
    with had(vsftpd(tls="explicit")) as server:
        yield server
