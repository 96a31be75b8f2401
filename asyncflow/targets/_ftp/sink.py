"""An upload: to a private name beside the final one, counted by the server, and then renamed.

Nothing is taken for stored because it was sent. What was sent last is kept in hand, so that an upload whose connection
breaks goes on (APPE) after what the server says it has.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import posixpath
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ... import healing, journal
from ...attempt import Attempt
from ...errors import TargetStateUnknown
from ...shield import finish
from .._hops import in_thread
from .._streams import publish
from .connection import Connection, Reply, Transfer, Unreachable
from .lookup import is_there, size_of
from .pool import TRIES, Pool, pause, pool_of
from .publishing import TEMPORARY, Publication, state_of
from .server import Server

__all__ = ["FTPSink"]

log = logging.getLogger("asyncflow")

WINDOW = 4 * 1024 * 1024
"""Bytes of what was sent last that are kept in hand: more than the kernels on both sides hold of them."""

DISCARD = 15.0
"""Seconds for removing what is not wanted."""

STEADY = 0.2
"""Seconds in which a file must not grow that a session which was cut off may still be writing."""


class FTPSink:
    """What is going to be the file at ``path``, published by ``attempt`` under ``key``."""

    def __init__(self, server: Server, path: str, key: str, attempt: Attempt | None) -> None:
        self._server = server
        self._path = path
        self._key = key
        self._attempt = attempt
        self._folder = posixpath.dirname(path)
        self._temp = ""  # its name, from when it may be there
        self._turn = asyncio.Lock()  # its owner's call, or the pool that wants the connection
        self._window: deque[bytes] = deque()
        self._confirmed = 0  # bytes that came before those in the window
        self._total = 0
        self._sent = 0  # bytes that some connection has taken
        self._cut = False  # a session of the server's may still be at work on what it had got
        self._stored = False
        self._published = False
        self._replacing = ""  # the journal's entry on the file that was there before, once it may be renamed
        self._over = False
        self._connection: Connection | None = None
        self._transfer: Transfer | None = None
        self._pool: Pool | None = None  # the one it is of

    async def write(self, data: bytes) -> None:
        """Store ``data``. Raises ``OSError``; cancelled or failed, it is over."""
        async with self._turn:
            self._keep(data)
            await self._reliably(self._send)

    async def commit(self) -> None:
        """Publish. Raises ``OSError``, ``TaskCancelled``."""
        await self._store_rest()
        await publish(self._attempt, self._key, self._rename)

    async def prepare(self) -> dict[str, Any]:
        """Have all of it on the server, under its private name; what is left is the rename."""
        await self._store_rest()
        async with pool_of(self._server) as pool:
            was = await pool.ask(partial(state_of, path=self._path))
        return {"kind": "ftp", "place": self._place, "to": self._path, "was": was}

    async def _store_rest(self) -> None:
        async with self._turn:
            if not self._stored:
                await self._reliably(self._store)
                self._stored = True

    async def discard(self) -> None:
        """Remove what was stored. Raises nothing."""
        if self._over:
            return
        self._over = True
        try:
            async with asyncio.timeout(DISCARD):
                async with self._turn:
                    await self._hang_up()
                if not self._temp or self._published:
                    return
                async with pool_of(self._server) as pool:
                    await pool.ask(self._remove)
        except (OSError, TargetStateUnknown) as error:
            log.warning("a temporary of %s is left behind: %s", self._key, error)
        else:
            journal.unfinished.discard(self._place)

    # Storing ----------------------------------------------------------------------------------------------

    def _keep(self, data: bytes) -> None:
        self._window.append(data)
        self._total += len(data)
        while self._total - self._confirmed - len(self._window[0]) >= WINDOW:
            self._confirmed += len(self._window.popleft())

    async def _reliably(self, step: Callable[[Pool], Awaitable[None]]) -> None:
        """``step``, again where its connection was lost. A server that says why it takes no more is not asked again."""
        for tries in range(1, TRIES + 1):
            try:
                async with pool_of(self._server) as pool:
                    return await step(pool)
            except (ConnectionError, TimeoutError) as error:
                said = await self._hang_up()
                if said is not None and said.code >= 400 and not isinstance(said.error(""), ConnectionError):
                    raise said.error(f"{self._key} cannot be written") from error
                if tries == TRIES or isinstance(error, Unreachable):
                    raise
            await pause(tries)
        raise AssertionError("unreachable")

    async def _send(self, pool: Pool) -> None:
        transfer = await self._under_way(pool)
        assert transfer is not None
        await self._send_rest(transfer)
        assert self._pool is not None
        self._pool.park(transfer.connection, self._let_go)

    async def _send_rest(self, transfer: Transfer) -> None:
        at = self._confirmed
        for block in list(self._window):
            rest = block[max(0, self._sent - at) :]
            if rest:
                await transfer.send(rest)
                self._sent += len(rest)
            at += len(block)

    async def _store(self, pool: Pool) -> None:
        """All of it, to the end, and counted."""
        transfer = await self._under_way(pool, may_be_done=True)
        if transfer is not None:
            await self._send_rest(transfer)
            await self._finish(transfer)

    async def _finish(self, transfer: Transfer) -> None:
        last = await transfer.finish()
        if not last.good:
            raise last.error(f"{self._key} cannot be written")
        stored = await size_of(transfer.connection, self._temp)
        if stored is not None and stored != self._sent:
            raise ConnectionResetError(f"{self._key}: the server has stored {stored:,} of {self._sent:,} bytes")
        self._window.clear()
        self._confirmed = self._sent
        self._give()

    async def _under_way(self, pool: Pool, *, may_be_done: bool = False) -> Transfer | None:
        """The transfer that goes on with what has not been sent; None, if allowed, where nothing is left of it."""
        if self._transfer is not None and self._pool is not None:
            if self._pool.unpark(self._transfer.connection):
                return self._transfer
            await self._hang_up()
        self._pool, self._connection = pool, await pool.take()
        if not self._temp:
            begun = await self._begin(self._connection)
        else:
            there = await self._steady_size(self._connection)
            if may_be_done and there == self._total:
                self._give()
                return None
            begun = await self._go_on(self._connection, there or 0)
        if isinstance(begun, Reply):
            raise begun.error(f"{self._key} cannot be written")
        self._transfer = begun
        return begun

    async def _begin(self, connection: Connection) -> Transfer | Reply:
        name, token = os.urandom(6).hex(), journal.token()
        self._temp = posixpath.join(self._folder, f".af-{token}{name}{TEMPORARY}")
        await in_thread(journal.note, "ftp", self._server.url(self._folder))
        journal.unfinished.add(self._place)
        return await self._begin_again(connection)

    async def _begin_again(self, connection: Connection) -> Transfer | Reply:
        begun = await connection.begin(f"STOR {self._temp}")
        if isinstance(begun, Reply) and begun.code in (450, 550, 553):  # there may be no such folder
            await _make_folder(connection, self._folder)
            begun = await connection.begin(f"STOR {self._temp}")
        return begun

    async def _go_on(self, connection: Connection, there: int) -> Transfer | Reply:
        if not self._confirmed <= there <= self._total:
            raise OSError(
                f"{self._key} cannot be written: the connection was lost, and of {self._total:,} bytes the server has "
                f"{there:,}; those from {self._confirmed:,} on could be sent again"
            )
        self._sent = there
        if not there:
            return await self._begin_again(connection)
        return await connection.begin(f"APPE {self._temp}")

    async def _steady_size(self, connection: Connection) -> int | None:
        """What the server has of it, once a session that was cut off does not write any more."""
        there = await size_of(connection, self._temp)
        while self._cut:
            await asyncio.sleep(STEADY)
            before, there = there, await size_of(connection, self._temp)
            self._cut = there != before
        return there

    # Letting go -------------------------------------------------------------------------------------------

    async def _let_go(self) -> None:
        """Somebody else wants the connection: bring what was sent to its end, to be gone on with later."""
        async with self._turn:
            if self._transfer is None:
                return
            try:
                await self._finish(self._transfer)
            except OSError:
                await self._hang_up()
            except BaseException:
                self._transfer.abort()
                self._transfer.connection.abort()
                self._give()
                raise

    async def _hang_up(self) -> Reply | None:
        """End the transfer, and the connection with it, when the server has heard so; what it said to that."""
        connection, transfer = self._connection, self._transfer
        if connection is None:
            return None
        if transfer is not None:
            transfer.abort()
        said = None
        try:
            said = await connection.settle()
        finally:
            self._cut = said is None
            connection.abort()
            self._give()
        return said

    def _give(self) -> None:
        connection, self._connection, self._transfer = self._connection, None, None
        if connection is not None and self._pool is not None:
            self._pool.give(connection)

    async def _remove(self, connection: Connection) -> None:
        reply = await connection.ask(f"DELE {self._temp}")
        if not reply.good and await is_there(connection, self._temp):
            raise reply.error(f"{self._temp} is not removed")

    @property
    def _place(self) -> str:
        return self._server.url(self._temp)

    # Publishing -------------------------------------------------------------------------------------------

    async def _rename(self) -> None:
        publication = Publication(self._temp, self._path, self._key, self._total, self._note_replaced)
        try:
            async with pool_of(self._server) as pool:
                await pool.ask(publication.publish)
            self._published = True
            journal.unfinished.discard(self._place)
        finally:
            if self._replacing:
                await finish(self._settle(publication))

    async def _note_replaced(self) -> None:
        """For another process, which gives the file that was there its name back if this one is killed now."""
        if not self._replacing:
            self._replacing = json.dumps([{"kind": "ftp", "place": self._place, "to": self._path, "was": None}])
            await in_thread(journal.note, healing.TOGETHER, self._replacing)
            journal.unfinished.add(self._replacing)

    async def _settle(self, publication: Publication) -> None:
        """See to the file that was there before. What cannot be done now is left to the next process."""
        try:
            async with asyncio.timeout(DISCARD), pool_of(self._server) as pool:
                settled = await pool.ask(publication.settle)
        except (OSError, TargetStateUnknown) as error:
            log.error("%s: the file that was there before may be left as %s: %s", self._key, publication.aside, error)
        else:
            if settled:
                journal.unfinished.discard(self._replacing)
                await in_thread(journal.done, healing.TOGETHER, self._replacing)


async def _make_folder(connection: Connection, folder: str) -> None:
    """Make ``folder``, and those above it. Raises ``OSError`` where the server refuses, and it is not there either."""
    missing = []
    while folder != "/" and not (await connection.ask(f"CWD {folder}")).good:
        missing.append(folder)
        folder = posixpath.dirname(folder)
    for each in reversed(missing):
        reply = await connection.ask(f"MKD {each}")
        if not reply.good and not (await connection.ask(f"CWD {each}")).good:  # else somebody else has just made it
            raise reply.error(f"ftp://{connection.server.name}{each} cannot be made")
