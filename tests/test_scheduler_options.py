"""The scheduler alone, with all that tasks and builds may ask of it: random graphs in random order, by seed."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import pytest

from asyncflow._options import DEFAULTS, Options, TaskOptions
from asyncflow.errors import PlanError
from asyncflow.graph import (
    BYPASSED,
    CANCELLING,
    EXCLUDED,
    FINAL,
    FORCED,
    RESTING,
    RETRYING,
    THERE,
    Budget,
    Build,
    Demand,
    Node,
)
from asyncflow.graph import status as word
from asyncflow.queues import Pool
from tests.model import Graph, Model, Spec, random_graph
from tests.test_scheduler import Driver, assert_empty, reachable

CAPACITIES = {"db": 3, "gpu": 2}
RATES = {"api": (3, 1.0), "mail": (2, 5.0)}  # starts, seconds


@dataclass
class Rich(Spec):
    """A task with options; ``failures`` attempts fail before one succeeds."""

    failures: int = 0
    asks: dict[str, Any] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        return 1 + min(self.failures, self.asks.get("retries", 0))

    @property
    def goes_wrong(self) -> bool:
        return self.fails or self.failures > self.asks.get("retries", 0)


def options(asks: dict[str, Any]) -> Options:
    defaults = {name: getattr(DEFAULTS, name) for name in TaskOptions.__annotations__ if name != "runner"}
    return Options(type("Owner", (), {"runner": None, **defaults, **asks}), "Owner") if asks else DEFAULTS


def rich_graph(rng: random.Random, *, hold: bool = False) -> Graph:
    """A random graph whose tasks have random options that the build can meet."""
    graph: Graph = []
    for spec in random_graph(rng):
        asks: dict[str, Any] = {}
        if rng.random() < 0.3:
            asks["priority"] = rng.randint(-2, 2)
        if rng.random() < 0.3:
            asks["retries"] = rng.randint(1, 3)
        if rng.random() < 0.5:
            names = rng.sample(sorted(CAPACITIES), rng.randint(1, 2))
            asks["resources"] = {name: rng.randint(1, CAPACITIES[name]) for name in names}
            if hold and rng.random() < 0.5:
                asks["hold"] = rng.sample(names, rng.randint(1, len(names)))
        if rng.random() < 0.3:
            asks["rate"] = {name: rng.randint(1, RATES[name][0]) for name in rng.sample(sorted(RATES), 1)}
        failures = rng.randint(1, 3) if rng.random() < 0.2 else 0
        graph.append(Rich(**vars(spec), failures=failures, asks=asks))
    return graph


class RichModel(Model):
    """What should come of a build that is forced to run some tasks, and may run only some."""

    def __init__(
        self, graph: Graph, roots: list[int], forced: Collection[int] = (), only: Collection[int] | None = None
    ) -> None:
        self.forced = forced
        self.only = only
        super().__init__(graph, roots)

    def _make(self, n: int) -> str:
        spec = self.graph[n]
        assert isinstance(spec, Rich)
        excluded = self.only is not None and n not in self.only
        if spec.external:
            return "complete" if spec.complete else "missing"
        if spec.complete and n not in self.forced:
            return "complete"
        there = self.make_all(spec.requires)
        if excluded:
            return "complete" if spec.complete else "missing"
        if not there:
            return "blocked"
        self.runs[n] = 1
        for stage in spec.stages:
            if not self.make_all(stage) and not spec.catches:
                return "blocked"
        self.runs[n] = 1 + spec.asks.get("retries", 0) if spec.fails else spec.attempts
        return "failed" if spec.goes_wrong else "succeeded"


class RichDriver(Driver):
    """Carries out what the options ask for too; time is virtual."""

    def __init__(self, graph: Graph, seed: int) -> None:
        super().__init__(graph, seed)
        self.options = [options(spec.asks) for spec in graph]  # type: ignore[attr-defined]
        self.resting: list[Node] = []
        self.tries: Counter[Node] = Counter()
        self.now = 0.0
        self.taken: dict[Pool, list[tuple[float, int]]] = {}  # starts of rates: when, and how many units
        self.asked: dict[Build, tuple[Collection[int], Collection[int] | None]] = {}
        self.builds: list[Build] = []
        self.strict = True
        self.told: list[BaseException] = []

    def begin(
        self,
        roots: list[int],
        concurrency: int,
        *,
        fail_fast: bool = False,
        forced: Collection[int] = (),
        only: Collection[int] | None = None,
    ) -> Demand:
        pools = {name: Pool(name, count) for name, count in CAPACITIES.items()}
        rates = {name: Pool(name, *rate) for name, rate in RATES.items()}
        build = Build(Budget(concurrency, (concurrency, concurrency), pools, rates))
        build.fail_fast = fail_fast
        build.table = {} if forced or only is not None else None  # as in one build among others
        self.asked[build] = forced, only
        self.builds.append(build)
        demand = self.scheduler.open(build)
        for root in roots:
            self.scheduler.want(demand, self.name(root))
        self.scheduler.asked(demand)
        return demand

    def step(self) -> bool:
        scheduler = self.scheduler
        self.checks += scheduler.checks
        self.stopping += scheduler.cancels
        self.resting += scheduler.rests
        for queue in (scheduler.checks, scheduler.cancels, scheduler.rests):
            queue.clear()
        while scheduler.settled:
            demand = scheduler.settled.popleft()
            self.settled.add(demand)
            if demand.build.guest:
                scheduler.close(demand)
        while scheduler.delivered:
            self.answered(scheduler.delivered.popleft())
        choices: list[Callable[[], bool]] = [
            *([self.answer_check] * bool(self.checks)),
            *([self.verify] * bool(scheduler.unverified)),
            *([self.go_on] * bool(self.bodies)),
            *([self.stop] * bool(self.stopping)),
            *([self.try_again] * bool(self.resting)),
            *([self.wait] * (self.random.random() < 0.1)),
        ]
        self.random.shuffle(choices)
        order = [self.start, *choices, self.wait] if self.random.random() < 0.5 else [*choices, self.start, self.wait]
        # A node that was not let in looks again: that is news too.
        return any(choice() for choice in order) or bool(scheduler.checks or scheduler.settled)

    def answer_check(self) -> bool:
        node = self.checks.pop(self.random.randrange(len(self.checks)))
        if node.state >= FINAL:
            return True
        n: int = node.task  # type: ignore[assignment]
        spec = self.spec(node)
        owner = node.build if node.build in self.asked else next(build for build in self.asked if build.closed)
        forced, only = self.asked[owner]
        selected = only is None or n in only
        node.options = self.options[n]
        there = spec.complete or bool(self.ends[n])
        if spec.external:
            self.scheduler.complete(node) if there else self.scheduler.absent(node)
            return True
        if there and n not in forced:
            self.scheduler.complete(node)
            return True
        if n in forced and selected:
            node.flags |= FORCED
        if not selected:
            node.flags |= EXCLUDED | (BYPASSED if there else 0)
        node.keys = node.keys or (self.key(n),)
        self.scheduler.missing(node)
        for other in spec.requires:
            self.scheduler.depend(node, self.name(other))
        self.scheduler.expanded(node)
        return True

    def start(self) -> bool:
        self.now += self.random.choice([0, 0, 0, 0.2])
        self.scheduler.tick(self.now)
        step = self.scheduler.next()
        if isinstance(step, Demand):
            self.answered(step)
        elif step is not None:
            assert not step.build.stopped, f"{step} was started after the failure that stopped its build"
            assert not step.flags & EXCLUDED
            assert all(dep.state <= THERE for dep in step.deps), f"{step} started before what it requires"
            assert step not in self.bodies
            self.starts[step.task] += 1  # type: ignore[index]
            self.tries[step] += 1
            self.bodies[step] = 0
            for name, count in step.options.rate.items():
                self.taken.setdefault(step.build.budget.rates[name], []).append((self.now, count))
        self.check()
        return step is not None

    def end(self, node: Node, how: str) -> None:
        spec = self.spec(node)
        assert isinstance(spec, Rich)
        if how == "succeeded" and self.tries[node] <= spec.failures:
            how = "failed"
        super().end(node, how)
        self.check()

    def answered(self, demand: Demand) -> None:
        for _, problem in demand.problems:
            self.told.append(problem)
            self.strict = False  # one that is told goes on without its units
        super().answered(demand)

    def stop(self) -> bool:
        node = self.stopping.pop(self.random.randrange(len(self.stopping)))
        if self.bodies.pop(node, None) is not None or node.flags & (RESTING | RETRYING):
            self.scheduler.cancelled(node)
        return True

    def try_again(self) -> bool:
        node = self.resting.pop(self.random.randrange(len(self.resting)))
        if not node.flags & CANCELLING:
            self.scheduler.again(node)
        return True

    def wait(self) -> bool:
        """Time passes, until somebody gets units of a rate."""
        self.scheduler.tick(self.now)
        due = self.scheduler.due()
        if due is None:
            return False
        self.now = due + self.random.choice([0, 0, 0.5])
        self.scheduler.tick(self.now)
        return True

    def check(self) -> None:
        """No units are given out twice."""
        if not self.strict:
            return
        used: Counter[Pool] = Counter()
        for node in self.bodies:
            for name, count in node.options.resources.items():
                if not node.outstanding or name in node.options.hold:
                    used[node.build.budget.pool(name)] += count
        for pool, count in used.items():
            assert count <= pool.capacity, f"{count} units of {pool.name} are in use, and there are {pool.capacity}"
            assert 0 <= pool.free <= pool.capacity - count

    def check_end(self) -> None:
        """All units are back, and no rate was ever exceeded."""
        self.scheduler.tick(self.now + 10)
        for build in self.builds:
            for pool in (*build.budget.pools.values(), *build.budget.rates.values()):
                while pool.spent:  # by what went on in another build
                    pool.free += pool.spent.popleft()[1]
                assert pool.free == pool.capacity, f"{pool.capacity - pool.free} units of {pool.name} are lost"
                assert not pool.held
        for pool, starts in self.taken.items() if self.strict else ():
            for when, _ in starts:
                inside = sum(count for other, count in starts if when <= other < when + pool.period)
                assert inside <= pool.capacity, f"{inside} starts of {pool.name} within {pool.period} s"


def against_the_model(seed: int) -> None:
    """One build, with force and only or without."""
    rng = random.Random(seed)
    graph = rich_graph(rng)
    roots = [len(graph) - 1, len(graph) // 2]
    everything = range(len(graph))
    forced = rng.choice([(), set(everything), set(rng.sample(everything, rng.randint(0, len(graph))))])
    only = rng.choice([None, None, set(rng.sample(everything, rng.randint(0, len(graph))))])
    model = RichModel(graph, roots, forced, only)
    driver = RichDriver(graph, seed)
    demand = driver.begin(roots, rng.randint(1, 5), forced=forced, only=only)
    driver.run()
    assert demand in driver.settled, "the build never ended"
    assert driver.statuses(demand) == model.status
    assert driver.starts == model.runs
    driver.check_end()
    driver.scheduler.close(demand)
    assert_empty(driver, demand)


def with_holds(seed: int) -> None:
    """Bodies hold on to what others need. Where that can never end well somebody is told; nothing hangs."""
    rng = random.Random(seed)
    graph = rich_graph(rng, hold=True)
    roots = [len(graph) - 1, len(graph) // 2]
    driver = RichDriver(graph, seed)
    demand = driver.begin(roots, rng.randint(1, 5))
    driver.run()
    assert demand in driver.settled, "the build never ended"
    told = [node.error for node in demand.build.nodes if isinstance(node.error, PlanError)] + driver.told
    for error in told:
        assert "out of its `hold`" in str(error)
    if not told:
        assert driver.statuses(demand) == RichModel(graph, roots).status
    driver.check_end()
    driver.scheduler.close(demand)
    assert_empty(driver, demand)


def several_builds(seed: int) -> None:
    """Hasty and forced builds come and go beside one that stays, and has its own result."""
    rng = random.Random(seed)
    graph = rich_graph(rng)
    everything = range(len(graph))
    driver = RichDriver(graph, seed)
    driver.strict = False  # what is handed over may take more than its new build has left
    wanted = [[rng.randrange(len(graph)) for _ in range(rng.randint(1, 3))] for _ in range(rng.choice([2, 3]))]
    stays = rng.randrange(len(wanted))
    demands: list[Demand] = []
    for n, roots in enumerate(wanted):
        for _ in range(rng.randrange(30)):
            driver.step()
        # Not what is complete: to run it may end otherwise than it is, and others may share that.
        again = [n for n in everything if not graph[n].complete and rng.random() < 0.5]
        forced = again if n != stays and rng.random() < 0.5 else ()
        fail_fast = n != stays and rng.random() < 0.5
        demands.append(driver.begin(roots, rng.randint(1, 4), forced=forced, fail_fast=fail_fast))
    leavers = [demand for n, demand in enumerate(demands) if n != stays]
    for demand in leavers:
        for _ in range(rng.choice([0, 10, 100, 10_000])):
            if not driver.step() or demand in driver.settled:
                break
        driver.scheduler.close(demand)
    driver.run()
    stayed = demands[stays]
    assert stayed in driver.settled, "the build never ended"
    found, model = reachable(stayed), RichModel(graph, wanted[stays])
    for n in found.keys() & model.status.keys():
        made_before = found[n] in ("complete", "adopted") and driver.ends[n] and model.status[n] == "succeeded"
        assert found[n] == model.status[n] or made_before, f"task {n} is {found[n]}, not {model.status[n]}"
    driver.scheduler.close(stayed)
    assert_empty(driver, *demands)
    driver.check_end()


def hasty(seed: int) -> None:
    """A hasty build alone: it ends with its first failure, or as if it were not hasty."""
    rng = random.Random(seed)
    graph = rich_graph(rng)
    roots = [len(graph) - 1, len(graph) // 2]
    model = RichModel(graph, roots)
    driver = RichDriver(graph, seed)
    demand = driver.begin(roots, rng.randint(1, 5), fail_fast=True)
    while demand not in driver.settled and driver.step():
        pass
    driver.step()
    assert demand in driver.settled, "the build never ended"
    wrong = [node for node in demand.build.nodes if word(node.state) in ("failed", "missing")]
    assert bool(wrong) == bool({"failed", "missing"} & set(model.status.values()))
    if not wrong:
        assert driver.statuses(demand) == model.status
    driver.scheduler.close(demand)
    assert_empty(driver, demand)
    driver.check_end()


RUNS = [against_the_model, with_holds, several_builds, hasty]


def by_seed(run: Callable[[int], None], seed: int) -> None:
    try:
        run(seed)
    except BaseException as error:
        error.add_note(f"{run.__name__}({seed})")
        raise


@pytest.mark.parametrize("run", RUNS)
def test_by_seed(run: Callable[[int], None]) -> None:
    for seed in range(500):
        by_seed(run, seed)


def test_what_is_queued_twice_is_not_granted_its_own_units_at_its_end() -> None:
    """A raised priority queues a node once more; its build is stopped when it has been granted its units."""
    by_seed(hasty, 157944330573)


@pytest.mark.soak
@pytest.mark.parametrize("run", RUNS)
def test_many_seeds(run: Callable[[int], None]) -> None:
    first = random.randrange(2**40)
    for seed in range(first, first + 20 * int(os.environ.get("SEEDS", "1000"))):
        by_seed(run, seed)
