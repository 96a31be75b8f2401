"""The table of markers: a row says that something has been done. And the transaction that writes one at its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    TEXT,
    Column,
    DateTime,
    MetaData,
    Table,
    any_,
    bindparam,
    column,
    func,
    inspect,
    quoted_name,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from ...attempt import Attempt
from ...errors import TargetStateUnknown, TaskCancelled
from .._hops import in_thread
from .._streams import publish
from .engine import Database, patiently, reason, sqlstate
from .names import Name
from .stopping import stoppable

__all__ = ["Marker", "absent", "have", "published"]

log = logging.getLogger("asyncflow")

COMMIT = 15.0
"""Seconds a commit waits for readers of a file, and one whose connection broke for the server's verdict."""
LOCK = 0x6173_796E_6366_6C6F  # an advisory lock of PostgreSQL's: who makes a table
NO_TABLES: Mapping[Name, Table] = MappingProxyType({})


class Marker(NamedTuple):
    """A row of a table of markers."""

    marker_table: Name
    update_id: str
    target_table: str
    """The table that was filled, as ``schema.table``; empty where the marker is not about one."""


def _table(name: Name) -> Table:
    def named(text: str) -> quoted_name:
        return quoted_name(text, True)

    # The first three are Luigi's; what it has made is used as it is, with one column more.
    return Table(
        name.quoted_table,
        MetaData(),
        Column(named("update_id"), TEXT, primary_key=True),
        Column(named("target_table"), TEXT, primary_key=True, server_default=""),
        Column(named("inserted"), DateTime(timezone=True), server_default=func.current_timestamp(), nullable=False),
        Column(named("publish_id"), TEXT),
        schema=name.quoted_schema,
    )


HIDDEN = text("""
    SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relname = :table AND NOT has_schema_privilege(relnamespace, 'USAGE') AND nspname IN (
        SELECT btrim(replace(part, '$user', current_user), ' "')
        FROM unnest(string_to_array(current_setting('search_path'), ',')) AS part
    )
""").bindparams(bindparam("table", type_=TEXT))


async def absent(database: Database, connection: AsyncConnection, name: Name, error: BaseException) -> bool:
    """Whether a query failed because the table it asks is not there, as far as anybody can see."""
    if not _undefined(error):
        return False
    if database.is_file or name.schema is not None:
        return True
    # PostgreSQL passes over schemas that one may not use, and says the same of what is in them.
    await connection.rollback()
    return not (await connection.execute(HIDDEN, {"table": name.table})).scalar_one()


def _undefined(error: BaseException) -> bool:
    if sqlstate(error) is not None:
        return sqlstate(error) in ("42P01", "3F000")  # undefined_table, invalid_schema_name
    original = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(original, sqlite3.OperationalError) and str(original).startswith("no such table")


async def have(
    database: Database, connection: AsyncConnection, marker_table: Name, markers: Iterable[Marker]
) -> set[Marker]:
    """Which of ``markers``, all of ``marker_table``, are there: one query, however many they are.

    Not for a transaction that is to go on. Raises ``sqlalchemy.exc.DBAPIError``, ``OSError``, ``TimeoutError``.
    """
    try:
        return await _asked(database, connection, marker_table, markers)
    except DBAPIError as error:
        if await absent(database, connection, marker_table, error):
            return set()
        raise


async def _asked(
    database: Database, connection: AsyncConnection, marker_table: Name, markers: Iterable[Marker]
) -> set[Marker]:
    ids = sorted({marker.update_id for marker in markers})
    table = _table(marker_table)
    chosen: Any
    if database.is_file:
        # One variable, where a list would meet SQLite's limit of them.
        import json

        values = func.json_each(bindparam("ids", json.dumps(ids), TEXT)).table_valued("value")
        chosen = table.c.update_id.in_(select(column("value")).select_from(values))
    else:
        chosen = table.c.update_id == any_(bindparam("ids", ids, ARRAY(TEXT)))
    query = select(table.c.update_id, table.c.target_table).where(chosen)
    rows = await patiently(lambda: connection.execute(query))
    return {Marker(marker_table, update_id, target_table or "") for update_id, target_table in rows}


# Making tables -------------------------------------------------------------------------------------------


