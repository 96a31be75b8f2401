"""The SQLite database: one table of days, and the questions the report asks it."""

from __future__ import annotations

import csv
import datetime
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from readings import Day

SCHEMA = """
create table weather (
    city text, date text, temp_min real, temp_mean real, temp_max real, precipitation real, wind real,
    primary key (city, date)
)
"""

# What is left out of a table of facts is NULL, so the averages and sums below pass over it by themselves.
QUESTIONS = {
    "days": "select count(*) as days from weather",
    "hottest": "select date, temp_max from weather where precipitation is not null order by temp_max desc limit 1",
    "coldest": "select date, temp_min from weather where precipitation is not null order by temp_min limit 1",
    "wettest_day": "select date, precipitation from weather order by precipitation desc limit 1",
    "wettest_month": """
        select substr(date, 1, 7) as month, sum(precipitation) as precipitation, sum(precipitation >= 1) as wet_days
        from weather group by city, month order by 2 desc limit 1""",
    "years": """
        select substr(date, 1, 4) as year, sum(precipitation) as precipitation, sum(precipitation >= 1) as wet_days,
            avg(temp_max) as high, max(temp_max) as hottest, min(temp_min) as coldest
        from weather where precipitation is not null group by year order by year""",
    "average_year": """
        select city, cast(substr(date, 6, 2) as integer) as month,
            avg(temp_min) as low, avg(temp_mean) as mean, avg(temp_max) as high
        from weather where temp_mean is not null group by city, month order by month, city""",
}


def store(path: str, files: Iterable[tuple[str, str | os.PathLike[str]]]) -> None:
    """Make the database at `path` from the cleaned file of each city and month."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(SCHEMA)
        for city, cleaned in files:
            with open(cleaned, newline="", encoding="utf-8") as file:
                rows = [[city, *(value or None for value in row)] for row in list(csv.reader(file))[1:]]
            database.executemany("insert into weather values (?, ?, ?, ?, ?, ?, ?)", rows)


def ask(path: str | os.PathLike[str]) -> dict[str, list[dict[str, Any]]]:
    """The answer to each question, as rows."""
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return {name: [dict(row) for row in database.execute(query)] for name, query in QUESTIONS.items()}


def load(path: str | os.PathLike[str]) -> dict[str, list[Day]]:
    """The days of each city, in order."""
    days: dict[str, list[Day]] = {}
    with closing(sqlite3.connect(path)) as database:
        for city, date, *values in database.execute("select * from weather order by city, date"):
            days.setdefault(city, []).append(Day(datetime.date.fromisoformat(date), *values))
    return days
