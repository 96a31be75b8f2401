"""Several schedulers and one hub, as in a process with several loops: without loops and threads, by seed."""

from __future__ import annotations

import os
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest

from asyncflow import CycleError
from asyncflow.graph import EXCLUDED, FINAL, Demand, Node, status
from asyncflow.hub import Hub
from asyncflow.scheduler import Scheduler
from asyncflow.sharing import PROBES
from tests.model import Graph, Model, Spec
from tests.test_scheduler import Driver, random_graph, reachable


class Place(Driver):
    """One loop: a driver with a letter box, that can die."""

    def __init__(self, graph: Graph, rng: random.Random, world: World) -> None:
        self.letters: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.dead = False
        self.world = world
        scheduler = Scheduler(world.hub, lambda call, *args: self.letters.append((call, args)), lambda: self.dead)
        super().__init__(graph, 0, scheduler)
        self.random = rng
        self.starts = world.starts
        self.ends = world.ends

    def start(self) -> bool:
        before = set(self.bodies)
        done = super().start()
        for node in set(self.bodies) - before:
            alive = [
                other
                for place in self.world.places
                if not place.dead
                for other in place.bodies
                if other.task == node.task and other is not node
            ]
            assert not alive, f"{node} runs in two loops at once"
        return done

    def receive(self) -> bool:
        if self.letters:
            call, args = self.letters.popleft()
            call(*args)
            return True
        return False


class World:
    """A process with several loops; what the tasks have made is there for all of them."""

    def __init__(self, graph: Graph, loops: int, seed: int = 0) -> None:
        self.hub = Hub()
        self.random = random.Random(seed)
        self.starts: Counter[int] = Counter()
        self.ends: Counter[int] = Counter()
        self.places: list[Place] = []
        self.places += [Place(graph, self.random, self) for _ in range(loops)]

    def look_slowly(self) -> None:
        for place in self.places:
            place.slow_looks = True

    def step(self) -> bool:
        """Something happens in one of the loops; False if nothing can."""
        moves = [move for place in self.places if not place.dead for move in (place.receive, place.step)]
        self.random.shuffle(moves)
        return any(move() for move in moves)

    def run(self) -> None:
        """Until nothing happens, also when everybody looks round."""
        rounds = 4 + len(self.places[0].graph)  # one look finds one flight of a loop that has died
        for done in range(rounds):
            while self.step():
                pass
            living = [place.scheduler.sharing for place in self.places if not place.dead]
            if done > 3 and not any(sharing.abroad for sharing in living):
                break
            for sharing in living:
                sharing.look_round()

    def assert_empty(self) -> None:
        self.run()
        if not any(place.dead for place in self.places):
            assert not len(self.hub)
        for place in self.places:
            if not place.dead:
                assert not place.scheduler.nodes
                assert not place.scheduler.builds
                assert not place.scheduler.sharing.abroad
                assert not place.bodies


def builds_in_several_loops(seed: int, *, deaths: bool, keyless: bool = False) -> None:
    """Builds begin on one graph in two or three loops, and all but one leave, or lose their loop."""
    rng = random.Random(seed)
    graph = random_graph(rng)
    world = World(graph, rng.choice([2, 2, 3]), seed)
    world.look_slowly()
    for each in world.places:
        each.keyless = keyless
    demands: list[tuple[Place, Demand, list[int]]] = []
    for _ in range(rng.choice([2, 3, 4])):
        for _ in range(rng.randrange(30)):
            world.step()
        place = rng.choice(world.places)
        roots = [rng.randrange(len(graph)) for _ in range(rng.randint(1, 3))]
        demands.append((place, place.build(roots, rng.randint(1, 4)), roots))
    home, stays, roots = demands.pop(rng.randrange(len(demands)))
    for place, demand, _ in demands:
        for _ in range(rng.randrange(100)):
            world.step()
        if deaths and place is not home and rng.random() < 0.5:
            place.dead = True
        elif not place.dead and rng.random() < 0.8:
            place.scheduler.close(demand)
    world.run()
    assert stays in home.settled, f"seed {seed}: a build never ended"
    model = Model(graph, roots)
    found = reachable(stays)
    for n in found.keys() & model.status.keys():
        made_elsewhere = found[n] in ("complete", "adopted") and model.status[n] == "succeeded" and world.ends[n]
        assert found[n] == model.status[n] or made_elsewhere, f"seed {seed}: task {n}"
    assert all(times <= 1 for times in world.ends.values()), f"seed {seed}: a task was made twice"
    for place, demand, _ in [*demands, (home, stays, roots)]:
        if not place.dead:
            place.scheduler.close(demand)
    world.assert_empty()


@pytest.mark.parametrize("deaths", [False, True])
@pytest.mark.parametrize("keyless", [False, True])
def test_builds_in_several_loops(deaths: bool, keyless: bool) -> None:
    for seed in range(1000):
        builds_in_several_loops(seed, deaths=deaths, keyless=keyless)


