"""PostgreSQL: its connections, and rows that go into a table by COPY."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing
from itertools import islice
from operator import length_hint
from time import perf_counter
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from .names import Name
from .rows import Bunch, RowError, RowsIn, Shape, Walker, bunches, unfit
from .stopping import Ending

if TYPE_CHECKING:
    from .engine import Database

__all__ = ["ServerConnection", "connect", "copy"]

PATIENCE = 2.0  # seconds a server has to answer that it lets go of a connection
PING = 5.0
"""Seconds in which a connection that was not used for a while has to answer, or else it is replaced."""
TURN = 0.01  # seconds of encoding, after which the loop is to come round
OF_A_ROW = ("22", "23", "54", "P0")
"""Classes of errors that a row is to blame for: its values, a constraint, its size, what a trigger raises."""
STEP = 64  # rows between two looks at the clock


class ServerConnection(asyncpg.Connection):  # type: ignore[misc]  # it comes without types
    """A connection that is closed once, in an orderly way."""

    used_up = False
    breathing = False
    """Whether the loop has yet to come round since ``breathe()``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ending = Ending()
        # A connection that breaks while the socket takes no more leaves the driver waiting for ever.
        protocol: Any = self._protocol
        self.add_termination_listener(lambda _: protocol.resume_writing())

    async def close(self, *, timeout: float | None = None) -> None:
        """Close it, when the server knows what has been cancelled; after ``timeout`` seconds in any case."""
        close = super().close
        await self.ending.come(lambda: close(timeout=timeout or PATIENCE))

    def terminate(self) -> None:
        """Let go of it at once, unless it is being closed."""
        if not self.ending.begun:
            super().terminate()

    async def answers(self) -> bool:
        """Whether the server still does. What lies between drops what is idle, or goes, without a word."""
        try:
            await self.execute("SELECT 1", timeout=PING)
        except Exception:  # the driver, too, wonders at what a broken one says
            self.terminate()  # to close it would be to wait for it once more
            return False
        return True

    def breathe(self) -> None:
        """Have the loop come round before the driver sends more of a COPY, as if the socket took no more for now."""
        self.breathing = True
        protocol: Any = self._protocol
        protocol.pause_writing()
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self.breathing = False
        protocol: Any = self._protocol
        transport: Any = self._transport
        if protocol is None:  # it has been closed meanwhile
            return
        # Where the socket does take no more, the transport has said so, and will say when that is over.
        if transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[1]:
            protocol.resume_writing()


async def connect(*args: Any, **kwargs: Any) -> ServerConnection:
    """A connection to the server. Raises what asyncpg does, ``TimeoutError``."""
    try:
        return await asyncpg.connect(*args, connection_class=ServerConnection, **kwargs)  # type: ignore[no-any-return]
    except TimeoutError as error:
        said = str(error) or f"the server has not answered for {kwargs['timeout']} s"
        raise TimeoutError(said) from error


