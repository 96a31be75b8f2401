"""What type checkers make of the public names. Only checked (mypy and pyright), never run."""

from __future__ import annotations

import asyncio
import datetime
import enum
from collections.abc import AsyncGenerator, Generator, Mapping
from pathlib import Path
from typing import Any, Literal, assert_type

import asyncflow
from asyncflow import (
    BuildResult,
    DateParameter,
    EnumParameter,
    Event,
    EventReader,
    ExternalTask,
    IntParameter,
    Lagged,
    ListParameter,
    LocalTarget,
    MemoryTarget,
    Parameter,
    Plan,
    PlanItem,
    Run,
    Target,
    Task,
    TaskResult,
    WrapperTask,
    build,
    gather,
    get_task_class,
    param,
    plan,
    run,
    start,
    task,
    value,
)


class Colour(enum.Enum):
    RED = "red"


# Bodies of every kind ------------------------------------------------------------------------------------


class Number(Task):
    n: int

    async def run(self) -> int:
        return self.n


class NumberInThread(Task):
    n: int = 3

    def run(self) -> int:
        return self.n


class SumInThread(Task):
    def run(self) -> Generator[Task, Any, str]:
        got = yield Number(n=1)
        return str(got)


class FileOnLoop(Task):
    def output(self) -> LocalTarget:
        return LocalTarget("x")

    async def run(self) -> None:
        async with self.output().open("w") as out:
            await out.write("text")


class FileInThread(Task):
    def output(self) -> LocalTarget:
        return LocalTarget("x")

    def run(self) -> None:
        with self.output().open("w") as out:
            out.write("text")


class FileInSteps(Task):
    def output(self) -> LocalTarget:
        return LocalTarget("x")

    async def run(self) -> AsyncGenerator[Task, Any]:
        yield Number(n=1)


class FileInSyncSteps(Task):
    def output(self) -> LocalTarget:
        return LocalTarget("x")

    def run(self) -> Generator[Task, Any, None]:
        yield Number(n=1)


class Several(Task):
    def output(self) -> dict[str, LocalTarget]:
        return {"a": LocalTarget("a")}

    async def run(self) -> None: ...


class Put(Task):
    """Returns its value, which is put into its output: what one awaits is the output, every time."""

    def output(self) -> MemoryTarget:
        return MemoryTarget("x")

    async def run(self) -> int:
        return 3


class PutInThread(Task):
    def output(self) -> MemoryTarget:
        return MemoryTarget("x")

    def run(self) -> int:
        return 3


class Data(ExternalTask):
    def output(self) -> LocalTarget:
        return LocalTarget("x")


class All(WrapperTask):
    def requires(self) -> list[Task]:
        return [Number(n=1), FileOnLoop()]


class Untyped(Task):
    def output(self):  # type: ignore[no-untyped-def]
        return LocalTarget("x")

    def run(self):  # type: ignore[no-untyped-def]
        pass


async def what_await_gives() -> None:
    assert_type(await Number(n=2), int)
    assert_type(await NumberInThread(), int)
    assert_type(await SumInThread(), str)
    assert_type(await FileOnLoop(), LocalTarget)
    assert_type(await FileInThread(), LocalTarget)
    assert_type(await FileInSteps(), LocalTarget)
    assert_type(await FileInSyncSteps(), LocalTarget)
    assert_type(await Several(), dict[str, LocalTarget])
    assert_type(await Put(), MemoryTarget)
    assert_type(await PutInThread(), MemoryTarget)
    assert_type(await Data(), LocalTarget)
    (await Untyped()).open()
    await All()


async def any_task(task: Task) -> None:
    (await task).whatever_it_is()
    task.output().whatever_it_is()


async def several_at_once() -> None:
    assert_type(await gather(Number(n=1)), tuple[int])
    assert_type(await gather(Number(n=1), FileOnLoop()), tuple[int, LocalTarget])
    assert_type(await gather(SumInThread(), FileInThread(), Several()), tuple[str, LocalTarget, dict[str, LocalTarget]])
    assert_type(
        await gather(Number(n=1), NumberInThread(), FileInSteps(), FileInSyncSteps()),
        tuple[int, int, LocalTarget, LocalTarget],
    )
    assert_type(await gather(*[Number(n=n) for n in range(3)]), tuple[int, ...])
    a, b = await asyncio.gather(Number(n=1), FileOnLoop())
    assert_type(a, int)
    assert_type(b, LocalTarget)
    assert_type(await asyncio.wait_for(Number(n=1), 3), int)


async def as_a_coroutine() -> None:
    assert_type(await value(Number(n=1)), int)
    async with asyncio.TaskGroup() as group:
        one = group.create_task(value(Number(n=1)))
        other = group.create_task(value(FileInThread()))
    assert_type(one.result(), int)
    assert_type(other.result(), LocalTarget)


# Parameters ----------------------------------------------------------------------------------------------


class Annotated_(Task):
    day: datetime.date
    n: int = 3
    region: Literal["eu", "us"] = param(default="eu", help="which shop", significant=False)
    names: list[str] = param(default=())
    folder: Path = Path("data")
    colour: Colour = Colour.RED
    parts: Mapping[str, int] = param(default={}, env="PARTS")
    of: Number | None = None
    task_namespace = "typing"
    retries = 3


class LuigiStyle(Task):
    day = DateParameter()
    n = IntParameter(default=3)
    word = Parameter(default="x")
    colour = EnumParameter(enum=Colour, default=Colour.RED)
    names: Any = ListParameter(default=())


