"""`asyncflow run`: exit codes, streams, failures."""

from __future__ import annotations

import json
from pathlib import Path

REPORT = """
class Extract(Task):
    date: datetime.date
    part: int
    def output(self): return LocalTarget(f"data/extract-{self.part}.csv")
    async def run(self):
        if self.part == 3 and not os.path.exists("ok"):
            await self.parse("N/A")
        async with self.output().open("w") as file:
            await file.write("x")
    async def parse(self, price):
        try:
            float(price)
        except ValueError as error:
            raise ValueError(f"row 17: cannot parse price {price!r}") from error

class Clean(Task):
    date: datetime.date
    part: int
    def requires(self): return Extract(date=self.date, part=self.part)
    def output(self): return LocalTarget(f"data/clean-{self.part}.csv")
    def run(self):
        print("a body prints")
        subprocess.run([sys.executable, "-c", "print('a program prints')"], check=True)
        with self.output().open("w") as file:
            file.write("x")

class Report(Task):
    '''The report of a day.'''
    n: int = 1
    date: datetime.date = datetime.date(2026, 1, 1)
    def requires(self): return [Clean(date=self.date, part=part) for part in range(self.n)]
    def output(self): return LocalTarget(f"data/report-{self.n}.csv")
    def run(self):
        with self.output().open("w") as file:
            file.write("x")
"""