@pytest.mark.soak
@pytest.mark.parametrize("deaths", [False, True])
@pytest.mark.parametrize("keyless", [False, True])
def test_many_builds_in_several_loops(deaths: bool, keyless: bool) -> None:
    first = random.randrange(2**40)
    for seed in range(first, first + 20 * int(os.environ.get("SEEDS", "1000"))):
        builds_in_several_loops(seed, deaths=deaths, keyless=keyless)


def test_a_flight_is_joined_and_its_value_shared() -> None:
    world = World([Spec()], 2)
    first, second = world.places
    one = first.build([0], 1)
    until(world, lambda: bool(first.bodies))
    two = second.build([0], 1)
    while second.receive() or second.step():
        pass
    [node] = two.roots
    assert status(node.state) == "locking"
    assert two.build.budget.running == 0, "waiting for a flight takes no place"
    [flying] = first.bodies
    del first.bodies[flying]
    value = object()
    first.scheduler.succeeded(flying, value)
    world.run()
    assert status(node.state) == "succeeded"
    assert node.value is value
    for place, demand in ((first, one), (second, two)):
        assert demand in place.settled
        place.scheduler.close(demand)
    world.assert_empty()
    assert world.starts == {0: 1}


def test_a_flight_that_failed_has_failed_for_all() -> None:
    world = World([Spec(fails=True), Spec(requires=[0])], 2)
    demands = join(world, [1])
    world.run()
    for demand in demands:
        assert [status(node.state) for node in demand.roots] == ["blocked"]
    assert world.starts == {0: 1}
    assert demands[0].roots[0].deps[0].error is demands[1].roots[0].deps[0].error


def test_the_flight_goes_on_for_others_when_its_own_build_leaves_and_ends_with_the_last() -> None:
    graph = [Spec(stages=[[1]]), Spec()]
    for last_leaves in (False, True):
        world = World(graph, 2)
        first, second = world.places
        one, two = join(world, [0])
        first.scheduler.close(one)
        assert not first.scheduler.cancels
        assert first.scheduler.builds, "somebody has to pay for it"
        first.go_on()  # the body asks for task 1, on the account of the guest
        if last_leaves:
            second.scheduler.close(two)
            world.run()
            assert not world.ends
        else:
            world.run()
            assert [status(node.state) for node in two.roots] == ["succeeded"]
            assert world.starts == {0: 1, 1: 1}
            second.scheduler.close(two)
        world.assert_empty()


def join(world: World, roots: list[int]) -> list[Demand]:
    """The same tasks wanted in every loop; all but the first have joined a flight of the first one."""
    demands = [world.places[0].build(roots, 1)]
    until(world, lambda: bool(world.places[0].bodies))
    for place in world.places[1:]:
        demands.append(place.build(roots, 1))
        while place.receive() or place.step():
            pass
        assert place.scheduler.sharing.abroad
    return demands


def wait_abroad(place: Place, count: int = 1) -> None:
    """What ``place`` has to do by itself, until ``count`` of its nodes wait for one of another loop."""
    while len(place.scheduler.sharing.abroad) < count:
        before = len(place.scheduler.sharing.abroad)
        assert place.step() or len(place.scheduler.sharing.abroad) > before


def until(world: World, true: Callable[[], bool]) -> None:
    while not true():
        assert world.step()


@pytest.mark.parametrize("loops", [2, 3, 5])
@pytest.mark.parametrize("seed", range(20))
def test_a_ring_of_bodies_through_several_loops_is_told_to_one_of_them(loops: int, seed: int) -> None:
    """Task n runs in loop n and asks for task n+1, which runs in the next loop; the last one asks for task 0."""
    graph = [Spec(stages=[[(n + 1) % loops]], catches=True) for n in range(loops)]
    world = World(graph, loops, seed)
    demands = [place.build([n], 1) for n, place in enumerate(world.places)]
    for place in world.places:
        while not place.bodies:
            assert place.step()
    world.run()
    told = [
        problem
        for demand in demands
        for node in demand.build.nodes
        for child in node.children
        for _, problem in child.problems
    ]
    [error] = told
    assert isinstance(error, CycleError)
    assert len(error.path) == loops + 1
    assert set(error.path) == set(range(loops))
    for task, following in zip(error.path, error.path[1:], strict=False):
        assert following == (task + 1) % loops  # type: ignore[operator]
    for demand, place in zip(demands, world.places, strict=True):
        assert [status(node.state) for node in demand.roots] == ["succeeded"]
        place.scheduler.close(demand)
    world.assert_empty()


