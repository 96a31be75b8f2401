"""The register of claims alone: who may be at work, who waits for whom, and who hears of it."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from typing import Any

import pytest

from asyncflow.graph import CANCELLED, FORCED, LOCKING, READY, RUNNING, SUCCEEDED, Budget, Build, Demand, Node
from asyncflow.hub import LATELY, Hub, at_work, shares

KEYS = [f"target {n}" for n in range(20)]


def node_of(task: Any, *keys: str, flags: int = 0) -> Node:
    build = Build(Budget(1, (1, 1)))
    node = Node(task, Demand(build), build)
    node.keys = keys or (task,)
    node.flags = flags
    return node


def finish(hub: Hub, node: Node, state: int = SUCCEEDED) -> list[Node]:
    was_at_work = at_work(node)
    node.state = state
    waiting = hub.end(node, was_at_work=was_at_work)
    node.keys = ()
    return list(waiting)


def test_a_claim_nobody_contests_is_the_lock() -> None:
    hub = Hub()
    node = node_of("a", "x", "y")
    assert not hub.claim(node)
    assert hub.enter(node) is None
    assert node.state == RUNNING
    assert finish(hub, node) == []
    assert not len(hub)


def test_one_of_two_is_at_work_and_the_other_hears_of_its_end() -> None:
    hub = Hub()
    first, second = node_of("a", "x"), node_of("b", "w", "x")
    hub.claim(first)
    assert list(hub.claim(second)) == [first]
    assert hub.enter(first) is None
    assert hub.enter(second) is first
    assert not hub.shared(first), "another task waits for the lock, it does not share the flight"
    assert finish(hub, first) == [second]
    assert hub.enter(second) is None
    finish(hub, second)
    assert not len(hub)


def test_what_has_ended_since_planning_is_looked_at_once() -> None:
    hub = Hub()
    first, second = node_of("a", "x"), node_of("a", "x")
    for node in (first, second):
        hub.claim(node)
    hub.enter(first)
    finish(hub, first)
    assert hub.enter(second) is second
    assert hub.enter(second) is None
    finish(hub, second)
    assert not len(hub)


def made(hub: Hub, *keys: str) -> None:
    """Somebody claims ``keys``, works, and ends."""
    node = node_of("m", *keys)
    node.met = hub.now
    hub.claim(node)
    assert hub.enter(node) is None
    finish(hub, node)


def test_what_has_ended_between_the_look_and_the_claim_is_looked_at_once() -> None:
    hub = Hub()
    late = node_of("a", "x", "y")
    late.met = hub.now
    made(hub, "y")
    hub.claim(late)
    assert hub.enter(late) is late
    assert hub.enter(late) is None
    finish(hub, late)
    assert not len(hub)


@pytest.mark.parametrize("others", [0, 10, 3 * LATELY])
def test_what_ended_before_the_look_or_makes_something_else_is_no_reason_to_look(others: int) -> None:
    hub = Hub()
    hub.claim(node_of("b", "something else"))
    made(hub, "x")
    for n in range(others):
        made(hub, f"before {n}")
    node = node_of("a", "x")
    node.met = hub.now
    for n in range(min(others, LATELY)):
        made(hub, f"between {n}")
    hub.claim(node)
    assert hub.enter(node) is None


@pytest.mark.parametrize("others", [LATELY - 1, 3 * LATELY])
def test_an_end_is_remembered_long_enough_or_all_look_again(others: int) -> None:
    hub = Hub()
    hub.claim(node_of("b", "something else"))
    node = node_of("a", "x")
    node.met = hub.now
    made(hub, "x")
    for n in range(others):
        made(hub, f"other {n}")
    hub.claim(node)
    assert hub.enter(node) is node
    assert len(hub._ends._newer) + len(hub._ends._older) < 2 * LATELY


def test_nothing_is_remembered_when_nothing_is_claimed() -> None:
    hub = Hub()
    node = node_of("a", "x")
    node.met = hub.now
    made(hub, "y")
    assert not hub._ends._newer
    hub.claim(node)
    assert hub.enter(node) is node, "it might have been made"
    assert hub.enter(node) is None


def test_one_that_never_was_at_work_is_no_reason_to_look() -> None:
    hub = Hub()
    first, second = node_of("a", "x"), node_of("a", "x")
    for node in (first, second):
        hub.claim(node)
    finish(hub, first, CANCELLED)
    assert hub.enter(second) is None


def test_an_end_that_has_not_been_said_yet_is_seen() -> None:
    hub = Hub()
    first, second = node_of("a", "x"), node_of("a", "x")
    for node in (first, second):
        hub.claim(node)
    hub.enter(first)
    first.state = SUCCEEDED  # its thread is about to say so
    assert hub.enter(second) is second


def test_the_last_that_has_joined_is_told_so() -> None:
    hub = Hub()
    flying, one, two = (node_of("a") for _ in range(3))
    rival = node_of("b", "x")
    rival.keys = flying.keys
    for node in (flying, one, two, rival):
        hub.claim(node)
    hub.enter(flying)
    for node in (one, two, rival):
        assert hub.enter(node) is flying
    assert hub.shared(flying)
    assert list(hub.waiting_for(flying)) == [one, two, rival]
    assert not hub.leave(one, flying)
    assert not hub.leave(one, flying)
    assert hub.leave(two, flying)
    assert not hub.leave(rival, flying)
    assert hub.flights(one) == hub.flights(two) == [flying]
    assert not hub.flights(rival)
    hub.end(one, was_at_work=False)
    assert hub.shared(flying), "the other may come back"
    hub.end(two, was_at_work=False)
    assert not hub.shared(flying)


@pytest.mark.parametrize(
    ("waiting", "flying", "shared"), [(0, 0, True), (0, FORCED, True), (FORCED, 0, False), (FORCED, FORCED, True)]
)
def test_a_forced_run_does_not_share_an_unforced_one(waiting: int, flying: int, shared: bool) -> None:
    assert shares(node_of("a", flags=waiting), node_of("a", flags=flying)) is shared


def test_after_a_fork_nothing_is_claimed() -> None:
    hub = Hub()
    node = node_of("a", "x")
    hub.claim(node)
    hub.forked()
    assert not len(hub)
    assert hub.claim(node_of("b", "x")) == ()


class HandOff:
    """Nodes that claim, enter, give up and end at random, on twenty keys."""

    def __init__(self, seed: int) -> None:
        self.hub = Hub()
        self.random = random.Random(seed)
        self.ready: deque[Node] = deque()
        self.waiting: dict[Node, Node] = {}
        self.working: list[Node] = []
        self.served: Counter[str] = Counter()

    def arrive(self, n: int) -> None:
        node = node_of(f"task {n % 300}", *self.random.sample(KEYS, self.random.randint(1, 3)))
        node.state = READY
        self.hub.claim(node)
        self.ready.append(node)

    def enter(self) -> None:
        node = self.ready.popleft()
        holder = self.hub.enter(node)
        if holder is None:
            self.working.append(node)
        elif holder is node:
            self.ready.append(node)  # it has looked, and there is still nothing
        else:
            node.state = LOCKING
            self.waiting[node] = holder

    def end(self) -> None:
        node = self.working.pop(self.random.randrange(len(self.working)))
        self.served["ended"] += 1
        for other in finish(self.hub, node, self.random.choice([SUCCEEDED, CANCELLED])):
            assert self.waiting.pop(other) is node
            other.state = READY
            self.ready.append(other)

    def give_up(self) -> None:
        """A caller that waits is cancelled, or runs out of time."""
        node = self.random.choice(list(self.waiting))
        self.hub.leave(node, self.waiting.pop(node))
        self.served["gave up"] += 1
        assert finish(self.hub, node, CANCELLED) == []

    def check(self) -> None:
        for node, holder in self.waiting.items():
            assert at_work(holder), f"{node} waits for one that has ended"
        busy = Counter(key for node in self.working for key in node.keys)
        assert set(busy.values()) <= {1}, "two are at work on one target"


@pytest.mark.parametrize("seed", range(5))
def test_ten_thousand_random_hand_offs(seed: int) -> None:
    hands = HandOff(seed)
    for n in range(10_000):
        hands.arrive(n)
        for _ in range(hands.random.randrange(10)):
            moves = [
                *([hands.enter] * 3 * bool(hands.ready)),
                *([hands.end] * 2 * bool(hands.working)),
                *([hands.give_up] * bool(hands.waiting)),
            ]
            if moves:
                hands.random.choice(moves)()
        if not n % 50:
            hands.check()
    while hands.ready or hands.working:
        (hands.enter if hands.ready else hands.end)()
    assert not hands.waiting, "somebody waits for what is free"
    assert sum(hands.served.values()) == 10_000
    assert hands.served["gave up"] > 100
    assert not len(hands.hub)


def test_hand_offs_between_threads() -> None:
    """Eight threads, each with nodes of its own, on five keys: at most one at work on each, and nobody forgotten."""
    hub = Hub()
    busy: Counter[str] = Counter()
    wrong: list[str] = []
    keys = KEYS[:5]
    letters: dict[Node, threading.Event] = {}

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for n in range(500):
            node = node_of(f"{seed} {n}", *rng.sample(keys, rng.randint(1, 2)))
            claimed = node.keys
            hub.claim(node)
            letters[node] = threading.Event()
            while (holder := hub.enter(node)) is not None:
                if holder is not node:
                    if not letters[node].wait(10):
                        wrong.append("somebody waits for what is free")
                        return
                    letters[node].clear()
            for key in claimed:
                busy[key] += 1  # type: ignore[index]
                if busy[key] != 1:  # type: ignore[index]
                    wrong.append("two are at work on one target")
            for key in claimed:
                busy[key] -= 1  # type: ignore[index]
            for other in finish(hub, node):
                letters[other].set()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not len(hub)