async def made(database: Database, name: Name, table: Table | None = None) -> None:
    """Make a table, that of markers by default, if it is missing. It is a transaction of its own.

    ``CREATE TABLE IF NOT EXISTS`` of two at once fails on PostgreSQL, and so may one of somebody who may not create
    tables even where it is there: so we look first, and make it one at a time.
    """
    await database.look()
    if name in database.made:
        return
    if database.is_file:
        await in_thread(_make_folder, os.path.dirname(database.url.database or ""))
    async with database.lend("write", f"the table {name}") as connection:
        transaction = await database.begin(connection)
        if await _complete(connection, name, table):
            await transaction.rollback()
        else:
            if not database.is_file:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            if not await _complete(connection, name, table):
                await _make(connection, name, table)
            await database.commit(connection, transaction)
    database.made.add(name)


def _make_folder(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)


async def _columns(connection: AsyncConnection, name: Name) -> set[str] | None:
    def look(sync: Any) -> set[str] | None:
        seen = inspect(sync)
        if not seen.has_table(name.table, schema=name.schema):
            return None
        return {str(found["name"]) for found in seen.get_columns(name.table, schema=name.schema)}

    return await connection.run_sync(look)


async def _complete(connection: AsyncConnection, name: Name, table: Table | None) -> bool:
    columns = await _columns(connection, name)
    return columns is not None and (table is not None or "publish_id" in columns)


async def _make(connection: AsyncConnection, name: Name, table: Table | None) -> None:
    wanted = _table(name) if table is None else table
    if await _columns(connection, name) is None:
        await connection.run_sync(wanted.create)  # and the types of its columns that are not there, as that of an enum
    else:  # a table of markers that Luigi has made
        prepare = connection.dialect.identifier_preparer
        await connection.exec_driver_sql(f"ALTER TABLE {prepare.format_table(wanted)} ADD COLUMN publish_id TEXT")


# Publishing ----------------------------------------------------------------------------------------------


class Publishing(NamedTuple):
    """A transaction that is going to write a marker."""

    connection: AsyncConnection
    transaction: Any
    there: bool
    """Whether the marker was there when it began."""


@asynccontextmanager
async def published(
    database: Database,
    marker: Marker,
    key: str,
    attempt: Attempt | None,
    *,
    tables: Mapping[Name, Table] = NO_TABLES,
    idle: bool = False,
) -> AsyncIterator[Publishing]:
    """A transaction for the block: what is done in it and ``marker`` become visible together, at its end.

    ``tables`` that are missing are made first. Where somebody else has written the marker meanwhile, all of it is
    rolled back. For an attempt of the engine's that is no error, nor is what has failed on the way: it has been done.
    Others, and one that has published before, get a ``FileExistsError``; unless ``idle``: nothing but the marker was
    to be written.

    Raises ``TaskCancelled`` if the attempt has been fenced, what the database raises (nothing is visible then), and
    ``TargetStateUnknown`` where a connection broke in the commit and nobody can be asked.
    """
    failure: Exception | None = None
    try:
        async with _begun(database, marker, key, tables) as begun:
            try:
                yield begun
                if await _completed(database, begun, marker, key, attempt):
                    return
            except (TaskCancelled, TargetStateUnknown):
                raise
            except Exception as error:
                if _undefined(error):  # it was dropped; whoever comes next makes it again
                    database.made.clear()
                failure = error
        # It may have failed because of somebody who was quicker: on a key of the rows, a table that both make.
        if failure is not None and not await _overtaken(database, begun.there, marker, key, attempt):
            raise failure
        if not idle:
            _lost(marker, key, attempt, failure)
    finally:
        del failure  # its traceback holds this frame


@asynccontextmanager
async def _begun(
    database: Database, marker: Marker, key: str, tables: Mapping[Name, Table]
) -> AsyncIterator[Publishing]:
    """A transaction whose tables are there, also where somebody has dropped that of the markers since we saw it."""
    last = False
    while True:
        for name, table in tables.items():
            await made(database, name, table)
        await made(database, marker.marker_table)
        async with database.lend("write", key) as connection:
            transaction = await database.begin(connection)
            try:
                # On a server it begins with its first statement, and a COPY is none.
                there = marker in await _asked(database, connection, marker.marker_table, [marker])
            except DBAPIError as error:
                if last or not _undefined(error):
                    raise
            else:
                yield Publishing(connection, transaction, there)
                return
        database.made.clear()
        last = True


