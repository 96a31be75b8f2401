"""Mistakes in the call: exit code 2, at most three lines, no traceback, and what to write instead."""

from __future__ import annotations

import pytest

TASKS = """
class Extract(Task):
    date: datetime.date
    part: int
    def run(self): pass
class Report(Task):
    date: datetime.date = datetime.date(2026, 1, 1)
    my_param: int = 3
    quick: bool = False
    careful: bool = True
    def run(self): pathlib.Path("ran").write_text(repr((self.date, self.my_param, self.quick, self.careful)))
class Spaced(Report):
    task_namespace = "some.ns"
helper = 3
"""


def refused(outcome, *words):
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert len(outcome.lines) <= 3, outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.err.startswith("error: ")
    for word in words:
        assert word in outcome.err


@pytest.fixture
def tasks(write):
    write(TASKS, "usage_pipeline.py")
    return "usage_pipeline.py"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--date", "2026-13-01"), ("--date: '2026-13-01' is not valid", "YYYY-MM-DD", "2026-01-31")),
        (("--dat", "2026-01-01"), ("no such option: --dat", "did you mean --date?")),
        (("--my-parm=3",), ("--my-parm", "did you mean --my-param?")),
        (("--nothing-like-it",), ("--nothing-like-it", "--help lists")),
        (("--my-param", "x"), ("--my-param: 'x' is not valid: expected an integer",)),
        (("--date",), ("--date: expected a value",)),
        (("--my-param", "-x"), ("--my-param: expected a value", "--my-param=VALUE")),
        (("2026-01-01",), ("unexpected argument '2026-01-01'", "--name value")),
        (("--careful",), ("--careful: expected a value",)),
        (("--quick", "maybe"), ("--quick: 'maybe' is not valid: expected true or false",)),
        (("-j", "0"), ("-j/--jobs: '0'", "at least 1")),
        (("--threads", "many"), ("--threads: 'many'",)),
        (("--set", "Extract.part"), ("FAMILY.PARAMETER=VALUE",)),
        (("--set", "Extrct.part=3"), ("'Extrct'", "did you mean 'Extract'?")),
        (("--set", "Extract.prt=3"), ("no parameter 'prt'", "did you mean 'part'?")),
        (("--set", "Extract.part=x"), ("--set Extract.part: 'x' is not valid: expected an integer",)),
    ],
)
def test_arguments_of_the_task(call, tasks, arguments, words):
    refused(call("run", f"{tasks}:Report", *arguments), *words)
    if arguments[0] not in ("-j", "--threads"):
        refused(call("plan", f"{tasks}:Report", *arguments), *words)


def test_missing_parameters(call, tasks):
    refused(call("run", f"{tasks}:Extract"), "Extract needs --date, --part")
    refused(call("run", f"{tasks}:Extract", "--part", "3"), "Extract needs --date", "YYYY-MM-DD")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "(datetime.date(2026, 1, 1), 3, False, True)"),
        (("--my-param", "4", "--date", "2026-02-03"), "(datetime.date(2026, 2, 3), 4, False, True)"),
        (("--my_param=-4", "--quick"), "(datetime.date(2026, 1, 1), -4, True, True)"),
        (("--my-param", "-4"), "(datetime.date(2026, 1, 1), -4, False, True)"),
        (("--quick", "false", "--careful", "False"), "(datetime.date(2026, 1, 1), 3, False, False)"),
        (("--quick", "-q"), "(datetime.date(2026, 1, 1), 3, True, True)"),
        (("--quick=true",), "(datetime.date(2026, 1, 1), 3, True, True)"),
        (("--set", "Report.my_param=9"), "(datetime.date(2026, 1, 1), 9, False, True)"),
    ],
)
def test_arguments_become_parameters(call, tasks, tmp_path, arguments, told):
    assert call("run", f"{tasks}:Report", *arguments).code == 0
    assert (tmp_path / "ran").read_text() == told


def test_a_parameter_with_the_name_of_an_option_wins_after_the_task(call, write, tmp_path):
    write(
        """
        class A(Task):
            json: str
            threads: int = 1
            def run(self): pathlib.Path("ran").write_text(f"{self.json} {self.threads}")
        """,
        "clash_pipeline.py",
    )
    outcome = call("run", "--threads", "4", "clash_pipeline.py:A", "--json", "x", "--threads", "7")
    assert (outcome.code, outcome.out) == (0, "")
    assert (tmp_path / "ran").read_text() == "x 7"
    assert call("run", "--json", "clash_pipeline.py:A", "--json", "x").out.startswith("{")
    assert call("run", "clash_pipeline.py:A", "--json", "x", "--threads", "x").out == ""


def test_names_of_tasks(call, tasks):
    assert call("run", f"./{tasks}:Report").code == 0
    assert call("run", f"{tasks}:some.ns.Spaced").code == 0
    assert call("run", f"{tasks}:Spaced").code == 0
    refused(call("run", f"{tasks}:Reprot"), "no task named 'Reprot'", "did you mean 'Report'?", "Extract, Report")
    refused(call("run", f"{tasks}:report"), "did you mean 'Report'?")
    refused(call("run", tasks), "which task?", "Extract, Report, some.ns.Spaced")
    refused(call("run", f"{tasks}:helper"), "'helper'", "is no task")
    refused(call("run", f"{tasks}:Task"), "'Task'")
    refused(call("run", f"{tasks}:datetime"), "'datetime'", "is no task")


def test_one_name_for_two_tasks(call, write):
    write(
        """
        def make(name):
            class Report(Task):
                task_namespace = name
                def run(self): pass
            return Report
        a, Report = make("a"), make("b")
        """,
        "two_pipeline.py",
    )
    assert call("run", "two_pipeline.py:a.Report").code == 0
    assert call("run", "two_pipeline.py:b.Report").code == 0
    refused(call("run", "two_pipeline.py:Report"), "2 tasks", "a.Report, b.Report")


