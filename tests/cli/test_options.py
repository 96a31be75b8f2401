"""`asyncflow run` and `plan`: retries, time limits, resources, rates, fail fast, force and only."""

from __future__ import annotations

import json
import re

import pytest

from .test_usage import refused

FLAKY = """
class Fetch(Task):
    n: int = 3
    retries = 3
    retry_delay = 0.01
    retry_on = ConnectionError
    async def run(self):
        tried = pathlib.Path("tried")
        times = len(tried.read_text()) if tried.exists() else 0
        tried.write_text("x" * (times + 1))
        if times < self.n:
            raise ConnectionError("no route\\x1b[2J to host")
"""

CHAIN = """
class Raw(Task):
    def output(self): return LocalTarget("raw")
    def run(self): made(self, "raw")
class Clean(Task):
    def requires(self): return Raw()
    def output(self): return LocalTarget("clean")
    def run(self): made(self, "clean")
class Report(Task):
    def requires(self): return Clean()
    def output(self): return LocalTarget("report")
    def run(self): made(self, "report")
def made(task, name):
    with open("runs", "a") as file:
        file.write(name + " ")
    with task.output().open("w") as file:
        file.write("x")
"""


@pytest.fixture
def chain(write):
    """A file with `Report`, which requires `Clean`, which requires `Raw`."""
    write(CHAIN)
    return "p.py:Report"


@pytest.fixture
def runs(tmp_path):
    """`runs()`: what has run since it was asked last."""

    def runs():
        path = tmp_path / "runs"
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return names

    return runs


def test_every_failed_attempt_is_a_line(cli, write, tmp_path):
    write(FLAKY)
    outcome = cli("run", "p.py:Fetch")
    assert (outcome.code, outcome.out) == (0, "")
    told = [line for line in outcome.lines if line.startswith("↻")]
    assert len(told) == 3
    line = r"↻ Fetch\(n=3\)  attempt 1 of 4 failed: ConnectionError: no route\\x1b\[2J to host; again in 0\.\d\d s"
    assert re.fullmatch(line, told[0])
    assert "attempt 3 of 4" in told[2]
    assert outcome.lines[-1].startswith("✓ 1 done")
    (tmp_path / "tried").unlink()
    ascii_only = cli("run", "p.py:Fetch", env={"PYTHONIOENCODING": "ascii"})
    assert sum(line.startswith("~ Fetch") for line in ascii_only.lines) == 3
    (tmp_path / "tried").unlink()
    assert cli("run", "-q", "p.py:Fetch").err == ""


def test_the_last_failure_says_which_attempt_it_was(cli, write):
    write(FLAKY)
    outcome = cli("run", "p.py:Fetch", "--n", "9", "--json")
    assert outcome.code == 1
    assert re.search(r"✗ Fetch\(n=9\)  failed after 0\.\d\d s, at attempt 4\n", outcome.err)
    document = json.loads(outcome.out)
    [task] = document["tasks"]
    assert [attempt["error"] for attempt in task["attempts"]] == ["ConnectionError: no route\x1b[2J to host"] * 4
    assert all(attempt["finished"] >= attempt["started"] for attempt in task["attempts"])
    assert document["why"] is None


def test_retries_for_tasks_that_do_not_say(call, write):
    write(FLAKY.replace("    retries = 3\n", ""), "silent_pipeline.py")
    outcome = call("run", "silent_pipeline.py:Fetch", "--n", "2", "--retries", "2")
    assert outcome.code == 0
    assert "attempt 2 of 3" in outcome.err


def test_a_build_that_runs_out_of_time_says_so(cli, write):
    write("class Slow(Task):\n    async def run(self): await asyncio.sleep(60)")
    outcome = cli("run", "p.py:Slow", "--timeout", "0.1", "--json")
    assert outcome.code == 1
    assert outcome.lines[:2] == [
        "⊘ stopped: the build took more than its timeout of 0.1 s",
        "hint: to go on: asyncflow run --timeout 0.1 --json p.py:Slow",
    ]
    assert outcome.lines[2].startswith("✗ 1 cancelled   ")
    document = json.loads(outcome.out)
    assert (document["status"], document["why"]) == (
        "cancelled",
        "the build took more than its timeout of 0.1 s",
    )


def test_grace_is_what_a_body_has_for_stopping(cli, write):
    write(
        """
        class Slow(Task):
            async def run(self):
                while True:
                    try:
                        await asyncio.sleep(60)
                    except asyncio.CancelledError:
                        pass
        """
    )
    outcome = cli("run", "p.py:Slow", "--timeout", "0", "--grace", "0.1")
    assert outcome.code == 1
    assert "did not stop within 0.1 s and is left behind" in outcome.err


def test_fail_fast_and_keep_going(call, write, tmp_path):
    write(
        """
        class Bad(Task):
            async def run(self): raise ValueError("no")
        class Good(Task):
            async def run(self):
                await asyncio.sleep(0.1)
                pathlib.Path("good").touch()
        class All(WrapperTask):
            def requires(self): return [Bad(), Good()]
        """,
        "fast_pipeline.py",
    )
    place = "fast_pipeline.py:All"
    for arguments, goes_on in (((), True), (("-x",), False), (("-x", "-k"), True), (("--fail-fast",), False)):
        assert call("run", *arguments, place).code == 1
        assert (tmp_path / "good").exists() is goes_on
        (tmp_path / "good").unlink(missing_ok=True)
    outcome = call("run", place, "--keep-going", "--fail-fast")
    assert outcome.lines[-1].startswith("✗ 1 failed · 2 cancelled")


