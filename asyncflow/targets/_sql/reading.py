"""The rows of a table on their way out; a reader of a file steps aside for a writer that waits for it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from .engine import Database, patiently
from .loading import Columns, table_of
from .names import Name

__all__ = ["Reading"]

MOST = 1_000  # rows in memory
REST = Name("temp", "asyncflow_rest")


class Reading:
    """A block that has the rows of the table ``name``, as they were when it began, one after the other."""

    def __init__(
        self, database: Database, connection: AsyncConnection, name: Name, described: Callable[[], Awaitable[Columns]]
    ) -> None:
        self._database = database
        self._connection = connection
        self._name = name
        self._described = described
        self._columns: Columns
        self._query: Select[Any]
        self._result: Any = None
        self._given = 0
        self._aside = False
        self._one_at_a_time = asyncio.Lock()

    async def __aenter__(self) -> AsyncIterator[tuple[Any, ...]]:
        inside = self._database.writer_around()
        try:
            await patiently(self._begin, 0 if inside else None)
        except OperationalError as error:
            if inside is None:
                raise
            raise OSError(
                errno.EDEADLK,
                f"{self._name} cannot be read: {inside}, in whose transaction this was begun, has written so much that "
                "it has the file to itself; read before the transaction begins",
            ) from error
        await self._database.let_step_aside(self.step_aside)
        return self._rows()

    async def __aexit__(self, *error: object) -> None:
        async with self._one_at_a_time:
            self._aside = True

    async def _begin(self) -> None:
        self._columns = await self._described()
        await self._ask(self._name)

    async def _ask(self, name: Name) -> None:
        self._query = select(table_of(name, self._columns))
        self._result = await self._connection.stream(self._query.execution_options(yield_per=MOST))

    async def _rows(self) -> AsyncIterator[tuple[Any, ...]]:
        while rows := await self._next():
            for row in rows:
                yield tuple(row)

    async def _next(self) -> list[Any]:
        async with self._one_at_a_time:
            rows: list[Any] = await self._result.fetchmany(MOST)
            self._given += len(rows)
            return rows

    async def step_aside(self) -> None:
        """Hold no lock of the file any more: what has not been read yet goes into a temporary file of SQLite's."""
        async with self._one_at_a_time:
            if self._aside:
                return
            self._aside = True
            connection = self._connection
            if (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one() == "wal":
                return  # there a reader holds nobody up
            await self._result.close()
            (await connection.get_raw_connection()).driver_connection.used_up = True  # type: ignore[union-attr]
            dialect = self._database.dialect
            rest = (
                self._query.limit(-1)
                .offset(self._given)
                .compile(dialect=dialect, compile_kwargs={"literal_binds": True})
            )
            await connection.exec_driver_sql(f"CREATE TEMP TABLE {REST.table} AS {rest}")
            await connection.commit()
            await self._ask(REST)
