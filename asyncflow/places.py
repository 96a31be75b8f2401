"""Who may run next: the places of each build, the pools its bodies share, and the order before them.

A body takes a place of its build and one of its lane, and what it needs of the pools. It gives them back while
it waits for other tasks (but for what it holds on to), and when it ends. Of what could run, the highest priority
goes first; then bodies that were entered before; then what those wait for, the deepest first; then the longest
remaining path; then the first come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from ._options import DEFAULTS
from .graph import (
    CANCELLING,
    DELIVERED,
    READY,
    RETRYING,
    RUNNING,
    SETTLED,
    SUSPENDED,
    Budget,
    Build,
    Demand,
    Node,
)
from .queues import Key, Pool, Queue

__all__ = ["Places"]

ENTERED = float("-inf")  # instead of a depth: bodies that were entered hold locks, memory, units of pools


class Places:
    """The places of all builds of one scheduler. ``may_run(node)`` says whether nobody else is making it."""

    def __init__(self, may_run: Callable[[Node], bool]) -> None:
        self.builds: dict[Build, None] = {}
        # Those that have something in a queue, and perhaps one that has not any more; the first is next.
        self._queued: dict[Build, None] = {}
        self.budgets: Counter[Budget] = Counter()  # theirs
        self.now = 0.0  # seconds; what the last tick said
        self.rated = False  # some build has rates
        # What was taken of the pools for something in a queue, to be its own when it gets its place.
        self._grants: dict[Node | Demand, list[tuple[Pool, int]]] = {}
        self.holding = False  # a body that waits for others may hold on to something
        self._may_run = may_run

    def adopt(self, build: Build) -> None:
        """A build begins."""
        self.builds[build] = None
        self.budgets[build.budget] += 1
        self.rated = self.rated or bool(build.budget.rates)

    def dismiss(self, build: Build) -> None:
        """It has ended, or was left."""
        del self.builds[build]
        self._queued.pop(build, None)
        self.budgets[build.budget] -= 1
        if not self.budgets[build.budget]:
            del self.budgets[build.budget]
            self.rated = any(budget.rates for budget in self.budgets)

    # In and out of the queues --------------------------------------------------------------------------

    def queue(self, node: Node, *, first: bool = False) -> None:
        """``node`` may run as soon as there is a place for it."""
        node.state = READY
        key = (-node.priority, -node.demand.depth, -node.rank)
        build = node.build
        build.queues[node.lane].push(key, node, first=first)
        if build not in self._queued:
            self._note(build)

    def queue_answer(self, demand: Demand, node: Node) -> None:
        """The body of ``node`` may go on with the answer to ``demand`` as soon as there is a place for it."""
        node.build.queues[node.lane].push((-node.priority, ENTERED, 0), demand)
        self._note(node.build)

    def queue_retry(self, node: Node) -> None:
        """``node``, which kept its claims, may be entered again as soon as there is a place for it."""
        node.build.queues[node.lane].push((-node.priority, ENTERED, 0), node)
        self._note(node.build)

    def next(self) -> Node | Demand | None:
        """The next thing there is a place for, which it has then: a node to start, or a demand to answer."""
        queued = self._queued
        if len(self.budgets) == 1 and len(queued) > 1:
            (budget,) = self.budgets
            if budget.running >= budget.concurrency:
                return None  # whoever's turn it is
        for _ in range(len(queued)):
            build = next(iter(queued))
            if len(queued) > 1:  # the others are next
                del queued[build]
                queued[build] = None
            while not build.stopped and (queue := _first(build)) is not None:
                key = queue.keys[0]
                item: Node | Demand = queue.pop()
                if self._seated(build, key, item):
                    return item
            if len(queued) > 1 and not any(queue.keys for queue in build.queues):
                queued.pop(build, None)
        return None

    @property
    def queued(self) -> bool:
        """Whether something may wait for a place."""
        for build in self._queued:
            for queue in build.queues:
                if queue.keys:
                    return True
        return False

    def _note(self, build: Build) -> None:
        if build in self.builds:  # else it has left, and what it has is handed over
            self._queued[build] = None

    def _seated(self, build: Build, key: Key, item: Node | Demand) -> bool:
        """Give ``item`` its place, unless it is not to run any more, or there is something else it has to wait for."""
        if type(item) is Node and item.state == READY and not item.options.pooled:  # nearly all of them
            if self._may_run(item):
                self._sit(item)
                return True
            return False
        node = _able(item)
        if node is None:
            return False
        pooled = node.options.pooled
        if item is not node and node.outstanding > 1:  # it has asked for more meanwhile: it needs no place yet
            self._refuse(item)
            self.deliver(item)  # type: ignore[arg-type]
            return True
        if pooled and not self._admitted(build, key, item, node):
            return False
        if item is not node:
            self.deliver(item)  # type: ignore[arg-type]
            return True
        if node.state == READY:
            if not self._may_run(node):
                if pooled:
                    self._release(node, start=True)
                return False
        else:
            node.flags &= ~RETRYING
        if pooled:
            self._spend(node)
        self._sit(node)
        return True

    # Places --------------------------------------------------------------------------------------------

    def _sit(self, node: Node) -> None:
        node.state = RUNNING
        if node.options.hold:
            for pool, _ in _needs(node):
                pool.held.pop(node, None)
        budget = node.build.budget
        budget.running += 1
        budget.seated[node.lane] += 1

    def take(self, node: Node) -> None:
        """``node`` takes its place, and what it needs of the pools, whether there is any or not."""
        for pool, count in _needs(node, resumed=True):
            pool.free -= count
        self._sit(node)

    def give_back(self, node: Node, *, suspended: bool = False) -> None:
        """``node`` gives its place back, and what it has of the pools; while ``suspended`` it may hold some."""
        budget = node.build.budget
        budget.running -= 1
        budget.seated[node.lane] -= 1
        if node.options.pooled:
            self._release(node, suspended=suspended)

    def deliver(self, demand: Demand) -> None:
        """A body gets the answer to ``demand``; after its last one it is at work again, in the place it has got."""
        demand.state = DELIVERED
        node = demand.parent
        assert node is not None
        node.outstanding -= 1
        if not node.outstanding:
            self._sit(node)

    def move(self, node: Node, heir: Build) -> None:
        """``node`` goes from the account of its build to that of ``heir``, with its place and its times."""
        build = node.build
        at_work = node.state == RUNNING
        if at_work:
            self.give_back(node)
        times = build.times[2 * node.index : 2 * node.index + 2]
        held = [(pool, pool.held.pop(node)) for pool, _ in _needs(node) if node in pool.held]
        node.build, node.index = heir, len(heir.nodes)
        heir.nodes.append(node)
        heir.times.extend(times)
        if node in build.failures:
            heir.failures[node] = build.failures.pop(node)
        self._refuse(node, *node.children)
        for pool, count in held:
            self.refund(pool, count)
        kept = {pool.name for pool, _ in held}
        for pool, count in _needs(node):
            if at_work or pool.name in kept:
                pool.free -= count
            if pool.name in kept:
                pool.held[node] = count
        if at_work:
            self._sit(node)
        elif node.state == READY:
            self.queue(node)
        elif node.flags & RETRYING:
            self.queue_retry(node)
        for demand in node.children:
            demand.build = heir
            if demand.state == SETTLED:
                self.queue_answer(demand, node)

    # Pools ---------------------------------------------------------------------------------------------

    def _admitted(self, build: Build, key: Key, item: Node | Demand, node: Node) -> bool:
        """Take what ``node`` needs of the pools, all of it or nothing; if something is short, it waits for that."""
        if self._grants.pop(item, None) is not None:
            return True
        needs = list(_needs(node, resumed=isinstance(item, Demand), start=not isinstance(item, Demand)))
        for pool, count in needs:
            while pool.waiting.keys and _able(pool.waiting.peek()) is None:
                pool.waiting.pop()  # it was left while it waited
            # Those that wait for more than there is are not overtaken, or they would wait for ever.
            if pool.free < count or (pool.waiting.keys and pool.waiting.keys[0] <= key):
                pool.waiting.push(key, item)
                return False
        for pool, count in needs:
            pool.free -= count
        return True

    def _release(self, node: Node, *, suspended: bool = False, start: bool = False) -> None:
        """Give back what ``node`` has of the pools: all but what it holds while ``suspended``."""
        hold = node.options.hold if suspended else ()
        for pool, count in _needs(node, start=start):
            if pool.name in hold:
                pool.held[node] = count
                self.holding = True
            else:
                pool.held.pop(node, None)
                self.refund(pool, count)

    def forgo(self, node: Node) -> None:
        """``node`` has its end: what it still has of the pools is there for others."""
        self._refuse(node, *node.children)
        if node.options.hold:
            for pool, _ in _needs(node):
                count = pool.held.pop(node, 0)
                if count:
                    self.refund(pool, count)

    def _refuse(self, *items: Node | Demand) -> None:
        """What was granted to ``items`` is not theirs any more."""
        for item in items:
            for pool, count in self._grants.pop(item, ()):
                self.refund(pool, count)

    def withdraw(self, demand: Demand) -> None:
        """The body that waited for ``demand`` has left it."""
        self._refuse(demand)

    def _spend(self, node: Node) -> None:
        for name, count in node.options.rate.items():
            node.build.budget.rates[name].spent.append((self.now, count))

    def tick(self, now: float) -> None:
        """It is ``now``: refund what is due."""
        self.now = now
        for budget in self.budgets:
            for pool in budget.rates.values():
                while pool.spent and pool.spent[0][0] + pool.period <= now:
                    self.refund(pool, pool.spent.popleft()[1])

    def due(self) -> float | None:
        """When units of a rate come back that somebody waits for."""
        pools = [pool for budget in self.budgets for pool in budget.rates.values() if pool.spent and pool.waiting.keys]
        return min((pool.spent[0][0] + pool.period for pool in pools), default=None)

    def idle(self) -> Iterator[Build]:
        """The builds without a body at work, in which one that waits for others holds on to something."""
        self.holding = False
        for build in self.builds:
            pools = build.budget.pools.values()
            if any(pool.held for pool in pools):
                self.holding = True
                if not build.budget.running and any(pool.waiting.keys for pool in pools):
                    yield build

    def overtake(self, build: Build) -> bool:
        """Grant what it needs to one that waits behind others, who need what is held: nothing else will free it."""
        return any(self._grant(item, key) for pool in build.budget.pools.values() for key, item in pool.waiting)

    def _grant(self, item: Node | Demand, key: Key, *, anyway: bool = False) -> bool:
        node = _able(item)
        if node is None or item in self._grants:
            return False
        resumed = isinstance(item, Demand)
        needs = list(_needs(node, resumed=resumed, start=not resumed))
        if not anyway and any(pool.free < units for pool, units in needs):
            return False
        for pool, units in needs:
            pool.free -= units
        self._grants[item] = needs
        # Before what has not been granted anything: the units are idle until it runs.
        node.build.queues[node.lane].push((key[0], ENTERED, 0), item)
        self._note(node.build)
        return True

    def waiting(self, build: Build, nodes: set[Node]) -> tuple[Node | Demand, Node, Pool] | None:
        """The first of ``nodes`` that waits for units, as it waits, with the pool; None if none of them does."""
        for pool in build.budget.pools.values():
            for _, item in pool.waiting:
                node = _able(item)
                if node is not None and node in nodes and item not in self._grants:
                    return item, node, pool
        return None

    def let_go_on(self, demand: Demand, node: Node) -> None:
        """The body of ``node`` gets the answer to ``demand`` whether there are units for it or not."""
        self._grant(demand, (-node.priority, 0, 0), anyway=True)

    def refund(self, pool: Pool, count: int) -> None:
        """``count`` units of ``pool`` are there again: whoever waits for them is next."""
        pool.free += count
        while pool.waiting.keys:
            key = pool.waiting.keys[0]
            item = pool.waiting.peek()
            node = _able(item)
            if node is None or item in self._grants:
                pool.waiting.pop()
                continue
            resumed = isinstance(item, Demand)
            needs = _needs(node, resumed=resumed, start=not resumed)
            short = next((other for other, units in needs if other.free < units), None)
            if short is pool:
                return
            pool.waiting.pop()
            if short is not None:
                short.waiting.push(key, item)
            else:
                self._grant(item, key)


def _first(build: Build) -> Queue | None:
    """The queue that has the first of those there is a place for."""
    best: Queue | None = None
    budget = build.budget
    if budget.running < budget.concurrency:
        lane = 0
        for queue in build.queues:
            keys = queue.keys
            if keys and budget.seated[lane] < budget.lanes[lane] and (best is None or keys[0] < best.keys[0]):
                best = queue
            lane += 1  # noqa: SIM113  # enumerate() costs more than the rest
    return best


def _able(item: Node | Demand) -> Node | None:
    """The node whose body ``item`` would enter or resume; None if it is not to run any more."""
    if isinstance(item, Demand):
        return item.parent if item.state == SETTLED else None
    if item.state == READY:
        return item
    return item if item.state == SUSPENDED and item.flags & RETRYING and not item.flags & CANCELLING else None


def _needs(node: Node, *, resumed: bool = False, start: bool = False) -> Iterator[tuple[Pool, int]]:
    """The pools ``node`` takes units of: a body that is ``resumed`` has kept some, one that ``start``s needs rates."""
    options = node.options
    if options is DEFAULTS:
        return
    for name, count in options.resources.items():
        if not resumed or name not in options.hold:
            yield node.build.budget.pool(name), count
    if start:
        for name, count in options.rate.items():
            yield node.build.budget.rates[name], count