class _Copied:
    """Rows one by one, as the driver wants them; and where it is."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.begun = 1  # the number of the first row of this COPY
        self.bunch = Bunch(1, [])
        self._left: Iterator[tuple[Any, ...]] = iter(())
        self.error: Exception | None = None  # of the rows, not of the driver

    @property
    def at(self) -> int:
        """Which row of the bunch the driver was given last, counted from 0."""
        return max(len(self.bunch.rows) - length_hint(self._left) - 1, 0)

    def _take(self, bunch: Bunch) -> None:
        self.bunch = bunch
        self._left = iter(bunch.rows)

    def _check(self) -> None:
        # The driver would go on writing into nothing, to the last row.
        if self._connection.is_closed():
            raise ConnectionResetError("the server has closed the connection")

    async def all_of(self, source: AsyncIterator[Bunch]) -> AsyncIterator[tuple[Any, ...]]:
        """All there are, waited for: which costs as much for each row as to encode it."""
        deadline = perf_counter() + TURN
        try:
            async for bunch in source:
                self._take(bunch)
                while length_hint(self._left):
                    for row in islice(self._left, STEP):
                        yield row
                    self._check()
                    if perf_counter() > deadline:
                        await asyncio.sleep(0)
                        deadline = perf_counter() + TURN
        except Exception as error:
            self.error = error
            raise

    async def begin(self, walker: Walker) -> bool:
        """Have rows for a COPY, waited for if there are none left; whether there are any."""
        if not length_hint(self._left):
            bunch = await walker.take()
            if bunch is None:
                return False
            self._take(bunch)
        self.begun = self.bunch.last - length_hint(self._left) + 1
        return True

    def those_made(self, walker: Walker) -> Iterator[tuple[Any, ...]]:
        """They, and what follows as long as it has been made already: nothing is waited for.

        The driver goes through them without a pause, unless the server is slow: the loop comes round all the same,
        before the driver sends what it has encoded. If it takes its time to have enough for that, it gets no more.
        """
        connection = self._connection
        deadline = perf_counter() + TURN
        bunch: Bunch | None = self.bunch
        while bunch is not None:
            while length_hint(self._left):
                yield from islice(self._left, STEP)
                self._check()
                if perf_counter() > deadline:
                    if connection.breathing:
                        return
                    connection.breathe()
                    deadline = perf_counter() + TURN
            bunch = walker.made()
            if bunch is not None:
                self._take(bunch)


async def copy(database: Database, connection: AsyncConnection, name: Name, fits: Shape, rows: RowsIn) -> int:
    """Write ``rows`` in the transaction of ``connection``; how many there were. Raises as ``loading.load``.

    It is one COPY, so that the server is at work all the time; where plain Python makes rows more slowly than
    they are written, there is one for those that have come meanwhile.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    copied = _Copied(driver)

    async def write(records: Any) -> None:
        try:
            await driver.copy_records_to_table(
                name.table, schema_name=name.schema, columns=list(fits.columns), records=records
            )
        except Exception as error:
            # It may not have noticed yet that it is broken, and only wonder at what comes from the server.
            broken = driver.is_closed() or "another operation" in str(error)
            # The driver has asked the server to stop, which may yet reach whatever comes next on this connection.
            await connection.invalidate()
            if error is copied.error and not broken:
                raise
            if broken:
                raise ConnectionError(f"{name}: the connection broke in the middle of a COPY: {error}") from error
            raise await _explained(database, name, fits, copied, error) from error

    if isinstance(rows, AsyncIterable):
        async with (
            aclosing(bunches(rows, fits)) as source,  # type: ignore[type-var]
            aclosing(copied.all_of(source)) as records,  # type: ignore[type-var]
        ):
            await write(records)
    else:
        async with aclosing(Walker(rows, fits)) as walker:
            while await copied.begin(walker):
                await write(copied.those_made(walker))
    return copied.bunch.last


async def _explained(database: Database, name: Name, fits: Shape, copied: _Copied, error: Exception) -> Exception:
    """Which row, and which column, ``error`` is about; itself where that is not known."""
    if isinstance(error, asyncpg.PostgresError):
        code = str(getattr(error, "sqlstate", ""))
        # The server has counted them, and says so in the context: COPY t, line 3, column "n"
        said = re.search(r"^COPY .*?, line (\d+)(?:, column \"?(\w+))?", getattr(error, "context", None) or "", re.M)
        if said is None or not code.startswith(OF_A_ROW):
            return error  # type: ignore[no-any-return]
        # Not its DETAIL, which shows the values of the row: they may be nobody's business who reads a log.
        problem = str(error.args[0])
        return RowError.at(
            fits.table, copied.begun + int(said[1]) - 1, getattr(error, "column_name", None) or said[2], problem
        )
    if isinstance(error, asyncpg.InternalClientError):  # it has no encoder for the type of a column
        return TypeError(f"{name} cannot be written by COPY: {error}; cast it from a table with a column of text")
    if not copied.bunch.rows:
        return error
    row = copied.bunch.rows[copied.at]
    column, problem = await _unfit(database, name, fits, row), str(error)
    if column is not None:
        problem = unfit(row[fits.columns.index(column)], error)
    return RowError.at(fits.table, copied.bunch.first + copied.at, column, problem)


async def _unfit(database: Database, name: Name, fits: Shape, row: tuple[Any, ...]) -> str | None:
    """The column whose value cannot be encoded: the driver names parameters of statements, if not those of a COPY."""
    settings = ", ".join(f"{database.quoted_column(column)} = ${n}" for n, column in enumerate(fits.columns, 1))
    try:
        async with database.lend("ask", str(name)) as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await (await driver.prepare(f"UPDATE {database.quoted(name)} SET {settings} WHERE false")).fetch(*row)
    except asyncpg.DataError as error:
        said = re.search(r"argument \$(\d+)", str(error))
        return fits.columns[int(said[1]) - 1] if said else None
    except (asyncpg.PostgresError, DBAPIError, OSError):
        return None
    return None
