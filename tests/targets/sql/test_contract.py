"""The contract of targets: blocks of bytes are rows, and are there together with their marker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Integer, LargeBinary, Text, bindparam, text

from asyncflow import Target
from asyncflow.targets.sql import TableTarget
from asyncflow.testing import TargetContract

INSERT = text("INSERT INTO blocks (name, n, data) VALUES (:name, :n, :data)").bindparams(
    bindparam("name", type_=Text), bindparam("n", type_=Integer), bindparam("data", type_=LargeBinary)
)
CREATE = "CREATE TABLE IF NOT EXISTS blocks (name TEXT, n INTEGER, data {})"


class Blocks(TargetContract):
    """What both databases have in common."""

    replaces = False
    url = ""

    def make(self, name: str) -> TableTarget:
        return TableTarget(self.url, "blocks", name)

    def writing(self, target: TableTarget) -> AbstractAsyncContextManager[Any]:
        @asynccontextmanager
        async def block() -> AsyncIterator[Any]:
            async with target.transaction() as connection:
                count = 0

                async def write(data: bytes) -> None:
                    nonlocal count
                    count += 1
                    await connection.execute(INSERT, {"name": target.update_id, "n": count, "data": data})

                yield write

        return block()

    async def read(self, target: TableTarget) -> bytes:
        async with target.rows() as rows:
            blocks = [(n, data) async for name, n, data in rows if name == target.update_id]
        return b"".join(data for _, data in sorted(blocks))


class TestSQLite(Blocks):
    @pytest.fixture(autouse=True)
    def _table(self, sqlite_url: str) -> None:
        import sqlite3

        self.url = sqlite_url
        connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
        connection.execute(CREATE.format("BLOB"))
        connection.close()

    def unknown(self) -> Target:
        folder = self.url.removeprefix("sqlite:///").removesuffix("data.db")
        with open(f"{folder}/other.db", "w") as file:
            file.write("this is no database, and long enough to look like one\n" * 100)
        return TableTarget(f"sqlite:///{folder}/other.db", "blocks", "x")


class TestPostgreSQL(Blocks):
    @pytest.fixture(autouse=True)
    async def _table(self, postgres_url: str) -> None:
        import asyncpg

        self.url = postgres_url
        connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        await connection.execute(CREATE.format("BYTEA"))
        await connection.close()

    def unknown(self) -> Target:
        return TableTarget(self.url + "_none", "blocks", "x")
