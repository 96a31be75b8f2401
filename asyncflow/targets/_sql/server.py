"""PostgreSQL: its connections, and rows that go into a table by COPY."""

from __future__ import annotations

import re
from contextlib import aclosing
from operator import length_hint
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from .names import Name
from .rows import RowError, Rows, Shape, bunches
from .stopping import Ending

if TYPE_CHECKING:
    from .engine import Database

__all__ = ["ServerConnection", "connect", "copy"]

PATIENCE = 2.0  # seconds a server has to answer that it lets go of a connection


class ServerConnection(asyncpg.Connection):  # type: ignore[misc]  # it comes without types
    """A connection that is closed once, in an orderly way."""

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


async def copy(database: Database, connection: AsyncConnection, name: Name, fits: Shape, rows: Rows) -> int:
    """Write ``rows`` in the transaction of ``connection``; how many there were. Raises as ``loading.load``.

    Each bunch is a COPY of its own: what the driver is given as a list it walks at full speed, and it holds up the
    loop for as long as that takes.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    count = 0
    async with aclosing(bunches(rows, fits)) as source:  # type: ignore[type-var]
        async for first, bunch in source:
            records = iter(bunch)
            try:
                await driver.copy_records_to_table(
                    name.table, schema_name=name.schema, columns=list(fits.columns), records=records
                )
            except Exception as error:
                # The driver has asked the server to stop, which may yet reach whatever comes next on this connection.
                # It may not have noticed yet, and only wonder at what comes from the server.
                broken = driver.is_closed() or "another operation" in str(error)
                await connection.invalidate()
                if broken:
                    raise ConnectionError(f"{name}: the connection broke in the middle of a COPY: {error}") from error
                at = max(len(bunch) - length_hint(records) - 1, 0)
                raise await _explained(database, name, fits, first, bunch, at, error) from error
            count = first + len(bunch) - 1
    return count


async def _explained(
    database: Database,
    name: Name,
    fits: Shape,
    first: int,
    bunch: list[tuple[Any, ...]],
    at: int,
    error: Exception,
) -> Exception:
    """Which row, and which column, ``error`` is about; itself where that is not known. The driver was at row ``at``."""
    if isinstance(error, asyncpg.PostgresError):
        # The server has counted them, and says so in the context: COPY t, line 3, column "n"
        said = re.search(r"line (\d+)(?:, column \"?(\w+))?", getattr(error, "context", None) or "")
        if said is None:
            return error  # type: ignore[no-any-return]
        column = getattr(error, "column_name", None) or said[2]
        return RowError.at(fits.table, first + int(said[1]) - 1, column, error)
    column, problem = await _unfit(database, name, fits, bunch[at]), str(error)
    if column is not None:
        value = bunch[at][fits.columns.index(column)]
        problem = f"a value of {type(value).__name__} does not fit: {error}"
    return RowError.at(fits.table, first + at, column, problem)


async def _unfit(database: Database, name: Name, fits: Shape, row: tuple[Any, ...]) -> str | None:
    """The column whose value cannot be encoded: the driver names parameters of statements, if not those of a COPY."""
    settings = ", ".join(f"{database.quoted_column(column)} = ${n}" for n, column in enumerate(fits.columns, 1))
    try:
        async with database.lend("ask") as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await (await driver.prepare(f"UPDATE {database.quoted(name)} SET {settings} WHERE false")).fetch(*row)
    except asyncpg.DataError as error:
        said = re.search(r"argument \$(\d+)", str(error))
        return fits.columns[int(said[1]) - 1] if said else None
    except (asyncpg.PostgresError, DBAPIError, OSError):
        return None
    return None
