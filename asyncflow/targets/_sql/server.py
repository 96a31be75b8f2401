"""PostgreSQL: its connections, and rows that go into a table by COPY."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from .names import Name
from .rows import RowError, Rows, Shape, bunches
from .stopping import Ending

if TYPE_CHECKING:
    from .engine import Database

__all__ = ["ServerConnection", "copy"]


class ServerConnection(asyncpg.Connection):  # type: ignore[misc]  # it comes without types
    """A connection that is closed once, in an orderly way."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ending = Ending()

    async def close(self, *, timeout: float | None = None) -> None:
        """Close it, when the server knows what has been cancelled; after ``timeout`` seconds in any case."""
        close = super().close
        await self.ending.come(lambda: close(timeout=timeout))

    def terminate(self) -> None:
        """Let go of it at once, unless it is being closed."""
        if not self.ending.begun:
            super().terminate()


class _Walk:
    """All rows one by one, for the driver; and how many it has had."""

    def __init__(self, rows: Rows, fits: Shape) -> None:
        self._rows = rows
        self._fits = fits
        self.number = 1  # of the row the driver has, or asks for
        self.row: Any = None
        self.error: BaseException | None = None

    async def __aiter__(self) -> AsyncIterator[tuple[Any, ...]]:
        try:
            async with aclosing(bunches(self._rows, self._fits)) as source:  # type: ignore[type-var]
                async for first, bunch in source:
                    self.number = first
                    for self.row in bunch:
                        yield self.row
                        self.number += 1
        except Exception as error:
            self.error = error
            raise


async def copy(database: Database, connection: AsyncConnection, name: Name, fits: Shape, rows: Rows) -> int:
    driver: Any = (await connection.get_raw_connection()).driver_connection
    walk = _Walk(rows, fits)
    source = aiter(walk)
    try:
        async with aclosing(source):  # type: ignore[type-var]
            await driver.copy_records_to_table(
                name.table, schema_name=name.schema, columns=list(fits.columns), records=source
            )
    except Exception as error:
        # The driver has asked the server to stop, which may yet reach whatever comes next on this connection.
        await connection.invalidate()
        if error is walk.error:
            raise
        raise await _explained(database, name, fits, walk, error) from error
    return walk.number - 1


async def _explained(database: Database, name: Name, fits: Shape, walk: _Walk, error: Exception) -> Exception:
    """Which row, and which column, ``error`` is about; itself where that is not known."""
    if isinstance(error, asyncpg.PostgresError):
        # The server has counted them, and says so in the context: COPY t, line 3, column "n"
        said = re.search(r"line (\d+)(?:, column \"?(\w+))?", getattr(error, "context", None) or "")
        if said is None:
            return error  # type: ignore[no-any-return]
        return RowError.at(fits.table, int(said[1]), getattr(error, "column_name", None) or said[2], error)
    lost: tuple[type[Exception], ...] = (OSError, asyncpg.InterfaceError)
    if isinstance(error, lost):
        return error
    column, problem = await _unfit(database, name, fits, walk.row), str(error)
    if column is not None:
        value = walk.row[fits.columns.index(column)]
        problem = f"a value of {type(value).__name__} does not fit: {error}"
    return RowError.at(fits.table, walk.number, column, problem)


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
