"""``python -m benchmarks.s3``: ``S3Target`` beside aiobotocore by hand and Luigi's, in one table, and as JSON.

The store is SeaweedFS, private and on this machine; each contestant runs in processes of its own, in turns. With
``--at-most N`` everything is small and done once, to see that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiobotocore.session import get_session

from examples.servers import S3Server, seaweedfs
from tests.targets.s3.faults import FaultS3

from . import fresh
from .environments import PINS, CannotInstall, python_of
from .measure import Scale
from .report import OUTPUT, figure, machine, table

BUCKET = "benchmarks"
TURNS = 5
SHORT_TURNS = 9  # of what is over in a second, and noisier
LIMIT = 180.0  # seconds a workload may take

LUIGI = ("boto3==1.43.*",)  # beside Luigi itself
FAR = 0.02  # seconds to the store and back, as to one that is not on this machine

Answers = Mapping[str, Sequence[Mapping[str, Any]]]
"""What each contestant answered, turn by turn."""


class DidNotFinish(RuntimeError):
    """A contestant failed, or took too long."""


@dataclass(frozen=True)
class Line:
    """A measured figure. ``goal`` is of ``judged``: "ratio" (to by hand), "luigi" (times Luigi's) or "asyncflow"."""

    workload: str
    count: int
    unit: str
    asyncflow: float
    by_hand: float | None = None
    ratio: float | None = None
    luigi: float | None = None
    judged: str | None = None
    goal: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        found = None if self.judged is None else self.value(self.judged)
        if found is None or self.goal is None:
            return None
        return found >= self.goal if self.judged == "luigi" else found <= self.goal

    def value(self, name: str) -> float | None:
        if name == "luigi":
            return None if self.luigi is None else self.luigi / self.asyncflow
        value: float | None = getattr(self, name)
        return value

    def cells(self) -> list[str]:
        goals = {"ratio": "<= {:g}x", "luigi": ">= {:g}x Luigi", "asyncflow": "<= {:g}"}
        return [
            self.workload,
            f"{self.count:,}",
            self.unit,
            figure(self.asyncflow),
            "" if self.by_hand is None else figure(self.by_hand),
            "" if self.ratio is None else f"{self.ratio:.2f}",
            "" if self.judged is None else goals[self.judged].format(self.goal),
            {True: "yes", False: "NO", None: ""}[self.met],
            "" if self.luigi is None else f"{figure(self.luigi)} ({figure(self.luigi / self.asyncflow)}x)",
        ]

    def to_json(self) -> dict[str, Any]:
        found = {**asdict(self), "met": self.met}
        return {name: value for name, value in found.items() if value is not None}


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """The processes started in the block have these variables."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def ask(engine: str, workload: str, count: int, *, python: str = sys.executable) -> dict[str, Any]:
    """One answer of one contestant. Raises ``DidNotFinish``."""
    answer = fresh.run(engine, workload, count, python=python, limit=LIMIT)
    if answer["status"] != "ok":
        raise DidNotFinish(f"{engine}, {workload} {count}: {json.dumps(answer)}")
    return answer


def in_turns(workload: str, count: int, turns: int) -> Answers:
    """asyncflow and by hand, who begins changing from turn to turn."""
    answers: dict[str, list[dict[str, Any]]] = {"s3_target": [], "s3_by_hand": []}
    for turn in range(turns):
        for engine in sorted(answers, reverse=turn % 2 == 0):
            answers[engine].append(ask(engine, workload, count))
    return answers


def compared(answers: Answers, key: str) -> tuple[float, float, float]:
    """The medians of asyncflow and by hand, and of the ratios within each turn."""
    ours = [answer[key] for answer in answers["s3_target"]]
    theirs = [answer[key] for answer in answers["s3_by_hand"]]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ours), statistics.median(theirs), statistics.median(ratios)


def small(scale: Scale) -> tuple[list[Line], Answers]:
    """Small objects, 50 at once."""
    count = scale.size(1_000)
    answers = in_turns("small", count, scale.turns(SHORT_TURNS))
    lines = []
    for work in ("write", "read"):
        name, each = f"small objects, {work}", 1e6 / count
        ours, theirs, ratio = compared(answers, f"{work}_s")
        lines.append(Line(name, count, "us wall/object", ours * each, theirs * each, ratio, None, "ratio", 1.15))
        ours, theirs, ratio = compared(answers, f"{work}_cpu_s")
        lines.append(Line(name, count, "us CPU/object", ours * each, theirs * each, ratio))
    return lines, answers


def beside_luigi(scale: Scale, store: S3Server) -> tuple[list[Line], Answers]:
    """The same for Luigi, one after the other as its worker does it, in a store next door and one that is far away."""
    try:
        python = python_of("luigi-s3", [*PINS["luigi"], *LUIGI])
    except CannotInstall as problem:
        print(f"Luigi is not measured: {problem}", file=sys.stderr)
        return [], {}
    lines: list[Line] = []
    answers: dict[str, list[dict[str, Any]]] = {}
    away = partial(by_proxy, store=store, latency=FAR)
    for where, asked, count in (("here", ask, scale.size(1_000)), (f"{FAR * 1e3:.0f} ms away", away, scale.size(100))):
        ours, luigis = [], []
        for _ in range(scale.turns(TURNS)):
            ours.append(asked("s3_target", "small", count))
            luigis.append(asked("s3_luigi", "small", count, python=python))
        for work in ("write", "read"):
            mine, its = (statistics.median(a[f"{work}_s"] for a in said) * 1e6 / count for said in (ours, luigis))
            name = f"small objects {where}, {work}"
            lines.append(Line(name, count, "us wall/object", mine, None, None, its, "luigi", 5))
        answers |= {f"s3_target {where}": ours, f"s3_luigi {where}": luigis}
    return lines, answers


def large(scale: Scale) -> tuple[list[Line], Answers]:
    """One large object, and for the memory a larger one."""
    megabytes, more = scale.size(512), scale.size(1_024)
    answers = in_turns("large", megabytes, scale.turns(TURNS))
    lines = []
    for work in ("write", "read"):
        ours, theirs, ratio = compared(answers, f"{work}_s")
        lines.append(Line(f"large object, {work}", megabytes, "s wall", ours, theirs, ratio, None, "ratio", 1.15))
        ours, theirs, ratio = compared(answers, f"{work}_cpu_s")
        lines.append(Line(f"large object, {work}", megabytes, "s CPU", ours, theirs, ratio))
    largest = {engine: ask(engine, "large", more) for engine in answers}
    for work in ("write", "read"):
        ours, theirs = (largest[engine][f"{work}_growth_mb"] for engine in ("s3_target", "s3_by_hand"))
        lines.append(Line(f"large object, {work}", more, "MB RSS growth", ours, theirs, None, None, "asyncflow", 64))
    return lines, {**answers, "largest": list(largest.values())}


def exists(scale: Scale, store: S3Server) -> tuple[list[Line], Answers]:
    """Whether objects are there, asked for all of them: how many requests that takes."""
    count = scale.size(10_000)
    with environment(S3_PREFIX="complete"):
        ask("s3_by_hand", "fill", count)
        answers = in_turns("exists", count, scale.turns(3))
        asked = {engine: by_proxy(engine, "exists", count, store=store) for engine in answers}
    few, many = (asked[engine]["requests"] for engine in ("s3_target", "s3_by_hand"))
    ours, theirs, ratio = compared(answers, "exists_s")
    return [
        Line("exists, all there", count, "requests", few, many, few / many, None, "ratio", 1 / 50),
        Line("exists, all there", count, "s wall", ours, theirs, ratio),
    ], {**answers, "by_proxy": list(asked.values())}


def by_proxy(
    engine: str, workload: str, count: int, *, store: S3Server, latency: float = 0, python: str = sys.executable
) -> dict[str, Any]:
    """One answer of one contestant to whom the store is so many seconds away, and how many requests reached it."""

    async def ask_behind() -> dict[str, Any]:
        async with FaultS3(store) as proxy:
            proxy.latency = latency
            with environment(S3_ENDPOINT=proxy.endpoint):
                answer = await asyncio.to_thread(ask, engine, workload, count, python=python)
            return {**answer, "requests": len(proxy.requests)}

    return asyncio.run(ask_behind())


async def make_bucket(store: S3Server) -> None:
    async with get_session().create_client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        region_name=store.region,
    ) as client:
        await client.create_bucket(Bucket=BUCKET)
        await client.put_object(Bucket=BUCKET, Key="first")


def measured(scale: Scale) -> tuple[list[Line], Mapping[str, Answers]]:
    """All of it."""
    with seaweedfs() as store:
        asyncio.run(make_bucket(store))
        with environment(
            S3_ENDPOINT=store.endpoint,
            S3_ACCESS_KEY=store.access_key,
            S3_SECRET_KEY=store.secret_key,
            S3_REGION=store.region,
            S3_BUCKET=BUCKET,
        ):
            parts = {
                "small": small(scale),
                "large": large(scale),
                "exists": exists(scale, store),
                "beside Luigi": beside_luigi(scale, store),
            }
    return [line for lines, _ in parts.values() for line in lines], {name: said for name, (_, said) in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s3", description=__doc__)
    parser.add_argument("--at-most", type=int, metavar="N", help="objects, and megabytes, a workload, once")
    about = machine()
    lines, answers = measured(Scale(parser.parse_args().at_most))
    data = {"machine": about, "lines": [line.to_json() for line in lines], "answers": answers}
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / "s3.json"
    path.write_text(json.dumps(data, indent=1) + "\n")
    print(" · ".join(f"{name} {value}" for name, value in about.items() if name != "engines"))
    head = ["workload", "count", "unit", "asyncflow", "by hand", "ratio", "goal", "met", PINS["luigi"][0]]
    print(table(head, [line.cells() for line in lines]))
    print(f"\nas JSON: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