def test_a_ring_through_a_lock_of_another_loop() -> None:
    """0 and 2 make one target, in two loops. The body of 0 asks for 1, whose body, in the other loop, asks for 2."""
    graph = [Spec(stages=[[1]], catches=True), Spec(stages=[[2]], catches=True), Spec()]
    for seed in range(20):
        world = World(graph, 2, seed)
        first, second = world.places
        for place in world.places:
            place.key = lambda n: "one" if n in (0, 2) else f"target {n}"  # type: ignore[method-assign]
        demands = [first.build([0], 1), second.build([1], 1)]
        for place in world.places:
            while not place.bodies:
                assert place.step()
        world.run()
        for place, demand in zip(world.places, demands, strict=True):
            assert demand in place.settled, f"seed {seed}"
            place.scheduler.close(demand)
        world.assert_empty()


def test_what_was_made_in_another_loop_since_planning_is_looked_at_again() -> None:
    world = World([Spec(), Spec(requires=[0])], 2)
    first, second = world.places
    slow = second.build([0], 1)
    while second.checks or second.scheduler.checks or second.scheduler.unverified:  # planned, and not started
        while second.scheduler.checks:
            second.checks.append(second.scheduler.checks.popleft())
        (second.checks and second.answer_check()) or second.verify()
    quick = first.build([0], 1)
    while first.step():
        pass
    assert world.ends == {0: 1}
    world.run()
    assert [status(node.state) for node in slow.roots] == ["adopted"]
    assert world.starts == {0: 1}
    first.scheduler.close(quick)
    second.scheduler.close(slow)
    world.assert_empty()


def test_what_was_made_in_another_loop_between_the_look_and_the_answer_is_looked_at_again() -> None:
    world = World([Spec()], 2)
    first, second = world.places
    slow = second.build([0], 1)
    [node] = second.scheduler.checks
    second.scheduler.checks.clear()
    second.seen[node] = False  # it is not there
    quick = first.build([0], 1)
    first.run()
    assert world.ends == {0: 1}
    second.checks.append(node)
    second.answer_check()
    world.run()
    assert [status(node.state) for node in slow.roots] == ["adopted"]
    assert world.starts == {0: 1}
    first.scheduler.close(quick)
    second.scheduler.close(slow)
    world.assert_empty()


def test_a_flight_whose_loop_has_died_is_begun_again() -> None:
    world = World([Spec()], 3)
    _, second, third = world.places
    demands = join(world, [0])
    world.places[0].dead = True
    world.run()
    assert world.starts == {0: 2}
    assert [status(node.state) for demand in demands[1:] for node in demand.roots] == ["succeeded"] * 2
    for place, demand in ((second, demands[1]), (third, demands[2])):
        place.scheduler.close(demand)
    world.assert_empty()
    assert all(node.state >= FINAL for demand in demands[1:] for node in demand.roots)


def test_a_letter_that_comes_too_late_is_not_read() -> None:
    world = World([Spec()], 2)
    first, second = world.places
    _, two = join(world, [0])
    [node] = two.roots
    holder = node.holder
    assert isinstance(holder, Node)
    second.scheduler.close(two)
    second.scheduler.sharing.released(node, holder)
    assert status(node.state) == "cancelled"
    assert not second.scheduler.checks
    assert not first.scheduler.sharing.abroad


def test_a_flight_that_is_being_stopped_is_not_kept_for_one_that_comes_too_late() -> None:
    world = World([Spec()], 2)
    first, second = world.places
    one = first.build([0], 1)
    until(world, lambda: bool(first.bodies))
    [flying] = first.bodies
    first.scheduler.close(one)
    two = second.build([0], 1)
    wait_abroad(second)
    assert world.hub.shared(flying)
    assert not first.scheduler.sharing.keep(flying), "what was asked to stop would be paid for until it has stopped"
    assert not first.scheduler.builds
    world.run()
    assert [status(node.state) for node in two.roots] == ["succeeded"]
    assert world.starts == {0: 2}
    second.scheduler.close(two)
    world.assert_empty()


@pytest.mark.parametrize("end", ["made", "left", "blocked", "not to run", "joined and left"])
def test_a_flight_goes_on_for_one_that_wants_it_and_has_not_joined_it_yet(end: str) -> None:
    graph = [Spec(requires=[1]), Spec()]
    world = World(graph, 2)
    first, second = world.places
    one = first.build([0], 1)
    until(world, lambda: any(node.task == 0 for node in first.bodies))  # type: ignore[comparison-overlap]
    world.ends.clear()  # what it required is gone
    two = second.build([0], 0)  # and no place for that
    while second.receive() or second.step():
        pass
    [node] = two.roots
    assert status(node.state) == "pending"
    if end == "not to run":
        node.flags |= EXCLUDED
    first.scheduler.close(one)
    if end == "not to run":
        assert first.scheduler.cancels
    else:
        assert not first.scheduler.cancels
        assert first.scheduler.builds
        graph[1].fails = end == "blocked"
        two.build.budget.concurrency, two.build.budget.lanes = 1, (1, 1)
    if end == "made":
        while first.receive() or first.step():
            pass
        world.run()
        assert status(node.state) == "adopted"
        assert world.starts == {0: 1, 1: 2}
    elif end == "blocked":
        while second.receive() or second.step():
            pass
        assert status(node.state) == "blocked"
    elif end == "joined and left":
        wait_abroad(second)
    second.scheduler.close(two)
    if end != "made":
        while first.receive():
            pass
        assert first.scheduler.cancels, "nobody wants it any more"
    world.run()
    world.assert_empty()


