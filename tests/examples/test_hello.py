from __future__ import annotations

from tests.examples.conftest import EXAMPLES, Program

HELLO = EXAMPLES / "hello.py"


def test_hello_says_fourteen(python: Program) -> None:
    done = python(HELLO)
    assert (done.stdout, done.stderr, done.returncode) == ("14\n", "", 0)


def test_hello_has_at_most_twelve_lines_of_code() -> None:
    lines = [line for line in HELLO.read_text("utf-8").splitlines() if line.strip()]
    assert len(lines) <= 12, lines
