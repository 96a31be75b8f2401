"""The files of `vega_datasets`, read with the standard library: one `Day` a line, in °C, mm and m/s."""

from __future__ import annotations

import csv
import datetime
import importlib.util
import io
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Literal, NamedTuple

Source = Literal["seattle-weather", "seattle-temps", "sf-temps"]
CITY: dict[Source, str] = {"seattle-weather": "seattle", "seattle-temps": "seattle", "sf-temps": "san-francisco"}


class Day(NamedTuple):
    """One day in one city. None: not in the source."""

    date: datetime.date
    temp_min: float
    temp_mean: float | None  # only where there are readings for every hour
    temp_max: float
    precipitation: float | None
    wind: float | None


def data_folder() -> Path:
    """Where pip has put the files. (Importing vega_datasets would tell, but imports pandas to do so.)"""
    found = importlib.util.find_spec("vega_datasets")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("no vega_datasets here: pip install 'asyncflow-engine[examples]'")
    return Path(found.submodule_search_locations[0]) / "_data"


def months_in(text: str) -> list[datetime.date]:
    """The months there are readings of, each as its first day."""
    months = {row["date"][:7] for row in csv.DictReader(io.StringIO(text))}
    return [datetime.date(int(month[:4]), int(month[5:]), 1) for month in sorted(months)]


def days_of(month: datetime.date, text: str) -> list[Day]:
    """The days of `month`: the lines of a daily file, or what the hours of an hourly file come to."""
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["date"].startswith(f"{month:%Y/%m/}")]
    if rows and "temp" not in rows[0]:
        return [_daily(row) for row in rows]
    hours: dict[datetime.date, list[float]] = defaultdict(list)
    for row in rows:
        hours[_date(row)].append((float(row["temp"]) - 32) / 1.8)
    return [_from_hours(date, temps) for date, temps in hours.items()]


def _daily(row: dict[str, str]) -> Day:
    # The column "weather" is left out: it calls the wettest of all 1,461 days "fog".
    low, high, rain, wind = (float(row[name]) for name in ("temp_min", "temp_max", "precipitation", "wind"))
    return Day(_date(row), low, None, high, rain, wind)


def _from_hours(date: datetime.date, temps: list[float]) -> Day:
    return Day(date, round(min(temps), 2), round(mean(temps), 2), round(max(temps), 2), None, None)


def _date(row: dict[str, str]) -> datetime.date:
    return datetime.date(*map(int, row["date"][:10].split("/")))


def to_csv(days: Iterable[Day]) -> str:
    """The text of a cleaned file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Day._fields)
    writer.writerows(days)
    return text.getvalue()