def test_a_flight_that_somebody_joins_as_the_last_one_leaves_goes_on() -> None:
    world = World([Spec()], 3)
    first, second, third = world.places
    one = first.build([0], 1)
    until(world, lambda: bool(first.bodies))
    two = second.build([0], 1)
    wait_abroad(second)
    first.scheduler.close(one)
    second.scheduler.close(two)
    [guest] = first.scheduler.builds
    assert first.letters, "the guest is to hear that it was the last"
    three = third.build([0], 1)
    wait_abroad(third)
    while first.receive():  # a letter of before
        pass
    assert list(first.scheduler.builds) == [guest], "who pays for it has changed, although somebody has joined it again"
    assert not first.scheduler.cancels, "the flight was given up, although somebody has joined it again"
    world.run()
    assert [status(node.state) for node in three.roots] == ["succeeded"]
    assert world.starts == {0: 1}
    third.scheduler.close(three)
    world.assert_empty()


def test_a_ring_behind_many_that_wait_has_its_turn() -> None:
    """The first loop waits for more flights than it sends probes in one look, and for the ring behind them."""
    ring, waits = [0, 1], list(range(2, 3 + PROBES))
    graph = [Spec(stages=[[1]], catches=True), Spec(stages=[[0]], catches=True), *(Spec() for _ in waits)]
    world = World(graph, 2)
    first, second = world.places
    long_ones = second.build(waits, len(waits))
    held: list[Node] = []
    while len(held) < len(waits):
        assert second.step()
        held += second.bodies  # they take their time
        second.bodies.clear()
    waiting = first.build(waits, 1)
    wait_abroad(first, len(waits))
    demands = [place.build([n], 1) for n, place in zip(ring, world.places, strict=True)]
    for place in world.places:
        while not place.bodies:
            assert place.step()
    world.run()
    for place, demand in zip(world.places, demands, strict=True):
        assert demand in place.settled, "nobody has looked whether it is on a ring"
        place.scheduler.close(demand)
    for node in held:
        second.scheduler.succeeded(node, None)
    world.run()
    for place, demand in ((second, long_ones), (first, waiting)):
        assert demand in place.settled
        place.scheduler.close(demand)
    world.assert_empty()


def test_a_probe_does_not_go_round_a_ring_that_its_origin_only_waits_for() -> None:
    """1 runs in the second loop and 2 in the third: they wait for each other, and the first loop for one of them."""
    graph = [Spec(), Spec(stages=[[2]], catches=True), Spec(stages=[[1]], catches=True)]
    world = World(graph, 3)
    first, second, third = world.places
    demands = [second.build([1], 1), third.build([2], 1)]
    for place in (second, third):
        while not place.bodies:
            assert place.step()
    demands.insert(0, first.build([1], 1))
    wait_abroad(first)
    while world.step():
        pass
    assert all(place.scheduler.sharing.abroad for place in world.places)
    first.scheduler.sharing.look_round()
    letters = 0
    while any(place.receive() for place in world.places):
        letters += 1
        assert letters < 10, "the probe goes round and round"
    world.run()
    for place, demand in zip(world.places, demands, strict=True):
        assert demand in place.settled
        place.scheduler.close(demand)
    world.assert_empty()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_who_is_told_of_a_ring_goes_on_in_a_build_that_was_passed_over(order: tuple[int, int]) -> None:
    """0 and 2 make one target. The body of 0 asks for 1, which another build runs, and whose body asks for 2.

    That 2 is locked out shows when its own build is asked for something to start; the body of 0 goes on then.
    """
    graph = [Spec(stages=[[1]], catches=True), Spec(stages=[[2]], catches=True), Spec()]
    for seed in range(20):
        world = World(graph, 1, seed)
        [place] = world.places
        place.key = lambda n: "one" if n in (0, 2) else f"target {n}"  # type: ignore[method-assign]
        demands = [place.build([n], 1) for n in order]
        while len(place.bodies) < 2:
            assert place.step()
        while world.step():
            pass
        for demand in demands:
            assert demand in place.settled, f"seed {seed}: a body that was told of the ring was not resumed"
            place.scheduler.close(demand)
        world.assert_empty()
