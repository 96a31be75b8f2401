"""The weather demo: what it makes is right, it makes each thing once, and it survives being killed."""

from __future__ import annotations

import asyncio
import csv
import datetime
import gc
import importlib.metadata
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import ModuleType
from unittest.mock import Mock

import pytest
from matplotlib import font_manager

import asyncflow
from asyncflow import BuildResult, Event, TaskFinished, TaskStarted
from asyncflow.parameters import override
from tests.examples.conftest import EXAMPLES, environment

MINUS = "\N{MINUS SIGN}"
CHARTS = ("temperature", "precipitation", "cities")
SOURCES = {"seattle-weather": "seattle", "seattle-temps": "seattle", "sf-temps": "san-francisco"}


@dataclass
class Run:
    out: Path
    result: BuildResult
    events: list[Event]
    months_read: int
    """How often a body has read which months a file holds."""

    def started(self) -> Counter[str]:
        return Counter(type(event.task).__name__ for event in self.events if isinstance(event, TaskStarted))


def build(pipeline: ModuleType, out: Path) -> Run:
    events: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        months_in = Mock(side_effect=pipeline.months_in)
        patch.setattr(pipeline, "months_in", months_in)
        with override({("CleanMonth", "pause"): "0"}):
            result = asyncflow.run(pipeline.Report(out=out), on_event=events.append)
    result.raise_for_failure()
    # Matplotlib keeps the font files it has read open, for each thread anew.
    font_manager._get_font.cache_clear()  # type: ignore[attr-defined]
    gc.collect()
    return Run(out, result, events, months_in.call_count)


@pytest.fixture(scope="module")
def full(pipeline: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run from nothing to the report."""
    return build(pipeline, tmp_path_factory.mktemp("weather"))


# The files, read once more in another way ------------------------------------------------------------------


def lines(source: str) -> list[dict[str, str]]:
    files = importlib.metadata.files("vega_datasets") or []
    path = next(Path(file.locate()) for file in files if file.name == f"{source}.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def hourly(source: str) -> dict[str, list[float]]:
    """The 24 temperatures of each day, in °C."""
    days: dict[str, list[float]] = defaultdict(list)
    for line in lines(source):
        days[line["date"].split()[0].replace("/", "-")].append((float(line["temp"]) - 32) * 5 / 9)
    return days


def daily() -> dict[str, dict[str, float]]:
    columns = ("precipitation", "temp_max", "temp_min", "wind")
    return {line["date"].replace("/", "-"): {c: float(line[c]) for c in columns} for line in lines("seattle-weather")}


def files(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each file below `out`: a file that was written again has others."""
    found = ((path, path.stat()) for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): (status.st_ino, status.st_mtime_ns) for path, status in found}


# What a run makes -------------------------------------------------------------------------------------------


def test_every_task_runs_once_and_every_file_is_there(full: Run) -> None:
    assert full.result.counts == {"succeeded": 78, "complete": 3}
    assert full.started() == {"CleanMonth": 72, "Database": 1, "Figures": 1, "Chart": 3, "Report": 1}
    assert full.months_read == len(SOURCES), "the body of Database was entered again after its yield"
    months = {f"{SOURCES[source]}-{line['date'][:7].replace('/', '-')}" for source in SOURCES for line in lines(source)}
    assert set(files(full.out)) == (
        {"report.md", "weather.sqlite", *(f"{name}.{kind}" for name in CHARTS for kind in ("png", "svg"))}
        | {str(Path("clean", f"{month}.csv")) for month in months}
    )


def test_the_months_are_found_at_run_time(full: Run, pipeline: ModuleType, tmp_path: Path) -> None:
    plan = asyncio.run(asyncflow.plan(pipeline.Report(out=tmp_path / "planned")))
    assert not [task for task in plan.to_run if type(task).__name__ == "CleanMonth"]

    data = tmp_path / "data"
    data.mkdir()
    for source in SOURCES:  # the same files, less most of the lines
        text = (pipeline.DATA / f"{source}.csv").read_text("utf-8").splitlines()
        kept = [text[0], *(line for line in text if "2012/03/" in line or "2010/11/" in line)]
        (data / f"{source}.csv").write_text("\n".join(kept), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "DATA", data)
        asyncflow.run(pipeline.Database(out=tmp_path / "few")).raise_for_failure()
    made = {name.partition(os.sep)[2] for name in files(tmp_path / "few") if name.startswith("clean")}
    assert made == {"seattle-2012-03.csv", "seattle-2010-11.csv", "san-francisco-2010-11.csv"}


