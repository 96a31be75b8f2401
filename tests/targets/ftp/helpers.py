"""What the tests of FTP share."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aioftp

from asyncflow import clients
from asyncflow.targets.ftp import FTPTarget
from examples.servers.ftp import FtpServer


def at(server: FtpServer, name: str, **given: Any) -> FTPTarget:
    """The target for a name in the server's folder."""
    options: dict[str, Any] = {
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "tls": server.tls or "none",
        "ca": server.certificate,
    }
    return FTPTarget(server.host, f"{server.home.rstrip('/')}/{name}", **{**options, **given})


def left(server: FtpServer) -> list[Path]:
    """The temporaries that lie on the server."""
    return list(server.root.rglob(".af-*"))


def empty(server: FtpServer) -> None:
    for path in server.root.iterdir():
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
            shutil.rmtree(path)
        else:
            path.unlink()


async def put(target: FTPTarget, content: bytes, block: int = 256 * 1024) -> None:
    async with target.open("wb") as file:
        for start in range(0, len(content), block):
            await file.write(content[start : start + block])


async def get(target: FTPTarget) -> bytes:
    async with target.open("rb") as file:
        return await file.read()


@asynccontextmanager
async def served(kind: type[aioftp.Server], root: Path) -> AsyncIterator[FtpServer]:
    """A server of aioftp's, which does not rename to a name in use."""
    server = kind([aioftp.User("u", "p", base_path=root)])
    await server.start("127.0.0.1", 0)
    try:
        yield FtpServer("127.0.0.1", server.server_port, "u", "p", None, None, "/", root)
    finally:
        await clients.close_idle()
        await server.close()
