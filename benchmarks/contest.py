"""Other engines, each in processes of its own, in turns with asyncflow: figures of the same minutes."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import fresh
from .environments import CannotInstall, python_of

__all__ = ["SIZES", "Contest", "contests"]

TURNS = 3
LONG = 5.0  # seconds: what takes longer is measured once

SIZES: Mapping[str, Sequence[int]] = {
    "wide": (100, 1_000, 10_000),
    "chain": (100, 1_000, 10_000),
    "layers": (1_000, 10_000),
    "sleeping": (1_000,),
    "one_by_one": (1_000,),
    "at_once": (1_000,),
    "complete": (10_000,),
    "files": (1_000, 10_000),
    "files_again": (10_000,),
}
"""The workloads other engines are asked for, and how many tasks."""


@dataclass
class Contest:
    """One workload at one size: what each engine answered, turn by turn."""

    workload: str
    tasks: int
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def wall(self, engine: str) -> float | None:
        """The median wall time in seconds; None where it did not get there."""
        walls = [answer["wall_s"] for answer in self.answers.get(engine, []) if answer["status"] == "ok"]
        return statistics.median(walls) if walls else None

    def times(self, engine: str) -> float | None:
        """How many times as long as asyncflow ``engine`` took: the median of the turns both ran in."""
        pairs = zip(self.answers[engine], self.answers["asyncflow"], strict=False)
        found = [a["wall_s"] / b["wall_s"] for a, b in pairs if a["status"] == b["status"] == "ok"]
        return statistics.median(found) if found else None

    def trouble(self, engine: str) -> str:
        """Why there is no figure."""
        last = self.answers[engine][-1]
        match last["status"]:
            case "not finished":
                return f"not done in {last['limit_s']:g} s"
            case "failed":
                return str(last["error"])
            case "unsupported":
                return "-"
        return str(last["status"])

    def to_json(self) -> dict[str, Any]:
        """Every answer, and the ratios."""
        times = {engine: self.times(engine) for engine in self.answers if engine != "asyncflow"}
        return {"workload": self.workload, "tasks": self.tasks, "times_asyncflow": times, "answers": self.answers}


def contests(engines: Sequence[str], sizes: Mapping[str, Sequence[int]]) -> Iterator[Contest]:
    """Every workload at every size, the smallest first; who did not get there is not asked for more of it."""
    pythons, absent = _installed(engines)
    for workload, numbers in sizes.items():
        out: dict[str, dict[str, Any]] = dict(absent)
        for tasks in numbers:
            print(f"==> {workload} {tasks:,}", file=sys.stderr, flush=True)
            contest = Contest(workload, tasks, {engine: [answer] for engine, answer in out.items()})
            for _ in range(TURNS):
                _turn(contest, {engine: python for engine, python in pythons.items() if engine not in out})
            for engine in pythons:
                last = contest.answers[engine][-1]
                if last["status"] != "ok":
                    out[engine] = (
                        last if last["status"] == "unsupported" else {"status": f"no ({tasks:,})", "was": last}
                    )
            yield contest


def _installed(engines: Sequence[str]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    pythons, absent = {"asyncflow": sys.executable}, {}
    for engine in engines:
        try:
            pythons[engine] = python_of(engine)
        except CannotInstall as error:
            absent[engine] = {"status": "not measured", "message": str(error)}
    return pythons, absent


def _turn(contest: Contest, pythons: Mapping[str, str]) -> None:
    """Each engine once; one that took long, or did not get there, has had its turns."""
    for engine, python in pythons.items():
        answers = contest.answers.setdefault(engine, [])
        if not answers or (answers[-1]["status"] == "ok" and answers[-1]["wall_s"] < LONG):
            answers.append(fresh.run(engine, contest.workload, contest.tasks, python=python))
