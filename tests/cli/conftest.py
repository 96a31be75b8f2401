"""The command, as a process of its own (`cli`) or in this one (`call`), in a folder with pipeline files."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asyncflow import registry
from asyncflow.cli import main

HEAD = "import asyncio, datetime, os, pathlib, subprocess, sys, time\nfrom asyncflow import *\n"


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


def environment(**changes: str) -> dict[str, str]:
    left_out = ("NO_COLOR", "FORCE_COLOR", "TERM", "PYTHONPATH", "ASYNCFLOW_FULL_TRACEBACK")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "PYTHONIOENCODING": "utf-8", "TERM": "xterm", "COLUMNS": "100", **changes}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write("class A(Task): ...", "p.py")`: a pipeline file; the usual imports stand in its first two lines."""

    def write(source: str, name: str = "p.py", *, head: str = HEAD) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + textwrap.dedent(source).lstrip("\n"), encoding="utf-8")
        return path

    return write


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., Outcome]:
    """`cli("run", "p.py:A")`: the real command, as `python -m asyncflow`."""

    def run(*arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None, **options: Any) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "asyncflow", *arguments],
            cwd=cwd or tmp_path,
            env=environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
            **options,
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """`call("list", "p.py")`: the same in this process, which is quicker."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "ASYNCFLOW_FULL_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    # The tasks of other tests are not known here, nor those of this one elsewhere.
    monkeypatch.setattr(registry, "_classes", weakref.WeakValueDictionary())
    modules, path = set(sys.modules), list(sys.path)

    def run(*arguments: str) -> Outcome:
        code = main(arguments)
        assert sys.path == path
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    yield run
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
