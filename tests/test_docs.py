"""The programs of the guides in docs/ do what they say."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from asyncflow import MemoryTarget, Target, Task, build
from asyncflow.testing import LeakError, simulate

ROOT = Path(__file__).parents[1]
TESTING = ROOT / "docs" / "testing.md"
TARGETS = ROOT / "docs" / "targets.md"
EVENTS = ROOT / "docs" / "events.md"
RUNNING = ROOT / "docs" / "running.md"
PROGRAMS = ROOT / "docs" / "programs.md"


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
    assert await guide["cancelled_anywhere"](tmp_path / "lines") >= 1


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


async def test_a_target_of_ones_own_and_many_in_one_call() -> None:
    queries: list[tuple[str, ...]] = []
    tables = {"t1", "t3"}

    async def query(text: str, *names: str) -> list[tuple[str]]:
        assert text.count("?") == len(names)
        queries.append(names)
        return [(name,) for name in names if name in tables]

    space: dict[str, Any] = {"__name__": "guide", "query": query}
    one, many = re.findall(r"```python\n(.*?)```", TARGETS.read_text(encoding="utf-8"), re.DOTALL)
    run(one, space, TARGETS)
    run(many, space, TARGETS)

    class Loads(Task):
        n: int

        def output(self) -> Any:
            return space["ManyTables"](f"t{self.n}")

        async def run(self) -> None:
            tables.add(f"t{self.n}")

    assert await space["Table"]("t1").exists() is True
    queries.clear()
    result = await build([Loads(n=n) for n in range(4)])
    assert result.counts == {"succeeded": 2, "complete": 2}
    assert queries[0] == ("t0", "t1", "t2", "t3")


# docs/events.md ------------------------------------------------------------------------------------------


@pytest.fixture
def events_guide() -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "events_guide"}
    blocks = re.findall(r"```python\n(.*?)```", EVENTS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        run(block, space, EVENTS)
    return space


async def test_watching_a_run(events_guide: dict[str, Any]) -> None:
    seen = await events_guide["watch"]()
    assert (seen[0], seen[-1]) == ("BuildStarted", "BuildFinished")
    assert sorted(seen[1:-3]) == sorted(["TaskStarted", "TaskProgress", "TaskFinished"] * 3)
    assert seen[-3:-1] == ["TaskStarted", "TaskFinished"]


async def test_a_slow_reader(events_guide: dict[str, Any]) -> None:
    assert await events_guide["slowly"]() == (1_001, 6_004 - 1_001)


async def test_server_sent_events_go_on_where_they_broke_off(events_guide: dict[str, Any]) -> None:
    run_id = await events_guide["begin"](2)
    whole = [message async for message in events_guide["stream"](run_id)]
    rest = [message async for message in events_guide["stream"](run_id, 5)]
    assert rest == whole[5:]
    assert whole[0].startswith("id: 1\ndata: {")
    assert json.loads(whole[-1].split("data: ")[1])["type"] == "BuildFinished"
    with pytest.raises(ValueError, match="has come to 10 only"):
        await anext(events_guide["stream"](run_id, 99))


def test_the_guide_names_every_event() -> None:
    from asyncflow import events

    named = set(re.findall(r"^\| `(\w+)` \|", EVENTS.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {name for name in events.__all__ if isinstance(getattr(events, name), type)} - {"Event"}


# docs/programs.md ----------------------------------------------------------------------------------------


async def test_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/words").write_text("b\na\nb\n")
    space: dict[str, Any] = {"__name__": "programs"}
    blocks = programs(PROGRAMS)
    assert len(blocks) == 3
    for block in blocks:
        run(block, space, PROGRAMS)
    tasks = space["Sorted"](), space["Packed"](), space["Version"]()
    result = await build(tasks)
    result.raise_for_failure()
    assert Path("out/sorted").read_text() == "a\nb\n"
    assert sorted(path.name for path in Path("out").iterdir()) == ["sorted", "words.tar"]
    assert result[tasks[2]].startswith("Python 3")
    with pytest.raises(Exception, match="exit code 3") as failure:
        await space["Broken"]()
    assert str(failure.value.__cause__ or failure.value) in PROGRAMS.read_text(encoding="utf-8")
