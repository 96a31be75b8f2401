"""The scheduler alone, without a loop: random graphs in random order against the model, and its edges."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow import CycleError
from asyncflow.graph import FINAL, THERE, Budget, Build, Demand, Node, status
from asyncflow.hub import Hub
from asyncflow.scheduler import Scheduler
from tests.model import Graph, Model, Spec, random_graph


class Driver:
    """Carries out the scheduler's instructions in an order drawn from a seed, as an executor might."""

    def __init__(self, graph: Graph, seed: int, scheduler: Scheduler | None = None) -> None:
        self.graph = graph
        self.random = random.Random(seed)
        self.scheduler = scheduler or Scheduler(Hub())
        self.checks: list[Node] = []
        self.bodies: dict[Node, int] = {}  # node -> the stage it is at; those that may go on
        self.stopping: list[Node] = []
        self.starts: Counter[int] = Counter()
        self.ends: Counter[int] = Counter()
        self.settled: set[Demand] = set()
        self.caught: set[Node] = set()
        self.slow_looks = False  # the world may go on between a look and the answer
        self.keyless = False  # what the tasks make can be looked for, and has no key
        self.seen: dict[Node, bool] = {}

    def build(self, roots: list[int], concurrency: int, *, dry: bool = False) -> Demand:
        demand = self.scheduler.open(Build(Budget(concurrency, (concurrency, concurrency)), dry=dry))
        for root in roots:
            self.scheduler.want(demand, self.name(root))
        self.scheduler.asked(demand)
        return demand

    def name(self, n: int) -> Any:
        return n  # to the scheduler a task is a key

    def key(self, n: int) -> str:
        return f"target {n}"

    def spec(self, node: Node) -> Spec:
        return self.graph[node.task]  # type: ignore[call-overload,no-any-return]

    def run(self) -> None:
        """Until nothing is left to do."""
        while self.step():
            pass

    def step(self) -> bool:
        scheduler = self.scheduler
        while scheduler.checks:
            self.checks.append(scheduler.checks.popleft())
        while scheduler.cancels:
            self.stopping.append(scheduler.cancels.popleft())
        while scheduler.settled:
            demand = scheduler.settled.popleft()
            self.settled.add(demand)
            if demand.build.guest:
                scheduler.close(demand)
        while scheduler.delivered:
            self.answered(scheduler.delivered.popleft())
        choices = [
            *([self.answer_check] * bool(self.checks)),
            *([self.verify] * bool(scheduler.unverified)),
            *([self.go_on] * bool(self.bodies)),
            *([self.stop] * bool(self.stopping)),
        ]
        self.random.shuffle(choices)
        for choice in [self.start, *choices] if self.random.random() < 0.5 else [*choices, self.start]:
            if choice():
                return True
        return False

    def answer_check(self) -> bool:
        place = self.random.randrange(len(self.checks))
        node = self.checks[place]
        spec = self.spec(node)
        if node.state < FINAL and node not in self.seen and self.slow_looks and self.random.random() < 0.5:
            self.seen[node] = spec.complete or self.ends[node.task] > 0  # type: ignore[index]  # and told later
            return True
        del self.checks[place]
        there = self.seen.pop(node, spec.complete or self.ends[node.task])  # type: ignore[index]
        if node.state >= FINAL:
            return True
        if there:
            self.scheduler.complete(node)
        elif spec.external:
            self.scheduler.absent(node)
        else:
            if self.keyless:
                node.output = "a target without key"
                node.keys = (node.task,)
            node.keys = node.keys or (self.key(node.task),)  # type: ignore[arg-type]
            self.scheduler.missing(node)
            for n in spec.requires:
                self.scheduler.depend(node, self.name(n))
            self.scheduler.expanded(node)
        return True

    def verify(self) -> bool:
        for _ in self.scheduler.verify():
            pass
        return True

    def start(self) -> bool:
        step = self.scheduler.next()
        if isinstance(step, Demand):
            self.answered(step)
        elif step is not None:
            assert all(dep.state <= THERE for dep in step.deps), f"{step} started before what it requires"
            assert all(dep.state >= FINAL for dep in step.deps)
            self.starts[step.task] += 1  # type: ignore[index]
            self.bodies[step] = 0
            running = sum(node.build is step.build and not node.outstanding for node in self.bodies)
            assert running <= step.build.budget.concurrency, "more bodies at work than there are places"
        return step is not None or bool(self.scheduler.checks)  # what is to look again was not started

    def answered(self, demand: Demand) -> None:
        node = demand.parent
        assert node is not None
        failed = demand.problems or any(root.state > THERE for root in demand.roots)
        self.bodies[node] += 1
        if failed and not self.spec(node).catches and node not in self.stopping:
            self.end(node, "blocked")

    def go_on(self) -> bool:
        able = [node for node in self.bodies if not node.outstanding and node not in self.stopping]
        if not able:
            return False
        node = self.random.choice(able)
        spec = self.spec(node)
        stage = self.bodies[node]
        if stage < len(spec.stages):
            demand = self.scheduler.suspend(node)
            for n in spec.stages[stage]:
                self.scheduler.want(demand, self.name(n))
            self.scheduler.asked(demand)
        else:
            self.end(node, "failed" if spec.fails else "succeeded")
        return True

    def end(self, node: Node, how: str) -> None:
        del self.bodies[node]
        self.ends[node.task] += how == "succeeded"  # type: ignore[index]
        argument = None if how == "succeeded" else RuntimeError(how)
        getattr(self.scheduler, how)(node, argument)

    def stop(self) -> bool:
        node = self.stopping.pop(self.random.randrange(len(self.stopping)))
        if node in self.bodies:
            del self.bodies[node]
            self.scheduler.cancelled(node)
        return True

    def statuses(self, demand: Demand) -> dict[int, str]:
        return {node.task: status(node.state) for node in demand.build.nodes}  # type: ignore[misc]


