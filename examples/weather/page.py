"""The report's Markdown page, from the answers of the database."""

from __future__ import annotations

import datetime
from calendar import month_name
from typing import Any

Rows = list[dict[str, Any]]

PAGE = """\
# The weather of Seattle, 2012-2015, and of San Francisco

* Seattle was hottest on {hottest_date}: {hottest} °C. The lowest temperature was {coldest} °C, on {coldest_date}.
* The wettest month was {wettest_month}: {wettest_month_mm} mm on {wet_days} wet days. The wettest day was
  {wettest_date}: {wettest_day_mm} mm.

![Low and high of every day in Seattle](temperature.svg)

## Year by year: Seattle

{years}

A wet day has 1 mm or more; snow counts as the water it melts to.

![Precipitation of every month in Seattle](precipitation.svg)

## An average year: Seattle and San Francisco, °C

{average_year}

![Seattle and San Francisco in an average year](cities.svg)

## About the numbers

{days:,} days, from the files of the Python package `vega_datasets` (NOAA, public domain). Seattle 2012-2015 are
measurements. The hourly temperatures that its authors date 2010 are not those of 2010, but NOAA's climate normals:
what each hour of the year was like on average, 1981-2010 (vega/vega-datasets, issue 42 and pull request 187).
They tell what is usual, so no record is read from them. Low, high and mean are of the 24 averages of a day.
"""


def write(figures: dict[str, Rows]) -> str:
    """The whole page. `figures` are the answers of `database.ask`."""
    hottest, coldest, wettest_day, wettest_month = (
        figures[name][0] for name in ("hottest", "coldest", "wettest_day", "wettest_month")
    )
    return PAGE.format(
        hottest=hottest["temp_max"],
        hottest_date=_day(hottest["date"]),
        coldest=minus(f"{coldest['temp_min']:.1f}"),
        coldest_date=_day(coldest["date"]),
        wettest_day_mm=wettest_day["precipitation"],
        wettest_date=_day(wettest_day["date"]),
        wettest_month=f"{datetime.date.fromisoformat(wettest_month['month'] + '-01'):%B %Y}",
        wettest_month_mm=f"{wettest_month['precipitation']:.1f}",
        wet_days=wettest_month["wet_days"],
        years=_years(figures["years"]),
        average_year=_average_year(figures["average_year"]),
        days=figures["days"][0]["days"],
    )


def _years(rows: Rows) -> str:
    head = ["Year", "Precipitation, mm", "Wet days", "Average high, °C", "Hottest, °C", "Coldest, °C"]
    return _table(
        head,
        [
            [
                row["year"],
                f"{row['precipitation']:,.0f}",
                str(row["wet_days"]),
                f"{row['high']:.1f}",
                f"{row['hottest']:.1f}",
                minus(f"{row['coldest']:.1f}"),
            ]
            for row in rows
        ],
    )


def _average_year(rows: Rows) -> str:
    head = ["Month", *(f"{city} {what}" for city in ("Seattle", "San Francisco") for what in ("low", "mean", "high"))]
    months: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows:
        months.setdefault(row["month"], {})[row["city"]] = row
    return _table(
        head,
        [
            [
                month_name[month],
                *(
                    f"{cities[city][what]:.1f}"
                    for city in ("seattle", "san-francisco")
                    for what in ("low", "mean", "high")
                ),
            ]
            for month, cities in months.items()
        ],
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    marks = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, marks, *rows])


def _day(iso: str) -> str:
    date = datetime.date.fromisoformat(iso)
    return f"{date.day} {date:%B %Y}"


def minus(number: str) -> str:
    """`number` with a minus sign instead of a hyphen."""
    return number.replace("-", "\N{MINUS SIGN}")