def test_the_database_holds_what_the_files_say(full: Run) -> None:
    with closing(sqlite3.connect(full.out / "weather.sqlite")) as database:
        rows = list(
            database.execute("select city, date, temp_min, temp_mean, temp_max, precipitation, wind from weather")
        )
    found = {(city, date): values for city, date, *values in rows}
    assert len(found) == len(rows) == 365 + 365 + 1461
    for date, day in daily().items():
        assert found["seattle", date] == [day["temp_min"], None, day["temp_max"], day["precipitation"], day["wind"]]
    for source in ("seattle-temps", "sf-temps"):
        for date, temps in hourly(source).items():
            low, middle, high, *rest = found[SOURCES[source], date]
            expected = (min(temps), sum(temps) / len(temps), max(temps))
            assert (low, middle, high) == pytest.approx(expected, abs=0.00501), (source, date)
            assert rest == [None, None]


def test_the_page_says_what_the_files_say(full: Run) -> None:
    page = (full.out / "report.md").read_text("utf-8")
    # Looked up in the files by hand.
    for sentence in (
        "hottest on 11 August 2014: 35.6 °C.",
        f"lowest temperature was {MINUS}7.1 °C, on 7 December 2013.",
        "wettest month was December 2015: 284.5 mm on 24 wet days.",
        "15 March 2015: 55.9 mm.",
        "2,191 days",
    ):
        assert sentence in page
    for year in ("2012", "2013", "2014", "2015"):
        days = [day for date, day in daily().items() if date.startswith(year)]
        rain = [day["precipitation"] for day in days]
        high = sum(day["temp_max"] for day in days) / len(days)
        extremes = f"{max(day['temp_max'] for day in days)} | {MINUS}{abs(min(day['temp_min'] for day in days))}"
        assert f"| {year} | {sum(rain):,.0f} | {sum(mm >= 1 for mm in rain)} | {high:.1f} | {extremes} |" in page
    for month in range(1, 13):
        row = next(line for line in page.splitlines() if line.startswith(f"| {datetime.date(2010, month, 1):%B} |"))
        expected = [
            mean(of(temps) for date, temps in hourly(source).items() if date[5:7] == f"{month:02}")
            for source in ("seattle-temps", "sf-temps")
            for of in (min, mean, max)
        ]
        assert [float(cell) for cell in row.split("|")[2:-1]] == pytest.approx(expected, abs=0.0501)
    for name in CHARTS:
        assert f"({name}.svg)" in page


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("temperature", f"Seattle, 2012\N{EN DASH}2015: from {MINUS}7.1 °C to 35.6 °C"),
        ("precipitation", "December 2015 brought Seattle 284.5 mm, the most of 48 months"),
        ("cities", "Between winter and summer, Seattle swings by 14 °C, San Francisco by 7"),
    ],
)
def test_a_chart_is_a_whole_picture(full: Run, name: str, title: str) -> None:
    png = (full.out / f"{name}.png").read_bytes()
    kinds = list(chunks(png))
    assert (kinds[0][0], kinds[-1][0]) == (b"IHDR", b"IEND")
    assert struct.unpack(">II", kinds[0][1][:8]) == (1500, 840)
    pixels = zlib.decompress(b"".join(content for kind, content in kinds if kind == b"IDAT"))
    assert len(pixels) == 840 * (1 + 4 * 1500)
    assert len(set(pixels)) > 100, "nothing is drawn"

    svg = (full.out / f"{name}.svg").read_text("utf-8")
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == "0 0 720 403.2"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 20
    assert f"<!-- {title} -->" in svg  # text is drawn as paths; a comment before them says which


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG file, each with a right checksum."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at = 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        content = png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + content),)
        yield kind, content
        at += length + 12


