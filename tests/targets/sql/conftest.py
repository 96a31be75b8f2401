"""Databases for the tests: a server of PostgreSQL for the session, a file of SQLite for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from examples.servers.postgres import Postgres, postgres
from tests.servers import had


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with had(postgres()) as given:
        yield given


def on_server(dsn: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """What ``work(connection)`` gives, on a connection of asyncpg's own and in a loop of its own."""

    async def main() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(main())


EMPTY = """
DO $$ DECLARE name text; BEGIN
  PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
  FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', name);
  END LOOP;
  CREATE SCHEMA public;
END $$
"""


@pytest.fixture(scope="session")
def test_database(server: Postgres) -> str:
    on_server(server.dsn, lambda connection: connection.execute("CREATE DATABASE test"))
    return server.url.rsplit("/", 1)[0] + "/test"


@pytest.fixture
def postgres_url(test_database: str) -> Iterator[str]:
    """A database with nothing in it."""
    yield test_database
    on_server(test_database.replace("+asyncpg", ""), lambda connection: connection.execute(EMPTY))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data.db"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """One after the other: a file of SQLite, a server of PostgreSQL."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def dsn(postgres_url: str) -> str:
    """The test's own database for asyncpg."""
    return postgres_url.replace("+asyncpg", "")
