"""``FTPTarget``: a file on an FTP server, plain or with TLS."""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar, get_args

from ..attempt import current
from ..codecs import Codec
from ..errors import TargetStateUnknown
from ._extras import not_installed
from ._file import Operation, check_codec
from ._remote import RemoteTarget, operation

try:
    from ._ftp import leftovers as _leftovers  # noqa: F401  # for the journal: what killed processes have left
    from ._ftp.lookup import is_there, many_there, refusal, size_of
    from ._ftp.pool import LIMIT, Pool, pool_of
    from ._ftp.server import Server, Tls, default_port, parse
    from ._ftp.sink import FTPSink
    from ._ftp.source import FTPSource
except ModuleNotFoundError as error:
    raise not_installed(error, "ftp") from error

__all__ = ["FTPTarget"]

T = TypeVar("T")

LONGEST = 1024
"""Bytes in a path: servers cut off longer commands."""


class FTPTarget(RemoteTarget):
    """The file at ``path``, which is absolute on the server, e.g. ``FTPTarget("ftp.example.org", "/in/a.csv")``.

    Args:
        host, port: where the server is; the port is 21 by default, 990 with implicit TLS.
        user: "anonymous" by default.
        password: in the pickles of the target, where it is given. Left out, it is looked up in ``~/.netrc`` (or the
            file that ``NETRC`` names), where curl and others look, as a connection is made: it is in no pickle then.
            It is never in a key, a log or an error.
        tls: "explicit" (AUTH TLS), "implicit", or "none". The certificate is verified, for data as well.
        ca: a file with the certificates to trust, in place of the system's.
        codec: how values are written and read.

    What is written goes to a private name in the same folder, which is made if need be; the server's count of its bytes
    is compared, and then it is renamed. So a reader sees all of a file or nothing. FTP knows no "create, unless it is
    there": of two processes that write the same file at once both publish, each of them whole, and the later one stays.
    A transfer whose connection breaks goes on with another one: a download if the file has the size and time it had, an
    upload if the server has all but the last 4 MB of what was sent.
    On servers that do not rename to a name in use (IIS, say) the old file is given another one first, so that there is
    a moment without any; it has its own again where the new one cannot take its place.

    Raises ``TypeError`` and ``ValueError`` for values that cannot be right.
    """

    __slots__ = ("_key", "codec", "path", "server")

    def __init__(
        self,
        host: str,
        path: str,
        *,
        port: int | None = None,
        user: str = "anonymous",
        password: str | None = None,
        tls: Tls = "none",
        ca: str | os.PathLike[str] | None = None,
        codec: Codec[Any] | None = None,
    ) -> None:
        if not isinstance(host, str) or not re.fullmatch(r"[\w.:%-]+", host):
            raise ValueError(
                f"FTPTarget(host={host!r}): expected a host name or an address, without user, port or path"
            )
        if tls not in get_args(Tls):
            raise ValueError(f"FTPTarget(tls={tls!r}): expected 'none', 'explicit' or 'implicit'")
        if port is None:
            port = default_port(tls)
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError(f"FTPTarget(port={port!r}): expected a number from 1 to 65535")
        if ca is not None and tls == "none":
            raise ValueError(
                f"FTPTarget(ca={os.fspath(ca)!r}): without TLS no certificate is seen; give tls='explicit'"
            )
        _check_word("user", user, shown=repr(user))
        if password is not None:
            _check_word("password", password, shown="...")
        authority = None if ca is None else os.path.abspath(os.fspath(ca))
        self.server: Server = Server(host.lower(), port, user, password, tls, authority)
        self.path: str = _checked_path(path)
        self.codec = check_codec(codec)
        self._key = f"ftp://{self.server.name}{self.path}"

    @property
    def key(self) -> str:  # type: ignore[override]  # read-only here, an attribute in a user's own class
        """``ftp://user@host:port/path``, however it is protected."""
        return self._key

    @classmethod
    def from_url(cls, url: str, *, password: str | None = None, codec: Codec[Any] | None = None) -> FTPTarget:
        """The file at a URL: ``ftp://user@host:port/path``, ``ftpes://`` (explicit TLS), ``ftps://`` (implicit).

        What is no letter, digit or ``-._~/`` is written with per cent signs (``%20``); ``?ca=FILE`` may follow. A
        password may be in it, but is better not. Raises ``ValueError``.
        """
        server, path = parse(url)
        given = password if password is not None else server.password
        return cls(
            *(server.host, path),
            port=server.port,
            user=server.user,
            password=given,
            tls=server.tls,
            ca=server.ca,
            codec=codec,
        )

    async def exists(self) -> bool:
        """Whether the file (or folder) is there. Raises ``TargetStateUnknown`` where that cannot be established."""
        try:
            async with pool_of(self.server) as pool:
                return await pool.ask(partial(is_there, path=self.path))
        except OSError as error:
            raise self._unknown(error) from error

    @classmethod
    async def exists_many(cls, targets: Sequence[FTPTarget]) -> list[bool | BaseException]:
        """``exists`` for many: for three and more in one folder, its listing is read instead."""
        answers: list[bool | BaseException] = [False] * len(targets)
        folders: dict[tuple[Server, str], list[int]] = {}
        for n, target in enumerate(targets):
            folders.setdefault((target.server, target.path.rpartition("/")[0]), []).append(n)
        by_server: dict[Server, deque[list[int]]] = {}
        for (server, _), bunch in folders.items():
            by_server.setdefault(server, deque()).append(bunch)

        async def work(server: Server, bunches: deque[list[int]]) -> None:
            while bunches:
                bunch = bunches.popleft()
                for n, answer in zip(bunch, await _answers(server, [targets[n] for n in bunch]), strict=True):
                    answers[n] = answer

        async with asyncio.TaskGroup() as group:
            for server, bunches in by_server.items():
                for _ in range(min(LIMIT, len(bunches))):
                    group.create_task(work(server, bunches))
        return answers

    def remove(self) -> Operation[None]:
        """Delete the file: ``await`` it; in a sync body, ``.result()``. What is not there is as it should be.

        Raises ``OSError`` where it cannot be deleted.
        """

        async def question(connection: Any) -> None:
            reply = await connection.ask(f"DELE {self.path}")
            if not reply.good and await is_there(connection, self.path):
                raise reply.error(f"{self.key} cannot be removed")

        return self._operation("remove()", lambda pool: pool.ask(question))

    def size(self) -> Operation[int]:
        """Its size in bytes: ``await`` it; in a sync body, ``.result()``.

        Raises ``OSError``: ``FileNotFoundError`` where it is not there.
        """

        async def question(connection: Any) -> int:
            size = await size_of(connection, self.path)
            if size is None:
                raise await refusal(connection, self.path, await connection.ask(f"SIZE {self.path}"))
            return size

        return self._operation("size()", lambda pool: pool.ask(question))

    def _operation(self, name: str, step: Callable[[Pool], Coroutine[Any, Any, T]]) -> Operation[T]:
        async def on_loop() -> T:
            async with pool_of(self.server) as pool:
                return await step(pool)

        return operation(self, name, on_loop)

    async def _source(self) -> FTPSource:
        source = FTPSource(self.server, self.path)
        await source.open()
        return source

    def _sink(self) -> FTPSink:
        return FTPSink(self.server, self.path, self.key, current.get())

    def _unknown(self, error: OSError) -> TargetStateUnknown:
        return TargetStateUnknown(f"cannot tell whether {self.key} exists: {error}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FTPTarget) and other.key == self.key

    def __hash__(self) -> int:
        return hash((FTPTarget, self.key))

    def __repr__(self) -> str:
        return f"FTPTarget({self.server.url(self.path)!r})"


async def _answers(server: Server, targets: Sequence[FTPTarget]) -> Sequence[bool | BaseException]:
    """One answer for each of ``targets``, all of which lie in one folder of the server."""
    try:
        async with pool_of(server) as pool:
            return await pool.ask(partial(many_there, paths=[target.path for target in targets]))
    except OSError as error:
        return [target._unknown(error) for target in targets]


def _check_word(name: str, word: object, *, shown: str) -> None:
    if not isinstance(word, str):
        raise TypeError(f"FTPTarget({name}=...): expected a string, not {type(word).__name__}")
    if (not word and name == "user") or any(end in word for end in "\r\n\0"):
        raise ValueError(f"FTPTarget({name}={shown}): it must not be empty, nor hold a line end or NUL")


def _checked_path(path: object) -> str:
    if not isinstance(path, str):
        raise TypeError(f"FTPTarget({path!r}): a path on a server is a str, not {type(path).__name__}")
    if any(end in path for end in "\r\n\0"):
        raise ValueError(f"FTPTarget({path!r}): a path must not hold a line end or NUL, which end commands of FTP")
    if not path.startswith("/"):
        raise ValueError(f"FTPTarget({path!r}): a path is absolute on the server; write {'/' + path!r}")
    if any(part in ("", ".", "..") for part in path[1:].split("/")):
        raise ValueError(f"FTPTarget({path!r}): a path names a file, without '.', '..' and '//' in it")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise ValueError(f"FTPTarget({path!r}): a path is sent as UTF-8, which this one has not") from None
    if size > LONGEST:
        raise ValueError(f"FTPTarget({path[:40]!r}...): a path may have {LONGEST:,} bytes, and this one has {size:,}")
    return path
