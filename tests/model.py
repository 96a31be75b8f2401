"""Graphs of tasks by chance, and what should come of them: sequential, with nothing of the engine in it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Spec:
    """One task: what it needs before it runs, what its body asks for stage by stage, and how it ends."""

    requires: list[int] = field(default_factory=list)
    stages: list[list[int]] = field(default_factory=list)
    fails: bool = False
    complete: bool = False
    external: bool = False
    catches: bool = False  # its body goes on when a stage fails


Graph = list[Spec]


class Model:
    """Decides the status of every task that ``roots`` lead to, in the simplest order there is."""

    def __init__(self, graph: Graph, roots: list[int]) -> None:
        self.graph = graph
        self.status: dict[int, str] = {}
        self.runs: dict[int, int] = {}
        for root in roots:
            self.make(root)

    def make(self, n: int) -> bool:
        """Make task ``n``; whether it is there afterwards."""
        if n not in self.status:
            self.status[n] = self._make(n)
        return self.status[n] in ("succeeded", "complete")

    def make_all(self, some: list[int]) -> bool:
        """Make every one of them, also when one fails; whether all are there."""
        return sum(map(self.make, some)) == len(some)

    def _make(self, n: int) -> str:
        spec = self.graph[n]
        if spec.complete:
            return "complete"
        if spec.external:
            return "missing"
        if not self.make_all(spec.requires):
            return "blocked"
        self.runs[n] = self.runs.get(n, 0) + 1
        for stage in spec.stages:
            if not self.make_all(stage) and not spec.catches:
                return "blocked"
        return "failed" if spec.fails else "succeeded"


def random_graph(rng: random.Random) -> Graph:
    """A graph without cycles, of up to sixty tasks."""
    graph: Graph = []
    for i in range(rng.choice([2, 3, 4, 8, 30, 60])):

        def some(below: int = i) -> list[int]:
            return rng.sample(range(below), min(below, rng.randint(0, 3)))

        graph.append(
            Spec(
                requires=some(),
                stages=[some() for _ in range(rng.choice([0, 0, 1, 3]))],
                fails=rng.random() < 0.08,
                complete=rng.random() < 0.1,
                external=rng.random() < 0.03,
                catches=rng.random() < 0.3,
            )
        )
    return graph
