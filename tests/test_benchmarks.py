"""The measurements work, at sizes at which nothing can be measured: so they cannot rot. No time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import fresh
from benchmarks.contest import SIZES, Contest
from benchmarks.measure import clear
from benchmarks.peers.protocol import answer
from benchmarks.peers.with_asyncflow import WORKLOADS
from benchmarks.report import peer_cell, table, usual_line
from benchmarks.rows import Goal, Row
from benchmarks.suite import ALL

ROOT = Path(__file__).resolve().parent.parent


def test_every_measurement_gives_sane_rows() -> None:
    command = [sys.executable, "-m", "benchmarks", "--at-most", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) > len(ALL)
    for row in rows:
        assert row["tasks"] >= 1, row
        assert isinstance(row["asyncflow"], float), row
        assert row["workload"], row
        assert row["unit"], row
    # What other engines are asked for is measured here too, and the goals are kept beside the figures.
    assert {row["peer_workload"] for row in rows if "peer_workload" in row} == set(SIZES)
    judged = {row["workload"].split()[0] for row in rows if "goal" in row}
    assert judged == {"processes:", *(f"W{n}" for n in range(1, 10))}


def test_an_unknown_measurement_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks", "wode"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no measurement called 'wode'" in done.stderr


@pytest.mark.parametrize("workload", SIZES)
def test_asyncflow_answers_as_other_engines_do(workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_FOLDER", str(tmp_path))
    clear()
    found = answer(WORKLOADS, workload, 100 if workload == "layers" else 5)
    clear()
    assert found["status"] == "ok", found
    assert found["made"] >= 5, found
    assert found["peak_mb"] > 0, found


def test_a_process_of_its_own_answers_or_is_stopped() -> None:
    assert fresh.run("mini", "wide", 5)["made"] == 6
    assert fresh.run("mini", "wide", 5, limit=0.001)["status"] == "not finished"
    assert fresh.run("nobody", "wide", 5)["message"].endswith("No module named benchmarks.peers.with_nobody")


def test_an_engine_that_fails_or_cannot_says_so() -> None:
    def deep(n: int) -> None:
        raise RecursionError("maximum recursion depth exceeded")

    assert answer({}, "wide", 5) == {"status": "unsupported"}
    found = answer({"chain": lambda n: lambda: deep(n)}, "chain", 5)
    assert (found["status"], found["error"]) == ("failed", "RecursionError")


def _contest(*theirs: dict[str, object]) -> Contest:
    ours = [{"status": "ok", "wall_s": wall} for wall in (0.1, 0.2, 0.1)]
    return Contest("wide", 1_000, {"asyncflow": ours, "luigi": list(theirs)})


def test_ratios_are_those_of_turns_that_both_ran_in() -> None:
    contest = _contest(*[{"status": "ok", "wall_s": wall} for wall in (1.0, 2.0, 3.0)])
    assert contest.times("luigi") == pytest.approx(10)
    assert peer_cell(contest, "luigi", "us CPU/task") == "2,000 (10x)"


@pytest.mark.parametrize(
    ("answered", "shown"),
    [
        ({"status": "not finished", "limit_s": 60.0}, "not done in 60 s"),
        ({"status": "failed", "error": "RecursionError", "message": "..."}, "RecursionError"),
        ({"status": "unsupported"}, "-"),
        ({"status": "not measured", "message": "no such package"}, "not measured"),
    ],
)
def test_not_getting_there_is_a_result(answered: dict[str, object], shown: str) -> None:
    assert peer_cell(_contest(answered), "luigi", "us CPU/task") == shown


def test_a_goal_is_met_by_figure_and_ratio() -> None:
    def row(figure: float, ratio: float | None = None) -> Row:
        return Row("W1 wide", 100, "us CPU/task", figure, 7.0, ratio, Goal(30, 2.5))

    assert [row(20, 2).met, row(31, 2).met, row(20, 2.6).met, row(20).met] == [True, False, False, True]


def test_the_table_has_a_column_for_everything() -> None:
    row = Row("W1 wide", 1_000, "us CPU/task", 15.0, 7.5, 2.0, Goal(30, 2.5), "wide")
    contest = _contest({"status": "ok", "wall_s": 1.0})
    cells = usual_line(row, {("wide", 1_000): contest})
    assert cells == ["W1 wide", "1,000", "us CPU/task", "15", "7.5", "2.00", "30, 2.5x", "yes", "1,000 (10x)", ""]
    text = table(["a"] * len(cells), [cells, cells])
    assert len({len(line) for line in text.splitlines()[1:]}) <= 2
