"""SQL targets, for PostgreSQL and SQLite: a row that exists, a marker, rows in a table together with their marker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from ._extras import not_installed

try:
    import aiosqlite  # noqa: F401
    import sqlalchemy
    from sqlalchemy import column, literal, select
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.types import NullType, TypeEngine, to_instance
except ModuleNotFoundError as error:
    raise not_installed(error, "sql") from error

from ..attempt import current
from ..errors import TargetStateUnknown
from ..target import Target
from ._file import Operation
from ._remote import operation
from ._sql.engine import database, patiently, reason
from ._sql.loading import Columns, described, load, shape, table_of
from ._sql.marker import Marker, absent, have, published
from ._sql.names import Name, address, checked_text, column_name, place, table_name
from ._sql.reading import Reading
from ._sql.rows import RowError, RowsIn
from ._sql.stopping import stoppable

__all__ = ["MarkerTarget", "RowError", "RowTarget", "RowsIn", "TableTarget", "Typed"]

URL: TypeAlias = "str | sqlalchemy.URL"
Typed: TypeAlias = "str | tuple[str, TypeEngine[Any] | type[TypeEngine[Any]]]"

MARKERS = "table_updates"


class _SQLTarget(Target):
    """Something in a database. Two are equal if they are the same thing there, asked for in the same way."""

    __slots__ = ("_key", "_thing", "_url")

    def __init__(self, url: URL, thing: str) -> None:
        self._url = address(url)
        self._thing = thing  # what it is, in its database
        self._key: str | None = None

    @property
    def key(self) -> str:  # type: ignore[override]  # read-only here, an attribute in a user's own class
        """The database and what is asked for in it, without user and password: ``postgresql://host:5432/db/...``."""
        if self._key is None:
            self._key = f"{place(self._url)}/{self._thing}"
        return self._key

    def exists(self) -> Any:  # pragma: no cover  # each has its own
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and (self._url, self._thing) == (other._url, other._thing)

    def __hash__(self) -> int:
        return hash((type(self), self._thing, self._url.database))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r})"

    def _unknown(self, error: BaseException) -> TargetStateUnknown:
        return TargetStateUnknown(f"cannot tell whether {self!r} exists: {reason(error)}")


class RowTarget(_SQLTarget):
    """A row of ``table`` (``schema.table``) whose columns have the values of ``where``; it is there, or is not.

    It is only looked at: whoever makes it does so in SQL of their own. ``None`` stands for NULL, other values are
    compared as the database does.

    Raises ``TypeError`` and ``ValueError`` for a URL, name or value that cannot be.
    """

    __slots__ = ("table", "where")

    def __init__(self, url: URL, table: str, where: Mapping[str, Any]) -> None:
        self.table: Name = table_name(table)
        self.where: tuple[tuple[str, Any], ...] = tuple(sorted((column_name(name), where[name]) for name in where))
        if not self.where:
            raise ValueError(f"RowTarget({table!r}, where={{}}): name a column and its value, as in where={{'id': 7}}")
        hash(self.where)  # raises TypeError for a list, say
        super().__init__(url, f"{self.table}?" + "&".join(f"{name}={value!r}" for name, value in self.where))

    async def exists(self) -> bool:
        """Whether there is such a row; not if there is no such table. Raises ``TargetStateUnknown``."""
        try:
            return await stoppable(self._look())
        except (SQLAlchemyError, OSError) as error:
            raise self._unknown(error) from error

    async def _look(self) -> bool:
        async with database(self._url) as shared:
            if await shared.missing():
                return False
            # Not bare columns: to SQLite, one that is not there is a string in quotes.
            columns: list[Any] = [column(sqlalchemy.quoted_name(name, True)) for name, _ in self.where]
            found = sqlalchemy.table(self.table.quoted_table, *columns, schema=self.table.quoted_schema)
            query = select(literal(1)).select_from(found).limit(1)
            for wanted, (_, value) in zip(found.c, self.where, strict=True):
                # PostgreSQL takes a parameter for what the column is; SQLite wants it in the words of its own types.
                given = literal(value) if shared.is_file else literal(value, NullType())
                query = query.where(wanted.is_(None) if value is None else wanted == given)
            async with shared.ask(self.key) as connection:
                try:
                    rows = await patiently(lambda: connection.execute(query))
                except SQLAlchemyError as error:
                    if await absent(shared, connection, self.table, error):
                        return False
                    raise
                return rows.first() is not None


