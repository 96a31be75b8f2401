"""Rows into a table, within a transaction: by COPY into PostgreSQL, in batches into SQLite."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from sqlalchemy import Column, MetaData, Table, inspect, quoted_name
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import NullType, TypeEngine

from .engine import Database, reason
from .names import Name
from .rows import RowError, Rows, Shape, bunches

__all__ = ["Columns", "described", "load", "shape", "table_of"]


class Columns(NamedTuple):
    """The columns that are written, or read, and their types."""

    names: tuple[str, ...]
    types: tuple[TypeEngine[Any], ...]


def table_of(name: Name, columns: Columns) -> Table:
    """The table for SQLAlchemy."""
    made = [Column(quoted_name(column, True), kind) for column, kind in zip(*columns, strict=True)]
    return Table(name.quoted_table, MetaData(), *made, schema=name.quoted_schema)


async def described(connection: AsyncConnection, name: Name, names: Sequence[str] | None) -> Columns:
    """The columns called ``names``, by default all that can be written, as the database has them.

    Raises ``ValueError`` where there is no such table or column.
    """

    def look(sync: Any) -> list[Any] | None:
        seen = inspect(sync)
        if not seen.has_table(name.table, schema=name.schema):
            return None
        return list(seen.get_columns(name.table, schema=name.schema))

    found = await connection.run_sync(look)
    if found is None:
        raise ValueError(
            f"there is no table {name}: create it, or give its columns with their types, as in "
            "columns=[('name', sqlalchemy.Text)]"
        )
    types = {str(column["name"]): column["type"] for column in found}
    if names is None:
        names = [str(column["name"]) for column in found if "computed" not in column]
    unknown = [column for column in names if column not in types]
    if unknown:
        raise ValueError(f"{name} has no column {unknown[0]!r}; it has {', '.join(types)}")
    return Columns(tuple(names), tuple(types[column] for column in names))


def shape(database: Database, name: Name, columns: Columns) -> Shape:
    """What the rows of a table have to look like; values are made what the driver wants by SQLAlchemy's types."""
    dialect = database.dialect
    processes = [
        None if isinstance(kind, NullType) else kind.dialect_impl(dialect).bind_processor(dialect)
        for kind in columns.types
    ]
    return Shape(str(name), columns.names, processes)


async def load(database: Database, connection: AsyncConnection, name: Name, fits: Shape, rows: Rows) -> int:
    """Write ``rows`` in the transaction of ``connection``; how many there were.

    Raises ``RowError`` for one that cannot be written, what the rows raise, and what the database raises.
    """
    into = _into_file if database.is_file else _into_server
    return await into(database, connection, name, fits, rows)


# PostgreSQL ----------------------------------------------------------------------------------------------


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


async def _into_server(database: Database, connection: AsyncConnection, name: Name, fits: Shape, rows: Rows) -> int:
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
    import asyncpg

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
    import asyncpg

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


# SQLite --------------------------------------------------------------------------------------------------


async def _into_file(database: Database, connection: AsyncConnection, name: Name, fits: Shape, rows: Rows) -> int:
    columns = ", ".join(map(database.quoted_column, fits.columns))
    marks = ", ".join("?" * len(fits.columns))
    insert = f"INSERT INTO {database.quoted(name)} ({columns}) VALUES ({marks})"
    count = 0
    before = await _changes(connection)
    async with aclosing(bunches(rows, fits)) as source:  # type: ignore[type-var]
        async for first, bunch in source:
            try:
                await connection.exec_driver_sql(insert, bunch)
            except (DBAPIError, OverflowError, UnicodeEncodeError) as error:
                at = await _changes(connection) - before - count
                if not 0 <= at < len(bunch):  # a trigger has written too
                    raise
                column = _unbindable(fits.columns, bunch[at])
                raise RowError.at(fits.table, first + at, column, reason(error)) from error
            count = first + len(bunch) - 1
    return count


async def _changes(connection: AsyncConnection) -> int:
    found: int = (await connection.exec_driver_sql("SELECT total_changes()")).scalar_one()
    return found


def _unbindable(columns: Sequence[str], row: tuple[Any, ...]) -> str | None:
    """The first column whose value SQLite has no type for."""
    for column, value in zip(columns, row, strict=True):
        if isinstance(value, int):
            fits = -(2**63) <= value < 2**63
        else:
            fits = value is None or isinstance(value, (float, str, bytes, bytearray, memoryview))
        if not fits:
            return column
    return None
