"""The program of the guide to FTP does what it says."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from asyncflow import clients
from asyncflow.targets import ftp
from asyncflow.targets.ftp import FTPTarget
from examples.servers.ftp import FtpServer
from tests.targets.ftp.helpers import empty, left

GUIDE = Path(__file__).parents[3] / "docs" / "ftp.md"


async def test_the_guide(pro_tls: FtpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its server is the one that is there, which nobody has signed."""
    (program,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {pro_tls.host} login {pro_tls.user} password {pro_tls.password}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setattr(ftp, "default_port", lambda tls: pro_tls.port)
    monkeypatch.setattr("asyncflow.targets._ftp.server.default_port", lambda tls: pro_tls.port)
    monkeypatch.setenv("SSL_CERT_FILE", str(pro_tls.certificate))
    program = program.replace("ftp.example.org", pro_tls.host).replace("shop", pro_tls.user)
    space: dict[str, Any] = {"__name__": "guide"}
    code = compile(program, str(GUIDE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    await eval(code, space)
    assert space["result"]
    lines = (pro_tls.root / "copies" / "monday").read_text().splitlines()
    assert [json.loads(line)["order"] for line in lines] == [0, 1, 2]
    assert isinstance(space["Orders"](day="monday").output(), FTPTarget)
    assert not left(pro_tls)
    await clients.close_idle()
    empty(pro_tls)
