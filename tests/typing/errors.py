"""Lines that type checkers must refuse. Only checked, never run.

For mypy an ignore that is no longer needed is an error itself (`warn_unused_ignores`); for pyright
`tests/test_typing.py` takes the ignores away and expects an error in exactly these lines.
"""

from __future__ import annotations

import asyncio
import datetime

from asyncflow import (
    IntParameter,
    LocalTarget,
    MemoryTarget,
    Target,
    Task,
    build,
    gather,
    param,
    plan,
    run,
    task,
    value,
)


class Report(Task):
    day: datetime.date
    n: int = 3
    region: str = param(default="eu")

    def output(self) -> LocalTarget:
        return LocalTarget("x")

    async def run(self) -> None: ...


class Number(Task):
    n: int

    async def run(self) -> int:
        return self.n


class LuigiStyle(Task):
    n = IntParameter(default=3)


@task
async def add(a: int, b: int = 2) -> int:
    return a + b


DAY = datetime.date(2026, 1, 1)


def construction() -> None:
    Report()  # type: ignore[call-arg]
    Report(n=3)  # type: ignore[call-arg]
    Report(day="2026-01-01")  # type: ignore[arg-type]
    Report(day=DAY, n="3")  # type: ignore[arg-type]
    Report(day=DAY, region=None)  # type: ignore[arg-type]
    Report(day=DAY, dya=3)  # type: ignore[call-arg]
    Report(DAY)  # type: ignore[call-arg]
    add()  # type: ignore[call-arg]
    add("1")  # type: ignore[arg-type]
    add(1, c=3)  # type: ignore[call-arg]
    add(1, 2, 3)  # type: ignore[call-arg]


def attributes(report: Report, luigi: LuigiStyle) -> None:
    text: str = report.n  # type: ignore[assignment]
    number: str = luigi.n  # type: ignore[assignment]
    report.dya  # type: ignore[attr-defined]  # noqa: B018
    print(text, number)


async def awaiting() -> None:
    text: str = await Number(n=1)  # type: ignore[assignment]
    other: MemoryTarget = await Report(day=DAY)  # type: ignore[assignment]
    third: str = await add(1)  # type: ignore[assignment]
    (await Report(day=DAY)).opne()  # type: ignore[attr-defined]
    a, b = await gather(Number(n=1), add(1), Number(n=2))  # type: ignore[misc]
    await gather(Number(n=1), 3)  # type: ignore[call-overload]
    await value(3)  # type: ignore[arg-type]
    running: object = asyncio.create_task(Number(n=1))  # type: ignore[arg-type]
    print(text, other, third, a, b, running)


async def doors() -> None:
    await build(3)  # type: ignore[arg-type]
    await build(Number)  # type: ignore[arg-type]
    await build(Number(n=1), concurency=3)  # type: ignore[call-arg]
    await build(Number(n=1), concurrency="3")  # type: ignore[arg-type]
    await build(Number(n=1), on_event=3)  # type: ignore[arg-type]
    await plan(["x"])  # type: ignore[list-item]
    run(Number(n=1)).okay  # type: ignore[attr-defined]  # noqa: B018


async def targets(target: LocalTarget) -> None:
    target.open("a")  # type: ignore[call-overload]
    target.open("wb", encoding="utf-8")  # type: ignore[call-overload]
    LocalTarget("x", durability="fast")  # type: ignore[arg-type]
    with target.open("w") as out:
        out.write(b"bytes")  # type: ignore[arg-type]
    async with target.open() as text:
        (await text.read()).decode()  # type: ignore[attr-defined]


class WrongRun(Task):
    n: int = "x"  # type: ignore[assignment]


class WrongExists(Target):
    def exists(self) -> str:  # type: ignore[override]
        return "yes"


task(output=3)  # type: ignore[call-overload]
task(retries="3")  # type: ignore[call-overload]
task(retrys=3)  # type: ignore[call-overload]
task(resources=["db"])  # type: ignore[call-overload]