async def _completed(database: Database, begun: Publishing, marker: Marker, key: str, attempt: Attempt | None) -> bool:
    """Write the marker, and commit; False: it is there, and all of it has been rolled back."""
    connection, transaction, _ = begun
    if not transaction.is_active:
        raise RuntimeError(
            f"the transaction of {key} was ended inside its block, so its marker could not be part of it; "
            "leave commit() and rollback() to the block"
        )
    publish_id = os.urandom(16).hex()
    if await _write(connection, database, marker, publish_id):
        await publish(attempt, key, lambda: _commit(database, connection, transaction, marker, publish_id))
        return True
    await transaction.rollback()
    return False


async def _overtaken(database: Database, there: bool, marker: Marker, key: str, attempt: Attempt | None) -> bool:
    """Whether somebody else has written the marker, as far as that can be told, while ours failed."""
    if there:  # nothing is new; but an attempt that was begun without it has nothing left to do
        return attempt is not None and key not in (attempt.published or ()) and not attempt.engine.forced(attempt)

    async def look() -> bool:
        async with asyncio.timeout(COMMIT), database.lend("ask", key) as connection:
            return marker in await have(database, connection, marker.marker_table, [marker])

    try:
        return await stoppable(look())
    except (SQLAlchemyError, OSError):  # what failed says more
        return False


def _lost(marker: Marker, key: str, attempt: Attempt | None, failure: Exception | None) -> None:
    if attempt is None or key in (attempt.published or ()):
        raise FileExistsError(
            errno.EEXIST, "it has been published before, and is not written twice: nothing of this was kept", key
        ) from failure
    if attempt.engine.forced(attempt):  # nobody knows which rows are the old ones, and twice is wrong
        raise FileExistsError(
            errno.EEXIST,
            "it has been written before, and forcing it would write it twice: remove what it wrote, and its marker "
            f"(update_id {marker.update_id!r} in {'.'.join(filter(None, marker.marker_table))}), first",
            key,
        ) from failure
    if failure is not None:
        log.info("%s has been published by somebody else; dropped: %s", key, type(failure).__name__)
    attempt.lose(key)


async def _write(connection: AsyncConnection, database: Database, marker: Marker, publish_id: str) -> bool:
    """Write the marker, within the transaction; False: it is there. Waits for somebody who is about to write it."""
    table = _table(marker.marker_table)
    insert = sqlite.insert(table) if database.is_file else postgresql.insert(table)
    values = {"update_id": marker.update_id, "target_table": marker.target_table, "publish_id": publish_id}
    done = await connection.execute(insert.values(values).on_conflict_do_nothing())
    if done.rowcount == 1:
        return True
    query = select(table.c.target_table).where(table.c.update_id == marker.update_id)
    there = {found or "" for found in (await connection.execute(query)).scalars()}
    if marker.target_table not in there:
        raise ValueError(
            f"{marker.marker_table} takes an update_id once, and {marker.update_id!r} is that of "
            f"{', '.join(sorted(there)) or 'another'}: give this one another update_id, or another marker_table"
        )
    return False


async def _commit(
    database: Database, connection: AsyncConnection, transaction: Any, marker: Marker, publish_id: str
) -> None:
    try:
        await database.commit(connection, transaction, COMMIT)
    except (DBAPIError, OSError) as error:
        # Did the server get to hear of it before the connection broke?
        if not await _have_been_published(database, marker, publish_id, error):
            raise


async def _have_been_published(database: Database, marker: Marker, publish_id: str, error: Exception) -> bool:
    if isinstance(error, IntegrityError) or (database.is_file and isinstance(error, OperationalError)):
        return False  # a deferred constraint, a file that is locked: nothing has broken
    deadline = asyncio.get_running_loop().time() + COMMIT
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await _verdict(database, marker, publish_id)
        except (DBAPIError, OSError, TimeoutError) as trouble:
            if asyncio.get_running_loop().time() >= deadline:
                raise TargetStateUnknown(
                    f"the connection broke while {marker.update_id!r} was being committed ({reason(error)}), and its "
                    f"marker in {marker.marker_table} cannot be asked for ({reason(trouble)})"
                ) from error
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(0.1)


async def _verdict(database: Database, marker: Marker, publish_id: str) -> bool:
    """Whether our marker is there, once the transaction that was to write it has ended."""
    async with database.lend("ask", f"the marker {marker.update_id!r}") as connection:
        async with connection.begin() as transaction:
            # To write it again waits for one that is still at it: only then there is an answer.
            with suppress(ValueError):
                await _write(connection, database, marker, "")
            await transaction.rollback()
        table = _table(marker.marker_table)
        found = select(table.c.publish_id).where(table.c.update_id == marker.update_id)
        return publish_id in set((await connection.execute(found)).scalars())
