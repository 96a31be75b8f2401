"""Bodies that hold on to units of a pool while they wait for other tasks: can what they wait for ever end?

Several may wait for each other in this way, one holding what the other's tasks need. Whether they do is found by
reduction, as for any resources with several units (Holt, "Some deadlock properties of computer systems", 1972):
let every node end that can end with what is free, take what it held as free, and go on until none is left or
none can. Those that are left never will.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .errors import PlanError
from .graph import FINAL, LOCKING, RESTING, RUNNING, SETTLED, Build, Node
from .queues import Pool

__all__ = ["impossible", "stuck"]


def stuck(builds: Iterable[Build]) -> set[Node]:
    """The nodes of ``builds``, all those of one loop, that can never end. A body at work is trusted to end.

    So is what another loop makes: a ring that leads through several loops is not found.
    """
    nodes = [node for build in builds for node in build.nodes if node.build is build]
    left = {node for node in nodes if not _trusted(node)}
    held: Counter[Pool] = Counter()
    for node in left:
        for pool, count in _held(node).items():
            held[pool] += count
    order = [node for node in reversed(nodes) if node in left]  # what is required was met later, mostly
    while True:
        ended = {node for node in order if node in left and _can_end(node, left, held)}
        if not ended:
            return left
        order = [node for node in order if node in left]


def _trusted(node: Node) -> bool:
    if node.state == LOCKING:
        return node.holder is None or node.holder.build.home is not node.build.home
    return node.state >= FINAL or node.state == RUNNING or bool(node.flags & RESTING)


def _held(node: Node) -> dict[Pool, int]:
    return {pool: pool.held[node] for name in node.options.hold if node in (pool := node.build.budget.pool(name)).held}


def _can_end(node: Node, left: set[Node], held: Counter[Pool]) -> bool:
    """Whether ``node`` can end as things are; it is taken out of ``left``, and its units out of ``held``, if so."""
    if node.holder in left or any(dep in left for dep in node.deps):
        return False
    if any(root in left for demand in node.children if demand.state < SETTLED for root in demand.roots):
        return False
    own = _held(node)
    for name, count in node.options.resources.items():
        pool = node.build.budget.pool(name)
        if pool.capacity - held[pool] + own.get(pool, 0) < count:
            return False
    left.discard(node)
    for pool, count in own.items():
        held[pool] -= count
    return True


def impossible(node: Node) -> PlanError | None:
    """What ``node`` needs of the pools and will never get."""
    budget, options = node.build.budget, node.options
    for name, count in options.resources.items():
        capacity = budget.pool(name).capacity
        if count > capacity:
            return PlanError(
                f"{node.task!r} needs {count} of the resource {name!r}, of which there is {capacity}: "
                f'give build(resources={{"{name}": {count}}}), or --resource {name}={count}'
            )
    for name, count in options.rate.items():
        if name not in budget.rates:
            return PlanError(
                f"{node.task!r} is limited by the rate {name!r}, which nobody gives: "
                f'build(rate={{"{name}": "10/s"}}), or --rate {name}=10/s'
            )
        if count > budget.rates[name].capacity:
            return PlanError(
                f"{node.task!r} takes {count} starts of the rate {name!r} at once, which gives "
                f"{budget.rates[name].capacity} in {budget.rates[name].period:g} s"
            )
    return None