class MarkerTarget(_SQLTarget):
    """A row of a table of markers, ``marker_table``, which says that ``update_id`` has been done.

    The table is made with the first marker, and may be Luigi's. ``table`` is what was updated, if it is a table.

    Raises ``TypeError`` and ``ValueError`` for a URL, name or text that cannot be.
    """

    __slots__ = ("marker_table", "table", "update_id")

    def __init__(self, url: URL, update_id: str, *, table: str | None = None, marker_table: str = MARKERS) -> None:
        self.update_id = checked_text(update_id, "an update_id")
        self.table: Name | None = None if table is None else table_name(table)
        self.marker_table: Name = table_name(marker_table)
        super().__init__(url, f"{self._where()}#{update_id}")

    def _where(self) -> str:
        """The table, and that of the markers where it is not the usual one: no two pairs give one text."""
        table, marks = str(self.table or ""), str(self.marker_table)
        if marks != MARKERS or table == MARKERS:
            return f"{table}@{marks}"
        return table or marks

    @property
    def _marker(self) -> Marker:
        return Marker(self.marker_table, self.update_id, str(self.table or ""))

    async def exists(self) -> bool:
        """Whether the marker is there; not if there is no such table. Raises ``TargetStateUnknown``."""
        [answer] = await self.exists_many([self])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @classmethod
    async def exists_many(cls, targets: Sequence[MarkerTarget]) -> list[bool | BaseException]:
        """For each of ``targets`` whether it is there: one query for each database and table of markers."""
        groups: dict[tuple[sqlalchemy.URL, Name], list[int]] = {}
        for at, target in enumerate(targets):
            groups.setdefault((target._url, target.marker_table), []).append(at)
        answers: list[bool | BaseException] = [False] * len(targets)
        for (url, table), group in groups.items():
            markers = {at: targets[at]._marker for at in group}
            try:
                found = await stoppable(_found(url, table, set(markers.values())))
            except (SQLAlchemyError, OSError) as error:
                for at in group:
                    unknown = targets[at]._unknown(error)
                    unknown.__cause__ = error
                    answers[at] = unknown
            else:
                for at, marker in markers.items():
                    answers[at] = marker in found
        return answers

    def touch(self) -> Operation[None]:
        """Write the marker: ``await`` it; in a sync body, ``.result()``. Where it is there already, nothing happens.

        Raises what the database raises, and ``OSError`` (``EDEADLK``) where it would wait for its own block for ever.
        """
        return operation(self, "touch()", lambda: stoppable(self._touch()))

    async def _touch(self) -> None:
        async with (
            database(self._url) as shared,
            published(shared, self._marker, self.key, current.get(), idle=True),
        ):
            pass

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A block that has a connection of SQLAlchemy's: what is done with it, and the marker, are one transaction.

        It is committed when the block ends well, and rolled back otherwise; leave that to the block. If somebody else
        has written the marker meanwhile it is rolled back too, whatever has failed in it: in a task's body that is no
        error (the task is done, and the body goes on behind the block), elsewhere it is a ``FileExistsError``.

        Raises what the database raises (nothing is visible then), ``TaskCancelled`` in a body that has been cancelled,
        ``TargetStateUnknown`` where the connection broke in the commit and nobody can be asked, and ``OSError``
        (``EDEADLK``) in another such block of the same file of SQLite, which takes one writer at a time.
        """
        async with (
            database(self._url) as shared,
            published(shared, self._marker, self.key, current.get()) as begun,
        ):
            yield begun.connection


class TableTarget(MarkerTarget):
    """Rows that ``update_id`` has brought into ``table`` (``schema.table``), and the marker that says so.

    Args:
        url: ``postgresql://user:password@host/database`` or ``sqlite:///path/file.db``.
        table: it has to be there, unless ``columns`` have types.
        update_id: what the rows are known by, a task's ``task_id``, say.
        columns: names of the columns that are written, or pairs of name and SQLAlchemy type; then a missing table is
            created, in a transaction of its own. By default all columns of the table, in its order.
        marker_table: where the marker is.

    Raises ``TypeError`` and ``ValueError`` for a URL, name, type or text that cannot be.
    """

    __slots__ = ("_types", "columns")

    def __init__(
        self,
        url: URL,
        table: str,
        update_id: str,
        columns: Iterable[Typed] | None = None,
        *,
        marker_table: str = MARKERS,
    ) -> None:
        super().__init__(url, update_id, table=table, marker_table=marker_table)
        self.columns: tuple[str, ...] | None = None
        self._types: tuple[TypeEngine[Any], ...] | None = None
        if columns is not None:
            self._set_columns(list(columns))

    def _set_columns(self, given: list[Typed]) -> None:
        typed = [one for one in given if not isinstance(one, str)]
        if not given or len(typed) not in (0, len(given)):
            raise ValueError(f"columns={given!r}: write names, or pairs of name and type, and at least one")
        names = [one if isinstance(one, str) else one[0] for one in given]
        self.columns = tuple(map(column_name, names))
        if len(set(self.columns)) < len(names):
            raise ValueError(f"columns={names!r}: a column is there twice")
        if typed:
            self._types = tuple(_type(one) for one in typed)

    def write(self, rows: RowsIn) -> Operation[int]:
        """Write ``rows`` and the marker in one transaction: ``await`` it; in a sync body, ``.result()``. It gives how
        many rows there were. A body may as well return the rows: the engine writes them.

        ``rows`` are tuples or mappings, in an iterable (walked in a thread, a generator too) or an asynchronous one;
        they are never all in memory. PostgreSQL gets them by COPY, SQLite in batches. Values are what the columns'
        SQLAlchemy types take; ``None`` is NULL.

        If somebody else has written the marker meanwhile, nothing is written: 0 in a task's body (the task is done),
        a ``FileExistsError`` elsewhere. Raises ``RowError``, which names row and column, what the rows raise, and what
        ``transaction()`` does. Whatever it raises, nothing is visible.
        """
        return operation(self, "write(rows)", lambda: stoppable(self._write(rows)))

    def put(self, rows: RowsIn) -> Operation[int]:
        """``write(rows)``, as the engine calls it with what a body returns."""
        return self.write(rows)

    async def _write(self, rows: RowsIn) -> int:
        attempt = current.get()
        async with database(self._url) as shared:
            name, count = self._name, 0
            tables = {}
            if self._types is not None and self.columns is not None:
                tables[name] = table_of(name, Columns(self.columns, self._types))
            async with published(shared, self._marker, self.key, attempt, tables=tables) as (connection, _, there):
                if not there:
                    columns = await self._described(connection)
                    count = await load(shared, connection, name, shape(shared, name, columns), rows)
            return 0 if attempt is not None and self.key in (attempt.lost or ()) else count

    @asynccontextmanager
    async def rows(self) -> AsyncIterator[AsyncIterator[tuple[Any, ...]]]:
        """A block that has the rows of the table, all of them, one after the other; memory holds a thousand.

        Raises what the database raises, ``ValueError`` if there is no such table.
        """
        async with (
            database(self._url) as shared,
            shared.lend("read", self.key) as connection,
            Reading(shared, connection, self._name, lambda: self._described(connection)) as rows,
        ):
            yield rows

    @property
    def _name(self) -> Name:
        assert self.table is not None
        return self.table

    async def _described(self, connection: AsyncConnection) -> Columns:
        if self.columns is not None and self._types is not None:
            return Columns(self.columns, self._types)
        return await described(connection, self._name, self.columns)


async def _found(url: sqlalchemy.URL, table: Name, markers: Iterable[Marker]) -> set[Marker]:
    async with database(url) as shared:
        if await shared.missing():
            return set()
        async with shared.ask(f"markers in {table}") as connection:
            return await have(shared, connection, table, markers)


def _type(pair: Any) -> TypeEngine[Any]:
    name, kind = pair
    if not (isinstance(kind, TypeEngine) or (isinstance(kind, type) and issubclass(kind, TypeEngine))):
        raise TypeError(f"column {name!r} has the type {kind!r}; write one of SQLAlchemy's, as in sqlalchemy.Integer")
    return to_instance(kind)
