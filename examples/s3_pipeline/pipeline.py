"""Four years of Seattle's weather in S3: an object for each month, a summary for each year, and a report.

Readings (a file, not ours) -> Days -> Month (48) -> Year (4) -> Report

The tasks know no server: S3Target finds endpoint and credentials in the environment, as AWS's own tools do. This
program starts one, says there where it is, and ends it; for a bucket at AWS that part is left out.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

from asyncflow import ExternalTask, LocalTarget, MonthParameter, Task, build, plan, together
from asyncflow.codecs import Csv, Json, JsonLines
from asyncflow.targets.s3 import S3Store, S3Target

sys.path += map(str, (Path(__file__).parents[2], Path(__file__).parents[1] / "weather"))

from readings import data_folder

from examples.servers import S3Server, ServerMissing, seaweedfs

BUCKET = "weather"
YEARS = range(2012, 2016)
Row = dict[str, Any]


class Readings(ExternalTask):
    """A file that pip has installed. It is not ours to make: asyncflow only looks whether it is there."""

    def output(self) -> LocalTarget:
        return LocalTarget(data_folder() / "seattle-weather.csv", codec=Csv())


class Days(Task):
    """The days of each month. Without an output(): computed once for the 48 that want it, and handed on in memory."""

    def requires(self) -> Readings:
        return Readings()

    async def run(self) -> dict[str, list[Row]]:
        months = defaultdict(list)
        async for row in self.input().rows():
            date = row["date"].replace("/", "-")
            numbers = {name: float(row[name]) for name in ("temp_min", "temp_max", "precipitation", "wind")}
            months[date[:7]].append({"date": date, **numbers})
        return dict(months)


class Month(Task):
    """The days of one month, one JSON document in each line, compressed: what `run` returns, the codec writes."""

    month: Annotated[datetime.date, MonthParameter()]

    def requires(self) -> Days:
        return Days()

    def output(self) -> S3Target:
        return S3Target(f"s3://{BUCKET}/months/{self.month:%Y-%m}.jsonl.gz", codec=JsonLines(gzip=True))

    async def run(self) -> list[Row]:
        days: list[Row] = self.input()[f"{self.month:%Y-%m}"]
        return days


class Year(Task):
    """What a year was like, from its twelve objects. Whether they are there is asked by listing: one request."""

    year: int

    def requires(self) -> list[Month]:
        return [Month(month=datetime.date(self.year, month, 1)) for month in range(1, 13)]

    def output(self) -> S3Target:
        return S3Target(f"s3://{BUCKET}/years/{self.year}.json", codec=Json(indent=2))

    async def run(self) -> Row:
        days = [day for month in self.input() async for day in month.rows()]
        return {
            "year": self.year,
            "precipitation": round(sum(day["precipitation"] for day in days)),
            "wet_days": sum(day["precipitation"] >= 1 for day in days),
            "hottest": max(days, key=lambda day: day["temp_max"]),
            "coldest": min(days, key=lambda day: day["temp_min"]),
        }


class Report(Task):
    """The years, for people and for programs: two objects that are published together, or not at all."""

    def requires(self) -> list[Year]:
        return [Year(year=year) for year in YEARS]

    def output(self) -> dict[str, S3Target]:
        return {kind: S3Target(f"s3://{BUCKET}/report.{kind}") for kind in ("txt", "json")}

    async def run(self) -> None:
        years = [await year.read() for year in self.input()]
        async with together(*(target.open("w") for target in self.output().values())) as (text, data):
            await data.write(json.dumps(years))
            for year in years:
                hot, cold = year["hottest"], year["coldest"]
                await text.write(
                    f"{year['year']}: {year['precipitation']:,} mm on {year['wet_days']} wet days, "
                    f"{cold['temp_min']} °C on {cold['date']}, {hot['temp_max']} °C on {hot['date']}\n"
                )


async def main() -> None:
    store = S3Store()
    await store.call("create_bucket", Bucket=BUCKET)

    result = await build(Report())
    result.raise_for_failure()
    print("First build:", result.summary())
    async with Report().output()["txt"].open() as report:
        print(await report.read(), end="")

    sizes = defaultdict(list)
    async for page in store.pages("list_objects_v2", Bucket=BUCKET):
        for entry in page["Contents"]:
            folder, slash, _ = entry["Key"].rpartition("/")
            sizes[folder + slash].append(entry["Size"])
    for prefix, found in sizes.items():
        print(f"s3://{BUCKET}/{prefix}: {len(found)} objects, {sum(found):,} bytes")

    print("Second build:", (await build(Report())).summary())

    for lost in (Year(year=2014).output(), *Report().output().values()):
        await lost.remove()
    again = await plan(Report())
    print("Without the year 2014 and the report:", *map(repr, again.to_run), "-", again.summary())


def point_to(server: S3Server) -> None:
    """Say where S3 is, as one says it to AWS's tools, and nothing else: no profile of somebody's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_ENDPOINT_URL_S3": server.endpoint,
        "AWS_DEFAULT_REGION": server.region,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
    }


if __name__ == "__main__":
    try:
        with seaweedfs() as server:
            point_to(server)
            asyncio.run(main())
    except ServerMissing as problem:
        sys.exit(str(problem))
