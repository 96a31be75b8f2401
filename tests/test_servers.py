"""A server that cannot be had is a skip that is counted, or a failure where it is required."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from examples.servers import ServerMissing
from examples.servers.process import free_ports, listening, program, running

TEST = """
from collections.abc import Iterator
from contextlib import contextmanager
import pytest
from examples.servers.process import program
from tests.servers import had

@contextmanager
def server() -> Iterator[str]:
    yield program("no-such-server", "install it")

@pytest.fixture(scope="session")
def store():
    with had(server()) as given:
        yield given

@pytest.mark.parametrize("n", range(3))
def test_store(store, n): ...
"""


@pytest.mark.parametrize("required", ["", "1"])
def test_a_server_that_cannot_be_had(required: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCFLOW_REQUIRE_SERVICES", required)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess("-q")
    if required:
        result.assert_outcomes(errors=3)
        result.stdout.fnmatch_lines(["*no-such-server is not on this machine: install it*may not be skipped*"])
    else:
        result.assert_outcomes(skipped=3)
        result.stdout.fnmatch_lines(["3 tests skipped: no-such-server is not on this machine: install it"])


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(ServerMissing, match=r"no-such-server is not on this machine: apt install it"):
        program("no-such-server", "apt install it")


def test_a_server_is_stopped_at_the_end(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    listen = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    with running([sys.executable, "-c", listen], lambda: listening(port), log=tmp_path / "log") as process:
        assert listening(port)
    assert process.returncode is not None
    assert not listening(port)


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"(?s)did not come up.*no luck"),
        running([sys.executable, "-c", "raise SystemExit('no luck')"], lambda: False, log=tmp_path / "log"),
    ):
        pass


def test_free_ports_may_be_wanted_in_pairs() -> None:
    ports = free_ports(3, apart=10_000)
    assert len(set(ports)) == 3
    assert not any(listening(port) or listening(port + 10_000) for port in ports)
