"""The programs of the guides in docs/ do what they say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from asyncflow import MemoryTarget, Target
from asyncflow.testing import LeakError, simulate

ROOT = Path(__file__).parents[1]
TESTING = ROOT / "docs" / "testing.md"
RUNNING = ROOT / "docs" / "running.md"


@pytest.fixture
def guide() -> Iterator[dict[str, Any]]:
    """The names that the guide's programs have left, one block after the other."""
    space: dict[str, Any] = {"__name__": "guide"}
    blocks = programs(TESTING)
    assert len(blocks) == 6
    retry, hours, order, cancelled, left, fixture = blocks
    run(retry, space)
    run(hours, space)
    space["test_prices_come_at_the_sixth_attempt"]()
    assert len(space["calls"]) == 6
    for block in (order, cancelled, left, fixture):
        run(block, space)
    yield space
    MemoryTarget.clear()


def programs(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def run(block: str, space: dict[str, Any], page: Path = TESTING) -> None:
    exec(compile(block, str(page), "exec", dont_inherit=True), space)


class Kept(Target):
    """A target for the guide: all it says is there."""

    made: ClassVar[set[str]] = set()

    def __init__(self, name: str) -> None:
        self.name = name

    def exists(self) -> bool:
        return self.name in self.made

    async def write(self, text: str) -> None:
        self.made.add(self.name)


@pytest.fixture
def running() -> dict[str, Any]:
    """The names that the programs of the guide to running have left."""
    failed: list[int] = []

    async def fetch(n: int) -> str:
        if n == 1 and len(failed) < 2:
            failed.append(n)
            raise ConnectionError("no route")
        await asyncio.sleep(0.1)
        return f"page {n}"

    Kept.made.clear()
    space: dict[str, Any] = {"__name__": "running", "fetch": fetch, "target": Kept}
    for block in programs(RUNNING):
        run(block, space, RUNNING)
    return space


def test_running(running: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    for name, least, most in (("fetch_all", 2, 12), ("again", 0, 1), ("stops_at_once", 0, 1)):

        async def main(name: str = name, least: float = least, most: float = most) -> None:
            await running[name]()
            assert least <= asyncio.get_running_loop().time() <= most, name

        simulate(main, seed=1)
    out = capsys.readouterr().out
    assert out.count("ConnectionError") == 0, "an exception is printed by its message"
    assert out.count("no route") == 2
    assert "RUN     Step(name=abc)  forced" in out


def test_what_the_guide_says_of_holding(running: dict[str, Any]) -> None:
    task: Any = running["Task"]

    class NeedsGpu(task):  # type: ignore[misc]
        resources = {"gpu": 1}

        async def run(self) -> None: ...

    class Holds(task):  # type: ignore[misc]
        resources = {"gpu": 1}
        hold = "gpu"

        async def run(self) -> None:
            await NeedsGpu()

    async def main() -> None:
        [error] = (await running["build"](Holds())).errors()
        assert str(error.__cause__) in RUNNING.read_text(encoding="utf-8")

    simulate(main, seed=1)


def test_any_order(guide: dict[str, Any]) -> None:
    guide["test_three_days_in_any_order"]()


def test_the_note_is_the_one_that_is_written(guide: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails() -> None:
        raise LookupError

    monkeypatch.setenv("ASYNCFLOW_SEED", "17")
    with pytest.raises(LookupError) as failure:
        guide["explore"](fails)
    assert failure.value.__notes__[0] in TESTING.read_text(encoding="utf-8")


async def test_a_sweep_over_a_target(guide: dict[str, Any], tmp_path: Path) -> None:
    assert await guide["cancelled_anywhere"](tmp_path / "lines") >= 2


def test_leaks(guide: dict[str, Any], tmp_path: Path) -> None:
    async def fetch(day: int) -> list[float]:
        return [1.0]

    guide["fetch"] = fetch
    guide["simulate"](lambda: guide["test_the_service_lets_go"](str(tmp_path)))
    fixture = guide["nothing_left"].__wrapped__(tmp_path)
    next(fixture)
    (tmp_path / ".af-left").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asyncflow.testing.leaks.PATIENCE", 0.0)
        with pytest.raises(LeakError):
            next(fixture)
    (tmp_path / ".af-left").unlink()
