"""A weather station's daily files, from an FTP server with TLS: fetched as they come, cleaned, summed up there.

DayFile (a file of the station's for each day) -> CleanDay (here) -> MonthlySummary (on the server again)

The tasks find the server in the environment, and its password in a netrc file. This program starts one, says there
where it is, plays the station that uploads its files, and ends it.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import sys
import tempfile
from calendar import monthrange
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from asyncflow import ExternalTask, LocalTarget, MonthParameter, Task, build
from asyncflow.codecs import Codec, Csv, Json, JsonLines
from asyncflow.targets.ftp import FTPTarget

sys.path += map(str, (Path(__file__).parents[2], Path(__file__).parents[1] / "weather"))

from readings import data_folder

from examples.servers import ServerMissing
from examples.servers.ftp import FtpServer, proftpd

MONTH = datetime.date(2015, 12, 1)


def at_station(name: str, codec: Codec[Any]) -> FTPTarget:
    """The station's file called `name`. Its certificate is its own: `ca` says that this one, and no other, is it."""
    host, port, user, home, ca = (os.environ[f"STATION_{what}"] for what in ("HOST", "PORT", "USER", "HOME", "CA"))
    return FTPTarget(host, f"{home}/{name}", port=int(port), user=user, tls="explicit", ca=ca, codec=codec)


class DayFile(ExternalTask):
    """What the station has measured on one day. It is not ours to make: it is there one day, or not yet."""

    day: datetime.date

    def output(self) -> FTPTarget:
        return at_station(f"daily/{self.day}.csv", Csv())


class CleanDay(Task):
    """One day as a JSON document, with an ISO date and numbers."""

    day: datetime.date
    out: Path

    def requires(self) -> DayFile:
        return DayFile(day=self.day)

    def output(self) -> LocalTarget:
        return LocalTarget(self.out / f"{self.day}.jsonl", codec=JsonLines())

    async def run(self) -> list[dict[str, Any]]:
        names = ("temp_min", "temp_max", "precipitation", "wind")
        rows = [{name: float(row[name]) for name in names} async for row in self.input().rows()]
        return [{"date": f"{self.day}", **row} for row in rows]


class MonthlySummary(Task):
    """What a month was like, when all of its days are there: a file on the station's server."""

    month: Annotated[datetime.date, MonthParameter()]
    out: Path

    def requires(self) -> list[CleanDay]:
        return [CleanDay(day=day, out=self.out) for day in days_of(self.month)]

    def output(self) -> FTPTarget:
        return at_station(f"monthly/{self.month:%Y-%m}.json", Json(indent=2))

    async def run(self) -> dict[str, Any]:
        days = [row for day in self.input() async for row in day.rows()]
        return {
            "month": f"{self.month:%Y-%m}",
            "days": len(days),
            "precipitation": round(sum(day["precipitation"] for day in days), 1),
            "wettest": max(days, key=lambda day: day["precipitation"])["date"],
            "coldest": min(days, key=lambda day: day["temp_min"])["date"],
        }


def days_of(month: datetime.date) -> list[datetime.date]:
    return [month.replace(day=day) for day in range(1, monthrange(month.year, month.month)[1] + 1)]


async def upload(days: Iterable[datetime.date]) -> None:
    """What the station does, day after day; here many days at once."""
    readings = LocalTarget(data_folder() / "seattle-weather.csv", codec=Csv())
    measured = {row["date"]: row async for row in readings.rows()}
    await asyncio.gather(*[DayFile(day=day).output().write([measured[f"{day:%Y/%m/%d}"]]) for day in days])


async def main(out: Path) -> None:
    days, summary = days_of(MONTH), MonthlySummary(month=MONTH, out=out)

    await upload(days[:20])
    result = await build(summary)
    print(f"After 20 days: {result.status}, {result.summary()}")

    await upload(days[20:])
    result = await build(summary)
    result.raise_for_failure()
    print(f"After {len(days)} days: {result.status}, {result.summary()}")
    print("On the server:", await summary.output().read())

    print("Once more:", (await build(summary)).summary())


def point_to(server: FtpServer, folder: Path) -> None:
    """Say where the station's server is, and what the password is, as curl wants it said."""
    netrc = folder / "netrc"
    netrc.touch(mode=0o600)
    netrc.write_text(f"machine {server.host} login {server.user} password {server.password}\n")
    os.environ |= {
        "NETRC": str(netrc),
        "STATION_HOST": server.host,
        "STATION_PORT": str(server.port),
        "STATION_USER": server.user,
        "STATION_HOME": server.home.rstrip("/"),
        "STATION_CA": str(server.certificate),
    }


if __name__ == "__main__":
    try:
        with proftpd(tls="explicit") as server, tempfile.TemporaryDirectory() as folder:
            point_to(server, Path(folder))
            asyncio.run(main(Path(folder, "clean")))
    except ServerMissing as problem:
        sys.exit(str(problem))