def test_modules_and_packages(call, write, tmp_path):
    write("class A(Task):\n    def run(self): pass\n", "apackage/report.py")
    write("", "apackage/__init__.py")
    assert call("run", "apackage.report:A").code == 0
    refused(call("run", "apackage.reprot:A"), "no module named 'apackage.reprot'", "did you mean 'apackage.report:A'?")
    refused(call("run", "apackge.report:A"), "no module named 'apackge'", "did you mean 'apackage.report:A'?")
    refused(call("run", "apackage.report"), "which task?", "its tasks: A")
    refused(call("run", "Report"), "no module named 'Report'", "MODULE:Task")
    refused(call("run", ":Report"), "expected MODULE:Task")
    refused(call("run", "what is this"), "expected MODULE:Task")
    assert "A" in call("list", "apackage").out.split()


def test_files_that_are_not_there(call, tasks, tmp_path):
    refused(call("run", "usage_pipelin.py:Report"), "there is no such file", "did you mean 'usage_pipeline.py'?")
    (tmp_path / "folder.py").mkdir()
    refused(call("run", "folder.py:Report"), "is a directory")
    (tmp_path / "json.py").write_text("")
    refused(call("run", "json.py:Report"), "'json' is loaded already", "another name")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import numpyy\n", ("ModuleNotFoundError: No module named 'numpyy'", "broken_module.py:1", "import numpyy")),
        ("x = 1\ndef f(:\n", ("SyntaxError", "broken_module.py:2")),
        ("def f():\n    raise KeyError('k')\nf()\n", ("KeyError: 'k'", "broken_module.py:2", "raise KeyError('k')")),
        ("import sys\nsys.exit(3)\n", ("SystemExit: 3", "broken_module.py:2", "__main__")),
        ("from .other import x\n", ("relative import", "package.module:Task")),
        (
            "from asyncflow import Task\nclass A(Task):\n    retries: int = 3\n",
            ("TaskDefinitionError", "A.retries", "drop the annotation", "broken_module.py:2"),
        ),
        ("raise ValueError('a\\nb\\x1b[31m')\n", ("ValueError: a b\\x1b[31m",)),
        ("from json import nothing\n", ("ImportError", "nothing", "broken_module.py:1")),
    ],
)
def test_modules_that_fail_on_import(call, write, source, words):
    write(source, "broken_module.py", head="")
    refused(call("run", "broken_module.py:A"), "cannot import broken_module.py", *words)
    refused(call("list", "broken_module"), "cannot import broken_module:", *words)


def test_a_module_that_imports_one_that_is_not_there_is_not_the_one_that_is_not_there(call, write):
    write("import apart.missing\n", "outer_module.py", head="")
    write("", "apart/__init__.py", head="")
    refused(call("run", "outer_module:A"), "cannot import outer_module", "No module named 'apart.missing'")


def test_full_traceback_of_an_import(call, write):
    write("raise KeyError('k')\n", "broken_module.py", head="")
    outcome = call("run", "broken_module.py:A", "--full-traceback")
    assert outcome.code == 2
    assert "Traceback" in outcome.err


def test_a_file_may_import_its_neighbours_also_when_it_runs(cli, write, tmp_path):
    write("def early(): return 1\n", "deep/neighbour.py", head="")
    write("def late(): return 2\n", "deep/other.py", head="")
    write(
        """
        from neighbour import early
        class A(Task):
            def run(self):
                from other import late
                assert early() + late() == 3
        """,
        "deep/p.py",
    )
    outcome = cli("run", "deep/p.py:A")
    assert outcome.code == 0, outcome.err


def test_a_constructor_of_the_users_own(call, write):
    write(
        """
        class A(Task):
            n: int = 1
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                raise KeyError("no")
        """,
        "constructor_pipeline.py",
    )
    refused(call("run", "constructor_pipeline.py:A"), "A cannot be made: KeyError: 'no'", "constructor_pipeline.py:7")


def test_commands_and_options(call, tasks):
    refused(call("rnu", "x"), "no such command: rnu", "did you mean 'run'?")
    refused(call("--verbose"), "no such option: --verbose")
    refused(call("usage_pipeline.py:Report"), "after `run`")
    refused(call("run"), "which task?")
    refused(call("plan", "--json-events", f"{tasks}:Report"), "no such option: --json-events")
    refused(call("run", "--my-param", "3", f"{tasks}:Report"), "--my-param", "come after it")
    refused(call("run", "--job", "3", f"{tasks}:Report"), "did you mean --jobs?")
    refused(call("plan", "-j", "3", f"{tasks}:Report"), "no such option: -j")
    refused(call("list", tasks, "more"), "unexpected argument 'more'")
    refused(call("list", f"{tasks}:Report"), "is a task: expected a module or a file")
    nothing = call()
    assert (nothing.code, nothing.out) == (2, "")
    assert nothing.err.startswith("usage: asyncflow")


def test_a_wrong_value_in_the_environment(call, write, monkeypatch):
    write(
        "class A(Task):\n    n: int = param(env='AF_TEST_N')\n    def run(self): pass\n",
        "environment_pipeline.py",
    )
    refused(call("run", "environment_pipeline.py:A"), "A needs --n")
    monkeypatch.setenv("AF_TEST_N", "x")
    refused(call("run", "environment_pipeline.py:A"), "n='x' (from the environment variable AF_TEST_N)")
    assert "environment: AF_TEST_N" in call("run", "environment_pipeline.py:A", "--help").out
    monkeypatch.setenv("AF_TEST_N", "3")
    assert call("run", "environment_pipeline.py:A").code == 0
