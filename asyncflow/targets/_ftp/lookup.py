"""Questions about names: is it there, how large, when was it written. An answer that cannot be had is an error.

``550`` means "not there", or "you may not", or "not a file": it is believed when the parent's listing confirms it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from ...errors import TargetStateUnknown
from .connection import Connection, Reply
from .listing import Listing, list_folder

__all__ = ["is_file", "is_there", "many_there", "modified", "refusal", "size_of"]

LOOKS = 2
"""How often a folder that cannot be listed is looked for."""

MANY = 3
"""From so many names in one folder on, its listing is fewer round trips than a question about each."""


async def is_there(connection: Connection, path: str) -> bool:
    """Whether ``path`` is there. Raises ``OSError``, ``TargetStateUnknown``."""
    for question in ("SIZE", "MDTM", "MLST"):
        reply = await connection.knows(f"{question} {path}")
        if reply is not None:
            if reply.good:
                return True
            break
    return await _listed(connection, path)


async def is_file(connection: Connection, path: str) -> bool:
    """Whether ``path`` is there, and no folder. Raises ``OSError``, ``TargetStateUnknown``."""
    if await size_of(connection, path) is None and "SIZE" not in connection.lacks:
        return False
    if not await is_there(connection, path):
        return False
    return not (await connection.ask(f"CWD {path}")).good  # some tell the size of a folder, too


async def many_there(connection: Connection, paths: Sequence[str]) -> list[bool | BaseException]:
    """The same for several names in one folder; in the place of an answer that cannot be had, the error.

    Raises ``OSError``.
    """
    folder = posixpath.dirname(paths[0])
    if len(paths) >= MANY:
        listing = await list_folder(connection, folder, many=True)
        if listing is not None:
            answers = [listing.has(posixpath.basename(path)) for path in paths]
            return [
                await _or_unknown(connection, path) if answer is None else answer
                for path, answer in zip(paths, answers, strict=True)
            ]
        if not await _is_folder(connection, folder):
            return [False] * len(paths)
    return [await _or_unknown(connection, path) for path in paths]


async def _or_unknown(connection: Connection, path: str) -> bool | BaseException:
    try:
        return await is_there(connection, path)
    except TargetStateUnknown as error:
        return error


async def _listed(connection: Connection, path: str) -> bool:
    """Whether the listing of its parent has it; where there is none, whether the parent is missing as well."""
    folder, name = posixpath.split(path)
    if not name:
        raise TargetStateUnknown(f"{connection.server.name} does not list {path}")
    for _ in range(LOOKS):
        listing = await list_folder(connection, folder)
        if listing is not None:
            break
        if not await _is_folder(connection, folder):
            return False
        # It is there: it may not be read, or was made just now.
    else:
        raise TargetStateUnknown(f"{connection.server.name} neither says whether {path} is there, nor lists {folder}")
    answer = listing.has(name)
    if answer is None:
        raise TargetStateUnknown(f"whether {name!r} is in the listing of {folder} cannot be told from its lines")
    return answer


async def _is_folder(connection: Connection, path: str) -> bool:
    """Whether ``path`` is there, and a folder as far as its own parent knows."""
    folder, name = posixpath.split(path)
    if not name:
        return True
    listing: Listing | None = await list_folder(connection, folder)
    if listing is None:
        return await _is_folder(connection, folder)
    return listing.folders.get(name, listing.has(name) is not False)


async def size_of(connection: Connection, path: str) -> int | None:
    """Its size in bytes; None if the server does not tell, or has no such file. Raises ``OSError``."""
    reply = await connection.knows(f"SIZE {path}")
    if reply is not None:
        number = reply.lines[-1].strip() if reply.code == 213 else ""
    else:
        reply = await connection.knows(f"MLST {path}")
        found = re.search(r"(?i)(?:^|[\s;])size=(\d+);", " ".join(reply.lines)) if reply is not None else None
        number = found[1] if found is not None else ""
    return int(number) if number.isdigit() else None


async def modified(connection: Connection, path: str) -> str | None:
    """When it was written, in the server's words; None if it does not tell. Raises ``OSError``."""
    reply = await connection.knows(f"MDTM {path}")
    return reply.lines[-1].strip() if reply is not None and reply.code == 213 else None


async def refusal(connection: Connection, path: str, reply: Reply) -> OSError:
    """Why ``path`` is not given: it is not there, or may not be read. Raises ``OSError`` where that cannot be asked."""
    name = f"ftp://{connection.server.name}{path}"
    if reply.code in (450, 550, 553):
        try:
            if not await is_there(connection, path):
                return FileNotFoundError(2, "no such file", name)
        except TargetStateUnknown:
            pass
    return reply.error(f"{name} cannot be read")
