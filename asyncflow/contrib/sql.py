"""Tasks that bring rows into tables: ``CopyToTable``."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Iterable, Iterator
from typing import Any, ClassVar

from .._task import Task
from ..targets.sql import RowError, RowsIn, TableTarget, Typed

__all__ = ["CopyToTable", "RowError"]


class CopyToTable(Task):
    """A task whose output is rows in a table: a subclass says where they go, and what they are in ``rows()``::

        class Orders(CopyToTable):
            date: datetime.date

            url = "postgresql://me:password@host/shop"
            table = "orders"
            columns = [("id", sqlalchemy.BigInteger), ("customer", sqlalchemy.Text)]

            def rows(self):
                for line in ...:
                    yield line.id, line.customer

    Rows and marker are written in one transaction: by COPY into PostgreSQL, in batches into SQLite. See
    ``asyncflow.targets.sql.TableTarget``, which is the output.
    """

    url: ClassVar[Any] = ""
    """The database: ``postgresql://user:password@host/database`` or ``sqlite:///path/file.db``, as a string or a
    ``sqlalchemy.URL``; may be a property."""
    table: ClassVar[Any] = ""
    """``table`` or ``schema.table``; may be a property."""
    columns: ClassVar[Iterable[Typed] | None] = None
    """Names, or pairs of name and SQLAlchemy type: then a missing table is created. By default all there are."""
    marker_table: ClassVar[str] = "table_updates"
    """Where it is kept that the rows are there."""

    @property
    def update_id(self) -> str:
        """What the rows are known by."""
        return self.task_id

    def output(self) -> TableTarget:
        """The rows, with their marker."""
        for name in ("url", "table"):
            if not getattr(self, name):
                raise NotImplementedError(f"{type(self).__name__} needs {name} = '...', where its rows are to go")
        return TableTarget(self.url, self.table, self.update_id, self.columns, marker_table=self.marker_table)

    def rows(self) -> RowsIn:
        """The rows, as tuples or mappings: a generator, an async generator, or what gives an iterable.

        A plain one is walked in a thread, so it may block.
        """
        raise NotImplementedError(f"{type(self).__name__} needs rows(): yield one tuple or mapping after the other")

    async def run(self) -> None:
        """Write the rows. Raises ``RowError`` and whatever else ``TableTarget.write`` does."""
        rows: Any
        if inspect.iscoroutinefunction(self.rows):
            rows = await self.rows()
        elif inspect.isasyncgenfunction(self.rows) or inspect.isgeneratorfunction(self.rows):
            rows = self.rows()
        else:
            rows = self._given_in_thread()
        try:
            await self.output().write(rows)
            return
        except _Asynchronous as given:
            rows = given.rows
        await self.output().write(rows)

    def _given_in_thread(self) -> Iterator[Any]:
        """What a plain ``rows()`` returns, which may take its time."""
        rows: Any = self.rows()
        if isinstance(rows, AsyncIterable):
            raise _Asynchronous(rows)
        yield from rows


class _Asynchronous(Exception):
    """``rows()`` was a plain function, and has given rows that are to be walked on the loop: nothing was written."""

    def __init__(self, rows: AsyncIterable[Any]) -> None:
        super().__init__()
        self.rows = rows
