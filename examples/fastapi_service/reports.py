"""The tasks of the service: what a month was like in a city, and how much of that is chance.

Measurements (not ours) -> Readings -> Days -> Chance -> Report
"""

from __future__ import annotations

import asyncio
import csv
import datetime
import json
import logging
import random
import sys
from math import fsum
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypedDict, get_args

from asyncflow import ExternalTask, LocalTarget, MonthParameter, Task, param

sys.path.append(str(Path(__file__).parents[1] / "weather"))  # its readings.py is shared: it knows nothing of tasks

from readings import CITY, Day, Source, data_folder, days_of, months_in, to_csv

DATA = data_folder()
Months: TypeAlias = dict[str, dict[str, Source]]  # by city, then as 2015-12: the file that has it
SAMPLES = 10_000
WET = 1.0  # mm

log = logging.getLogger("weather.reports")


class Estimate(TypedDict):
    """A mean, and where it might as well have been."""

    mean: float
    low: float
    high: float


class Measurements(ExternalTask):
    """A file that pip has installed."""

    source: Source

    def output(self) -> LocalTarget:
        return LocalTarget(DATA / f"{self.source}.csv")


class Available(Task):
    """Which months there are of each city, and in which file. A value, asked for once, as the service begins."""

    def requires(self) -> dict[Source, Measurements]:
        return {source: Measurements(source=source) for source in get_args(Source)}

    def run(self) -> Months:
        found: Months = {}
        for source, target in self.input().items():
            months = months_in(Path(target).read_text(encoding="utf-8"))
            found.setdefault(CITY[source], {}).update((f"{month:%Y-%m}", source) for month in months)
        return found


class OfMonth(Task):
    """What the tasks below have in common."""

    source: Source
    month: Annotated[datetime.date, MonthParameter()]
    out: Path
    # So that there is something to watch. Not significant: who asks for the same month gets the same report, at the
    # pace of whoever asked first.
    pause: float = param(default=0.0, significant=False, help="seconds that writing the days shall take")

    def same(self) -> dict[str, Any]:
        return {"source": self.source, "month": self.month, "out": self.out, "pause": self.pause}

    def name(self) -> str:
        return f"{CITY[self.source]}-{self.month:%Y-%m}"


class Readings(OfMonth):
    """The days of one month, as the file has them. A value: it is handed on in memory."""

    def requires(self) -> Measurements:
        return Measurements(source=self.source)

    # A plain `def` runs in a thread: 8,760 lines are some 20 ms of CSV, too long for a loop that has others to
    # answer. Unlike an `asyncio.to_thread` in an async body, it is counted among the flow's `threads`.
    def run(self) -> list[Day]:
        return days_of(self.month, Path(self.input()).read_text(encoding="utf-8"))


class Days(OfMonth):
    """The days of one month, cleaned. An async body: any number of them write at the same time, on one thread."""

    def requires(self) -> Readings:
        return Readings(**self.same())

    def output(self) -> LocalTarget:
        return LocalTarget(self.out / "days" / f"{self.name()}.csv")

    async def run(self) -> None:
        log.info("begin %s", self.name())
        try:
            lines = to_csv(self.input()).splitlines(keepends=True)
            async with self.output().open("w") as file:
                for number, line in enumerate(lines, 1):
                    await file.write(line)
                    await asyncio.sleep(self.pause / len(lines))
                    self.progress(number / len(lines), f"line {number} of {len(lines)}")
        except asyncio.CancelledError:
            log.info("cancelled %s", self.name())
            raise


class Chance(OfMonth):
    """How far the month's average high is a matter of chance: a bootstrap, which keeps a core busy."""

    def requires(self) -> Days:
        return Days(**self.same())

    # In a thread too. Python's threads take turns, so how many of these there are at once is felt by all: that is what
    # the flow's `threads` are for, see service.py.
    def run(self) -> Estimate:
        with self.input().open() as file:
            highs = [float(row["temp_max"]) for row in csv.DictReader(file)]
        draw = random.Random(self.name())  # the same month, the same chances
        means = []
        for number in range(SAMPLES):
            means.append(fsum(draw.choices(highs, k=len(highs))) / len(highs))
            if number % 1000 == 999:
                self.progress((number + 1) / SAMPLES, f"sample {number + 1} of {SAMPLES}")
        means.sort()
        low, high = means[SAMPLES // 40], means[-SAMPLES // 40]  # 95 of 100 lie between
        return {"mean": round(fsum(highs) / len(highs), 2), "low": round(low, 2), "high": round(high, 2)}


class Report(OfMonth):
    """What the month was like, as JSON."""

    def requires(self) -> tuple[Days, Chance]:
        return Days(**self.same()), Chance(**self.same())

    def output(self) -> LocalTarget:
        return LocalTarget(self.out / "reports" / f"{self.name()}.json")

    async def run(self) -> None:
        file, average = self.input()
        async with file.open() as lines:
            days = [_day(row) for row in csv.DictReader((await lines.read()).splitlines())]
        hottest = max(days, key=lambda day: day.temp_max)
        coldest = min(days, key=lambda day: day.temp_min)
        rain = [day.precipitation for day in days if day.precipitation is not None]
        report = {
            "city": CITY[self.source],
            "month": f"{self.month:%Y-%m}",
            "days": len(days),
            "average_high": average,
            "hottest": {"date": hottest.date.isoformat(), "temp_max": hottest.temp_max},
            "coldest": {"date": coldest.date.isoformat(), "temp_min": coldest.temp_min},
            "precipitation": round(fsum(rain), 1) if rain else None,
            "wet_days": sum(fall >= WET for fall in rain) if rain else None,
            "made": datetime.datetime.now(datetime.UTC).isoformat(),
        }
        async with self.output().open("w") as page:
            await page.write(json.dumps(report, indent=2))
        log.info("made %s", self.name())


def _day(row: dict[str, str]) -> Day:
    numbers = [float(row[name]) if row[name] else None for name in Day._fields[1:]]
    return Day(datetime.date.fromisoformat(row["date"]), *numbers)  # type: ignore[arg-type]  # as to_csv wrote them
