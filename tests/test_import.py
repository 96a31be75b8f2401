"""``import asyncflow`` is light: what it loads, counted in fresh processes. Time is measured in benchmarks/."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import Any

import pytest

HEAVY = {
    "aiobotocore",
    "aiofiles",
    "aioftp",
    "anyio",
    "distributed",
    "hypothesis",
    "json",  # these five by first use only: a task's id, the command line, a suggestion
    "argparse",
    "difflib",
    "hashlib",
    "email",
    "http",
    "matplotlib",
    "multiprocessing",
    "numpy",
    "pydantic",
    "pytest",
    "rich",
    "sqlalchemy",
    "sqlite3",
    "starlette",
    "typing_extensions",
    "unittest",
    "urllib",
}

LOADED = "import asyncio, sys; print(sorted(sys.modules))"

AUDITED = """
import asyncio, sys, threading
heard = []
sys.addaudithook(lambda event, args: heard.append([event, *map(str, args[:1])]))
import asyncflow
ours = ("socket", "subprocess", "sqlite3", "urllib", "http", "shutil", "tempfile")
system = ("os.system", "os.mkdir", "os.remove", "os.rename", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn")
print([threading.active_count(), [e for e in heard if e[0].partition(".")[0] in ours or e[0] in system]])
"""


def _fresh(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)


@pytest.fixture(scope="module")
def added() -> set[str]:
    """What the import loads beyond what ``import asyncio`` has loaded."""
    return set(_fresh("import asyncflow; " + LOADED)) - set(_fresh(LOADED))


def test_nothing_heavy_is_imported(added: set[str]) -> None:
    assert "asyncflow.scheduler" in added
    assert not HEAVY & {name.partition(".")[0] for name in added}


def test_no_optional_part_of_the_package_is_imported(added: set[str]) -> None:
    optional = ("cli", "contrib", "luigi", "testing", "web")
    assert not [name for name in added if name.startswith(tuple(f"asyncflow.{part}" for part in optional))]


def test_few_modules_of_others_are_imported(added: set[str]) -> None:
    others = {name for name in added if name.partition(".")[0] != "asyncflow"}
    assert len(others) <= 25, sorted(others)


def test_nothing_is_opened_started_or_written() -> None:
    threads, events = _fresh(AUDITED)
    assert events == []
    assert threads == 1


def test_the_tools_for_tests_need_no_test_framework() -> None:
    loaded = {name.partition(".")[0] for name in _fresh("import asyncflow.testing; " + LOADED)}
    assert not {"anyio", "hypothesis", "pytest", "unittest"} & loaded
