"""PostgreSQL: its connections, and rows that go into a table by COPY."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from operator import length_hint
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from .names import Name
from .rows import RowError, RowsIn, Shape, bunches, unfit
from .stopping import Ending

if TYPE_CHECKING:
    from .engine import Database

__all__ = ["ServerConnection", "connect", "copy"]

PATIENCE = 2.0  # seconds a server has to answer that it lets go of a connection


class ServerConnection(asyncpg.Connection):  # type: ignore[misc]  # it comes without types
    """A connection that is closed once, in an orderly way."""

    used_up = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ending = Ending()

    async def close(self, *, timeout: float | None = None) -> None:
        """Close it, when the server knows what has been cancelled; after ``timeout`` seconds in any case."""
        close = super().close
        await self.ending.come(lambda: close(timeout=timeout or PATIENCE))

    def terminate(self) -> None:
        """Let go of it at once, unless it is being closed."""
        if not self.ending.begun:
            super().terminate()


async def connect(*args: Any, **kwargs: Any) -> ServerConnection:
    """A connection to the server. Raises what asyncpg does."""
    connection: ServerConnection = await asyncpg.connect(*args, connection_class=ServerConnection, **kwargs)
    return connection


class _Walk:
    """The rows one by one, as the driver wants them; and where it is."""

    def __init__(self, rows: RowsIn, fits: Shape) -> None:
        self._rows = rows
        self._fits = fits
        self.count = 0  # in the bunches before this one
        self.bunch: list[tuple[Any, ...]] = []
        self.left: Iterator[tuple[Any, ...]] = iter(())
        self.error: Exception | None = None

    @property
    def at(self) -> int:
        """Which row of the bunch the driver was given last, counted from 0."""
        return max(len(self.bunch) - length_hint(self.left) - 1, 0)

    async def __aiter__(self) -> AsyncIterator[tuple[Any, ...]]:
        try:
            async with aclosing(bunches(self._rows, self._fits)) as source:  # type: ignore[type-var]
                async for first, self.bunch in source:
                    self.count = first - 1
                    self.left = iter(self.bunch)
                    for row in self.left:
                        yield row
        except Exception as error:
            self.error = error
            raise
        self.count += len(self.bunch)


async def copy(database: Database, connection: AsyncConnection, name: Name, fits: Shape, rows: RowsIn) -> int:
    """Write ``rows`` in the transaction of ``connection``; how many there were. Raises as ``loading.load``.

    It is one COPY, so the server is at work all the time, and the loop comes round after each bunch.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    walk = _Walk(rows, fits)
    try:
        async with aclosing(aiter(walk)) as records:  # type: ignore[type-var]
            await driver.copy_records_to_table(
                name.table, schema_name=name.schema, columns=list(fits.columns), records=records
            )
    except Exception as error:
        # It may not have noticed yet that it is broken, and only wonder at what comes from the server.
        broken = driver.is_closed() or "another operation" in str(error)
        # The driver has asked the server to stop, which may yet reach whatever comes next on this connection.
        await connection.invalidate()
        if error is walk.error:
            raise
        if broken:
            raise ConnectionError(f"{name}: the connection broke in the middle of a COPY: {error}") from error
        raise await _explained(database, name, fits, walk, error) from error
    return walk.count


async def _explained(database: Database, name: Name, fits: Shape, walk: _Walk, error: Exception) -> Exception:
    """Which row, and which column, ``error`` is about; itself where that is not known."""
    if isinstance(error, asyncpg.PostgresError):
        # The server has counted them, and says so in the context: COPY t, line 3, column "n"
        said = re.search(r"line (\d+)(?:, column \"?(\w+))?", getattr(error, "context", None) or "")
        if said is None:
            return error  # type: ignore[no-any-return]
        # Not its DETAIL, which shows the values of the row: they may be nobody's business who reads a log.
        problem = str(error.args[0])
        return RowError.at(fits.table, int(said[1]), getattr(error, "column_name", None) or said[2], problem)
    if not walk.bunch:
        return error
    row = walk.bunch[walk.at]
    column, problem = await _unfit(database, name, fits, row), str(error)
    if column is not None:
        problem = unfit(row[fits.columns.index(column)], error)
    return RowError.at(fits.table, walk.count + walk.at + 1, column, problem)


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
