"""The weather of Seattle and San Francisco: from the CSV files of a PyPI package to a report with charts.

Measurements (3 files, not ours) -> CleanMonth (72) -> Database -> Figures, Chart (3) -> Report
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Any, get_args

import charts
import database
import page
from readings import CITY, Source, data_folder, days_of, months_in, to_csv

from asyncflow import ExternalTask, LocalTarget, MonthParameter, Task, param

DATA = data_folder()
OUT = Path("output/weather")


class Measurements(ExternalTask):
    """A file that pip has installed. It is not ours to make: asyncflow only looks whether it is there."""

    source: Source

    def output(self) -> LocalTarget:
        return LocalTarget(DATA / f"{self.source}.csv")


class CleanMonth(Task):
    """One month of one city: one line a day, in °C and mm. Hourly readings become their min, mean and max."""

    source: Source
    month: Annotated[datetime.date, MonthParameter()]
    out: Path = OUT
    # Only so that there is time to press Ctrl-C. How fast the work is does not change what is made: not
    # significant, so not part of the task's identity.
    pause: float = param(default=0.1, significant=False, help="seconds between one month and the next")

    def requires(self) -> Measurements:
        return Measurements(source=self.source)

    def output(self) -> LocalTarget:
        return LocalTarget(self.out / "clean" / f"{CITY[self.source]}-{self.month:%Y-%m}.csv")

    # An async body: all 72 wait, read and write at the same time, on one thread. The file appears under its
    # name when the `async with` has ended well, and not before: nobody ever sees half a month.
    async def run(self) -> None:
        await asyncio.sleep(self.pause * self.month.month)
        async with self.input().open() as file:
            text = await file.read()
        async with self.output().open("w") as file:
            await file.write(to_csv(days_of(self.month, text)))


class Database(Task):
    """All the days in one SQLite table. Which months there are, only the measurements can say."""

    out: Path = OUT

    def requires(self) -> dict[Source, Measurements]:
        return {source: Measurements(source=source) for source in get_args(Source)}

    def output(self) -> LocalTarget:
        return LocalTarget(self.out / "weather.sqlite")

    # A plain `def` runs in a thread, where sqlite3 may block. What it yields is made, as far as it is missing,
    # all at once; then it goes on in the same place, with the outputs. (In an `async def`: `await gather(...)`.)
    def run(self) -> Generator[list[CleanMonth], list[LocalTarget], None]:
        months = [
            CleanMonth(source=source, month=month, out=self.out)
            for source, target in self.input().items()
            for month in months_in(Path(target).read_text(encoding="utf-8"))
        ]
        files = yield months
        # sqlite3 wants a path to write to: this one is private, and becomes weather.sqlite when the block ends.
        with self.output().temporary_path() as path:
            database.store(path, zip((CITY[clean.source] for clean in months), files, strict=True))


class Figures(Task):
    """What the report says in numbers. A task without output(): its value is handed on in memory."""

    out: Path = OUT

    def requires(self) -> Database:
        return Database(out=self.out)

    def run(self) -> dict[str, list[dict[str, Any]]]:
        return database.ask(self.input())


class Chart(Task):
    """One chart, as PNG and as SVG."""

    name: charts.Name
    out: Path = OUT

    def requires(self) -> Database:
        return Database(out=self.out)

    def output(self) -> dict[str, LocalTarget]:
        return {kind: LocalTarget(self.out / f"{self.name}.{kind}") for kind in ("png", "svg")}

    def run(self) -> None:
        for kind, picture in charts.draw(self.name, database.load(self.input())).items():
            with self.output()[kind].open("wb") as file:
                file.write(picture)


class Report(Task):
    """The weather of two cities: a page in Markdown, with charts."""

    out: Path = param(default=OUT, help="folder for everything that is made")

    def requires(self) -> dict[str, Any]:
        return {
            "figures": Figures(out=self.out),
            "charts": [Chart(name=name, out=self.out) for name in charts.CHARTS],
        }

    def output(self) -> LocalTarget:
        return LocalTarget(self.out / "report.md")

    async def run(self) -> None:
        async with self.output().open("w") as file:
            await file.write(page.write(self.input()["figures"]))
