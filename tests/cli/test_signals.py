"""SIGINT and SIGTERM: the first is graceful, the second is at once."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

# A shell that starts the tests in the background lets everything below inherit an ignored SIGINT.
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from asyncflow.cli import main
sys.exit(main())
"""

SLOW = """
def say(word):
    os.write(2, (word + "\\n").encode())

class Quick(Task):
    def output(self): return LocalTarget("quick")
    def run(self):
        with self.output().open("w") as file: file.write("x")
class Slow(Task):
    name: str = "a"
    token: str = param(default="", visibility=Visibility.HIDDEN, significant=False)
    def requires(self): return Quick()
    def output(self): return LocalTarget("slow")
    async def run(self):
        try:
            async with self.output().open("w") as file:
                await file.write("half")
                say("here")
                await asyncio.sleep(60)
        finally:
            say("cleaned up")
class InThread(Task):
    def run(self):
        say("here")
        time.sleep(60)
class ToThread(Task):
    async def run(self):
        say("here")
        await asyncio.to_thread(time.sleep, 60)
class Stubborn(Task):
    async def run(self):
        say("here")
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
class Blocking(Task):
    async def run(self):
        say("here")
        time.sleep(60)
class Planning(Task):
    def complete(self):
        say("here")
        time.sleep(60)
    def run(self): pass
class Asking(Task):
    def output(self): return Waiting()
    def run(self): pass
class Waiting(Target):
    async def exists(self):
        say("here")
        await asyncio.sleep(60)
class After(WrapperTask):
    def requires(self): return [Bad(), Slow()]
class Bad(Task):
    async def run(self): raise ValueError("no")
"""


class Running:
    """The command at work, up to the moment its task has said that it is there."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *arguments],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.seen = b""

    def wait_for(self, word: bytes) -> None:
        assert self.process.stderr is not None
        while word not in self.seen:
            assert select.select([self.process.stderr], [], [], 20)[0], self.seen
            chunk = os.read(self.process.stderr.fileno(), 10_000)
            assert chunk, self.seen
            self.seen += chunk

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out.decode(), (self.seen + err).decode()


@pytest.fixture
def running(tmp_path, write):
    write(SLOW)
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(tmp_path, *arguments))
        started[-1].wait_for(b"here")
        return started[-1]

    yield start
    for item in started:
        item.process.kill()
        item.process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_graceful(running, tmp_path, number, code):
    command = running("run", "p.py:Slow", "--name", "it's", "--token", "secret")
    command.process.send_signal(number)
    got, out, err = command.end()
    assert (got, out) == (code, "")
    assert "⊘ stopping: " in err
    assert "cleaned up" in err
    assert "⊘ interrupted: 1 done, 1 not finished" in err
    assert """hint: to go on: asyncflow run p.py:Slow --name 'it'"'"'s' --token '***'""" in err
    assert "Traceback" not in err
    assert "secret" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["__pycache__", "p.py", "quick"] or sorted(
        path.name for path in tmp_path.iterdir()
    ) == ["p.py", "quick"]


def test_what_failed_before_is_told_and_json_is_one_document(running):
    command = running("run", "p.py:After", "--json")
    command.process.send_signal(signal.SIGINT)
    code, out, err = command.end()
    assert code == 130
    assert "✗ Bad()  failed" in err
    document = json.loads(out)
    assert document["error"]["code"] == "interrupted"
    assert "1 done, 1 failed, 2 not finished" in document["error"]["message"]
    assert document["error"]["hint"] == "to go on: asyncflow run --json p.py:After"


@pytest.mark.parametrize("task", ["InThread", "ToThread", "Stubborn", "Planning"])
def test_what_does_not_stop_is_left_behind(running, task):
    command = running("run", f"p.py:{task}")
    begun = time.monotonic()
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end()
    assert code == 130
    assert time.monotonic() - begun < 10
    assert "⊘ interrupted: 0 done, 1 not finished" in err
    assert "Traceback" not in err
    if task in ("InThread", "Stubborn"):
        assert f"warning: {task}() did not stop within 1 s" in err


@pytest.mark.parametrize("task", ["Stubborn", "Blocking"])
def test_the_second_signal_is_at_once(running, task):
    command = running("run", f"p.py:{task}")
    command.process.send_signal(signal.SIGINT)
    command.wait_for(b"stopping")
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end()
    assert code == 130
    assert err.endswith("⊘ stopped\n")
    assert "Traceback" not in err
    assert "interrupted: " not in err


def test_a_plan_is_interrupted_too(running):
    command = running("plan", "p.py:Asking")
    command.process.send_signal(signal.SIGINT)
    code, out, err = command.end()
    assert (code, out) == (130, "")
    assert "error: interrupted" in err
    assert "Traceback" not in err


def test_an_import_is_interrupted_too(running, write):
    write("import os, time\nos.write(2, b'here')\ntime.sleep(60)\n", "slow_import.py", head="")
    command = running("run", "slow_import.py:A")
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end()
    assert code == 130
    assert "Traceback" not in err


def test_in_this_process_the_handlers_are_put_back(call, write):
    write("class A(Task):\n    def run(self): pass\n", "handlers_pipeline.py")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert call("run", "handlers_pipeline.py:A").code == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
