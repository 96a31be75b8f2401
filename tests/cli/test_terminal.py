"""What is written, and how: escapes, colour, ASCII, pipes that close, disks that are full, a real terminal."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys

import pytest

from asyncflow.cli import report
from asyncflow.cli.terminal import DONE, FAILED, Styled, Terminal, escape
from tests.cli.conftest import environment

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")

TASKS = """
class A(Task):
    '''A task.'''
    def run(self): pass
class Bad(Task):
    def run(self): raise ValueError("no")
"""


def stream(encoding: str = "utf-8", *, tty: bool = False) -> io.TextIOWrapper:
    class Stream(io.TextIOWrapper):
        def isatty(self) -> bool:
            return tty

    return Stream(io.BytesIO(), encoding=encoding, errors="backslashreplace")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("grüße 日本 🙂\xa0x", "grüße 日本 🙂\xa0x"),
        ("\x1b[31m\r\n\t\x00\x7f\x9b", r"\x1b[31m\r\n\t\x00\x7f\x9b"),
        ("a\u202eb\u2028c\u200bd", r"a\u202eb\u2028c\u200bd"),
        ("\udc80", r"\udc80"),
    ],
)
def test_escape(text, shown):
    assert escape(text) == shown


@pytest.mark.parametrize(
    ("env", "tty", "colour"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_when_there_is_colour(monkeypatch, env, tty, colour):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal(None, stream(tty=tty))
    assert terminal.render((DONE, " ", Styled("done\x1b", "bold"))) == (
        "\x1b[32m✓\x1b[0m \x1b[1mdone\\x1b\x1b[0m" if colour else "✓ done\\x1b"
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_ascii_where_the_encoding_is_not_utf_8(encoding):
    messages = stream(encoding)
    Terminal(None, messages).say((DONE, FAILED, "⊘ ● a → b │ … · ", "日本"))
    assert messages.buffer.getvalue() == rb"+x- * a -> b | ... , \u65e5\u672c" + b"\n"


def test_streams_that_are_not_there():
    terminal = Terminal(None, None)
    terminal.data("x")
    terminal.say(("x",))


def test_times():
    assert [report.seconds(s) for s in (0.004, 9.99, 12.34, 3725)] == ["0.00 s", "9.99 s", "12.3 s", "62 min 5 s"]


def test_exceptions_that_cannot_be_shown(call, write):
    write(
        """
        class Broken(Exception):
            def __str__(self): raise KeyError("no")
        class A(Task):
            def run(self): raise Broken
        class Noted(Task):
            def run(self):
                error = ValueError()
                error.add_note("the note")
                raise error
        """,
        "unshowable_pipeline.py",
    )
    assert "its message cannot be shown" in call("run", "unshowable_pipeline.py:A").err
    assert call("run", "unshowable_pipeline.py:Noted").lines[1:3] == ["    ValueError", "      the note"]


def test_warnings_of_loggers_are_escaped(cli, write):
    write(
        """
        import logging
        class A(Task):
            def run(self): logging.getLogger("mine").warning("a\\x1b[31m\\nb")
        """
    )
    outcome = cli("run", "p.py:A")
    assert outcome.lines[:2] == [r"warning: a\x1b[31m", "b"]


def test_the_last_resort_of_logging_is_put_back(call):
    before = logging.lastResort
    call("--version")
    assert logging.lastResort is before


def test_prints_of_tasks_are_no_data_where_somebody_collects_stdout(call, write):
    write("print('imported')\nclass A(Task):\n    def run(self): print('ran')\n", "printing_pipeline.py")
    outcome = call("run", "printing_pipeline.py:A", "--json")
    assert outcome.out.startswith("{")
    assert outcome.lines[:2] == ["imported", "ran"]


def test_ascii_of_the_real_command(cli, write):
    write(TASKS)
    outcome = cli("run", "p.py:Bad", env={"PYTHONIOENCODING": "ascii"})
    assert outcome.err.isascii()
    assert outcome.err.startswith("x Bad()  failed")


@POSIX
def test_a_real_terminal_has_colour_and_a_pipe_has_none(cli, write, tmp_path):
    import pty

    write(TASKS)
    assert "\x1b" not in cli("run", "p.py:Bad").err
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "asyncflow", "run", "p.py:Bad"],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
        ) as process:
            out, _ = process.communicate(timeout=30)
        os.close(theirs)
        theirs = -1
        shown = b""
        try:
            while chunk := os.read(ours, 10_000):
                shown += chunk
        except OSError:  # how Linux says that the other end has been closed
            pass
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    assert process.returncode == 1
    assert out == b""
    assert "\x1b[31m✗\x1b[0m \x1b[1mBad()\x1b[0m  failed".encode() in shown


@POSIX
def test_a_reader_that_goes_away_is_no_error(write, tmp_path):
    write(TASKS)
    for arguments, code in (("list p.py", 0), ("run p.py:Bad --json", 1), ("plan p.py:A", 0)):
        command = f"{{ {sys.executable} -m asyncflow {arguments}; echo $? >code; }} | {sys.executable} -c ''"
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, timeout=30, check=False
        )
        assert b"Broken" not in done.stderr
        assert b"Traceback" not in done.stderr
        assert (tmp_path / "code").read_text() == f"{code}\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error(write, tmp_path):
    write(TASKS)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "asyncflow", "list", "p.py", "--json"],
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert done.returncode == 4
    assert done.stderr.startswith(b"error: cannot write to standard output: No space left")
    assert b"Traceback" not in done.stderr


@POSIX
def test_a_closed_standard_output(write, tmp_path):
    write(TASKS)
    for arguments in ("list p.py", "run p.py:A"):
        command = f"exec {sys.executable} -m asyncflow {arguments} >&-"
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, timeout=30, check=False
        )
        assert done.returncode == 0
        assert b"Traceback" not in done.stderr
