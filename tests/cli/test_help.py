"""`--help`, `--version` and `list`."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import asyncflow

COMMAND = Path(sysconfig.get_path("scripts")) / "asyncflow"


@pytest.mark.skipif(not COMMAND.exists(), reason="the package is not installed")
def test_the_command_and_the_module_are_the_same(cli):
    for arguments in (["--help"], ["run", "--help"], ["--version"]):
        script = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=True)
        outcome = cli(*arguments, env={"COLUMNS": "80"})
        assert outcome.out == script.stdout or arguments == ["run", "--help"]
        assert outcome.err == script.stderr == ""
    assert script.stdout == f"asyncflow {asyncflow.__version__}\n"


def test_help_begins_with_usage_and_examples(call):
    for arguments in (["-h"], ["--help"], ["run", "-h"], ["plan", "--help"], ["list", "--help"]):
        outcome = call(*arguments)
        assert (outcome.code, outcome.err) == (0, "")
        lines = outcome.out.splitlines()
        assert lines[0].startswith("usage: asyncflow")
        assert lines[2].startswith("  asyncflow ")
        assert len(lines) < 40
    assert sum(line.startswith("  asyncflow ") for line in call("--help").out.splitlines()) == 5
    assert call("-h") == call("--help") == call("help")


def test_version_does_without_argparse():
    code = "import sys; from asyncflow.cli import main; main(['--version']); print('argparse' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == [f"asyncflow {asyncflow.__version__}", "False"]


def test_help_of_a_task(call, write):
    write(
        '''
        class Report(Task):
            """The report of a day.

            100% of it, at %(prog)s.
            """
            date: datetime.date
            my_count: int = param(default=3, help="number of parts, 100%")
            quick: bool = False
            def run(self): raise RuntimeError
        class Plain(Report):
            date: datetime.date = datetime.date(2026, 1, 1)
        ''',
        "help_pipeline.py",
    )
    for arguments in (("run", "help_pipeline.py:Report", "--help"), ("run", "--help", "help_pipeline.py:Report")):
        outcome = call(*arguments)
        assert (outcome.code, outcome.err) == (0, "")
        text = " ".join(outcome.out.split())
        assert text.startswith(
            "usage: asyncflow run help_pipeline.py:Report --date DATE [options] The report of a day."
        )
        assert "100% of it, at %(prog)s." in text
        assert "--date DATE a date as YYYY-MM-DD, e.g. 2026-01-31; required" in text
        assert "--my-count MY_COUNT number of parts, 100%; an integer, e.g. 3; default: 3" in text
        assert "--quick [QUICK] true or false; default: False" in text
        assert "--jobs" in text
        assert "my_count" not in text
    plain = call("plan", "help_pipeline.py:Plain", "-h").out
    assert plain.startswith("usage: asyncflow plan help_pipeline.py:Plain [options]")
    assert "The report of a day" not in plain
    assert "--jobs" not in plain


def test_list_of_a_module(call, write):
    write(
        '''
        from collections import OrderedDict
        class Report(Task):
            """The report\\x1b[31m of a day.

            And more.
            """
            task_namespace = "ns"
        class Plain(Report):
            pass
        @task
        async def function(n: int) -> int:
            """A function."""
            return n
        ''',
        "list_pipeline.py",
    )
    outcome = call("list", "list_pipeline.py")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "function   A function.\nns.Plain\nns.Report  The report\\x1b[31m of a day.\n"
    assert call("list", "list_pipeline").out == outcome.out
    document = json.loads(call("list", "list_pipeline.py", "--json").out)
    assert document["schema"] == 1
    assert document["tasks"][0] == {
        "reference": "list_pipeline.py:function",
        "family": "function",
        "summary": "A function.",
    }
    for item in document["tasks"]:
        assert call("plan", item["reference"], "--help").code == 0


def test_list_of_this_directory_imports_nothing(call, write, tmp_path):
    assert call("list").err.startswith("no tasks in the Python files")
    write(
        '''
        import asyncflow
        open("imported", "w")
        class Report(asyncflow.Task):
            """The report."""
        class Child(Report, object): ...
        class _Private(Report): ...
        class Other: ...
        @asyncflow.task(output=print)
        def function(n: int) -> int: ...
        def plain(): ...
        ''',
        "one.py",
    )
    write("class X(Task: ...", "broken.py")
    write("class Task: ...\nclass X(Task): ...", "unrelated.py", head="")
    outcome = call("list")
    assert outcome.code == 0
    assert outcome.out == "one.py:Report    The report.\none.py:Child\none.py:function\n"
    assert not (tmp_path / "imported").exists()
    assert json.loads(call("list", "--json").out)["tasks"][1] == {"reference": "one.py:Child", "summary": ""}
