"""One engine for each database and loop: connections that are few, and never handed on in doubt."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from sqlalchemy import URL, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ...clients import use
from ...shield import finish
from .._hops import in_thread
from .names import Name
from .stopping import FileConnection
from .turns import PLACES, Purpose, Turns

__all__ = ["ANSWER", "BUSY", "Database", "database", "patiently", "reason", "sqlstate"]

log = logging.getLogger("asyncflow")

MORE = 40
"""Connections beyond those, for blocks that would otherwise wait for each other for ever."""
CONNECT = 10.0  # seconds to reach a server
ANSWER = 60.0
"""Seconds a server has for its answer to a question; statements of loads, and of users, may take longer."""
BUSY = 60.0
"""Seconds we wait for other programs that write into a file of SQLite."""
STEP, PAUSE = 0.05, 0.01  # seconds SQLite itself waits, in which it cannot be cancelled; and we between two such waits

T = TypeVar("T")


class Database:
    """What all targets in one database share, on one loop. It is lent by ``database(url)``."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_file = url.drivername.startswith("sqlite")
        self.made: set[Name] = set()
        """Tables that have been seen here."""
        self._engine = _file_engine(url) if self.is_file else _server_engine(url)
        self._turns = Turns(one_writer=self.is_file)  # a file's writers wait here, better than SQLite does
        self._file: tuple[int, int] | None = None

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    @property
    def dialect(self) -> Any:
        """Of SQLAlchemy: how things are written here."""
        return self._engine.dialect

    def quoted(self, name: Name) -> str:
        """A table's name as SQL."""
        quote = self.dialect.identifier_preparer.quote_identifier
        return ".".join(quote(part) for part in name if part is not None)

    def quoted_column(self, name: str) -> str:
        """A column's name as SQL."""
        quoted: str = self.dialect.identifier_preparer.quote_identifier(name)
        return quoted

    async def missing(self) -> bool:
        """Whether it is a file that is not there. Raises ``OSError`` where that cannot be seen."""
        return self.is_file and await in_thread(_identity, self.url.database) is None

    @asynccontextmanager
    async def lend(self, purpose: Purpose, key: str) -> AsyncIterator[AsyncConnection]:
        """A connection for the block, which ``key`` names; what has not been committed at its end is rolled back.

        One whose block was cancelled, or that broke, is closed, and not used again. Raises ``OSError`` (``EDEADLK``)
        where it would wait for ever.
        """
        async with self._turns.take(purpose, key), self._connected() as connection:
            yield connection

    @asynccontextmanager
    async def ask(self, key: str) -> AsyncIterator[AsyncConnection]:
        """``lend("ask", key)`` for a block that a server has ``ANSWER`` seconds for. Raises ``TimeoutError``."""
        limit = asyncio.timeout(None)
        try:
            async with limit, self.lend("ask", key) as connection:
                if not self.is_file:
                    limit.reschedule(asyncio.get_running_loop().time() + ANSWER)
                yield connection
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(f"the server has not answered for {ANSWER:g} s") from error

    def writer_around(self) -> str | None:
        """Who writes the file in a block the caller is inside of."""
        writer = self._turns.writer_around() if self.is_file else None
        return None if writer is None else writer.key

    async def let_step_aside(self, step: Callable[[], Awaitable[None]]) -> None:
        """``step`` makes the caller's reading hold no lock any more. It is called where it would hold up a writer who
        is waited for by its own block, or waits for that."""
        if self.is_file:
            self._turns.innermost().step_aside = step
            await self._clear_the_way()

    async def _clear_the_way(self) -> None:
        for reader in self._turns.in_the_way():
            if reader.step_aside is not None:
                await reader.step_aside()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        await self.look()
        connection = await self._connect()
        driver: Any = (await connection.get_raw_connection()).driver_connection  # there is no suspension in this
        sound = False
        try:
            yield connection
            sound = True
        except Exception:
            sound = True
            raise
        finally:
            # A statement that was cancelled may have been carried out, in part, or not yet: who knows.
            await finish(_returned(connection, driver, sound=sound and not driver.used_up))

    async def _connect(self) -> AsyncConnection:
        """A connection of the pool's; one that SQLAlchemy has made, and lost when it was cancelled, is closed."""
        opened: list[Any] = []
        token = _opened.set(opened)
        try:
            return await self._engine.connect()
        except BaseException:
            for driver in opened:
                await finish(_closed(driver))
            raise
        finally:
            _opened.reset(token)

    async def look(self) -> None:
        """Let go of connections to a file that has been removed or replaced since: they would write into nowhere."""
        if not self.is_file:
            return
        file = await in_thread(_identity, self.url.database)
        if file != self._file:
            if self._file is not None:
                self.made.clear()
                await finish(self._engine.dispose())
            self._file = file

    async def begin(self, connection: AsyncConnection) -> Any:
        """A transaction that is going to write; SQLAlchemy's object for it."""
        if not self.is_file:
            return await connection.begin()
        await self._clear_the_way()
        await connection.execution_options(asyncflow_begin="BEGIN IMMEDIATE")
        return await patiently(connection.begin)

    async def commit(self, connection: AsyncConnection, transaction: Any, patience: float | None = None) -> None:
        """Commit; readers of a file, who hold that up, are waited for."""
        if self.is_file:
            await self._clear_the_way()
            # SQLAlchemy's own commit can be tried once only; after this one it has nothing to do
            await patiently(lambda: connection.exec_driver_sql("COMMIT"), patience)
        await transaction.commit()