# What a second run makes ------------------------------------------------------------------------------------


def test_a_second_run_runs_nothing(full: Run, pipeline: ModuleType) -> None:
    before = files(full.out)
    again = build(pipeline, full.out)
    assert again.result.ran == ()
    assert again.result.counts == {"complete": 1}
    assert not again.started()
    assert files(full.out) == before


def test_how_fast_a_task_works_is_not_part_of_what_it_is(pipeline: ModuleType) -> None:
    month = {"source": "sf-temps", "month": datetime.date(2010, 1, 1)}
    slow, fast = pipeline.CleanMonth(**month, pause=3), pipeline.CleanMonth(**month, pause=0)
    assert slow == fast
    assert slow.task_id == fast.task_id


def test_only_what_was_removed_is_made_again(full: Run, pipeline: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(full.out, out)
    (out / "report.md").unlink()
    (out / "cities.svg").unlink()
    before = files(out)
    again = build(pipeline, out)
    assert again.started() == {"Chart": 1, "Figures": 1, "Report": 1}
    changed = {name for name, identity in files(out).items() if before.get(name) != identity}
    assert changed == {"report.md", "cities.svg", "cities.png"}
    assert contents(out) == contents(full.out)


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in files(out)}


def test_a_missing_input_is_named_and_nothing_is_half_made(pipeline: ModuleType, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "DATA", tmp_path)
        result = asyncflow.run(pipeline.Report(out=tmp_path / "out"))
    assert (result.status, result.exit_code) == ("incomplete", 3)
    assert set(result.missing) == {pipeline.Measurements(source=source) for source in SOURCES}
    assert result.ran == ()
    assert not (tmp_path / "out").exists()


# Killed half-way --------------------------------------------------------------------------------------------

ENOUGH = 18  # cleaned files after which the run is killed: a quarter


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_after_a_kill_only_what_is_missing_runs(
    how: signal.Signals, full: Run, pipeline: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    kill_half_way(how, out)

    leftovers = list(out.rglob(".af-*"))
    if how == signal.SIGKILL:  # nobody was left to remove what had not been published yet
        for path in leftovers:
            path.unlink()
    else:
        assert leftovers == []

    existing = files(out)
    assert ENOUGH <= len(existing) < 72
    expected = contents(full.out)
    for name, content in contents(out).items():
        assert name.startswith("clean"), f"{name} was there before what it is made of"
        assert content == expected[name], f"{name} is not whole"

    rest = build(pipeline, out)
    assert rest.started() == {"CleanMonth": 72 - len(existing), "Database": 1, "Figures": 1, "Chart": 3, "Report": 1}
    assert rest.result.counts == {"succeeded": 78 - len(existing), "complete": 3 + len(existing)}
    statuses = {
        str(Path(event.task.output()).relative_to(out)): event.status
        for event in rest.events
        if isinstance(event, TaskFinished) and type(event.task).__name__ == "CleanMonth"
    }
    assert {name for name, status in statuses.items() if status == "complete"} == set(existing)
    assert {name: identity for name, identity in files(out).items() if name in existing} == existing
    assert contents(out) == expected


def kill_half_way(how: signal.Signals, out: Path) -> None:
    """Run the demo in a process of its own, and send it the signal when enough files have been cleaned."""
    report = f"{EXAMPLES / 'weather' / 'pipeline.py'}:Report"
    command = [sys.executable, "-m", "asyncflow", "run", report, "--out", str(out), "--set", "CleanMonth.pause=0.3"]
    errors = out.parent / "stderr"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL, env=environment())
    try:
        deadline = time.monotonic() + 40
        while len(list(out.glob("clean/*.csv"))) < ENOUGH:
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < deadline, "nothing is being cleaned"
            time.sleep(0.002)
        process.send_signal(how)
        code = process.wait(20)
    finally:
        process.kill()
        process.wait()
    assert code == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}[how], errors.read_text()
