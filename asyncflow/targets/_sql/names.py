"""Where a database is, and what things in it are called: checked once, when a target is made."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import Any, NamedTuple

from sqlalchemy import URL, make_url, quoted_name
from sqlalchemy.exc import ArgumentError

from ...links import resolve

__all__ = ["Name", "address", "checked_text", "column_name", "place", "table_name"]

_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}", re.ASCII)
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
LONGEST = 2_000  # bytes of a text that PostgreSQL can keep in an index


class Name(NamedTuple):
    """A table, and the schema it is in if that was said. Both are plain words, and are quoted wherever they go."""

    schema: str | None
    table: str

    @property
    def quoted_table(self) -> quoted_name:
        """The table for SQLAlchemy."""
        return quoted_name(self.table, True)

    @property
    def quoted_schema(self) -> quoted_name | None:
        """The schema for SQLAlchemy."""
        return None if self.schema is None else quoted_name(self.schema, True)

    def __str__(self) -> str:
        return self.table if self.schema is None else f"{self.schema}.{self.table}"


def table_name(text: Any) -> Name:
    """``table`` or ``schema.table``. Raises ``TypeError``, ``ValueError``."""
    if not isinstance(text, str):
        raise TypeError(f"a table is named by a string, not by {text!r}")
    parts = text.split(".")
    if len(parts) > 2 or not all(map(_PART.fullmatch, parts)):
        raise ValueError(
            f"{text!r} is no name for a table: write letters, digits, _ and $, 63 at most, beginning with a letter "
            "or _; a schema goes before it, as in 'schema.table'"
        )
    return Name(parts[0] if len(parts) == 2 else None, parts[-1])


def column_name(text: Any) -> str:
    """The name of a column. Raises ``TypeError``, ``ValueError``."""
    if not isinstance(text, str):
        raise TypeError(f"a column is named by a string, not by {text!r}")
    if not _PART.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name for a column: write letters, digits, _ and $, 63 at most, beginning with a "
            "letter or _"
        )
    return text


def checked_text(text: Any, what: str) -> str:
    """A text that every database can keep, and find by an index. Raises ``TypeError``, ``ValueError``."""
    if not isinstance(text, str):
        raise TypeError(f"{what} is a string, not {text!r}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{what} {text!r} is no Unicode text: half a surrogate pair is in it") from None
    if not text or "\0" in text or size > LONGEST:
        raise ValueError(f"{what} {text[:100]!r} must not be empty, hold a NUL or be longer than {LONGEST:,} bytes")
    return text


def address(url: Any) -> URL:
    """``url`` for the asynchronous driver, a file's path made absolute.

    Raises ``TypeError``, ``ValueError`` (which never show what is in it, since that may be a password), and
    ``ImportError`` where the driver of PostgreSQL is missing.
    """
    if not isinstance(url, (str, URL)):
        raise TypeError(f"a database is named by a URL, not by a {type(url).__name__}")
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(
            "this is no URL of a database; write 'sqlite:///path/file.db' or 'postgresql://user:password@host/database'"
        ) from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ValueError(f"{parsed.drivername!r} is no database we can talk to: write 'sqlite' or 'postgresql'")
    parsed = parsed.set(drivername=driver)
    return _file(parsed) if driver.startswith("sqlite") else _server(parsed)


def _file(url: URL) -> URL:
    path = url.database
    if not path or path == ":memory:" or path.startswith("file:"):
        raise ValueError(
            "a database in memory is gone with its connection, and each would have its own: name a file, as in "
            "'sqlite:///path/file.db'"
        )
    if "\0" in path:
        raise ValueError(f"{path!r}: a path must not hold a NUL")
    return url.set(database=os.path.abspath(path))


def _server(url: URL) -> URL:
    if find_spec("asyncpg") is None:
        raise ImportError("PostgreSQL needs its driver: pip install 'asyncflow-engine[postgres]'")
    if not url.database:
        raise ValueError("this URL names no database: write 'postgresql://host/database'")
    if "sslmode" in url.query:  # as others call it
        mode = url.query["sslmode"]
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return url


def place(url: URL) -> str:
    """Which database that is, without who asks and how: the beginning of keys."""
    if url.drivername.startswith("sqlite"):
        folder, name = os.path.split(url.database or "")
        return "sqlite:///" + os.path.join(resolve.get()(folder), name)
    host = url.host or url.query.get("host") or "localhost"
    if not isinstance(host, str):
        host = ",".join(host)
    return f"postgresql://{host.lower()}:{url.port or 5432}/{url.database}"
