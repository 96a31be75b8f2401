from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES, Program

FROM_LUIGI = EXAMPLES / "from_luigi"
SQUARES = "1: 1\n2: 4\n3: 9\n4: 16\n5: 25\n6: 36\n7: 49\n8: 64\n9: 81\n10: 100\n"
NAMES = """\
my_namespace.MyTask(my_param=hello)
my_namespace
my_namespace.MyTask
my_namespace.MyTask_hello_890907e7ce
my_namespace
my_namespace.MyTask
Error: task_id belongs to a task, not to its class; construct one first
ParentTask: succeeded
"""
VALUES = """\
50
80
[MyTask(x=5, y=45), MyTask2(x=15, y=15)]
{'MyTask_5_45_e07b1d1900': 50, 'MyTask2_15_15_1be41efda3': 80}
"""
DAY = "the figures of 2026-01-01\n"


@pytest.mark.parametrize(
    ("name", "prints", "makes"),
    [
        (
            "example_task",
            "A report on the figures of 2026-01-01\n",
            {"my-upstream-task-2026-01-01": DAY, "my-example-task-2026-01-01": "A report on " + DAY},
        ),
        ("squares", SQUARES, {"numbers_upto_10": "".join(f"{n}\n" for n in range(1, 11)), "squares.txt": SQUARES}),
        (
            "names_and_ids",
            NAMES,
            {"output.txt": "Hello, Luigi!", "dynamic.txt": "I am output/from_luigi/dynamic.txt\n"},
        ),
    ],
)
def test_a_program_prints_and_makes_what_it_did_in_luigi(
    name: str, prints: str, makes: dict[str, str], python: Program, tmp_path: Path
) -> None:
    for _ in range(2):  # the second time everything is there already, and it says the same
        done = python(FROM_LUIGI / f"{name}.py")
        assert (done.stdout, done.stderr, done.returncode) == (prints, "", 0)
        made = {path.name: path.read_text("utf-8") for path in (tmp_path / "output" / "from_luigi").iterdir()}
        assert made == makes


def test_values_in_memory(python: Program) -> None:
    done = python(FROM_LUIGI / "in_memory.py")
    assert (done.stdout, done.stderr, done.returncode) == (VALUES, "", 0)


def test_every_program_is_tested() -> None:
    assert {path.stem for path in FROM_LUIGI.glob("*.py")} == {"example_task", "squares", "names_and_ids", "in_memory"}
