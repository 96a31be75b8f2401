"""The programs of the guides in docs/ do what they say."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
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
WEB = ROOT / "docs" / "web.md"
CPU = ROOT / "docs" / "cpu.md"
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
    *_, one, many, _ = programs(TARGETS)
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


async def test_a_target_takes_and_gives_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "guide"}
    values, several, *_ = programs(TARGETS)
    run(values, space, TARGETS)
    run(several, space, TARGETS)
    (await build([space["Total"](), space["Split"]()])).raise_for_failure()
    assert (tmp_path / "out" / "odd.csv").read_text().split()[:2] == ["1", "3"]
    assert json.loads((tmp_path / "out" / "total.json").read_text()) == {"total": 1248750.0}
    rows = gzip.decompress((tmp_path / "out" / "orders.jsonl.gz").read_bytes()).splitlines()
    assert len(rows) == 1000


def test_the_contract_of_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space: dict[str, Any] = {"__name__": "targets"}
    *_, contract = programs(TARGETS)
    run(contract, space, TARGETS)
    monkeypatch.setitem(space, "mkdtemp", lambda: str(tmp_path))
    tests = space["TestMyTarget"]()
    for name in ("test_absent_then_written_then_there", "test_a_write_that_fails_leaves_nothing"):
        for path in tmp_path.iterdir():
            path.unlink()
        tests.setup_method()
        getattr(tests, name)()


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


# CPU work ------------------------------------------------------------------------------------------------


async def test_cpu_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's program as a module: where a worker can import it."""
    (program,) = programs(CPU)
    (tmp_path / "guide_to_cpu.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("guide_to_cpu")
    try:
        assert await build(module.Table(folder=str(tmp_path)))
    finally:
        del sys.modules["guide_to_cpu"]
    assert (tmp_path / "primes.txt").read_text().split() == ["25", "168", "1229", "9592"]


# docs/web.md ---------------------------------------------------------------------------------------------


@pytest.fixture
def web_guide() -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "web_guide"}
    blocks = programs(WEB)
    assert len(blocks) == 5
    for block in blocks:
        run(block, space, WEB)
    return space


@asynccontextmanager
async def serving(space: dict[str, Any], lifespan: str = "lifespan") -> AsyncIterator[Any]:
    """A client of the guide's app, which is in this process."""
    import httpx

    async with space[lifespan](space["app"]) as state:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await space["app"]({**scope, "state": dict(state)}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            client.app, client.flow = app, state["flow"]  # type: ignore[attr-defined]
            yield client


@pytest.mark.examples
async def test_requests_share_a_flight(web_guide: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int] = []
    body = web_guide["Square"].run

    async def noted(task: Any) -> int:
        entered.append(task.n)
        result: int = await body(task)
        return result

    monkeypatch.setattr(web_guide["Square"], "run", noted)
    async with serving(web_guide) as client:
        answers = await asyncio.gather(*(client.get("/squares/7?seconds=0.1") for _ in range(100)))
        assert {answer.json() for answer in answers} == {49}
        assert len(entered) == 1
        await client.get("/squares/7?seconds=0.1")
        assert len(entered) == 2, "a task without output() has no memory"


@pytest.mark.examples
@pytest.mark.parametrize(("path", "stops"), [("/patient/1", True), ("/squares/1", False)])
async def test_what_the_guide_says_of_clients_that_go(web_guide: dict[str, Any], path: str, stops: bool) -> None:
    sent: list[Any] = []
    began = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not began.is_set():
            began.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"seconds=0.5"}
    async with serving(web_guide) as client:
        await client.app(scope, receive, send)
    assert sent[0]["status"] == (499 if stops else 200)


@pytest.mark.examples
async def test_runs_of_a_service(web_guide: dict[str, Any]) -> None:
    async with serving(web_guide) as client:
        short = (await client.post("/runs?upto=3")).json()["run_id"]
        await client.flow.get(short)
        shown = (await client.get(f"/runs/{short}")).json()
        assert (shown["status"], shown["counts"], shown["tags"]) == ("succeeded", {"succeeded": 3}, {"upto": "3"})
        long = (await client.post("/runs?upto=2&seconds=60")).json()["run_id"]
        assert (await client.get("/runs")).json() == [long, short]
        assert (await client.get("/runs?status=running")).json() == [long]
        assert (await client.delete(f"/runs/{long}")).json()["status"] == "cancelled"
        assert (await client.delete(f"/runs/{short}")).json()["status"] == "succeeded"
        assert (await client.get("/runs/none")).status_code == 404

        whole = (await client.get(f"/runs/{short}/events")).text
        rest = (await client.get(f"/runs/{short}/events", headers={"Last-Event-ID": "3"})).text
        assert whole.startswith("id: 1\ndata: {")
        assert whole.endswith(rest)
        assert rest.startswith("id: 4\n")
        for last, status in (("99", 400), ("x", 422), ("-1", 422)):
            answer = await client.get(f"/runs/{short}/events", headers={"Last-Event-ID": last})
            assert answer.status_code == status


@pytest.mark.examples
async def test_a_body_sees_what_the_first_request_has_set(web_guide: dict[str, Any]) -> None:
    user: ContextVar[str] = ContextVar("user", default="nobody")

    class Asks(Task):
        async def run(self) -> str:
            await asyncio.sleep(0.01)
            return user.get()

    async def call(name: str) -> str:
        user.set(name)
        return await client.flow.run(Asks())  # type: ignore[no-any-return]

    async with serving(web_guide) as client:
        calls = [asyncio.create_task(call(name)) for name in ("anna", "ben")]
        assert [await one for one in calls] == ["anna", "anna"]


@pytest.mark.examples
async def test_a_service_that_computes(web_guide: dict[str, Any]) -> None:
    interval = sys.getswitchinterval()
    try:
        async with serving(web_guide, "computing") as client:
            assert sys.getswitchinterval() == pytest.approx(0.001)
            assert await client.flow.run(web_guide["Adds"](upto=4)) == 14
    finally:
        sys.setswitchinterval(interval)


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