def test_resources_and_rates(call, write):
    write(
        """
        working = most = 0
        class Query(Task):
            n: int
            resources = {"db": 1}
            rate = "api"
            async def run(self):
                global working, most
                working += 1
                most = max(most, working)
                await asyncio.sleep(0.001)
                working -= 1
        class Most(Task):
            def requires(self): return [Query(n=n) for n in range(9)]
            def run(self): raise SystemExit(f"{most} at once")
        """,
        "pool_pipeline.py",
    )
    place = "pool_pipeline.py:Most"
    assert "SystemExit: 1 at once" in call("run", place, "--rate", "api=1000/s").err
    outcome = call("run", "--resource", "db=4", place, "--resource", "gpu=2", "--rate", "api=9/0.1s")
    assert "SystemExit: 4 at once" in outcome.err
    without = call("run", place)
    assert without.code == 2
    assert "limited by the rate 'api', which nobody gives" in without.err
    assert "--rate api=10/s" in without.err
    assert call("plan", place).code == 0, "a plan has nothing to do with how much runs at once"


def test_force(cli, chain, runs):
    assert cli("run", chain).code == 0
    assert runs() == ["raw", "clean", "report"]
    assert cli("run", "--force", chain).code == 0
    assert runs() == ["report"]
    assert cli("run", chain, "--force").code == 0
    assert runs() == ["report"]
    assert cli("run", chain, "--force=targets", "-q").err == ""
    assert runs() == ["report"]
    assert cli("run", "--force=upstream", chain).code == 0
    assert runs() == ["raw", "clean", "report"]
    plan = cli("plan", "--force=upstream", chain)
    assert [line.split()[:2] for line in plan.out.splitlines()[:-1]] == [
        ["RUN", "Report()"],
        ["RUN", "Clean()"],
        ["RUN", "Raw()"],
    ]
    assert "  forced" in plan.out
    assert not runs()


def test_only(cli, chain, runs):
    outcome = cli("run", chain, "--only", "Raw")
    assert outcome.code == 3
    assert runs() == ["raw"]
    assert outcome.lines[0] == "⊘ Report()  is not selected (--only), and is not complete"
    assert "report" in outcome.lines[1]
    assert outcome.lines[-1].startswith("✗ 1 done · 2 missing")
    plan = cli("plan", chain, "--only", "Clean", "--only=Raw")
    assert plan.out.splitlines()[0] == "  missing Report()  not among the `only` tasks, and not complete"
    assert cli("run", "--only", "Clean", chain, "--only", "Report").code == 0
    assert runs() == ["clean", "report"]
    assert cli("run", chain, "--force=upstream", "--only", "Raw").code == 0
    assert runs() == ["raw"]


def test_interrupted_it_names_the_command_with_its_options(call, write):
    write("class A(Task):\n    async def run(self): await asyncio.sleep(60)", "again_pipeline.py")
    given = (
        *("--retries", "2", "--timeout", "0", "--grace", "0.5", "--resource", "db=4", "--rate", "api=3/10s"),
        *("--only", "A", "--force", "--fail-fast", "--quiet"),
    )
    outcome = call("run", *given, "again_pipeline.py:A")
    assert f"to go on: asyncflow run {' '.join(given)} again_pipeline.py:A" in outcome.err


def test_a_parameter_called_force_takes_its_own_values(call, write, tmp_path):
    write(
        """
        class A(Task):
            force: bool = False
            only: str = ""
            def run(self): pathlib.Path("ran").write_text(f"{self.force} {self.only}")
        """,
        "own_pipeline.py",
    )
    place = "own_pipeline.py:A"
    for arguments, told in (
        ((place,), "False "),
        ((place, "--force"), "True "),
        (("--only", "A", "--force", place, "--force=false", "--only", "x"), "False x"),
    ):
        assert call("run", *arguments).code == 0
        assert (tmp_path / "ran").read_text() == told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--retries", "-1"), ("--retries",)),
        (("--retries", "1.5"), ("--retries: '1.5' is not valid", "whole number, 0 or more")),
        (("--timeout", "soon"), ("--timeout: 'soon' is not valid", "number of seconds", "e.g. 30")),
        (("--timeout=-1",), ("--timeout: '-1' is not valid",)),
        (("--grace", "nan"), ("--grace: 'nan' is not valid",)),
        (("--resource", "db"), ("--resource: 'db' is not valid", "NAME=N", "db=4")),
        (("--resource", "db=0"), ("--resource: 'db=0'", "at least 1")),
        (("--resource", "=4"), ("--resource: '=4'",)),
        (("--rate", "api=fast"), ("--rate: 'api=fast' is not valid", "api=10/s")),
        (("--rate", "10/s"), ("--rate: '10/s' is not valid",)),
        (("--force=all",), ("--force: 'all' is not valid", "--force=upstream")),
        (("--force", "upstream"), ("unexpected argument 'upstream'",)),
        (("--only", "Exract"), ("--only: no task is called 'Exract'; did you mean 'Extract'?", "asyncflow list")),
        (("--only",), ("--only: expected a value",)),
        (("--fail-fst",), ("--fail-fst", "did you mean --fail-fast?")),
    ],
)
def test_mistakes_are_usage_errors(call, write, arguments, words):
    write("class Extract(Task):\n    def run(self): pass", "mistake_pipeline.py")
    refused(call("run", "mistake_pipeline.py:Extract", *arguments), *words)
