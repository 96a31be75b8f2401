"""What a folder's listing says, in whichever of its forms, and what it cannot say.

Whether a name is absent is read off the ends of the lines: a line that nobody can parse, but that ends with the name,
leaves it open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import aioftp

from .connection import Connection, Reply, Transfer

__all__ = ["Listing", "list_folder"]

# drwxr-xr-x   2 user  group  4096 Nov 21 17:34 name
_UNIX = re.compile(r"([a-zA-Z-])\S{9,10}\s+\d+\s+\S+\s+\S+\s+\d+\s+(?:\w{3}\s+\d+\s+\d[\d:]*|\d\S*\s+\d\S*)\s(.*)")

_PLAIN = re.compile(r"/(?:[\w@+=,%.-]+/)*[\w@+=,%.-]*")
"""Names that no server takes for a pattern or an option."""


class Listing:
    """The names in a folder. ``proven`` if the listing itself shows that the folder could be read."""

    def __init__(self) -> None:
        self.folders: dict[str, bool] = {}
        """By name: whether it may be a folder, as far as the listing tells (a link may)."""
        self.proven = False
        self._unread: list[str] = []

    def has(self, name: str) -> bool | None:
        """Whether the name is there; None if some line of the listing may mean it."""
        if name in self.folders:
            return True
        return None if any(line.endswith(name) for line in self._unread) else False

    @classmethod
    def of_facts(cls, lines: Iterable[str]) -> Listing:
        """Of the lines of MLSD: ``type=file;size=3; name``."""
        self = cls()
        self.proven = True  # where it could not be read, there would be an error instead
        for line in lines:
            facts, space, name = line.partition(" ")
            kind = re.search(r"(?:^|;)type=([^;]*)", facts, re.IGNORECASE)
            if not space:
                self._unread.append(line)
            elif kind is None or kind[1].lower() not in ("cdir", "pdir"):
                self.folders[name.rpartition("/")[2]] = kind is None or kind[1].lower() != "file"
        return self

    @classmethod
    def of_lines(cls, lines: Iterable[str]) -> Listing:
        """Of the lines of LIST or STAT, as ``ls -la`` writes them, or DOS."""
        self = cls()
        for line in lines:
            if not line.strip() or re.fullmatch(r"total \d+", line):
                continue
            if (found := _UNIX.fullmatch(line)) is not None:
                kind, name = found[1], found[2]
                if kind == "l":
                    name = name.partition(" -> ")[0]
            elif (parsed := _by_aioftp(line)) is not None:
                kind, name = parsed
            else:
                self._unread.append(line)
                continue
            if name in (".", ".."):
                self.proven = True
            else:
                self.folders[name.rpartition("/")[2]] = kind in ("d", "l")
        return self


def _by_aioftp(line: str) -> tuple[str, str] | None:
    """What aioftp makes of a line: it knows DOS and some more."""
    try:
        name, facts = aioftp.Client().parse_list_line(line.encode("utf-8", "surrogateescape"))
    except ValueError:
        return None
    return ("d" if facts["type"] == "dir" else "-"), str(name)


async def list_folder(connection: Connection, folder: str, *, many: bool = False) -> Listing | None:
    """The listing of ``folder``; None if the server gives none that is whole, or none that shows it could be read.

    STAT comes first, since it is one command, and MLSD where ``many`` names are wanted. Raises ``OSError``.
    """
    ways = (_by_mlsd, _by_stat, _by_list) if many else (_by_stat, _by_mlsd, _by_list)
    for way in ways:
        listing = await way(connection, folder)
        if listing is not None and listing.proven:
            return listing
    return None


async def _by_stat(connection: Connection, folder: str) -> Listing | None:
    if not _PLAIN.fullmatch(folder):
        return None
    reply = await connection.knows(f"STAT -a {folder}")
    if reply is None or not reply.good:
        return None
    return Listing.of_lines(line.removeprefix(" ") for line in reply.lines[1:-1])  # ProFTPD begins each with a space


async def _by_mlsd(connection: Connection, folder: str) -> Listing | None:
    said = await _listed(connection, f"MLSD {folder}")
    return None if said is None else Listing.of_facts(said[0])


async def _by_list(connection: Connection, folder: str) -> Listing | None:
    if not (await connection.ask(f"CWD {folder}")).good:  # LIST takes a name for a pattern or an option, as it likes
        return None
    said = await _listed(connection, "LIST -a")
    listing = None if said is None else Listing.of_lines(said[0])
    if said is None or listing is None or not listing.proven:  # -a is not known
        said = await _listed(connection, "LIST")
        if said is None:
            return None
        listing = Listing.of_lines(said[0])
        # Without "." an empty folder looks as one that may not be read. It is believed where nothing better is known,
        # and the server does not say so: to vsftpd it is "226 Transfer done (but failed to open directory)."
        lacks = connection.lacks
        best = "MLSD" in lacks and ("STAT" in lacks or not _PLAIN.fullmatch(folder))
        failed = any("fail" in line.lower() for line in said[1].lines)
        listing.proven = listing.proven or (best and not failed)
    return listing


async def _listed(connection: Connection, command: str) -> tuple[list[str], Reply] | None:
    """The lines that come by a data connection, and the server's last word; None if it refuses.

    Raises ``OSError`` where they do not come to their end.
    """
    name = command.partition(" ")[0]
    if name in connection.lacks:
        return None
    transfer = await connection.begin(command)
    if not isinstance(transfer, Transfer):
        if transfer.code in (500, 502, 504):
            connection.lacks.add(name)
        return None
    parts = []
    try:
        while part := await transfer.receive(64 * 1024):
            parts.append(part)
        last = await transfer.finish()
    except BaseException:
        transfer.abort()
        connection.abort()
        raise
    if not last.good:
        raise ConnectionResetError(f"a listing has not come to its end: {last.code} {' '.join(last.lines)}")
    text = b"".join(parts).decode("utf-8", "surrogateescape")
    if text and not text.endswith("\n"):
        raise ConnectionResetError("a listing has been cut off in a line")
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip("\r")], last
