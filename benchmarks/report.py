"""``python -m benchmarks.report``: everything measured, in one table, and as JSON beside it.

With names of engines (``dask prefect ...``) it is those that are compared, at small sizes, and not the floor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .contest import SIZES, Contest, contests
from .environments import PINS
from .measure import Scale
from .peers.protocol import WIDTH
from .rows import Row
from .suite import ALL

OUTPUT = Path(__file__).resolve().parent.parent / "output" / "benchmarks"
USUAL = ("luigi", "stardag")
"""The engines of the usual table: those with targets, which asyncflow is an answer to."""

SMALL: Mapping[str, Sequence[int]] = {
    workload: tuple(sorted({min(size, 1_000) for size in sizes})) for workload, sizes in SIZES.items()
}
"""The sizes where slow engines take part."""


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 2),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "asyncflow": version("asyncflow-engine"),
        "engines": {engine: pins[0] for engine, pins in PINS.items()},
    }


def figure(number: float, unit: str = "") -> str:
    """Three digits that matter, thousands marked."""
    text = f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
    return f"{text} {unit}".strip()


def peer_cell(contest: Contest | None, engine: str, unit: str) -> str:
    """Wall time in ``unit`` and how many times asyncflow's, from the same minutes."""
    if contest is None or engine not in contest.answers:
        return ""
    wall, times = contest.wall(engine), contest.times(engine)
    if wall is None:
        return contest.trouble(engine)
    shown = figure(wall) if unit.startswith("s ") else figure(wall / contest.tasks * 1e6)
    return f"{shown} ({figure(times)}x)" if times is not None else shown


def usual_line(row: Row, found: Mapping[tuple[str, int], Contest]) -> list[str]:
    """A row of the usual table as words."""
    contest = found.get((row.peer_workload or "", row.tasks))
    return [
        row.workload,
        f"{row.tasks:,}",
        row.unit,
        figure(row.asyncflow),
        "" if row.mini is None else figure(row.mini),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.goal is None else str(row.goal),
        {True: "yes", False: "NO", None: ""}[row.met],
        *[peer_cell(contest, engine, row.unit) for engine in USUAL],
    ]


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be; the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *[cell.rjust(width) for cell, width in others]]).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, lines)])


def usual(scale: Scale) -> tuple[str, dict[str, Any]]:
    """asyncflow, the floor, Luigi and stardag."""
    rows: list[Row] = []
    for measure in ALL:
        print(f"==> {measure.__name__}", file=sys.stderr, flush=True)
        rows += measure(scale)
    found = {(contest.workload, contest.tasks): contest for contest in contests(USUAL, _scaled(SIZES, scale))}
    head = [
        "workload",
        "tasks",
        "unit",
        "asyncflow",
        "mini",
        "ratio",
        "goal",
        "met",
        *[PINS[name][0] for name in USUAL],
    ]
    text = table(head, [usual_line(row, found) for row in rows])
    data = {"rows": [row.to_json() for row in rows], "contests": [contest.to_json() for contest in found.values()]}
    return text + "\n" + NOTE, data


NOTE = """
mini: the least that can be called an executor (benchmarks/mini.py), in turns in one process. Goals are limits: of the
figure, and of the ratio to mini. Other engines: wall time in processes of their own, in brackets how many times
asyncflow's in the same turns; us a task, or s where the unit is s. "no (N)": it did not get there at size N already."""


def peers(engines: Sequence[str], scale: Scale) -> tuple[str, dict[str, Any]]:
    """asyncflow and ``engines``, at small sizes."""
    found = list(contests(engines, _scaled(SMALL, scale)))
    lines = []
    for contest in found:
        unit = "s wall" if contest.workload in ("sleeping", "files_again") else "us wall/task"
        cells = [peer_cell(contest, engine, unit) for engine in engines]
        wall = contest.wall("asyncflow")
        shown = "" if wall is None else figure(wall if unit == "s wall" else wall / contest.tasks * 1e6)
        lines.append([contest.workload, f"{contest.tasks:,}", unit, shown, *cells])
    head = ["workload", "tasks", "unit", "asyncflow", *[PINS[engine][0] for engine in engines]]
    text = table(head, lines)
    for engine in engines:
        reasons = {answer.get("message") for contest in found for answer in contest.answers[engine]} - {None}
        text += "".join(f"\n{engine}: {reason}" for reason in sorted(map(str, reasons)))
    return text, {"contests": [contest.to_json() for contest in found]}


def _scaled(sizes: Mapping[str, Sequence[int]], scale: Scale) -> dict[str, list[int]]:
    scaled = {workload: scale.sizes(*of) for workload, of in sizes.items()}
    scaled["layers"] = [max(tasks, WIDTH) for tasks in scaled["layers"]]  # one layer, however small the rest is
    return scaled


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"any of {', '.join(PINS)}")
    parser.add_argument("--at-most", type=int, metavar="N", help="tasks a workload, once: to see that it works")
    chosen = parser.parse_args()
    unknown = [engine for engine in chosen.engines if engine not in PINS]
    if unknown:
        parser.error(f"no engine called {unknown[0]!r}; there are: {', '.join(PINS)}")
    about = machine()
    scale = Scale(chosen.at_most)
    text, data = peers(chosen.engines, scale) if chosen.engines else usual(scale)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / ("peers.json" if chosen.engines else "bench.json")
    path.write_text(json.dumps({"machine": about, **data}, indent=1) + "\n")
    print(" · ".join(f"{name} {value}" for name, value in about.items() if name != "engines"))
    print(text)
    print(f"\nas JSON: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
