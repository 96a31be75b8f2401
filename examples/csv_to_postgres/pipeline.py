"""Four years of Seattle's weather from CSV into PostgreSQL, and summed up there, in SQL.

YearFile (4 files, not ours), Schema -> LoadYear (4) -> Monthly -> Wettest

The tasks find the database in the environment. This program starts a server, says there where it is, and ends it. Of
one of the files it damages a line, to show that a load which fails half-way leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import text

from asyncflow import ExternalTask, LocalTarget, Task, build
from asyncflow.codecs import Csv
from asyncflow.contrib.sql import CopyToTable
from asyncflow.targets.sql import MarkerTarget, TableTarget

sys.path += map(str, (Path(__file__).parents[2], Path(__file__).parents[1] / "weather"))

from readings import data_folder

from examples.servers import ServerMissing
from examples.servers.postgres import postgres

YEARS = range(2012, 2016)
TABLES = (
    "CREATE TABLE weather (day date PRIMARY KEY, low real, high real, rain real, CHECK (low <= high))",
    "CREATE TABLE monthly (month date PRIMARY KEY, rain real, wet_days integer)",
)
SUM_UP = """
    INSERT INTO monthly SELECT date_trunc('month', day), sum(rain), count(*) FILTER (WHERE rain >= 1)
    FROM weather GROUP BY 1"""


def database() -> str:
    """The URL of the database, which has the password in it: not a parameter, so in no task's name."""
    return os.environ["DATABASE_URL"]


class YearFile(ExternalTask):
    """The measurements of one year. It is not ours to make: asyncflow only looks whether it is there."""

    year: int

    def output(self) -> LocalTarget:
        return LocalTarget(Path(os.environ["READINGS"], f"{self.year}.csv"), codec=Csv())


class Schema(Task):
    """The tables. What only SQL can do is done once: a marker, written in the same transaction, says so."""

    version: int = 1

    def output(self) -> MarkerTarget:
        return MarkerTarget(database(), self.task_id)

    async def run(self) -> None:
        async with self.output().transaction() as connection:
            for table in TABLES:
                await connection.execute(text(table))


class LoadYear(CopyToTable):
    """The rows of one year, and the marker that says that they are there: one transaction."""

    year: int

    table = "weather"
    columns = ("day", "low", "high", "rain")

    @property
    def url(self) -> str:
        return database()

    def requires(self) -> dict[str, Task]:
        return {"file": YearFile(year=self.year), "schema": Schema()}

    def rows(self) -> Iterator[tuple[Any, ...]]:
        for row in self.input()["file"].rows():
            day = datetime.date.fromisoformat(row["date"].replace("/", "-"))
            yield day, *(float(row[name]) for name in ("temp_min", "temp_max", "precipitation"))


class Monthly(Task):
    """The months, by one statement that moves no row through here."""

    def requires(self) -> list[LoadYear]:
        return [LoadYear(year=year) for year in YEARS]

    def output(self) -> TableTarget:
        return TableTarget(database(), "monthly", self.task_id)

    async def run(self) -> None:
        async with self.output().transaction() as connection:
            await connection.execute(text(SUM_UP))


class Wettest(Task):
    """The wettest months. Without an output(): a value, asked for anew by each build."""

    def requires(self) -> Monthly:
        return Monthly()

    async def run(self) -> list[str]:
        async with self.input().rows() as rows:
            months = sorted([row async for row in rows], key=lambda row: row[1], reverse=True)
        return [f"{month:%B %Y}: {rain:.0f} mm on {days} wet days" for month, rain, days in months[:3]]


def split(folder: Path) -> None:
    """A file for each year."""
    head, *lines = (data_folder() / "seattle-weather.csv").read_text("utf-8").splitlines(keepends=True)
    for year in YEARS:
        of_year = [line for line in lines if line.startswith(f"{year}/")]
        (folder / f"{year}.csv").write_text(head + "".join(of_year))


async def tell() -> None:
    """How many rows there are of each year, and whether there is the marker that says so of 2014."""
    target = LoadYear(year=2014).output()
    async with target.rows() as rows:
        count = Counter([day.year async for day, *_ in rows])
    print(f"  rows: {dict(sorted(count.items()))}, marker of 2014: {await target.exists()}")


async def main(folder: Path) -> None:
    split(folder)
    path = folder / "2014.csv"
    whole = path.read_text()
    path.write_text(whole.replace("2014/07/19,0.0,25.6,", "2014/07/19,0.0,-999,"))  # as a broken thermometer has it

    result = await build(Wettest())
    print("With a damaged file:", result.summary())
    for error in result.errors():
        print(" ", str(error).splitlines()[0])
    await tell()

    path.write_text(whole)
    result = await build(Wettest())
    result.raise_for_failure()
    print("With the mended file:", result.summary())
    await tell()
    for line in result[Wettest()]:
        print(" ", line)

    print("Once more:", (await build(Monthly())).summary())


if __name__ == "__main__":
    try:
        with postgres() as server, tempfile.TemporaryDirectory() as folder:
            os.environ |= {"DATABASE_URL": server.url, "READINGS": folder}
            asyncio.run(main(Path(folder)))
    except ServerMissing as problem:
        sys.exit(str(problem))
