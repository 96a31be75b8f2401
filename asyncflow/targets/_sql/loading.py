"""Rows into a table, within a transaction: by COPY into PostgreSQL, in batches into SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import aclosing
from operator import length_hint
from typing import Any, NamedTuple

from sqlalchemy import Column, MetaData, Table, inspect, quoted_name
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import NullType, TypeEngine

from .engine import Database, reason
from .names import Name
from .rows import RowError, RowsIn, Shape, bunches

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


async def load(database: Database, connection: AsyncConnection, name: Name, fits: Shape, rows: RowsIn) -> int:
    """Write ``rows`` in the transaction of ``connection``; how many there were.

    Raises ``RowError`` for one that cannot be written, what the rows raise, and what the database raises.
    """
    if database.is_file:
        return await _into_file(database, connection, name, fits, rows)
    from .server import copy

    return await copy(database, connection, name, fits, rows)


# SQLite --------------------------------------------------------------------------------------------------


async def _into_file(database: Database, connection: AsyncConnection, name: Name, fits: Shape, rows: RowsIn) -> int:
    columns = ", ".join(map(database.quoted_column, fits.columns))
    marks = ", ".join("?" * len(fits.columns))
    insert = f"INSERT INTO {database.quoted(name)} ({columns}) VALUES ({marks})"
    # Not by SQLAlchemy, which makes a list of them first: the driver goes through them, and we see how far it has come.
    driver: Any = (await connection.get_raw_connection()).driver_connection
    count = 0
    async with aclosing(bunches(rows, fits)) as source, driver.cursor() as cursor:  # type: ignore[type-var]
        async for bunch in source:
            left = iter(bunch.rows)
            try:
                await cursor.executemany(insert, left)
            except OF_A_ROW as error:
                at = len(bunch.rows) - length_hint(left) - 1
                column = _unbindable(fits.columns, bunch.rows[at])
                raise RowError.at(fits.table, bunch.first + at, column, reason(error)) from error
            count = bunch.last
    return count


OF_A_ROW = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,  # no such type, since Python 3.12
    OverflowError,
    UnicodeEncodeError,
)


def _unbindable(columns: Sequence[str], row: tuple[Any, ...]) -> str | None:
    """The first column whose value SQLite has no type for."""
    for column, value in zip(columns, row, strict=True):
        if isinstance(value, int):
            fits = -(2**63) <= value < 2**63
        elif isinstance(value, str):
            fits = value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
        else:
            fits = value is None or isinstance(value, (float, bytes, bytearray, memoryview))
        if not fits:
            return column
    return None
