"""What a killed process has left on servers: the next one removes it, or publishes it where that was decided."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from ... import healing
from ...errors import TargetStateUnknown
from . import server as servers
from .connection import Connection
from .listing import list_folder
from .lookup import is_there, size_of
from .publishing import TEMPORARY, Publication, state_of
from .server import Server, parse

__all__: list[str] = []

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds for one folder."""


def _clean(place: str, token: str) -> int:
    """Remove the temporaries of ``token`` in the folder that the URL ``place`` names; how many. Raises ``OSError``."""
    server, folder = parse(place)
    return asyncio.run(_connected(server, partial(_remove_all, folder=folder or "/", token=token)))


def _finish(step: Mapping[str, Any]) -> None:
    """Rename what a process was about to rename when it was killed. Raises ``OSError``."""
    server, temp = parse(step["place"])
    asyncio.run(_connected(server, partial(_publish, temp=temp, path=step["to"], was=step["was"])))


async def _publish(connection: Connection, temp: str, path: str, was: list[int | str | None] | None) -> None:
    """Publish it where what was there is there still; ``was`` is None where only that is to have its name again."""
    key = f"ftp://{connection.server.name}{path}"
    publication = Publication(temp, path, key, await size_of(connection, temp), _noted)
    try:
        publication.moved = await is_there(connection, publication.aside)
        if was is not None and await is_there(connection, temp):
            between = publication.moved and not await is_there(connection, path)  # it was killed as it replaced it
            if between or await state_of(connection, path) == was:
                await publication.publish(connection)
        # Else it was done; or somebody has made it anew since, and what is left goes with the rest.
    finally:
        await publication.settle(connection)


async def _noted() -> None:
    """The journal in which this was found says so already."""


async def _connected(server: Server, work: Callable[[Connection], Awaitable[T]]) -> T:
    async with asyncio.timeout(PATIENCE):
        secret = servers.accepted.get((server.host, server.port, server.user)) or server.secret()
        connection = await Connection.open(server, server.context(), secret, set())
        try:
            return await work(connection)
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
    # What a file that was there is called while it is replaced is no temporary: the step that replaces it says more.
    left = [name for name in listing.folders if name.startswith(f".af-{token}") and name.endswith(TEMPORARY)]
    for name in left:
        await connection.must(f"DELE {posixpath.join(folder, name)}", f"{name} cannot be removed", 200, 250)
    return len(left)


healing.cleaners["ftp"] = _clean
healing.finishers["ftp"] = _finish
