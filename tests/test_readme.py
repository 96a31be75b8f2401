"""The README's programs do what it says."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import asyncflow

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
HELLO, TASKS, USE, WATCH, SERVE, LIMITS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_hello_world(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(HELLO)
    done = subprocess.run([sys.executable, "hello.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "14\n"
    assert sum(bool(line.strip()) for line in HELLO.splitlines()) <= 12


async def test_the_tasks_and_what_is_done_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/orders-2026-01-31.csv").write_text("1\n2\n")
    space: dict[str, Any] = {"__name__": "readme", "day": datetime.date(2026, 1, 31)}
    exec(compile(TASKS, "README.md", "exec", dont_inherit=True), space)
    space.update(build=asyncflow.build, plan=asyncflow.plan, start=asyncflow.start)
    exec("async def use():\n" + textwrap.indent(USE, "    ") + "    return result, target\n", space)
    result, target = await space["use"]()
    assert result.ok
    assert Path(target).read_text() == "..."
    exec("async def watch():\n" + textwrap.indent(WATCH, "    ") + "    return run, result\n", space)
    capsys.readouterr()
    run, again = await space["watch"]()
    assert again.counts == {"complete": 1}
    assert run.done
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2", "3"]
    space["Flow"] = asyncflow.Flow
    exec("async def serve():\n" + textwrap.indent(SERVE, "    ") + "    return run, target\n", space)
    run, again = await space["serve"]()
    assert (await run).ok
    assert again == target


async def test_retries_and_limits() -> None:
    calls: list[str] = []

    async def download(url: str) -> bytes:
        calls.append(url)
        if len(calls) == 1:
            raise ConnectionError
        return b"page"

    space: dict[str, Any] = {"__name__": "readme", "download": download, "urls": ["a", "b"], "Task": asyncflow.Task}
    space["build"] = asyncflow.build
    exec("async def use():\n" + textwrap.indent(LIMITS, "    ") + "    return result\n", space)
    result = await space["use"]()
    assert result.ok
    assert len(calls) == 3


def test_what_it_says_is_there() -> None:
    root = Path(__file__).parents[1]
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (root / path).exists(), path
    makefile = (root / "Makefile").read_text()
    for target in re.findall(r"(?:\$ |`)make (\w+)", README):
        assert f"\n{target}:" in makefile, target