_opened: ContextVar[list[Any]] = ContextVar("asyncflow_sql_opened")
"""Where connections are noted that are made in the task that has set this."""


async def _closed(driver: Any) -> None:
    with suppress(Exception):
        await driver.close()


async def _returned(connection: AsyncConnection, driver: Any, *, sound: bool) -> None:
    try:
        if isinstance(driver, FileConnection):
            await driver.close_cursors()
        if not sound:
            await connection.invalidate()
        await connection.close()
    except Exception:  # it broke: there is nobody left to tell, and it is not used again
        log.debug("a connection could not be returned", exc_info=True)
        with suppress(Exception):
            await connection.invalidate()
            await connection.close()
    await driver.ending.wait()


async def patiently(step: Callable[[], Awaitable[T]], patience: float | None = None) -> T:
    """``step()``, again and again for ``patience`` seconds, ``BUSY`` by default, while somebody else locks the file.

    SQLite could wait itself, but could not be cancelled in it.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + (BUSY if patience is None else patience)
    while True:
        try:
            return await step()
        except OperationalError as error:
            if not _locked(error) or loop.time() >= deadline:
                raise
        await asyncio.sleep(PAUSE)


def _locked(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", 0)
    return code & 0xFF in (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _server_engine(url: URL) -> AsyncEngine:
    from .server import connect

    async def noted(*args: Any, **kwargs: Any) -> Any:
        connection = await connect(*args, **kwargs)
        _opened.get().append(connection)
        return connection

    options: dict[str, Any] = {} if "timeout" in url.query else {"timeout": CONNECT}
    engine = create_async_engine(
        url,
        pool_size=sum(PLACES.values()),
        max_overflow=MORE,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "async_creator_fn": noted,
            "server_settings": {"application_name": "asyncflow"},
            **options,
        },
    )
    dialect: Any = engine.dialect
    dialect.do_ping = lambda connection: connection.run_async(lambda driver: driver.answers())  # its own has no limit
    return engine


def _file_engine(url: URL) -> AsyncEngine:
    options: dict[str, Any] = {} if "timeout" in url.query else {"timeout": STEP}

    def connect(*args: Any, **kwargs: Any) -> FileConnection:
        import sqlite3

        connection = FileConnection(lambda: sqlite3.connect(*args, **kwargs), iter_chunk_size=64)
        thread: Any = getattr(connection, "_thread", connection)  # it was one itself before 0.22
        thread.daemon = True
        _opened.get().append(connection)
        return connection

    engine = create_async_engine(
        url,
        pool_size=sum(PLACES.values()),
        max_overflow=MORE,
        hide_parameters=True,
        # No isolation level: transactions begin where we say so, and DDL is part of them.
        connect_args={"async_creator_fn": connect, "isolation_level": None, **options},
    )

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("asyncflow_begin", "BEGIN"))

    return engine


def database(url: URL) -> use[Database]:
    """A block that has the database at ``url``."""

    async def opened() -> Database:
        return Database(url)

    return use(("sql", url), opened)


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's code for what went wrong, if it was the server that said so."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return getattr(original, "sqlstate", None)


def reason(error: BaseException) -> str:
    """What went wrong, on one line, without the statement."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(original).strip().splitlines()
    return lines[0].strip() if lines else type(original).__name__
