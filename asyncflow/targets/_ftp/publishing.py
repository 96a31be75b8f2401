"""The one step that makes an upload visible: a rename, by whoever takes it."""

from __future__ import annotations

from .connection import Connection, Reply
from .lookup import is_there, modified, size_of

__all__ = ["replace", "state_of"]


async def replace(connection: Connection, temp: str, path: str, key: str) -> None:
    """Rename ``temp`` to ``path``, over what is there. Raises ``OSError``, in which it is called ``key``."""
    reply = await _rename(connection, temp, path, key)
    if not reply.good and await is_there(connection, path):
        # This server renames to names that are free. There is a moment without the file, and never half of one.
        await connection.must(f"DELE {path}", f"{key} cannot be replaced", 250, 200)
        reply = await _rename(connection, temp, path, key)
    if not reply.good:
        raise reply.error(f"{key} cannot be published")


async def state_of(connection: Connection, path: str) -> list[int | str | None]:
    """What can be told of the file without reading it: whether another one has come since. Raises ``OSError``."""
    return [await size_of(connection, path), await modified(connection, path)]


async def _rename(connection: Connection, temp: str, path: str, key: str) -> Reply:
    await connection.must(f"RNFR {temp}", f"{key} cannot be published", 350)
    return await connection.ask(f"RNTO {path}")