def test_a_run_that_succeeds_writes_nothing_to_stdout(cli, write, tmp_path):
    write(REPORT)
    first = cli("run", "p.py:Report")
    assert (first.code, first.out) == (0, "")
    assert "a body prints" in first.lines
    assert "a program prints" in first.lines
    assert first.lines[-1].startswith("✓ 3 done   ")
    second = cli("run", "./p.py:Report")
    assert (second.code, second.out) == (0, "")
    assert second.err.startswith("✓ 0 to run · 1 already complete")
    quiet = cli("run", "p.py:Report", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_a_failure_is_told_with_the_users_own_frames(cli, write):
    write(REPORT)
    outcome = cli("run", "p.py:Report", "--n", "4", "--date", "2026-02-03")
    assert (outcome.code, outcome.out) == (1, "")
    told = [line for line in outcome.lines if line.strip() and "prints" not in line]
    assert len(told) <= 25
    assert told[0].startswith("✗ Extract(date=2026-02-03, part=3)  failed after 0.")
    assert told[1:] == [
        "    ValueError: row 17: cannot parse price 'N/A'",
        "    p.py:9 in Extract.run",
        '      9 │ await self.parse("N/A")',
        "    p.py:16 in Extract.parse",
        '      16 │ raise ValueError(f"row 17: cannot parse price {price!r}") from error',
        "    caused by ValueError: could not convert string to float: 'N/A'",
        "    blocks Clean(date=2026-02-03, part=3), Report(n=4, date=2026-02-03)",
        told[-1],
    ]
    assert told[-1].startswith("✗ 6 done · 1 failed · 2 blocked   ")


def test_full_traceback_by_option_and_by_environment(cli, write):
    write("class A(Task):\n    async def run(self): raise ValueError('no')")
    short = cli("run", "p.py:A")
    for outcome in (
        cli("run", "p.py:A", "--full-traceback"),
        cli("run", "--full-traceback", "p.py:A"),
        cli("run", "p.py:A", env={"ASYNCFLOW_FULL_TRACEBACK": "1"}),
    ):
        assert outcome.code == 1
        assert "Traceback" in outcome.err
        assert "/asyncflow/" in outcome.err
    assert "Traceback" not in short.err
    assert "/asyncflow/" not in short.err


def test_frames_of_the_standard_library_are_left_out(call, write):
    write(
        """
        import json
        class A(Task):
            def run(self):
                json.loads("{")
        """,
        "stdlib_pipeline.py",
    )
    outcome = call("run", "stdlib_pipeline.py:A")
    frames = [line for line in outcome.lines if " in " in line and ".py:" in line]
    assert frames == ["    stdlib_pipeline.py:6 in A.run"]


def test_a_group_is_told_by_its_leaves(call, write):
    write(
        """
        class A(Task):
            def run(self):
                inner = ExceptionGroup("inner", [ValueError(f"no {i}") for i in range(4)])
                raise ExceptionGroup("outer", [KeyError("k"), inner])
        """,
        "group_pipeline.py",
    )
    outcome = call("run", "group_pipeline.py:A")
    assert outcome.code == 1
    assert "    KeyError: 'k'" in outcome.lines
    assert "    ValueError: no 1" in outcome.lines
    assert "    … and 2 more exceptions in the group" in outcome.lines
    assert "outer" not in outcome.err


def test_ten_failures_in_full_and_the_number_of_the_others(call, write):
    write(
        """
        class Bad(Task):
            n: int
            def run(self): raise ValueError("no")
        class All(WrapperTask):
            def requires(self): return [Bad(n=n) for n in range(12)]
        """,
        "many_pipeline.py",
    )
    outcome = call("run", "many_pipeline.py:All")
    assert outcome.code == 1
    assert sum(line.startswith("✗ Bad") for line in outcome.lines) == 10
    assert "… and 2 more (--json tells them all)" in outcome.lines


def test_a_long_failure_stays_short(call, write):
    write(
        """
        class Bad(Task):
            text: str = "x" * 5000
            def run(self): self.deeper(0)
            def deeper(self, level):
                if level == 400:
                    raise ValueError("\\n".join(f"line {i} " + "y" * 5000 for i in range(500)))
                self.deeper(level + 1)
        """,
        "long_pipeline.py",
    )
    outcome = call("run", "long_pipeline.py:Bad")
    assert len(outcome.lines) <= 25
    assert max(map(len, outcome.lines)) < 400
    assert "    … 398 frames" in outcome.lines
    assert "      … 496 more lines" in outcome.lines


def test_missing_input_is_exit_code_3_and_names_the_path(cli, write, tmp_path):
    write(
        """
        class Raw(ExternalTask):
            def output(self): return LocalTarget("data/raw.csv")
        class A(Task):
            def requires(self): return Raw()
            def run(self): pass
        """
    )
    outcome = cli("run", "p.py:A")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.lines[0] == "⊘ Raw()  is external, and its output is missing"
    assert str(tmp_path / "data/raw.csv") in outcome.lines[1]
    assert "blocks A()" in outcome.lines[2]


UNKNOWN = """
class Broken(Target):
    def exists(self): raise OSError("the disk is on fire")
class Unknown(Task):
    def output(self): return Broken()
    def run(self): pass
class Failing(Task):
    def run(self): raise ValueError("no")
class Raw(ExternalTask):
    def output(self): return LocalTarget("raw")
class Some(WrapperTask):
    which: str
    def requires(self): return [globals()[name]() for name in self.which.split(",")]
"""


def test_unknown_existence_is_exit_code_4(cli, write):
    write(UNKNOWN)
    outcome = cli("run", "p.py:Unknown")
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.lines[:3] == [
        "✗ Unknown()  cannot tell whether it is complete",
        "    OSError: the disk is on fire",
        "    p.py:4 in Broken.exists",
    ]


def test_which_exit_code_stands_when_several_apply(call, write):
    write(UNKNOWN, "several_pipeline.py")
    for which, code in (("Raw,Unknown,Failing", 1), ("Raw,Unknown", 4), ("Raw", 3)):
        assert call("run", "several_pipeline.py:Some", "--which", which).code == code


def test_a_graph_error_is_exit_code_2_and_nothing_is_executed(cli, write, tmp_path):
    write(
        """
        class Cycle(Task):
            n: int = 0
            def requires(self): return Cycle(n=(self.n + 1) % 3)
            def run(self): pass
        class Bad(Task):
            def requires(self): return {}["nowhere"]
            def run(self): pass
        class Good(Task):
            def output(self): return LocalTarget("good")
            def run(self): self.output().put("x")
        class Root(Task):
            def requires(self): return [Good(), Bad(), Cycle()]
            def run(self): pass
        """
    )
    outcome = cli("run", "p.py:Root")
    assert (outcome.code, outcome.out) == (2, "")
    assert "Traceback" not in outcome.err
    assert outcome.lines[0] == "error: Bad().requires() raised KeyError: 'nowhere'"
    assert outcome.lines[1] == "    p.py:8 in Bad.requires"
    cycle = cli("run", "p.py:Cycle")
    assert cycle.code == 2
    assert "error: these tasks wait for each other: Cycle(n=0) -> Cycle(n=1) -> Cycle(n=2) -> Cycle(n=0)" in cycle.err
    assert outcome.lines[-1] == "hint: nothing was executed"
    assert not (tmp_path / "good").exists()


def test_a_failure_that_a_body_caught_does_not_count(call, write):
    write(
        """
        class Bad(Task):
            async def run(self): raise ValueError("no")
        class A(Task):
            async def run(self):
                try:
                    await Bad()
                except TaskFailed:
                    return 1
        """,
        "caught_pipeline.py",
    )
    outcome = call("run", "caught_pipeline.py:A")
    assert outcome.code == 0
    assert outcome.err.startswith("✓ 1 done · 1 failed")


def test_dry_run_and_plan_execute_nothing(call, write, tmp_path):
    write(REPORT, "dry_pipeline.py")
    before = sorted(tmp_path.rglob("*"))
    plan = call("plan", "dry_pipeline.py:Report", "--n", "2")
    assert plan.code == 0
    assert plan.err == ""
    lines = plan.out.splitlines()
    assert lines[0].split()[:5] == ["RUN", "Report(n=2,", "date=2026-01-01)", "output", "missing:"]
    assert lines[-1] == "5 to run.  Nothing was executed."
    for arguments in (("-n", "dry_pipeline.py:Report", "--n", "2"), ("dry_pipeline.py:Report", "--n=2", "--dry-run")):
        assert call("run", *arguments) == plan
    assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before


def test_control_characters_never_reach_the_terminal(cli, write):
    write(
        r"""
        class A(Task):
            name: str
            def requires(self): return Bad(name=self.name)
            def run(self): pass
        class Bad(Task):
            name: str
            def run(self):
                raise ValueError(f"first {self.name}\x1b[2J\rsecond \u202e third")
        """
    )
    evil = "\x1b]0;evil\x07\x9b31m\nerror: all is well"
    for arguments in (("run",), ("plan",), ("run", "--json"), ("run", "--full-traceback")):
        outcome = cli(*arguments, "p.py:A", "--name", evil)
        text = outcome.out + outcome.err
        assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & set(text)
        assert "evil" in text
        assert not any(line.startswith("error: all is well") for line in text.splitlines())


def test_hidden_values_are_never_printed(call, write):
    write(
        """
        class A(Task):
            token: int = param(default=4242424242, visibility=Visibility.HIDDEN)
            key: str = param(default="k", visibility=Visibility.PRIVATE)
            def run(self): raise ValueError("no")
        """,
        "hidden_pipeline.py",
    )
    place = "hidden_pipeline.py:A"
    for arguments in (
        ("run", place, "--token", "secret"),
        ("run", place, "--token", "7770777077", "--key", "secret"),
        ("run", "--json", place, "--token", "7770777077", "--key", "secret"),
        ("plan", place, "--token", "7770777077", "--key", "secret"),
        ("run", place, "--set", "A.token=secret"),
        ("run", place, "--help"),
    ):
        outcome = call(*arguments)
        text = outcome.out + outcome.err
        assert "secret" not in text
        assert "7770777077" not in text
        assert "4242424242" not in text
    assert (
        call("run", place, "--token", "secret").lines[0]
        == "error: --token: *** is not valid: expected an integer, e.g. 3"
    )


def test_json_is_one_document_on_stdout(cli, write):
    write(REPORT)
    done = cli("run", "p.py:Report", "--json")
    document = json.loads(done.out)
    assert (done.code, document["schema"], document["status"]) == (0, 1, "succeeded")
    assert document["counts"] == {"succeeded": 3}
    failed = cli("run", "--json", "p.py:Report", "--n", "4")
    document = json.loads(failed.out)
    assert (failed.code, document["status"], document["counts"]["failed"]) == (1, "failed", 1)
    assert "ValueError: row 17" in failed.err
    plan = json.loads(cli("plan", "p.py:Report", "--json").out)
    assert [item["action"] for item in plan["items"]] == ["skip"]


def test_json_of_errors(call, write):
    write(
        REPORT + "\nclass Bad(Task):\n    def requires(self): return 3\n    def run(self): pass\n", "json_pipeline.py"
    )
    place = "json_pipeline.py"
    for arguments, code in (
        (("run", f"{place}:Report", "--json", "--date", "2026-13-01"), "parameter"),
        (("run", f"{place}:Reprot", "--json"), "task_not_found"),
        (("run", "--json", "nowhere:Task"), "module_not_found"),
        (("plan", f"{place}:Bad", "--json"), "plan"),
        (("run", f"{place}:Bad", "--json"), "plan"),
        (("run", f"{place}:Report", "--json", "--nn", "3"), "usage"),
        (("list", "nowhere.py", "--json"), "file_not_found"),
    ):
        outcome = call(*arguments)
        document = json.loads(outcome.out)
        assert outcome.code == 2
        assert document["schema"] == 1
        assert document["error"]["code"] == code
        assert set(document["error"]) == {"code", "message", "hint"}
        assert outcome.lines[0].startswith("error: ")


def test_jobs_and_threads_limit_what_runs_at_once(cli, write):
    write(
        """
        running = most = 0
        class Async(Task):
            n: int
            async def run(self):
                global running, most
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.001)
                running -= 1
        class Sync(Async):
            def run(self):
                global running, most
                running += 1
                most = max(most, running)
                time.sleep(0.001)
                running -= 1
        class All(WrapperTask):
            kind: str
            def requires(self): return [globals()[self.kind](n=n) for n in range(12)]
        class Most(Task):
            kind: str
            most: int
            def requires(self): return All(kind=self.kind)
            def run(self):
                assert most == self.most, most
        """
    )
    assert cli("run", "-j", "3", "p.py:Most", "--kind", "Async", "--most", "3").code == 0
    assert cli("run", "p.py:Most", "--kind", "Sync", "--most", "1", "--threads", "1").code == 0
    outcome = cli("run", "p.py:Most", "--kind", "Async", "--most", "3", "--jobs=2")
    assert outcome.code == 1
    assert "AssertionError: 2" in outcome.err


def test_set_gives_any_task_a_default_also_at_run_time(cli, write, tmp_path):
    write(
        """
        class Part(Task):
            task_namespace = "deep.ns"
            size: int = 1
            my_name: str = "a"
            async def run(self): return self.size, self.my_name
        class Root(Task):
            async def run(self):
                pathlib.Path("result").write_text(repr(await Part()))
        """
    )
    outcome = cli("run", "p.py:Root", "--set", "deep.ns.Part.size=5", "--set", "deep.ns.Part.my-name=b=c")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "result").read_text() == "(5, 'b=c')"
    before = cli("run", "--set", "deep.ns.Part.size=6", "p.py:Root", "--set", "deep.ns.Part.my_name=z")
    assert before.code == 0
    assert (tmp_path / "result").read_text() == "(6, 'z')"


