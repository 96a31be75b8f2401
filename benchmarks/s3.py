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
LIMIT = 180.0  # seconds a workload may take

LUIGI = ("boto3==1.43.*",)  # beside Luigi itself
LUIGI_OBJECTS = 100  # it takes one after the other

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
        goal = {"ratio": "<= {:g}x", "luigi": ">= {:g}x Luigi", "asyncflow": "< {:g}"}.get(self.judged or "", "")
        return [
            self.workload,
            f"{self.count:,}",
            self.unit,
            figure(self.asyncflow),
            "" if self.by_hand is None else figure(self.by_hand),
            "" if self.ratio is None else f"{self.ratio:.2f}",
            goal.format(self.goal),
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


def small(scale: Scale) -> tuple[list[Line], dict[str, Any]]:
    """Small objects, 50 at once; Luigi's one after the other."""
    count = scale.size(1_000)
    answers = in_turns("small", count, scale.turns(TURNS))
    luigi = luigis(scale)
    lines = []
    for work in ("write", "read"):
        ours, theirs, ratio = (x for x in compared(answers, f"{work}_s"))
        each = 1e6 / count
        its = None if not luigi else statistics.median(a[f"{work}_s"] for a in luigi) / scale.size(LUIGI_OBJECTS) * 1e6
        line = f"small objects, {work}"
        lines.append(Line(line, count, "us wall/object", ours * each, theirs * each, ratio, its, "ratio", 1.15))
        lines.append(Line(f"{line}: Luigi", count, "us wall/object", ours * each, None, None, its, "luigi", 5))
        ours, theirs, ratio = compared(answers, f"{work}_cpu_s")
        lines.append(Line(line, count, "us CPU/object", ours * each, theirs * each, ratio))
    return lines, {**answers, "s3_luigi": luigi}


def luigis(scale: Scale) -> list[dict[str, Any]]:
    """Luigi's answers; none where it cannot be had."""
    try:
        python = python_of("luigi-s3", [*PINS["luigi"], *LUIGI])
    except CannotInstall as problem:
        print(f"Luigi is not measured: {problem}", file=sys.stderr)
        return []
    count = scale.size(LUIGI_OBJECTS)
    return [ask("s3_luigi", "small", count, python=python) for _ in range(scale.turns(TURNS))]


def large(scale: Scale) -> tuple[list[Line], dict[str, Any]]:
    """One large object, and for the memory a larger one."""
    megabytes, more = scale.size(512), scale.size(1_024)
    answers = in_turns("large", megabytes, scale.turns(TURNS))
    lines = []
    for work in ("write", "read"):
        ours, theirs, ratio = compared(answers, f"{work}_s")
        lines.append(Line(f"large object, {work}", megabytes, "s wall", ours, theirs, ratio, None, "ratio", 1.15))
        ours, theirs, ratio = compared(answers, f"{work}_cpu_s")
        lines.append(Line(f"large object, {work}", megabytes, "s CPU", ours, theirs, ratio))
    largest = {engine: [ask(engine, "large", more)] for engine in answers}
    for work in ("write", "read"):
        key = f"{work}_growth_mb"
        ours, theirs = (largest[engine][0][key] for engine in ("s3_target", "s3_by_hand"))
        lines.append(Line(f"large object, {work}", more, "MB RSS growth", ours, theirs, None, None, "asyncflow", 64))
    return lines, {"large": answers, "largest": largest}


def exists(scale: Scale, store: S3Server) -> tuple[list[Line], dict[str, Any]]:
    """Whether objects are there, asked for all of them: how many requests that takes."""
    count = scale.size(10_000)
    with environment(S3_PREFIX="complete"):
        ask("s3_by_hand", "fill", count)
        answers = in_turns("exists", count, scale.turns(3))
        requests = {engine: asyncio.run(requests_of(engine, count, store)) for engine in answers}
    ours, theirs, ratio = compared(answers, "exists_s")
    return [
        Line(
            "exists, all there",
            count,
            "requests",
            requests["s3_target"],
            requests["s3_by_hand"],
            requests["s3_target"] / requests["s3_by_hand"],
            None,
            "ratio",
            1 / 50,
        ),
        Line("exists, all there", count, "s wall", ours, theirs, ratio),
    ], {**answers, "requests": requests}


async def requests_of(engine: str, count: int, store: S3Server) -> int:
    """How many requests reach the store: those that the proxy before it has seen."""
    async with FaultS3(store) as proxy:
        with environment(S3_ENDPOINT=proxy.endpoint):
            await asyncio.to_thread(ask, engine, "exists", count)
        return len(proxy.requests)


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


def measured(scale: Scale) -> tuple[list[Line], dict[str, Any]]:
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
            lines, answers = [], {}
            for measure in (small, large, lambda scale: exists(scale, store)):
                found, said = measure(scale)
                lines += found
                answers[found[0].workload] = said
    return lines, answers


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