@st.composite
def graphs(draw: st.DrawFn, size: int = 60) -> Graph:
    n = draw(st.integers(1, size))
    rng = draw(st.randoms(use_true_random=False))
    graph: Graph = []
    for i in range(n):
        below = list(range(i))

        def some(most: int, below: list[int] = below) -> list[int]:
            return rng.sample(below, min(len(below), rng.randint(0, most)))

        graph.append(
            Spec(
                requires=some(3),
                stages=[some(3) for _ in range(rng.choice([0, 0, 1, 3]))],
                fails=rng.random() < 0.08,
                complete=rng.random() < 0.1,
                external=rng.random() < 0.03,
                catches=rng.random() < 0.3,
            )
        )
    return graph


@settings(max_examples=300, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 2**32), concurrency=st.integers(1, 8))
def test_one_build_does_what_the_model_does(graph: Graph, seed: int, concurrency: int) -> None:
    roots = [len(graph) - 1, len(graph) // 2]
    model = Model(graph, roots)
    driver = Driver(graph, seed)
    demand = driver.build(roots, concurrency)
    driver.run()
    assert demand in driver.settled
    assert driver.statuses(demand) == model.status
    assert driver.starts == model.runs
    driver.scheduler.close(demand)
    assert_empty(driver, demand)


@settings(max_examples=300, deadline=None)
@given(
    graph=graphs(), seed=st.integers(0, 2**32), concurrency=st.integers(1, 4), when=st.integers(0, 200), data=st.data()
)
def test_a_demand_that_leaves_takes_nothing_from_the_other(
    graph: Graph, seed: int, concurrency: int, when: int, data: st.DataObject
) -> None:
    pick = st.lists(st.integers(0, len(graph) - 1), min_size=1, max_size=3)
    staying, leaving = data.draw(pick, "staying"), data.draw(pick, "leaving")
    model = Model(graph, staying)
    driver = Driver(graph, seed)
    first, second = (leaving, staying) if data.draw(st.booleans(), "the leaving one is first") else (staying, leaving)
    demands = [driver.build(first, concurrency), driver.build(second, concurrency)]
    stays, leaves = demands if first is staying else demands[::-1]
    for _ in range(when):
        if not driver.step():
            break
    driver.scheduler.close(leaves)
    driver.run()
    assert stays in driver.settled
    found = reachable(stays)
    succeeded = {n for n, word in model.status.items() if word == "succeeded"}
    # What the leaving build had made before the staying one asked for it is found complete; what that had
    # required is not asked for again then.
    made = {n: "succeeded" for n in succeeded if found.get(n) == "complete" and driver.ends[n]}
    assert made or found.keys() >= model.status.keys()
    shared = found.keys() & model.status.keys()
    assert {n: found[n] for n in shared} | made == {n: model.status[n] for n in shared}
    # An attempt that was given up with the leaving demand may have been begun again; none ends well twice.
    assert all(driver.ends[n] == 1 for n in succeeded & found.keys()), "a task was made twice, or never"
    driver.scheduler.close(stays)
    driver.run()
    assert_empty(driver, stays, leaves)


def reachable(demand: Demand) -> dict[int, str]:
    seen: dict[Node, None] = dict.fromkeys(demand.roots)
    stack = list(demand.roots)
    while stack:
        node = stack.pop()
        for other in [*node.deps, *(root for child in node.children for root in child.roots)]:
            if other not in seen:
                seen[other] = None
                stack.append(other)
    return {node.task: status(node.state) for node in seen}  # type: ignore[misc]


def assert_empty(driver: Driver, *demands: Demand) -> None:
    scheduler = driver.scheduler
    driver.run()
    assert not scheduler.nodes
    assert not len(scheduler.sharing.hub)
    assert not scheduler._successors
    assert not scheduler._stopping
    assert not scheduler.builds
    assert not driver.bodies
    for demand in demands:
        assert demand.build.budget.running == 0
        assert demand.build.budget.seated == [0, 0]


def settle_all(graph: Graph, roots: list[int], seed: int = 0) -> tuple[Driver, Demand]:
    driver = Driver(graph, seed)
    demand = driver.build(roots, 2)
    driver.run()
    assert demand in driver.settled
    return driver, demand


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_a_static_cycle_is_found_before_anything_runs(length: int) -> None:
    graph = [Spec(requires=[(n + 1) % length]) for n in range(length)]
    driver, demand = settle_all([*graph, Spec(requires=[0]), Spec()], [length, length + 1])
    assert not driver.starts
    [(_, problem)] = demand.problems
    assert isinstance(problem, CycleError)
    assert len(problem.path) == length + 1
    assert problem.path[0] == problem.path[-1]
    for task, following in zip(problem.path, problem.path[1:], strict=False):
        assert following == (task + 1) % length  # type: ignore[operator]


@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_a_cycle_closed_by_a_body_is_given_to_that_body(length: int) -> None:
    """Task n asks for n+1 in its body; the last one asks for the first, which is waiting by then."""
    graph = [Spec(stages=[[(n + 1) % length]], catches=n == length - 1) for n in range(length)]
    for seed in range(20):
        driver, demand = settle_all(graph, [0], seed)
        last = next(node for node in demand.build.nodes if node.task == length - 1)  # type: ignore[comparison-overlap]
        [(_, problem)] = last.children[0].problems
        assert isinstance(problem, CycleError)
        assert len(problem.path) == length + 1
        # The body caught it and went on, so all of them end well.
        assert set(driver.statuses(demand).values()) == {"succeeded"}


def test_a_cycle_through_a_static_edge_below_a_new_task() -> None:
    """0 asks for 1, which requires 2, which requires 0."""
    driver, demand = settle_all([Spec(stages=[[1]], catches=True), Spec(requires=[2]), Spec(requires=[0])], [0])
    [(_, problem)] = demand.roots[0].children[0].problems
    assert isinstance(problem, CycleError)
    assert problem.path == (0, 1, 2, 0)
    assert driver.starts == {0: 1}


def test_two_bodies_that_wait_for_each_other() -> None:
    """0 and 1 run side by side; each asks for the other. One of them is told."""
    for seed in range(50):
        graph = [Spec(stages=[[1]], catches=True), Spec(stages=[[0]], catches=True)]
        driver, demand = settle_all(graph, [0, 1], seed)
        problems = [p for node in demand.roots for child in node.children for _, p in child.problems]
        assert len(problems) == 1
        assert set(driver.statuses(demand).values()) == {"succeeded"}


def test_two_tasks_of_one_build_that_would_make_one_target() -> None:
    driver = Driver([Spec(), Spec()], 0)
    demand = driver.build([0, 1], 2)
    for node in list(driver.scheduler.checks):
        node.keys = ("the same",)
        driver.scheduler.missing(node)
        driver.scheduler.expanded(node)
    driver.scheduler.checks.clear()
    driver.run()
    assert not driver.starts
    [(_, problem)] = demand.problems
    assert "0 and 1 would both make" in str(problem)


def test_two_tasks_of_two_builds_on_one_target_run_one_after_the_other() -> None:
    for seed in range(30):
        driver = Driver([Spec(), Spec()], seed)
        demands = [driver.build([0], 1), driver.build([1], 1)]
        nodes = list(driver.scheduler.checks)
        driver.scheduler.checks.clear()
        for node in nodes:
            node.keys = ("the same",)
            driver.scheduler.missing(node)
            driver.scheduler.expanded(node)
        driver.verify()
        first, second = driver.scheduler.next(), driver.scheduler.next()
        assert isinstance(first, Node)
        assert second is None  # locked out, and it takes no place while it is
        [locked] = [node for node in nodes if node is not first]
        assert status(locked.state) == "locking"
        assert locked.build.budget.running == 0
        driver.scheduler.succeeded(first, None)
        assert list(driver.scheduler.checks) == [locked]  # it looks again
        driver.scheduler.checks.clear()
        driver.scheduler.complete(locked)
        assert status(locked.state) == "adopted"
        for demand in demands:
            driver.scheduler.close(demand)
        assert_empty(driver, *demands)


def test_a_body_waiting_for_others_takes_no_place() -> None:
    """A chain of 50 bodies, each asking for the next, in a build with one place."""
    depth = 50
    graph = [Spec(stages=[[n + 1]]) for n in range(depth)] + [Spec()]
    driver = Driver(graph, 0)
    demand = driver.build([0], 1)
    driver.run()
    assert demand in driver.settled
    assert driver.starts == dict.fromkeys(range(depth + 1), 1)


def test_a_dry_build_runs_nothing() -> None:
    driver = Driver([Spec(), Spec(requires=[0])], 0)
    demand = driver.build([1], 1, dry=True)
    driver.run()
    assert demand in driver.settled
    assert not driver.starts


@pytest.mark.parametrize("shape", ["deep", "wide"])
def test_a_hundred_thousand_nodes_without_recursion(shape: str) -> None:
    n = 100_000
    graph = (
        [Spec(requires=[i - 1] if i else []) for i in range(n)] if shape == "deep" else [Spec() for _ in range(n - 1)]
    )
    if shape == "wide":
        graph.append(Spec(requires=list(range(n - 1))))
    graph[0].fails = True
    driver = Driver(graph, 0)
    driver.random.random = lambda: 0.0  # type: ignore[method-assign]  # no shuffling: speed
    driver.random.randrange = lambda stop: 0  # type: ignore[method-assign,assignment,misc]
    demand = driver.build([n - 1], 10)
    scheduler = driver.scheduler
    while scheduler.checks:
        driver.checks.append(scheduler.checks.popleft())
        driver.answer_check()
    driver.verify()
    while (node := scheduler.next()) is not None:
        assert isinstance(node, Node)
        driver.bodies[node] = 0
        driver.end(node, "failed" if driver.spec(node).fails else "succeeded")
    assert scheduler.settled.popleft() is demand
    counts = Counter(driver.statuses(demand).values())
    assert counts == (
        {"failed": 1, "blocked": n - 1} if shape == "deep" else {"failed": 1, "blocked": 1, "succeeded": n - 2}
    )
    scheduler.close(demand)
    assert not scheduler.nodes


def entered(graph: Graph, concurrency: int = 1) -> tuple[Driver, Demand, Node]:
    """A build whose root, task 0, is in its body."""
    driver = Driver(graph, 0)
    demand = driver.build([0], concurrency)
    driver.checks.append(driver.scheduler.checks.popleft())
    driver.answer_check()
    driver.verify()
    driver.start()
    [root] = driver.bodies
    return driver, demand, root


def ask(driver: Driver, node: Node, n: int) -> Demand:
    demand = driver.scheduler.suspend(node)
    driver.scheduler.want(demand, driver.name(n))
    driver.scheduler.asked(demand)
    return demand


def test_what_a_body_leaves_waiting_when_it_ends_is_dropped() -> None:
    driver, demand, root = entered([Spec(), Spec(requires=[2]), Spec()], concurrency=2)
    child = ask(driver, root, 1)
    driver.end(root, "succeeded")
    driver.run()
    assert demand in driver.settled
    assert driver.starts == {0: 1}, "a task that nobody waits for any more was run"
    assert {status(node.state) for node in child.build.nodes} == {"succeeded", "cancelled"}
    driver.scheduler.close(demand)
    assert_empty(driver, demand)


def test_a_body_takes_its_place_again_with_its_last_await() -> None:
    driver, demand, root = entered([Spec(), Spec(complete=True), Spec(complete=True)])
    first, second = ask(driver, root, 1), ask(driver, root, 2)
    build = demand.build
    assert build.budget.running == 0
    for _ in (first, second):
        driver.checks.append(driver.scheduler.checks.popleft())
        driver.answer_check()
        driver.verify()
    assert list(driver.scheduler.delivered) == [first]
    assert build.budget.running == 0, "it still waits for the second"
    assert driver.scheduler.next() is second
    assert build.budget.running == 1
    assert status(root.state) == "running"


def test_a_caller_that_leaves_goes_on_at_once() -> None:
    driver, demand, root = entered([Spec(), Spec()])
    child = ask(driver, root, 1)
    driver.checks.append(driver.scheduler.checks.popleft())
    driver.answer_check()
    driver.verify()
    other = driver.scheduler.next()
    assert isinstance(other, Node)
    driver.scheduler.leave(child)
    assert status(root.state) == "running"
    assert list(driver.scheduler.cancels) == [other]
    driver.scheduler.cancelled(other)
    assert demand.build.budget.running == 1


def builds_come_and_go(seed: int) -> None:
    """Two or three builds begin at random moments on one graph, and all but one leave at random moments."""
    rng = random.Random(seed)
    graph = random_graph(rng)
    wanted = [[rng.randrange(len(graph)) for _ in range(rng.randint(1, 3))] for _ in range(rng.choice([2, 2, 3]))]
    driver = Driver(graph, seed)
    demands = []
    for roots in wanted:
        for _ in range(rng.randrange(30)):
            driver.step()
        demands.append(driver.build(roots, rng.randint(1, 4)))
    stays = rng.randrange(len(wanted))
    for n, demand in enumerate(demands):
        if n != stays:
            for _ in range(rng.randrange(100)):
                driver.step()
            driver.scheduler.close(demand)
    driver.run()
    assert demands[stays] in driver.settled, f"seed {seed}: a build never ended"
    model = Model(graph, wanted[stays])
    found = reachable(demands[stays])
    for n in found.keys() & model.status.keys():
        made_before = found[n] == "complete" and driver.ends[n] and model.status[n] == "succeeded"
        assert found[n] == model.status[n] or made_before, f"seed {seed}: task {n}"
        assert driver.ends[n] <= 1, f"seed {seed}: task {n} was made twice"
    driver.scheduler.close(demands[stays])
    assert_empty(driver, *demands)


def test_builds_come_and_go() -> None:
    for seed in range(2000):
        builds_come_and_go(seed)


@pytest.mark.soak
def test_many_builds_come_and_go() -> None:
    first = random.randrange(2**40)
    for seed in range(first, first + 100 * int(os.environ.get("SEEDS", "1000"))):
        builds_come_and_go(seed)