def test_system_exit_of_a_body_is_a_failure(cli, write):
    write(
        """
        class A(Task):
            async def run(self): sys.exit(0)
        class B(Task):
            async def run(self):
                async def leave(): sys.exit(0)
                async with asyncio.TaskGroup() as group:
                    group.create_task(leave())
        """
    )
    outcome = cli("run", "p.py:A")
    assert outcome.code == 1
    assert "SystemExit: 0" in outcome.err
    assert cli("run", "p.py:B").code == 1


def test_tasks_left_on_the_loop_do_not_hold_up_the_end(cli, write):
    write(
        """
        kept = []
        class A(Task):
            async def run(self):
                async def stubborn():
                    while True:
                        try:
                            await asyncio.sleep(60)
                        except asyncio.CancelledError:
                            pass
                kept.append(asyncio.create_task(stubborn()))
                await asyncio.sleep(0)
        """
    )
    outcome = cli("run", "p.py:A", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["status"] == "succeeded"


def test_examples_of_the_help_need_no_more_than_a_file(cli, write, tmp_path: Path):
    write(
        '''
        class Square(Task):
            n: int
            async def run(self) -> int:
                return self.n ** 2
        class Total(Task):
            """The sum of some squares."""
            upto: int = 10
            async def run(self) -> int:
                return sum(await asyncio.gather(*[Square(n=i) for i in range(self.upto)]))
        ''',
        "hello.py",
    )
    outcome = cli("run", "-j", "1", "hello.py:Total", "--upto", "4")
    assert outcome.code == 0
    assert outcome.err.startswith("✓ 5 done")