def parameters(annotated: Annotated_, luigi: LuigiStyle) -> None:
    assert_type(annotated.day, datetime.date)
    assert_type(annotated.n, int)
    assert_type(annotated.region, Literal["eu", "us"])
    assert_type(annotated.names, list[str])
    assert_type(annotated.folder, Path)
    assert_type(annotated.colour, Colour)
    assert_type(annotated.of, Number | None)
    assert_type(luigi.day, datetime.date)
    assert_type(luigi.n, int)
    assert_type(luigi.word, str)
    assert_type(luigi.colour, Colour)
    assert_type(annotated.task_id, str)
    assert_type(Annotated_.get_task_family(), str)
    annotated.cache = {}  # an attribute of the attempt


def construction() -> None:
    day = datetime.date(2026, 1, 1)
    Annotated_(day=day)
    Annotated_(day=day, n=1, region="us", names=["a"], folder=Path("x"), colour=Colour.RED, of=Number(n=1))


# Functions -----------------------------------------------------------------------------------------------


@task
async def add(a: int, b: int = 2) -> int:
    return a + b


@task
def subtract(a: int, b: int = 2) -> int:
    return a - b


@task(requires=lambda n: Number(n=n))
async def twice(n: int) -> str:
    return str(n)


@task()
def thrice(n: int) -> str:
    return str(n)


@task(retries=3, retry_delay=0.5, retry_on=OSError, timeout=30, priority=5, resources={"db": 1}, hold="db", rate="api")
async def fetch(n: int) -> bytes:
    return bytes(n)


@task(output=lambda n: LocalTarget("x"), retries=3, retry_delay=lambda n: n * 2.0, retry_on=[OSError], rate={"api": 2})
def fetch_into(n: int) -> None: ...


def _place(name: str) -> LocalTarget:
    return LocalTarget(name)


@task(output=_place)
async def write(name: str) -> None: ...


@task(output=lambda name: LocalTarget(f"data/{name}"), requires=lambda name: [Number(n=1)])
def write_in_thread(name: str) -> None: ...


async def functions() -> None:
    assert_type(await add(1), int)
    assert_type(await add(a=1, b=3), int)
    assert_type(await subtract(1, 2), int)
    assert_type(await twice(1), str)
    assert_type(await thrice(n=1), str)
    assert_type(await fetch(n=1), bytes)
    assert_type(await fetch_into(n=1), LocalTarget)
    assert_type(await write("x"), LocalTarget)
    assert_type(await write_in_thread(name="x"), LocalTarget)
    assert_type(await gather(add(1), write("x")), tuple[int, LocalTarget])
    a_task: Task = add(1)
    await build([a_task, subtract(2)])


# Doors and results ---------------------------------------------------------------------------------------


async def doors() -> None:
    result = await build(Number(n=1), concurrency=3, threads=2, grace=0.5, on_event=print)
    assert_type(result, BuildResult)
    assert_type(await build([Number(n=1), FileOnLoop()]), BuildResult)
    assert_type(await plan(Number(n=1)), Plan)
    assert_type((await plan([Number(n=1)])).items, tuple[PlanItem, ...])
    assert_type(run(Number(n=1)), BuildResult)
    assert_type(asyncflow.run(n for n in [Number(n=1)]), BuildResult)
    assert_type(result.ok, bool)
    assert_type(result.tasks[Number(n=1)], TaskResult)
    assert_type(result.failed, tuple[Task, ...])
    assert_type(result.status, Literal["succeeded", "failed", "incomplete", "cancelled"])
    result[FileOnLoop()].open("w")
    assert_type(get_task_class("Number"), type[Task])


def heard(event: Event) -> None: ...


async def listening() -> None:
    await build(Number(n=1), on_event=heard)
    started = start(Number(n=1), concurrency=3, force=True, only=[Number], on_event=heard)
    assert_type(started, Run)
    assert_type(await started, BuildResult)
    assert_type(await asyncio.wait_for(started, 3), BuildResult)
    assert_type(started.run_id, str)
    assert_type(started.done, bool)
    assert_type(started.status, Literal["running", "succeeded", "failed", "incomplete", "cancelled"])
    assert_type(started.events(), EventReader)
    async for event in started.events(since=17, buffer=5_000):
        assert_type(event, Event)
        assert_type(event.to_dict(), dict[str, Any])
        if isinstance(event, Lagged):
            assert_type(event.missed, int)
    async with started.events() as events:
        assert_type(await anext(events), Event)
    started.cancel()


# Targets -------------------------------------------------------------------------------------------------


class OnLoop(Target):
    async def exists(self) -> bool:
        return True


class InThread(Target):
    def exists(self) -> bool:
        return True


async def targets_on_the_loop(target: LocalTarget) -> None:
    async with target.open("w", encoding="utf-8") as out:
        await out.write("text")
    async with target.open("wb") as out_bytes:
        await out_bytes.write(b"text")
    async with target.open() as text:
        assert_type(await text.read(), str)
    async with target.open("rb") as data:
        assert_type(await data.read(), bytes)
    async with target.temporary_path() as path:
        assert_type(path, str)
    assert_type(await target.exists(), bool)
    assert_type(await MemoryTarget("x").exists(), bool)
    assert_type(await OnLoop().exists(), bool)


def targets_in_a_thread(target: LocalTarget) -> None:
    with target.open("w") as out:
        out.write("text")
    with target.open("wb") as out_bytes:
        out_bytes.write(b"text")
    with target.open("r") as text:
        assert_type(text.read(), str)
    with target.open("rb") as data:
        assert_type(data.read(), bytes)
    with target.temporary_path() as path:
        assert_type(path, str)
    if target.exists() and InThread().exists():
        Path(target).read_text()
