"""What a process that was killed has left on servers is removed by the next one, if that can log in."""

from __future__ import annotations

import asyncio
import posixpath

from ... import journal
from ...errors import TargetStateUnknown
from . import server as servers
from .connection import Connection
from .listing import list_folder
from .lookup import is_there
from .server import Server, parse

__all__: list[str] = []

PATIENCE = 60.0
"""Seconds for one folder."""


def _clean(place: str, token: str) -> int:
    """Remove the temporaries of ``token`` in the folder that the URL ``place`` names; how many. Raises ``OSError``."""
    server, folder = parse(place)
    return asyncio.run(_remove(server, folder or "/", token))


async def _remove(server: Server, folder: str, token: str) -> int:
    async with asyncio.timeout(PATIENCE):
        secret = servers.accepted.get((server.host, server.port, server.user)) or server.secret()
        connection = await Connection.open(server, server.context(), secret, set())
        try:
            return await _remove_all(connection, folder, token)
        except TargetStateUnknown as error:
            raise OSError(str(error)) from error
        finally:
            connection.abort()
            await asyncio.sleep(0)  # for the loop to close the socket


async def _remove_all(connection: Connection, folder: str, token: str) -> int:
    listing = await list_folder(connection, folder, many=True)
    if listing is None:
        if await is_there(connection, folder):
            raise OSError(f"{connection.server.name} does not list {folder}")
        return 0
    left = [name for name in listing.folders if name.startswith(f".af-{token}")]
    for name in left:
        await connection.must(f"DELE {posixpath.join(folder, name)}", f"{name} cannot be removed", 200, 250)
    return len(left)


journal.cleaners["ftp"] = _clean
