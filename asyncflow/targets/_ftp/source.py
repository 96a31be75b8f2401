"""A download, which goes on where it was when its connection breaks."""

from __future__ import annotations

from .connection import Connection, Reply, Transfer, Unreachable
from .lookup import modified, refusal, size_of
from .pool import TRIES, Pool, pause, pool_of
from .server import Server

__all__ = ["FTPSource"]

SMALL = 256 * 1024
"""Bytes up to which a file is fetched whole by the first ``read``: its connection is free again before anything is done
with it, and nothing of it is given away before the server has said that it was whole."""


class FTPSource:
    """The bytes of the file at ``path``.

    A break is mended by another connection that begins (REST) where the last one ended, as long as the file has the
    size and the time of modification it had; a few times for each ``read``.
    """

    def __init__(self, server: Server, path: str) -> None:
        self._server = server
        self._path = path
        self._at = 0  # bytes that have come
        self._size: int | None = None
        self._stamp: str | None = None
        self._whole: bytes | None = None  # of a small file, what has not been given yet
        self._ended = False
        self._transfer: Transfer | None = None
        self._pool: Pool | None = None  # the one it is of

    async def open(self) -> None:
        """Begin. Raises ``OSError``: ``FileNotFoundError`` where there is no such file."""
        await self._reliably(0)

    async def read(self, size: int) -> bytes:
        """At most ``size`` bytes; nothing at the end. Raises ``OSError`` where what comes is not whole."""
        if self._whole is None and not self._ended:
            data = await self._reliably(size)
            if self._whole is None:
                return data
        whole = self._whole or b""
        self._whole = whole[size:]
        return whole[:size]

    async def close(self) -> None:
        """Let go of the connection. A transfer that is not at its end takes it along."""
        self.abandon()

    def abandon(self) -> None:
        """The same without waiting."""
        self._ended = True
        self._drop()

    async def _reliably(self, size: int) -> bytes:
        for tries in range(1, TRIES + 1):
            try:
                async with pool_of(self._server) as pool:
                    return await self._read(pool, size)
            except BaseException as error:
                self._drop()
                lost = isinstance(error, (ConnectionError, TimeoutError)) and not isinstance(error, Unreachable)
                if not lost or tries == TRIES:
                    raise
            await pause(tries)
        raise AssertionError("unreachable")

    async def _read(self, pool: Pool, size: int) -> bytes:
        transfer = self._in_hand() or await self._begin(pool)
        if self._small:
            await self._read_whole(transfer)
            return b""
        data = await transfer.receive(size) if size else b""
        if size and not data:
            await self._finish(transfer)
            return b""
        self._at += len(data)
        assert self._pool is not None
        self._pool.park(transfer.connection, self._let_go)
        return data

    async def _read_whole(self, transfer: Transfer) -> None:
        parts = []
        while part := await transfer.receive(SMALL):
            parts.append(part)
            self._at += len(part)
        await self._finish(transfer)
        self._whole = b"".join(parts)

    async def _finish(self, transfer: Transfer) -> None:
        last = await transfer.finish()
        if not last.good:
            raise last.error(f"{self._name} broke off after {self._at:,} bytes")
        if self._size is not None and self._at != self._size:
            raise ConnectionResetError(f"{self._name} ended after {self._at:,} of {self._size:,} bytes")
        self._ended = True
        self._give()

    async def _begin(self, pool: Pool) -> Transfer:
        connection = await pool.take()
        try:
            await self._check(connection)
            begun = await connection.begin(f"RETR {self._path}", offset=self._at)
            if isinstance(begun, Reply):
                raise await refusal(connection, self._path, begun)
        except BaseException:
            pool.give(connection)
            raise
        self._transfer, self._pool = begun, pool
        return begun

    async def _check(self, connection: Connection) -> None:
        """Whether it is the file of which something has been given; where nothing has, it begins with the one there."""
        size = await size_of(connection, self._path)
        if not self._at or self._small:  # what has come of a small one has not been given
            self._at, self._size = 0, size
            self._stamp = None if self._small else await modified(connection, self._path)
            return
        stamp = await modified(connection, self._path)
        if size is None or stamp is None or (size, stamp) != (self._size, self._stamp):
            raise OSError(f"{self._name} broke off after {self._at:,} bytes, and is not what it was by now")

    @property
    def _small(self) -> bool:
        return self._size is not None and self._size <= SMALL

    def _in_hand(self) -> Transfer | None:
        """The transfer that was parked, unless it has been let go of."""
        if self._transfer is not None and self._pool is not None:
            if self._pool.unpark(self._transfer.connection):
                return self._transfer
            self._drop()
        return None

    async def _let_go(self) -> None:
        self._drop()

    def _drop(self) -> None:
        """The connection is of no use any more: on it, the file would come to its end first."""
        if self._transfer is not None:
            self._transfer.abort()
            self._transfer.connection.abort()
        self._give()

    def _give(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is not None and self._pool is not None:
            self._pool.give(transfer.connection)

    @property
    def _name(self) -> str:
        return f"ftp://{self._server.name}{self._path}"
