"""``python -m benchmarks.sql``: rows into PostgreSQL, beside the same driver's COPY of the same rows.

Both take turns on one private server, each into a table of its own; as JSON in ``output/benchmarks/sql.json``.
Ours is everything there is to it: the marker, the transaction, the commit. Theirs is the COPY and its transaction.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import sqlalchemy

from asyncflow.targets.sql import TableTarget
from examples.servers.postgres import postgres

from .measure import Scale, longest_gap, medians, ratio
from .report import OUTPUT, figure, machine, table
from .rows import Goal, Row

ROWS = 1_000_000
GOAL = 1.3
"""Times the driver's own COPY."""
FIGURE = 60.0  # seconds; it is the ratio that counts

COLUMNS: list[tuple[str, Any]] = [
    ("id", sqlalchemy.BigInteger),
    ("customer", sqlalchemy.Text),
    ("amount", sqlalchemy.Double),
    ("at", sqlalchemy.DateTime),
]
NAMES = [name for name, _ in COLUMNS]
AT = datetime.datetime(2026, 1, 1)

Load = Callable[[str, Any], Awaitable[object]]


def generated(count: int) -> Iterator[tuple[Any, ...]]:
    """Rows as a program makes them."""
    for n in range(count):
        yield n, f"customer {n % 1000}", n / 7, AT


async def seconds(load: Load, name: str, rows: Any) -> float:
    """How long ``load`` takes."""
    began = time.perf_counter()
    await load(name, rows)
    return time.perf_counter() - began


async def into_postgres(dsn: str, count: int, turns: int) -> list[Row]:
    """From a list, and from a generator."""
    theirs = await asyncpg.connect(dsn)

    async def ours(name: str, rows: Any) -> None:
        assert await TableTarget(dsn, name, name, COLUMNS).write(rows) == count

    async def driver(name: str, rows: Any) -> None:
        async with theirs.transaction():
            await theirs.copy_records_to_table(name, records=rows, columns=NAMES)

    listed = list(generated(count))
    found: list[Row] = []
    for what, source in (("list", lambda: listed), ("generator", lambda: generated(count))):
        pairs = []
        for turn in range(turns + 1):
            pair = []
            for who, load in (("ours", ours), ("theirs", driver)):
                name = f"{who}_{what}_{turn}"
                await theirs.execute(f"CREATE TABLE {name} (id int8, customer text, amount float8, at timestamp)")
                pair.append(await seconds(load, name, source()))
                assert await theirs.fetchval(f"SELECT count(*) FROM {name}") == count
                await theirs.execute(f"DROP TABLE {name}")
            pairs.append(tuple(pair))
        pairs = pairs[1:]  # the first one warms up both
        own, least = medians(pairs)
        found.append(Row(f"COPY from a {what}", count, "s wall", own, least, ratio(pairs), Goal(FIGURE, GOAL)))
    await theirs.execute("CREATE TABLE gap (id int8, customer text, amount float8, at timestamp)")
    gap = await longest_gap(lambda: ours("gap", generated(count)))
    found.append(Row("COPY: longest gap of the loop", count, "ms", gap * 1000, goal=Goal(50)))
    await theirs.close()
    return found


async def into_sqlite(folder: str, count: int, turns: int) -> list[Row]:
    """Beside ``executemany`` of the standard library, in one thread."""
    pairs: list[tuple[float, ...]] = []
    for turn in range(turns + 1):
        path = f"{folder}/{turn}"
        own = await seconds(
            lambda name, rows: TableTarget(name, "t", "u", COLUMNS[:3]).write(rows),
            f"sqlite:///{path}",
            [row[:3] for row in generated(count)],
        )

        async def plain(name: str, rows: Any) -> None:
            connection = sqlite3.connect(name)
            connection.execute("CREATE TABLE t (id BIGINT, customer TEXT, amount DOUBLE)")
            with connection:
                connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
            connection.close()

        pairs.append((own, await seconds(plain, f"{path}.plain", [row[:3] for row in generated(count)])))
    own, least = medians(pairs[1:])
    return [Row("SQLite, beside sqlite3.executemany", count, "s wall", own, least, ratio(pairs[1:]))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sql", description=__doc__)
    parser.add_argument("--at-most", type=int, metavar="N", help="rows, once: to see that it works")
    scale = Scale(parser.parse_args().at_most)
    count, turns = scale.size(ROWS), scale.turns(5)
    about = machine()
    with postgres() as server:
        rows = asyncio.run(into_postgres(server.dsn, count, turns))
    with tempfile.TemporaryDirectory() as folder:
        rows += asyncio.run(into_sqlite(folder, count, turns))
    head = ["workload", "rows", "unit", "asyncflow", "driver", "ratio", "goal", "met"]
    print(
        table(
            head,
            [
                [
                    row.workload,
                    f"{row.tasks:,}",
                    row.unit,
                    figure(row.asyncflow),
                    "" if row.mini is None else figure(row.mini),
                    "" if row.ratio is None else f"{row.ratio:.2f}",
                    "" if row.goal is None else f"{row.goal.ratio or row.goal.figure:g}",
                    {True: "yes", False: "NO", None: ""}[row.met],
                ]
                for row in rows
            ],
        )
    )
    if scale.at_most is None:
        OUTPUT.mkdir(parents=True, exist_ok=True)
        path = OUTPUT / "sql.json"
        path.write_text(json.dumps({"machine": about, "rows": [row.to_json() for row in rows]}, indent=1) + "\n")
        print(f"\nas JSON: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
