"""Connections to one server: few, shared, and never used again after anything has gone wrong on them.

A handle that is open but not at work *parks* its connection here: whoever finds none free has the one parked longest
let go of it. So bodies that each read one file and write another cannot wait for each other's connections for ever.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from ... import clients
from ...threads import files
from .connection import Connection, Unreachable
from .server import Server

__all__ = ["Pool", "pool_of"]

log = logging.getLogger("asyncflow")

LIMIT = 8
"""Connections to one server, from one loop."""

FRESH = 10.0
"""Seconds after which a connection nobody has used is asked (NOOP) whether it is still there."""

DOWN = 2.0
"""Seconds for which nobody tries again what has just failed: after thousands of refused logins a user is locked out."""

FULL = 10.0
"""Seconds for which no more connections are tried after the server has said that there are too many."""

TRIES = 4
"""How often a connection is tried, and a question asked; with pauses of ``PAUSE`` seconds, doubled each time."""

PAUSE = 0.1

T = TypeVar("T")

LetGo = Callable[[], Awaitable[None]]


class Pool:
    """The connections of one loop to one server. Made by ``pool_of``."""

    def __init__(self, server: Server, context: ssl.SSLContext | None, secret: str) -> None:
        self.server = server
        self._context = context
        self._secret = secret
        self._lacks: set[str] = set()
        self._idle: list[Connection] = []  # the one used last comes last
        self._parked: dict[Connection, LetGo] = {}  # the one parked longest comes first
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._full_until = 0.0
        self._down: tuple[float, OSError] | None = None  # since when no connection can be made, and why
        self._closed = False
        self.count = 0
        """Connections that are open, or being opened."""

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Connection]:
        """A block that has a connection to itself; what raises in it is the end of the connection, if it is broken."""
        connection = await self.take()
        try:
            yield connection
        finally:
            self.give(connection)

    async def ask(self, question: Callable[[Connection], Awaitable[T]]) -> T:
        """The answer to ``question``, which may be asked again on another connection. Raises ``OSError``."""
        for tries in range(1, TRIES + 1):
            try:
                async with self.lease() as connection:
                    return await question(connection)
            except Unreachable:
                raise
            except (ConnectionError, TimeoutError):
                if tries == TRIES:
                    raise
            if tries > 1:  # the first one may have been lying here for too long
                await pause(tries)
        raise AssertionError("unreachable")

    async def take(self) -> Connection:
        """A connection to oneself, to be given back by ``give``. Waits for one. Raises ``OSError``."""
        if not self._waiting and (connection := await self._one()):
            return connection
        newcomer = True
        while True:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            (self._waiting.append if newcomer else self._waiting.appendleft)(turn)
            newcomer = False
            try:
                await turn
            except BaseException:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._wake()  # it was this one's turn
                raise
            try:
                if connection := await self._one():
                    return connection
            except BaseException:
                self._wake()
                raise

    def give(self, connection: Connection) -> None:
        """The end of its use. It waits for the next one, unless it is broken."""
        self._parked.pop(connection, None)
        if connection.broken or self._closed:
            connection.abort()
            self.count -= 1
        else:
            connection.since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        self._wake()

    def park(self, connection: Connection, let_go: LetGo) -> None:
        """It is not used just now: ``let_go()`` gives it back, at once or after a word with the server."""
        self._parked[connection] = let_go
        self._wake()

    def unpark(self, connection: Connection) -> bool:
        """It is used again. False where it has been let go of, or somebody is about to."""
        return self._parked.pop(connection, None) is not None

    async def close(self) -> None:
        """Close what lies here. A handle whose connection was parked finds that out, and goes on with another one."""
        self._closed = True
        for connection in (*self._idle, *self._parked):
            connection.abort()
        self.count -= len(self._idle)
        self._idle.clear()
        self._parked.clear()
        await asyncio.sleep(0)  # for the loop to close the sockets

    def _wake(self) -> None:
        while self._waiting and (self._idle or self._parked or self._may_open()):
            turn = self._waiting.popleft()
            if not turn.done():  # else it has been cancelled just now
                turn.set_result(None)
                return

    def _may_open(self) -> bool:
        if self.count == 0:
            return True
        return self.count < LIMIT and asyncio.get_running_loop().time() >= self._full_until

    async def _one(self) -> Connection | None:
        """One that is free, or can be made so; None if one has to wait for it."""
        while True:
            if self._idle:
                connection = self._idle.pop()
                if await self._fresh(connection):
                    return connection
            elif self._may_open():
                opened = await self._open()
                if opened is not None:
                    return opened
            elif self._parked:
                parked = next(iter(self._parked))
                await self._parked.pop(parked)()
            else:
                return None

    async def _fresh(self, connection: Connection) -> bool:
        if asyncio.get_running_loop().time() - connection.since < FRESH:
            return True
        try:
            await connection.ask("NOOP", patience=FRESH)
        except OSError:
            pass
        except BaseException:
            self.give(connection)
            raise
        if connection.broken:
            self.give(connection)
        return not connection.broken

    async def _open(self) -> Connection | None:
        """A new connection; None where the server takes no more of them than it has. Raises ``OSError``."""
        now = asyncio.get_running_loop().time()
        if self._down is not None and now < self._down[0] + DOWN:
            raise type(self._down[1])(*self._down[1].args)
        self.count += 1
        try:
            return await self._try_to_open()
        except BaseException as error:
            self.count -= 1
            if isinstance(error, OSError):
                self._down = (asyncio.get_running_loop().time(), error)
            self._wake()
            raise

    async def _try_to_open(self) -> Connection | None:
        problem: OSError | None = None
        for tries in range(1, TRIES + 1):
            try:
                return await Connection.open(self.server, self._context, self._secret, self._lacks)
            except ssl.SSLError as error:
                raise _untrusted(self.server, error) from None
            except OSError as error:
                problem = error
            # Too many connections is 421 to some; to others it is 530, as is a wrong password.
            if self.count > 1 and (_passing(problem) or isinstance(problem, PermissionError)):
                self._full_until = asyncio.get_running_loop().time() + FULL
                self.count -= 1
                return None
            if isinstance(problem, PermissionError) or (problem.errno is None and not _passing(problem)):
                raise problem  # the server's last word on it
            if tries < TRIES:
                await pause(tries)
        raise Unreachable(f"{self.server.name} cannot be reached: {problem}") from problem


def _untrusted(server: Server, error: ssl.SSLError) -> OSError:
    words = getattr(error, "verify_message", None) or error.reason or str(error)
    return OSError(f"no TLS with {server.name}: {words}; where its certificate is of your own, give ca=FILE")


def _passing(problem: OSError) -> bool:
    return isinstance(problem, (ConnectionError, TimeoutError))


async def pause(tries: int) -> None:
    """Before the next try: doubled each time, and never the same for two."""
    await asyncio.sleep(PAUSE * 2 ** (tries - 1) * (0.5 + random.random()))


def pool_of(server: Server) -> AbstractAsyncContextManager[Pool]:
    """A block that has the running loop's pool for ``server``. Raises ``OSError`` where there is no password."""

    def prepare() -> Pool:
        return Pool(server, server.context(), server.secret())

    async def open_pool() -> Pool:
        return await asyncio.get_running_loop().run_in_executor(files, prepare)

    return clients.use(("ftp", server), open_pool)
